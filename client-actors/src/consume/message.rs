//! A message of a group, and the program's answer for it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use grus_mailbox::{Dropped, Inbox, reply};
use grus_protocol::Offset;
use grus_protocol::message::OffsetRange;
use thiserror::Error;

use crate::config::millis;
use crate::consumer::{AckRanges, Settle, Verdict};
use crate::hooks::ReceiveHooks;
use crate::read::Delivered;

/// A message that a member of a group was given.
#[derive(Debug, Clone)]
pub struct Consumed {
    message: Delivered,
    /// How often it was delivered before, in vain: 0 the first time.
    pub deliveries: u32,
}

impl Consumed {
    pub(super) fn new(message: Delivered, deliveries: u32) -> Self {
        Self { message, deliveries }
    }

    /// The message alone.
    pub fn message(&self) -> &Delivered {
        &self.message
    }
}

impl Deref for Consumed {
    type Target = Delivered;

    fn deref(&self) -> &Delivered {
        &self.message
    }
}

/// What becomes of a message: what a handler returns. `()` is [`Outcome::Ack`]; a `Result` is that,
/// or [`Outcome::Nack`] with its error as the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Ack,
    /// It failed: it comes again as the group's ladder says, and is a dead letter after the last
    /// time, for this reason.
    Nack(String),
    /// It failed: it comes again after so long, and is a dead letter after the last time.
    RetryAfter(Duration, String),
    /// It is a dead letter, for this reason.
    DeadLetter(String),
}

impl Outcome {
    pub(super) fn verdict(self) -> Verdict {
        match self {
            Self::Ack => Verdict::Ack,
            Self::Nack(reason) => Verdict::Nack { retry_after_ms: None, reason },
            Self::RetryAfter(wait, reason) => {
                Verdict::Nack { retry_after_ms: Some(millis(wait)), reason }
            }
            Self::DeadLetter(reason) => Verdict::Dead { reason },
        }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Ack
    }
}

impl<E: fmt::Display> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::Ack,
            Err(error) => Self::Nack(error.to_string()),
        }
    }
}

/// The answer for a message did not reach the broker, or counts for nothing: its queue is another
/// member's by now, the group's progress was reset, or the consumer was closed. It may be delivered
/// again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the answer counts for nothing: the message may be delivered again")]
pub struct AnswerError;

/// Where answers go.
#[derive(Debug)]
pub(super) struct AnswerDoors {
    pub(super) settles: Inbox<Settle>,
    pub(super) acks: Inbox<AckRanges>,
}

/// The place of a message among what is in work.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) doors: Arc<AnswerDoors>,
    pub(super) slot: u64,
    pub(super) item: u64,
    pub(super) offset: Offset,
}

impl Ticket {
    /// Tells what became of it; a consumer that is closed hears nothing more.
    pub(super) fn settle(&self, verdict: Verdict, done: Option<grus_mailbox::Port<()>>) {
        let (slot, item, offset) = (self.slot, self.item, self.offset);
        let _ = self.doors.settles.try_put(Settle { slot, item, offset, verdict, done });
    }
}

/// Neighbouring messages of one item that are done: told by one word.
struct Run {
    doors: Arc<AnswerDoors>,
    slot: u64,
    item: u64,
    range: OffsetRange,
}

impl Run {
    /// Also this one, if it is the next.
    fn extend(&mut self, ticket: &Ticket) -> bool {
        let is_next = (self.slot, self.item) == (ticket.slot, ticket.item)
            && self.range.to == ticket.offset
            && Arc::ptr_eq(&self.doors, &ticket.doors);
        if is_next {
            self.range.to = Offset(ticket.offset.0 + 1);
        }
        is_next
    }

    fn tell(self) {
        let Self { doors, slot, item, range } = self;
        // Closed: it hears nothing more.
        let _ = doors.acks.try_put(AckRanges { slot, item, ranges: vec![range], done: None });
    }
}

/// A message that is in the program's hands until it answers for it. **One that is dropped
/// unanswered has failed**, and comes again as the group's ladder says; only with
/// [`AckMode::Before`](crate::AckMode::Before) no answer counts.
#[derive(Debug)]
pub struct Handed {
    consumed: Consumed,
    ticket: Option<Ticket>,
    hooks: Option<ReceiveHooks>,
}

impl Handed {
    pub(super) fn new(consumed: Consumed, ticket: Ticket, hooks: Option<ReceiveHooks>) -> Self {
        if let Some(hooks) = &hooks {
            hooks.before(consumed.message());
        }
        Self { consumed, ticket: Some(ticket), hooks }
    }

    /// The message, to keep.
    pub fn consumed(&self) -> &Consumed {
        &self.consumed
    }

    /// It is done. Waits until the broker knows.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub async fn ack(self) -> Result<(), AnswerError> {
        self.settle(Outcome::Ack).await
    }

    /// It failed, and comes again. Waits until the broker knows.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub async fn nack(self, reason: impl Into<String>) -> Result<(), AnswerError> {
        self.settle(Outcome::Nack(reason.into())).await
    }

    /// Answers for it. Waits until the broker knows.
    ///
    /// # Errors
    /// See [`AnswerError`].
    pub async fn settle(mut self, outcome: Outcome) -> Result<(), AnswerError> {
        let (done, answer) = reply::port();
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(outcome.verdict(), Some(done));
        }
        answer.await.map_err(|Dropped| AnswerError)
    }

    /// Gives it back unhandled: it has not failed, and comes to whoever has its queue next. To this
    /// consumer it comes again only with the next claim, so this is for a program that stops.
    pub fn give_back(mut self) {
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(Verdict::Unhandled, None);
        }
    }

    /// Answers for many, in order: as [`Handed::answer`] for each, and cheaper where neighbours are done.
    pub fn answer_all(answers: impl IntoIterator<Item = (Self, Outcome)>) {
        let mut run: Option<Run> = None;
        for (mut handed, outcome) in answers {
            let Some(ticket) = handed.ticket.take() else { continue };
            if outcome != Outcome::Ack {
                ticket.settle(outcome.verdict(), None);
            } else if !run.as_mut().is_some_and(|run| run.extend(&ticket)) {
                let Ticket { doors, slot, item, offset } = ticket;
                let next = Run { doors, slot, item, range: OffsetRange::one(offset) };
                run.replace(next).into_iter().for_each(Run::tell);
            }
        }
        run.into_iter().for_each(Run::tell);
    }

    /// Answers for it. The answer is told together with others, within a tenth of a second.
    pub fn answer(mut self, outcome: Outcome) {
        if let Some(ticket) = self.ticket.take() {
            ticket.settle(outcome.verdict(), None);
        }
    }
}

impl Deref for Handed {
    type Target = Consumed;

    fn deref(&self) -> &Consumed {
        &self.consumed
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(hooks) = &self.hooks {
            hooks.after(self.consumed.message());
        }
        if let Some(ticket) = self.ticket.take() {
            let reason = if std::thread::panicking() {
                "the program panicked"
            } else {
                "the program dropped it unanswered"
            };
            ticket.settle(Outcome::Nack(reason.to_owned()).verdict(), None);
        }
    }
}
