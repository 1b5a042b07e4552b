//! When each batch of a load at a given rate is due. Plain values: no clock.
//!
//! The load is an open loop: a batch is due whether or not the one before was stored, and its time
//! counts from when it was due. So a broker that stalls is charged for all that should have been
//! sent meanwhile, not for one batch.

use std::time::Duration;

/// The rhythm of one connection of several that share a rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Seconds between two batches.
    step: f64,
    /// Seconds until the first.
    first: f64,
}

impl Pace {
    /// `rate` messages a second in batches of `batch` over `lanes` connections, of which this is
    /// number `lane`; none without a rate. The connections take turns.
    pub fn new(rate: Option<u64>, batch: usize, lanes: usize, lane: usize) -> Option<Self> {
        let all = batch as f64 / rate? as f64;
        Some(Self { step: all * lanes as f64, first: all * lane as f64 })
    }

    /// When batch `number` is due, counted from the start; both begin with 0.
    pub fn due(&self, number: u64) -> Duration {
        let seconds = self.first + self.step * number as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_and_together_keep_the_rate() {
        let lanes: Vec<_> =
            (0..4).map(|lane| Pace::new(Some(1_000), 10, 4, lane).unwrap()).collect();
        let mut due: Vec<_> =
            (0..25).flat_map(|number| lanes.iter().map(move |lane| lane.due(number))).collect();
        due.sort();
        assert_eq!(due.len(), 100);
        for (number, due) in due.into_iter().enumerate() {
            let expected = 10.0 * number as f64; // milliseconds
            assert!((due.as_secs_f64() * 1e3 - expected).abs() < 0.01, "{number}: {due:?}");
        }
    }

    #[test]
    fn without_a_rate_there_is_no_pace_and_a_slow_one_does_not_overflow() {
        assert_eq!(Pace::new(None, 10, 1, 0), None);
        let slow = Pace::new(Some(1), 1_000, 1, 0).unwrap();
        assert_eq!(slow.due(3), Duration::from_mins(50));
        assert_eq!(slow.due(u64::MAX), Duration::MAX);
    }
}
