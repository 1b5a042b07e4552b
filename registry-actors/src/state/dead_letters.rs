//! Topics of dead letters: placed by hand, a queue on each shard that holds queues of their group's
//! topics, so that a dead letter and the settling of its origin are one entry. The first of them is on the
//! shard that keeps who the group's members are. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use grus_protocol::ids::{BrokerId, Durability, Offset, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{ExpiredPolicy, TopicKind, TopicSettings, WhenFull};
use grus_protocol::names::GroupName;

use super::limits::is_of_names;
use super::{Applied, GROUPED_MAX, Outcome, QUEUES_MAX, REPLICAS_MAX, State, TOPIC_QUEUES_MAX};
use crate::command::PlaceDeadLetters;
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{RouteSpan, ShardClass, ShardPlace, TopicRoutes};

/// How long dead letters are kept: 30 days.
pub const DEAD_LETTER_RETENTION_MS: u64 = 30 * 24 * 3_600 * 1_000;

impl State {
    /// Makes the topic if it is not there and has a home, and gives it a queue on each shard that
    /// has none. Changes nothing when it fails, or when all is as asked.
    pub(super) fn place_dead_letters(
        &mut self,
        created: TimestampMs,
        place: PlaceDeadLetters,
    ) -> Applied {
        let PlaceDeadLetters { name, id, home, shards, home_replicas, left_out } = place;
        if GroupName::of_dead_letters(&name).is_none() {
            return Err(RegistryError::InvalidSettings { reason: format!("{name} is no group's") });
        }
        let known = match home {
            None => Some(Arc::clone(self.find(&name, id)?)),
            Some(_) => self.topics.get(&name).cloned(),
        };
        let is_new = known.is_none();
        let mut topic = match known {
            Some(known) => TopicRoutes::clone(&known),
            None if id == TopicId::UNKNOWN || self.names.contains_key(&id) => {
                return Err(RegistryError::IdInUse { id });
            }
            None if self.topics_counted() >= GROUPED_MAX && !is_of_names(&name) => {
                return Err(RegistryError::TooManyGroups);
            }
            None => {
                let (name, queues) = (name.clone(), Vec::new());
                let (settings, altered) = (settings(), created);
                TopicRoutes { name, id, settings, created, altered, queues }
            }
        };
        let there: BTreeSet<ShardId> =
            topic.queues.iter().filter_map(|spans| spans.last()).map(|span| span.shard).collect();
        let first = home.filter(|_| is_new);
        let mut added: Vec<ShardId> = Vec::new();
        for shard in first.into_iter().chain(shards) {
            if !there.contains(&shard) && !added.contains(&shard) {
                added.push(shard);
            }
        }
        self.check_added(&topic, &added)?;
        if added.is_empty() {
            return Ok((Outcome::Topic(Arc::new(topic)), Vec::new()));
        }
        let mut changed = Vec::new();
        if let Some(home) = first
            && let Some(better) =
                self.home_on_several(home, home_replicas, topic.id, &left_out, &mut changed)
        {
            added.retain(|shard| ![home, better].contains(shard));
            added.insert(0, better);
        }
        for shard in &added {
            *self.load.entry(*shard).or_insert(0) += 1;
            topic.queues.push(vec![RouteSpan { shard: *shard, from: Offset(0) }]);
        }
        self.queues += added.len() as u64;
        topic.settings.queues = u32::try_from(topic.queues.len()).unwrap_or(u32::MAX);
        let (id, topic) = (topic.id, Arc::new(topic));
        self.names.insert(id, name.clone());
        self.topics.insert(name, Arc::clone(&topic));
        changed.push(PartKey::Topic(id));
        Ok((Outcome::Topic(topic), changed))
    }

    /// On how many brokers a new group's members are to be kept: on as many as its topics' queues may be,
    /// so that it goes on wherever they do; the group is made before it says which topics those are. So it
    /// is as many as any shard has, and as a topic gets for which nobody names a number, where that
    /// outlives a broker. Asked before a command is written, as the number of a topic's replicas is.
    pub(crate) fn home_replicas(&self, most: u32) -> u32 {
        let of_several = self.shards.values().filter(|place| place.open && place.is_replicated());
        // Not their class: one whose members became fewer keeps it.
        let members = |place: &ShardPlace| {
            place.members_count().max(u32::try_from(place.wanted.len()).unwrap_or(u32::MAX))
        };
        let on_shards = of_several.map(members).max().unwrap_or(0);
        let by_default = Some(self.replicas_by_default(most)).filter(|replicas| *replicas > 2);
        on_shards.max(by_default.unwrap_or(0))
    }

    /// On how many brokers a new group's home is to be, where its broker has named `home`, and which brokers get no
    /// place on shards that are made for it: of as many as are wanted, or as can be had now, as what comes later
    /// does not change it. Of two both would be needed: that is no better than one, unless no more are wanted. Asked
    /// before a command is written, by a process that knows which brokers are gone for long.
    pub(crate) fn home_wish(
        &self,
        home: ShardId,
        most: u32,
        long_gone: &BTreeSet<BrokerId>,
    ) -> (u32, Vec<BrokerId>) {
        let wanted = self.home_replicas(most);
        let has = self.shards.get(&home).map_or(0, ShardPlace::members_count);
        if has >= wanted {
            return (wanted, Vec::new());
        }
        let gone = self.gone_for_good(long_gone);
        let (live, known) = (self.live_brokers().count(), self.brokers.len() - gone.len());
        let least = (has + 1).max(wanted.min(3));
        for replicas in (least..=wanted.min(REPLICAS_MAX)).rev() {
            let class = ShardClass { durability: Durability::Persisted, replicas };
            if let Ok(chosen) = self.choose_shards(class, 1) {
                let members = chosen.first().and_then(|shard| self.shards.get(shard));
                if members.is_some_and(|place| place.members_count() > has) {
                    return (replicas, Vec::new());
                }
            } else if known >= replicas as usize && live * 2 > replicas as usize {
                return (replicas, gone);
            }
        }
        (wanted, gone)
    }

    /// The brokers that are gone for long and have been replaced in all that they shared with others, or never had
    /// any of it: where there are such shards they are not waited for. One that is just being started again may
    /// have none of them as well, and a group's home is for ever.
    fn gone_for_good(&self, long_gone: &BTreeSet<BrokerId>) -> Vec<BrokerId> {
        let several = || self.shards.values().filter(|place| place.is_replicated());
        if several().next().is_none() {
            return Vec::new();
        }
        let gone = self.gone_brokers().filter(|broker| long_gone.contains(broker));
        gone.filter(|broker| !several().any(|place| place.is_on(*broker))).collect()
    }

    /// A persisted shard of so many brokers for a new group whose home would have fewer, made if need be;
    /// none where the home is good, or where no other shard has more: the class of one is more than its
    /// members are where some were let go.
    fn home_on_several(
        &mut self,
        home: ShardId,
        replicas: u32,
        group: TopicId,
        left_out: &[BrokerId],
        changed: &mut Vec<PartKey>,
    ) -> Option<ShardId> {
        let has = self.shards.get(&home).map_or(0, ShardPlace::members_count);
        if has >= replicas || replicas > REPLICAS_MAX {
            return None;
        }
        let class = ShardClass { durability: Durability::Persisted, replicas };
        if self.choose_shards(class, 1).is_err() {
            changed.extend(self.make_homes(class, group, left_out).unwrap_or_default());
        }
        let better = self.choose_shards(class, 1).ok()?.first().copied()?;
        let members = self.shards.get(&better).map_or(0, ShardPlace::members_count);
        (better != home && members > has).then_some(better)
    }

    /// Whether queues can be on these shards: those of any broker that is known, there or not, and
    /// of any durability.
    fn check_added(&self, topic: &TopicRoutes, added: &[ShardId]) -> Result<(), RegistryError> {
        if let Some(shard) = added.iter().find(|shard| !self.shards.contains_key(shard)) {
            return Err(RegistryError::InvalidSettings { reason: format!("no shard {shard}") });
        }
        if topic.queues.len() + added.len() > TOPIC_QUEUES_MAX as usize {
            let reason = format!("a topic has 1 to {TOPIC_QUEUES_MAX} queues");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let queues = self.queues_counted() + added.len() as u64;
        if queues > QUEUES_MAX && !is_of_names(&topic.name) {
            return Err(RegistryError::TooManyQueues);
        }
        Ok(())
    }
}

/// How dead letters are kept. The durability is that of the first queue; each queue has that of its
/// shard.
fn settings() -> TopicSettings {
    TopicSettings {
        queues: 0,
        durability: Durability::Persisted,
        retention_ms: DEAD_LETTER_RETENTION_MS,
        retention_bytes: 0,
        kind: TopicKind::DeadLetter,
        dedup_window_ms: 0,
        expired: ExpiredPolicy::Drop,
        replicas: 1,
        retention_messages: 0,
        when_full: WhenFull::DropOldest,
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::QueueId;
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::command::{Command, CreateTopic, EnrolBroker, MarkBroker, StoredSettings};
    use crate::state::Answer;

    #[test]
    fn groups_leave_room_for_topics() {
        let mut state = State::default();
        let topic = TopicRoutes {
            name: TopicName::try_from("t").unwrap(),
            id: TopicId(1),
            settings: settings(),
            created: TimestampMs(1),
            altered: TimestampMs(1),
            queues: Vec::new(),
        };
        let topic = Arc::new(topic);
        for number in 1..GROUPED_MAX {
            let name = TopicName::try_from(format!("t{number}").as_str()).unwrap();
            state.topics.insert(name, Arc::clone(&topic));
        }
        let name = GroupName::try_from("g").unwrap().dead_letters();
        let (id, home) = (TopicId(2), Some(ShardId(0)));
        let (shards, left_out, home_replicas) = (Vec::new(), Vec::new(), 3);
        let place = PlaceDeadLetters { name, id, home, shards, home_replicas, left_out };
        let refused = state.place_dead_letters(TimestampMs(1), place.clone()).unwrap_err();
        assert!(
            matches!(refused, RegistryError::InvalidSettings { .. }),
            "no such shard: {refused}"
        );
        state.topics.insert(TopicName::try_from("one.more").unwrap(), topic);
        let refused = state.place_dead_letters(TimestampMs(1), place).unwrap_err();
        assert_eq!(refused, RegistryError::TooManyGroups);
    }

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(TimestampMs(1), command, &mut BTreeSet::new())
    }

    /// These brokers, each with a shard of each durability, and a topic of so many replicas.
    fn registry(brokers: std::ops::RangeInclusive<u64>, replicas: u32) -> State {
        let mut state = State::default();
        for broker in brokers {
            let enrol = EnrolBroker {
                broker: BrokerId(broker),
                disk: broker,
                host: "h".into(),
                port: 1,
                shards: Vec::new(),
                shards_wanted: 1,
                memberships: Vec::new(),
                shards_below: 0,
            };
            apply(&mut state, Command::EnrolBroker(enrol)).unwrap();
        }
        let durability = Durability::Replicated;
        let settings = TopicSettings { replicas, durability, ..TopicSettings::default() };
        let (name, id) = (TopicName::try_from("t").unwrap(), TopicId(50));
        let create = CreateTopic { name, id, settings: StoredSettings::from(&settings) };
        apply(&mut state, Command::CreateTopic(create)).unwrap();
        state
    }

    fn leave(state: &mut State, brokers: &[u64]) {
        for broker in brokers.iter().copied().map(BrokerId) {
            let mark = MarkBroker { broker, live: false };
            apply(state, Command::MarkBroker(mark)).unwrap();
        }
    }

    /// What is wanted for a new group's home where all that are gone are gone for long.
    fn wish(state: &State) -> (u32, Vec<BrokerId>) {
        state.home_wish(ShardId(0), 3, &state.gone_brokers().collect())
    }

    /// A group is first joined, and its broker names its own shard; who keeps its members.
    fn join(state: &mut State) -> Vec<u64> {
        let wish = wish(state);
        join_as(state, wish)
    }

    fn join_as(state: &mut State, (home_replicas, left_out): (u32, Vec<BrokerId>)) -> Vec<u64> {
        let name = GroupName::try_from("g").unwrap().dead_letters();
        let (id, home, shards) = (TopicId(60), Some(ShardId(0)), Vec::new());
        let place = PlaceDeadLetters { name, id, home, shards, home_replicas, left_out };
        let Ok(Outcome::Topic(topic)) = apply(state, Command::PlaceDeadLetters(place)) else {
            panic!("it is placed");
        };
        let place = &state.shards[&topic.shard_of(QueueId(0)).unwrap()];
        place.members.iter().map(|member| member.0).collect()
    }

    #[test]
    fn a_home_has_fewer_members_where_as_many_as_are_wanted_cannot_be_had() {
        let mut state = registry(1..=5, 5);
        assert_eq!(wish(&state), (5, Vec::new()));
        leave(&mut state, &[4, 5]);
        assert_eq!(wish(&state), (5, Vec::new()), "they may come back");
        leave(&mut state, &[3]);
        assert_eq!(wish(&state), (3, Vec::new()), "two of five elect nobody");
        assert_eq!(join(&mut state), [1, 2, 3]);
    }

    #[test]
    fn a_broker_that_has_been_replaced_has_no_place_in_a_new_home() {
        let mut state = registry(1..=4, 3);
        leave(&mut state, &[1]);
        let several = |place: &&mut ShardPlace| place.is_replicated();
        for place in state.shards.values_mut().filter(several) {
            place.members = [2, 3, 4].map(BrokerId).to_vec(); // others have got what it had
        }
        leave(&mut state, &[4]);
        assert_eq!(wish(&state), (3, vec![BrokerId(1)]));
        assert_eq!(join(&mut state), [2, 3, 4], "this one may come back");
        // With one of three gone for good there are two: both would be needed, as one is now.
        let mut state = registry(1..=3, 2);
        leave(&mut state, &[1]);
        let several = |place: &&mut ShardPlace| place.is_replicated();
        for place in state.shards.values_mut().filter(several) {
            place.members = [2, 3].map(BrokerId).to_vec();
        }
        assert_eq!(wish(&state), (2, vec![BrokerId(1)]), "as the topic has");
        for place in state.shards.values_mut().filter(several) {
            place.wanted = [2, 3, 4].map(BrokerId).to_vec(); // one more is to come
        }
        assert_eq!(wish(&state), (3, vec![BrokerId(1)]));
        assert!(join(&mut state).is_empty(), "it stays where its broker says");
    }

    #[test]
    fn a_broker_that_is_just_being_started_again_has_its_place_in_a_new_home() {
        let mut state = registry(1..=3, 2);
        leave(&mut state, &[1]);
        let several = |place: &&mut ShardPlace| place.is_replicated();
        for place in state.shards.values_mut().filter(several) {
            place.members = [2, 3].map(BrokerId).to_vec(); // it is in none of them
            place.wanted = [2, 3, 4].map(BrokerId).to_vec();
        }
        assert_eq!(wish(&state), (3, vec![BrokerId(1)]), "where it is gone for long");
        let soon_back = state.home_wish(ShardId(0), 3, &BTreeSet::new());
        assert_eq!(soon_back, (3, Vec::new()));
        let mut members = join_as(&mut state, soon_back);
        members.sort_unstable();
        assert_eq!(members, [1, 2, 3]);
    }
}
