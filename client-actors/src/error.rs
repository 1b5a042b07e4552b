//! What can go wrong, by what the caller can do about it.

use std::fmt;
use std::sync::Arc;

use grus_protocol::{
    ErrorCode, ErrorDetail, ErrorReply, Offset, QueueId, RecordError, Term, TopicName,
};
use thiserror::Error;

/// A broker's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, as a stable code.
    pub code: ErrorCode,
    /// One line for a person.
    pub message: Arc<str>,
    /// Whether the same request may succeed later.
    pub retriable: bool,
    /// How long the broker asked to wait, in milliseconds; 0: it did not say.
    pub retry_after_ms: u32,
    /// What a program needs to act on it.
    pub detail: Option<ErrorDetail>,
}

impl Refusal {
    /// The record the refusal is about: its index in the batch, from 0.
    pub fn record_index(&self) -> Option<u32> {
        match self.detail {
            Some(ErrorDetail::Record { record_index }) => Some(record_index),
            Some(ErrorDetail::Limit { record_index, .. }) => record_index,
            _ => None,
        }
    }
}

impl From<ErrorReply> for Refusal {
    fn from(reply: ErrorReply) -> Self {
        Self {
            code: reply.code,
            message: reply.message.into(),
            retriable: reply.retriable || reply.code.is_retriable(),
            retry_after_ms: reply.retry_after_ms,
            detail: reply.detail,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            return fmt::Display::fmt(&self.code, out);
        }
        write!(out, "{} ({})", self.message, self.code)
    }
}

/// Why a message was not acknowledged. [`SendError::maybe_stored`] tells whether it may be in its
/// queue all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// As many bytes as the producer may hold are waiting to be stored. Nothing was taken: slow
    /// down, or try again later.
    #[error("producer is full: {pending_bytes_max} bytes are waiting to be stored")]
    Full {
        /// The producer's bound.
        pending_bytes_max: u32,
    },
    /// The message breaks a limit or a rule. Nothing of its batch was sent.
    #[error("message {index} of the batch cannot be sent: {reason}")]
    Invalid {
        /// Its index in the batch, from 0; 0 for a message sent alone.
        index: usize,
        /// The limit or the rule.
        reason: RecordError,
    },
    /// A batch has no messages.
    #[error("a batch without messages cannot be sent")]
    EmptyBatch,
    /// The messages of a batch ask for more than one queue: a batch goes to one. Nothing of it
    /// was sent.
    #[error("message {index} of the batch belongs to another queue than the first one")]
    MixedQueues {
        /// The first message that does not belong, from 0.
        index: usize,
    },
    /// The topic has no such queue.
    #[error("queue {queue} does not exist: the topic has {queues}")]
    UnknownQueue {
        /// The queue the message was given.
        queue: QueueId,
        /// How many the topic has, numbered from 0.
        queues: u32,
    },
    /// There is no such topic and it may not be made, or the broker does not serve it.
    #[error("topic {topic} is not there: {refusal}")]
    Topic {
        /// Its name.
        topic: TopicName,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The broker refused it for good.
    #[error("broker refused: {0}")]
    Refused(Refusal),
    /// A later life of this named producer is at work: this one can store nothing any more.
    #[error("producer is fenced: {0}")]
    Fenced(Refusal),
    /// It was not stored within the send timeout and the retries, as far as is known.
    #[error("not acknowledged in time{}{}", said(*maybe_stored), because(cause.as_ref()))]
    Timeout {
        /// Whether it was sent and not answered, so that it may be stored.
        maybe_stored: bool,
        /// The last refusal, when there was one.
        cause: Option<Refusal>,
    },
    /// The producer or its client was closed or dropped before it was acknowledged.
    #[error("producer is closed{}", said(*maybe_stored))]
    Closed {
        /// Whether it was sent and not answered, so that it may be stored.
        maybe_stored: bool,
    },
}

fn said(maybe_stored: bool) -> &'static str {
    if maybe_stored { " (sent, and may be stored)" } else { " (not stored)" }
}

fn because(cause: Option<&Refusal>) -> String {
    cause.map_or_else(String::new, |refusal| format!(": {refusal}"))
}

impl SendError {
    /// Whether the message may be in its queue although it was not acknowledged. When it is sent
    /// once more, as a new message, it may be there twice.
    pub fn maybe_stored(&self) -> bool {
        match self {
            Self::Timeout { maybe_stored, .. } | Self::Closed { maybe_stored } => *maybe_stored,
            Self::Refused(refusal) => {
                refusal.code.outcome_unknown() || refusal.code == ErrorCode::DuplicateForgotten
            }
            _ => false,
        }
    }

    /// Whether the same message may be taken later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Full { .. } | Self::Timeout { .. } => true,
            Self::Refused(refusal) | Self::Topic { refusal, .. } => refusal.retriable,
            _ => false,
        }
    }

    /// A timeout of which nothing is known yet but this.
    pub(crate) fn or_because(self, reason: Option<&Refusal>) -> Self {
        match self {
            Self::Timeout { maybe_stored, cause: None } => Self::timeout(maybe_stored, reason),
            error => error,
        }
    }

    pub(crate) fn timeout(maybe_stored: bool, cause: Option<&Refusal>) -> Self {
        Self::Timeout { maybe_stored, cause: cause.cloned() }
    }
}

/// Why a reader could not read on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The queue does not hold the next offset: it was removed by retention, or was never there.
    /// That queue rests until [`Reader::seek`](crate::Reader::seek); the others go on.
    #[error("queue {queue} holds offsets {log_start} to before {end_offset}, not {asked}")]
    OffsetOutOfRange {
        /// The queue.
        queue: QueueId,
        /// The offset wanted.
        asked: Offset,
        /// The first offset there is.
        log_start: Offset,
        /// The offset the next record will get.
        end_offset: Offset,
    },
    /// The reader has read records that the queue has not kept (only possible with `replicated`
    /// durability, after a majority lost power). That queue rests until
    /// [`Reader::seek`](crate::Reader::seek); the others go on.
    #[error("queue {queue} has other records before offset {asked} than were read")]
    Diverged {
        /// The queue.
        queue: QueueId,
        /// The offset wanted.
        asked: Offset,
        /// Up to where what was read is what the queue holds, and the term there, if known.
        agreed: Option<(Offset, Term)>,
    },
    /// A stored batch is damaged or was damaged on the way more than once. That queue rests until
    /// [`Reader::seek`](crate::Reader::seek); the others go on. When a batch that came whole cannot be
    /// decompressed, or a single record cannot be decoded, its queue goes on with the next batch.
    #[error("queue {queue}: damaged at offset {at}: {reason}")]
    Damaged {
        /// The queue.
        queue: QueueId,
        /// The offset wanted.
        at: Offset,
        /// What is wrong.
        reason: Arc<str>,
    },
    /// There is no such topic.
    #[error("topic {topic} is not there: {refusal}")]
    Topic {
        /// Its name.
        topic: TopicName,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The topic has no such queue.
    #[error("queue {queue} does not exist: the topic has {queues}")]
    UnknownQueue {
        /// The queue asked for.
        queue: QueueId,
        /// How many the topic has, numbered from 0.
        queues: u32,
    },
    /// No broker answered in time. What was asked may be asked again.
    #[error("queue {queue}: not answered in time{}", because(cause.as_ref()))]
    Unanswered {
        /// The queue.
        queue: QueueId,
        /// The last refusal, when there was one.
        cause: Option<Refusal>,
    },
    /// The broker refuses to let this queue be read.
    #[error("queue {queue}: broker refused: {refusal}")]
    Refused {
        /// The queue.
        queue: QueueId,
        /// What the broker said.
        refusal: Refusal,
    },
    /// The reader or its client was closed.
    #[error("reader is closed")]
    Closed,
}

impl ReadError {
    /// The queue it is about, unless it is about all of them.
    pub fn queue(&self) -> Option<QueueId> {
        match self {
            Self::OffsetOutOfRange { queue, .. }
            | Self::Diverged { queue, .. }
            | Self::Damaged { queue, .. }
            | Self::UnknownQueue { queue, .. }
            | Self::Unanswered { queue, .. }
            | Self::Refused { queue, .. } => Some(*queue),
            Self::Topic { .. } | Self::Closed => None,
        }
    }
}

/// Why a client could not be started, or a request of it failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The configuration makes no sense.
    #[error("invalid configuration: {field} {problem}")]
    Config {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// No broker answered within the time allowed.
    #[error("no broker at {bootstrap} answers: {reason}")]
    NoBroker {
        /// The addresses tried.
        bootstrap: String,
        /// What the last one said.
        reason: String,
    },
    /// The broker refused.
    #[error("{0}")]
    Refused(Refusal),
    /// The request was sent and not answered in time.
    #[error("not answered in time{}", if *maybe_done { " (it may have been done)" } else { "" })]
    Timeout {
        /// Whether it may have been carried out.
        maybe_done: bool,
    },
    /// The answer could not be understood.
    #[error("the broker's answer makes no sense: {0}")]
    BadReply(String),
    /// The client's thread could not be started.
    #[error("client cannot start: {0}")]
    Start(String),
    /// The client was closed.
    #[error("client is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_say_whether_a_message_may_be_stored() {
        let sent = SendError::timeout(true, None);
        assert_eq!(sent.to_string(), "not acknowledged in time (sent, and may be stored)");
        let refusal = Refusal::from(ErrorReply::new(ErrorCode::StorageFull, "disk is full"));
        let waiting = SendError::timeout(false, Some(&refusal));
        assert_eq!(
            waiting.to_string(),
            "not acknowledged in time (not stored): disk is full (StorageFull)"
        );
        assert!(sent.maybe_stored() && !waiting.maybe_stored());
    }

    #[test]
    fn a_refusal_names_the_record_it_is_about() {
        let reply = ErrorReply::new(ErrorCode::MessageTooLarge, "")
            .with_detail(ErrorDetail::limit("message_bytes_max", 10, 11, Some(3)));
        assert_eq!(Refusal::from(reply).record_index(), Some(3));
    }
}
