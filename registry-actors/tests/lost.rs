//! A registry that has lost its data, or is another one: brokers offer what their shards hold, and
//! the routes are as they were.

use grus_protocol::ids::{BrokerId, Durability, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;
use grus_registry::command::{
    AdoptTopic, AdoptTopics, AlterTopic, Command, CreateTopic, EnrolBroker, FoundRegistry,
    StoredSettings,
};
use grus_registry::machine::{Applied, Change, RegistryMachine};
use grus_registry::state::{Answer, Outcome};
use grus_registry::{RegistryError, RoutingTable};
use proptest::prelude::*;

struct Nobody;

impl Applied for Nobody {
    fn applied(&mut self, _: u64, _: u64, _: Vec<Change>) {}
    fn replaced(&mut self) {}
}

const CLASS: Durability = Durability::Persisted;

fn apply(machine: &mut RegistryMachine, command: &Command) -> Answer {
    apply_at(machine, TimestampMs(1), command)
}

fn apply_at(machine: &mut RegistryMachine, time: TimestampMs, command: &Command) -> Answer {
    let (kind, bytes) = command.encode();
    let answer = machine.apply_item(time, kind, &bytes);
    machine.end_entry(1, 1);
    answer
}

fn enrol(broker: u64, shards: &[(ShardId, Durability)], shards_wanted: u32) -> Command {
    Command::EnrolBroker(EnrolBroker {
        broker: BrokerId(broker),
        disk: broker + 100,
        host: "localhost".into(),
        port: 6086,
        shards: shards.to_vec(),
        shards_wanted,
        memberships: Vec::new(),
        shards_below: 0,
    })
}

fn name(number: u64) -> TopicName {
    TopicName::try_from(&*format!("t{number}")).expect("a valid name")
}

fn settings(queues: u32) -> StoredSettings {
    StoredSettings::from(&TopicSettings { queues, replicas: 1, ..TopicSettings::default() })
}

fn create(number: u64, queues: u32) -> Command {
    let id = TopicId(number + 1_000);
    Command::CreateTopic(CreateTopic { name: name(number), id, settings: settings(queues) })
}

/// What a broker's shards hold.
fn held(table: &RoutingTable, broker: u64) -> Vec<AdoptTopic> {
    let own = |shard: &ShardId| table.shards[shard].broker == BrokerId(broker);
    let of = |topic: &std::sync::Arc<grus_registry::TopicRoutes>| {
        let queues = (0..).map(QueueId).zip(&topic.queues);
        let queues = queues.map(|(queue, spans)| (queue, spans[0].shard));
        let queues: Vec<_> = queues.filter(|(_, shard)| own(shard)).collect();
        let (name, id) = (topic.name.clone(), topic.id);
        let (settings, altered) = (settings(1), topic.altered);
        (!queues.is_empty()).then_some(AdoptTopic {
            name,
            id,
            settings,
            queues,
            altered,
            created: TimestampMs(0),
        })
    };
    table.topics.values().filter_map(of).collect()
}

fn adopt(broker: u64, topics: Vec<AdoptTopic>) -> Command {
    Command::AdoptTopics(AdoptTopics { broker: BrokerId(broker), topics })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Whoever comes back first, and however often.
    #[test]
    fn offers_put_the_routes_together_again(
        topics in prop::collection::vec(1..9_u32, 1..12),
        brokers in 1..5_u64,
        order in prop::collection::vec(0..5_u64, 0..12),
    ) {
        let mut before = RegistryMachine::new(Nobody);
        for broker in 1..=brokers {
            apply(&mut before, &enrol(broker, &[], 2)).unwrap();
        }
        for (number, queues) in (0..).zip(topics) {
            apply(&mut before, &create(number, queues)).unwrap();
        }
        let before = before.state().routing();

        let mut after = RegistryMachine::new(Nobody);
        apply(&mut after, &Command::FoundRegistry(FoundRegistry { registry: 2 })).unwrap();
        let all = order.into_iter().map(|broker| broker % brokers + 1).chain(1..=brokers);
        for broker in all {
            apply(&mut after, &enrol(broker, &before.shards_of(BrokerId(broker)), 2)).unwrap();
            let offered = apply(&mut after, &adopt(broker, held(&before, broker)));
            prop_assert_eq!(offered, Ok(Outcome::Adopted(Vec::new())));
        }
        let after = after.state().routing();
        prop_assert_eq!(&after.shards, &before.shards);
        prop_assert_eq!(&after.brokers, &before.brokers);
        let routes = |table: &RoutingTable| -> Vec<_> {
            let of = |topic: &std::sync::Arc<grus_registry::TopicRoutes>| {
                (topic.name.clone(), topic.id, topic.settings.clone(), topic.altered, topic.queues.clone())
            };
            table.topics.values().map(of).collect()
        };
        prop_assert_eq!(routes(&after), routes(&before));
    }
}

#[test]
fn a_queue_is_nowhere_until_its_broker_says_so_and_nothing_is_overwritten() {
    let mut machine = RegistryMachine::new(Nobody);
    apply(&mut machine, &enrol(1, &[(ShardId(0), CLASS)], 0)).unwrap();
    apply(&mut machine, &enrol(2, &[(ShardId(1), CLASS)], 0)).unwrap();
    let topic = |queue, shard| AdoptTopic {
        name: name(1),
        id: TopicId(7),
        settings: settings(1),
        queues: vec![(QueueId(queue), ShardId(shard))],
        altered: TimestampMs(0),
        created: TimestampMs(0),
    };
    assert_eq!(apply(&mut machine, &adopt(2, vec![topic(1, 1)])), Ok(Outcome::Adopted(vec![])));
    let routes = machine.state().routing().topics[&name(1)].clone();
    assert_eq!((routes.queues.len(), routes.queues[0].len(), routes.settings.queues), (2, 0, 2));
    assert_eq!(routes.shard_of(QueueId(0)), None);
    let digest = machine.state_digest();
    let mut again = RegistryMachine::new(Nobody);
    let parts = machine.parts();
    let parts = parts.iter().filter_map(|part| Some((&part.key[..], part.value.as_deref()?)));
    again.replace(parts).expect("a queue without a place is stored");
    assert_eq!(again.state_digest(), digest);

    let refused = |machine: &mut RegistryMachine, broker, topic: AdoptTopic| match apply(
        machine,
        &adopt(broker, vec![topic]),
    ) {
        Ok(Outcome::Adopted(refused)) => refused.into_iter().next().map(|(_, _, error)| error),
        other => panic!("{other:?}"),
    };
    let other_shard = refused(&mut machine, 1, topic(1, 0));
    assert!(matches!(other_shard, Some(RegistryError::InvalidSettings { .. })), "{other_shard:?}");
    let foreign = refused(&mut machine, 1, topic(0, 1));
    assert!(matches!(foreign, Some(RegistryError::ShardTaken { .. })), "{foreign:?}");
    let namesake = AdoptTopic { id: TopicId(8), ..topic(0, 0) };
    let namesake = refused(&mut machine, 1, namesake);
    assert_eq!(namesake, Some(RegistryError::TopicExists { id: TopicId(7) }));
    assert_eq!(machine.state_digest(), digest, "what is refused changes nothing");
    assert_eq!(refused(&mut machine, 1, topic(0, 0)), None);
    let routes = machine.state().routing().topics[&name(1)].clone();
    assert_eq!(routes.shard_of(QueueId(0)), Some(ShardId(0)));
}

#[test]
fn a_topic_that_is_told_of_again_was_made_when_its_settings_were_first_given() {
    let mut machine = RegistryMachine::new(Nobody);
    for broker in 1..=3 {
        let shard = ShardId(u32::try_from(broker).unwrap());
        apply(&mut machine, &enrol(broker, &[(shard, CLASS)], 0)).unwrap();
    }
    let offered = |broker: u64, number: u64, created| {
        let shard = u32::try_from(broker).unwrap();
        let topic = AdoptTopic {
            name: name(number),
            id: TopicId(number),
            settings: settings(1),
            queues: vec![(QueueId(shard - 1), ShardId(shard))],
            altered: TimestampMs(created),
            created: TimestampMs(created),
        };
        adopt(broker, vec![topic])
    };
    let made = |machine: &RegistryMachine, number| {
        machine.state().routing().topics[&name(number)].created.0
    };
    let now = TimestampMs(1_000);
    apply_at(&mut machine, now, &offered(1, 7, 0)).unwrap();
    assert_eq!(made(&machine, 7), 1_000, "nobody knows: it counts as made now");
    for (broker, told, expected) in [(1, 500, 500), (2, 600, 500), (3, 400, 400)] {
        apply_at(&mut machine, now, &offered(broker, 8, told)).unwrap();
        assert_eq!(made(&machine, 8), expected, "the earliest that anybody told, after {told}");
    }
    apply_at(&mut machine, now, &offered(1, 9, 2_000)).unwrap();
    assert_eq!(made(&machine, 9), 1_000, "never in time to come");
}

#[test]
fn the_same_broker_id_from_another_folder_is_refused() {
    let mut machine = RegistryMachine::new(Nobody);
    apply(&mut machine, &enrol(1, &[], 1)).unwrap();
    let before = machine.state_digest();
    let Command::EnrolBroker(mut other) = enrol(1, &[], 1) else { unreachable!() };
    other.disk = 999;
    let answer = apply(&mut machine, &Command::EnrolBroker(other));
    assert_eq!(answer, Err(RegistryError::BrokerIdTaken { broker: BrokerId(1), disk: 101 }));
    assert_eq!(machine.state_digest(), before);
    // Shards are given out once: another broker gets others.
    let Ok(Outcome::Enrolled(second)) = apply(&mut machine, &enrol(2, &[], 1)) else { panic!() };
    assert_eq!(second.iter().map(|(shard, _)| shard.0).collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn of_settings_the_newest_are_known_whatever_the_clock_says_and_whoever_offers_them() {
    let mut machine = RegistryMachine::new(Nobody);
    apply(&mut machine, &enrol(1, &[(ShardId(0), CLASS)], 0)).unwrap();
    apply(&mut machine, &enrol(2, &[(ShardId(1), CLASS)], 0)).unwrap();
    let offered = |queue: u32, altered, retention_ms| {
        let settings = TopicSettings { retention_ms, replicas: 1, ..TopicSettings::default() };
        let topic = AdoptTopic {
            name: name(1),
            id: TopicId(7),
            settings: StoredSettings::from(&settings),
            queues: vec![(QueueId(queue), ShardId(queue))],
            altered: TimestampMs(altered),
            created: TimestampMs(0),
        };
        adopt(u64::from(queue) + 1, vec![topic])
    };
    let mut known_after = |command: &Command| {
        apply(&mut machine, command).unwrap();
        let topic = machine.state().routing().topics[&name(1)].clone();
        assert_eq!(topic.settings.queues as usize, topic.queues.len());
        (topic.settings.retention_ms, topic.altered.0)
    };
    let late = 90 * 365 * 86_400_000; // the clock of who altered it was far ahead
    assert_eq!(known_after(&offered(0, 20, 7)), (7, 20));
    assert_eq!(known_after(&offered(1, late, 30)), (30, late), "a member that heard of a change");
    assert_eq!(known_after(&offered(0, 20, 7)), (30, late));
    // Nobody may be so far ahead that no change comes after.
    for never in [u64::MAX, u64::MAX / 2, 200 * 365 * 86_400_000] {
        assert_eq!(known_after(&offered(0, never, 1)), (30, late));
    }
    let alter = Command::AlterTopic(AlterTopic {
        name: name(1),
        id: TopicId(7),
        queues: None,
        retention_ms: Some(8),
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    });
    assert_eq!(known_after(&alter), (8, late + 1));
    let parts = machine.parts();
    let mut again = RegistryMachine::new(Nobody);
    again
        .replace(parts.iter().filter_map(|part| Some((&part.key[..], part.value.as_deref()?))))
        .unwrap();
    assert_eq!(again.state().routing(), machine.state().routing());
}
