//! What the connections of a broker have in common.

use std::sync::Arc;

use grus_mailbox::{Clock, Inbox};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::limits::{BatchLimits, FrameLimits};
use grus_registry::RoutingTable;
use tokio::sync::watch;

use super::peers::PeerGate;
use crate::clients::Clients;
use crate::cluster::Cluster;
use crate::find::Find;
use crate::groups::Groups;
use crate::metrics::EdgeMetrics;
use crate::registry_link::LinkRequest;
use crate::registry_link::routes::Routes;
use crate::scheduled::Schedules;

/// What every connection of a broker is served from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    /// How clients reach this broker.
    pub address: BrokerAddress,
    /// Where HTTP is served, to tell those who ask at the wrong port.
    pub http_address: Arc<str>,
    /// What a frame may be.
    pub frame_limits: FrameLimits,
    /// What a batch may be.
    pub batch_limits: BatchLimits,
    /// Most bytes of one fetch.
    pub fetch_bytes_max: u32,
    /// Longest wait of one fetch, in milliseconds.
    pub fetch_wait_ms_max: u32,
    /// How long a connection may be idle, in milliseconds.
    pub idle_ms_max: u32,
    /// The routes, as they change.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// Whether the registry is a process of its own, which may know more than is known here.
    pub follows_registry: bool,
    /// The routes of the registry, for those who watch.
    pub table: watch::Receiver<Arc<RoutingTable>>,
    /// Whoever changes them.
    pub link: Inbox<LinkRequest>,
    /// The clock.
    pub clock: Clock,
    /// The counters.
    pub metrics: EdgeMetrics,
    /// Where messages are looked for.
    pub find: Find,
    /// Who is connected.
    pub clients: Clients,
    /// Who knows what is scheduled.
    pub schedules: Schedules,
    /// Who knows the groups.
    pub groups: Groups,
    /// How the shards are, and who gives them away.
    pub cluster: Cluster,
    /// By what other brokers are let in.
    pub peers: PeerGate,
    /// Whether faults may be injected, for tests of supervision.
    pub fault_switches: bool,
}
