//! Opening a log: which checkpoints can be used, and what becomes of a floor that cannot.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Log;
use super::checkpoints::{CheckpointEntry, read_checkpoint};
use super::recover::{Names, Opening};
use crate::checkpoint::CheckpointData;
use crate::disk::Disk;
use crate::entry::EntryId;
use crate::error::{CheckpointReadError, OpenError};
use crate::layout::{FileName, NOTES_NAME};
use crate::notes::Notes;
use crate::walk::Outcome;

/// The current snapshot cannot be read, and a later checkpoint can: the state is whole, but there is
/// nothing to send to a member that lags behind the purge point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostFloor {
    /// What is noted as the current snapshot.
    pub floor: EntryId,
    /// The files that cannot be read.
    pub files: Vec<PathBuf>,
    /// The first checkpoint behind it that can: [`Log::move_floor`].
    pub next: EntryId,
}

/// The checkpoints of a log.
#[derive(Debug, Default)]
pub(super) struct FoundState {
    /// Those that stay.
    pub entries: Vec<CheckpointEntry>,
    /// The newest chain that can be used.
    pub chain: Vec<CheckpointData>,
    pub lost_floor: Option<LostFloor>,
}

struct Read {
    entries: Vec<CheckpointEntry>,
    data: BTreeMap<u64, CheckpointData>,
    /// Files of which both copies are damaged.
    unreadable: Vec<PathBuf>,
}

impl<D: Disk> Opening<'_, D> {
    /// The checkpoints that are there, and the newest chain that can be used. A floor that cannot be
    /// read goes back to an older checkpoint where the log still reaches it.
    ///
    /// # Errors
    /// What is purged has no checkpoint any more. Nothing was changed.
    pub(super) fn checkpoints(
        &mut self,
        names: &Names,
        outcome: &Outcome,
        notes: &mut Notes,
    ) -> Result<FoundState, OpenError> {
        let Read { entries, mut data, mut unreadable } = self.read_checkpoints(names);
        // Somebody may have taken it away.
        let gone = |index: &u64| !names.checkpoints.contains(index);
        let gone = notes.floor.map(|floor| floor.index).filter(gone);
        unreadable.extend(gone.map(|index| self.path(FileName::Checkpoint(index))));
        let purged = notes.purged;
        // One beyond the log, or of another history, can be no state of it.
        let stands = |entry: &CheckpointEntry| {
            let id = entry.id;
            let is_purged = purged.is_some_and(|purged| id.index <= purged.index);
            is_purged || outcome.term_of(id.index) == Some(id.term)
        };
        let usable: Vec<Vec<u64>> = entries
            .iter()
            .rev()
            .filter(|entry| stands(entry) && Some(entry.id.index) >= purged.map(|id| id.index))
            .filter_map(|entry| chain_to(&entries, entry.id.index))
            .collect();
        // Best one that finds all runs before it in footers; what lies behind is applied again.
        let complete = usable
            .iter()
            .find(|chain| outcome.is_footed_to(chain.last().copied(), purged.map(|id| id.index)));
        let chain = complete.or(usable.first()).cloned();
        if chain.is_none() && purged.is_some() {
            return Err(self.no_checkpoint(notes, unreadable));
        }
        if complete.is_none() && chain.is_some() {
            let what = "footer lost, and no checkpoint before it: its queues' runs are missing";
            self.report.notes.push(what.to_owned());
        }
        let newest = chain.as_ref().and_then(|chain| chain.last().copied());
        let ends = usable.iter().filter_map(|chain| chain.last().copied());
        let ends = ends.filter(|end| Some(*end) <= newest);
        let id = |index| entries.iter().find(|entry| entry.id.index == index).map(|entry| entry.id);
        let next = match self.settle_floor(&entries, ends, notes) {
            Some(index) => id(index),
            None => None,
        };
        let lost_floor = notes.floor.zip(next);
        let lost_floor =
            lost_floor.map(|(floor, next)| LostFloor { floor, files: unreadable, next });
        // The snapshot stays, also when an older one was the better start.
        let newest = newest.max(notes.floor.map(|floor| floor.index));
        let (entries, void): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|entry| stands(entry) && Some(entry.id.index) <= newest);
        for entry in void {
            let path = self.path(FileName::Checkpoint(entry.id.index));
            self.void.push(path);
        }
        let chain = chain.unwrap_or_default();
        let chain = chain.iter().filter_map(|index| data.remove(index)).collect();
        Ok(FoundState { entries, chain, lost_floor })
    }

    fn read_checkpoints(&mut self, names: &Names) -> Read {
        let mut read = Read { entries: vec![], data: BTreeMap::new(), unreadable: vec![] };
        for index in &names.checkpoints {
            match read_checkpoint(self.disk, self.folder, *index) {
                Ok((file, damaged)) => {
                    if damaged {
                        let name = FileName::Checkpoint(*index);
                        let note = format!("{name}: one copy damaged, the other was used");
                        self.report.notes.push(note);
                    }
                    let full = file.data.full;
                    let id = file.data.id();
                    read.entries.push(CheckpointEntry { id, full, previous: file.previous });
                    read.data.insert(*index, file.data);
                }
                Err(error) => {
                    self.report.notes.push(format!("{error}; another one was used"));
                    if let CheckpointReadError::Damaged { path }
                    | CheckpointReadError::Io { path, .. } = error
                    {
                        read.unreadable.push(path);
                    }
                }
            }
        }
        read
    }

    /// Where the floor cannot be read: notes an older one that can, or none when nothing is purged.
    /// Else answers the next one, of those in `ends`.
    fn settle_floor(
        &mut self,
        entries: &[CheckpointEntry],
        ends: impl Iterator<Item = u64>,
        notes: &mut Notes,
    ) -> Option<u64> {
        let floor = notes.floor.filter(|floor| chain_to(entries, floor.index).is_none())?;
        let (older, newer): (Vec<u64>, Vec<u64>) = ends.partition(|end| *end < floor.index);
        let older = older.into_iter().max();
        if older.is_none() && notes.purged.is_some() {
            return newer.into_iter().min();
        }
        let older = older.and_then(|end| entries.iter().find(|entry| entry.id.index == end));
        notes.floor = older.map(|entry| entry.id);
        let now = notes.floor.map_or("none".to_owned(), |floor| floor.to_string());
        self.report.notes.push(format!("the snapshot {floor} cannot be read, now it is {now}"));
        None
    }

    fn no_checkpoint(&self, notes: &Notes, unreadable: Vec<PathBuf>) -> OpenError {
        let noted = notes.purged.map_or(0, |id| id.index);
        let noted = self.path(FileName::Checkpoint(noted));
        OpenError::Damaged {
            path: unreadable.into_iter().next().unwrap_or(noted),
            what: "a checkpoint that cannot be read, no later one stands for itself, and the log \
                   before it is purged; nothing was changed: bring it back from a copy",
        }
    }
}

impl<D: Disk> Log<D> {
    /// Durably makes the checkpoint at `id` the current snapshot in place of one that cannot be read
    /// ([`super::Recovered::lost_floor`]). Blocks: only right after opening, before the first job.
    ///
    /// # Errors
    /// What the file system said.
    ///
    /// # Panics
    /// When there is no such checkpoint, or a job is out.
    pub fn move_floor(&mut self, id: EntryId) -> Result<(), OpenError> {
        assert!(self.checkpoints().any(|held| held == id), "no checkpoint at {id} to be the floor");
        assert!(self.flight.is_none() && !self.wanted.notes, "the log is in use");
        self.notes.floor = Some(id);
        let write = self.notes_file.replace(self.notes.encode());
        write.run(&self.disk).map_err(OpenError::io(&self.folder.join(NOTES_NAME)))?;
        self.drop_old_checkpoints(self.notes.floor);
        Ok(())
    }
}

/// The indexes from a full checkpoint to the one at `index`, when all of them are there.
fn chain_to(entries: &[CheckpointEntry], index: u64) -> Option<Vec<u64>> {
    let mut chain = Vec::new();
    let mut at = index;
    loop {
        let entry = entries.iter().find(|entry| entry.id.index == at)?;
        chain.push(at);
        if entry.full {
            chain.reverse();
            return Some(chain);
        }
        at = entry.previous;
    }
}
