//! Where topics and their queues are served.

use crate::error::ErrorReply;
use crate::ids::{BrokerAddress, BrokerId, Durability, QueueId, ShardId, TopicId};
use crate::message::TopicKind;
use crate::names::TopicName;
use crate::wire::wire_message;

wire_message! {
    /// Asks where topics and their queues are served.
    pub struct Metadata {
        /// The topics asked for; none: all.
        pub topics: Vec<TopicName>,
        /// Whether a topic that does not exist may be made with the broker's default settings, if
        /// the broker's policy allows it.
        pub auto_create: bool = false,
    }
}

wire_message! {
    /// A snapshot of the routes. All of it is of one version.
    pub struct MetadataReply {
        /// The brokers that serve anything in `topics`.
        pub brokers: Vec<BrokerAddress>,
        /// The topics asked for, in the order they were asked for; all of them in order of their
        /// names otherwise.
        pub topics: Vec<TopicMetadata>,
        /// Grows with every change of the routes.
        pub version: u64 = 0,
    }
}

wire_message! {
    /// One topic of a [`MetadataReply`].
    pub struct TopicMetadata {
        /// Its name.
        pub name: TopicName,
        /// Why it cannot be served; the fields after it say nothing then.
        pub error: Option<ErrorReply>,
        /// Its incarnation.
        pub id: TopicId,
        /// What an acknowledgement in it promises.
        pub durability: Durability,
        /// What sort of queues it has.
        pub kind: TopicKind,
        /// Its queues, by number, dense from 0.
        pub queues: Vec<QueueRoute>,
    }
}

impl TopicMetadata {
    /// A topic that cannot be served.
    pub fn failed(name: TopicName, error: ErrorReply) -> Self {
        Self {
            name,
            error: Some(error),
            id: TopicId::UNKNOWN,
            durability: Durability::Persisted,
            kind: TopicKind::Durable,
            queues: Vec::new(),
        }
    }
}

wire_message! {
    /// Where one queue is served.
    pub struct QueueRoute {
        /// The queue.
        pub queue: QueueId,
        /// The shard that holds it.
        pub shard: ShardId,
        /// The broker that leads the shard; nil while there is none.
        pub leader_broker: Option<BrokerId>,
    }
}
