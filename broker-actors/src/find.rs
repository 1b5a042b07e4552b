//! Finds single messages for whoever asks: connections and HTTP. Not an actor: each search is a
//! future at the edge that asks shards and queues, and puts their answers together.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use grus_log::{FindMatch, FindOutcome};
use grus_mailbox::reply;
use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{MessageId, Offset, QueueId, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{
    FOUND_MESSAGES_DEFAULT, FOUND_MESSAGES_MAX, FindBy, FindMessages, FindMessagesReply,
    FoundMessage,
};
use grus_protocol::names::TopicName;
use tokio::sync::watch;

use crate::error::QueueError;
use crate::registry_link::routes::{Leader, QueuePlace, Routes, TopicRoute};
use crate::shard::{ShardHandle, ShardRequest, ShardSet};
use crate::topic_queue::{At, Fetch, FetchedBatch, ListedOffset, QueueAsk, QueueHandle};

/// Most bytes of messages in one answer, but for a single larger message.
pub const FOUND_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Where messages are looked for. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Find {
    /// The topics.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// The shards of this broker.
    pub shards: ShardSet,
}

/// Messages that were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundMessages {
    /// Where they stand.
    pub reply: FindMessagesReply,
    /// Each as a record batch of one.
    pub batches: Vec<Bytes>,
}

/// One message that was found.
struct One {
    place: FoundMessage,
    batch: Bytes,
}

impl Find {
    /// Looks for what is asked for.
    ///
    /// # Errors
    /// What to answer: the topic or queue is not there, an offset is out of range, what was wanted is
    /// damaged, a shard cannot answer now, or the index is switched off.
    pub async fn find(&self, ask: FindMessages) -> Result<FoundMessages, ErrorReply> {
        let messages_max = match ask.messages_max {
            0 => FOUND_MESSAGES_DEFAULT,
            some => some.min(FOUND_MESSAGES_MAX),
        } as usize;
        match ask.by {
            FindBy::Id(id) => self.by_id(id, messages_max).await,
            FindBy::Key { topic, topic_id, key } => {
                let topic = self.topic(&topic, topic_id)?;
                self.by_key(&topic, key, messages_max).await
            }
            FindBy::Offset { topic, topic_id, queue, offset } => {
                let topic = self.topic(&topic, topic_id)?;
                let found = at_offset(&topic, queue, offset).await?;
                Ok(gathered(vec![found], &FindOutcome::default()))
            }
            FindBy::Time { topic, topic_id, time, queue } => {
                let topic = self.topic(&topic, topic_id)?;
                self.by_time(&topic, time, queue, messages_max).await
            }
        }
    }

    fn topic(&self, name: &TopicName, id: TopicId) -> Result<Arc<TopicRoute>, ErrorReply> {
        let topic = self.routes.borrow().found(name)?;
        topic.check_incarnation(id)?;
        Ok(topic)
    }

    async fn by_id(&self, id: MessageId, messages_max: usize) -> Result<FoundMessages, ErrorReply> {
        let led = self.shards.led();
        let shards: Vec<&ShardHandle> = led.iter().collect();
        self.in_shards(&shards, &grus_log::FindBy::Id(id), messages_max).await
    }

    async fn by_key(
        &self,
        topic: &TopicRoute,
        key: Vec<u8>,
        messages_max: usize,
    ) -> Result<FoundMessages, ErrorReply> {
        let holds = |shard: &&ShardHandle| topic.queues.iter().any(|q| q.shard == shard.shard);
        let led = self.shards.led();
        let shards: Vec<&ShardHandle> = led.iter().filter(holds).collect();
        let by = grus_log::FindBy::Key { topic: topic.id, key: key.into() };
        self.in_shards(&shards, &by, messages_max).await
    }

    /// Asks shards side by side. One that is led elsewhere is left to the broker that leads it.
    async fn in_shards(
        &self,
        shards: &[&ShardHandle],
        by: &grus_log::FindBy,
        messages_max: usize,
    ) -> Result<FoundMessages, ErrorReply> {
        let asked = shards.iter().map(|shard| {
            let (port, answer) = reply::port();
            let request = ShardRequest::Find { by: by.clone(), messages_max, reply: port };
            let put = shard.inbox.try_put(request);
            async move {
                put.map_err(|_| QueueError::Unavailable)?;
                answer.await.unwrap_or(Err(QueueError::Unavailable))
            }
        });
        let mut all = FindOutcome::default();
        for answer in join_all(asked).await {
            match answer {
                Ok(outcome) => {
                    all.matches.extend(outcome.matches);
                    all.more |= outcome.more;
                    all.scanned_bytes += outcome.scanned_bytes;
                    all.unsearched_bytes += outcome.unsearched_bytes;
                }
                Err(QueueError::NotLeader { leader: Some(_) }) => {}
                Err(error) => return Err(error.to_reply()),
            }
        }
        let routes = Arc::clone(&self.routes.borrow());
        let matches = std::mem::take(&mut all.matches);
        let mut found: Vec<One> =
            matches.into_iter().filter_map(|found| named(&routes, found)).collect();
        found.sort_by_key(|one| (one.place.stored, one.place.queue, one.place.offset));
        let extra = found.len().saturating_sub(messages_max);
        all.more |= extra > 0;
        found.drain(..extra);
        Ok(gathered(found, &all))
    }

    async fn by_time(
        &self,
        topic: &TopicRoute,
        time: TimestampMs,
        queue: Option<QueueId>,
        messages_max: usize,
    ) -> Result<FoundMessages, ErrorReply> {
        let all = 0..u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        let queues = match queue {
            Some(queue) => vec![queue],
            None => all.map(QueueId).collect(),
        };
        // Queues of other brokers are theirs to answer for, unless one is asked for by its number.
        let is_ours = |number: &QueueId| {
            let place = topic.queues.get(number.0 as usize);
            let here = |place: &QueuePlace| place.leader == Leader::Here;
            queue.is_some() || place.is_some_and(here)
        };
        let looks = queues.into_iter().filter(is_ours);
        let looks = looks.map(|queue| first_stored_at(topic, queue, time));
        let mut found = Vec::new();
        for look in join_all(looks).await {
            found.extend(look?);
        }
        found.sort_by_key(|one| (one.place.stored, one.place.queue));
        found.truncate(messages_max);
        Ok(gathered(found, &FindOutcome::default()))
    }
}

/// With the topic's name, unless the topic has gone.
fn named(routes: &Routes, found: FindMatch) -> Option<One> {
    let topic = routes.topics().find(|topic| topic.id == found.queue.topic)?;
    let FindMatch { queue, offset, term, stored, batch, .. } = found;
    Some(One { place: place(topic, queue.queue, offset, term, stored, &batch), batch })
}

fn place(
    topic: &TopicRoute,
    queue: QueueId,
    offset: Offset,
    term: Term,
    stored: TimestampMs,
    batch: &Bytes,
) -> FoundMessage {
    let length = u32::try_from(batch.len()).expect("a batch is shorter than 4 GiB");
    let (topic, topic_id) = (topic.name.clone(), topic.id);
    FoundMessage { topic, topic_id, queue, offset, term, stored, length }
}

/// As many of the newest as fit an answer.
fn gathered(found: Vec<One>, outcome: &FindOutcome) -> FoundMessages {
    let mut bytes = 0;
    let fits = |one: &&One| {
        bytes += one.batch.len();
        bytes <= FOUND_BYTES_MAX || bytes == one.batch.len()
    };
    let kept = found.iter().rev().take_while(fits).count();
    let dropped = found.len() - kept;
    let (messages, batches) =
        found.into_iter().skip(dropped).map(|one| (one.place, one.batch)).unzip();
    let &FindOutcome { more, scanned_bytes, unsearched_bytes, .. } = outcome;
    let more = more || dropped > 0;
    FoundMessages {
        reply: FindMessagesReply { messages, more, scanned_bytes, unsearched_bytes },
        batches,
    }
}

/// The message at an offset.
async fn at_offset(topic: &TopicRoute, queue: QueueId, offset: Offset) -> Result<One, ErrorReply> {
    let handle = topic.queue(TopicId::UNKNOWN, queue)?;
    let (port, answer) = reply::port();
    let fetch = Fetch { offset, last_term: Term(0), bytes_max: 1, wait_ms: 0, reply: port };
    handle.fetch.try_put(fetch).map_err(|_| unavailable())?;
    let fetched = answer.await.map_err(|_| unavailable())?.map_err(|error| error.to_reply())?;
    let first = fetched.batches.into_iter().next();
    let Some(batch) = first.filter(|batch| batch.base_offset <= offset) else {
        let (log_start, end_offset) = (fetched.log_start, fetched.end_offset);
        return Err(QueueError::OffsetOutOfRange { log_start, end_offset }.to_reply());
    };
    record_of(topic, queue, offset, &batch)
}

/// One record of a batch that was read.
fn record_of(
    topic: &TopicRoute,
    queue: QueueId,
    offset: Offset,
    fetched: &FetchedBatch,
) -> Result<One, ErrorReply> {
    let read = || {
        let nth = u32::try_from(offset.0 - fetched.base_offset.0).ok()?;
        let batch = RecordBatch::from_log(fetched.bytes.clone()).ok()?;
        let batch = batch.decompressed(&BatchLimits::FORMAT).ok()?;
        let record = batch.records().nth(nth as usize)?.ok()?;
        Some(batch.alone(nth, &record).into_bytes())
    };
    let Some(batch) = read() else {
        let (from, to) = (offset, Offset(offset.0 + 1));
        return Err(QueueError::CorruptRange { from, to }.to_reply());
    };
    let place = place(topic, queue, offset, fetched.term, fetched.stored, &batch);
    Ok(One { place, batch })
}

/// The first message of a queue that was stored at `time` or later.
async fn first_stored_at(
    topic: &TopicRoute,
    queue: QueueId,
    time: TimestampMs,
) -> Result<Option<One>, ErrorReply> {
    let handle: &Arc<QueueHandle> = topic.queue(TopicId::UNKNOWN, queue)?;
    let (port, answer) = reply::port();
    let ask = QueueAsk::ListOffset { at: At::Time(time), reply: port };
    handle.ask.try_put(ask).map_err(|_| unavailable())?;
    let listed: ListedOffset =
        answer.await.map_err(|_| unavailable())?.map_err(|error| error.to_reply())?;
    if listed.offset >= listed.end_offset {
        return Ok(None);
    }
    at_offset(topic, queue, listed.offset).await.map(Some)
}

fn unavailable() -> ErrorReply {
    ErrorReply::new(ErrorCode::Unavailable, "the queue cannot answer now")
}
