//! Storing messages.

use super::Timer;
use crate::ids::{
    Durability, Offset, ProducerEpoch, ProducerId, QueueId, Term, TimestampMs, TopicId,
};

use crate::names::{ProducerName, TopicName};
use crate::wire::{wire_enum, wire_message};

wire_enum! {
    /// To whom a producer's name is to be known.
    pub enum NameScope {
        /// To the broker that is asked, alone: each gives the name an identity of its own.
        Broker = 0,
        /// To all brokers: the one that leads the shard of the names gives the next life.
        Life = 1,
        /// The broker that is asked is told of the life, and refuses earlier ones from then on.
        Announce = 2,
    }
}

wire_message! {
    /// Asks for the identity of an idempotent producer.
    pub struct InitProducer {
        /// The name under which it comes back after a restart: the same id with the next epoch,
        /// so that an earlier life is fenced. nil: a new id.
        pub name: Option<ProducerName> = None,
        /// To whom the name is to be known; of no account without one.
        pub scope: NameScope = NameScope::Broker,
        /// The life that is announced: its id.
        pub producer_id: ProducerId = ProducerId::NONE,
        /// The life that is announced: its first epoch.
        pub producer_epoch: ProducerEpoch = ProducerEpoch(0),
    }
}

impl InitProducer {
    /// Asks for an identity that the broker gives by itself: a new one, or that of the name there.
    pub const fn of_the_broker(name: Option<ProducerName>) -> Self {
        let (producer_id, producer_epoch) = (ProducerId::NONE, ProducerEpoch(0));
        Self { name, scope: NameScope::Broker, producer_id, producer_epoch }
    }

    /// Asks for the next life of a name that all brokers know.
    pub const fn next_life(name: ProducerName) -> Self {
        let (producer_id, producer_epoch) = (ProducerId::NONE, ProducerEpoch(0));
        Self { name: Some(name), scope: NameScope::Life, producer_id, producer_epoch }
    }
}

wire_message! {
    /// The identity to put in each batch.
    pub struct InitProducerReply {
        /// The producer's id, never 0.
        pub producer_id: ProducerId,
        /// The epoch of this life.
        pub producer_epoch: ProducerEpoch,
        /// How many epochs, from that one on, are this life's own, to go on under without asking; the
        /// name is known to all brokers. 0: that one alone, and the name is known to this broker.
        pub epochs: u32 = 0,
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
