//! The fixed header of a batch.

use bytes::{Bytes, BytesMut};

use super::{BatchAttributes, BatchError};
use crate::checksum::crc32c;
use crate::ids::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// Bytes of the fixed header.
pub const BATCH_HEADER_BYTES: usize = 64;
/// The first byte of every batch.
pub const BATCH_MAGIC: u8 = 0xb7;
/// The version of the batch format.
pub const BATCH_VERSION: u8 = 1;

const CHECKSUM_AT: usize = 8;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 12;

/// The decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Bytes of the whole batch.
    pub length: u32,
    /// CRC32C of all bytes after this field.
    pub checksum: u32,
    /// Number of records.
    pub count: u32,
    /// What the records' birth times are counted from.
    pub born_base: TimestampMs,
    /// Greatest birth time of the records.
    pub born_max: TimestampMs,
    /// The producer, 0 for none.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// Compression, lane.
    pub attributes: BatchAttributes,
    /// Sequence of the first record.
    pub first_sequence: Sequence,
    /// Bloom of the records' tags.
    pub tag_bloom: u64,
}

impl BatchHeader {
    /// Decodes the header of the batch that `bytes` are, and judges what can be judged without the
    /// records.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::TooShort(bytes.len()));
        };
        if head[0] != BATCH_MAGIC {
            return Err(BatchError::Magic(head[0]));
        }
        if head[1] != BATCH_VERSION {
            return Err(BatchError::Version(head[1]));
        }
        let reserved = u16::from_le_bytes([head[2], head[3]]);
        if reserved != 0 {
            return Err(BatchError::Reserved(reserved));
        }
        let header = Self {
            length: u32_at(head, 4),
            checksum: u32_at(head, CHECKSUM_AT),
            count: u32_at(head, 12),
            born_base: TimestampMs(u64_at(head, 16)),
            born_max: TimestampMs(u64_at(head, 24)),
            producer_id: ProducerId(u64_at(head, 32)),
            producer_epoch: ProducerEpoch(u32_at(head, 40)),
            attributes: BatchAttributes(u32_at(head, 44)),
            first_sequence: Sequence(u64_at(head, 48)),
            tag_bloom: u64_at(head, 56),
        };
        if header.length as usize != bytes.len() {
            return Err(BatchError::Length { declared: header.length, actual: bytes.len() });
        }
        if header.count == 0 {
            return Err(BatchError::Empty);
        }
        Ok(header)
    }

    /// The attributes in the header of a batch that was checked before.
    pub(super) fn attributes_of(head: &[u8; BATCH_HEADER_BYTES]) -> BatchAttributes {
        BatchAttributes(u32_at(head, 44))
    }

    /// Puts it at the start of the batch whose records are in `batch` already, with the checksum
    /// that the bytes then have.
    pub(super) fn seal(&self, mut batch: BytesMut) -> Bytes {
        batch[..BATCH_HEADER_BYTES].copy_from_slice(&self.encode());
        let checksum = checksum_of(&batch);
        batch[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&checksum.to_le_bytes());
        batch.freeze()
    }

    fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut head = [0; BATCH_HEADER_BYTES];
        head[0] = BATCH_MAGIC;
        head[1] = BATCH_VERSION;
        head[4..8].copy_from_slice(&self.length.to_le_bytes());
        head[8..12].copy_from_slice(&self.checksum.to_le_bytes());
        head[12..16].copy_from_slice(&self.count.to_le_bytes());
        head[16..24].copy_from_slice(&self.born_base.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.born_max.0.to_le_bytes());
        head[32..40].copy_from_slice(&self.producer_id.0.to_le_bytes());
        head[40..44].copy_from_slice(&self.producer_epoch.0.to_le_bytes());
        head[44..48].copy_from_slice(&self.attributes.0.to_le_bytes());
        head[48..56].copy_from_slice(&self.first_sequence.0.to_le_bytes());
        head[56..64].copy_from_slice(&self.tag_bloom.to_le_bytes());
        head
    }
}

/// The number of the compression of a batch that was checked before.
pub fn compression_number_of(batch: &[u8]) -> u8 {
    batch.first_chunk().map_or(0, |head| BatchHeader::attributes_of(head).compression_number())
}

/// The checksum that the batch of these bytes should have.
pub(super) fn checksum_of(batch: &[u8]) -> u32 {
    crc32c(&batch[CHECKED_FROM..])
}

fn u32_at(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]])
}

fn u64_at(head: &[u8; BATCH_HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(head, at)) | u64::from(u32_at(head, at + 4)) << 32
}
