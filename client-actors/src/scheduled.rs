//! What is scheduled: taking it back, listing, counting, showing it.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use futures_util::future::join_all;
use grus_protocol::batch::Record;
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{
    CountScheduled, LATEST, ListScheduled, RECALL_MAX, RecallMessage, Request,
    SCHEDULED_PAGE_DEFAULT, SCHEDULED_PAGE_MAX, Scheduled, ScheduledPlace, ShowScheduled, Timer,
};
use grus_protocol::{ErrorCode, QueueId, TimestampMs, TopicId, TopicName};

use crate::client::Client;
use crate::config::millis;
use crate::error::ClientError;
use crate::find::{bad, read, take};
use crate::follow::{Leader, Unanswered};
use crate::receipt::RecallHandle;

/// Which scheduled messages are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledFilter {
    /// Of this topic; `None`: of all.
    pub topic: Option<TopicName>,
    /// Of this queue of the topic; `None`: of all.
    pub queue: Option<QueueId>,
    /// Due at this time or later.
    pub from: TimestampMs,
    /// Due before this time.
    pub until: TimestampMs,
    /// With this among their keys; `None`: all.
    pub key: Option<Bytes>,
}

impl ScheduledFilter {
    /// All of a topic.
    pub fn topic(topic: TopicName) -> Self {
        Self { topic: Some(topic), ..Self::default() }
    }
}

impl Default for ScheduledFilter {
    /// All.
    fn default() -> Self {
        Self { topic: None, queue: None, from: TimestampMs(0), until: LATEST, key: None }
    }
}

/// A message that waits for its time.
#[derive(Debug, Clone)]
pub struct ScheduledMessage {
    /// By which it is recalled and shown.
    pub handle: RecallHandle,
    /// The incarnation of its topic.
    pub topic_id: TopicId,
    /// When it is due, by the broker's clock.
    pub due: TimestampMs,
    /// Its place in listings.
    pub place: ScheduledPlace,
    /// The message itself; `None`: it was not asked for, or cannot be read now.
    pub record: Option<Record>,
}

/// A page of what is scheduled.
#[derive(Debug, Clone, Default)]
pub struct ScheduledPage {
    /// The earliest first; what is due at the same time and of one queue, in the order in which it
    /// was sent.
    pub messages: Vec<ScheduledMessage>,
    /// Behind which place the next page begins; `None`: this was the last one.
    pub next: Option<ScheduledPlace>,
}

impl ScheduledPage {
    /// Puts the pages of several brokers together: as far as all of them have told, and at most
    /// `messages_max`.
    fn of_all(pages: Vec<Self>, messages_max: usize) -> Self {
        let order = |place: &ScheduledPlace| (place.due, place.shard, place.timer);
        let told = pages.iter().filter_map(|page| page.next).min_by_key(order);
        let mut messages: Vec<_> = pages.into_iter().flat_map(|page| page.messages).collect();
        messages.sort_by_key(|one| order(&one.place));
        if let Some(told) = &told {
            messages.retain(|one| order(&one.place) <= order(told));
        }
        let is_cut = messages.len() > messages_max;
        messages.truncate(messages_max);
        let last = messages.last().map(|one| one.place);
        Self { next: if is_cut { last } else { told }, messages }
    }
}

impl Client {
    /// Takes a scheduled message back. `true`: nobody will be given it. `false`: it was released or
    /// recalled before, or never was scheduled. The log of its queue decides between this and its
    /// release. When an answer was lost and it was asked again, `false` may also mean that the
    /// first question took it back.
    ///
    /// ```no_run
    /// # async fn example(client: grus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use grus_client::{Message, ProducerConfig};
    ///
    /// let producer = client.producer(ProducerConfig::new("reminders")?)?;
    /// let receipt = producer.send(Message::new("pay!").delay(Duration::from_secs(3600))).await?;
    /// let handle = receipt.scheduled.expect("it waits for an hour");
    /// assert!(client.recall(&handle).await?, "nobody will be given it");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` or `UnknownQueue`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn recall(&self, handle: &RecallHandle) -> Result<bool, ClientError> {
        let answers = self.recall_all(std::slice::from_ref(handle)).await?;
        answers.first().copied().ok_or_else(|| bad("a recall without an answer"))
    }

    /// The same for many, as the messages of a batch; one answer for each, in order.
    ///
    /// # Errors
    /// As [`Client::recall`]; some of them may be taken back then.
    pub async fn recall_all(&self, handles: &[RecallHandle]) -> Result<Vec<bool>, ClientError> {
        let mut by_queue: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (at, handle) in handles.iter().enumerate() {
            by_queue.entry((&handle.topic, handle.queue)).or_default().push(at);
        }
        let mut answers = vec![false; handles.len()];
        for ((topic, queue), places) in by_queue {
            for some in places.chunks(RECALL_MAX as usize) {
                let timers: Vec<Timer> = some.iter().map(|at| handles[*at].timer).collect();
                let recall = |topic_id| {
                    let timers = timers.clone();
                    RecallMessage { topic: topic.clone(), topic_id, queue, timers }
                };
                let (reply, _) = self.ask_leader(topic, queue, recall).await?;
                if reply.recalled.len() != some.len() {
                    return Err(bad("a recall with other than one answer for each"));
                }
                for (at, recalled) in some.iter().zip(reply.recalled) {
                    answers[*at] = recalled;
                }
            }
        }
        Ok(answers)
    }

    /// Lists what is scheduled, the earliest first: at most `messages_max` (0: 100, at most 1000)
    /// behind `after`. Asks each broker that leads a queue in question.
    ///
    /// ```no_run
    /// # async fn example(client: grus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use grus_client::ScheduledFilter;
    ///
    /// let filter = ScheduledFilter::topic("reminders".try_into()?);
    /// let mut after = None;
    /// loop {
    ///     let page = client.list_scheduled(&filter, after, 100, false).await?;
    ///     for message in page.messages {
    ///         println!("{} is due at {}", message.handle, message.due);
    ///     }
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic` or `UnknownQueue`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn list_scheduled(
        &self,
        filter: &ScheduledFilter,
        after: Option<ScheduledPlace>,
        messages_max: u32,
        with_bodies: bool,
    ) -> Result<ScheduledPage, ClientError> {
        let messages_max = match messages_max {
            0 => SCHEDULED_PAGE_DEFAULT,
            some => some.min(SCHEDULED_PAGE_MAX),
        };
        let request = ListScheduled {
            topic: filter.topic.clone(),
            topic_id: TopicId::UNKNOWN,
            queue: filter.queue,
            from: filter.from,
            until: filter.until,
            key: filter.key.as_ref().map(|key| key.to_vec().into()),
            after,
            messages_max,
            with_bodies,
        };
        let list = |broker| self.list_at(broker, request.clone());
        let pages = self.at_each_leader(filter.topic.as_ref(), filter.queue, list).await?;
        Ok(ScheduledPage::of_all(pages, messages_max as usize))
    }

    /// Counts what is scheduled. With a key, by reading all that the rest of the filter means.
    ///
    /// # Errors
    /// As [`Client::list_scheduled`].
    pub async fn count_scheduled(&self, filter: &ScheduledFilter) -> Result<u64, ClientError> {
        if filter.key.is_some() {
            let (mut count, mut after) = (0, None);
            loop {
                let page = self.list_scheduled(filter, after, SCHEDULED_PAGE_MAX, false).await?;
                count += page.messages.len() as u64;
                after = page.next;
                if after.is_none() {
                    return Ok(count);
                }
            }
        }
        let request = CountScheduled {
            topic: filter.topic.clone(),
            topic_id: TopicId::UNKNOWN,
            queue: filter.queue,
            from: filter.from,
            until: filter.until,
        };
        let count = |broker| {
            let request = request.clone();
            async move {
                let asked = self.ask_with_body(Some(&broker), &request).await;
                asked.map(|(reply, _)| reply.messages)
            }
        };
        Ok(self.at_each_leader(filter.topic.as_ref(), filter.queue, count).await?.into_iter().sum())
    }

    /// Shows a scheduled message; `None` when it was released or recalled, or never was.
    ///
    /// # Errors
    /// As [`Client::recall`].
    pub async fn show_scheduled(
        &self,
        handle: &RecallHandle,
    ) -> Result<Option<ScheduledMessage>, ClientError> {
        let RecallHandle { topic, queue, timer } = handle.clone();
        let show = |topic_id| ShowScheduled { topic: topic.clone(), topic_id, queue, timer };
        match self.ask_leader(&handle.topic, queue, show).await {
            Ok((reply, mut body)) => message(reply.scheduled, &mut body).map(Some),
            Err(ClientError::Refused(refusal)) if refusal.code == ErrorCode::NotScheduled => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks each broker that leads a queue in question; the answers of all.
    pub(crate) async fn at_each_leader<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        topic: Option<&TopicName>,
        queue: Option<QueueId>,
        ask: impl Fn(BrokerAddress) -> F,
    ) -> Result<Vec<T>, ClientError> {
        let brokers = self.brokers_that_lead(topic, queue).await?;
        join_all(brokers.into_iter().map(ask)).await.into_iter().collect()
    }

    async fn list_at(
        &self,
        broker: BrokerAddress,
        request: ListScheduled,
    ) -> Result<ScheduledPage, ClientError> {
        let (reply, mut body) = self.ask_with_body(Some(&broker), &request).await?;
        let messages = reply.messages.into_iter().map(|one| message(one, &mut body));
        Ok(ScheduledPage { messages: messages.collect::<Result<_, _>>()?, next: reply.next })
    }

    async fn ask_leader<R: Request>(
        &self,
        topic: &TopicName,
        queue: QueueId,
        make: impl Fn(TopicId) -> R,
    ) -> Result<(R::Reply, Bytes), ClientError> {
        self.ask_leader_with(topic, queue, make, Bytes::new()).await
    }

    /// Asks the leader of a queue, with a body, until it answers or it is too late.
    pub(crate) async fn ask_leader_with<R: Request>(
        &self,
        topic: &TopicName,
        queue: QueueId,
        make: impl Fn(TopicId) -> R,
        body: Bytes,
    ) -> Result<(R::Reply, Bytes), ClientError> {
        let core = &self.core;
        let deadline_ms = core.clock.monotonic_ms() + millis(core.config.request_timeout);
        let asked = Leader::new(self, topic.clone(), queue).ask_with(make, body, deadline_ms).await;
        asked.map(|(reply, frame)| (reply, frame.body)).map_err(|error| match error {
            Unanswered::Refused(refusal) => ClientError::Refused(refusal),
            Unanswered::Timeout(_) => ClientError::Timeout { maybe_done: true },
            Unanswered::Closed => ClientError::Closed,
        })
    }
}

/// The next message of an answer.
fn message(scheduled: Scheduled, body: &mut Bytes) -> Result<ScheduledMessage, ClientError> {
    let Scheduled { topic, topic_id, queue, shard, timer, due, length } = scheduled;
    let record = match length {
        0 => None,
        some => Some(read(take(body, some)?)?.1),
    };
    let handle = RecallHandle { topic, queue, timer };
    Ok(ScheduledMessage {
        handle,
        topic_id,
        due,
        place: ScheduledPlace { due, shard, timer },
        record,
    })
}

#[cfg(test)]
mod tests {
    use grus_protocol::ShardId;

    use super::*;

    fn place(due: u64, shard: u32) -> ScheduledPlace {
        let timer = Timer { index: due, place: 0 };
        ScheduledPlace { due: TimestampMs(due), shard: ShardId(shard), timer }
    }

    fn page(shard: u32, dues: &[u64], next: Option<u64>) -> ScheduledPage {
        let one = |due: &u64| {
            let place = place(*due, shard);
            let topic = TopicName::try_from("t").unwrap();
            ScheduledMessage {
                handle: RecallHandle { topic, queue: QueueId(0), timer: place.timer },
                topic_id: TopicId(1),
                due: place.due,
                place,
                record: None,
            }
        };
        let next = next.map(|due| place(due, shard));
        ScheduledPage { messages: dues.iter().map(one).collect(), next }
    }

    fn seen(page: &ScheduledPage) -> (Vec<u64>, Option<u64>) {
        let dues = page.messages.iter().map(|one| one.due.0).collect();
        (dues, page.next.map(|next| next.due.0))
    }

    #[test]
    fn pages_of_several_brokers_are_one_and_nothing_is_passed_over() {
        let of = |pages: &[ScheduledPage], max| seen(&ScheduledPage::of_all(pages.to_vec(), max));
        let (one, other) = (page(1, &[10, 30], None), page(2, &[20, 40], None));
        assert_eq!(of(&[one.clone(), other.clone()], 9), (vec![10, 20, 30, 40], None));
        assert_eq!(of(&[one.clone(), other], 3), (vec![10, 20, 30], Some(30)));
        // The second has told up to 20 only: 30 is left for the next page.
        let partly = page(2, &[20], Some(20));
        assert_eq!(of(&[one.clone(), partly], 9), (vec![10, 20], Some(20)));
        // One that looked at many and found none holds up nothing behind its place.
        let none_yet = page(2, &[], Some(15));
        assert_eq!(of(&[one, none_yet], 9), (vec![10], Some(15)));
        assert_eq!(of(&[], 9), (vec![], None));
    }
}
