//! Shards that this broker has alone, until the routes say that they are a group's. Then it notes durably
//! that it has begun as a member of that group, asks those that were to come whether they have come already,
//! stops the shard, and starts it again as that member, the only one yet: its log stays as it is, and whoever
//! sends or reads waits as for an election. Nobody else can come in before: only a member that runs as one
//! takes others, and it is noted by then. They are asked while the shard still serves: before anybody has
//! come, nobody can answer, and that takes two seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use grus_consensus::{NodeId, Peers, Timings, others_have_come};
use grus_mailbox::{Credit, Inbox, Receive, Room, Weigh};
use grus_protocol::ids::ShardId;
use grus_registry::{Claims, ShardPlace};

use super::starting::{aside, has_others, others};
use super::{REST_MS, Replicas, Started};
use crate::begun::Begun;
use crate::network::Network;
use crate::shard::{Shard, ShardHandle, ShardStartError, ShardTeller};

/// See the module documentation.
pub struct Alone {
    shards: BTreeMap<ShardId, Shard>,
    /// Those of which it is being noted that they are a group's, or of which others are asked.
    noting: BTreeSet<ShardId>,
    told: ShardTeller,
    claims: Inbox<Claims>,
}

impl Alone {
    /// These, which run; others of this broker are told of them there, and the registry is by `claims`.
    #[must_use]
    pub fn new(shards: Vec<Shard>, told: ShardTeller, claims: Inbox<Claims>) -> Self {
        let shards = shards.into_iter().map(|shard| (shard.handle().shard, shard)).collect();
        Self { shards, noting: BTreeSet::new(), told, claims }
    }

    /// All of them, to be stopped.
    pub(super) fn take_all(&mut self) -> Vec<Shard> {
        std::mem::take(&mut self.shards).into_values().collect()
    }

    /// One of them, which becomes a group's: nobody is told of it any more.
    pub(super) fn take(&mut self, shard: ShardId) -> Option<Shard> {
        let taken = self.shards.remove(&shard)?;
        self.told.send_modify(|told| {
            let left = told.iter().filter(|handle| handle.shard != shard);
            *told = left.cloned().collect::<Vec<ShardHandle>>().into();
        });
        // Else the broker claims it with each registration: once it is no member any more, that would have
        // the registry refuse it.
        let left = self.shards.values().map(|left| (left.handle().shard, left.handle().durability));
        let _ = self.claims.try_put(Claims { shards: left.collect(), wanted: 0 }); // it is stopping
        Some(taken)
    }
}

/// It is noted that a shard is a group's, or could not be.
pub(super) struct Turning {
    shard: ShardId,
    /// Who is to be asked once more when it starts.
    result: Result<Vec<NodeId>, ShardStartError>,
}

impl Weigh for Turning {}

impl Replicas {
    /// Of a shard that runs as one that this broker has alone: begins to make it a group's. False for any
    /// other one.
    pub(super) fn turn(
        &mut self,
        shard: ShardId,
        place: &ShardPlace,
        room: &mut Room<'_, Self>,
    ) -> bool {
        if !self.alone.shards.contains_key(&shard) {
            return false;
        }
        if has_others(place, self.parts.broker, false) {
            // Nothing is noted: how it is started says that it is a copy, and of what.
            self.start_turned(shard, place, Vec::new(), room);
            return true;
        }
        if self.alone.noting.insert(shard) {
            let begun = Begun::new(&self.parts.begun, shard, place.group);
            let network = Network::new(shard, place.group, self.parts.doors.clone());
            let own = self.parts.broker;
            let others = others(&self.table, place, own);
            room.spawn_into(async move {
                let noted = aside(begun, Begun::note).await;
                let result = match noted {
                    Ok(()) => {
                        network.open();
                        let peers: Rc<dyn Peers> = Rc::new(network);
                        let timings = Timings::default();
                        let have_come = others_have_come(&peers, own.0, &others, timings).await;
                        // How it is started says that it is a copy, where they say so again.
                        Ok(if have_come { others } else { Vec::new() })
                    }
                    Err(error) => Err(error),
                };
                Turning { shard, result }
            });
        }
        true
    }

    /// Stops a shard that runs as one that this broker has alone, and starts it as a group's, to which these may
    /// have come.
    fn start_turned(
        &mut self,
        shard: ShardId,
        place: &ShardPlace,
        others: Vec<NodeId>,
        room: &mut Room<'_, Self>,
    ) {
        let Some(alone) = self.alone.take(shard) else { return };
        tracing::info!(%shard, group = place.group, wanted = ?place.wanted,
            "it becomes a shard of several brokers");
        self.starting.insert(shard);
        let starting = self.begin(shard, place, others, Self::told_by_members(room));
        let at = self.copy_at(shard);
        room.spawn_into(async move {
            alone.stop().await;
            Started::of(shard, at, starting).await
        });
    }
}

impl Receive<Turning> for Replicas {
    fn receive(&mut self, turning: Turning, _: Credit, room: &mut Room<'_, Self>) {
        let Turning { shard, result } = turning;
        self.alone.noting.remove(&shard);
        let others = match result {
            Ok(others) => others,
            Err(error) => {
                tracing::error!(%shard, %error, "it cannot become one of several brokers");
                self.resting.insert(shard, room.clock().monotonic_ms() + REST_MS);
                return;
            }
        };
        let place = self.table.shards.get(&shard).filter(|place| place.is_replicated()).cloned();
        let Some(place) = place.filter(|_| !self.is_stopping) else { return };
        self.start_turned(shard, &place, others, room);
    }
}
