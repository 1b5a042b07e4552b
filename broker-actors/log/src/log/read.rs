//! Reading: slices of the mappings, no copies.

use std::ops::{Range, RangeInclusive};

use bytes::Bytes;
use grus_protocol::checksum::crc32c;
use grus_protocol::ids::{Offset, QueueKey, TimestampMs, TopicId};

use super::Log;
use crate::disk::Disk;
use crate::entry::{Entry, EntryId, EntryKind};
use crate::error::ReadError;
use crate::index::Run;
use crate::segment::Segment;

impl<D: Disk> Log<D> {
    /// The entries `range`, ending early when their payloads exceed `bytes_max`; at least one if the
    /// range is not empty.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] names a damaged entry: never a short answer instead.
    pub fn entries(&self, range: Range<u64>, bytes_max: u64) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in range {
            let entry = self.entry(index)?;
            bytes += entry.payload.len() as u64;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// One entry.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn entry(&self, index: u64) -> Result<Entry, ReadError> {
        if let Some(purged) = self.notes.purged.filter(|purged| index <= purged.index) {
            return Err(ReadError::Purged { index, purged: purged.index });
        }
        let segment = self.segment_of(index).ok_or(ReadError::Missing { index })?;
        let term = segment.table.term_of(index).ok_or(ReadError::Missing { index })?;
        match self.read_entry(segment, EntryId { term, index }) {
            Some(entry) => Ok(entry),
            None if self.accepts_loss_of(index) => {
                Ok(Entry { kind: EntryKind::Lost, term, index, payload: Bytes::new() })
            }
            None => Err(ReadError::Corrupt { index }),
        }
    }

    /// Where an entry stands in its segment's file, from its header to the end of its payload;
    /// `None` when it is not there or its header is damaged.
    pub fn entry_place(&self, index: u64) -> Option<Range<u64>> {
        let segment = self.segment_of(index)?;
        let offset = segment.table.offset_of(index)?;
        let (_, payload) = segment.entry_at(offset)?;
        let start = u64::from(offset);
        Some(start..start + crate::entry::ENTRY_HEADER_BYTES as u64 + payload.len() as u64)
    }

    /// The last entry that is known to be damaged.
    pub fn damaged_end(&self) -> Option<u64> {
        self.segments.iter().filter_map(|segment| segment.table.damaged.keys().max()).max().copied()
    }

    /// Where a digest of the state may have been made with entries that the operator has given up since:
    /// from the first of them to the end that the log had then. There is nothing to compare it with.
    pub fn doubtful(&self) -> Option<RangeInclusive<u64>> {
        self.notes.doubtful.clone()
    }

    /// Whether the operator has given this damaged entry up: it was named at the start with that flag.
    pub fn accepts_loss_of(&self, index: u64) -> bool {
        self.notes.accepted.iter().any(|range| range.contains(&index))
    }

    fn read_entry(&self, segment: &Segment<D::File>, id: EntryId) -> Option<Entry> {
        if segment.table.damaged.contains_key(&id.index) {
            return None;
        }
        let (header, payload) = segment.entry_at(segment.table.offset_of(id.index)?)?;
        if header.id != id {
            return None;
        }
        if !segment.is_checked(id.index) && self.last_checked.get() != Some(id.index) {
            if crc32c(&payload) != header.payload_crc {
                return None;
            }
            self.last_checked.set(Some(id.index));
        }
        let kind = EntryKind::from_stored(header.kind)?;
        Some(Entry { kind, term: id.term, index: id.index, payload })
    }

    /// The oldest segments that take no more entries, as far as all of theirs lie at or below
    /// `index`: the last entry of each, and its bytes.
    pub fn segments_below(&self, index: u64) -> Vec<(u64, u64)> {
        let full = self.segments.len().saturating_sub(1);
        let ends = self
            .segments
            .iter()
            .take(full)
            .filter_map(|segment| Some((segment.table.last_index()?, u64::from(segment.end))));
        ends.take_while(|(last, _)| *last <= index).collect()
    }

    /// Adds the run of a batch of an applied entry. In apply order.
    ///
    /// # Panics
    /// When the entry is not in the log.
    pub fn index_add(&mut self, run: Run) {
        let segment = self.segment_of(run.at.index).expect("an applied entry is in the log");
        if segment.footed {
            // It is applied again, and its footer has it.
            return;
        }
        let sequence = segment.sequence;
        self.index.add(sequence, run);
        if self.config.find_index {
            self.finding.note(sequence, run);
        }
    }

    /// The runs of a queue, from the one that holds `from` or the first behind it, until they exceed
    /// `bytes_max`; at least one if there is any.
    pub fn runs(&self, queue: QueueKey, from: Offset, bytes_max: u64) -> Vec<Run> {
        self.index.runs(queue, from, bytes_max, self.purged_index())
    }

    /// The bytes of a run.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn slice(&self, run: &Run) -> Result<Bytes, ReadError> {
        let entry = self.entry(run.at.index)?;
        let start = run.at.byte as usize;
        let end = start + run.length as usize;
        if entry.kind == EntryKind::Lost || end > entry.payload.len() {
            return Err(ReadError::Corrupt { index: run.at.index });
        }
        Ok(entry.payload.slice(start..end))
    }

    /// The first offset of a queue that is still there; `None` when it has no batch.
    pub fn first_offset(&self, queue: QueueKey) -> Option<Offset> {
        self.index.first_offset(queue, self.purged_index())
    }

    /// The offset behind a queue's last batch; `None` when it has none.
    pub fn end_offset(&self, queue: QueueKey) -> Option<Offset> {
        self.index.end_offset(queue)
    }

    /// The first offset of the first batch stored at or after `time`; `None` when there is none.
    pub fn offset_at_time(&self, queue: QueueKey, time: TimestampMs) -> Option<Offset> {
        self.index.offset_at_time(queue, time, self.purged_index())
    }

    /// Forgets all runs of a topic.
    pub fn index_drop(&mut self, topic: TopicId) {
        self.index.retain_topics(|held| held != topic);
    }

    /// Forgets the runs of all topics that `keep` denies; after a start footers still name topics
    /// that were dropped since.
    pub fn index_retain(&mut self, keep: impl Fn(TopicId) -> bool) {
        self.index.retain_topics(keep);
    }

    fn purged_index(&self) -> Option<u64> {
        self.notes.purged.map(|purged| purged.index)
    }
}
