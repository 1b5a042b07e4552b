//! The one place that reads clocks. Everybody else is told the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use grus_protocol::ids::TimestampMs;
use rustix::time::ClockId;

/// A process's clock: wall time for what is stored, monotonic time for what is measured. Cheap
/// to copy; made once per process and handed to all.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    source: Source,
    hand: Option<ClockHand>,
}

/// Moves the wall time of a [`Clock`], as an operator or a time server does. For tests of what
/// happens then.
#[derive(Debug, Clone, Copy)]
pub struct ClockHand(&'static AtomicI64);

impl ClockHand {
    /// Moves the clock by so many milliseconds: ahead, or back.
    pub fn move_by(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Source {
    System { origin: Instant, origin_ns: u64 },
    Simulated { origin: tokio::time::Instant, start: TimestampMs },
}

impl Clock {
    /// The clocks of the operating system.
    #[must_use]
    pub fn system() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
        let origin = Instant::now();
        let source = Source::System { origin, origin_ns: system_ns(ClockId::Monotonic) };
        Self { source, hand: None }
    }

    /// The tokio clock of the current runtime, which tests pause and simulations drive; wall time
    /// begins at `start`.
    #[must_use]
    pub fn simulated(start: TimestampMs) -> Self {
        let source = Source::Simulated { origin: tokio::time::Instant::now(), start };
        Self { source, hand: None }
    }

    /// The same clock, whose wall time can be moved. The few bytes that this takes are never given
    /// back.
    #[must_use]
    pub fn with_hand(self) -> Self {
        Self { hand: Some(ClockHand(Box::leak(Box::default()))), ..self }
    }

    /// What moves its wall time, if it was made so.
    #[must_use]
    pub const fn hand(&self) -> Option<ClockHand> {
        self.hand
    }

    /// Wall time. It may jump, also backwards: never measure with it.
    pub fn now(&self) -> TimestampMs {
        let now = self.unmoved();
        let moved_ms = |hand: ClockHand| hand.0.load(Ordering::Relaxed);
        self.hand.map_or(now, |hand| TimestampMs(now.0.saturating_add_signed(moved_ms(hand))))
    }

    fn unmoved(&self) -> TimestampMs {
        match self.source {
            Source::System { .. } => {
                #[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
                let now = SystemTime::now();
                TimestampMs(to_ms(now.duration_since(UNIX_EPOCH).unwrap_or_default()))
            }
            Source::Simulated { origin, start } => {
                TimestampMs(start.0.saturating_add(to_ms(origin.elapsed())))
            }
        }
    }

    /// Milliseconds since this clock was made; never goes back.
    pub fn monotonic_ms(&self) -> u64 {
        self.monotonic_ns() / 1_000_000
    }

    /// Nanoseconds since this clock was made; never goes back. About 25 ns a call.
    pub fn monotonic_ns(&self) -> u64 {
        match self.source {
            Source::System { origin, .. } => to_ns(origin.elapsed()),
            Source::Simulated { origin, .. } => to_ns(origin.elapsed()),
        }
    }

    /// Like [`Clock::monotonic_ns`], but may lag behind it by some milliseconds (a tick of the
    /// kernel). About 5 ns a call.
    pub(crate) fn coarse_ns(&self) -> u64 {
        match self.source {
            Source::System { origin_ns, .. } => system_ns(COARSE).saturating_sub(origin_ns),
            Source::Simulated { origin, .. } => to_ns(origin.elapsed()),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const COARSE: ClockId = ClockId::Monotonic;

fn system_ns(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn to_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_simulated_clock_moves_only_with_the_runtime() {
        let clock = Clock::simulated(TimestampMs(1_000));
        assert_eq!((clock.now(), clock.monotonic_ms()), (TimestampMs(1_000), 0));
        tokio::time::advance(Duration::from_millis(250)).await;
        assert_eq!((clock.now(), clock.monotonic_ms()), (TimestampMs(1_250), 250));
        assert_eq!(clock.coarse_ns(), 250_000_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_moves_wall_time_alone() {
        let clock = Clock::simulated(TimestampMs(10_000)).with_hand();
        let copy = clock;
        let hand = clock.hand().expect("it has one");
        hand.move_by(3_600_000);
        assert_eq!((copy.now(), copy.monotonic_ms()), (TimestampMs(3_610_000), 0));
        hand.move_by(-3_605_000);
        assert_eq!((copy.now(), copy.monotonic_ms()), (TimestampMs(5_000), 0));
        assert!(Clock::simulated(TimestampMs(0)).hand().is_none());
    }

    #[test]
    fn the_coarse_clock_follows_the_fine_one() {
        let clock = Clock::system();
        while clock.coarse_ns() < 20_000_000 {
            std::hint::spin_loop();
        }
        let (coarse, fine) = (clock.coarse_ns(), clock.monotonic_ns());
        assert!(fine + 1_000_000 >= coarse, "coarse {coarse} runs ahead of {fine}");
        assert!(clock.now().0 > 1_700_000_000_000, "wall time is after 2023");
    }
}
