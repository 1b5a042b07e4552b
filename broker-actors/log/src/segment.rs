//! One segment in memory: its mapping, and where each of its entries stands.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use bytes::Bytes;
use grus_protocol::checksum::crc32c_append;

use crate::config::LogConfig;
use crate::disk::DiskFile;
use crate::entry::{ENTRY_HEADER_BYTES, EntryHeader, NewEntry, Place, stride_of};
use crate::job::{Tail, ToSync};
use crate::layout::{Close, SEGMENT_HEAD_BYTES};
use crate::region::Region;
use crate::switches::OrderRule;
use crate::table::{EntryOffset, EntryTable};

/// Entries of so many bytes are written, smaller ones stored into the mapping: a call to the kernel costs
/// about as much as storing a KiB.
const WRITTEN_BYTES_MIN: usize = 4096;

/// A mapping that nobody reads any more; its file may be used again or taken away.
#[derive(Debug)]
pub(crate) struct FreeMapping {
    pub sequence: u64,
    /// Unmapping takes time, so the job thread does it.
    pub region: Region,
}

/// Keeps a segment's mapping alive for the log and for every slice handed out. The last one to let
/// go hands it back, and does no I/O: it may be running on any thread.
#[derive(Debug)]
pub(crate) struct MappingOwner {
    sequence: u64,
    region: Region,
    give_back: Sender<FreeMapping>,
}

impl Drop for MappingOwner {
    fn drop(&mut self) {
        let free = FreeMapping { sequence: self.sequence, region: self.region.clone() };
        // Without a log to take it back it is unmapped here.
        let _ = self.give_back.send(free);
    }
}

#[derive(Debug)]
struct SharedOwner(Arc<MappingOwner>);

impl AsRef<[u8]> for SharedOwner {
    fn as_ref(&self) -> &[u8] {
        self.0.region.as_ref()
    }
}

/// A segment with its entries.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "five facts that do not exclude each other")]
pub(crate) struct Segment<F> {
    pub sequence: u64,
    /// What its entries carry: the sequence number, unless a test has taken that rule away.
    life: u64,
    pub path: PathBuf,
    owner: Arc<MappingOwner>,
    whole: Bytes,
    /// Kept open for as long as there is something to sync.
    pub file: Option<Arc<F>>,
    /// Stored to since its last sync began.
    pub dirty: bool,
    /// Its blocks had been written in an older life.
    pub recycled: bool,
    /// There is no file: all its entries are damaged.
    pub missing: bool,
    /// Pages up to here are warm.
    pub warmed_to: u32,
    /// Where entries must end.
    pub limit: u32,
    /// Where the next entry goes.
    pub end: u32,
    /// Where the next entry would go had nothing been truncated: readers may still have slices of that.
    touched_to: u32,
    pub closed: Option<Close>,
    close_slot: usize,
    pub table: EntryTable,
    /// Its payloads were written or checked by this process: no need to check them at each read.
    pub checked: bool,
    /// Checked in the background up to here.
    pub checked_to: Option<u64>,
    /// Its footer is on the disk.
    pub footed: bool,
    /// Its footer is being written.
    pub footer_pending: bool,
}

impl<F> Segment<F> {
    pub(crate) fn new(
        sequence: u64,
        path: PathBuf,
        region: Region,
        file: Option<Arc<F>>,
        give_back: Sender<FreeMapping>,
    ) -> Self {
        let limit = u32::try_from(region.len()).expect("segments are below 4 GiB");
        let owner = Arc::new(MappingOwner { sequence, region, give_back });
        let whole = Bytes::from_owner(SharedOwner(Arc::clone(&owner)));
        Self {
            sequence,
            life: sequence,
            path,
            owner,
            whole,
            file,
            dirty: false,
            recycled: false,
            missing: false,
            warmed_to: SEGMENT_HEAD_BYTES,
            limit,
            end: SEGMENT_HEAD_BYTES,
            touched_to: SEGMENT_HEAD_BYTES,
            closed: None,
            close_slot: 1,
            table: EntryTable::default(),
            checked: true,
            checked_to: None,
            footed: false,
            footer_pending: false,
        }
    }

    pub(crate) fn region(&self) -> &Region {
        &self.owner.region
    }

    /// The whole mapping; keeps its file from being used again.
    pub(crate) fn whole(&self) -> Bytes {
        self.whole.clone()
    }

    /// What its entries carry as sequence number.
    pub(crate) fn life(&self) -> u64 {
        self.life
    }

    pub(crate) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    pub(crate) fn end_place(&self) -> Place {
        Place { sequence: self.sequence, offset: self.end }
    }

    pub(crate) fn room(&self) -> usize {
        if self.is_open() { (self.limit - self.end) as usize } else { 0 }
    }

    /// What is worth giving back of a closed segment. A follower closes where its leader does, which
    /// may allocate far smaller segments than itself. Of one that was filled as it should be (a
    /// leader seals at seven eighths) all blocks are kept, as it is used again as it is.
    pub(crate) fn tail(&self) -> Option<Tail> {
        let offset = self.end.max(self.touched_to).next_multiple_of(4096);
        let length = self.limit.saturating_sub(offset);
        let is_worth_it = !self.is_open() && !self.missing && length > self.limit / 4;
        is_worth_it.then(|| Tail { path: self.path.clone(), offset, length })
    }

    /// Closes the segment behind its last entry: no entry is ever added again.
    pub(crate) fn close(&mut self) {
        self.close_and_void(self.sequence);
    }

    /// Closes the segment, and says that those behind it up to `void_through` hold nothing.
    pub(crate) fn close_and_void(&mut self, void_through: u64) {
        let last = self.table.last_id().map(|id| (id, self.table.last_kind()));
        let old = self.closed.map_or(0, |close| close.void_through);
        let void_through = void_through.max(old);
        self.store_close(Close { cut: self.end, last, void_through });
    }

    /// Takes all entries behind `last` out, and closes the segment. Their bytes stay as they are.
    /// Segments behind it up to `void_through` hold nothing any more.
    pub(crate) fn cut_after(&mut self, last: Option<u64>, void_through: u64) {
        self.touched_to = self.touched_to.max(self.end);
        let mut table = std::mem::take(&mut self.table);
        let kind_of = |offset| self.header_at(offset).map_or(0, |header| header.kind);
        if let Some(offset) = table.cut_after(last, kind_of) {
            // The header of the first entry to go may be damaged, and its place unknown.
            self.end = if offset == 0 { self.end_behind(&table) } else { offset };
        }
        self.table = table;
        self.close_and_void(void_through);
    }

    /// What a segment must not do: write over the bytes that were truncated.
    #[cfg(feature = "fault-switches")]
    pub(crate) fn truncate_in_place(&mut self, last: Option<u64>) {
        let was = (self.closed, self.close_slot);
        self.cut_after(last, self.sequence);
        let at = Close::slot_offset(self.close_slot);
        self.owner.region.store(at, &[0; crate::layout::CLOSE_RECORD_BYTES]);
        (self.closed, self.close_slot) = was;
    }

    /// Takes away the rule that a test does not want.
    pub(crate) fn for_config(mut self, config: &LogConfig) -> Self {
        if config.skips(OrderRule::SequencePerLife) {
            self.life = 1;
        }
        self
    }

    /// The end of the last entry of `table` whose header is whole.
    fn end_behind(&self, table: &EntryTable) -> u32 {
        let whole = table.offsets().iter().rev().find(|offset| **offset != 0);
        let stride = |offset| self.header_at(offset).map_or(0, |header| header.stride());
        whole.map_or(SEGMENT_HEAD_BYTES, |offset| {
            offset + u32::try_from(stride(*offset)).expect("inside of the segment")
        })
    }

    /// Closed in memory only: what recovery must not leave it at.
    pub(crate) fn pretend_closed(&mut self) {
        self.closed = Some(Close { cut: self.end, last: None, void_through: self.sequence });
    }

    fn store_close(&mut self, close: Close) {
        if self.closed == Some(close) {
            return;
        }
        self.close_slot = 1 - self.close_slot;
        let at = Close::slot_offset(self.close_slot);
        self.owner.region.store(at, &close.encode(self.sequence));
        self.closed = Some(close);
        self.dirty = true;
    }

    /// Takes over a close record that was found in the file.
    pub(crate) fn found_closed(&mut self, close: Close, slot: usize) {
        self.closed = Some(close);
        self.close_slot = slot;
    }

    /// What to sync, when something was stored since the last time.
    pub(crate) fn take_dirty(&mut self) -> Option<ToSync<F>> {
        let open = |file| ToSync::Open(Arc::clone(file));
        let closed = || ToSync::Closed(self.path.clone());
        let dirty = std::mem::take(&mut self.dirty) && !self.missing;
        dirty.then(|| self.file.as_ref().map_or_else(closed, open))
    }

    /// Whether this process wrote the entry, or has checked all of it.
    pub(crate) fn is_checked(&self, index: u64) -> bool {
        self.checked || self.checked_to.is_some_and(|checked_to| index <= checked_to)
    }

    pub(crate) fn header_at(&self, offset: EntryOffset) -> Option<EntryHeader> {
        if offset < SEGMENT_HEAD_BYTES {
            return None;
        }
        let start = offset as usize;
        let end = (start + ENTRY_HEADER_BYTES).min(self.region().len());
        EntryHeader::decode(self.region().bytes(start.min(end)..end), self.life)
    }

    /// The entry at `offset` if its header is whole; its payload is not checked here.
    pub(crate) fn entry_at(&self, offset: EntryOffset) -> Option<(EntryHeader, Bytes)> {
        let header = self.header_at(offset)?;
        let start = offset as usize + ENTRY_HEADER_BYTES;
        let end = start.checked_add(header.length as usize)?;
        (end <= self.whole.len()).then(|| (header, self.whole.slice(start..end)))
    }
}

impl<F: DiskFile> Segment<F> {
    /// Appends an entry; there must be room. One of some size is written by a call to the kernel: a store
    /// to a page of the mapping that is not there has the page zeroed first, and each page is protected
    /// again by each sync. Where the call is refused the store still does it.
    pub(crate) fn append(&mut self, entry: &NewEntry<'_>, previous: Previous, mark: Place) {
        let length = entry.payload_bytes();
        let stride = stride_of(length);
        assert!(stride <= self.room(), "no room for {stride} bytes in segment {}", self.sequence);
        let payload_crc = { entry.payload.iter() }.fold(0, |crc, piece| crc32c_append(crc, piece));
        let header = EntryHeader {
            kind: entry.kind as u8,
            previous_kind: previous.kind,
            sequence: self.life,
            length: u32::try_from(length).expect("smaller than a segment"),
            payload_crc,
            id: entry.id(),
            previous_term: previous.term,
            mark,
        };
        self.put(&header.encode(), entry.payload, stride >= WRITTEN_BYTES_MIN);
        self.table.place(entry.id(), self.end, header.kind);
        self.end += u32::try_from(stride).expect("smaller than a segment");
        self.dirty = true;
    }

    /// The header last: a payload without one is a torn end, but a header with half of its payload in one
    /// sector looks like damage (the crash test's seed 10 found it). And the payload in one go: a sector written
    /// back between two pieces that meet a few bytes before its end looks as if it had been written whole (seeds
    /// 74 and 183).
    fn put(&self, header: &[u8], payload: &[Bytes], by_call: bool) {
        let start = self.end as usize;
        let at = start + ENTRY_HEADER_BYTES;
        if let Some(file) = self.file.as_ref().filter(|_| by_call) {
            let slices: Vec<&[u8]> = payload.iter().map(|piece| &piece[..]).collect();
            let payload = file.write_slices_at(at as u64, &slices);
            if payload.and_then(|()| file.write_at(start as u64, header)).is_ok() {
                return;
            }
        }
        match payload {
            [whole] => self.owner.region.store(at, whole),
            pieces => self.owner.region.store(at, &pieces.concat()),
        }
        self.owner.region.store(start, header);
    }
}

/// The entry before the one that is appended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Previous {
    pub term: u64,
    pub kind: u8,
}
