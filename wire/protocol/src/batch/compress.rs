//! Compression of a batch: all that follows the header, as one piece.
//!
//! ```text
//! header, 64 bytes | plain_length u32 | one LZ4 or Zstandard frame
//! ```
//!
//! `plain_length` is that of the records before they were compressed. A decoder holds it against
//! its limit before it takes any memory, and takes no more than that.

use std::io::{Read, Write};

use bytes::{BufMut, BytesMut};
use lz4_flex::frame::{FrameDecoder, FrameEncoder, FrameInfo};
use zstd::zstd_safe::find_frame_compressed_size;

use super::header::BATCH_HEADER_BYTES;
use super::{BatchError, BatchHeader, Compression};
use crate::limits::BatchLimits;

/// Bytes of `plain_length`.
const LENGTH_BYTES: usize = 4;
/// Zstandard's own default: about a third of the size of text, at some 300 MB/s.
const ZSTD_LEVEL: i32 = 3;
/// How an LZ4 frame begins.
const LZ4_MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// In the byte after the magic of an LZ4 frame: a checksum of 4 bytes follows the end mark.
const LZ4_CONTENT_CHECKSUM: u8 = 1 << 2;

/// The batch with its records compressed, its header's place left empty; `None` when that would
/// not make it shorter. `plain` has room for the header in front of the records.
pub(super) fn compress(plain: &[u8], compression: Compression) -> Option<BytesMut> {
    let records = plain.get(BATCH_HEADER_BYTES..)?;
    let plain_length = u32::try_from(records.len()).ok()?;
    let frame = match compression {
        Compression::None => return None,
        Compression::Lz4 => lz4(records)?,
        Compression::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL).ok()?,
    };
    if LENGTH_BYTES + frame.len() >= records.len() {
        return None;
    }
    let mut out = BytesMut::with_capacity(BATCH_HEADER_BYTES + LENGTH_BYTES + frame.len());
    out.put_bytes(0, BATCH_HEADER_BYTES);
    out.put_u32_le(plain_length);
    out.put_slice(&frame);
    Some(out)
}

fn lz4(records: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new().content_size(Some(records.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(records.len() / 2));
    encoder.write_all(records).ok()?;
    encoder.finish().ok()
}

/// The batch as it was before it was compressed, its header's place left empty.
///
/// # Errors
/// When it would be longer than a batch may be, or is not what it says.
pub(super) fn decompress(
    bytes: &[u8],
    header: &BatchHeader,
    limits: &BatchLimits,
) -> Result<BytesMut, BatchError> {
    let compression = header.attributes.compression()?;
    let body = bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
    let Some((length, frame)) = body.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(BatchError::Decompression("the length of the records is missing"));
    };
    let plain_length = u32::from_le_bytes(*length) as usize;
    let total = BATCH_HEADER_BYTES as u64 + plain_length as u64;
    if total > u64::from(limits.batch_bytes_max) {
        let limit = limits.batch_bytes_max.into();
        return Err(BatchError::Limit { name: "batch_bytes_max", limit, actual: total });
    }
    let mut plain = BytesMut::zeroed(BATCH_HEADER_BYTES + plain_length);
    let records = &mut plain[BATCH_HEADER_BYTES..];
    match compression {
        Compression::None => return Err(BatchError::Decompression("they are not compressed")),
        Compression::Lz4 => read_lz4(frame, records)?,
        Compression::Zstd => read_zstd(frame, records)?,
    }
    Ok(plain)
}

/// Fills `records` from exactly one frame that ends where `frame` does.
fn read_lz4(frame: &[u8], records: &mut [u8]) -> Result<(), BatchError> {
    let checksum = frame.get(4).is_some_and(|flags| flags & LZ4_CONTENT_CHECKSUM != 0);
    let end_mark = frame.len().checked_sub(if checksum { 8 } else { 4 });
    let ends = end_mark.and_then(|at| frame.get(at..at + 4)) == Some(&[0; 4]);
    if !frame.starts_with(&LZ4_MAGIC) || !ends {
        return Err(BatchError::Decompression("they are not one whole LZ4 frame"));
    }
    let mut decoder = FrameDecoder::new(frame);
    let filled = decoder.read_exact(records);
    filled.map_err(|_| BatchError::Decompression("the LZ4 frame is damaged or too short"))?;
    match decoder.read(&mut [0]) {
        Ok(0) if decoder.get_ref().is_empty() => Ok(()),
        _ => Err(BatchError::Decompression("the LZ4 frame holds more than is said")),
    }
}

/// Fills `records` from exactly one frame that ends where `frame` does.
fn read_zstd(frame: &[u8], records: &mut [u8]) -> Result<(), BatchError> {
    if find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(BatchError::Decompression("they are not one whole Zstandard frame"));
    }
    match zstd::bulk::decompress_to_buffer(frame, records) {
        Ok(length) if length == records.len() => Ok(()),
        Ok(_) => Err(BatchError::Decompression("the Zstandard frame is too short")),
        Err(_) => Err(BatchError::Decompression("the Zstandard frame is damaged or too long")),
    }
}
