//! Reading a queue: its numbers from the state, its batches from index and log.

use bytes::Bytes;
use grus_log::{Disk, Log, Run};
use grus_protocol::ids::{Durability, Offset, QueueKey, Term, TimestampMs};

use super::FetchedBatch;
use super::fetch_plan::Bounds;
use super::search::{Extent, first_reached};
use crate::error::QueueError;
use crate::machine::queue::QueueNumbers;
use crate::shard::ground::Ground;

/// Most batches in one answer, so that finding them never takes long.
pub const FETCH_BATCHES_MAX: usize = 2048;
/// Bytes of batches looked up at a time.
const FETCH_STEP_BYTES: u32 = 128 * 1024;
const PAGE_BYTES: usize = 4096;

/// A queue at one moment.
pub struct QueueReading<'a, D: Disk> {
    ground: &'a Ground<D>,
    key: QueueKey,
    numbers: QueueNumbers,
}

impl<'a, D: Disk> QueueReading<'a, D> {
    /// Reads the queue's numbers; none if the shard does not host it.
    pub fn new(ground: &'a Ground<D>, key: QueueKey) -> Option<Self> {
        let numbers = *ground.machine.borrow().state.queue(key)?;
        Some(Self { ground, key, numbers })
    }

    /// The queue's numbers.
    pub const fn numbers(&self) -> &QueueNumbers {
        &self.numbers
    }

    /// What can be read.
    pub const fn bounds(&self) -> Bounds {
        Bounds { log_start: self.numbers.visible_start, end_offset: self.numbers.next_offset }
    }

    /// The batch that holds `offset`, or the first one behind it.
    fn batch_at(&self, offset: Offset) -> Option<(Extent, Run)> {
        let run = self.ground.log.borrow().runs(self.key, offset, 1).into_iter().next()?;
        Some((extent(&run), run))
    }

    /// The term of the batch that holds the record before `offset`, where it is still kept.
    pub fn term_before(&self, offset: Offset) -> Option<Term> {
        let before = Offset(offset.0.checked_sub(1)?);
        let (extent, run) = self.batch_at(before)?;
        (extent.base <= before).then_some(run.term)
    }

    /// The greatest term that is not above `term`, and where its records end.
    pub fn end_of_term(&self, term: Term) -> (Term, Offset) {
        let end = self.first_where(|run| run.term > term);
        (self.term_before(end).unwrap_or(Term(0)), end)
    }

    /// The first offset stored at `time` or later, or the end.
    pub fn first_stored_at(&self, time: TimestampMs) -> Offset {
        self.first_where(|run| run.stored >= time)
    }

    /// One past the last record that is on disk here.
    pub fn durable_end(&self) -> Offset {
        if self.ground.durability == Durability::Persisted {
            return self.numbers.next_offset; // applied means on disk
        }
        let synced = self.ground.log.borrow().synced_index();
        self.first_where(|run| synced.is_none_or(|synced| run.at.index > synced))
    }

    fn first_where(&self, mut reached: impl FnMut(&Run) -> bool) -> Offset {
        first_reached(self.bounds(), |offset| self.batch_at(offset), |run| reached(run))
    }

    /// Batches from the one that holds `offset` on: at least one, then as fit `bytes_max`. True
    /// if some of them are not in memory.
    ///
    /// # Errors
    /// When the first of them is damaged. Damage behind it ends the answer; the next one names it.
    pub fn batches(
        &self,
        offset: Offset,
        bytes_max: u32,
    ) -> Result<(Vec<FetchedBatch>, bool), QueueError> {
        let log = self.ground.log.borrow();
        let mut found = Found {
            batches: Vec::new(),
            cold: false,
            next: offset,
            bytes_left: bytes_max,
            looked_at: 0,
        };
        while found.next < self.numbers.next_offset {
            // Small steps: a queue of tiny batches has a hundred thousand of them in a few MiB.
            let step = u64::from(found.bytes_left.min(FETCH_STEP_BYTES));
            let runs = log.runs(self.key, found.next, step);
            if runs.is_empty() || !runs.into_iter().all(|run| found.take(&log, &run)) {
                break;
            }
        }
        drop(log);
        if found.batches.is_empty() {
            return Err(self.damage_at(offset));
        }
        Ok((found.batches, found.cold))
    }

    /// Names the damage that keeps the record at `offset` from being read.
    fn damage_at(&self, offset: Offset) -> QueueError {
        let to = match self.batch_at(offset) {
            Some((extent, _)) if extent.base <= offset => extent.end,
            Some((extent, _)) => extent.base,
            None => self.numbers.next_offset,
        };
        QueueError::CorruptRange { from: offset, to }
    }
}

/// What a fetch has gathered so far.
struct Found {
    batches: Vec<FetchedBatch>,
    cold: bool,
    next: Offset,
    bytes_left: u32,
    /// Page of memory up to which it is known what is there.
    looked_at: usize,
}

impl Found {
    /// Notes whether a batch is in memory; asks the kernel once per page, not once per batch.
    fn look_at<D: Disk>(&mut self, log: &Log<D>, run: &Run, bytes: &Bytes) {
        let page_of = |byte: usize| byte / PAGE_BYTES;
        let first = bytes.as_ptr().addr();
        let (page, last_page) = (page_of(first), page_of(first + bytes.len().saturating_sub(1)));
        let is_known = page == last_page && page == self.looked_at;
        self.looked_at = last_page;
        self.cold = self.cold || (!is_known && !log.is_resident(run));
    }

    /// Takes the next batch; false if it does not follow, does not fit, or cannot be read.
    fn take<D: Disk>(&mut self, log: &Log<D>, run: &Run) -> bool {
        let full = run.length > self.bytes_left || self.batches.len() == FETCH_BATCHES_MAX;
        if run.base > self.next || (full && !self.batches.is_empty()) {
            return false;
        }
        let Ok(bytes) = log.slice(run) else { return false };
        self.look_at(log, run, &bytes);
        self.bytes_left = self.bytes_left.saturating_sub(run.length);
        self.next = extent(run).end;
        self.batches.push(FetchedBatch {
            base_offset: run.base,
            count: run.count,
            term: run.term,
            stored: run.stored,
            bytes,
        });
        true
    }
}

fn extent(run: &Run) -> Extent {
    Extent { base: run.base, end: Offset(run.base.0 + u64::from(run.count)) }
}
