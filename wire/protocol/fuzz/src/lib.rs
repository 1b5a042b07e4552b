//! What the fuzz targets share.

use bytes::{Bytes, BytesMut};
use grus_protocol::frame;
use grus_protocol::message::Request;
use grus_protocol::{BatchBuilder, BatchError, BatchLimits, NewRecord, RecordBatch};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes a header; what is one encodes, and then decodes and encodes to the same again.
pub fn header<T: DeserializeOwned + Serialize>(data: &[u8]) {
    let Ok(message) = frame::decode_header::<T>(data) else { return };
    let bytes = rmp_serde::to_vec(&message).expect("what was decoded encodes");
    let again: T = frame::decode_header(&bytes).expect("and decodes again");
    assert_eq!(rmp_serde::to_vec(&again).expect("and encodes"), bytes);
}

/// Decodes bytes as the header of a request, and as that of its reply.
pub fn request_and_reply<R: Request>(data: &[u8]) {
    header::<R>(data);
    header::<R::Reply>(data);
}

/// The bytes as a batch whose magic, version, length and checksum are right.
pub fn resealed(data: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(data);
    if bytes.len() < 64 {
        bytes.resize(64, 0);
    }
    bytes[..4].copy_from_slice(&[0xb7, 1, 0, 0]);
    let length = u32::try_from(bytes.len()).expect("inputs are short");
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

/// All fields of all records.
///
/// # Errors
/// The first record that cannot be read.
pub fn read_all(batch: &RecordBatch) -> Result<Vec<NewRecord>, BatchError> {
    batch.records().map(|record| record.map(|one| NewRecord::of(&one))).collect()
}

/// A batch of these records, under no limits.
pub fn rebuild(records: &[NewRecord]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for record in records {
        builder.push(record).expect("what could be read can be built");
    }
    builder.finish()
}
