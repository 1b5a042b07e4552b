//! The connection side alone, on real sockets, with friendly and hostile peers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod bounds;
mod deadlines;
mod ends;
mod hello;
mod order;
mod outgrown;
mod peers;
mod refusals;
mod support;
