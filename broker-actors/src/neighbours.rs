//! Neighbours: the other brokers that have members of the shards that have members here.
//!
//! ```text
//! registry --RoutingChanged--> [Neighbours] --starts, tells where--> Peer (two for each broker)
//!                                    '--PeerDoors (snapshot)--> Network of each member
//! ```
//!
//! * Owns: the Peers. They stay once they are there, connected or not: few brokers share shards.
//! * Lives on: core arbiter 0.
//! * Inbox: [`RoutingChanged`] of one.
//! * Talks to: Peer.
//! * Stops: after the shards; stops its peers.
//! * If it panics: it is rebuilt, with peers that connect anew; who waited for the old ones is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use grus_mailbox::{ActorSpec, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, Room};
use grus_protocol::ids::BrokerId;
use grus_registry::{RegistryHandle, RoutingChanged, RoutingTable, Watch};
use tokio::sync::watch;

use crate::network::{PeerDoor, PeerDoors};
use crate::peer::{Lane, Peer, PeerIs, PeerSettings};

/// What Neighbours is started with.
#[derive(Clone)]
pub struct NeighbourParts {
    /// Where the routes are told.
    pub registry: RegistryHandle,
    /// This broker.
    pub broker: BrokerId,
    /// The number of its disk.
    pub disk: u64,
    /// The longest frame that it may send.
    pub frame_bytes_max: u32,
    /// Where the ways to peers are published.
    pub doors: Arc<watch::Sender<PeerDoors>>,
}

struct Neighbour {
    peers: [HostHandle<Peer>; 2],
    is_at: [Inbox<PeerIs>; 2],
}

/// See the module documentation.
pub struct Neighbours {
    parts: NeighbourParts,
    known: BTreeMap<BrokerId, Neighbour>,
}

impl Neighbours {
    /// Starts it at `place`.
    #[must_use]
    pub fn start(place: &Place, parts: NeighbourParts) -> HostHandle<Self> {
        Host::spawn(place, ActorSpec::new("Neighbours", "broker"), move || Self {
            parts: parts.clone(),
            known: BTreeMap::new(),
        })
    }

    fn meet(&mut self, broker: BrokerId, peer: &PeerIs, place: &Place) {
        if let Some(neighbour) = self.known.get(&broker) {
            for is_at in &neighbour.is_at {
                let _ = is_at.try_put(peer.clone()); // full: the next change of the routes tells it
            }
            return;
        }
        let NeighbourParts { broker: own, disk: own_disk, frame_bytes_max, .. } = self.parts;
        let peers = [Lane::Messages, Lane::Installs].map(|lane| {
            let peer = peer.clone();
            Peer::start(place, PeerSettings { own, own_disk, frame_bytes_max, peer, lane })
        });
        let [messages, installs] = &peers;
        let door = PeerDoor {
            messages: messages.inbox(Lane::Messages.bytes_max()),
            installs: installs.inbox(Lane::Installs.bytes_max()),
        };
        self.parts.doors.send_modify(|doors| drop(Arc::make_mut(doors).insert(broker, door)));
        let is_at = [messages.inbox(4), installs.inbox(4)];
        self.known.insert(broker, Neighbour { peers, is_at });
    }
}

/// The brokers that have members of shards, or are to have some, but for `own`: also of shards that it is
/// no member of, as one that is out asks them whether it is. No connection is made before there is
/// something to say.
fn neighbours_of(own: BrokerId, table: &RoutingTable) -> BTreeMap<BrokerId, PeerIs> {
    let all = table.shards.values().flat_map(|place| place.members.iter().chain(&place.wanted));
    let others = all.filter(|other| **other != own);
    let known = others.filter_map(|other| {
        let place = table.brokers.get(other)?;
        Some((*other, PeerIs { address: place.address.clone(), disk: place.disk }))
    });
    known.collect()
}

impl Resident for Neighbours {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        let watch = Watch { to: room.inbox(1) };
        if self.parts.registry.watch.try_put(watch).is_err() {
            tracing::error!("the registry takes no watch");
        }
    }

    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        self.parts.doors.send_replace(PeerDoors::default());
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for peer in self.known.values().flat_map(|neighbour| &neighbour.peers) {
            drop(peer.stop()); // nobody waits for it
        }
    }
}

impl Receive<RoutingChanged> for Neighbours {
    fn receive(&mut self, changed: RoutingChanged, _: Credit, room: &mut Room<'_, Self>) {
        for (broker, peer) in neighbours_of(self.parts.broker, &changed.table) {
            self.meet(broker, &peer, room.place());
        }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerAddress, Durability, ShardId};
    use grus_registry::{BrokerPlace, ShardPlace};

    use super::*;

    #[test]
    fn neighbours_are_all_that_have_members() {
        let mut table = RoutingTable::default();
        for broker in 1..=5 {
            let id = BrokerId(broker);
            let address = BrokerAddress { id, host: format!("h{broker}"), port: 1 };
            table.brokers.insert(id, BrokerPlace { address, live: true, disk: broker * 10 });
        }
        for (shard, members) in [(0, vec![]), (1, vec![1, 2, 3]), (2, vec![3, 4]), (3, vec![4, 5])]
        {
            let members: Vec<_> = members.into_iter().map(BrokerId).collect();
            let place =
                ShardPlace { members, ..ShardPlace::alone(Durability::Persisted, BrokerId(1)) };
            table.shards.insert(ShardId(shard), place);
        }
        let of = |own: u64| -> Vec<u64> {
            neighbours_of(BrokerId(own), &table).keys().map(|broker| broker.0).collect()
        };
        assert_eq!(
            [of(1), of(4), of(9)],
            [vec![2, 3, 4, 5], vec![1, 2, 3, 5], vec![1, 2, 3, 4, 5]]
        );
        assert_eq!(neighbours_of(BrokerId(5), &table)[&BrokerId(4)].disk, 40);
    }
}
