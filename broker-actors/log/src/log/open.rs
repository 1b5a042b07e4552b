//! Opening a log: lock, version, recovery. The only part of [`Log`] that blocks.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::channel;

use super::find::Finding;
use super::recover::{Opening, check_format};
use super::recover_state::{FoundState, LostFloor};
use super::{Leaving, Log, Room, Wanted};
use crate::checkpoint::CheckpointData;
use crate::config::LogConfig;
use crate::control::Mark;
use crate::disk::{Disk, LockError, is_full};
use crate::entry::{EntryId, EntryKind, Place};
use crate::error::OpenError;
use crate::layout::{
    LOCK_NAME, NOTES_NAME, RESERVE_BYTES, RESERVE_NAME, SEGMENT_HEAD_BYTES, VOTE_NAME,
};
use crate::maker::{MakeError, Maker, Origin};
use crate::notes::{ACCEPTED_RANGES_MAX, Notes};
use crate::report::Report;
use crate::segment::{Previous, Segment};
use crate::slots::SlotFile;
use crate::switches::OrderRule;
use crate::walk::{Evidence, Outcome};

/// The smallest segment that a start on a full disk makes do with: the reserve and what goes with it.
const LEAST_BYTES: u32 = RESERVE_BYTES / 2;

/// What a log that was opened starts from.
#[derive(Debug, Clone, Default)]
pub struct Recovered {
    /// The newest checkpoint that can be used, as a full one and the deltas behind it. None of them
    /// lies beyond the end of the log. State starts from here; the entries behind it are applied again.
    pub checkpoints: Vec<CheckpointData>,
    /// The current snapshot cannot be read, and its owner has to say whether a later one may stand in.
    pub lost_floor: Option<LostFloor>,
    /// From here on entries are missing at the end, with the files that held them. A log is not to be
    /// gone on with before the operator has given them up ([`Log::accepts_loss_of`]).
    pub missing_from: Option<u64>,
    /// A kernel was lost while entries were acknowledged before they were synced, or the folder of a log
    /// that had been written, and that has not been healed since.
    pub volatile: bool,
    /// What was found and done.
    pub report: Report,
}

impl Recovered {
    /// The first damaged entry that has to be applied again, or that is missing at the end, if there is
    /// one: what comes behind it cannot be rebuilt unless the operator accepts its loss or a peer gives it
    /// back.
    pub fn damaged_to_apply(&self) -> Option<u64> {
        let applied = self.checkpoints.last().map(|checkpoint| checkpoint.index);
        let behind = |last: u64| applied.is_none_or(|applied| last > applied);
        let damage = self.report.damage.iter().filter(|range| behind(range.last_index));
        let first = |first: u64| applied.map_or(first, |applied| first.max(applied + 1));
        damage.map(|range| first(range.first_index)).chain(self.missing_from).min()
    }
}

impl<D: Disk> Log<D> {
    /// Opens the log in `folder`, making it when there is none. Blocks; recovers what is there, and
    /// makes it durable before it returns.
    ///
    /// # Errors
    /// See [`OpenError`]. A folder of a newer version is not touched.
    pub fn open(
        disk: &D,
        folder: &Path,
        config: LogConfig,
    ) -> Result<(Self, Recovered), OpenError> {
        let config = config.checked();
        let lock = claim(disk, folder)?;
        let mut opening = Opening::new(disk, folder, config.clone());
        opening.found_log()?;
        let (vote, mut notes_file) = (opening.slots(VOTE_NAME)?, opening.slots(NOTES_NAME)?);
        let notes = Notes::decode(notes_file.value());
        let mut notes = notes.ok_or_else(|| opening.damaged(NOTES_NAME, "unknown content"))?;
        let control = opening.control()?;
        let names = opening.names()?;
        let mut found = opening.segments(&names)?;
        let void_through = Opening::void_through(&found).max(notes.void_through);
        let free_sequence = names.next_sequence(void_through);
        let mark = control.state().mark;
        let evidence = evidence(disk, &notes, mark, void_through, free_sequence);
        let mut outcome = opening.recover(&mut found, &names, evidence)?;
        let newest_sequence = outcome.newest_sequence().max(void_through);
        let next_sequence = next_sequence(&config, &outcome, names.next_sequence(newest_sequence));
        let (as_found, ends_at) = (notes.clone(), outcome.last());
        if config.accept_loss {
            give_up(&mut notes, folder, &opening.report, ends_at)?;
        }
        let FoundState { entries: checkpoints, chain: data, lost_floor } =
            opening.checkpoints(&names, &outcome, &mut notes)?;
        let (give_back, given_back) = channel();
        let applied = data.last().map(|data| data.index);
        let (segments, index) = opening.keep(&mut outcome, &mut found, applied, &give_back)?;
        let mut noted = Noted { disk, folder, file: &mut notes_file, written: as_found };
        if mark.is_some_and(|mark| Some(mark.last.index) > ends_at.map(|last| last.index)) {
            // A cut explains it. It is noted before the file with that cut may go.
            notes.count_cut();
            noted.write(&notes)?;
        }
        opening.settle(&outcome, &found, &names)?;
        opening.reserve();
        // Only now: what was torn by the loss of the last kernel is settled.
        note_start(&mut notes, disk, config.was_written && ends_at.is_none());
        noted.write(&notes)?;
        let mut log = Self {
            disk: disk.clone(),
            folder: folder.to_path_buf(),
            synced: segments.back().and_then(|s| s.table.last_id()).max(notes.purged),
            bytes_since_seal: bytes_since_seal(&segments),
            segments,
            index,
            previous: Previous::default(),
            newest_sequence,
            vote,
            notes_generation: 0,
            checkpoints,
            publishing: VecDeque::new(),
            room: Room::new(next_sequence),
            wanted: Wanted::default(),
            flight: None,
            made_way: false,
            has_warmed: false,
            next_ticket: 0,
            mark: Place::default(),
            unsynced_bytes: 0,
            last_commit_bytes: 0,
            leaving: Leaving::new(give_back, given_back),
            finding: Finding::default(),
            last_checked: Cell::new(None),
            lock,
            control,
            notes,
            notes_file,
            config,
        };
        log.start()?;
        let (volatile, missing_from) = (log.notes.lost_kernel, outcome.missing_from);
        let (checkpoints, report) = (data, opening.report);
        Ok((log, Recovered { checkpoints, lost_floor, missing_from, volatile, report }))
    }

    /// The last steps of opening: the mark, and a segment to go on in.
    fn start(&mut self) -> Result<(), OpenError> {
        if let Some(mark) = self.end_mark() {
            self.store_mark(mark);
        }
        self.renew_previous();
        self.leave_purged();
        self.drop_old_checkpoints(self.notes.floor);
        self.make_first_segment()
    }

    /// A segment to go on in. On a full disk a small one will do: a leader needs room for its first
    /// entries, or nothing could ever be purged.
    fn make_first_segment(&mut self) -> Result<(), OpenError> {
        let mut length = self.config.next_segment_bytes(self.stats().bytes);
        loop {
            let sequence = self.room.next_sequence;
            self.room.next_sequence += 1;
            let maker = Maker::new(&self.folder, sequence, length, Origin::New);
            match maker.for_config(&self.config).finish(&self.disk) {
                Ok(spare) => self.room.spares.push_back(spare),
                Err(MakeError::Refused(error)) if is_full(&error) && length > LEAST_BYTES => {
                    length = (length / 4).max(LEAST_BYTES);
                    continue;
                }
                // The reserve is for this.
                Err(MakeError::Refused(error)) if is_full(&error) && self.free_reserve() => {
                    continue;
                }
                Err(MakeError::Refused(error)) => {
                    tracing::warn!(%error, folder = %self.folder.display(), "no new segment");
                    self.room.disk_full = true;
                }
                Err(MakeError::Fatal(source)) => {
                    return Err(OpenError::Io { path: self.folder.clone(), source });
                }
            }
            return Ok(());
        }
    }

    fn free_reserve(&self) -> bool {
        self.disk.remove(&self.folder.join(RESERVE_NAME)).is_ok()
    }
}

impl<D: Disk> Room<D> {
    fn new(next_sequence: u64) -> Self {
        let spares = VecDeque::new();
        Self {
            spares,
            maker: None,
            next_sequence,
            disk_full: false,
            retry: false,
            retry_publish: false,
        }
    }
}

/// The notes while the log is being opened.
struct Noted<'a, D: Disk> {
    disk: &'a D,
    folder: &'a Path,
    file: &'a mut SlotFile,
    written: Notes,
}

impl<D: Disk> Noted<'_, D> {
    /// Makes them durable, where they are not.
    fn write(&mut self, notes: &Notes) -> Result<(), OpenError> {
        if self.written == *notes {
            return Ok(());
        }
        self.written.clone_from(notes);
        let write = self.file.replace(notes.encode());
        write.run(self.disk).map_err(OpenError::io(&self.folder.join(NOTES_NAME)))
    }
}

/// The number of the next segment.
fn next_sequence(config: &LogConfig, outcome: &Outcome, beyond_cuts: u64) -> u64 {
    if config.skips(OrderRule::NumbersBeyondCuts) {
        return outcome.kept.last().map_or(0, |kept| kept.sequence) + 1;
    }
    beyond_cuts
}

fn bytes_since_seal<F>(segments: &VecDeque<Segment<F>>) -> u64 {
    let is_sealed = |segment: &&Segment<F>| segment.table.last_kind() == EntryKind::Seal as u8;
    let unsealed = segments.iter().rev().take_while(|segment| !is_sealed(segment));
    unsealed.map(|segment| u64::from(segment.end - SEGMENT_HEAD_BYTES)).sum()
}

/// Looks at the version, then takes the lock: a folder of a newer version is not touched.
fn claim<D: Disk>(disk: &D, folder: &Path) -> Result<D::Lock, OpenError> {
    check_format(disk, folder)?;
    disk.create_folder(folder).map_err(OpenError::io(folder))?;
    let path = folder.join(LOCK_NAME);
    disk.lock(&path).map_err(|error| match error {
        LockError::Held { pid } => OpenError::Locked { folder: folder.to_path_buf(), pid },
        LockError::Io(source) => OpenError::Io { path, source },
    })
}

/// What is known besides the segments themselves.
fn evidence<D: Disk>(
    disk: &D,
    notes: &Notes,
    mark: Option<Mark>,
    cuts_void_through: u64,
    free_sequence: u64,
) -> Evidence {
    Evidence {
        mark,
        // Where the kernel does not name its runs, each start counts as one behind a power cut.
        kernel_survived: notes.boot_id == disk.boot_id() && notes.boot_id != [0; 16],
        purged: notes.purged,
        void_through: notes.void_through,
        cuts_void_through,
        cuts: notes.cuts,
        floor: notes.floor.filter(|floor| Some(floor.index) > notes.purged.map(|id| id.index)),
        free_sequence,
        given_up: notes.accepted.clone(),
    }
}

/// Notes this run of the kernel, and whether all is lost that the log held.
fn note_start<D: Disk>(notes: &mut Notes, disk: &D, is_gone: bool) {
    let is_emptied = is_gone && notes.purged.is_none() && notes.floor.is_none();
    notes.emptied |= is_emptied;
    notes.lost_kernel |= is_emptied;
    if notes.boot_id != disk.boot_id() || notes.boot_id == [0; 16] {
        notes.lost_kernel |= notes.volatile;
        notes.boot_id = disk.boot_id();
    }
}

/// Notes that the operator gives up what is damaged.
fn give_up(
    notes: &mut Notes,
    folder: &Path,
    report: &Report,
    last: Option<EntryId>,
) -> Result<(), OpenError> {
    let damage = report.damage.iter().map(|range| range.first_index..=range.last_index);
    notes.accept(damage, last.map(|last| last.index)).map_err(|ranges| {
        let folder = folder.to_path_buf();
        OpenError::TooMuchDamage { folder, ranges, ranges_max: ACCEPTED_RANGES_MAX }
    })
}
