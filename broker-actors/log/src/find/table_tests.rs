#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::super::entries::{entry, hash_of};
use super::*;
use crate::disk::{Disk, SimDisk};

impl TableSource for &[u8] {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap();
        let from = self.get(start..start + into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(from);
        Ok(())
    }
}

fn table_of(entries: &[u64], pieces: usize) -> Vec<u8> {
    let disk = SimDisk::new(7);
    disk.create_folder(Path::new("/t")).unwrap();
    let file = disk.create(Path::new("/t/find")).unwrap();
    let mut writer = TableWriter::new();
    for piece in entries.chunks(pieces) {
        writer.push(&file, piece).unwrap();
    }
    let head = TableHead {
        stamp: 0x0102_0304,
        sequence: 9,
        times: Times { min: 1_700_000_000_123, max: 1_700_000_000_999 },
        unread_bytes: 77,
        entries: 0,
        blocks: 0,
        directory_crc: 0,
    };
    writer.finish(&file, head).unwrap();
    disk.load(Path::new("/t/find")).unwrap().to_vec()
}

/// Lines of hex, sixteen bytes each; a run of equal lines is one `*`.
fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut before: &[u8] = &[];
    for (nth, line) in bytes.chunks(16).enumerate() {
        if line == before {
            if !text.ends_with("*\n") {
                text.push_str("*\n");
            }
            continue;
        }
        before = line;
        let numbers: Vec<_> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{:06x}  {}", nth * 16, numbers.join(" ")).unwrap();
    }
    text
}

/// The bytes on the disk do not move: `GRUS_GOLDEN_WRITE=1` writes the file when there is none.
#[test]
fn the_golden_table() {
    let entries: Vec<u64> =
        (0..600).map(|nth: u32| entry(nth.wrapping_mul(7_158_278), nth % 5)).collect();
    assert!(entries.is_sorted());
    let bytes = table_of(&entries, 100);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/find_table.hex");
    if std::env::var_os("GRUS_GOLDEN_WRITE").is_some() && !path.exists() {
        std::fs::write(&path, to_hex(&bytes)).unwrap();
    }
    assert_eq!(to_hex(&bytes), std::fs::read_to_string(&path).unwrap());
    let source = &bytes[..];
    let table = FindTable::open(&source).unwrap();
    assert_eq!((table.entries(), table.head.blocks), (600, 2));
    assert_eq!(table.batches(&source, 7_158_278 * 599).unwrap(), [4]);
    assert_eq!(table.batches(&source, 5).unwrap(), []);
}

#[test]
fn an_empty_table_holds_nothing() {
    let bytes = table_of(&[], 1);
    let source = &bytes[..];
    let table = FindTable::open(&source).unwrap();
    assert_eq!(table.batches(&source, 0).unwrap(), []);
    assert_eq!(bytes.len(), BLOCK_BYTES);
}

#[test]
fn a_table_of_a_later_version_is_told_by_its_number() {
    let mut bytes = table_of(&[1, 2, 3], 3);
    bytes[8] = 2;
    let crc = crc32c::crc32c(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(FindTable::open(&&bytes[..]), Err(TableError::Version(2))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_entry_is_found_and_no_other(
        mut entries in prop::collection::vec((0_u32..40, 0_u32..3000), 0..2000),
        pieces in 1_usize..900,
    ) {
        entries.sort_unstable();
        entries.dedup();
        let packed: Vec<u64> = entries.iter().map(|(hash, batch)| entry(*hash, *batch)).collect();
        let bytes = table_of(&packed, pieces);
        let source = &bytes[..];
        let table = FindTable::open(&source).unwrap();
        for hash in 0..41 {
            let held = entries.iter().filter(|(of, _)| *of == hash).map(|(_, batch)| *batch);
            prop_assert_eq!(table.batches(&source, hash).unwrap(), held.collect::<Vec<_>>());
            let mut look = Look::new(&table, &source);
            let span = look.span(hash, 1000..2000).unwrap();
            let some = entries.iter().filter(|(of, batch)| *of == hash && (1000..2000).contains(batch));
            let some: Vec<u32> = some.map(|(_, batch)| *batch).collect();
            prop_assert_eq!(look.batches(span).unwrap(), some);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_harmless(
        at in 0_usize..100_000, bit in 0_u32..8, hash in 0_u32..2000,
    ) {
        let entries: Vec<u64> = (0..2000).map(|nth| entry(nth, nth / 3)).collect();
        let whole = table_of(&entries, 2000);
        let mut bytes = whole.clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let source = &bytes[..];
        if let Ok(table) = FindTable::open(&source) {
            match table.batches(&source, hash) {
                Ok(batches) => prop_assert_eq!(batches, [hash / 3]),
                Err(error) => prop_assert!(matches!(error, TableError::Damaged(_))),
            }
            prop_assert!(at >= 124, "the head has a checksum");
        }
    }

    #[test]
    fn garbage_is_refused_before_memory_is_taken(mut bytes in prop::collection::vec(any::<u8>(), 4096..9000), resealed: bool) {
        if resealed {
            bytes[0..8].copy_from_slice(MAGIC);
            bytes[8] = VERSION;
            let crc = crc32c::crc32c(&bytes[..124]);
            bytes[124..128].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(table) = FindTable::open(&&bytes[..]) {
            let _ = table.batches(&&bytes[..], hash_of(u64::MAX));
        }
    }
}
