//! A small value that is replaced whole and durably: the vote, and the log's own notes.
//!
//! ```text
//! sector 0, 1: generation even, twice     sector 2, 3: generation odd, twice
//! sector: magic u32 | version u8 | 0 u8 | length u16 | generation u64 | value | ... | crc u32 at 508
//! ```
//! A new value overwrites the older generation, so a cut leaves the newer one whole; and each
//! generation stands twice, so a sector gone bad never brings an older value back. A generation is counted
//! when its write is handed out, and writes are carried out in that order: one that was skipped would put the
//! next over the newest, one that came late would put an old value over a new one.

use std::io;
use std::path::{Path, PathBuf};

use crate::disk::{Disk, DiskFile};
use crate::entry::{u32_at, u64_at};

const SECTOR_BYTES: usize = 512;
const SECTORS: usize = 4;
const MAGIC: u32 = u32::from_le_bytes(*b"GRUS");
const VERSION: u8 = 1;
const VALUE_AT: usize = 16;
const CRC_AT: usize = SECTOR_BYTES - 4;
/// Largest value that fits.
pub const SLOT_VALUE_BYTES_MAX: usize = CRC_AT - VALUE_AT;

/// What is to be written: made on the core thread, carried out by a job.
#[derive(Debug, Clone)]
pub(crate) struct SlotWrite {
    path: PathBuf,
    generation: u64,
    value: Vec<u8>,
    skip_sync: bool,
}

/// The newest value of a slot file, as the core thread knows it.
#[derive(Debug)]
pub(crate) struct SlotFile {
    path: PathBuf,
    /// Of the last write that was handed out.
    generation: u64,
    value: Vec<u8>,
}

/// What reading a slot file found.
#[derive(Debug)]
pub(crate) struct SlotRead {
    pub file: SlotFile,
    /// Sectors that should have been whole and were not.
    pub damaged_sectors: Vec<usize>,
}

impl SlotFile {
    /// Makes the file with an empty value; the folder is synced by the caller.
    pub(crate) fn create<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
        let file = disk.create(path)?;
        for generation in [1, 2] {
            let write = SlotWrite {
                path: path.to_path_buf(),
                generation,
                value: Vec::new(),
                skip_sync: false,
            };
            write.put(&file)?;
        }
        file.sync()
    }

    /// Reads the file. `None` when no sector holds a value.
    pub(crate) fn read<D: Disk>(disk: &D, path: &Path) -> io::Result<Option<SlotRead>> {
        let file = disk.open(path)?;
        let mut newest: Option<(u64, Vec<u8>)> = None;
        let mut generations = [None; SECTORS];
        for (sector, slot) in generations.iter_mut().enumerate() {
            let mut bytes = [0; SECTOR_BYTES];
            match file.read_at((sector * SECTOR_BYTES) as u64, &mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
                other => other?,
            }
            let Some((generation, value)) = decode(&bytes) else { continue };
            *slot = Some(generation);
            if newest.as_ref().is_none_or(|(best, _)| *best < generation) {
                newest = Some((generation, value));
            }
        }
        let Some((generation, value)) = newest else { return Ok(None) };
        let damaged_sectors =
            (0..SECTORS).filter(|sector| generations[*sector].is_none()).collect();
        let file = Self { path: path.to_path_buf(), generation, value };
        Ok(Some(SlotRead { file, damaged_sectors }))
    }

    /// The newest value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.value
    }

    /// Replaces the value in memory.
    pub(crate) fn set(&mut self, value: Vec<u8>) {
        assert!(value.len() <= SLOT_VALUE_BYTES_MAX, "{} bytes do not fit a slot", value.len());
        self.value = value;
    }

    /// Says what is to be written now; nothing else of this file may be on its way to the disk.
    pub(crate) fn write(&mut self) -> SlotWrite {
        self.generation += 1;
        let value = self.value.clone();
        SlotWrite { path: self.path.clone(), generation: self.generation, value, skip_sync: false }
    }

    /// The write that was handed out last was never begun.
    pub(crate) fn take_back(&mut self) {
        self.generation -= 1;
    }

    /// Both in one.
    pub(crate) fn replace(&mut self, value: Vec<u8>) -> SlotWrite {
        self.set(value);
        self.write()
    }
}

impl SlotWrite {
    /// Leaves the sync out when a test has taken that rule away.
    pub(crate) fn unsynced_if(mut self, skip_sync: bool) -> Self {
        self.skip_sync = skip_sync;
        self
    }

    /// Writes both copies and makes them durable.
    pub(crate) fn run<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let file = disk.open(&self.path)?;
        self.put(&file)?;
        if self.skip_sync { Ok(()) } else { file.sync() }
    }

    fn put<F: DiskFile>(&self, file: &F) -> io::Result<()> {
        let mut bytes = [0; SECTOR_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = VERSION;
        let length = u16::try_from(self.value.len()).expect("checked when it was replaced");
        bytes[6..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[VALUE_AT..VALUE_AT + self.value.len()].copy_from_slice(&self.value);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let first = if self.generation.is_multiple_of(2) { 0 } else { 2 };
        file.write_at((first * SECTOR_BYTES) as u64, &bytes)?;
        file.write_at(((first + 1) * SECTOR_BYTES) as u64, &bytes)
    }
}

fn decode(bytes: &[u8; SECTOR_BYTES]) -> Option<(u64, Vec<u8>)> {
    let length = usize::from(u16::from_le_bytes([bytes[6], bytes[7]]));
    let whole = u32_at(bytes, 0) == MAGIC
        && bytes[4] == VERSION
        && length <= SLOT_VALUE_BYTES_MAX
        && u32_at(bytes, CRC_AT) == crc32c::crc32c(&bytes[..CRC_AT]);
    whole.then(|| (u64_at(bytes, 8), bytes[VALUE_AT..VALUE_AT + length].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    fn read(disk: &SimDisk) -> SlotRead {
        SlotFile::read(disk, Path::new("/d/vote")).unwrap().unwrap()
    }

    #[test]
    fn a_flipped_bit_anywhere_never_brings_an_older_value_back() {
        let disk = SimDisk::new(1);
        disk.create_folder(Path::new("/d")).unwrap();
        SlotFile::create(&disk, Path::new("/d/vote")).unwrap();
        for n in 0..5u8 {
            read(&disk).file.replace(vec![n; 20]).run(&disk).unwrap();
        }
        for bit in 0..(SECTORS * SECTOR_BYTES * 8) as u64 {
            disk.flip_bit(Path::new("/d/vote"), bit);
            let found = read(&disk);
            assert_eq!(found.file.value(), [4; 20], "bit {bit}");
            assert_eq!(found.damaged_sectors, [(bit / 8) as usize / SECTOR_BYTES], "bit {bit}");
            disk.flip_bit(Path::new("/d/vote"), bit);
        }
    }

    #[test]
    fn a_cut_leaves_the_old_value_or_the_new_one() {
        for step in 0..6 {
            let disk = SimDisk::new(step);
            disk.create_folder(Path::new("/d")).unwrap();
            SlotFile::create(&disk, Path::new("/d/vote")).unwrap();
            disk.sync_folder(Path::new("/d")).unwrap();
            read(&disk).file.replace(vec![1]).run(&disk).unwrap();
            let mut vote = read(&disk).file;
            disk.cut_at_step(disk.steps() + step);
            let acknowledged = vote.replace(vec![2]).run(&disk).is_ok();
            disk.cut();
            disk.power_on();
            let value = read(&disk).file.value().to_vec();
            assert!(value == [2] || (value == [1] && !acknowledged), "step {step}: {value:?}");
        }
    }
}
