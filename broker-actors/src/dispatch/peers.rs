//! What other brokers ask: the members of shards that speak with the members here.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use grus_mailbox::{Dropped, Port};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerAddress, BrokerId, ShardId};
use grus_protocol::message::{
    ChangeReplicas, HandOverShards, OpenPeer, OpenPeerReply, ShardMessage, ShardMessageReply,
};
use grus_registry::RoutingTable;
use tokio::sync::watch;

use super::{Dispatcher, RETRY_AFTER_MS};
use crate::connection::replies::ReplyTo;
use crate::member::{FromPeer, MemberDoor};

/// The members of shards that are here, replaced as a whole.
pub type MemberDoors = Arc<BTreeMap<ShardId, MemberDoor>>;

/// What other brokers are let in by.
#[derive(Debug, Clone)]
pub struct PeerGate {
    /// The number of this broker's disk.
    pub disk: u64,
    /// The members that are here.
    pub members: watch::Receiver<MemberDoors>,
}

impl PeerGate {
    /// Judges who speaks, and whom it means.
    ///
    /// # Errors
    /// [`ErrorCode::WrongBroker`].
    pub fn judge(
        &self,
        ask: &OpenPeer,
        own: &BrokerAddress,
        table: &RoutingTable,
    ) -> Result<(), ErrorReply> {
        let wrong = |text: String| Err(ErrorReply::new(ErrorCode::WrongBroker, text));
        if ask.to != own.id || (ask.to_disk != 0 && ask.to_disk != self.disk) {
            return wrong(format!("this is broker {} with disk {}", own.id, self.disk));
        }
        if ask.broker == own.id {
            return wrong(format!("broker {} speaks with itself", own.id));
        }
        let known = table.brokers.get(&ask.broker).map_or(0, |known| known.disk);
        if known != 0 && known != ask.disk {
            return wrong(format!("broker {} has disk {known}, not {}", ask.broker, ask.disk));
        }
        Ok(())
    }

    /// The member that a message is for.
    fn member(&self, ask: &ShardMessage) -> Result<MemberDoor, ErrorReply> {
        let door = self.members.borrow().get(&ask.shard).cloned();
        let Some(door) = door else {
            let text = format!("shard {} has no member here now", ask.shard);
            let error = ErrorReply::new(ErrorCode::Unavailable, text);
            return Err(error.with_retry_after_ms(RETRY_AFTER_MS));
        };
        if door.group != ask.group {
            let text = format!("shard {} is of another group here", ask.shard);
            return Err(ErrorReply::new(ErrorCode::ShardTaken, text));
        }
        Ok(door)
    }
}

impl Dispatcher {
    /// Lets another broker in.
    pub(super) fn open_peer(&mut self, ask: &OpenPeer, reply: ReplyTo) {
        let service = &self.service;
        let judged = service.peers.judge(ask, &service.address, &service.table.borrow());
        self.peer = judged.is_ok().then_some(ask.broker);
        let frame_bytes_max = service.frame_limits.frame_bytes_max;
        reply.result(judged.map(|()| OpenPeerReply { disk: service.peers.disk, frame_bytes_max }));
    }

    /// Hands on what another member says.
    pub(super) fn shard_message(&self, ask: &ShardMessage, message: Bytes, reply: ReplyTo) {
        if self.peer.is_none() {
            let text = "only a broker that has said who it is speaks with members";
            return reply.error(ErrorReply::new(ErrorCode::Unauthorized, text));
        }
        let door = match self.service.peers.member(ask) {
            Ok(door) => door,
            Err(error) => return reply.error(error),
        };
        let port = Port::call(move |answer: Result<Bytes, Dropped>| {
            // Dropped, the way back says so.
            if let Ok(answer) = answer {
                reply.with_body(&ShardMessageReply {}, &[answer]);
            }
        });
        let _ = door.inbox.try_put(FromPeer { message, reply: port }); // refused: its port is dropped
    }
}

impl Dispatcher {
    /// Says how the shards here are.
    pub(super) async fn describe_shards(&mut self, reply: ReplyTo) {
        let cluster = self.service.cluster.clone();
        let under_way = self.asides.begin().await;
        // Ends with its answers, which come or are dropped.
        tokio::task::spawn_local(async move {
            reply.header(&cluster.describe().await);
            drop(under_way);
        });
    }

    /// Gives shards to other members.
    pub(super) async fn hand_over(&mut self, ask: HandOverShards, reply: ReplyTo) {
        let (cluster, table) = (self.service.cluster.clone(), self.service.table.borrow().clone());
        let under_way = self.asides.begin().await;
        // Ends within a few seconds, whatever becomes of it.
        tokio::task::spawn_local(async move {
            reply.result(cluster.hand_over(ask, &table).await);
            drop(under_way);
        });
    }
}

impl Dispatcher {
    /// Has shards get other members.
    pub(super) async fn change(&mut self, ask: ChangeReplicas, reply: ReplyTo) {
        let cluster = self.service.cluster.clone();
        let under_way = self.asides.begin().await;
        // Ends with the registry's answer, which comes or is dropped.
        tokio::task::spawn_local(async move {
            reply.result(cluster.change_replicas(ask).await);
            drop(under_way);
        });
    }
}

/// Which broker speaks on a connection.
pub(super) type PeerId = Option<BrokerId>;

#[cfg(test)]
mod tests {
    use grus_mailbox::outlet;
    use grus_registry::BrokerPlace;

    use super::*;

    fn address(id: u64) -> BrokerAddress {
        BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 }
    }

    fn gate(members: MemberDoors) -> PeerGate {
        PeerGate { disk: 70, members: watch::channel(members).1 }
    }

    fn open(broker: u64, disk: u64, to: u64, to_disk: u64) -> OpenPeer {
        let (broker, to) = (BrokerId(broker), BrokerId(to));
        OpenPeer { broker, disk, to, to_disk, frame_bytes_max: 1 << 24 }
    }

    #[test]
    fn only_who_means_this_broker_and_is_who_it_says_is_let_in() {
        let gate = gate(MemberDoors::default());
        let mut table = RoutingTable::default();
        let known = BrokerPlace { address: address(5), live: false, disk: 50 };
        table.brokers.insert(BrokerId(5), known);
        let judge =
            |ask: &OpenPeer| gate.judge(ask, &address(7), &table).map_err(|error| error.code);
        assert_eq!(judge(&open(5, 50, 7, 70)), Ok(()));
        assert_eq!(judge(&open(5, 50, 7, 0)), Ok(()), "it was not told the disk");
        assert_eq!(judge(&open(6, 66, 7, 70)), Ok(()), "the registry has not told of it yet");
        for (ask, why) in [
            (open(5, 50, 8, 70), "another broker is meant"),
            (open(5, 50, 7, 71), "another data folder is meant"),
            (open(5, 51, 7, 70), "another data folder speaks"),
            (open(7, 70, 7, 70), "this one itself"),
        ] {
            assert_eq!(judge(&ask), Err(ErrorCode::WrongBroker), "{why}");
        }
    }

    #[test]
    fn a_message_finds_its_group_and_no_other_of_the_same_number() {
        let (inbox, _kept) = outlet(1);
        let door = MemberDoor { group: 9, inbox, hand_over: outlet(1).0 };
        let gate = gate(Arc::new(BTreeMap::from([(ShardId(3), door)])));
        let found = |shard, group| {
            let ask = ShardMessage { shard: ShardId(shard), group };
            gate.member(&ask).map(|door| door.group).map_err(|error| error.code)
        };
        assert_eq!(found(3, 9), Ok(9));
        assert_eq!(found(3, 8), Err(ErrorCode::ShardTaken));
        assert_eq!(found(4, 9), Err(ErrorCode::Unavailable));
    }
}
