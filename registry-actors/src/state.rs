//! The registry's state: topics, brokers, shards. A pure function of the commands applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{
    BrokerAddress, BrokerId, Durability, Offset, ShardId, TimestampMs, TopicId,
};
use grus_protocol::message::{DEDUP_WINDOW_MS_MAX, TopicKind, TopicSettings};
use grus_protocol::names::TopicName;

use crate::command::{AlterTopic, Command, CreateTopic, DeleteTopic, RegisterBroker};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{RouteSpan, RoutingTable, ShardPlace, TopicRoutes};

/// Most topics.
pub const TOPICS_MAX: usize = 100_000;
/// Most queues of one topic.
pub const TOPIC_QUEUES_MAX: u32 = 1_024;
/// Most queues of all topics together.
pub const QUEUES_MAX: u64 = 200_000;
/// Most brokers.
pub const BROKERS_MAX: usize = 1_000;
/// Most shards.
pub const SHARDS_MAX: usize = 10_000;
/// Most bytes of a broker's host.
pub const HOST_BYTES_MAX: usize = 255;

const _: () = assert!(TOPIC_QUEUES_MAX as u64 <= QUEUES_MAX);

/// What an applied command answers.
pub type Answer = Result<Outcome, RegistryError>;

/// What an applied command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The topic is there, as it now is.
    Topic(Arc<TopicRoutes>),
    /// The topic is gone.
    Deleted(TopicId),
    /// The broker is known.
    Registered,
}

/// Topics, brokers and shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub(crate) version: u64,
    pub(crate) topics: BTreeMap<TopicName, Arc<TopicRoutes>>,
    pub(crate) names: BTreeMap<TopicId, TopicName>,
    pub(crate) brokers: BTreeMap<BrokerId, BrokerAddress>,
    pub(crate) shards: BTreeMap<ShardId, ShardPlace>,
    /// Derived: on each shard, the queues it takes new messages of.
    pub(crate) load: BTreeMap<ShardId, u64>,
    /// Derived: the sum of `load`.
    pub(crate) queues: u64,
}

impl State {
    /// Applies a command at its entry's time. Adds to `dirty` what it changed.
    pub(crate) fn apply(
        &mut self,
        time: TimestampMs,
        command: Command,
        dirty: &mut BTreeSet<PartKey>,
    ) -> Answer {
        let (outcome, changed) = match command {
            Command::CreateTopic(create) => self.create_topic(time, create)?,
            Command::AlterTopic(alter) => self.alter_topic(&alter)?,
            Command::DeleteTopic(delete) => self.delete_topic(&delete)?,
            Command::RegisterBroker(register) => self.register_broker(&register)?,
        };
        if !changed.is_empty() {
            self.version += 1;
            dirty.insert(PartKey::Meta);
            dirty.extend(changed);
        }
        Ok(outcome)
    }

    fn create_topic(&mut self, created: TimestampMs, create: CreateTopic) -> Applied {
        let CreateTopic { name, id, settings } = create;
        if let Some(topic) = self.topics.get(&name) {
            return Err(RegistryError::TopicExists { id: topic.id });
        }
        let settings = TopicSettings::from(&settings);
        check_settings(&settings)?;
        if id == TopicId::UNKNOWN || self.names.contains_key(&id) {
            return Err(RegistryError::IdInUse { id });
        }
        if self.topics.len() >= TOPICS_MAX {
            return Err(RegistryError::TooManyTopics);
        }
        let queues = self.place_queues(settings.durability, settings.queues)?;
        let topic = Arc::new(TopicRoutes { name: name.clone(), id, settings, created, queues });
        self.names.insert(id, name.clone());
        self.topics.insert(name, Arc::clone(&topic));
        Ok((Outcome::Topic(topic), vec![PartKey::Topic(id)]))
    }

    fn alter_topic(&mut self, alter: &AlterTopic) -> Applied {
        let topic = Arc::clone(self.find(&alter.name, alter.id)?);
        let mut settings = topic.settings.clone();
        settings.queues = alter.queues.unwrap_or(settings.queues);
        settings.retention_ms = alter.retention_ms.unwrap_or(settings.retention_ms);
        settings.retention_bytes = alter.retention_bytes.unwrap_or(settings.retention_bytes);
        settings.dedup_window_ms = alter.dedup_window_ms.unwrap_or(settings.dedup_window_ms);
        check_settings(&settings)?;
        let before = topic.settings.queues;
        let Some(more) = settings.queues.checked_sub(before) else {
            let reason = format!("a topic keeps its queues: it has {before}");
            return Err(RegistryError::InvalidSettings { reason });
        };
        if settings == topic.settings {
            return Ok((Outcome::Topic(topic), Vec::new()));
        }
        let added = self.place_queues(settings.durability, more)?;
        let mut altered = TopicRoutes::clone(&topic);
        altered.settings = settings;
        altered.queues.extend(added);
        let altered = Arc::new(altered);
        self.topics.insert(alter.name.clone(), Arc::clone(&altered));
        let id = altered.id;
        Ok((Outcome::Topic(altered), vec![PartKey::Topic(id)]))
    }

    fn delete_topic(&mut self, delete: &DeleteTopic) -> Applied {
        let topic = Arc::clone(self.find(&delete.name, delete.id)?);
        self.topics.remove(&delete.name);
        self.names.remove(&topic.id);
        for span in topic.queues.iter().filter_map(|spans| spans.last()) {
            if let Some(load) = self.load.get_mut(&span.shard) {
                *load -= 1;
            }
            self.queues -= 1;
        }
        Ok((Outcome::Deleted(topic.id), vec![PartKey::Topic(topic.id)]))
    }

    /// Whether registering so would change nothing.
    pub(crate) fn is_registered(&self, register: &RegisterBroker) -> bool {
        let broker = register.broker;
        let is_open = |(shard, durability): &(ShardId, Durability)| {
            let place = ShardPlace { durability: *durability, broker, open: true };
            self.shards.get(shard) == Some(&place)
        };
        let mut mine = self.shards.iter().filter(|(_, place)| place.broker == broker && place.open);
        self.brokers.get(&broker) == Some(&register.address())
            && register.shards.iter().all(is_open)
            && mine.all(|(shard, _)| register.shards.iter().any(|(named, _)| named == shard))
    }

    fn register_broker(&mut self, register: &RegisterBroker) -> Applied {
        let broker = register.broker;
        if register.host.is_empty() || register.host.len() > HOST_BYTES_MAX {
            let reason = format!("a host has 1 to {HOST_BYTES_MAX} bytes");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let mut shards = BTreeMap::new();
        for (shard, durability) in &register.shards {
            let place = ShardPlace { durability: *durability, broker, open: true };
            let known = self.shards.get(shard).or(shards.get(shard)).unwrap_or(&place);
            if known.broker != broker || known.durability != *durability {
                let ShardPlace { broker, durability, .. } = *known;
                return Err(RegistryError::ShardTaken { shard: *shard, broker, durability });
            }
            shards.insert(*shard, place);
        }
        let new_shards = shards.keys().filter(|shard| !self.shards.contains_key(shard)).count();
        let new_brokers = usize::from(!self.brokers.contains_key(&broker));
        if self.shards.len() + new_shards > SHARDS_MAX
            || self.brokers.len() + new_brokers > BROKERS_MAX
        {
            return Err(RegistryError::TooManyBrokers);
        }
        for (shard, place) in &self.shards {
            if place.broker == broker && !shards.contains_key(shard) {
                shards.insert(*shard, ShardPlace { open: false, ..*place });
            }
        }
        let mut changed = Vec::new();
        for (shard, place) in shards {
            self.load.entry(shard).or_insert(0);
            if self.shards.insert(shard, place) != Some(place) {
                changed.push(PartKey::Shard(shard));
            }
        }
        let address = register.address();
        if self.brokers.get(&broker) != Some(&address) {
            self.brokers.insert(broker, address);
            changed.push(PartKey::Broker(broker));
        }
        Ok((Outcome::Registered, changed))
    }

    fn find(&self, name: &TopicName, id: TopicId) -> Result<&Arc<TopicRoutes>, RegistryError> {
        let topic = self.topics.get(name).ok_or(RegistryError::UnknownTopic)?;
        if id != TopicId::UNKNOWN && id != topic.id {
            return Err(RegistryError::StaleTopic { id: topic.id });
        }
        Ok(topic)
    }

    /// Places `count` new queues: each on the open shard of that durability with the fewest
    /// queues, the lowest number first. Changes nothing when it fails.
    fn place_queues(
        &mut self,
        durability: Durability,
        count: u32,
    ) -> Result<Vec<Vec<RouteSpan>>, RegistryError> {
        let mut candidates: BTreeSet<(u64, ShardId)> = self
            .shards
            .iter()
            .filter(|(_, place)| place.open && place.durability == durability)
            .map(|(shard, _)| (self.load.get(shard).copied().unwrap_or(0), *shard))
            .collect();
        if self.queues + u64::from(count) > QUEUES_MAX {
            return Err(RegistryError::TooManyQueues);
        }
        let mut placed = Vec::new();
        for _ in 0..count {
            let Some((load, shard)) = candidates.pop_first() else {
                return Err(RegistryError::NoShard { durability });
            };
            candidates.insert((load + 1, shard));
            placed.push(vec![RouteSpan { shard, from: Offset(0) }]);
        }
        self.load.extend(candidates.into_iter().map(|(load, shard)| (shard, load)));
        self.queues += u64::from(count);
        Ok(placed)
    }

    /// Derives what is derived from the rest.
    pub(crate) fn derive(&mut self) {
        self.names = self.topics.values().map(|topic| (topic.id, topic.name.clone())).collect();
        self.load = self.shards.keys().map(|shard| (*shard, 0)).collect();
        self.queues = 0;
        let last = |spans: &Vec<RouteSpan>| spans.last().map(|span| span.shard);
        for shard in self.topics.values().flat_map(|topic| topic.queues.iter().filter_map(last)) {
            *self.load.entry(shard).or_insert(0) += 1;
            self.queues += 1;
        }
    }

    /// The topic of a name.
    pub fn topic(&self, name: &TopicName) -> Option<&Arc<TopicRoutes>> {
        self.topics.get(name)
    }

    /// The routes as they are now.
    pub fn routing(&self) -> RoutingTable {
        RoutingTable {
            version: self.version,
            topics: self.topics.clone(),
            brokers: self.brokers.clone(),
            shards: self.shards.clone(),
        }
    }
}

type Applied = Result<(Outcome, Vec<PartKey>), RegistryError>;

/// Checks what a user may ask for. Called before a proposal too, so that what cannot be is refused
/// without an entry.
///
/// # Errors
/// [`RegistryError::InvalidSettings`], which says what is wrong.
pub fn check_settings(settings: &TopicSettings) -> Result<(), RegistryError> {
    let invalid = |reason: String| Err(RegistryError::InvalidSettings { reason });
    if settings.queues == 0 || settings.queues > TOPIC_QUEUES_MAX {
        return invalid(format!("a topic has 1 to {TOPIC_QUEUES_MAX} queues"));
    }
    if settings.kind != TopicKind::Durable {
        return invalid(format!("topics of kind {} are not served yet", settings.kind));
    }
    if settings.dedup_window_ms > DEDUP_WINDOW_MS_MAX {
        return invalid(format!("dedup_window_ms is at most {DEDUP_WINDOW_MS_MAX}, 7 days"));
    }
    Ok(())
}
