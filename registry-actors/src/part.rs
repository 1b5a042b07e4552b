//! The state in parts, as checkpoints and sled hold it: one per topic, broker and shard, and one
//! for the rest. A key is a letter and a big endian number, so that parts sort by kind and number.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, Offset, ShardId, Term, TimestampMs, TopicId,
};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;
use serde::{Deserialize, Serialize};

use crate::command::{FormatError, StoredSettings, decode, encode};
use crate::routing::{BrokerPlace, RouteSpan, ShardPlace, TopicRoutes};
use crate::state::State;

/// Names a part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKey {
    /// What belongs to no other part.
    Meta,
    /// A broker.
    Broker(BrokerId),
    /// A shard.
    Shard(ShardId),
    /// A topic.
    Topic(TopicId),
}

impl PartKey {
    /// Its bytes.
    pub fn encode(self) -> Bytes {
        let (letter, number) = match self {
            Self::Meta => return Bytes::from_static(b"m"),
            Self::Broker(broker) => (b'b', broker.0),
            Self::Shard(shard) => (b's', u64::from(shard.0)),
            Self::Topic(topic) => (b't', topic.0),
        };
        let mut bytes = vec![letter];
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.into()
    }

    /// Reads its bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (letter, number) = bytes.split_first()?;
        if *letter == b'm' && number.is_empty() {
            return Some(Self::Meta);
        }
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match letter {
            b'b' => Some(Self::Broker(BrokerId(number))),
            b's' => Some(Self::Shard(ShardId(u32::try_from(number).ok()?))),
            b't' => Some(Self::Topic(TopicId(number))),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMeta {
    version: u64,
    #[serde(default)]
    registry: u64,
    /// Left out where it is 0: no broker has told of a number that was not known.
    #[serde(default, skip_serializing_if = "is_first")]
    shards_from: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredBroker {
    host: String,
    port: u16,
    #[serde(default = "yes")]
    live: bool,
    #[serde(default)]
    disk: u64,
    /// Left out where it is not, so that an older build reads what knows of none that is.
    #[serde(default, skip_serializing_if = "is_no")]
    drained: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_no(flag: &bool) -> bool {
    !*flag
}

/// What a broker was before its lease was stored.
fn yes() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredShard {
    durability: Durability,
    broker: BrokerId,
    open: bool,
    /// Left out, as what follows, where one broker has it alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    members: Vec<BrokerId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    group: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    term: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wanted: Vec<BrokerId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    members_at: u64,
    /// Left out where it is the number of members, as in shards that were made before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replicas: Option<u32>,
}

impl From<ShardPlace> for StoredShard {
    fn from(place: ShardPlace) -> Self {
        let replicas = Some(place.replicas).filter(|replicas| *replicas != place.members_count());
        let ShardPlace {
            durability, broker, open, members, group, term, wanted, members_at, ..
        } = place;
        let term = term.0;
        Self { durability, broker, open, members, group, term, wanted, members_at, replicas }
    }
}

impl From<StoredShard> for ShardPlace {
    fn from(stored: StoredShard) -> Self {
        let StoredShard { durability, broker, open, members, group, term, wanted, .. } = stored;
        let (members_at, term) = (stored.members_at, Term(term));
        let alone = Self::alone(durability, broker);
        let place = Self { open, members, group, term, wanted, members_at, ..alone };
        Self { replicas: stored.replicas.unwrap_or(place.members_count()), ..place }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_first(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredTopic {
    name: TopicName,
    created: TimestampMs,
    /// Left out where it is `created`, as in topics that were made before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    altered: Option<TimestampMs>,
    settings: StoredSettings,
    /// By queue: its shards, each with its first offset.
    routes: Vec<Vec<(ShardId, Offset)>>,
}

/// The value of a part now; `None` when it is gone.
pub(crate) fn value(state: &State, key: PartKey) -> Option<Bytes> {
    match key {
        PartKey::Meta => {
            let State { version, registry, shards_from, .. } = *state;
            Some(encode(&StoredMeta { version, registry, shards_from }))
        }
        PartKey::Broker(id) => state.brokers.get(&id).map(|broker| {
            let BrokerAddress { host, port, .. } = broker.address.clone();
            let drained = state.drained.contains(&id);
            encode(&StoredBroker { host, port, live: broker.live, disk: broker.disk, drained })
        }),
        PartKey::Shard(id) => {
            state.shards.get(&id).map(|shard| encode(&StoredShard::from(shard.clone())))
        }
        PartKey::Topic(id) => {
            state.names.get(&id).and_then(|name| state.topics.get(name)).map(|t| encode_topic(t))
        }
    }
}

fn encode_topic(topic: &TopicRoutes) -> Bytes {
    let spans = |spans: &Vec<RouteSpan>| spans.iter().map(|span| (span.shard, span.from)).collect();
    encode(&StoredTopic {
        name: topic.name.clone(),
        created: topic.created,
        altered: Some(topic.altered).filter(|altered| *altered != topic.created),
        settings: StoredSettings::from(&topic.settings),
        routes: topic.queues.iter().map(spans).collect(),
    })
}

/// The keys of all parts; a state without any change has none.
pub(crate) fn keys(state: &State) -> impl Iterator<Item = PartKey> {
    let meta = (state.version > 0).then_some(PartKey::Meta).into_iter();
    let brokers = state.brokers.keys().map(|broker| PartKey::Broker(*broker));
    let shards = state.shards.keys().map(|shard| PartKey::Shard(*shard));
    let topics = state.names.keys().map(|topic| PartKey::Topic(*topic));
    meta.chain(brokers).chain(shards).chain(topics)
}

/// What is wrong with a set of parts.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    /// Its key names nothing.
    #[error("unknown key")]
    Key,
    /// Its value cannot be read.
    #[error("unreadable: {0}")]
    Format(#[from] FormatError),
    /// It contradicts itself or another part.
    #[error("{0}")]
    Contradiction(&'static str),
}

/// Builds a state from all of its parts.
pub(crate) fn restore<'a>(
    parts: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<State, (Vec<u8>, PartError)> {
    let mut state = State::default();
    let mut topics = BTreeMap::new();
    for (key, value) in parts {
        restore_part(&mut state, &mut topics, key, value).map_err(|error| (key.to_vec(), error))?;
    }
    for (name, topic) in topics {
        check_topic(&state, &topic).map_err(|why| {
            (PartKey::Topic(topic.id).encode().to_vec(), PartError::Contradiction(why))
        })?;
        state.topics.insert(name, Arc::new(topic));
    }
    state.derive();
    Ok(state)
}

fn restore_part(
    state: &mut State,
    topics: &mut BTreeMap<TopicName, TopicRoutes>,
    key: &[u8],
    value: &[u8],
) -> Result<(), PartError> {
    match PartKey::decode(key).ok_or(PartError::Key)? {
        PartKey::Meta => {
            let StoredMeta { version, registry, shards_from } = decode(value)?;
            (state.version, state.registry, state.shards_from) = (version, registry, shards_from);
        }
        PartKey::Broker(id) => {
            let StoredBroker { host, port, live, disk, drained } = decode(value)?;
            if drained {
                state.drained.insert(id);
            }
            let address = BrokerAddress { id, host, port };
            state.brokers.insert(id, BrokerPlace { address, live, disk });
        }
        PartKey::Shard(id) => {
            let stored: StoredShard = decode(value)?;
            state.shards.insert(id, stored.into());
        }
        PartKey::Topic(id) => {
            let StoredTopic { name, created, altered, settings, routes } = decode(value)?;
            let span = |(shard, from)| RouteSpan { shard, from };
            let queues: Vec<Vec<RouteSpan>> =
                routes.into_iter().map(|spans| spans.into_iter().map(span).collect()).collect();
            let settings = TopicSettings::from(&settings);
            let altered = altered.unwrap_or(created);
            let topic = TopicRoutes { name: name.clone(), id, settings, created, altered, queues };
            if topics.insert(name, topic).is_some() {
                return Err(PartError::Contradiction("two topics have one name"));
            }
        }
    }
    Ok(())
}

fn check_topic(state: &State, topic: &TopicRoutes) -> Result<(), &'static str> {
    if topic.id == TopicId::UNKNOWN {
        return Err("a topic has no id");
    }
    if usize::try_from(topic.settings.queues) != Ok(topic.queues.len()) {
        return Err("the number of queues is not that of the settings");
    }
    for spans in &topic.queues {
        let starts = spans.first().is_none_or(|span| span.from == Offset(0));
        let ordered = spans.windows(2).all(|pair| pair[0].from < pair[1].from);
        if !starts || !ordered {
            return Err("the spans of a queue do not follow each other from 0");
        }
        if spans.iter().any(|span| !state.shards.contains_key(&span.shard)) {
            return Err("a queue is on an unknown shard");
        }
    }
    Ok(())
}
