//! Warming: pages that will be stored to next are brought into memory ahead of time.
//!
//! Blocks that were only allocated make each small sync commit the file system's journal: written once
//! ahead, a sync of 64 KiB took 0.4 of the time (docs/STORAGE.md has the measurement). And a store to a
//! page that is not there costs 3 to 8 times as much, on the core thread. A recycled file's blocks are
//! written already, so its pages are only read in. The flush thread does it in small steps between
//! commits, and only a few MiB ahead, so that an idle log holds little memory. Under load, when each commit
//! covers much, a new file is not warmed: a commit's own cost is the bytes there, and large entries are
//! written, not stored (`segment.rs`), which needs no page. A recycled one is read in farther ahead.

use std::ops::Range;
use std::sync::Arc;

use super::Log;
use super::jobs::Flight;
use crate::disk::Disk;
use crate::job::Work;
use crate::layout::SEGMENT_HEAD_BYTES;
use crate::region::Region;

/// Bytes in front of the next entry that are kept warm.
const WARM_AHEAD_BYTES: u32 = 4 * 1024 * 1024;
/// Bytes warmed at a time: about a millisecond.
const WARM_STEP_BYTES: u32 = 1024 * 1024;
/// The same under load.
const WARM_AHEAD_UNDER_LOAD_BYTES: u32 = 16 * 1024 * 1024;
/// The same under load.
const WARM_STEP_UNDER_LOAD_BYTES: u32 = 4 * 1024 * 1024;
/// A commit of so much means load.
const LOAD_BYTES: u64 = 512 * 1024;

/// How a range is warmed.
#[derive(Debug)]
pub(crate) enum WarmWay<F> {
    /// The file's blocks have been written in an older life.
    Read,
    /// They have not: write them, so that small syncs are cheap.
    WriteAndSync(Arc<F>),
}

/// A range to warm.
#[derive(Debug)]
pub(crate) struct Warmth<F> {
    pub sequence: u64,
    pub region: Region,
    pub way: WarmWay<F>,
    pub range: Range<usize>,
}

impl<D: Disk> Log<D> {
    /// Whether commits cover so much that their own bytes are what they cost.
    pub(super) fn is_loaded(&self) -> bool {
        self.last_commit_bytes >= LOAD_BYTES
    }

    /// Whether the next stores will soon meet cold pages, so that commits must not go first always.
    fn runs_cold(&self) -> bool {
        let Some(segment) = self.segments.back().filter(|segment| segment.is_open()) else {
            return self.room.spares.front().is_some_and(|s| s.warmed_to == SEGMENT_HEAD_BYTES);
        };
        let ahead = segment.end.saturating_add(WARM_AHEAD_BYTES / 2).min(segment.limit);
        segment.warmed_to < ahead
    }

    /// The next range to warm, if commits must not go first.
    pub(super) fn warm_if_cold(&mut self) -> Option<Work<D>> {
        if self.runs_cold() { self.warm() } else { None }
    }

    /// The next range to warm, if there is one.
    pub(super) fn warm(&mut self) -> Option<Work<D>> {
        let busy = self.is_loaded();
        let (mut ahead, step) = if busy {
            (WARM_AHEAD_UNDER_LOAD_BYTES, WARM_STEP_UNDER_LOAD_BYTES)
        } else {
            (WARM_AHEAD_BYTES, WARM_STEP_BYTES)
        };
        let way = |recycled, file: Option<&Arc<D::File>>| match file {
            _ if recycled => Some(WarmWay::Read),
            Some(file) if !busy => Some(WarmWay::WriteAndSync(Arc::clone(file))),
            _ => None,
        };
        let active = self.segments.back().filter(|segment| segment.is_open());
        let mut warmth = None;
        if let Some(segment) = active {
            let next = next_range(
                segment.warmed_to.max(segment.end),
                segment.end..segment.limit,
                ahead,
                step,
            );
            ahead = ahead.saturating_sub(segment.limit - segment.end);
            let way = way(segment.recycled, segment.file.as_ref());
            warmth = next.zip(way).map(|(range, way)| Warmth {
                sequence: segment.sequence,
                region: segment.region().clone(),
                way,
                range,
            });
        }
        if warmth.is_none() {
            let spare = self.room.spares.front()?;
            let limit = u32::try_from(spare.region.len()).expect("segments are below 4 GiB");
            let range = next_range(spare.warmed_to, SEGMENT_HEAD_BYTES..limit, ahead, step)?;
            warmth = Some(Warmth {
                sequence: spare.sequence,
                region: spare.region.clone(),
                way: way(spare.recycled, Some(&spare.file))?,
                range,
            });
        }
        let warmth = warmth?;
        let warmed_to = u32::try_from(warmth.range.end).expect("segments are below 4 GiB");
        self.flight = Some(Flight::Warm { sequence: warmth.sequence, warmed_to });
        Some(Work::Warm(warmth))
    }

    pub(super) fn warmed(&mut self, sequence: u64, warmed_to: u32) {
        let active = self.segments.iter_mut().rev().find(|s| s.sequence == sequence);
        let spare = self.room.spares.iter_mut().find(|s| s.sequence == sequence);
        let held = active.map(|s| &mut s.warmed_to).or(spare.map(|s| &mut s.warmed_to));
        if let Some(held) = held {
            *held = warmed_to.max(*held);
        }
    }
}

/// The step from `from` on, as long as it lies within `ahead` bytes of where `room` starts.
fn next_range(from: u32, room: Range<u32>, ahead: u32, step: u32) -> Option<Range<usize>> {
    let until = room.start.saturating_add(ahead).min(room.end);
    let page = 4096;
    let start = from / page * page;
    // Steps are whole: not a few pages after each small entry.
    let end = start.saturating_add(step).min(room.end);
    let fits = end <= until || from == room.start || end == room.end;
    (from < room.end && ahead > 0 && fits).then_some(start as usize..end as usize)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::{EntryKind, LogConfig, NewEntry, SimDisk};

    fn append(log: &mut Log<SimDisk>, index: u64) {
        let payload = [Bytes::from(vec![7; 1 << 20])];
        let entry = NewEntry { kind: EntryKind::Normal, term: 1, index, payload: &payload };
        log.append(&[entry]).expect("room");
    }

    #[test]
    fn what_is_purged_goes_although_a_load_leaves_each_commit_something_to_warm() {
        let bytes = 64 << 20;
        let config =
            LogConfig { segment_bytes: bytes, first_segment_bytes: bytes, ..LogConfig::default() };
        let (mut log, _) =
            Log::open(&SimDisk::new(1), Path::new("/log"), config).expect("it opens");
        append(&mut log, 0);
        while let Some(job) = log.next_job() {
            log.complete(job.run()).expect("nothing fails");
        }
        log.segments.back_mut().expect("it has one").recycled = true;
        log.leaving.remove.push("/log/purged".into());
        let (mut next, mut warmed) = (1, 0);
        while !log.leaving.remove.is_empty() {
            assert!(next < 50, "nothing goes");
            // More than a step of warming keeps ahead of.
            (next..next + 5).for_each(|index| append(&mut log, index));
            next += 5;
            let job = log.next_job().expect("there is something to sync");
            warmed += usize::from(matches!(job.work, Work::Warm(_)));
            log.complete(job.run()).expect("nothing fails");
        }
        assert!(warmed > 0, "it does not go first always");
    }

    #[test]
    fn a_few_mib_ahead_are_warmed_in_whole_steps() {
        let limit = 16 << 20;
        let next = |from, end| next_range(from, end..limit, WARM_AHEAD_BYTES, WARM_STEP_BYTES);
        let mut from = SEGMENT_HEAD_BYTES;
        let mut steps = 0;
        while let Some(range) = next(from, SEGMENT_HEAD_BYTES) {
            assert_eq!(range.start, from as usize);
            from = u32::try_from(range.end).unwrap();
            steps += 1;
        }
        assert_eq!(steps, 4, "then it rests");
        assert_eq!(next(from, 100_000), None);
        assert!(next(from, 2 << 20).is_some());
        assert_eq!(next(limit, limit - 8), None);
    }
}
