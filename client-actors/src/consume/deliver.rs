//! Messages of a group for an actor of the program's own.

use std::fmt;
use std::ops::Deref;

use grus_mailbox::foreign::{Foreign, ForeignAddress, ForeignCredit, ForeignMessage};

use super::message::{AnswerError, Consumed, Handed, Outcome};
use super::{ConsumeError, Consumer, ConsumerStop};

/// A message of a group for an actor: `impl actix::Handler<GroupDelivery>`.
///
/// It holds its place among what the receiver may have in hand, until it is answered for. **One that
/// is dropped unanswered has failed**, and comes again.
#[derive(Debug)]
pub struct GroupDelivery {
    handed: Handed,
    _credit: ForeignCredit,
}

impl GroupDelivery {
    /// Answers for it; the answer is told together with others, within a tenth of a second.
    pub fn answer(self, outcome: Outcome) {
        self.handed.answer(outcome);
    }

    /// Answers for it, and waits until the broker knows.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub async fn settle(self, outcome: Outcome) -> Result<(), AnswerError> {
        self.handed.settle(outcome).await
    }
}

impl Deref for GroupDelivery {
    type Target = Consumed;

    fn deref(&self) -> &Consumed {
        &self.handed
    }
}

impl ForeignMessage for GroupDelivery {
    type Result = ();
}

/// Holds the delivery of a group's messages to an actor.
pub struct GroupDeliveryHandle {
    stopper: ConsumerStop,
    work: tokio::task::JoinHandle<Result<(), ConsumeError>>,
}

impl Consumer {
    /// Brings its messages to an actor of the program's own, each as a [`GroupDelivery`], no more at
    /// once than [`concurrency_max`](super::ConsumerConfig::concurrency_max). It works in a task of
    /// the runtime that this is called in, until it is stopped, or the receiver has.
    pub fn deliver_to(mut self, receiver: ForeignAddress<GroupDelivery>) -> GroupDeliveryHandle {
        let messages_max = u32::try_from(self.config.concurrency_max).unwrap_or(u32::MAX >> 4);
        let to = Foreign::new(receiver, messages_max, self.config.buffer_bytes_max);
        let stopper = self.stopper();
        let work = tokio::spawn(async move {
            loop {
                let handed = match self.next().await {
                    Ok(handed) => handed,
                    Err(ConsumeError::Closed) => return Ok(()),
                    Err(error) => return Err(error),
                };
                let bytes = u32::try_from(handed.body().len()).unwrap_or(u32::MAX);
                let credit = to.room(bytes).await;
                if to.put(GroupDelivery { handed, _credit: credit }).is_err() {
                    return Ok(()); // the receiver has stopped
                }
            }
        });
        GroupDeliveryHandle { stopper, work }
    }
}

impl GroupDeliveryHandle {
    /// Ends the delivery as [`Consumer::stop`] does: waits until the receiver has answered for what
    /// it has.
    ///
    /// # Errors
    /// [`ConsumeError::Refused`] when the group had refused the consumer.
    pub async fn stop(self) -> Result<(), ConsumeError> {
        self.stopper.stop().await;
        self.work.await.unwrap_or(Err(ConsumeError::Closed))
    }
}

impl fmt::Debug for GroupDeliveryHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GroupDeliveryHandle").finish_non_exhaustive()
    }
}
