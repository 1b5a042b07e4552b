//! The control page: mapped, written on the core thread, never waited for.
//!
//! It holds what may be old after a power cut but not after the death of the process: how far
//! consensus has committed, and the durable mark. Two slots are written in turn:
//!
//! ```text
//! 0 magic u32 | version u8 | flags u8 (1 committed, 2 mark) | 0 u16 | generation u64
//! 16 committed term u64, index u64 | 32 mark sequence u64, offset u32, cuts u8, 0 [3] | 48 mark term u64, index u64 | 64 crc u32
//! ```

use std::io;
use std::path::Path;

use crate::disk::{Disk, DiskFile};
use crate::entry::{EntryId, Place, u32_at, u64_at};
use crate::region::Region;

const PAGE_BYTES: usize = 4096;
const SLOT_BYTES: usize = 512;
const RECORD_BYTES: usize = 68;
const MAGIC: u32 = u32::from_le_bytes(*b"GRUC");
const VERSION: u8 = 1;

/// Everything before `place` is durable, and the last entry before it is `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub place: Place,
    pub last: EntryId,
    /// How often the log had been cut shorter by then ([`crate::notes::Notes::cuts`]).
    pub cuts: u8,
}

/// What the page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ControlState {
    pub committed: Option<EntryId>,
    pub mark: Option<Mark>,
}

/// The mapped page.
#[derive(Debug)]
pub(crate) struct ControlPage {
    region: Region,
    generation: u64,
    state: ControlState,
    /// A slot that should have been whole was not.
    pub damaged: bool,
}

impl ControlPage {
    /// Makes the file; the folder is synced by the caller.
    pub(crate) fn create<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
        let file = disk.create(path)?;
        let mut page = vec![0; PAGE_BYTES];
        for generation in [1, 2] {
            let at = slot_of(generation);
            page[at..at + RECORD_BYTES]
                .copy_from_slice(&encode(&ControlState::default(), generation));
        }
        file.write_at(0, &page)?;
        file.sync()
    }

    /// Reads and maps the page. A page without any whole slot reads as empty, and as damaged.
    pub(crate) fn open<D: Disk>(disk: &D, path: &Path) -> io::Result<Self> {
        let file = disk.open(path)?;
        if file.length()? < PAGE_BYTES as u64 {
            file.allocate(PAGE_BYTES as u64)?;
        }
        let mut page = vec![0; PAGE_BYTES];
        file.read_at(0, &mut page)?;
        let slots = [decode(&page[..SLOT_BYTES]), decode(&page[SLOT_BYTES..2 * SLOT_BYTES])];
        let damaged = slots.iter().any(Option::is_none);
        let newest = slots.into_iter().flatten().max_by_key(|(generation, _)| *generation);
        let (generation, state) = newest.unwrap_or_default();
        Ok(Self { region: file.map(PAGE_BYTES)?, generation, state, damaged })
    }

    pub(crate) fn state(&self) -> ControlState {
        self.state
    }

    /// Stores a new state; it is not synced.
    pub(crate) fn store(&mut self, state: ControlState) {
        if self.state != state {
            self.generation += 1;
            self.state = state;
            self.region.store(slot_of(self.generation), &encode(&state, self.generation));
        }
    }
}

fn slot_of(generation: u64) -> usize {
    if generation.is_multiple_of(2) { 0 } else { SLOT_BYTES }
}

fn encode(state: &ControlState, generation: u64) -> [u8; RECORD_BYTES] {
    let mut bytes = [0; RECORD_BYTES];
    bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[4] = VERSION;
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    if let Some(committed) = state.committed {
        bytes[5] |= 1;
        bytes[16..24].copy_from_slice(&committed.term.to_le_bytes());
        bytes[24..32].copy_from_slice(&committed.index.to_le_bytes());
    }
    if let Some(mark) = state.mark {
        bytes[5] |= 2;
        bytes[32..40].copy_from_slice(&mark.place.sequence.to_le_bytes());
        bytes[40..44].copy_from_slice(&mark.place.offset.to_le_bytes());
        bytes[44] = mark.cuts;
        bytes[48..56].copy_from_slice(&mark.last.term.to_le_bytes());
        bytes[56..64].copy_from_slice(&mark.last.index.to_le_bytes());
    }
    let crc = crc32c::crc32c(&bytes[..64]);
    bytes[64..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, ControlState)> {
    let whole = u32_at(bytes, 0) == MAGIC
        && bytes[4] == VERSION
        && u32_at(bytes, 64) == crc32c::crc32c(&bytes[..64]);
    if !whole {
        return None;
    }
    let id = |at| EntryId { term: u64_at(bytes, at), index: u64_at(bytes, at + 8) };
    let committed = (bytes[5] & 1 != 0).then(|| id(16));
    let mark = (bytes[5] & 2 != 0).then(|| Mark {
        place: Place { sequence: u64_at(bytes, 32), offset: u32_at(bytes, 40) },
        last: id(48),
        cuts: bytes[44],
    });
    Some((u64_at(bytes, 8), ControlState { committed, mark }))
}
