//! Warming: pages that will be stored to next are brought into memory ahead of time.
//!
//! A store to a page that is not there costs 3 to 8 times as much, on the core thread. And blocks
//! that were only allocated make each small sync commit the file system's journal: written once
//! ahead, a sync of 64 KiB took 0.4 of the time (docs/STORAGE.md has the measurement). A recycled
//! file's blocks are written already, so its pages are only read in. The flush thread does it in
//! small steps between commits, and only a few MiB ahead, so that an idle log holds little memory.

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

/// A range to warm.
#[derive(Debug)]
pub(crate) struct Warmth<F> {
    pub sequence: u64,
    pub region: Region,
    /// Synced behind the range, when its blocks have never been written.
    pub file: Option<Arc<F>>,
    pub range: Range<usize>,
}

impl<D: Disk> Log<D> {
    /// Whether the next stores will soon meet cold pages, so that commits must not go first always.
    pub(super) fn runs_cold(&self) -> bool {
        let Some(segment) = self.segments.back().filter(|segment| segment.is_open()) else {
            return self.room.spares.front().is_some_and(|s| s.warmed_to == SEGMENT_HEAD_BYTES);
        };
        let ahead = segment.end.saturating_add(WARM_AHEAD_BYTES / 2).min(segment.limit);
        segment.warmed_to < ahead
    }

    /// The next range to warm, if there is one.
    pub(super) fn warm(&mut self) -> Option<Work<D>> {
        let mut ahead = WARM_AHEAD_BYTES;
        let active = self.segments.back().filter(|segment| segment.is_open());
        let mut warmth = None;
        if let Some(segment) = active {
            let next =
                next_range(segment.warmed_to.max(segment.end), segment.end, ahead, segment.limit);
            ahead = ahead.saturating_sub(segment.limit - segment.end);
            warmth = next.map(|range| Warmth {
                sequence: segment.sequence,
                region: segment.region().clone(),
                file: segment.file.clone().filter(|_| !segment.recycled),
                range,
            });
        }
        if warmth.is_none() {
            let spare = self.room.spares.front()?;
            let limit = u32::try_from(spare.region.len()).expect("segments are below 4 GiB");
            let range = next_range(spare.warmed_to, SEGMENT_HEAD_BYTES, ahead, limit)?;
            warmth = Some(Warmth {
                sequence: spare.sequence,
                region: spare.region.clone(),
                file: (!spare.recycled).then(|| Arc::clone(&spare.file)),
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

/// The step from `from` on, as long as it lies within `ahead` of `end`.
fn next_range(from: u32, end: u32, ahead: u32, limit: u32) -> Option<Range<usize>> {
    let until = end.saturating_add(ahead).min(limit);
    let page = 4096;
    let start = from / page * page;
    // Steps are whole: not a few pages after each small entry.
    let step = start.saturating_add(WARM_STEP_BYTES).min(limit);
    let is_due = from < limit && ahead > 0 && (step <= until || from == end || step == limit);
    is_due.then_some(start as usize..step as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_mib_ahead_are_warmed_in_whole_steps() {
        let limit = 16 << 20;
        let mut from = SEGMENT_HEAD_BYTES;
        let mut steps = 0;
        while let Some(range) = next_range(from, SEGMENT_HEAD_BYTES, WARM_AHEAD_BYTES, limit) {
            assert_eq!(range.start, from as usize);
            from = u32::try_from(range.end).unwrap();
            steps += 1;
        }
        assert_eq!(steps, 4, "then it rests");
        assert_eq!(next_range(from, 100_000, WARM_AHEAD_BYTES, limit), None);
        assert!(next_range(from, 2 << 20, WARM_AHEAD_BYTES, limit).is_some());
        assert_eq!(next_range(limit, limit - 8, WARM_AHEAD_BYTES, limit), None);
    }
}
