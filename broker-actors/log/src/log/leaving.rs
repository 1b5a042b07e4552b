//! What goes: segments that are purged or cut off, their files, and files that are used again.
//!
//! A segment passes through, in this order: noted as gone durably ([`Log::let_go`]), read by nobody any
//! more (its mapping comes back), then its file becomes a spare for new entries or is taken away. The
//! flush thread that takes it away is the one that syncs what is appended, so it has a small step
//! between two commits: to unlink 256 MiB at once takes 50 ms, and with all that one sweep of retention
//! lets go of, batches waited for 0.75 s.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};

use super::Log;
use super::jobs::Flight;
use crate::disk::Disk;
use crate::job::{Tail, Work};
use crate::layout::{FileName, TEMPORARY_SUFFIX};
use crate::region::Region;
use crate::segment::{FreeMapping, Segment};
use crate::switches::OrderRule;

/// Files, and mappings, taken away by one job: commits wait meanwhile.
const REMOVED_AT_ONCE: usize = 4;
/// A job gives back this part of a whole segment: 32 MiB of 256, some 6 ms.
const SLICES: u32 = 8;
/// Files kept to be used again by a log under load: what retention lets go of at once there
/// (`SWEEP_BYTES` of the broker's shards). A file used again needs no new blocks, so what is stored in it
/// is written once instead of twice.
const REUSABLE_UNDER_LOAD: usize = 4;
/// The same while there is little to do.
const REUSABLE: usize = 1;

/// Segments on their way out.
#[derive(Debug)]
pub(super) struct Leaving<D: Disk> {
    /// Truncated away whole; they go once that is durable.
    pub(super) empty: Vec<Segment<D::File>>,
    /// Purged; they go once the notes of this generation are durable.
    pub(super) waiting: Vec<(u64, Segment<D::File>)>,
    /// Let go of by the log; slices of them may still be out.
    doomed: BTreeMap<u64, Doomed>,
    pub(super) give_back: Sender<FreeMapping>,
    given_back: Receiver<FreeMapping>,
    /// Files to be used again, all of a length that the next segment may have.
    reusable: VecDeque<Doomed>,
    /// Files that are taken away a slice at a time.
    shrinking: VecDeque<Shrinking>,
    /// Files that are small.
    pub(super) remove: Vec<PathBuf>,
    unmap: Vec<Region>,
    /// Of segments that hold little, what is behind their last entry.
    pub(super) tails: Vec<Tail>,
}

/// A file whose entries nobody needs.
#[derive(Debug)]
pub(super) struct Doomed {
    path: PathBuf,
    sequence: u64,
    length: u32,
    /// A footer says what is in it, and stays as long as the file has its name: an open that finds the file
    /// reads that then instead of all entries.
    footed: bool,
}

#[derive(Debug)]
struct Shrinking {
    file: Doomed,
    /// It has a name by which no open takes it for a segment.
    renamed: bool,
}

impl Doomed {
    fn footer(&self, folder: &Path) -> Option<PathBuf> {
        self.footed.then(|| folder.join(FileName::Footer(self.sequence).to_string()))
    }
}

impl<D: Disk> Leaving<D> {
    pub(super) fn new(give_back: Sender<FreeMapping>, given_back: Receiver<FreeMapping>) -> Self {
        Self {
            empty: Vec::new(),
            waiting: Vec::new(),
            doomed: BTreeMap::new(),
            give_back,
            given_back,
            reusable: VecDeque::new(),
            shrinking: VecDeque::new(),
            remove: Vec::new(),
            unmap: Vec::new(),
            tails: Vec::new(),
        }
    }
}

impl<D: Disk> Log<D> {
    /// Lets go of segments that the durable notes and cuts have made void.
    pub(super) fn let_go(&mut self, notes_generation: u64, empty: usize) {
        let waiting = std::mem::take(&mut self.leaving.waiting);
        let (gone, stay) = waiting.into_iter().partition(|(since, _)| *since <= notes_generation);
        self.leaving.waiting = stay;
        let gone: Vec<(u64, Segment<D::File>)> = gone;
        for (_, segment) in gone {
            self.doom(&segment);
        }
        let empties: Vec<_> = self.leaving.empty.drain(..empty).collect();
        for segment in empties {
            self.doom(&segment);
        }
    }

    pub(super) fn doom(&mut self, segment: &Segment<D::File>) {
        let Segment { sequence, footed, limit: length, .. } = *segment;
        let doomed = Doomed { path: segment.path.clone(), sequence, length, footed };
        self.finding.forget(sequence);
        if footed {
            self.leaving.remove.push(self.find_path(sequence));
        }
        if self.config.skips(OrderRule::RecycleAfterReaders) {
            self.reuse_or_remove(doomed);
        } else {
            self.leaving.doomed.insert(sequence, doomed);
        }
        // The caller drops it: the mapping comes back by the channel when the last slice has gone.
    }

    /// Mappings whose last reader has gone: their files may be used again, or go.
    pub(super) fn take_mappings_back(&mut self) {
        while let Ok(free) = self.leaving.given_back.try_recv() {
            self.leaving.unmap.push(free.region);
            let Some(doomed) = self.leaving.doomed.remove(&free.sequence) else { continue };
            self.reuse_or_remove(doomed);
        }
        // What is kept for a load goes when that has ended.
        while self.leaving.reusable.len() > self.reusable_max() {
            let Some(doomed) = self.leaving.reusable.pop_back() else { break };
            self.take_away(doomed);
        }
    }

    fn reuse_or_remove(&mut self, doomed: Doomed) {
        let fits = doomed.length == self.config.next_segment_bytes(self.stats().bytes);
        if fits && self.leaving.reusable.len() < self.reusable_max() && !self.room.disk_full {
            self.leaving.reusable.push_back(doomed);
        } else {
            self.take_away(doomed);
        }
    }

    fn reusable_max(&self) -> usize {
        if self.is_loaded() { REUSABLE_UNDER_LOAD } else { REUSABLE }
    }

    /// A file for a segment of `length` bytes that has had a life before, if one is there.
    pub(super) fn reusable(&mut self, length: u32) -> Option<PathBuf> {
        while let Some(doomed) = self.leaving.reusable.pop_front() {
            if doomed.length == length {
                self.leaving.remove.extend(doomed.footer(&self.folder));
                return Some(doomed.path);
            }
            self.take_away(doomed);
        }
        None
    }

    fn take_away(&mut self, file: Doomed) {
        self.leaving.shrinking.push_back(Shrinking { file, renamed: false });
    }

    /// A little of what is to go.
    pub(super) fn remove(&mut self) -> Option<Work<D>> {
        let leaving = &mut self.leaving;
        let unmap = leaving.unmap.len().min(REMOVED_AT_ONCE);
        let unmap: Vec<_> = leaving.unmap.drain(..unmap).collect();
        let tails = leaving.tails.len().min(REMOVED_AT_ONCE);
        let mut tails: Vec<_> = leaving.tails.drain(..tails).collect();
        let paths = leaving.remove.len().min(REMOVED_AT_ONCE);
        let mut paths: Vec<_> = leaving.remove.drain(..paths).collect();
        let mut rename = None;
        let at_once = self.config.segment_bytes / SLICES;
        match leaving.shrinking.front_mut() {
            // It may be mapped still.
            _ if !leaving.unmap.is_empty() => {}
            None => {}
            Some(Shrinking { file, .. }) if file.length <= at_once => {
                if let Some(Shrinking { file, renamed }) = leaving.shrinking.pop_front() {
                    // With its name gone the footer was named to go.
                    leaving.remove.extend(file.footer(&self.folder).filter(|_| !renamed));
                    paths.push(file.path);
                }
            }
            Some(Shrinking { file, renamed: renamed @ false }) => {
                // One that ends in zeros would look damaged to an open that still finds it.
                let name = format!("{}{TEMPORARY_SUFFIX}", FileName::Segment(file.sequence));
                let from = std::mem::replace(&mut file.path, self.folder.join(name));
                rename = Some((from, file.path.clone()));
                *renamed = true;
                leaving.remove.extend(file.footer(&self.folder));
            }
            Some(Shrinking { file, .. }) => {
                file.length -= at_once;
                let (offset, length) = (file.length, at_once);
                tails.push(Tail { path: file.path.clone(), offset, length });
            }
        }
        if paths.is_empty() && unmap.is_empty() && tails.is_empty() && rename.is_none() {
            return None;
        }
        self.flight = Some(Flight::Remove);
        Some(Work::Remove { paths, unmap, tails, rename })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{CheckpointData, EntryId, EntryKind, LogConfig, NewEntry, SimDisk};

    fn run(log: &mut Log<SimDisk>) {
        while let Some(job) = log.next_job() {
            log.complete(job.run()).expect("nothing fails");
        }
    }

    /// A log of many segments of which all but the last are purged; no job has run since.
    fn purged(disk: &SimDisk) -> Log<SimDisk> {
        let bytes = 64 * 1024;
        let config =
            LogConfig { segment_bytes: bytes, first_segment_bytes: bytes, ..LogConfig::default() };
        let (mut log, _) = Log::open(disk, Path::new("/log"), config).expect("it opens");
        let mut index = 0;
        let mut floor = EntryId { term: 1, index };
        while log.segments.len() < 12 {
            let kind = if log.should_seal() { EntryKind::Seal } else { EntryKind::Normal };
            let payload = [Bytes::from(vec![7; 1000])];
            log.append(&[NewEntry { kind, term: 1, index, payload: &payload }]).expect("room");
            run(&mut log);
            if kind == EntryKind::Seal {
                let membership = Bytes::new();
                let data = CheckpointData {
                    index,
                    term: 1,
                    membership,
                    full: true,
                    parts: Vec::new(),
                    digest: 0,
                };
                log.checkpoint(data).expect("it is taken");
                run(&mut log);
                floor.index = index;
            }
            index += 1;
        }
        log.set_floor(floor);
        log.purge(floor);
        log
    }

    #[test]
    fn what_is_purged_goes_in_small_steps_and_goes_whole() {
        let disk = SimDisk::new(1);
        let mut log = purged(&disk);
        let (mut steps, mut slices) = (0, 0);
        while let Some(job) = log.next_job() {
            if let Work::Remove { paths, tails, rename, .. } = &job.work {
                let is_segment =
                    |path: &&PathBuf| path.to_str().is_some_and(|path| path.contains("segment-"));
                let bytes: u32 = tails.iter().map(|tail| tail.length).sum();
                let whole = paths.iter().filter(is_segment).count();
                assert!(bytes <= 64 * 1024 / SLICES && whole <= 1, "{paths:?} {tails:?}");
                steps += usize::from(whole == 1);
                slices += usize::from(!tails.is_empty() && rename.is_none());
            }
            log.complete(job.run()).expect("nothing fails");
        }
        assert!(steps >= 6 && slices >= 6 * (SLICES as usize - 1), "{steps} {slices}");
        let names = disk.names(Path::new("/log")).expect("a folder");
        let kept = log.segments.len() + log.room.spares.len() + log.leaving.reusable.len();
        let is_segment = |name: &&String| name.starts_with("segment-");
        assert_eq!(names.iter().filter(is_segment).count(), kept, "{names:?}");
        assert!(names.iter().all(|name| !name.ends_with(TEMPORARY_SUFFIX)), "{names:?}");
    }

    /// The numbers in the names of files of a kind.
    fn numbers(disk: &SimDisk, of: impl Fn(FileName) -> Option<u64>) -> Vec<u64> {
        let names = disk.names(Path::new("/log")).expect("a folder");
        let mut found: Vec<u64> =
            names.iter().filter_map(|name| of(FileName::parse(name)?)).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn what_is_purged_keeps_its_footer_while_an_open_would_find_its_file() {
        let disk = SimDisk::new(4);
        let mut log = purged(&disk);
        let footers = || {
            numbers(&disk, |name| match name {
                FileName::Footer(sequence) => Some(sequence),
                _ => None,
            })
        };
        let segments = || {
            numbers(&disk, |name| match name {
                FileName::Segment(sequence) => Some(sequence),
                _ => None,
            })
        };
        let had = footers();
        let mut found_without = Vec::new();
        while let Some(job) = log.next_job() {
            log.last_commit_bytes = 1 << 20;
            log.complete(job.run()).expect("nothing fails");
            let (footers, there) = (footers(), segments());
            let lost = had.iter().filter(|had| !footers.contains(had) && there.contains(had));
            found_without.extend(lost.copied());
        }
        assert!(had.len() >= 10 && found_without.is_empty(), "{had:?} {found_without:?}");
        // A log without load keeps one, with its footer; what went took its footer along.
        let kept: Vec<u64> = log.leaving.reusable.iter().map(|file| file.sequence).collect();
        let standing = footers();
        assert!(kept.iter().all(|kept| standing.contains(kept)), "{kept:?} {standing:?}");
        let there = segments();
        assert!(standing.iter().all(|footer| there.contains(footer)), "{standing:?} {there:?}");
        // Handed out, it is no segment of that number any more.
        log.reusable(64 * 1024).expect("one is kept");
        run(&mut log);
        assert!(footers().iter().all(|footer| !kept[..1].contains(footer)));
    }

    #[test]
    fn a_log_under_load_keeps_files_to_use_again_and_gives_them_back_afterwards() {
        let mut log = purged(&SimDisk::new(2));
        while log.leaving.reusable.is_empty() {
            log.last_commit_bytes = 1 << 20;
            let job = log.next_job().expect("the purge is to be noted");
            log.complete(job.run()).expect("nothing fails");
            log.last_commit_bytes = 1 << 20;
            log.take_mappings_back();
        }
        assert_eq!(log.leaving.reusable.len(), REUSABLE_UNDER_LOAD);
        let (again, sequence) = (log.leaving.reusable[0].path.clone(), log.room.next_sequence);
        assert_eq!(log.reusable(64 * 1024), Some(again));
        assert_eq!(log.room.next_sequence, sequence);
        assert_eq!(log.reusable(128 * 1024), None, "one of another length is no use");
        assert!(log.leaving.reusable.is_empty());

        let mut log = purged(&SimDisk::new(3));
        log.last_commit_bytes = 0;
        run(&mut log);
        assert!(log.leaving.reusable.len() <= REUSABLE);
    }
}
