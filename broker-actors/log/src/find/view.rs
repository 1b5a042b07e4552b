//! What the core thread hands over: where batches stand, with their mapping, so that another thread
//! can read them while the log goes on.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use grus_protocol::batch::RecordBatch;

use crate::footer::FooterRuns;
use crate::index::Run;
use crate::region::Region;

const PAGE_BYTES: usize = 4096;

/// Batches that were applied since the last time.
#[derive(Debug, Default)]
pub struct FindFeed {
    pub(crate) segments: Vec<FedSegment>,
    /// The segments there are, when some have gone.
    pub(crate) alive: Option<BTreeSet<u64>>,
}

impl FindFeed {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.alive.is_none()
    }

    /// Bytes of the batches in it.
    pub fn bytes(&self) -> u64 {
        let runs = self.segments.iter().flat_map(|segment| &segment.runs);
        runs.map(|fed| u64::from(fed.run.length)).sum()
    }
}

/// Batches of one segment.
#[derive(Debug)]
pub(crate) struct FedSegment {
    pub sequence: u64,
    /// How many batches of it were handed over before.
    pub from: usize,
    pub mapped: Mapped,
    pub runs: Vec<FedRun>,
}

/// A batch, and where its entry's payload begins in the file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FedRun {
    pub run: Run,
    pub payload: u32,
}

/// A segment's mapping.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    pub region: Region,
    /// Keeps the file from being used again meanwhile.
    pub whole: Bytes,
}

impl Mapped {
    /// The bytes of a batch, without looking at the disk first: for what was written just now.
    pub(super) fn bytes(&self, fed: &FedRun) -> Option<Bytes> {
        let range = range_of(fed);
        (range.end <= self.whole.len()).then(|| self.whole.slice(range))
    }

    /// The same when they may have to come from the disk: a medium that cannot be read is `None`,
    /// and not a signal. Blocks.
    pub(super) fn read(&self, fed: &FedRun) -> Option<Bytes> {
        let range = range_of(fed);
        self.fault_in(range).then(|| self.bytes(fed)).flatten()
    }

    /// The same, when its checksum is that of its bytes.
    pub(super) fn read_checked(&self, fed: &FedRun) -> Option<Bytes> {
        let bytes = self.read(fed)?;
        let batch = RecordBatch::from_log(bytes.clone()).ok()?;
        batch.verify_checksum().is_ok().then_some(bytes)
    }

    fn fault_in(&self, range: Range<usize>) -> bool {
        let start = range.start / PAGE_BYTES * PAGE_BYTES;
        range.end <= self.whole.len() && self.region.fault_in_for_reading(start..range.end).is_ok()
    }
}

fn range_of(fed: &FedRun) -> Range<usize> {
    let start = fed.payload as usize + fed.run.at.byte as usize;
    start..start + fed.run.length as usize
}

/// The segments that a search goes through, as they are at this moment.
#[derive(Debug, Clone, Default)]
pub struct FindViews {
    /// Newest first.
    pub(crate) segments: Vec<FindView>,
    /// Entries at or below are gone.
    pub(crate) purged: Option<u64>,
}

/// One segment for a search.
#[derive(Debug, Clone)]
pub enum FindView {
    /// Without a footer yet: its batches were fed.
    Open {
        /// Its sequence number.
        sequence: u64,
        /// How many batches were fed.
        runs: usize,
    },
    /// With a footer.
    Sealed(SealedView),
}

/// A segment with a footer, which says where its batches stand.
#[derive(Debug, Clone)]
pub struct SealedView {
    pub(crate) sequence: u64,
    pub(crate) mapped: Mapped,
    pub(crate) runs: FooterRuns,
}

impl SealedView {
    /// The segment's sequence number.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Batch number `nth` of the footer.
    pub(super) fn fed(&self, nth: u32) -> Option<FedRun> {
        let run = self.runs.nth(nth)?;
        let payload = self.runs.payload_of(run.at.index)?;
        Some(FedRun { run, payload })
    }
}
