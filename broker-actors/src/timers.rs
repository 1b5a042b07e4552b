//! Timers of a shard: messages that are stored and not yet to be seen.
//!
//! A scheduled batch lies in the log once. What its records wait for is kept in runs
//! ([`run::Content`]), in the order in which they were stored; each record is a timer, named by
//! where its batch first lay. Pure state: the machine applies entries to it, the DelayWheel reads
//! it.

mod column;
pub mod done;
mod due;
mod rows;
pub mod run;
#[cfg(test)]
mod run_tests;

/// Names a timer: the entry that first stored its message, and a place in that entry which is the
/// position of its batch plus the number of its record in the batch. Ordered as they were sent;
/// never given twice in a shard, and the same wherever the message's bytes are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimerId {
    /// Log index of the entry.
    pub index: u64,
    /// Place in the entry.
    pub place: u32,
}

impl TimerId {
    /// Before all others.
    pub const FIRST: Self = Self { index: 0, place: 0 };

    /// The timer of the record `number` of the batch whose first record has this one.
    #[must_use]
    pub const fn nth(self, number: u32) -> Self {
        Self { index: self.index, place: self.place.saturating_add(number) }
    }
}

impl std::fmt::Display for TimerId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.index, self.place)
    }
}
