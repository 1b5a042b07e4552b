//! What a group's coordinator is asked and told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_mailbox::{Inbox, Port, Weigh};
use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey};
use grus_protocol::message::{
    AssignTopic, DescribeGroupReply, GroupHeartbeatReply, JoinGroupReply,
};
use grus_protocol::names::GroupName;
use grus_registry::RegistryError;

use super::coordination::Joining;
use super::error::CoordinatorError;
use crate::error::QueueError;

/// Asks the coordinator of a group.
#[derive(Debug)]
pub enum CoordinatorAsk {
    /// One wants to be a member, or to be one with other subscriptions.
    Join {
        /// What it says of itself.
        joining: Joining,
        /// Gets its id, once that is written.
        reply: Port<Result<JoinGroupReply, CoordinatorError>>,
    },
    /// A member is there.
    Heartbeat {
        /// Which.
        member: MemberId,
        /// The assignment that it follows.
        known: Generation,
        /// The queues that it has not let go of, though they are not its own by that one.
        holding: BTreeSet<QueueKey>,
        /// How long it waits when there is no news, in milliseconds.
        wait_ms: u32,
        /// The connection that it is heard over.
        connection: u64,
        /// Gets its assignment.
        reply: Port<Result<GroupHeartbeatReply, CoordinatorError>>,
    },
    /// A member has divided the queues, as it was asked to.
    Assign {
        /// Which.
        member: MemberId,
        /// Which question it answers.
        question: u64,
        /// Whose each queue is to be; none: it has no function for that.
        topics: Option<Vec<AssignTopic>>,
        /// Gets the word that it was taken.
        reply: Port<Result<(), CoordinatorError>>,
    },
    /// A member goes.
    Leave {
        /// Which.
        member: MemberId,
        /// Gets the word that it is written.
        reply: Port<Result<(), CoordinatorError>>,
    },
    /// A connection that a member was heard over is closed.
    Orphaned {
        /// Which.
        member: MemberId,
        /// The connection.
        connection: u64,
    },
    /// Who the members are, and who has which queue.
    Describe {
        /// Gets it.
        reply: Port<Result<DescribeGroupReply, CoordinatorError>>,
    },
    /// Whether the group may be deleted.
    MayGo {
        /// Gets the word: it has no members.
        reply: Port<Result<(), CoordinatorError>>,
    },
}

impl Weigh for CoordinatorAsk {}

impl CoordinatorAsk {
    /// Answers that it cannot be.
    pub(super) fn fail(self, error: CoordinatorError) {
        match self {
            Self::Join { reply, .. } => reply.send(Err(error)),
            Self::Heartbeat { reply, .. } => reply.send(Err(error)),
            Self::Leave { reply, .. } | Self::Assign { reply, .. } | Self::MayGo { reply } => {
                reply.send(Err(error));
            }
            Self::Describe { reply } => reply.send(Err(error)),
            Self::Orphaned { .. } => {}
        }
    }
}

/// It is time, or there is news from the shard. At most one waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Awaken;

impl Weigh for Awaken {}

/// A change is applied, or will not be.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) number: u64,
    pub(crate) result: Result<(), QueueError>,
}

impl Weigh for Written {}

/// The registry has placed dead-letter queues, or has not.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) error: Option<RegistryError>,
}

impl Weigh for Placed {}

/// The way to the coordinator of a group.
#[derive(Debug, Clone)]
pub struct GroupHandle {
    /// Its name.
    pub name: GroupName,
    /// Its incarnation.
    pub group: GroupId,
    /// Takes requests.
    pub asks: Inbox<CoordinatorAsk>,
}

/// The groups that a shard coordinates.
pub type GroupTable = Arc<BTreeMap<GroupId, Arc<GroupHandle>>>;
