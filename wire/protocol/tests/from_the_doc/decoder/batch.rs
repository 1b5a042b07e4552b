//! Record batches, by section 9 of docs/PROTOCOL.md.

use std::collections::BTreeMap;

use super::{little, take};

/// Section 9: CRC32C, bit by bit.
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let odd = crc & 1;
            crc >>= 1;
            if odd == 1 {
                crc ^= 0x1edc_6f41_u32.reverse_bits();
            }
        }
    }
    !crc
}

pub fn varint(rest: &mut &[u8]) -> u64 {
    let (mut number, mut shift) = (0, 0);
    loop {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return number;
        }
    }
}

pub fn sized(rest: &mut &[u8]) -> Vec<u8> {
    let length = varint(rest);
    take(rest, usize::try_from(length).unwrap()).to_vec()
}

pub fn sized_text(rest: &mut &[u8]) -> String {
    String::from_utf8(sized(rest)).unwrap()
}

#[derive(Debug, Default, PartialEq)]
pub struct Record {
    pub id: String,
    pub born: u64,
    pub priority: Option<u8>,
    pub deliver_at: Option<u64>,
    pub keys: Vec<Vec<u8>>,
    pub tag: Option<String>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub order_key: Option<Vec<u8>>,
    pub ttl_ms: Option<u64>,
    pub dedup_key: Option<Vec<u8>>,
    pub lane: Option<String>,
    pub retry_count: Option<u64>,
    pub origin: Option<(String, u64, u64)>,
    pub tombstone: bool,
    pub extension: Option<Vec<u8>>,
    pub delay_ms: Option<u64>,
    pub body: Vec<u8>,
}

pub fn record(mut rest: &[u8], born_base: u64) -> Record {
    let rest = &mut rest;
    let attributes = little(take(rest, 2));
    let has = |bit: u32| attributes >> bit & 1 == 1;
    let id: Vec<_> = take(rest, 16).iter().map(|byte| format!("{byte:02x}")).collect();
    let folded = varint(rest);
    let delta = (folded >> 1).cast_signed() ^ -((folded & 1).cast_signed());
    let mut found = Record {
        id: id.concat(),
        born: born_base.checked_add_signed(delta).unwrap(),
        ..Record::default()
    };
    found.priority = has(0).then(|| take(rest, 1)[0]);
    found.deliver_at = has(1).then(|| little(take(rest, 8)));
    if has(2) {
        found.keys = (0..varint(rest)).map(|_| sized(rest)).collect();
    }
    found.tag = has(3).then(|| sized_text(rest));
    if has(4) {
        found.headers = (0..varint(rest)).map(|_| (sized_text(rest), sized(rest))).collect();
    }
    found.order_key = has(5).then(|| sized(rest));
    found.ttl_ms = has(6).then(|| varint(rest));
    found.dedup_key = has(7).then(|| sized(rest));
    found.lane = has(8).then(|| sized_text(rest));
    found.retry_count = has(9).then(|| varint(rest));
    found.origin = has(10).then(|| (sized_text(rest), varint(rest), varint(rest)));
    found.tombstone = has(11);
    found.extension = has(12).then(|| sized(rest));
    found.delay_ms = has(13).then(|| varint(rest));
    assert_eq!(attributes >> 14, 0);
    found.body = rest.to_vec();
    found
}

/// Decodes one LZ4 frame, by the description of the format: no checksums but that of the header.
pub fn lz4(mut frame: &[u8]) -> Vec<u8> {
    assert_eq!(little(take(&mut frame, 4)), 0x184d_2204);
    let flags = take(&mut frame, 2)[0];
    if flags & 0b1000 != 0 {
        take(&mut frame, 8); // content size
    }
    take(&mut frame, 1); // checksum of the header
    let mut plain = Vec::new();
    loop {
        let size = usize::try_from(little(take(&mut frame, 4))).unwrap();
        match size {
            0 => break,
            size if size >> 31 == 1 => plain.extend(take(&mut frame, size & 0x7fff_ffff)),
            size => lz4_block(take(&mut frame, size), &mut plain),
        }
    }
    assert!(frame.is_empty(), "bytes behind the frame");
    plain
}

pub fn lz4_block(mut block: &[u8], plain: &mut Vec<u8>) {
    let more = |block: &mut &[u8], nibble: u8| {
        let mut length = usize::from(nibble);
        let mut goes_on = nibble == 15;
        while goes_on {
            let byte = take(block, 1)[0];
            length += usize::from(byte);
            goes_on = byte == 255;
        }
        length
    };
    loop {
        let token = take(&mut block, 1)[0];
        let literals = more(&mut block, token >> 4);
        plain.extend(take(&mut block, literals));
        if block.is_empty() {
            return;
        }
        let back = usize::try_from(little(take(&mut block, 2))).unwrap();
        for _ in 0..more(&mut block, token & 15) + 4 {
            plain.push(plain[plain.len() - back]);
        }
    }
}

#[derive(Debug)]
pub struct Batch {
    pub fields: BTreeMap<&'static str, u64>,
    pub records: Vec<Record>,
}

pub fn batch(bytes: &[u8]) -> Batch {
    let places = [
        ("magic", 0, 1),
        ("version", 1, 1),
        ("reserved", 2, 2),
        ("length", 4, 4),
        ("crc32c", 8, 4),
        ("count", 12, 4),
        ("born_base", 16, 8),
        ("born_max", 24, 8),
        ("producer_id", 32, 8),
        ("producer_epoch", 40, 4),
        ("attributes", 44, 4),
        ("first_sequence", 48, 8),
        ("tag_bloom", 56, 8),
    ];
    let fields: BTreeMap<_, _> =
        places.into_iter().map(|(name, at, size)| (name, little(&bytes[at..at + size]))).collect();
    assert_eq!([fields["magic"], fields["version"], fields["reserved"]], [0xb7, 1, 0]);
    assert_eq!(fields["length"], bytes.len() as u64);
    assert_eq!(fields["crc32c"], u64::from(crc32c(&bytes[12..])));
    let plain = match fields["attributes"] & 7 {
        0 => bytes[64..].to_vec(),
        1 => {
            let plain = lz4(&bytes[68..]);
            assert_eq!(little(&bytes[64..68]), plain.len() as u64, "plain_length");
            plain
        }
        _ => panic!("no decoder here"),
    };
    let mut rest = &plain[..];
    let records: Vec<_> = (0..fields["count"])
        .map(|_| {
            let length = varint(&mut rest);
            record(take(&mut rest, usize::try_from(length).unwrap()), fields["born_base"])
        })
        .collect();
    assert!(rest.is_empty(), "bytes after the last record");
    assert_eq!(records.iter().map(|one| one.born).max(), Some(fields["born_max"]));
    let lives = records.iter().any(|one| one.ttl_ms.is_some());
    assert_eq!(fields["attributes"] >> 4 & 1, u64::from(lives), "bit 4");
    Batch { fields, records }
}
