//! The header of a Deliver push.

#![no_main]

use grus_protocol::message::Deliver;
use grus_protocol_fuzz::header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| header::<Deliver>(data));
