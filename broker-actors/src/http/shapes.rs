//! The JSON of the API. Field names are part of it: docs/HTTP.md. Pure.

use grus_mailbox::{ActorReport, Census, KindReport};
use serde::Serialize;

use crate::registry_link::routes::TopicRoute;
use crate::shard::ShardStatus;
use crate::topic_queue::QueueStatus;

/// An error.
#[derive(Debug, Clone, Serialize)]
pub struct ErrorBody {
    /// What is wrong, in one line.
    pub error: String,
}

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
    /// Its shards.
    pub shards: Vec<ShardHealth>,
}

/// One shard in [`Health`].
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardHealth {
    /// Its number.
    pub shard: u32,
    /// `persisted` or `replicated`.
    pub durability: String,
    /// Whether it serves.
    pub ready: bool,
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
            disk_full: status.disk_full,
            queues: status.queues,
            segments: status.segments,
            log_bytes: status.log_bytes,
        }
    }
}

/// `GET /actors`
#[derive(Debug, Clone, Serialize)]
pub struct Actors {
    /// All of a kind together.
    pub kinds: Vec<KindReport>,
    /// Each one.
    pub actors: Vec<ActorReport>,
}

impl Actors {
    /// The present actors.
    #[must_use]
    pub fn of(census: &Census) -> Self {
        let actors = census.snapshot();
        Self { kinds: Census::by_kind(&actors), actors }
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
}

/// The index: what is served, for people who look.
pub const INDEX_HTML: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Grus broker</title></head><body>
<h1>Grus broker</h1>
<ul>
<li><a href=\"/health\">/health</a>: whether it serves</li>
<li><a href=\"/queue/list\">/queue/list</a>: every queue with its pointers</li>
<li><a href=\"/actors\">/actors</a>: every actor, how full its inbox is, how busy it is</li>
<li><a href=\"/metrics\">/metrics</a>: counters for Prometheus</li>
</ul>
<p>Described in docs/HTTP.md. Clients connect to the broker's own port, not to this one.</p>
</body></html>
";

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
