//! Checkpoints, footers, the floor, and installing a snapshot.

use std::sync::Arc;

use super::Log;
use super::jobs::Flight;
use crate::blob::{BlobKind, read_blob};
use crate::checkpoint::{CheckpointData, CheckpointFile};
use crate::control::Mark;
use crate::disk::Disk;
use crate::entry::EntryId;
use crate::error::{CheckpointError, CheckpointReadError, Fatal};
use crate::footer::FooterContent;
use crate::job::{JobFailure, Progress, Published, Ticket, Work};
use crate::layout::FileName;
use crate::publish::{Publication, Publisher};
use crate::switches::OrderRule;

/// Written in a turn of a publication at least, and once more: about a millisecond. A turn has as many
/// bytes as the last commit had, so that a log under load does not leave its checkpoints behind.
const TURN_BYTES_MIN: u64 = 256 * 1024;
/// The same, at most.
const TURN_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A checkpoint that is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointEntry {
    pub id: EntryId,
    pub full: bool,
    pub previous: u64,
}

/// A checkpoint on its way to the disk.
#[derive(Debug)]
pub(super) struct Publishing<D: Disk> {
    stage: Stage<D>,
    done: PublishDone,
}

#[derive(Debug)]
enum Stage<D: Disk> {
    Waits(Publication),
    /// Commits go in between.
    HasBegun(Publisher<D>),
}

/// What is true once a publication is done.
#[derive(Debug, Clone)]
pub(super) struct PublishDone {
    entry: CheckpointEntry,
    /// It installs a snapshot: nothing else is written before it.
    install: bool,
    ticket: Option<Ticket>,
    notes_generation: u64,
}

impl<D: Disk> Publishing<D> {
    const fn waits(publication: Publication, done: PublishDone) -> Self {
        Self { stage: Stage::Waits(publication), done }
    }

    pub(super) fn goes_first(&self) -> bool {
        self.done.install
    }

    const fn has_begun(&self) -> bool {
        matches!(self.stage, Stage::HasBegun(_))
    }
}

impl<D: Disk> Log<D> {
    /// Takes a checkpoint: the job syncs the log up to it, writes the footers of all segments up to
    /// there, and then the checkpoint. [`Progress::checkpoint`] tells when it is durable.
    ///
    /// # Errors
    /// See [`CheckpointError`].
    pub fn checkpoint(&mut self, data: CheckpointData) -> Result<(), CheckpointError> {
        let index = data.index;
        let newest = self.newest_known();
        if let Some(newest) = newest.filter(|newest| *newest >= index) {
            return Err(CheckpointError::NotNewer { newest });
        }
        let segment = self.segment_of(index);
        if segment.is_none_or(|s| s.is_open() || s.table.last_index() != Some(index)) {
            return Err(CheckpointError::NotAtSegmentEnd { index });
        }
        let Some(previous) = newest.or(data.full.then_some(0)) else {
            return Err(CheckpointError::NoBase { index });
        };
        let mut publication = self.new_publication();
        let upto: Vec<_> = self
            .segments
            .iter()
            .filter(|s| !s.footed && !s.footer_pending)
            .filter(|s| s.table.last_index().is_some_and(|last| last <= index))
            .map(|s| s.sequence)
            .collect();
        for sequence in upto {
            let runs = self.index.freeze(sequence);
            let segment = self.segments.iter_mut().find(|s| s.sequence == sequence);
            let segment = segment.expect("just listed");
            segment.footer_pending = true;
            let content = FooterContent::new(sequence, segment.end, segment.table.clone(), runs);
            let name = FileName::Footer(sequence);
            publication.files.push((name, BlobKind::Footer, Arc::new(content)));
        }
        let entry = CheckpointEntry { id: data.id(), full: data.full, previous };
        let content = Arc::new(CheckpointFile { data, previous });
        publication.files.push((FileName::Checkpoint(index), BlobKind::Checkpoint, content));
        let done = PublishDone { entry, install: false, ticket: None, notes_generation: 0 };
        self.publishing.push_back(Publishing::waits(publication, done));
        Ok(())
    }

    fn new_publication(&self) -> Publication {
        Publication {
            skip_file_sync: self.config.skips(OrderRule::SyncBeforeRename),
            skip_folder_sync: self.config.skips(OrderRule::SyncFolder),
            ..Publication::default()
        }
    }

    fn newest_known(&self) -> Option<u64> {
        let waiting = self.publishing.back().map(|publishing| publishing.done.entry.id.index);
        let writing = match &self.flight {
            Some(Flight::Publish { done, .. }) => Some(done.entry.id.index),
            _ => None,
        };
        waiting.or(writing).or(self.newest_checkpoint().map(|id| id.index))
    }

    /// The newest durable checkpoint.
    pub fn newest_checkpoint(&self) -> Option<EntryId> {
        self.checkpoints.last().map(|entry| entry.id)
    }

    /// All durable checkpoints, ascending.
    pub fn checkpoints(&self) -> impl Iterator<Item = EntryId> {
        self.checkpoints.iter().map(|entry| entry.id)
    }

    /// The checkpoint at `index` with all it builds on: a full one, then deltas. Reads the disk.
    ///
    /// # Errors
    /// See [`CheckpointReadError`].
    pub fn checkpoint_at(&self, index: u64) -> Result<Vec<CheckpointData>, CheckpointReadError> {
        self.checkpoint_reading(index)?.run()
    }

    /// What [`Log::checkpoint_at`] does, to be done on a thread that may block.
    ///
    /// # Errors
    /// [`CheckpointReadError::Missing`].
    pub fn checkpoint_reading(
        &self,
        index: u64,
    ) -> Result<CheckpointReading<D>, CheckpointReadError> {
        let chain = self.chain_of(index).ok_or(CheckpointReadError::Missing { index })?;
        let chain = chain.iter().map(|entry| entry.id.index).collect();
        Ok(CheckpointReading { disk: self.disk.clone(), folder: self.folder.clone(), chain })
    }

    /// From the full checkpoint that the one at `index` builds on, to that one.
    fn chain_of(&self, index: u64) -> Option<Vec<CheckpointEntry>> {
        let mut chain = Vec::new();
        let mut at = index;
        loop {
            let entry = self.checkpoints.iter().find(|entry| entry.id.index == at)?;
            chain.push(*entry);
            if entry.full {
                chain.reverse();
                return Some(chain);
            }
            at = entry.previous;
        }
    }

    /// Durably makes the checkpoint at `id` the current snapshot. Older ones that it does not build
    /// on go afterwards.
    ///
    /// # Panics
    /// When there is no such checkpoint.
    pub fn set_floor(&mut self, id: EntryId) -> Ticket {
        assert!(self.checkpoints().any(|held| held == id), "no checkpoint at {id} to be the floor");
        self.notes.floor = Some(id);
        self.write_notes()
    }

    /// Replaces everything up to the checkpoint `data` by it: a member that lags too far, or is new,
    /// starts from there. The log behind it stays if it agrees with it. Checkpoint, floor and purge
    /// point become durable in one step, before anything else is written.
    ///
    /// # Panics
    /// When `data` is not a full checkpoint.
    pub fn install(&mut self, data: CheckpointData) -> Ticket {
        assert!(data.full, "a snapshot stands for itself");
        let id = data.id();
        let agrees = self.term_of(id.index) == Some(id.term);
        self.notes.floor = Some(id);
        self.notes.purged = self.notes.purged.filter(|old| old.index > id.index).or(Some(id));
        self.index.clear();
        self.finding.clear();
        self.notes_generation += 1;
        if !agrees {
            self.notes.void_through = self.newest_sequence;
            self.notes.count_cut();
            let void = self.segments.drain(..);
            let generation = self.notes_generation;
            self.leaving.waiting.extend(void.map(|segment| (generation, segment)));
        }
        self.leave_purged();
        let ticket = self.ticket();
        let mut publication = self.new_publication();
        let entry = CheckpointEntry { id, full: true, previous: 0 };
        let content = Arc::new(CheckpointFile { data, previous: 0 });
        publication.files.push((FileName::Checkpoint(id.index), BlobKind::Checkpoint, content));
        let notes_generation = self.notes_generation;
        let done = PublishDone { entry, install: true, ticket: Some(ticket), notes_generation };
        // Checkpoints of the past that were still to be written are void.
        for publishing in std::mem::take(&mut self.publishing) {
            self.give_up_publishing(publishing.stage);
        }
        self.publishing.push_back(Publishing::waits(publication, done));
        ticket
    }

    fn give_up_publishing(&mut self, stage: Stage<D>) {
        if let Stage::HasBegun(publisher) = stage {
            let publication = publisher.into_publication();
            self.leaving.remove.extend(publication.temporary_paths(&self.folder));
        }
    }

    /// The next turn of the publication that is due.
    pub(super) fn publish(&mut self) -> Option<Work<D>> {
        let has_begun = self.publishing.front()?.has_begun();
        if self.room.disk_full && !has_begun && !std::mem::take(&mut self.room.retry_publish) {
            return None;
        }
        let Publishing { stage, done } = self.publishing.pop_front()?;
        let at_once = done.install;
        let mut publication = match stage {
            Stage::HasBegun(publisher) => {
                self.flight = Some(Flight::Publish { target: None, done });
                return Some(Work::Publish { files: Vec::new(), publisher, at_once });
            }
            Stage::Waits(publication) => publication,
        };
        if done.install {
            publication.notes = Some(self.notes_file.replace(self.notes.encode()));
        }
        let mut files = Vec::new();
        let skip_log = self.config.skips(OrderRule::LogBeforeCheckpoint);
        for segment in &mut self.segments {
            if !skip_log {
                files.extend(segment.take_dirty());
            }
        }
        let target = if skip_log { None } else { self.end_mark() };
        self.flight = Some(Flight::Publish { target, done });
        let turn_bytes = self.last_commit_bytes.clamp(TURN_BYTES_MIN, TURN_BYTES_MAX);
        let turn_bytes = usize::try_from(turn_bytes).expect("some MiB");
        let publisher = Publisher::new(publication, turn_bytes);
        Some(Work::Publish { files, publisher, at_once })
    }

    pub(super) fn published(
        &mut self,
        result: Result<Published<D>, (JobFailure, Publication)>,
        target: Option<Mark>,
        done: PublishDone,
        progress: &mut Progress,
    ) -> Result<(), Fatal> {
        // A snapshot came meanwhile, which goes before anything else is written.
        let is_void = self.publishing.iter().any(Publishing::goes_first);
        let footers = match result {
            Ok(Published::Wholly(footers)) => footers,
            Ok(Published::Partly(publisher)) => {
                self.synced_to(target, progress);
                let stage = Stage::HasBegun(publisher);
                if is_void {
                    self.give_up_publishing(stage);
                } else {
                    self.publishing.push_front(Publishing { stage, done });
                }
                return Ok(());
            }
            Err((JobFailure::Refused(error), mut publication)) => {
                if publication.notes.take().is_some() {
                    self.notes_file.take_back();
                }
                tracing::warn!(%error, index = done.entry.id.index, "checkpoint has to wait");
                self.room.disk_full = true;
                if !is_void {
                    self.publishing.push_front(Publishing::waits(publication, done));
                }
                // What it synced before is no longer known to be dirty, so sync again.
                for segment in &mut self.segments {
                    segment.dirty |= segment.file.is_some();
                }
                self.wanted.sync = true;
                return Ok(());
            }
            Err((failure, _)) => return Err(failure.fatal()),
        };
        if !self.room.spares.is_empty() {
            self.room.disk_full = false;
        }
        self.synced_to(target, progress);
        for footer in footers {
            if let Some(segment) = self.segments.iter_mut().find(|s| s.sequence == footer.sequence)
            {
                segment.footed = true;
                segment.footer_pending = false;
                self.leaving.tails.extend(segment.tail());
                self.index.replace_by_footer(footer.sequence, footer.runs);
            }
        }
        let index = done.entry.id.index;
        self.checkpoints.retain(|entry| entry.id.index != index);
        self.checkpoints.push(done.entry);
        self.checkpoints.sort_by_key(|entry| entry.id.index);
        progress.checkpoint = Some(index);
        progress.tickets.extend(done.ticket);
        if done.install {
            self.let_go(done.notes_generation, 0);
            // Not the newest floor: one that was set since may not be durable yet.
            self.drop_old_checkpoints(Some(done.entry.id));
        }
        Ok(())
    }

    /// Checkpoints that the durable floor does not build on go.
    pub(super) fn drop_old_checkpoints(&mut self, floor: Option<EntryId>) {
        let chain = floor.and_then(|floor| self.chain_of(floor.index));
        let Some(base) = chain.and_then(|chain| Some(chain.first()?.id.index)) else { return };
        let (old, keep) = self.checkpoints.iter().partition(|entry| entry.id.index < base);
        self.checkpoints = keep;
        let old: Vec<CheckpointEntry> = old;
        let paths = old.iter().map(|old| FileName::Checkpoint(old.id.index).to_string());
        self.leaving.remove.extend(paths.map(|name| self.folder.join(name)));
    }
}

/// Reads a checkpoint with all it builds on. Its files may be taken away meanwhile, when the floor
/// has moved on: then it fails.
#[derive(Debug)]
pub struct CheckpointReading<D: Disk> {
    disk: D,
    folder: std::path::PathBuf,
    chain: Vec<u64>,
}

impl<D: Disk> CheckpointReading<D> {
    /// A full checkpoint, then its deltas. Blocks.
    ///
    /// # Errors
    /// See [`CheckpointReadError`].
    pub fn run(&self) -> Result<Vec<CheckpointData>, CheckpointReadError> {
        let read = |index: &u64| Ok(read_checkpoint(&self.disk, &self.folder, *index)?.0.data);
        self.chain.iter().map(read).collect()
    }
}

/// Reads a checkpoint's file; also whether one of its two copies is damaged.
pub(super) fn read_checkpoint<D: Disk>(
    disk: &D,
    folder: &std::path::Path,
    index: u64,
) -> Result<(CheckpointFile, bool), CheckpointReadError> {
    let path = folder.join(FileName::Checkpoint(index).to_string());
    let blob = match read_blob(disk, &path, BlobKind::Checkpoint) {
        Ok(blob) => blob,
        Err(source) => return Err(CheckpointReadError::Io { path, source }),
    };
    let read = blob.and_then(|blob| Some((CheckpointFile::decode(&blob.body)?, blob.damaged)));
    read.filter(|(file, _)| file.data.index == index).ok_or(CheckpointReadError::Damaged { path })
}
