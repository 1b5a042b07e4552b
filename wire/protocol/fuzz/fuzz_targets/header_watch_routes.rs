//! The headers of a WatchRoutes request and its reply, and of the pushes that follow.

#![no_main]

use grus_protocol::message::{RoutesChanged, WatchRoutes};
use grus_protocol_fuzz::{header, request_and_reply};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    request_and_reply::<WatchRoutes>(data);
    header::<RoutesChanged>(data);
});
