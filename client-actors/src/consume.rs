//! What a program consumes by, as a member of a group.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use grus_mailbox::{ActorSpec, Answer, Clock, Dropped, Host, HostHandle, Inbox, reply};
use grus_protocol::message::{GroupSubscription, QueuePlace};
use grus_protocol::{GroupName, TopicName};
use thiserror::Error;

use crate::client::{Client, random};
use crate::config::millis;
use crate::consumer::requests::Identity;
use crate::consumer::state::{Change, Changed, ConsumerSettings};
use crate::consumer::{
    ConsumerActor, ConsumerParts, Gate, HandItem, NoMore, Resubscribe, StopConsumer, Take, Word,
};
use crate::error::{ClientError, Refusal};
use crate::guard::Guard;
use crate::hooks::ReceiveHooks;
use crate::progress_store::ProgressStore;

mod batch;
mod config;
mod deliver;
mod hands;
mod message;
mod run;

pub use batch::HandedBatch;
pub use config::{AckMode, ConsumerConfig, EventHandler, QueueDivider};
pub use deliver::{GroupDelivery, GroupDeliveryHandle};
pub use message::{AnswerError, Consumed, Handed, Outcome};

use hands::Hands;
use message::AnswerDoors;

/// Answers of the program that wait to be looked at: more than can be under way.
const SETTLES_MAX: u32 = 1 << 28;
/// Messages acked at once before they are handed out one by one.
const ACKED_AHEAD: u64 = 256;

/// Why nothing more is consumed, or not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConsumeError {
    /// The group does not take this consumer, or not with what it wants: with `InvalidSettings`,
    /// `SubscriptionsDiffer`, `UnsupportedFeature`, or `UnknownOpcode` of a broker that is older.
    /// After a first join the consumer is closed; after a change it goes on as before.
    #[error("group refused: {0}")]
    Refused(Refusal),
    /// The consumer was no member of the group within [`ConsumerConfig::join_wait_max`], and is
    /// closed. The text says what it waited for.
    #[error("{0}")]
    NotJoined(Arc<str>),
    /// The consumer has stopped, or its client was closed.
    #[error("consumer is closed")]
    Closed,
}

/// A queue of a topic, as a consumer has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct OwnQueue {
    /// The topic.
    pub topic: TopicName,
    /// The queue's number.
    pub queue: grus_protocol::QueueId,
}

/// What happens to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConsumerEvent {
    /// These are its own from now on.
    Assigned(Vec<OwnQueue>),
    /// These are to go: nothing more of them is handed out. What is in work may be settled within
    /// [`ConsumerConfig::revoke_wait_max`]; then they are another's.
    Revoked(Vec<OwnQueue>),
    /// These are gone, with what was in work: it is delivered again, and answers for it count for
    /// nothing.
    Lost(Vec<OwnQueue>),
    /// It is no member of the group yet, or does not hear of the group's coordinator, or messages of
    /// queues of its own do not come: what it waits for. Told after 3 s and then every 30 s, and
    /// logged as a warning; it goes on by itself. Also: the file of a member of a broadcast group
    /// cannot be written.
    Waiting(String),
}

impl ConsumerEvent {
    fn of((change, queues): &Changed) -> Self {
        let own = |(topic, place): &(TopicName, QueuePlace)| OwnQueue {
            topic: topic.clone(),
            queue: place.queue,
        };
        let queues = queues.iter().map(own).collect();
        match change {
            Change::Assigned => Self::Assigned(queues),
            Change::Revoked => Self::Revoked(queues),
            Change::Lost => Self::Lost(queues),
        }
    }
}

/// A member of a group: has the messages of the queues that are its own, each once as long as it
/// lives, and answers for them.
///
/// Its queues change as members come and go; a message that is not answered for, because the
/// program died or was too slow, is delivered again, to whoever has its queue then. So a message is
/// handled at least once.
///
/// [`Consumer::run`] is the usual way: a closure handles each message, so many at once, and what
/// it returns is the answer. [`Consumer::next`], or the `Stream`, hands out messages one by one,
/// each to be answered for by [`Handed`]; one that is dropped unanswered is a failure, and comes
/// again.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use grus_client::{Client, ClientConfig, ConsumerConfig};
///
/// let client = Client::connect(ClientConfig::default()).await?;
/// let config = ConsumerConfig::new("billing")?.subscribe("orders", "created || paid")?;
/// let mut consumer = client.consumer(config)?;
/// consumer
///     .run(async |message| {
///         println!("{} of {}: {} bytes", message.offset, message.queue, message.body().len());
///         Ok::<(), std::io::Error>(()) // an error has it come again
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
pub struct Consumer {
    client: Client,
    config: ConsumerConfig,
    clock: Clock,
    gate: Gate,
    takes: Inbox<Take>,
    doors: Arc<AnswerDoors>,
    changes: Inbox<Resubscribe>,
    stops: Inbox<StopConsumer>,
    _actor: OwnedActor,
    /// The answer awaited; kept when a future is dropped, so that nothing of it is lost.
    pending: Option<Answer<Result<Vec<HandItem>, NoMore>>>,
    hands: Hands,
    hooks: Option<ReceiveHooks>,
}

/// Stops its actor when it is dropped.
struct OwnedActor(HostHandle<ConsumerActor>);

impl Drop for OwnedActor {
    fn drop(&mut self) {
        drop(self.0.stop());
    }
}

/// Stops a consumer from elsewhere, as [`Consumer::stop`] does.
#[derive(Clone)]
pub struct ConsumerStop {
    stops: Inbox<StopConsumer>,
    wait_ms_max: u64,
}

impl ConsumerStop {
    /// Hands out nothing more, waits until what is in work is answered for and the broker knows,
    /// [`ConsumerConfig::stop_wait_max`] at most, and leaves the group: its queues are others' at
    /// once. [`Consumer::run`] returns then; a program that pulls goes on until it hears
    /// [`ConsumeError::Closed`].
    pub async fn stop(&self) {
        let (done, answer) = reply::port();
        let stop = StopConsumer { wait_ms_max: self.wait_ms_max, done };
        if self.stops.put(stop).await.is_ok() {
            let _ = answer.await; // dropped: it has stopped meanwhile
        }
    }
}

impl fmt::Debug for ConsumerStop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ConsumerStop").finish_non_exhaustive()
    }
}

impl Client {
    /// Makes this program a member of a group. It joins at once, and the group is made when it is
    /// not there.
    ///
    /// # Errors
    /// [`ClientError::Config`] when the configuration makes no sense, [`ClientError::Closed`].
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer, ClientError> {
        config.check()?;
        let own = config.progress_file.as_deref().map(|file| {
            let drawn = || config::drawn_member(random());
            ProgressStore::open(file, &config.group, config.instance.as_ref(), drawn)
        });
        let own = own.transpose()?.map(|(store, progress)| (Arc::new(store), progress));
        let member = own.as_ref().map(|(_, progress)| progress.member.clone());
        let place = self.core.place()?;
        let (gate, owner) = (Gate::default(), self.core.next_owner());
        let parts = ConsumerParts {
            identity: Identity {
                group: config.group.clone(),
                session: random().max(1),
                client_id: self.core.config.client_id.clone(),
                options: config.options.clone(),
                instance: member.or_else(|| config.instance.clone()),
            },
            settings: ConsumerSettings {
                acks_before: config.ack_mode == AckMode::Before,
                queue_messages_max: config.queue_messages_max,
                bytes_max: config.buffer_bytes_max,
                revoke_ms_max: millis(config.revoke_wait_max),
                join_ms_max: config.join_wait_max.map(millis),
            },
            subscriptions: config.subscriptions.clone(),
            router: self.core.doors.clone(),
            gate: gate.clone(),
            on_word: teller(self.core.guard.clone(), config.on_event.clone()),
            divide: config.divide_by.as_ref().map(|it| it.guarded(self.core.guard.clone())),
            owner,
            seed: random(),
            own,
        };
        let spec = ActorSpec::new("Consumer", config.group.as_str());
        let mut lives = 0;
        let mut parts = parts;
        let actor = Host::spawn(&place, spec, move || {
            lives += 1;
            // The file is the first life's alone: a later one only stops.
            let own = parts.own.take();
            ConsumerActor::new(ConsumerParts { own, ..parts.clone() }, lives)
        });
        Ok(Consumer {
            client: self.clone(),
            clock: self.core.clock,
            gate,
            takes: actor.inbox(16),
            doors: Arc::new(AnswerDoors {
                settles: actor.inbox(SETTLES_MAX),
                acks: actor.inbox(SETTLES_MAX),
            }),
            changes: actor.inbox(16),
            stops: actor.inbox(16),
            _actor: OwnedActor(actor),
            pending: None,
            hands: Hands::default(),
            hooks: ReceiveHooks::of(self),
            config,
        })
    }
}

fn teller(guard: Guard, on_event: Option<EventHandler>) -> Arc<dyn Fn(Word<'_>) + Send + Sync> {
    Arc::new(move |word| {
        let event = match word {
            Word::Queues(changed) => ConsumerEvent::of(changed),
            Word::Waiting(line) => ConsumerEvent::Waiting(line.to_owned()),
        };
        tracing::info!(?event, "queues of the group");
        if let Some(handler) = &on_event {
            guard.call("on_event", || handler.call(&event));
        }
    })
}

impl Consumer {
    /// The group.
    pub fn group(&self) -> &GroupName {
        &self.config.group
    }

    /// How it consumes.
    pub fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The next message; waits for one. Messages of a queue come in order (but those that come
    /// again), queues in turn. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub async fn next(&mut self) -> Result<Handed, ConsumeError> {
        poll_fn(|context| self.poll_message(ACKED_AHEAD, context)).await
    }

    /// The next messages: as many as there are, `messages_max` at most, none after waiting for the
    /// first of them for `wait_max`.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn next_batch(
        &mut self,
        messages_max: usize,
        wait_max: Duration,
    ) -> Result<Vec<Handed>, ConsumeError> {
        let most = messages_max.max(1) as u64;
        let first = poll_fn(|context| self.poll_message(most, context));
        let first = match tokio::time::timeout(wait_max, first).await {
            Ok(first) => first?,
            Err(_elapsed) => return Ok(Vec::new()),
        };
        let mut batch = vec![first];
        while batch.len() < messages_max {
            match self.pop() {
                Some(handed) => batch.push(handed),
                None => break,
            }
        }
        Ok(batch)
    }

    /// The next messages of one stored batch, as many of them as are this consumer's, to be answered
    /// for together; waits for one. For those who look at many messages and keep few: they lie where
    /// they were read to. Dropping the future loses nothing.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub async fn next_stored_batch(&mut self) -> Result<HandedBatch, ConsumeError> {
        poll_fn(|context| {
            loop {
                if let Some(batch) = self.pop_stored() {
                    return Poll::Ready(Ok(batch));
                }
                let items = ready!(self.poll_items(ACKED_AHEAD, context))?;
                self.hands.add(items);
            }
        })
        .await
    }

    fn pop_stored(&mut self) -> Option<HandedBatch> {
        self.may_hand_out().then(|| self.hands.pop_batch(&self.doors)).flatten()
    }

    fn may_hand_out(&self) -> bool {
        self.acks_before() || self.gate.is_open(self.clock.monotonic_ms())
    }

    /// Subscribes to other topics, or other messages of them, from now on; the whole list counts.
    /// A refusal is told by [`Consumer::next`], and leaves it as it was.
    ///
    /// # Errors
    /// [`ConsumeError::Closed`].
    pub async fn resubscribe(
        &mut self,
        subscriptions: Vec<GroupSubscription>,
    ) -> Result<(), ConsumeError> {
        self.config.subscriptions.clone_from(&subscriptions);
        let change = Resubscribe { subscriptions };
        self.changes.put(change).await.map_err(|_stopped| ConsumeError::Closed)
    }

    /// Whether it has been a member of the group: it may still wait for queues of its own, and for
    /// messages.
    pub fn has_joined(&self) -> bool {
        self.gate.was_open()
    }

    /// What stops it from elsewhere.
    pub fn stopper(&self) -> ConsumerStop {
        let wait_ms_max = millis(self.config.stop_wait_max);
        ConsumerStop { stops: self.stops.clone(), wait_ms_max }
    }

    /// Hands out nothing more, waits until what is in work is answered for and the broker knows,
    /// [`ConsumerConfig::stop_wait_max`] at most, and leaves the group.
    pub async fn stop(mut self) {
        let stopper = self.stopper();
        let give_back = async {
            loop {
                self.hands.give_back(&self.doors);
                match poll_fn(|context| self.poll_items(ACKED_AHEAD, context)).await {
                    Ok(items) => self.hands.add(items),
                    Err(ConsumeError::Closed) => return,
                    Err(ConsumeError::Refused(_) | ConsumeError::NotJoined(_)) => {}
                }
            }
        };
        futures_util::future::join(stopper.stop(), give_back).await;
    }

    fn pop(&mut self) -> Option<Handed> {
        if !self.may_hand_out() {
            return None;
        }
        let (consumed, ticket) = self.hands.pop(&self.doors)?;
        let handed = Handed::new(consumed, ticket, self.hooks.clone());
        Some(handed)
    }

    fn acks_before(&self) -> bool {
        self.config.ack_mode == AckMode::Before
    }

    fn poll_message(
        &mut self,
        messages_max: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<Handed, ConsumeError>> {
        loop {
            if let Some(handed) = self.pop() {
                return Poll::Ready(Ok(handed));
            }
            let items = ready!(self.poll_items(messages_max, context))?;
            self.hands.add(items);
        }
    }

    fn poll_items(
        &mut self,
        messages_max: u64,
        context: &mut Context<'_>,
    ) -> Poll<Result<Vec<HandItem>, ConsumeError>> {
        let mut answer = if let Some(answer) = self.pending.take() {
            answer
        } else {
            let (reply, answer) = reply::port();
            let take = Take { only_open: !self.hands.is_empty(), messages_max, reply };
            if self.takes.try_put(take).is_err() {
                return Poll::Ready(Err(ConsumeError::Closed));
            }
            answer
        };
        match Pin::new(&mut answer).poll(context) {
            Poll::Ready(Ok(Ok(items))) => Poll::Ready(Ok(items)),
            Poll::Ready(Ok(Err(NoMore::Refused(refusal)))) => {
                Poll::Ready(Err(ConsumeError::Refused(refusal)))
            }
            Poll::Ready(Ok(Err(NoMore::NotJoined(why)))) => {
                Poll::Ready(Err(ConsumeError::NotJoined(why)))
            }
            Poll::Ready(Err(Dropped)) => Poll::Ready(Err(ConsumeError::Closed)),
            Poll::Pending => {
                self.pending = Some(answer);
                Poll::Pending
            }
        }
    }
}

/// The messages, until the consumer has stopped.
impl Stream for Consumer {
    type Item = Result<Handed, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match ready!(self.poll_message(ACKED_AHEAD, context)) {
            Err(ConsumeError::Closed) => Poll::Ready(None),
            other => Poll::Ready(Some(other)),
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Consumer").field("config", &self.config).finish_non_exhaustive()
    }
}
