//! Topics that brokers' shards hold and the registry does not know: it has lost its data, or is
//! another one. What a shard holds is never thrown away for that. Pure.

use std::sync::Arc;

use grus_protocol::ids::{BrokerId, Durability, Offset, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{TopicKind, TopicSettings};

use super::brokers::taken;
use super::limits::is_of_names;
use super::{Outcome, QUEUES_MAX, State, TOPIC_QUEUES_MAX, TOPICS_MAX, check_settings};
use crate::command::{AdoptTopic, AdoptTopics};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{RouteSpan, TopicRoutes};

/// A broker may say of a topic that it was altered so much later than now, in milliseconds: a hundred years. Clocks
/// are wrong at times, but each change is later than the one before, and must be for ever.
const ALTERED_AHEAD_MS_MAX: u64 = 100 * 365 * 86_400_000;

impl State {
    /// Takes what can be taken, each topic by itself.
    pub(super) fn adopt_topics(
        &mut self,
        time: TimestampMs,
        adopt: AdoptTopics,
    ) -> (Outcome, Vec<PartKey>) {
        let AdoptTopics { broker, topics } = adopt;
        let (mut refused, mut changed) = (Vec::new(), Vec::new());
        for topic in topics {
            let (name, id) = (topic.name.clone(), topic.id);
            match self.adopt(time, broker, topic) {
                Ok(true) => changed.push(PartKey::Topic(id)),
                Ok(false) => {}
                Err(error) => refused.push((name, id, error)),
            }
        }
        (Outcome::Adopted(refused), changed)
    }

    /// Takes one; says whether it changed anything.
    fn adopt(
        &mut self,
        time: TimestampMs,
        broker: BrokerId,
        offered: AdoptTopic,
    ) -> Result<bool, RegistryError> {
        let AdoptTopic { name, id, settings, queues, altered, created } = offered;
        let created = Some(created.min(time)).filter(|created| *created != TimestampMs(0));
        if altered.0.saturating_sub(time.0) > ALTERED_AHEAD_MS_MAX {
            let reason = format!("it is {time}, they cannot be of {altered}");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let is_of_names = is_of_names(&name);
        let mut settings = TopicSettings::from(&settings);
        let mut is_newer = false;
        let mut topic = match self.topics.get(&name) {
            Some(topic) if topic.id == id => {
                let mut topic = TopicRoutes::clone(topic);
                // Another member of a shard told of it before, and had not heard of a change yet.
                is_newer = topic.altered < altered;
                if is_newer {
                    take_settings(&mut topic, &settings)?;
                    topic.altered = altered;
                }
                // Nothing is altered before it is made: of two that were told the earlier one is nearer.
                if let Some(created) = created.filter(|created| *created < topic.created) {
                    (topic.created, is_newer) = (created, true);
                }
                topic
            }
            Some(topic) => return Err(RegistryError::TopicExists { id: topic.id }),
            None if id == TopicId::UNKNOWN || self.names.contains_key(&id) => {
                return Err(RegistryError::IdInUse { id });
            }
            None if self.topics_counted() >= TOPICS_MAX && !is_of_names => {
                return Err(RegistryError::TooManyTopics);
            }
            None => {
                settings.queues = 1; // counted below
                check_settings(&settings)?;
                if settings.kind == TopicKind::DeadLetter {
                    settings.durability = Durability::Persisted; // whichever shard told of it first
                }
                let (name, queues) = (name.clone(), Vec::new());
                let created = created.unwrap_or(time);
                TopicRoutes { name, id, settings, created, altered, queues }
            }
        };
        let mut added = Vec::new();
        for (queue, shard) in queues {
            if self.put_queue(&mut topic, broker, queue, shard)? {
                added.push(shard);
            }
        }
        if self.queues_counted() + added.len() as u64 > QUEUES_MAX && !is_of_names {
            return Err(RegistryError::TooManyQueues);
        }
        if added.is_empty() && !is_newer {
            return Ok(false); // nothing new, or a topic without queues
        }
        self.queues += added.len() as u64;
        for shard in added {
            *self.load.entry(shard).or_insert(0) += 1;
        }
        topic.settings.queues = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        self.names.insert(id, name.clone());
        self.topics.insert(name, Arc::new(topic));
        Ok(true)
    }

    /// Puts a queue where its shard says it is; whether that was not known.
    fn put_queue(
        &self,
        topic: &mut TopicRoutes,
        broker: BrokerId,
        queue: QueueId,
        shard: ShardId,
    ) -> Result<bool, RegistryError> {
        let durability = topic.settings.durability.of_shards();
        let of_any = topic.settings.kind == TopicKind::DeadLetter;
        match self.shards.get(&shard) {
            Some(place) if place.is_on(broker) && (of_any || place.durability == durability) => {
                topic.settings.replicas = if of_any { 1 } else { place.replicas };
            }
            Some(place) => return Err(taken(shard, place)),
            None => return Err(RegistryError::NoShard { durability }),
        }
        if queue.0 >= TOPIC_QUEUES_MAX {
            let reason = format!("a topic has 1 to {TOPIC_QUEUES_MAX} queues");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let at = queue.0 as usize;
        if topic.queues.len() <= at {
            topic.queues.resize(at + 1, Vec::new());
        }
        match topic.queues[at].last() {
            None => {
                topic.queues[at] = vec![RouteSpan { shard, from: Offset(0) }];
                Ok(true)
            }
            Some(span) if span.shard == shard => Ok(false),
            Some(_) => {
                let reason = format!("queue {queue} is on another shard than {shard}");
                Err(RegistryError::InvalidSettings { reason })
            }
        }
    }
}

/// Settings that can be altered are taken; the others are those of the shards.
fn take_settings(topic: &mut TopicRoutes, newer: &TopicSettings) -> Result<(), RegistryError> {
    let TopicSettings { queues, durability, kind, replicas, .. } = topic.settings;
    let settings = TopicSettings { queues, durability, kind, replicas, ..*newer };
    check_settings(&settings)?;
    topic.settings = settings;
    Ok(())
}
