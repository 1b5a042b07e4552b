//! HTTP: what a broker shows of itself. docs/HTTP.md describes every path.
//!
//! One worker thread of its own, so that whoever reads listings slows down no shard. Every request
//! must name this server in its `Host` header ([`host`]).

pub mod gauges;
pub mod host;
pub mod shapes;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::uri::Authority;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpResponse, HttpServer as Server, web};
use futures_util::future::join_all;
use grus_mailbox::{Process, reply};
use grus_protocol::ids::{BrokerId, QueueId};
use grus_protocol::names::TopicName;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use tokio::sync::watch;

use crate::metrics::EdgeMetrics;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::shard::{ShardHandle, ShardRequest, ShardStatus};
use crate::statuses::queue_statuses;
use crate::topic_queue::{QueueAsk, QueueStatus};
use host::AllowedHosts;
use shapes::{Actors, ErrorBody, Health, INDEX_HTML, QueueItem, ShardHealth};

/// Topics asked at once for a listing.
const TOPICS_AT_ONCE: usize = 64;
/// Seconds a stop waits for requests under way.
const STOP_SECONDS: u64 = 1;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What HTTP shows.
#[derive(Clone)]
pub struct HttpParts {
    /// The broker.
    pub broker: BrokerId,
    /// Its clock and actors.
    pub process: Process,
    /// The routes.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// The shards.
    pub shards: Vec<ShardHandle>,
    /// The counters.
    pub metrics: EdgeMetrics,
    /// Where the counters are registered.
    pub registry: Arc<Registry>,
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
                .route("/", web::get().to(index))
                .route("/health", web::get().to(health))
                .route("/actors", web::get().to(actors))
                .route("/metrics", web::get().to(metrics))
                .route("/queue/list", web::get().to(queue_list))
                .route("/fault/panic", web::post().to(fault_panic))
                .default_service(web::to(nothing_here))
        })
        .workers(1)
        .worker_max_blocking_threads(1)
        .backlog(64)
        .max_connections(256)
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
    HttpResponse::build(status).json(ErrorBody { error: text.into() })
}

/// Refuses what was meant for another name, and says what every answer says.
async fn check_host(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let parts = request.app_data::<web::Data<HttpParts>>().cloned();
    let header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = header.or_else(|| request.uri().authority().map(Authority::as_str));
    let ours = host.zip(parts).is_some_and(|(host, parts)| parts.hosts.allows(host));
    let mut response = if ours {
        next.call(request).await?.map_into_boxed_body()
    } else {
        let text = "this name is not served here; see http.hosts in the configuration";
        request.into_response(error(StatusCode::FORBIDDEN, text))
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    Ok(response)
}

async fn index() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(INDEX_HTML)
}

async fn nothing_here(request: actix_web::HttpRequest) -> HttpResponse {
    let known = ["/", "/health", "/actors", "/metrics", "/queue/list"];
    if known.contains(&request.path()) {
        let text = format!("{} is read with GET", request.path());
        return error(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    error(StatusCode::NOT_FOUND, format!("there is no {}", request.path()))
}

async fn health(parts: web::Data<HttpParts>) -> HttpResponse {
    let shards = shard_statuses(&parts.shards).await;
    let ready = shards.len() == parts.shards.len() && shards.iter().all(|shard| shard.is_ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).json(Health {
        status: if ready { "ok" } else { "unavailable" },
        broker_id: parts.broker.0,
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: parts.process.clock.monotonic_ms(),
        connections: parts.metrics.connections(),
        topics: parts.routes.borrow().len(),
        shards: shards.iter().map(ShardHealth::from).collect(),
    })
}

async fn actors(parts: web::Data<HttpParts>) -> HttpResponse {
    HttpResponse::Ok().json(Actors::of(&parts.process.census))
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    topic: Option<String>,
}

async fn queue_list(parts: web::Data<HttpParts>, query: web::Query<ListQuery>) -> HttpResponse {
    let queues = all_queues(&parts, query.topic.as_deref()).await;
    let items: Vec<_> = queues.iter().map(|(topic, status)| QueueItem::of(topic, status)).collect();
    HttpResponse::Ok().json(items)
}

async fn metrics(parts: web::Data<HttpParts>) -> HttpResponse {
    let queues: Vec<_> =
        all_queues(&parts, None).await.into_iter().map(|(_, status)| status).collect();
    let shards = shard_statuses(&parts.shards).await;
    let mut moment = Registry::default();
    gauges::register(&mut moment, &queues, &shards, &Actors::of(&parts.process.census).kinds);
    let mut text = String::new();
    let written = encode_registry(&mut text, &parts.registry)
        .and_then(|()| encode_registry(&mut text, &moment))
        .and_then(|()| encode_eof(&mut text));
    match written {
        Ok(()) => HttpResponse::Ok().content_type(OPENMETRICS).body(text),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()),
    }
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

/// Every queue that can answer now, with its topic, in order.
async fn all_queues(parts: &HttpParts, only: Option<&str>) -> Vec<(Arc<TopicRoute>, QueueStatus)> {
    let routes = Arc::clone(&parts.routes.borrow());
    let wanted = |topic: &&Arc<TopicRoute>| only.is_none_or(|name| topic.name.as_str() == name);
    let topics: Vec<_> = routes.topics().filter(wanted).cloned().collect();
    let mut queues = Vec::new();
    for some in topics.chunks(TOPICS_AT_ONCE) {
        let asked = some.iter().map(|topic| async move { (topic, queue_statuses(topic).await) });
        for (topic, statuses) in join_all(asked).await {
            queues.extend(statuses.into_iter().flatten().map(|status| (Arc::clone(topic), status)));
        }
    }
    queues
}

async fn shard_statuses(shards: &[ShardHandle]) -> Vec<ShardStatus> {
    let asked: Vec<_> = shards
        .iter()
        .filter_map(|shard| {
            let (port, answer) = reply::port();
            shard.inbox.try_put(ShardRequest::Status { reply: port }).ok().map(|()| answer)
        })
        .collect();
    join_all(asked).await.into_iter().flatten().collect()
}
