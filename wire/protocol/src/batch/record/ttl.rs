//! The time to live of a stored batch, read off its first record: all of them have the same.

use std::io::Read;

use lz4_flex::frame::FrameDecoder;

use super::{Fields, RecordAttributes};
use crate::batch::cursor::Cursor;
use crate::batch::header::BATCH_HEADER_BYTES;
use crate::batch::{BatchHeader, Compression};
use crate::limits::BatchLimits;

/// What stands before a record's time to live is shorter, under the limits that brokers take
/// records with by default: keys, headers, a tag, an order key.
const PREFIX_BYTES_MAX: usize = 128 * 1024;
/// Bytes of `plain_length` in a compressed batch.
const LENGTH_BYTES: usize = 4;

/// How long the records of a batch may wait, in milliseconds from when it came into its queue;
/// `None`: for ever. For a batch that was checked before it was stored. Looks at 48 bytes of a
/// batch without times to live; of a compressed one with them, it decompresses the first
/// 128 KiB at most. What cannot be read is held to live for ever: its reader finds out.
pub fn ttl_ms_of(batch: &[u8]) -> Option<u64> {
    let head = batch.first_chunk::<BATCH_HEADER_BYTES>()?;
    if !BatchHeader::attributes_of(head).has_ttl() {
        return None;
    }
    let records = &batch[BATCH_HEADER_BYTES..];
    match BatchHeader::attributes_of(head).compression().ok()? {
        Compression::None => first_ttl_ms(records),
        Compression::Lz4 => first_ttl_ms(&prefix(FrameDecoder::new(records.get(LENGTH_BYTES..)?))?),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(records.get(LENGTH_BYTES..)?);
            first_ttl_ms(&prefix(decoder.ok()?)?)
        }
    }
}

/// The first bytes that come out of a decoder.
fn prefix(decoder: impl Read) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    decoder.take(PREFIX_BYTES_MAX as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Of the first record, which may be cut off behind it.
fn first_ttl_ms(records: &[u8]) -> Option<u64> {
    let mut cursor = Cursor::new(records, 0);
    cursor.varint_u32("length").ok()?;
    let content = &records[cursor.at()..];
    let mut cursor = Cursor::new(content, 0);
    let attributes = RecordAttributes(cursor.u16("attributes").ok()?);
    cursor.id().ok()?;
    cursor.zigzag("born").ok()?;
    let mut fields = Fields::NONE;
    fields.read_common(&mut cursor, attributes, &BatchLimits::FORMAT).ok()?;
    let has_ttl = attributes.contains(RecordAttributes::TTL);
    has_ttl.then(|| cursor.varint("ttl").ok()).flatten()
}
