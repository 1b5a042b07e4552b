//! The headers of a HandOverShards request and its reply.

#![no_main]

use grus_protocol::message::HandOverShards;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<HandOverShards>(data));
