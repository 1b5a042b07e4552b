//! The routing table: which shard holds which queue, and which broker leads which shard.

use std::collections::BTreeMap;
use std::sync::Arc;

use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, Offset, QueueId, QueueKey, ShardId, TimestampMs, TopicId,
};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;

/// All routes at one version. A value: cheap to share, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingTable {
    /// Grows with every change.
    pub version: u64,
    /// Every topic, by name.
    pub topics: BTreeMap<TopicName, Arc<TopicRoutes>>,
    /// Every broker.
    pub brokers: BTreeMap<BrokerId, BrokerAddress>,
    /// Every shard.
    pub shards: BTreeMap<ShardId, ShardPlace>,
}

/// One topic and where its queues are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRoutes {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// How it is kept; `queues` is the length of the field of that name.
    pub settings: TopicSettings,
    /// When it was made.
    pub created: TimestampMs,
    /// By queue number: the shards that hold it, by offset. Never empty; the first span begins at
    /// 0, and the last one takes new messages.
    pub queues: Vec<Vec<RouteSpan>>,
}

/// A shard holds a queue from this offset on, up to where the next span begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteSpan {
    /// The shard.
    pub shard: ShardId,
    /// Its first offset of the queue.
    pub from: Offset,
}

/// Where a shard is, and what it promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardPlace {
    /// What an acknowledgement of it promises.
    pub durability: Durability,
    /// The broker that leads it.
    pub broker: BrokerId,
    /// Whether new queues may be placed on it.
    pub open: bool,
}

impl TopicRoutes {
    /// The shard that takes new messages of a queue.
    pub fn shard_of(&self, queue: QueueId) -> Option<ShardId> {
        self.queues.get(queue.0 as usize)?.last().map(|span| span.shard)
    }

    /// The queues that a shard takes new messages of, by number.
    pub fn queues_on(&self, shard: ShardId) -> Vec<QueueId> {
        (0..)
            .map(QueueId)
            .zip(&self.queues)
            .filter(|(_, spans)| spans.last().is_some_and(|span| span.shard == shard))
            .map(|(queue, _)| queue)
            .collect()
    }
}

impl RoutingTable {
    /// The topic of an incarnation. Looks at all of them.
    pub fn by_id(&self, id: TopicId) -> Option<&Arc<TopicRoutes>> {
        self.topics.values().find(|topic| topic.id == id)
    }

    /// Every queue a shard takes new messages of.
    pub fn queues_of(&self, shard: ShardId) -> Vec<QueueKey> {
        let key = |topic: TopicId| move |queue| QueueKey { topic, queue };
        self.topics
            .values()
            .flat_map(|topic| topic.queues_on(shard).into_iter().map(key(topic.id)))
            .collect()
    }
}
