//! One queue of a temporary topic.

use std::collections::VecDeque;

use bytes::Bytes;
use grus_log::{Position, Run};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, ProducerEpoch, QueueKey, Term, TimestampMs};
use grus_protocol::message::{TEMPORARY_BYTES_DEFAULT, WhenFull};

use super::producers::Producers;
use super::{BYTES_MAX, LIFE_BITS};
use crate::commands::TopicConfig;
use crate::machine::caps::Caps;
use crate::machine::queue::QueueNumbers;
use crate::machine::{Appended, Refusal};
use crate::topic_queue::FetchedBatch;

/// What a batch costs besides its bytes.
const BATCH_OVERHEAD_BYTES: u64 = 128;

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
        self.bytes + self.batches.len() as u64 * BATCH_OVERHEAD_BYTES
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
            self.begin_at(Offset(self.next.0.saturating_sub(config.retention_messages)));
        }
        let appended = self.receipt(base, count, stored, false);
        Ok(Pushed { appended, dropped: self.start.0 - before.0 })
    }

    /// Has the oldest go for a batch where its topic wants that, or says why there is no room.
    fn make_room(&mut self, caps: Caps, batch: &RecordBatch, room: u64) -> Result<(), Refusal> {
        let length = u64::from(batch.len_bytes());
        let bytes = if caps.bytes == 0 { TEMPORARY_BYTES_DEFAULT } else { caps.bytes };
        let caps = Caps { bytes, ..caps };
        if length > bytes {
            let (what, cap, wanted) = ("retention_bytes", bytes, length);
            return Err(Refusal::QueueFull { what, cap, wanted });
        }
        caps.judge(self.next.0 - self.start.0, self.bytes, batch)?;
        if self.next.0 + u64::from(batch.count()) > self.limit.0 {
            return Err(Refusal::Limit { what: "messages in one life", limit: 1 << LIFE_BITS });
        }
        let cost = length + BATCH_OVERHEAD_BYTES;
        let drops = caps.when_full == WhenFull::DropOldest;
        if cost > room || !drops && self.held_bytes() + cost > room {
            let limit = usize::try_from(BYTES_MAX).unwrap_or(usize::MAX);
            return Err(Refusal::Limit { what: "bytes in temporary queues", limit });
        }
        while self.bytes + length > bytes || self.held_bytes() + cost > room {
            if !self.drop_first() {
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

    /// Drops batches that were stored longer ago than `retention_ms`, unless that is 0; how many
    /// messages that were.
    pub(super) fn expire(&mut self, now: TimestampMs, retention_ms: u64) -> u64 {
        let before = self.start;
        let is_old = |kept: &Kept| kept.stored.0.saturating_add(retention_ms) < now.0;
        while retention_ms > 0 && self.batches.front().is_some_and(is_old) {
            self.drop_first();
        }
        self.start.0 - before.0
    }

    fn drop_first(&mut self) -> bool {
        let Some(gone) = self.batches.pop_front() else { return false };
        self.bytes -= u64::from(gone.length());
        self.start = gone.end();
        true
    }

    /// Nothing before an offset can be read any more.
    fn begin_at(&mut self, offset: Offset) {
        while self.batches.front().is_some_and(|kept| kept.end() <= offset) {
            self.drop_first();
        }
        self.start = self.start.max(offset);
    }
}
