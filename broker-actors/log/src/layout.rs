//! The head of a segment's file, and the names of the files in a log's folder.
//!
//! ```text
//!    0 magic "GRUSSEG1" | version u16 | flags u16 (1 recycled) | 0 u32 | sequence u64 | length u64 | 0.. | crc u32 at 60
//!  512 close slot 0     1024 close slot 1: the segment ends here, whatever stands behind
//!      magic u32 | version u8 | last kind u8 | has last u8 | 0 u8 | sequence u64 | cut u32 | 0 u32
//!      | last term u64 | last index u64 | void through u64 | crc u32 at 48
//! 4096 entries
//! ```

use crate::entry::{EntryId, u32_at, u64_at};

/// Where entries begin in a segment's file.
pub const SEGMENT_HEAD_BYTES: u32 = 4096;
/// The version of all formats in a log's folder; the file `FORMAT` holds it.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const HEAD_RECORD_BYTES: usize = 64;
pub(crate) const CLOSE_RECORD_BYTES: usize = 52;
const CLOSE_SLOTS_AT: [usize; 2] = [512, 1024];
const HEAD_MAGIC: &[u8; 8] = b"GRUSSEG1";
const CLOSE_MAGIC: u32 = u32::from_le_bytes(*b"GRUX");
const VERSION: u8 = 1;

pub(crate) const LOCK_NAME: &str = "LOCK";
pub(crate) const FORMAT_NAME: &str = "FORMAT";
pub(crate) const VOTE_NAME: &str = "vote";
pub(crate) const NOTES_NAME: &str = "notes";
pub(crate) const CONTROL_NAME: &str = "control";
/// Room for a first small segment, should the disk be full at a start.
pub(crate) const RESERVE_NAME: &str = "reserve";
pub(crate) const RESERVE_BYTES: u32 = 64 * 1024;
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// What a name in the folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileName {
    /// A segment, by its sequence number.
    Segment(u64),
    /// A sealed segment's footer, by the segment's sequence number.
    Footer(u64),
    /// A checkpoint, by the index of the last entry applied in it.
    Checkpoint(u64),
    /// The table of ids and keys of a sealed segment, by the segment's sequence number.
    Find(u64),
}

impl FileName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (kind, digits) = name.rsplit_once('-')?;
        if digits.len() != 16 || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let number = u64::from_str_radix(digits, 16).ok()?;
        match kind {
            "segment" => Some(Self::Segment(number)),
            "footer" => Some(Self::Footer(number)),
            "checkpoint" => Some(Self::Checkpoint(number)),
            "find" => Some(Self::Find(number)),
            _ => None,
        }
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Segment(number) => write!(f, "segment-{number:016x}"),
            Self::Footer(number) => write!(f, "footer-{number:016x}"),
            Self::Checkpoint(number) => write!(f, "checkpoint-{number:016x}"),
            Self::Find(number) => write!(f, "find-{number:016x}"),
        }
    }
}

/// The first record of a segment's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    pub sequence: u64,
    pub length: u64,
    /// Behind the entries may stand bytes of an older life; otherwise zeros.
    pub recycled: bool,
}

impl SegmentHead {
    pub(crate) fn encode(&self) -> [u8; HEAD_RECORD_BYTES] {
        let mut bytes = [0; HEAD_RECORD_BYTES];
        bytes[0..8].copy_from_slice(HEAD_MAGIC);
        bytes[8] = VERSION;
        bytes[10] = u8::from(self.recycled);
        bytes[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.length.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEAD_RECORD_BYTES)?;
        let whole = &bytes[0..8] == HEAD_MAGIC
            && bytes[8] == VERSION
            && u32_at(bytes, 60) == crc32c::crc32c(&bytes[..60]);
        whole.then(|| Self {
            sequence: u64_at(bytes, 16),
            length: u64_at(bytes, 24),
            recycled: bytes[10] & 1 != 0,
        })
    }
}

/// The end of a segment: nothing at or behind `cut` belongs to the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Close {
    pub cut: u32,
    /// The last entry before the cut, with its kind; `None` when none is left in this segment.
    pub last: Option<(EntryId, u8)>,
    /// Segments behind this one, up to this sequence number, were truncated away with the cut.
    pub void_through: u64,
}

impl Close {
    /// Where slot `slot` (0 or 1) stands in the file.
    pub(crate) fn slot_offset(slot: usize) -> usize {
        CLOSE_SLOTS_AT[slot]
    }

    pub(crate) fn encode(&self, sequence: u64) -> [u8; CLOSE_RECORD_BYTES] {
        let mut bytes = [0; CLOSE_RECORD_BYTES];
        bytes[0..4].copy_from_slice(&CLOSE_MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.cut.to_le_bytes());
        if let Some((id, kind)) = self.last {
            bytes[5] = kind;
            bytes[6] = 1;
            bytes[24..32].copy_from_slice(&id.term.to_le_bytes());
            bytes[32..40].copy_from_slice(&id.index.to_le_bytes());
        }
        bytes[40..48].copy_from_slice(&self.void_through.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..48]);
        bytes[48..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The close record in the head of segment `sequence`, and its slot. A segment is only ever cut
    /// farther down, so of two whole records the lower cut is the newer one; of two alike, the one that voids more.
    pub(crate) fn find(head: &[u8], sequence: u64) -> Option<(Self, usize)> {
        let slots = (0..2).filter_map(|slot| {
            let at = CLOSE_SLOTS_AT[slot];
            Some((Self::decode(head.get(at..at + CLOSE_RECORD_BYTES)?, sequence)?, slot))
        });
        slots.min_by_key(|(close, _)| (close.cut, std::cmp::Reverse(close.void_through)))
    }

    fn decode(bytes: &[u8], sequence: u64) -> Option<Self> {
        let whole = u32_at(bytes, 0) == CLOSE_MAGIC
            && bytes[4] == VERSION
            && u64_at(bytes, 8) == sequence
            && u32_at(bytes, 16) >= SEGMENT_HEAD_BYTES
            && u32_at(bytes, 48) == crc32c::crc32c(&bytes[..48]);
        let id = EntryId { term: u64_at(bytes, 24), index: u64_at(bytes, 32) };
        let last = (bytes[6] == 1).then_some((id, bytes[5]));
        whole.then(|| Self { cut: u32_at(bytes, 16), last, void_through: u64_at(bytes, 40) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_strangers_do_not() {
        for name in [
            FileName::Segment(7),
            FileName::Footer(u64::MAX),
            FileName::Checkpoint(0),
            FileName::Find(3),
        ] {
            assert_eq!(FileName::parse(&name.to_string()), Some(name));
        }
        for name in ["segment-7", "segment-000000000000000G", "segment--000000000000001", "vote"] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_lower_of_two_close_records_counts_and_another_life_does_not() {
        let id = EntryId { term: 1, index: 5 };
        let high = Close { cut: 9000, last: Some((id, 2)), void_through: 3 };
        let low = Close { cut: 5000, last: None, void_through: 4 };
        let mut head = vec![0; 4096];
        assert_eq!(Close::find(&head, 3), None);
        head[512..512 + CLOSE_RECORD_BYTES].copy_from_slice(&high.encode(3));
        assert_eq!(Close::find(&head, 3), Some((high, 0)));
        head[1024..1024 + CLOSE_RECORD_BYTES].copy_from_slice(&low.encode(3));
        assert_eq!(Close::find(&head, 3), Some((low, 1)));
        assert_eq!(Close::find(&head, 4), None);
    }
}
