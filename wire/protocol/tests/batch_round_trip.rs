//! What goes into a batch comes out of it, through the full check and without it.
#![allow(clippy::unwrap_used, reason = "a test may")]

use bytes::Bytes;
use grus_protocol::batch::{BATCH_HEADER_BYTES, NewRecord, bloom_of, may_contain};
use grus_protocol::{
    BatchBuilder, BatchError, BatchLimits, ProducerEpoch, ProducerId, Record, RecordBatch,
    RecordError, Sequence, TimestampMs,
};

mod samples;

use samples::{all_limits, full_record, id};

/// Makes a new record out of a decoded one, every field of it.
fn rebuilt(record: &Record) -> NewRecord {
    record.into()
}

#[test]
fn every_field_of_every_record_comes_back() {
    let plain = NewRecord::new(id(2), TimestampMs(1_699_999_999_999), "earlier than the first");
    let tombstone =
        NewRecord { is_tombstone: true, ..NewRecord::new(id(3), TimestampMs(u64::MAX >> 2), "") };
    let records = [full_record(), plain, tombstone];

    let mut builder = BatchBuilder::new(all_limits());
    builder.set_producer(ProducerId(7), ProducerEpoch(2), Sequence(40));
    builder.set_gray(true);
    for record in &records {
        builder.push(record).unwrap();
    }
    let size = builder.len_bytes();
    let bytes = builder.finish();
    assert_eq!(bytes.len(), size);
    assert!(builder.is_empty());

    let batch = RecordBatch::check(bytes.clone(), &all_limits()).unwrap();
    assert_eq!(batch.count(), 3);
    assert_eq!(batch.len_bytes() as usize, size);
    assert_eq!(batch.born_max(), TimestampMs(u64::MAX >> 2));
    assert_eq!(batch.producer_id(), ProducerId(7));
    assert_eq!(batch.producer_epoch(), ProducerEpoch(2));
    assert_eq!(batch.first_sequence(), Sequence(40));
    assert!(batch.is_gray());
    assert_eq!(batch.tag_bloom(), bloom_of(["created"]));
    assert!(may_contain(batch.tag_bloom(), "created"));
    assert!(!may_contain(batch.tag_bloom(), "deleted"));

    let read: Vec<_> = batch.records().map(|record| rebuilt(&record.unwrap())).collect();
    assert_eq!(read, records);
    assert_eq!(RecordBatch::from_log(bytes), Ok(batch));
}

#[test]
fn bodies_share_the_memory_of_the_batch() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(1), TimestampMs(1), vec![7_u8; 4096])).unwrap();
    let bytes = builder.finish();
    let batch = RecordBatch::check(bytes.clone(), &BatchLimits::PRODUCE).unwrap();
    let body = batch.records().next().unwrap().unwrap().body_bytes();
    assert!(bytes.as_ptr_range().contains(&body.as_ptr()), "the body was copied");
}

#[test]
fn a_builder_is_used_again_and_remembers_nothing() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.set_producer(ProducerId(7), ProducerEpoch(2), Sequence(40));
    builder.push(&NewRecord { tag: Some("t".into()), ..full_plain(1, 500) }).unwrap();
    let first = builder.finish();
    let kept = first.clone();
    builder.push(&full_plain(2, 3)).unwrap();
    let second = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap();
    assert_eq!(first, kept);
    assert_eq!(second.producer_id(), ProducerId::NONE);
    assert_eq!((second.tag_bloom(), second.born_max()), (0, TimestampMs(3)));
}

fn full_plain(number: u8, born: u64) -> NewRecord {
    NewRecord::new(id(number), TimestampMs(born), "x")
}

#[test]
fn a_full_batch_says_so_and_stays_whole() {
    let limits = BatchLimits { records_max: 2, ..BatchLimits::PRODUCE };
    let mut builder = BatchBuilder::new(limits);
    builder.push(&full_plain(1, 1)).unwrap();
    builder.push(&full_plain(2, 2)).unwrap();
    assert_eq!(builder.push(&full_plain(3, 3)), Err(RecordError::BatchFull));
    assert_eq!(RecordBatch::check(builder.finish(), &limits).unwrap().count(), 2);

    let record = full_plain(1, 1);
    let mut probe = BatchBuilder::new(BatchLimits::PRODUCE);
    probe.push(&record).unwrap();
    let exact = u32::try_from(probe.len_bytes()).unwrap();
    let mut fits = BatchBuilder::new(BatchLimits { batch_bytes_max: exact, ..limits });
    fits.push(&record).unwrap();
    assert_eq!(fits.push(&record), Err(RecordError::BatchFull));
    let mut small = BatchBuilder::new(BatchLimits { batch_bytes_max: exact - 1, ..limits });
    let too_long = RecordError::TooLong { bytes: exact.into(), limit: u64::from(exact) - 1 };
    assert_eq!(small.push(&record), Err(too_long));
    assert_eq!(small.len_bytes(), BATCH_HEADER_BYTES);
}

#[test]
fn a_batch_longer_than_its_limit_is_refused_before_it_is_read() {
    let garbage = Bytes::from(vec![0; 100]);
    let limits = BatchLimits { batch_bytes_max: 99, ..BatchLimits::PRODUCE };
    let refused = RecordBatch::check(garbage, &limits).unwrap_err();
    assert_eq!(refused, BatchError::Limit { name: "batch_bytes_max", limit: 99, actual: 100 });
}

#[test]
fn a_restamped_batch_is_the_batch_that_would_have_been_built() {
    let build = |id, epoch, sequence| {
        let mut builder = BatchBuilder::new(all_limits());
        builder.set_producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
        builder.push(&full_record()).unwrap();
        RecordBatch::check(builder.finish(), &all_limits()).unwrap()
    };
    let (before, after) = (build(7, 1, 100), build(8, 0, 0));
    assert_eq!(before.restamped(ProducerId(8), ProducerEpoch(0), Sequence(0)), after);
}
