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
/// Most bytes that all rings of a shard hold together, what is spent on each batch and producer
/// included.
pub const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// So much is freed at once where that is reached, for looking at all rings takes its time.
const SHED_BYTES: u64 = 1024 * 1024;
/// Most batches let go of in one step, so that no step takes long.
const GONE_PER_STEP: usize = 4_096;
/// Batches of rings that are gone let go of for each batch that comes.
const GONE_PER_PUSH: usize = 64;

/// The rings of a shard.
#[derive(Debug, Default)]
pub struct Rings {
    term: Term,
    queues: BTreeMap<QueueKey, Ring>,
    /// Bytes held by all, what is spent on each batch and producer included.
    held_bytes: u64,
    /// Messages dropped for want of room that the log has not told of yet.
    untold: u64,
    /// Rings that nobody reads any more, let go of by and by.
    gone: Vec<Ring>,
}

impl Rings {
    /// The shard is in a term: all that is of earlier ones is gone. Whether a new life has begun.
    pub fn follow(&mut self, term: Term) -> bool {
        let is_new = term > self.term;
        if is_new {
            let mut gone = std::mem::take(&mut self.gone);
            gone.extend(std::mem::take(&mut self.queues).into_values());
            *self = Self { term, untold: self.untold, gone, ..Self::default() };
        }
        is_new
    }

    /// Lets go of some of what is gone, at most so many batches.
    fn let_go(&mut self, batches_max: usize) {
        let mut left = batches_max;
        while left > 0
            && let Some(ring) = self.gone.last_mut()
        {
            left -= ring.drop_some(left);
            if ring.is_empty() {
                self.gone.pop();
            }
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
        self.queues.get(&queue).map_or(none, Ring::numbers)
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
        self.let_go(GONE_PER_PUSH);
        let shed = self.shed(ring::cost_of(batch), BYTES_MAX);
        let (term, all) = (self.term, self.held_bytes);
        let ring = self.queues.entry(queue).or_insert_with(|| Ring::new(term, base));
        let before = ring.held_bytes();
        let room = BYTES_MAX.saturating_sub(all - before);
        let pushed = ring.push(config, batch, newest, now, room);
        self.held_bytes = all - before + ring.held_bytes();
        let dropped = pushed.map_or(0, |pushed| pushed.dropped);
        self.untold += shed + dropped;
        pushed.map(|pushed| Pushed { dropped: shed + dropped, ..pushed })
    }

    /// Makes room for a batch where all rings together have none: the oldest of the largest go, of
    /// those whose topics want the oldest to go. How many messages that were.
    fn shed(&mut self, cost: u64, bytes_max: u64) -> u64 {
        if self.held_bytes + cost <= bytes_max {
            return 0;
        }
        let wanted = bytes_max.saturating_sub(cost.max(SHED_BYTES));
        let mut dropped = 0;
        while self.held_bytes > wanted {
            let droppable = self.queues.values_mut().filter(|ring| ring.drops_something());
            let Some(largest) = droppable.max_by_key(|ring| ring.held_bytes()) else { break };
            let before = largest.held_bytes();
            dropped += largest.shed(self.held_bytes - wanted);
            self.held_bytes -= before - largest.held_bytes();
        }
        dropped
    }

    /// Drops what is older than its topic keeps it, and what is above caps that were lowered; forgets
    /// producers that were still for long. What there was, and whether there is more to do.
    pub fn expire<'a>(
        &mut self,
        now: TimestampMs,
        config_of: impl Fn(TopicId) -> Option<&'a TopicConfig>,
    ) -> (Removed, bool) {
        self.let_go(GONE_PER_STEP);
        let (mut removed, mut left) = (Removed::default(), GONE_PER_STEP);
        for (queue, ring) in &mut self.queues {
            let before = ring.held_bytes();
            let Some(config) = config_of(queue.topic) else { continue };
            removed.by_age += ring.expire(now, config.retention_ms, &mut left);
            removed.full += ring.keep_to(config, &mut left);
            self.held_bytes -= before - ring.held_bytes();
            if left == 0 {
                break;
            }
        }
        self.untold += removed.full;
        (removed, left == 0 || !self.gone.is_empty())
    }

    /// A topic is gone.
    pub fn forget(&mut self, topic: TopicId) {
        let first = QueueKey { topic, queue: QueueId(0) };
        let last = QueueKey { topic, queue: QueueId(u32::MAX) };
        let gone: Vec<QueueKey> = self.queues.range(first..=last).map(|(key, _)| *key).collect();
        for key in gone {
            let Some(ring) = self.queues.remove(&key) else { continue };
            self.held_bytes -= ring.held_bytes();
            self.gone.push(ring);
        }
    }

    /// Bytes held by all, what is spent on each batch and producer included.
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
        self.queues.get(&queue).into_iter().flat_map(move |ring| ring.from(from))
    }
}
