//! Messages for an actor of the program's own.

use std::fmt;
use std::ops::Deref;

use grus_mailbox::foreign::{Foreign, ForeignAddress, ForeignCredit, ForeignMessage};
use grus_mailbox::{ActorSpec, Host, HostHandle, Inbox, Place, outlet, reply};
use grus_protocol::QueueId;

use crate::client::Client;
use crate::config::{ReaderConfig, StartAt};
use crate::courier::{Courier, SeekTo, Work};
use crate::error::ReadError;
use crate::hooks::ReceiveHooks;
use crate::read::{Delivered, Reader};

/// Seeks that wait.
const SEEKS_MAX: u32 = 16;
/// Errors that the receiver has not dropped yet.
const FAILURES_MAX: u32 = 1_024;

/// A message for an actor: `impl actix::Handler<Delivery>`.
///
/// It holds its place among what the receiver may have in hand; **dropping it gives the place
/// back**, and that is what lets the next message come. A handler that is done when it returns just
/// lets it drop; one that goes on (a future, another actor) takes it along and drops it when the work
/// is over.
#[derive(Debug)]
pub struct Delivery {
    message: Delivered,
    hooks: Option<ReceiveHooks>,
    _credit: ForeignCredit,
}

impl Delivery {
    pub(crate) fn new(
        message: Delivered,
        hooks: Option<ReceiveHooks>,
        credit: ForeignCredit,
    ) -> Self {
        if let Some(hooks) = &hooks {
            hooks.before(&message);
        }
        Self { message, hooks, _credit: credit }
    }

    /// The message.
    pub fn message(&self) -> &Delivered {
        &self.message
    }

    /// The message alone, to keep: its place is given back.
    pub fn into_message(self) -> Delivered {
        self.message.clone()
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(hooks) = &self.hooks {
            hooks.after(&self.message);
        }
    }
}

impl Deref for Delivery {
    type Target = Delivered;

    fn deref(&self) -> &Delivered {
        &self.message
    }
}

impl ForeignMessage for Delivery {
    type Result = ();
}

/// An error for an actor: `impl actix::Handler<ReadFailed>`. The queue it is about rests until it is
/// sought ([`DeliveryHandle::seek`]); the others go on.
#[derive(Debug, Clone)]
pub struct ReadFailed(pub ReadError);

impl ForeignMessage for ReadFailed {
    type Result = ();
}

/// Whom to deliver to, and how much of it the receiver may have in hand.
#[derive(Clone)]
pub struct DeliverTo {
    pub(crate) messages: ForeignAddress<Delivery>,
    pub(crate) failures: Option<ForeignAddress<ReadFailed>>,
    /// Most messages that the receiver has not dropped yet, its mailbox included. Default: 256.
    pub messages_max: u32,
    /// Most bytes of them; one message of any size is delivered when there is none. Default: 4 MiB.
    pub bytes_max: u32,
}

impl DeliverTo {
    /// To this receiver: `address.recipient()`.
    pub fn new(receiver: ForeignAddress<Delivery>) -> Self {
        let (messages_max, bytes_max) = (256, 4 * 1024 * 1024);
        Self { messages: receiver, failures: None, messages_max, bytes_max }
    }

    /// Tells this one of errors; without it they are logged.
    #[must_use]
    pub fn failures_to(mut self, receiver: ForeignAddress<ReadFailed>) -> Self {
        self.failures = Some(receiver);
        self
    }
}

impl fmt::Debug for DeliverTo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DeliverTo")
            .field("messages_max", &self.messages_max)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

/// Holds the delivery of a topic to an actor; dropping it ends it. What is in the receiver's mailbox
/// by then is still handled.
pub struct DeliveryHandle {
    seeks: Inbox<SeekTo>,
    actor: HostHandle<Courier>,
}

impl DeliveryHandle {
    pub(crate) fn open(
        client: &Client,
        place: &Place,
        config: ReaderConfig,
        to: DeliverTo,
    ) -> Self {
        let spec = ActorSpec::new("Courier", config.topic.as_str());
        let (seeks, seeks_out) = outlet(SEEKS_MAX);
        let DeliverTo { messages, failures, messages_max, bytes_max } = to;
        let mut work = Some(Work {
            reader: Reader::open(client, place, config, None),
            hooks: ReceiveHooks::of(client),
            to: Foreign::new(messages, messages_max.max(1), bytes_max.max(1)),
            failures: failures.map(|to| Foreign::new(to, FAILURES_MAX, u32::MAX >> 3)),
            seeks: seeks_out,
        });
        let actor = Host::spawn(place, spec, move || Courier::new(work.take()));
        Self { seeks, actor }
    }

    /// Goes on delivering a queue at another place. It waits until the receiver has dropped all it
    /// was given: after it, nothing from before is handled any more. A receiver that seeks itself
    /// must not keep its mailbox waiting for this (`ctx.spawn`, not `ctx.wait`), nor a delivery.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn seek(&self, queue: QueueId, start: StartAt) -> Result<(), ReadError> {
        self.seek_to(Some(queue), start).await
    }

    /// The same for all queues.
    ///
    /// # Errors
    /// [`ReadError::Closed`].
    pub async fn seek_all(&self, start: StartAt) -> Result<(), ReadError> {
        self.seek_to(None, start).await
    }

    async fn seek_to(&self, queue: Option<QueueId>, start: StartAt) -> Result<(), ReadError> {
        let (done, answer) = reply::port();
        let seek = SeekTo { queue, start, done };
        self.seeks.put(seek).await.map_err(|_stopped| ReadError::Closed)?;
        answer.await.unwrap_or(Err(ReadError::Closed))
    }

    /// Whether nothing is delivered any more: the client was closed, or the receiver has stopped.
    pub fn is_closed(&self) -> bool {
        self.seeks.is_stopped()
    }

    /// Ends the delivery.
    pub async fn close(self) {
        self.actor.stop().await;
    }
}

impl Drop for DeliveryHandle {
    fn drop(&mut self) {
        drop(self.actor.stop());
    }
}

impl fmt::Debug for DeliveryHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DeliveryHandle").field("is_closed", &self.is_closed()).finish()
    }
}
