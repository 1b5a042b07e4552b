//! Looks over all timers of a shard, some runs at a time: pages, counts, numbers.

use std::collections::BinaryHeap;
use std::ops::{Bound, RangeBounds};

use grus_protocol::ids::TimestampMs;

use super::messages::{DUE_BUCKETS_MS, DelayFilter};
use crate::machine::timers::{DueTimer, Timers};
use crate::timers::TimerId;
use crate::timers::run::RUN_TIMERS_MAX;

/// Timers looked at in one step: some 300 us.
const TIMERS_PER_STEP_MAX: usize = 8 * RUN_TIMERS_MAX;

/// What is looked for.
#[derive(Debug)]
pub enum Wanted {
    /// The first so many behind a timer.
    Page {
        /// Behind this one.
        after: Option<DueTimer>,
        /// So many.
        messages_max: usize,
    },
    /// How many there are.
    Count,
    /// How many are due when, seen from this time.
    Histogram {
        /// This time.
        now: TimestampMs,
    },
}

/// A look at all timers of a shard.
#[derive(Debug)]
pub struct Listing {
    filter: DelayFilter,
    wanted: Wanted,
    cursor: Option<TimerId>,
    /// The best found, the last of them on top.
    best: BinaryHeap<DueTimer>,
    count: u64,
    oldest: Option<TimestampMs>,
    histogram: [u64; DUE_BUCKETS_MS.len() + 1],
}

impl Listing {
    /// Looks for what the filter takes.
    #[must_use]
    pub fn new(filter: DelayFilter, wanted: Wanted) -> Self {
        let (best, histogram) = (BinaryHeap::new(), [0; DUE_BUCKETS_MS.len() + 1]);
        Self { filter, wanted, cursor: None, best, count: 0, oldest: None, histogram }
    }

    /// Looks at some more; true when it has seen all.
    pub fn step(&mut self, timers: &Timers) -> bool {
        let mut looked_at = 0;
        for (run, min_due) in timers.runs_behind(self.cursor) {
            if looked_at >= TIMERS_PER_STEP_MAX {
                return false;
            }
            self.cursor = Some(run);
            let (_, until) = self.filter.dues();
            let is_behind = !(Bound::Unbounded, until).contains(&min_due);
            if is_behind || self.is_beyond(min_due) {
                looked_at += 1;
                continue;
            }
            looked_at += timers.len_of(run);
            if let Wanted::Histogram { now } = self.wanted {
                timers.dues_of(run).for_each(|due| self.count_due(due, now));
                continue;
            }
            for timer in timers.due_in(run, self.filter.dues()) {
                if self.filter.takes(&timer) {
                    self.found((timer.due, timer.id));
                }
            }
        }
        true
    }

    /// Whether what is due at `due` or later cannot be on the page any more.
    fn is_beyond(&self, due: TimestampMs) -> bool {
        match self.wanted {
            Wanted::Page { messages_max, .. } => {
                self.best.len() >= messages_max && self.best.peek().is_some_and(|last| last.0 < due)
            }
            _ => false,
        }
    }

    fn found(&mut self, timer: DueTimer) {
        match self.wanted {
            Wanted::Page { after, messages_max } => {
                if after.is_some_and(|after| timer <= after) {
                    return;
                }
                self.best.push(timer);
                if self.best.len() > messages_max {
                    self.best.pop();
                }
            }
            Wanted::Count => self.count += 1,
            Wanted::Histogram { now } => self.count_due(timer.0, now),
        }
    }

    fn count_due(&mut self, due: TimestampMs, now: TimestampMs) {
        self.oldest = Some(self.oldest.map_or(due, |oldest| oldest.min(due)));
        let ahead_ms = due.0.saturating_sub(now.0);
        self.histogram[DUE_BUCKETS_MS.partition_point(|bound| *bound < ahead_ms)] += 1;
    }

    /// The page, earliest first, and whether there may be more behind it.
    #[must_use]
    pub fn into_page(self) -> (Vec<DueTimer>, bool) {
        let Wanted::Page { messages_max, .. } = self.wanted else { return (Vec::new(), false) };
        let is_full = self.best.len() >= messages_max;
        (self.best.into_sorted_vec(), is_full)
    }

    /// How many were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// How many are due when, and the earliest due time.
    #[must_use]
    pub const fn histogram(&self) -> ([u64; DUE_BUCKETS_MS.len() + 1], Option<TimestampMs>) {
        (self.histogram, self.oldest)
    }
}
