//! Member: a shard's ear for the other members of its group.
//!
//! ```text
//! Connection of another broker --FromPeer--> [Member] --handle--> consensus
//!           ^--------- reply port --------------'
//! ```
//!
//! * Owns: nothing; what consensus has not answered yet is a future of its room.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`FromPeer`] in bytes, held until consensus has answered it, also when that took so long that
//!   nobody waits any more; [`HandOver`].
//! * Talks to: consensus.
//! * Stops: with its shard; whoever still asks is told by a dropped port.
//! * If it panics: it is rebuilt; peers ask again.

use std::time::Duration;

use bytes::Bytes;
use grus_consensus::{Group, is_install};
use grus_log::Disk;
use grus_mailbox::{ActorSpec, Credit, Host, HostHandle, Inbox, Place, Port, Receive, Resident};
use grus_mailbox::{Room, Weigh};
use grus_protocol::ids::{BrokerId, ShardId};

use crate::shard::ShardMachine;

/// Bytes of messages that may wait for an answer.
pub const FROM_PEER_BYTES_MAX: u32 = 64 << 20;
/// Requests to give a shard away that may be under way.
pub const HAND_OVERS_MAX: u32 = 4;
/// Who asks has given up long before: a member that is mute must not use up what a connection, which serves all
/// shards, may have under way.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The same for the chunk of a snapshot, which may install it.
const INSTALL_MAX: Duration = Duration::from_mins(1);
/// What the smallest message counts, in bytes: it bounds how many are under way.
const MESSAGE_BYTES_MIN: u32 = 2_048;

/// What another member says.
#[derive(Debug)]
pub struct FromPeer {
    /// The message.
    pub message: Bytes,
    /// Gets the answer.
    pub reply: Port<Bytes>,
}

impl Weigh for FromPeer {
    fn weight(&self) -> u32 {
        u32::try_from(self.message.len()).unwrap_or(u32::MAX).max(MESSAGE_BYTES_MIN)
    }
}

/// Gives the shard to another member, if this one leads it.
#[derive(Debug)]
pub struct HandOver {
    /// To whom; none: to the one that has most of the log.
    pub to: Option<BrokerId>,
    /// Whether this member is not to lead again before it is started anew.
    pub for_good: bool,
    /// Gets whether another member leads, once that is known.
    pub reply: Port<bool>,
}

impl Weigh for HandOver {}

/// The way to a member of a shard's group.
#[derive(Debug, Clone)]
pub struct MemberDoor {
    /// The group, see [`ShardMessage::group`](grus_protocol::message::ShardMessage).
    pub group: u64,
    /// Takes what other members say.
    pub inbox: Inbox<FromPeer>,
    /// Has it give its shard away.
    pub hand_over: Inbox<HandOver>,
}

/// See the module documentation.
pub struct Member<D: Disk> {
    group: Group<ShardMachine, D>,
}

impl<D: Disk> Member<D> {
    /// Starts it on the current thread, which must be `place`, that of the group.
    #[must_use]
    pub fn start(place: &Place, shard: ShardId, group: Group<ShardMachine, D>) -> HostHandle<Self> {
        let spec = ActorSpec::new("Member", format!("shard-{shard}"));
        Host::spawn_local(place, spec, move || Self { group: group.clone() })
    }
}

impl<D: Disk> Resident for Member<D> {}

impl<D: Disk> Receive<FromPeer> for Member<D> {
    fn receive(&mut self, msg: FromPeer, credit: Credit, room: &mut Room<'_, Self>) {
        let FromPeer { message, reply } = msg;
        let group = self.group.clone();
        let is_install = is_install(std::slice::from_ref(&message));
        let limit = if is_install { INSTALL_MAX } else { ANSWER_MAX };
        // Futures are polled first in the order in which they are spawned: appends stay in order.
        room.spawn(async move {
            let mut handling = std::pin::pin!(group.handle(message));
            if let Ok(answer) = tokio::time::timeout(limit, handling.as_mut()).await {
                reply.send(answer);
            } else {
                drop(reply); // its connection is let go of; what is under way here stays counted here
                handling.await;
            }
            drop(credit);
        });
    }
}

impl<D: Disk> Receive<HandOver> for Member<D> {
    fn receive(&mut self, msg: HandOver, credit: Credit, room: &mut Room<'_, Self>) {
        let HandOver { to, for_good, reply } = msg;
        let group = self.group.clone();
        if for_good {
            group.retire();
        }
        room.spawn(async move {
            reply.send(group.hand_over(to.map(|broker| broker.0)).await);
            drop(credit);
        });
    }
}
