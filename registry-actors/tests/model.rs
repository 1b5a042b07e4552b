//! The machine against a model: many random commands, with the invariants after each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use grus_protocol::ids::{BrokerId, Durability, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{TEMPORARY_BYTES_DEFAULT, TopicKind, TopicSettings};
use grus_protocol::names::TopicName;
use grus_registry::command::{
    AlterTopic, Command, CreateTopic, DeleteTopic, DrainBroker, EnrolBroker, GrowTopic, MarkBroker,
    PlaceDeadLetters, PlaceTopic, RegisterBroker, StoredSettings,
};
use grus_registry::machine::{Applied, Change, RegistryMachine};
use grus_registry::state::{Answer, Outcome};
use grus_registry::{RegistryError, RoutingTable};
use proptest::prelude::*;

/// A copy of the state, kept by what the machine tells.
#[derive(Clone, Default)]
struct Copy(Rc<RefCell<BTreeMap<Bytes, Bytes>>>);

impl Applied for Copy {
    fn applied(&mut self, _: u64, _: u64, changes: Vec<Change>) {
        merge(&mut self.0.borrow_mut(), changes);
    }

    fn replaced(&mut self) {
        self.0.borrow_mut().clear();
    }
}

fn merge(parts: &mut BTreeMap<Bytes, Bytes>, changes: Vec<Change>) {
    for Change { key, value } in changes {
        match value {
            Some(value) => drop(parts.insert(key, value)),
            None => drop(parts.remove(&key)),
        }
    }
}

fn all_parts(machine: &RegistryMachine) -> BTreeMap<Bytes, Bytes> {
    machine.parts().into_iter().map(|part| (part.key, part.value.expect("it is there"))).collect()
}

struct Bench {
    machine: RegistryMachine,
    copy: Copy,
    checkpoints: BTreeMap<Bytes, Bytes>,
    index: u64,
}

impl Bench {
    fn new() -> Self {
        let copy = Copy::default();
        let machine = RegistryMachine::new(copy.clone());
        Self { machine, copy, checkpoints: BTreeMap::new(), index: 0 }
    }

    fn apply(&mut self, command: &Command) -> Answer {
        let (kind, bytes) = command.encode();
        self.index += 1;
        let answer = self.machine.apply_item(TimestampMs(self.index), kind, &bytes);
        self.machine.end_entry(self.index, 1);
        answer
    }

    fn routing(&self) -> RoutingTable {
        self.machine.state().routing()
    }
}

fn name(number: u8) -> TopicName {
    TopicName::try_from(&*format!("topic-{number}")).expect("a valid name")
}

fn settings(queues: u32, durability: Durability) -> TopicSettings {
    TopicSettings { queues, durability, replicas: 1, ..TopicSettings::default() }
}

fn create(number: u8, id: u64, settings: &TopicSettings) -> Command {
    let settings = StoredSettings::from(settings);
    Command::CreateTopic(CreateTopic { name: name(number), id: TopicId(id), settings })
}

fn delete(number: u8, id: u64) -> Command {
    Command::DeleteTopic(DeleteTopic { name: name(number), id: TopicId(id) })
}

fn alter(number: u8, id: u64, queues: Option<u32>, retention_ms: Option<u64>) -> Command {
    let id = TopicId(id);
    Command::AlterTopic(AlterTopic {
        name: name(number),
        id,
        queues,
        retention_ms,
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    })
}

fn register(broker: u64, shards: &[(u32, Durability)]) -> Command {
    Command::RegisterBroker(RegisterBroker {
        broker: BrokerId(broker),
        host: "localhost".into(),
        port: 6086,
        shards: shards.iter().map(|(shard, durability)| (ShardId(*shard), *durability)).collect(),
    })
}

fn enrol(broker: u64, disk: u64, shards: &[(u32, Durability)], shards_wanted: u32) -> Command {
    Command::EnrolBroker(EnrolBroker {
        broker: BrokerId(broker),
        disk,
        host: "localhost".into(),
        port: 6086,
        shards: shards.iter().map(|(shard, durability)| (ShardId(*shard), *durability)).collect(),
        shards_wanted,
        memberships: Vec::new(),
        shards_below: 0,
    })
}

fn dead_letters(number: u8) -> TopicName {
    TopicName::system("DLQ", &format!("group-{number}")).expect("a valid name")
}

fn place(number: u8, id: u64, home: Option<u32>, shards: &[u32]) -> Command {
    Command::PlaceDeadLetters(PlaceDeadLetters {
        name: dead_letters(number),
        id: TopicId(id),
        home: home.map(ShardId),
        shards: shards.iter().copied().map(ShardId).collect(),
        home_replicas: 0,
        left_out: Vec::new(),
    })
}

/// The same with shards chosen for its new queues, which may not fit.
fn on_shards(command: Command, shards: &[u32]) -> Command {
    let shards = shards.iter().copied().map(ShardId).collect();
    match command {
        Command::CreateTopic(create) => Command::PlaceTopic(PlaceTopic { create, shards }),
        Command::AlterTopic(alter) => Command::GrowTopic(GrowTopic { alter, shards }),
        other => other,
    }
}

fn durability() -> impl Strategy<Value = Durability> + Clone {
    prop_oneof![3 => Just(Durability::Persisted), 1 => Just(Durability::Replicated)]
}

fn command() -> impl Strategy<Value = Command> {
    let topic = 0..6_u8;
    let id = prop_oneof![2 => Just(0), 3 => 1..12_u64];
    let shard = (0..6_u32, durability());
    prop_oneof![
        4 => (topic.clone(), 0..12_u64, 0..9_u32, durability())
            .prop_map(|(topic, id, queues, class)| create(topic, id, &settings(queues, class))),
        3 => (topic.clone(), id.clone(), prop::option::of(0..12_u32), prop::option::of(0..3_u64))
            .prop_map(|(topic, id, queues, age)| alter(topic, id, queues, age)),
        3 => (topic, id).prop_map(|(topic, id)| delete(topic, id)),
        2 => (1..3_u64, prop::collection::vec(shard.clone(), 0..5))
            .prop_map(|(broker, shards)| register(broker, &shards)),
        2 => (1..3_u64, 1..3_u64, prop::collection::vec(shard, 0..2), 0..4_u32)
            .prop_map(|(broker, disk, shards, wanted)| enrol(broker, disk, &shards, wanted)),
        3 => (
            0..3_u8, 0..12_u64, prop::option::of(0..7_u32), prop::collection::vec(0..7_u32, 0..4),
        ).prop_map(|(group, id, home, shards)| place(group, id, home, &shards)),
        2 => (1..4_u64, any::<bool>()).prop_map(|(broker, live)| {
            Command::MarkBroker(MarkBroker { broker: BrokerId(broker), live })
        }),
        1 => (1..4_u64, any::<bool>()).prop_map(|(broker, drained)| {
            Command::DrainBroker(DrainBroker { broker: BrokerId(broker), drained })
        }),
    ]
}

fn placed_command() -> impl Strategy<Value = Command> {
    (command(), prop::collection::vec(0..8_u32, 0..9), any::<bool>()).prop_map(
        |(command, shards, placed)| if placed { on_shards(command, &shards) } else { command },
    )
}

/// Whether the broker of a shard is there, and is not drained.
fn takes_queues(routing: &RoutingTable, shard: ShardId) -> bool {
    routing.leader_of(shard).is_some_and(|broker| !routing.drained.contains(&broker.id))
}

/// Whether there is somewhere to put a queue of that durability.
fn has_room(routing: &RoutingTable, class: Durability) -> bool {
    routing.shards.iter().any(|(shard, place)| {
        place.open && place.durability == class && takes_queues(routing, *shard)
    })
}

/// What the model expects of a command, from the routes before it: an error, or none.
fn expected(before: &RoutingTable, command: &Command) -> Option<&'static str> {
    match command {
        Command::CreateTopic(create) => {
            let settings = TopicSettings::from(&create.settings);
            let open = has_room(before, settings.durability);
            if before.topics.contains_key(&create.name) {
                Some("TopicExists")
            } else if settings.queues == 0 {
                Some("InvalidSettings")
            } else if create.id.0 == 0 || before.by_id(create.id).is_some() {
                Some("IdInUse")
            } else {
                (!open).then_some("NoShard")
            }
        }
        Command::AlterTopic(alter) => {
            let Some(topic) = before.topics.get(&alter.name) else { return Some("UnknownTopic") };
            if alter.id.0 != 0 && alter.id != topic.id {
                return Some("StaleTopic");
            }
            let queues = alter.queues.unwrap_or(topic.settings.queues);
            if queues < topic.settings.queues {
                return Some("InvalidSettings");
            }
            let open = has_room(before, topic.settings.durability);
            (queues > topic.settings.queues && !open).then_some("NoShard")
        }
        Command::DeleteTopic(delete) => match before.topics.get(&delete.name) {
            None => Some("UnknownTopic"),
            Some(topic) => (delete.id.0 != 0 && delete.id != topic.id).then_some("StaleTopic"),
        },
        Command::RegisterBroker(register) => clash(before, register.broker, &register.shards),
        Command::EnrolBroker(enrol) => {
            let known = before.brokers.get(&enrol.broker).map_or(0, |known| known.disk);
            if known != 0 && known != enrol.disk {
                return Some("BrokerIdTaken");
            }
            clash(before, enrol.broker, &enrol.shards)
        }
        Command::PlaceTopic(placed) => {
            expected(before, &Command::CreateTopic(placed.create.clone()))
        }
        Command::GrowTopic(grown) => expected(before, &Command::AlterTopic(grown.alter.clone())),
        Command::PlaceDeadLetters(place) => expected_place(before, place),
        Command::MarkBroker(_)
        | Command::DrainBroker(_)
        | Command::FoundRegistry(_)
        | Command::AdoptTopics(_)
        | Command::LeadShards(_)
        | Command::ChangeReplicas(_)
        | Command::GrowReplicas(_) => None,
    }
}

fn expected_place(before: &RoutingTable, place: &PlaceDeadLetters) -> Option<&'static str> {
    let known = before.topics.get(&place.name);
    match (known, place.home) {
        (None, None) => return Some("UnknownTopic"),
        (Some(known), None) if place.id.0 != 0 && place.id != known.id => {
            return Some("StaleTopic");
        }
        (None, Some(_)) if place.id.0 == 0 || before.by_id(place.id).is_some() => {
            return Some("IdInUse");
        }
        _ => {}
    }
    let home = place.home.filter(|_| known.is_none());
    let unknown = place.shards.iter().chain(&home).any(|shard| !before.shards.contains_key(shard));
    unknown.then_some("InvalidSettings")
}

fn clash(
    before: &RoutingTable,
    broker: BrokerId,
    shards: &[(ShardId, Durability)],
) -> Option<&'static str> {
    let mut seen = BTreeMap::new();
    let clash = shards.iter().any(|(shard, class)| {
        let known = before.shards.get(shard);
        let other = known.is_some_and(|known| (known.broker, known.durability) != (broker, *class));
        let twice = seen.insert(*shard, *class).is_some_and(|first| first != *class);
        other || twice
    });
    clash.then_some("ShardTaken")
}

/// Queues go where they were meant to go, where that fits.
fn check_placed(before: &RoutingTable, class: Durability, meant: &[ShardId], new: &[ShardId]) {
    let fits = meant.len() == new.len()
        && meant.iter().all(|shard| {
            let place = before.shards.get(shard);
            place.is_some_and(|place| place.open && place.durability == class)
                && takes_queues(before, *shard)
        });
    if fits {
        assert_eq!(meant, new);
    }
    for shard in new {
        assert!(takes_queues(before, *shard), "never on a broker that is not there, or drained");
    }
}

fn error_name(error: &RegistryError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

fn check_effect(before: &RoutingTable, after: &RoutingTable, command: &Command, outcome: &Outcome) {
    match (command, outcome) {
        (Command::CreateTopic(create), Outcome::Topic(topic)) => {
            assert_eq!((&topic.name, topic.id), (&create.name, create.id));
            assert_eq!(topic.settings, TopicSettings::from(&create.settings));
            assert_eq!(after.topics[&create.name], *topic);
        }
        (Command::AlterTopic(alter), Outcome::Topic(topic)) => {
            let old = &before.topics[&alter.name];
            assert_eq!(topic.id, old.id, "altered, not made again");
            assert_eq!(topic.queues[..old.queues.len()], old.queues[..], "no queue moves");
            assert_eq!(after.topics[&alter.name], *topic);
        }
        (Command::PlaceDeadLetters(place), Outcome::Topic(topic)) => {
            let old = before.topics.get(&place.name);
            let kept = old.map_or(0, |old| old.queues.len());
            let shards: Vec<_> = topic.queues.iter().map(|spans| spans[0].shard).collect();
            assert_eq!(old.map_or(&[][..], |old| &old.queues), &topic.queues[..kept], "none moves");
            assert!(place.shards.iter().all(|shard| shards.contains(shard)));
            let first = shards.first().copied();
            assert!(old.is_some() || first == place.home, "the home comes first");
            let different: std::collections::BTreeSet<_> = shards.iter().collect();
            assert_eq!(different.len(), shards.len(), "one queue on a shard");
            assert_eq!(topic.settings.kind, TopicKind::DeadLetter);
            assert_eq!(after.topics[&place.name], *topic);
        }
        (Command::DeleteTopic(delete), Outcome::Deleted(id)) => {
            assert_eq!(before.topics[&delete.name].id, *id);
            assert!(!after.topics.contains_key(&delete.name) && after.by_id(*id).is_none());
        }
        (Command::RegisterBroker(register), Outcome::Registered) => {
            assert!(after.brokers.contains_key(&register.broker));
            for (shard, place) in &after.shards {
                let named = register.shards.iter().any(|(named, _)| named == shard);
                assert!(place.broker != register.broker || place.open == named);
            }
        }
        (Command::EnrolBroker(enrol), Outcome::Enrolled(shards)) => {
            assert_eq!(after.shards_of(enrol.broker), *shards);
            assert!(enrol.shards.iter().all(|claim| shards.contains(claim)), "it keeps its own");
            for level in [Durability::Persisted, Durability::Replicated] {
                let have = shards.iter().filter(|(_, durability)| *durability == level).count();
                assert!(have >= enrol.shards_wanted as usize);
            }
            let broker = &after.brokers[&enrol.broker];
            assert_eq!((broker.live, broker.disk), (true, enrol.disk));
            for (shard, place) in &before.shards {
                assert_eq!(after.shards[shard].broker, place.broker, "nobody loses a shard");
            }
        }
        (Command::MarkBroker(mark), Outcome::Done) => {
            let marked = after.brokers.get(&mark.broker);
            assert!(marked.is_none_or(|broker| broker.live == mark.live));
        }
        (Command::DrainBroker(drain), Outcome::Done) => {
            let is_known = before.brokers.contains_key(&drain.broker);
            assert_eq!(after.drained.contains(&drain.broker), is_known && drain.drained);
        }
        (Command::PlaceTopic(placed), Outcome::Topic(topic)) => {
            check_effect(before, after, &Command::CreateTopic(placed.create.clone()), outcome);
            let new: Vec<_> = topic.queues.iter().map(|spans| spans[0].shard).collect();
            check_placed(before, topic.settings.durability, &placed.shards, &new);
        }
        (Command::GrowTopic(grown), Outcome::Topic(topic)) => {
            check_effect(before, after, &Command::AlterTopic(grown.alter.clone()), outcome);
            let old = before.topics[&topic.name].queues.len();
            let new: Vec<_> = topic.queues[old..].iter().map(|spans| spans[0].shard).collect();
            check_placed(before, topic.settings.durability, &grown.shards, &new);
        }
        other => panic!("{other:?}"),
    }
}

fn check_invariants(bench: &Bench) {
    let routing = bench.routing();
    let mut load: BTreeMap<ShardId, usize> = BTreeMap::new();
    for (name, topic) in &routing.topics {
        assert_eq!(name, &topic.name);
        assert_eq!(topic.queues.len(), topic.settings.queues as usize);
        for queue in (0..topic.settings.queues).map(QueueId) {
            let shard = topic.shard_of(queue).expect("every queue has a shard");
            let any = topic.settings.kind == TopicKind::DeadLetter;
            assert!(any || routing.shards[&shard].durability == topic.settings.durability);
            *load.entry(shard).or_insert(0) += 1;
        }
    }
    for shard in routing.shards.keys() {
        assert_eq!(routing.queues_of(*shard).len(), load.get(shard).copied().unwrap_or(0));
    }
    let all = all_parts(&bench.machine);
    assert_eq!(*bench.copy.0.borrow(), all, "what was told adds up to the whole");
    let mut again = RegistryMachine::new(Copy::default());
    again.replace(all.iter().map(|(key, value)| (&key[..], &value[..]))).expect("own parts");
    assert_eq!(again.state(), bench.machine.state(), "and the whole restores");
    assert_eq!(again.state_digest(), bench.machine.state_digest());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn the_machine_follows_the_model(
        commands in prop::collection::vec(placed_command(), 1..60),
        checkpoint_every in 1..10_usize,
    ) {
        let (mut bench, mut twin) = (Bench::new(), Bench::new());
        for (number, command) in commands.iter().enumerate() {
            let before = bench.routing();
            let answer = bench.apply(command);
            prop_assert_eq!(&answer, &twin.apply(command), "the same on every replica");
            let after = bench.routing();
            match (&answer, expected(&before, command)) {
                (Ok(outcome), None) => check_effect(&before, &after, command, outcome),
                (Err(error), Some(wanted)) => prop_assert_eq!(error_name(error), wanted),
                other => prop_assert!(false, "{:?} to {:?}", other, command),
            }
            let changed = before != after;
            prop_assert_eq!(after.version, before.version + u64::from(changed));
            if number % checkpoint_every == 0 {
                merge(&mut bench.checkpoints, bench.machine.take_dirty());
                prop_assert_eq!(&bench.checkpoints, &all_parts(&bench.machine));
                prop_assert!(bench.machine.take_dirty().is_empty());
            }
        }
        check_invariants(&bench);
        prop_assert_eq!(bench.machine.state_digest(), twin.machine.state_digest());
    }

    #[test]
    fn parts_of_any_bytes_are_refused_and_never_a_panic(
        key in prop::collection::vec(any::<u8>(), 0..12),
        value in prop::collection::vec(any::<u8>(), 0..40),
        kind: u16,
    ) {
        let mut bench = Bench::new();
        bench.apply(&register(1, &[(0, Durability::Persisted)])).unwrap();
        let before = bench.routing();
        let _ = bench.machine.replace([(&key[..], &value[..])]).map_err(|_| {
            assert_eq!(bench.routing(), before, "a refused restore changes nothing");
        });
        let mut other = Bench::new();
        let refused = other.machine.apply_item(TimestampMs(1), kind, &value);
        prop_assert!(refused.is_err());
    }
}

#[test]
fn new_queues_go_where_the_fewest_are() {
    let mut bench = Bench::new();
    let class = Durability::Persisted;
    bench.apply(&register(1, &[(0, class), (1, class), (2, Durability::Replicated)])).unwrap();
    bench.apply(&create(0, 1, &settings(5, class))).unwrap();
    let on = |bench: &Bench, shard| bench.routing().queues_of(ShardId(shard)).len();
    assert_eq!((on(&bench, 0), on(&bench, 1), on(&bench, 2)), (3, 2, 0));
    bench.apply(&create(1, 2, &settings(1, class))).unwrap();
    assert_eq!((on(&bench, 0), on(&bench, 1)), (3, 3));
    bench.apply(&register(1, &[(1, class), (3, class)])).unwrap();
    bench.apply(&alter(0, 0, Some(9), None)).unwrap();
    assert_eq!((on(&bench, 0), on(&bench, 1), on(&bench, 3)), (3, 4, 3), "shard 0 is closed");
    bench.apply(&delete(0, 1)).unwrap();
    assert_eq!((on(&bench, 0), on(&bench, 1), on(&bench, 3)), (0, 1, 0));
}

#[test]
fn dead_letters_are_placed_by_hand_once_and_belong_to_their_group() {
    let mut bench = Bench::new();
    let class = Durability::Persisted;
    bench.apply(&register(1, &[(0, class), (1, class), (2, Durability::Replicated)])).unwrap();
    bench.apply(&Command::MarkBroker(MarkBroker { broker: BrokerId(1), live: false })).unwrap();
    let shards = |answer: Answer| match answer {
        Ok(Outcome::Topic(topic)) => {
            topic.queues.iter().map(|spans| spans[0].shard.0).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(shards(bench.apply(&place(0, 7, Some(1), &[2]))), [1, 2], "of either durability");
    let version = bench.routing().version;
    assert_eq!(shards(bench.apply(&place(0, 9, Some(0), &[1]))), [1, 2], "there is one already");
    assert_eq!(shards(bench.apply(&place(0, 7, None, &[2, 1]))), [1, 2]);
    assert_eq!(bench.routing().version, version, "nothing was changed");
    assert_eq!(shards(bench.apply(&place(0, 7, None, &[0]))), [1, 2, 0]);
    assert_eq!(bench.apply(&place(1, 7, None, &[])), Err(RegistryError::UnknownTopic));
    let name = dead_letters(0);
    let invalid = |answer: Answer| matches!(answer, Err(RegistryError::InvalidSettings { .. }));
    let alter = AlterTopic {
        name: name.clone(),
        id: TopicId(0),
        queues: None,
        retention_ms: Some(1),
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    };
    assert!(invalid(bench.apply(&Command::AlterTopic(alter))));
    let made = TopicSettings { kind: TopicKind::DeadLetter, ..settings(1, class) };
    assert!(invalid(bench.apply(&create(3, 30, &made))), "not as any other topic");
    let delete = DeleteTopic { name, id: TopicId(7) };
    assert_eq!(bench.apply(&Command::DeleteTopic(delete)), Ok(Outcome::Deleted(TopicId(7))));
    assert_eq!(bench.apply(&place(0, 7, None, &[])), Err(RegistryError::UnknownTopic));
}

#[test]
fn a_topic_made_again_is_another_incarnation() {
    let mut bench = Bench::new();
    let class = Durability::Persisted;
    bench.apply(&register(1, &[(0, class)])).unwrap();
    bench.apply(&create(0, 77, &settings(1, class))).unwrap();
    assert_eq!(
        bench.apply(&create(0, 78, &settings(1, class))),
        Err(RegistryError::TopicExists { id: TopicId(77) })
    );
    assert_eq!(bench.apply(&delete(0, 77)), Ok(Outcome::Deleted(TopicId(77))));
    bench.apply(&create(0, 78, &settings(1, class))).unwrap();
    let stale = RegistryError::StaleTopic { id: TopicId(78) };
    assert_eq!(bench.apply(&delete(0, 77)), Err(stale.clone()));
    assert_eq!(bench.apply(&alter(0, 77, Some(2), None)), Err(stale));
}

#[test]
fn a_temporary_topic_promises_memory_alone_and_lies_on_shards_that_promise_least() {
    let mut bench = Bench::new();
    let class = Durability::Persisted;
    bench.apply(&register(1, &[(0, class), (1, Durability::Replicated)])).unwrap();
    let asked = TopicSettings { kind: TopicKind::Temporary, ..settings(2, class) };
    let Outcome::Topic(topic) = bench.apply(&create(0, 1, &asked)).unwrap() else {
        panic!("a topic is the answer");
    };
    let made = &topic.settings;
    assert_eq!((made.durability, made.dedup_window_ms), (Durability::Memory, 0));
    assert_eq!(made.retention_bytes, TEMPORARY_BYTES_DEFAULT, "memory always has a bound");
    assert!(topic.queues.iter().all(|spans| spans[0].shard == ShardId(1)));
    assert!(bench.apply(&alter(0, 0, Some(3), Some(5))).is_ok());
}

#[test]
fn limits_are_kept() {
    let mut bench = Bench::new();
    let class = Durability::Persisted;
    bench.apply(&register(1, &[(0, class)])).unwrap();
    let invalid = |answer: Answer| matches!(answer, Err(RegistryError::InvalidSettings { .. }));
    assert!(invalid(bench.apply(&create(0, 1, &settings(1_025, class)))));
    assert!(invalid(bench.apply(&create(0, 1, &settings(0, class)))));
    assert!(invalid(bench.apply(&create(0, 1, &settings(1, Durability::Memory)))));
    bench.apply(&create(0, 1, &settings(1_024, class))).unwrap();
    assert!(invalid(bench.apply(&alter(0, 0, Some(1_025), None))));
    assert!(invalid(bench.apply(&alter(0, 0, Some(1_023), None))), "queues never go");
    let version = bench.routing().version;
    bench.apply(&alter(0, 0, Some(1_024), None)).unwrap();
    assert_eq!(bench.routing().version, version, "nothing changed, so nothing is told");
}
