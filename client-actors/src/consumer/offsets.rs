//! Sets of offsets of one queue, as ranges. No clock, no I/O.

use std::collections::BTreeMap;

use grus_protocol::Offset;
use grus_protocol::message::OffsetRange;

/// Offsets, as ranges that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OffsetSet {
    /// From the first one to behind the last one.
    ranges: BTreeMap<u64, u64>,
}

impl OffsetSet {
    /// Adds all of a range.
    pub(crate) fn insert(&mut self, range: OffsetRange) {
        if range.is_empty() {
            return;
        }
        let (mut from, mut to) = (range.from.0, range.to.0);
        // Every range that begins before the end of this one and reaches its start is part of it.
        while let Some((&other_from, &other_to)) = self.ranges.range(..=to).next_back() {
            if other_to < from {
                break;
            }
            self.ranges.remove(&other_from);
            from = from.min(other_from);
            to = to.max(other_to);
        }
        self.ranges.insert(from, to);
    }

    /// Takes one out. False when it is not in.
    pub(crate) fn remove(&mut self, offset: Offset) -> bool {
        let Some((&from, &to)) = self.ranges.range(..=offset.0).next_back() else { return false };
        if to <= offset.0 {
            return false;
        }
        self.ranges.remove(&from);
        if from < offset.0 {
            self.ranges.insert(from, offset.0);
        }
        if offset.0 + 1 < to {
            self.ranges.insert(offset.0 + 1, to);
        }
        true
    }

    /// Takes out what of a range is in, in order.
    pub(crate) fn take_range(&mut self, range: OffsetRange) -> Vec<OffsetRange> {
        let (first, end) = (range.from.0, range.to.0);
        let mut taken = Vec::new();
        while first < end
            && let Some((&from, &to)) = self.ranges.range(..end).next_back()
            && first < to
        {
            self.ranges.remove(&from);
            if from < first {
                self.ranges.insert(from, first);
            }
            if end < to {
                self.ranges.insert(end, to);
            }
            let (from, to) = (Offset(from.max(first)), Offset(to.min(end)));
            taken.push(OffsetRange { from, to });
        }
        taken.reverse();
        taken
    }

    /// Whether it is in.
    pub(crate) fn contains(&self, offset: Offset) -> bool {
        self.ranges.range(..=offset.0).next_back().is_some_and(|(_, to)| offset.0 < *to)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges there are.
    #[cfg(test)]
    pub(crate) fn ranges_len(&self) -> usize {
        self.ranges.len()
    }

    /// The ranges, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = OffsetRange> {
        self.ranges.iter().map(|(from, to)| OffsetRange { from: Offset(*from), to: Offset(*to) })
    }

    /// Adds all of another set.
    pub(crate) fn extend(&mut self, other: &Self) {
        other.ranges().for_each(|range| self.insert(range));
    }

    /// The first `ranges_max` ranges, which are out then.
    pub(crate) fn take(&mut self, ranges_max: usize) -> Self {
        match self.ranges.keys().nth(ranges_max).copied() {
            None => std::mem::take(self),
            Some(first_left) => {
                let left = self.ranges.split_off(&first_left);
                Self { ranges: std::mem::replace(&mut self.ranges, left) }
            }
        }
    }

    /// What of a range is not in, in order.
    pub(crate) fn missing_of(&self, range: OffsetRange) -> Vec<OffsetRange> {
        let mut missing = Vec::new();
        let mut next = range.from.0;
        let before = self.ranges.range(..=range.from.0).next_back();
        let within = self.ranges.range(range.from.0..range.to.0.max(range.from.0));
        for (&from, &to) in before.into_iter().chain(within) {
            if from > next {
                let gap = OffsetRange { from: Offset(next), to: Offset(from.min(range.to.0)) };
                missing.push(gap);
            }
            next = next.max(to);
        }
        if next < range.to.0 {
            missing.push(OffsetRange { from: Offset(next), to: range.to });
        }
        missing
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn range(from: u64, to: u64) -> OffsetRange {
        OffsetRange { from: Offset(from), to: Offset(to) }
    }

    fn numbers(set: &OffsetSet) -> BTreeSet<u64> {
        set.ranges().flat_map(|range| range.numbers()).collect()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64, u64),
        Remove(u64),
        Take(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..40_u64, 0..8_u64).prop_map(|(from, count)| Step::Insert(from, count)),
            (0..48_u64).prop_map(Step::Remove),
            (0..4_usize).prop_map(Step::Take),
        ]
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_it_stands_for(
            steps in vec(step(), 0..40), from in 0..50_u64, count in 0..20_u64,
        ) {
            let (mut set, mut model) = (OffsetSet::default(), BTreeSet::new());
            for step in steps {
                match step {
                    Step::Insert(from, count) => {
                        set.insert(range(from, from + count));
                        model.extend(from..from + count);
                    }
                    Step::Remove(offset) => {
                        prop_assert_eq!(set.remove(Offset(offset)), model.remove(&offset));
                    }
                    Step::Take(most) => {
                        let before = set.ranges_len();
                        let taken = set.take(most);
                        prop_assert_eq!(taken.ranges_len(), most.min(before));
                        let taken = numbers(&taken);
                        prop_assert!(taken.is_subset(&model));
                        model.retain(|offset| !taken.contains(offset));
                    }
                }
                prop_assert_eq!(&numbers(&set), &model);
                let ends: Vec<_> = set.ranges().flat_map(|one| [one.from.0, one.to.0]).collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "they do not touch");
            }
            let missing = set.missing_of(range(from, from + count));
            let missing: Vec<_> = missing.into_iter().flat_map(|one| one.numbers()).collect();
            let expected: Vec<_> =
                (from..from + count).filter(|offset| !model.contains(offset)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
    }
}
