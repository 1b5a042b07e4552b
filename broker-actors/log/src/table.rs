//! Which entries a segment holds, and where each of them stands.

use std::collections::BTreeMap;

use crate::entry::{EntryId, EntryKind};

/// Where an entry's header stands in the file; 0 when the header is damaged.
pub(crate) type EntryOffset = u32;

/// What is left of an entry that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DamagedEntry {
    pub term: u64,
    /// The kind, where the next entry or the footer still tells it.
    pub kind: Option<EntryKind>,
}

/// The entries of one segment, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct EntryTable {
    first: Option<u64>,
    offsets: Vec<EntryOffset>,
    /// (first index, term), ascending.
    terms: Vec<(u64, u64)>,
    last_kind: u8,
    pub damaged: BTreeMap<u64, DamagedEntry>,
}

impl EntryTable {
    pub(crate) fn from_parts(
        first: Option<u64>,
        offsets: Vec<EntryOffset>,
        terms: Vec<(u64, u64)>,
        last_kind: u8,
    ) -> Self {
        Self { first, offsets, terms, last_kind, damaged: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(crate) fn offsets(&self) -> &[EntryOffset] {
        &self.offsets
    }

    pub(crate) fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    pub(crate) fn last_kind(&self) -> u8 {
        self.last_kind
    }

    pub(crate) fn first_index(&self) -> Option<u64> {
        self.first
    }

    pub(crate) fn last_index(&self) -> Option<u64> {
        Some(self.first? + self.offsets.len() as u64 - 1)
    }

    pub(crate) fn last_id(&self) -> Option<EntryId> {
        Some(EntryId { term: self.terms.last()?.1, index: self.last_index()? })
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index < self.first? || index > self.last_index()? {
            return None;
        }
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms[after - 1].1)
    }

    pub(crate) fn offset_of(&self, index: u64) -> Option<EntryOffset> {
        let nth = usize::try_from(index.checked_sub(self.first?)?).ok()?;
        self.offsets.get(nth).copied()
    }

    /// Notes where the next entry stands.
    ///
    /// # Panics
    /// When it does not follow the last one.
    pub(crate) fn place(&mut self, id: EntryId, offset: EntryOffset, kind: u8) {
        match self.last_index() {
            Some(last) => assert!(id.index == last + 1, "entry {id} follows {last}"),
            None => self.first = Some(id.index),
        }
        if self.terms.last().is_none_or(|(_, term)| *term != id.term) {
            self.terms.push((id.index, id.term));
        }
        self.offsets.push(offset);
        self.last_kind = kind;
    }

    /// Notes the next entry as damaged; `offset` is 0 when even its header is.
    pub(crate) fn place_damaged(
        &mut self,
        id: EntryId,
        offset: EntryOffset,
        kind: Option<EntryKind>,
    ) {
        self.place(id, offset, kind.map_or(0, |kind| kind as u8));
        self.damaged.insert(id.index, DamagedEntry { term: id.term, kind });
    }

    /// Notes all entries as damaged.
    pub(crate) fn damage_all(&mut self) {
        let (Some(first), Some(last)) = (self.first, self.last_index()) else { return };
        let all = (first..=last).filter_map(|index| Some((index, self.term_of(index)?)));
        let all = all.map(|(index, term)| (index, DamagedEntry { term, kind: None }));
        self.damaged = all.collect();
    }

    /// Puts the entries of `other`, which follow, behind these.
    ///
    /// # Panics
    /// When they do not follow.
    pub(crate) fn extend(&mut self, other: &Self) {
        let (Some(first), Some(last)) = (other.first, other.last_index()) else { return };
        for index in first..=last {
            let (Some(term), Some(offset)) = (other.term_of(index), other.offset_of(index)) else {
                continue;
            };
            self.place(EntryId { term, index }, offset, other.last_kind);
        }
        self.damaged.extend(&other.damaged);
    }

    /// Takes out all entries behind `last`, and says where the first of them stood. `kind_of` reads
    /// the kind of an entry that stays, by its offset.
    pub(crate) fn cut_after(
        &mut self,
        last: Option<u64>,
        kind_of: impl Fn(EntryOffset) -> u8,
    ) -> Option<EntryOffset> {
        let keep = match (self.first, last) {
            (Some(first), Some(last)) if last >= first => {
                usize::try_from(last - first + 1).unwrap_or(usize::MAX)
            }
            _ => 0,
        };
        let cut = *self.offsets.get(keep)?;
        self.offsets.truncate(keep);
        let end = self.first? + keep as u64;
        self.terms.retain(|(first, _)| *first < end);
        self.damaged.retain(|index, _| *index < end);
        self.last_kind = self.offsets.last().map_or(0, |offset| kind_of(*offset));
        if keep == 0 {
            self.first = None;
        }
        Some(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_and_cut() {
        let mut table = EntryTable::default();
        for (index, term) in [(5, 1), (6, 1), (7, 3), (8, 3)] {
            table.place(EntryId { term, index }, 4096 + u32::try_from(index).unwrap() * 100, 2);
        }
        assert_eq!(table.last_id(), Some(EntryId { term: 3, index: 8 }));
        assert_eq!(
            (table.term_of(6), table.term_of(7), table.term_of(9)),
            (Some(1), Some(3), None)
        );
        assert_eq!(table.cut_after(Some(8), |_| 0), None);
        assert_eq!(table.cut_after(Some(6), |_| 1), Some(4096 + 700));
        assert_eq!(table.last_id(), Some(EntryId { term: 1, index: 6 }));
        assert_eq!(table.cut_after(Some(4), |_| 0), Some(4096 + 500));
        assert_eq!((table.last_id(), table.first_index()), (None, None));
    }
}
