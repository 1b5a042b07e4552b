//! The log's durable notes, one value of the slot file `notes`.
//!
//! ```text
//! version u8 | flags u8 (1 purged, 2 floor, 4 volatile, 8 lost kernel) | accepted u8 | 0 u8 | boot id 16
//! | purged term u64, index u64 | floor term u64, index u64 | void through u64 | accepted x first u64, last u64
//! ```

use std::ops::RangeInclusive;

use crate::entry::{EntryId, u64_at};
use crate::slots::SLOT_VALUE_BYTES_MAX;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 60;
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
    /// A kernel has been lost while `volatile` stood, and that has not been healed yet.
    pub lost_kernel: bool,
    /// Segments up to this sequence number hold nothing: a snapshot was installed over them.
    pub void_through: u64,
    /// Damaged entries that the operator has given up.
    pub accepted: Vec<RangeInclusive<u64>>,
}

impl Notes {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let ranges = &self.accepted[..self.accepted.len().min(ACCEPTED_RANGES_MAX)];
        let flags = u8::from(self.purged.is_some())
            | u8::from(self.floor.is_some()) << 1
            | u8::from(self.volatile) << 2
            | u8::from(self.lost_kernel) << 3;
        let count = u8::try_from(ranges.len()).expect("bounded above");
        let mut value = vec![VERSION, flags, count, 0];
        value.extend_from_slice(&self.boot_id);
        for id in [self.purged, self.floor] {
            let id = id.unwrap_or(EntryId { term: 0, index: 0 });
            value.extend_from_slice(&id.term.to_le_bytes());
            value.extend_from_slice(&id.index.to_le_bytes());
        }
        value.extend_from_slice(&self.void_through.to_le_bytes());
        for range in ranges {
            value.extend_from_slice(&range.start().to_le_bytes());
            value.extend_from_slice(&range.end().to_le_bytes());
        }
        value
    }

    /// Reads a value; an empty one is that of a new log.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        if value.is_empty() {
            return Some(Self::default());
        }
        let accepted = usize::from(*value.get(2)?);
        if value[0] != VERSION || value.len() != FIXED_BYTES + accepted * 16 {
            return None;
        }
        let flag = |bit: u8| value[1] & bit != 0;
        let id = |at| EntryId { term: u64_at(value, at), index: u64_at(value, at + 8) };
        let ranges = (0..accepted).map(|nth| FIXED_BYTES + nth * 16);
        Some(Self {
            boot_id: value[4..20].try_into().ok()?,
            purged: flag(1).then(|| id(20)),
            floor: flag(2).then(|| id(36)),
            volatile: flag(4),
            lost_kernel: flag(8),
            void_through: u64_at(value, 52),
            accepted: ranges.map(|at| u64_at(value, at)..=u64_at(value, at + 8)).collect(),
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
            lost_kernel: false,
            void_through: 5,
            accepted: vec![3..=4, 9..=9],
        };
        assert_eq!(Notes::decode(&notes.encode()), Some(notes));
        assert_eq!(Notes::decode(&[]), Some(Notes::default()));
        assert_eq!(Notes::decode(&[2; 60]), None);
        assert_eq!(Notes::decode(&[1, 0]), None);
    }
}
