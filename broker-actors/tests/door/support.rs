//! A door with nobody behind it: a real listener on loopback, whose queues and registry link are
//! outlets that a test empties by hand.

#[path = "../support/client.rs"]
mod client;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
pub use client::{Client, batch};
use grus_broker::config::ConnectionConfig;
use grus_broker::connection::{Describe, Description};
use grus_broker::dispatch::Service;
use grus_broker::dispatch::peers::{MemberDoors, PeerGate};
use grus_broker::drained::Drained;
use grus_broker::find::Find;
use grus_broker::groups::Groups;
use grus_broker::listener::{ListConnections, Listener, ListenerParts};
use grus_broker::metrics::EdgeMetrics;
use grus_broker::registry_link::LinkRequest;
use grus_broker::registry_link::routes::{Leader, QueuePlace, Routes, TopicRoute};
use grus_broker::scheduled::Schedules;
use grus_broker::shard::ShardSet;
use grus_broker::topic_queue::{
    Fetch, Fetched, FetchedBatch, Produce, QueueAsk, QueueHandle, Receipt,
};
use grus_mailbox::{Clock, FatalPort, HostHandle, Outlet, Place, Process, outlet, reply};
use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, Offset, QueueId, QueueKey, ShardId, Term, TimestampMs,
    TopicId,
};
use grus_protocol::message::{self, TopicSettings};
use grus_protocol::names::TopicName;
use grus_protocol::{BatchLimits, FrameLimits};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// The one topic there is.
pub const TOPIC: &str = "orders";
/// Its incarnation.
pub const TOPIC_ID: TopicId = TopicId(77);

/// A listener and what stands behind it.
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// What arrives for queue 0.
    pub produce: Outlet<Produce>,
    /// What arrives for queue 0.
    pub fetch: Outlet<Fetch>,
    /// What arrives for queue 0.
    pub ask: Outlet<QueueAsk>,
    /// What arrives for the registry link.
    pub link: Outlet<LinkRequest>,
    /// The routes, to change them.
    pub routes: watch::Sender<Arc<Routes>>,
    /// The members of shards that are here, to change them.
    pub members: watch::Sender<MemberDoors>,
    /// The counters.
    pub metrics: EdgeMetrics,
    /// The listener.
    pub listener: HostHandle<Listener>,
    /// The process.
    pub process: Process,
}

/// What a door is opened with.
pub struct DoorConfig {
    /// Limits of a connection.
    pub connection: ConnectionConfig,
    /// Most connections.
    pub connections_max: u32,
    /// Bytes of batches that the queue has room for.
    pub produce_bytes: u32,
    /// The clock.
    pub clock: Clock,
    /// The broker's id; its disk is ten times as much.
    pub broker: u64,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            connection: grus_broker::config::BrokerConfig::default().connection,
            connections_max: 100,
            produce_bytes: 1 << 24,
            clock: Clock::system(),
            broker: 9,
        }
    }
}

impl Door {
    /// Opens a door on a free port.
    pub async fn open(config: DoorConfig) -> Self {
        let process = Process::new(config.clock, FatalPort::channel().0);
        let place = Place::here("test", &process);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let (to_produce, produce) = outlet(config.produce_bytes);
        let (to_fetch, fetch) = outlet(1_000);
        let (to_ask, ask) = outlet(1_000);
        let (to_link, link) = outlet(1_000);
        let handle = QueueHandle {
            key: QueueKey { topic: TOPIC_ID, queue: QueueId(0) },
            topic: topic(),
            shard: ShardId(0),
            durability: Durability::Persisted,
            produce: to_produce,
            fetch: to_fetch,
            subscribe: outlet(1_000).0,
            group: outlet(1_000).0,
            ask: to_ask,
        };
        let (routes, routes_seen) = watch::channel(Arc::new(routes_with(handle)));
        let (members, members_seen) = watch::channel(MemberDoors::default());
        let metrics = EdgeMetrics::new(&mut Registry::default());
        let service = Service {
            address: address_of(config.broker, address),
            http_address: "127.0.0.1:7654".into(),
            frame_limits: FrameLimits::REQUESTS,
            batch_limits: BatchLimits::PRODUCE,
            fetch_bytes_max: 1 << 22,
            fetch_wait_ms_max: 60_000,
            idle_ms_max: 120_000,
            routes: routes_seen,
            follows_registry: false,
            table: watch::channel(Arc::default()).1,
            groups: Groups::new(routes.subscribe(), ShardSet::alone([]), to_link.clone()),
            link: to_link,
            clock: config.clock,
            metrics: metrics.clone(),
            clients: grus_broker::clients::Clients::new(10_000),
            fault_switches: true,
            find: Find { routes: routes.subscribe(), shards: ShardSet::alone([]) },
            cluster: grus_broker::cluster::Cluster {
                broker: BrokerId(config.broker),
                shards: ShardSet::alone([]),
                members: members_seen.clone(),
                failed: watch::channel(Arc::default()).1,
                registry: outlet(1_000).0,
                drained: Drained::open("no such folder".as_ref()).unwrap(),
            },
            schedules: Schedules { routes: routes.subscribe(), shards: ShardSet::alone([]) },
            peers: PeerGate { disk: config.broker * 10, members: members_seen },
        };
        let parts = ListenerParts {
            cores: vec![place.clone()],
            service,
            connection: config.connection,
            connections_max: config.connections_max,
        };
        let listener = Listener::start(&place, socket, parts).await.unwrap();
        Self { address, produce, fetch, ask, link, routes, members, metrics, listener, process }
    }

    /// A client that has said hello.
    pub async fn client(&self) -> Client {
        standing_still(Client::greeted(self.address)).await
    }

    /// A client that has said nothing yet.
    pub async fn stranger(&self) -> Client {
        Client::stranger(self.address).await
    }
}

/// How a broker that listens there is reached.
pub fn address_of(broker: u64, at: SocketAddr) -> BrokerAddress {
    BrokerAddress { id: BrokerId(broker), host: at.ip().to_string(), port: at.port() }
}

fn routes_with(handle: QueueHandle) -> Routes {
    let mut routes = Routes::default();
    routes.put(TopicRoute {
        name: topic(),
        id: TOPIC_ID,
        settings: TopicSettings { queues: 1, ..TopicSettings::default() },
        created: TimestampMs(1),
        queues: vec![QueuePlace {
            shard: ShardId(0),
            handle: Some(Arc::new(handle)),
            leader: Leader::Here,
        }],
    });
    routes
}

/// The topic's name.
pub fn topic() -> TopicName {
    TopicName::try_from(TOPIC).unwrap()
}

/// A Produce for queue 0.
pub fn produce() -> message::Produce {
    message::Produce {
        topic: topic(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        timeout_ms: 0,
    }
}

/// A receipt for one message at this offset.
pub fn receipt(offset: u64) -> Receipt {
    Receipt {
        base_offset: Offset(offset),
        timer: None,
        count: 1,
        term: Term(3),
        stored: TimestampMs(4),
        durability: Durability::Persisted,
        duplicate: false,
    }
}

/// A Fetch of queue 0 from its first offset.
pub fn fetch(bytes_max: u32) -> message::Fetch {
    message::Fetch::new(topic(), QueueId(0), Offset(0), bytes_max)
}

/// What a queue answers to it: one batch with these bytes.
pub fn fetched(body: Bytes) -> Fetched {
    let batch = FetchedBatch {
        base_offset: Offset(0),
        count: 1,
        term: Term(1),
        stored: TimestampMs(1),
        bytes: body,
    };
    Fetched { log_start: Offset(0), end_offset: Offset(1), batches: vec![batch] }
}

/// Does `work` while paused time stands still. It would leap to the next deadline as soon as all are at
/// rest, which they are while bytes are on their way.
pub async fn standing_still<T>(work: impl Future<Output = T>) -> T {
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let held = tokio::task::spawn_blocking(move || is_over.blocking_recv());
    let done = work.await;
    drop(over);
    let _ = held.await;
    done
}

/// A door whose deadlines are driven by tokio's paused clock.
pub async fn timed_door() -> Door {
    tokio::time::pause();
    Door::open(DoorConfig { clock: Clock::simulated(TimestampMs(0)), ..DoorConfig::default() })
        .await
}

/// What the only connection says of itself.
pub async fn described(door: &Door) -> Description {
    let (port, page) = reply::port();
    let list = ListConnections { after: None, connections_max: 1, reply: port };
    door.listener.inbox(1).try_put(list).unwrap();
    let (_, connection) = page.await.unwrap().connections.remove(0);
    let (port, description) = reply::port();
    connection.try_put(Describe { reply: port }).unwrap();
    description.await.unwrap()
}
