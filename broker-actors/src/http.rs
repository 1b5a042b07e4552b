//! HTTP: what a broker shows of itself. docs/HTTP.md describes every path.
//!
//! One worker thread of its own, so that whoever reads listings slows down no shard. Every request
//! must name this server in its `Host` header ([`host`]).

pub mod browse;
pub mod clients;
pub mod find;
pub mod host;
pub mod messages;
pub mod page;
pub mod scheduled;
pub mod shapes;
pub mod state;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::uri::Authority;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer as Server, web};
use grus_mailbox::Process;
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{BrokerId, QueueId};
use grus_protocol::names::TopicName;
use grus_registry::RemoteState;
use grus_registry::configuration::Setting;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use tokio::sync::watch;

use crate::clients::Clients;
use crate::metrics::EdgeMetrics;
use crate::registry_link::routes::Routes;
use crate::shard::ShardHandle;
use crate::topic_queue::QueueAsk;
use host::AllowedHosts;
use messages::status_of;
use shapes::ErrorBody;

/// What can be read.
const KNOWN_PATHS: [&str; 11] = [
    "/",
    "/health",
    "/topics",
    "/queue/list",
    "/messages",
    "/message/find",
    "/scheduled",
    "/clients",
    "/actors",
    "/config",
    "/metrics",
];
/// Connections open at once; others wait.
const CONNECTIONS_MAX: usize = 256;
/// Of the files that the process may open, connections of HTTP take this part at most: without any left
/// the log cannot open its next segment, and the process ends.
const FILES_PART: u64 = 4;
/// Longest time for the head of a request to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Longest time for a connection to close.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Seconds a stop waits for requests under way.
const STOP_SECONDS: u64 = 1;

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
    pub shards: Vec<ShardHandle>,
    /// The counters.
    pub metrics: EdgeMetrics,
    /// Its data folder, whose disk is looked at.
    pub data: PathBuf,
    /// Where the counters are registered.
    pub registry: Arc<Registry>,
    /// Who is connected.
    pub clients: Clients,
    /// Every setting in force.
    pub settings: Arc<Vec<Setting>>,
    /// Who may ask.
    pub hosts: AllowedHosts,
    /// Whether faults may be injected, for tests of supervision.
    pub fault_switches: bool,
}

/// A running server.
#[derive(Debug)]
pub struct HttpServer {
    handle: ServerHandle,
    address: SocketAddr,
}

impl HttpServer {
    /// Serves on a bound socket. Needs a running actix `System`.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn start(socket: TcpListener, parts: HttpParts) -> io::Result<Self> {
        let address = socket.local_addr()?;
        let server = Server::new(move || {
            App::new()
                .app_data(web::Data::new(parts.clone()))
                .app_data(web::QueryConfig::default().error_handler(|problem, _| {
                    let answer = error(StatusCode::BAD_REQUEST, problem.to_string());
                    InternalError::from_response(problem, answer).into()
                }))
                .wrap(from_fn(check_host))
                .configure(page::routes)
                .route("/health", web::get().to(state::health))
                .route("/topics", web::get().to(state::topics))
                .route("/queue/list", web::get().to(state::queue_list))
                .route("/messages", web::get().to(messages::messages))
                .route("/message/find", web::get().to(find::find))
                .route("/scheduled", web::get().to(scheduled::scheduled))
                .route("/clients", web::get().to(clients::clients))
                .route("/actors", web::get().to(state::actors))
                .route("/config", web::get().to(state::config))
                .route("/metrics", web::get().to(state::metrics))
                .route("/fault/panic", web::post().to(fault_panic))
                .default_service(web::to(nothing_here))
        })
        .workers(1)
        .worker_max_blocking_threads(1)
        .backlog(64)
        .max_connections(connections_max())
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(HEAD_TIMEOUT)
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .shutdown_timeout(STOP_SECONDS)
        .disable_signals()
        .listen(socket)?
        .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        Ok(Self { handle, address })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it; requests under way are answered.
    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

fn error(status: StatusCode, text: impl Into<String>) -> HttpResponse {
    HttpResponse::build(status).json(ErrorBody { error: text.into(), code: None })
}

/// What the protocol would answer, as HTTP says it.
fn refused(reply: &ErrorReply) -> HttpResponse {
    let code = Some(reply.code.name());
    HttpResponse::build(status_of(reply.code))
        .json(ErrorBody { error: reply.message.clone(), code })
}

/// Whether every name under which the request is meant for somebody is one of ours: a proxy may
/// look at the target where we look at `Host`, or at the second of two.
fn names_us(request: &ServiceRequest, hosts: &AllowedHosts) -> bool {
    let allows = |value: &HeaderValue| value.to_str().is_ok_and(|name| hosts.allows(name));
    let mut headers = request.headers().get_all(header::HOST).peekable();
    let target = request.uri().authority().map(Authority::as_str);
    let is_named = headers.peek().is_some() || target.is_some();
    is_named && headers.all(allows) && target.is_none_or(|name| hosts.allows(name))
}

/// Refuses what was meant for another name, and says what every answer says.
async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let parts = request.app_data::<web::Data<HttpParts>>().cloned();
    let ours = parts.is_some_and(|parts| names_us(&request, &parts.hosts));
    let mut response = if ours {
        next.call(request).await?.map_into_boxed_body()
    } else {
        let text = "this name is not served here; see http.hosts in the configuration";
        request.into_response(error(StatusCode::FORBIDDEN, text))
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        let nothing = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(header::CONTENT_SECURITY_POLICY, nothing);
    }
    Ok(response)
}

async fn nothing_here(request: actix_web::HttpRequest) -> HttpResponse {
    if KNOWN_PATHS.contains(&request.path()) {
        let text = format!("{} is read with GET", request.path());
        return error(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    error(StatusCode::NOT_FOUND, format!("there is no {}", request.path()))
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

/// How many connections may be open at once, given the limit of open files.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    CONNECTIONS_MAX.min(usize::try_from(files / FILES_PART).unwrap_or(CONNECTIONS_MAX).max(1))
}
