//! Frames and their headers, by sections 3 and 4 of docs/PROTOCOL.md.

mod batch;

pub use batch::{Record, batch, crc32c};

pub fn golden(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

pub fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Section 4: as much of MessagePack as headers use.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Number(u64),
    Text(String),
    Bin(Vec<u8>),
    Array(Vec<Value>),
}

pub use Value::{Array, Bin, Bool, Nil, Number, Text};

pub fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

pub fn value(rest: &mut &[u8]) -> Value {
    let marker = take(rest, 1)[0];
    match marker {
        0x00..=0x7f => Number(marker.into()),
        0x90..=0x9f => array(rest, (marker & 0x0f).into()),
        0xa0..=0xbf => text(rest, (marker & 0x1f).into()),
        0xc0 => Nil,
        0xc2 => Bool(false),
        0xc3 => Bool(true),
        0xc4 => {
            let length = big(take(rest, 1));
            Bin(take(rest, usize::try_from(length).unwrap()).to_vec())
        }
        0xcc => Number(big(take(rest, 1))),
        0xcd => Number(big(take(rest, 2))),
        0xce => Number(big(take(rest, 4))),
        0xcf => Number(big(take(rest, 8))),
        0xd9 => {
            let length = big(take(rest, 1));
            text(rest, length)
        }
        0xdc => {
            let length = big(take(rest, 2));
            array(rest, length)
        }
        other => panic!("marker {other:#x}"),
    }
}

pub fn array(rest: &mut &[u8], count: u64) -> Value {
    Array((0..count).map(|_| value(rest)).collect())
}

pub fn text(rest: &mut &[u8], length: u64) -> Value {
    let bytes = take(rest, usize::try_from(length).unwrap());
    Text(String::from_utf8(bytes.to_vec()).unwrap())
}

pub fn t(text: &str) -> Value {
    Text(text.to_owned())
}

pub fn n(numbers: &[u64]) -> Vec<Value> {
    numbers.iter().copied().map(Number).collect()
}

/// Section 3.
#[derive(Debug, PartialEq)]
pub struct Frame {
    pub kind: u64,
    pub flags: u64,
    pub opcode: u64,
    pub correlation: u64,
    pub header: Vec<Value>,
    pub body: Vec<u8>,
}

pub fn frame(name: &str) -> Frame {
    let bytes = golden(name);
    assert_eq!(little(&bytes[0..4]), bytes.len() as u64 - 4, "{name}: length");
    assert_eq!(bytes[4], 1, "{name}: version");
    assert_eq!(&bytes[10..12], [0, 0], "{name}: reserved");
    let header_end = 24 + usize::try_from(little(&bytes[20..24])).unwrap();
    let mut rest = &bytes[24..header_end];
    let Array(header) = value(&mut rest) else { panic!("{name}: the header is no array") };
    assert!(rest.is_empty(), "{name}: bytes after the array");
    Frame {
        kind: little(&bytes[5..6]),
        flags: little(&bytes[6..8]),
        opcode: little(&bytes[8..10]),
        correlation: little(&bytes[12..20]),
        header,
        body: bytes[header_end..].to_vec(),
    }
}
