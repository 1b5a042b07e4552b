//! Who has written to a ring: the last batches of each producer, so that one that is sent again is
//! kept once.
//!
//! As in the log (`machine/window.rs`): of a producer that is not known, or of a newer epoch, only
//! sequence 0 is the next. One that wrote to an earlier life begins anew, under a fresh identity: were
//! any sequence the next one, a batch behind a refused one would be taken, and then both go wrong.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::machine::window::WINDOW_BATCHES;
use crate::machine::{Refusal, WINDOW_EXPIRY_MS};

/// Most producers that a ring knows; beyond, who has been still for longest is forgotten.
pub(super) const PRODUCERS_MAX: usize = 4_096;

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    first: Sequence,
    count: u32,
    pub(super) base: Offset,
    pub(super) stored: TimestampMs,
}

#[derive(Debug)]
struct Seen {
    epoch: ProducerEpoch,
    slots: VecDeque<Slot>,
}

impl Seen {
    fn last_stored(&self) -> TimestampMs {
        self.slots.back().map_or(TimestampMs(0), |slot| slot.stored)
    }
}

/// The producers of a ring.
#[derive(Debug, Default)]
pub(super) struct Producers {
    seen: BTreeMap<ProducerId, Seen>,
    /// By when they last wrote.
    by_time: BTreeSet<(TimestampMs, ProducerId)>,
}

impl Producers {
    /// The first receipt of a batch that is kept already; `None` if it is to be kept.
    pub(super) fn judge(
        &self,
        batch: &RecordBatch,
        newest: Option<ProducerEpoch>,
    ) -> Result<Option<Slot>, Refusal> {
        let (producer, epoch) = (batch.producer_id(), batch.producer_epoch());
        if producer == ProducerId::NONE {
            return Ok(None);
        }
        if let Some(newest) = newest.filter(|newest| epoch < *newest) {
            return Err(Refusal::Fenced { epoch: newest });
        }
        let first = batch.first_sequence();
        let Some(seen) = self.seen.get(&producer).filter(|seen| epoch <= seen.epoch) else {
            let expected = Sequence(0);
            return if first == expected {
                Ok(None)
            } else {
                Err(Refusal::SequenceGap { expected })
            };
        };
        if epoch < seen.epoch {
            return Err(Refusal::Fenced { epoch: seen.epoch });
        }
        let count = batch.count();
        let Some(last) = seen.slots.back() else { return Ok(None) };
        let expected = Sequence(last.first.0 + u64::from(last.count));
        if first == expected {
            return Ok(None);
        }
        if first > expected {
            return Err(Refusal::SequenceGap { expected });
        }
        let same = |slot: &&Slot| slot.first == first && slot.count == count;
        let known = seen.slots.iter().find(same).copied();
        known.map(Some).ok_or(Refusal::SequenceStale { expected })
    }

    /// Remembers a batch that is kept.
    pub(super) fn remember(&mut self, batch: &RecordBatch, base: Offset, stored: TimestampMs) {
        let producer = batch.producer_id();
        if producer == ProducerId::NONE {
            return;
        }
        let epoch = batch.producer_epoch();
        let none = || Seen { epoch, slots: VecDeque::new() };
        let seen = self.seen.entry(producer).or_insert_with(none);
        self.by_time.remove(&(seen.last_stored(), producer));
        if seen.epoch != epoch {
            *seen = none();
        }
        if seen.slots.len() == WINDOW_BATCHES {
            seen.slots.pop_front();
        }
        let (first, count) = (batch.first_sequence(), batch.count());
        seen.slots.push_back(Slot { first, count, base, stored });
        self.by_time.insert((stored, producer));
        if self.seen.len() > PRODUCERS_MAX
            && let Some((_, still)) = self.by_time.pop_first()
        {
            self.seen.remove(&still);
        }
    }

    /// Forgets those that were still for as long as the log remembers any.
    pub(super) fn expire(&mut self, now: TimestampMs) {
        let due = TimestampMs(now.0.saturating_sub(WINDOW_EXPIRY_MS));
        while let Some((_, producer)) = self.by_time.first().filter(|(last, _)| *last < due) {
            self.seen.remove(producer);
            self.by_time.pop_first();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}
