//! The full check of a batch from a stranger.

use super::compress::decompress;
use super::header::checksum_of;
use super::record::Views;
use super::{BatchError, BatchHeader, Compression, RecordError, RecordView};
use crate::ids::{ProducerEpoch, ProducerId, Sequence, TimestampMs};
use crate::limits::BatchLimits;

pub(super) fn verify_checksum(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let computed = checksum_of(bytes);
    if computed == header.checksum {
        return Ok(());
    }
    Err(BatchError::Checksum { stored: header.checksum, computed })
}

/// Checks header, checksum, and in one pass all records.
pub(super) fn check(
    bytes: &[u8],
    limits: &BatchLimits,
    look: impl FnMut(&RecordView<'_>) -> Result<(), RecordError>,
) -> Result<BatchHeader, BatchError> {
    if bytes.len() as u64 > u64::from(limits.batch_bytes_max) {
        return Err(BatchError::Limit {
            name: "batch_bytes_max",
            limit: limits.batch_bytes_max.into(),
            actual: bytes.len() as u64,
        });
    }
    let header = BatchHeader::decode(bytes)?;
    verify_checksum(bytes, &header)?;
    check_header(&header, limits)?;
    if header.attributes.compression()? == Compression::None {
        check_records(bytes, &header, limits, look)?;
    } else {
        let plain = decompress(bytes, &header, limits)?;
        check_records(&plain, &header, limits, look)?;
    }
    Ok(header)
}

fn check_header(header: &BatchHeader, limits: &BatchLimits) -> Result<(), BatchError> {
    if header.attributes.unknown() != 0 {
        return Err(BatchError::UnknownAttributes(header.attributes.unknown()));
    }
    if header.attributes.compression()?.bit() & limits.compressions == 0 {
        return Err(BatchError::Compression(header.attributes.compression_number()));
    }
    if header.count > limits.records_max {
        return Err(BatchError::Limit {
            name: "batch_records_max",
            limit: limits.records_max.into(),
            actual: header.count.into(),
        });
    }
    let numbered =
        header.producer_epoch != ProducerEpoch(0) || header.first_sequence != Sequence(0);
    if header.producer_id == ProducerId::NONE && numbered {
        return Err(BatchError::Producer);
    }
    match header.first_sequence.checked_add(header.count.into()) {
        Some(_) => Ok(()),
        None => Err(BatchError::SequenceOverflow),
    }
}

fn check_records(
    bytes: &[u8],
    header: &BatchHeader,
    limits: &BatchLimits,
    mut look: impl FnMut(&RecordView<'_>) -> Result<(), RecordError>,
) -> Result<(), BatchError> {
    let mut tag_bloom = 0;
    let mut born_max = TimestampMs(0);
    let mut has_ttl = false;
    let mut views = Views::with_limits(bytes, header, limits); // of plain records
    for (view, index) in (&mut views).zip(0..) {
        let record = view?;
        look(&record).map_err(|error| BatchError::Record { index, error })?;
        tag_bloom |= record.tag_bloom();
        born_max = born_max.max(record.born());
        has_ttl |= record.ttl_ms().is_some();
    }
    if views.trailing_bytes() > 0 {
        let actual = header.count.saturating_add(1);
        return Err(BatchError::Count { declared: header.count, actual });
    }
    if born_max != header.born_max {
        return Err(BatchError::BornMax { declared: header.born_max, actual: born_max });
    }
    if has_ttl != header.attributes.has_ttl() {
        return Err(BatchError::TtlBit { actual: has_ttl });
    }
    if tag_bloom & header.tag_bloom != tag_bloom {
        return Err(BatchError::TagBloom { declared: header.tag_bloom, actual: tag_bloom });
    }
    Ok(())
}
