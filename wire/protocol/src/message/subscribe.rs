//! Having messages sent as they come: subscriptions.

use std::fmt;

use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::FetchedBatch;
use crate::ids::{Offset, QueueId, SubscriptionId, Term, TimestampMs, TopicId};
use crate::names::TopicName;
use crate::wire::wire_message;

wire_message! {
    /// Has the batches of one queue sent as they come, as long as there is credit of both kinds.
    pub struct Subscribe {
        /// The client's choice; not that of another subscription of this connection.
        pub subscription: SubscriptionId,
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// Where to begin.
        pub at: SubscribeAt,
        /// Messages that may be sent before more credit is given.
        pub credit_messages: u32,
        /// Bytes of batches that may be sent before more credit is given.
        pub credit_bytes: u32,
    }
}

/// Where a subscription begins. Travels as an array: 0 first, 1 last, 2 and a time, 3 and an
/// offset and a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeAt {
    /// 0: the first record there is.
    First,
    /// 1: behind the last record.
    Last,
    /// 2: the first record stored at this time or later; behind the last one if there is none.
    Time(TimestampMs),
    /// 3: this offset, and the term of the record before it as the reader has seen it (0: not
    /// known).
    Offset(Offset, Term),
}

impl Serialize for SubscribeAt {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::First => (0_u8,).serialize(output),
            Self::Last => (1_u8,).serialize(output),
            Self::Time(time) => (2_u8, time).serialize(output),
            Self::Offset(offset, term) => (3_u8, offset, term).serialize(output),
        }
    }
}

impl<'de> Deserialize<'de> for SubscribeAt {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        input.deserialize_seq(Place)
    }
}

struct Place;

impl<'de> Visitor<'de> for Place {
    type Value = SubscribeAt;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the array of SubscribeAt")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<SubscribeAt, A::Error> {
        let short = || A::Error::custom("SubscribeAt is too short");
        let at = match elements.next_element::<u8>()? {
            Some(0) => SubscribeAt::First,
            Some(1) => SubscribeAt::Last,
            Some(2) => SubscribeAt::Time(elements.next_element()?.ok_or_else(short)?),
            Some(3) => SubscribeAt::Offset(
                elements.next_element()?.ok_or_else(short)?,
                elements.next_element()?.ok_or_else(short)?,
            ),
            _ => return Err(A::Error::custom("unknown SubscribeAt")),
        };
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(at)
    }
}

wire_message! {
    /// The subscription stands: what is sent for it follows this reply.
    pub struct SubscribeReply {
        /// The first offset that will be sent.
        pub offset: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
    }
}

wire_message! {
    /// Gives a subscription more credit.
    pub struct Credit {
        /// The subscription.
        pub subscription: SubscriptionId,
        /// Messages more.
        pub messages: u32,
        /// Bytes more.
        pub bytes: u32,
    }
}

wire_message! {
    /// The credit is given.
    pub struct CreditReply {}
}

wire_message! {
    /// Has a subscription go on at another place, with this credit instead of what is left.
    pub struct Seek {
        /// The subscription.
        pub subscription: SubscriptionId,
        /// Where to go on.
        pub at: SubscribeAt,
        /// Messages that may be sent from there on before more credit is given.
        pub credit_messages: u32,
        /// Bytes of batches that may be sent from there on before more credit is given.
        pub credit_bytes: u32,
    }
}

wire_message! {
    /// What is sent for the subscription before this reply is from before, what follows it is
    /// from the new place.
    pub struct SeekReply {
        /// The first offset that will be sent.
        pub offset: Offset,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
    }
}

wire_message! {
    /// Ends a subscription.
    pub struct Unsubscribe {
        /// The subscription.
        pub subscription: SubscriptionId,
    }
}

wire_message! {
    /// Nothing more is sent for the subscription.
    pub struct UnsubscribeReply {}
}

wire_message! {
    /// A push: batches for a subscription, whose id is the frame's correlation. Their bytes are
    /// the frame's body.
    pub struct Deliver {
        /// The queue.
        pub queue: QueueId,
        /// First offset there is.
        pub log_start: Offset,
        /// Offset the next record will get.
        pub end_offset: Offset,
        /// One for each batch of the body, in order. The first may begin before the offset where
        /// the subscription stands, then the reader skips records.
        pub batches: Vec<FetchedBatch>,
    }
}
