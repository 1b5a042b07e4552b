//! The brokers and their shards: who leads what, how far the members are, and moving leaders.

use futures_util::future::join_all;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::ids::QueueId;
use grus_protocol::message::{
    ChangeReplicas, DescribeShards, HandOverShards, HandOverShardsReply, Metadata,
    ShardDescription, TopicSummary,
};
use grus_protocol::names::TopicName;
use grus_protocol::{BrokerId, ErrorCode, ErrorReply, ShardId};

use crate::client::Client;
use crate::error::{ClientError, Refusal};

/// A broker, and its shards as it knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerShards {
    /// The broker, and where it is reached.
    pub broker: BrokerAddress,
    /// Its shards; else why it did not say.
    pub shards: Result<Vec<ShardDescription>, String>,
    /// Whether it is drained; none: it did not say, as one of an older build, whose drain ends when it is started again.
    pub drained: Option<bool>,
}

/// Queues that are asked for at once: the names and routes of so many fit any answer.
const QUEUES_AT_ONCE: u32 = 10_000;

/// Topics that have up to [`QUEUES_AT_ONCE`] queues together, or one that has more by itself.
fn chunks(topics: &[TopicSummary]) -> impl Iterator<Item = &[TopicSummary]> {
    let mut rest = topics;
    std::iter::from_fn(move || {
        let mut queues = 0_u32;
        let fits = |topic: &&TopicSummary| {
            queues = queues.saturating_add(topic.settings.queues);
            queues <= QUEUES_AT_ONCE
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (some, others) = rest.split_at(count);
        rest = others;
        (!some.is_empty()).then_some(some)
    })
}

impl Client {
    /// Asks every broker that is there for its shards: those that it has alone, and those that it is a
    /// member of. Brokers that do not answer are named with the reason.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] and [`ClientError::Closed`], where nobody says which brokers there are.
    pub async fn describe_shards(&self) -> Result<Vec<BrokerShards>, ClientError> {
        let brokers = self.brokers().await?;
        let limit = self.core.config.request_timeout;
        let asked = brokers.iter().map(|broker| self.ask_broker(broker, &DescribeShards {}, limit));
        let answers = join_all(asked).await;
        let told = brokers.into_iter().zip(answers).map(|(broker, answer)| {
            let drained = answer.as_ref().ok().and_then(|reply| reply.drained);
            let shards = answer.map(|reply| reply.shards).map_err(|error| error.to_string());
            BrokerShards { broker, shards, drained }
        });
        Ok(told.collect())
    }

    /// The queues that nobody leads now, of all topics but those of the system: the brokers that have them are
    /// away. In order of topics and queues.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`], [`ClientError::Closed`].
    pub async fn queues_without_leader(&self) -> Result<Vec<(TopicName, QueueId)>, ClientError> {
        let topics = self.list_topics().await?;
        let mut away = Vec::new();
        for some in chunks(&topics) {
            let topics = some.iter().map(|topic| topic.name.clone()).collect();
            let ask = Metadata { topics, auto_create: false };
            let reply = self.ask(&ask).await?.result.map_err(ClientError::Refused)?;
            // One that has been deleted meanwhile has no queues.
            for topic in reply.topics {
                let queues = topic.queues.iter().filter(|queue| queue.leader_broker.is_none());
                away.extend(queues.map(|queue| (topic.name.clone(), queue.queue)));
            }
        }
        Ok(away)
    }

    /// Has shards of several brokers get other members: `add` in place of `remove`, or one of the two alone.
    /// Ends when that is written; whoever leads each shard sees to it from then on. Gives the shards that
    /// are to change now.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: `InvalidRequest` when that cannot be of one of them, `UnknownTopic`;
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn change_replicas(&self, ask: &ChangeReplicas) -> Result<Vec<ShardId>, ClientError> {
        let limit = self.core.config.request_timeout;
        let mut last = None;
        // Any of them has the registry do it.
        for broker in self.brokers().await? {
            match self.ask_broker(&broker, ask, limit).await {
                Ok(done) => return Ok(done.shards),
                Err(ClientError::Refused(refusal)) => return Err(ClientError::Refused(refusal)),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(ClientError::Closed))
    }

    /// Has a broker give shards that it leads to other members, drains it, or undoes that. A broker of an older build,
    /// which does not say whether it is drained ([`BrokerShards::drained`]), knows no `undo`: it moves its leaders.
    ///
    /// # Errors
    /// [`ClientError::Refused`]: `UnknownBroker` when it is not there, `InvalidRequest` when it has no
    /// member of a shard, or the one that is to lead has not; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn hand_over_shards(
        &self,
        broker: BrokerId,
        ask: &HandOverShards,
    ) -> Result<HandOverShardsReply, ClientError> {
        let brokers = self.brokers().await?;
        let Some(at) = brokers.iter().find(|at| at.id == broker) else {
            let text = format!("broker {broker} is not there");
            let error = ErrorReply::new(ErrorCode::UnknownBroker, text);
            return Err(ClientError::Refused(Refusal::from(error)));
        };
        self.ask_broker(at, ask, self.core.config.request_timeout).await
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::TopicId;
    use grus_protocol::message::TopicSettings;

    use super::*;

    #[test]
    fn topics_are_asked_for_so_many_queues_at_a_time() {
        let topic = |queues| TopicSummary {
            name: TopicName::try_from("t").unwrap(),
            id: TopicId(1),
            settings: TopicSettings { queues, ..TopicSettings::default() },
        };
        let all: Vec<_> = [1, 9_999, 1, 20_000, 5, 6].map(topic).into();
        let sizes = |some: &[TopicSummary]| some.iter().map(|one| one.settings.queues).collect();
        let taken: Vec<Vec<u32>> = chunks(&all).map(sizes).collect();
        assert_eq!(taken, [vec![1, 9_999], vec![1], vec![20_000], vec![5, 6]]);
        assert_eq!(chunks(&[]).count(), 0);
    }
}
