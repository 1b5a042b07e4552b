//! A second decoder, written from docs/PROTOCOL.md alone: it uses nothing of the crate and reads
//! the golden bytes. What it cannot read, a stranger's client could not either.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod batches;
mod decoder;
mod errors;
mod groups;
mod peers;
mod requests;
mod scheduled;
mod topics;

/// When the golden messages were born.
const BORN: u64 = 1_700_000_000_123;
/// The correlation of a golden request is this and its opcode.
const CORRELATION: u64 = 0x0102_0304_0506_0700;
