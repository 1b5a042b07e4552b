//! The one place of the harness that reads a clock.

use std::time::{Duration, Instant};

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
