//! Finding single messages.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteBuf, Bytes};

use crate::ids::{MessageId, Offset, QueueId, Term, TimestampMs, TopicId};
use crate::names::TopicName;
use crate::wire::wire_message;

/// Most messages that one search gives, whatever is asked for.
pub const FOUND_MESSAGES_MAX: u32 = 1_000;
/// Messages that a search gives when it is not said how many are wanted.
pub const FOUND_MESSAGES_DEFAULT: u32 = 32;

wire_message! {
    /// Looks for messages. None is not an error.
    pub struct FindMessages {
        /// What to look for.
        pub by: FindBy,
        /// Most messages wanted, the newest of them; 0: [`FOUND_MESSAGES_DEFAULT`].
        pub messages_max: u32 = 0,
    }
}

/// What to look for. Travels as an array that begins with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindBy {
    /// `[0, id]`: the messages with this id, in all topics that the broker leads.
    Id(MessageId),
    /// `[1, topic, topic_id, key]`: those of a topic with this among their keys.
    Key {
        /// The topic.
        topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        topic_id: TopicId,
        /// The key.
        key: Vec<u8>,
    },
    /// `[2, topic, topic_id, queue, offset]`: the one there.
    Offset {
        /// The topic.
        topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        topic_id: TopicId,
        /// The queue.
        queue: QueueId,
        /// The offset.
        offset: Offset,
    },
    /// `[3, topic, topic_id, time, queue]`: the first one of each queue stored at that time or
    /// later; of one queue alone unless `queue` is nil.
    Time {
        /// The topic.
        topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        topic_id: TopicId,
        /// The time.
        time: TimestampMs,
        /// The queue, or all of them.
        queue: Option<QueueId>,
    },
}

impl FindBy {
    /// The topic it is about; an id may be in any.
    pub fn topic(&self) -> Option<&TopicName> {
        match self {
            Self::Id(_) => None,
            Self::Key { topic, .. } | Self::Offset { topic, .. } | Self::Time { topic, .. } => {
                Some(topic)
            }
        }
    }
}

impl Serialize for FindBy {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Id(id) => (0_u8, id).serialize(output),
            Self::Key { topic, topic_id, key } => {
                (1_u8, topic, topic_id, Bytes::new(key)).serialize(output)
            }
            Self::Offset { topic, topic_id, queue, offset } => {
                (2_u8, topic, topic_id, queue, offset).serialize(output)
            }
            Self::Time { topic, topic_id, time, queue } => {
                (3_u8, topic, topic_id, time, queue).serialize(output)
            }
        }
    }
}

fn element<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(elements: &mut A) -> Result<T, A::Error> {
    elements.next_element()?.ok_or_else(|| A::Error::custom("FindBy lacks an element"))
}

impl<'de> Deserialize<'de> for FindBy {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct By;
        impl<'de> Visitor<'de> for By {
            type Value = FindBy;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the array of FindBy")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<FindBy, A::Error> {
                let from = &mut elements;
                let by = match element::<u8, A>(from)? {
                    0 => FindBy::Id(element(from)?),
                    1 => {
                        let (topic, topic_id) = (element(from)?, element(from)?);
                        let key = element::<ByteBuf, A>(from)?.into_vec();
                        FindBy::Key { topic, topic_id, key }
                    }
                    2 => FindBy::Offset {
                        topic: element(from)?,
                        topic_id: element(from)?,
                        queue: element(from)?,
                        offset: element(from)?,
                    },
                    3 => FindBy::Time {
                        topic: element(from)?,
                        topic_id: element(from)?,
                        time: element(from)?,
                        queue: element(from)?,
                    },
                    _ => return Err(A::Error::custom("unknown FindBy")),
                };
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(by)
            }
        }
        input.deserialize_seq(By)
    }
}

wire_message! {
    /// The messages that this broker has. Each is in the frame's body as a record batch of one,
    /// not compressed.
    pub struct FindMessagesReply {
        /// One for each batch of the body: by the time they were stored, the newest last.
        pub messages: Vec<FoundMessage>,
        /// Whether there may be older ones.
        pub more: bool = false,
        /// Bytes of batches that were read one by one, because no index covers them.
        pub scanned_bytes: u64 = 0,
        /// Bytes of batches that were not looked at: too many, or damaged. Unless it is 0, a
        /// message that is not there may be in the broker all the same.
        pub unsearched_bytes: u64 = 0,
    }
}

wire_message! {
    /// Where a message of a [`FindMessagesReply`] stands.
    pub struct FoundMessage {
        /// Its topic.
        pub topic: TopicName,
        /// The topic's incarnation.
        pub topic_id: TopicId,
        /// Its queue.
        pub queue: QueueId,
        /// Its offset.
        pub offset: Offset,
        /// Term in which it was stored.
        pub term: Term,
        /// When it was stored, by the leader's clock.
        pub stored: TimestampMs,
        /// Its bytes in the body.
        pub length: u32,
    }
}
