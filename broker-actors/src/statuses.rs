//! The numbers of many queues at once, for listings and metrics.

use std::sync::Arc;

use futures_util::future::join_all;
use grus_mailbox::{Answer, reply};
use grus_protocol::ids::{BrokerId, QueueId};
use grus_protocol::message::{DescribeTopicReply, QueueDescription};

use crate::error::QueueError;
use crate::registry_link::routes::{Leader, TopicRoute};
use crate::shard::{ShardHandle, ShardRequest, ShardStatus};
use crate::topic_queue::{QueueAsk, QueueHandle, QueueStatus};

type Asked = Answer<Result<QueueStatus, QueueError>>;

/// Asks every queue of `topic` at once; `None` for one that cannot answer now.
pub async fn queue_statuses(topic: &TopicRoute) -> Vec<Option<QueueStatus>> {
    let asked: Vec<_> =
        topic.queues.iter().map(|place| place.handle.as_ref().and_then(ask)).collect();
    let mut statuses = Vec::with_capacity(asked.len());
    for answer in asked {
        statuses.push(match answer {
            Some(answer) => answer.await.ok().and_then(Result::ok),
            None => None,
        });
    }
    statuses
}

fn ask(queue: &Arc<QueueHandle>) -> Option<Asked> {
    let (port, answer) = reply::port();
    queue.ask.try_put(QueueAsk::Status { reply: port }).ok().map(|()| answer)
}

/// All that is known of a topic, its queues led by `broker`.
pub async fn describe(topic: &TopicRoute, broker: BrokerId) -> DescribeTopicReply {
    let statuses = queue_statuses(topic).await;
    let queues = (0..).map(QueueId).zip(&topic.queues).zip(statuses).map(|((queue, place), at)| {
        let leader_broker = match place.leader {
            Leader::Here => at.as_ref().map(|_| broker),
            _ => place.leader_id(broker),
        };
        QueueDescription {
            queue,
            shard: place.shard,
            leader_broker,
            log_start: at.as_ref().map(|at| at.log_start).unwrap_or_default(),
            end_offset: at.as_ref().map(|at| at.end_offset).unwrap_or_default(),
            flushed_offset: at.as_ref().map(|at| at.durable_end).unwrap_or_default(),
            bytes: at.as_ref().map_or(0, |at| at.bytes),
            last_stored: at.map(|at| at.last_modified).unwrap_or_default(),
        }
    });
    DescribeTopicReply {
        name: topic.name.clone(),
        id: topic.id,
        settings: topic.settings.clone(),
        created: topic.created,
        queues: queues.collect(),
    }
}

/// Asks shards; those that cannot answer now are left out.
pub async fn shard_statuses(shards: &[ShardHandle]) -> Vec<ShardStatus> {
    let asked: Vec<_> = shards
        .iter()
        .filter_map(|shard| {
            let (port, answer) = reply::port();
            shard.inbox.try_put(ShardRequest::Status { reply: port }).ok().map(|()| answer)
        })
        .collect();
    join_all(asked).await.into_iter().flatten().collect()
}
