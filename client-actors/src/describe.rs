//! A topic with what its queues hold: each queue's leader is asked, since nobody else knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    DescribeTopic, DescribeTopicReply, QueueDescription, QueueRoute, TopicSettings,
};
use grus_protocol::{BrokerId, Offset, QueueId, ShardId, TimestampMs, TopicId, TopicName};

use crate::admin::name;
use crate::client::Client;
use crate::error::ClientError;

/// How long the leaders of queues are waited for: those that are away are named, not waited out.
pub(crate) const LEADER_WAIT: Duration = Duration::from_secs(5);

/// All that is known of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// Its settings.
    pub settings: TopicSettings,
    /// When it was made.
    pub created: TimestampMs,
    /// Its queues, by number.
    pub queues: Vec<QueueState>,
}

/// One queue of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueState {
    /// Its number.
    pub queue: QueueId,
    /// The shard it is in.
    pub shard: ShardId,
    /// The broker that leads it; none while nobody does.
    pub leader: Option<BrokerId>,
    /// What it holds, as its leader says; why nobody says it otherwise.
    pub contents: Result<QueueContents, Arc<str>>,
}

/// What a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueContents {
    /// The first offset there is.
    pub first: Offset,
    /// The offset the next message gets.
    pub end: Offset,
    /// Up to before this offset all is on disk.
    pub flushed: Offset,
    /// Bytes of its batches.
    pub bytes: u64,
    /// When its last message was stored; 0: it never had one.
    pub last_stored: TimestampMs,
}

impl From<&QueueDescription> for QueueContents {
    fn from(told: &QueueDescription) -> Self {
        Self {
            first: told.log_start,
            end: told.end_offset,
            flushed: told.flushed_offset,
            bytes: told.bytes,
            last_stored: told.last_stored,
        }
    }
}

impl Client {
    /// Tells all that is known of a topic. What a queue holds only its leader knows: each of them is
    /// asked, for at most 5 s, and queues whose leader does not answer say so.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, ClientError> {
        let request = DescribeTopic { name: name(topic)? };
        let known = self.describe_at_any(topic).await?;
        let (brokers, routes) = self.routes_of(&request.name).await?;
        let routes = routes.map_err(ClientError::Refused)?.queues;
        let led = |broker: &&BrokerAddress| {
            routes.iter().any(|route| route.leader_broker == Some(broker.id))
        };
        let leaders: Vec<_> = brokers.iter().filter(led).collect();
        let asked = leaders.iter().map(|broker| self.ask_broker(broker, &request, LEADER_WAIT));
        let answers = join_all(asked).await;
        let answers = leaders.iter().map(|broker| broker.id).zip(answers).collect();
        Ok(described(known, &routes, &answers))
    }
}

type Answers = BTreeMap<BrokerId, Result<DescribeTopicReply, ClientError>>;

/// What any broker said of the topic, with what the leaders said of their queues.
fn described(
    known: DescribeTopicReply,
    routes: &[QueueRoute],
    answers: &Answers,
) -> TopicDescription {
    let id = known.id;
    let queue = |told: &QueueDescription| {
        let route = routes.iter().find(|route| route.queue == told.queue);
        let leader = route.and_then(|route| route.leader_broker);
        let shard = route.map_or(told.shard, |route| route.shard);
        let contents = contents(told.queue, id, leader, answers);
        QueueState { queue: told.queue, shard, leader, contents }
    };
    let queues = known.queues.iter().map(queue).collect();
    let DescribeTopicReply { name, settings, created, .. } = known;
    TopicDescription { name, id, settings, created, queues }
}

fn contents(
    queue: QueueId,
    id: TopicId,
    leader: Option<BrokerId>,
    answers: &Answers,
) -> Result<QueueContents, Arc<str>> {
    let Some(leader) = leader else { return Err("no broker leads it now".into()) };
    let answer = match answers.get(&leader) {
        None => return Err(format!("broker {leader} is not there now").into()),
        Some(Err(error)) => return Err(format!("broker {leader}: {error}").into()),
        Some(Ok(answer)) => answer,
    };
    let told = answer.queues.iter().find(|told| told.queue == queue);
    match told {
        // It says so of itself only where it has the numbers.
        Some(told) if told.leader_broker == Some(leader) && answer.id == id => Ok(told.into()),
        _ => Err(format!("broker {leader} does not lead it now").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(queue: u32, leader: Option<u64>, end: u64) -> QueueDescription {
        QueueDescription {
            queue: QueueId(queue),
            shard: ShardId(queue),
            leader_broker: leader.map(BrokerId),
            log_start: Offset(0),
            end_offset: Offset(end),
            flushed_offset: Offset(end),
            bytes: end * 10,
            last_stored: TimestampMs(5),
        }
    }

    fn reply(id: u64, queues: Vec<QueueDescription>) -> DescribeTopicReply {
        let name = TopicName::try_from("t").unwrap();
        let (settings, created) = (TopicSettings::default(), TimestampMs(1));
        DescribeTopicReply { name, id: TopicId(id), settings, created, queues }
    }

    #[test]
    fn each_leader_tells_of_its_own_queues_and_the_others_say_why_not() {
        let leaders = [Some(1), Some(2), Some(3), None, Some(4), Some(1)];
        let routes: Vec<_> = (0..)
            .zip(leaders)
            .map(|(queue, leader)| QueueRoute {
                queue: QueueId(queue),
                shard: ShardId(queue),
                leader_broker: leader.map(BrokerId),
            })
            .collect();
        // Asked of the registry: nobody's numbers.
        let known = reply(7, (0..6).map(|queue| told(queue, None, 0)).collect());
        let one = reply(7, vec![told(0, Some(1), 10), told(1, Some(2), 0), told(5, Some(2), 0)]);
        let two = reply(8, vec![told(1, Some(2), 20)]);
        let three = Err(ClientError::Timeout { maybe_done: false });
        let answers = [(BrokerId(1), Ok(one)), (BrokerId(2), Ok(two)), (BrokerId(3), three)].into();
        let found = described(known, &routes, &answers).queues;
        assert_eq!(found[0].contents.as_ref().map(|is| (is.end, is.bytes)), Ok((Offset(10), 100)));
        let why = |queue: usize| found[queue].contents.clone().unwrap_err();
        assert_eq!(&*why(1), "broker 2 does not lead it now", "another topic of the name");
        assert_eq!(&*why(2), "broker 3: not answered in time");
        assert_eq!(&*why(3), "no broker leads it now");
        assert_eq!(&*why(4), "broker 4 is not there now");
        assert_eq!(&*why(5), "broker 1 does not lead it now", "it moved meanwhile");
    }
}
