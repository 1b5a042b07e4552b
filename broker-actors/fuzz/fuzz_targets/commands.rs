//! One item of an entry: what reads is written back as something that reads the same.

#![no_main]

use bytes::Bytes;
use grus_broker::commands::Command;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let kind = 60 + u16::from(kind % 44);
    let Ok(command) = Command::decode(kind, Bytes::copy_from_slice(rest)) else { return };
    assert_eq!(command.kind(), kind);
    let written = Bytes::from(command.encode().concat());
    assert_eq!(Command::decode(kind, written).as_ref(), Ok(&command));
});
