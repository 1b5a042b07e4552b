//! The header of a GroupDeliver push.

#![no_main]

use grus_protocol::message::GroupDeliver;
use grus_protocol_fuzz::header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| header::<GroupDeliver>(data));
