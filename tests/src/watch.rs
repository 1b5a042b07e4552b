//! The one place of the harness that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longest that anything may keep a test waiting that comes at all, on a machine that is busy with other
/// tests: so long that whoever waits for it may look away for a while.
pub const PATIENCE: Duration = Duration::from_mins(3);

/// How long something took, or may still take.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    started: Instant,
}

impl Watch {
    /// Starts now.
    #[expect(clippy::disallowed_methods, reason = "the one clock of the harness")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What is left of `limit`; zero when nothing is.
    pub fn left(&self, limit: Duration) -> Duration {
        limit.saturating_sub(self.elapsed())
    }
}

/// Wall time in microseconds since 1970, as a broker on the same machine has it.
#[expect(clippy::disallowed_methods, reason = "due times are wall times")]
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_micros()).expect("it is before the year 500 thousand")
}

/// The same in milliseconds.
pub fn wall_ms() -> u64 {
    wall_us() / 1_000
}
