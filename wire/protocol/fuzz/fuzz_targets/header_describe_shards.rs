//! The headers of a DescribeShards request and its reply.

#![no_main]

use grus_protocol::message::DescribeShards;
use grus_protocol_fuzz::request_and_reply;

libfuzzer_sys::fuzz_target!(|data: &[u8]| request_and_reply::<DescribeShards>(data));
