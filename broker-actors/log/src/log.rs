//! The log: a plain struct that is called on its core thread and never blocks.
//!
//! ```text
//! append, vote, truncate, purge ──▶ [Log] ──next_job()──▶ Job ──run() on the flush thread──▶ JobDone
//!                                     ▲                                                         │
//!                                     └──────────────────── complete() ◀────────────────────────┘
//! ```
//!
//! One job is out at a time. While a sync is under way, what is appended gathers for the next one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use grus_protocol::ids::Durability;

use crate::config::LogConfig;
use crate::control::{ControlPage, Mark};
use crate::disk::Disk;
use crate::entry::{EntryId, Place};
use crate::index::LogIndex;
use crate::job::Ticket;
use crate::maker::{Maker, Spare};
use crate::notes::Notes;
use crate::segment::{Previous, Segment};
use crate::slots::SlotFile;

mod append;
mod checkpoints;
mod fault_in;
mod find;
mod jobs;
mod leaving;
mod open;
mod read;
mod recover;
mod recover_state;
mod scrub;
mod warm;

pub use append::Step;
pub use checkpoints::CheckpointReading;
pub use fault_in::FaultIn;
pub use open::Recovered;
pub use recover_state::LostFloor;
pub use scrub::{Scrub, ScrubDone};
pub(crate) use warm::{WarmWay, Warmth};

use checkpoints::{CheckpointEntry, Publishing};
use jobs::Flight;
use leaving::Leaving;

/// See the module documentation.
#[derive(Debug)]
pub struct Log<D: Disk> {
    disk: D,
    folder: PathBuf,
    config: LogConfig,
    segments: VecDeque<Segment<D::File>>,
    index: LogIndex,
    previous: Previous,
    /// The greatest sequence number of a segment that was ever written to.
    newest_sequence: u64,
    control: ControlPage,
    vote: SlotFile,
    notes: Notes,
    notes_file: SlotFile,
    notes_generation: u64,
    checkpoints: Vec<CheckpointEntry>,
    publishing: VecDeque<Publishing<D>>,
    room: Room<D>,
    wanted: Wanted,
    flight: Option<Flight>,
    /// The last job was a commit.
    made_way: bool,
    /// What a commit made way for last was warming.
    has_warmed: bool,
    next_ticket: u64,
    /// Up to here the log is synced.
    synced: Option<EntryId>,
    mark: Place,
    unsynced_bytes: u64,
    /// What the last commit covered.
    last_commit_bytes: u64,
    bytes_since_seal: u64,
    leaving: Leaving<D>,
    finding: find::Finding,
    last_checked: Cell<Option<u64>>,
    /// Let go of last.
    #[expect(dead_code, reason = "held for its lock")]
    lock: D::Lock,
}

/// The making of the next segment.
#[derive(Debug)]
struct Room<D: Disk> {
    spares: VecDeque<Spare<D::File>>,
    maker: Option<Maker<D>>,
    next_sequence: u64,
    /// The last attempt found the disk full.
    disk_full: bool,
    /// Somebody needs room: try again.
    retry: bool,
    /// The same for a checkpoint that was refused: a segment that is refused must not use it up.
    retry_publish: bool,
}

impl<D: Disk> Room<D> {
    fn try_again(&mut self) {
        self.retry = true;
        self.retry_publish = true;
    }
}

/// What the next commit is to do.
#[derive(Debug, Default)]
struct Wanted {
    sync: bool,
    vote: bool,
    notes: bool,
    tickets: Vec<Ticket>,
}

/// Numbers about a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogStats {
    /// Segments that hold entries.
    pub segments: u64,
    /// Bytes of entries.
    pub bytes: u64,
    /// Bytes of written entries that are not synced yet.
    pub unsynced_bytes: u64,
    /// First index that can be read.
    pub first_index: Option<u64>,
    /// Last index.
    pub last_index: Option<u64>,
    /// Entries known to be damaged.
    pub damaged_entries: u64,
    /// Segments of earlier lives whose entries were not all checked yet ([`Log::next_scrub`]).
    pub unchecked_segments: u64,
    /// The last attempt to allocate a segment found the disk full.
    pub disk_full: bool,
}

impl<D: Disk> Log<D> {
    /// The folder of the log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The last entry, or the purge point when there is none behind it.
    pub fn last(&self) -> Option<EntryId> {
        self.last_entry().or(self.notes.purged)
    }

    fn last_entry(&self) -> Option<EntryId> {
        self.segments.back().and_then(|segment| segment.table.last_id())
    }

    /// The purge point: this entry and all before it are gone on purpose.
    pub fn purged(&self) -> Option<EntryId> {
        self.notes.purged
    }

    /// The entry whose checkpoint is the current snapshot.
    pub fn floor(&self) -> Option<EntryId> {
        self.notes.floor
    }

    /// The first index that can be read.
    pub fn first_index(&self) -> Option<u64> {
        let first = self.segments.iter().find_map(|segment| segment.table.first_index())?;
        Some(self.notes.purged.map_or(first, |purged| first.max(purged.index + 1)))
    }

    /// The newest vote; empty when none was ever made.
    pub fn vote(&self) -> &[u8] {
        self.vote.value()
    }

    /// The entry noted as committed, never beyond the end of the log.
    pub fn committed(&self) -> Option<EntryId> {
        let saved = self.control.state().committed?;
        self.last().map(|last| saved.min_by_index(last))
    }

    /// What was last noted as committed, as it was noted: after a power cut it may be older than
    /// what was noted last, and the log may not reach it.
    pub fn saved_committed(&self) -> Option<EntryId> {
        self.control.state().committed
    }

    /// Whether a kernel was lost under the volatile mark and that has not been healed.
    pub fn lost_memory(&self) -> bool {
        self.notes.lost_kernel
    }

    /// Whether all that the log held was lost, with its folder, and what there is now is a part of what has
    /// been copied back since.
    pub fn was_emptied(&self) -> bool {
        self.notes.emptied
    }

    /// Notes how far consensus has committed. Costs a store; it may be old after a power cut.
    pub fn save_committed(&mut self, committed: Option<EntryId>) {
        let mut state = self.control.state();
        state.committed = committed;
        self.control.store(state);
    }

    /// The watermark of the log's durability class: entries up to here may be acknowledged.
    pub fn durable_index(&self) -> Option<u64> {
        match self.config.durability {
            Durability::Persisted => self.synced_index(),
            Durability::Replicated | Durability::Memory => self.last().map(|last| last.index),
        }
    }

    /// What is truly on the disk.
    pub fn synced_index(&self) -> Option<u64> {
        self.synced.map(|synced| synced.index)
    }

    /// The term of an entry, damaged ones included.
    pub fn term_of(&self, index: u64) -> Option<u64> {
        match self.notes.purged {
            Some(purged) if index == purged.index => return Some(purged.term),
            Some(purged) if index < purged.index => return None,
            _ => {}
        }
        self.segment_of(index)?.table.term_of(index)
    }

    /// Whether the last attempt to make room found the disk full.
    pub fn is_disk_full(&self) -> bool {
        self.room.disk_full
    }

    /// Payload bytes an entry may have at most.
    pub fn entry_bytes_max(&self) -> usize {
        self.config.entry_bytes_max
    }

    /// Numbers about the log.
    pub fn stats(&self) -> LogStats {
        let head = u64::from(crate::layout::SEGMENT_HEAD_BYTES);
        LogStats {
            segments: self.segments.iter().filter(|segment| !segment.table.is_empty()).count()
                as u64,
            bytes: self.segments.iter().map(|segment| u64::from(segment.end) - head).sum(),
            unsynced_bytes: self.unsynced_bytes,
            first_index: self.first_index(),
            last_index: self.last_entry().map(|id| id.index),
            unchecked_segments: self.segments.iter().filter(|s| !s.checked).count() as u64,
            damaged_entries: self.segments.iter().map(|s| s.table.damaged.len() as u64).sum(),
            disk_full: self.room.disk_full,
        }
    }

    fn segment_of(&self, index: u64) -> Option<&Segment<D::File>> {
        let after = self.segments.partition_point(|segment| {
            segment.table.first_index().is_some_and(|first| first <= index)
        });
        self.segments.get(after.checked_sub(1)?)
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn write_notes(&mut self) -> Ticket {
        self.notes_generation += 1;
        self.wanted.notes = true;
        let ticket = self.ticket();
        self.wanted.tickets.push(ticket);
        ticket
    }

    fn store_mark(&mut self, mark: Mark) {
        self.mark = self.mark.max(mark.place);
        let mut state = self.control.state();
        if state.mark.is_none_or(|old| old.place <= mark.place) {
            state.mark = Some(mark);
        }
        self.control.store(state);
    }

    /// Says where the log's files are gone when the caller wants to name one.
    pub fn segment_path(&self, index: u64) -> Option<PathBuf> {
        self.segment_of(index).map(|segment| segment.path.clone())
    }

    /// Replaces the vote. The job syncs the log written so far, then the vote; only then may it be
    /// answered. [`Log::vote`] gives it at once.
    pub fn append_vote(&mut self, vote: &[u8]) -> Ticket {
        self.vote.set(vote.to_vec());
        self.wanted.vote = true;
        let ticket = self.ticket();
        self.wanted.tickets.push(ticket);
        ticket
    }

    /// Durably notes that entries are acknowledged before they are synced. Once a kernel is lost
    /// with this mark, [`Recovered::volatile`] says so at each start until [`Log::heal_volatile`].
    pub fn set_volatile(&mut self) -> Ticket {
        self.notes.volatile = true;
        self.write_notes()
    }

    /// Takes the mark away, at a clean stop, when everything is synced.
    pub fn clear_volatile(&mut self) -> Ticket {
        self.notes.volatile = false;
        self.write_notes()
    }

    /// Notes that what was lost, with a kernel or with the folder, has been copied back from the other members.
    pub fn heal_volatile(&mut self) -> Ticket {
        self.notes.lost_kernel = false;
        self.notes.emptied = false;
        self.write_notes()
    }
}

impl EntryId {
    fn min_by_index(self, other: Self) -> Self {
        if other.index < self.index { other } else { self }
    }
}
