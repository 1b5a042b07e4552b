//! When an actor that panicked is rebuilt, and when the process gives up. Plain state.

use std::collections::VecDeque;

/// The first restart of a window comes at once, later ones wait: doubling from here.
pub const RESTART_DELAY_MS_FIRST: u64 = 10;
/// The longest wait before a restart.
pub const RESTART_DELAY_MS_MAX: u64 = 1_000;

/// What becomes of an actor that panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Rebuilt from its factory, in place: its mailbox and inboxes stay.
    Rebuild {
        /// Most restarts within the window; one more ends the process.
        restarts_max: u32,
        /// Length of the window in milliseconds.
        window_ms: u64,
    },
    /// The process ends: for what must never go on after a panic (Storage, Flush, consensus).
    Never,
}

impl Default for RestartPolicy {
    /// 8 restarts within a minute.
    fn default() -> Self {
        Self::Rebuild { restarts_max: 8, window_ms: 60_000 }
    }
}

/// What to do about one panic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    RebuildIn { delay_ms: u64 },
    NeverRestarts,
    LimitReached,
}

/// The panics of one actor within its window.
#[derive(Debug)]
pub(crate) struct RestartHistory {
    policy: RestartPolicy,
    at_ms: VecDeque<u64>,
}

impl RestartHistory {
    pub(crate) fn new(policy: RestartPolicy) -> Self {
        Self { policy, at_ms: VecDeque::new() }
    }

    /// Counts a panic at `now_ms` (monotonic).
    pub(crate) fn panicked(&mut self, now_ms: u64) -> Verdict {
        let RestartPolicy::Rebuild { restarts_max, window_ms } = self.policy else {
            return Verdict::NeverRestarts;
        };
        self.at_ms.retain(|at| now_ms.saturating_sub(*at) < window_ms);
        if self.at_ms.len() >= restarts_max as usize {
            return Verdict::LimitReached;
        }
        let before = u32::try_from(self.at_ms.len()).unwrap_or(u32::MAX);
        self.at_ms.push_back(now_ms);
        let delay_ms = match before {
            0 => 0,
            n => RESTART_DELAY_MS_FIRST.saturating_mul(1 << (n - 1).min(16)),
        };
        Verdict::RebuildIn { delay_ms: delay_ms.min(RESTART_DELAY_MS_MAX) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_slow_down_and_then_end() {
        let policy = RestartPolicy::Rebuild { restarts_max: 10, window_ms: 60_000 };
        let mut history = RestartHistory::new(policy);
        let delays: Vec<_> = (0..11).map(|n| history.panicked(n)).collect();
        let expected: Vec<_> = [0, 10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]
            .map(|delay_ms| Verdict::RebuildIn { delay_ms })
            .into_iter()
            .chain([Verdict::LimitReached])
            .collect();
        assert_eq!(delays, expected);
    }

    #[test]
    fn old_panics_are_forgotten() {
        let policy = RestartPolicy::Rebuild { restarts_max: 1, window_ms: 100 };
        let mut history = RestartHistory::new(policy);
        assert_eq!(history.panicked(0), Verdict::RebuildIn { delay_ms: 0 });
        assert_eq!(history.panicked(99), Verdict::LimitReached);
        assert_eq!(history.panicked(100), Verdict::RebuildIn { delay_ms: 0 });
    }

    #[test]
    fn never_is_never() {
        let mut history = RestartHistory::new(RestartPolicy::Never);
        assert_eq!(history.panicked(0), Verdict::NeverRestarts);
    }
}
