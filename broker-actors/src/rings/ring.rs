//! One queue of a temporary topic.

use std::collections::VecDeque;

use bytes::Bytes;
use grus_log::{Position, Run};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, ProducerEpoch, QueueKey, Term, TimestampMs};
use grus_protocol::message::{TEMPORARY_BYTES_DEFAULT, WhenFull};

use super::producers::Producers;
use super::{BYTES_MAX, GONE_PER_STEP, LIFE_BITS};
use crate::commands::TopicConfig;
use crate::machine::caps::Caps;
use crate::machine::queue::QueueNumbers;
use crate::machine::{Appended, Refusal};
use crate::topic_queue::FetchedBatch;

/// What a batch costs besides its bytes: its place in the ring, which may be twice as long as it is
/// full, and its allocations.
const BATCH_OVERHEAD_BYTES: u64 = 200;
/// Places for batches that a ring keeps also when it has none.
const PLACES_MIN: usize = 64;
/// What a producer costs that the ring knows: five batches of it, and two places in trees.
const PRODUCER_BYTES: u64 = 512;

/// What a batch costs in a ring.
pub(super) fn cost_of(batch: &RecordBatch) -> u64 {
    u64::from(batch.len_bytes()) + BATCH_OVERHEAD_BYTES
}

/// A batch in the ring.
#[derive(Debug)]
pub(super) struct Kept {
    base: Offset,
    count: u32,
    stored: TimestampMs,
    born_max: TimestampMs,
    tag_bloom: u64,
    /// A buffer of its own: what it came in may be much larger.
    bytes: Bytes,
}

impl Kept {
    fn end(&self) -> Offset {
        Offset(self.base.0 + u64::from(self.count))
    }

    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn length(&self) -> u32 {
        u32::try_from(self.bytes.len()).expect("a batch is at most a frame")
    }

    pub(super) fn run(&self, queue: QueueKey, term: Term) -> Run {
        Run {
            queue,
            base: self.base,
            count: self.count,
            at: Position { index: 0, byte: 0 }, // it lies in no entry
            length: self.length(),
            term,
            stored: self.stored,
            born_max: self.born_max,
            tag_bloom: self.tag_bloom,
        }
    }

    pub(super) fn fetched(&self, term: Term) -> FetchedBatch {
        FetchedBatch {
            base_offset: self.base,
            count: self.count,
            term,
            stored: self.stored,
            bytes: self.bytes.clone(),
        }
    }
}

/// A batch was kept, or was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pushed {
    /// Its receipt.
    pub appended: Appended,
    /// Messages that went for it.
    pub dropped: u64,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Ring {
    term: Term,
    batches: VecDeque<Kept>,
    /// The first message that can be read: it may lie inside of the first batch.
    start: Offset,
    next: Offset,
    /// One past the last offset of this life.
    limit: Offset,
    /// Of the batches.
    bytes: u64,
    last_stored: TimestampMs,
    producers: Producers,
    /// Its topic has the oldest go, as it was when something was kept last.
    drops: bool,
}

impl Ring {
    pub(super) fn new(term: Term, base: Offset) -> Self {
        Self {
            term,
            batches: VecDeque::new(),
            start: base,
            next: base,
            limit: Offset(base.0 + (1 << LIFE_BITS)),
            bytes: 0,
            last_stored: TimestampMs(0),
            producers: Producers::default(),
            drops: false,
        }
    }

    pub(super) const fn numbers(&self) -> QueueNumbers {
        QueueNumbers {
            visible_start: self.start,
            next_offset: self.next,
            bytes: self.bytes,
            last_modified: self.last_stored,
        }
    }

    pub(super) fn held_bytes(&self) -> u64 {
        let producers = self.producers.len() as u64 * PRODUCER_BYTES;
        self.bytes + self.batches.len() as u64 * BATCH_OVERHEAD_BYTES + producers
    }

    /// The batches from the one that holds an offset on.
    pub(super) fn from(&self, offset: Offset) -> impl Iterator<Item = &Kept> {
        let first = self.batches.partition_point(|kept| kept.end() <= offset.max(self.start));
        self.batches.range(first..)
    }

    /// Keeps a batch; `room` is what all batches of this ring may cost.
    pub(super) fn push(
        &mut self,
        config: &TopicConfig,
        batch: &RecordBatch,
        newest: Option<ProducerEpoch>,
        now: TimestampMs,
        room: u64,
    ) -> Result<Pushed, Refusal> {
        let (count, length) = (batch.count(), u64::from(batch.len_bytes()));
        if let Some(known) = self.producers.judge(batch, newest)? {
            let (base_offset, stored) = (known.base, known.stored);
            let appended = self.receipt(base_offset, count, stored, true);
            return Ok(Pushed { appended, dropped: 0 });
        }
        let before = self.start;
        self.make_room(Caps::of(config), batch, room)?;
        let base = self.next;
        let stored = now.max(self.last_stored);
        self.next.0 += u64::from(count);
        self.bytes += length;
        self.last_stored = stored;
        self.drops = config.when_full == WhenFull::DropOldest;
        self.producers.remember(batch, base, stored);
        self.batches.push_back(Kept {
            base,
            count,
            stored,
            born_max: batch.born_max(),
            tag_bloom: batch.tag_bloom(),
            bytes: Bytes::copy_from_slice(batch.bytes()),
        });
        if config.retention_messages > 0 {
            let mut left = GONE_PER_STEP;
            let first_kept = Offset(self.next.0.saturating_sub(config.retention_messages));
            self.begin_at(first_kept, &mut left);
        }
        let appended = self.receipt(base, count, stored, false);
        Ok(Pushed { appended, dropped: self.start.0 - before.0 })
    }

    /// Has the oldest go for a batch where its topic wants that, or says why there is no room.
    fn make_room(&mut self, caps: Caps, batch: &RecordBatch, room: u64) -> Result<(), Refusal> {
        let length = u64::from(batch.len_bytes());
        let bytes = bytes_max(caps);
        let caps = Caps { bytes, ..caps };
        if length > bytes {
            let (what, cap, wanted) = ("retention_bytes", bytes, length);
            return Err(Refusal::AboveCap { what, cap, wanted });
        }
        caps.judge(self.next.0 - self.start.0, self.bytes, batch)?;
        if self.next.0 + u64::from(batch.count()) > self.limit.0 {
            return Err(Refusal::Limit { what: "messages in one life", limit: 1 << LIFE_BITS });
        }
        let cost = cost_of(batch);
        let drops = caps.when_full == WhenFull::DropOldest;
        if cost > room || !drops && self.held_bytes() + cost > room {
            let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
            return Err(Refusal::Limit { what: "bytes in temporary queues", limit });
        }
        // No more at once: what is above a cap that was lowered goes by and by.
        for _ in 0..GONE_PER_STEP {
            let is_above = self.bytes + length > bytes || self.held_bytes() + cost > room;
            if !is_above || !self.drop_first() {
                break;
            }
        }
        Ok(())
    }

    const fn receipt(
        &self,
        base_offset: Offset,
        count: u32,
        stored: TimestampMs,
        duplicate: bool,
    ) -> Appended {
        Appended { base_offset, timer: None, count, term: self.term, stored, duplicate }
    }

    #[cfg(test)]
    pub(super) fn known_producers(&self) -> usize {
        self.producers.len()
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.batches.capacity()
    }

    #[cfg(test)]
    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// Whether its oldest may go for the sake of others.
    pub(super) fn drops_something(&self) -> bool {
        self.drops && !self.batches.is_empty()
    }

    /// Drops the oldest batches that cost so much, or all there are; how many messages that were.
    pub(super) fn shed(&mut self, cost: u64) -> u64 {
        let (start, held) = (self.start, self.held_bytes());
        while held - self.held_bytes() < cost && self.drop_first() {}
        self.start.0 - start.0
    }

    /// Drops what is above the caps of its topic, if that has the oldest go: they may be lower than
    /// they were. At most `left` batches, which falls. How many messages that were.
    pub(super) fn keep_to(&mut self, config: &TopicConfig, left: &mut usize) -> u64 {
        let (caps, before) = (Caps::of(config), self.start);
        self.drops = caps.when_full == WhenFull::DropOldest;
        if self.drops {
            while self.bytes > bytes_max(caps) && self.drop_one_of(left) {}
            let messages = if caps.messages == 0 { u64::MAX } else { caps.messages };
            self.begin_at(Offset(self.next.0.saturating_sub(messages)), left);
        }
        self.start.0 - before.0
    }

    /// Drops batches that were stored longer ago than `retention_ms`, unless that is 0, at most `left`,
    /// which falls; how many messages that were. Forgets producers that were still for long.
    pub(super) fn expire(&mut self, now: TimestampMs, retention_ms: u64, left: &mut usize) -> u64 {
        self.producers.expire(now);
        let before = self.start;
        let is_old = |kept: &Kept| kept.stored.0.saturating_add(retention_ms) < now.0;
        while retention_ms > 0 && self.batches.front().is_some_and(is_old) {
            if !self.drop_one_of(left) {
                break;
            }
        }
        self.start.0 - before.0
    }

    /// Drops the oldest batches, at most so many; how many that were.
    pub(super) fn drop_some(&mut self, batches_max: usize) -> usize {
        (0..batches_max).take_while(|_| self.drop_first()).count()
    }

    /// Whether it has no batch.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    fn drop_one_of(&mut self, left: &mut usize) -> bool {
        let dropped = *left > 0 && self.drop_first();
        *left -= usize::from(dropped);
        dropped
    }

    fn drop_first(&mut self) -> bool {
        let Some(gone) = self.batches.pop_front() else { return false };
        self.bytes -= u64::from(gone.length());
        self.start = self.start.max(gone.end());
        let places = self.batches.capacity();
        if places > PLACES_MIN && self.batches.len() < places / 4 {
            self.batches.shrink_to((places / 2).max(PLACES_MIN));
        }
        true
    }

    /// Nothing before an offset can be read any more; of the batches at most `left`, which falls, go.
    fn begin_at(&mut self, offset: Offset, left: &mut usize) {
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|kept| kept.end() <= self.start) {
            if !self.drop_one_of(left) {
                break;
            }
        }
    }
}

/// The cap by bytes: memory always has one.
const fn bytes_max(caps: Caps) -> u64 {
    if caps.bytes == 0 { TEMPORARY_BYTES_DEFAULT } else { caps.bytes }
}
