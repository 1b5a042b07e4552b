//! What a program sends by.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use grus_mailbox::{ActorSpec, Answer, Dropped, Host, HostHandle, Inbox, Place, Port, Stopped};
use grus_mailbox::{PutError, reply};
use grus_protocol::batch::Compression;
use grus_protocol::{BatchBuilder, NewRecord, RecordError, TimestampMs, TopicName};

use crate::client::{Client, random};
use crate::config::ProducerConfig;
use crate::error::SendError;
use crate::message::Message;
use crate::message_id::MessageIds;
use crate::producer::{Flush, Flushed, Ids, Load, Pick, ProducerActor, Reply, Submit};
use crate::receipt::{BatchReceipt, Receipt};

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
        let actor = Host::spawn(place, spec, move || {
            ProducerActor::new(own_config.clone(), doors.clone(), seed)
        });
        let core = ProducerCore {
            client: client.clone(),
            submits: actor.inbox::<Submit>(config.pending_bytes_max),
            flushes: actor.inbox::<Flush>(1_024),
            actor,
            ids: MessageIds::new(random(), (random() >> 32) as u32),
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
        self.put(self.submit_one(message, port)).await?;
        Ok(PendingReceipt(answer))
    }

    /// Has a message sent, if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] when there is no room, [`SendError::Closed`].
    pub fn try_enqueue(&self, message: Message) -> Result<PendingReceipt, SendError> {
        let (port, answer) = reply::port();
        match self.core.submits.try_put(self.submit_one(message, port)) {
            Ok(()) => Ok(PendingReceipt(answer)),
            Err(refused) => Err(self.refused(&refused)),
        }
    }

    /// Sends a message, never waits, and calls `answered` exactly once. The call is made on the
    /// client's thread (on this one when the message is not taken): it must return at once.
    pub fn send_async(
        &self,
        message: Message,
        answered: impl FnOnce(Result<Receipt, SendError>) + Send + 'static,
    ) {
        let port = Port::call(move |answer| answered(answer.unwrap_or_else(gone)));
        if let Err(refused) = self.core.submits.try_put(self.submit_one(message, port)) {
            let error = self.refused(&refused);
            if let Reply::One(port) = refused.into_message().reply {
                port.send(Err(error));
            }
        }
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
        self.put(self.submit_many(messages, port)?).await?;
        Ok(PendingBatch(answer))
    }

    /// Waits until all that was sent before is answered, without waiting for batches to fill.
    /// Returns how many messages were stored and how many failed since the flush before.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub async fn flush(&self) -> Result<Flushed, SendError> {
        let (done, answer) = reply::port();
        let flush = Flush { done };
        self.core.flushes.put(flush).await.map_err(|_stopped| gone_error(false))?;
        answer.await.map_err(|Dropped| gone_error(true))
    }

    /// Flushes and ends the producer; it takes nothing more, by none of its clones.
    ///
    /// # Errors
    /// [`SendError::Closed`] when it was closed before.
    pub async fn close(self) -> Result<Flushed, SendError> {
        let flushed = self.flush().await?;
        self.core.actor.stop().await;
        Ok(flushed)
    }

    fn submit_one(&self, message: Message, port: Port<Result<Receipt, SendError>>) -> Submit {
        let weight = u32::try_from(message.weight()).unwrap_or(u32::MAX);
        let pick = message.pick();
        let mut record = message.record;
        self.complete(&mut record, self.core.client.core.clock.now());
        let ids = Ids::One(record.id);
        Submit { pick, load: Load::One(record), ids, weight, reply: Reply::One(port) }
    }

    /// Encodes on the caller's thread, so that many callers share the work.
    fn submit_many(
        &self,
        messages: Vec<Message>,
        port: Port<Result<BatchReceipt, SendError>>,
    ) -> Result<Submit, SendError> {
        let Some(first) = messages.first() else { return Err(SendError::EmptyBatch) };
        let pick = first.pick();
        let (first_queue, first_order) = (first.queue, first.record.order_key.clone());
        let first_dedup = first.record.dedup_key.clone();
        let mut builder = BatchBuilder::new(self.core.client.core.batch_limits());
        let mut ids = Vec::with_capacity(messages.len());
        let now = self.core.client.core.clock.now(); // once: it costs more than encoding does
        for (index, message) in messages.into_iter().enumerate() {
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
            let mut record = message.record;
            self.complete(&mut record, now);
            builder.push(&record).map_err(|reason| SendError::Invalid { index, reason })?;
            ids.push(record.id);
        }
        let weight = u32::try_from(builder.len_bytes() + 16 * ids.len()).unwrap_or(u32::MAX);
        let compression = self.core.config.compression;
        let is_wanted = compression != Compression::None;
        if is_wanted && self.core.client.core.agreed_compressions() & compression.bit() != 0 {
            builder.compress(compression);
        }
        let (load, reply) = (Load::Many(builder), Reply::Many(port));
        Ok(Submit { pick, load, ids: Ids::Many(ids), weight, reply })
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

    async fn put(&self, submit: Submit) -> Result<(), SendError> {
        let submit = match self.core.submits.try_put(submit) {
            Ok(()) => return Ok(()),
            Err(PutError::Full(submit)) => submit,
            Err(refused) => return Err(self.refused(&refused)),
        };
        // Within the window, what is before it is answered, one way or the other.
        let put = self.core.submits.put(submit);
        match tokio::time::timeout(self.core.config.window(), put).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(refused)) => Err(self.refused(&refused)),
            Err(_elapsed) => Err(self.full()),
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

fn gone<T>(_: Dropped) -> Result<T, SendError> {
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
