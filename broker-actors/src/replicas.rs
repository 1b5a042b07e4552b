//! Replicas: the shards of several members that this broker is a member of. Starts each as soon as the
//! routes name this broker among its members, has its members elsewhere find it, and lets go of those of
//! which it is no member any more. One that this broker has alone it makes such a one ([`alone`]).
//!
//! ```text
//! registry --RoutingChanged--> [Replicas] --starts--> Shard, Member (each on its core arbiter)
//!                                   |--Aim--> Member --Settled--> [Replicas] --LeadShards--> registry
//!                                   |--GiveBack--> Member (leads_back.rs)
//!                                   |--Replicated (snapshot)--> RegistryLink, whoever lists shards
//!                                   '--MemberDoors (snapshot)-> Connections of other brokers
//! ```
//!
//! * Owns: those shards, running, and those that the broker has alone; which are being started, which could
//!   not be, which may have to go, and which are to be led by others.
//! * Lives on: core arbiter 0.
//! * Inbox: [`RoutingChanged`] of one, [`Retire`], [`Settled`], `Outgrown`, `Started`, `Turning`, `Judged`, `Noted` and
//!   `GaveBack` of its own tasks, [`Tick`].
//! * Talks to: Member, to have it give its shard away or see to its members; the registry, to tell it what
//!   these are; its shards live by themselves.
//! * Stops: with the shards: stops them all and waits until they have.
//! * If it panics: the process ends: a second member must never be started beside the first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::NodeId;
use grus_log::RealDisk;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Place, Port, Receive, Resident, Room, Tick, Weigh, reply,
};
use grus_protocol::ids::{BrokerId, ShardId};
use grus_registry::command::ToldMembers;
use grus_registry::{
    RegistryHandle, RegistryRequest, RoutingChanged, RoutingTable, ShardPlace, Watch,
};
use tokio::sync::watch;

pub mod alone;
mod leads_back;
mod starting;
mod strays;

use crate::begun::Begun;
use crate::config::BrokerConfig;
use crate::disk_turns::DiskTurns;
use crate::dispatch::peers::MemberDoors;
use crate::drained::DrainedNow;
use crate::group_ties::GroupTies;
use crate::member::{
    AIMS_MAX, Aim, FROM_PEER_BYTES_MAX, HAND_OVERS_MAX, HandOver, Member, MemberDoor, Reason,
    Settled, Tells,
};
use crate::metrics::shards::LogMetrics;
use crate::network::{Network, PeerDoors};
use crate::refused_copy::{CopyAt, FolderIs, RefusedCopy};
use crate::shard::{FailedShard, FailedShards, Replicated, Shard, ShardPlaces, ShardStartError};

use alone::Alone;
use leads_back::LeadsBack;
use starting::{Begins, COPY_REST_MS, build, has_other_members, may_stand, others};
use strays::Strays;

const TICK: Duration = Duration::from_secs(1);
/// How long a shard that could not be started is left alone, in milliseconds.
const REST_MS: u64 = 10_000;
/// Members that may have settled and are not told yet.
const SETTLED_MAX: u32 = 256;

/// What Replicas is started with.
#[derive(Clone)]
pub struct ReplicaParts {
    /// Where the routes are told.
    pub registry: RegistryHandle,
    /// This broker.
    pub broker: BrokerId,
    /// The folder that has a folder for each shard.
    pub folder: PathBuf,
    /// The folder that names the shards that have begun.
    pub begun: PathBuf,
    /// How shards are kept.
    pub config: Arc<BrokerConfig>,
    /// Core arbiters, by shard number.
    pub cores: Vec<Place>,
    /// Arbiters for what blocks, by shard number.
    pub flushes: Vec<Place>,
    /// Where cold reads go.
    pub reader: Place,
    /// Where searches go.
    pub finder: Place,
    /// Who has the disk.
    pub disk_turns: DiskTurns,
    /// How long logs take.
    pub metrics: LogMetrics,
    /// What groups need.
    pub ties: GroupTies,
    /// The ways to other brokers.
    pub doors: watch::Receiver<PeerDoors>,
    /// Whether the broker is drained: then none of its members leads where another one can.
    pub drained: DrainedNow,
    /// Where the shards are published.
    pub replicated: Arc<watch::Sender<Replicated>>,
    /// Where their members are published.
    pub members: Arc<watch::Sender<MemberDoors>>,
    /// Where it is told which of them cannot be started, and why.
    pub failed: Arc<watch::Sender<FailedShards>>,
    /// Becomes true once all that the first routes named were started, or could not be.
    pub settled: Arc<watch::Sender<bool>>,
}

/// A shard runs, or could not be started.
struct Started {
    shard: ShardId,
    /// None: it was not tried, as its folder is still the copy that was refused.
    result: Option<Result<Running, ShardStartError>>,
    /// Its folder, where that was refused as a copy of before others came.
    copy: Option<FolderIs>,
}

impl Weigh for Started {}

/// A shard that runs, and its ear for other members.
struct Running {
    shard: Shard,
    ear: HostHandle<Member<RealDisk>>,
    group: u64,
}

impl Running {
    /// Tells it who is to be a member: again and again, as it may have been rebuilt.
    fn aim_at(&self, place: &ShardPlace) {
        let numbers = |list: &[BrokerId]| list.iter().map(|broker| broker.0).collect();
        let (wanted, members) = (numbers(&place.wanted), numbers(&place.members));
        let first = place.members.first().map(|broker| broker.0);
        let aim = Aim { wanted, members, members_at: place.members_at, first };
        let _ = self.ear.inbox(AIMS_MAX).try_put(aim); // full: the next one comes soon
    }

    async fn stop(self) {
        self.ear.stop().await;
        self.shard.stop().await;
    }
}

/// The broker is about to stop: gives away what it leads. New shards are not taken any more.
#[derive(Debug)]
pub struct Retire {
    /// Told once that is done, or cannot be.
    pub reply: Port<()>,
}

impl Weigh for Retire {}

/// All have stopped.
struct Stopped;

impl Weigh for Stopped {}

/// See the module documentation.
pub struct Replicas {
    parts: ReplicaParts,
    table: Arc<RoutingTable>,
    alone: Alone,
    running: BTreeMap<ShardId, Running>,
    starting: BTreeSet<ShardId>,
    /// Until when each is left alone.
    resting: BTreeMap<ShardId, u64>,
    /// Those whose folders were refused as copies of before others came.
    copies: BTreeMap<ShardId, RefusedCopy>,
    /// Those of which a member may be here that the routes do not name.
    strays: Strays,
    /// Those that are led here and are to be led by others.
    leads_back: LeadsBack,
    is_stopping: bool,
}

impl Replicas {
    /// Starts it at `place`; `alone` are the shards that the broker has alone.
    ///
    /// # Panics
    /// Never: it is built once.
    #[must_use]
    pub fn start(place: &Place, parts: ReplicaParts, alone: Alone) -> HostHandle<Self> {
        let spec = ActorSpec::new("Replicas", "broker").never_restarts();
        let mut alone = Some(alone);
        Host::spawn(place, spec, move || Self {
            parts: parts.clone(),
            table: Arc::default(),
            alone: alone.take().expect("it is built once"),
            running: BTreeMap::new(),
            starting: BTreeSet::new(),
            resting: BTreeMap::new(),
            copies: BTreeMap::new(),
            strays: Strays::default(),
            leads_back: LeadsBack::default(),
            is_stopping: false,
        })
    }

    /// Starts what the routes name and is not there.
    fn follow(&mut self, room: &mut Room<'_, Self>) {
        if self.is_stopping {
            return;
        }
        let now_ms = room.clock().monotonic_ms();
        self.resting.retain(|_, until_ms| *until_ms > now_ms);
        let table = Arc::clone(&self.table);
        for (shard, place) in table.memberships_of(self.parts.broker) {
            if let Some(running) = self.running.get(&shard) {
                running.aim_at(place);
            } else if !self.resting.contains_key(&shard) && !self.turn(shard, place, room) {
                self.start_one(shard, place, room);
            }
        }
        self.forget_failed();
        self.look_for_strays(room);
        let is_settled = self.starting.is_empty();
        self.parts.settled.send_if_modified(|settled| {
            let is_news = is_settled && !*settled;
            *settled |= is_settled;
            is_news
        });
    }

    /// Starts one, unless it is being started or judged.
    fn start_one(&mut self, shard: ShardId, place: &ShardPlace, room: &mut Room<'_, Self>) {
        let is_judged = self.strays.is_judged(shard);
        if !is_judged && self.starting.insert(shard) {
            let others = others(&self.table, place, self.parts.broker);
            let starting = self.begin(shard, place, others, Self::told_by_members(room));
            let (at, now_ms) = (self.copy_at(shard), room.clock().monotonic_ms());
            let copy = self.copies.get(&shard).filter(|copy| now_ms < copy.until_ms);
            let copy = copy.map(|copy| copy.folder);
            room.spawn_into(async move {
                if copy.is_some() && copy == at.clone().folder_is().await {
                    return Started { shard, result: None, copy: None };
                }
                Started::of(shard, at, starting).await
            });
        }
    }

    /// Starts a member of a group to which these may have come.
    fn begin(
        &self,
        shard: ShardId,
        place: &ShardPlace,
        others: Vec<NodeId>,
        tells: Tells,
    ) -> impl Future<Output = Result<Running, ShardStartError>> + use<> {
        let ReplicaParts { config, cores, flushes, reader, finder, .. } = &self.parts;
        let number = shard.0 as usize;
        let places = ShardPlaces {
            core: cores[number % cores.len()].clone(),
            flush: flushes[number % flushes.len()].clone(),
            reader: reader.clone(),
            finder: finder.clone(),
        };
        let folder = self.folder_of(shard);
        let mut settings =
            config.shard_settings(shard, self.parts.broker, folder, place.durability);
        settings.metrics = self.parts.metrics.shard(shard, place.durability);
        settings.groups = Some(self.parts.ties.clone());
        settings.disk_turns = self.parts.disk_turns.clone();
        let begins = Begins {
            begun: Begun::new(&self.parts.begun, shard, place.group),
            network: Network::new(shard, place.group, self.parts.doors.clone()),
            own: self.parts.broker,
            place: place.clone(),
            others,
            drained: self.parts.drained.clone(),
        };
        let core = places.core.clone();
        async move { core.run(move || build(places, settings, begins, tells)).await? }
    }

    fn folder_of(&self, shard: ShardId) -> PathBuf {
        self.parts.folder.join(shard.to_string())
    }

    fn copy_at(&self, shard: ShardId) -> CopyAt {
        let note = self.parts.begun.join(shard.to_string());
        CopyAt { folder: self.folder_of(shard), note }
    }

    /// Tells others why one could not be started; none: it could, or is not to be here any more.
    fn tell_failed(&self, shard: ShardId, why: Option<&ShardStartError>) {
        let place = self.table.shards.get(&shard);
        let failed = place
            .zip(why)
            .map(|(place, why)| FailedShard { durability: place.durability, why: why.to_string() });
        self.parts.failed.send_if_modified(|all| {
            let is_news = all.get(&shard) != failed.as_ref();
            if is_news {
                let all = Arc::make_mut(all);
                match failed {
                    Some(failed) => drop(all.insert(shard, failed)),
                    None => drop(all.remove(&shard)),
                }
            }
            is_news
        });
    }

    /// Forgets why those could not be started that are not to be here any more.
    fn forget_failed(&self) {
        let failed = Arc::clone(&self.parts.failed.borrow());
        let stands = |shard: &ShardId| may_stand(self.table.shards.get(shard), self.parts.broker);
        for shard in failed.keys().filter(|shard| !stands(shard)) {
            self.tell_failed(*shard, None);
        }
    }

    fn publish(&self) {
        let handles = self.running.values().map(|running| running.shard.handle().clone());
        self.parts.replicated.send_replace(handles.collect());
        let door = |(shard, running): (&ShardId, &Running)| {
            let inbox = running.ear.inbox(FROM_PEER_BYTES_MAX);
            let hand_over = running.ear.inbox(HAND_OVERS_MAX);
            (*shard, MemberDoor { group: running.group, inbox, hand_over })
        };
        self.parts.members.send_replace(Arc::new(self.running.iter().map(door).collect()));
    }
}

impl Resident for Replicas {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        let watch = Watch { to: room.inbox(1) };
        if self.parts.registry.watch.try_put(watch).is_err() {
            tracing::error!("the registry takes no watch");
        }
        room.tick_every(TICK);
        let ReplicaParts { begun, folder, .. } = &self.parts;
        Strays::find_noted(begun.clone(), folder.clone(), room);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        room.linger();
        self.is_stopping = true;
        self.parts.members.send_replace(MemberDoors::default());
        let (running, alone) = (std::mem::take(&mut self.running), self.alone.take_all());
        room.spawn_into(async move {
            let stops = running.into_values().map(Running::stop);
            let alone = alone.into_iter().map(Shard::stop);
            let all = futures_util::future::join_all(stops);
            futures_util::future::join(all, futures_util::future::join_all(alone)).await;
            Stopped
        });
    }
}

impl Receive<Retire> for Replicas {
    fn receive(&mut self, Retire { reply }: Retire, _: Credit, room: &mut Room<'_, Self>) {
        self.is_stopping = true;
        let mut answers = Vec::new();
        for running in self.running.values() {
            let (port, answer) = reply::port();
            let hand_over = HandOver { to: None, why: Reason::Retired, reply: port };
            if running.ear.inbox(1).try_put(hand_over).is_ok() {
                answers.push(answer);
            }
        }
        room.spawn(async move {
            futures_util::future::join_all(answers).await;
            reply.send(());
        });
    }
}

impl Receive<RoutingChanged> for Replicas {
    fn receive(&mut self, changed: RoutingChanged, _: Credit, room: &mut Room<'_, Self>) {
        let before = std::mem::replace(&mut self.table, changed.table);
        let table = &self.table;
        self.copies.retain(|shard, _| !has_other_members(*shard, &before, table));
        self.follow(room);
    }
}

impl Receive<Started> for Replicas {
    fn receive(&mut self, started: Started, _: Credit, room: &mut Room<'_, Self>) {
        let Started { shard, result, copy } = started;
        self.starting.remove(&shard);
        let now_ms = room.clock().monotonic_ms();
        let Some(result) = result else {
            self.resting.insert(shard, now_ms + REST_MS);
            return self.follow(room);
        };
        self.copies.remove(&shard);
        let until_ms = now_ms + COPY_REST_MS;
        self.copies.extend(copy.map(|folder| (shard, RefusedCopy { folder, until_ms })));
        match result {
            // It began before the broker stopped: nothing is asked of it, and it ends with its place.
            Ok(running) if self.is_stopping => drop(running),
            Ok(running) => {
                tracing::info!(%shard, "takes part in a replicated shard");
                self.running.insert(shard, running);
                self.publish();
                self.tell_failed(shard, None);
            }
            Err(error) => {
                self.tell_failed(shard, Some(&error));
                tracing::error!(%shard, %error, "a replicated shard cannot be started here");
                self.resting.insert(shard, now_ms + REST_MS);
            }
        }
        self.follow(room);
    }
}

impl Receive<Settled> for Replicas {
    fn receive(&mut self, settled: Settled, _: Credit, _: &mut Room<'_, Self>) {
        let Settled { shard, term, members, at } = settled;
        let (reply, _) = reply::port(); // while the routes do not say so it is told again
        let lead = RegistryRequest::LeadShards {
            broker: self.parts.broker,
            shards: vec![(shard, term)],
            members: vec![ToldMembers { shard, members, at }],
            reply,
        };
        let _ = self.parts.registry.ask.try_put(lead);
    }
}

impl Receive<Tick> for Replicas {
    fn receive(&mut self, _: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.follow(room);
        self.give_leads_back(room);
    }
}

impl Receive<Stopped> for Replicas {
    fn receive(&mut self, Stopped: Stopped, _: Credit, room: &mut Room<'_, Self>) {
        room.stop();
    }
}

#[cfg(test)]
mod tests {
    use grus_mailbox::{Clock, FatalPort, Places, Process, outlet};
    use grus_protocol::ids::Durability;
    use grus_registry::Claims;

    use super::*;
    use crate::shard::{ShardHandle, ShardSettings, start};

    async fn shard(number: u32, folder: &std::path::Path, places: &mut Places) -> Shard {
        let (shard, broker) = (ShardId(number), BrokerId(1));
        let folder = folder.join(number.to_string());
        let mut settings = ShardSettings::new(shard, broker, folder, Durability::Persisted);
        settings.log.first_segment_bytes = 256 * 1024;
        settings.log.segment_bytes = 256 * 1024;
        let at = ShardPlaces {
            core: places.core(0).clone(),
            flush: places.open(&format!("flush-{number}")),
            reader: places.open(&format!("reader-{number}")),
            finder: places.open(&format!("finder-{number}")),
        };
        start(at, settings).await.unwrap()
    }

    #[actix::test]
    async fn one_that_becomes_a_groups_is_claimed_alone_no_more_and_nobody_is_told_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (fatal, _fatals) = FatalPort::channel();
        let mut places = Places::start(1, &Process::new(Clock::system(), fatal));
        let mut shards = Vec::new();
        for number in [3, 4] {
            shards.push(shard(number, folder.path(), &mut places).await);
        }
        let handles: Arc<[ShardHandle]> = shards.iter().map(|one| one.handle().clone()).collect();
        let (told, known) = watch::channel(handles);
        let (claims, mut heard) = outlet(4);
        let mut alone = Alone::new(shards, told, claims);
        let taken = alone.take(ShardId(3)).expect("it runs");
        assert_eq!(taken.handle().shard, ShardId(3));
        let (now, _) = heard.try_take().expect("the registry is told");
        // None is wanted in its place: the broker would get another one.
        let left = vec![(ShardId(4), Durability::Persisted)];
        assert_eq!(now, Claims { shards: left, wanted: 0 });
        let known: Vec<ShardId> = known.borrow().iter().map(|handle| handle.shard).collect();
        assert_eq!(known, [ShardId(4)]);
        assert!(alone.take(ShardId(3)).is_none() && heard.try_take().is_none(), "once");
        taken.stop().await;
        for shard in alone.take_all() {
            shard.stop().await;
        }
        places.stop_and_join().await;
    }
}
