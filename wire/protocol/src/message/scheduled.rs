//! What is scheduled: taking it back, listing, counting, showing it.

use serde_bytes::ByteBuf;

use crate::ids::{QueueId, ShardId, TimestampMs, TopicId};
use crate::names::TopicName;
use crate::wire::wire_message;

/// Most scheduled messages on one page, whatever is asked for.
pub const SCHEDULED_PAGE_MAX: u32 = 1_000;
/// Scheduled messages on a page when it is not said how many are wanted.
pub const SCHEDULED_PAGE_DEFAULT: u32 = 100;
/// Most messages that one request takes back.
pub const RECALL_MAX: u32 = 1_024;
/// The latest time there is, for ranges without an end.
pub const LATEST: TimestampMs = TimestampMs(u64::MAX);

wire_message! {
    /// Names a scheduled message, together with its topic and queue. Of what one queue was sent,
    /// the lesser was stored first.
    #[derive(Copy, PartialOrd, Ord, Hash)]
    pub struct Timer {
        /// The log index of the entry that it was stored with.
        pub index: u64,
        /// Its place among the scheduled messages of the entry; those of a batch follow each
        /// other.
        pub place: u32,
    }
}

impl Timer {
    /// That of the message so many behind this one in its batch.
    #[must_use]
    pub const fn nth(self, number: u32) -> Self {
        Self { index: self.index, place: self.place.saturating_add(number) }
    }
}

wire_message! {
    /// Takes scheduled messages of one queue back. What is recalled is never delivered.
    pub struct RecallMessage {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The messages, at most [`RECALL_MAX`].
        pub timers: Vec<Timer>,
    }
}

wire_message! {
    /// Which of them are taken back, for good.
    pub struct RecallMessageReply {
        /// For each of them, in order; false: it was released or recalled before, or never was
        /// scheduled.
        pub recalled: Vec<bool>,
    }
}

wire_message! {
    /// A place in a listing.
    #[derive(Copy)]
    pub struct ScheduledPlace {
        /// When the message there is due.
        pub due: TimestampMs,
        /// Its shard.
        pub shard: ShardId,
        /// Its timer.
        pub timer: Timer,
    }
}

wire_message! {
    /// Lists what is scheduled, the earliest first.
    pub struct ListScheduled {
        /// Of this topic; nil: of all.
        pub topic: Option<TopicName>,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId = TopicId::UNKNOWN,
        /// Of this queue of the topic; nil: of all.
        pub queue: Option<QueueId> = None,
        /// Due at this time or later.
        pub from: TimestampMs = TimestampMs(0),
        /// Due before this time; the greatest number: without an end.
        pub until: TimestampMs = LATEST,
        /// With this among their keys; nil: all.
        pub key: Option<ByteBuf> = None,
        /// Behind this place; nil: from the start.
        pub after: Option<ScheduledPlace> = None,
        /// Most of them on a page; 0: [`SCHEDULED_PAGE_DEFAULT`], at most [`SCHEDULED_PAGE_MAX`].
        pub messages_max: u32 = 0,
        /// Whether the messages themselves are wanted.
        pub with_bodies: bool = false,
    }
}

wire_message! {
    /// A page of what is scheduled on the broker. The messages that were wanted and can be read
    /// are the frame's body, each as a record batch of one that is not compressed.
    pub struct ListScheduledReply {
        /// By due time, then shard, then timer.
        pub messages: Vec<Scheduled>,
        /// Behind which place the next page begins; nil: this was the last one. A page may be
        /// empty and not the last.
        pub next: Option<ScheduledPlace> = None,
    }
}

wire_message! {
    /// A scheduled message.
    pub struct Scheduled {
        /// Its topic.
        pub topic: TopicName,
        /// The topic's incarnation.
        pub topic_id: TopicId,
        /// Its queue.
        pub queue: QueueId,
        /// Its shard.
        pub shard: ShardId,
        /// By which it is recalled and shown.
        pub timer: Timer,
        /// When it is due.
        pub due: TimestampMs,
        /// Its bytes in the body; 0: it is not there.
        pub length: u32 = 0,
    }
}

wire_message! {
    /// Counts what is scheduled on the broker.
    pub struct CountScheduled {
        /// Of this topic; nil: of all.
        pub topic: Option<TopicName>,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId = TopicId::UNKNOWN,
        /// Of this queue of the topic; nil: of all.
        pub queue: Option<QueueId> = None,
        /// Due at this time or later.
        pub from: TimestampMs = TimestampMs(0),
        /// Due before this time; the greatest number: without an end.
        pub until: TimestampMs = LATEST,
    }
}

wire_message! {
    /// How many there are.
    pub struct CountScheduledReply {
        /// Messages.
        pub messages: u64,
    }
}

wire_message! {
    /// Asks for a scheduled message itself.
    pub struct ShowScheduled {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The message, as its receipt or a listing named it.
        pub timer: Timer,
    }
}

wire_message! {
    /// The message is the frame's body, as a record batch of one that is not compressed.
    pub struct ShowScheduledReply {
        /// What is known of it.
        pub scheduled: Scheduled,
    }
}
