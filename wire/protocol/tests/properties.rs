//! Round trips of anything, and what becomes of bytes that were tampered with.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bytes::{Bytes, BytesMut};
use grus_protocol::batch::{Compression, Origin, bloom_of, ttl_ms_of};
use grus_protocol::message::{
    AckMessages, AlterSchedule, AssignQueues, ChangeReplicas, ChangeReplicasReply, ClaimQueue,
    ClaimQueueReply, CloseProducer, CountScheduled, CountScheduledReply, CreateSchedule, DeadMark,
    DeleteSchedule, DescribeGroupReply, DescribeShardsReply, FetchReply, FindMessages,
    FindMessagesReply, GroupDeliver, GroupHeartbeat, GroupHeartbeatReply, GroupProgress,
    GroupProgressReply, HandOverShards, HandOverShardsReply, JoinGroup, JoinGroupReply, LeaveGroup,
    ListClients, ListClientsReply, ListDeadLetters, ListDeadLettersReply, ListGroupsReply,
    ListScheduled, ListScheduledReply, ListSchedules, ListSchedulesReply, Metadata, MetadataReply,
    Nack, OffsetRange, OpenPeer, OpenPeerReply, Produce, PurgeDeadLetters, RecallMessage,
    RedriveDeadLetters, RegisterBroker, ResetGroup, RoutesChanged, ShardMessage, ShowScheduled,
    ShowScheduledReply, SubscribeGroup,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorReply, FrameHead, FrameLimits, Generation, GroupId, MemberId,
    MessageId, NewRecord, Offset, Opcode, ProducerEpoch, ProducerId, QueueId, RecordBatch,
    Sequence, TimestampMs, TopicId, TopicName, frame,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

mod samples;

use samples::all_limits;

prop_compose! {
    fn bytes(least: usize, most: usize)(content in vec(any::<u8>(), least..=most)) -> Bytes {
        content.into()
    }
}

prop_compose! {
    fn name()(text in "[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", system: bool) -> TopicName {
        if system { TopicName::system("DLQ", &text) } else { TopicName::try_from(&*text) }.unwrap()
    }
}

prop_compose! {
    fn common_fields()(
        id in any::<[u8; 16]>().prop_filter("nil", |id| *id != [0; 16]),
        born in 1_u64 << 40..1 << 60,
        priority in option::of(0_u8..=9),
        deliver_at in option::of(any::<u64>()),
        keys in vec(bytes(1, 40), 0..4),
        tag in option::of("\\PC{1,40}"),
        headers in vec(("\\PC{1,40}", bytes(0, 200)), 0..5),
        order_key in option::of(bytes(1, 40)),
        body in bytes(0, 400),
    ) -> NewRecord {
        NewRecord {
            priority, keys, tag, headers, order_key,
            deliver_at: deliver_at.map(TimestampMs),
            ..NewRecord::new(MessageId::from_bytes(id), TimestampMs(born), body)
        }
    }
}

prop_compose! {
    fn record()(
        common in common_fields(),
        ttl_ms in option::of(any::<u64>()),
        dedup_key in option::of(bytes(1, 40)),
        lane in option::of("\\PC{1,40}"),
        retry_count in option::of(any::<u32>()),
        origin in option::of((name(), any::<u32>(), any::<u64>())),
        is_tombstone in prop::bool::weighted(0.1),
        extension in option::of(bytes(1, 40)),
        delay_ms in option::of(any::<u64>()),
    ) -> NewRecord {
        let body = if is_tombstone { Bytes::new() } else { common.body.clone() };
        let origin = origin.map(|(topic, queue, offset)| Origin {
            topic,
            queue: QueueId(queue),
            offset: Offset(offset),
        });
        NewRecord {
            ttl_ms, dedup_key, lane, retry_count, origin, is_tombstone, extension, delay_ms, body,
            ..common
        }
    }
}

fn build(records: &[NewRecord], producer: (u64, u32, u64), is_gray: bool) -> Bytes {
    let mut builder = BatchBuilder::new(all_limits());
    builder.set_gray(is_gray);
    if producer.0 != 0 {
        let (id, epoch, sequence) = producer;
        builder.set_producer(ProducerId(id), ProducerEpoch(epoch), Sequence(sequence));
    }
    for one in records {
        let before = builder.len_bytes();
        builder.push(one).unwrap();
        assert!(builder.len_bytes() - before <= one.encoded_bytes_max());
    }
    builder.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_batch_reads_back(
        records in vec(record(), 1..6),
        producer in (any::<u64>(), any::<u32>(), 0..u64::MAX - 6),
        is_gray: bool,
    ) {
        let bytes = build(&records, producer, is_gray);
        let batch = RecordBatch::check(bytes, &all_limits()).unwrap();
        prop_assert_eq!(batch.count() as usize, records.len());
        prop_assert_eq!(batch.is_gray(), is_gray);
        prop_assert_eq!(batch.producer_id(), ProducerId(producer.0));
        prop_assert_eq!(Some(batch.born_max()), records.iter().map(|one| one.born).max());
        let tags = records.iter().filter_map(|one| one.tag.as_deref());
        prop_assert_eq!(batch.tag_bloom(), bloom_of(tags));
        let read: Vec<_> = batch.records().map(|one| NewRecord::of(&one.unwrap())).collect();
        prop_assert_eq!(read, records);
    }

    /// Wherever the time to live stands, and however the batch is compressed, it is read off it.
    #[test]
    fn the_time_to_live_of_a_batch_is_that_of_its_records(
        records in vec(record(), 1..6), ttl_ms in option::of(any::<u64>()), way in 0_usize..3,
    ) {
        let records: Vec<_> =
            records.into_iter().map(|one| NewRecord { ttl_ms, ..one }).collect();
        let mut builder = BatchBuilder::new(all_limits());
        for one in &records {
            builder.push(one).unwrap();
        }
        builder.compress([Compression::None, Compression::Lz4, Compression::Zstd][way]);
        let batch = RecordBatch::check(builder.finish(), &all_limits()).unwrap();
        prop_assert_eq!(ttl_ms_of(batch.bytes()), ttl_ms);
        let plain = batch.decompressed(&all_limits()).unwrap();
        let first = plain.records().next().unwrap().unwrap();
        prop_assert_eq!(ttl_ms_of(plain.alone(0, &first).bytes()), ttl_ms);
    }

    /// Of any bytes the time to live is read without a panic.
    #[test]
    fn the_time_to_live_of_damaged_bytes_is_no_panic(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), content in bytes(0, 200),
    ) {
        let _ = ttl_ms_of(&content);
        let mut bytes = BytesMut::from(&*samples::scheduled::due_batch());
        for (at, value) in changes {
            let place = at.index(bytes.len());
            bytes[place] = value;
            let _ = ttl_ms_of(&bytes);
        }
    }

    /// A changed byte is always seen: nothing of a batch is outside of its checksum but what is
    /// judged by itself.
    #[test]
    fn a_batch_with_a_changed_byte_is_refused(
        records in vec(record(), 1..4),
        at: prop::sample::Index,
        change in 1_u8..,
    ) {
        let mut bytes = BytesMut::from(&*build(&records, (3, 1, 4), false));
        let place = at.index(bytes.len());
        bytes[place] ^= change;
        prop_assert!(RecordBatch::check(bytes.freeze(), &all_limits()).is_err());
    }

    /// A cut batch is always seen, and so is one with bytes behind it.
    #[test]
    fn a_batch_of_another_length_is_refused(
        records in vec(record(), 1..4),
        at: prop::sample::Index,
        more in bytes(1, 30),
    ) {
        let bytes = build(&records, (0, 0, 0), false);
        let cut = bytes.slice(..at.index(bytes.len()));
        prop_assert!(RecordBatch::check(cut, &all_limits()).is_err());
        let longer = Bytes::from([bytes, more].concat());
        prop_assert!(RecordBatch::check(longer, &all_limits()).is_err());
    }

    /// Behind a checksum that fits, anything may stand: it is refused, or it reads back equal.
    #[test]
    fn a_batch_made_of_anything_is_refused_or_reads_back(
        records in vec(record(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::from(&*build(&records, (3, 1, 4), false));
        for (at, value) in changes {
            let place = at.index(bytes.len());
            bytes[place] = value;
        }
        bytes[0] = 0xb7;
        bytes[1] = 1;
        bytes[2..4].fill(0);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(batch) = RecordBatch::check(bytes.freeze(), &all_limits()) {
            let read: Vec<_> = batch.records().map(|one| NewRecord::of(&one.unwrap())).collect();
            let mut builder = BatchBuilder::new(all_limits());
            for one in &read {
                builder.push(one).unwrap();
            }
            let again = RecordBatch::check(builder.finish(), &all_limits()).unwrap();
            let reread: Vec<_> = again.records().map(|one| NewRecord::of(&one.unwrap())).collect();
            prop_assert_eq!(reread, read);
        }
    }

    /// What the broker did not check does not panic either.
    #[test]
    fn a_batch_read_without_a_check_ends_or_errs(
        records in vec(record(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = BytesMut::from(&*build(&records, (3, 1, 4), false));
        for (at, value) in changes {
            let place = at.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(batch) = RecordBatch::from_log(bytes.freeze()) {
            let read = batch.records().filter_map(Result::ok).map(|one| {
                one.keys().count() + one.headers().count() + one.tag().map_or(0, str::len)
            });
            prop_assert!(read.sum::<usize>() <= batch.bytes().len());
        }
    }

    #[test]
    fn any_frame_reads_back(
        topic in name(), topic_id: u64, queue: u32, timeout_ms: u32, correlation: u64,
        body in bytes(0, 300), rest in bytes(0, 23),
    ) {
        let request = Produce {
            topic, topic_id: TopicId(topic_id), queue: QueueId(queue), timeout_ms,
        };
        let head = FrameHead::request(Opcode::Produce, correlation);
        let mut wire = BytesMut::new();
        frame::encode(head, &request, body.len(), &mut wire).unwrap();
        wire.extend_from_slice(&body);
        wire.extend_from_slice(&rest);
        let read = frame::decode(&mut wire, &FrameLimits::REQUESTS).unwrap().unwrap();
        prop_assert_eq!(read.head, head);
        prop_assert_eq!(read.header::<Produce>(), Ok(request));
        prop_assert_eq!(read.body, body);
        prop_assert_eq!(wire, rest);
    }

    /// A frame has no checksum of its own: a changed byte gives a typed error, waits for more, or
    /// is another sound frame. It never panics, and what is decoded encodes to what was read.
    #[test]
    fn a_frame_with_a_changed_byte_is_refused_or_another_frame(
        sample: prop::sample::Index, at: prop::sample::Index, value: u8,
    ) {
        let frames = samples::frames();
        let mut wire = BytesMut::from(&*frames[sample.index(frames.len())].1);
        let place = at.index(wire.len());
        wire[place] = value;
        if let Ok(Some(read)) = frame::decode(&mut wire, &FrameLimits::REQUESTS) {
            let _ = read.header::<ErrorReply>();
            let _ = read.header::<MetadataReply>();
            let _ = read.header::<RoutesChanged>();
            let _ = read.header::<FetchReply>();
            let _ = read.header::<ListScheduledReply>();
            let _ = read.header::<GroupDeliver>();
            let _ = read.header::<JoinGroup>();
            if let Ok(request) = read.header::<Metadata>() {
                let again = rmp_serde::to_vec(&request).unwrap();
                prop_assert_eq!(frame::decode_header::<Metadata>(&again), Ok(request));
            }
        }
    }

    #[test]
    fn any_word_on_what_became_of_messages_reads_back(
        topic in name(), numbers in any::<[u64; 4]>(), queue: u32, round: u32,
        acks in vec(any::<(u64, u64)>(), 0..9),
        nacks in vec((any::<u64>(), option::of(any::<u64>()), "\\PC{0,20}"), 0..5),
        dead in vec((any::<u64>(), "\\PC{0,20}"), 0..5),
        unseen_from in option::of(any::<u64>()), in_work in vec(any::<(u64, u64)>(), 0..4),
    ) {
        let [topic_id, group_id, member, generation] = numbers;
        let range = |(from, to)| OffsetRange { from: Offset(from), to: Offset(to) };
        let nack = |(offset, retry_after_ms, reason)| {
            Nack { offset: Offset(offset), retry_after_ms, reason }
        };
        let mark = |(offset, reason)| DeadMark { offset: Offset(offset), reason };
        let ack = AckMessages {
            topic,
            topic_id: TopicId(topic_id),
            queue: QueueId(queue),
            group_id: GroupId(group_id),
            member: MemberId(member),
            generation: Generation(generation),
            round,
            acks: acks.into_iter().map(range).collect(),
            nacks: nacks.into_iter().map(nack).collect(),
            dead: dead.into_iter().map(mark).collect(),
            unseen_from: unseen_from.map(Offset),
            in_work: in_work.into_iter().map(range).collect(),
        };
        let bytes = rmp_serde::to_vec(&ack).unwrap();
        prop_assert_eq!(frame::decode_header::<AckMessages>(&bytes), Ok(ack));
    }

    #[test]
    fn any_bytes_are_no_panic(content in bytes(0, 300)) {
        let mut buffer = BytesMut::from(&*content);
        let _ = frame::bytes_missing(&buffer, &FrameLimits::REQUESTS);
        let _ = frame::decode(&mut buffer, &FrameLimits::REQUESTS);
        let _ = frame::decode_header::<Metadata>(&content);
        let _ = frame::decode_header::<MetadataReply>(&content);
        let _ = frame::decode_header::<RoutesChanged>(&content);
        let _ = frame::decode_header::<FindMessages>(&content);
        let _ = frame::decode_header::<FindMessagesReply>(&content);
        let _ = frame::decode_header::<CloseProducer>(&content);
        let _ = frame::decode_header::<ListClients>(&content);
        let _ = frame::decode_header::<ListClientsReply>(&content);
        let _ = frame::decode_header::<DescribeShardsReply>(&content);
        let _ = frame::decode_header::<HandOverShards>(&content);
        let _ = frame::decode_header::<HandOverShardsReply>(&content);
        let _ = frame::decode_header::<ChangeReplicas>(&content);
        let _ = frame::decode_header::<ChangeReplicasReply>(&content);
        let _ = frame::decode_header::<RegisterBroker>(&content);
        let _ = frame::decode_header::<RecallMessage>(&content);
        let _ = frame::decode_header::<ListScheduled>(&content);
        let _ = frame::decode_header::<ListScheduledReply>(&content);
        let _ = frame::decode_header::<CountScheduled>(&content);
        let _ = frame::decode_header::<CountScheduledReply>(&content);
        let _ = frame::decode_header::<ShowScheduled>(&content);
        let _ = frame::decode_header::<ShowScheduledReply>(&content);
        let _ = frame::decode_header::<CreateSchedule>(&content);
        let _ = frame::decode_header::<ListSchedules>(&content);
        let _ = frame::decode_header::<ListSchedulesReply>(&content);
        let _ = frame::decode_header::<AlterSchedule>(&content);
        let _ = frame::decode_header::<DeleteSchedule>(&content);
        let _ = frame::decode_header::<JoinGroup>(&content);
        let _ = frame::decode_header::<JoinGroupReply>(&content);
        let _ = frame::decode_header::<GroupHeartbeat>(&content);
        let _ = frame::decode_header::<GroupHeartbeatReply>(&content);
        let _ = frame::decode_header::<LeaveGroup>(&content);
        let _ = frame::decode_header::<AssignQueues>(&content);
        let _ = frame::decode_header::<ClaimQueue>(&content);
        let _ = frame::decode_header::<ClaimQueueReply>(&content);
        let _ = frame::decode_header::<AckMessages>(&content);
        let _ = frame::decode_header::<SubscribeGroup>(&content);
        let _ = frame::decode_header::<GroupDeliver>(&content);
        let _ = frame::decode_header::<ListGroupsReply>(&content);
        let _ = frame::decode_header::<DescribeGroupReply>(&content);
        let _ = frame::decode_header::<ResetGroup>(&content);
        let _ = frame::decode_header::<GroupProgress>(&content);
        let _ = frame::decode_header::<GroupProgressReply>(&content);
        let _ = frame::decode_header::<RedriveDeadLetters>(&content);
        let _ = frame::decode_header::<PurgeDeadLetters>(&content);
        let _ = frame::decode_header::<ListDeadLetters>(&content);
        let _ = frame::decode_header::<ListDeadLettersReply>(&content);
        let _ = frame::decode_header::<OpenPeer>(&content);
        let _ = frame::decode_header::<OpenPeerReply>(&content);
        let _ = frame::decode_header::<ShardMessage>(&content);
        let _ = frame::decode_header::<ErrorReply>(&content);
        let _ = RecordBatch::from_log(content.clone());
        let _ = RecordBatch::check(content, &BatchLimits::FORMAT);
    }
}
