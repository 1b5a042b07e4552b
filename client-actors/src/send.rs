//! What a program sends by.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use grus_mailbox::{ActorSpec, Answer, Dropped, Host, HostHandle, Inbox, Place, Port, Stopped};
use grus_mailbox::{PutError, reply};
use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, MessageId, NewRecord, RecordError, TimestampMs, TopicName};

use crate::client::{Client, random};
use crate::config::{ProducerConfig, QueueChoice};
use crate::error::SendError;
use crate::message::Message;
use crate::message_id::MessageIds;
use crate::producer::parts::BatchKind;
use crate::producer::{Flush, Flushed, Ids, Load, Pick, ProducerActor, Reply, Submit};
use crate::receipt::{BatchReceipt, DueTime, Receipt};
use crate::watch::Watch;

/// Sends messages to one topic. Cheap to clone; all clones are the same producer and keep one
/// order.
///
/// * **Once, in order.** A message is stored at most once however often it is sent again, across
///   reconnects and restarts of the broker, and those acknowledged are in their queue in the order
///   in which they were sent, also when an earlier batch had to be repeated.
/// * **Answered once.** Every message taken gets exactly one answer: its receipt, or an error that
///   says [whether it may be stored](SendError::maybe_stored). After a timeout of a message that
///   was sent, that is not known: it was not answered, and is not sent again.
/// * **Bounded.** What is taken and not answered is at most `pending_bytes_max`.
///
/// Many messages on their way at once are what makes it fast: use [`Producer::enqueue`] or
/// [`Producer::send_batch`], or await many [`Producer::send`] together.
#[derive(Clone)]
pub struct Producer {
    core: Arc<ProducerCore>,
}

pub(crate) struct ProducerCore {
    client: Client,
    config: ProducerConfig,
    submits: Inbox<Submit>,
    flushes: Inbox<Flush>,
    actor: HostHandle<ProducerActor>,
    ids: MessageIds,
    one_way_failures: Arc<AtomicU64>,
}

impl ProducerCore {
    pub(crate) fn stop(&self) -> Stopped {
        self.actor.stop()
    }
}

impl Drop for ProducerCore {
    fn drop(&mut self) {
        drop(self.actor.stop());
    }
}

impl Producer {
    pub(crate) fn open(client: &Client, place: &Place, config: ProducerConfig) -> Self {
        let seed = random();
        let spec = ActorSpec::new("Producer", config.topic.as_str());
        let (doors, own_config) = (client.core.doors.clone(), config.clone());
        let guard = client.core.guard.clone();
        let mut lives = 0;
        let actor = Host::spawn(place, spec, move || {
            let config = own_config.clone();
            let actor = ProducerActor::new(config, doors.clone(), seed, &guard, lives);
            lives += 1;
            actor
        });
        let core = ProducerCore {
            client: client.clone(),
            submits: actor.inbox::<Submit>(config.pending_bytes_max),
            flushes: actor.inbox::<Flush>(1_024),
            actor,
            ids: MessageIds::new(random(), (random() >> 32) as u32),
            one_way_failures: Arc::default(),
            config,
        };
        Self { core: Arc::new(core) }
    }

    pub(crate) fn downgrade(&self) -> Weak<ProducerCore> {
        Arc::downgrade(&self.core)
    }

    /// The topic it sends to.
    pub fn topic(&self) -> &TopicName {
        &self.core.config.topic
    }

    /// Sends a message and waits for its receipt. Dropping the future does not take the message
    /// back once it has waited for anything.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, message: Message) -> Result<Receipt, SendError> {
        self.enqueue(message).await?.await
    }

    /// Has a message sent, and waits for room only; the receipt is awaited apart. Messages leave
    /// in the order of these calls.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room within the send window, [`SendError::Closed`].
    pub async fn enqueue(&self, message: Message) -> Result<PendingReceipt, SendError> {
        let (port, answer) = reply::port();
        let (submit, watch) = self.submit_one(message, port);
        self.put(submit, &watch).await?;
        Ok(PendingReceipt(answer))
    }

    /// Has a message sent, if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room, [`SendError::Closed`].
    pub fn try_enqueue(&self, message: Message) -> Result<PendingReceipt, SendError> {
        let (port, answer) = reply::port();
        let (submit, watch) = self.submit_one(message, port);
        match self.core.submits.try_put(submit) {
            Ok(()) => Ok(PendingReceipt(answer)),
            Err(refused) => Err(watch.refused(self.refused(&refused))),
        }
    }

    /// Sends a message, never waits, and calls `answered` exactly once. The call is made on the
    /// client's thread (on this one when the message is not taken): it must return at once.
    pub fn send_async(
        &self,
        message: Message,
        answered: impl FnOnce(Result<Receipt, SendError>) + Send + 'static,
    ) {
        let guard = self.core.client.core.guard.clone();
        let port = Port::call(move |answer: Result<_, Dropped>| {
            guard.call("send callback", || answered(answer.unwrap_or_else(gone)));
        });
        let (submit, _) = self.submit_one(message, port);
        if let Err(refused) = self.core.submits.try_put(submit) {
            let error = self.refused(&refused);
            refused.into_message().reply.fail(error);
        }
    }

    /// Sends a message of which nobody wants to hear: never waits, never fails. While no broker is
    /// there it is kept like any other, within `pending_bytes_max` and the send window, and leaves
    /// when one comes. One that finds no room, or is not stored in time, is lost and
    /// [counted](Producer::one_way_failures).
    ///
    /// It is as safe on its way as any other message: sent again where need be, stored once, in
    /// order with what this producer sends. What it saves is waiting.
    pub fn send_one_way(&self, message: Message) {
        let failures = Arc::clone(&self.core.one_way_failures);
        self.send_async(message, move |result| {
            if result.is_err() {
                failures.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    /// How many messages sent [one-way](Producer::send_one_way) failed so far, by all clones.
    pub fn one_way_failures(&self) -> u64 {
        self.core.one_way_failures.load(Ordering::Relaxed)
    }

    /// Sends messages as one batch and waits for its receipt: all of them are stored in one queue,
    /// in order, without gaps, or none is. The first message chooses the queue; another one that
    /// asks for another queue, or has another order key, is an error.
    ///
    /// # Errors
    /// [`SendError::Invalid`] or [`SendError::MixedQueues`] name the message that is wrong,
    /// [`SendError::EmptyBatch`], and whatever else [`SendError`] lists.
    pub async fn send_batch(&self, messages: Vec<Message>) -> Result<BatchReceipt, SendError> {
        self.enqueue_batch(messages).await?.await
    }

    /// Like [`Producer::send_batch`], but waits for room only; the receipt is awaited apart.
    ///
    /// # Errors
    /// As [`Producer::send_batch`], as far as it is known before the batch is sent.
    pub async fn enqueue_batch(&self, messages: Vec<Message>) -> Result<PendingBatch, SendError> {
        let (port, answer) = reply::port();
        let (submit, watch) = self.submit_many(messages, port)?;
        self.put(submit, &watch).await?;
        Ok(PendingBatch(answer))
    }

    /// Waits until all that was sent before is answered, without waiting for batches to fill; that
    /// takes the send window at the longest. Returns how many messages were stored and which ones
    /// were not since the flush before.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub async fn flush(&self) -> Result<Flushed, SendError> {
        let (done, answer) = reply::port();
        let flush = Flush { done };
        self.core.flushes.put(flush).await.map_err(|_stopped| gone_error(false))?;
        answer.await.map_err(|Dropped| gone_error(true))
    }

    /// Flushes and ends the producer; it takes nothing more, by none of its clones. Returns what a
    /// flush does: what was not sent is named there.
    ///
    /// # Errors
    /// [`SendError::Closed`] when it was closed before.
    pub async fn close(self) -> Result<Flushed, SendError> {
        let flushed = self.flush().await?;
        self.core.actor.stop().await;
        Ok(flushed)
    }

    /// The actor itself, for tests that make it panic.
    #[cfg(any(test, feature = "fault-injection"))]
    pub(crate) fn actor(&self) -> &HostHandle<ProducerActor> {
        &self.core.actor
    }

    fn submit_one(
        &self,
        mut message: Message,
        port: Port<Result<Receipt, SendError>>,
    ) -> (Submit, Watch) {
        let hooks = &self.core.client.core.config.interceptors;
        if hooks.is_empty() {
            return (self.submit(message, port), Watch::default());
        }
        let guard = &self.core.client.core.guard;
        hooks.before_send(guard, &mut message);
        self.complete(&mut message.record, self.core.client.core.clock.now());
        let watch = Watch::for_some();
        let port = watch.over_one(hooks.clone(), guard.clone(), message.clone(), port);
        let mut submit = self.submit(message, port);
        submit.weight = submit.weight.saturating_mul(2); // the interceptors' copy
        (submit, watch)
    }

    fn submit(&self, message: Message, port: Port<Result<Receipt, SendError>>) -> Submit {
        let weight = u32::try_from(message.weight()).unwrap_or(u32::MAX);
        let pick = message.pick();
        let mut record = message.record;
        self.complete(&mut record, self.core.client.core.clock.now());
        let ids = Ids::One(record.id);
        let reply = Reply::One(port, DueTime::of(&record));
        Submit { pick, load: Load::One(record), ids, weight, reply }
    }

    /// Encodes on the caller's thread, so that many callers share the work.
    fn submit_many(
        &self,
        mut messages: Vec<Message>,
        port: Port<Result<BatchReceipt, SendError>>,
    ) -> Result<(Submit, Watch), SendError> {
        let core = &self.core.client.core;
        let now = core.clock.now(); // once: it costs more than encoding does
        let hooks = &core.config.interceptors;
        let (mut watch, mut copies) = (Watch::default(), Vec::new());
        if !hooks.is_empty() {
            for message in &mut messages {
                hooks.before_send(&core.guard, message);
                self.complete(&mut message.record, now);
            }
            (watch, copies) = (Watch::for_some(), messages.clone());
        }
        let own = matches!(self.core.config.queue_choice, QueueChoice::Own(_));
        let first = messages.first().filter(|_| own).cloned();
        let encoded = self.encode(messages, now);
        let (pick, mut builder, ids, dues) = match encoded {
            Ok(encoded) => encoded,
            Err(error) => {
                let failed = Err(error.clone());
                for copy in &copies {
                    hooks.after_send(&core.guard, copy, &failed);
                }
                return Err(error);
            }
        };
        let weight = builder.len_bytes() + 16 * ids.len();
        let kept: usize = copies.iter().map(Message::weight).sum();
        let weight = u32::try_from(weight + kept).unwrap_or(u32::MAX);
        let compression = self.core.config.compression;
        let is_wanted = compression != Compression::None;
        if is_wanted && core.agreed_compressions() & compression.bit() != 0 {
            builder.compress(compression);
        }
        let load = match first {
            Some(first) => Load::ManyLike(builder, Box::new(first)),
            None => Load::Many(builder),
        };
        let port = if copies.is_empty() {
            port
        } else {
            watch.over_many(hooks.clone(), core.guard.clone(), copies, port)
        };
        let reply = Reply::Many(port, dues);
        Ok((Submit { pick, load, ids: Ids::Many(ids), weight, reply }, watch))
    }

    fn encode(
        &self,
        mut messages: Vec<Message>,
        now: TimestampMs,
    ) -> Result<(Pick, BatchBuilder, Vec<MessageId>, Vec<DueTime>), SendError> {
        let Some(first) = messages.first() else { return Err(SendError::EmptyBatch) };
        let pick = first.pick();
        let (first_queue, first_order) = (first.queue, first.record.order_key.clone());
        let first_dedup = first.record.dedup_key.clone();
        let first_kind = BatchKind::of(&first.record);
        let mut builder = BatchBuilder::new(self.core.client.core.batch_limits());
        // Grown by doubling, a batch of 1 MB would be copied once more, into pages not touched yet.
        builder.reserve(messages.iter().map(Message::encoded_bytes).sum());
        let (mut ids, mut dues) = (Vec::with_capacity(messages.len()), Vec::new());
        for (index, message) in messages.iter_mut().enumerate() {
            let other_queue = message.queue.is_some_and(|queue| pick != Pick::Given(queue));
            let order = &message.record.order_key;
            let other_order = first_queue.is_none() && order.is_some() && *order != first_order;
            if other_queue || other_order {
                return Err(SendError::MixedQueues { index });
            }
            if message.record.dedup_key != first_dedup {
                let reason = RecordError::MixedDedupKeys;
                return Err(SendError::Invalid { index, reason });
            }
            if let Some(reason) = first_kind.refuses(&message.record) {
                return Err(SendError::Invalid { index, reason });
            }
            let record = &mut message.record; // not moved out: it has 300 bytes
            self.complete(record, now);
            builder.push(record).map_err(|reason| SendError::Invalid { index, reason })?;
            ids.push(record.id);
            dues.extend(DueTime::of(record));
        }
        Ok((pick, builder, ids, dues))
    }

    /// Gives the record its birth and its id, unless it has them.
    fn complete(&self, record: &mut NewRecord, now: TimestampMs) {
        if record.born.0 == 0 {
            record.born = now;
        }
        if record.id.is_nil() {
            record.id = self.core.ids.next(record.born);
        }
    }

    async fn put(&self, submit: Submit, watch: &Watch) -> Result<(), SendError> {
        let submit = match self.core.submits.try_put(submit) {
            Ok(()) => return Ok(()),
            Err(PutError::Full(submit)) => submit,
            Err(refused) => return Err(watch.refused(self.refused(&refused))),
        };
        // Within the window, what is before it is answered, one way or the other.
        let put = std::pin::pin!(self.core.submits.put(submit));
        match tokio::time::timeout(self.core.config.window(), put).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(watch.refused(self.refused(&refused))),
            Err(_elapsed) => Err(watch.refused(self.full())),
        }
    }

    fn refused(&self, refused: &PutError<Submit>) -> SendError {
        if refused.is_full() { self.full() } else { gone_error(false) }
    }

    fn full(&self) -> SendError {
        SendError::Full { pending_bytes_max: self.core.config.pending_bytes_max }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Producer").field("config", &self.core.config).finish()
    }
}

fn gone_error(maybe_stored: bool) -> SendError {
    SendError::Closed { maybe_stored }
}

pub(crate) fn gone<T>(_: Dropped) -> Result<T, SendError> {
    Err(gone_error(true))
}

/// The receipt to come of a message that was taken.
#[derive(Debug)]
#[must_use = "a message may fail; its answer is here"]
pub struct PendingReceipt(Answer<Result<Receipt, SendError>>);

impl Future for PendingReceipt {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(gone))
    }
}

/// The receipt to come of a batch that was taken.
#[derive(Debug)]
#[must_use = "a batch may fail; its answer is here"]
pub struct PendingBatch(Answer<Result<BatchReceipt, SendError>>);

impl Future for PendingBatch {
    type Output = Result<BatchReceipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or_else(gone))
    }
}
