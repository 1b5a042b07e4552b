//! What the link is asked and hears.

use std::sync::Arc;

use grus_mailbox::{Credit, Port, Weigh};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{GroupId, ShardId, TopicId};
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DeleteTopic, DeleteTopicReply,
    InitProducer, InitProducerReply,
};
use grus_protocol::names::{GroupName, TopicName};
use grus_registry::{RefusedTopics, RegistryError, TopicCreated, TopicRoutes};

use super::routes::TopicRoute;
use super::survey::Round;
use crate::commands::TopicConfig;
use crate::error::QueueError;
use crate::shard::TopicOpened;

pub(super) type Answer<T> = Port<Result<T, ErrorReply>>;

/// What a connection asks for.
#[derive(Debug)]
pub enum LinkRequest {
    /// The topic of that name, which is made if policy allows.
    Resolve {
        /// The name.
        name: TopicName,
        /// Gets the topic.
        reply: Answer<Arc<TopicRoute>>,
    },
    /// Makes a topic.
    Create {
        /// What the client asked for.
        ask: CreateTopic,
        /// Gets the answer.
        reply: Answer<CreateTopicReply>,
    },
    /// Changes a topic.
    Alter {
        /// What the client asked for.
        ask: AlterTopic,
        /// Gets the answer.
        reply: Answer<AlterTopicReply>,
    },
    /// Removes a topic.
    Delete {
        /// What the client asked for.
        ask: DeleteTopic,
        /// Gets the answer.
        reply: Answer<DeleteTopicReply>,
    },
    /// The dead-letter topic of a group, which is made if there is none: where its first queue is
    /// led, the group is coordinated.
    OpenGroup {
        /// The group.
        group: GroupName,
        /// Gets the topic.
        reply: Answer<Arc<TopicRoute>>,
    },
    /// Removes a group's dead-letter topic, and with it all that shards know of the group.
    DeleteGroup {
        /// The group.
        group: GroupName,
        /// The incarnation meant.
        id: GroupId,
        /// Gets the answer.
        reply: Answer<DeleteTopicReply>,
    },
    /// Gives a producer its identity.
    InitProducer {
        /// What the client asked for.
        ask: InitProducer,
        /// Gets the answer.
        reply: Answer<InitProducerReply>,
    },
}

impl Weigh for LinkRequest {}

/// One that asked for a topic by name; its credit is held until it is told.
pub(super) type Resolving = (Answer<Arc<TopicRoute>>, Credit);

/// Who waits for a topic to be open.
#[derive(Debug)]
pub enum Waiter {
    /// Those that asked for it by name.
    Resolve(TopicName),
    /// The one that made it, or found it there.
    Create(Answer<CreateTopicReply>, bool, Credit),
    /// The one that changed it.
    Alter(Answer<AlterTopicReply>, Credit),
    /// The one that asked for a group.
    Group(Answer<Arc<TopicRoute>>, Credit),
}

/// An answer that came back to this actor.
#[derive(Debug)]
pub enum Heard {
    /// The registry made a topic, or had it.
    Created(Waiter, Result<TopicCreated, RegistryError>),
    /// The registry changed a topic.
    Altered(Waiter, Result<Arc<TopicRoutes>, RegistryError>),
    /// The registry removed a topic.
    Deleted(TopicName, Answer<DeleteTopicReply>, Credit, Result<TopicId, RegistryError>),
    /// A shard opened a topic, or could not.
    Opened(ShardId, TopicId, Result<TopicOpened, QueueError>),
    /// A shard forgot a topic, or could not.
    Forgotten(ShardId, TopicId, bool),
    /// A shard listed what its log knows, or could not.
    Listed(Round, ShardId, Option<Vec<TopicConfig>>),
    /// The registry was offered topics.
    Offered(Round, Result<RefusedTopics, RegistryError>),
    /// The registry was told what is led here, or could not be.
    Led,
    /// The last known routes are on disk, or are not.
    Saved(Result<(), String>),
}

impl Weigh for Heard {}
