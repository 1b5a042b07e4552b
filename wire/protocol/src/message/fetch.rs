//! Reading messages.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Offset, QueueId, Term, TimestampMs, TopicId};
use crate::names::TopicName;
use crate::wire::wire_message;

wire_message! {
    /// Reads record batches of one queue.
    pub struct Fetch {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The first offset wanted.
        pub offset: Offset,
        /// The term of the record before `offset` as the reader has seen it; 0: not known.
        pub last_term: Term,
        /// Most bytes of batches to send; one batch is sent even when it is longer.
        pub bytes_max: u32,
        /// How long to wait when there is no record at `offset` yet, in milliseconds; 0: not at
        /// all. The broker has a maximum of its own.
        pub wait_ms: u32 = 0,
    }
}

impl Fetch {
    /// A Fetch by one that knows nothing yet: of whichever incarnation and term is there, and
    /// without waiting.
    pub const fn new(topic: TopicName, queue: QueueId, offset: Offset, bytes_max: u32) -> Self {
        let (topic_id, last_term) = (TopicId::UNKNOWN, Term::UNKNOWN);
        Self { topic, topic_id, queue, offset, last_term, bytes_max, wait_ms: 0 }
    }
}

wire_message! {
    /// The batches, whose bytes are the frame's body. None of them is not an error: there is no
    /// message yet.
    pub struct FetchReply {
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
        /// One for each batch of the body, in order. The first may begin before the offset asked
        /// for, then the reader skips records.
        pub batches: Vec<FetchedBatch>,
    }
}

wire_message! {
    /// Where a batch of a [`FetchReply`] stands.
    pub struct FetchedBatch {
        /// Offset of its first record.
        pub base_offset: Offset,
        /// Term in which it was stored.
        pub term: Term,
        /// When it was stored, by the leader's clock.
        pub stored: TimestampMs,
        /// Its bytes in the body.
        pub length: u32,
        /// Not 0: so many messages stood here whose time to live is over. They are not sent:
        /// `length` is 0.
        pub expired: u32 = 0,
    }
}

/// A place in a queue. Travels as an array: 0 first, 1 last, 2 and a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListAt {
    /// 0: the first record there is.
    First,
    /// 1: behind the last record.
    Last,
    /// 2: the first record stored at this time or later; behind the last one if there is none.
    Time(TimestampMs),
}

impl Serialize for ListAt {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::First => (0_u8,).serialize(output),
            Self::Last => (1_u8,).serialize(output),
            Self::Time(time) => (2_u8, time).serialize(output),
        }
    }
}

impl<'de> Deserialize<'de> for ListAt {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Place;
        impl<'de> Visitor<'de> for Place {
            type Value = ListAt;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("the array of ListAt")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<ListAt, A::Error> {
                let at = match elements.next_element::<u8>()? {
                    Some(0) => ListAt::First,
                    Some(1) => ListAt::Last,
                    Some(2) => match elements.next_element()? {
                        Some(time) => ListAt::Time(time),
                        None => return Err(serde::de::Error::custom("ListAt lacks its time")),
                    },
                    _ => return Err(serde::de::Error::custom("unknown ListAt")),
                };
                while elements.next_element::<IgnoredAny>()?.is_some() {}
                Ok(at)
            }
        }
        input.deserialize_seq(Place)
    }
}

wire_message! {
    /// Asks for the offset of a place or a time in one queue.
    pub struct ListOffsets {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The place.
        pub at: ListAt,
    }
}

wire_message! {
    /// The offset of the place, between the two bounds.
    pub struct ListOffsetsReply {
        /// The offset to fetch from.
        pub offset: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
    }
}
