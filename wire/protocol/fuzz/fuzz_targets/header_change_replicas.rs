//! The headers of a ChangeReplicas request and its reply.

#![no_main]

use grus_protocol::message::ChangeReplicas;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<ChangeReplicas>(data));
