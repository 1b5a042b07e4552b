//! What a registry that is a process of its own shows of itself.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use grus_mailbox::Process;
use prometheus_client::registry::Registry;
use serde::Serialize;

use super::actors::actors;
use super::host::AllowedHosts;
use super::metrics::{ProcessMoment, gauge, openmetrics};
use super::{HttpServer, SettingItem};
use crate::configuration::Setting;
use crate::request::RegistryHandle;
use crate::routing::RoutingTable;

const PATHS: [&str; 4] = ["/health", "/actors", "/config", "/metrics"];

/// What HTTP shows.
#[derive(Clone)]
pub(crate) struct HttpParts {
    pub(crate) process: Process,
    pub(crate) registry: RegistryHandle,
    /// Its data folder, whose disk is looked at.
    pub(crate) data: PathBuf,
    /// Every setting in force.
    pub(crate) settings: Arc<Vec<Setting>>,
}

/// Serves it on a bound socket.
pub(crate) fn start(
    socket: TcpListener,
    hosts: AllowedHosts,
    parts: HttpParts,
) -> io::Result<HttpServer> {
    HttpServer::start(socket, hosts, &PATHS, move |app| {
        app.app_data(web::Data::new(parts.clone()))
            .app_data(web::Data::new(parts.process.census.clone()))
            .route("/health", web::get().to(health))
            .route("/actors", web::get().to(actors))
            .route("/config", web::get().to(config))
            .route("/metrics", web::get().to(metrics));
    })
}

/// `GET /health`
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    registry: u64,
    version: &'static str,
    uptime_ms: u64,
    routes_version: u64,
    topics: usize,
    queues: usize,
    brokers: Vec<BrokerItem>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BrokerItem {
    broker_id: u64,
    address: String,
    live: bool,
    drained: bool,
    shards: usize,
}

fn queues_of(table: &RoutingTable) -> usize {
    table.topics.values().map(|topic| topic.queues.len()).sum()
}

/// A registry that answers serves: one whose log fails ends its process.
async fn health(parts: web::Data<HttpParts>) -> HttpResponse {
    let table = parts.registry.routing();
    let brokers = table.brokers.iter().map(|(id, place)| BrokerItem {
        broker_id: id.0,
        address: format!("{}:{}", place.address.host, place.address.port),
        live: place.live,
        drained: table.drained.contains(id),
        shards: table.shards_of(*id).len(),
    });
    HttpResponse::Ok().json(Health {
        status: "ok",
        registry: table.registry,
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: parts.process.clock.monotonic_ms(),
        routes_version: table.version,
        topics: table.topics.len(),
        queues: queues_of(&table),
        brokers: brokers.collect(),
    })
}

async fn config(parts: web::Data<HttpParts>) -> HttpResponse {
    let items: Vec<_> = parts.settings.iter().map(SettingItem::from).collect();
    HttpResponse::Ok().json(items)
}

async fn metrics(parts: web::Data<HttpParts>) -> HttpResponse {
    let table = parts.registry.routing();
    let mut asked = Registry::default();
    ProcessMoment::of(&parts.process, &parts.data).register(&mut asked);
    let live = table.brokers.values().filter(|broker| broker.live).count();
    let copy = &parts.registry.copy;
    for (name, help, value) in [
        ("brokers", "Brokers that ever registered", table.brokers.len() as u64),
        ("brokers_live", "Brokers whose lease holds", live as u64),
        ("shards", "Shards of all brokers", table.shards.len() as u64),
        ("topics", "Topics", table.topics.len() as u64),
        ("queues", "Queues of all topics", queues_of(&table) as u64),
        ("routes_version", "Version of the routes: grows with each change", table.version),
        ("copy_rebuilds", "Times that the copy in sled was written anew", copy.rebuilds()),
        ("copy_applied_index", "Last entry of the log that the copy holds", copy.applied_index()),
    ] {
        asked.register(format!("grus_registry_{name}"), help, gauge(value));
    }
    openmetrics(&[&asked])
}
