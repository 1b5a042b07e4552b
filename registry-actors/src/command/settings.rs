//! Settings of topics as commands and parts have them, and changes of them as they come.

use grus_protocol::ids::Durability;
use grus_protocol::message::{
    self, DEDUP_WINDOW_MS_DEFAULT, ExpiredPolicy, TopicKind, TopicSettings, WhenFull,
};
use serde::{Deserialize, Serialize};

use super::AlterTopic;

/// [`TopicSettings`] as they are stored: named, so that they can grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredSettings {
    queues: u32,
    durability: Durability,
    retention_ms: u64,
    retention_bytes: u64,
    kind: TopicKind,
    /// Left out where it is the default, as in topics that were made before there was one.
    #[serde(default = "dedup_window_ms_default", skip_serializing_if = "is_default_window")]
    dedup_window_ms: u64,
    #[serde(default = "expired_default", skip_serializing_if = "is_default_expired")]
    expired: ExpiredPolicy,
    /// Left out where it is 1, as in topics that were made before there was one.
    #[serde(default = "one_replica", skip_serializing_if = "is_one_replica")]
    replicas: u32,
    /// Left out, as what follows, where it is the default, as in topics of before there was one.
    #[serde(default, skip_serializing_if = "is_none_of")]
    retention_messages: u64,
    #[serde(default = "drop_oldest", skip_serializing_if = "drops_oldest")]
    when_full: WhenFull,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_none_of(messages: &u64) -> bool {
    *messages == 0
}

const fn drop_oldest() -> WhenFull {
    WhenFull::DropOldest
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn drops_oldest(when_full: &WhenFull) -> bool {
    *when_full == WhenFull::DropOldest
}

const fn expired_default() -> ExpiredPolicy {
    ExpiredPolicy::Drop
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_default_expired(expired: &ExpiredPolicy) -> bool {
    *expired == ExpiredPolicy::Drop
}

const fn one_replica() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one_replica(replicas: &u32) -> bool {
    *replicas == 1
}

const fn dedup_window_ms_default() -> u64 {
    DEDUP_WINDOW_MS_DEFAULT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_default_window(dedup_window_ms: &u64) -> bool {
    *dedup_window_ms == DEDUP_WINDOW_MS_DEFAULT
}

impl From<&TopicSettings> for StoredSettings {
    fn from(settings: &TopicSettings) -> Self {
        let TopicSettings {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
            expired,
            replicas,
            retention_messages,
            when_full,
        } = *settings;
        Self {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
            expired,
            replicas,
            retention_messages,
            when_full,
        }
    }
}

impl From<&StoredSettings> for TopicSettings {
    fn from(stored: &StoredSettings) -> Self {
        let StoredSettings {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
            expired,
            replicas,
            retention_messages,
            when_full,
        } = *stored;
        Self {
            queues,
            durability,
            retention_ms,
            retention_bytes,
            kind,
            dedup_window_ms,
            expired,
            replicas,
            retention_messages,
            when_full,
        }
    }
}

impl From<message::AlterTopic> for AlterTopic {
    fn from(asked: message::AlterTopic) -> Self {
        let message::AlterTopic {
            name,
            topic_id: id,
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        } = asked;
        Self {
            name,
            id,
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        }
    }
}

impl From<AlterTopic> for message::AlterTopic {
    fn from(alter: AlterTopic) -> Self {
        let AlterTopic {
            name,
            id: topic_id,
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        } = alter;
        Self {
            name,
            topic_id,
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        }
    }
}
