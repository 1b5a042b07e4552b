//! Lies about lengths and counts: each is a typed error, and none makes a decoder allocate.

#![allow(clippy::unwrap_used, reason = "a test may")]

use allocation_counter::measure;
use bytes::{Bytes, BytesMut};
use grus_protocol::batch::{BATCH_HEADER_BYTES, RecordAttributes};
use grus_protocol::frame::{self, BrokenFrame, HeaderError, RawHead, RefusedFrame};
use grus_protocol::message::{
    CreateTopic, FetchReply, Hello, ListTopicsReply, Metadata, MetadataReply, Ping,
    REPLICAS_UNNAMED, TopicSettings,
};
use grus_protocol::{
    BatchBuilder, BatchError, BatchLimits, ErrorCode, ErrorDetail, ErrorReply, FrameError,
    FrameHead, FrameLimits, NewRecord, Opcode, ProducerEpoch, ProducerId, RecordBatch, RecordError,
    Sequence, TimestampMs,
};

mod samples;

use samples::{BORN, all_limits, id};

/// Puts a length and a checksum that fit into a batch that was tampered with.
fn resealed(mut bytes: BytesMut) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[12..]);
    bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
    bytes.freeze()
}

fn plain() -> BytesMut {
    BytesMut::from(&*samples::plain_batch())
}

/// A batch of one record that has this content after its length.
fn batch_of(content: &[u8]) -> Bytes {
    let mut bytes = plain();
    bytes.truncate(BATCH_HEADER_BYTES);
    bytes.extend_from_slice(&[u8::try_from(content.len()).unwrap()]);
    bytes.extend_from_slice(content);
    resealed(bytes)
}

/// The content of a record with these attributes and what follows its birth.
fn content(attributes: RecordAttributes, rest: &[u8]) -> Vec<u8> {
    [&attributes.0.to_le_bytes()[..], &id(1).as_bytes()[..], &[0], rest].concat()
}

fn check(bytes: Bytes) -> BatchError {
    RecordBatch::check(bytes, &all_limits()).unwrap_err()
}

fn record_error(attributes: RecordAttributes, rest: &[u8]) -> RecordError {
    match check(batch_of(&content(attributes, rest))) {
        BatchError::Record { index: 0, error } => error,
        other => panic!("{other}"),
    }
}

#[test]
fn a_frame_of_four_gigabytes_is_refused_by_its_head() {
    let head = [&u32::MAX.to_le_bytes()[..], &[0; 20]].concat();
    let mut buffer = BytesMut::from(&*head);
    assert_eq!(frame::bytes_missing(&buffer, &FrameLimits::REQUESTS), 0);
    let info = measure(|| {
        let refused = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap_err();
        let bytes = u64::from(u32::MAX) + 4;
        let expected = BrokenFrame::TooLong { bytes, limit: 16 * 1024 * 1024 };
        assert!(matches!(refused, FrameError::Broken { reason, .. } if reason == expected));
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn a_frame_shorter_than_its_head_ends_the_connection() {
    for length in [0_u32, 19] {
        let mut buffer = BytesMut::from(&*[&length.to_le_bytes()[..], &[0; 20]].concat());
        let refused = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap_err();
        assert!(refused.is_fatal());
        assert_eq!(refused.code(), ErrorCode::MalformedFrame);
    }
}

#[test]
fn a_header_beyond_its_frame_is_refused_and_the_next_frame_is_read() {
    for (header_length, code) in
        [(1_u32 << 31, ErrorCode::MalformedFrame), (2, ErrorCode::MalformedFrame)]
    {
        let mut buffer = BytesMut::new();
        let head = FrameHead::request(Opcode::Ping, 1);
        frame::encode(head, &Ping {}, 0, &mut buffer).unwrap();
        buffer[20..24].copy_from_slice(&header_length.to_le_bytes());
        frame::encode(head, &Ping {}, 0, &mut buffer).unwrap();
        let refused = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap_err();
        assert_eq!((refused.code(), refused.is_fatal()), (code, false));
        assert!(frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap().is_some());
    }
}

#[test]
fn a_header_over_its_limit_is_refused_with_the_limit() {
    let limits = FrameLimits { header_bytes_max: 33, ..FrameLimits::REQUESTS };
    let hello = &samples::frames()[0].1;
    assert_eq!(RawHead::peek(hello).unwrap().header_length, 34);
    let refused = frame::decode(&mut BytesMut::from(&**hello), &limits).unwrap_err();
    let reason = RefusedFrame::HeaderTooLong { bytes: 34, limit: 33 };
    assert!(matches!(refused, FrameError::Refused { reason: it, .. } if it == reason));
    let detail = ErrorDetail::limit("header_bytes_max", 33, 34, None);
    assert_eq!(refused.to_reply().detail, Some(detail));
}

#[test]
fn a_request_that_wants_no_reply_and_a_reply_get_none_even_when_refused() {
    for (kind, flags) in [(1_u8, 2_u8), (2, 0), (3, 0)] {
        let mut buffer = BytesMut::new();
        let head = FrameHead::request(Opcode::Ping, 1);
        frame::encode(head, &Ping {}, 0, &mut buffer).unwrap();
        (buffer[5], buffer[6], buffer[8]) = (kind, flags, 200);
        let refused = frame::decode(&mut buffer, &FrameLimits::REQUESTS).unwrap_err();
        let mut out = BytesMut::new();
        assert!(!refused.put_reply(&mut out));
        assert!(out.is_empty());
    }
}

/// Decodes bytes as each sort of header; all must refuse them, with little memory.
fn refused_by_all(header: &[u8]) {
    fn refused<T: serde::de::DeserializeOwned>(header: &[u8]) {
        assert!(frame::decode_header::<T>(header).is_err(), "{header:02x?}");
    }
    let info = measure(|| {
        refused::<Hello>(header);
        refused::<Metadata>(header);
        refused::<MetadataReply>(header);
        refused::<FetchReply>(header);
        refused::<ListTopicsReply>(header);
        refused::<CreateTopic>(header);
        refused::<ErrorReply>(header);
    });
    // serde reserves at most 1 MiB for a list on the word of its length.
    assert!(info.bytes_max < 2 * 1024 * 1024, "{} bytes for {header:02x?}", info.bytes_max);
}

#[test]
fn lengths_and_counts_of_four_billion_in_a_header_are_refused() {
    refused_by_all(&[0xdd, 0xff, 0xff, 0xff, 0xff]); // array 32
    refused_by_all(&[0x91, 0xdd, 0xff, 0xff, 0xff, 0xff]); // an array in an array
    refused_by_all(&[0x92, 0x90, 0xdd, 0xff, 0xff, 0xff, 0xff]);
    refused_by_all(&[0x91, 0xdb, 0xff, 0xff, 0xff, 0xff]); // str 32
    refused_by_all(&[0x91, 0xc6, 0xff, 0xff, 0xff, 0xff]); // bin 32
    refused_by_all(&[0x91, 0xc9, 0xff, 0xff, 0xff, 0xff, 1]); // ext 32
    refused_by_all(&[0xdf, 0xff, 0xff, 0xff, 0xff]); // map 32
    refused_by_all(&[0xc1]); // the byte that MessagePack never uses
    refused_by_all(&[]);
    refused_by_all(&[0xc0]); // nil
}

#[test]
fn nested_bombs_are_refused_wherever_they_stand() {
    let (arrays, maps) = (vec![0x91; 200_000], [0x81, 0x01].repeat(100_000));
    refused_by_all(&arrays);
    refused_by_all(&maps);
    let unknown_field = [&[0x92, 21, 0xa0][..], &arrays].concat();
    assert!(frame::decode_header::<ErrorReply>(&unknown_field).is_err());
    let ping_with_bomb = [&[0x91][..], &arrays].concat();
    assert!(frame::decode_header::<Ping>(&ping_with_bomb).is_err());
}

#[test]
fn fields_of_a_later_version_are_ignored_and_those_of_an_earlier_one_fall_back() {
    let newer = [0x93, 0x01, 0x01, 0x93, 0xa1, b'x', 0xc0, 0x80]; // Ping has no field
    assert_eq!(frame::decode_header::<Ping>(&newer), Ok(Ping {}));

    let settings = TopicSettings { queues: 7, ..TopicSettings::default() };
    assert_eq!(frame::decode_header::<TopicSettings>(&[0x91, 7]), Ok(settings));
    let newer_settings = [0x9b, 7, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0xc3];
    let known: TopicSettings = frame::decode_header(&newer_settings).unwrap();
    assert_eq!((known.queues, known.retention_ms), (7, 0));
    // From before there were replicas, or from who sends no settings at all: none are named.
    for older in [&[0x97, 4, 0, 0, 0, 0, 0, 0][..], &[0x90]] {
        let settings: TopicSettings = frame::decode_header(older).unwrap();
        assert_eq!(settings.replicas, REPLICAS_UNNAMED);
    }

    let oldest_hello: Hello = frame::decode_header(&[0x92, 1, 3]).unwrap();
    assert_eq!((oldest_hello.version_max, oldest_hello.features), (3, 0));
    assert_eq!(oldest_hello.agree(), Some(1));
    let missing = frame::decode_header::<Hello>(&[0x91, 1]);
    assert_eq!(missing, Err(HeaderError::Malformed("Hello lacks version_max".into())));
    assert_eq!(frame::decode_header::<Ping>(&[0x90, 0x90]), Err(HeaderError::Trailing(1)));
}

#[test]
fn a_bad_name_has_a_code_of_its_own() {
    let header = rmp_serde::to_vec(&("../x", [4_u32; 1])).unwrap();
    let refused = frame::decode_header::<CreateTopic>(&header).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidName);
    assert!(refused.to_reply().message.contains("character '.'"), "{refused}");
}

#[test]
fn a_batch_of_four_gigabytes_is_refused() {
    let mut bytes = plain();
    let actual = bytes.len();
    bytes[4..8].fill(0xff);
    let expected = BatchError::Length { declared: u32::MAX, actual };
    assert_eq!(check(bytes.freeze()), expected);
}

#[test]
fn four_billion_records_in_a_small_batch_are_refused_without_a_look() {
    let mut bytes = plain();
    bytes[12..16].fill(0xff);
    let expected =
        BatchError::Limit { name: "batch_records_max", limit: 65_536, actual: u64::from(u32::MAX) };
    let mut lying = Some(resealed(bytes.clone()));
    let info = measure(|| assert_eq!(check(lying.take().unwrap()), expected));
    assert_eq!(info.count_total, 0);

    bytes[12..16].copy_from_slice(&2_u32.to_le_bytes());
    assert_eq!(check(resealed(bytes.clone())), BatchError::Count { declared: 2, actual: 1 });
    bytes[12..16].fill(0);
    assert_eq!(check(resealed(bytes)), BatchError::Empty);
    let two = BytesMut::from(&*samples::full_batch());
    let mut one = two;
    one[12..16].copy_from_slice(&1_u32.to_le_bytes());
    assert_eq!(check(resealed(one)), BatchError::Count { declared: 1, actual: 2 });
}

#[test]
fn a_record_longer_than_its_batch_is_refused() {
    let mut bytes = plain();
    bytes.truncate(BATCH_HEADER_BYTES);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
    let expected =
        BatchError::Record { index: 0, error: RecordError::Truncated { field: "record" } };
    assert_eq!(check(resealed(bytes.clone())), expected);
    bytes.truncate(BATCH_HEADER_BYTES);
    bytes.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    let expected = BatchError::Record { index: 0, error: RecordError::Number { field: "length" } };
    assert_eq!(check(resealed(bytes)), expected, "2^64 - 1");
}

#[test]
fn counts_and_lengths_inside_a_record_are_held_against_limits_first() {
    let big = [0xff, 0xff, 0xff, 0xff, 0x0f];
    let actual = u64::from(u32::MAX);
    let limit = |name, limit| RecordError::Limit { name, limit, actual };
    assert_eq!(record_error(RecordAttributes::KEYS, &big), limit("keys_max", 16));
    let one_key = [&[1][..], &big].concat();
    assert_eq!(record_error(RecordAttributes::KEYS, &one_key), limit("key_bytes_max", 1024));
    assert_eq!(record_error(RecordAttributes::TAG, &big), limit("tag_bytes_max", 255));
    assert_eq!(record_error(RecordAttributes::HEADERS, &big), limit("headers_max", 256));
    assert_eq!(
        record_error(RecordAttributes::HEADERS, &one_key),
        limit("header_name_bytes_max", 255)
    );
    assert_eq!(record_error(RecordAttributes::ORDER_KEY, &big), limit("key_bytes_max", 1024));
    assert_eq!(record_error(RecordAttributes::DEDUP_KEY, &big), limit("key_bytes_max", 1024));
    assert_eq!(record_error(RecordAttributes::LANE, &big), limit("tag_bytes_max", 255));
    let value = [&[1, 1, b'n'][..], &big].concat();
    let beyond = RecordError::Truncated { field: "header value" };
    assert_eq!(record_error(RecordAttributes::HEADERS, &value), beyond);
    let beyond = RecordError::Truncated { field: "origin topic" };
    assert_eq!(record_error(RecordAttributes::ORIGIN, &big), beyond);
}

#[test]
fn fields_that_break_a_rule_are_named() {
    let empty = |field| RecordError::Empty { field };
    assert_eq!(record_error(RecordAttributes::KEYS, &[0]), empty("keys"));
    assert_eq!(record_error(RecordAttributes::KEYS, &[1, 0]), empty("key"));
    assert_eq!(record_error(RecordAttributes::TAG, &[0]), empty("tag"));
    assert_eq!(record_error(RecordAttributes::HEADERS, &[1, 0, 0]), empty("header name"));
    let text = |field| RecordError::Text { field };
    assert_eq!(record_error(RecordAttributes::TAG, &[1, 0xff]), text("tag"));
    assert_eq!(record_error(RecordAttributes::HEADERS, &[1, 1, 0xff, 0]), text("header name"));
    let name = RecordError::Name { field: "origin topic" };
    assert_eq!(record_error(RecordAttributes::ORIGIN, &[4, b'.', b'.', b'/', b'x', 0, 0]), name);
    let priority = RecordError::Limit { name: "priority_max", limit: 9, actual: 10 };
    assert_eq!(record_error(RecordAttributes::PRIORITY, &[10]), priority);
    let body = RecordError::BodyNotAllowed(1);
    assert_eq!(record_error(RecordAttributes::TOMBSTONE, b"x"), body);
    let unknown = RecordError::UnknownAttributes(0x8000);
    assert_eq!(record_error(RecordAttributes(0x8000), &[]), unknown);
    for (attribute, field) in [(RecordAttributes::TTL, "ttl"), (RecordAttributes::DELAY, "delay")] {
        assert_eq!(record_error(attribute, &[0x80, 0]), RecordError::Number { field });
    }

    let nil = [&[0, 0][..], &[0; 16], &[0]].concat();
    let expected = BatchError::Record { index: 0, error: RecordError::NilId };
    assert_eq!(check(batch_of(&nil)), expected);
}

#[test]
fn a_birth_before_zero_is_refused() {
    let mut bytes = BytesMut::from(&*batch_of(&[&[0, 0], &id(1).as_bytes()[..], &[1]].concat()));
    bytes[16..24].fill(0);
    let error = RecordError::Time { field: "born" };
    assert_eq!(check(resealed(bytes)), BatchError::Record { index: 0, error });
}

#[test]
fn a_header_that_contradicts_the_records_is_refused() {
    let mut bytes = plain();
    bytes[24] ^= 1;
    assert!(matches!(check(resealed(bytes)), BatchError::BornMax { .. }));

    let mut bytes = BytesMut::from(&*samples::common_batch());
    bytes[56..64].fill(0);
    assert!(matches!(check(resealed(bytes.clone())), BatchError::TagBloom { .. }));
    bytes[56..64].fill(0xff);
    assert!(RecordBatch::check(resealed(bytes), &all_limits()).is_ok(), "all ones are allowed");

    for at in [40, 48] {
        let mut bytes = plain();
        bytes[at] = 1;
        assert_eq!(check(resealed(bytes)), BatchError::Producer);
    }
    let mut bytes = plain();
    bytes[44] = 3;
    assert_eq!(check(resealed(bytes.clone())), BatchError::Compression(3));
    bytes[44] = 32;
    assert_eq!(check(resealed(bytes.clone())), BatchError::UnknownAttributes(32));
    bytes[44] = 16;
    assert_eq!(check(resealed(bytes)), BatchError::TtlBit { actual: false });
    let mut bytes = BytesMut::from(&*samples::scheduled::due_batch());
    bytes[44] = 0;
    assert_eq!(check(resealed(bytes)), BatchError::TtlBit { actual: true });
    let mut bytes = plain();
    bytes[2] = 1;
    assert_eq!(check(resealed(bytes)), BatchError::Reserved(1));
}

#[test]
fn sequences_end_at_64_bits() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for (first, fits) in [(u64::MAX - 1, true), (u64::MAX, false)] {
        builder.set_producer(ProducerId(1), ProducerEpoch(0), Sequence(first));
        builder.push(&NewRecord::new(id(1), BORN, "x")).unwrap();
        let checked = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE);
        assert_eq!(checked.is_ok(), fits);
    }
}

#[test]
fn what_a_broker_does_not_serve_is_refused_and_not_ignored() {
    let retried = NewRecord { retry_count: Some(1), ..NewRecord::new(id(1), BORN, "x") };
    let error = RecordError::AttributesNotAllowed(RecordAttributes::RETRY_COUNT.0);
    assert_eq!(BatchBuilder::new(BatchLimits::PRODUCE).push(&retried), Err(error));
    assert_eq!(error.code(), ErrorCode::UnsupportedFeature);

    let mut builder = BatchBuilder::new(all_limits());
    builder.push(&NewRecord::new(id(2), BORN, "x")).unwrap();
    builder.push(&retried).unwrap();
    let refused = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap_err();
    assert_eq!(refused, BatchError::Record { index: 1, error });
    assert_eq!(refused.to_reply().detail, Some(ErrorDetail::Record { record_index: 1 }));
}

#[test]
fn a_message_over_the_limit_is_refused_with_index_limit_and_size() {
    let limits = BatchLimits { message_bytes_max: 5, ..BatchLimits::PRODUCE };
    let too_long = NewRecord::new(id(1), BORN, "123456");
    let error = RecordError::Limit { name: "message_bytes_max", limit: 5, actual: 6 };
    assert_eq!(BatchBuilder::new(limits).push(&too_long), Err(error));
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(2), BORN, "12345")).unwrap();
    builder.push(&too_long).unwrap();
    let refused = RecordBatch::check(builder.finish(), &limits).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::MessageTooLarge);
    let detail = ErrorDetail::limit("message_bytes_max", 5, 6, Some(1));
    assert_eq!(refused.to_reply().detail, Some(detail));
}

#[test]
fn the_builder_and_the_check_draw_the_same_lines() {
    let text = |bytes: usize| "t".repeat(bytes);
    let key = |bytes: usize| Bytes::from(vec![b'k'; bytes]);
    let with = |change: fn(&mut NewRecord)| {
        let mut record = NewRecord::new(id(1), BORN, "x");
        change(&mut record);
        record
    };
    let (tag, name) = (text(256), text(256));
    let cases = [
        NewRecord { tag: Some(tag), ..with(|_| ()) },
        NewRecord { headers: vec![(name, Bytes::new())], ..with(|_| ()) },
        NewRecord { headers: vec![("n".into(), key(32 * 1024))], ..with(|_| ()) },
        NewRecord { headers: vec![("n".into(), Bytes::new()); 257], ..with(|_| ()) },
        NewRecord { keys: vec![key(1); 17], ..with(|_| ()) },
        NewRecord { keys: vec![key(1025)], ..with(|_| ()) },
        NewRecord { order_key: Some(key(1025)), ..with(|_| ()) },
        NewRecord { body: vec![0; 4 * 1024 * 1024 + 1].into(), ..with(|_| ()) },
    ];
    let wide =
        BatchLimits { attributes_allowed: RecordAttributes::PRODUCER, ..BatchLimits::FORMAT };
    for record in cases {
        let refused = BatchBuilder::new(BatchLimits::PRODUCE).push(&record).unwrap_err();
        let mut builder = BatchBuilder::new(wide);
        builder.push(&record).unwrap();
        let checked = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap_err();
        assert_eq!(checked, BatchError::Record { index: 0, error: refused });
    }
}

#[test]
fn births_too_far_apart_do_not_share_a_batch() {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(1), TimestampMs(0), "x")).unwrap();
    let far = NewRecord::new(id(2), TimestampMs(u64::MAX), "x");
    assert_eq!(builder.push(&far), Err(RecordError::BatchFull));
    builder.finish();
    builder.push(&far).unwrap();
    let batch = RecordBatch::check(builder.finish(), &BatchLimits::PRODUCE).unwrap();
    assert_eq!(batch.born_max(), TimestampMs(u64::MAX));
}

#[test]
fn checking_and_reading_a_batch_allocates_nothing() {
    let mut builder = BatchBuilder::new(all_limits());
    for _ in 0..1000 {
        builder.push(&samples::full_record()).unwrap();
    }
    let bytes = builder.finish();
    let mut read = (0, 0);
    let info = measure(|| {
        let batch = RecordBatch::check(bytes.clone(), &all_limits()).unwrap();
        for record in batch.records() {
            let one = record.unwrap();
            read.0 += one.headers().count() + one.keys().count();
            read.1 += one.body_bytes().len();
        }
    });
    assert_eq!(read, (4000, 4000));
    // One for the counter that all slices of the buffer share, not one for each record.
    assert!(info.count_total <= 1, "{} allocations for 1000 records", info.count_total);
}
