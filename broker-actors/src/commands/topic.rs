//! TopicConfig: what a topic is to one shard. Its layout stands in [`commands`](super).

use bytes::{BufMut, BytesMut};
use grus_protocol::ids::{Durability, QueueId, TimestampMs, TopicId};
use grus_protocol::message::{DEDUP_WINDOW_MS_DEFAULT, ExpiredPolicy, WhenFull};
use grus_protocol::names::TopicName;

use super::ITEM_QUEUES_MAX;
use crate::codec::{CodecError, Decoder, put_text};

/// Of a TopicConfig item, and of a topic's part in a checkpoint.
const TOPIC_CONFIG_VERSION: u8 = 4;
/// The version that knows caps by age and bytes alone, at which the oldest go.
const TOPIC_CONFIG_UNCAPPED: u8 = 3;
/// The version that besides does not say when the settings were given.
const TOPIC_CONFIG_UNDATED: u8 = 2;

/// What a topic is to one shard: the part of its settings that apply needs, as an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// Its name, for people and for listings.
    pub name: TopicName,
    /// The queues of the topic that this shard hosts, ascending.
    pub queues: Vec<QueueId>,
    /// The level its receipts name; equal to the shard's.
    pub durability: Durability,
    /// Messages older than this (milliseconds since they were stored) go; 0 keeps them for ever.
    pub retention_ms: u64,
    /// Bytes kept per queue; 0 means no bound.
    pub retention_bytes: u64,
    /// The registry's number for the kind of topic (normal, delayed and so on).
    pub kind: u8,
    /// How long a dedup key is remembered, in milliseconds; 0: messages with one are refused.
    pub dedup_window_ms: u64,
    /// What becomes of messages whose time to live is over.
    pub expired: ExpiredPolicy,
    /// When these settings were given, as the routes say: older ones never replace newer ones. 0: it
    /// is not known.
    pub altered: TimestampMs,
    /// Messages kept per queue; 0 means no bound.
    pub retention_messages: u64,
    /// What becomes of a batch that finds its queue at its cap by bytes or messages.
    pub when_full: WhenFull,
}

impl TopicConfig {
    /// Persisted, of the first kind, kept for ever, without dedup; what is expired is dropped.
    pub fn plain(topic: TopicId, name: TopicName, queues: Vec<QueueId>) -> Self {
        Self {
            topic,
            name,
            queues,
            durability: Durability::Persisted,
            retention_ms: 0,
            retention_bytes: 0,
            kind: 0,
            dedup_window_ms: 0,
            expired: ExpiredPolicy::Drop,
            altered: TimestampMs(0),
            retention_messages: 0,
            when_full: WhenFull::DropOldest,
        }
    }
}

/// Writes the item; also the value of a topic's part in a checkpoint. What was read from an earlier
/// version is written as that: digests are over these bytes, and stay those that its writer made.
pub(crate) fn encode_topic_config(config: &TopicConfig, out: &mut BytesMut) {
    let is_capped = config.retention_messages > 0 || config.when_full != WhenFull::DropOldest;
    let is_dated = config.altered != TimestampMs(0) || is_capped;
    out.put_u8(match (is_capped, is_dated) {
        (true, _) => TOPIC_CONFIG_VERSION,
        (false, true) => TOPIC_CONFIG_UNCAPPED,
        (false, false) => TOPIC_CONFIG_UNDATED,
    });
    out.put_u8(config.kind);
    out.put_u8(durability_code(config.durability));
    out.put_u8(config.expired.number());
    out.put_u64_le(config.topic.0);
    out.put_u64_le(config.retention_ms);
    out.put_u64_le(config.retention_bytes);
    put_text(out, config.name.as_str());
    let count = u32::try_from(config.queues.len()).expect("queues of a topic are bounded");
    out.put_u32_le(count);
    for queue in &config.queues {
        out.put_u32_le(queue.0);
    }
    out.put_u64_le(config.dedup_window_ms);
    if is_dated {
        out.put_u64_le(config.altered.0);
    }
    if is_capped {
        out.put_u64_le(config.retention_messages);
        out.put_u8(config.when_full.number());
    }
}

/// Reads what [`encode_topic_config`] wrote.
pub(crate) fn decode_topic_config(mut decoder: Decoder) -> Result<TopicConfig, CodecError> {
    let version = decoder.u8()?;
    if !(1..=TOPIC_CONFIG_VERSION).contains(&version) {
        return Err(CodecError::Version(version));
    }
    let kind = decoder.u8()?;
    let durability = durability_of(decoder.u8()?)?;
    let expired = ExpiredPolicy::from_number(decoder.u8()?);
    let expired = expired.ok_or(CodecError::Value("policy for what is expired"))?;
    let topic = TopicId(decoder.u64()?);
    let retention_ms = decoder.u64()?;
    let retention_bytes = decoder.u64()?;
    let name = topic_name(&decoder.text("topic name")?)?;
    let count = decoder.u32()?;
    if count > ITEM_QUEUES_MAX {
        return Err(CodecError::Value("queue count"));
    }
    let mut queues = Vec::new();
    for _ in 0..count {
        queues.push(QueueId(decoder.u32()?));
    }
    let dedup_window_ms = if version == 1 { DEDUP_WINDOW_MS_DEFAULT } else { decoder.u64()? };
    let altered = TimestampMs(if version <= TOPIC_CONFIG_UNDATED { 0 } else { decoder.u64()? });
    let (mut retention_messages, mut when_full) = (0, WhenFull::DropOldest);
    if version > TOPIC_CONFIG_UNCAPPED {
        retention_messages = decoder.u64()?;
        let known = WhenFull::from_number(decoder.u8()?);
        when_full = known.ok_or(CodecError::Value("policy for what finds its queue full"))?;
    }
    decoder.finish()?;
    Ok(TopicConfig {
        topic,
        name,
        queues,
        durability,
        retention_ms,
        retention_bytes,
        kind,
        dedup_window_ms,
        expired,
        altered,
        retention_messages,
        when_full,
    })
}

/// That of a shard, which never is memory.
const fn durability_code(durability: Durability) -> u8 {
    match durability {
        Durability::Persisted => 0,
        Durability::Replicated | Durability::Memory => 1,
    }
}

const fn durability_of(code: u8) -> Result<Durability, CodecError> {
    match code {
        0 => Ok(Durability::Persisted),
        1 => Ok(Durability::Replicated),
        _ => Err(CodecError::Value("durability")),
    }
}

/// A name out of the log: a user's, or a system name with its `%WORD%` prefix.
fn topic_name(text: &str) -> Result<TopicName, CodecError> {
    TopicName::parse_any(text).map_err(|_| CodecError::Value("topic name"))
}
