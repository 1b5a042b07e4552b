//! Members that are here, and that the routes do not name: whether they are out is for their group to say,
//! and nobody else. One that is, goes, with its folder; any other one runs on, or is started again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use grus_mailbox::{Credit, Receive, Room, Weigh};
use grus_protocol::ids::ShardId;
use grus_registry::ShardPlace;

use super::{REST_MS, Replicas, Running};
use crate::begun::Begun;
use crate::network::Network;
use crate::stray::{self, Stray, Verdict};

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// The shards of which a note says that a member began here.
    noted: BTreeSet<ShardId>,
    /// Those about which the others are being asked, or that are going.
    judged: BTreeSet<ShardId>,
    /// Until when each is left alone.
    resting: BTreeMap<ShardId, u64>,
}

/// The notes that were found.
pub(super) struct Noted(Vec<ShardId>);

impl Weigh for Noted {}

/// What became of a member that the routes do not name.
pub(super) struct Judged {
    shard: ShardId,
    verdict: Verdict,
}

impl Weigh for Judged {}

impl Strays {
    /// Whether it must not be started just now.
    pub(super) fn is_judged(&self, shard: ShardId) -> bool {
        self.judged.contains(&shard)
    }

    /// Looks which members have begun here.
    pub(super) fn find_noted(begun: PathBuf, shards: PathBuf, room: &mut Room<'_, Replicas>) {
        room.spawn_into(async move { Noted(stray::noted(begun, shards).await) });
    }
}

impl Replicas {
    /// Asks about members that are here and that the routes do not name.
    pub(super) fn look_for_strays(&mut self, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        self.strays.resting.retain(|_, until_ms| *until_ms > now_ms);
        let here: BTreeSet<ShardId> =
            self.strays.noted.iter().chain(self.running.keys()).copied().collect();
        for shard in here {
            let Some(place) = self.table.shards.get(&shard).filter(|place| place.is_replicated())
            else {
                continue; // nobody is known who could say
            };
            let running = self.running.get(&shard);
            let is_another = running.is_some_and(|running| running.group != place.group);
            let is_resting = self.strays.resting.contains_key(&shard);
            let is_busy = self.starting.contains(&shard) || self.strays.is_judged(shard);
            if place.is_on(self.parts.broker) || is_another || is_resting || is_busy {
                continue;
            }
            let stray = self.stray(shard, place);
            self.strays.judged.insert(shard);
            if running.is_some() {
                room.spawn_into(async move { Judged { shard, verdict: stray.hear().await } });
            } else {
                room.spawn_into(async move { Judged { shard, verdict: stray.leave().await } });
            }
        }
    }

    fn stray(&self, shard: ShardId, place: &ShardPlace) -> Stray {
        let network = Network::new(shard, place.group, self.parts.doors.clone());
        network.open();
        Stray {
            own: self.parts.broker,
            others: place.members.iter().chain(&place.wanted).copied().collect(),
            network,
            begun: Begun::new(&self.parts.begun, shard, place.group),
            folder: self.parts.folder.join(shard.to_string()),
        }
    }

    /// It is out as far as it hears: it is stopped, and asks once more.
    fn let_go(&mut self, shard: ShardId, running: Running, room: &mut Room<'_, Self>) {
        let Some(place) = self.table.shards.get(&shard) else {
            self.running.insert(shard, running); // the routes forgot it meanwhile
            self.strays.judged.remove(&shard);
            return;
        };
        let stray = self.stray(shard, place);
        self.publish();
        room.spawn_into(async move {
            running.stop().await;
            Judged { shard, verdict: stray.leave().await }
        });
    }
}

impl Receive<Noted> for Replicas {
    fn receive(&mut self, Noted(shards): Noted, _: Credit, room: &mut Room<'_, Self>) {
        self.strays.noted.extend(shards);
        self.follow(room);
    }
}

impl Receive<Judged> for Replicas {
    fn receive(&mut self, judged: Judged, _: Credit, room: &mut Room<'_, Self>) {
        let Judged { shard, verdict } = judged;
        if verdict == Verdict::Out
            && !self.is_stopping
            && let Some(running) = self.running.remove(&shard)
        {
            return self.let_go(shard, running, room);
        }
        self.strays.judged.remove(&shard);
        let until_ms = match verdict {
            Verdict::Gone => {
                tracing::info!(%shard, "it is no member any more, and its folder is gone");
                self.strays.noted.remove(&shard);
                return;
            }
            Verdict::Another => u64::MAX,
            Verdict::In | Verdict::Out | Verdict::Unknown => {
                room.clock().monotonic_ms().saturating_add(REST_MS)
            }
        };
        self.strays.resting.insert(shard, until_ms);
        self.strays.noted.insert(shard);
        let place = self.table.shards.get(&shard).cloned();
        let was_stopped = !self.running.contains_key(&shard) && !self.is_stopping;
        if let Some(place) = place.filter(|_| was_stopped && verdict != Verdict::Another) {
            self.start_one(shard, &place, room); // it may be in, and be needed
        }
    }
}
