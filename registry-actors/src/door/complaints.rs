//! How often the edge writes the same kind of line: strangers must not fill the log. Pure: time is
//! told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Lines written within one window.
const LINES_MAX: u32 = 10;
/// Length of a window, in milliseconds.
const WINDOW_MS: u64 = 10_000;

/// Counts the lines that all connections write about their peers. A clone counts with it.
#[derive(Debug, Clone, Default)]
pub struct Complaints(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Number of the window that is counted.
    window: AtomicU64,
    lines: AtomicU32,
    left_out: AtomicU64,
}

impl Complaints {
    /// Whether a line may be written at `now_ms`: if so, how many were left out since the last one.
    /// The metrics count them all.
    #[must_use]
    pub fn line(&self, now_ms: u64) -> Option<u64> {
        let counts = &*self.0;
        let window = now_ms / WINDOW_MS;
        if counts.window.swap(window, Ordering::Relaxed) != window {
            counts.lines.store(0, Ordering::Relaxed);
        }
        if counts.lines.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
            return Some(counts.left_out.swap(0, Ordering::Relaxed));
        }
        counts.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_lines_and_none_is_forgotten() {
        let complaints = Complaints::default();
        let mut written = 0;
        let mut told = 0;
        for n in 0..100_000_u64 {
            if let Some(left_out) = complaints.clone().line(n) {
                written += 1;
                told += left_out + 1;
            }
        }
        assert_eq!(written, 100);
        let last = complaints.line(200_000).unwrap();
        assert_eq!(told + last, 100_000, "each is written or counted");
    }
}
