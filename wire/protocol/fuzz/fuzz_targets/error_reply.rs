//! The header of an error reply, with its details.

#![no_main]

use grus_protocol::ErrorReply;
use grus_protocol_fuzz::header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| header::<ErrorReply>(data));
