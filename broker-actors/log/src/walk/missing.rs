//! Files that are not there any more, although they held durable entries: somebody took them away.
//!
//! A file in the middle leaves a gap between the indexes around it. One at the end leaves nothing
//! behind it, so others must tell: its footer, the durable mark, or a floor that lies farther on.

use super::{Evidence, Gap, Kept, Verdict, Walk};
use crate::entry::{EntryHeader, EntryId, Place};
use crate::report::DamagedRange;
use crate::scan::Found;
use crate::table::EntryTable;

/// What a damaged range says of the bytes of a file that is not there.
const NO_BYTES: std::ops::Range<u32> = 0..0;

impl Walk {
    /// A footer without its segment. Where the entries are purged that is as it should be: the file
    /// goes first.
    pub(super) fn take_missing(&mut self, sequence: u64, mut table: EntryTable, end: u32) {
        let is_purged = table.last_index() <= self.evidence.purged.map(|purged| purged.index);
        if is_purged {
            return;
        }
        table.damage_all();
        let range = table.first_index().zip(table.last_index());
        let range = range.map(|(first_index, last_index)| DamagedRange {
            sequence,
            bytes: NO_BYTES,
            first_index,
            last_index,
        });
        self.take_footed(sequence, table, end); // first: it drops what was damaged from here on, as cut off
        self.out.damage.extend(range);
    }

    /// What was durable behind the last entry found. `written` is the newest segment that is there and
    /// was written to.
    pub(super) fn take_missing_end(&mut self, written: u64) {
        let &Evidence { mark, floor, free_sequence, cuts_void_through, cuts, .. } = &self.evidence;
        // In a file that is there the scan has found out. A cut that voids the segment tells why it
        // went, and a newer segment may stand in its place. The file with that cut may be purged since, but
        // the notes have counted it.
        let seen = written.max(cuts_void_through).max(self.void_through);
        let by_mark = mark.filter(|mark| mark.cuts == cuts && mark.place.sequence > seen);
        let by_mark = by_mark.map(|mark| (mark.place.sequence, mark.last));
        let by_floor = floor.map(|last| (free_sequence, last));
        for (sequence, last) in [by_mark, by_floor].into_iter().flatten() {
            self.name_missing_end(sequence, last);
        }
    }

    /// The first entry of all. Nothing is purged, so that a log begins at 0; one that never had another
    /// entry before it (in a test) names no term before it.
    pub(super) fn take_start(
        &mut self,
        kept: &mut Kept,
        offset: u32,
        header: &EntryHeader,
        unknown: Option<(u32, u32)>,
    ) -> Gap {
        let index = header.id.index;
        let missing =
            if header.previous_term > 0 { 0..index } else { index.saturating_sub(1)..index };
        let place = Place { sequence: kept.sequence, offset };
        if unknown.is_none() {
            if header.previous_term == 0 || missing.is_empty() {
                return Gap::Settled;
            }
            let given_up = self.is_given_up(&missing);
            if !given_up && matches!(self.judge(place, false, true), Verdict::Torn) {
                return Gap::Torn;
            }
        }
        let (from, until) = unknown.unwrap_or((kept.end, kept.end));
        self.name_missing(kept, missing, Some(header), from..until);
        Gap::Settled
    }

    /// Whether what was found is at or below the purge point.
    pub(super) fn is_purged_at(&self, found: &Found) -> bool {
        let index = match found {
            Found::Entry { header, .. } => Some(header.id.index),
            Found::Unknown { .. } => self.last.map(|last| last.index + 1),
        };
        index.is_some_and(|index| self.evidence.purged.is_some_and(|purged| index <= purged.index))
    }

    /// Whether all of `indexes` are given up.
    pub(super) fn is_given_up(&self, indexes: &std::ops::Range<u64>) -> bool {
        let mut ranges = self.evidence.given_up.iter();
        let last = indexes.end.saturating_sub(1);
        ranges.any(|range| range.contains(&indexes.start) && range.contains(&last))
    }

    fn name_missing_end(&mut self, sequence: u64, last: EntryId) {
        let first_index = self.next_index().unwrap_or(0);
        if first_index > last.index {
            return;
        }
        self.out.missing_from = self.out.missing_from.or(Some(first_index));
        let mut kept = Kept::empty(sequence, None);
        let term = self.last.or(self.evidence.purged).map_or(0, |id| id.term);
        for index in first_index..last.index {
            kept.table.place_damaged(EntryId { term, index }, 0, None);
        }
        kept.table.place_damaged(last, 0, None);
        self.last = Some(last);
        let last_index = last.index;
        self.out.damage.push(DamagedRange { sequence, bytes: NO_BYTES, first_index, last_index });
        self.out.kept.push(kept);
    }
}
