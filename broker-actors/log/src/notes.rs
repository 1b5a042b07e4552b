//! The log's durable notes, one value of the slot file `notes`.
//!
//! ```text
//! version u8 | flags u8 (1 purged, 2 floor, 4 volatile, 8 lost kernel, 16 doubtful, 32 emptied) | accepted u8 | cuts u8
//! | boot id 16
//! | purged term u64, index u64 | floor term u64, index u64 | void through u64
//! | doubtful first u64, last u64 (not in version 1) | accepted x first u64, last u64
//! ```
//! Version 2 is written, version 1 read. Flag 32 came later than version 2: a build that does not know it passes over
//! it, and forgets it with the next notes that it writes.

use std::ops::RangeInclusive;

use crate::entry::{EntryId, u64_at};
use crate::slots::SLOT_VALUE_BYTES_MAX;

const VERSION: u8 = 2;
const FIXED_BYTES: usize = 76;
const FIXED_BYTES_V1: usize = 60;
/// Most ranges of accepted losses that are remembered.
pub(crate) const ACCEPTED_RANGES_MAX: usize = (SLOT_VALUE_BYTES_MAX - FIXED_BYTES) / 16;

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// The run of the kernel that last had the log open.
    pub boot_id: [u8; 16],
    /// Everything up to here is gone on purpose.
    pub purged: Option<EntryId>,
    /// The checkpoint that is the current snapshot.
    pub floor: Option<EntryId>,
    /// Entries are acknowledged before they are synced.
    pub volatile: bool,
    /// A kernel has been lost while `volatile` stood, or all that the log held, and that has not been
    /// healed yet.
    pub lost_kernel: bool,
    /// All that the log held was lost, with its folder, and has not been copied back since. `lost_kernel`
    /// stands with it, and goes with it.
    pub emptied: bool,
    /// Segments up to this sequence number hold nothing: a snapshot was installed over them.
    pub void_through: u64,
    /// Damaged entries that the operator has given up.
    pub accepted: Vec<RangeInclusive<u64>>,
    /// From the first of them to the end that the log had when they were given up: what was written
    /// there was written by a leader that still had them.
    pub doubtful: Option<RangeInclusive<u64>>,
    /// How often the log was cut shorter, wrapping. A durable mark of another count is of entries
    /// that may have gone on purpose.
    pub cuts: u8,
}

impl Notes {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ranges = &self.accepted[..self.accepted.len().min(ACCEPTED_RANGES_MAX)];
        let flags = u8::from(self.purged.is_some())
            | u8::from(self.floor.is_some()) << 1
            | u8::from(self.volatile) << 2
            | u8::from(self.lost_kernel) << 3
            | u8::from(self.doubtful.is_some()) << 4
            | u8::from(self.emptied) << 5;
        let count = u8::try_from(ranges.len()).expect("bounded above");
        let mut value = vec![VERSION, flags, count, self.cuts];
        value.extend_from_slice(&self.boot_id);
        for id in [self.purged, self.floor] {
            let id = id.unwrap_or(EntryId { term: 0, index: 0 });
            value.extend_from_slice(&id.term.to_le_bytes());
            value.extend_from_slice(&id.index.to_le_bytes());
        }
        value.extend_from_slice(&self.void_through.to_le_bytes());
        let doubtful = self.doubtful.as_ref().map(|range| (*range.start(), *range.end()));
        let (first, last) = doubtful.unwrap_or_default();
        value.extend_from_slice(&first.to_le_bytes());
        value.extend_from_slice(&last.to_le_bytes());
        for range in ranges {
            value.extend_from_slice(&range.start().to_le_bytes());
            value.extend_from_slice(&range.end().to_le_bytes());
        }
        value
    }

    /// Gives up the damaged entries `damage` of a log that ends at `last`. Ranges that touch become one;
    /// those that are purged are forgotten.
    ///
    /// # Errors
    /// The number of ranges, when that is more than can be remembered. Nothing is changed then.
    pub(crate) fn accept(
        &mut self,
        damage: impl Iterator<Item = RangeInclusive<u64>>,
        last: Option<u64>,
    ) -> Result<(), usize> {
        let known = |range: &RangeInclusive<u64>| {
            let mut held = self.accepted.iter();
            held.any(|held| held.contains(range.start()) && held.contains(range.end()))
        };
        let new: Vec<_> = damage.filter(|range| !known(range)).collect();
        let Some(first) = new.iter().map(|range| *range.start()).min() else { return Ok(()) };
        let purged = self.purged.map(|purged| purged.index);
        let mut all: Vec<_> = self.accepted.iter().cloned().chain(new).collect();
        all.retain(|range| Some(*range.end()) > purged);
        all.sort_by_key(|range| *range.start());
        let mut merged: Vec<RangeInclusive<u64>> = Vec::new();
        for range in all {
            match merged.last_mut() {
                Some(before) if *range.start() <= before.end().saturating_add(1) => {
                    *before = *before.start()..=*before.end().max(range.end());
                }
                _ => merged.push(range),
            }
        }
        if merged.len() > ACCEPTED_RANGES_MAX {
            return Err(merged.len());
        }
        self.accepted = merged;
        let first = self.doubtful.as_ref().map_or(first, |old| first.min(*old.start()));
        self.doubtful = last.map(|last| first..=last);
        Ok(())
    }

    /// Notes that the log was cut shorter, so that marks of before tell nothing of where it ends.
    pub(crate) fn count_cut(&mut self) {
        self.cuts = self.cuts.wrapping_add(1);
    }

    /// Reads a value; an empty one is that of a new log.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return Some(Self::default());
        }
        let accepted = usize::from(*value.get(2)?);
        let fixed = match value[0] {
            VERSION => FIXED_BYTES,
            1 => FIXED_BYTES_V1,
            _ => return None,
        };
        if value.len() != fixed + accepted * 16 {
            return None;
        }
        let flag = |bit: u8| value[1] & bit != 0;
        let id = |at| EntryId { term: u64_at(value, at), index: u64_at(value, at + 8) };
        let range = |at| u64_at(value, at)..=u64_at(value, at + 8);
        let ranges = (0..accepted).map(|nth| fixed + nth * 16);
        Some(Self {
            boot_id: value[4..20].try_into().ok()?,
            purged: flag(1).then(|| id(20)),
            floor: flag(2).then(|| id(36)),
            volatile: flag(4),
            lost_kernel: flag(8),
            emptied: flag(32),
            void_through: u64_at(value, 52),
            accepted: ranges.map(range).collect(),
            doubtful: (flag(16) && value[0] == VERSION).then(|| range(60)),
            cuts: value[3],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back() {
        let notes = Notes {
            boot_id: [7; 16],
            purged: Some(EntryId { term: 1, index: 2 }),
            floor: None,
            volatile: true,
            lost_kernel: true,
            emptied: true,
            void_through: 5,
            accepted: vec![3..=4, 9..=9],
            doubtful: Some(3..=20),
            cuts: 6,
        };
        assert_eq!(Notes::decode(&notes.encode()).as_ref(), Some(&notes));
        let older = Notes { emptied: false, ..notes.clone() };
        assert_eq!((notes.encode()[1], older.encode()[1]), (0b11_1101, 0b01_1101), "one flag more");
        assert_eq!(Notes::decode(&older.encode()), Some(older));
        assert_eq!(Notes::decode(&[]), Some(Notes::default()));
        assert_eq!(Notes::decode(&[3; 60]), None);
        assert_eq!(Notes::decode(&[1, 0]), None);
    }

    #[test]
    fn notes_of_the_first_version_are_read() {
        let mut value = vec![1, 1, 1, 0];
        value.extend([7; 16]);
        for field in [1_u64, 2, 0, 0, 5, 3, 4] {
            value.extend(field.to_le_bytes());
        }
        let notes = Notes::decode(&value).unwrap();
        assert_eq!(notes.purged, Some(EntryId { term: 1, index: 2 }));
        assert_eq!((notes.void_through, notes.accepted, notes.doubtful), (5, vec![3..=4], None));
    }

    #[test]
    fn what_is_given_up_is_what_was_named_and_no_more() {
        let purged = Some(EntryId { term: 1, index: 4 });
        let mut notes = Notes { purged, accepted: vec![2..=3, 9..=9], ..Notes::default() };
        notes.accept([12..=12, 10..=10, 20..=22].into_iter(), Some(30)).unwrap();
        assert_eq!(notes.accepted, [9..=10, 12..=12, 20..=22]);
        assert_eq!(notes.doubtful, Some(10..=30));
        notes.accept(std::iter::once(21..=22), Some(50)).unwrap();
        assert_eq!(notes.doubtful, Some(10..=30), "it was known before");
        let many = (0..40).map(|nth| 100 + 2 * nth..=100 + 2 * nth);
        let before = notes.clone();
        assert_eq!(notes.accept(many, Some(900)), Err(43));
        assert_eq!(notes, before);
    }
}
