//! The registry's commands, as they stand in its log.
//!
//! One item of an entry each: the item's kind says which command, its bytes are a version byte
//! and a MessagePack map. The form of a kind never changes: a new form is a new kind, which an older
//! build knows that it does not know.

use bytes::Bytes;
use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, QueueId, ShardId, TimestampMs, TopicId,
};
use grus_protocol::message::{ExpiredPolicy, WhenFull};
use grus_protocol::names::TopicName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use settings::StoredSettings;

mod settings;

/// Version of all commands and parts written by this build.
pub const FORMAT_VERSION: u8 = 1;
pub use replicas::{ChangeReplicas, GrowReplicas, LeadShards, MembershipClaim, ToldMembers};

/// Kind of a [`CreateTopic`].
pub const KIND_CREATE_TOPIC: u16 = 64;
/// Kind of an [`AlterTopic`].
pub const KIND_ALTER_TOPIC: u16 = 65;
/// Kind of a [`DeleteTopic`].
pub const KIND_DELETE_TOPIC: u16 = 66;
/// Kind of a [`RegisterBroker`].
pub const KIND_REGISTER_BROKER: u16 = 67;
/// Kind of a [`FoundRegistry`].
pub const KIND_FOUND_REGISTRY: u16 = 68;
/// Kind of an [`EnrolBroker`].
pub const KIND_ENROL_BROKER: u16 = 69;
/// Kind of a [`MarkBroker`].
pub const KIND_MARK_BROKER: u16 = 70;
/// Kind of a [`PlaceTopic`].
pub const KIND_PLACE_TOPIC: u16 = 71;
/// Kind of a [`GrowTopic`].
pub const KIND_GROW_TOPIC: u16 = 72;
/// Kind of an [`AdoptTopics`].
pub const KIND_ADOPT_TOPICS: u16 = 73;
/// Kind of a [`PlaceDeadLetters`].
pub const KIND_PLACE_DEAD_LETTERS: u16 = 74;
/// Kind of a [`LeadShards`].
pub const KIND_LEAD_SHARDS: u16 = 75;
/// Kind of a [`ChangeReplicas`].
pub const KIND_CHANGE_REPLICAS: u16 = 76;
/// Kind of a [`GrowReplicas`].
pub const KIND_GROW_REPLICAS: u16 = 77;
/// Kind of a [`DrainBroker`].
pub const KIND_DRAIN_BROKER: u16 = 78;

/// A change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Makes a topic.
    CreateTopic(CreateTopic),
    /// Changes a topic.
    AlterTopic(AlterTopic),
    /// Removes a topic.
    DeleteTopic(DeleteTopic),
    /// Names a broker, where it is and which shards it leads. Written by builds before
    /// [`Command::EnrolBroker`].
    RegisterBroker(RegisterBroker),
    /// Gives the registry its number.
    FoundRegistry(FoundRegistry),
    /// A broker is there: takes its shards, and gives it those that it wants.
    EnrolBroker(EnrolBroker),
    /// A broker is live, or is not.
    MarkBroker(MarkBroker),
    /// Makes a topic on chosen shards.
    PlaceTopic(PlaceTopic),
    /// Changes a topic; new queues go to chosen shards.
    GrowTopic(GrowTopic),
    /// Takes topics that a broker's shards hold and the registry does not know.
    AdoptTopics(AdoptTopics),
    /// Makes a group's dead-letter topic, or gives it queues on more shards.
    PlaceDeadLetters(PlaceDeadLetters),
    /// A broker leads replicated shards.
    LeadShards(LeadShards),
    /// Shards are to have other members.
    ChangeReplicas(ChangeReplicas),
    /// Shards are to have more members.
    GrowReplicas(GrowReplicas),
    /// A broker is drained, or is not any more.
    DrainBroker(DrainBroker),
}

/// Gives the registry its number, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundRegistry {
    /// The number, drawn by the proposer. Never 0.
    pub registry: u64,
}

/// A broker is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolBroker {
    /// The broker.
    pub broker: BrokerId,
    /// The number of its data folder's disk.
    pub disk: u64,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The shards it says it has.
    pub shards: Vec<(ShardId, Durability)>,
    /// How many shards of each durability it wants.
    pub shards_wanted: u32,
    /// The shards of several members that it says it is a member of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub memberships: Vec<MembershipClaim>,
    /// All shards that it has heard of have lower numbers; 0: it does not say.
    #[serde(default, skip_serializing_if = "is_unnamed")]
    pub shards_below: u32,
}

/// A broker is live, or is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkBroker {
    /// The broker.
    pub broker: BrokerId,
    /// Whether its lease holds.
    pub live: bool,
}

/// A broker is drained, or is not any more: it gets nothing new meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainBroker {
    /// The broker.
    pub broker: BrokerId,
    /// Whether it is.
    pub drained: bool,
}

/// Makes a topic on chosen shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceTopic {
    /// The topic.
    pub create: CreateTopic,
    /// One for each queue. When they do not fit the state by then, the state chooses.
    pub shards: Vec<ShardId>,
}

/// Changes a topic; new queues go to chosen shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowTopic {
    /// The change.
    pub alter: AlterTopic,
    /// One for each new queue. When they do not fit the state by then, the state chooses.
    pub shards: Vec<ShardId>,
}

/// Takes topics that a broker's shards hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptTopics {
    /// The broker.
    pub broker: BrokerId,
    /// The topics.
    pub topics: Vec<AdoptTopic>,
}

/// What a broker's shards know of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptTopic {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// How it is kept; the number of queues is not looked at.
    pub settings: StoredSettings,
    /// Which of its queues are on which shard.
    pub queues: Vec<(QueueId, ShardId)>,
    /// When these settings were given, see [`TopicRoutes::altered`](crate::TopicRoutes::altered).
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub altered: TimestampMs,
    /// When it was made at the latest, as far as the proposer knows. 0: it counts as made when this is applied.
    #[serde(default, skip_serializing_if = "is_unknown")]
    pub created: TimestampMs,
}

/// Makes a group's dead-letter topic, or gives it queues on more shards. Whatever is there already
/// is left as it is, so that it may be asked twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaceDeadLetters {
    /// The topic.
    pub name: TopicName,
    /// With a home: the incarnation to make it as, drawn by the proposer, never 0. Without one: the
    /// incarnation meant.
    pub id: TopicId,
    /// Where its first queue goes if there is no such topic; none: it must be there.
    pub home: Option<ShardId>,
    /// Where it must have queues.
    pub shards: Vec<ShardId>,
    /// On how many brokers the first queue is to be if the topic is made, chosen by the proposer: on
    /// another shard than `home` where that has fewer members. 0: `home` is taken as it is.
    #[serde(default, skip_serializing_if = "is_unnamed")]
    pub home_replicas: u32,
    /// Brokers that get no place in shards that are made for it, as the proposer takes them to be gone for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<BrokerId>,
}

/// Makes a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation, drawn at random by the proposer so that apply draws nothing. Never 0.
    pub id: TopicId,
    /// How it is kept.
    pub settings: StoredSettings,
}

/// Changes a topic; `None` leaves a setting as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlterTopic {
    /// Its name.
    pub name: TopicName,
    /// The incarnation meant; 0: whichever is there.
    pub id: TopicId,
    /// Number of queues.
    pub queues: Option<u32>,
    /// Retention by age in milliseconds; 0: no limit.
    pub retention_ms: Option<u64>,
    /// Retention by bytes of each queue; 0: no limit.
    pub retention_bytes: Option<u64>,
    /// How long dedup keys are remembered, in milliseconds; 0: none are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup_window_ms: Option<u64>,
    /// What becomes of messages whose time to live is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<ExpiredPolicy>,
    /// Retention by messages of each queue; 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_messages: Option<u64>,
    /// What becomes of a message that finds its queue at its cap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when_full: Option<WhenFull>,
}

/// Removes a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteTopic {
    /// Its name.
    pub name: TopicName,
    /// The incarnation meant; 0: whichever is there.
    pub id: TopicId,
}

/// Names a broker, where it is and which shards it leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterBroker {
    /// The broker.
    pub broker: BrokerId,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The shards on which it takes queues. Those it had and does not name stay its own, but get
    /// no new queues.
    pub shards: Vec<(ShardId, Durability)>,
}

impl RegisterBroker {
    /// Where it can be reached.
    pub fn address(&self) -> BrokerAddress {
        BrokerAddress { id: self.broker, host: self.host.clone(), port: self.port }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_unknown(time: &TimestampMs) -> bool {
    *time == TimestampMs(0)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field so")]
fn is_unnamed(count: &u32) -> bool {
    *count == 0
}

/// Bytes that are no command or part of this build.
#[derive(Debug, Error)]
pub enum FormatError {
    /// There is not even a version.
    #[error("it is empty")]
    Empty,
    /// Another version.
    #[error("its version is {0}, this build knows {FORMAT_VERSION}")]
    Version(u8),
    /// Another kind.
    #[error("its kind is {0}")]
    Kind(u16),
    /// Not what its version says.
    #[error("{0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// Bytes are left behind it.
    #[error("{0} bytes are left behind it")]
    Trailing(usize),
}

impl Command {
    /// Whether this build knows items of `kind`.
    pub fn knows(kind: u16) -> bool {
        (KIND_CREATE_TOPIC..=KIND_DRAIN_BROKER).contains(&kind)
    }

    /// The command as an item of an entry: its kind and its bytes.
    pub fn encode(&self) -> (u16, Bytes) {
        match self {
            Self::CreateTopic(command) => (KIND_CREATE_TOPIC, encode(command)),
            Self::AlterTopic(command) => (KIND_ALTER_TOPIC, encode(command)),
            Self::DeleteTopic(command) => (KIND_DELETE_TOPIC, encode(command)),
            Self::RegisterBroker(command) => (KIND_REGISTER_BROKER, encode(command)),
            Self::FoundRegistry(command) => (KIND_FOUND_REGISTRY, encode(command)),
            Self::EnrolBroker(command) => (KIND_ENROL_BROKER, encode(command)),
            Self::MarkBroker(command) => (KIND_MARK_BROKER, encode(command)),
            Self::PlaceTopic(command) => (KIND_PLACE_TOPIC, encode(command)),
            Self::GrowTopic(command) => (KIND_GROW_TOPIC, encode(command)),
            Self::AdoptTopics(command) => (KIND_ADOPT_TOPICS, encode(command)),
            Self::PlaceDeadLetters(command) => (KIND_PLACE_DEAD_LETTERS, encode(command)),
            Self::LeadShards(command) => (KIND_LEAD_SHARDS, encode(command)),
            Self::ChangeReplicas(command) => (KIND_CHANGE_REPLICAS, encode(command)),
            Self::GrowReplicas(command) => (KIND_GROW_REPLICAS, encode(command)),
            Self::DrainBroker(command) => (KIND_DRAIN_BROKER, encode(command)),
        }
    }

    /// Reads an item of an entry.
    ///
    /// # Errors
    /// When this build cannot read it.
    pub fn decode(kind: u16, bytes: &[u8]) -> Result<Self, FormatError> {
        match kind {
            KIND_CREATE_TOPIC => decode(bytes).map(Self::CreateTopic),
            KIND_ALTER_TOPIC => decode(bytes).map(Self::AlterTopic),
            KIND_DELETE_TOPIC => decode(bytes).map(Self::DeleteTopic),
            KIND_REGISTER_BROKER => decode(bytes).map(Self::RegisterBroker),
            KIND_FOUND_REGISTRY => decode(bytes).map(Self::FoundRegistry),
            KIND_ENROL_BROKER => decode(bytes).map(Self::EnrolBroker),
            KIND_MARK_BROKER => decode(bytes).map(Self::MarkBroker),
            KIND_PLACE_TOPIC => decode(bytes).map(Self::PlaceTopic),
            KIND_GROW_TOPIC => decode(bytes).map(Self::GrowTopic),
            KIND_ADOPT_TOPICS => decode(bytes).map(Self::AdoptTopics),
            KIND_PLACE_DEAD_LETTERS => decode(bytes).map(Self::PlaceDeadLetters),
            KIND_LEAD_SHARDS => decode(bytes).map(Self::LeadShards),
            KIND_CHANGE_REPLICAS => decode(bytes).map(Self::ChangeReplicas),
            KIND_GROW_REPLICAS => decode(bytes).map(Self::GrowReplicas),
            KIND_DRAIN_BROKER => decode(bytes).map(Self::DrainBroker),
            other => Err(FormatError::Kind(other)),
        }
    }
}

/// A value as it is stored: a version byte and a MessagePack map.
pub(crate) fn encode<T: Serialize>(value: &T) -> Bytes {
    let mut bytes = vec![FORMAT_VERSION];
    rmp_serde::encode::write_named(&mut bytes, value).expect("plain values have a form");
    bytes.into()
}

/// Reads what [`encode`] wrote, and nothing more.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let (version, mut rest) = bytes.split_first().ok_or(FormatError::Empty)?;
    if *version != FORMAT_VERSION {
        return Err(FormatError::Version(*version));
    }
    let value = rmp_serde::from_read(&mut rest)?;
    if rest.is_empty() { Ok(value) } else { Err(FormatError::Trailing(rest.len())) }
}

mod replicas;
#[cfg(test)]
mod tests;
