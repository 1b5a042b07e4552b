//! What a broker is at this moment: health, topics, queues, actors, metrics, configuration.

use std::path::Path;
use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use grus_mailbox::reply;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;
use serde::Deserialize;

use super::shapes::{
    Actors, Health, QueueItem, RegistryHealth, SettingItem, ShardHealth, TopicItem,
};
use super::{HttpParts, error};
use crate::metrics::moment::Moment;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::shard::{ShardHandle, ShardRequest, ShardStatus};
use crate::statuses::queue_statuses;
use crate::topic_queue::QueueStatus;

/// Queues asked at once for a listing.
const QUEUES_AT_ONCE: usize = 256;
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `GET /health`.
pub async fn health(parts: web::Data<HttpParts>) -> HttpResponse {
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
        registry: RegistryHealth::of(parts.remote.as_ref().map(|state| state.borrow().clone())),
        shards: shards.iter().map(ShardHealth::from).collect(),
    })
}

/// Serves `GET /actors`.
pub async fn actors(parts: web::Data<HttpParts>) -> HttpResponse {
    HttpResponse::Ok().json(Actors::of(&parts.process.census))
}

/// What may stand behind the `?` of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    topic: Option<String>,
}

/// Serves `GET /queue/list`.
pub async fn queue_list(parts: web::Data<HttpParts>, query: web::Query<ListQuery>) -> HttpResponse {
    let queues = all_queues(&parts, query.topic.as_deref()).await;
    let items: Vec<_> = queues.iter().map(|(topic, status)| QueueItem::of(topic, status)).collect();
    HttpResponse::Ok().json(items)
}

/// Serves `GET /topics`.
pub async fn topics(parts: web::Data<HttpParts>, query: web::Query<ListQuery>) -> HttpResponse {
    let routes = Arc::clone(&parts.routes.borrow());
    let topics = wanted(&routes, query.topic.as_deref());
    let mut items = Vec::with_capacity(topics.len());
    for some in in_portions(&topics) {
        let asked = some.iter().map(|topic| async move { (topic, queue_statuses(topic).await) });
        let answered = join_all(asked).await;
        items.extend(answered.iter().map(|(topic, queues)| TopicItem::of(topic, queues)));
    }
    HttpResponse::Ok().json(items)
}

/// Serves `GET /config`.
pub async fn config(parts: web::Data<HttpParts>) -> HttpResponse {
    let items: Vec<_> = parts.settings.iter().map(SettingItem::from).collect();
    HttpResponse::Ok().json(items)
}

/// What may stand behind the `?` of `/metrics`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsQuery {
    /// Whether each queue is shown.
    #[serde(default)]
    queues: bool,
    /// One topic alone, each of its queues shown.
    topic: Option<String>,
}

/// Serves `GET /metrics`.
pub async fn metrics(parts: web::Data<HttpParts>, query: web::Query<MetricsQuery>) -> HttpResponse {
    let queues = all_queues(&parts, query.topic.as_deref()).await;
    let census = &parts.process.census;
    let moment = Moment {
        uptime_ms: parts.process.clock.monotonic_ms(),
        disk: disk_of(&parts.data),
        queues: queues.into_iter().map(|(_, status)| status).collect(),
        queues_wanted: query.queues || query.topic.is_some(),
        shards: shard_statuses(&parts.shards).await,
        kinds: census.totals(),
        actors: census.snapshot(),
    };
    let mut asked = Registry::default();
    moment.register(&mut asked);
    let mut text = String::new();
    let written = encode_registry(&mut text, &parts.registry)
        .and_then(|()| encode_registry(&mut text, &asked))
        .and_then(|()| encode_eof(&mut text));
    match written {
        Ok(()) => HttpResponse::Ok().content_type(OPENMETRICS).body(text),
        Err(failure) => error(StatusCode::INTERNAL_SERVER_ERROR, failure.to_string()),
    }
}

/// Bytes of a folder's disk: free for this process, and in all.
fn disk_of(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
}

/// The topics asked for, in order of their names.
fn wanted(routes: &Routes, only: Option<&str>) -> Vec<Arc<TopicRoute>> {
    let is_wanted = |topic: &&Arc<TopicRoute>| only.is_none_or(|name| topic.name.as_str() == name);
    routes.topics().filter(is_wanted).cloned().collect()
}

/// Topics in portions of at least one, each of few queues: they are asked at once, and their cores
/// must not notice.
fn in_portions(topics: &[Arc<TopicRoute>]) -> Vec<&[Arc<TopicRoute>]> {
    let mut portions = Vec::new();
    let (mut from, mut queues) = (0, 0);
    for (at, topic) in topics.iter().enumerate() {
        if at > from && queues + topic.queues.len() > QUEUES_AT_ONCE {
            portions.push(&topics[from..at]);
            (from, queues) = (at, 0);
        }
        queues += topic.queues.len();
    }
    portions.push(&topics[from..]);
    portions
}

/// Every queue that can answer now, with its topic, in order.
async fn all_queues(parts: &HttpParts, only: Option<&str>) -> Vec<(Arc<TopicRoute>, QueueStatus)> {
    let routes = Arc::clone(&parts.routes.borrow());
    let topics = wanted(&routes, only);
    let mut queues = Vec::new();
    for some in in_portions(&topics) {
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
