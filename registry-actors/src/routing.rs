//! The routing table: which shard holds which queue, which broker leads which shard, and which
//! brokers are live.

pub mod change;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, Offset, QueueId, QueueKey, ShardId, Term, TimestampMs,
    TopicId,
};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;

/// Most queues in one reply of routes, of a registry and of a broker: they fit a frame, and are
/// written without holding others up. A topic that is named twice counts twice.
pub const METADATA_QUEUES_MAX: usize = 100_000;

/// What is answered to one who asks for more than [`METADATA_QUEUES_MAX`].
#[must_use]
pub fn metadata_too_large() -> ErrorReply {
    let text = format!("more than {METADATA_QUEUES_MAX} queues: ask by name, or ListTopics");
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

/// All routes at one version. A value: cheap to share, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutingTable {
    /// Which registry speaks: drawn when its data was made, never 0 once it serves. Versions of
    /// two registries cannot be compared.
    pub registry: u64,
    /// Grows with every change.
    pub version: u64,
    /// Every topic, by name.
    pub topics: BTreeMap<TopicName, Arc<TopicRoutes>>,
    /// Every broker that ever registered.
    pub brokers: BTreeMap<BrokerId, BrokerPlace>,
    /// Those of them that are drained. Known to the registry alone, which places nothing new there; brokers and
    /// clients are not told.
    pub drained: BTreeSet<BrokerId>,
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
    /// When its settings were given: grows with each change, whatever the clock says and whichever
    /// registry makes it, so that of two the newer ones are known. 0: not known.
    pub altered: TimestampMs,
    /// By queue number: the shards that hold it, by offset; the first span begins at 0, and the
    /// last one takes new messages. Empty while its broker has not told where the queue is, after
    /// the registry has lost its data.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlace {
    /// What an acknowledgement of it promises.
    pub durability: Durability,
    /// The broker that leads it; of a replicated one, as far as the registry has heard.
    pub broker: BrokerId,
    /// Whether new queues may be placed on it.
    pub open: bool,
    /// The members of its group, whoever leads it; none: `broker` has it alone.
    pub members: Vec<BrokerId>,
    /// Which group of several it is; 0: of one.
    pub group: u64,
    /// The term in which `broker` leads a group of several; 0: nobody was heard of yet.
    pub term: Term,
    /// The members that it is to have; none: those that it has.
    pub wanted: Vec<BrokerId>,
    /// Index of the entry of its log that `members` are of: of two lists the later one counts. 0: they
    /// are those that found it.
    pub members_at: u64,
    /// How many members the topics ask for whose queues it takes; while members change, there may be
    /// more of them or fewer.
    pub replicas: u32,
}

/// What makes shards alike: queues of a topic are placed on shards of its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShardClass {
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// On how many brokers each is, at least 1.
    pub replicas: u32,
}

impl ShardClass {
    /// The class of the shards that a topic is placed on.
    pub const fn of(settings: &TopicSettings) -> Self {
        Self { durability: settings.durability.of_shards(), replicas: settings.replicas }
    }
}

impl ShardPlace {
    /// The class of the shard.
    pub fn class(&self) -> ShardClass {
        ShardClass { durability: self.durability, replicas: self.replicas }
    }

    /// An open shard that one broker has alone.
    pub const fn alone(durability: Durability, broker: BrokerId) -> Self {
        Self {
            durability,
            broker,
            open: true,
            members: Vec::new(),
            group: 0,
            term: Term(0),
            wanted: Vec::new(),
            members_at: 0,
            replicas: 1,
        }
    }

    /// Whether several brokers have it, or may come to have it: it is a group's.
    pub fn is_replicated(&self) -> bool {
        !self.members.is_empty()
    }

    /// On how many brokers it is.
    pub fn members_count(&self) -> u32 {
        u32::try_from(self.members.len()).unwrap_or(u32::MAX).max(1)
    }

    /// Whether a broker has it, alone or as a member, or is to have it.
    pub fn is_on(&self, broker: BrokerId) -> bool {
        if !self.is_replicated() {
            return self.broker == broker;
        }
        self.members.contains(&broker) || self.wanted.contains(&broker)
    }

    /// Whether a broker is one of those that make its group, rather than one that joins it. A group that
    /// one broker was alone in before is there already.
    pub fn is_founder(&self, broker: BrokerId) -> bool {
        self.members_at == 0 && self.members.len() > 1 && self.members.contains(&broker)
    }
}

/// A broker, and whether it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerPlace {
    /// Where it can be reached.
    pub address: BrokerAddress,
    /// Whether its lease holds. Nobody leads the shards of one that is not live.
    pub live: bool,
    /// The number of its data folder's disk; 0: not known.
    pub disk: u64,
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
    /// Whether `self` is what is known once `known` was: a later version, or another registry.
    pub fn is_news_after(&self, known: &Self) -> bool {
        self.registry != known.registry || self.version > known.version
    }

    /// The broker that leads a shard, while it is live.
    pub fn leader_of(&self, shard: ShardId) -> Option<&BrokerAddress> {
        let place = self.shards.get(&shard)?;
        let is_heard_of = place.term != Term(0) || place.members.len() < 2;
        let broker = self.brokers.get(&place.broker).filter(|_| is_heard_of)?;
        broker.live.then_some(&broker.address)
    }

    /// The shards that a broker has alone.
    pub fn shards_of(&self, broker: BrokerId) -> Vec<(ShardId, Durability)> {
        let is_own = |place: &ShardPlace| place.broker == broker && !place.is_replicated();
        let own = self.shards.iter().filter(|(_, place)| is_own(place));
        own.map(|(shard, place)| (*shard, place.durability)).collect()
    }

    /// The shards of several brokers that this one is a member of, or is to be one of.
    pub fn memberships_of(&self, broker: BrokerId) -> impl Iterator<Item = (ShardId, &ShardPlace)> {
        let is_member = move |place: &ShardPlace| place.is_replicated() && place.is_on(broker);
        self.shards
            .iter()
            .filter(move |(_, place)| is_member(place))
            .map(|(id, place)| (*id, place))
    }

    /// All shards that it names have lower numbers.
    pub fn shards_below(&self) -> u32 {
        self.shards.last_key_value().map_or(0, |(shard, _)| shard.0.saturating_add(1))
    }

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
