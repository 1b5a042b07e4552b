//! What a shard's wheel is asked, and what it answers.

use std::ops::{Bound, RangeBounds};

use bytes::Bytes;
use grus_mailbox::{Port, Weigh};
use grus_protocol::ids::{QueueId, QueueKey, TimestampMs, TopicId};

use crate::error::QueueError;
use crate::machine::timers::DueTimer;
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Questions that may be on their way.
pub const DELAY_ASKS_MAX: u32 = 1_024;
/// Most timers of one Recall.
pub const RECALL_MAX: u32 = 1_024;
/// Most messages of a page.
pub const PAGE_MAX: u32 = 1_000;
/// Bounds of the buckets of [`DelayStatus::due_histogram`], in milliseconds from now.
pub const DUE_BUCKETS_MS: [u64; 7] =
    [0, 1_000, 10_000, 60_000, 3_600_000, 86_400_000, 30 * 86_400_000];

/// Asks a shard's wheel for something.
#[derive(Debug)]
pub enum DelayAsk {
    /// Takes messages back, at most [`RECALL_MAX`]. The log decides between this and their release.
    Recall {
        /// The queue they are for.
        queue: QueueKey,
        /// Which.
        timers: Vec<TimerId>,
        /// Gets what became of each, in order.
        reply: Port<Result<Vec<Recalled>, QueueError>>,
    },
    /// Lists what is scheduled: earliest due first, ties in send order.
    List {
        /// What to list.
        filter: DelayFilter,
        /// Go on behind this one.
        after: Option<DueTimer>,
        /// Most messages wanted, at most [`PAGE_MAX`].
        messages_max: u32,
        /// Whether their bytes are wanted.
        with_bodies: bool,
        /// Gets the page.
        reply: Port<Result<ScheduledPage, QueueError>>,
    },
    /// Counts what is scheduled; a key is not looked at.
    Count {
        /// What to count.
        filter: DelayFilter,
        /// Gets the number.
        reply: Port<Result<u64, QueueError>>,
    },
    /// Shows one scheduled message with its bytes.
    Show {
        /// The queue it is for.
        queue: QueueKey,
        /// Which.
        timer: TimerId,
        /// Gets it; none if it is not pending (any more).
        reply: Port<Result<Option<Scheduled>, QueueError>>,
    },
    /// Asks for numbers.
    Status {
        /// Gets them.
        reply: Port<DelayStatus>,
    },
    /// Makes the actor panic, as a bug would. For tests of supervision.
    Panic,
}

impl Weigh for DelayAsk {}

/// What became of a recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// The message is taken back: nobody will see it.
    Recalled,
    /// It was released or taken back before, or never was.
    TooLate,
}

/// Which scheduled messages are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayFilter {
    /// Of this topic.
    pub topic: Option<TopicId>,
    /// Of this queue of it.
    pub queue: Option<QueueId>,
    /// Due at this time or later.
    pub from: TimestampMs,
    /// Due before this time; 2^64-1 is no end.
    pub until: TimestampMs,
    /// With this key.
    pub key: Option<Bytes>,
}

impl Default for DelayFilter {
    /// All of them.
    fn default() -> Self {
        let (from, until) = (TimestampMs(0), TimestampMs(u64::MAX));
        Self { topic: None, queue: None, from, until, key: None }
    }
}

impl DelayFilter {
    /// Whether a timer is meant, but for its key.
    #[must_use]
    pub fn takes(&self, timer: &Timer) -> bool {
        self.topic.is_none_or(|topic| topic == timer.queue.topic)
            && self.queue.is_none_or(|queue| queue == timer.queue.queue)
            && self.dues().contains(&timer.due)
    }

    /// The due times that are meant.
    #[must_use]
    pub fn dues(&self) -> (Bound<TimestampMs>, Bound<TimestampMs>) {
        let is_endless = self.until == TimestampMs(u64::MAX);
        let until = if is_endless { Bound::Unbounded } else { Bound::Excluded(self.until) };
        (Bound::Included(self.from), until)
    }
}

/// A page of what is scheduled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledPage {
    /// The messages, earliest first.
    pub messages: Vec<Scheduled>,
    /// There may be more behind this one; with a key, also when this page has few or none.
    pub next: Option<DueTimer>,
}

/// A scheduled message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// The queue it is for.
    pub queue: QueueKey,
    /// Its timer.
    pub timer: TimerId,
    /// When it is due.
    pub due: TimestampMs,
    /// A batch of one with its record, if that was wanted.
    pub bytes: Option<Bytes>,
}

/// Numbers of a shard's wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayStatus {
    /// Messages that wait for their time.
    pub pending: u64,
    /// The earliest due time among them.
    pub oldest_due: Option<TimestampMs>,
    /// By topic.
    pub by_topic: Vec<(TopicId, u64)>,
    /// How many are due within each of [`DUE_BUCKETS_MS`], and later.
    pub due_histogram: [u64; 8],
}

/// Messages were stored for later. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimersStored;

impl Weigh for TimersStored {}

/// Carry on what is scheduled, so that the log can go up to here.
#[derive(Debug)]
pub(crate) struct ClearBelow {
    /// Nobody else needs entries up to this log index.
    pub(crate) index: u64,
    /// Gets the index up to which the log may go; none if it should stay.
    pub(crate) reply: Port<Option<u64>>,
}

impl Weigh for ClearBelow {}

/// Bytes of messages were brought into memory.
#[derive(Debug)]
pub(crate) struct BodiesRead {
    /// For what.
    pub(crate) ticket: u64,
    /// False when the Reader was rebuilt meanwhile.
    pub(crate) is_read: bool,
}

impl Weigh for BodiesRead {}

/// It is time to look again. At most a few wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Alarm {
    /// When it was to ring.
    pub(crate) at_ms: u64,
}

impl Weigh for Alarm {}

/// What became of an item.
#[derive(Debug)]
pub(crate) struct ItemDone {
    pub(crate) ticket: u64,
    /// Its number among those of the ticket.
    pub(crate) number: usize,
    /// Whether it did what it was for; or why it was not applied.
    pub(crate) result: Result<bool, QueueError>,
}

impl Weigh for ItemDone {}
