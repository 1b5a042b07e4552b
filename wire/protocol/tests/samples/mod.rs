//! One of everything, with values that differ from field to field: what the golden bytes are made
//! of. Never change a sample; add new ones.

#![allow(clippy::unwrap_used, dead_code, reason = "shared by tests, each of which uses a part")]

use bytes::{Bytes, BytesMut};
use grus_protocol::batch::{Compression, Origin, RecordAttributes};
use grus_protocol::frame::{self, FrameFlags};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, Credit, CreditReply, DeleteTopic,
    DeleteTopicReply, Deliver, DescribeTopic, DescribeTopicReply, ExpiredPolicy, Fetch, FetchReply,
    FetchedBatch, Hello, HelloReply, InitProducer, InitProducerReply, ListAt, ListOffsets,
    ListOffsetsReply, ListTopics, ListTopicsReply, Metadata, MetadataReply, NameScope, Ping,
    PingReply, Produce, ProduceReply, QueueDescription, QueueRoute, Request, Seek, SeekReply,
    Subscribe, SubscribeAt, SubscribeReply, TopicKind, TopicMetadata, TopicSettings, TopicSummary,
    Unsubscribe, UnsubscribeReply, WhenFull,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, BrokerId, Durability, ErrorCode, ErrorDetail, ErrorReply, FrameHead,
    MessageId, NewRecord, Offset, Opcode, ProducerEpoch, ProducerId, ProducerName, QueueId,
    Sequence, ShardId, SubscriptionId, Term, TimestampMs, TopicId, TopicName,
};
use serde::Serialize;

mod clients;
mod find;
mod group;
mod peer;
mod registry;
mod schedule;
pub mod scheduled;
mod shards;

/// 2023-11-14T22:13:20.123Z.
pub const BORN: TimestampMs = TimestampMs(1_700_000_000_123);

pub fn topic() -> TopicName {
    TopicName::try_from("orders").unwrap()
}

pub fn id(number: u8) -> MessageId {
    MessageId::from_parts(BORN, &[number; 10])
}

/// Limits that allow every attribute.
pub fn all_limits() -> BatchLimits {
    BatchLimits { attributes_allowed: RecordAttributes::ALL, ..BatchLimits::PRODUCE }
}

/// A record that has every field.
pub fn full_record() -> NewRecord {
    NewRecord {
        id: id(1),
        born: BORN,
        priority: Some(9),
        deliver_at: Some(TimestampMs(1_800_000_000_000)),
        keys: vec![Bytes::from_static(b"k1"), Bytes::from_static(b"\0\xff")],
        tag: Some("created".into()),
        headers: vec![("a".into(), Bytes::new()), ("a".into(), Bytes::from_static(b"again"))],
        order_key: Some(Bytes::from_static(b"customer-7")),
        ttl_ms: Some(60_000),
        dedup_key: Some(Bytes::from_static(b"once")),
        lane: Some("gray".into()),
        retry_count: Some(3),
        origin: Some(Origin { topic: topic(), queue: QueueId(300), offset: Offset(1 << 40) }),
        is_tombstone: false,
        extension: None,
        delay_ms: None,
        body: Bytes::from_static(b"body"),
    }
}

/// One message, a body and nothing else.
pub fn plain_batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.push(&NewRecord::new(id(2), BORN, "hello")).unwrap();
    builder.finish()
}

/// Three messages of an idempotent producer, the second born before the first.
pub fn common_batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    builder.set_producer(ProducerId(0x1122_3344_5566_7788), ProducerEpoch(2), Sequence(40));
    let tagged = NewRecord {
        keys: vec![Bytes::from_static(b"order-17")],
        tag: Some("created".into()),
        headers: vec![("region".into(), Bytes::from_static(b"eu"))],
        ..NewRecord::new(id(3), BORN, "{\"order\":17}")
    };
    let earlier = NewRecord {
        tag: Some("paid".into()),
        ..NewRecord::new(id(4), TimestampMs(BORN.0 - 100), "second")
    };
    let later = NewRecord::new(id(5), TimestampMs(BORN.0 + 1000), "");
    for record in [tagged, earlier, later] {
        builder.push(&record).unwrap();
    }
    builder.finish()
}

/// Every field there is, and a tombstone; for the gray lane.
pub fn full_batch() -> Bytes {
    let mut builder = BatchBuilder::new(all_limits());
    builder.set_gray(true);
    builder.push(&full_record()).unwrap();
    let tombstone = NewRecord {
        keys: vec![Bytes::from_static(b"k1")],
        is_tombstone: true,
        ..NewRecord::new(id(6), BORN, "")
    };
    builder.push(&tombstone).unwrap();
    builder.finish()
}

/// A message with fields of a later version, which a reader of this one skips.
pub fn extended_batch() -> Bytes {
    let mut builder = BatchBuilder::new(all_limits());
    let extension = Some(Bytes::from_static(b"\x93later"));
    let later =
        NewRecord { tag: Some("a".into()), extension, ..NewRecord::new(id(7), BORN, "known") };
    builder.push(&later).unwrap();
    builder.finish()
}

/// Twenty messages that are much alike. Its compressed bytes are whatever the library makes of
/// them: those checked in are read, not compared.
pub fn similar_batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for number in 0..20 {
        let body = format!("{{\"order\":{number},\"state\":\"created\",\"note\":\"created\"}}");
        let record = NewRecord { tag: Some("created".into()), ..NewRecord::new(id(8), BORN, body) };
        builder.push(&record).unwrap();
    }
    builder.compress(compression);
    builder.finish()
}

/// The compressed batches: name and compression.
pub const COMPRESSED: [(&str, Compression); 2] =
    [("batch.lz4", Compression::Lz4), ("batch.zstd", Compression::Zstd)];

fn settings() -> TopicSettings {
    TopicSettings {
        queues: 8,
        durability: Durability::Replicated,
        retention_ms: 86_400_000,
        retention_bytes: 1 << 30,
        kind: TopicKind::Durable,
        dedup_window_ms: 90_000,
        expired: ExpiredPolicy::DeadLetter,
        replicas: 3,
        retention_messages: 5_000,
        when_full: WhenFull::Reject,
    }
}

fn address() -> BrokerAddress {
    BrokerAddress { id: BrokerId(1), host: "127.0.0.1".into(), port: 6086 }
}

/// A request and its reply, both with the same body.
fn pair<R: Request>(
    out: &mut Vec<(String, Bytes)>,
    request: &R,
    reply: &R::Reply,
    bodies: [&[u8]; 2],
) {
    let head = FrameHead::request(R::OPCODE, 0x0102_0304_0506_0700 + u64::from(head_number::<R>()));
    let name = R::OPCODE.name();
    out.push((format!("{name}.request"), whole(head, request, bodies[0])));
    out.push((format!("{name}.reply"), whole(head.reply(), reply, bodies[1])));
}

fn head_number<R: Request>() -> u8 {
    u8::try_from(R::OPCODE.number()).unwrap()
}

fn whole<H: Serialize>(head: FrameHead, header: &H, body: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    frame::encode(head, header, body.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(body);
    bytes.freeze()
}

/// Every frame: name and bytes.
pub fn frames() -> Vec<(String, Bytes)> {
    let mut out = Vec::new();
    connection(&mut out);
    messages(&mut out);
    subscriptions(&mut out);
    topics(&mut out);
    find::frames(&mut out);
    clients::frames(&mut out);
    shards::frames(&mut out);
    registry::frames(&mut out);
    peer::frames(&mut out);
    scheduled::frames(&mut out);
    schedule::frames(&mut out);
    group::frames(&mut out);
    errors(&mut out);
    out
}

fn connection(out: &mut Vec<(String, Bytes)>) {
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: 1,
        compressions: 1,
        client_id: "billing-1".into(),
        software: "grus-client 0.1.0".into(),
        auth: None,
    };
    let reply = HelloReply {
        version: 1,
        broker_id: BrokerId(1),
        features: 1,
        compressions: 1,
        frame_bytes_max: 16_777_216,
        header_bytes_max: 262_144,
        batch_bytes_max: 8_388_608,
        batch_records_max: 65_536,
        message_bytes_max: 4_194_304,
        headers_bytes_max: 32_768,
        headers_max: 256,
        header_name_bytes_max: 255,
        keys_max: 16,
        key_bytes_max: 1024,
        tag_bytes_max: 254,
        idle_ms_max: 120_000,
        time: BORN,
        software: "grus-broker 0.1.0".into(),
    };
    pair(out, &hello, &reply, [b"", b""]);
    pair(out, &Ping {}, &PingReply { time: BORN }, [b"", b""]);
    let queues = vec![
        QueueRoute { queue: QueueId(0), shard: ShardId(3), leader_broker: Some(BrokerId(1)) },
        QueueRoute { queue: QueueId(1), shard: ShardId(4), leader_broker: None },
    ];
    let served = TopicMetadata {
        name: topic(),
        error: None,
        id: TopicId(0x0123_4567_89ab_cdef),
        durability: Durability::Persisted,
        kind: TopicKind::Durable,
        queues,
    };
    let unknown = TopicName::try_from("nobody").unwrap();
    let error = ErrorReply::new(ErrorCode::UnknownTopic, "no such topic");
    let metadata = Metadata { topics: vec![topic(), unknown.clone()], auto_create: true };
    let topics = vec![served, TopicMetadata::failed(unknown, error)];
    let reply = MetadataReply { brokers: vec![address()], topics, version: 12 };
    pair(out, &metadata, &reply, [b"", b""]);
}

fn messages(out: &mut Vec<(String, Bytes)>) {
    let name = ProducerName::try_from("billing").unwrap();
    let identity = InitProducerReply {
        producer_id: ProducerId(0x1122_3344_5566_7788),
        producer_epoch: ProducerEpoch(2),
        epochs: 256,
    };
    let InitProducerReply { producer_id, producer_epoch, .. } = identity;
    let scope = NameScope::Announce;
    let announced = InitProducer { name: Some(name), scope, producer_id, producer_epoch };
    pair(out, &announced, &identity, [b"", b""]);
    let (topic_id, queue) = (TopicId(0x0123_4567_89ab_cdef), QueueId(1));
    let produce = Produce { topic: topic(), topic_id, queue, timeout_ms: 3000 };
    let receipt = ProduceReply {
        base_offset: Offset(1000),
        term: Term(5),
        stored: TimestampMs(BORN.0 + 7),
        durability: Durability::Persisted,
        duplicate: true,
        timer: None,
        delays_from: None,
    };
    pair(out, &produce, &receipt, [&common_batch(), b""]);
    let later = ProduceReply {
        base_offset: Offset(0),
        duplicate: false,
        timer: Some(scheduled::timer()),
        delays_from: Some(TimestampMs(BORN.0 + 6)),
        ..receipt
    };
    let head = FrameHead::request(Opcode::Produce, 98).reply();
    out.push(("Produce.scheduled".into(), whole(head, &later, b"")));
    let one_way =
        FrameHead { flags: FrameFlags::NO_REPLY, ..FrameHead::request(Opcode::Produce, 99) };
    out.push(("Produce.one_way".into(), whole(one_way, &produce, &plain_batch())));
    let fetch = Fetch {
        topic: topic(),
        topic_id,
        queue,
        offset: Offset(1001),
        last_term: Term(5),
        bytes_max: 1 << 20,
        wait_ms: 15_000,
    };
    let body = [common_batch(), plain_batch()].concat();
    let batches = vec![fetched(1000, 5, &common_batch()), fetched(1003, 6, &plain_batch())];
    let fetched = FetchReply { log_start: Offset(10), end_offset: Offset(1004), batches };
    pair(out, &fetch, &fetched, [b"", &body]);
    let over = FetchedBatch { length: 0, expired: 7, ..self::fetched(1000, 5, &plain_batch()) };
    let batches = vec![over, self::fetched(1007, 6, &plain_batch())];
    let expired = FetchReply { log_start: Offset(10), end_offset: Offset(1008), batches };
    let head = FrameHead::request(Opcode::Fetch, 97).reply();
    out.push(("Fetch.expired".into(), whole(head, &expired, &plain_batch())));
    let list = ListOffsets { topic: topic(), topic_id, queue, at: ListAt::Time(BORN) };
    let listed =
        ListOffsetsReply { offset: Offset(1001), log_start: Offset(10), end_offset: Offset(1004) };
    pair(out, &list, &listed, [b"", b""]);
    let head = FrameHead::request(Opcode::ListOffsets, 98);
    for (name, at) in [("first", ListAt::First), ("last", ListAt::Last)] {
        let request = ListOffsets { at, ..list.clone() };
        out.push((format!("ListOffsets.{name}"), whole(head, &request, b"")));
    }
}

fn subscriptions(out: &mut Vec<(String, Bytes)>) {
    let (topic_id, queue) = (TopicId(0x0123_4567_89ab_cdef), QueueId(1));
    let subscription = SubscriptionId(0x1_0000_0002);
    let at = SubscribeAt::Offset(Offset(1001), Term(5));
    let subscribe = Subscribe {
        subscription,
        topic: topic(),
        topic_id,
        queue,
        at,
        credit_messages: 1000,
        credit_bytes: 1 << 20,
    };
    let (offset, log_start, end_offset) = (Offset(1001), Offset(10), Offset(1004));
    pair(out, &subscribe, &SubscribeReply { offset, log_start, end_offset }, [b"", b""]);
    let head = FrameHead::request(Opcode::Subscribe, 96);
    let places = [
        ("first", SubscribeAt::First),
        ("last", SubscribeAt::Last),
        ("time", SubscribeAt::Time(BORN)),
    ];
    for (name, at) in places {
        let request = Subscribe { at, ..subscribe.clone() };
        out.push((format!("Subscribe.{name}"), whole(head, &request, b"")));
    }
    let credit = Credit { subscription, messages: 300, bytes: 65_537 };
    pair(out, &credit, &CreditReply {}, [b"", b""]);
    let quiet = FrameHead { flags: FrameFlags::NO_REPLY, ..FrameHead::request(Opcode::Credit, 0) };
    out.push(("Credit.no_reply".into(), whole(quiet, &credit, b"")));
    let seek = Seek {
        subscription,
        at: SubscribeAt::Time(BORN),
        credit_messages: 999,
        credit_bytes: 1 << 19,
    };
    pair(out, &seek, &SeekReply { offset, log_start, end_offset }, [b"", b""]);
    pair(out, &Unsubscribe { subscription }, &UnsubscribeReply {}, [b"", b""]);
    let body = [common_batch(), plain_batch()].concat();
    let batches = vec![fetched(1000, 5, &common_batch()), fetched(1003, 6, &plain_batch())];
    let deliver = Deliver { queue, log_start, end_offset, batches };
    let push = FrameHead::push(Opcode::Deliver, subscription.0);
    out.push(("Deliver.push".into(), whole(push, &deliver, &body)));
    let over = FrameHead { flags: FrameFlags::ERROR, ..push };
    let gone = ErrorReply::new(ErrorCode::OffsetOutOfRange, "removed by retention")
        .with_detail(ErrorDetail::Bounds { log_start: Offset(1100), end_offset: Offset(1200) });
    out.push(("Deliver.ended".into(), whole(over, &gone, b"")));
}

fn fetched(base_offset: u64, term: u64, batch: &Bytes) -> FetchedBatch {
    FetchedBatch {
        base_offset: Offset(base_offset),
        term: Term(term),
        stored: TimestampMs(BORN.0 + 7),
        length: u32::try_from(batch.len()).unwrap(),
        expired: 0,
    }
}

fn topics(out: &mut Vec<(String, Bytes)>) {
    let topic_id = TopicId(77);
    let create = CreateTopic { name: topic(), settings: settings(), if_not_exists: true };
    let created = CreateTopicReply { id: topic_id, settings: settings(), created: false };
    pair(out, &create, &created, [b"", b""]);
    let settings_of_all_defaults = TopicSettings::default(); // no number of replicas is named
    let unnamed =
        CreateTopic { name: topic(), settings: settings_of_all_defaults, if_not_exists: false };
    let head = FrameHead::request(CreateTopic::OPCODE, 0x0102_0304_0506_0741);
    out.push(("CreateTopic.unnamed".into(), whole(head, &unnamed, b"")));
    let alter = AlterTopic {
        name: topic(),
        topic_id,
        queues: Some(8),
        retention_ms: None,
        retention_bytes: Some(0),
        dedup_window_ms: Some(1_000),
        expired: Some(ExpiredPolicy::Drop),
        retention_messages: Some(7),
        when_full: Some(WhenFull::Reject),
    };
    pair(out, &alter, &AlterTopicReply { id: topic_id, settings: settings() }, [b"", b""]);
    let delete = DeleteTopic { name: topic(), topic_id };
    pair(out, &delete, &DeleteTopicReply { id: topic_id }, [b"", b""]);
    let description = DescribeTopicReply {
        name: topic(),
        id: topic_id,
        settings: settings(),
        created: BORN,
        queues: vec![QueueDescription {
            queue: QueueId(0),
            shard: ShardId(3),
            leader_broker: Some(BrokerId(1)),
            log_start: Offset(10),
            end_offset: Offset(1004),
            flushed_offset: Offset(1003),
            bytes: 65_536,
            last_stored: TimestampMs(BORN.0 + 7),
        }],
    };
    pair(out, &DescribeTopic { name: topic() }, &description, [b"", b""]);
    let list = ListTopics { after: Some(topic()), topics_max: 100, include_system: true };
    let system = TopicName::system("DLQ", "billing").unwrap();
    let summary = TopicSummary { name: system, id: topic_id, settings: settings() };
    pair(out, &list, &ListTopicsReply { topics: vec![summary], more: true }, [b"", b""]);
}

/// Every sort of error detail.
pub fn details() -> Vec<(&'static str, ErrorCode, ErrorDetail)> {
    let (log_start, end_offset) = (Offset(10), Offset(1004));
    vec![
        ("bounds", ErrorCode::OffsetOutOfRange, ErrorDetail::Bounds { log_start, end_offset }),
        (
            "divergence",
            ErrorCode::Diverged,
            ErrorDetail::Divergence { term: Term(4), end_offset: Offset(900), log_start },
        ),
        ("leader", ErrorCode::NotLeader, ErrorDetail::Leader(address())),
        (
            "limit",
            ErrorCode::MessageTooLarge,
            ErrorDetail::limit("message_bytes_max", 4_194_304, 4_194_305, Some(2)),
        ),
        ("record", ErrorCode::InvalidRecord, ErrorDetail::Record { record_index: 2 }),
        ("sequence", ErrorCode::OutOfSequence, ErrorDetail::ExpectedSequence(Sequence(43))),
        ("versions", ErrorCode::UnsupportedVersion, ErrorDetail::Versions { min: 1, max: 1 }),
        ("range", ErrorCode::CorruptRange, ErrorDetail::Range { from: Offset(20), to: Offset(23) }),
    ]
}

fn errors(out: &mut Vec<(String, Bytes)>) {
    let head = FrameHead::request(Opcode::Produce, 97).error_reply();
    let busy = ErrorReply::new(ErrorCode::Overloaded, "no room now").with_retry_after_ms(250);
    out.push(("error.overloaded".into(), whole(head, &busy, b"")));
    for (name, code, detail) in details() {
        let error = ErrorReply::new(code, name).with_detail(detail);
        out.push((format!("error.{name}"), whole(head, &error, b"")));
    }
}

/// Every batch: name and bytes.
pub fn batches() -> Vec<(String, Bytes)> {
    vec![
        ("batch.plain".into(), plain_batch()),
        ("batch.common".into(), common_batch()),
        ("batch.full".into(), full_batch()),
        ("batch.extended".into(), extended_batch()),
        ("batch.due".into(), scheduled::due_batch()),
        ("batch.delayed".into(), scheduled::delayed_batch()),
    ]
}
