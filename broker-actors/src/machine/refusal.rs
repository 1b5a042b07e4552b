//! Why an item changed nothing, as its proposer is told.

use grus_protocol::ids::{Generation, ProducerEpoch, Sequence};
use thiserror::Error;

/// Why an item changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The queue is not here, or not in this incarnation.
    #[error("unknown queue")]
    UnknownQueue,
    /// Records before this batch are missing.
    #[error("sequence {} expected", expected.0)]
    SequenceGap {
        /// The sequence that would be next.
        expected: Sequence,
    },
    /// The batch lies before what is remembered of its producer.
    #[error("batch is older than the remembered ones, sequence {} expected", expected.0)]
    SequenceStale {
        /// The sequence that would be next.
        expected: Sequence,
    },
    /// A newer epoch of this producer exists.
    #[error("producer is fenced by epoch {}", epoch.0)]
    Fenced {
        /// The newest epoch.
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
    /// The batch's header does not hold together.
    #[error("malformed batch")]
    MalformedBatch,
    /// The queue is at its cap, and its topic refuses rather than removes.
    #[error("the queue is at its cap of {cap} {what}")]
    QueueFull {
        /// The setting that is the cap.
        what: &'static str,
        /// Its value.
        cap: u64,
        /// What the queue would have had.
        wanted: u64,
    },
    /// The batch would not fit the queue if that were empty.
    #[error("the batch is above the queue's {what} of {cap} by itself")]
    AboveCap {
        /// The setting that is the cap.
        what: &'static str,
        /// Its value.
        cap: u64,
        /// What the batch has.
        wanted: u64,
    },
    /// The topic is temporary: its messages lie in no log.
    #[error("the topic is temporary")]
    InMemory,
    /// The topic remembers no dedup keys.
    #[error("the topic takes no dedup keys: its dedup_window_ms is 0")]
    NoDedup,
    /// The queue has no such schedule.
    #[error("unknown schedule")]
    UnknownSchedule,
    /// The queue has a schedule of this name.
    #[error("schedule exists")]
    ScheduleExists,
    /// The group has no dead-letter queue in this shard: it is not known here.
    #[error("unknown group")]
    UnknownGroup,
    /// Somebody else holds the queue for the group.
    #[error("queue is held by generation {generation}")]
    NotHeld {
        /// The greatest generation that has claimed it.
        generation: Generation,
    },
    /// The progress was reset since.
    #[error("progress was reset, round {round} is on")]
    ProgressReset {
        /// The round that is on.
        round: u32,
    },
}

impl Refusal {
    /// Whether the cap of a queue is the reason.
    pub(crate) const fn is_of_a_cap(&self) -> bool {
        matches!(self, Self::QueueFull { .. } | Self::AboveCap { .. })
    }
}
