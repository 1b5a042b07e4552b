//! Reads a segment's entries back from its mapping: what is whole, and what is not.

use std::ops::Range;

use grus_protocol::checksum::crc32c;

use crate::entry::{
    ENTRY_ALIGNMENT_BYTES, ENTRY_HEADER_BYTES, EntryHeader, Place, stride_of, u32_at, u64_at,
};
use crate::layout::{Close, SEGMENT_HEAD_BYTES, SegmentHead};
use crate::region::Region;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// How much is read ahead of the scan.
const READ_AHEAD_BYTES: usize = 4 * 1024 * 1024;
/// What can or cannot be read as a whole.
const PAGE_BYTES: usize = 4096;
/// So many zero bytes at the end of a sector's part speak for a sector that was never written.
const ZERO_TAIL_BYTES: usize = 16;

/// One thing found in a segment, in order of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// An entry with a whole header.
    Entry { offset: u32, header: EntryHeader, payload_whole: bool, looks_unwritten: bool },
    /// Bytes where an entry should start and none does; a whole header stands at `until`, or the
    /// segment's known end.
    Unknown { from: u32, until: u32, looks_unwritten: bool },
}

impl Found {
    pub(crate) fn offset(&self) -> u32 {
        match self {
            Self::Entry { offset, .. } => *offset,
            Self::Unknown { from, .. } => *from,
        }
    }
}

/// A segment as it was found.
#[derive(Debug, Clone)]
pub(crate) struct SegmentScan {
    pub sequence: u64,
    pub found: Vec<Found>,
    pub close: Option<(Close, usize)>,
    /// Greatest durable mark in any header.
    pub mark: Place,
    /// The first record of the file could not be read. Its fields stand in the name as well.
    pub head_damaged: bool,
    /// What stood behind the entries before may be anything, not only zeros.
    pub recycled: bool,
}

impl SegmentScan {
    /// No entry was ever written: a spare.
    pub(crate) fn is_unused(&self) -> bool {
        self.found.is_empty() && self.close.is_none()
    }
}

struct Scanner<'a> {
    region: &'a Region,
    life: u64,
    limit: usize,
    ready: usize,
    /// Ascending; each page on its own, so that one bad sector hides nothing beside it.
    unreadable: Vec<Range<usize>>,
}

/// Reads segment `sequence` from its mapping. `durable_until` is where the control page says that
/// the segment's durable bytes end, if it does.
/// `life` is what its entries carry: the sequence number, unless a test has taken that rule away.
/// Behind `data_end` the file holds zeros, and is not read: most of a new segment.
pub(crate) fn scan(
    region: &Region,
    sequence: u64,
    life: u64,
    durable_until: Option<u32>,
    data_end: u64,
) -> SegmentScan {
    let length = region.len();
    let head_bytes = region.bytes(0..length.min(SEGMENT_HEAD_BYTES as usize));
    let head = SegmentHead::decode(head_bytes);
    let close = Close::find(head_bytes, sequence);
    let limit = close.map_or(length, |(close, _)| (close.cut as usize).min(length));
    let data_end = usize::try_from(data_end).unwrap_or(length).min(length);
    let limit = limit.min(data_end.next_multiple_of(4096));
    let mut scanner = Scanner { region, life, limit, ready: 0, unreadable: Vec::new() };
    let (mut found, end) = scanner.run();
    let known_end = close.map(|(close, _)| close.cut).or(durable_until).unwrap_or(0);
    if end < known_end {
        let looks_unwritten = scanner.header_looks_unwritten(end as usize);
        // The file itself may have been cut short.
        let until = known_end.min(to_u32(length));
        found.push(Found::Unknown { from: end, until, looks_unwritten });
    }
    let mark = found.iter().map(|found| match found {
        Found::Entry { header, .. } => header.mark,
        Found::Unknown { .. } => Place::default(),
    });
    SegmentScan {
        sequence,
        mark: mark.max().unwrap_or_default(),
        found,
        close,
        head_damaged: head.is_none_or(|head| head.sequence != sequence),
        recycled: head.is_none_or(|head| head.recycled),
    }
}

impl Scanner<'_> {
    fn run(&mut self) -> (Vec<Found>, u32) {
        let mut found = Vec::new();
        let mut at = SEGMENT_HEAD_BYTES as usize;
        let mut end = at;
        while at + ENTRY_HEADER_BYTES <= self.limit {
            let Some(header) = self.header(at) else {
                let Some(next) = self.next_header(at) else { break };
                let looks_unwritten = self.header_looks_unwritten(at);
                found.push(Found::Unknown {
                    from: to_u32(at),
                    until: to_u32(next),
                    looks_unwritten,
                });
                at = next;
                continue;
            };
            let payload = at + ENTRY_HEADER_BYTES..at + ENTRY_HEADER_BYTES + header.length as usize;
            self.read_ahead(payload.end);
            let payload_whole = self.is_readable(&payload)
                && crc32c(self.region.bytes(payload.clone())) == header.payload_crc;
            let looks_unwritten = !payload_whole && self.payload_looks_unwritten(&payload);
            found.push(Found::Entry { offset: to_u32(at), header, payload_whole, looks_unwritten });
            at += header.stride();
            end = at;
        }
        (found, to_u32(end))
    }

    /// The header at `at`, if it is whole and its entry ends before the limit.
    fn header(&mut self, at: usize) -> Option<EntryHeader> {
        self.read_ahead(at + ENTRY_HEADER_BYTES);
        let range = at..(at + ENTRY_HEADER_BYTES).min(self.limit);
        if range.end > self.limit || !self.is_readable(&range) {
            return None;
        }
        let header = EntryHeader::decode(self.region.bytes(range), self.life)?;
        (at + header.stride() <= self.limit).then_some(header)
    }

    /// The next whole header behind a place that has none.
    fn next_header(&mut self, broken: usize) -> Option<usize> {
        // Where the broken header's own length leads, unless that is what is broken.
        if self.is_readable(&(broken..broken + ENTRY_HEADER_BYTES)) {
            let length = u32_at(self.region.bytes(broken + 16..broken + 20), 0) as usize;
            let guess = broken.saturating_add(stride_of(length.min(self.limit)));
            if guess + ENTRY_HEADER_BYTES <= self.limit && self.header(guess).is_some() {
                return Some(guess);
            }
        }
        let mut at = broken + ENTRY_ALIGNMENT_BYTES;
        while at + ENTRY_HEADER_BYTES <= self.limit {
            self.read_ahead(at + ENTRY_HEADER_BYTES);
            if !self.is_readable(&(at..at + ENTRY_HEADER_BYTES)) {
                at += ENTRY_ALIGNMENT_BYTES;
                continue;
            }
            let sequence = self.region.bytes(at + 8..at + 16);
            if u64_at(sequence, 0) == self.life && self.header(at).is_some() {
                return Some(at);
            }
            at += ENTRY_ALIGNMENT_BYTES;
        }
        None
    }

    /// Reads ahead by madvise, so that a medium that cannot be read is an error and not a signal.
    fn read_ahead(&mut self, until: usize) {
        while self.ready < until.min(self.limit) {
            let end = self.limit.next_multiple_of(PAGE_BYTES).min(self.region.len());
            let next = (self.ready + READ_AHEAD_BYTES).min(end);
            if self.region.fault_in_for_reading(self.ready..next).is_err() {
                self.find_unreadable(self.ready..next);
            }
            self.ready = next;
        }
    }

    /// A bad sector, or a hole in a file system of memory that is full: page by page.
    fn find_unreadable(&mut self, block: Range<usize>) {
        for from in block.clone().step_by(PAGE_BYTES) {
            let page = from..(from + PAGE_BYTES).min(block.end);
            if self.region.fault_in_for_reading(page.clone()).is_err() {
                match self.unreadable.last_mut() {
                    Some(last) if last.end == page.start => last.end = page.end,
                    _ => self.unreadable.push(page),
                }
            }
        }
    }

    fn is_readable(&self, range: &Range<usize>) -> bool {
        let after = self.unreadable.partition_point(|bad| bad.end <= range.start);
        self.unreadable.get(after).is_none_or(|bad| range.end <= bad.start)
    }

    /// Whether some sector's part of the header at `at` is all zeros.
    fn header_looks_unwritten(&self, at: usize) -> bool {
        let range = at..(at + ENTRY_HEADER_BYTES).min(self.region.len());
        self.is_readable(&range)
            && sectors(range).any(|part| self.region.bytes(part).iter().all(|byte| *byte == 0))
    }

    /// Whether some sector's part of the payload ends in zeros.
    fn payload_looks_unwritten(&self, payload: &Range<usize>) -> bool {
        self.is_readable(payload)
            && sectors(payload.clone()).any(|part| {
                let tail = part.end - part.len().min(ZERO_TAIL_BYTES)..part.end;
                self.region.bytes(tail).iter().all(|byte| *byte == 0)
            })
    }
}

/// The parts of `range`, sector by sector.
fn sectors(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    (range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES)).map(move |sector| {
        let start = sector * SECTOR_BYTES;
        start.max(range.start)..(start + SECTOR_BYTES).min(range.end)
    })
}

fn to_u32(at: usize) -> u32 {
    u32::try_from(at).expect("segments are below 4 GiB")
}
