//! What the registry answers instead.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerId, Durability, ShardId, TopicId};
use thiserror::Error;

use crate::state::{GROUPED_MAX, QUEUES_MAX, TOPICS_MAX};

/// Why a request was refused. Those of the table itself are decided when the request is applied,
/// so every replica refuses alike.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no topic of that name.
    #[error("unknown topic")]
    UnknownTopic,
    /// There is a topic of that name already.
    #[error("topic exists, with id {id}")]
    TopicExists {
        /// Its incarnation.
        id: TopicId,
    },
    /// The topic of that name is another incarnation than the one asked for.
    #[error("topic was deleted and made again: its id is {id} now")]
    StaleTopic {
        /// The incarnation there is.
        id: TopicId,
    },
    /// The settings cannot be.
    #[error("invalid settings: {reason}")]
    InvalidSettings {
        /// What is wrong, in words.
        reason: String,
    },
    /// A topic is to have more replicas than there are brokers that are there.
    #[error("invalid settings: {wanted} replicas, and {live} brokers are there")]
    TooFewBrokers {
        /// How many replicas it is to have.
        wanted: u32,
        /// How many brokers are there.
        live: usize,
    },
    /// There is no room for another topic.
    #[error("too many topics: at most {TOPICS_MAX}")]
    TooManyTopics,
    /// There is no room for another group.
    #[error("too many groups: none is made while there are {GROUPED_MAX} topics and groups")]
    TooManyGroups,
    /// There is no room for so many queues.
    #[error("too many queues: at most {QUEUES_MAX} in all topics together")]
    TooManyQueues,
    /// No broker has a shard of that durability that takes queues.
    #[error(
        "no shard is {durability} and takes queues: none is registered, or its brokers are gone or \
         drained"
    )]
    NoShard {
        /// The durability asked for.
        durability: Durability,
    },
    /// A broker registers a shard that another broker has, or with another durability.
    #[error("shard {shard} belongs to broker {broker} and is {durability}")]
    ShardTaken {
        /// The shard.
        shard: ShardId,
        /// Its broker.
        broker: BrokerId,
        /// Its durability.
        durability: Durability,
    },
    /// Another data folder, or another process that is alive, has this broker's id.
    #[error(
        "broker id {broker} belongs to another data folder, whose disk.id is {disk}. If it is this folder, which \
         has lost its file disk.id and nothing else, write {disk} into that file. To join as a new broker, \
         start with an empty folder"
    )]
    BrokerIdTaken {
        /// The broker.
        broker: BrokerId,
        /// The number of the folder that has that id; it is in the routes.
        disk: u64,
    },
    /// Another process of the same data folder is alive.
    #[error("another process serves broker {broker}: it was heard of just now")]
    BrokerAlive {
        /// The broker.
        broker: BrokerId,
    },
    /// The broker has to register first.
    #[error("broker {broker} is not registered with this session")]
    UnknownBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// A broker registers more than the registry takes.
    #[error("too many brokers or shards")]
    TooManyBrokers,
    /// The drawn topic id is in use; the registry draws another.
    #[error("topic id {id} is in use")]
    IdInUse {
        /// The id.
        id: TopicId,
    },
    /// A command of the log that this build cannot read.
    #[error("unreadable command: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// Another replica leads the registry.
    #[error("this replica does not lead the registry")]
    NotLeader,
    /// Leadership was lost with the request under way: it may have been carried out.
    #[error("the registry lost its leader with the request under way")]
    OutcomeUnknown,
    /// Too many requests at once; try again.
    #[error("registry is busy")]
    Busy,
    /// The registry is stopping.
    #[error("registry is stopping")]
    Stopping,
    /// The registry, a process of its own, cannot be reached. Nothing was changed.
    #[error("registry cannot be reached: {reason}")]
    Unreachable {
        /// Why, in words.
        reason: String,
    },
    /// The registry was asked and has not answered: it may have done what was asked.
    #[error("registry has not answered")]
    Unanswered,
    /// The registry, a process of its own, refused.
    #[error("{0}")]
    Remote(ErrorReply),
}

impl RegistryError {
    /// As a client is told.
    pub fn to_reply(&self) -> ErrorReply {
        match self {
            Self::Remote(error) => error.clone(),
            own => ErrorReply::new(own.code(), own.to_string()),
        }
    }

    /// The code a client is told.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopic => ErrorCode::UnknownTopic,
            Self::TopicExists { .. } => ErrorCode::TopicExists,
            Self::StaleTopic { .. } => ErrorCode::StaleTopic,
            Self::InvalidSettings { .. } | Self::TooFewBrokers { .. } => ErrorCode::InvalidSettings,
            Self::TooManyTopics | Self::TooManyGroups | Self::TooManyQueues => {
                ErrorCode::TooManyTopics
            }
            Self::NoShard { .. } | Self::BrokerAlive { .. } => ErrorCode::Unavailable,
            Self::NotLeader => ErrorCode::NotLeader,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::Busy => ErrorCode::Overloaded,
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::ShardTaken { .. } => ErrorCode::ShardTaken,
            Self::TooManyBrokers => ErrorCode::InvalidRequest,
            Self::BrokerIdTaken { .. } => ErrorCode::BrokerIdTaken,
            Self::UnknownBroker { .. } => ErrorCode::UnknownBroker,
            Self::Unreachable { .. } => ErrorCode::RegistryUnavailable,
            Self::Unanswered => ErrorCode::Timeout,
            Self::Remote(error) => error.code,
            Self::IdInUse { .. } | Self::Unreadable { .. } => ErrorCode::Internal,
        }
    }
}
