//! The entry: a 64-byte header, then the payload, padded to 8 bytes.
//!
//! ```text
//!  0 magic u32 "GRUE"     4 version u8   5 kind u8   6 previous kind u8   7 reserved u8 (0)
//!  8 sequence u64         of the segment: bytes of an older life of the file never fit
//! 16 length u32           of the payload
//! 20 payload crc u32      CRC32C
//! 24 term u64            32 index u64
//! 40 previous term u64    with `previous kind`: the identity of the entry before, should its header break
//! 48 mark sequence u64   56 mark offset u32   everything before this place was durable when this was written
//! 60 header crc u32       CRC32C of bytes 0..60
//! ```
//! All numbers are little endian.

use bytes::Bytes;

/// Bytes of an entry's header.
pub const ENTRY_HEADER_BYTES: usize = 64;
/// Entries start at multiples of this.
pub const ENTRY_ALIGNMENT_BYTES: usize = 8;
/// "GRUE".
pub(crate) const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"GRUE");
const ENTRY_VERSION: u8 = 1;

/// Term and index: which entry of the log this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// Its place in the log; consecutive.
    pub index: u64,
}

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.term, self.index)
    }
}

/// What an entry is to consensus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The first entry of a leader's term.
    Blank = 0,
    /// A membership.
    Membership = 1,
    /// Items for the state machine.
    Normal = 2,
    /// Ends its segment: nothing follows it in the same file. Carries items like `Normal`.
    Seal = 3,
    /// Never stored. A damaged entry whose loss the operator has accepted reads as this, empty.
    Lost = 255,
}

impl EntryKind {
    pub(crate) fn from_stored(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Blank),
            1 => Some(Self::Membership),
            2 => Some(Self::Normal),
            3 => Some(Self::Seal),
            _ => None,
        }
    }
}

/// An entry to append. The payload is gathered from its pieces, in order.
#[derive(Debug, Clone, Copy)]
pub struct NewEntry<'a> {
    /// What it is.
    pub kind: EntryKind,
    /// Term.
    pub term: u64,
    /// Index: the last one plus 1, anything for the first entry of an empty log.
    pub index: u64,
    /// The payload's pieces.
    pub payload: &'a [Bytes],
}

impl NewEntry<'_> {
    /// Term and index.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }

    /// Bytes of payload.
    pub fn payload_bytes(&self) -> usize {
        self.payload.iter().map(Bytes::len).sum()
    }
}

/// An entry read from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Term.
    pub term: u64,
    /// Index.
    pub index: u64,
    /// A slice of the segment's mapping.
    pub payload: Bytes,
}

impl Entry {
    /// Term and index.
    pub fn id(&self) -> EntryId {
        EntryId { term: self.term, index: self.index }
    }
}

/// A place in the files of a log: grows with every byte written, whatever is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The segment's sequence number.
    pub sequence: u64,
    /// Byte in the segment's file.
    pub offset: u32,
}

/// A header's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub kind: u8,
    pub previous_kind: u8,
    pub sequence: u64,
    pub length: u32,
    pub payload_crc: u32,
    pub id: EntryId,
    pub previous_term: u64,
    pub mark: Place,
}

impl EntryHeader {
    pub(crate) fn encode(&self) -> [u8; ENTRY_HEADER_BYTES] {
        let mut bytes = [0; ENTRY_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&ENTRY_MAGIC.to_le_bytes());
        bytes[4] = ENTRY_VERSION;
        bytes[5] = self.kind;
        bytes[6] = self.previous_kind;
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.length.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.id.term.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.id.index.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.previous_term.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.mark.sequence.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.mark.offset.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if it is whole and of segment `sequence`.
    pub(crate) fn decode(bytes: &[u8], sequence: u64) -> Option<Self> {
        let bytes: &[u8; ENTRY_HEADER_BYTES] = bytes.get(..ENTRY_HEADER_BYTES)?.try_into().ok()?;
        let header = Self {
            kind: bytes[5],
            previous_kind: bytes[6],
            sequence: u64_at(bytes, 8),
            length: u32_at(bytes, 16),
            payload_crc: u32_at(bytes, 20),
            id: EntryId { term: u64_at(bytes, 24), index: u64_at(bytes, 32) },
            previous_term: u64_at(bytes, 40),
            mark: Place { sequence: u64_at(bytes, 48), offset: u32_at(bytes, 56) },
        };
        let whole = u32_at(bytes, 0) == ENTRY_MAGIC
            && bytes[4] == ENTRY_VERSION
            && header.sequence == sequence
            && u32_at(bytes, 60) == crc32c::crc32c(&bytes[..60])
            && EntryKind::from_stored(header.kind).is_some();
        whole.then_some(header)
    }

    /// Bytes from this header to the next one.
    pub(crate) fn stride(&self) -> usize {
        stride_of(self.length as usize)
    }
}

/// Bytes an entry with `payload_bytes` takes in its segment.
pub(crate) fn stride_of(payload_bytes: usize) -> usize {
    (ENTRY_HEADER_BYTES + payload_bytes).next_multiple_of(ENTRY_ALIGNMENT_BYTES)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Normal as u8,
            previous_kind: EntryKind::Blank as u8,
            sequence: 9,
            length: 100,
            payload_crc: 0xdead_beef,
            id: EntryId { term: 3, index: 77 },
            previous_term: 2,
            mark: Place { sequence: 8, offset: 4096 },
        }
    }

    #[test]
    fn a_header_comes_back_and_any_flipped_bit_or_other_sequence_does_not() {
        let bytes = header().encode();
        assert_eq!(EntryHeader::decode(&bytes, 9), Some(header()));
        assert_eq!(EntryHeader::decode(&bytes, 10), None);
        assert_eq!(EntryHeader::decode(&bytes[..63], 9), None);
        for bit in 0..ENTRY_HEADER_BYTES * 8 {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(EntryHeader::decode(&broken, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn strides_keep_entries_aligned() {
        assert_eq!(stride_of(0), 64);
        assert_eq!(stride_of(1), 72);
        assert_eq!(stride_of(8), 72);
    }
}
