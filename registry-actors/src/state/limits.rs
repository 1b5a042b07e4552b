//! What counts against the limits on topics and queues: all that users make. Where the names of producers are
//! kept is the brokers' own: made once, by the first producer that has a name, which is not to fail for what
//! others have made; nor does it take the place of something of theirs. Pure.

use grus_protocol::names::{GroupName, TopicName};

use super::State;

/// Whether that is the topic that says where the names of producers are kept.
pub(super) fn is_of_names(topic: &TopicName) -> bool {
    GroupName::of_dead_letters(topic).is_some_and(|group| group.is_reserved())
}

impl State {
    /// How many topics count.
    pub(super) fn topics_counted(&self) -> usize {
        let names = GroupName::of_producer_names().dead_letters();
        self.topics.len() - usize::from(self.topics.contains_key(&names))
    }

    /// How many queues count.
    pub(super) fn queues_counted(&self) -> u64 {
        let names = self.topics.get(&GroupName::of_producer_names().dead_letters());
        self.queues - names.map_or(0, |topic| placed(topic.queues.iter().map(Vec::len)))
    }
}

/// How many of these queues are on any shard: what a registry without its data knows of others is nothing.
fn placed(spans: impl Iterator<Item = usize>) -> u64 {
    spans.filter(|spans| *spans > 0).count() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use grus_protocol::ids::{BrokerId, ShardId, TimestampMs, TopicId};
    use grus_protocol::message::TopicSettings;

    use super::*;
    use crate::command::{Command, CreateTopic, EnrolBroker, PlaceDeadLetters, StoredSettings};
    use crate::error::RegistryError;
    use crate::routing::TopicRoutes;
    use crate::state::{Answer, GROUPED_MAX, QUEUES_MAX, TOPICS_MAX};

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(TimestampMs(1), command, &mut BTreeSet::new())
    }

    fn place(state: &mut State, group: &GroupName, id: u64) -> Answer {
        let (name, id, home) = (group.dead_letters(), TopicId(id), Some(ShardId(0)));
        let (shards, left_out, home_replicas) = (Vec::new(), Vec::new(), 0);
        let place = PlaceDeadLetters { name, id, home, shards, home_replicas, left_out };
        apply(state, Command::PlaceDeadLetters(place))
    }

    fn create(state: &mut State, name: &str, id: u64) -> Answer {
        let settings = TopicSettings { queues: 1, replicas: 1, ..TopicSettings::default() };
        let (name, settings) =
            (TopicName::try_from(name).unwrap(), StoredSettings::from(&settings));
        apply(state, Command::CreateTopic(CreateTopic { name, id: TopicId(id), settings }))
    }

    fn registry() -> State {
        let mut state = State::default();
        let enrol = EnrolBroker {
            broker: BrokerId(1),
            disk: 1,
            host: "h".into(),
            port: 1,
            shards: Vec::new(),
            shards_wanted: 1,
            memberships: Vec::new(),
            shards_below: 0,
        };
        apply(&mut state, Command::EnrolBroker(enrol)).unwrap();
        state
    }

    /// So many topics more, of no queue.
    fn fill(state: &mut State, topics: usize) {
        create(state, "t", 1).unwrap();
        let some = TopicRoutes::clone(state.topics.values().next().unwrap());
        let topic = Arc::new(TopicRoutes { queues: Vec::new(), ..some });
        for number in 1..topics {
            let name = TopicName::try_from(format!("t{number}").as_str()).unwrap();
            state.topics.insert(name, Arc::clone(&topic));
        }
    }

    #[test]
    fn the_names_of_producers_have_a_place_where_there_is_no_room_for_another_topic() {
        let mut state = registry();
        fill(&mut state, GROUPED_MAX);
        let (names, group) = (GroupName::of_producer_names(), GroupName::try_from("g").unwrap());
        assert_eq!(place(&mut state, &group, 7).unwrap_err(), RegistryError::TooManyGroups);
        state.queues = QUEUES_MAX;
        place(&mut state, &names, 8).unwrap();
        assert_eq!((state.topics_counted(), state.queues_counted()), (GROUPED_MAX, QUEUES_MAX));
        assert_eq!(create(&mut state, "u", 9).unwrap_err(), RegistryError::TooManyQueues);
    }

    #[test]
    fn the_names_of_producers_take_nobodys_place() {
        let mut state = registry();
        place(&mut state, &GroupName::of_producer_names(), 8).unwrap();
        fill(&mut state, TOPICS_MAX - 1);
        state.queues = QUEUES_MAX; // of which one is theirs
        create(&mut state, "last", 9).unwrap();
        assert_eq!((state.topics_counted(), state.queues_counted()), (TOPICS_MAX, QUEUES_MAX));
        assert_eq!(create(&mut state, "u", 10).unwrap_err(), RegistryError::TooManyTopics);
    }
}
