//! Shards that get more members: those that one broker has alone become groups of several. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{BrokerId, ShardId, Term, TimestampMs};
use grus_protocol::message::TopicKind;

use super::{Applied, Outcome, REPLICAS_MAX, State};
use crate::command::GrowReplicas;
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{ShardPlace, TopicRoutes};

impl State {
    /// Shards are to have at least so many members: the live brokers that have the fewest replicas, and are not
    /// drained, get them. A shard that one broker has alone becomes the group of which that one is the only member
    /// yet; topics all of whose shards are so are of as many replicas from here on.
    ///
    /// # Errors
    /// When there are too few brokers; nothing is changed then.
    pub(super) fn grow_replicas(&mut self, time: TimestampMs, grow: &GrowReplicas) -> Applied {
        let refused = |reason: String| Err(RegistryError::InvalidSettings { reason });
        let GrowReplicas { replicas, .. } = *grow;
        if !(2..=REPLICAS_MAX).contains(&replicas) {
            return refused(format!("a shard grows to 2 to {REPLICAS_MAX} members"));
        }
        let group = self.new_group();
        let mut burden = self.burden();
        let mut places = BTreeMap::new();
        let mut changing = Vec::new();
        for shard in self.to_grow(grow)? {
            let Some(known) = self.shards.get(&shard) else {
                return refused(format!("there is no shard {shard}"));
            };
            let mut place = known.clone();
            place.replicas = place.replicas.max(replicas);
            if !place.is_replicated() {
                (place.members, place.group) = (vec![place.broker], group);
                (place.term, place.members_at) = (Term(0), 0);
            }
            let is_wanted = !place.wanted.is_empty();
            let mut list = if is_wanted { &place.wanted } else { &place.members }.clone();
            let has_enough = list.len() >= replicas as usize;
            while list.len() < replicas as usize {
                let others = burden.iter_mut().filter(|(broker, _)| !list.contains(*broker));
                let Some((broker, count)) = others.min_by_key(|(id, count)| (**count, **id)) else {
                    let live = burden.len();
                    let rest = if self.drained.is_empty() { "" } else { " that are not drained" };
                    return refused(format!(
                        "shard {shard} of {replicas} members, and {live} brokers are there{rest}"
                    ));
                };
                *count += 1;
                list.push(*broker);
            }
            if !has_enough {
                place.wanted = list;
                changing.push(shard);
            }
            if place != *known {
                places.insert(shard, place);
            }
        }
        let mut keys: Vec<_> = places.keys().map(|shard| PartKey::Shard(*shard)).collect();
        self.shards.extend(places);
        keys.extend(self.raise_topics(time, replicas));
        Ok((Outcome::Changing(changing), keys))
    }

    /// The shards that are meant.
    fn to_grow(&self, grow: &GrowReplicas) -> Result<BTreeSet<ShardId>, RegistryError> {
        let mut shards: BTreeSet<ShardId> = grow.shards.iter().copied().collect();
        if let Some(name) = &grow.topic {
            let topic = self.topics.get(name).ok_or(RegistryError::UnknownTopic)?;
            shards.extend(shards_of(topic));
            // What a group knows of the topic lies on its shards, who its members are on another one.
            let of_groups = self.topics.values().filter(|topic| is_dead_letter(topic));
            let beside = of_groups.map(|topic| shards_of(topic).collect::<BTreeSet<_>>());
            let beside: Vec<_> = beside.filter(|all| !all.is_disjoint(&shards)).collect();
            shards.extend(beside.into_iter().flatten());
        } else if shards.is_empty() {
            shards.extend(self.topics.values().flat_map(|topic| shards_of(topic)));
        }
        Ok(shards)
    }

    /// Notes of topics that they are of more replicas, where all their shards are; those that changed.
    fn raise_topics(&mut self, time: TimestampMs, replicas: u32) -> Vec<PartKey> {
        let shards = &self.shards;
        let is_so = |topic: &&mut Arc<TopicRoutes>| {
            let mut on = shards_of(topic).filter_map(|shard| shards.get(&shard));
            !is_dead_letter(topic)
                && topic.settings.replicas < replicas
                && !topic.queues.is_empty()
                && on.all(|place| place.replicas >= replicas)
        };
        let mut keys = Vec::new();
        for topic in self.topics.values_mut().filter(is_so) {
            let mut raised = TopicRoutes::clone(topic);
            raised.settings.replicas = replicas;
            raised.altered = TimestampMs(time.0.max(topic.altered.0.saturating_add(1)));
            keys.push(PartKey::Topic(raised.id));
            *topic = Arc::new(raised);
        }
        keys
    }

    /// How many replicas each live broker that is not drained has, or is to have.
    fn burden(&self) -> BTreeMap<BrokerId, usize> {
        let live = self.brokers.iter().filter(|(_, broker)| broker.live);
        let live = live.filter(|(id, _)| !self.drained.contains(*id));
        let count = |broker: BrokerId| {
            let is_on = |place: &&ShardPlace| place.is_replicated() && place.is_on(broker);
            self.shards.values().filter(is_on).count()
        };
        live.map(|(id, _)| (*id, count(*id))).collect()
    }

    /// A number that no group of this registry has, and none of another one but by chance.
    fn new_group(&self) -> u64 {
        let number = self.registry ^ (self.version + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        number.max(1)
    }
}

fn is_dead_letter(topic: &TopicRoutes) -> bool {
    topic.settings.kind == TopicKind::DeadLetter
}

fn shards_of(topic: &TopicRoutes) -> impl Iterator<Item = ShardId> {
    topic.queues.iter().flatten().map(|span| span.shard)
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{Durability, TopicId};
    use grus_protocol::message::TopicSettings;
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::command::{
        AlterTopic, Command, CreateTopic, EnrolBroker, FoundRegistry, LeadShards, MarkBroker,
        MembershipClaim, PlaceDeadLetters, StoredSettings, ToldMembers,
    };
    use crate::state::Answer;

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(TimestampMs(1), command, &mut BTreeSet::new())
    }

    fn enrolment(broker: u64) -> EnrolBroker {
        EnrolBroker {
            broker: BrokerId(broker),
            disk: broker,
            host: "h".into(),
            port: 1,
            shards: Vec::new(),
            shards_wanted: 2,
            memberships: Vec::new(),
            shards_below: 0,
        }
    }

    fn name(name: &str) -> TopicName {
        TopicName::try_from(name).unwrap()
    }

    fn create(state: &mut State, id: u64, queues: u32, replicas: u32) -> Answer {
        let settings = TopicSettings { queues, replicas, ..TopicSettings::default() };
        let (name, settings) = (name(&format!("t{id}")), StoredSettings::from(&settings));
        apply(state, Command::CreateTopic(CreateTopic { name, id: TopicId(id), settings }))
    }

    /// A registry of a broker with two topics and a group that reads one of them, and of two brokers
    /// that came later. The broker has the persisted shards 0 and 2.
    fn grown_up() -> State {
        let mut state = State::default();
        apply(&mut state, Command::FoundRegistry(FoundRegistry { registry: 77 })).unwrap();
        apply(&mut state, Command::EnrolBroker(enrolment(1))).unwrap();
        create(&mut state, 50, 1, 1).unwrap();
        create(&mut state, 51, 1, 1).unwrap();
        let place = PlaceDeadLetters {
            name: TopicName::system("DLQ", "g").unwrap(),
            id: TopicId(60),
            home: Some(ShardId(2)),
            shards: vec![ShardId(0)],
            home_replicas: 0,
            left_out: Vec::new(),
        };
        apply(&mut state, Command::PlaceDeadLetters(place)).unwrap();
        for broker in [2, 3] {
            apply(&mut state, Command::EnrolBroker(enrolment(broker))).unwrap();
        }
        state
    }

    fn grow(state: &mut State, topic: Option<&str>, replicas: u32) -> Result<Vec<u32>, String> {
        let grow = GrowReplicas { shards: Vec::new(), topic: topic.map(name), replicas };
        match apply(state, Command::GrowReplicas(grow)) {
            Ok(Outcome::Changing(shards)) => Ok(shards.into_iter().map(|shard| shard.0).collect()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn numbers(list: &[BrokerId]) -> Vec<u64> {
        list.iter().map(|broker| broker.0).collect()
    }

    #[test]
    fn what_one_broker_has_alone_becomes_a_group_of_which_it_is_the_only_member_yet() {
        let mut state = grown_up();
        let on = |state: &State, id| shards_of(&state.topics[&state.names[&TopicId(id)]]).next();
        assert_eq!((on(&state, 50), on(&state, 51)), (Some(ShardId(0)), Some(ShardId(2))));
        // The group that reads it is coordinated on the other shard.
        assert_eq!(grow(&mut state, Some("t50"), 3), Ok(vec![0, 2]));
        let place = state.shards[&ShardId(0)].clone();
        assert_eq!((numbers(&place.members), numbers(&place.wanted)), (vec![1], vec![1, 2, 3]));
        assert!(place.group != 0 && place.members_at == 0 && !place.is_founder(BrokerId(1)));
        assert_eq!(state.routing().leader_of(ShardId(0)).map(|at| at.id), Some(BrokerId(1)));
        assert_eq!(state.routing().shards_of(BrokerId(1)).len(), 2, "of the other durability");
        assert_eq!(grow(&mut state, None, 3), Ok(vec![]), "again");
        let settings =
            |state: &State, id: u64| state.topics[&name(&format!("t{id}"))].settings.replicas;
        assert_eq!((settings(&state, 50), settings(&state, 51)), (3, 3));
        // What is asked for now is not put where one broker alone has it yet.
        create(&mut state, 59, 9, 3).unwrap();
        let on: Vec<_> = shards_of(&state.topics[&name("t59")]).map(|shard| shard.0).collect();
        assert!(!on.contains(&0) && !on.contains(&2), "{on:?}");
        // Its leader tells of each step, the first ones of itself alone.
        for (members, at) in [(&[1][..], 20), (&[1, 2, 3], 25)] {
            let members = members.iter().copied().map(BrokerId).collect();
            let lead = LeadShards {
                broker: BrokerId(1),
                shards: vec![(ShardId(0), Term(4))],
                members: vec![ToldMembers { shard: ShardId(0), members, at }],
            };
            apply(&mut state, Command::LeadShards(lead)).unwrap();
            assert_eq!(state.shards[&ShardId(0)].members_at, at);
        }
        assert_eq!(numbers(&state.shards[&ShardId(0)].members), [1, 2, 3]);
        assert!(state.shards[&ShardId(0)].wanted.is_empty());
        // More queues go where the others are, and the next topic of three finds shards of its own.
        let alter = AlterTopic {
            name: name("t50"),
            id: TopicId(50),
            queues: Some(3),
            retention_ms: None,
            retention_bytes: None,
            dedup_window_ms: None,
            expired: None,
            retention_messages: None,
            when_full: None,
        };
        apply(&mut state, Command::AlterTopic(alter)).unwrap();
        let topic = &state.topics[&name("t50")];
        assert!(shards_of(topic).all(|shard| state.shards[&shard].replicas == 3));
        create(&mut state, 52, 3, 3).unwrap();
        let of_three = state.shards.values().filter(|place| place.replicas == 3);
        let firsts: Vec<u64> = of_three.map(|place| place.members[0].0).collect();
        assert_eq!(firsts, [1, 1, 2, 3], "the first broker has its own");
    }

    #[test]
    fn where_all_have_grown_a_topic_of_one_replica_is_placed_on_what_is_whole() {
        let mut state = grown_up();
        let is_lone = |place: &&ShardPlace| place.members.is_empty();
        let is_persisted = |place: &&ShardPlace| place.durability == Durability::Persisted;
        let all = state.shards.iter().filter(|(_, place)| is_lone(place) && is_persisted(place));
        let shards: Vec<ShardId> = all.map(|(shard, _)| *shard).collect();
        let grow = GrowReplicas { shards: shards.clone(), topic: None, replicas: 3 };
        apply(&mut state, Command::GrowReplicas(grow)).unwrap();
        let refused = create(&mut state, 70, 2, 1).unwrap_err();
        assert!(matches!(refused, RegistryError::NoShard { .. }), "none is whole yet: {refused:?}");
        let (shard, leader) = (shards[0], state.shards[&shards[0]].members[0]);
        let members = [1, 2, 3].map(BrokerId).to_vec();
        let told = vec![ToldMembers { shard, members, at: 25 }];
        let lead = LeadShards { broker: leader, shards: vec![(shard, Term(4))], members: told };
        apply(&mut state, Command::LeadShards(lead)).unwrap();
        create(&mut state, 70, 2, 1).unwrap();
        let on: BTreeSet<_> = shards_of(&state.topics[&name("t70")]).collect();
        assert_eq!(on, BTreeSet::from([shard]));
    }

    #[test]
    fn those_that_have_fewest_replicas_get_them_and_too_few_brokers_change_nothing() {
        let mut state = grown_up();
        let before = state.clone();
        let refused = grow(&mut state, None, 4).unwrap_err();
        assert!(refused.contains("4 members, and 3 brokers are there"), "{refused}");
        assert!(grow(&mut state, None, 1).is_err() && grow(&mut state, Some("nobody"), 2).is_err());
        assert_eq!(state, before);
        assert_eq!(grow(&mut state, None, 2), Ok(vec![0, 2]));
        let wanted = |state: &State, shard| numbers(&state.shards[&ShardId(shard)].wanted);
        assert_eq!((wanted(&state, 0), wanted(&state, 2)), (vec![1, 2], vec![1, 3]));
        let dead = MarkBroker { broker: BrokerId(2), live: false };
        apply(&mut state, Command::MarkBroker(dead)).unwrap();
        assert!(grow(&mut state, None, 3).is_err());
    }

    #[test]
    fn a_broker_that_has_not_heard_of_it_is_let_in_and_its_word_counts_where_data_was_lost() {
        let mut state = grown_up();
        grow(&mut state, None, 3).unwrap();
        let before = state.shards.clone();
        let claims = [0, 2].map(|shard| (ShardId(shard), Durability::Persisted)).to_vec();
        let enrol = EnrolBroker { shards: claims, shards_wanted: 0, ..enrolment(1) };
        let own = apply(&mut state, Command::EnrolBroker(enrol.clone())).unwrap();
        let Outcome::Enrolled(own) = own else { panic!("{own:?}") };
        assert!(own.iter().all(|(shard, _)| ![ShardId(0), ShardId(2)].contains(shard)), "{own:?}");
        assert_eq!(state.shards, before);
        assert!(state.enrolled_as(&enrol).is_some(), "nothing is written for it");
        // The same shard as another broker's own is another shard.
        let other = EnrolBroker { broker: BrokerId(9), disk: 9, ..enrol };
        assert!(apply(&mut state, Command::EnrolBroker(other)).is_err());
        // A copy of the registry of before: who has grown since says so.
        let mut old = grown_up();
        let claim = MembershipClaim {
            shard: ShardId(0),
            durability: Durability::Persisted,
            members: [1, 2, 3].map(BrokerId).to_vec(),
            group: before[&ShardId(0)].group,
            wanted: Vec::new(),
            members_at: 25,
        };
        for broker in [1, 2] {
            let enrol = EnrolBroker { memberships: vec![claim.clone()], ..enrolment(broker) };
            let own = apply(&mut old, Command::EnrolBroker(enrol)).unwrap();
            let Outcome::Enrolled(own) = own else { panic!("{own:?}") };
            assert!(own.iter().all(|(shard, _)| *shard != ShardId(0)), "{own:?}");
            let place = &old.shards[&ShardId(0)];
            assert_eq!(numbers(&place.members), [1, 2, 3]);
            assert_eq!((place.group, place.replicas), (claim.group, 3));
        }
    }
}
