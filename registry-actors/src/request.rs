//! What the registry is asked, and what others hold of it.

use std::sync::Arc;

use grus_mailbox::{Inbox, Port, Weigh};
use grus_protocol::ids::{BrokerAddress, Durability, ShardId, TopicId};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;
use tokio::sync::watch;

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
    /// Changes a topic; `None` leaves a setting as it is.
    AlterTopic {
        /// Its name.
        name: TopicName,
        /// The incarnation meant; 0: whichever is there.
        id: TopicId,
        /// Number of queues: not fewer than there are.
        queues: Option<u32>,
        /// Retention by age in milliseconds; 0: no limit.
        retention_ms: Option<u64>,
        /// Retention by bytes of each queue; 0: no limit.
        retention_bytes: Option<u64>,
        /// How long dedup keys are remembered, in milliseconds; 0: none are taken.
        dedup_window_ms: Option<u64>,
        /// Where the topic as it is then goes.
        reply: Port<Result<Arc<TopicRoutes>, RegistryError>>,
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
    /// Names a broker, where it is and which shards it leads. Changes nothing the second time.
    RegisterBroker {
        /// Where it can be reached.
        address: BrokerAddress,
        /// The shards on which it takes queues.
        shards: Vec<(ShardId, Durability)>,
        /// Where the routes as they are then go.
        reply: Port<Result<Arc<RoutingTable>, RegistryError>>,
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
    /// The routes as they are now. For the edge; an actor is told them ([`Watch`]).
    pub fn routing(&self) -> Arc<RoutingTable> {
        Arc::clone(&self.routes.borrow())
    }
}
