//! Asking about topics, and changing them.

use std::time::Duration;

use bytes::Bytes;
use grus_mailbox::reply;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DeleteTopic, DeleteTopicReply,
    DescribeTopic, DescribeTopicReply, ExpiredPolicy, ListAt, ListOffsets, ListOffsetsReply,
    ListTopics, Metadata, Request, TopicMetadata, TopicSettings, TopicSummary, WhenFull,
};
use grus_protocol::{BrokerId, ErrorCode, ErrorReply, QueueId, TopicId, TopicName};

use crate::client::Client;
use crate::config::millis;
use crate::error::{ClientError, Refusal};
use crate::follow::{Leader, Unanswered};
use crate::link::encode;
use crate::router::{Ask, reply_of};

/// What to change about a topic; `None` leaves it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TopicChange {
    /// Number of queues: not fewer than there are.
    pub queues: Option<u32>,
    /// Retention by age in milliseconds; 0: no limit.
    pub retention_ms: Option<u64>,
    /// Retention by bytes of each queue; 0: no limit.
    pub retention_bytes: Option<u64>,
    /// How long dedup keys are remembered, in milliseconds; 0: none are taken.
    pub dedup_window_ms: Option<u64>,
    /// What becomes of messages whose time to live is over.
    pub expired: Option<ExpiredPolicy>,
    /// Retention by messages of each queue; 0: no limit.
    pub retention_messages: Option<u64>,
    /// What becomes of a message that finds its queue at its cap by bytes or messages.
    pub when_full: Option<WhenFull>,
}

/// A first wait before a request that was refused for the moment is repeated.
const AGAIN_AFTER_MS: u64 = 50;

const SLACK: Duration = Duration::from_millis(200);

/// An answer, and whether an attempt before it was not answered.
pub(crate) struct Answered<T> {
    pub(crate) result: Result<T, Refusal>,
    uncertain: bool,
}

impl Client {
    /// Makes a topic. Where `settings` name no number of replicas, as by default
    /// ([`REPLICAS_UNNAMED`](crate::REPLICAS_UNNAMED)), it gets as many as there are brokers, at most as
    /// many as the registry is told (3); the reply says how many.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `TopicExists`, `InvalidName`, `InvalidSettings` or
    /// `TooManyTopics`; [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn create_topic(
        &self,
        topic: &str,
        settings: TopicSettings,
    ) -> Result<CreateTopicReply, ClientError> {
        let request = CreateTopic { name: name(topic)?, settings, if_not_exists: false };
        let answered = self.ask(&request).await?;
        match answered.result {
            // The attempt that was not answered may have made it.
            Err(refusal) if refusal.code == ErrorCode::TopicExists && answered.uncertain => {
                let found = self.describe_at_any(topic).await?;
                if !found.settings.is_as_asked(&request.settings) {
                    return Err(ClientError::Refused(refusal));
                }
                Ok(CreateTopicReply { id: found.id, settings: found.settings, created: true })
            }
            result => result.map_err(ClientError::Refused),
        }
    }

    /// Changes a topic.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` or `InvalidSettings`;
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn alter_topic(
        &self,
        topic: &str,
        change: TopicChange,
    ) -> Result<AlterTopicReply, ClientError> {
        let TopicChange {
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        } = change;
        let (name, topic_id) = (name(topic)?, TopicId::UNKNOWN);
        let request = AlterTopic {
            name,
            topic_id,
            queues,
            retention_ms,
            retention_bytes,
            dedup_window_ms,
            expired,
            retention_messages,
            when_full,
        };
        self.ask(&request).await?.result.map_err(ClientError::Refused)
    }

    /// Removes a topic and its messages.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn delete_topic(&self, topic: &str) -> Result<DeleteTopicReply, ClientError> {
        // By its incarnation: a repetition must not remove one that was made since.
        let id = self.describe_at_any(topic).await?.id;
        let request = DeleteTopic { name: name(topic)?, topic_id: id };
        let answered = self.ask(&request).await?;
        match answered.result {
            Err(refusal)
                if answered.uncertain
                    && [ErrorCode::UnknownTopic, ErrorCode::StaleTopic].contains(&refusal.code) =>
            {
                Ok(DeleteTopicReply { id }) // the attempt that was not answered did it
            }
            result => result.map_err(ClientError::Refused),
        }
    }

    /// Lists all topics, in order of their names; not those of the system.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Timeout`], [`ClientError::Closed`].
    pub async fn list_topics(&self) -> Result<Vec<TopicSummary>, ClientError> {
        let mut topics: Vec<TopicSummary> = Vec::new();
        loop {
            let after = topics.last().map(|last| last.name.clone());
            let request = ListTopics { after, topics_max: 0, include_system: false };
            let page = self.ask(&request).await?.result.map_err(ClientError::Refused)?;
            let is_last = !page.more || page.topics.is_empty();
            topics.extend(page.topics);
            if is_last {
                return Ok(topics);
            }
        }
    }

    /// Tells how many queues a topic has. A topic that does not exist is made, if the broker's
    /// policy allows it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn queue_count(&self, topic: &str) -> Result<u32, ClientError> {
        Ok(u32::try_from(self.queue_leaders(topic).await?.len()).unwrap_or(u32::MAX))
    }

    /// Tells which broker leads each queue of a topic, by number; none where the broker is not
    /// there now. Otherwise as [`Client::queue_count`].
    ///
    /// # Errors
    /// As [`Client::queue_count`].
    pub async fn queue_leaders(&self, topic: &str) -> Result<Vec<Option<BrokerId>>, ClientError> {
        let request = Metadata { topics: vec![name(topic)?], auto_create: true };
        let reply = self.ask(&request).await?.result.map_err(ClientError::Refused)?;
        match reply.topics.into_iter().next() {
            Some(found) => match found.error {
                Some(error) => Err(ClientError::Refused(error.into())),
                None => Ok(found.queues.iter().map(|queue| queue.leader_broker).collect()),
            },
            None => Err(ClientError::BadReply("metadata lacks the topic".to_owned())),
        }
    }

    /// Tells the offset of a place or a time in a queue, and the queue's bounds. It asks whoever
    /// leads the queue.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` or `UnknownQueue`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn list_offset(
        &self,
        topic: &str,
        queue: QueueId,
        at: ListAt,
    ) -> Result<ListOffsetsReply, ClientError> {
        let topic = name(topic)?;
        let core = &self.core;
        let deadline_ms = core.clock.monotonic_ms() + millis(core.config.request_timeout);
        let make = |topic_id| ListOffsets { topic: topic.clone(), topic_id, queue, at };
        let asked = Leader::new(self, topic.clone(), queue).ask(make, deadline_ms).await;
        asked.map(|(reply, _)| reply).map_err(|error| match error {
            Unanswered::Refused(refusal) => ClientError::Refused(refusal),
            Unanswered::Timeout(_) => ClientError::Timeout { maybe_done: false },
            Unanswered::Closed => ClientError::Closed,
        })
    }

    /// What one broker, or the registry, knows of a topic.
    pub(crate) async fn describe_at_any(
        &self,
        topic: &str,
    ) -> Result<DescribeTopicReply, ClientError> {
        let request = DescribeTopic { name: name(topic)? };
        self.ask(&request).await?.result.map_err(ClientError::Refused)
    }

    /// Asks any broker, or the given one; the reply's header, and its body.
    pub(crate) async fn ask_with_body<R: Request>(
        &self,
        to: Option<&BrokerAddress>,
        request: &R,
    ) -> Result<(R::Reply, Bytes), ClientError> {
        let timeout = self.core.config.request_timeout;
        self.ask_raw(to, request, timeout).await?.result.map_err(ClientError::Refused)
    }

    /// Asks one broker, for so long.
    pub(crate) async fn ask_broker<R: Request>(
        &self,
        to: &BrokerAddress,
        request: &R,
        limit: Duration,
    ) -> Result<R::Reply, ClientError> {
        self.ask_broker_body(to, request, limit).await.map(|(reply, _)| reply)
    }

    /// Asks one broker, for so long; the bytes of its answer, too.
    pub(crate) async fn ask_broker_body<R: Request>(
        &self,
        to: &BrokerAddress,
        request: &R,
        limit: Duration,
    ) -> Result<(R::Reply, Bytes), ClientError> {
        let limit = limit.min(self.core.config.request_timeout);
        let answered = self.ask_raw(Some(to), request, limit).await?;
        answered.result.map_err(ClientError::Refused)
    }

    /// Where the queues of a topic are, and all brokers that are there; the topic is not made.
    pub(crate) async fn routes_of(
        &self,
        topic: &TopicName,
    ) -> Result<(Vec<BrokerAddress>, Result<TopicMetadata, Refusal>), ClientError> {
        let request = Metadata { topics: vec![topic.clone()], auto_create: false };
        let (reply, _) = self.ask_with_body(None, &request).await?;
        let found = reply.topics.into_iter().next();
        let found =
            found.ok_or_else(|| ClientError::BadReply("metadata lacks the topic".to_owned()))?;
        let found = match found.error.clone() {
            Some(error) => Err(error.into()),
            None => Ok(found),
        };
        Ok((reply.brokers, found))
    }

    /// Asks any broker, again and again until it is answered or too late.
    pub(crate) async fn ask<R: Request>(
        &self,
        request: &R,
    ) -> Result<Answered<R::Reply>, ClientError> {
        let timeout = self.core.config.request_timeout;
        let Answered { result, uncertain } = self.ask_raw(None, request, timeout).await?;
        Ok(Answered { result: result.map(|(reply, _)| reply), uncertain })
    }

    async fn ask_raw<R: Request>(
        &self,
        to: Option<&BrokerAddress>,
        request: &R,
        timeout: Duration,
    ) -> Result<Answered<(R::Reply, Bytes)>, ClientError> {
        let deadline_ms = self.core.clock.monotonic_ms() + millis(timeout);
        let mut uncertain = false;
        let work = self.ask_until(to, request, deadline_ms, &mut uncertain);
        // What was not sent by then is given back by the router: a little later it was sent.
        match tokio::time::timeout(timeout + SLACK, work).await {
            Ok(result) => result.map(|result| Answered { result, uncertain }),
            Err(_elapsed) => Err(ClientError::Timeout { maybe_done: true }),
        }
    }

    async fn ask_until<R: Request>(
        &self,
        to: Option<&BrokerAddress>,
        request: &R,
        deadline_ms: u64,
        uncertain: &mut bool,
    ) -> Result<Result<(R::Reply, Bytes), Refusal>, ClientError> {
        let mut again_ms = AGAIN_AFTER_MS;
        loop {
            let (port, answer) = reply::port();
            let (to, frame) = (to.cloned(), encode(request, 0));
            let ask = Ask { to, frame, deadline_ms, answer: port };
            self.core.doors.ask.put(ask).await.map_err(|_stopped| ClientError::Closed)?;
            let wait_ms = if let Ok(frame) = answer.await {
                match reply_of::<R::Reply>(&frame) {
                    // It may be away for long, and nothing was changed: told at once.
                    Err(refusal) if refusal.code == ErrorCode::RegistryUnavailable => {
                        return Ok(Err(refusal));
                    }
                    Err(refusal) if refusal.retriable => {
                        *uncertain |= refusal.code.outcome_unknown();
                        again_ms.max(u64::from(refusal.retry_after_ms))
                    }
                    result => return Ok(result.map(|reply| (reply, frame.body))),
                }
            } else {
                if self.core.doors.ask.is_stopped() {
                    return Err(ClientError::Closed);
                }
                if self.core.clock.monotonic_ms() >= deadline_ms {
                    return Err(ClientError::Timeout { maybe_done: *uncertain });
                }
                *uncertain = true;
                again_ms
            };
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            again_ms = (again_ms * 2).min(1_000);
        }
    }
}

pub(crate) fn name(topic: &str) -> Result<TopicName, ClientError> {
    TopicName::try_from(topic).map_err(|error| {
        ClientError::Refused(ErrorReply::new(ErrorCode::InvalidName, error.to_string()).into())
    })
}
