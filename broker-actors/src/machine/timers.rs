//! Scheduled messages in the state: stored, released, recalled, carried on.
//!
//! A run and its bits are two parts of the state ([`PartKey::TimerRun`](super::part::PartKey::TimerRun) and `TimerDone`). A
//! run whose timers are all over goes; one of which half is over is written anew without the
//! batches that are over, so memory follows what is pending.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use grus_protocol::ids::{QueueKey, TimestampMs, TopicId};

use super::Machine;
use super::digest::Tracked;
use crate::timers::TimerId;
use crate::timers::done::Done;
use crate::timers::run::{Content, Timer};

mod apply;

/// New timers told to the DelayWheel at once; when it has not asked for longer, it looks at all.
const FRESH_MAX: usize = 100_000;

/// When a timer is due, and which: the order in which messages are released.
pub type DueTimer = (TimestampMs, TimerId);

/// A run as it is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) content: Tracked<Content>,
    pub(super) done: Tracked<Done>,
    /// Positions by due time, once somebody has asked.
    order: Option<Box<[u16]>>,
    /// No timer of it is due earlier.
    min_due: TimestampMs,
    /// Of all its batches.
    bytes: u64,
    /// Where its batches lie that are needed, once somebody has asked since one came or was carried on.
    reach: OnceCell<Option<(u64, u64)>>,
}

impl Held {
    fn new(content: Tracked<Content>) -> Self {
        let (min_due, bytes) = (content.get().min_due(), content.get().bytes());
        let (done, reach) = (Tracked::saved(Done::default(), 0), OnceCell::new());
        Self { bytes, content, done, order: None, min_due, reach }
    }

    /// No batch with a pending timer lies in an entry before the first of these, or behind the second.
    fn reach(&self) -> Option<(u64, u64)> {
        *self.reach.get_or_init(|| self.content.get().reach(self.done.get()))
    }

    fn pending(&self) -> usize {
        self.content.get().len() - self.done.get().count()
    }

    /// The timer, if it is pending.
    fn pending_timer(&self, id: TimerId) -> Option<(usize, Timer)> {
        let position = self.content.get().find(id)?;
        let pending = !self.done.get().contains(position);
        pending.then(|| (position, self.content.get().timer(position)))
    }

    fn timers(&self) -> impl Iterator<Item = Timer> + '_ {
        let (content, done) = (self.content.get(), self.done.get());
        content.timers_at((0..content.len()).filter(|position| !done.contains(*position)))
    }
}

/// What was stored since the DelayWheel last asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Fresh {
    /// Nobody has asked yet, or too long ago: all is to be looked at.
    #[default]
    Unknown,
    /// These.
    Timers(Vec<DueTimer>),
}

/// All timers of a shard.
#[derive(Debug, Default)]
pub struct Timers {
    /// By the first timer of each.
    pub(super) runs: BTreeMap<TimerId, Held>,
    pending: usize,
    by_topic: BTreeMap<TopicId, u64>,
    fresh: Fresh,
}

impl Timers {
    /// How many are pending.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// How many are pending, by topic.
    pub fn by_topic(&self) -> impl Iterator<Item = (TopicId, u64)> + '_ {
        self.by_topic.iter().map(|(topic, count)| (*topic, *count))
    }

    /// A timer that is pending.
    #[must_use]
    pub fn get(&self, id: TimerId) -> Option<Timer> {
        let (_, held) = self.runs.range(..=id).next_back()?;
        held.pending_timer(id).map(|(_, timer)| timer)
    }

    /// Names of the runs behind `after`, in order, each with a time before which nothing of it is
    /// due.
    pub fn runs_behind(
        &self,
        after: Option<TimerId>,
    ) -> impl Iterator<Item = (TimerId, TimestampMs)> + '_ {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.runs.range((from, Bound::Unbounded)).map(|(run, held)| (*run, held.min_due))
    }

    /// The pending timers of a run, in the order they were stored. None if there is no such run.
    pub fn timers_of(&self, run: TimerId) -> impl Iterator<Item = Timer> + '_ {
        self.runs.get(&run).into_iter().flat_map(Held::timers)
    }

    /// Timers of a run, over or not. 0 if there is no such run.
    #[must_use]
    pub fn len_of(&self, run: TimerId) -> usize {
        self.runs.get(&run).map_or(0, |held| held.content.get().len())
    }

    /// The pending timers of a run that are due within `range`, in the order they were stored.
    pub fn due_in(
        &self,
        run: TimerId,
        range: (Bound<TimestampMs>, Bound<TimestampMs>),
    ) -> impl Iterator<Item = Timer> + '_ {
        self.runs.get(&run).into_iter().flat_map(move |held| {
            let (content, done) = (held.content.get(), held.done.get());
            let due = (0..content.len()).filter(move |at| range.contains(&content.due(*at)));
            content.timers_at(due.filter(|position| !done.contains(*position)))
        })
    }

    /// When the pending timers of a run are due, in the order they were stored.
    pub fn dues_of(&self, run: TimerId) -> impl Iterator<Item = TimestampMs> + '_ {
        self.runs.get(&run).into_iter().flat_map(|held| {
            let (content, done) = (held.content.get(), held.done.get());
            let pending = (0..content.len()).filter(|position| !done.contains(*position));
            pending.map(|position| content.due(position))
        })
    }

    /// The first pending timer of a run behind `after`, by due time. Sorts the run at first:
    /// some 100 us.
    pub fn next_due(&mut self, run: TimerId, after: DueTimer) -> Option<DueTimer> {
        let held = self.runs.get_mut(&run)?;
        let content = held.content.get();
        let order = held.order.get_or_insert_with(|| content.sorted());
        // Ties come by position, as they were stored: a name is looked up once and not for each.
        let (after, behind) = (after.0, content.rank(after.1));
        let from = order.partition_point(|position| {
            let position = usize::from(*position);
            (content.due(position), position) < (after, behind)
        });
        let done = held.done.get();
        let mut positions = order[from..].iter().map(|position| usize::from(*position));
        let next = positions.find(|position| !done.contains(*position))?;
        Some((content.due(next), content.timer(next).id))
    }

    /// Whether [`Timers::next_due`] would have to sort this run.
    #[must_use]
    pub fn is_unsorted(&self, run: TimerId) -> bool {
        self.runs.get(&run).is_some_and(|held| held.order.is_none())
    }

    /// What was stored since the last call, and from here on.
    pub fn take_fresh(&mut self) -> Fresh {
        std::mem::replace(&mut self.fresh, Fresh::Timers(Vec::new()))
    }

    /// Whether [`Timers::take_fresh`] has something.
    #[must_use]
    pub fn has_fresh(&self) -> bool {
        !matches!(&self.fresh, Fresh::Timers(timers) if timers.is_empty())
    }

    /// Batches behind `after` with a pending timer that lie at or below the log index `index`, at
    /// most `batches_max`, in the order they were stored: the first timer of each.
    #[must_use]
    pub fn lying_below(&self, index: u64, after: TimerId, batches_max: usize) -> Vec<Timer> {
        let from = self.runs.range(..=after).next_back().map_or(after, |(run, _)| *run);
        let runs = self.runs.range(from..).take_while(|(run, _)| run.index <= index);
        let runs = runs.filter(|(_, held)| held.reach().is_some_and(|(first, _)| first <= index));
        let batches = runs.flat_map(|(_, held)| {
            let (content, done) = (held.content.get(), held.done.get());
            let live = content.live_batches(done);
            let low = live.filter(move |(id, at, ..)| at.index <= index && *id > after);
            low.map(|(.., positions)| content.timer(positions.start))
        });
        batches.take(batches_max).collect()
    }

    /// About how many bytes of batches with a pending timer lie at or below the first of `bounds`,
    /// between it and the second, and so on; 0 only where there are none. Beyond the last is left
    /// out. Looks at each run, and at the batches of those that lie on both sides of a bound, or were
    /// carried on since they were last looked at.
    #[must_use]
    pub fn bytes_below(&self, bounds: &[u64]) -> Vec<u64> {
        let mut bytes = vec![0; bounds.len()];
        let last = bounds.last().copied().unwrap_or(0);
        let part_of = |index: u64| bounds.partition_point(|bound| *bound < index);
        for (_, held) in self.runs.iter().take_while(|(run, _)| run.index <= last) {
            let (content, done) = (held.content.get(), held.done.get());
            let Some((first, last)) = held.reach() else { continue };
            if part_of(first) == part_of(last) {
                let share = held.bytes * held.pending() as u64 / content.len().max(1) as u64;
                if let Some(bytes) = bytes.get_mut(part_of(first)) {
                    *bytes += share.max(1);
                }
                continue;
            }
            for (_, at, length, _) in content.live_batches(done) {
                if let Some(bytes) = bytes.get_mut(part_of(at.index)) {
                    *bytes += u64::from(length).max(1);
                }
            }
        }
        bytes
    }

    fn added(&mut self, queue: QueueKey, first: TimerId, due: &[TimestampMs]) {
        self.pending += due.len();
        *self.by_topic.entry(queue.topic).or_default() += due.len() as u64;
        if let Fresh::Timers(fresh) = &mut self.fresh {
            if fresh.len() + due.len() > FRESH_MAX {
                self.fresh = Fresh::Unknown;
            } else {
                fresh.extend((0..).zip(due).map(|(number, due)| (*due, first.nth(number))));
            }
        }
    }

    fn gone(&mut self, topic: TopicId, count: usize) {
        self.pending -= count;
        if let Some(of_topic) = self.by_topic.get_mut(&topic) {
            *of_topic -= count as u64;
            if *of_topic == 0 {
                self.by_topic.remove(&topic);
            }
        }
    }
}

impl Machine {
    /// The timers.
    #[must_use]
    pub const fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The timers, for what is asked of them in an order that they are brought into then.
    pub const fn timers_mut(&mut self) -> &mut Timers {
        &mut self.timers
    }
}
