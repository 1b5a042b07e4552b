//! The way of a shard's consensus to its other members: from a member's number, which is that of its
//! broker, to the [`Peer`](crate::peer::Peer) that leads there. Not an actor: it puts calls into the
//! inboxes of peers, and waits for their answers at the edge of consensus.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use grus_consensus::{NodeId, PeerError, Peers, is_install};
use grus_mailbox::{Inbox, reply};
use grus_protocol::ids::{BrokerId, ShardId};
use tokio::sync::watch;

use crate::peer::{PeerCall, PeerFailure};

/// The two ways to a broker.
#[derive(Debug, Clone)]
pub struct PeerDoor {
    /// For whatever must not wait.
    pub messages: Inbox<PeerCall>,
    /// For snapshots.
    pub installs: Inbox<PeerCall>,
}

/// The ways to all brokers that are known, replaced as a whole.
pub type PeerDoors = Arc<BTreeMap<BrokerId, PeerDoor>>;

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Network {
    shard: ShardId,
    group: u64,
    doors: watch::Receiver<PeerDoors>,
    is_open: Arc<AtomicBool>,
}

impl Network {
    /// The network of one member of that group. Nothing passes before it is opened.
    #[must_use]
    pub fn new(shard: ShardId, group: u64, doors: watch::Receiver<PeerDoors>) -> Self {
        Self { shard, group, doors, is_open: Arc::default() }
    }

    /// From here on it passes on what it is given, and so do its clones.
    pub fn open(&self) {
        self.is_open.store(true, Relaxed);
    }

    /// Puts a call on its way; its place in the order is that of this call.
    fn put(
        &self,
        to: NodeId,
        message: Vec<Bytes>,
    ) -> Result<reply::Answer<Result<Bytes, PeerFailure>>, PeerFailure> {
        let away = |reason: &str| PeerFailure::Away { reason: reason.to_owned() };
        if !self.is_open.load(Relaxed) {
            return Err(away("this member has not begun yet"));
        }
        let door = self.doors.borrow().get(&BrokerId(to)).cloned();
        let door = door.ok_or_else(|| away("the registry has not told of it"))?;
        let lane = if is_install(&message) { door.installs } else { door.messages };
        let (reply, answer) = reply::port();
        let (shard, group) = (self.shard, self.group);
        match lane.try_put(PeerCall { shard, group, message, reply }) {
            Ok(()) => Ok(answer),
            Err(refused) if refused.is_full() => Err(PeerFailure::Busy),
            Err(_stopped) => Err(away("this broker stops")),
        }
    }
}

impl Peers for Network {
    fn call(
        &self,
        to: NodeId,
        _address: &str,
        message: Vec<Bytes>,
    ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
        let put = self.put(to, message);
        Box::pin(async move {
            let failed = |failure: PeerFailure| PeerError { node: to, reason: failure.to_string() };
            let dropped = |_| PeerFailure::Away { reason: "its actor was rebuilt".to_owned() };
            let answer = put.map_err(failed)?.await.map_err(dropped).map_err(failed)?;
            answer.map_err(failed)
        })
    }
}
