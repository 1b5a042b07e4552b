//! The requests of a reader, and what their answers hold, as bytes. No clock, no I/O.

use bytes::BytesMut;
use grus_protocol::message::{
    Credit, Deliver, Fetch, FetchReply, FetchedBatch, ListAt, ListOffsets, Subscribe, SubscribeAt,
    Unsubscribe,
};
use grus_protocol::{Frame, RecordBatch, SubscriptionId, TopicId};

use super::asking::{Ask, Asking};
use super::cursor::{Content, Fetched, Want};
use crate::config::{ReaderConfig, StartAt, millis};
use crate::link::{encode, encode_one_way};

/// The id of a subscription: one in its connection, since `owner` is one in its client.
pub(crate) fn subscription_id(owner: u32, number: u64) -> SubscriptionId {
    SubscriptionId(u64::from(owner) << 32 | number & u64::from(u32::MAX))
}

/// The number within its owner of the subscription that a push is for.
pub(crate) fn number_of(push: &Frame) -> u64 {
    push.head.correlation & u64::from(u32::MAX)
}

/// The frame that asks for it.
pub(crate) fn frame_of(
    asking: &Asking,
    config: &ReaderConfig,
    topic_id: TopicId,
    owner: u32,
) -> BytesMut {
    let (topic, queue) = (config.topic.clone(), asking.queue);
    match (asking.ask, asking.want) {
        (Ask::Once { bytes_max }, Want::Fetch(offset, last_term)) => {
            let wait_ms = u32::try_from(millis(config.poll_wait)).unwrap_or(u32::MAX);
            encode(&Fetch { topic, topic_id, queue, offset, last_term, bytes_max, wait_ms }, 0)
        }
        (Ask::Once { .. }, Want::Locate(start)) => {
            let at = match start {
                StartAt::First | StartAt::Offset(_) => ListAt::First,
                StartAt::Last => ListAt::Last,
                StartAt::Time(time) => ListAt::Time(time),
            };
            encode(&ListOffsets { topic, topic_id, queue, at }, 0)
        }
        (Ask::Subscribe { credit }, want) => {
            let at = match want {
                Want::Fetch(offset, term) => SubscribeAt::Offset(offset, term),
                Want::Locate(StartAt::First | StartAt::Offset(_)) => SubscribeAt::First,
                Want::Locate(StartAt::Last) => SubscribeAt::Last,
                Want::Locate(StartAt::Time(time)) => SubscribeAt::Time(time),
            };
            let subscription = subscription_id(owner, asking.number);
            let (credit_messages, credit_bytes) = credit;
            let subscribe = Subscribe {
                subscription,
                topic,
                topic_id,
                queue,
                at,
                credit_messages,
                credit_bytes,
            };
            encode(&subscribe, 0)
        }
    }
}

/// The frame that gives a subscription more credit.
pub(crate) fn credit_frame(owner: u32, number: u64, (messages, bytes): (u32, u32)) -> BytesMut {
    let subscription = subscription_id(owner, number);
    encode_one_way(&Credit { subscription, messages, bytes }, 0)
}

/// The frame that ends a subscription.
pub(crate) fn unsubscribe_frame(owner: u32, number: u64) -> BytesMut {
    encode_one_way(&Unsubscribe { subscription: subscription_id(owner, number) }, 0)
}

/// The batches of a fetch's answer.
pub(crate) fn fetched(reply: &FetchReply, frame: &Frame) -> Result<Vec<Fetched>, String> {
    split(&reply.batches, frame)
}

/// The batches of a push.
pub(crate) fn delivered(push: &Deliver, frame: &Frame) -> Result<Vec<Fetched>, String> {
    split(&push.batches, frame)
}

/// Cuts the body into its batches.
pub(crate) fn split(heads: &[FetchedBatch], frame: &Frame) -> Result<Vec<Fetched>, String> {
    let mut body = frame.body.clone();
    let mut batches = Vec::with_capacity(heads.len());
    for head in heads {
        let length = head.length as usize;
        if length > body.len() {
            return Err("the batches are longer than the answer".to_owned());
        }
        let bytes = body.split_to(length);
        let content = match head.expired {
            0 => Content::Batch(RecordBatch::from_log(bytes).map_err(|error| error.to_string())?),
            count => Content::Expired(count),
        };
        let (base_offset, term, stored) = (head.base_offset, head.term, head.stored);
        batches.push(Fetched { base_offset, term, stored, content });
    }
    if body.is_empty() { Ok(batches) } else { Err("the answer has bytes left over".to_owned()) }
}
