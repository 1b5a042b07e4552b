//! Members: their disks, which outlive them, and their processes, which may end at any moment.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use grus_broker::disk_pace::DiskPace;
use grus_broker::group_ties::GroupTies;
use grus_broker::shard::{
    Ground, Membership, Shard, ShardHandle, ShardMachine, ShardMember, ShardPlaces, ShardRequest,
    ShardSettings, TopicConfig, start_member,
};
use grus_consensus::{Group, NodeId, Sabotage, Timings, seed_chances};
use grus_log::{Log, Seeded, SimDisk};
use grus_mailbox::reply::port;
use grus_mailbox::{Clock, FatalPort, Place, Process};
use grus_protocol::ids::{BrokerId, Durability, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::names::TopicName;
use tokio::runtime::{Builder, RngSeed};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use crate::net::Net;
use crate::seeds::replayed;

/// Bytes of a segment.
pub(crate) const SEGMENT_BYTES: u32 = 128 * 1024;
/// How long a disk takes for a job that is well, in microseconds.
pub(crate) const DISK_US_MAX: u64 = 3_000;
/// When the world begins.
const BEGIN: TimestampMs = TimestampMs(1_800_000_000_000);

/// Runs a simulation on paused time.
pub(crate) fn simulate<T>(simulation: impl Future<Output = T>) -> T {
    simulate_by(0, simulation)
}

/// The same, with the chances of the runtime and of elections by a seed.
pub(crate) fn simulate_by<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    seed_chances(seed);
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().unwrap();
    LocalSet::new().block_on(&runtime, simulation)
}

/// The same as the whole of a test; a failure prints the command that runs it again.
pub(crate) fn simulate_test<T>(simulation: impl Future<Output = T>) -> T {
    let thread = thread::current();
    // Each test has a thread that is called after it, unless there is one for all.
    let test = thread.name().filter(|name| *name != "main").unwrap_or_default();
    replayed(test, "", || simulate(simulation))
}

/// A process that runs.
pub(crate) struct Running {
    pub(crate) handle: ShardHandle,
    pub(crate) group: Group<ShardMachine, SimDisk>,
    pub(crate) ground: Rc<Ground<SimDisk>>,
    pub(crate) log: Rc<RefCell<Log<SimDisk>>>,
    pub(crate) machine: Rc<RefCell<ShardMachine>>,
    shard: Shard<SimDisk>,
}

/// A member.
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) disk: SimDisk,
    pub(crate) running: Option<Running>,
    /// Its clock, whose wall time can be set wrong.
    pub(crate) clock: Clock,
    /// How long its disk takes for a job at most, in microseconds, in a [`World::harsh`] world.
    pub(crate) disk_us_max: Arc<AtomicU64>,
    /// Why its process cannot go on.
    pub(crate) fault: Arc<OnceLock<String>>,
    /// How often it was started.
    starts: u64,
    /// All that the process does; it may be starting still.
    task: Option<JoinHandle<()>>,
}

impl Member {
    fn new(node: NodeId, disk: SimDisk, clock: Clock) -> Self {
        Self {
            node,
            disk,
            running: None,
            clock: clock.with_hand(),
            disk_us_max: Arc::new(AtomicU64::new(DISK_US_MAX)),
            fault: Arc::default(),
            starts: 0,
            task: None,
        }
    }

    pub(crate) fn group(&self) -> Option<&Group<ShardMachine, SimDisk>> {
        self.running.as_ref().map(|running| &running.group)
    }

    /// Whether it runs, its power is on, and nothing has stopped it.
    pub(crate) fn is_alive(&self) -> bool {
        self.running.is_some() && !self.disk.is_off() && self.fault.get().is_none()
    }

    /// What a disk takes for its jobs, by a seed.
    fn pace(&self, seed: u64) -> DiskPace {
        let us_max = Arc::clone(&self.disk_us_max);
        let seed = (seed ^ (self.node << 40)).wrapping_add(self.starts);
        let rng = Mutex::new(Seeded::new(seed));
        DiskPace::of(move || {
            let most = us_max.load(Relaxed).max(2);
            let chance = rng.lock().unwrap().below(most / 2);
            Duration::from_micros(50 + most / 2 + chance)
        })
    }
}

/// All members, and the time they share.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) members: BTreeMap<NodeId, Member>,
    pub(crate) net: Net,
    founders: Vec<NodeId>,
    /// What consumer groups need of the rest of a broker.
    pub(crate) groups: Option<GroupTies>,
    /// How sure what it acknowledges is.
    pub(crate) durability: Durability,
    /// Rules that its members do without.
    pub(crate) sabotage: Sabotage,
    /// Disks take their time, and a process ends with its power, or when it cannot go on; by this seed.
    harsh: Option<u64>,
}

impl World {
    /// A world of these founders, none of which runs.
    pub(crate) fn of(founders: &[NodeId], seed: u64) -> Self {
        let clock = Clock::simulated(BEGIN);
        let member = |node: &NodeId| {
            let disk = SimDisk::new(seed.wrapping_mul(1_000_003) ^ *node);
            (*node, Member::new(*node, disk, clock))
        };
        let members = founders.iter().map(member).collect();
        Self {
            clock,
            members,
            net: Net::new(seed),
            founders: founders.to_vec(),
            groups: None,
            durability: Durability::Persisted,
            sabotage: Sabotage::default(),
            harsh: None,
        }
    }

    /// The same, where disks take their time, and a process ends by itself when its power goes or when it
    /// cannot go on.
    pub(crate) fn harsh(founders: &[NodeId], seed: u64) -> Self {
        Self { harsh: Some(seed), ..Self::of(founders, seed) }
    }

    pub(crate) fn now(&self) -> u64 {
        self.clock.now().0
    }

    fn settings(&self, node: NodeId) -> ShardSettings {
        let folder = PathBuf::from("/data/0");
        let mut settings = ShardSettings::new(ShardId(0), BrokerId(node), folder, self.durability);
        settings.log.first_segment_bytes = SEGMENT_BYTES;
        settings.log.segment_bytes = SEGMENT_BYTES;
        settings.retention_check_ms = 50;
        settings.groups.clone_from(&self.groups);
        settings.sabotage = self.sabotage;
        if let Some(seed) = self.harsh {
            settings.disk_pace = self.members[&node].pace(seed);
        }
        settings
    }

    /// Starts a member on what its disk holds. One alone is ready then. Dropped, it goes on starting until
    /// it is killed.
    ///
    /// # Errors
    /// Why it does not start.
    pub(crate) async fn start(&mut self, node: NodeId) -> Result<(), String> {
        let member = self.members.get_mut(&node).unwrap();
        member.starts += 1;
        member.fault = Arc::default();
        let (disk, fault) = (member.disk.clone(), Arc::clone(&member.fault));
        let told = Arc::clone(&fault);
        let fatal = FatalPort::new(move |fatal| {
            let _ = told.set(fatal.to_string()); // the first one is the cause
        });
        let process = Process::new(member.clock, fatal);
        let place = Place::here("here", &process);
        let places = ShardPlaces {
            core: place.clone(),
            flush: place.clone(),
            reader: place.clone(),
            finder: place,
        };
        let settings = self.settings(node);
        let is_founder = self.founders.contains(&node);
        let founders = self.founders.iter().map(|id| (*id, format!("m{id}")));
        let silent = disk.clone();
        let membership = Membership {
            founders: founders.filter(|_| is_founder).collect(),
            has_others: false,
            has_begun: false,
            others: Vec::new(),
            peers: self.net.peers(node, move || silent.is_off()),
            timings: if self.founders == [node] { Timings::ALONE } else { Timings::default() },
        };
        let (net, itself) = (self.net.clone(), disk.clone());
        let (started, outcome) = oneshot::channel();
        let process = LocalSet::new();
        process.spawn_local(async move {
            let mut calls = net.open(node);
            let member = start_member(itself, &places, settings, membership).await;
            let group = member.as_ref().ok().map(|member| member.group.clone());
            let _ = started.send(member.map_err(|error| error.to_string()));
            let Some(group) = group else { return };
            while let Some(call) = calls.recv().await {
                let group = group.clone();
                tokio::task::spawn_local(async move {
                    let answer = group.handle(call.message).await;
                    let _ = call.reply.send(answer); // who asked may be gone
                });
            }
        });
        let ends_itself = self.harsh.is_some();
        let is_over = move || ends_itself && (disk.is_off() || fault.get().is_some());
        let task = tokio::task::spawn_local(async move {
            let mut process = pin!(process);
            let life = poll_fn(|context| match process.as_mut().poll(context) {
                _ if is_over() => Poll::Ready(()),
                polled => polled,
            });
            life.await;
        });
        self.members.get_mut(&node).unwrap().task = Some(task);
        let outcome = outcome.await;
        let ShardMember { shard, group, ground } = outcome.map_err(|_| "it panicked")??;
        let handle = shard.handle().clone();
        let (log, machine) = (Rc::clone(&ground.log), Rc::clone(&ground.machine));
        let running = Running { handle, group, ground, log, machine, shard };
        self.members.get_mut(&node).unwrap().running = Some(running);
        Ok(())
    }

    /// Ends a process from one moment to the next, its disk keeping what was written.
    pub(crate) async fn kill(&mut self, node: NodeId) {
        self.members[&node].disk.kill_process();
        self.end(node).await;
    }

    /// Stops a member in order.
    pub(crate) async fn stop(&mut self, node: NodeId) {
        let running = self.members.get_mut(&node).unwrap().running.take().expect("it runs");
        running.shard.stop().await;
        self.end(node).await;
    }

    /// From here on no message reaches anybody.
    pub(crate) fn cut_all(&self) {
        for node in self.members.keys() {
            self.net.close(*node);
        }
    }

    /// Cuts the power, unless it is off: what was not synced is lost, sector by sector. Then it is on
    /// again.
    pub(crate) async fn cut_power(&mut self, node: NodeId) {
        let disk = self.members[&node].disk.clone();
        disk.cut();
        self.end(node).await;
        disk.power_on();
    }

    async fn end(&mut self, node: NodeId) {
        self.net.close(node);
        let member = self.members.get_mut(&node).unwrap();
        if let Some(task) = member.task.take() {
            task.abort();
            let _ = task.await; // it was aborted
        }
        member.running = None;
    }

    pub(crate) fn running(&self, node: NodeId) -> &Running {
        self.members[&node].running.as_ref().expect("it runs")
    }

    /// Those that run.
    pub(crate) fn alive(&self) -> impl Iterator<Item = (NodeId, &Running)> {
        let running = |(node, member): (&NodeId, _)| {
            let member: &Member = member;
            member.running.as_ref().map(|running| (*node, running))
        };
        self.members.iter().filter_map(move |(node, member)| running((node, member)))
    }

    /// The member that leads and is ready.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let ready = self.alive().filter_map(|(node, running)| {
            let status = running.group.status();
            (status.ready && !status.lease_left.is_zero()).then_some((status.term, node))
        });
        ready.max().map(|(_, node)| node)
    }

    /// Waits until some member leads.
    pub(crate) async fn wait_leader(&self) -> NodeId {
        for _ in 0..6_000 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody leads after a minute");
    }

    /// Adds a member that waits to be taken in.
    pub(crate) fn add(&mut self, node: NodeId) {
        let member = Member::new(node, SimDisk::new(node), self.clock);
        assert!(self.members.insert(node, member).is_none());
    }

    /// Opens topics where `node` leads; those that are there are opened again. False if that could
    /// not be done.
    pub(crate) async fn open_topics(&self, node: NodeId, topics: &[TopicConfig]) -> bool {
        for config in topics {
            let (reply, answer) = port();
            let config = config.clone();
            let request = ShardRequest::OpenTopic { config, reply };
            let _ = self.running(node).handle.inbox.put(request).await; // the answer says so
            if !matches!(answer.await, Ok(Ok(_))) {
                return false;
            }
        }
        true
    }
}

/// Waits until the power of a disk is off. A thread looks for it: a process whose disk answers nothing but
/// errors may keep this one busy, so that its time stands still.
pub(crate) async fn power_off(disk: &SimDisk) {
    struct Watching(Arc<AtomicBool>);
    impl Drop for Watching {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let (is_over, is_off) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let watching = Watching(Arc::clone(&is_over));
    let (disk, notify) = (disk.clone(), Arc::clone(&is_off));
    thread::spawn(move || {
        while !disk.is_off() && !is_over.load(Relaxed) {
            thread::park_timeout(Duration::from_micros(200));
        }
        notify.notify_one();
    });
    is_off.notified().await;
    drop(watching);
}

/// A topic of one queue that keeps so many bytes; 0: all.
pub(crate) fn topic(topic: u64, retention_bytes: u64) -> TopicConfig {
    let name = TopicName::try_from(format!("topic-{topic}").as_str()).unwrap();
    let plain = TopicConfig::plain(TopicId(topic), name, vec![QueueId(0)]);
    TopicConfig { retention_bytes, ..plain }
}
