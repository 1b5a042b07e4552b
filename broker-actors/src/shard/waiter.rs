//! Who waits for a proposed item, and how each is answered.

use grus_mailbox::{Credit, Port};
use grus_protocol::ids::{Durability, TimestampMs, TopicId};

use super::TopicOpened;
use crate::commands::recurring::ScheduleKey;
use crate::error::QueueError;
use crate::machine::groups::{Claimed, Moved, Settled};
use crate::machine::{InitializedProducer, Outcome};
use crate::retention::Removed;
use crate::topic_queue::Receipt;

/// Waits for one proposed item.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A producer waits for its receipt.
    Produce {
        /// Gets it.
        reply: Port<Result<Receipt, QueueError>>,
        /// Bytes of the queue's inbox, held until the receipt leaves.
        credit: Credit,
    },
    /// Someone waits for a topic's queues.
    OpenTopic {
        /// The topic.
        topic: TopicId,
        /// Gets the queues.
        reply: Port<Result<TopicOpened, QueueError>>,
    },
    /// Someone waits for a topic to be gone.
    DropTopic {
        /// The topic.
        topic: TopicId,
        /// Gets the word.
        reply: Port<Result<(), QueueError>>,
    },
    /// A producer waits for its identity.
    InitProducer {
        /// Gets it.
        reply: Port<Result<InitializedProducer, QueueError>>,
    },
    /// Someone waits for an earlier life of a producer to be shut out.
    Fence {
        /// Gets the word.
        reply: Port<Result<(), QueueError>>,
    },
    /// The wheel waits: whether its item did what it was for.
    Timer {
        /// Gets the word.
        reply: Port<Result<bool, QueueError>>,
    },
    /// Someone waits for a schedule to be made, changed or removed.
    Schedule {
        /// When it runs next, once that is done.
        next: Option<TimestampMs>,
        /// Gets that.
        reply: Port<Result<Option<TimestampMs>, QueueError>>,
    },
    /// The shard itself waits for a step of a schedule.
    ScheduleRun {
        /// Which.
        key: ScheduleKey,
        /// How late it was proposed, in milliseconds; none if it sends nothing.
        late_ms: Option<u64>,
    },
    /// Somebody waits for an item of a group.
    Group {
        /// Gets what it did.
        reply: Port<Result<GroupDone, QueueError>>,
    },
    /// The shard's own retention.
    Retain {
        /// What goes once it is applied.
        removed: Removed,
    },
}

impl Waiter {
    /// Whether it is a producer or a consumer who waits, and not the shard itself.
    pub(crate) const fn is_client(&self) -> bool {
        matches!(self, Self::Produce { .. } | Self::Group { .. })
    }
}

/// What an item of a group did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupDone {
    /// The queue is its member's.
    Claimed(Claimed),
    /// Answers were taken.
    Settled(Settled),
    /// Deliveries were counted; false: the queue is held by another one.
    Delivered(bool),
    /// The progress was set elsewhere.
    Moved(Moved),
    /// What the coordinator decided is in the log, or the group is gone.
    Noted,
    /// So many dead letters were sent back, or forgotten.
    Letters(u64),
}

impl GroupDone {
    /// What applying the item gave.
    ///
    /// # Panics
    /// When the outcome is that of another sort of item.
    fn of(outcome: Outcome) -> Result<Self, QueueError> {
        Ok(match outcome {
            Outcome::Claim(result) => Self::Claimed(result?),
            Outcome::Settle(result) => Self::Settled(result?),
            Outcome::Delivered(counted) => Self::Delivered(counted),
            Outcome::Reset(result) => Self::Moved(result?),
            Outcome::GroupChange(result) => {
                result?;
                Self::Noted
            }
            Outcome::DropGroup(_) => Self::Noted,
            Outcome::Redrive(result) | Outcome::Purge(result) => Self::Letters(result?),
            outcome => panic!("an item of a group was answered by {outcome:?}"),
        })
    }
}

/// What is left to do for a waiter besides what [`Waiter::answer`] did.
#[derive(Debug)]
pub(crate) enum Rest {
    /// Nothing.
    Done,
    /// Open the topic's queues, then answer.
    Open(TopicId, Port<Result<TopicOpened, QueueError>>),
    /// Close the topic's queues, then answer.
    Close(TopicId, Port<Result<(), QueueError>>),
    /// A step of the schedule is applied, or was not.
    ScheduleRan {
        /// Which.
        key: ScheduleKey,
        /// See [`Waiter::ScheduleRun`].
        late_ms: Option<u64>,
        /// Whether it is applied, and was the schedule's next one.
        counts: bool,
    },
    /// The retention item is applied, or was not.
    Retained {
        /// What has gone, if the starts have moved.
        removed: Option<Removed>,
    },
}

impl Waiter {
    /// Whether its item lets go of messages: on a full disk it goes before what needs room.
    pub(crate) const fn makes_room(&self) -> bool {
        matches!(self, Self::Retain { .. } | Self::DropTopic { .. })
    }

    /// Answers with what applying the item gave.
    ///
    /// # Panics
    /// When the outcome is that of another sort of item.
    pub(crate) fn answer(self, outcome: Outcome, durability: Durability) -> Rest {
        match (self, outcome) {
            (Self::Produce { reply, credit }, Outcome::Append(result)) => {
                let receipt = result.map_err(QueueError::from).map(|appended| Receipt {
                    base_offset: appended.base_offset,
                    timer: appended.timer,
                    count: appended.count,
                    term: appended.term,
                    stored: appended.stored,
                    durability,
                    duplicate: appended.duplicate,
                });
                reply.send(receipt);
                drop(credit);
                Rest::Done
            }
            (Self::OpenTopic { topic, reply }, Outcome::TopicConfig(Ok(()))) => {
                Rest::Open(topic, reply)
            }
            (Self::OpenTopic { reply, .. }, Outcome::TopicConfig(Err(refusal))) => {
                reply.send(Err(refusal.into()));
                Rest::Done
            }
            (Self::DropTopic { topic, reply }, Outcome::TopicDrop(_)) => Rest::Close(topic, reply),
            (Self::InitProducer { reply }, Outcome::InitProducer(result)) => {
                reply.send(result.map_err(QueueError::from));
                Rest::Done
            }
            (Self::Fence { reply }, Outcome::Fence(result)) => {
                reply.send(result.map_err(QueueError::from));
                Rest::Done
            }
            (Self::Timer { reply }, Outcome::Release(released)) => {
                reply.send(Ok(released > 0));
                Rest::Done
            }
            (Self::Timer { reply }, Outcome::Recall(done) | Outcome::Roll(done)) => {
                reply.send(Ok(done));
                Rest::Done
            }
            (Self::Schedule { next, reply }, Outcome::Schedule(result)) => {
                reply.send(result.map(|()| next).map_err(QueueError::from));
                Rest::Done
            }
            (Self::ScheduleRun { key, late_ms }, Outcome::ScheduleRun(counts)) => {
                Rest::ScheduleRan { key, late_ms, counts }
            }
            (Self::Group { reply }, outcome) => {
                reply.send(GroupDone::of(outcome));
                Rest::Done
            }
            (Self::Retain { removed }, Outcome::Retain(_)) => {
                Rest::Retained { removed: Some(removed) }
            }
            (waiter, outcome) => panic!("{waiter:?} was answered by {outcome:?}"),
        }
    }

    /// Tells it why there is no answer.
    pub(crate) fn fail(self, error: QueueError) -> Rest {
        match self {
            Self::Produce { reply, credit } => {
                reply.send(Err(error));
                drop(credit);
            }
            Self::OpenTopic { reply, .. } => reply.send(Err(error)),
            Self::DropTopic { reply, .. } | Self::Fence { reply } => reply.send(Err(error)),
            Self::InitProducer { reply } => reply.send(Err(error)),
            Self::Timer { reply } => reply.send(Err(error)),
            Self::Schedule { reply, .. } => reply.send(Err(error)),
            Self::Group { reply } => reply.send(Err(error)),
            Self::ScheduleRun { key, late_ms } => {
                return Rest::ScheduleRan { key, late_ms, counts: false };
            }
            Self::Retain { .. } => return Rest::Retained { removed: None },
        }
        Rest::Done
    }
}
