//! Reading by explicit question: this queue, from this offset, so many messages.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use grus_protocol::message::{Fetch, ListAt, ListOffsets};
use grus_protocol::{Offset, QueueId, Term, TopicName};

use crate::client::Client;
use crate::config::{StartAt, millis};
use crate::error::{ReadError, Refusal};
use crate::follow::{Leader, Unanswered};
use crate::hooks::{InHand, ReceiveHooks};
use crate::read::{Delivered, DeliveredBatch};
use crate::reader::asking::error_of;
use crate::reader::cursor::{Cursor, Item};
use crate::reader::requests::fetched;

/// Most bytes of one answer, but for a single larger batch.
const FETCH_BYTES_MAX: u32 = 1024 * 1024;

/// A place in a queue to read from. An [`Offset`] is one; one that was read up to also knows the
/// term of the message before it, by which the broker can tell that it has not kept what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// The next offset to read.
    pub offset: Offset,
    /// The term of the message before it; 0 if not known.
    pub term: Term,
}

impl From<Offset> for Position {
    fn from(offset: Offset) -> Self {
        Self { offset, term: Term::UNKNOWN }
    }
}

/// What a pull found.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The messages, in order. None: there is no message there yet, which is not an error.
    pub messages: Vec<Delivered>,
    /// Where to go on.
    pub next: Position,
    /// The first offset the queue holds.
    pub log_start: Offset,
    /// The offset the next message will get.
    pub end_offset: Offset,
}

/// Reads the queues of one topic by explicit questions. It keeps no place and reads nothing ahead:
/// where it has come is the program's to keep, and to go on elsewhere is to ask for another offset.
/// It finds the leader of each queue and follows it, across restarts of the broker.
///
/// ```no_run
/// # async fn example(client: grus_client::Client) -> Result<(), grus_client::ReadError> {
/// use std::time::Duration;
///
/// use grus_client::{QueueId, StartAt};
///
/// let mut puller = client.puller("orders").expect("a name");
/// let mut at = puller.locate(QueueId(0), StartAt::First).await?;
/// loop {
///     let pulled = puller.long_poll(QueueId(0), at, 30, Duration::from_secs(15)).await?;
///     for message in &pulled.messages {
///         println!("{}: {} bytes", message.offset, message.body().len());
///     }
///     at = pulled.next;
/// }
/// # }
/// ```
pub struct Puller {
    client: Client,
    topic: TopicName,
    leaders: HashMap<QueueId, Leader>,
    in_hand: InHand,
}

impl Puller {
    pub(crate) fn new(client: Client, topic: TopicName) -> Self {
        let in_hand = InHand::new(ReceiveHooks::of(&client));
        Self { client, topic, leaders: HashMap::new(), in_hand }
    }

    /// Reads at most `messages_max` messages of a queue from a place on, and answers at once when
    /// there is none.
    ///
    /// # Errors
    /// [`ReadError::OffsetOutOfRange`] with what the queue holds; [`ReadError::Diverged`],
    /// [`ReadError::Damaged`], [`ReadError::Topic`], [`ReadError::UnknownQueue`],
    /// [`ReadError::Refused`]; [`ReadError::Unanswered`] when no broker answers within the
    /// client's `request_timeout`; [`ReadError::Closed`].
    pub async fn pull(
        &mut self,
        queue: QueueId,
        from: impl Into<Position>,
        messages_max: usize,
    ) -> Result<Pulled, ReadError> {
        self.long_poll(queue, from, messages_max, Duration::ZERO).await
    }

    /// The same, but when there is no message the broker holds the question until there is one, or
    /// `wait` is over (it has a maximum of its own, 60 s unless configured otherwise).
    ///
    /// # Errors
    /// As [`Puller::pull`].
    pub async fn long_poll(
        &mut self,
        queue: QueueId,
        from: impl Into<Position>,
        messages_max: usize,
        wait: Duration,
    ) -> Result<Pulled, ReadError> {
        self.in_hand.done();
        let from: Position = from.into();
        let topic = self.topic.clone();
        let begun_ms = self.client.core.clock.monotonic_ms();
        let deadline_ms = begun_ms + millis(self.client.core.config.request_timeout + wait);
        let clock = self.client.core.clock;
        let make = |topic_id| {
            let left_ms = millis(wait).saturating_sub(clock.monotonic_ms() - begun_ms);
            Fetch {
                topic: topic.clone(),
                topic_id,
                queue,
                offset: from.offset,
                last_term: from.term,
                bytes_max: FETCH_BYTES_MAX,
                wait_ms: u32::try_from(left_ms).unwrap_or(u32::MAX),
            }
        };
        let asked = self.leader(queue).ask(make, deadline_ms).await;
        let (reply, frame) = asked.map_err(|error| self.failed(queue, from.offset, error))?;
        let damaged =
            |reason: String| ReadError::Damaged { queue, at: from.offset, reason: reason.into() };
        let batches = fetched(&reply, &frame).map_err(damaged)?;
        let mut cursor = Cursor::new(queue, StartAt::Offset(from.offset), 0, 0);
        let items = match cursor.take(batches) {
            Ok(items) => items,
            Err((items, reason)) if items.is_empty() => return Err(damaged(reason)),
            Err((items, _named_by_the_next_pull)) => items,
        };
        let mut pulled = Pulled {
            messages: Vec::new(),
            next: from,
            log_start: reply.log_start,
            end_offset: reply.end_offset,
        };
        let mut terms = reply.batches.iter().map(|head| (head.base_offset, head.term));
        let term_of = |base_offset| {
            terms.find(|(base, _)| *base == base_offset).map_or(Term(0), |head| head.1)
        };
        let is_all = gather(&self.topic, items, term_of, messages_max, &mut pulled)?;
        if let Some((offset, term)) = cursor.stands().filter(|_| is_all) {
            pulled.next = Position { offset, term }; // behind what has expired, too
        }
        for message in &pulled.messages {
            self.in_hand.give(message);
        }
        Ok(pulled)
    }

    /// The position of a place in a queue.
    ///
    /// # Errors
    /// As [`Puller::pull`].
    pub async fn locate(&mut self, queue: QueueId, start: StartAt) -> Result<Position, ReadError> {
        let at = match start {
            StartAt::Offset(offset) => return Ok(offset.into()),
            StartAt::First => ListAt::First,
            StartAt::Last => ListAt::Last,
            StartAt::Time(time) => ListAt::Time(time),
        };
        let topic = self.topic.clone();
        let core = &self.client.core;
        let deadline_ms = core.clock.monotonic_ms() + millis(core.config.request_timeout);
        let make = |topic_id| ListOffsets { topic: topic.clone(), topic_id, queue, at };
        match self.leader(queue).ask(make, deadline_ms).await {
            Ok((reply, _)) => Ok(reply.offset.into()),
            Err(error) => Err(self.failed(queue, Offset(0), error)),
        }
    }

    fn leader(&mut self, queue: QueueId) -> &mut Leader {
        let (client, topic) = (&self.client, &self.topic);
        self.leaders.entry(queue).or_insert_with(|| Leader::new(client, topic.clone(), queue))
    }

    fn failed(&self, queue: QueueId, asked: Offset, error: Unanswered) -> ReadError {
        match error {
            Unanswered::Refused(refusal) => self.refused(queue, asked, refusal),
            Unanswered::Timeout(cause) => ReadError::Unanswered { queue, cause },
            Unanswered::Closed => ReadError::Closed,
        }
    }

    fn refused(&self, queue: QueueId, asked: Offset, refusal: Refusal) -> ReadError {
        if refusal.code == grus_protocol::ErrorCode::UnknownTopic {
            return ReadError::Topic { topic: self.topic.clone(), refusal };
        }
        error_of(queue, asked, refusal)
    }
}

/// Takes the messages out of batches that follow one another, `messages_max` at most. Says whether
/// that was all of them.
///
/// # Errors
/// What is wrong with the first batch; what is wrong with a later one, the next pull says.
fn gather(
    topic: &TopicName,
    items: Vec<Item>,
    mut term_of: impl FnMut(Offset) -> Term,
    messages_max: usize,
    pulled: &mut Pulled,
) -> Result<bool, ReadError> {
    for item in items {
        let room = messages_max - pulled.messages.len();
        if room == 0 {
            return Ok(false);
        }
        let (queue, term) = (item.queue, term_of(item.base_offset));
        let at = Offset(item.base_offset.0 + u64::from(item.skip));
        let batch = match DeliveredBatch::of(topic, item) {
            Ok(batch) => batch,
            Err(error) if pulled.messages.is_empty() => return Err(error),
            Err(_named_by_the_next_pull) => return Ok(false),
        };
        let before = pulled.messages.len();
        pulled.messages.extend(batch.messages().take(room));
        let taken = pulled.messages.len() - before;
        if let Some(last) = pulled.messages.last() {
            pulled.next = Position { offset: Offset(last.offset.0 + 1), term };
        } else {
            let reason = "a record cannot be decoded".into();
            return Err(ReadError::Damaged { queue, at, reason });
        }
        if taken < batch.len() {
            return Ok(false);
        }
    }
    Ok(true)
}

impl fmt::Debug for Puller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Puller").field("topic", &self.topic).finish_non_exhaustive()
    }
}
