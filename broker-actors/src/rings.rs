//! Queues of temporary topics: bounded rings of batches in the memory of whoever leads their shard,
//! beside its log. docs/adr/0008 has the reasons.
//!
//! Plain state; time is told. A *life* of a ring is a term of its shard: offsets begin anew above
//! all that were given before, so that none is ever used twice.
//!
//! * [`ring`]: one queue.
//! * `producers`: who has written to it.

mod producers;
pub mod ring;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use grus_log::Run;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, ProducerEpoch, QueueId, QueueKey, Term, TimestampMs, TopicId};

use crate::commands::TopicConfig;
use crate::machine::Refusal;
use crate::machine::queue::QueueNumbers;
use crate::retention::Removed;
use crate::topic_queue::FetchedBatch;
use ring::{Kept, Pushed, Ring};

/// Bits of an offset that count within a life; those above are the term.
pub const LIFE_BITS: u32 = 36;
/// Behind all offsets that a ring can give.
pub const OFFSETS_END: Offset = Offset(1 << 63);
/// Bits of a term that still give offsets.
const TERM_BITS: u32 = 63 - LIFE_BITS;
/// Most bytes that all rings of a shard hold together, what is spent on each batch included.
pub const BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The rings of a shard.
#[derive(Debug, Default)]
pub struct Rings {
    term: Term,
    rings: BTreeMap<QueueKey, Ring>,
    /// Bytes held by all, what is spent on each batch included.
    held_bytes: u64,
    /// Messages dropped for want of room that the log has not told of yet.
    untold: u64,
}

impl Rings {
    /// The shard is in a term: all that is of earlier ones is gone.
    pub fn follow(&mut self, term: Term) {
        if term > self.term {
            *self = Self { term, ..Self::default() };
        }
    }

    /// The first offset of this life; none before there is a term, or when there can be no more.
    fn base(&self) -> Option<Offset> {
        let fits = self.term != Term(0) && self.term.0 >> TERM_BITS == 0;
        fits.then_some(Offset(self.term.0 << LIFE_BITS))
    }

    /// The numbers of a queue, which nobody may have written to yet.
    pub fn numbers(&self, queue: QueueKey) -> QueueNumbers {
        let base = self.base().unwrap_or_default();
        let none = QueueNumbers { visible_start: base, next_offset: base, ..Default::default() };
        self.rings.get(&queue).map_or(none, Ring::numbers)
    }

    /// Keeps a batch, or says why not, or finds that it is kept already. `newest` is the newest epoch
    /// of its producer that the shard knows.
    ///
    /// # Errors
    /// What a producer is told; nothing was kept.
    pub fn push(
        &mut self,
        config: &TopicConfig,
        queue: QueueKey,
        batch: &RecordBatch,
        newest: Option<ProducerEpoch>,
        now: TimestampMs,
    ) -> Result<Pushed, Refusal> {
        let base = self.base().ok_or(Refusal::Limit { what: "terms", limit: 1 << TERM_BITS })?;
        let (term, others) = (self.term, self.held_bytes);
        let ring = self.rings.entry(queue).or_insert_with(|| Ring::new(term, base));
        let before = ring.held_bytes();
        let room = BYTES_MAX.saturating_sub(others - before);
        let pushed = ring.push(config, batch, newest, now, room);
        self.held_bytes = others - before + ring.held_bytes();
        self.untold += pushed.map_or(0, |pushed| pushed.dropped);
        pushed
    }

    /// Drops what is older than its topic keeps it.
    pub fn expire<'a>(
        &mut self,
        now: TimestampMs,
        config_of: impl Fn(TopicId) -> Option<&'a TopicConfig>,
    ) -> Removed {
        let mut removed = Removed::default();
        for (queue, ring) in &mut self.rings {
            let before = ring.held_bytes();
            let retention_ms = config_of(queue.topic).map_or(0, |config| config.retention_ms);
            removed.by_age += ring.expire(now, retention_ms);
            self.held_bytes -= before - ring.held_bytes();
        }
        removed
    }

    /// A topic is gone.
    pub fn forget(&mut self, topic: TopicId) {
        let first = QueueKey { topic, queue: QueueId(0) };
        let last = QueueKey { topic, queue: QueueId(u32::MAX) };
        let gone: Vec<QueueKey> = self.rings.range(first..=last).map(|(key, _)| *key).collect();
        for key in gone {
            let ring = self.rings.remove(&key);
            self.held_bytes -= ring.map_or(0, |ring| ring.held_bytes());
        }
    }

    /// Bytes held by all, what is spent on each batch included.
    pub const fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    /// Messages dropped for want of room since this was asked last.
    pub const fn take_untold(&mut self) -> u64 {
        std::mem::replace(&mut self.untold, 0)
    }

    /// The term whose rings these are.
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Batches of a queue from the one that holds `from` on, as an index has them; at least one if
    /// there is one, then as fit the bytes.
    pub fn runs(&self, queue: QueueKey, from: Offset, bytes_max: u64) -> Vec<Run> {
        let mut left = bytes_max;
        let kept = self.kept(queue, from).enumerate().map_while(|(nth, kept)| {
            let length = u64::from(kept.length());
            let fits = nth == 0 || length <= left;
            left = left.saturating_sub(length);
            fits.then(|| kept.run(queue, self.term))
        });
        kept.collect()
    }

    /// The same with their bytes, for a reader: at most `batches_max`, and none is begun once there
    /// are `messages_max` messages.
    pub fn batches(
        &self,
        queue: QueueKey,
        from: Offset,
        (bytes_max, messages_max, batches_max): (u32, u64, usize),
    ) -> Vec<FetchedBatch> {
        let (mut bytes_left, mut messages_left) = (bytes_max, messages_max);
        let mut batches = Vec::new();
        for kept in self.kept(queue, from).take(batches_max) {
            let is_full = kept.length() > bytes_left || messages_left == 0;
            if is_full && !batches.is_empty() {
                break;
            }
            bytes_left = bytes_left.saturating_sub(kept.length());
            messages_left = messages_left.saturating_sub(u64::from(kept.count()));
            batches.push(kept.fetched(self.term));
        }
        batches
    }

    fn kept(&self, queue: QueueKey, from: Offset) -> impl Iterator<Item = &Kept> {
        self.rings.get(&queue).into_iter().flat_map(move |ring| ring.from(from))
    }
}
