//! Appending, truncating, purging.

use grus_protocol::ids::Durability;

use super::Log;
use crate::disk::Disk;
use crate::entry::{EntryId, EntryKind, NewEntry, stride_of};
use crate::error::AppendError;
use crate::job::Ticket;
use crate::maker::Spare;
use crate::segment::{Previous, Segment};
use crate::switches::OrderRule;

/// What may be done to a log, as far as it takes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A truncation that takes something out, see [`Log::truncate_after`]: it closes the segment.
    Cut,
    /// An entry of this kind with so many bytes of payload; a `Seal` closes the segment behind it.
    Entry {
        /// Its kind.
        kind: EntryKind,
        /// The bytes of its payload.
        payload_bytes: usize,
    },
}

impl<D: Disk> Log<D> {
    /// Appends entries: all of them, or none. They can be read at once, and are durable when a
    /// completed job says so. A `Seal` closes the segment behind it.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was changed then.
    pub fn append(&mut self, entries: &[NewEntry<'_>]) -> Result<(), AppendError> {
        self.check_order(entries)?;
        self.check_room(entries)?;
        for entry in entries {
            self.place(entry);
        }
        if !entries.is_empty() {
            let by_size = self.unsynced_bytes >= self.config.unsynced_bytes_max;
            self.wanted.sync |= by_size || self.config.durability == Durability::Persisted;
        }
        Ok(())
    }

    fn check_order(&self, entries: &[NewEntry<'_>]) -> Result<(), AppendError> {
        let mut expected = self.last().map(|last| last.index + 1);
        for entry in entries {
            match expected {
                Some(expected) if expected != entry.index => {
                    return Err(AppendError::Gap { expected, got: entry.index });
                }
                _ => expected = Some(entry.index + 1),
            }
            let (bytes, bytes_max) = (entry.payload_bytes(), self.config.entry_bytes_max);
            if bytes > bytes_max {
                return Err(AppendError::TooLarge { bytes, bytes_max });
            }
        }
        Ok(())
    }

    fn check_room(&mut self, entries: &[NewEntry<'_>]) -> Result<(), AppendError> {
        let steps = entries.iter().map(|entry| {
            let (kind, payload_bytes) = (entry.kind, entry.payload_bytes());
            Step::Entry { kind, payload_bytes }
        });
        if self.fits(steps) == entries.len() {
            return Ok(());
        }
        self.room.try_again();
        Err(if self.room.disk_full { AppendError::DiskFull } else { AppendError::NoRoom })
    }

    /// How many of these steps, from the first on, the log has room for now: none of them would end in
    /// [`AppendError::NoRoom`] or [`AppendError::DiskFull`], were they taken behind one another at once.
    pub fn fits(&self, steps: impl IntoIterator<Item = Step>) -> usize {
        let mut room = self.segments.back().map_or(0, Segment::room);
        let mut spares = self.room.spares.iter();
        let mut count = 0;
        for step in steps {
            room = match step {
                Step::Cut => 0,
                Step::Entry { kind, payload_bytes } => {
                    let stride = stride_of(payload_bytes);
                    if stride > room {
                        let mut rooms = spares.by_ref().map(Spare::room);
                        let Some(next) = rooms.find(|room| stride <= *room) else { return count };
                        room = next;
                    }
                    if kind == EntryKind::Seal { 0 } else { room - stride }
                }
            };
            count += 1;
        }
        count
    }

    fn place(&mut self, entry: &NewEntry<'_>) {
        let stride = stride_of(entry.payload_bytes());
        if self.segments.back().is_none_or(|segment| segment.room() < stride) {
            self.roll(stride);
        }
        let (previous, mark) = (self.previous, self.mark);
        let segment = self.segments.back_mut().expect("rolled when there was none");
        segment.append(entry, previous, mark);
        self.previous = Previous { term: entry.term, kind: entry.kind as u8 };
        self.unsynced_bytes += stride as u64;
        self.bytes_since_seal += stride as u64;
        if entry.kind == EntryKind::Seal {
            segment.close();
            self.bytes_since_seal = 0;
        }
    }

    /// Goes on in the next spare segment that has room for `stride` bytes.
    fn roll(&mut self, stride: usize) {
        if let Some(segment) = self.segments.back_mut()
            && segment.is_open()
        {
            segment.close();
        }
        let mut spare = self.room.spares.pop_front().expect("room was checked");
        while spare.room() < stride {
            self.leaving.remove.push(spare.path);
            spare = self.room.spares.pop_front().expect("room was checked");
        }
        self.newest_sequence = spare.sequence;
        let mut segment = Segment::new(
            spare.sequence,
            spare.path,
            spare.region,
            Some(spare.file),
            self.leaving.give_back.clone(),
        );
        segment.recycled = spare.recycled;
        segment.warmed_to = spare.warmed_to;
        self.segments.push_back(segment.for_config(&self.config));
    }

    /// Bytes that an append may take now without [`AppendError::NoRoom`]. An entry takes its payload
    /// and 64 to 71 bytes.
    pub fn room_bytes(&self) -> u64 {
        let active = self.segments.back().map_or(0, Segment::room);
        let spare: usize = self.room.spares.iter().map(Spare::room).max().unwrap_or(0);
        let wasted = stride_of(self.config.entry_bytes_max);
        active.max(spare).max((active + spare).saturating_sub(wasted)) as u64
    }

    /// Whether the leader should propose a Seal: as much as the current segment holds has been
    /// written since the last one, and there is a segment to go on in.
    pub fn should_seal(&self) -> bool {
        let Some(segment) = self.segments.back() else { return false };
        let limit = u64::from(segment.limit);
        let is_due = self.bytes_since_seal >= limit - limit / 8
            || (segment.is_open() && segment.room() as u64 <= limit / 8);
        is_due && !self.room.spares.is_empty() && self.bytes_since_seal > 0
    }

    /// Takes out all entries behind `last` (all of them for `None`). Their bytes stay where they are
    /// for whoever still reads them; the segment is closed, and the log goes on in another one.
    ///
    /// # Panics
    /// When `last` lies below the purge point.
    pub fn truncate_after(&mut self, last: Option<u64>) {
        let purged = self.notes.purged.map(|purged| purged.index);
        assert!(last >= purged, "truncation to {last:?} below the purge point {purged:?}");
        if self.last().map(|end| end.index) <= last {
            return;
        }
        // Also those that an earlier truncation took: its cut may not be on the disk yet.
        let void_through = self.newest_sequence;
        while let Some(segment) = self.segments.back_mut() {
            let keeps = segment.table.first_index().is_some_and(|first| Some(first) <= last);
            #[cfg(feature = "fault-switches")]
            if keeps && self.config.skips(OrderRule::CloseAtTruncation) {
                segment.truncate_in_place(last);
                break;
            }
            segment.cut_after(last, void_through);
            if keeps {
                break;
            }
            // Nothing of it is left. Its file goes once the cut is durable.
            let segment = self.segments.pop_back().expect("just looked at");
            self.index.remove_segment(segment.sequence);
            self.leaving.empty.push(segment);
        }
        if self.segments.is_empty() {
            // No segment is left whose cut could say that they are void.
            self.notes.void_through = void_through;
        }
        self.notes.count_cut();
        self.write_notes();
        let end = self.last();
        self.synced = self.synced.and_then(|synced| Some(synced.min_by_index(end?)));
        if let Some(flight) = &mut self.flight {
            flight.clamp(end);
        }
        self.renew_previous();
        self.wanted.sync = true;
    }

    /// Moves the purge point up to `id`, also beyond the end of the log, which is empty then. The
    /// files of segments wholly below it go once the point is durable and nobody reads them.
    pub fn purge(&mut self, id: EntryId) -> Ticket {
        if self.notes.purged.is_none_or(|purged| purged.index < id.index) {
            self.notes.purged = Some(id);
        }
        let ticket = self.write_notes();
        self.leave_purged();
        ticket
    }

    /// Takes segments wholly below the purge point out of the log.
    pub(super) fn leave_purged(&mut self) {
        let Some(purged) = self.notes.purged else { return };
        while let Some(segment) = self.segments.front() {
            let below = segment.table.last_index().is_some_and(|last| last <= purged.index);
            let is_only_open = segment.is_open() && purged.index <= self.last_or_zero();
            if !below || (is_only_open && self.segments.len() == 1) {
                break;
            }
            let segment = self.segments.pop_front().expect("just looked at");
            self.index.remove_segment(segment.sequence);
            if self.config.skips(OrderRule::FloorBeforeRemove) {
                self.doom(&segment);
            } else {
                self.leaving.waiting.push((self.notes_generation, segment));
            }
        }
        if self.last_entry().is_none_or(|last| last.index <= purged.index) {
            // By index, whatever the terms: a snapshot may take the place of entries of a later term.
            self.synced = Some(purged);
            if let Some(flight) = &mut self.flight {
                flight.clamp(Some(purged));
            }
            self.renew_previous();
        }
    }

    fn last_or_zero(&self) -> u64 {
        self.last_entry().map_or(0, |last| last.index)
    }

    pub(super) fn renew_previous(&mut self) {
        let kind = self.segments.back().map_or(0, |segment| segment.table.last_kind());
        self.previous = Previous { term: self.last().map_or(0, |last| last.term), kind };
    }
}
