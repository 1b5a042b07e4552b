//! HTTP: what a broker shows of itself. docs/HTTP.md describes every path.
//!
//! One worker thread of its own, so that whoever reads listings slows down no shard. The server, and who
//! may ask, are those of [`grus_registry::http`].

pub mod browse;
pub mod changes;
pub mod clients;
pub mod cluster;
pub mod dead_letters;
pub mod find;
pub mod group_changes;
pub mod group_shapes;
pub mod groups;
pub mod messages;
pub mod page;
pub mod scheduled;
pub mod schedules;
pub mod shapes;
pub mod state;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use grus_mailbox::Process;
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{BrokerId, QueueId};
use grus_protocol::names::TopicName;
use grus_registry::configuration::Setting;
use grus_registry::http::ErrorBody;
use grus_registry::http::actors::actors;
use grus_registry::http::host::AllowedHosts;
pub use grus_registry::http::{HttpServer, error};
use grus_registry::{RemoteState, RoutingTable};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::watch;

use crate::clients::Clients;
use crate::cluster::Cluster;
use crate::groups::Groups;
use crate::metrics::EdgeMetrics;
use crate::registry_link::routes::Routes;
use crate::shard::ShardSet;
use crate::topic_queue::QueueAsk;
use messages::status_of;

/// What can be read.
const KNOWN_PATHS: [&str; 14] = [
    "/",
    "/health",
    "/topics",
    "/queue/list",
    "/messages",
    "/message/find",
    "/scheduled",
    "/schedules",
    "/groups",
    "/clients",
    "/cluster/shards",
    "/actors",
    "/config",
    "/metrics",
];
/// What HTTP shows.
#[derive(Clone)]
pub struct HttpParts {
    /// The broker.
    pub broker: BrokerId,
    /// Its clock and actors.
    pub process: Process,
    /// The routes.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// How things stand with a registry that is a process of its own.
    pub remote: Option<watch::Receiver<RemoteState>>,
    /// The shards.
    pub shards: ShardSet,
    /// The counters.
    pub metrics: EdgeMetrics,
    /// Its data folder, whose disk is looked at.
    pub data: PathBuf,
    /// Where the counters are registered.
    pub registry: Arc<Registry>,
    /// Who is connected.
    pub clients: Clients,
    /// The consumer groups.
    pub groups: Groups,
    /// How the shards are, and who gives them away.
    pub cluster: Cluster,
    /// The routes of the registry.
    pub table: watch::Receiver<Arc<RoutingTable>>,
    /// Every setting in force.
    pub settings: Arc<Vec<Setting>>,
    /// Who may ask.
    pub hosts: AllowedHosts,
    /// Whether faults may be injected, for tests of supervision.
    pub fault_switches: bool,
}

/// Serves a broker on a bound socket. Needs a running actix `System`.
///
/// # Errors
/// When the socket cannot be used.
pub fn start(socket: TcpListener, parts: HttpParts) -> io::Result<HttpServer> {
    let hosts = parts.hosts.clone();
    HttpServer::start(socket, hosts, &KNOWN_PATHS, move |app| {
        app.app_data(web::Data::new(parts.clone()))
            .app_data(web::Data::new(parts.process.census.clone()))
            .configure(page::routes)
            .route("/health", web::get().to(state::health))
            .route("/topics", web::get().to(state::topics))
            .route("/queue/list", web::get().to(state::queue_list))
            .route("/messages", web::get().to(messages::messages))
            .route("/message/find", web::get().to(find::find))
            .route("/scheduled", web::get().to(scheduled::scheduled))
            .route("/schedules", web::get().to(schedules::schedules))
            .configure(group_routes)
            .route("/clients", web::get().to(clients::clients))
            .route("/cluster/shards", web::get().to(cluster::shards))
            .route("/cluster/hand-over", web::post().to(cluster::hand_over))
            .route("/cluster/replicas", web::post().to(cluster::replicas))
            .route("/actors", web::get().to(actors))
            .route("/config", web::get().to(state::config))
            .route("/metrics", web::get().to(state::metrics))
            .route("/fault/panic", web::post().to(fault_panic))
            .route("/fault/clock", web::post().to(fault_clock));
    })
}

/// What is read of groups, and what changes them.
fn group_routes(config: &mut web::ServiceConfig) {
    let read = |path: &str| web::resource(path.to_owned()).default_service(web::to(read_only));
    let changed = |path: &str| web::resource(path.to_owned()).default_service(web::to(change_only));
    let letters = "/groups/{group}/dead-letters";
    config
        .route("/groups", web::get().to(groups::groups))
        .service(read("/groups/{group}").route(web::get().to(groups::group)))
        .service(read(letters).route(web::get().to(dead_letters::letters)))
        .service(
            read("/groups/{group}/dead-letters/{queue}/{offset}")
                .route(web::get().to(dead_letters::letter)),
        )
        .service(changed("/groups/{group}/reset").route(web::post().to(group_changes::reset)))
        .service(changed("/groups/{group}/delete").route(web::post().to(group_changes::delete)))
        .service(
            changed("/groups/{group}/dead-letters/redrive")
                .route(web::post().to(group_changes::redrive)),
        )
        .service(
            changed("/groups/{group}/dead-letters/purge")
                .route(web::post().to(group_changes::purge)),
        );
}

async fn read_only(request: HttpRequest) -> HttpResponse {
    let text = format!("{} is read with GET", request.path());
    error(StatusCode::METHOD_NOT_ALLOWED, text)
}

async fn change_only(request: HttpRequest) -> HttpResponse {
    let text = format!("{} is asked for with POST", request.path());
    error(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// What the protocol would answer, as HTTP says it.
fn refused(reply: &ErrorReply) -> HttpResponse {
    let code = Some(reply.code.name());
    HttpResponse::build(status_of(reply.code))
        .json(ErrorBody { error: reply.message.clone(), code })
}

#[derive(Debug, Deserialize)]
struct FaultQuery {
    topic: String,
    queue: u32,
}

/// Has a queue's actor panic. Only where `GRUS_FAULT_SWITCHES=1` says so.
async fn fault_panic(
    parts: web::Data<HttpParts>,
    query: Option<web::Query<FaultQuery>>,
) -> HttpResponse {
    if !parts.fault_switches {
        return error(StatusCode::NOT_FOUND, "there is no /fault/panic");
    }
    let Some(query) = query else {
        return error(StatusCode::BAD_REQUEST, "topic and queue are needed");
    };
    let topic = TopicName::parse_any(&query.topic).ok();
    let topic = topic.and_then(|name| parts.routes.borrow().get(&name).cloned());
    let queue = topic.as_ref().and_then(|topic| topic.queue(topic.id, QueueId(query.queue)).ok());
    match queue.map(|queue| queue.ask.try_put(QueueAsk::Panic)) {
        Some(Ok(())) => HttpResponse::Accepted().finish(),
        _ => error(StatusCode::NOT_FOUND, "there is no such queue"),
    }
}

#[derive(Debug, Deserialize)]
struct ClockQuery {
    /// By how much, in milliseconds; back where it is negative.
    ms: i64,
}

/// Moves the broker's clock. Only where `GRUS_FAULT_SWITCHES=1` says so.
async fn fault_clock(
    parts: web::Data<HttpParts>,
    query: Option<web::Query<ClockQuery>>,
) -> HttpResponse {
    let Some(hand) = parts.process.clock.hand().filter(|_| parts.fault_switches) else {
        return error(StatusCode::NOT_FOUND, "there is no /fault/clock");
    };
    let Some(query) = query else {
        return error(StatusCode::BAD_REQUEST, "ms is needed");
    };
    hand.move_by(query.ms);
    HttpResponse::Accepted().finish()
}
