//! How time passes for the groups of a shard. Pure.

use std::cell::Cell;

/// Two ticks of a shard that lie farther apart than this: the process, or its machine, stood still.
const STALL_MS: u64 = 1_500;

/// How time passes for the groups of a shard: while nothing is done here, no member can be heard, and
/// that is not its fault.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    ticked_ms: Cell<u64>,
    stalled_ms: Cell<u64>,
}

impl Pace {
    /// The shard looks at the time; how long it could not, if that was long.
    pub(crate) fn tick(&self, now_ms: u64) -> Option<u64> {
        let before_ms = self.ticked_ms.replace(now_ms);
        let passed_ms = now_ms.saturating_sub(before_ms);
        if before_ms == 0 || passed_ms <= STALL_MS {
            return None;
        }
        self.stalled_ms.set(self.stalled_ms.get() + passed_ms);
        Some(passed_ms)
    }

    /// How long nobody could be heard, all in all, in milliseconds.
    pub(super) fn stalled_ms(&self) -> u64 {
        self.stalled_ms.get()
    }

    /// Whether the shard may just have stood still, and has not looked at the time since.
    pub(super) fn is_behind(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.ticked_ms.get()) > STALL_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_time_between_two_ticks_is_a_stall() {
        let pace = Pace::default();
        assert_eq!(pace.tick(5_000), None, "the first one");
        assert_eq!((pace.tick(5_100), pace.is_behind(6_600)), (None, false));
        assert!(pace.is_behind(6_601), "whatever is asked first waits for the tick");
        assert_eq!((pace.tick(9_000), pace.stalled_ms()), (Some(3_900), 3_900));
        assert!(!pace.is_behind(9_000));
    }
}
