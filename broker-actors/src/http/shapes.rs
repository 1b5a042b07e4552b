//! The JSON of the API. Field names are part of it: docs/HTTP.md. Pure.

use grus_registry::RemoteState;
use serde::Serialize;

use crate::registry_link::routes::TopicRoute;
use crate::shard::ShardStatus;
use crate::topic_queue::QueueStatus;

/// `GET /health`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// `ok`, or `unavailable` while a shard cannot serve.
    pub status: &'static str,
    /// The broker's id.
    pub broker_id: u64,
    /// The program's version.
    pub version: &'static str,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Connections open.
    pub connections: i64,
    /// Topics served.
    pub topics: usize,
    /// Its registry.
    pub registry: RegistryHealth,
    /// Its shards.
    pub shards: Vec<ShardHealth>,
    /// Those that should be here and cannot be started.
    pub failed: Vec<FailedHealth>,
}

/// A shard that cannot be started, in [`Health`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailedHealth {
    /// Its number.
    pub shard: u32,
    /// Why, and what can be done.
    pub reason: String,
}

/// How things stand with the registry, in [`Health`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryHealth {
    /// `embedded`, or `remote`: a process of its own.
    pub mode: &'static str,
    /// `ok`; `away`: messages go on, topics cannot be changed; `refused`: it does not take this
    /// broker.
    pub state: &'static str,
    /// Why, unless it is ok.
    pub reason: Option<String>,
}

impl RegistryHealth {
    /// Of a registry in this process (none), or of one that is a process of its own.
    #[must_use]
    pub fn of(remote: Option<RemoteState>) -> Self {
        let (mode, (state, reason)) = match remote {
            None => ("embedded", ("ok", None)),
            Some(RemoteState::Registered { .. }) => ("remote", ("ok", None)),
            Some(RemoteState::Away { reason }) => ("remote", ("away", Some(reason))),
            Some(RemoteState::Refused(error)) => ("remote", ("refused", Some(error.to_string()))),
        };
        Self { mode, state, reason }
    }
}

/// One shard in [`Health`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a field that is told")]
pub struct ShardHealth {
    /// Its number.
    pub shard: u32,
    /// `persisted` or `replicated`.
    pub durability: String,
    /// Whether it serves: of a shard of several brokers, whether this one leads it.
    pub ready: bool,
    /// Whether several brokers have it.
    pub replicated: bool,
    /// The broker that leads it, as far as is known here.
    pub leader: Option<u64>,
    /// The term of that.
    pub term: u64,
    /// Where this broker leads it: members that do not answer, or are far behind.
    pub members_behind: usize,
    /// Whether this member has lost what it promised, and does not vote before it has caught up.
    pub amnesiac: bool,
    /// Whether producers are refused for want of disk space.
    pub disk_full: bool,
    /// Queues on it.
    pub queues: usize,
    /// Segments of its log.
    pub segments: u64,
    /// Bytes of its log on disk.
    pub log_bytes: u64,
}

impl From<&ShardStatus> for ShardHealth {
    fn from(status: &ShardStatus) -> Self {
        Self {
            shard: status.shard.0,
            durability: status.durability.to_string(),
            ready: status.is_ready,
            replicated: status.is_replicated,
            leader: status.leader,
            term: status.term.0,
            members_behind: status.members_behind(),
            amnesiac: status.is_amnesiac,
            disk_full: status.disk_full,
            queues: status.queues,
            segments: status.segments,
            log_bytes: status.log_bytes,
        }
    }
}

/// One item of `GET /queue/list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueItem {
    /// The topic's name.
    pub topic: String,
    /// The queue's number in it.
    pub queue_id: u32,
    /// Offset the next message gets.
    pub write_pointer: u64,
    /// Offset up to which messages are on disk.
    pub flush_pointer: u64,
    /// Messages that can be read.
    pub message_number: u64,
    /// When a message was last stored, in milliseconds since 1970; 0 = never.
    pub last_modified_time: u64,
    /// `durable`, `temporary` or `delay`.
    pub r#type: String,
}

impl QueueItem {
    /// A queue with its numbers.
    #[must_use]
    pub fn of(topic: &TopicRoute, status: &QueueStatus) -> Self {
        Self {
            topic: topic.name.to_string(),
            queue_id: status.key.queue.0,
            write_pointer: status.end_offset.0,
            flush_pointer: status.durable_end.0,
            message_number: status.messages,
            last_modified_time: status.last_modified.0,
            r#type: topic.settings.kind.to_string(),
        }
    }

    /// Its place among all queues, as in `orders/3`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/{}", self.topic, self.queue_id)
    }
}

/// One item of `GET /topics`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicItem {
    /// Its name.
    pub name: String,
    /// Its incarnation, as text: it has more digits than a JavaScript number.
    pub topic_id: String,
    /// `durable`, `temporary` or `delay`.
    pub r#type: String,
    /// `persisted` or `replicated`; `memory` where it is temporary.
    pub durability: String,
    /// Queues of it.
    pub queues: usize,
    /// Queues of it that could not answer at this moment.
    pub queues_silent: usize,
    /// Age at which messages go, in milliseconds; 0 = never.
    pub retention_ms: u64,
    /// Bytes of a queue above which its oldest messages go; 0 = no cap.
    pub retention_bytes: u64,
    /// Messages of a queue above which its oldest ones go; 0 = no cap.
    pub retention_messages: u64,
    /// `drop_oldest` or `reject`: what becomes of a message that finds its queue at its cap.
    pub when_full: String,
    /// `drop` or `dead_letter`: what becomes of messages whose time to live is over.
    pub expired: String,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// Messages that can be read.
    pub messages: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// When a message was last stored, in milliseconds since 1970; 0 = never.
    pub last_modified_time: u64,
}

impl TopicItem {
    /// A topic with the numbers of its queues.
    #[must_use]
    pub fn of(topic: &TopicRoute, queues: &[Option<QueueStatus>]) -> Self {
        let known = || queues.iter().flatten();
        Self {
            name: topic.name.to_string(),
            topic_id: topic.id.to_string(),
            r#type: topic.settings.kind.to_string(),
            durability: topic.settings.durability.to_string(),
            queues: queues.len(),
            queues_silent: queues.iter().filter(|queue| queue.is_none()).count(),
            retention_ms: topic.settings.retention_ms,
            retention_bytes: topic.settings.retention_bytes,
            retention_messages: topic.settings.retention_messages,
            when_full: topic.settings.when_full.to_string(),
            expired: topic.settings.expired.to_string(),
            created: topic.created.0,
            messages: known().map(|queue| queue.messages).sum(),
            bytes: known().map(|queue| queue.bytes).sum(),
            last_modified_time: known().map(|queue| queue.last_modified.0).max().unwrap_or(0),
        }
    }
}

/// `GET /messages`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage {
    /// The topic's name.
    pub topic: String,
    /// The queue's number in it.
    pub queue_id: u32,
    /// The first offset there is.
    pub log_start: u64,
    /// The offset the next message gets.
    pub end_offset: u64,
    /// Where to go on; nothing at the end of the queue.
    pub next: Option<u64>,
    /// The messages.
    pub messages: Vec<MessageItem>,
}

/// One message.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageItem {
    /// Its offset.
    pub offset: u64,
    /// Its id.
    pub id: String,
    /// When it was made, by the producer's clock, in milliseconds since 1970.
    pub born_time: u64,
    /// When it was stored, in milliseconds since 1970.
    pub store_time: u64,
    /// 0 to 9.
    pub priority: u8,
    /// Its tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Its keys.
    pub keys: Vec<Piece>,
    /// Its headers.
    pub headers: Vec<HeaderItem>,
    /// The key that its order holds by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_key: Option<Piece>,
    /// The key that it is stored once by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dedup_key: Option<Piece>,
    /// When it is due, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<u64>,
    /// How long after the broker took it it was due, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// How long it is worth something, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Its lane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    /// How often it was delivered again.
    pub retry_count: u32,
    /// Where it came from, when it was moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<MessageOrigin>,
    /// Whether it removes its key.
    pub tombstone: bool,
    /// Who sent it, as text; `0` = a producer without an identity.
    pub producer_id: String,
    /// The epoch of the producer's life.
    pub producer_epoch: u32,
    /// Bytes of the whole body.
    pub body_bytes: usize,
    /// Whether `body` is only the beginning of it.
    pub truncated: bool,
    /// The body.
    pub body: Piece,
}

/// Some bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Piece {
    /// The text, or the bytes in base64.
    pub value: String,
    /// `utf-8` or `base64`.
    pub encoding: &'static str,
}

/// A header of a message.
#[derive(Debug, Clone, Serialize)]
pub struct HeaderItem {
    /// Its name.
    pub name: String,
    /// Its value.
    #[serde(flatten)]
    pub value: Piece,
}

/// Where a message was first.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageOrigin {
    /// The topic's name.
    pub topic: String,
    /// The queue's number in it.
    pub queue_id: u32,
    /// Its offset there.
    pub offset: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_has_the_documented_fields() {
        let item = QueueItem {
            topic: "t".into(),
            queue_id: 1,
            write_pointer: 2,
            flush_pointer: 3,
            message_number: 4,
            last_modified_time: 5,
            r#type: "durable".into(),
        };
        let json = serde_json::to_string(&item).unwrap();
        assert_eq!(
            json,
            r#"{"topic":"t","queueId":1,"writePointer":2,"flushPointer":3,"messageNumber":4,"lastModifiedTime":5,"type":"durable"}"#
        );
    }
}
