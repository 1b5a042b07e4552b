//! The steps of opening a log: each reads some of the files, decides, and puts in order.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use crate::blob::{BlobKind, read_blob};
use crate::config::LogConfig;
use crate::control::{ControlPage, Mark};
use crate::disk::{Disk, DiskFile};
use crate::error::OpenError;
use crate::footer::{Footer, FooterRuns};
use crate::index::LogIndex;
use crate::layout::{
    CONTROL_NAME, Close, FORMAT_NAME, FORMAT_VERSION, FileName, NOTES_NAME, RESERVE_BYTES,
    RESERVE_NAME, SEGMENT_HEAD_BYTES, TEMPORARY_SUFFIX, VOTE_NAME,
};
use crate::region::Region;
use crate::report::Report;
use crate::scan::scan;
use crate::segment::{FreeMapping, Segment};
use crate::slots::{SlotFile, SlotRead};
use crate::switches::OrderRule;
use crate::walk::{Evidence, Kept, Outcome, Source, walk};

pub(super) struct Opening<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) folder: &'a Path,
    config: LogConfig,
    pub report: Report,
    /// Files that hold nothing of the log; they go at the end.
    pub(super) void: Vec<PathBuf>,
    /// Segments that stand, all of them damaged, and whose files are not there.
    missing: Vec<u64>,
}

pub(super) struct FoundSegment<D: Disk> {
    /// `None` when it is not there.
    file: Option<D::File>,
    region: Region,
    footer: Option<FooterRuns>,
}

/// What stands of a log: its segments and their runs.
pub(super) type Standing<D> = (VecDeque<Segment<<D as Disk>::File>>, LogIndex);

pub(super) type FoundSegments<D> = BTreeMap<u64, FoundSegment<D>>;

/// Whether there is a log of a version that is known.
pub(super) fn check_format<D: Disk>(disk: &D, folder: &Path) -> Result<bool, OpenError> {
    let path = folder.join(FORMAT_NAME);
    let content = match disk.load(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        other => other.map_err(OpenError::io(&path))?,
    };
    let text = String::from_utf8_lossy(&content);
    // The line stands five times; two alike outvote a damaged one, also a damaged line end.
    let lines: Vec<Option<u32>> = text.lines().map(|line| line.trim().parse().ok()).collect();
    let agreed = lines.iter().flatten().find(|line| {
        lines.len() == 1 || lines.iter().filter(|other| **other == Some(**line)).count() > 1
    });
    match agreed.copied() {
        Some(FORMAT_VERSION) => Ok(true),
        Some(found) => Err(OpenError::NewerFormat {
            folder: folder.to_path_buf(),
            found,
            supported: FORMAT_VERSION,
        }),
        None => Err(OpenError::Damaged { path, what: "does not hold a version number" }),
    }
}

#[derive(Debug, Default)]
pub(super) struct Names {
    segments: Vec<u64>,
    footers: Vec<u64>,
    pub(super) checkpoints: Vec<u64>,
    finds: Vec<u64>,
    temporary: Vec<PathBuf>,
}

impl Names {
    /// A number that no file has, and that no cut, however old, has declared void.
    pub(super) fn next_sequence(&self, void_through: u64) -> u64 {
        let all = self.segments.iter().chain(&self.footers).chain(&self.finds).copied();
        let all = all.chain([void_through]);
        all.max().unwrap_or(0) + 1
    }
}

impl<'a, D: Disk> Opening<'a, D> {
    pub(super) fn new(disk: &'a D, folder: &'a Path, config: LogConfig) -> Self {
        Self {
            disk,
            folder,
            config,
            report: Report::default(),
            void: Vec::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn damaged(&self, name: &str, what: &'static str) -> OpenError {
        OpenError::Damaged { path: self.folder.join(name), what }
    }

    /// Makes the fixed files of a new log; the version comes last, so that a log with a version has
    /// them all.
    pub(super) fn found_log(&self) -> Result<(), OpenError> {
        if check_format(self.disk, self.folder)? {
            return Ok(());
        }
        let io = OpenError::io(self.folder);
        let names = self.disk.names(self.folder).map_err(OpenError::io(self.folder))?;
        if names.iter().any(|name| FileName::parse(name).is_some()) {
            return Err(self.damaged(FORMAT_NAME, "missing beside a log's files"));
        }
        let make = || {
            for name in [VOTE_NAME, NOTES_NAME, CONTROL_NAME, "FORMAT.tmp"] {
                // Left by a first start that was cut short: nothing had been acknowledged.
                if names.iter().any(|found| found == name) {
                    self.disk.remove(&self.folder.join(name))?;
                }
            }
            SlotFile::create(self.disk, &self.folder.join(VOTE_NAME))?;
            SlotFile::create(self.disk, &self.folder.join(NOTES_NAME))?;
            ControlPage::create(self.disk, &self.folder.join(CONTROL_NAME))?;
            self.disk.sync_folder(self.folder)?;
            let temporary = self.folder.join("FORMAT.tmp");
            let file = self.disk.create(&temporary)?;
            file.write_at(0, format!("{FORMAT_VERSION}\n").repeat(5).as_bytes())?;
            file.sync()?;
            self.disk.rename(&temporary, &self.folder.join(FORMAT_NAME))?;
            self.disk.sync_folder(self.folder)
        };
        make().map_err(io)
    }

    /// Sets a little room aside, so that a start on a full disk can go on to purge. As good as can be.
    pub(super) fn reserve(&self) {
        let path = self.folder.join(RESERVE_NAME);
        if self.disk.open(&path).is_ok() {
            return;
        }
        let allocate = |file: D::File| file.allocate(u64::from(RESERVE_BYTES));
        if self.disk.create(&path).and_then(allocate).is_err() {
            // On a full disk there is none until there is room again.
            let _ = self.disk.remove(&path);
        }
    }

    pub(super) fn slots(&mut self, name: &str) -> Result<SlotFile, OpenError> {
        let path = self.folder.join(name);
        let read = match SlotFile::read(self.disk, &path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(self.damaged(name, "is missing"));
            }
            other => other.map_err(OpenError::io(&path))?,
        };
        let Some(SlotRead { file, damaged_sectors }) = read else {
            return Err(self.damaged(name, "all copies are damaged"));
        };
        for sector in damaged_sectors {
            self.report.notes.push(format!("{name}: sector {sector} damaged, its twin was used"));
        }
        Ok(file)
    }

    pub(super) fn control(&mut self) -> Result<ControlPage, OpenError> {
        let path = self.folder.join(CONTROL_NAME);
        let mut page = ControlPage::open(self.disk, &path);
        if matches!(&page, Err(error) if error.kind() == ErrorKind::NotFound) {
            // It alone may know how far the log went.
            if !self.config.accept_loss {
                return Err(self.damaged(CONTROL_NAME, "is missing"));
            }
            self.report.notes.push(format!("{CONTROL_NAME}: missing, an empty one was made"));
            page = ControlPage::create(self.disk, &path)
                .and_then(|()| ControlPage::open(self.disk, &path));
        }
        let page = page.map_err(OpenError::io(&path))?;
        if page.damaged {
            self.report
                .notes
                .push(format!("{CONTROL_NAME}: a slot is not whole, the other was used"));
        }
        Ok(page)
    }

    pub(super) fn names(&self) -> Result<Names, OpenError> {
        let mut found = Names::default();
        for name in self.disk.names(self.folder).map_err(OpenError::io(self.folder))? {
            match FileName::parse(&name) {
                Some(FileName::Segment(sequence)) => found.segments.push(sequence),
                Some(FileName::Footer(sequence)) => found.footers.push(sequence),
                Some(FileName::Checkpoint(index)) => found.checkpoints.push(index),
                Some(FileName::Find(sequence)) => found.finds.push(sequence),
                None if name.ends_with(TEMPORARY_SUFFIX) => {
                    found.temporary.push(self.folder.join(name));
                }
                None => {}
            }
        }
        Ok(found)
    }

    pub(super) fn path(&self, name: FileName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    pub(super) fn segments(&mut self, names: &Names) -> Result<FoundSegments<D>, OpenError> {
        let mut found = BTreeMap::new();
        for sequence in &names.segments {
            let path = self.path(FileName::Segment(*sequence));
            let io = OpenError::io(&path);
            let open = || {
                let file = self.disk.open(&path)?;
                let length = usize::try_from(file.length()?).unwrap_or(0);
                // Shorter than its head: it never got its name with a sync behind it.
                let region = if length < SEGMENT_HEAD_BYTES as usize {
                    Region::of_memory(SEGMENT_HEAD_BYTES as usize)?
                } else {
                    file.map(length)?
                };
                Ok(FoundSegment { file: Some(file), region, footer: None })
            };
            found.insert(*sequence, open().map_err(io)?);
        }
        Ok(found)
    }

    fn footer(&mut self, sequence: u64) -> Option<Footer> {
        let name = FileName::Footer(sequence);
        let blob = read_blob(self.disk, &self.path(name), BlobKind::Footer).ok()?;
        let Some(blob) = blob else {
            self.report
                .notes
                .push(format!("{name}: both copies damaged, its segment was read instead"));
            return None;
        };
        if blob.damaged {
            self.report.notes.push(format!("{name}: one copy damaged, the other was used"));
        }
        Footer::decode(&blob.body).filter(|footer| footer.sequence == sequence)
    }

    /// The greatest sequence number that a cut has declared void.
    pub(super) fn void_through(found: &FoundSegments<D>) -> u64 {
        Self::voids(found.iter())
    }

    fn voids<'f>(found: impl Iterator<Item = (&'f u64, &'f FoundSegment<D>)>) -> u64 {
        let voids = found.filter_map(|(sequence, segment)| {
            let head = segment.region.bytes(0..SEGMENT_HEAD_BYTES as usize);
            Some(Close::find(head, *sequence)?.0.void_through)
        });
        voids.max().unwrap_or(0)
    }

    /// Reads the segments and decides what stands.
    ///
    /// # Errors
    /// No memory could be mapped.
    pub(super) fn recover(
        &mut self,
        found: &mut FoundSegments<D>,
        names: &Names,
        evidence: Evidence,
    ) -> Result<Outcome, OpenError> {
        let (mut sources, mut footers) = self.missing_segments(names, found);
        for (sequence, segment) in found.iter_mut() {
            if let Some(footer) = self.footer(*sequence) {
                let Footer { table, end, runs, .. } = footer;
                segment.footer = Some(runs);
                sources.push(Source::Footed { sequence: *sequence, table, end });
                continue;
            }
            let mark = evidence.mark.filter(|mark: &Mark| mark.place.sequence == *sequence);
            let life = if self.config.skips(OrderRule::SequencePerLife) { 1 } else { *sequence };
            let durable_until = mark.map(|mark| mark.place.offset);
            let data_end = segment.file.as_ref().and_then(|file| file.data_end().ok());
            let data_end = data_end.unwrap_or(u64::MAX);
            let scan = scan(&segment.region, *sequence, life, durable_until, data_end);
            if scan.head_damaged && !scan.is_unused() {
                let name = FileName::Segment(*sequence);
                self.report.notes.push(format!("{name}: head damaged, its name was used"));
            }
            sources.push(Source::Scanned(scan));
        }
        sources.sort_by_key(Source::sequence);
        let purged = evidence.purged.map(|id| id.index);
        let mut outcome = walk(sources, evidence);
        for Kept { sequence, .. } in &outcome.kept {
            if !found.contains_key(sequence) {
                self.missing.push(*sequence);
                let head = Region::of_memory(SEGMENT_HEAD_BYTES as usize);
                let region = head.map_err(OpenError::io(self.folder))?;
                let footer = footers.remove(sequence);
                found.insert(*sequence, FoundSegment { file: None, region, footer });
            }
        }
        self.report.torn = outcome.torn.take();
        self.report.damage = std::mem::take(&mut outcome.damage);
        // What is purged is nobody's loss.
        self.report.damage.retain(|range| Some(range.last_index) > purged);
        Ok(outcome)
    }

    /// Footers whose segments are not there although no cut has voided them.
    fn missing_segments(
        &mut self,
        names: &Names,
        found: &FoundSegments<D>,
    ) -> (Vec<Source>, BTreeMap<u64, FooterRuns>) {
        let alone = names.footers.iter().filter(|sequence| !names.segments.contains(sequence));
        let (mut sources, mut footers) = (Vec::new(), BTreeMap::new());
        for sequence in alone {
            if Self::voids(found.range(..sequence)) >= *sequence {
                continue;
            }
            let Some(Footer { table, end, runs, .. }) = self.footer(*sequence) else { continue };
            footers.insert(*sequence, runs);
            sources.push(Source::Missing { sequence: *sequence, table, end });
        }
        (sources, footers)
    }

    /// Makes the segments that stay, closes what is open, and makes all of it durable.
    pub(super) fn keep(
        &mut self,
        outcome: &mut Outcome,
        found: &mut FoundSegments<D>,
        applied: Option<u64>,
        give_back: &Sender<FreeMapping>,
    ) -> Result<Standing<D>, OpenError> {
        let mut index = LogIndex::default();
        let mut segments = VecDeque::new();
        let kept = std::mem::take(&mut outcome.kept);
        let sequences: Vec<u64> = kept.iter().map(|kept| kept.sequence).collect();
        for (nth, Kept { sequence, table, end, close, footed }) in kept.into_iter().enumerate() {
            let next = sequences.get(nth + 1).copied();
            let FoundSegment { file, region, footer } =
                found.remove(&sequence).expect("what is kept was found");
            let path = self.path(FileName::Segment(sequence));
            let give_back = give_back.clone();
            let mut segment = Segment::new(sequence, path.clone(), region, None, give_back)
                .for_config(&self.config);
            segment.end = end;
            segment.missing = file.is_none();
            segment.checked = !footed || segment.missing;
            let is_applied = table.last_index() <= applied;
            segment.table = table;
            segment.footed = footed && is_applied;
            if let Some(runs) = footer.filter(|_| segment.footed) {
                index.add_footer(sequence, runs);
            }
            if let Some((close, slot)) = close {
                segment.found_closed(close, slot);
            }
            let Some(file) = file else {
                segment.pretend_closed();
                segments.push_back(segment);
                continue;
            };
            if !self.config.skips(OrderRule::CloseAtRecovery) && !footed {
                // Each cut voids what was dropped right behind it: a second cut may come in between.
                let behind = outcome.dropped.iter().copied().filter(|dropped| {
                    *dropped > sequence && next.is_none_or(|next| *dropped < next)
                });
                segment.close_and_void(behind.max().unwrap_or(sequence));
            } else if segment.closed.is_none() {
                segment.pretend_closed();
            }
            if !self.config.skips(OrderRule::SyncRecovered) && !footed {
                file.sync().map_err(OpenError::io(&path))?;
            }
            segment.dirty = false;
            let free = end.next_multiple_of(4096);
            if next.is_none() && free < segment.limit {
                // Gives the rest of the file back; nothing depends on it.
                let _ = file.release(u64::from(free), u64::from(segment.limit - free));
            }
            segments.push_back(segment);
        }
        Ok((segments, index))
    }

    /// Takes away what recovery found void.
    pub(super) fn settle(
        &mut self,
        outcome: &Outcome,
        found: &FoundSegments<D>,
        names: &Names,
    ) -> Result<(), OpenError> {
        let mut gone: Vec<PathBuf> = std::mem::take(&mut self.void);
        gone.extend(names.temporary.iter().cloned());
        let dropped = outcome.dropped.iter().filter(|sequence| found.contains_key(sequence));
        gone.extend(dropped.map(|sequence| self.path(FileName::Segment(*sequence))));
        let is_dropped = |sequence| outcome.dropped.contains(sequence);
        // Nor is one used again that was never written to: a cut may have left payloads there whose
        // headers it took, and a file that is not marked as recycled must hold zeros.
        let unused = outcome.unused.iter().map(|sequence| FileName::Segment(*sequence));
        gone.extend(unused.map(|name| self.path(name)));
        let stands = |sequence| {
            let is_there = names.segments.contains(sequence) && !is_dropped(sequence);
            is_there || self.missing.contains(sequence)
        };
        let orphans = names.footers.iter().filter(|sequence| !stands(sequence));
        gone.extend(orphans.map(|sequence| self.path(FileName::Footer(*sequence))));
        let orphans = names.finds.iter().filter(|sequence| !names.segments.contains(sequence));
        gone.extend(orphans.map(|sequence| self.path(FileName::Find(*sequence))));
        for path in &gone {
            self.disk.remove(path).map_err(OpenError::io(path))?;
        }
        // Names that were made just before a cut may not be durable yet.
        self.disk.sync_folder(self.folder).map_err(OpenError::io(self.folder))
    }
}
