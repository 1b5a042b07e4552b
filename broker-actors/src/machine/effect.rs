//! What applying an item answers, and what the index learns from it.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{QueueKey, TopicId};

use super::groups::{Claimed, Moved, Settled};
use super::{Appended, InitializedProducer, Refusal};

/// The answer to one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// To an Append.
    Append(Result<Appended, Refusal>),
    /// To a TopicConfig.
    TopicConfig(Result<(), Refusal>),
    /// To a TopicDrop: whether the topic was there.
    TopicDrop(bool),
    /// To an InitProducer.
    InitProducer(Result<InitializedProducer, Refusal>),
    /// To a Retain: how many queues moved their start.
    Retain(usize),
    /// To a Fence.
    Fence(Result<(), Refusal>),
    /// To a Release: how many batches were released.
    Release(u32),
    /// To a Recall: whether the message was taken back.
    Recall(bool),
    /// To a Roll: whether the batch lies there now.
    Roll(bool),
    /// To what makes, changes or removes a schedule.
    Schedule(Result<(), Refusal>),
    /// To a step of a schedule: whether it counted.
    ScheduleRun(bool),
    /// To a member's claim of a queue.
    Claim(Result<Claimed, Refusal>),
    /// To a member's answers.
    Settle(Result<Settled, Refusal>),
    /// To what the leader is about to send, or a member hands back: whether that member still holds
    /// the queue.
    Delivered(bool),
    /// To a reset of a group's progress.
    Reset(Result<Moved, Refusal>),
    /// To the end of a group: whether there was anything of it.
    DropGroup(bool),
    /// To what a coordinator has decided.
    GroupChange(Result<(), Refusal>),
    /// To sending dead letters back: how many were.
    Redrive(Result<u64, Refusal>),
    /// To forgetting dead letters: how many were.
    Purge(Result<u64, Refusal>),
}

/// A released batch, for the index.
#[derive(Debug, Clone)]
pub struct ReleasedRun {
    /// Where its bytes begin in the item.
    pub place: u32,
    /// Its offsets.
    pub appended: Appended,
    /// The batch.
    pub batch: RecordBatch,
}

/// What the index must learn from an item.
#[derive(Debug, Clone)]
pub enum IndexChange {
    /// A batch was stored.
    Stored {
        /// Its queue.
        queue: QueueKey,
        /// Its receipt.
        appended: Appended,
        /// The batch.
        batch: RecordBatch,
    },
    /// Scheduled batches can be seen now.
    Released {
        /// Their queue.
        queue: QueueKey,
        /// The batches, in order.
        runs: Vec<ReleasedRun>,
    },
    /// A topic is gone.
    Dropped(TopicId),
}

/// What applying an item did.
#[derive(Debug)]
pub struct Effect {
    /// The answer to whoever proposed it.
    pub outcome: Outcome,
    /// What the index must learn, if anything.
    pub index: Option<IndexChange>,
}

impl From<Outcome> for Effect {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, index: None }
    }
}
