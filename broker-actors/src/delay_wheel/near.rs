//! Which timers are near: those in the wheel, and where the next ones come from.
//!
//! Timers lie in runs, far more of them than belong into memory twice. The wheel holds those that
//! are due within [`HORIZON_MS`], at most about [`NEAR_MAX`]. The rest is found by merging the runs by due
//! time: a heap knows for each run a time before which nothing of it is due, and a run is sorted when
//! that time comes near. `loaded` is how far the merge has come, in order of (due time, timer). What
//! is stored from then on goes into the wheel when it lies before that, else into `young`, until that
//! is large and the heap is made anew. A wheel that has become twice as full as it should be by what was
//! stored for before `loaded` is emptied, and the merge begins again with the earliest. Plain state; the same
//! when it is made anew from the runs.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use grus_protocol::ids::TimestampMs;

use super::wheel::Wheel;
use crate::machine::timers::{DueTimer, Timers};
use crate::timers::TimerId;

/// Timers that are due within this are put into the wheel.
pub const HORIZON_MS: u64 = 60_000;
/// With so many in the wheel, no more are put in ahead of their time.
pub const NEAR_MAX: usize = 65_536;
/// Timers stored lately that are kept apart from their runs.
const YOUNG_MAX: usize = 8_192;
/// Timers put into the wheel in one turn: some 300 us.
const LOADED_PER_TURN_MAX: usize = 2_048;
/// Runs sorted in one turn, some 100 us each.
const SORTED_PER_TURN_MAX: usize = 3;

/// Where timers are found by due time.
pub trait Runs {
    /// Each run with a time before which nothing of it is due.
    fn bounds(&self) -> Vec<(TimerId, TimestampMs)>;
    /// The first pending timer of a run behind `after`.
    fn next(&mut self, run: TimerId, after: DueTimer) -> Option<DueTimer>;
    /// Whether asking for it takes long at first.
    fn is_unsorted(&self, run: TimerId) -> bool;
}

impl Runs for Timers {
    fn bounds(&self) -> Vec<(TimerId, TimestampMs)> {
        self.runs_behind(None).collect()
    }

    fn next(&mut self, run: TimerId, after: DueTimer) -> Option<DueTimer> {
        self.next_due(run, after)
    }

    fn is_unsorted(&self, run: TimerId) -> bool {
        Timers::is_unsorted(self, run)
    }
}

/// See the module documentation.
#[derive(Debug)]
pub struct Near {
    wheel: Wheel<TimerId>,
    heads: BinaryHeap<Reverse<(TimestampMs, TimerId)>>,
    young: BTreeSet<DueTimer>,
    /// All up to this one are in the wheel, or were.
    loaded: DueTimer,
}

impl Near {
    /// Begins at `now` with all that the runs hold.
    #[must_use]
    pub fn new(now: TimestampMs, runs: &impl Runs) -> Self {
        let mut near = Self {
            wheel: Wheel::new(now.0),
            heads: BinaryHeap::new(),
            young: BTreeSet::new(),
            loaded: (TimestampMs(0), TimerId::FIRST),
        };
        near.look_at_all(runs);
        near
    }

    fn look_at_all(&mut self, runs: &impl Runs) {
        self.young.clear();
        let due = |bound: TimestampMs| bound.max(self.loaded.0);
        self.heads =
            runs.bounds().into_iter().map(|(run, bound)| Reverse((due(bound), run))).collect();
    }

    /// A timer was stored.
    pub fn add(&mut self, timer: DueTimer) {
        if timer <= self.loaded {
            self.wheel.put(timer.0.0, timer.1);
        } else {
            self.young.insert(timer);
        }
    }

    /// A timer that was taken and is still pending.
    pub fn put_back(&mut self, timer: DueTimer) {
        self.wheel.put(timer.0.0, timer.1);
    }

    /// Puts what is near into the wheel. True when there is more to do.
    pub fn load(&mut self, now: TimestampMs, runs: &mut impl Runs) -> bool {
        if self.wheel.len() > 2 * NEAR_MAX {
            *self = Self::new(now, runs);
        } else if self.young.len() > YOUNG_MAX {
            self.look_at_all(runs);
        }
        let horizon = TimestampMs(now.0.saturating_add(HORIZON_MS));
        let mut sorted = 0;
        for _ in 0..LOADED_PER_TURN_MAX {
            let head = self.heads.peek().map(|Reverse(head)| *head);
            let young = self.young.first().copied();
            let is_young = match (young, head) {
                (Some(young), Some(head)) => young < head,
                (young, _) => young.is_some(),
            };
            let next = if is_young { young } else { head };
            if next.is_none_or(|(due, _)| due > horizon) || self.wheel.len() >= NEAR_MAX {
                return false;
            }
            if let (true, Some(young)) = (is_young, young) {
                self.young.pop_first();
                self.put(young);
            } else if let Some((bound, run)) = head {
                if runs.is_unsorted(run) {
                    sorted += 1;
                    if sorted > SORTED_PER_TURN_MAX {
                        return true;
                    }
                }
                self.heads.pop();
                let Some(next) = runs.next(run, self.loaded) else { continue };
                self.heads.push(Reverse((next.0, run)));
                if next.0 == bound {
                    self.put(next);
                }
            }
        }
        true
    }

    fn put(&mut self, timer: DueTimer) {
        if timer > self.loaded {
            self.loaded = timer;
            self.wheel.put(timer.0.0, timer.1);
        }
    }

    /// The next timer that is due.
    pub fn take(&mut self, now: TimestampMs) -> Option<DueTimer> {
        self.wheel.take(now.0).map(|(due_ms, timer)| (TimestampMs(due_ms), timer))
    }

    /// No timer in the wheel is due before this time. None when it is empty.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        self.wheel.next_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Runs as plain sets.
    #[derive(Debug, Default)]
    struct Sets {
        runs: BTreeMap<TimerId, BTreeSet<DueTimer>>,
        sorted: BTreeSet<TimerId>,
    }

    impl Sets {
        fn store(&mut self, due: u64, id: u64, run_length: u64) -> DueTimer {
            let name = |index| TimerId { index, place: 0 };
            let run = self.runs.entry(name(id / run_length * run_length)).or_default();
            run.insert((TimestampMs(due), name(id)));
            (TimestampMs(due), name(id))
        }

        fn finish(&mut self, timer: DueTimer) {
            self.runs.retain(|_, run| {
                run.remove(&timer);
                !run.is_empty()
            });
        }

        fn first(&self) -> Option<DueTimer> {
            self.runs.values().filter_map(BTreeSet::first).min().copied()
        }
    }

    impl Runs for Sets {
        fn bounds(&self) -> Vec<(TimerId, TimestampMs)> {
            // Bounds may be low, as after timers are over.
            let low = |run: &BTreeSet<DueTimer>| TimestampMs(run.first().unwrap().0.0 / 2);
            self.runs.iter().map(|(name, run)| (*name, low(run))).collect()
        }

        fn next(&mut self, run: TimerId, after: DueTimer) -> Option<DueTimer> {
            self.sorted.insert(run);
            let behind = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            self.runs.get(&run)?.range(behind).next().copied()
        }

        fn is_unsorted(&self, run: TimerId) -> bool {
            !self.sorted.contains(&run)
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Store(u64),
        Recall(prop::sample::Index),
        Later(u64),
        Turn,
        Rebuild,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let due = prop_oneof![0_u64..50, 0_u64..200_000, Just(0_u64)];
        let step = prop_oneof![
            8 => due.prop_map(Step::Store),
            1 => any::<prop::sample::Index>().prop_map(Step::Recall),
            2 => prop_oneof![0_u64..30, 0_u64..90_000].prop_map(Step::Later),
            4 => Just(Step::Turn),
            1 => Just(Step::Rebuild),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn timers_come_when_they_are_due_in_order_and_once(
            steps in steps(), before in prop::collection::vec(0_u64..200_000, 0..40), run_length in 1_u64..9,
        ) {
            let mut now = TimestampMs(100_000);
            let (mut sets, mut next) = (Sets::default(), 1);
            for due in before {
                sets.store(due, next, run_length);
                next += 1;
            }
            let mut near = Near::new(now, &sets);
            for step in steps {
                match step {
                    Step::Store(after) => {
                        near.add(sets.store((now.0 + after).saturating_sub(10), next, run_length));
                        next += 1;
                    }
                    Step::Recall(which) => {
                        let all: Vec<DueTimer> = sets.runs.values().flatten().copied().collect();
                        if !all.is_empty() {
                            sets.finish(all[which.index(all.len())]);
                        }
                    }
                    Step::Later(ms) => now.0 += ms,
                    Step::Rebuild => near = Near::new(now, &sets),
                    Step::Turn => {
                        while near.load(now, &mut sets) {}
                        while let Some(timer) = near.take(now) {
                            // One that was taken back comes, too, and is left out.
                            let is_pending = sets.runs.values().any(|run| run.contains(&timer));
                            if is_pending {
                                prop_assert_eq!(sets.first(), Some(timer));
                                sets.finish(timer);
                            }
                        }
                        let left = sets.first().filter(|(due, _)| *due <= now);
                        prop_assert_eq!(left, None, "due at {:?} and not given", now);
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_stored_for_before_the_last_that_was_loaded_does_not_fill_the_wheel_for_ever() {
        let (mut sets, now) = (Sets::default(), TimestampMs(0));
        sets.store(HORIZON_MS, 1, 4_096);
        let mut near = Near::new(now, &sets);
        while near.load(now, &mut sets) {}
        let many = NEAR_MAX as u64 * 5;
        for id in 0..many {
            near.add(sets.store(id * 7 % HORIZON_MS, 2 + id, 4_096));
            while near.load(now, &mut sets) {}
            assert!(near.wheel.len() <= 2 * NEAR_MAX, "{} of them", near.wheel.len());
        }
        let (mut given, mut last) = (0, (TimestampMs(0), TimerId::FIRST));
        let end = TimestampMs(HORIZON_MS);
        loop {
            while near.load(end, &mut sets) {}
            let Some(timer) = near.take(end) else { break };
            assert!(timer > last);
            (last, given) = (timer, given + 1);
        }
        assert_eq!(given, many + 1);
    }

    #[test]
    fn more_than_the_wheel_may_hold_is_given_in_order_all_the_same() {
        let mut sets = Sets::default();
        let many = NEAR_MAX as u64 * 2;
        for id in 0..many {
            sets.store(1_000 + id % 7, 1 + id, 4_096);
        }
        let mut near = Near::new(TimestampMs(0), &sets);
        let (mut given, mut last) = (0, (TimestampMs(0), TimerId::FIRST));
        loop {
            while near.load(TimestampMs(5_000), &mut sets) {}
            assert!(near.wheel.len() <= NEAR_MAX);
            let Some(timer) = near.take(TimestampMs(5_000)) else { break };
            assert!(timer > last);
            (last, given) = (timer, given + 1);
        }
        assert_eq!(given, many);
    }
}
