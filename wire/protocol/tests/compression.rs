//! Compressed batches: what comes out is what went in, and nobody is made to take more memory or
//! time than the limits allow.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::batch::Compression;
use grus_protocol::{
    BatchBuilder, BatchError, BatchLimits, ErrorCode, NewRecord, ProducerEpoch, ProducerId,
    RecordBatch, Sequence, TimestampMs,
};
use proptest::prelude::*;

mod samples;

use samples::{BORN, COMPRESSED, all_limits, id, similar_batch};

const HEADER_BYTES: usize = 64;

/// The batch with this in place of its records, its length and checksum put right.
fn with_body(batch: &Bytes, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..HEADER_BYTES]);
    bytes.put_slice(body);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

fn refused(bytes: Bytes) -> BatchError {
    RecordBatch::check(bytes, &BatchLimits::PRODUCE).unwrap_err()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_batch_comes_back_byte_for_byte(
        bodies in proptest::collection::vec(
            proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..400), 1..40),
        zstd in any::<bool>(),
        producer in 1..u64::MAX,
    ) {
        let mut plain = BatchBuilder::new(BatchLimits::PRODUCE);
        let mut small = BatchBuilder::new(BatchLimits::PRODUCE);
        for builder in [&mut plain, &mut small] {
            builder.set_producer(ProducerId(producer), ProducerEpoch(3), Sequence(7));
            for body in &bodies {
                builder.push(&NewRecord::new(id(1), BORN, body.clone())).unwrap();
            }
        }
        small.compress(if zstd { Compression::Zstd } else { Compression::Lz4 });
        let plain = plain.finish();
        let small = RecordBatch::check(small.finish(), &BatchLimits::PRODUCE).unwrap();
        prop_assert!(small.bytes().len() <= plain.len());
        let read = small.decompressed(&BatchLimits::PRODUCE).unwrap();
        prop_assert_eq!(read.bytes(), &plain);
        let again = RecordBatch::check(read.into_bytes(), &BatchLimits::PRODUCE).unwrap();
        prop_assert_eq!(again.count() as usize, bodies.len());
    }

    /// Whatever the compressed bytes are turned into: refused, or read within the limits.
    #[test]
    fn a_damaged_frame_is_refused_or_reads(
        zstd in any::<bool>(), at in any::<prop::sample::Index>(), by in 1..=u8::MAX,
        cut in any::<prop::sample::Index>(),
    ) {
        let batch = similar_batch(if zstd { Compression::Zstd } else { Compression::Lz4 });
        let mut body = batch[HEADER_BYTES..].to_vec();
        let at = at.index(body.len());
        body[at] ^= by;
        for length in [body.len(), cut.index(body.len())] {
            let bytes = with_body(&batch, &body[..length]);
            if let Ok(batch) = RecordBatch::check(bytes, &BatchLimits::PRODUCE) {
                let plain = batch.decompressed(&BatchLimits::PRODUCE).unwrap();
                prop_assert!(plain.records().all(|record| record.is_ok()));
            }
        }
    }
}

#[test]
fn records_of_a_compressed_batch_are_an_error_and_not_garbage() {
    for (_, compression) in COMPRESSED {
        let batch = RecordBatch::from_log(similar_batch(compression)).unwrap();
        assert!(batch.is_compressed());
        let read: Vec<_> = batch.views().collect();
        assert_eq!(read, [Err(BatchError::Compression(compression as u8))]);
        assert_eq!(batch.records().count(), 1);
    }
}

#[test]
fn what_would_grow_stays_as_it_is() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(1), BORN, "x")).unwrap();
    builder.compress(Compression::Zstd);
    let batch = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap();
    assert_eq!(batch.compression(), Ok(Compression::None));
}

#[test]
fn a_compressed_batch_takes_no_more_records_and_the_next_one_is_plain() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    let record = NewRecord::new(id(1), BORN, vec![0; 5_000]);
    builder.push(&record).unwrap();
    builder.compress(Compression::Lz4);
    assert!(builder.push(&record).is_err());
    assert!(RecordBatch::from_log(builder.finish()).unwrap().is_compressed());
    builder.push(&record).unwrap();
    assert!(!RecordBatch::from_log(builder.finish()).unwrap().is_compressed());
}

#[test]
fn a_batch_that_would_be_too_long_is_refused_before_memory_is_taken_for_it() {
    for (_, compression) in COMPRESSED {
        let batch = similar_batch(compression);
        let mut body = batch[HEADER_BYTES..].to_vec();
        body[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let bomb = with_body(&batch, &body);
        let mut error = None;
        let taken = allocation_counter::measure(|| error = Some(refused(bomb.clone())));
        assert_eq!(error.unwrap().code(), ErrorCode::BatchTooLarge);
        assert!(taken.bytes_max < 10_000, "{taken:?}");
    }
}

#[test]
fn a_small_frame_that_says_little_and_holds_much_is_refused() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(1), BORN, vec![0; 4 << 20])).unwrap();
    for (_, compression) in COMPRESSED {
        builder.push(&NewRecord::new(id(1), BORN, vec![0; 4 << 20])).ok();
        builder.compress(compression);
        let batch = builder.finish();
        assert!(batch.len() < 40_000, "{compression}: {}", batch.len());
        for says in [0_u32, 100, 4 << 20] {
            let mut body = batch[HEADER_BYTES..].to_vec();
            body[..4].copy_from_slice(&says.to_le_bytes());
            let error = refused(with_body(&batch, &body));
            assert!(matches!(error, BatchError::Decompression(_)), "{compression} {says}: {error}");
        }
    }
}

#[test]
fn one_whole_frame_and_nothing_behind_it() {
    for (_, compression) in COMPRESSED {
        let batch = similar_batch(compression);
        let body = &batch[HEADER_BYTES..];
        let twice = [body, &body[4..]].concat();
        for bad in [&body[..2], &body[..4], &body[..body.len() - 1], &twice, &[body, b"x"].concat()]
        {
            let error = refused(with_body(&batch, bad));
            assert_eq!(error.code(), ErrorCode::MalformedBatch, "{compression}: {error}");
        }
    }
}

#[test]
fn the_limits_of_records_hold_inside_and_a_codec_not_agreed_on_is_refused() {
    for (_, compression) in COMPRESSED {
        let batch = similar_batch(compression);
        let short = BatchLimits { message_bytes_max: 10, ..BatchLimits::PRODUCE };
        let error = RecordBatch::check(batch.clone(), &short).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MessageTooLarge);
        let none = BatchLimits { compressions: Compression::None.bit(), ..all_limits() };
        let error = RecordBatch::check(batch.clone(), &none).unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedCompression);
        let restamped = RecordBatch::from_log(batch).unwrap().restamped(
            ProducerId(5),
            ProducerEpoch(1),
            Sequence(9),
        );
        let checked = RecordBatch::check(restamped.into_bytes(), &all_limits()).unwrap();
        assert_eq!(checked.decompressed(&all_limits()).unwrap().first_sequence(), Sequence(9));
        assert_eq!(checked.born_max(), TimestampMs(BORN.0));
    }
}
