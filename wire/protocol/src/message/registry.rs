//! Between a registry, its brokers, and all who follow the routes.

use crate::error::ErrorReply;
use crate::ids::{BrokerId, Durability, Offset, QueueId, ShardId, Term, TimestampMs, TopicId};
use crate::message::TopicSettings;
use crate::names::TopicName;
use crate::wire::wire_message;

/// Most bytes of a host name.
pub const HOST_BYTES_MAX: usize = 255;

wire_message! {
    /// Asks to be told the routes: those of now at once, and every change after that, by
    /// [`RoutesChanged`] pushes with the correlation of this request. The last one asked for on a
    /// connection counts.
    pub struct WatchRoutes {
        /// The topics to be told of; none: all.
        pub topics: Vec<TopicName> = Vec::new(),
    }
}

wire_message! {
    /// The pushes will come.
    pub struct WatchRoutesReply {
        /// The registry whose routes they are, see [`RoutesChanged::registry`].
        pub registry: u64,
        /// Their version now.
        pub version: u64,
    }
}

wire_message! {
    /// The routes have changed. A watcher that does not keep up is told the newest only.
    pub struct RoutesChanged {
        /// Which registry speaks: a random number, made when its data was. Versions of two
        /// registries cannot be compared.
        pub registry: u64,
        /// The version of the routes once this change is carried out. Never goes back.
        pub version: u64,
        /// Whether what was known before is to be forgotten.
        pub whole: bool,
        /// Whether another push of the same change follows: the change counts once the last one
        /// is there.
        pub more: bool,
        /// Brokers that are new, or are not as they were.
        pub brokers: Vec<BrokerState>,
        /// Shards that are new, or are not as they were.
        pub shards: Vec<ShardState>,
        /// Topics that are new, or are not as they were.
        pub topics: Vec<TopicState>,
        /// Topics that are gone. A name may stand in `topics` too: it was made again.
        pub gone: Vec<TopicName> = Vec::new(),
    }
}

wire_message! {
    /// A broker as the registry knows it.
    pub struct BrokerState {
        /// The broker.
        pub id: BrokerId,
        /// Host name or IP address, without brackets.
        pub host: String,
        /// TCP port of the protocol.
        pub port: u16,
        /// Whether its lease holds: nobody leads the shards of one that is not live.
        pub live: bool,
        /// The number of its data folder's disk.
        pub disk: u64 = 0,
    }
}

wire_message! {
    /// A shard, and who has it.
    pub struct ShardState {
        /// The shard.
        pub shard: ShardId,
        /// What an acknowledgement of it promises.
        pub durability: Durability,
        /// The broker that has it; of a replicated one, that leads it as far as the registry has heard.
        pub broker: BrokerId,
        /// Whether new queues may be placed on it.
        pub open: bool,
        /// The members of its group; none: `broker` has it alone.
        pub members: Vec<BrokerId> = Vec::new(),
        /// Which group of several members it is, drawn when that was made; 0: of one.
        pub group: u64 = 0,
        /// The term in which `broker` leads it; 0: of a replicated one nobody was heard of yet.
        pub term: Term = Term(0),
        /// The members that it is to have; none: those that it has.
        pub wanted: Vec<BrokerId> = Vec::new(),
        /// Index of the entry of its log that `members` are of; 0: they are its founders.
        pub members_at: u64 = 0,
    }
}

wire_message! {
    /// A topic, and where its queues are.
    pub struct TopicState {
        /// Its name.
        pub name: TopicName,
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept.
        pub settings: TopicSettings,
        /// When it was made.
        pub created: TimestampMs,
        /// By queue number: the shards that hold it, in order of their offsets; the last one takes
        /// new messages. Empty while nobody knows where the queue is.
        pub queues: Vec<Vec<QueueSpan>>,
        /// When its settings were given; grows with each change. 0: not known.
        pub altered: TimestampMs = TimestampMs(0),
    }
}

wire_message! {
    /// A shard holds a queue from an offset on.
    pub struct QueueSpan {
        /// The shard.
        pub shard: ShardId,
        /// Its first offset of the queue.
        pub from: Offset,
    }
}

wire_message! {
    /// A broker says that it is there. Asked again after each connection, and whenever the
    /// registry does not know the broker's session.
    pub struct RegisterBroker {
        /// The broker.
        pub broker: BrokerId,
        /// The number of its data folder's disk: another folder with the same broker id is refused.
        pub disk: u64,
        /// The life of the broker's process, drawn when it started.
        pub session: u64,
        /// Host name or IP address at which clients reach it, without brackets.
        pub host: String,
        /// TCP port at which clients reach it.
        pub port: u16,
        /// The shards it has.
        pub shards: Vec<ShardClaim>,
        /// How many shards of each durability it wants; the registry gives it those that are
        /// missing.
        pub shards_wanted: u32 = 0,
        /// The replicated shards that it is a member of, as it was told when they were made.
        pub memberships: Vec<ShardMembership> = Vec::new(),
        /// All shards that it has ever heard of, as far as it knows, have lower numbers: a registry that has
        /// lost its data gives none of these to another shard. 0: it does not say.
        pub shards_below: u32 = 0,
    }
}

wire_message! {
    /// A replicated shard, as one of its members knows it.
    pub struct ShardMembership {
        /// The shard.
        pub shard: ShardId,
        /// What an acknowledgement of it promises.
        pub durability: Durability,
        /// The members of its group.
        pub members: Vec<BrokerId>,
        /// Which group it is, see [`ShardState::group`].
        pub group: u64,
        /// See [`ShardState::wanted`].
        pub wanted: Vec<BrokerId> = Vec::new(),
        /// See [`ShardState::members_at`].
        pub members_at: u64 = 0,
    }
}

wire_message! {
    /// A shard of the broker that says so.
    pub struct ShardClaim {
        /// The shard.
        pub shard: ShardId,
        /// What an acknowledgement of it promises.
        pub durability: Durability,
    }
}

wire_message! {
    /// The broker is in the routes.
    pub struct RegisterBrokerReply {
        /// The registry, see [`RoutesChanged::registry`].
        pub registry: u64,
        /// The broker leaves the routes when nothing is heard of it for so long, in milliseconds.
        pub lease_ms: u32,
        /// How often a heartbeat is expected, in milliseconds.
        pub heartbeat_ms: u32,
        /// All shards of the broker.
        pub shards: Vec<ShardClaim>,
    }
}

wire_message! {
    /// A sign of life of a registered broker.
    pub struct BrokerHeartbeat {
        /// The broker.
        pub broker: BrokerId,
        /// The session it registered with.
        pub session: u64,
        /// Bytes of record batches that it took in the last second or so.
        pub produced_bytes_per_second: u64 = 0,
        /// Whether it stops: it leaves the routes at once.
        pub leaving: bool = false,
        /// Whether it is drained: it gets nothing new where others can have it.
        pub drained: bool = false,
    }
}

wire_message! {
    /// The lease goes on.
    pub struct BrokerHeartbeatReply {
        /// How long from now, in milliseconds.
        pub lease_ms: u32,
    }
}

wire_message! {
    /// A broker tells of topics that its shards hold and the registry does not know: the registry
    /// has lost its data, or is another one.
    pub struct OfferTopics {
        /// The broker.
        pub broker: BrokerId,
        /// The session it registered with.
        pub session: u64,
        /// The topics.
        pub topics: Vec<OfferedTopic>,
    }
}

wire_message! {
    /// A broker has the dead-letter topic of a group made, or given queues on more shards. Served
    /// only on a connection on which a broker has registered. What is there already stays as it is,
    /// so that the request may be repeated.
    pub struct PlaceDeadLetters {
        /// The topic: `%DLQ%` and the name of the group.
        pub name: TopicName,
        /// Without a home: the incarnation meant; 0: whichever is there. With a home it is not
        /// looked at.
        pub topic_id: TopicId,
        /// Where the first queue goes if there is no such topic; nil: it must be there.
        pub home: Option<ShardId>,
        /// Shards on which it must have a queue, of either durability.
        pub shards: Vec<ShardId>,
    }
}

wire_message! {
    /// They are placed.
    pub struct PlaceDeadLettersReply {
        /// The incarnation of the topic.
        pub id: TopicId,
        /// How many queues it has.
        pub queues: u32,
        /// Whether this request made it.
        pub created: bool,
    }
}

wire_message! {
    /// What a broker's shards know of a topic.
    pub struct OfferedTopic {
        /// Its name.
        pub name: TopicName,
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept; `queues` is not looked at.
        pub settings: TopicSettings,
        /// Which of its queues are on which shard of the broker.
        pub queues: Vec<OfferedQueue>,
        /// When these settings were given, see [`TopicState::altered`]; 0: not known.
        pub altered: TimestampMs = TimestampMs(0),
    }
}

wire_message! {
    /// A queue that a shard holds.
    pub struct OfferedQueue {
        /// The queue.
        pub queue: QueueId,
        /// The shard.
        pub shard: ShardId,
    }
}

wire_message! {
    /// What became of the offer.
    pub struct OfferTopicsReply {
        /// The topics that were not taken; all others are in the routes.
        pub refused: Vec<RefusedTopic>,
    }
}

wire_message! {
    /// A topic that was not taken. Its messages stay where they are; nobody is led to them.
    pub struct RefusedTopic {
        /// Its name.
        pub name: TopicName,
        /// Its incarnation.
        pub id: TopicId,
        /// Why.
        pub error: ErrorReply,
    }
}

wire_message! {
    /// A broker tells which replicated shards it leads: as soon as it does, and again until the routes
    /// say so. Served only on a connection on which a broker has registered.
    pub struct LeadShards {
        /// The broker.
        pub broker: BrokerId,
        /// The shards.
        pub shards: Vec<LedShard>,
    }
}

wire_message! {
    /// A shard, and the term in which the broker leads it.
    pub struct LedShard {
        /// The shard.
        pub shard: ShardId,
        /// The term: of two that say they lead, the later one does.
        pub term: Term,
        /// Its voters as they are committed, while they are changed; none: nothing is said of them.
        pub members: Vec<BrokerId> = Vec::new(),
        /// Index of the entry that those are of: of two lists the later one counts.
        pub members_at: u64 = 0,
    }
}

wire_message! {
    /// It is in the routes, but for what is not newer than what they say.
    pub struct LeadShardsReply {}
}
