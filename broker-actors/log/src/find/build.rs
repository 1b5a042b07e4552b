//! Making the table of a sealed segment: in steps of a few milliseconds, between which searches are
//! answered.
//!
//! Where all batches of the segment were fed, their entries are sorted and written; otherwise the
//! segment is read first. The file is written aside and renamed when it is whole. It is not synced:
//! a table that a power cut takes, or leaves in pieces, is found out by its checksums and made again,
//! and a sync of that size would hold up those that receipts wait for.

use std::io;
use std::path::PathBuf;

use super::entries::{Entries, PARTS};
use super::table::{FindTable, TableHead, TableWriter};
use super::view::{FedRun, SealedView};
use super::{FindIndex, OpenSegment};
use crate::disk::Disk;
use crate::layout::{FileName, TEMPORARY_SUFFIX};

/// Bytes of batches read by one step: some 5 ms.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// A table was made, or could not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindBuilt {
    /// The segment's sequence number.
    pub sequence: u64,
    /// Why there is no table, if there is none. Its batches are then read by each search.
    pub failure: Option<String>,
    /// Whether another attempt may succeed.
    pub try_again: bool,
}

impl FindBuilt {
    const fn done(sequence: u64) -> Self {
        Self { sequence, failure: None, try_again: false }
    }

    fn failed(sequence: u64, error: &io::Error) -> Self {
        // What is said here itself stays true; what the file system says may change.
        let try_again = error.kind() != io::ErrorKind::Other;
        Self { sequence, failure: Some(error.to_string()), try_again }
    }
}

/// A table being made.
#[derive(Debug)]
pub(super) struct Building<D: Disk> {
    view: SealedView,
    stage: Stage<D::File>,
    /// The entries and what could not be read, when they were not fed.
    own: Option<(Entries, u64)>,
}

#[derive(Debug)]
enum Stage<F> {
    /// The next batch to read, by its number in the footer.
    Read(u32),
    /// The next part to write.
    Write { part: usize, file: F, writer: TableWriter, names: Vec<u32> },
}

impl<D: Disk> FindIndex<D> {
    /// Begins to make the table of a segment; [`FindIndex::build_step`] goes on. `Some` if it is
    /// there already.
    ///
    /// # Panics
    /// When another one is being made.
    pub fn begin_build(&mut self, view: SealedView) -> Option<FindBuilt> {
        assert!(self.building.is_none(), "one table is made at a time");
        let sequence = view.sequence;
        if self.is_fed(&view) {
            self.building = Some(Building { view, stage: Stage::Read(u32::MAX), own: None });
            return None;
        }
        self.open.remove(&sequence);
        if !self.without.contains(&sequence) && self.open_table(&view).is_some() {
            return Some(FindBuilt::done(sequence));
        }
        let own = Some((Entries::new(self.entries_max), 0));
        self.building = Some(Building { view, stage: Stage::Read(0), own });
        None
    }

    /// Whether all batches of a segment were fed and could be read.
    pub(super) fn is_fed(&self, view: &SealedView) -> bool {
        self.open.get(&view.sequence).is_some_and(|open| {
            open.unread.is_empty() && open.runs.len() == view.runs.len() as usize
        })
    }

    /// Whether a table is being made.
    pub fn is_building(&self) -> bool {
        self.building.is_some()
    }

    /// Makes some more of the table. `Some` once it is over. Blocks.
    pub fn build_step(&mut self) -> Option<FindBuilt> {
        let mut building = self.building.take()?;
        let sequence = building.view.sequence;
        match self.step(&mut building) {
            Ok(false) => {
                self.building = Some(building);
                None
            }
            Ok(true) => Some(FindBuilt::done(sequence)),
            Err(error) => {
                let _ = self.disk.remove(&self.temporary(sequence));
                self.without.insert(sequence);
                Some(FindBuilt::failed(sequence, &error))
            }
        }
    }

    /// One step; true when the table is there.
    fn step(&mut self, building: &mut Building<D>) -> io::Result<bool> {
        let sequence = building.view.sequence;
        match &mut building.stage {
            Stage::Read(next) => {
                if let Some((entries, unread_bytes)) = &mut building.own {
                    let hashing = self.hashing;
                    let mut bytes = 0;
                    while let Some(fed) = building.view.fed(*next) {
                        if bytes >= STEP_BYTES {
                            return Ok(false);
                        }
                        bytes += u64::from(fed.run.length);
                        let read = building.view.mapped.read_checked(&fed).ok_or(());
                        let topic = fed.run.queue.topic;
                        let added = read.and_then(|b| entries.add_batch(&b, topic, *next, hashing));
                        if entries.is_full() {
                            return Err(io::Error::other("it has too many keys"));
                        }
                        *unread_bytes += if added.is_err() { u64::from(fed.run.length) } else { 0 };
                        *next += 1;
                    }
                }
                let names = self.open.get(&sequence).filter(|_| building.own.is_none());
                let names = names.map(|open| places_in_footer(&open.runs)).unwrap_or_default();
                let path = self.temporary(sequence);
                let _ = self.disk.remove(&path); // of an attempt that failed
                let file = self.disk.create(&path)?;
                building.stage = Stage::Write { part: 0, file, writer: TableWriter::new(), names };
                Ok(false)
            }
            Stage::Write { part: PARTS, .. } => self.finish(building).map(|()| true),
            Stage::Write { part, file, writer, names } => {
                let fed = || self.open.get(&sequence).map(|open| &open.entries);
                let own = building.own.as_ref().map(|(entries, _)| entries);
                // Forgotten meanwhile: the segment has gone.
                let entries = own.or_else(fed).ok_or(io::ErrorKind::NotFound)?;
                let name = |batch: u32| names.get(batch as usize).copied().unwrap_or(batch);
                writer.push(file, &entries.sorted_part(*part, name))?;
                *part += 1;
                Ok(false)
            }
        }
    }

    fn finish(&mut self, building: &mut Building<D>) -> io::Result<()> {
        let view = &building.view;
        let stage = std::mem::replace(&mut building.stage, Stage::Read(0));
        let Stage::Write { file, writer, .. } = stage else { return Ok(()) };
        let fed = || self.open.get(&view.sequence).map(|open| (open.entries.times, 0));
        let own = building.own.as_ref().map(|(entries, unread)| (entries.times, *unread));
        let (times, unread_bytes) = own.or_else(fed).ok_or(io::ErrorKind::NotFound)?;
        let (stamp, sequence) = (view.runs.stamp(), view.sequence);
        let head = TableHead {
            stamp,
            sequence,
            times,
            unread_bytes,
            entries: 0,
            blocks: 0,
            directory_crc: 0,
        };
        writer.finish(&file, head)?;
        drop(file);
        self.disk.rename(&self.temporary(sequence), &self.path(sequence))?;
        self.without.remove(&sequence);
        let opened = self.open_table(view).is_some();
        self.open.remove(&sequence);
        if opened { Ok(()) } else { Err(io::Error::other("it does not read back")) }
    }

    /// Opens the table of a segment, if there is one that can be used.
    pub(super) fn open_table(&mut self, view: &SealedView) -> Option<&FindTable> {
        let sequence = view.sequence;
        if !self.tables.contains_key(&sequence) {
            let path = self.path(sequence);
            let file = match self.disk.open(&path) {
                Ok(file) => file,
                Err(error) => {
                    if error.kind() != io::ErrorKind::NotFound {
                        tracing::warn!(path = %path.display(), %error, "no table of ids and keys");
                    }
                    return None;
                }
            };
            match FindTable::open(&file) {
                Ok(table) if table.head.sequence == sequence => {
                    if table.head.stamp != view.runs.stamp() {
                        return None; // the footer was made again
                    }
                    self.tables.insert(sequence, table);
                }
                other => {
                    let error = other.err().map_or("of another segment".into(), |e| e.to_string());
                    tracing::warn!(path = %path.display(), error, "table of ids and keys is damaged");
                    return None;
                }
            }
        }
        self.tables.get(&sequence)
    }

    pub(super) fn path(&self, sequence: u64) -> PathBuf {
        self.folder.join(FileName::Find(sequence).to_string())
    }

    fn temporary(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{}{TEMPORARY_SUFFIX}", FileName::Find(sequence)))
    }
}

/// What the batches are called in the footer, by the order in which they were fed: there they stand
/// by queue, then by offset.
fn places_in_footer(runs: &[FedRun]) -> Vec<u32> {
    let count = u32::try_from(runs.len()).expect("fewer than the segment has bytes");
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by_key(|nth| {
        let run = &runs[*nth as usize].run;
        (run.queue, run.base)
    });
    let mut places = vec![0; runs.len()];
    for (place, nth) in (0..).zip(order) {
        places[nth as usize] = place;
    }
    places
}

impl OpenSegment {
    /// Whether more batches follow those that were fed.
    pub(super) fn lacks(&self, runs: usize) -> bool {
        self.runs.len() != runs
    }
}
