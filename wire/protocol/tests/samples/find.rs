//! Samples of searches for messages.

use bytes::Bytes;
use grus_protocol::message::{FindBy, FindMessages, FindMessagesReply, FoundMessage, Request};
use grus_protocol::{
    BatchLimits, FrameHead, Offset, QueueId, RecordBatch, Term, TimestampMs, TopicId,
};

use super::{BORN, common_batch, id, pair, plain_batch, topic, whole};

const TOPIC_ID: TopicId = TopicId(0x0123_4567_89ab_cdef);

/// The first message of the common batch, and the plain one, each as a batch of its own.
fn found() -> (Vec<FoundMessage>, Bytes) {
    let common = RecordBatch::check(common_batch(), &BatchLimits::PRODUCE).unwrap();
    let record = common.records().next().unwrap().unwrap();
    let alone = common.alone(0, &record).into_bytes();
    let one = |queue, offset, batch: &Bytes| FoundMessage {
        topic: topic(),
        topic_id: TOPIC_ID,
        queue: QueueId(queue),
        offset: Offset(offset),
        term: Term(5),
        stored: TimestampMs(BORN.0 + offset),
        length: u32::try_from(batch.len()).unwrap(),
    };
    let plain = plain_batch();
    let messages = vec![one(1, 1000, &alone), one(3, 2000, &plain)];
    (messages, [alone, plain].concat().into())
}

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let by = FindBy::Key { topic: topic(), topic_id: TOPIC_ID, key: b"order-17".to_vec() };
    let (messages, body) = found();
    let reply =
        FindMessagesReply { messages, more: true, scanned_bytes: 4096, unsearched_bytes: 77 };
    pair(out, &FindMessages { by, messages_max: 2 }, &reply, [b"", &body]);
    let (topic_id, queue) = (TOPIC_ID, QueueId(1));
    let time = |queue| FindBy::Time { topic: topic(), topic_id, time: BORN, queue };
    for (name, by) in [
        ("id", FindBy::Id(id(2))),
        ("offset", FindBy::Offset { topic: topic(), topic_id, queue, offset: Offset(1000) }),
        ("time", time(None)),
        ("time_in_queue", time(Some(queue))),
    ] {
        let head = FrameHead::request(FindMessages::OPCODE, 0x0102_0304_0506_0712);
        let request = FindMessages { by, messages_max: 0 };
        out.push((format!("FindMessages.{name}"), whole(head, &request, b"")));
    }
}
