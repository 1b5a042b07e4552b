//! Numbers that must not be mistaken for one another.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::wire::{wire_enum, wire_message};

macro_rules! number_type {
    ($( $(#[$meta:meta])* $name:ident($inner:ty); )*) => { $(
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }
    )* };
}

number_type! {
    /// A queue's number within its topic, from 0.
    QueueId(u32);
    /// A record's place in its queue, from 0, dense, given when the record is applied.
    Offset(u64);
    /// A shard: one replicated log, shared by many queues.
    ShardId(u32);
    /// One incarnation of a topic: a topic deleted and made again has another one. Never 0.
    TopicId(u64);
    /// A broker.
    BrokerId(u64);
    /// Milliseconds since 1970-01-01T00:00:00Z.
    TimestampMs(u64);
    /// An idempotent producer; 0 stands for none.
    ProducerId(u64);
    /// Counts the lives of a named producer; the greater one fences the lesser.
    ProducerEpoch(u32);
    /// Numbers the records of one producer in one queue, from 0, one each.
    Sequence(u64);
    /// A subscription: the client's choice, one at a time on its connection.
    SubscriptionId(u64);
    /// A term of a shard's consensus group: at most one leader each.
    Term(u64);
    /// One incarnation of a consumer group: the topic id of its dead-letter topic. Never 0.
    GroupId(u64);
    /// One life of a member of a group, given by its coordinator; never 0 and never used again.
    MemberId(u64);
    /// Counts the changes of a group's assignment; never goes back. 0 stands for none.
    Generation(u64);
}

impl TopicId {
    /// Stands for "whichever incarnation is there now" in a request.
    pub const UNKNOWN: Self = Self(0);
}

impl GroupId {
    /// Stands for "whichever incarnation is there now" in a request.
    pub const UNKNOWN: Self = Self(0);

    /// That of the group whose dead-letter topic this is.
    pub const fn of(dead_letters: TopicId) -> Self {
        Self(dead_letters.0)
    }

    /// The group's dead-letter topic.
    pub const fn dead_letters(self) -> TopicId {
        TopicId(self.0)
    }
}

impl MemberId {
    /// Stands for no member.
    pub const NONE: Self = Self(0);
}

impl Generation {
    /// Stands for no generation: before the first one.
    pub const NONE: Self = Self(0);
}

impl ProducerId {
    /// The producer id of a batch without sequence numbers.
    pub const NONE: Self = Self(0);
}

impl Term {
    /// Stands for "not known" in a request.
    pub const UNKNOWN: Self = Self(0);
}

impl Offset {
    /// The offset `count` records further on, or `None` beyond the last possible one.
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

impl Sequence {
    /// The sequence `count` records further on, or `None` beyond the last possible one.
    pub fn checked_add(self, count: u64) -> Option<Self> {
        self.0.checked_add(count).map(Self)
    }
}

/// A queue of one incarnation of a topic.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct QueueKey {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// The queue's number within it.
    pub queue: QueueId,
}

impl fmt::Display for QueueKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.topic, self.queue)
    }
}

/// A message's identity: a version 7 UUID, made by the client before the first send and the same
/// on every retry. Travels as 16 bytes, big endian as RFC 9562 prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub Uuid);

impl MessageId {
    /// The id made of a birth time and 10 random bytes (of which 74 bits are used), RFC 9562.
    pub fn from_parts(born: TimestampMs, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(born.0, random).into_uuid())
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Whether all its bytes are 0, which no message may have.
    pub const fn is_nil(&self) -> bool {
        self.0.is_nil()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, out)
    }
}

impl FromStr for MessageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl Serialize for MessageId {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_bytes(self.as_bytes())
    }
}

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        serde_bytes::ByteArray::<16>::deserialize(input).map(|id| Self::from_bytes(id.into_array()))
    }
}

wire_enum! {
    /// What an acknowledgement promises.
    pub enum Durability {
        /// On disk at a majority before the receipt leaves: survives the death of any number of
        /// processes, kernels and power supplies, and the loss of a minority's disks.
        Persisted = 0,
        /// In memory at a majority, on disk soon: survives the death of all processes, and kernel
        /// or power loss of a minority.
        Replicated = 1,
        /// In the memory of the broker that leads the queue, and nowhere else: gone with it. Of
        /// temporary topics alone.
        Memory = 2,
    }
}

impl Durability {
    /// That of the shards on which topics of it lie.
    #[must_use]
    pub const fn of_shards(self) -> Self {
        match self {
            Self::Persisted => Self::Persisted,
            Self::Replicated | Self::Memory => Self::Replicated,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Persisted => "persisted",
            Self::Replicated => "replicated",
            Self::Memory => "memory",
        })
    }
}

wire_message! {
    /// Where a broker can be reached.
    pub struct BrokerAddress {
        /// The broker.
        pub id: BrokerId,
        /// Host name or IP address, without brackets.
        pub host: String,
        /// TCP port of the protocol.
        pub port: u16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_is_a_version_7_uuid_and_reads_back_from_text() {
        let id = MessageId::from_parts(TimestampMs(0x0123_4567_89ab), &[0xff; 10]);
        assert_eq!(id.to_string(), "01234567-89ab-7fff-bfff-ffffffffffff");
        assert_eq!(id.0.get_version_num(), 7);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(!id.is_nil());
    }

    #[test]
    fn a_message_id_travels_as_sixteen_bytes() {
        let id = MessageId::from_parts(TimestampMs(7), &[3; 10]);
        let bytes = rmp_serde::to_vec(&id).unwrap();
        assert_eq!(bytes[..2], [0xc4, 16], "MessagePack bin 8 of 16 bytes");
        assert_eq!(bytes[2..], id.as_bytes()[..]);
        assert_eq!(rmp_serde::from_slice::<MessageId>(&bytes).unwrap(), id);
        assert!(rmp_serde::from_slice::<MessageId>(&[0xc4, 2, 0, 0]).is_err());
    }

    #[test]
    fn an_unknown_durability_is_refused() {
        assert_eq!(rmp_serde::from_slice::<Durability>(&[1]).unwrap(), Durability::Replicated);
        assert!(rmp_serde::from_slice::<Durability>(&[3]).is_err());
    }
}
