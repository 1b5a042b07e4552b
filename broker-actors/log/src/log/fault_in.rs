//! Bringing old entries into memory before they are read, on a thread that may wait for the disk.
//!
//! [`Log::slice`] reads an entry's header, and checks the whole entry as long as nobody in this
//! process has. Whoever must not wait asks [`Log::is_resident`] first, and has a [`FaultIn`] run
//! elsewhere when the answer is no.

use std::ops::Range;

use bytes::Bytes;

use super::Log;
use crate::disk::Disk;
use crate::entry::ENTRY_HEADER_BYTES;
use crate::index::Run;
use crate::region::Region;
use crate::segment::Segment;

const PAGE_BYTES: usize = 4096;
/// Bytes read before somebody else may have the disk.
const STEP_BYTES: usize = 512 * 1024;

/// Runs to bring into memory. Holds the mappings they are in.
#[derive(Debug)]
pub struct FaultIn {
    /// None for a run that is not in the log any more: reading it says so.
    runs: Vec<Option<Piece>>,
}

#[derive(Debug)]
struct Piece {
    region: Region,
    ranges: [Range<usize>; 2],
    #[expect(dead_code, reason = "keeps the file from being used again meanwhile")]
    whole: Bytes,
}

impl FaultIn {
    /// Brings them in, in order, by steps of 512 KiB; before each that is not in memory it calls
    /// `give_way`. Blocks. Says how many runs, from the first on, can be read: a medium that gives
    /// an error ends it here, and not by a signal later.
    pub fn run(&self, mut give_way: impl FnMut()) -> usize {
        let mut read = 0;
        for run in &self.runs {
            if run.as_ref().is_some_and(|piece| !piece.fault_in(&mut give_way)) {
                break;
            }
            read += 1;
        }
        read
    }
}

impl Piece {
    /// Whether all of it can be read.
    fn fault_in(&self, give_way: &mut impl FnMut()) -> bool {
        self.region.read_no_further();
        self.ranges.iter().filter(|range| !range.is_empty()).all(|range| {
            let end = range.end.min(self.region.len());
            (page_start(range.start)..end).step_by(STEP_BYTES).all(|start| {
                let step = start..end.min(start + STEP_BYTES);
                if self.region.is_resident(step.clone()) {
                    return true;
                }
                give_way();
                self.region.read_step(step).is_ok()
            })
        })
    }
}

const fn page_start(byte: usize) -> usize {
    byte / PAGE_BYTES * PAGE_BYTES
}

impl<D: Disk> Log<D> {
    /// What a reader thread has to do before `runs` can be sliced without waiting for the disk.
    pub fn fault_in(&self, runs: &[Run]) -> FaultIn {
        let pieces = runs.iter().map(|run| {
            let segment = self.segment_of(run.at.index)?;
            let ranges = bytes_read(segment, run)?;
            Some(Piece { region: segment.region().clone(), ranges, whole: segment.whole() })
        });
        FaultIn { runs: pieces.collect() }
    }

    /// Whether slicing a run will not wait for the disk.
    pub fn is_resident(&self, run: &Run) -> bool {
        let Some(segment) = self.segment_of(run.at.index) else { return true };
        let is_newest = self.segments.back().is_some_and(|back| back.sequence == segment.sequence);
        if is_newest && segment.checked {
            return true; // it was written, or read, just now
        }
        let Some(ranges) = bytes_read(segment, run) else { return true };
        ranges.into_iter().all(|range| range.is_empty() || segment.region().is_resident(range))
    }
}

/// The bytes that slicing a run reads: the header and the run; the whole entry while it is not
/// checked.
fn bytes_read<F>(segment: &Segment<F>, run: &Run) -> Option<[Range<usize>; 2]> {
    let index = run.at.index;
    let start = segment.table.offset_of(index).filter(|offset| *offset != 0)? as usize;
    let payload = start + ENTRY_HEADER_BYTES;
    if segment.is_checked(index) {
        let run_start = payload + run.at.byte as usize;
        return Some([start..payload, run_start..run_start + run.length as usize]);
    }
    let next = segment.table.offset_of(index + 1).filter(|offset| *offset != 0);
    let end = next.unwrap_or(segment.end) as usize;
    Some([start..end.max(payload), 0..0])
}
