//! The headers of a ListGroups request and its reply.

#![no_main]

use grus_protocol::message::ListGroups;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<ListGroups>(data));
