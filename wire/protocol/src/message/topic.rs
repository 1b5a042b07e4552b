//! Making, changing, describing and removing topics.

use std::fmt;

use crate::ids::{BrokerId, Durability, Offset, QueueId, ShardId, TimestampMs, TopicId};
use crate::names::TopicName;
use crate::wire::{wire_enum, wire_message};

/// Queues of a topic for which nothing else was said.
pub const TOPIC_QUEUES_DEFAULT: u32 = 4;
/// How long dedup keys are remembered where nothing else was said: 10 minutes.
pub const DEDUP_WINDOW_MS_DEFAULT: u64 = 10 * 60 * 1000;
/// The longest that dedup keys can be remembered: 7 days.
pub const DEDUP_WINDOW_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Retention of a topic for which nothing else was said: 7 days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * 24 * 3600 * 1000;

/// A number of replicas in a request that names none: the registry chooses, as many as there are brokers,
/// up to the number of its configuration. No topic that is there has it.
pub const REPLICAS_UNNAMED: u32 = 0;

/// Bytes of messages that a queue of a temporary topic keeps where nothing else was said: 64 MiB.
pub const TEMPORARY_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

wire_enum! {
    /// What sort of queues a topic has.
    pub enum TopicKind {
        /// In the log: messages are kept as the topic's durability promises.
        Durable = 0,
        /// In memory only, gone with the broker.
        Temporary = 1,
        /// Takes only messages with a due time.
        Delay = 2,
        /// A group's dead letters. Made by brokers alone.
        DeadLetter = 3,
    }
}

impl fmt::Display for TopicKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Durable => "durable",
            Self::Temporary => "temporary",
            Self::Delay => "delay",
            Self::DeadLetter => "dead_letter",
        })
    }
}

wire_enum! {
    /// What becomes of messages whose time to live is over. No reader and no group is given them.
    pub enum ExpiredPolicy {
        /// Groups pass over them.
        Drop = 0,
        /// Each group that comes to one makes it a dead letter of its own.
        DeadLetter = 1,
    }
}

impl fmt::Display for ExpiredPolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Drop => "drop",
            Self::DeadLetter => "dead_letter",
        })
    }
}

wire_enum! {
    /// What becomes of a message that finds its queue at its cap.
    pub enum WhenFull {
        /// It is stored, and the oldest of the queue go.
        DropOldest = 0,
        /// It is refused with [`ErrorCode::QueueFull`](crate::error::ErrorCode::QueueFull). The cap
        /// by age still removes the oldest, which makes room again; nothing else does, for what is
        /// consumed stays.
        Reject = 1,
    }
}

impl fmt::Display for WhenFull {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::DropOldest => "drop_oldest",
            Self::Reject => "reject",
        })
    }
}

wire_message! {
    /// How a topic is kept.
    pub struct TopicSettings {
        /// Number of queues, at least 1. Never shrinks.
        pub queues: u32 = TOPIC_QUEUES_DEFAULT,
        /// What an acknowledgement promises. Never changes. A temporary topic promises
        /// [`Durability::Memory`], whatever is asked for.
        pub durability: Durability = Durability::Persisted,
        /// Messages stored longer ago may be removed, in milliseconds; 0: no limit.
        pub retention_ms: u64 = RETENTION_MS_DEFAULT,
        /// The oldest batches of a queue that has more than so many bytes are removed; 0: no limit.
        pub retention_bytes: u64 = 0,
        /// What sort of queues it has. Never changes.
        pub kind: TopicKind = TopicKind::Durable,
        /// How long a dedup key is remembered after it was stored, in milliseconds, at most
        /// [`DEDUP_WINDOW_MS_MAX`]; 0: messages with a dedup key are refused.
        pub dedup_window_ms: u64 = DEDUP_WINDOW_MS_DEFAULT,
        /// What becomes of messages whose time to live is over.
        pub expired: ExpiredPolicy = ExpiredPolicy::Drop,
        /// How many brokers have each of its queues. 1: one alone. In a request [`REPLICAS_UNNAMED`], 0:
        /// the registry chooses; what it has chosen is in the reply.
        pub replicas: u32 = REPLICAS_UNNAMED,
        /// The oldest messages of a queue that has more than so many are removed; 0: no limit.
        pub retention_messages: u64 = 0,
        /// What becomes of a message that finds its queue at its cap by bytes or messages.
        pub when_full: WhenFull = WhenFull::DropOldest,
    }
}

impl TopicSettings {
    /// What becomes of settings that are asked for: a temporary topic promises memory alone, takes no
    /// dedup keys, and always has a cap by bytes.
    #[must_use]
    pub fn settled(self) -> Self {
        if self.kind != TopicKind::Temporary {
            return self;
        }
        let retention_bytes = match self.retention_bytes {
            0 => TEMPORARY_BYTES_DEFAULT,
            bytes => bytes,
        };
        let durability = Durability::Memory;
        Self { durability, retention_bytes, dedup_window_ms: 0, ..self }
    }

    /// Whether a topic that is kept so is what `asked` asks for: where no number of replicas is named,
    /// any will do.
    #[must_use]
    pub fn is_as_asked(&self, asked: &Self) -> bool {
        let mut asked = asked.clone().settled();
        if asked.replicas == REPLICAS_UNNAMED {
            asked.replicas = self.replicas;
        }
        *self == asked
    }
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            queues: TOPIC_QUEUES_DEFAULT,
            durability: Durability::Persisted,
            retention_ms: RETENTION_MS_DEFAULT,
            retention_bytes: 0,
            kind: TopicKind::Durable,
            dedup_window_ms: DEDUP_WINDOW_MS_DEFAULT,
            expired: ExpiredPolicy::Drop,
            replicas: REPLICAS_UNNAMED,
            retention_messages: 0,
            when_full: WhenFull::DropOldest,
        }
    }
}

wire_message! {
    /// Makes a topic. A system name is refused.
    pub struct CreateTopic {
        /// Its name.
        pub name: TopicName,
        /// How it is kept.
        pub settings: TopicSettings,
        /// Whether a topic of that name is an answer rather than an error; its settings are not
        /// compared.
        pub if_not_exists: bool = false,
    }
}

wire_message! {
    /// The topic is there.
    pub struct CreateTopicReply {
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept, which may differ from what was asked for when it was there before.
        pub settings: TopicSettings,
        /// Whether this request made it.
        pub created: bool = true,
    }
}

wire_message! {
    /// Changes a topic; nil leaves a setting as it is.
    pub struct AlterTopic {
        /// Its name.
        pub name: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// Number of queues: not fewer than there are.
        pub queues: Option<u32> = None,
        /// Retention by age in milliseconds; 0: no limit.
        pub retention_ms: Option<u64> = None,
        /// Retention by bytes of each queue; 0: no limit.
        pub retention_bytes: Option<u64> = None,
        /// How long dedup keys are remembered, in milliseconds; 0: none are taken.
        pub dedup_window_ms: Option<u64> = None,
        /// What becomes of messages whose time to live is over.
        pub expired: Option<ExpiredPolicy> = None,
        /// Retention by messages of each queue; 0: no limit.
        pub retention_messages: Option<u64> = None,
        /// What becomes of a message that finds its queue at its cap.
        pub when_full: Option<WhenFull> = None,
    }
}

wire_message! {
    /// The topic is changed.
    pub struct AlterTopicReply {
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept now.
        pub settings: TopicSettings,
    }
}

wire_message! {
    /// Removes a topic and its messages.
    pub struct DeleteTopic {
        /// Its name.
        pub name: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId = TopicId::UNKNOWN,
    }
}

wire_message! {
    /// The topic is gone.
    pub struct DeleteTopicReply {
        /// The incarnation that was removed.
        pub id: TopicId,
    }
}

wire_message! {
    /// Asks for all that is known of a topic.
    pub struct DescribeTopic {
        /// Its name.
        pub name: TopicName,
    }
}

wire_message! {
    /// All that is known of a topic.
    pub struct DescribeTopicReply {
        /// Its name.
        pub name: TopicName,
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept.
        pub settings: TopicSettings,
        /// When it was made.
        pub created: TimestampMs,
        /// Its queues, by number.
        pub queues: Vec<QueueDescription>,
    }
}

wire_message! {
    /// All that is known of a queue.
    pub struct QueueDescription {
        /// The queue.
        pub queue: QueueId,
        /// The shard that holds it.
        pub shard: ShardId,
        /// The broker that leads the shard; nil while there is none.
        pub leader_broker: Option<BrokerId>,
        /// First offset there is.
        pub log_start: Offset = Offset(0),
        /// Offset the next record will get.
        pub end_offset: Offset = Offset(0),
        /// Offset up to which records are on the leader's disk.
        pub flushed_offset: Offset = Offset(0),
        /// Bytes of the batches between the two.
        pub bytes: u64 = 0,
        /// When the last record was stored; 0: never.
        pub last_stored: TimestampMs = TimestampMs(0),
    }
}

wire_message! {
    /// Lists topics in order of their names.
    pub struct ListTopics {
        /// Only those after this name; nil: from the start.
        pub after: Option<TopicName> = None,
        /// Most topics to list; 0: the broker's own maximum.
        pub topics_max: u32 = 0,
        /// Whether system topics are listed.
        pub include_system: bool = false,
    }
}

wire_message! {
    /// A page of topics.
    pub struct ListTopicsReply {
        /// The topics, in order of their names.
        pub topics: Vec<TopicSummary>,
        /// Whether there are more after the last one.
        pub more: bool = false,
    }
}

wire_message! {
    /// One topic of a [`ListTopicsReply`].
    pub struct TopicSummary {
        /// Its name.
        pub name: TopicName,
        /// Its incarnation.
        pub id: TopicId,
        /// How it is kept.
        pub settings: TopicSettings,
    }
}
