//! Compares what the shards hold with what the registry knows, once for each registry. Pure.
//!
//! All shards list their topics. A registry that their data belongs to is believed: what it does not
//! know was deleted. Any other one (new, or without its data) is offered all that it lacks; once it
//! has answered, the data belongs to it. Number 0 stands for what was known before a registry could
//! be reached: then the shards are the ones to be believed ([`found`]).
//!
//! Each beginning is a round of its own, and every answer says of which round its question was: one that
//! comes late must not stand for the answer to a later question. It would end a survey whose offers have not
//! all been taken, and what the registry then does not know would be thrown away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{Durability, Offset, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{TopicKind, TopicSettings};
use grus_registry::command::{AdoptTopic, StoredSettings};
use grus_registry::{RouteSpan, RoutingTable, TopicRoutes};

use crate::commands::TopicConfig;

/// Most topics of one offer.
const OFFER_TOPICS_MAX: usize = 100;

/// What each shard holds.
pub type Holdings = BTreeMap<ShardId, Vec<TopicConfig>>;

/// Which survey a question belongs to: of which life of the one who asks, and which of that life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Round {
    life: u64,
    number: u64,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Survey {
    round: Round,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Listing {
        registry: u64,
        missing: BTreeSet<ShardId>,
        holdings: Holdings,
    },
    Offering {
        registry: u64,
        left: usize,
        offered: Vec<TopicId>,
        refused: Vec<TopicId>,
    },
    Done {
        registry: u64,
    },
}

impl Survey {
    /// One in the given life of the actor that asks: answers may outlive the one that has asked.
    #[must_use]
    pub fn of_life(life: u64) -> Self {
        Self { round: Round { life, number: 0 }, state: State::Idle }
    }

    /// Begins for a registry, if it is another one than the last: the round for which the shards are to be
    /// asked then.
    pub fn begin(
        &mut self,
        registry: u64,
        shards: impl IntoIterator<Item = ShardId>,
    ) -> Option<Round> {
        let at_work = match &self.state {
            State::Idle => false,
            State::Listing { registry: of, .. }
            | State::Offering { registry: of, .. }
            | State::Done { registry: of } => *of == registry,
        };
        if at_work {
            return None;
        }
        let missing = shards.into_iter().collect();
        self.state = State::Listing { registry, missing, holdings: Holdings::new() };
        self.round.number += 1;
        Some(self.round)
    }

    /// A shard has listed its topics, or could not; what all hold, once all have.
    pub fn listed(
        &mut self,
        round: Round,
        shard: ShardId,
        topics: Option<Vec<TopicConfig>>,
    ) -> Option<Holdings> {
        let is_late = round != self.round;
        let State::Listing { missing, holdings, .. } = &mut self.state else { return None };
        if is_late {
            return None;
        }
        let Some(topics) = topics else {
            self.again();
            return None;
        };
        if missing.remove(&shard) {
            holdings.insert(shard, topics);
        }
        missing.is_empty().then(|| std::mem::take(holdings))
    }

    /// These offers are under way: the round for which they are made. None where nothing was listed.
    pub fn offering(&mut self, offers: &[Vec<AdoptTopic>]) -> Option<Round> {
        let State::Listing { registry, .. } = self.state else { return None };
        let offered = offers.iter().flatten().map(|topic| topic.id).collect();
        let (left, refused) = (offers.len(), Vec::new());
        self.state = State::Offering { registry, left, offered, refused };
        Some(self.round)
    }

    /// An offer was answered, with the topics that were not taken; once all are, all that was offered,
    /// and all of those.
    pub fn answered(
        &mut self,
        round: Round,
        not_taken: Vec<TopicId>,
    ) -> Option<(Vec<TopicId>, Vec<TopicId>)> {
        let is_late = round != self.round;
        let State::Offering { left, offered, refused, .. } = &mut self.state else { return None };
        if is_late {
            return None;
        }
        *left = left.saturating_sub(1);
        refused.extend(not_taken);
        (*left == 0).then(|| (std::mem::take(offered), std::mem::take(refused)))
    }

    /// An offer could not be answered: it begins anew. False for one of an earlier round.
    pub fn unanswered(&mut self, round: Round) -> bool {
        let is_now = round == self.round && matches!(self.state, State::Offering { .. });
        if is_now {
            self.again();
        }
        is_now
    }

    /// It is over.
    pub fn done(&mut self) {
        if let State::Listing { registry, .. } | State::Offering { registry, .. } = self.state {
            self.state = State::Done { registry };
        }
    }

    /// Whether it is over for that registry.
    #[must_use]
    pub fn is_done(&self, of: u64) -> bool {
        matches!(self.state, State::Done { registry } if registry == of)
    }

    /// It failed, or what it found does not count any more: it begins anew.
    pub fn again(&mut self) {
        self.state = State::Idle;
    }
}

/// What shards hold and the registry does not know, in offers of a bounded size.
#[must_use]
pub fn offers(table: &RoutingTable, holdings: &Holdings) -> Vec<Vec<AdoptTopic>> {
    let mut unknown: BTreeMap<TopicId, AdoptTopic> = BTreeMap::new();
    for (shard, topics) in holdings {
        for config in topics {
            let known = table.topics.get(&config.name).filter(|known| known.id == config.topic);
            let is_known =
                |queue: &QueueId| known.is_some_and(|known| known.shard_of(*queue) == Some(*shard));
            let queues: Vec<_> = config
                .queues
                .iter()
                .filter(|queue| !is_known(queue))
                .map(|queue| (*queue, *shard))
                .collect();
            if queues.is_empty() {
                continue;
            }
            let topic = unknown.entry(config.topic).or_insert_with(|| offered(config));
            topic.queues.extend(queues);
            if topic.altered < config.altered {
                // That shard was told of a change of which another one was not.
                topic.settings = StoredSettings::from(&settings_of(config));
                topic.altered = config.altered;
            }
        }
    }
    let all: Vec<_> = unknown.into_values().collect();
    all.chunks(OFFER_TOPICS_MAX).map(<[_]>::to_vec).collect()
}

/// Topics that shards hold and that are not known: with the queues that are here.
#[must_use]
pub fn found(table: &RoutingTable, holdings: &Holdings) -> Vec<Arc<TopicRoutes>> {
    let mut topics: BTreeMap<TopicId, TopicRoutes> = BTreeMap::new();
    for (shard, configs) in holdings {
        for config in configs.iter().filter(|config| !table.topics.contains_key(&config.name)) {
            let topic = topics.entry(config.topic).or_insert_with(|| TopicRoutes {
                name: config.name.clone(),
                id: config.topic,
                settings: settings_of(config),
                created: config.altered,
                altered: config.altered,
                queues: Vec::new(),
            });
            if topic.altered < config.altered {
                (topic.settings, topic.altered) = (settings_of(config), config.altered);
            }
            // Unless it was altered since, that is when it was made: a shard that was not told of it comes nearest.
            topic.created = topic.created.min(config.altered);
            for queue in &config.queues {
                let at = queue.0 as usize;
                topic.queues.resize_with(topic.queues.len().max(at + 1), Vec::new);
                topic.queues[at] = vec![RouteSpan { shard: *shard, from: Offset(0) }];
            }
            topic.settings.queues = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        }
    }
    topics.into_values().map(Arc::new).collect()
}

fn settings_of(config: &TopicConfig) -> TopicSettings {
    let kind = TopicKind::from_number(config.kind).unwrap_or(TopicKind::Durable);
    TopicSettings {
        queues: u32::try_from(config.queues.len()).unwrap_or(u32::MAX),
        durability: if kind == TopicKind::Temporary {
            Durability::Memory
        } else {
            config.durability
        },
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        kind,
        dedup_window_ms: config.dedup_window_ms,
        expired: config.expired,
        replicas: 1, // the registry goes by the shards
        retention_messages: config.retention_messages,
        when_full: config.when_full,
    }
}

fn offered(config: &TopicConfig) -> AdoptTopic {
    AdoptTopic {
        name: config.name.clone(),
        id: config.topic,
        settings: StoredSettings::from(&settings_of(config)),
        queues: Vec::new(),
        altered: config.altered,
        created: TimestampMs(0), // the registry goes by when it was altered
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::names::TopicName;

    use super::*;

    fn config(name: &str, id: u64, queues: &[u32]) -> TopicConfig {
        TopicConfig {
            topic: TopicId(id),
            name: TopicName::try_from(name).unwrap(),
            queues: queues.iter().copied().map(QueueId).collect(),
            durability: Durability::Persisted,
            retention_ms: 5,
            retention_bytes: 6,
            kind: TopicKind::Durable.number(),
            dedup_window_ms: 7,
            expired: grus_protocol::message::ExpiredPolicy::DeadLetter,
            altered: TimestampMs(8),
            retention_messages: 9,
            when_full: grus_protocol::message::WhenFull::Reject,
        }
    }

    #[test]
    fn what_all_shards_hold_of_a_topic_is_one_offer() {
        let holdings = Holdings::from([
            (ShardId(0), vec![config("a", 1, &[0, 2]), config("b", 2, &[0])]),
            (ShardId(4), vec![config("a", 1, &[1])]),
        ]);
        let offers = offers(&RoutingTable::default(), &holdings);
        assert_eq!(offers.len(), 1);
        let queues: Vec<_> = offers[0].iter().map(|topic| topic.queues.clone()).collect();
        let place = |queue, shard| (QueueId(queue), ShardId(shard));
        assert_eq!(queues, [vec![place(0, 0), place(2, 0), place(1, 4)], vec![place(0, 0)]]);
    }

    #[test]
    fn of_the_settings_that_shards_have_the_newest_are_told() {
        let newer =
            TopicConfig { retention_ms: 9, altered: TimestampMs(10), ..config("a", 1, &[1]) };
        let old = config("a", 1, &[0]);
        for (first, second) in [(old.clone(), newer.clone()), (newer, old)] {
            let holdings = Holdings::from([(ShardId(0), vec![first]), (ShardId(4), vec![second])]);
            let table = RoutingTable::default();
            let offer = &offers(&table, &holdings)[0][0];
            let settings = grus_protocol::message::TopicSettings::from(&offer.settings);
            assert_eq!((settings.retention_ms, offer.altered), (9, TimestampMs(10)));
            let found = &found(&table, &holdings)[0];
            assert_eq!((found.settings.retention_ms, found.altered), (9, TimestampMs(10)));
            assert_eq!(found.created, TimestampMs(8), "it was made before it was altered");
            assert_eq!(found.settings.queues, 2);
        }
    }

    #[test]
    fn what_is_here_is_found_with_the_queues_that_are_here() {
        let holdings = Holdings::from([
            (ShardId(0), vec![config("a", 1, &[0, 3])]),
            (ShardId(4), vec![config("a", 1, &[1])]),
        ]);
        let topics = found(&RoutingTable::default(), &holdings);
        let shards: Vec<_> =
            (0..4).map(|queue| topics[0].shard_of(QueueId(queue)).map(|shard| shard.0)).collect();
        assert_eq!((topics.len(), shards), (1, vec![Some(0), Some(4), None, Some(0)]));
        let known = RoutingTable {
            topics: topics.iter().map(|topic| (topic.name.clone(), Arc::clone(topic))).collect(),
            ..RoutingTable::default()
        };
        assert!(found(&known, &holdings).is_empty());
    }

    #[test]
    fn a_registry_is_surveyed_once_and_again_after_a_failure() {
        let mut survey = Survey::default();
        let shards = [ShardId(0), ShardId(1)];
        let round = survey.begin(0, []).unwrap();
        assert!(survey.listed(round, ShardId(0), None).is_none());
        let round = survey.begin(7, shards).unwrap();
        assert!(survey.begin(7, shards).is_none());
        assert_eq!(survey.listed(round, ShardId(0), Some(Vec::new())), None);
        assert_eq!(survey.listed(round, ShardId(1), None), None);
        let round = survey.begin(7, shards).expect("a shard could not list");
        assert_eq!(survey.listed(round, ShardId(1), Some(Vec::new())), None);
        assert_eq!(survey.listed(round, ShardId(0), Some(Vec::new())).unwrap().len(), 2);
        assert_eq!(survey.offering(&[offer(3), offer(4)]), Some(round));
        assert_eq!(survey.answered(round, vec![TopicId(3)]), None);
        let all = Some((vec![TopicId(3), TopicId(4)], vec![TopicId(3)]));
        assert_eq!(survey.answered(round, Vec::new()), all);
        survey.done();
        assert!(survey.is_done(7) && !survey.is_done(0));
        assert!(survey.begin(7, shards).is_none());
        assert!(survey.begin(8, shards).is_some(), "another registry");
    }

    #[test]
    fn what_was_answered_to_an_earlier_round_does_not_count_for_a_later_one() {
        let offers = [offer(3), offer(4)];
        let shard = ShardId(0);
        let mut survey = Survey::of_life(1);
        let first = survey.begin(7, [shard]).unwrap();
        survey.listed(first, shard, Some(Vec::new())).unwrap();
        survey.offering(&offers).unwrap();
        assert!(survey.unanswered(first), "the registry was busy with one of the two");
        let second = survey.begin(7, [shard]).unwrap();
        assert_eq!(survey.listed(first, shard, None), None, "what the first one asked comes late");
        assert_eq!(survey.listed(first, shard, Some(Vec::new())), None);
        survey.listed(second, shard, Some(Vec::new())).expect("nobody else has answered");
        survey.offering(&offers).unwrap();
        // The other offer of the first round: nothing is known of the two that are under way now.
        assert_eq!(survey.answered(first, Vec::new()), None);
        assert!(!survey.unanswered(first), "nor is anything wrong with them");
        assert_eq!(survey.answered(second, Vec::new()), None);
        assert!(survey.answered(second, Vec::new()).is_some(), "both were taken");
        // One that was rebuilt begins to count anew, and hears what the one before has asked.
        let mut rebuilt = Survey::of_life(2);
        let third = rebuilt.begin(7, [shard]).unwrap();
        assert_eq!(rebuilt.listed(first, shard, Some(Vec::new())), None);
        assert!(rebuilt.listed(third, shard, Some(Vec::new())).is_some());
    }

    fn offer(id: u64) -> Vec<AdoptTopic> {
        vec![offered(&config("a", id, &[0]))]
    }
}
