//! One member: its disk, which outlives it, and its process, which may be killed at any moment.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use grus_consensus::{Fault, Group, GroupConfig, JobPort, NodeId, Sabotage, StartError, Timings};
use grus_log::Seeded;
use grus_log::{Job, JobDone, Log, LogConfig, SimDisk};
use grus_protocol::ids::{Durability, ShardId, TimestampMs};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, LocalSet};

use super::Rt;
use super::machine::Queues;
use super::net::Net;
use super::trace::Trace;

/// How long a job takes at most on a disk that is well, in microseconds.
pub const FLUSH_US_MAX: u64 = 3_000;
/// What clocks that are right show at the beginning.
const EPOCH_MS: u64 = 1_000_000;

/// The group of a simulated member.
pub type SimGroup = Group<Queues, SimDisk, Rt>;

/// What all members of a simulation are started with.
#[derive(Clone)]
pub struct Setup {
    pub durability: Durability,
    pub founders: Vec<NodeId>,
    /// Who joins a group that is there: they found nothing, and begin as ones that have lost their log.
    pub joiners: BTreeSet<NodeId>,
    /// Of whose group it is known that others have come since it was founded.
    pub outgrown: BTreeSet<NodeId>,
    /// Who is asked by an only voter whether others have come.
    pub wanted: Vec<NodeId>,
    /// On whose disks something is damaged.
    pub damaged: BTreeSet<NodeId>,
    pub sabotage: Sabotage,
    pub log: LogConfig,
}

impl Setup {
    pub fn new(durability: Durability, founders: &[NodeId]) -> Self {
        let log = LogConfig {
            durability,
            segment_bytes: 64 * 1024,
            first_segment_bytes: 64 * 1024,
            unsynced_bytes_max: 32 * 1024,
            ..LogConfig::default()
        };
        Self {
            durability,
            founders: founders.to_vec(),
            joiners: BTreeSet::new(),
            outgrown: BTreeSet::new(),
            wanted: Vec::new(),
            damaged: BTreeSet::new(),
            sabotage: Sabotage::default(),
            log,
        }
    }
}

impl Setup {
    fn founders_of(&self, node: NodeId) -> Vec<(NodeId, String)> {
        if self.joiners.contains(&node) {
            return Vec::new();
        }
        self.founders.iter().map(|id| (*id, format!("m{id}"))).collect()
    }
}

/// Jobs wait here for the member's flush task.
#[derive(Clone, Default)]
struct Jobs(Rc<JobQueue>);

#[derive(Default)]
struct JobQueue {
    jobs: RefCell<VecDeque<Job<SimDisk>>>,
    more: Notify,
}

impl JobPort<SimDisk> for Jobs {
    fn submit(&self, job: Job<SimDisk>) -> Option<JobDone<SimDisk>> {
        self.0.jobs.borrow_mut().push_back(job);
        self.0.more.notify_one();
        None
    }
}

/// A running process.
pub struct Running {
    pub group: SimGroup,
    pub log: Rc<RefCell<Log<SimDisk>>>,
    pub machine: Rc<RefCell<Queues>>,
    task: JoinHandle<()>,
}

/// One member.
pub struct Member {
    pub node: NodeId,
    pub disk: SimDisk,
    pub running: Option<Running>,
    /// The fault that stopped the current process.
    pub fault: Rc<RefCell<Option<Fault>>>,
    /// How long a job may take, in microseconds.
    pub flush_us_max: Rc<Cell<u64>>,
    /// How far its wall clock is ahead of the others'.
    pub skew_ms: Rc<Cell<i64>>,
    starts: Cell<u64>,
    seed: u64,
}

impl Member {
    pub fn new(node: NodeId, seed: u64) -> Self {
        let seed = seed.wrapping_mul(1_000_003) ^ node;
        Self {
            node,
            disk: SimDisk::new(seed),
            running: None,
            fault: Rc::default(),
            flush_us_max: Rc::new(Cell::new(FLUSH_US_MAX)),
            skew_ms: Rc::default(),
            starts: Cell::new(0),
            seed,
        }
    }

    /// Starts the process on what its disk holds.
    pub async fn start(
        &mut self,
        net: &Net,
        setup: &Setup,
        trace: &Trace,
    ) -> Result<(), StartError> {
        assert!(self.running.is_none(), "runs already");
        if self.disk.is_off() {
            self.disk.power_on();
        }
        self.fault = Rc::default();
        self.starts.set(self.starts.get() + 1);
        let seed = self.seed ^ (self.starts.get() << 32);
        let config = self.config(setup, trace);
        let (disk, node) = (self.disk.clone(), self.node);
        let (mut log_config, net) = (setup.log.clone(), net.clone());
        log_config.was_written |= setup.joiners.contains(&node);
        let is_damaged = setup.damaged.contains(&node);
        let flush_us_max = Rc::clone(&self.flush_us_max);
        let (started, outcome) = oneshot::channel();
        let process = LocalSet::new();
        process.spawn_local(Rt::scope(seed, async move {
            let log_config = (log_config, is_damaged);
            let parts = open(disk, log_config, config, &net, (seed, flush_us_max)).await;
            let (parts, group) = match parts {
                Ok((group, log, machine)) => ((group.clone(), log, machine), group),
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let mut inbox = net.open(node);
            let _ = started.send(Ok(parts));
            while let Some(call) = inbox.recv().await {
                let group = group.clone();
                <Rt as openraft_rt::AsyncRuntime>::spawn(async move {
                    let answer = group.handle(call.message).await;
                    let _ = call.reply.send(answer);
                });
            }
        }));
        let task = tokio::task::spawn_local(process);
        let (group, log, machine) = outcome.await.unwrap()?;
        self.running = Some(Running { group, log, machine, task });
        Ok(())
    }

    fn config(&self, setup: &Setup, trace: &Trace) -> GroupConfig {
        let (clock, told, fault) = (trace.clone(), trace.clone(), Rc::clone(&self.fault));
        let (node, skew_ms) = (self.node, Rc::clone(&self.skew_ms));
        GroupConfig {
            shard: ShardId(1),
            node,
            members: setup.founders_of(node),
            has_others: setup.outgrown.contains(&node),
            has_begun: setup.joiners.contains(&node),
            others: setup.wanted.clone(),
            durability: setup.durability,
            feature_level_max: 1,
            timings: Timings::default(),
            // One part each, so that the chunks of small states are many.
            snapshot_chunk_bytes: 1,
            append_bytes_max: 64 * 1024,
            clock: Rc::new(move || {
                TimestampMs((EPOCH_MS + clock.now_ms()).saturating_add_signed(skew_ms.get()))
            }),
            fatal: Rc::new(move |why| {
                told.line(format!("member {node} stops: {why}"));
                *fault.borrow_mut() = Some(why.clone());
            }),
            sabotage: setup.sabotage,
        }
    }

    /// How often its process has been started.
    pub fn life(&self) -> u64 {
        self.starts.get()
    }

    /// The process is gone, from one moment to the next. Its disk keeps what was written.
    pub async fn kill(&mut self, net: &Net) {
        self.disk.kill_process();
        self.end(net).await;
    }

    /// The power is gone: what was not synced is lost, sector by sector.
    pub async fn cut_power(&mut self, net: &Net) {
        self.disk.cut();
        self.end(net).await;
    }

    async fn end(&mut self, net: &Net) {
        net.close(self.node);
        if let Some(Running { group, log, machine, task }) = self.running.take() {
            task.abort();
            let _ = task.await;
            drop((group, log, machine));
        }
    }

    pub fn group(&self) -> Option<&SimGroup> {
        self.running.as_ref().map(|running| &running.group)
    }

    /// Whether it runs, its power is on, and nothing stopped it.
    pub fn is_alive(&self) -> bool {
        self.running.is_some() && !self.disk.is_off() && self.fault.borrow().is_none()
    }
}

type Parts = (SimGroup, Rc<RefCell<Log<SimDisk>>>, Rc<RefCell<Queues>>);

async fn open(
    disk: SimDisk,
    (log_config, is_damaged): (LogConfig, bool),
    config: GroupConfig,
    net: &Net,
    (seed, flush_us_max): (u64, Rc<Cell<u64>>),
) -> Result<Parts, StartError> {
    let (mut log, recovered) = Log::open(&disk, Path::new("shard"), log_config)?;
    // What a shard does in the background: nobody is given a log that is not checked.
    while let Some(scrub) = log.next_scrub(u32::MAX) {
        let found = log.complete_scrub(scrub.run());
        assert!(is_damaged || found.is_empty(), "nothing here damages what is on disk: {found:?}");
    }
    let log = Rc::new(RefCell::new(log));
    let machine = Rc::new(RefCell::new(Queues::default()));
    let jobs = Jobs::default();
    let group_cell: Rc<OnceCell<SimGroup>> = Rc::default();
    let peers = net.peers(config.node, move || disk.is_off());
    let (log_too, machine_too) = (Rc::clone(&log), Rc::clone(&machine));
    let group = Group::start(config, log_too, &recovered, machine_too, jobs.clone(), peers);
    let group = group.await?;
    assert!(group_cell.set(group.clone()).is_ok());
    tokio::task::spawn_local(flush(jobs, group_cell, Seeded::new(seed), flush_us_max));
    Ok((group, log, machine))
}

/// The flush thread: runs jobs in order, each after a while.
async fn flush(
    jobs: Jobs,
    group: Rc<OnceCell<SimGroup>>,
    mut rng: Seeded,
    flush_us_max: Rc<Cell<u64>>,
) {
    loop {
        let job = jobs.0.jobs.borrow_mut().pop_front();
        let Some(job) = job else {
            jobs.0.more.notified().await;
            continue;
        };
        tokio::time::sleep(Duration::from_micros(
            50 + flush_us_max.get() / 2 + rng.below(flush_us_max.get()) / 2,
        ))
        .await;
        let done = job.run();
        group.get().unwrap().job_done(done);
    }
}
