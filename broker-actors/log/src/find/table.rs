//! The table of one sealed segment on the disk, and its decoder. Little endian:
//!
//! ```text
//!    0 magic "GRUSFIND" | 8 version u16 | 10 0 u16 | 12 stamp u32 | 16 sequence u64 | 24 entries u64
//!   32 blocks u32 | 36 0 u32 | 40 least time u64 | 48 greatest time u64 | 56 unread bytes u64
//!   64 directory crc u32 | 0.. | 124 crc u32 of bytes 0..124
//! 4096 blocks x (crc u32 of the rest of the block | number u32 | 511 x entry u64), 4096 bytes each
//!      directory: blocks x first entry u64
//! entry: hash u32 << 32 | batch u32; ascending over the whole table; the last block ends in zeros
//! ```
//!
//! * `stamp`: CRC32C of the footer's first 64 bytes, its first run and its last run: the batch
//!   numbers are places in that footer.
//! * Times: of the ids of version 7 in it. `unread bytes`: of batches that were damaged.
//! * A look-up reads the directory, which is kept, and one block, whose checksum it compares.

use std::io;
use std::ops::Range;

use thiserror::Error;

use super::entries::{Times, batch_of, entry};
use crate::disk::DiskFile;
use crate::entry::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"GRUSFIND";
const VERSION: u8 = 1;
const HEAD_BYTES: usize = 128;
/// Bytes of a block, and of the place in front of the first one.
pub(super) const BLOCK_BYTES: usize = 4096;
const BLOCK_HEAD_BYTES: usize = 8;
/// Entries of a block.
pub(super) const BLOCK_ENTRIES: usize = (BLOCK_BYTES - BLOCK_HEAD_BYTES) / 8;

/// Where a table is read from.
pub trait TableSource {
    /// Bytes there are.
    ///
    /// # Errors
    /// What the file system said.
    fn length(&self) -> io::Result<u64>;
    /// Reads exactly `into.len()` bytes.
    ///
    /// # Errors
    /// What the file system said.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

impl<F: DiskFile> TableSource for F {
    fn length(&self) -> io::Result<u64> {
        DiskFile::length(self)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        DiskFile::read_at(self, offset, into)
    }
}

/// Why a table cannot be used. It is made again.
#[derive(Debug, Error)]
pub enum TableError {
    /// Its bytes are not what was written.
    #[error("{0}")]
    Damaged(&'static str),
    /// It was made by another version of this program.
    #[error("version {0} is not known here")]
    Version(u8),
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a table says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableHead {
    pub stamp: u32,
    pub sequence: u64,
    pub times: Times,
    pub unread_bytes: u64,
    pub entries: u64,
    pub blocks: u32,
    pub directory_crc: u32,
}

impl TableHead {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[0..8].copy_from_slice(MAGIC);
        head[8] = VERSION;
        head[12..16].copy_from_slice(&self.stamp.to_le_bytes());
        head[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        head[24..32].copy_from_slice(&self.entries.to_le_bytes());
        head[32..36].copy_from_slice(&self.blocks.to_le_bytes());
        head[40..48].copy_from_slice(&self.times.min.to_le_bytes());
        head[48..56].copy_from_slice(&self.times.max.to_le_bytes());
        head[56..64].copy_from_slice(&self.unread_bytes.to_le_bytes());
        head[64..68].copy_from_slice(&self.directory_crc.to_le_bytes());
        let crc = crc32c::crc32c(&head[..HEAD_BYTES - 4]);
        head[HEAD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        head
    }

    fn decode(head: &[u8; HEAD_BYTES]) -> Result<Self, TableError> {
        if &head[0..8] != MAGIC {
            return Err(TableError::Damaged("it does not begin with GRUSFIND"));
        }
        if u32_at(head, HEAD_BYTES - 4) != crc32c::crc32c(&head[..HEAD_BYTES - 4]) {
            return Err(TableError::Damaged("its head is damaged"));
        }
        if head[8] != VERSION {
            return Err(TableError::Version(head[8]));
        }
        Ok(Self {
            stamp: u32_at(head, 12),
            sequence: u64_at(head, 16),
            entries: u64_at(head, 24),
            blocks: u32_at(head, 32),
            times: Times { min: u64_at(head, 40), max: u64_at(head, 48) },
            unread_bytes: u64_at(head, 56),
            directory_crc: u32_at(head, 64),
        })
    }
}

/// A table that was opened: its head and its directory are in memory.
#[derive(Debug)]
pub struct FindTable {
    pub(super) head: TableHead,
    directory: Vec<u64>,
}

/// A table of a log's folder.
pub(super) type TableFile = FindTable;

impl FindTable {
    /// Reads head and directory.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn open(source: &impl TableSource) -> Result<Self, TableError> {
        let length = source.length()?;
        if length < BLOCK_BYTES as u64 {
            return Err(TableError::Damaged("it is too short"));
        }
        let mut bytes = [0; HEAD_BYTES];
        source.read_at(0, &mut bytes)?;
        let head = TableHead::decode(&bytes)?;
        let blocks = u64::from(head.blocks);
        let directory_at = BLOCK_BYTES as u64 * (blocks + 1);
        // Before memory is taken: the file must be as long as its head says.
        if length != directory_at + blocks * 8
            || head.entries.div_ceil(BLOCK_ENTRIES as u64) != blocks
        {
            return Err(TableError::Damaged("its length is not what its head says"));
        }
        let mut directory = vec![0; head.blocks as usize * 8];
        source.read_at(directory_at, &mut directory)?;
        if crc32c::crc32c(&directory) != head.directory_crc {
            return Err(TableError::Damaged("its directory is damaged"));
        }
        let directory: Vec<u64> = directory.chunks_exact(8).map(|first| u64_at(first, 0)).collect();
        if !directory.is_sorted() {
            return Err(TableError::Damaged("its directory is not in order"));
        }
        Ok(Self { head, directory })
    }

    /// Entries in it.
    pub fn entries(&self) -> u64 {
        self.head.entries
    }

    /// The batches noted under a hash, ascending.
    ///
    /// # Errors
    /// [`TableError`] when a block that is needed cannot be read.
    pub fn batches(&self, source: &impl TableSource, hash: u32) -> Result<Vec<u32>, TableError> {
        let mut look = Look::new(self, source);
        let span = look.span(hash, 0..u32::MAX)?;
        look.batches(span)
    }
}

/// A look into one table; keeps the last block.
pub(super) struct Look<'a, S: TableSource> {
    table: &'a FindTable,
    source: &'a S,
    block: Vec<u8>,
    number: Option<u32>,
}

impl<'a, S: TableSource> Look<'a, S> {
    pub(super) fn new(table: &'a FindTable, source: &'a S) -> Self {
        Self { table, source, block: Vec::new(), number: None }
    }

    /// Where the entries of a hash with these batches stand in the table.
    pub(super) fn span(
        &mut self,
        hash: u32,
        batches: Range<u32>,
    ) -> Result<Range<u64>, TableError> {
        let start = self.lower_bound(entry(hash, batches.start))?;
        let end = self.lower_bound(entry(hash, batches.end))?;
        Ok(start..end.max(start))
    }

    /// The batches of the entries of a span.
    pub(super) fn batches(&mut self, span: Range<u64>) -> Result<Vec<u32>, TableError> {
        let mut found = Vec::new();
        for place in span {
            let (number, within) = place_of(place);
            self.load(number)?;
            found.push(batch_of(self.entry(within)));
        }
        Ok(found)
    }

    /// The place of the first entry that is not below `target`.
    fn lower_bound(&mut self, target: u64) -> Result<u64, TableError> {
        let after = self.table.directory.partition_point(|first| *first <= target);
        let Some(nth) = after.checked_sub(1) else { return Ok(0) };
        let number = u32::try_from(nth).expect("a table has 2^32 blocks at most");
        self.load(number)?;
        let before = nth as u64 * BLOCK_ENTRIES as u64;
        let count = (self.table.head.entries - before).min(BLOCK_ENTRIES as u64);
        let (mut low, mut high) = (0, usize::try_from(count).expect("at most a block"));
        while low < high {
            let middle = low + (high - low) / 2;
            if self.entry(middle) < target { low = middle + 1 } else { high = middle }
        }
        Ok(before + low as u64)
    }

    fn entry(&self, within: usize) -> u64 {
        u64_at(&self.block, BLOCK_HEAD_BYTES + within * 8)
    }

    fn load(&mut self, number: u32) -> Result<(), TableError> {
        if self.number == Some(number) {
            return Ok(());
        }
        self.number = None;
        self.block.resize(BLOCK_BYTES, 0);
        self.source.read_at((u64::from(number) + 1) * BLOCK_BYTES as u64, &mut self.block)?;
        let whole = u32_at(&self.block, 0) == crc32c::crc32c(&self.block[4..])
            && u32_at(&self.block, 4) == number;
        if !whole {
            return Err(TableError::Damaged("a block is damaged"));
        }
        self.number = Some(number);
        Ok(())
    }
}

fn place_of(place: u64) -> (u32, usize) {
    let (number, within) = (place / BLOCK_ENTRIES as u64, place % BLOCK_ENTRIES as u64);
    let number = u32::try_from(number).expect("a table has 2^32 blocks at most");
    (number, usize::try_from(within).expect("less than a block"))
}

/// Encodes a table from its entries in ascending order; whole blocks are written as they fill.
#[derive(Debug)]
pub(super) struct TableWriter {
    entries: u64,
    directory: Vec<u64>,
    /// Encoded and not written yet.
    out: Vec<u8>,
    /// Bytes written.
    written: u64,
}

/// Encoded blocks are written when there are so many bytes of them.
const WRITE_BYTES: usize = 256 * 1024;

impl TableWriter {
    pub(super) fn new() -> Self {
        // The head's place; the head is written last.
        Self { entries: 0, directory: Vec::new(), out: vec![0; BLOCK_BYTES], written: 0 }
    }

    pub(super) fn push(&mut self, file: &impl DiskFile, entries: &[u64]) -> io::Result<()> {
        for entry in entries {
            if self.entries.is_multiple_of(BLOCK_ENTRIES as u64) {
                self.seal_block();
                if self.out.len() >= WRITE_BYTES {
                    self.flush(file)?;
                }
                let number = u32::try_from(self.directory.len()).expect("entries are bounded");
                self.directory.push(*entry);
                self.out.extend_from_slice(&[0; 4]);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            self.out.extend_from_slice(&entry.to_le_bytes());
            self.entries += 1;
        }
        Ok(())
    }

    /// The last block gets its zeros and its checksum.
    fn seal_block(&mut self) {
        if self.directory.is_empty() {
            return;
        }
        let end = self.out.len().next_multiple_of(BLOCK_BYTES);
        self.out.resize(end, 0);
        let block = end - BLOCK_BYTES;
        let crc = crc32c::crc32c(&self.out[block + 4..]);
        self.out[block..block + 4].copy_from_slice(&crc.to_le_bytes());
    }

    fn flush(&mut self, file: &impl DiskFile) -> io::Result<()> {
        file.write_at(self.written, &self.out)?;
        self.written += self.out.len() as u64;
        self.out.clear();
        Ok(())
    }

    /// Writes what is left, and the head. The head's entries, blocks and checksum are filled in.
    pub(super) fn finish(mut self, file: &impl DiskFile, mut head: TableHead) -> io::Result<()> {
        self.seal_block();
        let at = self.out.len();
        for first in &self.directory {
            self.out.extend_from_slice(&first.to_le_bytes());
        }
        head.directory_crc = crc32c::crc32c(&self.out[at..]);
        head.entries = self.entries;
        head.blocks = u32::try_from(self.directory.len()).expect("entries are bounded");
        self.flush(file)?;
        file.write_at(0, &head.encode())
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
