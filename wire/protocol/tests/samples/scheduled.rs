//! Samples of what is scheduled.

use bytes::Bytes;
use grus_protocol::message::{
    CountScheduled, CountScheduledReply, LATEST, ListScheduled, ListScheduledReply, RecallMessage,
    RecallMessageReply, Request, Scheduled, ScheduledPlace, ShowScheduled, ShowScheduledReply,
    Timer,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, FrameHead, NewRecord, QueueId, RecordBatch, ShardId, TimestampMs,
    TopicId,
};
use serde_bytes::ByteBuf;

use super::{BORN, all_limits, id, pair, topic, whole};

const TOPIC_ID: TopicId = TopicId(0x0123_4567_89ab_cdef);
const QUEUE: QueueId = QueueId(1);
const SHARD: ShardId = ShardId(3);
/// When the samples are due.
pub const DUE: TimestampMs = TimestampMs(1_800_000_000_000);

/// The timer of the samples.
pub fn timer() -> Timer {
    Timer { index: 70_000, place: 3 }
}

/// Two messages that are due at one time and another, and live for a minute from then on.
pub fn due_batch() -> Bytes {
    let mut builder = BatchBuilder::new(all_limits());
    for number in [9, 10] {
        builder
            .push(&NewRecord {
                deliver_at: Some(TimestampMs(DUE.0 + u64::from(number) - 9)),
                ttl_ms: Some(60_000),
                keys: vec![Bytes::from_static(b"order-17")],
                ..NewRecord::new(id(number), BORN, "later")
            })
            .unwrap();
    }
    builder.finish()
}

/// A message that is due ten seconds after the broker took it.
pub fn delayed_batch() -> Bytes {
    let mut builder = BatchBuilder::new(all_limits());
    let delayed = NewRecord { delay_ms: Some(10_000), ..NewRecord::new(id(11), BORN, "soon") };
    builder.push(&delayed).unwrap();
    builder.finish()
}

/// The first message of [`due_batch`] by itself.
fn alone() -> Bytes {
    let batch = RecordBatch::check(due_batch(), &BatchLimits::FORMAT).unwrap();
    let first = batch.records().next().unwrap().unwrap();
    batch.alone(0, &first).into_bytes()
}

fn scheduled(number: u32, length: usize) -> Scheduled {
    Scheduled {
        topic: topic(),
        topic_id: TOPIC_ID,
        queue: QUEUE,
        shard: SHARD,
        timer: timer().nth(number),
        due: TimestampMs(DUE.0 + u64::from(number)),
        length: u32::try_from(length).unwrap(),
    }
}

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let (topic_id, queue) = (TOPIC_ID, QUEUE);
    let timers = vec![timer(), timer().nth(1)];
    let recall = RecallMessage { topic: topic(), topic_id, queue, timers };
    pair(out, &recall, &RecallMessageReply { recalled: vec![true, false] }, [b"", b""]);
    let place = ScheduledPlace { due: DUE, shard: SHARD, timer: timer() };
    let list = ListScheduled {
        topic: Some(topic()),
        topic_id,
        queue: Some(queue),
        from: BORN,
        until: TimestampMs(DUE.0 + 1),
        key: Some(ByteBuf::from("order-17")),
        after: Some(place),
        messages_max: 2,
        with_bodies: true,
    };
    let listed = ListScheduledReply {
        messages: vec![scheduled(0, alone().len()), scheduled(1, 0)],
        next: Some(place),
    };
    pair(out, &list, &listed, [b"", &alone()]);
    let all = ListScheduled {
        topic: None,
        topic_id: TopicId::UNKNOWN,
        queue: None,
        from: TimestampMs(0),
        until: LATEST,
        key: None,
        after: None,
        messages_max: 0,
        with_bodies: false,
    };
    let head = FrameHead::request(ListScheduled::OPCODE, 0x0102_0304_0506_073d);
    out.push(("ListScheduled.all".into(), whole(head, &all, b"")));
    let count = CountScheduled {
        topic: Some(topic()),
        topic_id,
        queue: Some(queue),
        from: BORN,
        until: LATEST,
    };
    pair(out, &count, &CountScheduledReply { messages: 70_000 }, [b"", b""]);
    let show = ShowScheduled { topic: topic(), topic_id, queue, timer: timer() };
    let shown = ShowScheduledReply { scheduled: scheduled(0, alone().len()) };
    pair(out, &show, &shown, [b"", &alone()]);
}
