//! What goes through a producer: what is sent, who awaits it, how it ends.

use bytes::Bytes;
use grus_protocol::{BatchBuilder, MessageId, NewRecord, QueueId, RecordError};

use super::choice::Pick;
use super::identities::Source;
use super::outcome::Stored;
use crate::error::SendError;
use crate::message::Message;
use crate::route::LinkId;

/// What is sent.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one message is the usual case: no allocation for it"
)]
pub(crate) enum Load {
    /// A message, to be put in a batch with others.
    One(NewRecord),
    /// A whole batch, encoded already.
    Many(BatchBuilder),
    /// The same, with its first message for a function of the program's own to choose by.
    ManyLike(BatchBuilder, Box<Message>),
}

/// The ids of what one caller sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ids {
    /// Of a message.
    One(MessageId),
    /// Of a batch.
    Many(Vec<MessageId>),
}

impl Ids {
    /// How many messages they are of.
    pub(super) fn count(&self) -> u64 {
        self.as_slice().len() as u64
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[MessageId] {
        match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }
}

/// What all messages of a batch have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchKind {
    /// Whether they wait for a time; each for its own.
    is_scheduled: bool,
    ttl_ms: Option<u64>,
}

impl BatchKind {
    /// Of the batches that this record may be in.
    pub(crate) fn of(record: &NewRecord) -> Self {
        let is_scheduled = record.deliver_at.is_some() || record.delay_ms.is_some();
        Self { is_scheduled, ttl_ms: record.ttl_ms }
    }

    /// Why a record may not be in such a batch.
    pub(crate) fn refuses(self, record: &NewRecord) -> Option<RecordError> {
        let other = Self::of(record);
        if self.is_scheduled != other.is_scheduled {
            return Some(RecordError::MixedDueTimes);
        }
        (self.ttl_ms != other.ttl_ms).then_some(RecordError::MixedTtls)
    }
}

/// Whoever awaits one message, or one whole batch.
#[derive(Debug)]
pub(crate) struct Member<P> {
    pub(crate) port: P,
    pub(crate) ids: Ids,
    /// What it said about its queue, should it need another one.
    pub(super) pick: Pick,
    /// The flush it belongs to.
    pub(super) generation: u64,
}

/// The callers of one batch, in the order of its records.
pub(crate) type Members<P> = Vec<Member<P>>;

/// How a batch ended.
#[derive(Debug)]
pub(crate) struct Ended<P> {
    /// The queue, unless it failed before it had one.
    pub(crate) queue: QueueId,
    pub(crate) members: Members<P>,
    pub(crate) result: Result<Stored, SendError>,
}

/// A batch to be sent now.
#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) link: LinkId,
    pub(crate) queue: QueueId,
    pub(crate) serial: u64,
    pub(crate) attempt: u64,
    pub(crate) bytes: Bytes,
}

/// Something the producer must be told before it can go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Route,
    Identity {
        /// From whom.
        source: Source,
        /// Over which connection; `None`: over any, to whoever gives them.
        over: Option<LinkId>,
    },
}
