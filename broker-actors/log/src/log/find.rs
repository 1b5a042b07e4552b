//! The log's side of finding messages: which batches are new to the index, which segments a search
//! goes through, which tables are to be made. Nothing here reads a record.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use super::Log;
use crate::disk::Disk;
use crate::entry::ENTRY_HEADER_BYTES;
use crate::find::{
    FedRun, FedSegment, FindBuilt, FindFeed, FindView, FindViews, Mapped, SealedView,
};
use crate::index::Run;
use crate::layout::FileName;
use crate::segment::Segment;

/// What the index has been told.
#[derive(Debug, Default)]
pub(super) struct Finding {
    /// Batches that it was not told of yet, by segment, in the order in which they were applied.
    fresh: BTreeMap<u64, VecDeque<Run>>,
    /// How many it was told of.
    fed: BTreeMap<u64, usize>,
    /// Segments whose tables were asked for.
    asked: BTreeSet<u64>,
    /// Those of them that could not be made.
    failed: BTreeSet<u64>,
    /// Segments have gone since it was told.
    gone: bool,
    /// Bytes of the batches in `fresh`.
    fresh_bytes: u64,
}

impl Finding {
    pub(super) fn note(&mut self, sequence: u64, run: Run) {
        self.fresh.entry(sequence).or_default().push_back(run);
        self.fresh_bytes += u64::from(run.length);
    }

    /// A segment has gone.
    pub(super) fn forget(&mut self, sequence: u64) {
        for run in self.fresh.remove(&sequence).unwrap_or_default() {
            self.fresh_bytes = self.fresh_bytes.saturating_sub(u64::from(run.length));
        }
        self.fed.remove(&sequence);
        self.asked.remove(&sequence);
        self.failed.remove(&sequence);
        self.gone = true;
    }

    /// All batches have gone.
    pub(super) fn clear(&mut self) {
        *self = Self { gone: true, ..Self::default() };
    }
}

impl<D: Disk> Log<D> {
    /// Batches that the index has not been told of, up to about `bytes_max`, in order.
    pub fn find_feed(&mut self, bytes_max: u64) -> FindFeed {
        let mut feed = FindFeed::default();
        let mut bytes = 0;
        while bytes < bytes_max
            && let Some(mut held) = self.finding.fresh.first_entry()
        {
            let sequence = *held.key();
            let Some(segment) = self.segments.iter().find(|held| held.sequence == sequence) else {
                held.remove();
                continue;
            };
            let mut runs = Vec::new();
            while bytes < bytes_max
                && let Some(run) = held.get_mut().pop_front()
            {
                bytes += u64::from(run.length);
                self.finding.fresh_bytes =
                    self.finding.fresh_bytes.saturating_sub(u64::from(run.length));
                runs.push(FedRun { run, payload: payload_of(segment, run.at.index) });
            }
            if held.get().is_empty() {
                held.remove();
            }
            let fed = self.finding.fed.entry(sequence).or_default();
            let from = *fed;
            *fed += runs.len();
            feed.segments.push(FedSegment { sequence, from, mapped: mapped(segment), runs });
        }
        if std::mem::take(&mut self.finding.gone) {
            feed.alive = Some(self.segments.iter().map(|segment| segment.sequence).collect());
        }
        feed
    }

    /// About how many bytes of batches the index has not been told of.
    pub fn find_waiting_bytes(&self) -> u64 {
        self.finding.fresh_bytes
    }

    /// The segments as a search meets them. What [`Log::find_feed`] still has is not in them.
    pub fn find_views(&self) -> FindViews {
        let views = self.segments.iter().rev().filter_map(|segment| {
            let sequence = segment.sequence;
            if let Some(view) = self.sealed_view(segment) {
                return Some(FindView::Sealed(view));
            }
            let runs = self.finding.fed.get(&sequence).copied().filter(|_| !segment.footed)?;
            Some(FindView::Open { sequence, runs })
        });
        FindViews { segments: views.collect(), purged: self.purged().map(|purged| purged.index) }
    }

    /// A sealed segment whose table was not asked for yet, once its batches have all been fed.
    pub fn next_find_build(&mut self) -> Option<SealedView> {
        // A full disk leaves its room to what must be stored.
        if !self.config.find_index || self.room.disk_full {
            return None;
        }
        let finding = &self.finding;
        let is_due = |segment: &&Segment<D::File>| {
            let sequence = segment.sequence;
            segment.footed
                && !finding.asked.contains(&sequence)
                && !finding.fresh.contains_key(&sequence)
        };
        let view = self.segments.iter().filter(is_due).find_map(|held| self.sealed_view(held))?;
        self.finding.asked.insert(view.sequence());
        Some(view)
    }

    /// Takes in that a table was made, or could not be.
    pub fn find_built(&mut self, built: &FindBuilt) {
        let sequence = built.sequence;
        if !self.segments.iter().any(|segment| segment.sequence == sequence) {
            // The segment went while its table was made.
            self.leaving.remove.push(self.find_path(sequence));
        } else if built.failure.is_some() {
            self.finding.failed.extend(built.try_again.then_some(sequence));
        } else {
            self.finding.fed.remove(&sequence);
        }
    }

    /// Asks once more for the tables that could not be made.
    pub fn find_retry(&mut self) {
        for sequence in std::mem::take(&mut self.finding.failed) {
            self.finding.asked.remove(&sequence);
        }
    }

    /// The index does not know a segment's batches, or its table is damaged: it is told of all of
    /// them again, or the table is made again.
    pub fn find_again(&mut self, sequence: u64) {
        let Some(segment) = self.segments.iter().find(|segment| segment.sequence == sequence)
        else {
            return;
        };
        if segment.footed {
            self.finding.asked.remove(&sequence);
            return;
        }
        let runs: VecDeque<Run> = self.index.runs_in(sequence).into();
        self.finding.fed.insert(sequence, 0);
        self.finding.fresh_bytes += runs.iter().map(|run| u64::from(run.length)).sum::<u64>();
        self.finding.fresh.insert(sequence, runs);
    }

    pub(super) fn find_path(&self, sequence: u64) -> PathBuf {
        self.folder.join(FileName::Find(sequence).to_string())
    }

    fn sealed_view(&self, segment: &Segment<D::File>) -> Option<SealedView> {
        let runs = self.index.footer(segment.sequence).filter(|_| segment.footed)?.clone();
        Some(SealedView { sequence: segment.sequence, mapped: mapped(segment), runs })
    }
}

fn mapped<F>(segment: &Segment<F>) -> Mapped {
    Mapped { region: segment.region().clone(), whole: segment.whole() }
}

/// Where the payload of an entry begins; beyond every file when its header is damaged.
fn payload_of<F>(segment: &Segment<F>, index: u64) -> u32 {
    let header = u32::try_from(ENTRY_HEADER_BYTES).expect("64 bytes");
    let offset = segment.table.offset_of(index).filter(|offset| *offset != 0);
    offset.map_or(u32::MAX, |offset| offset + header)
}
