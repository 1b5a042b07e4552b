//! The broker: the one file that says what lives where, in which order it starts, and how it stops.
//!
//! | place | who |
//! |---|---|
//! | `core-0` | Listener, RegistryLink, Registry, and what every core has |
//! | `core-n` | Connections in turn; the shards of number n, 2n .. with their queues and consensus |
//! | `flush-n` | the Flush of shard n; blocks |
//! | `reader` | the Readers of all shards; page faults block it |
//! | `finder` | the Finders of all shards; parsing and page faults hold it up |
//! | `registry-flush`, `registry-disk` | the registry's log and its copy in sled; block |
//! | `http` | the HTTP server's one worker |
//!
//! Start: the folder's lock, the ports (so that a taken one is told at once), the registry (embedded,
//! or the link to one that is a process of its own), the shards side by side, the routes, the door,
//! and HTTP last. Stop, in stages: what is led of shards of several members is handed over, the door, the shards
//! (whose answers still leave), the connections, the link, the registry, and every thread.

mod enrolment;
mod parts;
mod replication;
mod sockets;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use grus_log::{RealDisk, Report};
use grus_mailbox::{HostHandle, Inbox, Places, Process, Shutdown, StageReport, reply};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::ShardId;
use grus_registry::configuration::{Loaded, Setting};
use grus_registry::http::host::AllowedHosts;
use grus_registry::ports::PortError;
use grus_registry::{
    RegistryError, RegistryHandle, RegistryService, RegistryStartError, RemoteService,
};
use prometheus_client::registry::Registry as MetricsRegistry;
use thiserror::Error;
use tokio::sync::watch;

use crate::begun::BegunError;
use crate::clients::Clients;
use crate::config::{BROKER_SCHEMA, BrokerConfig};
use crate::data_folder::{DataFolder, FolderError};
use crate::dispatch::peers::PeerGate;
use crate::dispatch::{Service, fault_switches};
use crate::drained::Drained;
use crate::find::Find;
use crate::group_ties::GroupTies;
use crate::groups::Groups;
use crate::http::{self, HttpParts, HttpServer};
use crate::listener::{ListConnections, Listener, ListenerParts, StopAccepting};
use crate::metrics::EdgeMetrics;
use crate::metrics::shards::LogMetrics;
use crate::registry_link::ledger::Home;
use crate::registry_link::routes::Routes;
use crate::registry_link::{LinkParts, LinkRequest, REQUESTS_MAX, RegistryLink};
use crate::replicas::Retire;
use crate::scheduled::Schedules;
use crate::shard::{self, Replicated, Shard, ShardHandle, ShardPlaces, ShardSet, ShardStartError};
use enrolment::Enrolment;
pub use parts::ShardPlan;
use replication::{Replicating, Workshop};
use sockets::{Sockets, advertised};

/// Shares of the time of a stop that the stage has in which leadership is given away; each of the five others has
/// one. So it may last for half of the whole: a successor that has just been started may lead in a second.
const LEADERSHIP_SHARES: u32 = 5;
/// Listings of connections that may be under way.
const LISTINGS_MAX: u32 = 16;
/// Longest wait for all topics to be open before the door opens anyway.
const SETTLE_MAX: Duration = Duration::from_secs(30);

/// Why a broker did not start. One line for the operator.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data folder cannot be served.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A port cannot be had.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The registry did not start.
    #[error(transparent)]
    Registry(#[from] RegistryStartError),
    /// The registry refused this broker.
    #[error("registry: {0}")]
    Register(#[from] RegistryError),
    /// The registry, a process of its own, refused this broker.
    #[error("the registry refuses this broker: {0}")]
    Refused(ErrorReply),
    /// What has to be there before the shards are started could not be written.
    #[error("{}: {source}", path.display())]
    Keep {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It has served with others, and is told of no registry.
    #[error(
        "this folder belongs to a cluster (its shard {shard} is, or was, on several brokers): \
         registry.addresses is missing"
    )]
    OfACluster {
        /// One of the shards.
        shard: ShardId,
    },
    /// It cannot be told which shards are a group's.
    #[error(transparent)]
    Begun(#[from] BegunError),
    /// A shard did not start.
    #[error("shard {shard}: {source}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// Why.
        source: ShardStartError,
    },
    /// An actor went away while the broker started.
    #[error("{0} stopped while the broker started")]
    Gone(&'static str),
}

/// Where a running broker can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The protocol.
    pub listen: SocketAddr,
    /// HTTP, unless it is off.
    pub http: Option<SocketAddr>,
}

/// A running broker. Stop it: dropped, it leaves its threads running.
pub struct Broker {
    addresses: Addresses,
    routes: watch::Receiver<Arc<Routes>>,
    process: Process,
    running: Running,
}

/// What is running, in the order in which it was started.
struct Running {
    folder: DataFolder,
    drained: Drained,
    stop_limit: Duration,
    places: Places,
    registry: Option<RegistryService<RealDisk>>,
    remote: Option<RemoteService>,
    shards: Vec<Shard>,
    replicating: Option<Replicating>,
    link: Option<HostHandle<RegistryLink>>,
    http: Option<HttpServer>,
    listener: Option<HostHandle<Listener>>,
}

impl Broker {
    /// Starts a broker in this process, which runs an actix `System`. Several fit in one process.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(
        config: impl Into<Loaded<BrokerConfig>>,
        process: Process,
    ) -> Result<Self, StartError> {
        let loaded = config.into();
        let settings = Arc::new(BROKER_SCHEMA.settings(&loaded));
        let config = loaded.config;
        let folder = DataFolder::open(&config.data)?;
        let drained = Drained::open(folder.path())?;
        if drained.is_set() {
            tracing::warn!("this broker is drained: it leads nothing that another one can");
        }
        let sockets = Sockets::bind(&config)?;
        let addresses = sockets.addresses.clone();
        let cores = config.core_arbiters_resolved() as usize;
        let mut running = Running {
            folder,
            drained,
            stop_limit: config.shutdown_timeout,
            places: Places::start(cores, &process),
            registry: None,
            remote: None,
            shards: Vec::new(),
            replicating: None,
            link: None,
            http: None,
            listener: None,
        };
        match running.bring_up(&config, &settings, sockets, &process).await {
            Ok(routes) => Ok(Self { addresses, routes, process, running }),
            Err(error) => {
                running.stop().await;
                Err(error)
            }
        }
    }

    /// Where it can be reached.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Its clock, actors and fatal port.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The topics it serves now, and the way to their queues.
    #[must_use]
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes.borrow())
    }

    /// Its data folder, absolute.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.running.folder.path().to_owned()
    }

    /// Stops it in stages; says how each went.
    pub async fn stop(self) -> Vec<StageReport> {
        self.running.stop().await
    }
}

impl Running {
    async fn bring_up(
        &mut self,
        config: &BrokerConfig,
        settings: &Arc<Vec<Setting>>,
        sockets: Sockets,
        process: &Process,
    ) -> Result<watch::Receiver<Arc<Routes>>, StartError> {
        let address = advertised(config, self.folder.broker(), sockets.addresses.listen);
        let mut metrics_registry = MetricsRegistry::default();
        let metrics = EdgeMetrics::new(&mut metrics_registry);
        let log_metrics = LogMetrics::new(&mut metrics_registry);
        let enrolled = self.enrol(config, &address, &metrics).await?;
        let Enrolment { registry, plan, home, refused } = enrolled;
        let (published, routes) = watch::channel(Arc::new(Routes::default()));
        let (settled, is_settled) = watch::channel(false);
        let ties = GroupTies {
            registry: registry.ask.clone(),
            routes: routes.clone(),
            settled: is_settled,
        };
        let (handles, replication) =
            self.bring_up_shards(config, &plan, &registry, &log_metrics, &ties, refused).await?;
        let told = (published, settled);
        let known = (handles.clone(), replication.told.subscribe());
        let ask = self.start_link(config, registry.clone(), known, home, told).await;
        let http_address = sockets.addresses.http.map_or("no port".into(), |at| at.to_string());
        let faults = fault_switches();
        let clients = Clients::new(u64::from(whole_ms(config.connection.session_timeout)));
        let groups = Groups::new(routes.clone(), handles.clone(), ask.clone());
        let cluster = self.cluster(&handles, &replication, &registry);
        let service = Service {
            address,
            http_address: http_address.into(),
            frame_limits: config.frame_limits(),
            batch_limits: config.batch_limits(),
            fetch_bytes_max: config.fetch.bytes_max,
            fetch_wait_ms_max: whole_ms(config.fetch.wait_max),
            idle_ms_max: whole_ms(config.connection.idle_timeout),
            routes: routes.clone(),
            follows_registry: self.remote.is_some(),
            table: registry.subscribe(),
            groups: groups.clone(),
            link: ask,
            clock: process.clock,
            metrics: metrics.clone(),
            find: Find { routes: routes.clone(), shards: handles.clone() },
            clients: clients.clone(),
            schedules: Schedules { routes: routes.clone(), shards: handles.clone() },
            cluster: cluster.clone(),
            peers: PeerGate { disk: self.folder.disk(), members: replication.members.subscribe() },
            fault_switches: faults,
        };
        clients.open(self.open_door(config, sockets.listen, service).await?);
        if let Some(socket) = sockets.http {
            let parts = HttpParts {
                broker: self.folder.broker(),
                process: process.clone(),
                routes: routes.clone(),
                remote: self.remote.as_ref().map(RemoteService::state),
                shards: handles,
                metrics,
                data: self.folder.path().to_owned(),
                registry: Arc::new(metrics_registry),
                clients,
                groups,
                cluster,
                table: registry.subscribe(),
                settings: Arc::clone(settings),
                hosts: AllowedHosts::new(&config.http_address, &config.http_hosts),
                fault_switches: faults,
            };
            self.http = Some(start_http(config, socket, parts)?);
        }
        Ok(routes)
    }

    /// Starts the registry link, and waits until all topics are open that are known.
    async fn start_link(
        &mut self,
        config: &BrokerConfig,
        registry: RegistryHandle,
        (shards, replicated): (ShardSet, watch::Receiver<Replicated>),
        home: Home,
        (published, settled): (watch::Sender<Arc<Routes>>, watch::Sender<bool>),
    ) -> Inbox<LinkRequest> {
        let mut is_settled = settled.subscribe();
        let parts = LinkParts {
            registry,
            shards,
            replicated,
            policy: config.topic_policy(),
            published: Arc::new(published),
            settled: Arc::new(settled),
            broker: self.folder.broker(),
            home,
            kept: self.folder.routes(),
        };
        let link = RegistryLink::start(self.places.core(0), parts);
        let ask = link.inbox(REQUESTS_MAX);
        self.link = Some(link);
        let settling = is_settled.wait_for(|settled| *settled);
        if tokio::time::timeout(SETTLE_MAX, settling).await.is_err() {
            tracing::warn!("not all topics are open yet");
        }
        ask
    }

    /// Starts all shards side by side.
    async fn start_shards(
        &mut self,
        config: &BrokerConfig,
        plan: &ShardPlan,
        metrics: &LogMetrics,
        ties: &GroupTies,
        workshop: &Workshop,
    ) -> Result<Vec<ShardHandle>, StartError> {
        let mut starting = Vec::new();
        for (id, durability) in plan.shards().iter().copied() {
            let places = ShardPlaces {
                core: self.places.core(plan.number_in_level(id)).clone(),
                flush: self.places.open(&format!("flush-{id}")),
                reader: workshop.reader.clone(),
                finder: workshop.finder.clone(),
            };
            let folder = self.folder.shard(id);
            let mut settings = config.shard_settings(id, self.folder.broker(), folder, durability);
            settings.metrics = metrics.shard(id, durability);
            settings.groups = Some(ties.clone());
            settings.disk_turns = workshop.disk_turns.clone();
            starting.push(async move {
                let started = shard::start(places, settings).await;
                started.map_err(|source| StartError::Shard { shard: id, source })
            });
        }
        let mut failed = None;
        for started in join_all(starting).await {
            match started {
                Ok(shard) => {
                    log_report(shard.handle().shard, shard.report());
                    self.shards.push(shard);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(self.shards.iter().map(|shard| shard.handle().clone()).collect()),
        }
    }

    async fn open_door(
        &mut self,
        config: &BrokerConfig,
        socket: TcpListener,
        service: Service,
    ) -> Result<Inbox<ListConnections>, StartError> {
        let parts = ListenerParts {
            cores: self.places.cores().to_vec(),
            service,
            connection: config.connection.clone(),
            connections_max: config.connections_max,
        };
        let listener = Listener::start(self.places.core(0), socket, parts).await;
        let listener = listener.ok_or(StartError::Gone("the listener"))?;
        let listing = listener.inbox(LISTINGS_MAX);
        self.listener = Some(listener);
        Ok(listing)
    }

    /// Stops whatever is running, the last first. The door closes and no more is read, then the
    /// shards answer all that is under way, then those answers leave with their connections.
    async fn stop(self) -> Vec<StageReport> {
        let mut shutdown = Shutdown::new(self.stop_limit);
        if let Some(replicating) = &self.replicating {
            shutdown.long_stage("leadership", LEADERSHIP_SHARES);
            let ask = replicating.replicas.inbox(1);
            shutdown.step("hand over what is led", move || async move {
                let (port, done) = reply::port();
                let _ = ask.try_put(Retire { reply: port });
                let _ = done.await; // also when it is gone
            });
        }
        shutdown.stage("door");
        if let Some(listener) = self.listener.clone() {
            shutdown.step("listener", move || async move {
                let (port, closed) = reply::port();
                let _ = listener.inbox(1).try_put(StopAccepting { reply: port });
                let _ = closed.await; // also when it is gone
            });
        }
        if let Some(http) = self.http {
            shutdown.step("http", move || http.stop());
        }
        if let Some(remote) = self.remote {
            shutdown.step("leave the registry", move || async move { remote.stop().await });
        }
        shutdown.stage("shards");
        let (replicas, neighbours) = match self.replicating {
            Some(Replicating { replicas, neighbours }) => (Some(replicas), Some(neighbours)),
            None => (None, None),
        };
        if let Some(replicas) = &replicas {
            shutdown.actor(replicas);
        }
        for shard in self.shards {
            shutdown.step(format!("{shard:?}"), move || shard.stop());
        }
        shutdown.stage("connections");
        if let Some(listener) = &self.listener {
            shutdown.actor(listener);
        }
        if let Some(neighbours) = &neighbours {
            shutdown.actor(neighbours);
        }
        shutdown.stage("registry");
        let (link, registry) = (self.link, self.registry);
        shutdown.step("registry", move || async move {
            if let Some(link) = link {
                link.stop().await;
            }
            if let Some(registry) = registry {
                registry.stop().await;
            }
        });
        shutdown.stage("threads");
        let places = self.places;
        shutdown.step("threads", move || async move {
            places.stop_and_join().await; // names those that had panicked
        });
        let reports = shutdown.run().await;
        drop(self.folder); // the lock goes last
        reports
    }
}

fn start_http(
    config: &BrokerConfig,
    socket: TcpListener,
    parts: HttpParts,
) -> Result<HttpServer, StartError> {
    let failed = PortError::of("HTTP", &config.http_address);
    Ok(http::start(socket, parts).map_err(failed)?)
}

/// Says what recovery found in a shard's log.
fn log_report(shard: ShardId, report: &Report) {
    if let Some(torn) = &report.torn {
        tracing::info!(%shard, ?torn, "a write was under way when the broker ended; it was cut");
    }
    for range in &report.damage {
        tracing::error!(%shard, %range, "damage; all else is served");
    }
    for note in &report.notes {
        tracing::warn!(%shard, note, "repaired");
    }
}

fn whole_ms(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}
