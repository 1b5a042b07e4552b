//! Storing messages.

use super::Timer;
use crate::ids::{
    Durability, Offset, ProducerEpoch, ProducerId, QueueId, Term, TimestampMs, TopicId,
};

use crate::names::{ProducerName, TopicName};
use crate::wire::wire_message;

wire_message! {
    /// Asks for the identity of an idempotent producer.
    pub struct InitProducer {
        /// The name under which it comes back after a restart: the same id with the next epoch,
        /// so that an earlier life is fenced. nil: a new id.
        pub name: Option<ProducerName> = None,
    }
}

wire_message! {
    /// The identity to put in each batch.
    pub struct InitProducerReply {
        /// The producer's id, never 0.
        pub producer_id: ProducerId,
        /// The epoch of this life.
        pub producer_epoch: ProducerEpoch,
    }
}

wire_message! {
    /// Stores one record batch, the frame's body, in one queue.
    pub struct Produce {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// How long the broker may take to answer, in milliseconds; 0: the broker's default.
        pub timeout_ms: u32 = 0,
    }
}

wire_message! {
    /// The receipt: the batch is stored as `durability` promises.
    pub struct ProduceReply {
        /// Offset of the batch's first record; the others follow without gaps.
        pub base_offset: Offset,
        /// Term in which it was stored.
        pub term: Term,
        /// When it was stored, by the leader's clock.
        pub stored: TimestampMs,
        /// What this receipt promises.
        pub durability: Durability,
        /// Whether the batch was there before; this is its first receipt again then.
        pub duplicate: bool = false,
        /// The batch is scheduled: so its first message is named, the others follow. It has no
        /// offset yet: `base_offset` is 0. nil: it is in its queue.
        pub timer: Option<Timer> = None,
        /// The batch is scheduled: delays of its records count from here, by the leader's clock.
        /// nil: it is in its queue, or was there before, when it was counted from another time.
        pub delays_from: Option<TimestampMs> = None,
    }
}
