//! A set of offsets as ranges that neither touch nor overlap. Pure.

use std::collections::BTreeMap;

/// See the module documentation. A range is `from..to`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ranges {
    /// Its end, by the begin of each.
    ends: BTreeMap<u64, u64>,
    /// Offsets in all of them.
    covered: u64,
}

impl Ranges {
    /// How many ranges there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Offsets in all of them.
    #[must_use]
    pub const fn covered(&self) -> u64 {
        self.covered
    }

    /// The range that holds an offset.
    fn around(&self, at: u64) -> Option<(u64, u64)> {
        let (from, to) = self.ends.range(..=at).next_back()?;
        (at < *to).then_some((*from, *to))
    }

    /// Where the range that holds `at` ends.
    #[must_use]
    pub fn end_of(&self, at: u64) -> Option<u64> {
        self.around(at).map(|(_, to)| to)
    }

    /// Whether an offset is in one of them.
    #[must_use]
    pub fn contains(&self, at: u64) -> bool {
        self.around(at).is_some()
    }

    /// Whether `from..to` would join one that is there, so that there are no more of them after.
    #[must_use]
    pub fn joins(&self, from: u64, to: u64) -> bool {
        self.ends.range(..=to).next_back().is_some_and(|(_, end)| *end >= from)
    }

    /// Adds `from..to`; how many offsets of it were not there.
    pub fn insert(&mut self, from: u64, to: u64) -> u64 {
        if from >= to {
            return 0;
        }
        let (mut joined_from, mut joined_to, mut had) = (from, to, 0);
        while let Some((start, end)) = self.ends.range(..=joined_to).next_back() {
            let (start, end) = (*start, *end);
            if end < from {
                break;
            }
            had += end - start;
            joined_from = joined_from.min(start);
            joined_to = joined_to.max(end);
            self.ends.remove(&start);
        }
        self.ends.insert(joined_from, joined_to);
        let fresh = joined_to - joined_from - had;
        self.covered += fresh;
        fresh
    }

    /// Takes out all before `floor`, and the range that begins there or holds it: its end, or
    /// `floor`.
    pub fn cut_front(&mut self, floor: u64) -> u64 {
        let mut end_of_front = floor;
        while let Some((from, to)) = self.ends.first_key_value() {
            let (from, to) = (*from, *to);
            if from > end_of_front {
                break;
            }
            self.ends.pop_first();
            self.covered -= to - from;
            end_of_front = end_of_front.max(to);
        }
        end_of_front
    }

    /// Offsets of `from..to` that are in them.
    #[must_use]
    pub fn covered_within(&self, from: u64, to: u64) -> u64 {
        self.within(from, to).map(|(from, to)| to - from).sum()
    }

    /// The parts of them that lie in `from..to`, in order.
    pub fn within(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.around(from).map(|(_, end)| (from, end));
        let behind = from.saturating_add(1)..to.max(from.saturating_add(1));
        let others = self.ends.range(behind).map(|(from, end)| (*from, *end));
        let all = first.into_iter().chain(others);
        all.map(move |(start, end)| (start, end.min(to))).filter(|(start, end)| start < end)
    }

    /// The parts of `from..to` that are not in them, in order.
    pub fn gaps(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64)> {
        let mut next = from;
        let ends = std::iter::once((to, to));
        self.within(from, to).chain(ends).filter_map(move |(start, end)| {
            let gap = (next, start);
            next = next.max(end);
            (gap.0 < gap.1).then_some(gap)
        })
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ends.iter().map(|(from, to)| (*from, *to))
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.covered = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_join_where_they_touch() {
        let mut ranges = Ranges::default();
        assert_eq!(ranges.insert(5, 7), 2);
        assert_eq!(ranges.insert(9, 10), 1);
        assert!(ranges.joins(7, 9) && ranges.joins(10, 11) && ranges.joins(0, 5));
        assert!(!ranges.joins(0, 4) && !ranges.joins(11, 12));
        assert_eq!(ranges.insert(7, 9), 2);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(5, 10)]);
        assert_eq!(ranges.insert(6, 6), 0, "nothing");
        assert_eq!((ranges.cut_front(4), ranges.len()), (4, 1), "it begins behind");
        assert_eq!((ranges.cut_front(5), ranges.len()), (10, 0));
    }

    proptest! {
        #[test]
        fn ranges_are_what_a_set_of_offsets_is(
            spans in prop::collection::vec((0_u64..120, 0_u64..12), 1..60),
            (from, length) in (0_u64..130, 0_u64..60),
            floor in 0_u64..140,
        ) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (start, length) in spans {
                let joins = ranges.joins(start, start + length);
                let had = (model.len() as u64, ranges.len());
                model.extend(start..start + length);
                prop_assert_eq!(ranges.insert(start, start + length), model.len() as u64 - had.0);
                prop_assert!(length == 0 || !joins || ranges.len() <= had.1, "joined");
                prop_assert_eq!(ranges.covered(), model.len() as u64);
            }
            for at in 0..140 {
                prop_assert_eq!(ranges.contains(at), model.contains(&at));
            }
            let to = from + length;
            let within: Vec<u64> = ranges.within(from, to).flat_map(|(a, b)| a..b).collect();
            prop_assert_eq!(&within, &model.range(from..to).copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.covered_within(from, to), within.len() as u64);
            let gaps: Vec<u64> = ranges.gaps(from, to).flat_map(|(a, b)| a..b).collect();
            let holes: Vec<u64> = (from..to).filter(|at| !model.contains(at)).collect();
            prop_assert_eq!(gaps, holes);
            let mut front = floor;
            while model.contains(&front) {
                front += 1;
            }
            prop_assert_eq!(ranges.cut_front(floor), front);
            let rest: Vec<u64> = ranges.iter().flat_map(|(a, b)| a..b).collect();
            prop_assert_eq!(rest, model.range(front..).copied().collect::<Vec<_>>());
        }
    }
}
