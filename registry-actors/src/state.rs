//! The registry's state: topics, brokers, shards. A pure function of the commands applied.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{BrokerId, Durability, Offset, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{DEDUP_WINDOW_MS_MAX, TopicKind, TopicSettings};
use grus_protocol::names::TopicName;

use crate::command::{AlterTopic, Command, CreateTopic, DeleteTopic, GrowTopic, PlaceTopic};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{BrokerPlace, RouteSpan, RoutingTable, ShardClass, ShardPlace, TopicRoutes};

pub use replicas::{REPLICAS_MAX, TOPIC_REPLICAS_DEFAULT};

mod adopt;
mod brokers;
mod dead_letters;
mod drained;
mod growth;
mod limits;
mod replicas;

/// Most topics.
pub const TOPICS_MAX: usize = 100_000;
/// Groups are made while there are fewer topics than this, those of dead letters included: what is left is
/// for topics, however many groups are made by whoever names one.
pub const GROUPED_MAX: usize = 90_000;
const _: () = assert!(GROUPED_MAX < TOPICS_MAX);
/// Most queues of one topic.
pub const TOPIC_QUEUES_MAX: u32 = 1_024;
/// Most queues of all topics together.
pub const QUEUES_MAX: u64 = 200_000;
/// Most brokers.
pub const BROKERS_MAX: usize = 1_000;
/// Most shards.
pub const SHARDS_MAX: usize = 10_000;

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
    /// The broker is there; these are all its shards.
    Enrolled(Vec<(ShardId, Durability)>),
    /// The topics offered are there, but for these.
    Adopted(Vec<(TopicName, TopicId, RegistryError)>),
    /// These shards are to have other members from here on.
    Changing(Vec<ShardId>),
    /// It is done.
    Done,
}

/// Topics, brokers and shards.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The registry's number; 0 before it was founded.
    pub(crate) registry: u64,
    pub(crate) version: u64,
    pub(crate) topics: BTreeMap<TopicName, Arc<TopicRoutes>>,
    pub(crate) names: BTreeMap<TopicId, TopicName>,
    pub(crate) brokers: BTreeMap<BrokerId, BrokerPlace>,
    /// Those of them that are drained: they get nothing new where others can have it.
    pub(crate) drained: BTreeSet<BrokerId>,
    pub(crate) shards: BTreeMap<ShardId, ShardPlace>,
    /// New shards get numbers from here on: of lower ones some broker has heard, perhaps from a registry
    /// before this one.
    pub(crate) shards_from: u32,
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
            Command::CreateTopic(create) => self.create_topic(time, create, &[])?,
            Command::PlaceTopic(PlaceTopic { create, shards }) => {
                self.create_topic(time, create, &shards)?
            }
            Command::AlterTopic(alter) => self.alter_topic(time, &alter, &[])?,
            Command::GrowTopic(GrowTopic { alter, shards }) => {
                self.alter_topic(time, &alter, &shards)?
            }
            Command::DeleteTopic(delete) => self.delete_topic(&delete)?,
            Command::RegisterBroker(register) => self.register_broker(&register)?,
            Command::FoundRegistry(found) => self.found(found.registry),
            Command::EnrolBroker(enrol) => self.enrol_broker(&enrol)?,
            Command::MarkBroker(mark) => self.mark_broker(&mark),
            Command::AdoptTopics(adopt) => self.adopt_topics(time, adopt),
            Command::PlaceDeadLetters(place) => self.place_dead_letters(time, place)?,
            Command::LeadShards(lead) => self.lead_shards(&lead),
            Command::ChangeReplicas(change) => self.change_replicas(&change)?,
            Command::GrowReplicas(grow) => self.grow_replicas(time, &grow)?,
            Command::DrainBroker(drain) => self.drain_broker(&drain),
        };
        if !changed.is_empty() {
            self.version += 1;
            dirty.insert(PartKey::Meta);
            dirty.extend(changed);
        }
        Ok(outcome)
    }

    fn create_topic(
        &mut self,
        created: TimestampMs,
        create: CreateTopic,
        chosen: &[ShardId],
    ) -> Applied {
        let CreateTopic { name, id, settings } = create;
        if let Some(topic) = self.topics.get(&name) {
            return Err(RegistryError::TopicExists { id: topic.id });
        }
        let settings = TopicSettings::from(&settings).settled();
        check_settings(&settings)?;
        if settings.kind == TopicKind::DeadLetter {
            return Err(of_a_group(&name));
        }
        if id == TopicId::UNKNOWN || self.names.contains_key(&id) {
            return Err(RegistryError::IdInUse { id });
        }
        if self.topics_counted() >= TOPICS_MAX {
            return Err(RegistryError::TooManyTopics);
        }
        if self.queues_counted() + u64::from(settings.queues) > QUEUES_MAX {
            return Err(RegistryError::TooManyQueues);
        }
        let mut changed = self.make_replicas(ShardClass::of(&settings), id)?;
        let queues = self.place_queues(ShardClass::of(&settings), settings.queues, chosen)?;
        let altered = created;
        let topic = TopicRoutes { name: name.clone(), id, settings, created, altered, queues };
        let topic = Arc::new(topic);
        self.names.insert(id, name.clone());
        self.topics.insert(name, Arc::clone(&topic));
        changed.push(PartKey::Topic(id));
        Ok((Outcome::Topic(topic), changed))
    }

    fn alter_topic(
        &mut self,
        time: TimestampMs,
        alter: &AlterTopic,
        chosen: &[ShardId],
    ) -> Applied {
        let topic = Arc::clone(self.find(&alter.name, alter.id)?);
        if topic.settings.kind == TopicKind::DeadLetter {
            return Err(of_a_group(&alter.name));
        }
        let mut settings = topic.settings.clone();
        settings.queues = alter.queues.unwrap_or(settings.queues);
        settings.retention_ms = alter.retention_ms.unwrap_or(settings.retention_ms);
        settings.retention_bytes = alter.retention_bytes.unwrap_or(settings.retention_bytes);
        settings.dedup_window_ms = alter.dedup_window_ms.unwrap_or(settings.dedup_window_ms);
        settings.expired = alter.expired.unwrap_or(settings.expired);
        settings.retention_messages =
            alter.retention_messages.unwrap_or(settings.retention_messages);
        settings.when_full = alter.when_full.unwrap_or(settings.when_full);
        let settings = settings.settled();
        check_settings(&settings)?;
        let before = topic.settings.queues;
        let Some(more) = settings.queues.checked_sub(before) else {
            let reason = format!("a topic keeps its queues: it has {before}");
            return Err(RegistryError::InvalidSettings { reason });
        };
        if settings == topic.settings {
            return Ok((Outcome::Topic(topic), Vec::new()));
        }
        let added = self.place_queues(ShardClass::of(&settings), more, chosen)?;
        let mut altered = TopicRoutes::clone(&topic);
        altered.settings = settings;
        altered.altered = TimestampMs(time.0.max(topic.altered.0.saturating_add(1)));
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

    fn find(&self, name: &TopicName, id: TopicId) -> Result<&Arc<TopicRoutes>, RegistryError> {
        let topic = self.topics.get(name).ok_or(RegistryError::UnknownTopic)?;
        if id != TopicId::UNKNOWN && id != topic.id {
            return Err(RegistryError::StaleTopic { id: topic.id });
        }
        Ok(topic)
    }

    /// Whether new queues of that class may be placed on a shard.
    fn takes_queues(&self, shard: ShardId, class: ShardClass) -> bool {
        self.shards.get(&shard).is_some_and(|place| {
            let is_live = |broker: &BrokerId| self.brokers.get(broker).is_some_and(|it| it.live);
            // Of several members, a majority serves it, those that are drained among them; another one leads it.
            let leads = |broker: &BrokerId| is_live(broker) && !self.drained.contains(broker);
            let live = match place.members.len() {
                0 => leads(&place.broker),
                all => {
                    let live = place.members.iter().filter(|member| is_live(member)).count();
                    live > all / 2 && place.members.iter().any(leads)
                }
            };
            // What grows promises less than it is to, until a leader says that its members are there.
            let is_whole = place.wanted.is_empty() || place.members_count() >= class.replicas;
            place.open && live && is_whole && place.class() == class
        })
    }

    /// Places `count` new queues: on the shards chosen for them where those fit; else each on the
    /// open shard of a live broker with the fewest queues, the lowest number first. Where there is none with
    /// so many replicas, those with the next more take them. Changes nothing when it fails.
    fn place_queues(
        &mut self,
        class: ShardClass,
        count: u32,
        chosen: &[ShardId],
    ) -> Result<Vec<Vec<RouteSpan>>, RegistryError> {
        if self.queues_counted() + u64::from(count) > QUEUES_MAX {
            return Err(RegistryError::TooManyQueues);
        }
        let fits = chosen.len() == count as usize
            && chosen.iter().all(|shard| self.takes_queues(*shard, class));
        let placed = if fits { chosen.to_vec() } else { self.choose_shards(class, count)? };
        for shard in &placed {
            *self.load.entry(*shard).or_insert(0) += 1;
        }
        self.queues += u64::from(count);
        let span = |shard| vec![RouteSpan { shard, from: Offset(0) }];
        Ok(placed.into_iter().map(span).collect())
    }

    /// That class, or where no shard of it takes queues, as all have grown, the next one with more replicas.
    fn class_that_is_there(&self, class: ShardClass) -> ShardClass {
        let classes = self.shards.iter().map(|(shard, place)| (place.class(), *shard));
        let fits = classes.filter(|(other, _)| other.durability == class.durability);
        let fits = fits.filter(|(other, _)| other.replicas >= class.replicas);
        let open = fits.filter(|(other, shard)| self.takes_queues(*shard, *other));
        open.map(|(other, _)| other).min().unwrap_or(class)
    }

    fn choose_shards(&self, class: ShardClass, count: u32) -> Result<Vec<ShardId>, RegistryError> {
        let class = self.class_that_is_there(class);
        let open = self.shards.keys().filter(|shard| self.takes_queues(**shard, class));
        let mut candidates: BTreeSet<(u64, ShardId)> =
            open.map(|shard| (self.load.get(shard).copied().unwrap_or(0), *shard)).collect();
        let mut placed = Vec::new();
        for _ in 0..count {
            let Some((load, shard)) = candidates.pop_first() else {
                return Err(RegistryError::NoShard { durability: class.durability });
            };
            candidates.insert((load + 1, shard));
            placed.push(shard);
        }
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
            registry: self.registry,
            version: self.version,
            topics: self.topics.clone(),
            brokers: self.brokers.clone(),
            drained: self.drained.clone(),
            shards: self.shards.clone(),
        }
    }
}

/// Topics of dead letters are made and changed with their group.
fn of_a_group(name: &TopicName) -> RegistryError {
    RegistryError::InvalidSettings { reason: format!("{name}: dead letters belong to a group") }
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
    if (settings.kind == TopicKind::Temporary) != (settings.durability == Durability::Memory) {
        return invalid("temporary topics, and no others, promise memory alone".to_owned());
    }
    if settings.replicas == 0 || settings.replicas > REPLICAS_MAX {
        return invalid(format!("a topic has 1 to {REPLICAS_MAX} replicas"));
    }
    if settings.dedup_window_ms > DEDUP_WINDOW_MS_MAX {
        return invalid(format!("dedup_window_ms is at most {DEDUP_WINDOW_MS_MAX}, 7 days"));
    }
    Ok(())
}
