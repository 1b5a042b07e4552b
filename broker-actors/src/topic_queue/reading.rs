//! Reading a queue: its numbers from the state, its batches from index and log; or both from its
//! ring, where its topic is temporary. All that reads a queue comes through here.

use grus_log::{Disk, FaultIn, Log, Run};
use grus_protocol::ids::{Durability, GroupId, Offset, QueueKey, Term, TimestampMs};

use super::FetchedBatch;
use super::fetch_plan::Bounds;
use super::group_messages::ProgressStatus;
use super::search::{Extent, first_reached};
use crate::commands::groups::ProgressKey;
use crate::error::QueueError;
use crate::machine::queue::QueueNumbers;
use crate::shard::ground::Ground;

/// Most batches in one answer, so that finding them never takes long.
pub const FETCH_BATCHES_MAX: usize = 2048;
/// Bytes of batches looked up at a time.
const FETCH_STEP_BYTES: u32 = 128 * 1024;
const PAGE_BYTES: usize = 4096;

/// How much to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Most bytes; the first batch is read even if it alone is longer.
    pub bytes_max: u32,
    /// No batch is begun once so many messages are read.
    pub messages_max: u64,
}

/// A queue at one moment.
pub struct QueueReading<'a, D: Disk> {
    ground: &'a Ground<D>,
    key: QueueKey,
    numbers: QueueNumbers,
    /// It lies in a ring.
    is_temporary: bool,
}

impl<'a, D: Disk> QueueReading<'a, D> {
    /// Reads the queue's numbers; none if the shard does not host it.
    pub fn new(ground: &'a Ground<D>, key: QueueKey) -> Option<Self> {
        let machine = ground.machine.borrow();
        let stored = *machine.state.queue(key)?;
        let is_temporary = machine.state.is_temporary(key.topic);
        let numbers = if is_temporary { ground.rings.borrow().numbers(key) } else { stored };
        Some(Self { ground, key, numbers, is_temporary })
    }

    /// The queue's numbers.
    pub const fn numbers(&self) -> &QueueNumbers {
        &self.numbers
    }

    /// What can be read.
    pub const fn bounds(&self) -> Bounds {
        Bounds { log_start: self.numbers.visible_start, end_offset: self.numbers.next_offset }
    }

    /// Whether the queue may go on behind its end: see [`Ground::complete`].
    pub fn is_cut_short(&self) -> bool {
        !self.ground.complete.get()
    }

    /// Whether its messages lie in memory alone.
    pub const fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    /// Where the queue begins for who wants all that came later than himself, if all did: at the first
    /// message of all, or, of a temporary queue, the first that there is.
    pub const fn first_of_all(&self) -> Offset {
        if self.is_temporary { self.numbers.visible_start } else { Offset(0) }
    }

    /// Batches from the one that holds `from` on, as the index has them.
    fn runs(&self, from: Offset, bytes_max: u64) -> Vec<Run> {
        if self.is_temporary {
            return self.ground.rings.borrow().runs(self.key, from, bytes_max);
        }
        self.ground.log.borrow().runs(self.key, from, bytes_max)
    }

    /// The batch that holds `offset`, or the first one behind it.
    fn batch_at(&self, offset: Offset) -> Option<(Extent, Run)> {
        let run = self.runs(offset, 1).into_iter().next()?;
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

    /// When the record at an offset was stored; none if it is not there.
    pub fn stored_at(&self, offset: Offset) -> Option<TimestampMs> {
        let (extent, run) = self.batch_at(offset)?;
        (extent.base <= offset).then_some(run.stored)
    }

    /// How a group stands here; none if it has never been here.
    pub fn progress(&self, group: GroupId) -> Option<ProgressStatus> {
        let machine = self.ground.machine.borrow();
        let held = machine.state.progress(ProgressKey { queue: self.key, group })?;
        let Bounds { log_start, end_offset } = self.bounds();
        let oldest = held.oldest_unsettled(log_start, end_offset);
        let numbers = held.numbers();
        Some(ProgressStatus {
            queue: self.key,
            floor: numbers.floor,
            log_start,
            end_offset,
            delivered_to: numbers.delivered_to,
            lag: held.lag(log_start, end_offset),
            retries: held.retries() as u64,
            next_retry: held.next_due(),
            oldest: oldest.and_then(|offset| self.stored_at(offset)),
            member: numbers.member,
            generation: numbers.generation,
            round: numbers.round,
            counts: numbers.counts,
        })
    }

    /// The first batch from the one that holds `from` on whose bloom of tags `may` hold something,
    /// among the next `batches_max`. Only the index is looked at.
    pub fn first_that_may(
        &self,
        from: Offset,
        batches_max: usize,
        may: impl Fn(u64) -> bool,
    ) -> FirstThatMay {
        let (mut at, mut looked_at) = (from, 0);
        while at < self.numbers.next_offset && looked_at < batches_max {
            let runs = self.runs(at, FETCH_STEP_BYTES.into());
            if runs.is_empty() {
                return FirstThatMay { at, is_found: true }; // reading says what is wrong
            }
            for run in runs {
                let is_behind_a_gap = run.base > at;
                if is_behind_a_gap || may(run.tag_bloom) {
                    return FirstThatMay { at, is_found: true };
                }
                at = run.end();
                looked_at += 1;
            }
        }
        FirstThatMay { at, is_found: false }
    }

    /// One past the last record that is on disk here.
    pub fn durable_end(&self) -> Offset {
        if self.is_temporary {
            return self.numbers.visible_start; // nothing ever is
        }
        if self.ground.durability == Durability::Persisted {
            return self.numbers.next_offset; // applied means on disk
        }
        let synced = self.ground.log.borrow().synced_index();
        self.first_where(|run| synced.is_none_or(|synced| run.at.index > synced))
    }

    fn first_where(&self, mut reached: impl FnMut(&Run) -> bool) -> Offset {
        first_reached(self.bounds(), |offset| self.batch_at(offset), |run| reached(run))
    }

    /// Batches from the one that holds `offset` on: at least one, then as fit the limits. Those
    /// that are not in memory end the answer; if the first is not, it says how to bring them in.
    ///
    /// # Errors
    /// When the first of them is damaged. Damage behind it ends the answer; the next one names it.
    pub fn batches(&self, offset: Offset, limits: ReadLimits) -> Result<Batches, QueueError> {
        if self.is_temporary {
            return self.kept_batches(offset, limits).map(Batches::Warm);
        }
        let log = self.ground.log.borrow();
        let found = Found::look(&log, self.key, offset, self.numbers.next_offset, limits, None);
        if !found.batches.is_empty() {
            return Ok(Batches::Warm(found.batches));
        }
        if found.is_cold {
            let runs = log.runs(self.key, offset, u64::from(limits.bytes_max));
            let fault_in = log.fault_in(&runs[..runs.len().min(FETCH_BATCHES_MAX)]);
            return Ok(Batches::Cold(fault_in));
        }
        drop(log);
        Err(self.damage_at(offset))
    }

    /// The same once they were brought in: at most `batches_max`, which could be read.
    ///
    /// # Errors
    /// When the first of them is damaged or could not be read.
    pub fn warmed_batches(
        &self,
        offset: Offset,
        limits: ReadLimits,
        batches_max: usize,
    ) -> Result<Vec<FetchedBatch>, QueueError> {
        if self.is_temporary {
            return self.kept_batches(offset, limits);
        }
        let log = self.ground.log.borrow();
        let (end, warmed) = (self.numbers.next_offset, Some(batches_max));
        let found = Found::look(&log, self.key, offset, end, limits, warmed);
        drop(log);
        if found.batches.is_empty() {
            return Err(self.damage_at(offset));
        }
        Ok(found.batches)
    }

    /// Batches of a ring: all that it has is in memory.
    fn kept_batches(
        &self,
        offset: Offset,
        limits: ReadLimits,
    ) -> Result<Vec<FetchedBatch>, QueueError> {
        let most = (limits.bytes_max, limits.messages_max, FETCH_BATCHES_MAX);
        let batches = self.ground.rings.borrow().batches(self.key, offset, most);
        match batches.first() {
            Some(first) if first.base_offset <= offset => Ok(batches),
            _ => Err(self.damage_at(offset)),
        }
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

/// Where a look at blooms has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstThatMay {
    /// Nothing before it may.
    pub at: Offset,
    /// Whether the batch there may.
    pub is_found: bool,
}

/// Batches for a reader.
pub enum Batches {
    /// In memory.
    Warm(Vec<FetchedBatch>),
    /// On the disk: to be brought in on a thread that may wait.
    Cold(FaultIn),
}

/// What a fetch has gathered so far.
struct Found {
    batches: Vec<FetchedBatch>,
    /// The next batch is not in memory.
    is_cold: bool,
    next: Offset,
    bytes_left: u32,
    messages_left: u64,
    /// Batches brought in before; none are asked about then.
    warmed: Option<usize>,
    /// Entry and page of the last run that was found in memory.
    looked_at: Option<(u64, usize)>,
}

impl Found {
    fn look<D: Disk>(
        log: &Log<D>,
        key: QueueKey,
        offset: Offset,
        end: Offset,
        limits: ReadLimits,
        warmed: Option<usize>,
    ) -> Self {
        let mut found = Self {
            batches: Vec::new(),
            is_cold: false,
            next: offset,
            bytes_left: limits.bytes_max,
            messages_left: limits.messages_max,
            warmed,
            looked_at: None,
        };
        while found.next < end {
            // Small steps: a queue of tiny batches has a hundred thousand of them in a few MiB.
            let step = u64::from(found.bytes_left.min(FETCH_STEP_BYTES));
            let runs = log.runs(key, found.next, step);
            if runs.is_empty() || !runs.into_iter().all(|run| found.take(log, &run)) {
                break;
            }
        }
        found
    }

    /// Takes the next batch; false if it does not follow, does not fit, or cannot be read now.
    fn take<D: Disk>(&mut self, log: &Log<D>, run: &Run) -> bool {
        let count_max = self.warmed.unwrap_or(FETCH_BATCHES_MAX).min(FETCH_BATCHES_MAX);
        let is_full =
            (run.length > self.bytes_left || self.messages_left == 0) && !self.batches.is_empty();
        if run.base > self.next || is_full || self.batches.len() >= count_max {
            return false;
        }
        if !self.is_in_memory(log, run) {
            self.is_cold = true;
            return false;
        }
        let Ok(bytes) = log.slice(run) else { return false };
        self.bytes_left = self.bytes_left.saturating_sub(run.length);
        self.messages_left = self.messages_left.saturating_sub(u64::from(run.count));
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

    /// Asks the kernel once per page, not once per batch.
    fn is_in_memory<D: Disk>(&mut self, log: &Log<D>, run: &Run) -> bool {
        if self.warmed.is_some() {
            return true;
        }
        let (first, last) = (run.at.byte as usize, (run.at.byte + run.length) as usize);
        let (page, last_page) = (first / PAGE_BYTES, last / PAGE_BYTES);
        let is_known = page == last_page && self.looked_at == Some((run.at.index, page));
        if !is_known && !log.is_resident(run) {
            return false;
        }
        self.looked_at = Some((run.at.index, last_page));
        true
    }
}

fn extent(run: &Run) -> Extent {
    Extent { base: run.base, end: Offset(run.base.0 + u64::from(run.count)) }
}
