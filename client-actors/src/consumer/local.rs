//! What a member of a broadcast group keeps of a queue in memory: messages that it failed to handle, and
//! is to have again. No clock, no I/O.
//!
//! A retry is kept as a batch of its message alone, so what waits takes no more than its own bytes, and
//! counts against the queue's window like anything in hand.

use std::collections::BTreeMap;

use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::message::{GroupSettings, OffsetRange, Redelivered};
use grus_protocol::{BatchLimits, Offset, RecordBatch};

use super::offsets::OffsetSet;
use super::queue::HandItem;
use crate::read::READ_LIMITS;

/// What becomes of a message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It is not in the program's hands: nothing.
    Unknown,
    /// It comes again.
    Waits,
    /// It was handed out often enough, or cannot be read: it is given up.
    GivenUp {
        /// How often it was handed out.
        deliveries: u32,
    },
}

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct LocalRetries {
    /// How often messages were handed out in vain that are not settled.
    tries: BTreeMap<Offset, u32>,
    /// By when they are due.
    waiting: BTreeMap<(u64, Offset), HandItem>,
    /// The offsets of those.
    offsets: OffsetSet,
}

impl LocalRetries {
    /// A message was handed out in vain once more; how often by now.
    pub(crate) fn failed(&mut self, offset: Offset) -> u32 {
        let tries = self.tries.entry(offset).or_default();
        *tries = tries.saturating_add(1);
        *tries
    }

    /// A message is settled.
    pub(crate) fn settled(&mut self, offset: Offset) {
        self.tries.remove(&offset);
    }

    /// A message waits until then.
    pub(crate) fn put(&mut self, due_ms: u64, item: HandItem) {
        self.offsets.insert(OffsetRange::one(item.base_offset));
        self.waiting.insert((due_ms, item.base_offset), item);
    }

    /// Those that are due.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Vec<HandItem> {
        let mut due = Vec::new();
        while let Some(first) = self.waiting.first_entry().filter(|one| one.key().0 <= now_ms) {
            let item = first.remove();
            self.offsets.remove(item.base_offset);
            due.push(item);
        }
        due
    }

    /// Those that wait, as offsets.
    pub(crate) const fn offsets(&self) -> &OffsetSet {
        &self.offsets
    }

    /// How often messages of a range were handed out before.
    pub(crate) fn marks(&self, from: Offset, to: Offset) -> Vec<Redelivered> {
        let tried = self.tries.range(from..to.max(from));
        let mark = |(offset, deliveries): (&Offset, &u32)| Redelivered {
            from: *offset,
            to: Offset(offset.0 + 1),
            deliveries: *deliveries,
        };
        tried.map(mark).collect()
    }

    /// Nothing waits any more; what was tried how often is kept.
    pub(crate) fn drop_waiting(&mut self) -> Vec<HandItem> {
        self.offsets = OffsetSet::default();
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

/// The message at an offset of a batch, as a batch of its own; none if it cannot be read.
pub(crate) fn alone(item: &HandItem, offset: Offset) -> Option<RecordBatch> {
    let place = usize::try_from(offset.0.checked_sub(item.base_offset.0)?).ok()?;
    let plain = item.batch.clone().decompressed(&READ_LIMITS).ok()?;
    let record = plain.records().nth(place)?.ok()?;
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    builder.push(&NewRecord::of(&record)).ok()?;
    RecordBatch::from_log(builder.finish()).ok()
}

/// How long a message waits that was handed out in vain so often; none: it is given up.
pub(crate) fn wait_ms(settings: &GroupSettings, deliveries: u32) -> Option<u64> {
    if settings.max_deliveries > 0 && deliveries >= settings.max_deliveries {
        return None;
    }
    let rung = (deliveries.saturating_sub(1) as usize).min(settings.ladder_ms.len().max(1) - 1);
    Some(settings.ladder_ms.get(rung).copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_climbed_to_its_last_rung_and_ends_with_the_last_delivery() {
        let mut settings =
            GroupSettings { ladder_ms: vec![5, 10], max_deliveries: 4, ..GroupSettings::default() };
        let waits: Vec<_> = (1..=5).map(|tries| wait_ms(&settings, tries)).collect();
        assert_eq!(waits, [Some(5), Some(10), Some(10), None, None]);
        (settings.max_deliveries, settings.ladder_ms) = (0, Vec::new());
        assert_eq!(wait_ms(&settings, 1_000_000), Some(0), "without an end, at once");
    }

    #[test]
    fn tries_are_counted_until_a_message_is_settled() {
        let mut retries = LocalRetries::default();
        assert_eq!((retries.failed(Offset(7)), retries.failed(Offset(7))), (1, 2));
        assert_eq!(retries.failed(Offset(9)), 1);
        let marks = |retries: &LocalRetries, from, to| -> Vec<(u64, u32)> {
            let marks = retries.marks(Offset(from), Offset(to));
            marks.iter().map(|mark| (mark.from.0, mark.deliveries)).collect()
        };
        assert_eq!(marks(&retries, 0, 9), [(7, 2)]);
        assert_eq!(marks(&retries, 8, 10), [(9, 1)]);
        retries.settled(Offset(7));
        assert_eq!(marks(&retries, 0, 20), [(9, 1)]);
    }
}
