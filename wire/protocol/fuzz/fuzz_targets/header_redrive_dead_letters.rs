//! The headers of a RedriveDeadLetters request and its reply.

#![no_main]

use grus_protocol::message::RedriveDeadLetters;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<RedriveDeadLetters>(data));
