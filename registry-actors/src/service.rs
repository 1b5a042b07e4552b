//! Starts and stops the registry: where its actors live and how they know each other.

use std::cell::{OnceCell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::{
    Fault, Group, GroupConfig, NewItem, NoPeers, ProposeError, StartError, Timings,
};
use grus_log::{Disk, Log, LogConfig, OpenError};
use grus_mailbox::{ActorSpec, Fatal, FatalReason, Host, HostHandle, Inbox, Place};
use grus_protocol::ids::{Durability, ShardId};
use thiserror::Error;

use crate::command::{Command, FoundRegistry};
use crate::flush::{FlushPort, JOBS_MAX, RegistryFlush};
use crate::machine::RegistryMachine;
use crate::materialiser::{CopyStats, Materialiser, WRITE_BYTES_MAX, WholeWanted};
use crate::rebalance::{Loads, Rebalance};
use crate::registry::{Core, Ear, GroupStopped, Heard, Links, Registry};
use crate::request::{REQUESTS_MAX, RegistryHandle};
use crate::state::TOPIC_REPLICAS_DEFAULT;
use crate::watch::{Published, WATCH_ASKS_MAX, WatchActor};

/// The registry's own shard: no queue is on it.
pub const REGISTRY_SHARD: ShardId = ShardId(u32::MAX);
/// Its only member, while it is a group of one.
const NODE: u64 = 1;

/// Timings of a group of one: it elects itself at once, so the clock of elections only wakes an
/// idle process, ten times less often than it would by default.
const ALONE: Timings =
    Timings { heartbeat_ms: 1_500, election_ms_min: 5_000, election_ms_max: 10_000 };

/// Bits of the numbers drawn for registries, disks and sessions.
const NUMBER_BITS: u32 = 53;

/// Where the registry's actors live.
#[derive(Debug, Clone)]
pub struct RegistryPlaces {
    /// The Registry and Watch: a core arbiter.
    pub core: Place,
    /// The log's blocking work: an arbiter of its own.
    pub flush: Place,
    /// sled: an arbiter of its own.
    pub disk: Place,
}

/// What the registry is started with.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Its folder: `log` and `sled` are in it.
    pub dir: PathBuf,
    /// Largest segment of its log, in bytes.
    pub segment_bytes: u32,
    /// First segments of its log, in bytes. A quarter of it bounds one entry.
    pub first_segment_bytes: u32,
    /// Whether damaged entries that have to be applied again are given up: for one start.
    pub accept_loss: bool,
    /// How often it looks after the length of its log and its copy in sled.
    pub care_period: Duration,
    /// Most replicas of a topic for which nobody named a number.
    pub topic_replicas: u32,
    /// A broker that is gone for so long, and is in no shard of several, gets no place in a new group's home: it
    /// is not just being started again. 0: half an hour.
    pub rebuild_after: Duration,
}

impl RegistrySettings {
    /// Segments of 1 MiB at first and of 8 MiB at most, looked after every 5 s; three replicas at most
    /// where nobody named a number.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 8 << 20,
            first_segment_bytes: 1 << 20,
            accept_loss: false,
            care_period: Duration::from_secs(5),
            topic_replicas: TOPIC_REPLICAS_DEFAULT,
            rebuild_after: Duration::ZERO,
        }
    }
}

/// Why the registry did not start.
#[derive(Debug, Error)]
pub enum RegistryStartError {
    /// Its log could not be opened.
    #[error("registry: {0}")]
    Open(#[from] OpenError),
    /// Its group could not be started.
    #[error("registry: {0}")]
    Start(#[from] StartError),
    /// Its group stopped before it was ready.
    #[error("registry: {0}")]
    NotReady(#[from] ProposeError),
    /// Its arbiter has stopped, or the start panicked.
    #[error("registry: its start was cut short")]
    CutShort,
}

/// A running registry; its owner stops it.
#[derive(Debug)]
pub struct RegistryService<D: Disk> {
    handle: RegistryHandle,
    registry: HostHandle<Registry<D>>,
    watch: HostHandle<WatchActor>,
    rebalance: HostHandle<Rebalance>,
    flush: HostHandle<RegistryFlush<D>>,
    materialiser: HostHandle<Materialiser>,
}

impl<D: Disk> RegistryService<D> {
    /// Recovers the registry from its folder and starts it; returns once it can serve.
    ///
    /// # Errors
    /// [`RegistryStartError`], with nothing left running.
    pub async fn start(
        places: RegistryPlaces,
        settings: RegistrySettings,
        disk: D,
    ) -> Result<Self, RegistryStartError> {
        let core = places.core.clone();
        let started = core.run(move || build(places, settings, disk)).await;
        started.unwrap_or(Err(RegistryStartError::CutShort))
    }

    /// What others hold of it.
    pub fn handle(&self) -> &RegistryHandle {
        &self.handle
    }

    /// Where the brokers' loads are told.
    pub(crate) fn loads(&self) -> Inbox<Loads> {
        self.rebalance.inbox(2)
    }

    /// Stops it: what is under way is answered, the log is shut and the copy is on the disk.
    pub async fn stop(&self) {
        self.registry.stop().await;
        self.rebalance.stop().await;
        self.watch.stop().await;
        self.flush.stop().await;
        self.materialiser.stop().await;
    }
}

async fn build<D: Disk>(
    places: RegistryPlaces,
    settings: RegistrySettings,
    disk: D,
) -> Result<RegistryService<D>, RegistryStartError> {
    let config = LogConfig {
        durability: Durability::Persisted,
        segment_bytes: settings.segment_bytes,
        first_segment_bytes: settings.first_segment_bytes,
        accept_loss: settings.accept_loss,
        ..LogConfig::default()
    };
    let (log, recovered) = Log::open(&disk, &settings.dir.join("log"), config)?;
    let (service, core, port) = wire(&places, &settings);
    let started = Group::start(
        group_config(&places.core, service.registry.inbox(1)),
        Rc::new(RefCell::new(log)),
        &recovered,
        Rc::clone(&core.machine),
        port,
        NoPeers,
    )
    .await;
    let outcome = match started {
        Ok(group) => {
            let _ = core.group.set(group.clone());
            for done in core.early.take() {
                group.job_done(done);
            }
            let ready = ready_or_complete(&group).await.map_err(RegistryStartError::from);
            if ready.is_ok() && group.status().ready && core.machine.borrow().state().registry == 0
            {
                found(&group).await;
            }
            // Whoever asks to be told from now on is told nothing older than this.
            let table = Arc::new(core.machine.borrow().state().routing());
            let links = core.links.get().expect("linked");
            let version = table.version;
            let _ = links.publish.put(Published { table }).await; // stopped: it is not ready either
            let mut routes = service.handle.routes.clone();
            let _ = routes.wait_for(|newest| newest.version >= version).await;
            // Before any request, so that the copy is compared with the state it was left with.
            let _ = service.registry.inbox(1).try_put(WholeWanted);
            ready
        }
        Err(error) => Err(error.into()),
    };
    drop(core);
    match outcome {
        Ok(()) => Ok(service),
        Err(error) => {
            service.stop().await;
            Err(error)
        }
    }
}

/// Waits until the group leads, or on a full disk until its state is all that its log holds. Behind a
/// power cut the last entries may not be known to be committed: a table without their topics would
/// have the shards drop these, so then the start waits for the room that a leader needs.
async fn ready_or_complete<D: Disk>(group: &Group<RegistryMachine, D>) -> Result<(), ProposeError> {
    if group.ready_or_full().await? {
        return Ok(());
    }
    let status = group.status();
    if status.applied == status.last {
        tracing::warn!("registry starts on a full disk: nothing can be changed");
        return Ok(());
    }
    tracing::warn!("registry waits for room on a full disk: its last entries need a leader");
    group.ready().await
}

/// Gives a new registry its number: drawn here, as apply draws nothing. Without one (its disk is
/// full) nothing is thrown away by its word, and it gets one at a later start.
async fn found<D: Disk>(group: &Group<RegistryMachine, D>) {
    let (kind, bytes) = Command::FoundRegistry(FoundRegistry { registry: draw_number() }).encode();
    if let Err(error) = group.propose(&[NewItem::new(kind, bytes)]).await {
        tracing::warn!(%error, "the registry has no number yet");
    }
}

/// A random number, never 0; it stays exact in JSON readers that have only floating point.
pub fn draw_number() -> u64 {
    let (_, random) = uuid::Uuid::now_v7().as_u64_pair();
    (random & ((1 << NUMBER_BITS) - 1)).max(1)
}

/// Starts the actors, linked to one another. Nothing runs before the caller awaits.
fn wire<D: Disk>(
    places: &RegistryPlaces,
    settings: &RegistrySettings,
) -> (RegistryService<D>, Rc<Core<D>>, FlushPort<D>) {
    let slot: Rc<OnceCell<Rc<Core<D>>>> = Rc::default();
    let core_of = Rc::clone(&slot);
    let spec = ActorSpec::new("Registry", "registry").never_restarts();
    let of_registry = settings.clone();
    let registry = Host::spawn_local(&places.core, spec, move || {
        let core = Rc::clone(core_of.get().expect("set before it starts"));
        Registry::new(core, &of_registry)
    });
    let copy = Arc::new(CopyStats::default());
    let (watch, routes) = WatchActor::start(&places.core);
    let flush = RegistryFlush::start(&places.flush, registry.inbox(JOBS_MAX));
    let sled_dir = settings.dir.join("sled");
    let materialiser = Materialiser::start(&places.disk, sled_dir, registry.inbox(1), &copy);
    let heard = Rc::new(Heard::default());
    let machine = RegistryMachine::new(Ear {
        heard: Rc::clone(&heard),
        writes: materialiser.inbox(WRITE_BYTES_MAX),
        changed: registry.inbox(1),
    });
    let watch_door = watch.inbox(WATCH_ASKS_MAX);
    let rebalance = Rebalance::start(&places.core, watch_door.clone());
    let plan = rebalance.inbox(REQUESTS_MAX);
    let links = Links { publish: watch.inbox(1), reconcile: materialiser.inbox(1), plan };
    let core = Rc::new(Core {
        machine: Rc::new(RefCell::new(machine)),
        heard,
        group: OnceCell::new(),
        early: RefCell::default(),
        links: OnceCell::from(links),
    });
    assert!(slot.set(Rc::clone(&core)).is_ok(), "set once");
    let fatal = places.core.process().fatal.clone();
    let port = FlushPort { jobs: flush.inbox(JOBS_MAX), fatal };
    let handle =
        RegistryHandle { ask: registry.inbox(REQUESTS_MAX), watch: watch_door, copy, routes };
    (RegistryService { handle, registry, watch, rebalance, flush, materialiser }, core, port)
}

/// A group of one whose faults end the process; where the process is a test that goes on, the
/// Registry stops, and with it everyone who waits for an answer.
fn group_config(place: &Place, failed: Inbox<GroupStopped>) -> GroupConfig {
    let process = place.process().clone();
    let clock = process.clock;
    let fatal = move |fault: &Fault| {
        process.fatal.report(Fatal {
            actor: "Registry/registry".to_owned(),
            reason: FatalReason::Registry,
            detail: fault.to_string(),
        });
        let _ = failed.try_put(GroupStopped); // one that waits is enough
    };
    let clock = move || clock.now();
    let mut config = GroupConfig::single(
        REGISTRY_SHARD,
        NODE,
        Durability::Persisted,
        Rc::new(clock),
        Rc::new(fatal),
    );
    config.timings = ALONE;
    config
}
