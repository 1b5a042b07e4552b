//! What a registry answers from its routes. Pure.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerAddress, BrokerId, Offset, QueueId, ShardId, TimestampMs};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{
    DescribeTopic, DescribeTopicReply, Hello, HelloReply, ListTopics, ListTopicsReply,
    MetadataReply, QueueDescription, QueueRoute, TopicMetadata, TopicSummary, features,
};
use grus_protocol::names::TopicName;

use super::SessionLimits;
use crate::routing::{
    METADATA_QUEUES_MAX, RouteSpan, RoutingTable, TopicRoutes, metadata_too_large,
};

/// Most topics of one page of a listing.
const LIST_TOPICS_MAX: usize = 1_000;
/// Program and version, for people.
const SOFTWARE: &str = concat!("grus-registry ", env!("CARGO_PKG_VERSION"));
/// The shard named for a queue of which nobody knows where it is.
const NO_SHARD: ShardId = ShardId(u32::MAX);

/// The answer to Hello.
pub(crate) fn hello(
    hello: &Hello,
    limits: &SessionLimits,
    now: TimestampMs,
) -> Result<HelloReply, ErrorReply> {
    let version = hello.judge()?;
    let batches = BatchLimits::PRODUCE;
    let mut reply = HelloReply::new(hello, version, BrokerId(0), &limits.frames, &batches);
    reply.features = hello.features & (features::NO_REPLY | features::WATCH_ROUTES);
    reply.idle_ms_max = u32::try_from(limits.idle.as_millis()).unwrap_or(u32::MAX);
    reply.time = now;
    SOFTWARE.clone_into(&mut reply.software);
    Ok(reply)
}

/// Whether the routes of these topics, or of all when none is named, are too many for one reply.
///
/// # Errors
/// What to answer then.
pub(crate) fn check_metadata(table: &RoutingTable, names: &[TopicName]) -> Result<(), ErrorReply> {
    let count = |topic: &Arc<TopicRoutes>| topic.queues.len();
    let queues: usize = if names.is_empty() {
        table.topics.values().map(count).sum()
    } else {
        names.iter().filter_map(|name| table.topics.get(name)).map(count).sum()
    };
    if queues > METADATA_QUEUES_MAX { Err(metadata_too_large()) } else { Ok(()) }
}

/// Where topics are served; all of them when none is named.
pub(crate) fn metadata(table: &RoutingTable, names: &[TopicName]) -> MetadataReply {
    let topics: Vec<_> = if names.is_empty() {
        table.topics.values().map(|topic| topic_metadata(table, topic)).collect()
    } else {
        let of = |name: &TopicName| match table.topics.get(name) {
            Some(topic) => topic_metadata(table, topic),
            None => TopicMetadata::failed(name.clone(), unknown_topic(name)),
        };
        names.iter().map(of).collect()
    };
    let live = table.brokers.values().filter(|broker| broker.live);
    let brokers: BTreeMap<BrokerId, BrokerAddress> =
        live.map(|broker| (broker.address.id, broker.address.clone())).collect();
    MetadataReply { brokers: brokers.into_values().collect(), topics, version: table.version }
}

/// Where one topic is served.
pub(crate) fn topic_metadata(table: &RoutingTable, topic: &TopicRoutes) -> TopicMetadata {
    let route = |(queue, spans): (QueueId, &Vec<RouteSpan>)| {
        let shard = spans.last().map(|span| span.shard);
        let leader = shard.and_then(|shard| table.leader_of(shard));
        QueueRoute {
            queue,
            shard: shard.unwrap_or(NO_SHARD),
            leader_broker: leader.map(|leader| leader.id),
        }
    };
    TopicMetadata {
        name: topic.name.clone(),
        error: None,
        id: topic.id,
        durability: topic.settings.durability,
        kind: topic.settings.kind,
        queues: (0..).map(QueueId).zip(&topic.queues).map(route).collect(),
    }
}

/// A page of the listing.
pub(crate) fn page(table: &RoutingTable, ask: &ListTopics) -> ListTopicsReply {
    let wanted = match ask.topics_max {
        0 => LIST_TOPICS_MAX,
        some => LIST_TOPICS_MAX.min(some as usize),
    };
    let from = ask.after.as_ref().map_or(Unbounded, Excluded);
    let all = table.topics.range::<TopicName, _>((from, Unbounded)).map(|(_, topic)| topic);
    let mut listed = all.filter(|topic| ask.include_system || !topic.name.is_system());
    let summary = |topic: &Arc<TopicRoutes>| TopicSummary {
        name: topic.name.clone(),
        id: topic.id,
        settings: topic.settings.clone(),
    };
    let topics = listed.by_ref().take(wanted).map(summary).collect();
    ListTopicsReply { topics, more: listed.next().is_some() }
}

/// What the registry knows of a topic: where its queues are. What they hold, their brokers know.
pub(crate) fn describe(
    table: &RoutingTable,
    ask: &DescribeTopic,
) -> Result<DescribeTopicReply, ErrorReply> {
    let topic = table.topics.get(&ask.name).ok_or_else(|| unknown_topic(&ask.name))?;
    let queue = |route: QueueRoute| QueueDescription {
        queue: route.queue,
        shard: route.shard,
        leader_broker: route.leader_broker,
        log_start: Offset(0),
        end_offset: Offset(0),
        flushed_offset: Offset(0),
        bytes: 0,
        last_stored: TimestampMs(0),
    };
    Ok(DescribeTopicReply {
        name: topic.name.clone(),
        id: topic.id,
        settings: topic.settings.clone(),
        created: topic.created,
        queues: topic_metadata(table, topic).queues.into_iter().map(queue).collect(),
    })
}

fn unknown_topic(name: &TopicName) -> ErrorReply {
    ErrorReply::new(ErrorCode::UnknownTopic, format!("there is no topic {name}"))
}
