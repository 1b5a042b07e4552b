//! The headers of a GroupHeartbeat request and its reply.

#![no_main]

use grus_protocol::message::GroupHeartbeat;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<GroupHeartbeat>(data));
