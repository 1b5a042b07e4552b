//! Starting a shard and stopping it: who is built where, and in which order.

use std::cell::{Cell, OnceCell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;

use grus_consensus::{Fault, Group, GroupConfig, Peers, ProposeError, StartError};
use grus_log::{Disk, Log, OpenError, RealDisk, Recovered, Report};
use grus_mailbox::{ActorSpec, Dropped, Fatal, FatalReason, Host, HostHandle};
use thiserror::Error;

use super::finding::{Finding, OwnInboxes};
use super::gather::{Gather, GatherLimits};
use super::ground::{ChangedPorts, Ground, ShardMachine};
use super::groups::{GroupMaker, Groups};
use super::leading::ShardStanding;
use super::membership::Membership;
use super::queues::{QueueMaker, Queues};
use super::settings::{ShardPlaces, ShardSettings};
use super::upkeep::{Checking, Upkeep};
use super::{
    PROPOSED_BYTES_MAX, Propose, REQUESTS_MAX, RoomAgain, ShardActor, ShardHandle, Stage,
    queue_table, standing_channel,
};
use crate::begun::BegunError;
use crate::delay_wheel::messages::DELAY_ASKS_MAX;
use crate::delay_wheel::{DelayWheel, READS_MAX, WheelParts, proposed_bytes_max};
use crate::finder::{Finder, SEARCHES_MAX};
use crate::flush::{Flush, FlushPort, JOBS_MAX};
use crate::group_ties::{RouteWatch, group_table};
use crate::reader::{COLD_READS_MAX, CONSENSUS_READS_MAX, Reader};
use crate::storage::{ConsensusStarted, Storage, StorageLinks};

/// This part of a first segment is what a full disk keeps for retention: 256 KiB by default, room
/// for the starts of nine thousand queues.
const RESERVE_PART: u64 = 64;

/// A shard as a member of a group of several, with what is given to others on its thread.
pub struct ShardMember<D: Disk> {
    /// The shard.
    pub shard: Shard<D>,
    /// Its group: messages of the others go to it, and changes of who is in it.
    pub group: Group<ShardMachine, D>,
    /// Its log and state.
    pub ground: Rc<Ground<D>>,
}

/// Why a shard did not start. Nothing of its folder was changed, but for what recovery cuts.
#[derive(Debug, Error)]
pub enum ShardStartError {
    /// Its log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Entries that have to be applied again are damaged. Nothing is cut; only the operator may
    /// give them up, by the log's setting `accept_loss`.
    #[error(
        "log entry {index} in {} must be applied again and is damaged ({damage}); nothing was \
         changed: bring the file back from a copy, or start once with log.accept_loss = true to do without it",
        folder.display()
    )]
    Damaged {
        /// The first such entry.
        index: u64,
        /// The shard's folder.
        folder: PathBuf,
        /// All damaged ranges.
        damage: String,
    },
    /// Its log is of before its group got other members, who have gone on since.
    #[error(
        "the log in {} ends at entry {last} and knows of this broker alone, but other brokers have come \
         to its group since: it is an old copy, and lacks what was acknowledged after that. Nothing was \
         changed: bring back the folder that was there before, or move this one away, and the broker gets \
         everything from the others as a new member",
        folder.display()
    )]
    Outgrown {
        /// Log index of its last entry.
        last: u64,
        /// The shard's folder.
        folder: PathBuf,
    },
    /// What was recovered cannot be used.
    #[error(transparent)]
    Consensus(#[from] StartError),
    /// It is of a shard that this broker may not take part in, or that could not be found out.
    #[error(transparent)]
    Begun(#[from] BegunError),
    /// It stopped before it was ready.
    #[error(transparent)]
    NotReady(#[from] ProposeError),
    /// Its place went away, or starting panicked.
    #[error("the arbiter of the shard has stopped")]
    Gone,
}

impl From<Dropped> for ShardStartError {
    fn from(_: Dropped) -> Self {
        Self::Gone
    }
}

/// A shard that runs: its owner's handle.
pub struct Shard<D: Disk = RealDisk> {
    handle: ShardHandle,
    report: Report,
    actor: HostHandle<ShardActor<D>>,
    workers: Workers<D>,
}

impl<D: Disk> Shard<D> {
    /// What the rest of the broker talks to.
    pub const fn handle(&self) -> &ShardHandle {
        &self.handle
    }

    /// What recovery found.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Stops its actors: queues first, then what is under way ends, then consensus, then the
    /// threads that worked for the log. Whoever still asks is told.
    pub async fn stop(self) {
        self.actor.stop().await;
        self.workers.stop().await;
    }
}

impl<D: Disk> std::fmt::Debug for Shard<D> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Shard({})", self.handle.shard)
    }
}

/// The actors that work for a shard's log.
struct Workers<D: Disk> {
    storage: HostHandle<Storage<D>>,
    flush: HostHandle<Flush>,
    reader: HostHandle<Reader>,
    /// None where the index is off.
    finder: Option<HostHandle<Finder<D>>>,
}

impl<D: Disk> Workers<D> {
    async fn stop(&self) {
        self.reader.stop().await;
        if let Some(finder) = &self.finder {
            finder.stop().await;
        }
        self.flush.stop().await; // its last results go to Storage, so it goes first
        self.storage.stop().await;
    }
}

/// Starts a shard on the real disk: recovers its log, elects it leader of its group of one, and
/// rebuilds its queues. Returns once it is ready; on a full disk once it can serve readers.
///
/// # Errors
/// See [`ShardStartError`].
pub async fn start(places: ShardPlaces, settings: ShardSettings) -> Result<Shard, ShardStartError> {
    start_on(RealDisk, places, settings).await
}

/// Starts a shard on any disk, as [`start`] does.
///
/// # Errors
/// See [`ShardStartError`].
pub async fn start_on<D: Disk>(
    disk: D,
    places: ShardPlaces,
    settings: ShardSettings,
) -> Result<Shard<D>, ShardStartError> {
    let core = places.core.clone();
    let alone = Membership::alone(settings.broker.0);
    let build = move || async move { build(disk, &places, settings, alone).await };
    core.run(move || async move { build().await.map(|member| member.shard) }).await?
}

/// Starts a member of a group on the current thread, which must be that of `places.core`. Returns
/// as soon as it takes part, whoever leads.
///
/// # Errors
/// See [`ShardStartError`].
pub async fn start_member<D: Disk, P: Peers>(
    disk: D,
    places: &ShardPlaces,
    settings: ShardSettings,
    membership: Membership<P>,
) -> Result<ShardMember<D>, ShardStartError> {
    build(disk, places, settings, membership).await
}

/// Builds everything on the shard's arbiter.
async fn build<D: Disk, P: Peers>(
    disk: D,
    places: &ShardPlaces,
    settings: ShardSettings,
    membership: Membership<P>,
) -> Result<ShardMember<D>, ShardStartError> {
    let (log, recovered) = Log::open(&disk, &settings.folder, settings.log.clone())?;
    let is_alone = membership.is_alone(settings.broker.0);
    let changed = ChangedPorts::default();
    let machine = ShardMachine::new(settings.shard, Rc::clone(&changed));
    let ground = Rc::new(Ground {
        shard: settings.shard,
        durability: settings.log.durability,
        log: Rc::new(RefCell::new(log)),
        machine: Rc::new(RefCell::new(machine)),
        starved: Cell::new(false),
        leads: Cell::new(is_alone),
        lease: OnceCell::new(),
        leader: Cell::new(is_alone.then_some(settings.broker.0)),
        complete: Cell::new(true),
        worked_at_ms: Cell::new(None),
        rings: RefCell::default(),
        tallies: RefCell::default(),
    });
    // Asked before consensus starts: what it meets while it applies, it can only end the process for.
    if let Some(index) = recovered.damaged_to_apply()
        && !ground.log.borrow().accepts_loss_of(index)
    {
        return Err(damaged(index, settings.folder, &recovered));
    }
    let links = StorageLinks::default();
    let workers = start_workers(&disk, places, &settings, &ground, &links);
    let started =
        start_group(places, &settings, membership, &ground, &recovered, &workers, &links).await;
    match started {
        Err(error) => {
            workers.stop().await;
            let Some(index) = recovered.damaged_to_apply() else { return Err(error) };
            Err(damaged(index, settings.folder, &recovered))
        }
        Ok(group) => {
            let (actor, handle) =
                open(places, &settings, group.clone(), &ground, &workers, changed);
            links.set_shard(actor.inbox::<RoomAgain>(1));
            let shard = Shard { handle, report: recovered.report, actor, workers };
            Ok(ShardMember { shard, group, ground })
        }
    }
}

fn start_workers<D: Disk>(
    real_disk: &D,
    places: &ShardPlaces,
    settings: &ShardSettings,
    ground: &Rc<Ground<D>>,
    links: &StorageLinks<D>,
) -> Workers<D> {
    let name = format!("shard-{}", ground.shard);
    let spec = |kind| ActorSpec::new(kind, name.clone());
    let (ground, links) = (Rc::clone(ground), links.clone());
    let storage = Host::spawn_local(&places.core, spec("Storage").never_restarts(), move || {
        Storage::new(Rc::clone(&ground), links.clone())
    });
    let (metrics, disk) = (settings.metrics.clone(), settings.disk_turns.clone());
    let pace = settings.disk_pace.clone();
    let flush = Host::spawn(&places.flush, spec("Flush").never_restarts(), move || {
        Flush::new(metrics.clone(), disk.clone(), pace.clone())
    });
    let disk = settings.disk_turns.clone();
    let reader = Host::spawn(&places.reader, spec("Reader"), move || Reader { disk: disk.clone() });
    let finder = settings.log.find_index.then(|| {
        let (disk, folder) = (real_disk.clone(), settings.folder.clone());
        let factory = move || Finder::new(disk.clone(), folder.clone());
        Host::spawn(&places.finder, spec("Finder"), factory)
    });
    Workers { storage, flush, reader, finder }
}

fn damaged(index: u64, folder: PathBuf, recovered: &Recovered) -> ShardStartError {
    let ranges = recovered.report.damage.iter().map(ToString::to_string);
    ShardStartError::Damaged { index, folder, damage: ranges.collect::<Vec<_>>().join("; ") }
}

async fn start_group<D: Disk, P: Peers>(
    places: &ShardPlaces,
    settings: &ShardSettings,
    membership: Membership<P>,
    ground: &Ground<D>,
    recovered: &Recovered,
    workers: &Workers<D>,
    links: &StorageLinks<D>,
) -> Result<Group<ShardMachine, D>, ShardStartError> {
    let process = places.core.process();
    let (clock, fatal) = (process.clock, process.fatal.clone());
    let actor = format!("Consensus shard-{}", settings.shard);
    let (node, is_alone) = (settings.broker.0, membership.is_alone(settings.broker.0));
    let alone = GroupConfig::single(
        settings.shard,
        node,
        settings.log.durability,
        Rc::new(move || clock.now()),
        Rc::new(move |fault: &Fault| {
            let reason = match fault {
                Fault::Log(_) => FatalReason::Storage,
                _ => FatalReason::Consensus,
            };
            fatal.report(Fatal { actor: actor.clone(), reason, detail: fault.to_string() });
        }),
    );
    let Membership { founders, has_others, has_begun, others, peers, timings } = membership;
    let config = GroupConfig {
        members: founders,
        has_others,
        has_begun,
        others,
        timings,
        append_bytes_max: settings.append_bytes_max,
        sabotage: settings.sabotage,
        ..alone
    };
    let jobs = FlushPort {
        flush: workers.flush.inbox(JOBS_MAX),
        storage: workers.storage.inbox(JOBS_MAX),
        reader: workers.reader.inbox(CONSENSUS_READS_MAX),
    };
    let started = workers.storage.inbox::<ConsensusStarted>(1);
    let (log, machine) = (Rc::clone(&ground.log), Rc::clone(&ground.machine));
    let started_group = Group::start(config, log, recovered, machine, jobs, peers).await;
    let group = started_group.map_err(|error| match error {
        StartError::Outgrown { last } => {
            ShardStartError::Outgrown { last, folder: settings.folder.clone() }
        }
        error => error.into(),
    })?;
    links.set_group(group.clone());
    let told = started.try_put(ConsensusStarted);
    assert!(told.is_ok(), "Storage has room for its first message");
    if !is_alone {
        let looked_at = group.clone();
        let _ = ground.lease.set(Box::new(move || !looked_at.status().lease_left.is_zero()));
        return Ok(group); // who leads is found out later, and what is applied meanwhile as well
    }
    // On a full disk there is no room for a leader's first entry: readers are served meanwhile.
    let is_ready = group.ready_or_full().await?;
    ground.complete.set(is_ready);
    if !is_ready {
        tracing::warn!(shard = settings.shard.0, "starts on a full disk: only readers are served");
    }
    // Footers of older segments still name topics that were dropped later.
    let machine = ground.machine.borrow();
    ground.log.borrow_mut().index_retain(|topic| machine.state.topic(topic).is_some());
    Ok(group)
}

/// Starts the shard's actor and its queues.
fn open<D: Disk>(
    places: &ShardPlaces,
    settings: &ShardSettings,
    group: Group<ShardMachine, D>,
    ground: &Rc<Ground<D>>,
    workers: &Workers<D>,
    changed: ChangedPorts,
) -> (HostHandle<ShardActor<D>>, ShardHandle) {
    let built = Rc::new(RefCell::new(None));
    let spec = ActorSpec::new("Shard", format!("shard-{}", settings.shard)).never_restarts();
    let factory = Rc::clone(&built);
    // The factory runs when this function is over and the actor has its first turn.
    let host = Host::spawn_local(&places.core, spec, move || {
        factory.borrow_mut().take().expect("a shard is built once")
    });
    let (table, queues) = queue_table();
    let wheel = start_wheel(places, settings, &group, ground, workers, &host);
    let maker = QueueMaker {
        place: places.core.clone(),
        ground: Rc::clone(ground),
        shard: host.inbox::<Propose>(PROPOSED_BYTES_MAX),
        reader: workers.reader.inbox(COLD_READS_MAX),
        changed,
        metrics: settings.metrics.expired().clone(),
        retained: settings.metrics.retained().clone(),
    };
    let item_bytes_max = item_bytes_max(ground);
    let checking = Checking { reader: workers.reader.inbox(1), storage: workers.storage.inbox(1) };
    let mut living = Queues::new(maker, table);
    let first = ShardStanding::first(ground.leads.get(), settings.broker);
    let (told, standing) = standing_channel(first);
    if ground.leads.get() {
        ground.rings.borrow_mut().follow(grus_protocol::ids::Term(group.status().term));
        living.follow_state();
    }
    let (group_table, group_tables) = group_table();
    let groups = GroupMaker {
        place: places.core.clone(),
        ground: Rc::clone(ground),
        consensus: group.clone(),
        shard: host.inbox::<Propose>(PROPOSED_BYTES_MAX),
        registry: settings.groups.as_ref().map(|ties| ties.registry.clone()),
    };
    *built.borrow_mut() = Some(ShardActor {
        ground: Rc::clone(ground),
        group,
        queues: living,
        groups: Groups::new(groups, group_table),
        leading: (!ground.leads.get()).then_some(told),
        routes: settings.groups.as_ref().map(RouteWatch::of),
        gather: Gather::new(fitting(settings.gather, item_bytes_max)),
        item_bytes_max,
        reserve_bytes: u64::from(settings.log.first_segment_bytes) / RESERVE_PART,
        upkeep: Upkeep::new(settings.retention_check_ms, checking),
        metrics: settings.metrics.clone(),
        finding: workers.finder.as_ref().map(|finder| finding(finder, &host)),
        running: std::collections::BTreeSet::new(),
        wheel: wheel.inbox(1),
        wheel_host: wheel.clone(),
        stage: Stage::Serving,
    });
    let handle = ShardHandle {
        shard: settings.shard,
        durability: settings.log.durability,
        inbox: host.inbox(REQUESTS_MAX),
        queues,
        delays: wheel.inbox(DELAY_ASKS_MAX),
        groups: group_tables,
        standing,
    };
    (host, handle)
}

/// The largest item with its header that fits an entry of the log.
fn item_bytes_max<D: Disk>(ground: &Ground<D>) -> usize {
    ground.log.borrow().entry_bytes_max().saturating_sub(super::ENTRY_HEADER_BYTES)
}

/// Starts the shard's wheel, and has the state machine tell it of what is stored for later.
fn start_wheel<D: Disk>(
    places: &ShardPlaces,
    settings: &ShardSettings,
    group: &Group<ShardMachine, D>,
    ground: &Rc<Ground<D>>,
    workers: &Workers<D>,
    shard: &HostHandle<ShardActor<D>>,
) -> HostHandle<DelayWheel<D>> {
    let parts = Rc::new(WheelParts {
        ground: Rc::clone(ground),
        group: group.clone(),
        shard: shard.inbox::<Propose>(proposed_bytes_max(item_bytes_max(ground))),
        reader: workers.reader.inbox(READS_MAX),
        metrics: settings.metrics.delays(),
        item_bytes_max: item_bytes_max(ground).saturating_sub(super::ITEM_HEADER_BYTES),
    });
    let spec = ActorSpec::new("DelayWheel", format!("shard-{}", settings.shard));
    let wheel = Host::spawn_local(&places.core, spec, move || DelayWheel::new(Rc::clone(&parts)));
    ground.machine.borrow_mut().stored = Some(wheel.inbox(1));
    wheel
}

/// The way between a shard and its Finder.
fn finding<D: Disk>(finder: &HostHandle<Finder<D>>, shard: &HostHandle<ShardActor<D>>) -> Finding {
    Finding {
        batches: finder.inbox(1),
        tables: finder.inbox(1),
        searches: finder.inbox(SEARCHES_MAX),
        own: OwnInboxes {
            indexed: shard.inbox(2),
            built: shard.inbox(2),
            searched: shard.inbox(2 * SEARCHES_MAX),
        },
        retry_at_ms: 0,
    }
}

/// The gathering of a shard: no entry larger than half of what the log takes in one.
fn fitting(limits: GatherLimits, item_bytes_max: usize) -> GatherLimits {
    GatherLimits { entry_bytes_max: limits.entry_bytes_max.min(item_bytes_max / 2), ..limits }
}
