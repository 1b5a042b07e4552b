//! A hierarchical timing wheel: gives back what is due, earliest first, ties by their order.
//!
//! Time is a number of milliseconds that the caller brings along. Eleven levels of 64 slots each
//! cover all of 64 bits: a slot of level 0 is one millisecond wide, one of level 1 is 64 ms, one
//! of level 2 is 4.096 s, and so on. An item lies on the level of the highest group of six bits in
//! which its due time differs from now, in the slot which that group names. So all items of a
//! level are due after all items of the levels below it, and each level's items share every group
//! above their own with now.
//!
//! An example, with now = 0, in groups of six bits (level 2, 1, 0):
//!
//! ```text
//! put  5    = (0, 0, 5)    differs first in group 0: level 0, slot 5
//! put  70   = (0, 1, 6)    differs first in group 1: level 1, slot 1
//! put  71   = (0, 1, 7)    level 1, slot 1, beside 70
//! put  5000 = (1, 14, 8)   level 2, slot 1
//!
//! take(10): the lowest level with anything is 0, its first slot 5: 5 is given, now = 10.
//! take(70): level 0 is empty; level 1's first slot is 1, which begins at 64. It is not later than
//!           70, so now = 64 = (0, 1, 0), and the slot's items are put again: 70 to level 0, slot 6,
//!           71 to level 0, slot 7. Slot 6 is due: 70 is given. 71 stays.
//! take(5000): 71; then level 2's slot 1 begins at 4096: now = 4096, 5000 = (1, 14, 8) differs in
//!           group 1: level 1, slot 14, which begins at 4992; then level 0, slot 8: 5000 is given.
//! ```
//!
//! Each item moves down at most ten times, and empty stretches cost nothing: a bit per slot says
//! where something is. What is put with a due time that has passed is given next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

const GROUP_BITS: u32 = 6;
const SLOTS: usize = 1 << GROUP_BITS;
const SLOT_MASK: u64 = SLOTS as u64 - 1;
const LEVELS: usize = u64::BITS.div_ceil(GROUP_BITS) as usize;

#[derive(Debug)]
struct Level<T> {
    /// Bit n: slot n holds something.
    occupied: u64,
    slots: Vec<Vec<(u64, T)>>,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Wheel<T> {
    /// All that is due until now has been moved to `ready`.
    now_ms: u64,
    levels: Vec<Level<T>>,
    ready: BinaryHeap<Reverse<(u64, T)>>,
    len: usize,
}

impl<T: Ord + Copy> Wheel<T> {
    /// An empty wheel whose time is `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        let level = || Level { occupied: 0, slots: (0..SLOTS).map(|_| Vec::new()).collect() };
        let levels = (0..LEVELS).map(|_| level()).collect();
        Self { now_ms, levels, ready: BinaryHeap::new(), len: 0 }
    }

    /// Items in it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts an item in.
    pub fn put(&mut self, due_ms: u64, item: T) {
        self.len += 1;
        self.place(due_ms, item);
    }

    fn place(&mut self, due_ms: u64, item: T) {
        if due_ms <= self.now_ms {
            self.ready.push(Reverse((due_ms, item)));
            return;
        }
        let highest_bit = u64::BITS - 1 - (due_ms ^ self.now_ms).leading_zeros();
        let group = highest_bit / GROUP_BITS;
        let slot = group_of(due_ms, group);
        let level = &mut self.levels[group as usize];
        level.occupied |= 1 << slot;
        level.slots[slot].push((due_ms, item));
    }

    /// The next item that is due at `now_ms` or before, in order of (due, item).
    pub fn take(&mut self, now_ms: u64) -> Option<(u64, T)> {
        loop {
            if let Some(Reverse((due_ms, _))) = self.ready.peek()
                && *due_ms <= now_ms
            {
                self.len -= 1;
                return self.ready.pop().map(|Reverse(item)| item);
            }
            let Some((group, slot, begins_ms)) = self.first_slot().filter(|(.., at)| *at <= now_ms)
            else {
                // Every slot begins later, so all items stay where they belong.
                self.now_ms = self.now_ms.max(now_ms);
                return None;
            };
            self.now_ms = begins_ms;
            let level = &mut self.levels[group as usize];
            level.occupied &= !(1 << slot);
            for (due_ms, item) in std::mem::take(&mut level.slots[slot]) {
                self.place(due_ms, item);
            }
        }
    }

    /// No item is due before this time; `None` when there is none. The true time of the next one
    /// may be later: ask again then.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let ready = self.ready.peek().map(|Reverse((due_ms, _))| *due_ms);
        ready.or_else(|| self.first_slot().map(|(.., begins_ms)| begins_ms))
    }

    /// Level, number and begin of the first slot that holds something.
    fn first_slot(&self) -> Option<(u32, usize, u64)> {
        let (group, level) = (0..).zip(&self.levels).find(|(_, level)| level.occupied != 0)?;
        let slot = level.occupied.trailing_zeros();
        let above = (group + 1) * GROUP_BITS;
        let shared = if above >= u64::BITS { 0 } else { self.now_ms >> above << above };
        let begins_ms = shared | u64::from(slot) << (group * GROUP_BITS);
        Some((group, slot as usize, begins_ms))
    }
}

const fn group_of(time_ms: u64, group: u32) -> usize {
    (time_ms >> (group * GROUP_BITS) & SLOT_MASK) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_the_documentation() {
        let mut wheel = Wheel::new(0);
        for due_ms in [5, 70, 71, 5000] {
            wheel.put(due_ms, ());
        }
        assert_eq!(wheel.take(4), None);
        assert_eq!(wheel.take(10), Some((5, ())));
        assert_eq!(wheel.take(10), None);
        assert_eq!(wheel.next_ms(), Some(64));
        assert_eq!(wheel.take(70), Some((70, ())));
        assert_eq!(wheel.take(70), None);
        assert_eq!(wheel.next_ms(), Some(71));
        assert_eq!(wheel.take(5000), Some((71, ())));
        assert_eq!(wheel.take(5000), Some((5000, ())));
        assert_eq!((wheel.take(u64::MAX), wheel.len()), (None, 0));
    }

    #[test]
    fn the_last_millisecond_that_a_number_can_name_comes_and_not_earlier() {
        let mut wheel = Wheel::new(1_700_000_000_000);
        wheel.put(u64::MAX, 2);
        wheel.put(u64::MAX - 1, 1);
        assert_eq!(wheel.take(u64::MAX - 2), None);
        assert_eq!(wheel.take(u64::MAX - 1), Some((u64::MAX - 1, 1)));
        assert_eq!(wheel.take(u64::MAX - 1), None);
        assert_eq!(wheel.take(u64::MAX), Some((u64::MAX, 2)));
    }

    #[test]
    fn an_hour_millisecond_by_millisecond_gives_each_of_a_million_items_at_its_own() {
        const HOUR_MS: u64 = 3_600_000;
        const ITEMS: u64 = 1_000_000;
        let mut wheel = Wheel::new(0);
        for item in 0..ITEMS {
            // A stride that shares no factor with the hour spreads them without chance.
            wheel.put(item * 1_299_709 % HOUR_MS, item);
        }
        let mut given = 0;
        let mut last = (0, 0);
        for now_ms in 0..HOUR_MS {
            while let Some(item) = wheel.take(now_ms) {
                assert_eq!(item.0, now_ms, "neither early nor late");
                assert!(item > last || given == 0, "{item:?} after {last:?}");
                last = item;
                given += 1;
            }
        }
        assert_eq!((given, wheel.len()), (ITEMS, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u64),
        Go(u64),
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let spans = || (0_u32..40).prop_flat_map(|bits| 0..=1_u64 << bits);
        let step = prop_oneof![
            4 => spans().prop_map(Step::Put),
            1 => Just(Step::Put(0)),
            3 => spans().prop_map(Step::Go),
            3 => Just(Step::Take),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn the_wheel_gives_what_a_sorted_set_gives(start in 0_u64..1 << 41, steps in steps()) {
            let mut wheel = Wheel::new(start);
            let mut model = BTreeSet::new();
            let (mut now_ms, mut next) = (start, 0_u32);
            for step in steps {
                match step {
                    Step::Put(after_ms) => {
                        // Some are due before the wheel's time.
                        let due_ms = (now_ms + after_ms).saturating_sub(1_000);
                        wheel.put(due_ms, next);
                        model.insert((due_ms, next));
                        next += 1;
                    }
                    Step::Go(span_ms) => now_ms += span_ms,
                    Step::Take => {
                        let due = model.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms);
                        prop_assert_eq!(wheel.take(now_ms), due);
                        if let Some(due) = due {
                            model.remove(&due);
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let first = model.first().map(|(due_ms, _)| *due_ms);
                prop_assert_eq!(wheel.next_ms().is_some(), first.is_some());
                prop_assert!(wheel.next_ms() <= first, "woken too late");
            }
            while let Some(item) = wheel.take(u64::MAX) {
                prop_assert_eq!(model.pop_first(), Some(item));
            }
            prop_assert!(model.is_empty());
        }
    }
}
