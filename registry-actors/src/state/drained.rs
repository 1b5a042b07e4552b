//! Brokers that an operator has drained: they get no new queues, shards or replicas where others can have them. What
//! they have they keep, and they count there as before. Pure.

use grus_protocol::ids::BrokerId;

use super::{Outcome, State};
use crate::command::DrainBroker;
use crate::part::PartKey;

impl State {
    /// A broker that is known is drained, or is not any more. That stays when it goes and comes back.
    pub(super) fn drain_broker(&mut self, drain: &DrainBroker) -> (Outcome, Vec<PartKey>) {
        let DrainBroker { broker, drained } = *drain;
        let is_known = self.brokers.contains_key(&broker);
        if !is_known || self.drained.contains(&broker) == drained {
            return (Outcome::Done, Vec::new());
        }
        if drained {
            self.drained.insert(broker);
        } else {
            self.drained.remove(&broker);
        }
        (Outcome::Done, vec![PartKey::Broker(broker)])
    }

    /// The live brokers among which new shards of `wanted` members are divided, and how many of them may stand first
    /// in a list of members, from the first one on. Those that are drained do not; they have the places that are left
    /// where there are too few others, as a promise of so many copies counts for more than a drain.
    pub(super) fn ring(&self, wanted: usize) -> (Vec<BrokerId>, usize) {
        let is_drained = |broker: &BrokerId| self.drained.contains(broker);
        let mut ring: Vec<_> = self.live_brokers().filter(|broker| !is_drained(broker)).collect();
        let firsts = ring.len();
        let drained = self.live_brokers().filter(is_drained);
        ring.extend(drained.take(wanted.saturating_sub(firsts)));
        (ring, firsts)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{ShardId, TimestampMs, TopicId};
    use grus_protocol::message::TopicSettings;
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::command::{
        ChangeReplicas, Command, CreateTopic, EnrolBroker, GrowReplicas, MarkBroker, StoredSettings,
    };
    use crate::error::RegistryError;
    use crate::routing::ShardPlace;
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
            shards_wanted: 1,
            memberships: Vec::new(),
            shards_below: 0,
        }
    }

    fn registry(brokers: u64) -> State {
        let mut state = State::default();
        for broker in 1..=brokers {
            apply(&mut state, Command::EnrolBroker(enrolment(broker))).unwrap();
        }
        state
    }

    fn drain(state: &mut State, broker: u64, drained: bool) {
        let drain = DrainBroker { broker: BrokerId(broker), drained };
        apply(state, Command::DrainBroker(drain)).unwrap();
    }

    /// The shards that the queues of a new topic are on.
    fn create(
        state: &mut State,
        id: u64,
        queues: u32,
        replicas: u32,
    ) -> Result<Vec<ShardPlace>, RegistryError> {
        let name = TopicName::try_from(&*format!("t{id}")).unwrap();
        let settings = TopicSettings { queues, replicas, ..TopicSettings::default() };
        let settings = StoredSettings::from(&settings);
        let create = CreateTopic { name, id: TopicId(id), settings };
        let made = match apply(state, Command::CreateTopic(create))? {
            Outcome::Topic(topic) => topic,
            other => panic!("{other:?}"),
        };
        let on: BTreeSet<ShardId> = made.queues.iter().flatten().map(|span| span.shard).collect();
        Ok(on.iter().map(|shard| state.shards[shard].clone()).collect())
    }

    fn numbers(members: &[BrokerId]) -> Vec<u64> {
        members.iter().map(|broker| broker.0).collect()
    }

    #[test]
    fn a_drain_is_kept_by_a_broker_that_is_known_and_written_once() {
        let mut state = registry(2);
        let before = state.version;
        drain(&mut state, 9, true);
        drain(&mut state, 2, false);
        assert_eq!(state.version, before, "nobody knows it, and it was not drained");
        drain(&mut state, 2, true);
        drain(&mut state, 2, true);
        assert_eq!(state.version, before + 1);
        let gone = MarkBroker { broker: BrokerId(2), live: false };
        apply(&mut state, Command::MarkBroker(gone)).unwrap();
        apply(&mut state, Command::EnrolBroker(enrolment(2))).unwrap();
        assert_eq!(state.drained, BTreeSet::from([BrokerId(2)]), "it comes back as it went");
        let keys: Vec<_> = crate::part::keys(&state).collect();
        let part = |key: &PartKey| (key.encode(), crate::part::value(&state, *key).unwrap());
        let parts: Vec<_> = keys.iter().map(part).collect();
        let parts = parts.iter().map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(crate::part::restore(parts).unwrap(), state, "it is stored");
        drain(&mut state, 2, false);
        assert!(state.drained.is_empty());
    }

    #[test]
    fn queues_that_one_broker_has_go_to_others_and_nowhere_where_all_are_drained() {
        let mut state = registry(3);
        drain(&mut state, 2, true);
        let on = create(&mut state, 50, 6, 1).unwrap();
        assert!(on.iter().all(|place| place.broker != BrokerId(2)), "{on:?}");
        for broker in [1, 3] {
            drain(&mut state, broker, true);
        }
        let before = state.clone();
        let refused = create(&mut state, 51, 1, 1).unwrap_err();
        assert!(matches!(refused, RegistryError::NoShard { .. }), "{refused:?}");
        assert_eq!(state, before);
        drain(&mut state, 2, false);
        let on = create(&mut state, 51, 1, 1).unwrap();
        assert_eq!(on[0].broker, BrokerId(2));
    }

    #[test]
    fn new_replicas_go_to_others_and_where_these_are_too_few_it_is_first_of_none() {
        let mut state = registry(4);
        drain(&mut state, 2, true);
        let on = create(&mut state, 50, 8, 3).unwrap();
        let members: Vec<_> = on.iter().map(|place| numbers(&place.members)).collect();
        assert_eq!(members, [[1, 3, 4], [3, 4, 1], [4, 1, 3]]);
        let mut state = registry(3);
        drain(&mut state, 2, true);
        assert_eq!(state.replicas_by_default(3), 3, "it keeps copies");
        let on = create(&mut state, 50, 8, 3).unwrap();
        let members: Vec<_> = on.iter().map(|place| numbers(&place.members)).collect();
        assert_eq!(members, [[1, 3, 2], [3, 2, 1]], "three copies are promised");
        // It counts where it is: of three brokers one is gone, and the drained one makes two.
        let gone = MarkBroker { broker: BrokerId(3), live: false };
        apply(&mut state, Command::MarkBroker(gone)).unwrap();
        create(&mut state, 51, 2, 3).unwrap_err(); // its shards would be of two brokers
        drain(&mut state, 1, true);
        let class = crate::routing::ShardClass { durability: on[0].durability, replicas: 3 };
        let shard = *state.shards.iter().find(|(_, place)| **place == on[0]).unwrap().0;
        assert!(!state.takes_queues(shard, class), "all that are there are drained");
        drain(&mut state, 1, false);
        assert!(state.takes_queues(shard, class), "two of three are a majority");
    }

    #[test]
    fn no_shard_grows_onto_one_that_is_drained_and_none_is_added_there_by_hand() {
        let mut state = registry(4);
        create(&mut state, 50, 1, 1).unwrap();
        drain(&mut state, 2, true);
        let grow = |replicas| {
            let shards = vec![ShardId(0)];
            Command::GrowReplicas(GrowReplicas { shards, topic: None, replicas })
        };
        let refused = apply(&mut state, grow(4)).unwrap_err().to_string();
        assert!(refused.contains("3 brokers are there that are not drained"), "{refused}");
        apply(&mut state, grow(3)).unwrap();
        assert_eq!(numbers(&state.shards[&ShardId(0)].wanted), [1, 3, 4]);
        let add = |broker| {
            let (shards, add) = (vec![ShardId(0)], Some(BrokerId(broker)));
            Command::ChangeReplicas(ChangeReplicas { shards, topic: None, add, remove: None })
        };
        let refused = apply(&mut state, add(2)).unwrap_err().to_string();
        assert!(refused.contains("broker 2 is drained"), "{refused}");
        drain(&mut state, 2, false);
        apply(&mut state, add(2)).unwrap();
    }
}
