//! What there is to be divided: the queues that members subscribe to, and who may have each. Pure.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::{GroupId, MemberId, QueueId, QueueKey, ShardId, TopicId};
use grus_protocol::message::GroupSubscription;
use grus_protocol::names::{GroupName, TopicName, TopicPattern};

use crate::registry_link::routes::{NO_SHARD, Routes, TopicRoute};

/// A topic that at least one member subscribes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldTopic {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// Those of its queues that can be divided, ascending.
    pub queues: Vec<QueueId>,
    /// The members that subscribe to it, ascending; never empty.
    pub members: Vec<MemberId>,
}

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Field {
    /// By incarnation.
    topics: BTreeMap<TopicId, FieldTopic>,
    /// Shards of queues that cannot be divided yet: the group has no dead-letter queue there.
    unready: BTreeSet<ShardId>,
}

/// Those of what members subscribe to that more than one topic can match: each costs a look at every
/// topic there is.
pub fn wildcards(subscriptions: &[GroupSubscription]) -> impl Iterator<Item = &TopicPattern> {
    subscriptions.iter().map(|one| &one.topics).filter(|pattern| pattern.topic().is_none())
}

impl Field {
    /// The field of these members, by what the routes say. A queue is in it once the group has a
    /// dead-letter queue on the same shard: nobody can claim it before.
    pub fn of<'a>(
        group: (&GroupName, GroupId),
        members: impl Iterator<Item = (MemberId, &'a [GroupSubscription])>,
        routes: &Routes,
    ) -> Self {
        let mut by_pattern: BTreeMap<&TopicPattern, BTreeSet<MemberId>> = BTreeMap::new();
        for (member, subscriptions) in members {
            for subscription in subscriptions {
                by_pattern.entry(&subscription.topics).or_default().insert(member);
            }
        }
        let mut wanted: BTreeMap<TopicName, BTreeSet<MemberId>> = BTreeMap::new();
        let mut patterns = Vec::new();
        for (pattern, members) in by_pattern {
            match pattern.topic() {
                Some(name) => wanted.entry(name).or_default().extend(members),
                None => patterns.push((pattern, members)),
            }
        }
        if !patterns.is_empty() {
            for topic in routes.topics() {
                for (pattern, members) in &patterns {
                    if pattern.matches(&topic.name) {
                        wanted.entry(topic.name.clone()).or_default().extend(members);
                    }
                }
            }
        }
        let mut field = Self::default();
        let ready = ready_shards(group, routes);
        for (name, members) in wanted {
            if let Some(topic) = routes.get(&name) {
                field.add(topic, members.into_iter().collect(), &ready);
            }
        }
        field
    }

    /// A field without routes, for tests and measurements.
    #[must_use]
    pub fn from_topics(topics: Vec<FieldTopic>) -> Self {
        let topics = topics.into_iter().map(|topic| (topic.id, topic)).collect();
        Self { topics, unready: BTreeSet::new() }
    }

    fn add(&mut self, topic: &TopicRoute, members: Vec<MemberId>, ready: &BTreeSet<ShardId>) {
        let mut queues = Vec::new();
        for (number, place) in (0..).zip(&topic.queues) {
            if ready.contains(&place.shard) {
                queues.push(QueueId(number));
            } else if place.shard != NO_SHARD {
                self.unready.insert(place.shard);
            }
        }
        let (name, id) = (topic.name.clone(), topic.id);
        self.topics.insert(id, FieldTopic { name, id, queues, members });
    }

    /// The topics, by incarnation.
    pub fn topics(&self) -> impl Iterator<Item = &FieldTopic> {
        self.topics.values()
    }

    /// A topic.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&FieldTopic> {
        self.topics.get(&id)
    }

    /// Those who subscribe to other queues than `before`.
    #[must_use]
    pub fn members_with_others_than(&self, before: &Self) -> BTreeSet<MemberId> {
        let mut members = BTreeSet::new();
        let ids: BTreeSet<&TopicId> = self.topics.keys().chain(before.topics.keys()).collect();
        for id in ids {
            let now = self.topics.get(id);
            let was = before.topics.get(id);
            let is_same = now
                .zip(was)
                .is_some_and(|(now, was)| (&now.name, &now.queues) == (&was.name, &was.queues));
            for (one, other) in [(now, was), (was, now)] {
                let of_both = other.filter(|_| is_same).map_or(&[][..], |topic| &topic.members);
                let of_one = one.into_iter().flat_map(|topic| &topic.members);
                members.extend(of_one.filter(|member| of_both.binary_search(member).is_err()));
            }
        }
        members
    }

    /// All queues, in order.
    pub fn queues(&self) -> impl Iterator<Item = QueueKey> {
        let of = |topic: &FieldTopic| {
            let id = topic.id;
            topic.queues.clone().into_iter().map(move |queue| QueueKey { topic: id, queue })
        };
        self.topics.values().flat_map(of)
    }

    /// How many queues there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.values().map(|topic| topic.queues.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shards on which the group needs a dead-letter queue first.
    #[must_use]
    pub const fn unready(&self) -> &BTreeSet<ShardId> {
        &self.unready
    }
}

fn ready_shards((group, id): (&GroupName, GroupId), routes: &Routes) -> BTreeSet<ShardId> {
    let dead_letters = routes.get(&group.dead_letters());
    let own = dead_letters.filter(|topic| topic.id == id.dead_letters());
    own.into_iter().flat_map(|topic| &topic.queues).map(|place| place.shard).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use grus_protocol::ids::TimestampMs;
    use grus_protocol::message::{MessageFilter, TopicSettings};

    use super::*;
    use crate::registry_link::routes::{Leader, QueuePlace};

    pub(crate) const GROUP: GroupId = GroupId(900);

    pub(crate) fn group() -> GroupName {
        GroupName::try_from("g").unwrap()
    }

    pub(crate) fn subscription(topics: &str) -> GroupSubscription {
        GroupSubscription { topics: topics.parse().unwrap(), filter: MessageFilter::All }
    }

    /// Puts a topic with a queue on each of these shards.
    pub(crate) fn put(routes: &mut Routes, name: &str, id: u64, shards: &[u32]) {
        let place =
            |shard: &u32| QueuePlace { shard: ShardId(*shard), handle: None, leader: Leader::Here };
        routes.put(TopicRoute {
            name: TopicName::parse_any(name).unwrap(),
            id: TopicId(id),
            settings: TopicSettings::default(),
            created: TimestampMs(0),
            queues: shards.iter().map(place).collect(),
        });
        routes.version += 1;
    }

    fn field(subscriptions: &[&[&str]], routes: &Routes) -> Field {
        let all: Vec<Vec<_>> = subscriptions
            .iter()
            .map(|of_one| of_one.iter().map(|topics| subscription(topics)).collect())
            .collect();
        let members = (1..).map(MemberId).zip(all.iter().map(Vec::as_slice));
        Field::of((&group(), GROUP), members, routes)
    }

    #[test]
    fn a_queue_is_for_those_that_subscribe_to_its_topic() {
        let mut routes = Routes::default();
        put(&mut routes, "%DLQ%g", GROUP.0, &[0, 1]);
        put(&mut routes, "orders.eu", 1, &[0, 1]);
        put(&mut routes, "orders.us", 2, &[0]);
        put(&mut routes, "bills", 3, &[1]);
        let field = field(&[&["orders.*"], &["orders.us", "bills"], &["missing"]], &routes);
        let seen: Vec<_> = field
            .topics()
            .map(|topic| {
                let members: Vec<_> = topic.members.iter().map(|member| member.0).collect();
                (topic.name.to_string(), topic.queues.len(), members)
            })
            .collect();
        let expected =
            [("orders.eu", 2, vec![1]), ("orders.us", 1, vec![1, 2]), ("bills", 1, vec![2])];
        let expected = expected.map(|(name, queues, members)| (name.to_owned(), queues, members));
        assert_eq!(seen, expected);
        assert_eq!((field.len(), field.unready().len()), (4, 0));
    }

    #[test]
    fn who_has_other_queues_than_before_is_known() {
        let topic = |id, queues: u32, members: &[u64]| FieldTopic {
            name: TopicName::try_from("t").unwrap(),
            id: TopicId(id),
            queues: (0..queues).map(QueueId).collect(),
            members: members.iter().copied().map(MemberId).collect(),
        };
        let before = Field::from_topics(vec![topic(1, 4, &[1, 2, 3]), topic(2, 1, &[2])]);
        let others = |topics| -> Vec<u64> {
            let members = Field::from_topics(topics).members_with_others_than(&before);
            members.into_iter().map(|member| member.0).collect()
        };
        assert_eq!(others(vec![topic(1, 4, &[1, 2, 3]), topic(2, 1, &[2])]), Vec::<u64>::new());
        assert_eq!(others(vec![topic(1, 4, &[1, 3, 4]), topic(2, 1, &[2])]), [2, 4], "came, went");
        assert_eq!(others(vec![topic(1, 5, &[1, 2, 3]), topic(2, 1, &[2])]), [1, 2, 3], "grew");
        assert_eq!(others(vec![topic(1, 4, &[1, 2, 3])]), [2], "gone");
        assert_eq!(others(vec![topic(1, 4, &[1, 2, 3]), topic(3, 1, &[1, 2])]), [1, 2], "anew");
    }

    #[test]
    fn a_queue_waits_for_the_dead_letter_queue_of_its_shard() {
        let mut routes = Routes::default();
        put(&mut routes, "%DLQ%g", GROUP.0, &[1]);
        put(&mut routes, "t", 1, &[0, 1, NO_SHARD.0]);
        let field = field(&[&["t"]], &routes);
        assert_eq!(field.queues().collect::<Vec<_>>(), [key(1, 1)]);
        assert_eq!(field.unready(), &BTreeSet::from([ShardId(0)]));
    }

    #[test]
    fn the_dead_letter_topic_of_an_earlier_group_of_that_name_does_not_count() {
        let mut routes = Routes::default();
        put(&mut routes, "%DLQ%g", GROUP.0 + 1, &[0]);
        put(&mut routes, "t", 1, &[0]);
        let field = field(&[&["t"]], &routes);
        assert!(field.is_empty() && field.unready().len() == 1);
    }

    pub(crate) fn key(topic: u64, queue: u32) -> QueueKey {
        QueueKey { topic: TopicId(topic), queue: QueueId(queue) }
    }
}
