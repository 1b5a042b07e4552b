//! A search: from the newest segment to the oldest, until there is enough. What a table names is
//! read and compared; what no table covers is read, within a limit.

use std::ops::Range;

use bytes::Bytes;
use grus_protocol::ids::QueueKey;

use super::read::matching;
use super::table::{FindTable, Look, TableError};
use super::view::{FedRun, Mapped};
use super::{
    FindIndex, FindMatch, FindOutcome, FindQuery, FindView, FindViews, SCANNED_BYTES_MAX,
    SealedView, VERIFIED_BYTES_MAX,
};
use crate::disk::{Disk, DiskFile};

/// Entries of one hash in one table that are all looked at; of more, the last ones of each queue.
const ENTRIES_AT_ONCE: u64 = 1024;

/// A search under way.
struct Search<'a> {
    query: &'a FindQuery,
    purged: Option<u64>,
    out: FindOutcome,
    verified_bytes: u64,
}

impl<D: Disk> FindIndex<D> {
    /// Looks for messages in the segments of `views`. Blocks, for as long as the disk takes.
    pub fn search(&mut self, query: &FindQuery, views: &FindViews) -> FindOutcome {
        let purged = views.purged;
        let mut search = Search { query, purged, out: FindOutcome::default(), verified_bytes: 0 };
        for view in &views.segments {
            if search.is_over() {
                search.out.more = true;
                break;
            }
            match view {
                FindView::Open { sequence, runs } => {
                    self.search_open(&mut search, *sequence, *runs);
                }
                FindView::Sealed(view) => self.search_sealed(&mut search, view),
            }
        }
        search.into_outcome()
    }

    fn search_open(&self, search: &mut Search<'_>, sequence: u64, runs: usize) {
        match self.open.get(&sequence) {
            Some(open) if !open.lacks(runs) => {
                let hash = search.query.by.hash(self.hashing);
                let mut named = open.entries.batches(hash);
                // Some of them were noted in part; all of them are read below.
                named.retain(|nth| open.unread.binary_search(nth).is_err());
                let named = named.iter().rev().map(|nth| open.runs[*nth as usize]);
                search.verify(&open.mapped, named);
                let unread = open.unread.iter().rev().map(|nth| open.runs[*nth as usize]);
                search.scan(&open.mapped, unread);
            }
            _ if runs == 0 => {}
            _ => search.out.gaps.push(sequence),
        }
    }

    fn search_sealed(&mut self, search: &mut Search<'_>, view: &SealedView) {
        if !search.has_queues_in(view) {
            return;
        }
        if self.is_fed(view) {
            return self.search_open(search, view.sequence, view.runs.len() as usize);
        }
        let hash = search.query.by.hash(self.hashing);
        let path = self.path(view.sequence);
        if !self.without.contains(&view.sequence) {
            let file = self.disk.open(&path);
            if let (Some(table), Ok(file)) = (self.open_table(view), file) {
                match search.look(table, &file, view, hash) {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "table of ids and keys is damaged: it is made again");
                        self.tables.remove(&view.sequence);
                    }
                }
            }
            self.without.insert(view.sequence);
            search.out.without_table.push(view.sequence);
        }
        let all = (0..view.runs.len()).filter_map(|nth| Some((view.fed(nth)?, nth)));
        let wanted = all.filter(|(fed, _)| search.may_hold(fed));
        let mut order: Vec<_> = wanted.map(|(fed, nth)| (fed.run.at, nth)).collect();
        order.sort_unstable();
        search.scan(&view.mapped, order.iter().rev().filter_map(|(_, nth)| view.fed(*nth)));
    }
}

impl Search<'_> {
    /// Whether the query's topic has batches in a segment.
    fn has_queues_in(&self, view: &SealedView) -> bool {
        let topic = self.query.by.topic();
        topic.is_none_or(|topic| view.runs.queues().any(|queue| queue.topic == topic))
    }

    fn is_over(&self) -> bool {
        self.out.matches.len() >= self.query.messages_max
    }

    /// Reads what a table names.
    fn look<F: DiskFile>(
        &mut self,
        table: &FindTable,
        file: &F,
        view: &SealedView,
        hash: u32,
    ) -> Result<(), TableError> {
        if self.query.by.id().is_some_and(|id| !table.head.times.may_hold(id)) {
            self.out.unsearched_bytes += table.head.unread_bytes;
            return Ok(());
        }
        let mut look = Look::new(table, file);
        let span = look.span(hash, 0..u32::MAX)?;
        let batches = if span.end - span.start <= ENTRIES_AT_ONCE {
            look.batches(span)?
        } else {
            self.last_of_each_queue(&mut look, view, hash)?
        };
        let mut named: Vec<FedRun> = Vec::with_capacity(batches.len());
        for nth in batches {
            named.push(view.fed(nth).ok_or(TableError::Damaged("it names what is not there"))?);
        }
        named.sort_unstable_by_key(|fed| std::cmp::Reverse(fed.run.at));
        self.verify(&view.mapped, named.into_iter());
        self.out.unsearched_bytes += table.head.unread_bytes;
        Ok(())
    }

    /// Very many batches have this hash: the newest of each queue are enough.
    fn last_of_each_queue<F: DiskFile>(
        &mut self,
        look: &mut Look<'_, F>,
        view: &SealedView,
        hash: u32,
    ) -> Result<Vec<u32>, TableError> {
        let mut batches = Vec::new();
        let topic = self.query.by.topic();
        for queue in view.runs.queues().filter(|queue| topic.is_none_or(|of| queue.topic == of)) {
            let Some((start, count)) = view.runs.find(queue) else { continue };
            let Range { start, end } = look.span(hash, start..start + count)?;
            let wanted = (self.query.messages_max as u64 * 2).max(ENTRIES_AT_ONCE);
            if end - start > wanted {
                self.out.more = true;
            }
            batches.extend(look.batches(end.saturating_sub(wanted).max(start)..end)?);
        }
        Ok(batches)
    }

    /// Reads the batches that an index names, the newest first, until there is enough.
    fn verify(&mut self, mapped: &Mapped, named: impl Iterator<Item = FedRun>) {
        for fed in named {
            if !self.may_hold(&fed) {
                continue;
            }
            if self.is_over() {
                self.out.more = true;
                return;
            }
            let length = u64::from(fed.run.length);
            if self.verified_bytes + length > VERIFIED_BYTES_MAX && self.verified_bytes > 0 {
                self.out.unsearched_bytes += length;
                continue;
            }
            self.verified_bytes += length;
            self.compare(mapped, &fed);
        }
    }

    /// Reads batches that no index covers, the newest first, as long as the limit allows.
    fn scan(&mut self, mapped: &Mapped, all: impl Iterator<Item = FedRun>) {
        for fed in all {
            if !self.may_hold(&fed) {
                continue;
            }
            if self.is_over() {
                self.out.more = true;
                return;
            }
            let length = u64::from(fed.run.length);
            if self.out.scanned_bytes + length > SCANNED_BYTES_MAX {
                self.out.unsearched_bytes += length;
                continue;
            }
            self.out.scanned_bytes += length;
            self.compare(mapped, &fed);
        }
    }

    /// Whether a batch is one that may be answered with.
    fn may_hold(&self, fed: &FedRun) -> bool {
        let run = &fed.run;
        let topic = self.query.by.topic();
        let in_scope = |queue: QueueKey| match &self.query.scope {
            None => true,
            Some(scope) => {
                scope.get(&queue).is_some_and(|(start, end)| run.end() > *start && run.base < *end)
            }
        };
        self.purged.is_none_or(|purged| run.at.index > purged)
            && topic.is_none_or(|topic| run.queue.topic == topic)
            && in_scope(run.queue)
    }

    fn compare(&mut self, mapped: &Mapped, fed: &FedRun) {
        let read = mapped.read(fed).ok_or(()).and_then(|batch| matching(batch, &self.query.by));
        let Ok(found) = read else {
            self.out.unsearched_bytes += u64::from(fed.run.length);
            return;
        };
        for (place, batch) in found {
            self.take(fed, place, batch);
        }
    }

    fn take(&mut self, fed: &FedRun, place: u32, batch: Bytes) {
        let run = &fed.run;
        let offset = grus_protocol::ids::Offset(run.base.0 + u64::from(place));
        let scope = self.query.scope.as_ref().and_then(|scope| scope.get(&run.queue));
        if scope.is_some_and(|(start, end)| offset < *start || offset >= *end) {
            return;
        }
        self.out.matches.push(FindMatch {
            queue: run.queue,
            offset,
            term: run.term,
            stored: run.stored,
            at: run.at,
            batch,
        });
    }

    /// The newest ones, in the order of the log.
    fn into_outcome(self) -> FindOutcome {
        let Self { query, mut out, .. } = self;
        out.matches.sort_unstable_by_key(|found| (found.at, found.offset));
        let extra = out.matches.len().saturating_sub(query.messages_max);
        out.more |= extra > 0;
        out.matches.drain(..extra);
        out
    }
}
