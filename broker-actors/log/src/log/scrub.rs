//! Checking old segments in the background: a start reads only what has no footer.

use bytes::Bytes;
use grus_protocol::checksum::crc32c;

use super::Log;
use crate::disk::Disk;
use crate::entry::{ENTRY_HEADER_BYTES, EntryHeader};
use crate::region::Region;
use crate::report::DamagedRange;
use crate::table::{DamagedEntry, EntryOffset};

/// Entries to check, for any thread that may wait for the disk. Holds the segment's mapping.
#[derive(Debug)]
pub struct Scrub {
    sequence: u64,
    life: u64,
    region: Region,
    /// Keeps the file from being used again meanwhile.
    whole: Bytes,
    /// Index and place.
    entries: Vec<(u64, EntryOffset)>,
    is_last: bool,
}

/// What came of a [`Scrub`]; goes back to [`Log::complete_scrub`].
#[derive(Debug)]
pub struct ScrubDone {
    sequence: u64,
    damaged: Vec<(u64, EntryOffset)>,
    checked_to: Option<u64>,
    is_last: bool,
}

impl Scrub {
    /// Reads and checks the entries. Blocks.
    pub fn run(self) -> ScrubDone {
        let damaged = self.entries.iter().copied().filter(|entry| !self.is_whole(*entry)).collect();
        let checked_to = self.entries.last().map(|(index, _)| *index);
        ScrubDone { sequence: self.sequence, damaged, checked_to, is_last: self.is_last }
    }

    fn is_whole(&self, (index, offset): (u64, EntryOffset)) -> bool {
        let start = offset as usize;
        let head = start..start + ENTRY_HEADER_BYTES;
        // By madvise first, so that a medium that cannot be read is an error and not a signal.
        if head.end > self.whole.len() || !self.can_read(head.clone()) {
            return false;
        }
        let Some(header) = EntryHeader::decode(&self.whole[head.clone()], self.life) else {
            return false;
        };
        let payload = head.end..head.end + header.length as usize;
        header.id.index == index
            && payload.end <= self.whole.len()
            && self.can_read(payload.clone())
            && crc32c(&self.whole[payload]) == header.payload_crc
    }

    fn can_read(&self, range: std::ops::Range<usize>) -> bool {
        let page = 4096;
        let aligned = range.start / page * page..range.end;
        self.region.fault_in_for_reading(aligned).is_ok()
    }
}

impl<D: Disk> Log<D> {
    /// About `bytes` of entries that this process has not checked yet, from the oldest on; `None`
    /// when all have been.
    pub fn next_scrub(&self, bytes: u32) -> Option<Scrub> {
        let segment = self.segments.iter().find(|segment| !segment.checked)?;
        let first = segment.table.first_index()?;
        let unpurged = self.notes.purged.map_or(0, |purged| purged.index + 1);
        let from = segment.checked_to.map_or(first, |checked| checked + 1).max(unpurged);
        let mut entries = Vec::new();
        let mut start = None;
        let mut is_last = true;
        for index in from..=segment.table.last_index()? {
            let offset = segment.table.offset_of(index)?;
            if segment.table.damaged.contains_key(&index) || offset == 0 {
                continue;
            }
            let start = *start.get_or_insert(offset);
            if offset - start >= bytes {
                is_last = false;
                break;
            }
            entries.push((index, offset));
        }
        Some(Scrub {
            sequence: segment.sequence,
            life: segment.life(),
            region: segment.region().clone(),
            whole: segment.whole(),
            entries,
            is_last,
        })
    }

    /// Whether this process has checked every entry that it did not write: nothing is damaged but what is
    /// named.
    pub fn is_checked(&self) -> bool {
        self.next_scrub(1).is_none()
    }

    /// Takes in what a scrub came to, and names what it found damaged.
    pub fn complete_scrub(&mut self, done: ScrubDone) -> Vec<DamagedRange> {
        let segment = self.segments.iter_mut().find(|segment| segment.sequence == done.sequence);
        let Some(segment) = segment else { return Vec::new() };
        segment.checked |= done.is_last;
        segment.checked_to = segment.checked_to.max(done.checked_to);
        let mut found = Vec::new();
        for (index, offset) in done.damaged {
            let Some(term) = segment.table.term_of(index) else { continue };
            segment.table.damaged.insert(index, DamagedEntry { term, kind: None });
            let next = segment.table.offset_of(index + 1).filter(|next| *next != 0);
            let until = next.unwrap_or(segment.end);
            found.push(DamagedRange {
                sequence: done.sequence,
                bytes: offset..until,
                first_index: index,
                last_index: index,
            });
        }
        found
    }
}
