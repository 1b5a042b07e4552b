//! Time as a message: at most one tick waits in an inbox, however late its actor is.

use std::time::Duration;

use grus_protocol::ids::TimestampMs;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clock::Clock;
use crate::credit::Weigh;
use crate::inbox::{Inbox, PutError};

/// It is `now`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Wall time: for what is stored.
    pub now: TimestampMs,
    /// Time since the process started: for what is measured. Never goes back.
    pub monotonic_ms: u64,
}

impl Tick {
    /// The present, by `clock`.
    #[must_use]
    pub fn of(clock: &Clock) -> Self {
        Self { now: clock.now(), monotonic_ms: clock.monotonic_ms() }
    }
}

impl Weigh for Tick {}

/// Puts a [`Tick`] into an inbox every period, until it is dropped or the actor stops. A tick that
/// finds no room is left out and never made up for, so that a stall is not followed by a burst:
/// open the inbox with a capacity of 1. An actor's own ticker is
/// [`Room::tick_every`](crate::Room::tick_every).
#[derive(Debug)]
pub struct Ticker {
    task: JoinHandle<()>,
}

impl Ticker {
    /// Starts ticking on the current thread; the first tick comes after one `period`.
    ///
    /// # Panics
    /// When `period` is zero, or outside of a local set.
    #[must_use]
    pub fn start(inbox: Inbox<Tick>, period: Duration, clock: Clock) -> Self {
        Self::run(period, move || {
            let stopped = matches!(inbox.try_put(Tick::of(&clock)), Err(PutError::Stopped(_)));
            if stopped { Beat::Stop } else { Beat::GoOn }
        })
    }

    pub(crate) fn run(period: Duration, mut beat: impl FnMut() -> Beat + 'static) -> Self {
        let task = tokio::task::spawn_local(async move {
            let start = tokio::time::Instant::now() + period;
            let mut interval = tokio::time::interval_at(start, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                if beat() == Beat::Stop {
                    break;
                }
            }
        });
        Self { task }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beat {
    GoOn,
    Stop,
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.task.abort();
    }
}
