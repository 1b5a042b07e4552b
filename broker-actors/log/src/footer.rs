//! The footer of a sealed segment: where its entries and the runs of its queues stand, so that a
//! start reads no entry of it.
//!
//! Body (in the container of `blob.rs`), little endian:
//!
//! ```text
//! 0 sequence u64 | 8 end u32 | 12 last kind u8, 0 u8, 0 u16 | 16 first index u64 | 24 entries u32
//! 28 terms u32 | 32 queues u32 | 36 runs u32 | 40 hash bytes u64 (0: the index of ids and keys is a file of its own, find.rs) | 48 flags u64
//! 64 entries x offset u32 (0: damaged before the footer was written), padded to 8
//!    terms   x first index u64, term u64
//!    queues  x topic u64, queue u32, first run u32, runs u32, 0 u32         ascending by (topic, queue)
//!    runs    x base u64, index u64, byte u32, length u32, count u32, 0 u32, term u64, stored u64, born max u64, tag bloom u64
//! ```

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use grus_protocol::ids::{Offset, QueueId, QueueKey, Term, TimestampMs, TopicId};

use crate::blob::Encode;
use crate::entry::{ENTRY_HEADER_BYTES, u32_at, u64_at};
use crate::index::{Position, Run, RunsByQueue};
use crate::table::EntryTable;

const FIXED_BYTES: usize = 64;
const TERM_BYTES: usize = 16;
const QUEUE_BYTES: usize = 24;
const RUN_BYTES: usize = 64;

/// Numbers, and runs, that are encoded at once.
const PIECE_OFFSETS: usize = 16 * 1024;
const PIECE_RUNS: usize = 1024;

/// What a footer is made of.
#[derive(Debug)]
pub(crate) struct FooterContent {
    sequence: u64,
    end: u32,
    table: EntryTable,
    runs: Arc<RunsByQueue>,
    /// Runs that are encoded at once, by queue; found out on the thread that encodes.
    pieces: OnceLock<Vec<(QueueKey, Range<usize>)>>,
}

/// A footer that was read.
#[derive(Debug)]
pub(crate) struct Footer {
    pub sequence: u64,
    pub end: u32,
    pub table: EntryTable,
    pub runs: FooterRuns,
}

/// The runs of a footer, read in place. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct FooterRuns {
    body: Bytes,
    runs_at: usize,
    /// Queue, first run, number of runs; ascending.
    directory: Arc<[(QueueKey, u32, u32)]>,
}

impl FooterContent {
    pub(crate) const fn new(
        sequence: u64,
        end: u32,
        table: EntryTable,
        runs: Arc<RunsByQueue>,
    ) -> Self {
        Self { sequence, end, table, runs, pieces: OnceLock::new() }
    }

    fn runs_count(&self) -> usize {
        self.runs.values().map(Vec::len).sum()
    }

    fn offset_pieces(&self) -> usize {
        self.table.len().div_ceil(PIECE_OFFSETS)
    }

    fn run_pieces(&self) -> &[(QueueKey, Range<usize>)] {
        self.pieces.get_or_init(|| {
            let pieces = self.runs.iter().flat_map(|(queue, runs)| {
                let starts = (0..runs.len()).step_by(PIECE_RUNS);
                starts.map(|start| (*queue, start..runs.len().min(start + PIECE_RUNS)))
            });
            pieces.collect()
        })
    }

    fn encode_fixed(&self, into: &mut Vec<u8>) {
        let mut fixed = [0; FIXED_BYTES];
        fixed[0..8].copy_from_slice(&self.sequence.to_le_bytes());
        fixed[8..12].copy_from_slice(&self.end.to_le_bytes());
        fixed[12] = self.table.last_kind();
        fixed[16..24].copy_from_slice(&self.table.first_index().unwrap_or(0).to_le_bytes());
        for (at, count) in [
            (24, self.table.len()),
            (28, self.table.terms().len()),
            (32, self.runs.len()),
            (36, self.runs_count()),
        ] {
            let count = u32::try_from(count).expect("fewer than the segment has bytes");
            fixed[at..at + 4].copy_from_slice(&count.to_le_bytes());
        }
        into.extend_from_slice(&fixed);
    }

    /// Terms and queues, behind the offsets.
    fn encode_directory(&self, into: &mut Vec<u8>) {
        if self.table.len() % 2 == 1 {
            into.extend_from_slice(&[0; 4]);
        }
        for (first, term) in self.table.terms() {
            into.extend_from_slice(&first.to_le_bytes());
            into.extend_from_slice(&term.to_le_bytes());
        }
        let mut start = 0u32;
        for (queue, runs) in self.runs.iter() {
            let count = u32::try_from(runs.len()).expect("fewer than the segment has bytes");
            into.extend_from_slice(&queue.topic.0.to_le_bytes());
            for field in [queue.queue.0, start, count, 0] {
                into.extend_from_slice(&field.to_le_bytes());
            }
            start += count;
        }
    }
}

/// The fixed fields, offsets, the directory, runs.
impl Encode for FooterContent {
    fn length(&self) -> usize {
        let offsets = (self.table.len() * 4).next_multiple_of(8);
        let terms = self.table.terms().len() * TERM_BYTES;
        let queues = self.runs.len() * QUEUE_BYTES;
        FIXED_BYTES + offsets + terms + queues + self.runs_count() * RUN_BYTES
    }

    fn pieces(&self) -> usize {
        2 + self.offset_pieces() + self.run_pieces().len()
    }

    fn encode_piece(&self, nth: usize, into: &mut Vec<u8>) {
        let Some(nth) = nth.checked_sub(1) else { return self.encode_fixed(into) };
        let directory = self.offset_pieces();
        if nth < directory {
            let offsets = self.table.offsets().chunks(PIECE_OFFSETS).nth(nth).unwrap_or_default();
            return offsets.iter().for_each(|offset| into.extend_from_slice(&offset.to_le_bytes()));
        }
        let Some(nth) = nth.checked_sub(directory + 1) else {
            return self.encode_directory(into);
        };
        let (queue, range) = &self.run_pieces()[nth];
        let runs = self.runs.get(queue).and_then(|runs| runs.get(range.clone()));
        runs.unwrap_or_default().iter().for_each(|run| encode_run(run, into));
    }
}

fn encode_run(run: &Run, into: &mut Vec<u8>) {
    into.extend_from_slice(&run.base.0.to_le_bytes());
    into.extend_from_slice(&run.at.index.to_le_bytes());
    for field in [run.at.byte, run.length, run.count, 0] {
        into.extend_from_slice(&field.to_le_bytes());
    }
    for field in [run.term.0, run.stored.0, run.born_max.0, run.tag_bloom] {
        into.extend_from_slice(&field.to_le_bytes());
    }
}

impl Footer {
    /// Reads a footer's body. `None` when its parts do not fit together.
    pub(crate) fn decode(body: &Bytes) -> Option<Self> {
        let fixed = body.get(..FIXED_BYTES)?;
        let count = |at| u32_at(fixed, at) as usize;
        let (entries, terms, queues, runs) = (count(24), count(28), count(32), count(36));
        let terms_at = FIXED_BYTES + (entries * 4).next_multiple_of(8);
        let queues_at = terms_at + terms * TERM_BYTES;
        let runs_at = queues_at + queues * QUEUE_BYTES;
        if runs_at + runs * RUN_BYTES > body.len() {
            return None;
        }
        let offsets = (0..entries).map(|nth| u32_at(body, FIXED_BYTES + nth * 4)).collect();
        let terms: Vec<_> = (0..terms)
            .map(|nth| terms_at + nth * TERM_BYTES)
            .map(|at| (u64_at(body, at), u64_at(body, at + 8)))
            .collect();
        let first = (entries > 0).then(|| u64_at(fixed, 16));
        if first.is_some() && terms.first().map(|(index, _)| *index) != first {
            return None;
        }
        let directory: Vec<_> = (0..queues)
            .map(|nth| queues_at + nth * QUEUE_BYTES)
            .map(|at| {
                let queue = QueueId(u32_at(body, at + 8));
                let key = QueueKey { topic: TopicId(u64_at(body, at)), queue };
                (key, u32_at(body, at + 12), u32_at(body, at + 16))
            })
            .collect();
        let fits = |(_, start, count): &(_, u32, u32)| *start as usize + *count as usize <= runs;
        if !directory.iter().all(fits) {
            return None;
        }
        let table = EntryTable::from_parts(first, offsets, terms, fixed[12]);
        let runs = FooterRuns { body: body.clone(), runs_at, directory: directory.into() };
        Some(Self { sequence: u64_at(fixed, 0), end: u32_at(fixed, 8), table, runs })
    }
}

impl FooterRuns {
    /// The queues that have runs here.
    pub(crate) fn queues(&self) -> impl Iterator<Item = QueueKey> {
        self.directory.iter().map(|(queue, ..)| *queue)
    }

    /// The first run of `queue` and how many there are.
    pub(crate) fn find(&self, queue: QueueKey) -> Option<(u32, u32)> {
        let nth = self.directory.binary_search_by_key(&queue, |(queue, ..)| *queue).ok()?;
        let (_, start, count) = self.directory[nth];
        Some((start, count))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u32 {
        u32_at(&self.body, 36)
    }

    /// Run number `nth` of the footer.
    pub(crate) fn nth(&self, nth: u32) -> Option<Run> {
        let after = self.directory.partition_point(|(_, start, _)| *start <= nth);
        let (queue, start, count) = *self.directory.get(after.checked_sub(1)?)?;
        (nth - start < count).then(|| self.run(queue, nth as usize))
    }

    /// Where the payload of an entry begins in the segment's file; `None` when it is damaged.
    pub(crate) fn payload_of(&self, index: u64) -> Option<u32> {
        let nth = usize::try_from(index.checked_sub(u64_at(&self.body, 16))?).ok()?;
        if nth >= u32_at(&self.body, 24) as usize {
            return None;
        }
        let offset = u32_at(&self.body, FIXED_BYTES + nth * 4);
        let header = u32::try_from(ENTRY_HEADER_BYTES).expect("64 bytes");
        (offset != 0).then(|| offset + header)
    }

    /// Tells footers of one segment apart: a footer that was made again may name other runs.
    pub(crate) fn stamp(&self) -> u32 {
        let runs = self.len() as usize;
        let ends = [0, runs.saturating_sub(1)].map(|nth| {
            let at = self.runs_at + nth * RUN_BYTES;
            self.body.get(at..at + RUN_BYTES).filter(|_| nth < runs).unwrap_or_default()
        });
        let fixed = crc32c::crc32c(&self.body[..FIXED_BYTES]);
        ends.iter().fold(fixed, |crc, run| crc32c::crc32c_append(crc, run))
    }

    /// Run number `nth` of the footer, which is one of `queue`.
    pub(crate) fn run(&self, queue: QueueKey, nth: usize) -> Run {
        let at = self.runs_at + nth * RUN_BYTES;
        let run = &self.body[at..at + RUN_BYTES];
        Run {
            queue,
            base: Offset(u64_at(run, 0)),
            at: Position { index: u64_at(run, 8), byte: u32_at(run, 16) },
            length: u32_at(run, 20),
            count: u32_at(run, 24),
            term: Term(u64_at(run, 32)),
            stored: TimestampMs(u64_at(run, 40)),
            born_max: TimestampMs(u64_at(run, 48)),
            tag_bloom: u64_at(run, 56),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::blob::encoded;
    use crate::entry::EntryId;

    #[test]
    fn a_footer_comes_back() {
        let mut table = EntryTable::default();
        let mut runs: RunsByQueue = BTreeMap::new();
        for index in 7..10u64 {
            table.place(
                EntryId { term: index / 8, index },
                4096 + u32::try_from(index).unwrap() * 8,
                2,
            );
            for topic in [1, 5] {
                let queue = QueueKey { topic: TopicId(topic), queue: QueueId(3) };
                runs.entry(queue).or_default().push(Run {
                    queue,
                    base: Offset(index * 2),
                    count: 2,
                    at: Position { index, byte: 9 },
                    length: 77,
                    term: Term(4),
                    stored: TimestampMs(index),
                    born_max: TimestampMs(2),
                    tag_bloom: u64::MAX,
                });
            }
        }
        let content = FooterContent::new(12, 5000, table.clone(), Arc::new(runs.clone()));
        let footer = Footer::decode(&encoded(&content).into()).unwrap();
        assert_eq!((footer.sequence, footer.end, &footer.table), (12, 5000, &table));
        for (queue, expected) in &runs {
            let (start, count) = footer.runs.find(*queue).unwrap();
            let read: Vec<Run> =
                (start..start + count).map(|nth| footer.runs.run(*queue, nth as usize)).collect();
            assert_eq!(&read, expected);
        }
        assert_eq!(footer.runs.queues().count(), 2);
    }

    #[test]
    fn garbage_is_refused() {
        for length in [0, 63, 64, 200] {
            assert!(Footer::decode(&vec![0xff; length].into()).is_none(), "{length}");
        }
    }
}
