//! How often messages were delivered by holders of a queue that have lost it. Pure.
//!
//! When a queue goes to another holder, all that was delivered and not settled counts as delivered
//! once more. That is a prefix of what is unsettled, so a number of ends says it: an offset was
//! delivered in vain as often as there are ends behind it.

use grus_protocol::ids::Offset;

/// Most different ends that are kept. Beyond, the lowest is forgotten: what lies before it counts
/// one delivery less.
pub const ENDS_MAX: usize = 64;

/// See the module documentation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    /// Ends, ascending, each with the number of times that it stands here.
    ends: Vec<(Offset, u32)>,
}

impl Attempts {
    /// All before `end` that is not settled was delivered in vain.
    pub fn add(&mut self, end: Offset) {
        match self.ends.binary_search_by_key(&end, |(end, _)| *end) {
            Ok(at) => self.ends[at].1 = self.ends[at].1.saturating_add(1),
            Err(at) => self.ends.insert(at, (end, 1)),
        }
        if self.ends.len() > ENDS_MAX {
            self.ends.remove(0);
        }
    }

    /// How often a message was delivered in vain.
    #[must_use]
    pub fn at(&self, offset: Offset) -> u32 {
        let behind = self.ends.partition_point(|(end, _)| *end <= offset);
        self.ends[behind..].iter().fold(0, |sum, (_, times)| sum.saturating_add(*times))
    }

    /// Where the number that [`Attempts::at`] gives for `offset` changes next, if it does.
    #[must_use]
    pub fn next_end(&self, offset: Offset) -> Option<Offset> {
        let behind = self.ends.partition_point(|(end, _)| *end <= offset);
        self.ends.get(behind).map(|(end, _)| *end)
    }

    /// Before this, all is settled.
    pub fn forget_before(&mut self, floor: Offset) {
        let before = self.ends.partition_point(|(end, _)| *end <= floor);
        self.ends.drain(..before);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.ends.clear();
    }

    /// All ends, ascending, each with how often it stands here.
    #[must_use]
    pub fn ends(&self) -> &[(Offset, u32)] {
        &self.ends
    }

    /// What [`Attempts::ends`] gave; none if it cannot have.
    #[must_use]
    pub fn of_ends(ends: Vec<(Offset, u32)>) -> Option<Self> {
        let ascends = ends.windows(2).all(|two| two[0].0 < two[1].0);
        let counts = ends.iter().all(|(_, times)| *times > 0);
        (ascends && counts && ends.len() <= ENDS_MAX).then_some(Self { ends })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_the_ends_behind_it() {
        let mut attempts = Attempts::default();
        for end in [10, 20, 10] {
            attempts.add(Offset(end));
        }
        let at = |offset| attempts.at(Offset(offset));
        assert_eq!((at(0), at(9), at(10), at(19), at(20)), (3, 3, 1, 1, 0));
        assert_eq!(attempts.next_end(Offset(3)), Some(Offset(10)));
        assert_eq!(attempts.next_end(Offset(10)), Some(Offset(20)));
        assert_eq!(attempts.next_end(Offset(20)), None);
        assert_eq!(Attempts::of_ends(attempts.ends().to_vec()), Some(attempts.clone()));
        attempts.forget_before(Offset(10));
        assert_eq!((attempts.at(Offset(0)), attempts.ends().len()), (1, 1));
    }

    #[test]
    fn no_more_ends_than_there_may_be_and_the_lowest_goes_first() {
        let mut attempts = Attempts::default();
        for end in 1..=ENDS_MAX as u64 + 1 {
            attempts.add(Offset(end));
        }
        assert_eq!((attempts.ends().len(), attempts.ends()[0].0), (ENDS_MAX, Offset(2)));
        let mut ends = attempts.ends().to_vec();
        ends.swap(0, 1);
        assert_eq!(Attempts::of_ends(ends), None);
    }
}
