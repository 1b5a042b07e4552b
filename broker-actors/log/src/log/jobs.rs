//! Handing out jobs and taking their results.

use super::Log;
use super::checkpoints::{PublishDone, Publishing};
use crate::control::Mark;
use crate::disk::{Disk, is_full};
use crate::entry::{EntryId, stride_of};
use crate::error::Fatal;
use crate::job::{Job, JobDone, JobFailure, Outcome, Progress, Ticket, Work};
use crate::maker::{Maker, Origin, Step};
use crate::switches::OrderRule;

/// Spare segments kept ready.
const SPARES_WANTED: usize = 1;
/// The same under load, so that one long commit does not leave the log without room.
const SPARES_WANTED_UNDER_LOAD: usize = 2;
/// A log of one segment has none ready before this part of it is written.
const HARDLY_BEGUN_PART: u64 = 64;

/// The job that is out.
#[derive(Debug)]
pub(super) enum Flight {
    Commit {
        /// Where the log ended when the job was handed out, and its last entry, never beyond what
        /// has been truncated since.
        target: Option<Mark>,
        tickets: Vec<Ticket>,
        notes_generation: u64,
        unsynced_bytes: u64,
        floor: Option<EntryId>,
        /// Truncated segments whose cut this makes durable.
        empty: usize,
    },
    Make,
    Publish {
        target: Option<Mark>,
        done: PublishDone,
    },
    Warm {
        sequence: u64,
        warmed_to: u32,
    },
    Remove,
}

impl Flight {
    /// The log was truncated: nothing behind `end` may be reported durable by this job.
    pub(super) fn clamp(&mut self, end: Option<EntryId>) {
        let (Self::Commit { target, .. } | Self::Publish { target, .. }) = self else { return };
        *target = match (target.take(), end) {
            (Some(mark), Some(end)) => Some(Mark { last: mark.last.min_by_index(end), ..mark }),
            _ => None,
        };
    }
}

impl<D: Disk> Log<D> {
    /// The next work for the flush thread, if any may start now. One job is out at a time; give the
    /// result of each to [`Log::complete`].
    pub fn next_job(&mut self) -> Option<Job<D>> {
        if self.flight.is_some() {
            return None;
        }
        self.take_mappings_back();
        if self.publishing.front().is_some_and(Publishing::goes_first) {
            // Where it finds the disk full, what has gone before makes room.
            let work = self.publish().or_else(|| self.remove())?;
            return Some(Job { disk: self.disk.clone(), folder: self.folder.clone(), work });
        }
        let work = self.choose()?;
        self.made_way = matches!(work, Work::Commit { .. });
        Some(Job { disk: self.disk.clone(), folder: self.folder.clone(), work })
    }

    /// A commit goes first, but takes turns with whatever the next commits would have to wait for.
    fn choose(&mut self) -> Option<Work<D>> {
        if self.config.skips(OrderRule::FloorBeforeRemove)
            && let Some(work) = self.remove()
        {
            return Some(work);
        }
        if std::mem::take(&mut self.made_way) {
            if self.room.spares.is_empty() && self.may_make() {
                return Some(self.make());
            }
            // A log that is never idle needs its checkpoints too, and the room of what is purged; so they
            // take turns with warming, which under load has something to do behind each commit.
            let has_warmed = std::mem::take(&mut self.has_warmed);
            if !has_warmed && let Some(work) = self.warm_if_cold() {
                self.has_warmed = true;
                return Some(work);
            }
            if let Some(work) = self.publish().or_else(|| self.remove()) {
                return Some(work);
            }
            if let Some(work) = self.warm_if_cold() {
                return Some(work);
            }
        }
        self.commit()
            .or_else(|| self.may_make().then(|| self.make()))
            .or_else(|| self.publish())
            .or_else(|| self.remove())
            .or_else(|| self.warm())
    }

    /// Asks for a sync of what is written, as `replicated` logs do each second.
    pub fn request_sync(&mut self) {
        self.wanted.sync |= self.unsynced_bytes > 0;
    }

    /// Asks for another try at what a full disk refused.
    pub fn request_room(&mut self) {
        self.room.try_again();
    }

    fn commit(&mut self) -> Option<Work<D>> {
        let wanted = std::mem::take(&mut self.wanted);
        if !wanted.sync && !wanted.vote && !wanted.notes {
            return None;
        }
        let skip_log = self.config.skips(OrderRule::SyncBeforeAcknowledge)
            || (wanted.vote && self.config.skips(OrderRule::LogBeforeVote));
        // The log is in order, and what was truncated is void before what it was cut from is shorter.
        let empty = self.leaving.empty.len();
        let empties = self.leaving.empty.iter_mut().rev();
        let mut files = Vec::new();
        for segment in empties.chain(self.segments.iter_mut()) {
            if !skip_log {
                files.extend(segment.take_dirty());
            }
        }
        self.last_commit_bytes = self.unsynced_bytes;
        let unsynced_vote = self.config.skips(OrderRule::SyncVote);
        let vote = wanted.vote.then(|| self.vote.write().unsynced_if(unsynced_vote));
        let notes = wanted.notes.then(|| self.notes_file.replace(self.notes.encode()));
        let target = (wanted.sync || !skip_log).then(|| self.end_mark()).flatten();
        self.flight = Some(Flight::Commit {
            target,
            tickets: wanted.tickets,
            notes_generation: self.notes_generation,
            unsynced_bytes: self.unsynced_bytes,
            floor: self.notes.floor,
            empty,
        });
        Some(Work::Commit { files, vote, notes })
    }

    pub(super) fn end_mark(&self) -> Option<Mark> {
        let segment = self.segments.back()?;
        let last = segment.table.last_id()?;
        Some(Mark { place: segment.end_place(), last, cuts: self.notes.cuts })
    }

    fn may_make(&self) -> bool {
        // One of a start on a full disk is smaller than a segment ought to be.
        let whole = self.config.first_segment_bytes as usize;
        let spares = self.room.spares.iter().filter(|spare| spare.region.len() >= whole).count();
        let wanted = match () {
            () if self.is_hardly_begun() => 0,
            () if self.is_loaded() => SPARES_WANTED_UNDER_LOAD,
            () => SPARES_WANTED,
        };
        self.room.maker.is_some() || (spares < wanted && (!self.room.disk_full || self.room.retry))
    }

    /// Whether all there is are the first entries of one segment, in which any entry finds room:
    /// a broker that has nothing takes little of the disk.
    fn is_hardly_begun(&self) -> bool {
        if self.segments.len() != 1 || self.room.retry || self.room.disk_full {
            return false;
        }
        self.segments.iter().all(|segment| {
            let part = segment.region().len() as u64 / HARDLY_BEGUN_PART;
            segment.room() >= stride_of(self.config.entry_bytes_max)
                && u64::from(segment.end) < part
        })
    }

    fn make(&mut self) -> Work<D> {
        let maker = match self.room.maker.take() {
            Some(maker) => maker,
            None => self.new_maker(),
        };
        self.room.retry = false;
        self.flight = Some(Flight::Make);
        Work::Make(maker)
    }

    pub(super) fn new_maker(&mut self) -> Maker<D> {
        let sequence = self.room.next_sequence;
        self.room.next_sequence += 1;
        let length = self.config.next_segment_bytes(self.stats().bytes);
        let origin = self.reusable(length).map_or(Origin::New, Origin::Recycled);
        Maker::new(&self.folder, sequence, length, origin).for_config(&self.config)
    }

    /// Takes in what a job came to.
    ///
    /// # Errors
    /// The process must end: the disk can no longer be trusted.
    ///
    /// # Panics
    /// When no job is out.
    pub fn complete(&mut self, done: JobDone<D>) -> Result<Progress, Fatal> {
        let flight = self.flight.take().expect("a job is out");
        let mut progress = Progress::default();
        match (done.0, flight) {
            (
                Outcome::Committed(result),
                Flight::Commit { target, tickets, notes_generation, unsynced_bytes, floor, empty },
            ) => {
                result.map_err(JobFailure::fatal)?;
                self.unsynced_bytes -= unsynced_bytes;
                self.synced_to(target, &mut progress);
                progress.tickets = tickets;
                self.let_go(notes_generation, empty);
                self.drop_old_checkpoints(floor);
            }
            (Outcome::Made(made), Flight::Make) => self.made(made, &mut progress)?,
            (Outcome::Published(result), Flight::Publish { target, done }) => {
                self.published(result, target, done, &mut progress)?;
            }
            (Outcome::Warmed(result), Flight::Warm { sequence, warmed_to }) => {
                result.map_err(JobFailure::fatal)?;
                self.warmed(sequence, warmed_to);
            }
            (Outcome::Removed(result), Flight::Remove) => match result {
                // The next open takes away what could not be taken away now.
                Err(JobFailure::Refused(error)) => tracing::warn!(%error, "old segments stay"),
                Err(failure) => return Err(failure.fatal()),
                Ok(()) if self.room.disk_full => self.room.try_again(),
                Ok(()) => {}
            },
            (outcome, flight) => unreachable!("{outcome:?} is not the result of {flight:?}"),
        }
        Ok(progress)
    }

    /// Everything up to `target` is on the disk.
    pub(super) fn synced_to(&mut self, target: Option<Mark>, progress: &mut Progress) {
        let before = self.durable_index();
        if let Some(mark) = target {
            self.store_mark(mark);
            if self.synced.is_none_or(|synced| synced.index < mark.last.index) {
                self.synced = Some(mark.last);
            }
        }
        // Segments that get nothing more need no descriptor.
        for segment in &mut self.segments {
            if !segment.is_open() && !segment.dirty {
                segment.file = None;
            }
        }
        let after = self.durable_index();
        progress.durable_index = after.filter(|_| after != before);
    }

    fn made(
        &mut self,
        made: Result<Step<D>, JobFailure>,
        progress: &mut Progress,
    ) -> Result<(), Fatal> {
        match made {
            Ok(Step::More(maker)) => self.room.maker = Some(maker),
            Ok(Step::Ready(spare)) => {
                self.room.spares.push_back(spare);
                self.room.disk_full = false;
                progress.room = true;
            }
            Err(JobFailure::Refused(error)) => {
                if !self.room.disk_full {
                    let full = is_full(&error);
                    tracing::warn!(%error, full, folder = %self.folder.display(), "no new segment");
                }
                self.room.disk_full = true;
            }
            Err(failure) => return Err(failure.fatal()),
        }
        Ok(())
    }
}

impl JobFailure {
    pub(super) fn fatal(self) -> Fatal {
        match self {
            Self::Refused(source) => Fatal { what: "the disk refused".into(), source },
            Self::Fatal(what, source) => Fatal { what, source },
        }
    }
}
