//! What the registry is asked, and what others hold of it.

use std::sync::Arc;

use grus_mailbox::{Inbox, Port, Weigh};
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, ShardId, Term, TopicId};
use grus_protocol::message::{ChangeReplicas, TopicSettings};
use grus_protocol::names::TopicName;
use tokio::sync::watch;

use crate::command::{AdoptTopic, AlterTopic, MembershipClaim, ToldMembers};
use crate::error::RegistryError;
use crate::materialiser::CopyStats;
use crate::routing::{RoutingTable, TopicRoutes};
use crate::watch::Watch;

/// Most requests under way.
pub const REQUESTS_MAX: u32 = 1_024;

/// Asks the registry to do something.
#[derive(Debug)]
pub enum RegistryRequest {
    /// Makes a topic.
    CreateTopic {
        /// Its name.
        name: TopicName,
        /// How it is kept.
        settings: TopicSettings,
        /// Whether a topic of that name is an answer rather than an error.
        if_not_exists: bool,
        /// Where the topic goes.
        reply: Port<Result<TopicCreated, RegistryError>>,
    },
    /// Changes a topic.
    AlterTopic {
        /// What changes.
        alter: AlterTopic,
        /// Where the topic as it is then goes.
        reply: Port<Result<Arc<TopicRoutes>, RegistryError>>,
    },
    /// Makes a group's dead-letter topic, or gives it queues on more shards.
    PlaceDeadLetters {
        /// Its name.
        name: TopicName,
        /// Without a home: the incarnation meant.
        id: TopicId,
        /// Where its first queue goes if there is no such topic; none: it must be there.
        home: Option<ShardId>,
        /// Where it must have queues.
        shards: Vec<ShardId>,
        /// Where the topic as it is then goes.
        reply: Port<Result<TopicCreated, RegistryError>>,
    },
    /// Removes a topic.
    DeleteTopic {
        /// Its name.
        name: TopicName,
        /// The incarnation meant; 0: whichever is there.
        id: TopicId,
        /// Where the incarnation removed goes.
        reply: Port<Result<TopicId, RegistryError>>,
    },
    /// A broker is there: it keeps its shards, and is given those that it wants and has not.
    /// Changes nothing the second time.
    EnrolBroker {
        /// Where it can be reached.
        address: BrokerAddress,
        /// The number of its data folder's disk.
        disk: u64,
        /// The shards it says it has.
        shards: Vec<(ShardId, Durability)>,
        /// How many shards of each durability it wants.
        shards_wanted: u32,
        /// The shards of several members that it says it is a member of.
        memberships: Vec<MembershipClaim>,
        /// All shards that it has heard of have lower numbers; 0: it does not say.
        shards_below: u32,
        /// Where its shards and the routes as they are then go.
        reply: Port<Result<Enrolled, RegistryError>>,
    },
    /// A broker is live, or is not.
    MarkBroker {
        /// The broker.
        broker: BrokerId,
        /// Whether its lease holds.
        live: bool,
        /// Told once it is written.
        reply: Port<Result<(), RegistryError>>,
    },
    /// A broker is drained, or is not any more.
    DrainBroker {
        /// The broker.
        broker: BrokerId,
        /// Whether it is.
        drained: bool,
        /// Told once it is written.
        reply: Port<Result<(), RegistryError>>,
    },
    /// A broker leads shards of several members, each in that term.
    LeadShards {
        /// The broker.
        broker: BrokerId,
        /// The shards.
        shards: Vec<(ShardId, Term)>,
        /// What it tells of their members.
        members: Vec<ToldMembers>,
        /// Told once it is written, or was known.
        reply: Port<Result<(), RegistryError>>,
    },
    /// Shards are to have other members.
    ChangeReplicas {
        /// Which.
        change: ChangeReplicas,
        /// Told those that are to change now, and were not before.
        reply: Port<Result<Vec<ShardId>, RegistryError>>,
    },
    /// Takes topics that a broker's shards hold and the registry does not know.
    AdoptTopics {
        /// The broker.
        broker: BrokerId,
        /// The topics.
        topics: Vec<AdoptTopic>,
        /// Told which were not taken.
        reply: Port<Result<RefusedTopics, RegistryError>>,
    },
}

impl Weigh for RegistryRequest {}

/// The topic is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicCreated {
    /// The topic.
    pub topic: Arc<TopicRoutes>,
    /// Whether this request made it.
    pub created: bool,
}

/// The broker is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// The routes as they are then.
    pub table: Arc<RoutingTable>,
    /// All its shards, those just given included.
    pub shards: Vec<(ShardId, Durability)>,
}

/// Topics that were offered and not taken, with the reason of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RefusedTopics(pub Vec<(TopicName, TopicId, RegistryError)>);

/// What others hold of the registry.
#[derive(Debug, Clone)]
pub struct RegistryHandle {
    /// Takes requests.
    pub ask: Inbox<RegistryRequest>,
    /// Takes those who want to be told the routes.
    pub watch: Inbox<Watch>,
    /// How the copy in sled fares.
    pub copy: Arc<CopyStats>,
    pub(crate) routes: watch::Receiver<Arc<RoutingTable>>,
}

impl RegistryHandle {
    /// The routes, as they change. For the edge; an actor is told them ([`Watch`]).
    pub fn subscribe(&self) -> watch::Receiver<Arc<RoutingTable>> {
        self.routes.clone()
    }

    /// The routes as they are now. For the edge; an actor is told them ([`Watch`]).
    pub fn routing(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.routes.borrow())
    }
}
