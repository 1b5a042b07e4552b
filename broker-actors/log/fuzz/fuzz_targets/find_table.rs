//! A table of ids and keys: as it came, and with the checksums of its head, its directory and its
//! blocks put right, so that what stands behind them is reached.

#![no_main]

use std::io;

use grus_log::find::{FindTable, TableSource};

const BLOCK: usize = 4096;

struct Input(Vec<u8>);

impl TableSource for Input {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let from = self.0.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }
}

/// The bytes as a table of as many whole blocks as they give, with all checksums right.
fn resealed(data: &[u8]) -> Vec<u8> {
    let blocks = data.len() / (BLOCK + 8);
    let mut bytes = vec![0; BLOCK + blocks * (BLOCK + 8)];
    let start = data.len().min(bytes.len());
    bytes[..start].copy_from_slice(&data[..start]);
    let directory_at = BLOCK * (blocks + 1);
    for number in 0..blocks {
        let at = BLOCK * (number + 1);
        bytes[at + 4..at + 8].copy_from_slice(&u32::try_from(number).unwrap_or(0).to_le_bytes());
        let crc = crc32c::crc32c(&bytes[at + 4..at + BLOCK]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        let first = bytes[at + 8..at + 16].to_vec();
        bytes[directory_at + number * 8..][..8].copy_from_slice(&first);
    }
    bytes[0..9].copy_from_slice(b"GRUSFIND\x01");
    let entries = (blocks as u64 * 511).saturating_sub(u64::from(data.first().copied().unwrap_or(0)));
    bytes[24..32].copy_from_slice(&entries.to_le_bytes());
    bytes[32..36].copy_from_slice(&u32::try_from(blocks).unwrap_or(0).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[directory_at..]);
    bytes[64..68].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn look(bytes: Vec<u8>) {
    let source = Input(bytes);
    let Ok(table) = FindTable::open(&source) else { return };
    for hash in [0, 1, 0x8000_0000, u32::MAX, crc32c::crc32c(&source.0)] {
        let found = table.batches(&source, hash);
        assert!(found.is_err() || found.is_ok_and(|found| found.len() as u64 <= table.entries()));
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    look(data.to_vec());
    look(resealed(data));
});
