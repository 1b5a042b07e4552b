//! Finding messages by id or by key.
//!
//! ```text
//! core thread                          a thread that may wait for the disk
//! index_add ─▶ [Log] ──FindFeed──────▶ [FindIndex] ──▶ collects (hash, batch) of what is not sealed
//!                │  ──FindViews──────▶    │ search: newest segment first, each hit read and compared
//!                └──SealedView───────▶    │ build: one table file per sealed segment, in steps
//!                ◀──gaps, built, matches──┘
//! ```
//!
//! An index entry is 8 bytes: 32 bits of a hash, and the number of the batch in its segment. It is
//! only a hint: every hit is verified by reading the batch, so a collision costs a read and never a
//! wrong answer. What the core thread pays is a push per batch; records are parsed elsewhere.
//!
//! * `hash`: what is hashed. * `entries`: the entries of a segment, in memory.
//! * `table`: the same on the disk, `find-<16 hex>` beside the segment: made again when it is lost
//!   or damaged. * `build`: making one. * `read`: the records of a batch. * `search`: looking.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use grus_protocol::ids::{MessageId, Offset, QueueKey, Term, TimestampMs, TopicId};

use crate::disk::Disk;
use crate::index::Position;

mod build;
mod entries;
mod hash;
mod read;
mod search;
mod table;
mod view;

#[cfg(test)]
mod model_tests;

pub use build::FindBuilt;
pub use table::{FindTable, TableError, TableSource};
pub use view::{FindFeed, FindView, FindViews, SealedView};

pub(crate) use view::{FedRun, FedSegment, Mapped};

use build::Building;
use entries::{ENTRIES_MAX, Entries};
use hash::Hashing;
use table::TableFile;

/// Most bytes of batches that one search reads where there is no table: about 60 ms.
pub const SCANNED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Most bytes of batches that one search reads to verify what the tables name.
pub const VERIFIED_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// What messages are looked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindBy {
    /// Their id.
    Id(MessageId),
    /// One of their keys, in one incarnation of a topic.
    Key {
        /// The incarnation.
        topic: TopicId,
        /// The key.
        key: Bytes,
    },
}

/// A question for a [`FindIndex`].
#[derive(Debug, Clone)]
pub struct FindQuery {
    /// What to look for.
    pub by: FindBy,
    /// Most messages wanted, at least 1: the newest are given.
    pub messages_max: usize,
    /// Only messages in these queues, from the first offset to before the second. `None`: any.
    pub scope: Option<BTreeMap<QueueKey, (Offset, Offset)>>,
}

/// A message that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindMatch {
    /// Its queue.
    pub queue: QueueKey,
    /// Its offset.
    pub offset: Offset,
    /// The term it was stored in.
    pub term: Term,
    /// When it was stored.
    pub stored: TimestampMs,
    /// Where its batch stands in the log.
    pub at: Position,
    /// The message alone, as a record batch of one.
    pub batch: Bytes,
}

/// What a search came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FindOutcome {
    /// The messages, in the order of the log: the newest last.
    pub matches: Vec<FindMatch>,
    /// There may be older ones than `messages_max`.
    pub more: bool,
    /// Bytes of batches that were read because no table covers them.
    pub scanned_bytes: u64,
    /// Bytes of batches that were not looked at: beyond the limits, or damaged.
    pub unsearched_bytes: u64,
    /// Segments whose batches have to be fed again, as this index does not know them: for
    /// [`crate::Log::find_again`]. The search is to be made again after that.
    pub gaps: Vec<u64>,
    /// Segments that were read although they are sealed: their tables have to be made, for
    /// [`crate::Log::find_again`].
    pub without_table: Vec<u64>,
}

/// The index of one log, on a thread that may wait for the disk. Everything in it can be made
/// again: one that is new learns from the log what it lacks.
#[derive(Debug)]
pub struct FindIndex<D: Disk> {
    disk: D,
    folder: PathBuf,
    hashing: Hashing,
    /// Segments whose batches were fed, until their tables are on the disk.
    open: BTreeMap<u64, OpenSegment>,
    /// Tables on the disk that were opened.
    tables: BTreeMap<u64, TableFile>,
    /// Tables that are damaged or cannot be had: not tried again by each search.
    without: BTreeSet<u64>,
    /// Most entries of a segment.
    entries_max: usize,
    building: Option<Building<D>>,
}

/// A segment that still grows, or has no table yet.
#[derive(Debug)]
struct OpenSegment {
    mapped: Mapped,
    runs: Vec<FedRun>,
    entries: Entries,
    /// Batches that could not be read, or have no room in `entries`: a search reads them.
    unread: Vec<u32>,
}

impl<D: Disk> FindIndex<D> {
    /// An index that knows nothing yet, of the log in `folder`.
    pub fn new(disk: D, folder: PathBuf) -> Self {
        Self {
            disk,
            folder,
            hashing: Hashing::default(),
            open: BTreeMap::new(),
            tables: BTreeMap::new(),
            without: BTreeSet::new(),
            entries_max: ENTRIES_MAX,
            building: None,
        }
    }

    /// The same with a hash that collides all the time.
    #[cfg(test)]
    fn with_weak_hash(mut self, mask: u32) -> Self {
        self.hashing = Hashing::weak(mask);
        self
    }

    /// Takes in batches that were applied, and forgets segments that have gone. Says which segments
    /// have to be fed from their first batch on.
    pub fn feed(&mut self, feed: FindFeed) -> Vec<u64> {
        let mut gaps = Vec::new();
        for segment in feed.segments {
            let FedSegment { sequence, from, mapped, runs } = segment;
            let known = self.open.get(&sequence).map_or(0, |open| open.runs.len());
            if from != known && from != 0 {
                gaps.push(sequence);
                continue;
            }
            if from == 0 {
                self.open.insert(sequence, OpenSegment::new(mapped, self.entries_max));
            }
            if let Some(open) = self.open.get_mut(&sequence) {
                open.take(runs, self.hashing);
            }
        }
        if let Some(alive) = feed.alive {
            self.open.retain(|sequence, _| alive.contains(sequence));
            self.tables.retain(|sequence, _| alive.contains(sequence));
            self.without.retain(|sequence| alive.contains(sequence));
        }
        gaps
    }
}

impl OpenSegment {
    fn new(mapped: Mapped, entries_max: usize) -> Self {
        let (runs, entries) = (Vec::new(), Entries::new(entries_max));
        Self { mapped, runs, entries, unread: Vec::new() }
    }

    fn take(&mut self, runs: Vec<FedRun>, hashing: Hashing) {
        for fed in runs {
            let number = u32::try_from(self.runs.len()).expect("fewer than the segment has bytes");
            let entries = &mut self.entries;
            let read =
                self.mapped.bytes(&fed).ok_or(()).and_then(|batch| {
                    entries.add_batch(&batch, fed.run.queue.topic, number, hashing)
                });
            if read.is_err() {
                self.unread.push(number);
            }
            self.runs.push(fed);
        }
    }
}
