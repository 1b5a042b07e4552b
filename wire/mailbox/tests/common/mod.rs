//! What the tests of this crate share.
#![allow(dead_code, reason = "each test file uses its part")]

use std::time::Duration;

use grus_mailbox::{Clock, Fatal, FatalPort, Place, Process};
use grus_protocol::ids::TimestampMs;
use tokio::sync::mpsc::UnboundedReceiver;

/// A process on the paused clock of the current test, and the fatals it reports.
pub fn paused_process() -> (Process, UnboundedReceiver<Fatal>) {
    tokio::time::pause();
    let (fatal, fatals) = FatalPort::channel();
    (Process::new(Clock::simulated(TimestampMs(1_000_000)), fatal), fatals)
}

/// The current thread of a process on paused time.
pub fn paused_place() -> Place {
    Place::here("test", &paused_process().0)
}

/// Lets everything that can run, run; time passes by `ms` milliseconds.
pub async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Lets everything that can run now, run.
pub async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}
