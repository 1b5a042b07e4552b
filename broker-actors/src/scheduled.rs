//! What is scheduled, for whoever asks: connections and HTTP. Not an actor: each question is a
//! future at the edge that asks the wheels of shards, and puts their answers together.

mod recurring;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use grus_mailbox::{Port, reply};
use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{QueueId, QueueKey, ShardId, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{
    CountScheduled, CountScheduledReply, ListScheduled, ListScheduledReply, RECALL_MAX,
    RecallMessage, RecallMessageReply, SCHEDULED_PAGE_DEFAULT, SCHEDULED_PAGE_MAX, Scheduled,
    ScheduledPlace, ShowScheduled, ShowScheduledReply, Timer,
};
use grus_protocol::names::TopicName;
use tokio::sync::watch;

use crate::delay_wheel::messages::{
    DelayAsk, DelayFilter, DelayStatus, Recalled, Scheduled as Waiting, ScheduledPage,
};
use crate::error::QueueError;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::shard::{ShardHandle, ShardSet};
use crate::timers::TimerId;

/// Most bytes of messages in one answer, but for a single larger message.
const BODIES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a client waits before it asks again for what a wheel has no room for.
const RETRY_AFTER_MS: u32 = 20;

/// Who knows what is scheduled on this broker. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schedules {
    /// The topics.
    pub routes: watch::Receiver<Arc<Routes>>,
    /// The shards of this broker.
    pub shards: ShardSet,
}

/// A page, and the messages that were wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Which there are.
    pub reply: ListScheduledReply,
    /// Each that has a length, as a record batch of one.
    pub batches: Vec<Bytes>,
}

/// Names of topics by what shards call them.
type Names = HashMap<TopicId, TopicName>;

impl Schedules {
    fn topic(&self, name: &TopicName, id: TopicId) -> Result<Arc<TopicRoute>, ErrorReply> {
        let topic = self.routes.borrow().found(name)?;
        topic.check_incarnation(id)?;
        Ok(topic)
    }

    /// The shard that this queue of the topic is led by here.
    fn shard_of(
        &self,
        topic: &TopicRoute,
        queue: QueueId,
    ) -> Result<(ShardHandle, QueueKey), ErrorReply> {
        topic.queue(topic.id, queue)?; // or who leads it
        let shard = topic.queues[queue.0 as usize].shard;
        let handle = self
            .shards
            .get(shard)
            .ok_or_else(|| ErrorReply::new(ErrorCode::Unavailable, "no shard"))?;
        Ok((handle, QueueKey { topic: topic.id, queue }))
    }

    /// Takes messages back.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn recall(&self, ask: RecallMessage) -> Result<RecallMessageReply, ErrorReply> {
        let RecallMessage { topic, topic_id, queue, timers } = ask;
        if timers.is_empty() || timers.len() > RECALL_MAX as usize {
            let text = format!("1 to {RECALL_MAX} messages are recalled at once");
            return Err(ErrorReply::new(ErrorCode::InvalidRequest, text));
        }
        let topic = self.topic(&topic, topic_id)?;
        let (shard, queue) = self.shard_of(&topic, queue)?;
        let timers = timers.into_iter().map(timer_id).collect();
        let recalled = asked(&shard, |reply| DelayAsk::Recall { queue, timers, reply }).await?;
        let recalled = recalled.into_iter().map(|one| one == Recalled::Recalled).collect();
        Ok(RecallMessageReply { recalled })
    }

    /// Lists a page.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn list(&self, ask: ListScheduled) -> Result<Listed, ErrorReply> {
        let messages_max = match ask.messages_max {
            0 => SCHEDULED_PAGE_DEFAULT,
            some => some.min(SCHEDULED_PAGE_MAX),
        };
        let span = (ask.from, ask.until);
        let (shards, mut filter) = self.meant(ask.topic.as_ref(), ask.topic_id, ask.queue, span)?;
        filter.key = ask.key.map(|key| Bytes::from(key.into_vec()));
        let with_bodies = ask.with_bodies;
        let pages = shards.into_iter().map(|shard| {
            let filter = filter.clone();
            async move {
                let after = behind(ask.after, shard.shard);
                let list =
                    |reply| DelayAsk::List { filter, after, messages_max, with_bodies, reply };
                asked(&shard, list).await.map(|page| (shard.shard, page))
            }
        });
        let pages = join_all(pages).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(merged(pages, messages_max as usize, &self.names()))
    }

    /// Counts.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn count(&self, ask: CountScheduled) -> Result<CountScheduledReply, ErrorReply> {
        let span = (ask.from, ask.until);
        let (shards, filter) = self.meant(ask.topic.as_ref(), ask.topic_id, ask.queue, span)?;
        let counts = shards.iter().map(|shard| {
            let filter = filter.clone();
            asked(shard, |reply| DelayAsk::Count { filter, reply })
        });
        let counts = join_all(counts).await.into_iter().collect::<Result<Vec<u64>, _>>()?;
        Ok(CountScheduledReply { messages: counts.into_iter().sum() })
    }

    /// Shows one message, with its record batch of one.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn show(
        &self,
        ask: ShowScheduled,
    ) -> Result<(ShowScheduledReply, Bytes), ErrorReply> {
        let topic = self.topic(&ask.topic, ask.topic_id)?;
        let (shard, queue) = self.shard_of(&topic, ask.queue)?;
        let timer = timer_id(ask.timer);
        let shown = asked(&shard, |reply| DelayAsk::Show { queue, timer, reply }).await?;
        let Some(waiting) = shown else {
            let text = "not scheduled: it was released or recalled before, or never was";
            return Err(ErrorReply::new(ErrorCode::NotScheduled, text));
        };
        let bytes = waiting.bytes.as_ref().and_then(plain).ok_or_else(|| {
            ErrorReply::new(ErrorCode::Unavailable, "its bytes cannot be read now")
        })?;
        let scheduled = scheduled(shard.shard, &waiting, ask.topic, bytes.len());
        Ok((ShowScheduledReply { scheduled }, bytes))
    }

    /// The numbers of each shard's wheel.
    pub async fn statuses(&self) -> Vec<(ShardId, DelayStatus)> {
        let shards = self.shards.led();
        let each = shards.iter().map(|shard| async move {
            let (port, answer) = reply::port();
            shard.delays.try_put(DelayAsk::Status { reply: port }).ok()?;
            answer.await.ok().map(|status| (shard.shard, status))
        });
        join_all(each).await.into_iter().flatten().collect()
    }

    /// The shards that hold what is meant, and what is asked of them.
    fn meant(
        &self,
        topic: Option<&TopicName>,
        topic_id: TopicId,
        queue: Option<QueueId>,
        (from, until): (TimestampMs, TimestampMs),
    ) -> Result<(Vec<ShardHandle>, DelayFilter), ErrorReply> {
        let Some(name) = topic else {
            let filter = DelayFilter { from, until, ..DelayFilter::default() };
            return Ok((self.shards.led().to_vec(), filter));
        };
        let topic = self.topic(name, topic_id)?;
        let filter =
            DelayFilter { topic: Some(topic.id), queue, from, until, ..DelayFilter::default() };
        if let Some(queue) = queue {
            return Ok((vec![self.shard_of(&topic, queue)?.0], filter));
        }
        let holds = |shard: &&ShardHandle| topic.queues.iter().any(|q| q.shard == shard.shard);
        Ok((self.shards.led().iter().filter(holds).cloned().collect(), filter))
    }

    /// The names of the topics that there are.
    pub fn names(&self) -> Names {
        let routes = self.routes.borrow();
        routes.topics().map(|topic| (topic.id, topic.name.clone())).collect()
    }
}

/// Asks a shard's wheel.
async fn asked<T: Send + 'static>(
    shard: &ShardHandle,
    ask: impl FnOnce(Port<Result<T, QueueError>>) -> DelayAsk,
) -> Result<T, ErrorReply> {
    let (port, answer) = reply::port();
    let unavailable = |text| {
        let error = ErrorReply::new(ErrorCode::Unavailable, text);
        error.with_retry_after_ms(RETRY_AFTER_MS)
    };
    if shard.delays.try_put(ask(port)).is_err() {
        return Err(unavailable("the shard's wheel has no room"));
    }
    match answer.await {
        Ok(answer) => answer.map_err(|error| error.to_reply()),
        Err(_dropped) => Err(unavailable("the shard's wheel is being rebuilt")),
    }
}

const fn timer_id(timer: Timer) -> TimerId {
    TimerId { index: timer.index, place: timer.place }
}

/// Behind which of `shard`'s timers a listing goes on that stands at `place`, in the order by due
/// time, shard and timer; `None`: at the first one.
fn behind(place: Option<ScheduledPlace>, shard: ShardId) -> Option<(TimestampMs, TimerId)> {
    const LAST: TimerId = TimerId { index: u64::MAX, place: u32::MAX };
    let ScheduledPlace { due, shard: other, timer } = place?;
    match shard.cmp(&other) {
        Ordering::Equal => Some((due, timer_id(timer))),
        Ordering::Less => Some((due, LAST)), // all of that time come before that place,
        Ordering::Greater => Some((TimestampMs(due.0.checked_sub(1)?), LAST)), // or all behind it
    }
}

/// Puts the pages of shards together: as far as all of them have told.
fn merged(pages: Vec<(ShardId, ScheduledPage)>, messages_max: usize, names: &Names) -> Listed {
    let place = |shard, due, id: TimerId| ScheduledPlace {
        due,
        shard,
        timer: Timer { index: id.index, place: id.place },
    };
    let order = |place: &ScheduledPlace| (place.due, place.shard, place.timer);
    let told = pages
        .iter()
        .filter_map(|(shard, page)| page.next.map(|(due, id)| place(*shard, due, id)))
        .min_by_key(order);
    let mut all: Vec<_> = pages
        .into_iter()
        .flat_map(|(shard, page)| page.messages.into_iter().map(move |one| (shard, one)))
        .map(|(shard, one)| (place(shard, one.due, one.timer), one))
        .collect();
    all.sort_by_key(|(place, _)| order(place));
    if let Some(told) = &told {
        all.retain(|(place, _)| order(place) <= order(told));
    }
    let is_cut = all.len() > messages_max;
    all.truncate(messages_max);
    let last = all.last().map(|(place, _)| *place);
    let mut reply =
        ListScheduledReply { messages: Vec::new(), next: if is_cut { last } else { told } };
    let (mut batches, mut bytes) = (Vec::new(), 0);
    for (place, waiting) in all {
        // A topic that was removed just now has nothing scheduled any more.
        let Some(topic) = names.get(&waiting.queue.topic).cloned() else { continue };
        let body = waiting.bytes.as_ref().and_then(plain);
        let fits = |body: &Bytes| batches.is_empty() || bytes + body.len() <= BODIES_BYTES_MAX;
        let body = body.filter(fits);
        let length = body.as_ref().map_or(0, Bytes::len);
        bytes += length;
        batches.extend(body);
        reply.messages.push(scheduled(place.shard, &waiting, topic, length));
    }
    Listed { reply, batches }
}

fn scheduled(shard: ShardId, waiting: &Waiting, topic: TopicName, length: usize) -> Scheduled {
    Scheduled {
        topic,
        topic_id: waiting.queue.topic,
        queue: waiting.queue.queue,
        shard,
        timer: Timer { index: waiting.timer.index, place: waiting.timer.place },
        due: waiting.due,
        length: u32::try_from(length).unwrap_or(u32::MAX),
    }
}

/// A batch as its log has it, not compressed. What cannot be read is left out.
fn plain(batch: &Bytes) -> Option<Bytes> {
    let batch = RecordBatch::from_log(batch.clone()).ok()?;
    Some(batch.decompressed(&BatchLimits::FORMAT).ok()?.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> TimerId {
        TimerId { index, place: 0 }
    }

    fn page(dues: &[u64], next: Option<u64>) -> ScheduledPage {
        let one = |due: &u64| Waiting {
            queue: QueueKey { topic: TopicId(7), queue: QueueId(0) },
            timer: id(*due),
            due: TimestampMs(*due),
            bytes: None,
        };
        let next = next.map(|due| (TimestampMs(due), id(due)));
        ScheduledPage { messages: dues.iter().map(one).collect(), next }
    }

    fn seen(pages: &[(u32, ScheduledPage)], messages_max: usize) -> (Vec<(u64, u32)>, Option<u64>) {
        let names = Names::from([(TopicId(7), TopicName::try_from("t").unwrap())]);
        let pages = pages.iter().map(|(shard, page)| (ShardId(*shard), page.clone())).collect();
        let reply = merged(pages, messages_max, &names).reply;
        let places = reply.messages.iter().map(|one| (one.due.0, one.shard.0)).collect();
        (places, reply.next.map(|next| next.due.0))
    }

    #[test]
    fn pages_of_shards_are_one_by_due_time_and_shard() {
        let pages = [(2, page(&[10, 30], None)), (1, page(&[10, 20], None))];
        assert_eq!(seen(&pages, 9), (vec![(10, 1), (10, 2), (20, 1), (30, 2)], None));
        assert_eq!(seen(&pages, 2), (vec![(10, 1), (10, 2)], Some(10)));
        let partly = [(2, page(&[10, 30], None)), (1, page(&[10], Some(15)))];
        assert_eq!(seen(&partly, 9), (vec![(10, 1), (10, 2)], Some(15)));
    }

    #[test]
    fn a_listing_goes_on_in_each_shard_behind_the_same_place() {
        let timer = Timer { index: 5, place: 3 };
        let place = |due| Some(ScheduledPlace { due: TimestampMs(due), shard: ShardId(2), timer });
        let behind = |due, shard| behind(place(due), ShardId(shard));
        let all = TimerId { index: u64::MAX, place: u32::MAX };
        assert_eq!(behind(10, 2), Some((TimestampMs(10), TimerId { index: 5, place: 3 })));
        assert_eq!(behind(10, 1), Some((TimestampMs(10), all)), "all of that time are told");
        assert_eq!(behind(10, 3), Some((TimestampMs(9), all)), "none of that time is told");
        assert_eq!(behind(0, 3), None);
        assert_eq!(super::behind(None, ShardId(2)), None);
    }
}
