//! What a queue or shard cannot do, as its callers are told.

use grus_protocol::error::{ErrorCode, ErrorDetail, ErrorReply};
use grus_protocol::ids::{Generation, Offset, ProducerEpoch, Sequence, Term};
use thiserror::Error;

use crate::machine::Refusal;

/// How long a producer waits before it repeats what a full queue has refused: what makes room is
/// looked at every few seconds.
const FULL_RETRY_MS: u32 = 500;

/// Why a queue or its shard did not do what it was asked. Variants by what the caller can do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    /// Another broker leads the shard; nothing was stored.
    #[error("shard is led elsewhere")]
    NotLeader {
        /// The leading broker, where known.
        leader: Option<u64>,
    },
    /// Leadership was lost, or the shard stopped, with the request under way: it may be stored.
    #[error("shard lost its leader with the request under way; its outcome is not known")]
    OutcomeUnknown,
    /// No room for the request now.
    #[error("too much is under way")]
    Overloaded {
        /// Wait this long before a retry.
        retry_after_ms: u32,
    },
    /// The shard is starting, electing a leader, or its queue is being rebuilt.
    #[error("shard is not ready")]
    Unavailable,
    /// The shard is stopping.
    #[error("shard is stopping")]
    Stopping,
    /// The disk is full: nothing is stored until space returns. Readers are served.
    #[error("disk is full")]
    StorageFull,
    /// There is no such queue here, or not of that incarnation of its topic.
    #[error("unknown queue")]
    UnknownQueue,
    /// The topic's durability is not that of the shard it was given to.
    #[error("durability of the topic is not that of the shard")]
    WrongShard,
    /// Messages are not indexed here: the operator has switched it off.
    #[error("messages are not found by id or key here: log.find_index is off")]
    NoFindIndex,
    /// Records before the batch are missing.
    #[error("sequence {expected} expected")]
    OutOfSequence {
        /// The sequence that would be next; 0 also when nothing is known of the producer here.
        expected: Sequence,
    },
    /// The batch was stored before, too long ago to repeat its receipt.
    #[error("batch was stored before, sequence {expected} is next")]
    DuplicateForgotten {
        /// The sequence that would be next.
        expected: Sequence,
    },
    /// A later life of the producer is at work.
    #[error("producer is fenced by epoch {epoch}")]
    ProducerFenced {
        /// Its newest epoch.
        epoch: ProducerEpoch,
    },
    /// A limit of the shard is reached.
    #[error("shard is at its limit of {limit} {what}")]
    Limit {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The batch is larger than an entry may be.
    #[error("batch of {bytes} bytes is larger than {bytes_max}")]
    BatchTooLarge {
        /// Its size.
        bytes: u64,
        /// The largest that is taken.
        bytes_max: u64,
    },
    /// The bytes are not a batch.
    #[error("malformed batch")]
    MalformedBatch,
    /// The queue is at its cap, and its topic refuses rather than removes. Nothing was stored.
    #[error("the queue is full: {wanted} would be above its {what} of {cap}")]
    QueueFull {
        /// The setting that is the cap.
        what: &'static str,
        /// Its value.
        cap: u64,
        /// What the queue would have had.
        wanted: u64,
    },
    /// The batch would not fit the queue if that were empty: fewer of its records might.
    #[error("the batch is too large for its queue: {wanted} is above its {what} of {cap}")]
    AboveCap {
        /// The setting that is the cap.
        what: &'static str,
        /// Its value.
        cap: u64,
        /// What the batch has.
        wanted: u64,
    },
    /// The topic is temporary: it takes what its producers send now, and nothing that was stored.
    #[error("the topic is temporary: it takes no stored messages")]
    InMemory,
    /// The topic remembers no dedup keys, so it takes none.
    #[error("the topic takes no dedup keys: its dedup_window_ms is 0")]
    NoDedup,
    /// The queue has no such schedule.
    #[error("the queue has no schedule of this name")]
    UnknownSchedule,
    /// The queue has a schedule of this name.
    #[error("the queue has a schedule of this name")]
    ScheduleExists,
    /// The group is not known in the queue's shard, or not any more.
    #[error("unknown group")]
    UnknownGroup,
    /// Another member holds the queue, or a later generation.
    #[error("the queue is held by generation {generation} of the group")]
    NotHeld {
        /// The greatest generation that has claimed it.
        generation: Generation,
    },
    /// The group's progress in the queue was reset since.
    #[error("the group's progress was reset, round {round} is on")]
    ProgressReset {
        /// The round that is on.
        round: u32,
    },
    /// The offset lies outside the queue.
    #[error("offset is outside of {log_start} to {end_offset}")]
    OffsetOutOfRange {
        /// The first offset there is.
        log_start: Offset,
        /// The offset the next record gets.
        end_offset: Offset,
    },
    /// The reader has read what a crash has since taken back.
    #[error("records of term {term} end at {end_offset}")]
    Diverged {
        /// The greatest term of the queue that is not above the reader's.
        term: Term,
        /// Where that term's records end: the reader goes on there.
        end_offset: Offset,
        /// The first offset there is.
        log_start: Offset,
    },
    /// The subscription has ended, or never was.
    #[error("there is no such subscription")]
    UnknownSubscription,
    /// Stored bytes are damaged; all else is served.
    #[error("records {from} to {to} are damaged")]
    CorruptRange {
        /// The first offset that cannot be read.
        from: Offset,
        /// The next one that can.
        to: Offset,
    },
}

impl QueueError {
    /// The wire's number for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotLeader { .. } => ErrorCode::NotLeader,
            Self::OutcomeUnknown => ErrorCode::OutcomeUnknown,
            Self::Unavailable => ErrorCode::Unavailable,
            Self::Stopping => ErrorCode::ShuttingDown,
            Self::StorageFull => ErrorCode::StorageFull,
            Self::UnknownQueue => ErrorCode::UnknownQueue,
            Self::OutOfSequence { .. } => ErrorCode::OutOfSequence,
            Self::DuplicateForgotten { .. } => ErrorCode::DuplicateForgotten,
            Self::ProducerFenced { .. } => ErrorCode::ProducerFenced,
            Self::WrongShard => ErrorCode::InvalidRequest,
            Self::NoFindIndex => ErrorCode::UnsupportedFeature,
            Self::Limit { what: "topics" | "queues", .. } => ErrorCode::TooManyTopics,
            Self::Overloaded { .. } | Self::Limit { .. } => ErrorCode::Overloaded,
            Self::BatchTooLarge { .. } | Self::AboveCap { .. } => ErrorCode::BatchTooLarge,
            Self::MalformedBatch => ErrorCode::MalformedBatch,
            Self::QueueFull { .. } => ErrorCode::QueueFull,
            Self::NoDedup | Self::InMemory => ErrorCode::RecordNotAllowed,
            Self::UnknownSchedule => ErrorCode::UnknownSchedule,
            Self::ScheduleExists => ErrorCode::ScheduleExists,
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::Diverged { .. } => ErrorCode::Diverged,
            Self::CorruptRange { .. } => ErrorCode::CorruptRange,
            Self::UnknownSubscription => ErrorCode::UnknownSubscription,
            Self::UnknownGroup => ErrorCode::UnknownGroup,
            Self::NotHeld { .. } => ErrorCode::Fenced,
            Self::ProgressReset { .. } => ErrorCode::ProgressReset,
        }
    }

    /// What a program needs to act on it.
    pub fn detail(&self) -> Option<ErrorDetail> {
        match *self {
            Self::OutOfSequence { expected } | Self::DuplicateForgotten { expected } => {
                Some(ErrorDetail::ExpectedSequence(expected))
            }
            Self::OffsetOutOfRange { log_start, end_offset } => {
                Some(ErrorDetail::Bounds { log_start, end_offset })
            }
            Self::CorruptRange { from, to } => Some(ErrorDetail::Range { from, to }),
            Self::Diverged { term, end_offset, log_start } => {
                Some(ErrorDetail::Divergence { term, end_offset, log_start })
            }
            Self::BatchTooLarge { bytes, bytes_max } => {
                Some(ErrorDetail::limit("batch_bytes_max", bytes_max, bytes, None))
            }
            Self::QueueFull { what, cap, wanted } | Self::AboveCap { what, cap, wanted } => {
                Some(ErrorDetail::limit(what, cap, wanted, None))
            }
            _ => None,
        }
    }

    /// The error as a reply's header. The address of a leader is the caller's to add.
    pub fn to_reply(&self) -> ErrorReply {
        let mut reply = ErrorReply::new(self.code(), self.to_string());
        reply.detail = self.detail();
        if let Self::Overloaded { retry_after_ms } = self {
            reply.retry_after_ms = *retry_after_ms;
        }
        if let Self::QueueFull { .. } = self {
            reply.retry_after_ms = FULL_RETRY_MS;
        }
        reply
    }
}

impl From<Refusal> for QueueError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownQueue => Self::UnknownQueue,
            Refusal::SequenceGap { expected } => Self::OutOfSequence { expected },
            Refusal::SequenceStale { expected } => Self::DuplicateForgotten { expected },
            Refusal::Fenced { epoch } => Self::ProducerFenced { epoch },
            Refusal::Limit { what, limit } => Self::Limit { what, limit },
            Refusal::MalformedBatch => Self::MalformedBatch,
            Refusal::QueueFull { what, cap, wanted } => Self::QueueFull { what, cap, wanted },
            Refusal::AboveCap { what, cap, wanted } => Self::AboveCap { what, cap, wanted },
            Refusal::InMemory => Self::InMemory,
            Refusal::NoDedup => Self::NoDedup,
            Refusal::UnknownSchedule => Self::UnknownSchedule,
            Refusal::ScheduleExists => Self::ScheduleExists,
            Refusal::UnknownGroup => Self::UnknownGroup,
            Refusal::NotHeld { generation } => Self::NotHeld { generation },
            Refusal::ProgressReset { round } => Self::ProgressReset { round },
        }
    }
}
