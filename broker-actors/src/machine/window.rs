//! What one producer last did on one queue: the memory behind idempotence.
//!
//! The last [`WINDOW_BATCHES`] batches are kept with their receipts. Sequences count records, from
//! 0 in each epoch, without gaps: a batch is stored only if it is the next one. That a repeated
//! batch is answered by its first receipt is decided here, at apply, so it holds on every replica,
//! across restart and failover.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{ProducerEpoch, Sequence, Term, TimestampMs};

use super::landed::Landed;
use crate::codec::{CodecError, Decoder};

/// Batches remembered per producer and queue. A producer may have this many in flight per queue.
pub const WINDOW_BATCHES: usize = 5;

/// Of windows whose batches all have offsets.
const VERSION: u8 = 1;
/// Of windows in which a batch was scheduled.
const VERSION_TIMERS: u8 = 2;

/// A remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Sequence of its first record.
    pub first_sequence: Sequence,
    /// Records in it.
    pub count: u32,
    /// Where it was stored.
    pub landed: Landed,
    /// The term of the entry it was stored by.
    pub term: Term,
    /// When it was stored.
    pub stored: TimestampMs,
}

/// What to do with a batch that carries a producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the next one: store it.
    Next,
    /// It is stored already: answer with the first receipt.
    Duplicate(Slot),
    /// Records before it are missing.
    Gap {
        /// The sequence that would be next.
        expected: Sequence,
    },
    /// It lies before what is remembered, or cuts through it: stored, but its receipt is forgotten.
    Stale {
        /// The sequence that would be next.
        expected: Sequence,
    },
    /// The producer has a newer epoch.
    Fenced {
        /// The newest epoch seen.
        epoch: ProducerEpoch,
    },
}

/// The last batches of one producer on one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    epoch: ProducerEpoch,
    slots: VecDeque<Slot>,
}

impl Window {
    /// A window in which nothing was stored yet.
    pub fn new(epoch: ProducerEpoch) -> Self {
        Self { epoch, slots: VecDeque::with_capacity(WINDOW_BATCHES) }
    }

    /// The epoch of the remembered batches.
    pub const fn epoch(&self) -> ProducerEpoch {
        self.epoch
    }

    /// When the last batch was stored.
    pub fn last_stored(&self) -> TimestampMs {
        self.slots.back().map_or(TimestampMs(0), |slot| slot.stored)
    }

    fn expected(&self) -> Sequence {
        let next =
            self.slots.back().map_or(0, |slot| slot.first_sequence.0 + u64::from(slot.count));
        Sequence(next)
    }

    /// Judges a batch of `count` records from `first_sequence` on.
    pub fn judge(&self, epoch: ProducerEpoch, first: Sequence, count: u32) -> Verdict {
        if epoch < self.epoch {
            return Verdict::Fenced { epoch: self.epoch };
        }
        if epoch > self.epoch {
            return judge_unknown(first);
        }
        let expected = self.expected();
        if first == expected {
            return Verdict::Next;
        }
        if first > expected {
            return Verdict::Gap { expected };
        }
        let same = |slot: &&Slot| slot.first_sequence == first && slot.count == count;
        self.slots
            .iter()
            .find(same)
            .map_or(Verdict::Stale { expected }, |slot| Verdict::Duplicate(*slot))
    }

    /// Remembers a batch that [`Window::judge`] called the next one.
    ///
    /// # Panics
    /// When it is not the next one.
    pub fn push(&mut self, epoch: ProducerEpoch, slot: Slot) {
        assert!(epoch >= self.epoch, "a fenced batch is never stored");
        if epoch > self.epoch {
            self.epoch = epoch;
            self.slots.clear();
        }
        assert_eq!(slot.first_sequence, self.expected(), "only the next batch is stored");
        if self.slots.len() == WINDOW_BATCHES {
            self.slots.pop_front();
        }
        self.slots.push_back(slot);
    }

    /// The value of the window's part in a checkpoint.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(6 + self.slots.len() * 40);
        let has_timers = self.slots.iter().any(|slot| slot.landed.timer().is_some());
        out.put_u8(if has_timers { VERSION_TIMERS } else { VERSION });
        out.put_u8(u8::try_from(self.slots.len()).expect("a window holds five batches"));
        out.put_u32_le(self.epoch.0);
        for slot in &self.slots {
            out.put_u64_le(slot.first_sequence.0);
            out.put_u32_le(slot.count);
            slot.landed.encode(has_timers, &mut out);
            out.put_u64_le(slot.term.0);
            out.put_u64_le(slot.stored.0);
        }
        out.freeze()
    }

    /// Reads what [`Window::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such a value.
    pub fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8()?;
        if version != VERSION && version != VERSION_TIMERS {
            return Err(CodecError::Version(version));
        }
        let count = usize::from(decoder.u8()?);
        if count > WINDOW_BATCHES {
            return Err(CodecError::Value("batches of a window"));
        }
        let mut window = Self::new(ProducerEpoch(decoder.u32()?));
        for _ in 0..count {
            let slot = Slot {
                first_sequence: Sequence(decoder.u64()?),
                count: decoder.u32()?,
                landed: Landed::decode(version == VERSION_TIMERS, &mut decoder)?,
                term: Term(decoder.u64()?),
                stored: TimestampMs(decoder.u64()?),
            };
            window.slots.push_back(slot);
        }
        decoder.finish()?;
        Ok(window)
    }
}

/// Judges the first batch of a producer, or of an epoch, that the queue sees: it must begin at 0.
pub const fn judge_unknown(first: Sequence) -> Verdict {
    if first.0 == 0 { Verdict::Next } else { Verdict::Gap { expected: Sequence(0) } }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::Offset;

    use super::*;
    use crate::timers::TimerId;

    fn slot(first: u64, count: u32) -> Slot {
        Slot {
            first_sequence: Sequence(first),
            count,
            landed: Landed::at(Offset(first + 1_000)),
            term: Term(1),
            stored: TimestampMs(first + 5),
        }
    }

    const EPOCH: ProducerEpoch = ProducerEpoch(3);

    fn window_of(batches: u64) -> Window {
        let mut window = Window::new(EPOCH);
        for batch in 0..batches {
            window.push(EPOCH, slot(batch * 10, 10));
        }
        window
    }

    #[test]
    fn the_last_five_batches_answer_a_repeat_with_their_receipt() {
        let window = window_of(7);
        for first in [20, 30, 40, 50, 60] {
            let verdict = window.judge(EPOCH, Sequence(first), 10);
            assert_eq!(verdict, Verdict::Duplicate(slot(first, 10)));
        }
        let expected = Sequence(70);
        assert_eq!(window.judge(EPOCH, Sequence(10), 10), Verdict::Stale { expected });
        assert_eq!(window.judge(EPOCH, Sequence(60), 9), Verdict::Stale { expected });
        assert_eq!(window.judge(EPOCH, Sequence(70), 1), Verdict::Next);
        assert_eq!(window.judge(EPOCH, Sequence(71), 1), Verdict::Gap { expected });
    }

    #[test]
    fn a_newer_epoch_begins_at_zero_and_fences_the_older() {
        let mut window = window_of(2);
        let newer = ProducerEpoch(4);
        let gap = Verdict::Gap { expected: Sequence(0) };
        assert_eq!(window.judge(newer, Sequence(20), 10), gap);
        assert_eq!(window.judge(newer, Sequence(0), 10), Verdict::Next);

        window.push(newer, slot(0, 1));
        assert_eq!(window.judge(EPOCH, Sequence(20), 10), Verdict::Fenced { epoch: newer });
        assert_eq!(window.judge(newer, Sequence(1), 1), Verdict::Next);
    }

    #[test]
    fn a_window_reads_back_as_it_was_written() {
        for batches in 0..8 {
            let window = window_of(batches);
            assert_eq!(Window::decode(window.encode()), Ok(window));
        }
        assert!(Window::decode(Bytes::from_static(&[1, 6, 0, 0, 0, 0])).is_err());
    }

    #[test]
    fn a_window_with_a_scheduled_batch_reads_back_and_others_are_as_they_always_were() {
        let mut window = window_of(2);
        assert_eq!(window.encode()[0], VERSION);
        let timer = TimerId { index: 77, place: 64 };
        window.push(EPOCH, Slot { landed: Landed::later(timer), ..slot(20, 10) });
        assert_eq!(window.encode()[0], VERSION_TIMERS);
        let read = Window::decode(window.encode()).unwrap();
        assert_eq!(read, window);
        let Verdict::Duplicate(slot) = read.judge(EPOCH, Sequence(20), 10) else {
            panic!("it is remembered");
        };
        assert_eq!((slot.landed.timer(), slot.landed.offset()), (Some(timer), Offset(0)));
    }
}
