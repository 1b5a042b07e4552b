//! Decides what the segments found at start mean: which entries stand, what was never acknowledged
//! and goes, what is damaged and stays as damaged. Pure.
//!
//! A bad place is a **torn tail** only if nothing behind it can have been acknowledged; otherwise it
//! is **damage**, and nothing is cut. In order:
//!
//! 1. Below the durable mark: damage. The mark is the greatest of the control page's, those in the
//!    headers of whole entries, and the ends of segments that have a footer.
//! 2. Above it, followed by a whole entry of the same segment: damage if the kernel is the one that
//!    was running when it was written (only power cuts and kernel deaths lose sectors), or if the
//!    file held only zeros before and no missing sector explains the place.
//! 3. Else it is the torn tail: it goes, and all that stands behind it.

use std::ops::RangeInclusive;

use crate::control::Mark;
use crate::entry::{EntryHeader, EntryId, EntryKind, Place};
use crate::layout::{Close, SEGMENT_HEAD_BYTES};
use crate::report::{DamagedRange, TornTail};
use crate::scan::{Found, SegmentScan};
use crate::table::EntryTable;

/// What is known besides the segments themselves.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub mark: Option<Mark>,
    /// No power cut and no kernel death since the log was last open.
    pub kernel_survived: bool,
    pub purged: Option<EntryId>,
    /// Segments up to this one hold nothing.
    pub void_through: u64,
    /// The same by any cut that stands in a file, also in one that has a footer.
    pub cuts_void_through: u64,
    /// How often the log was cut shorter.
    pub cuts: u8,
    /// The log was durable up to here: a floor behind the purge point says so.
    pub floor: Option<EntryId>,
    /// A sequence number that no file has.
    pub free_sequence: u64,
    /// Entries that the operator has given up: what was written behind them stands without them.
    pub given_up: Vec<RangeInclusive<u64>>,
}

/// A segment as it was found.
#[derive(Debug)]
pub(crate) enum Source {
    /// Read entry by entry.
    Scanned(SegmentScan),
    /// Its footer says what is in it, and was written after all of it was durable.
    Footed { sequence: u64, table: EntryTable, end: u32 },
    /// Its footer is there and its file is not.
    Missing { sequence: u64, table: EntryTable, end: u32 },
}

/// A segment that stays.
#[derive(Debug)]
pub(crate) struct Kept {
    pub sequence: u64,
    pub table: EntryTable,
    pub end: u32,
    pub close: Option<(Close, usize)>,
    pub footed: bool,
}

/// What is to become of the segments.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub kept: Vec<Kept>,
    /// Segments of which nothing stands; to be taken away.
    pub dropped: Vec<u64>,
    /// Segments that were never written to.
    pub unused: Vec<u64>,
    pub torn: Option<TornTail>,
    pub damage: Vec<DamagedRange>,
    /// From here on entries are missing at the end, and no footer tells of them.
    pub missing_from: Option<u64>,
}

impl Outcome {
    /// The term of an entry that stands.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        self.kept.iter().find_map(|kept| kept.table.term_of(index))
    }

    /// The last entry that stands.
    pub(crate) fn last(&self) -> Option<EntryId> {
        self.kept.last().and_then(|kept| kept.table.last_id())
    }

    /// The greatest sequence number of a segment that was written to.
    pub(crate) fn newest_sequence(&self) -> u64 {
        let kept = self.kept.iter().map(|kept| kept.sequence);
        kept.chain(self.dropped.iter().copied()).max().unwrap_or(0)
    }

    /// Whether all entries behind the purge point and up to `index` lie in segments with a footer. The
    /// checkpoint of an install that was cut off may lie within one.
    pub(crate) fn is_footed_to(&self, index: Option<u64>, purged: Option<u64>) -> bool {
        let behind = |table: &EntryTable| table.last_index() > purged && purged < index;
        let needs = |table: &EntryTable| behind(table) && table.first_index() <= index;
        self.kept.iter().all(|kept| kept.footed || !needs(&kept.table))
    }
}

struct Walk {
    evidence: Evidence,
    mark: Place,
    /// The last entry so far, damaged ones included.
    last: Option<EntryId>,
    /// Segments up to this one hold nothing: a truncation took them.
    void_through: u64,
    out: Outcome,
}

enum Verdict {
    Torn,
    Damaged,
}

/// What lies before an entry.
enum Gap {
    /// Nothing, or entries that have been named as damaged.
    Settled,
    /// The entry does not belong here, and nothing may be cut.
    Stray,
    /// All from here on goes.
    Torn,
}

impl Kept {
    fn empty(sequence: u64, close: Option<(Close, usize)>) -> Self {
        let end = SEGMENT_HEAD_BYTES;
        Self { sequence, table: EntryTable::default(), end, close, footed: false }
    }
}

/// Walks `sources`, ascending by sequence number.
pub(crate) fn walk(sources: Vec<Source>, evidence: Evidence) -> Outcome {
    let mark = sources.iter().map(Source::mark).chain(evidence.mark.map(|mark| mark.place));
    let mark = mark.max().unwrap_or_default();
    let firsts: Vec<Option<EntryHeader>> = sources.iter().map(Source::first_header).collect();
    let written = sources.iter().filter(|source| !source.is_unused()).map(Source::sequence).max();
    let mut walk = Walk {
        mark,
        last: None,
        void_through: evidence.void_through,
        evidence,
        out: Outcome::default(),
    };
    for (nth, source) in sources.into_iter().enumerate() {
        if walk.out.torn.is_some() || source.sequence() <= walk.void_through {
            walk.drop_source(&source);
            continue;
        }
        match source {
            Source::Footed { sequence, table, end } => walk.take_footed(sequence, table, end),
            Source::Missing { sequence, table, end } => walk.take_missing(sequence, table, end),
            Source::Scanned(scan) if scan.is_unused() => walk.out.unused.push(scan.sequence),
            Source::Scanned(scan) => {
                let void = scan.close.map_or(0, |(close, _)| close.void_through);
                walk.void_through = walk.void_through.max(void.max(scan.sequence));
                let next = firsts[nth + 1..].iter().flatten().next().copied();
                walk.take_scan(&scan, next);
            }
        }
    }
    walk.take_missing_end(written.unwrap_or(0));
    walk.out
}

impl Source {
    pub(crate) fn sequence(&self) -> u64 {
        match self {
            Self::Scanned(scan) => scan.sequence,
            Self::Footed { sequence, .. } | Self::Missing { sequence, .. } => *sequence,
        }
    }

    fn is_unused(&self) -> bool {
        matches!(self, Self::Scanned(scan) if scan.is_unused())
    }

    fn mark(&self) -> Place {
        match self {
            Self::Scanned(scan) => scan.mark,
            Self::Footed { sequence, end, .. } | Self::Missing { sequence, end, .. } => {
                Place { sequence: *sequence, offset: *end }
            }
        }
    }

    fn first_header(&self) -> Option<EntryHeader> {
        match self {
            Self::Scanned(scan) => match scan.found.first() {
                Some(Found::Entry { header, .. }) => Some(*header),
                _ => None,
            },
            Self::Footed { .. } | Self::Missing { .. } => None,
        }
    }
}

impl Walk {
    /// The index that comes next, when anything says it.
    fn next_index(&self) -> Option<u64> {
        self.last.or(self.evidence.purged).map(|id| id.index + 1)
    }

    fn judge(&self, place: Place, is_followed: bool, looks_unwritten: bool) -> Verdict {
        let explained = looks_unwritten && !self.evidence.kernel_survived;
        if place < self.mark || (is_followed && !explained) {
            Verdict::Damaged
        } else {
            Verdict::Torn
        }
    }

    fn drop_source(&mut self, source: &Source) {
        match source {
            Source::Scanned(scan) if scan.is_unused() => self.out.unused.push(scan.sequence),
            Source::Scanned(scan) => self.out.dropped.push(scan.sequence),
            // Only a file put there by hand: what has a footer was applied, and is never truncated.
            Source::Footed { sequence, .. } => self.out.dropped.push(*sequence),
            Source::Missing { .. } => {}
        }
    }

    fn take_footed(&mut self, sequence: u64, mut table: EntryTable, end: u32) {
        let Some(first) = table.first_index() else {
            self.out.dropped.push(sequence);
            return;
        };
        let head = SEGMENT_HEAD_BYTES;
        let mut gap = Kept::empty(sequence, None);
        let from_start = (self.next_index().is_none() && first > 0).then_some(0..first);
        if let Some(missing) = from_start.or_else(|| self.approach(first, true)) {
            // What is missing goes to the segment before, or has none to be in.
            if let Some(mut before) = self.out.kept.pop() {
                self.name_missing(&mut before, missing, None, head..head);
                self.out.kept.push(before);
            } else {
                self.name_missing(&mut gap, missing, None, head..head);
                gap.table.extend(&table);
                table = gap.table;
            }
        }
        self.last = table.last_id();
        self.out.kept.push(Kept { sequence, table, end, close: None, footed: true });
    }

    /// The next entry has index `index`. Takes out what a truncation or a purge has made void, and
    /// answers which indexes are missing before it.
    fn approach(&mut self, index: u64, starts_segment: bool) -> Option<std::ops::Range<u64>> {
        let expected = self.next_index()?;
        if starts_segment && index < expected {
            self.truncate_from(index);
            return None;
        }
        let purged_before = self.evidence.purged.is_some_and(|purged| index <= purged.index + 1);
        if starts_segment && purged_before && index > expected {
            let void = self.out.kept.drain(..).map(|kept| kept.sequence);
            self.out.dropped.extend(void);
            self.last = None;
            return None;
        }
        (index > expected).then_some(expected..index)
    }

    fn truncate_from(&mut self, index: u64) {
        while let Some(kept) = self.out.kept.last_mut() {
            if kept.table.first_index().is_some_and(|first| first < index) {
                let last = index.checked_sub(1);
                let cut = kept.table.cut_after(last, |_| 0);
                kept.end = cut.filter(|cut| *cut != 0).unwrap_or(kept.end);
                break;
            }
            let gone = self.out.kept.pop().expect("just looked at");
            self.out.dropped.push(gone.sequence);
        }
        self.last = self.out.kept.last().and_then(|kept| kept.table.last_id());
        // What was damaged there is nobody's loss: it was cut off, and what was written then stands.
        self.out.damage.retain_mut(|range| {
            range.last_index = range.last_index.min(index.saturating_sub(1));
            range.first_index < index
        });
    }

    fn take_scan(&mut self, scan: &SegmentScan, next: Option<EntryHeader>) {
        let mut kept = Kept::empty(scan.sequence, scan.close);
        let mut unknown: Option<(u32, u32)> = None;
        for (nth, found) in scan.found.iter().enumerate() {
            let is_last = nth + 1 == scan.found.len();
            let place = Place { sequence: scan.sequence, offset: found.offset() };
            let stands = match *found {
                Found::Entry { offset, header, payload_whole, looks_unwritten } => {
                    let looks_unwritten = looks_unwritten || scan.recycled;
                    match self.take_gap(&mut kept, offset, &header, unknown.take()) {
                        Gap::Torn => false,
                        Gap::Stray => true,
                        Gap::Settled => {
                            let broken = (!payload_whole).then_some((!is_last, looks_unwritten));
                            self.take_entry(&mut kept, offset, &header, broken)
                        }
                    }
                }
                Found::Unknown { from, until, looks_unwritten } => {
                    match self.judge(place, !is_last, looks_unwritten || scan.recycled) {
                        Verdict::Torn => false,
                        Verdict::Damaged if is_last => {
                            self.take_lost_end(&mut kept, from..until, scan, next);
                            true
                        }
                        Verdict::Damaged => {
                            unknown = Some((from, until));
                            true
                        }
                    }
                }
            };
            if !stands {
                // A segment wholly below the purge point may have gone from the log before it was synced,
                // and its file be there still: that tears nothing of what stands behind it.
                if !self.is_purged_at(found) {
                    self.tear(scan, kept.end);
                }
                break;
            }
        }
        if kept.table.is_empty() {
            self.out.dropped.push(kept.sequence);
        } else {
            self.out.kept.push(kept);
        }
    }

    /// Settles what lies between the last entry and `header`.
    fn take_gap(
        &mut self,
        kept: &mut Kept,
        offset: u32,
        header: &EntryHeader,
        unknown: Option<(u32, u32)>,
    ) -> Gap {
        let index = header.id.index;
        let starts_segment = kept.table.is_empty();
        if self.next_index().is_none() {
            return self.take_start(kept, offset, header, unknown);
        }
        if !starts_segment && self.next_index().is_some_and(|expected| index < expected) {
            let place = Place { sequence: kept.sequence, offset };
            return match self.judge(place, false, false) {
                Verdict::Torn => Gap::Torn,
                Verdict::Damaged => Gap::Stray,
            };
        }
        if unknown.is_none() && !self.follows(kept, header) {
            // Written behind a snapshot that was never installed in the end.
            let place = Place { sequence: kept.sequence, offset };
            return match self.judge(place, false, false) {
                Verdict::Torn => Gap::Torn,
                Verdict::Damaged => Gap::Stray,
            };
        }
        let Some(missing) = self.approach(index, starts_segment) else { return Gap::Settled };
        // Before a segment's first entry: what the segments before it lost was judged there. Their
        // ends say nothing: a truncation moves them below the mark.
        let place = Place { sequence: kept.sequence, offset: kept.end };
        let judge = unknown.is_none() && !self.is_given_up(&missing);
        if judge && matches!(self.judge(place, false, true), Verdict::Torn) {
            return Gap::Torn;
        }
        let (from, until) = unknown.unwrap_or((kept.end, kept.end));
        self.name_missing(kept, missing, Some(header), from..until);
        Gap::Settled
    }

    /// Whether the entry before `header`, where it is known, is the one that `header` was written behind.
    fn follows(&self, kept: &Kept, header: &EntryHeader) -> bool {
        let Some(before) = header.id.index.checked_sub(1) else { return true };
        let tables = self.out.kept.iter().chain([kept]).rev().map(|kept| &kept.table);
        let known = tables.filter(|table| !table.damaged.contains_key(&before));
        let purged = self.evidence.purged.filter(|purged| purged.index == before);
        let term = { known }.find_map(|table| table.term_of(before));
        term.or(purged.map(|purged| purged.term)).is_none_or(|term| term == header.previous_term)
    }

    fn take_entry(
        &mut self,
        kept: &mut Kept,
        offset: u32,
        header: &EntryHeader,
        broken: Option<(bool, bool)>,
    ) -> bool {
        let place = Place { sequence: kept.sequence, offset };
        let end = offset + u32::try_from(header.stride()).expect("inside of the segment");
        if let Some((is_followed, looks_unwritten)) = broken {
            if matches!(self.judge(place, is_followed, looks_unwritten), Verdict::Torn) {
                return false;
            }
            kept.table.place_damaged(header.id, offset, EntryKind::from_stored(header.kind));
            self.out.damage.push(DamagedRange {
                sequence: kept.sequence,
                bytes: offset..end,
                first_index: header.id.index,
                last_index: header.id.index,
            });
        } else {
            kept.table.place(header.id, offset, header.kind);
        }
        self.last = Some(header.id);
        kept.end = end;
        true
    }

    /// Durable entries at the segment's end are gone, and none follows in the same segment.
    fn take_lost_end(
        &mut self,
        kept: &mut Kept,
        bytes: std::ops::Range<u32>,
        scan: &SegmentScan,
        next: Option<EntryHeader>,
    ) {
        let by_close = scan.close.and_then(|(close, _)| close.last).map(|(id, _)| id);
        let by_mark = self.evidence.mark.filter(|mark| mark.place.sequence == scan.sequence);
        let last = by_close.or_else(|| by_mark.map(|mark| mark.last)).or_else(|| {
            let next = next?;
            Some(EntryId { term: next.previous_term, index: next.id.index.checked_sub(1)? })
        });
        let Some(last) = last else { return };
        let expected = self.next_index().unwrap_or(last.index);
        if expected > last.index {
            return;
        }
        self.name_missing(kept, expected..last.index, None, bytes.clone());
        kept.table.place_damaged(last, 0, None);
        self.last = Some(last);
        self.out.damage.push(DamagedRange {
            sequence: kept.sequence,
            bytes: bytes.clone(),
            first_index: last.index,
            last_index: last.index,
        });
        kept.end = bytes.end;
    }

    /// Gives the entries `indexes` their identity as damaged ones. `before` is the header that follows.
    fn name_missing(
        &mut self,
        kept: &mut Kept,
        indexes: std::ops::Range<u64>,
        before: Option<&EntryHeader>,
        bytes: std::ops::Range<u32>,
    ) {
        if indexes.is_empty() {
            return;
        }
        for index in indexes.clone() {
            let follower = before.filter(|header| header.id.index == index + 1);
            let inherited = self.last.or(self.evidence.purged).map_or(0, |id| id.term);
            let term = follower.map_or(inherited, |header| header.previous_term);
            let kind = follower.and_then(|header| EntryKind::from_stored(header.previous_kind));
            let id = EntryId { term, index };
            kept.table.place_damaged(id, 0, kind);
            self.last = Some(id);
        }
        kept.end = kept.end.max(bytes.end);
        self.out.damage.push(DamagedRange {
            sequence: kept.sequence,
            bytes,
            first_index: indexes.start,
            last_index: indexes.end - 1,
        });
    }

    fn tear(&mut self, scan: &SegmentScan, offset: u32) {
        let entries = scan.found.iter().filter(|found| found.offset() >= offset).count();
        self.out.torn = Some(TornTail {
            sequence: scan.sequence,
            offset,
            entries: entries as u64,
            last: self.last,
        });
    }
}

mod missing;

#[cfg(test)]
mod tests;
