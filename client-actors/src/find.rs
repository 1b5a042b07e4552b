//! Finding single messages.

use bytes::Bytes;
use futures_util::future::join_all;
use grus_protocol::batch::Record;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{FOUND_MESSAGES_DEFAULT, FindBy, FindMessages, Metadata, QueueRoute};
use grus_protocol::{
    BatchLimits, BrokerId, MessageId, Offset, ProducerEpoch, ProducerId, QueueId, RecordBatch,
    Sequence, Term, TimestampMs, TopicId, TopicName,
};
use thiserror::Error;

use crate::client::Client;
use crate::error::ClientError;

/// The broker id by which a registry introduces itself.
const REGISTRY: BrokerId = BrokerId(0);

/// Why there is no message to give.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FindError {
    /// There is none.
    #[error("no such message")]
    NotFound,
    /// There is none in what was searched; not all could be.
    #[error("no such message in what was searched; {unsearched_bytes} bytes could not be")]
    NotFoundYet {
        /// Bytes of batches that were not looked at: too many without an index, or damaged.
        unsearched_bytes: u64,
    },
    /// There is none on the brokers that are there; others could not be asked.
    #[error("no such message on the brokers that are there; {queues_absent} queues have none now")]
    NotFoundThere {
        /// Queues that nobody leads now.
        queues_absent: usize,
    },
    /// The search failed.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Who sent a message, by what number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentBy {
    /// The producer.
    pub producer: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
    /// The message's number among those it sent to the queue.
    pub sequence: Sequence,
}

/// A message that was found.
#[derive(Debug, Clone)]
pub struct FoundMessage {
    /// The topic it is in.
    pub topic: TopicName,
    /// The topic's incarnation.
    pub topic_id: TopicId,
    /// The queue it is in.
    pub queue: QueueId,
    /// Its place in the queue.
    pub offset: Offset,
    /// The term it was stored in.
    pub term: Term,
    /// When it was stored, by the broker's clock.
    pub stored: TimestampMs,
    /// Who sent it; `None` for a producer without an identity.
    pub sent_by: Option<SentBy>,
    record: Record,
}

impl FoundMessage {
    /// Its id.
    pub fn id(&self) -> MessageId {
        self.record.id()
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        self.record.body()
    }

    /// All that it carries: keys, tag, headers, times, body.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct FoundMessages {
    /// The messages, by the time they were stored: the newest last.
    pub messages: Vec<FoundMessage>,
    /// There may be older ones.
    pub more: bool,
    /// Bytes of batches that the broker read one by one, because no index covers them.
    pub scanned_bytes: u64,
    /// Bytes of batches that were not looked at: too many without an index, or damaged.
    pub unsearched_bytes: u64,
    /// Brokers that may have messages as well and could not be asked, and why.
    pub unasked: Vec<(BrokerId, String)>,
    /// When nothing was found: queues that may have it and that nobody leads now, as their brokers are
    /// not there.
    pub queues_absent: usize,
}

impl FoundMessages {
    /// Takes in what another broker has.
    fn add(&mut self, other: Self) {
        self.messages.extend(other.messages);
        self.more |= other.more;
        self.scanned_bytes += other.scanned_bytes;
        self.unsearched_bytes += other.unsearched_bytes;
    }

    /// At most `messages_max`, by the time they were stored: the newest, or the `oldest`.
    fn within(mut self, messages_max: u32, oldest: bool) -> Self {
        let wanted = match messages_max {
            0 => FOUND_MESSAGES_DEFAULT,
            some => some,
        } as usize;
        self.messages.sort_by_key(|found| (found.stored, found.queue, found.offset));
        self.messages.dedup_by_key(|found| (found.topic_id, found.queue, found.offset));
        let extra = self.messages.len().saturating_sub(wanted);
        if oldest {
            self.messages.truncate(wanted);
        } else {
            self.messages.drain(..extra);
            self.more |= extra > 0;
        }
        self
    }
}

impl Client {
    /// Finds messages by id, by key, by offset or by time: the newest `messages_max` of them
    /// (0: the broker's own maximum), none being no error. Asks each broker that leads a queue in
    /// question; for an id all brokers, unless the first has it.
    ///
    /// ```no_run
    /// # async fn example(client: grus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use grus_client::{FindBy, TopicId};
    ///
    /// let by = FindBy::Key {
    ///     topic: "orders".try_into()?,
    ///     topic_id: TopicId::UNKNOWN,
    ///     key: b"order-7".to_vec(),
    /// };
    /// for message in client.find_messages(by, 10).await?.messages {
    ///     println!("{} at {} of queue {}", message.id(), message.offset, message.queue);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic`, `UnknownQueue`, `OffsetOutOfRange`,
    /// `CorruptRange` or `UnsupportedFeature` (the broker keeps no index);
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn find_messages(
        &self,
        by: FindBy,
        messages_max: u32,
    ) -> Result<FoundMessages, ClientError> {
        // A registry has no messages, and may be all there is to ask without a route.
        let is_broker = self.broker().is_some_and(|broker| broker != REGISTRY);
        if is_broker && matches!(by, FindBy::Id(_)) {
            let found = self.find_at(None, by.clone(), messages_max).await?;
            if !found.messages.is_empty() {
                return Ok(found);
            }
        }
        let brokers = self.brokers_of(&by).await?;
        let asked =
            brokers.iter().map(|broker| self.find_at(Some(broker), by.clone(), messages_max));
        let mut all = FoundMessages::default();
        let mut failed = None;
        for (broker, answer) in brokers.iter().zip(join_all(asked).await) {
            match answer {
                Ok(found) => all.add(found),
                Err(error) => {
                    all.unasked.push((broker.id, error.to_string()));
                    failed = Some(error);
                }
            }
        }
        if all.messages.is_empty() && failed.is_none() {
            all.queues_absent = self.queues_absent(by.topic()).await;
        }
        match failed {
            Some(error) if all.messages.is_empty() => Err(error),
            _ => Ok(all.within(messages_max, matches!(by, FindBy::Time { .. }))),
        }
    }

    /// The brokers that may have what is looked for.
    async fn brokers_of(&self, by: &FindBy) -> Result<Vec<BrokerAddress>, ClientError> {
        let queue = match by {
            FindBy::Offset { queue, .. } => Some(*queue),
            FindBy::Time { queue, .. } => *queue,
            _ => None,
        };
        self.brokers_that_lead(by.topic(), queue).await
    }

    /// The brokers that lead this queue of the topic, or any; all brokers without a topic.
    pub(crate) async fn brokers_that_lead(
        &self,
        topic: Option<&TopicName>,
        queue: Option<QueueId>,
    ) -> Result<Vec<BrokerAddress>, ClientError> {
        let Some(name) = topic else { return self.brokers().await };
        let (mut brokers, topic) = self.routes_of(name).await?;
        let topic = topic.map_err(ClientError::Refused)?;
        let asked = |route: &&QueueRoute| queue.is_none_or(|queue| route.queue == queue);
        let led = topic.queues.iter().filter(asked).map(|route| route.leader_broker);
        let leaders: Vec<_> = led.flatten().collect();
        // Of a queue that is not there, or has no leader, any of them says so.
        if !leaders.is_empty() {
            brokers.retain(|broker| leaders.contains(&broker.id));
        }
        Ok(brokers)
    }

    /// Queues of the topic (of all) that nobody leads now; 0 when that cannot be told.
    async fn queues_absent(&self, topic: Option<&TopicName>) -> usize {
        let topics = topic.cloned().into_iter().collect();
        let ask = Metadata { topics, auto_create: false };
        let Ok((reply, _)) = self.ask_with_body(None, &ask).await else { return 0 };
        let queues = reply.topics.iter().flat_map(|topic| &topic.queues);
        queues.filter(|route| route.leader_broker.is_none()).count()
    }

    /// Asks one broker, or whichever answers first.
    async fn find_at(
        &self,
        broker: Option<&BrokerAddress>,
        by: FindBy,
        messages_max: u32,
    ) -> Result<FoundMessages, ClientError> {
        let request = FindMessages { by, messages_max };
        let (reply, body) = self.ask_with_body(broker, &request).await?;
        let mut found = FoundMessages {
            messages: Vec::with_capacity(reply.messages.len()),
            more: reply.more,
            scanned_bytes: reply.scanned_bytes,
            unsearched_bytes: reply.unsearched_bytes,
            unasked: Vec::new(),
            queues_absent: 0,
        };
        let mut rest = body;
        for place in reply.messages {
            let batch = take(&mut rest, place.length)?;
            let (sent_by, record) = read(batch)?;
            found.messages.push(FoundMessage {
                topic: place.topic,
                topic_id: place.topic_id,
                queue: place.queue,
                offset: place.offset,
                term: place.term,
                stored: place.stored,
                sent_by,
                record,
            });
        }
        Ok(found)
    }

    /// Finds one message: the newest, when there are several.
    ///
    /// # Errors
    /// [`FindError::NotFound`], or as [`Client::find_messages`].
    pub async fn find_message(&self, by: FindBy) -> Result<FoundMessage, FindError> {
        let mut found = self.find_messages(by, 1).await?;
        match (found.messages.pop(), found.queues_absent, found.unsearched_bytes) {
            (Some(message), _, _) => Ok(message),
            (None, 0, 0) => Err(FindError::NotFound),
            (None, 0, unsearched_bytes) => Err(FindError::NotFoundYet { unsearched_bytes }),
            (None, queues_absent, _) => Err(FindError::NotFoundThere { queues_absent }),
        }
    }
}

pub(crate) fn bad(what: impl std::fmt::Display) -> ClientError {
    ClientError::BadReply(format!("{what}"))
}

pub(crate) fn take(rest: &mut Bytes, length: u32) -> Result<Bytes, ClientError> {
    let length = length as usize;
    if length > rest.len() {
        return Err(bad("a message reaches beyond the reply"));
    }
    Ok(rest.split_to(length))
}

/// The one record of a batch, checked as if it came from a stranger.
pub(crate) fn read(batch: Bytes) -> Result<(Option<SentBy>, Record), ClientError> {
    let batch = RecordBatch::check(batch, &BatchLimits::FORMAT).map_err(bad)?;
    let producer = batch.producer_id();
    let sent_by = (producer != ProducerId::NONE).then(|| SentBy {
        producer,
        epoch: batch.producer_epoch(),
        sequence: batch.first_sequence(),
    });
    let record = batch.records().next().ok_or_else(|| bad("a batch without a message"))?;
    Ok((sent_by, record.map_err(bad)?))
}

#[cfg(test)]
mod tests {
    use grus_protocol::{BatchBuilder, NewRecord};

    use super::*;

    fn found(queue: u32, offset: u64, stored: u64) -> FoundMessage {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        let id = MessageId::from_parts(TimestampMs(5), &[1; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(5), "body")).expect("a plain record");
        let (sent_by, record) = read(builder.finish()).expect("a whole batch");
        FoundMessage {
            topic: TopicName::try_from("t").expect("a name"),
            topic_id: TopicId(7),
            queue: QueueId(queue),
            offset: Offset(offset),
            term: Term(1),
            stored: TimestampMs(stored),
            sent_by,
            record,
        }
    }

    #[test]
    fn what_several_brokers_have_is_put_in_one_order_and_bounded() {
        let one = || FoundMessages {
            messages: vec![found(0, 1, 10), found(0, 2, 30)],
            unsearched_bytes: 5,
            ..FoundMessages::default()
        };
        let other = || FoundMessages {
            messages: vec![found(1, 9, 20), found(0, 2, 30)],
            scanned_bytes: 3,
            ..FoundMessages::default()
        };
        let both = || {
            let mut all = one();
            all.add(other());
            all
        };
        let stored = |all: &FoundMessages| -> Vec<u64> {
            all.messages.iter().map(|found| found.stored.0).collect()
        };
        let all = both().within(0, false);
        assert_eq!((stored(&all), all.more), (vec![10, 20, 30], false), "each once");
        assert_eq!((all.scanned_bytes, all.unsearched_bytes), (3, 5));
        let newest = both().within(2, false);
        assert_eq!((stored(&newest), newest.more), (vec![20, 30], true));
        let oldest = both().within(1, true);
        assert_eq!((stored(&oldest), oldest.more), (vec![10], false));
    }

    #[test]
    fn a_reply_that_contradicts_itself_is_told() {
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        let id = MessageId::from_parts(TimestampMs(5), &[1; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(5), "body")).expect("a plain record");
        let batch = builder.finish();
        let length = u32::try_from(batch.len()).expect("a short batch");
        let (sent_by, record) = read(batch.clone()).expect("a whole batch");
        assert_eq!((sent_by, record.id(), record.body()), (None, id, &b"body"[..]));
        assert!(matches!(take(&mut batch.clone(), length + 1), Err(ClientError::BadReply(_))));
        assert!(matches!(read(batch.slice(1..)), Err(ClientError::BadReply(_))));
    }
}
