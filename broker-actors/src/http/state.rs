//! What a broker is at this moment: health, topics, queues, actors, metrics, configuration.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use grus_protocol::ids::QueueId;
use grus_protocol::names::TopicName;
use grus_registry::http::SettingItem;
use grus_registry::http::actors::items_wanted;
use grus_registry::http::metrics::{ProcessMoment, openmetrics};
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

use super::shapes::{FailedHealth, Health, QueueItem, RegistryHealth, ShardHealth, TopicItem};
use super::{HttpParts, error};
use crate::metrics::moment::Moment;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::scheduled::Schedules;
use crate::shard::ShardStatus;
use crate::statuses::{queue_statuses, shard_statuses};
use crate::topic_queue::QueueStatus;

/// Queues asked at once for a listing.
const QUEUES_AT_ONCE: usize = 256;

/// Serves `GET /health`.
pub async fn health(parts: web::Data<HttpParts>) -> HttpResponse {
    let all = parts.shards.all();
    let shards = shard_statuses(&all).await;
    // A member that follows somebody is as well as one that leads.
    let serves =
        |shard: &ShardStatus| shard.is_ready || (shard.is_replicated && shard.leader.is_some());
    let failed = parts.cluster.failed.borrow().clone();
    let ready = shards.len() == all.len() && shards.iter().all(serves) && failed.is_empty();
    let reasons = failed
        .iter()
        .map(|(shard, failed)| FailedHealth { shard: shard.0, reason: failed.why.clone() });
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
        failed: reasons.collect(),
    })
}

/// What may stand behind the `?` of a listing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// One topic alone.
    topic: Option<String>,
    /// What stands behind this topic, or queue (`orders/3`).
    after: Option<String>,
    /// Most items.
    max: Option<usize>,
}

/// Says where to go on behind an answer that is not the end.
const NEXT: &str = "grus-next";

/// An answer of some items, and where to go on if there are more.
fn listing<T: Serialize>(items: &[T], next: Option<String>) -> HttpResponse {
    let mut answer = HttpResponse::Ok();
    if let Some(next) = next {
        answer.insert_header((NEXT, next));
    }
    answer.json(items)
}

/// Serves `GET /queue/list`.
pub async fn queue_list(parts: web::Data<HttpParts>, query: web::Query<ListQuery>) -> HttpResponse {
    let count = match items_wanted(query.max) {
        Ok(count) => count,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    let after = match query.after.as_deref().map(QueuePlace::parse) {
        None => None,
        Some(Some(place)) => Some(place),
        Some(None) => {
            return error(StatusCode::BAD_REQUEST, "after is a queue, as in orders/3");
        }
    };
    let routes = Arc::clone(&parts.routes.borrow());
    let mut topics = wanted(&routes, query.topic.as_deref());
    if let Some(after) = &after {
        topics.retain(|topic| topic.name >= after.topic);
    }
    let is_behind = |topic: &TopicRoute, queue: QueueId| {
        let at = after.as_ref().filter(|after| after.topic == topic.name);
        at.is_none_or(|after| queue > after.queue)
    };
    let mut items = Vec::new();
    for some in in_portions(&topics) {
        for (topic, statuses) in ask_queues(some).await {
            for status in statuses.into_iter().flatten() {
                if !is_behind(topic, status.key.queue) {
                    continue;
                }
                if items.len() == count {
                    let next = items.last().map(QueueItem::place);
                    return listing(&items, next);
                }
                items.push(QueueItem::of(topic, &status));
            }
        }
    }
    listing(&items, None)
}

/// A queue, as `after` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct QueuePlace {
    topic: TopicName,
    queue: QueueId,
}

impl QueuePlace {
    fn parse(text: &str) -> Option<Self> {
        let (topic, queue) = text.rsplit_once('/')?;
        Some(Self { topic: TopicName::parse_any(topic).ok()?, queue: QueueId(queue.parse().ok()?) })
    }
}

/// Serves `GET /topics`.
pub async fn topics(parts: web::Data<HttpParts>, query: web::Query<ListQuery>) -> HttpResponse {
    let count = match items_wanted(query.max) {
        Ok(count) => count,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    let after = match query.after.as_deref().map(TopicName::parse_any) {
        None => None,
        Some(Ok(topic)) => Some(topic),
        Some(Err(_)) => return error(StatusCode::BAD_REQUEST, "after is the name of a topic"),
    };
    let routes = Arc::clone(&parts.routes.borrow());
    let mut topics = wanted(&routes, query.topic.as_deref());
    if let Some(after) = &after {
        topics.retain(|topic| topic.name > *after);
    }
    let more = topics.len() > count;
    topics.truncate(count);
    let mut items = Vec::with_capacity(topics.len());
    for some in in_portions(&topics) {
        let answered = ask_queues(some).await;
        items.extend(answered.iter().map(|(topic, queues)| TopicItem::of(topic, queues)));
    }
    let last = topics.last().filter(|_| more);
    listing(&items, last.map(|topic| topic.name.to_string()))
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
    let schedules = Schedules { routes: parts.routes.clone(), shards: parts.shards.clone() };
    let moment = Moment {
        process: ProcessMoment::of(&parts.process, &parts.data),
        queues: queues.into_iter().map(|(_, status)| status).collect(),
        queues_wanted: query.queues || query.topic.is_some(),
        shards: shard_statuses(&parts.shards.all()).await,
        delays: schedules.statuses().await,
        groups: parts.groups.moments(parts.process.clock.now()).await,
        is_drained: parts.cluster.drained.is_set(),
    };
    let mut asked = Registry::default();
    moment.register(&mut asked);
    openmetrics(&[&parts.registry, &asked])
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

/// What the queues of some topics say, all asked at once.
async fn ask_queues(
    topics: &[Arc<TopicRoute>],
) -> Vec<(&Arc<TopicRoute>, Vec<Option<QueueStatus>>)> {
    let asked = topics.iter().map(|topic| async move { (topic, queue_statuses(topic).await) });
    join_all(asked).await
}

/// Every queue that can answer now, with its topic, in order.
async fn all_queues(parts: &HttpParts, only: Option<&str>) -> Vec<(Arc<TopicRoute>, QueueStatus)> {
    let routes = Arc::clone(&parts.routes.borrow());
    let topics = wanted(&routes, only);
    let mut queues = Vec::new();
    for some in in_portions(&topics) {
        for (topic, statuses) in ask_queues(some).await {
            queues.extend(statuses.into_iter().flatten().map(|status| (Arc::clone(topic), status)));
        }
    }
    queues
}
