//! Tests of the ledger: a registry and shards that exist only as calls.

use grus_mailbox::outlet;
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, Offset, QueueKey, TimestampMs};
use grus_protocol::message::TopicSettings;
use grus_registry::command::{AdoptTopic, StoredSettings};
use grus_registry::{BrokerPlace, RouteSpan, ShardPlace};

use super::*;

pub(super) type Waiter = &'static str;

pub(super) fn name(text: &str) -> TopicName {
    TopicName::try_from(text).unwrap()
}

/// A topic with one queue on each of the shards.
pub(super) fn topic(text: &str, id: u64, shards: &[u32]) -> Arc<TopicRoutes> {
    let span = |shard: &u32| vec![RouteSpan { shard: ShardId(*shard), from: Offset(0) }];
    Arc::new(TopicRoutes {
        name: name(text),
        id: TopicId(id),
        settings: TopicSettings {
            queues: u32::try_from(shards.len()).unwrap(),
            ..TopicSettings::default()
        },
        created: TimestampMs(5),
        altered: TimestampMs(5),
        queues: shards.iter().map(span).collect(),
    })
}

pub(super) fn table(version: u64, topics: &[Arc<TopicRoutes>]) -> Arc<RoutingTable> {
    let topics = topics.iter().map(|topic| (topic.name.clone(), Arc::clone(topic)));
    let topics = topics.collect();
    Arc::new(RoutingTable { registry: 1, version, topics, ..RoutingTable::default() })
}

fn handles(config: &TopicConfig, shard: ShardId) -> Vec<Arc<QueueHandle>> {
    let handle = |queue: &QueueId| {
        Arc::new(QueueHandle {
            key: QueueKey { topic: config.topic, queue: *queue },
            topic: config.name.clone(),
            shard,
            durability: Durability::Persisted,
            produce: outlet(1).0,
            fetch: outlet(1).0,
            subscribe: outlet(1).0,
            group: outlet(1).0,
            ask: outlet(1).0,
        })
    };
    config.queues.iter().map(handle).collect()
}

/// Of a broker with shards 0 and 1, whose data belongs to registry 1.
pub(super) fn ledger() -> Ledger<Waiter> {
    let own = [ShardId(0), ShardId(1)].into();
    Ledger::new(BrokerId(1), Routes::default(), own, Home { registry: 1, ..Home::default() })
}

/// The same routes, with shard 9 led by another broker that is there or not.
fn with_other(table: &RoutingTable, version: u64, live: bool) -> Arc<RoutingTable> {
    let mut table = RoutingTable { version, ..table.clone() };
    let (broker, durability) = (BrokerId(2), Durability::Persisted);
    let address = BrokerAddress { id: broker, host: "other".into(), port: 6086 };
    table.brokers.insert(broker, BrokerPlace { address, live, disk: 2 });
    table.shards.insert(ShardId(9), ShardPlace::alone(durability, broker));
    Arc::new(table)
}

/// Lets every shard do what it is asked; returns what came of it in words.
pub(super) fn obey(ledger: &mut Ledger<Waiter>, actions: Vec<Action<Waiter>>) -> Vec<String> {
    let mut said = Vec::new();
    let mut actions: std::collections::VecDeque<_> = actions.into();
    while let Some(action) = actions.pop_front() {
        match action {
            Action::Open(shard, config) => {
                said.push(format!("open {} on {shard}", config.name));
                let opened = handles(&config, shard);
                actions.extend(ledger.opened(shard, config.topic, Ok(opened)));
            }
            Action::Drop(shard, id) => {
                said.push(format!("drop {id} on {shard}"));
                ledger.dropped(shard, id, true);
            }
            Action::Publish => said.push("publish".into()),
            Action::Answer(waiter, answer) => said.push(match answer {
                Ok(route) => format!("{waiter}: {} queues", route.queues.len()),
                Err(error) => format!("{waiter}: {}", error.code),
            }),
        }
    }
    said
}

#[test]
fn a_topic_is_published_when_all_its_shards_have_opened_it() {
    let mut ledger = ledger();
    let orders = topic("orders", 7, &[0, 1, 0]);
    let waits = ledger.wait_for(Arc::clone(&orders), "w");
    assert_eq!(waits.len(), 2, "one question for each shard");
    assert!(ledger.routes().is_empty());
    let said = obey(&mut ledger, waits);
    assert_eq!(said, ["open orders on 0", "open orders on 1", "publish", "w: 3 queues"]);
    let route = ledger.routes().get(&name("orders")).unwrap();
    assert!(route.queues.iter().all(|place| place.handle.is_some()));
    assert_eq!(route.queues[1].shard, ShardId(1));

    let again = ledger.table_changed(table(3, &[Arc::clone(&orders)]));
    assert_eq!(obey(&mut ledger, again), Vec::<String>::new(), "nothing is opened twice");
    let known = ledger.wait_for(orders, "x");
    assert_eq!(obey(&mut ledger, known), ["x: 3 queues"]);
}

#[test]
fn more_queues_are_opened_behind_the_routes_in_force() {
    let mut ledger = ledger();
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    let grown = topic("t", 7, &[0, 1]);
    let actions = ledger.wait_for(Arc::clone(&grown), "alter");
    assert_eq!(ledger.routes().get(&name("t")).unwrap().queues.len(), 1, "still serving");
    let said = obey(&mut ledger, actions);
    assert_eq!(said, ["open t on 0", "open t on 1", "publish", "alter: 2 queues"]);
}

#[test]
fn a_shard_that_cannot_is_asked_again_at_the_next_tick() {
    let mut ledger = ledger();
    let orders = topic("orders", 7, &[0]);
    ledger.table_changed(table(1, &[Arc::clone(&orders)]));
    let actions = ledger.wait_for(orders, "w");
    assert!(actions.is_empty(), "it is under way");
    let actions = ledger.opened(ShardId(0), TopicId(7), Err(QueueError::Unavailable));
    assert_eq!(obey(&mut ledger, actions), ["w: Unavailable"]);
    assert!(ledger.is_settled());
    let actions = ledger.tick();
    assert_eq!(obey(&mut ledger, actions), ["open orders on 0", "publish"]);
    assert!(ledger.tick().is_empty());
}

#[test]
fn a_deleted_topic_leaves_at_once_and_does_not_come_back_with_an_old_table() {
    let mut ledger = ledger();
    let old = table(1, &[topic("t", 7, &[0])]);
    let actions = ledger.table_changed(Arc::clone(&old));
    obey(&mut ledger, actions);
    let actions = ledger.topic_deleted(&name("t"), TopicId(7));
    assert_eq!(obey(&mut ledger, actions), ["publish", "drop 7 on 0"]);
    assert!(ledger.in_table(&name("t")).is_none());
    let actions = ledger.table_changed(old);
    assert_eq!(obey(&mut ledger, actions), Vec::<String>::new());
    let actions = ledger.table_changed(table(2, &[topic("t", 8, &[0])]));
    assert_eq!(obey(&mut ledger, actions), ["open t on 0", "publish"]);
}

#[test]
fn one_deleted_while_it_is_being_opened_is_dropped_behind_it() {
    let mut ledger = ledger();
    let opening = ledger.wait_for(topic("t", 7, &[0]), "w");
    let actions = ledger.topic_deleted(&name("t"), TopicId(7));
    assert!(actions.is_empty());
    assert_eq!(obey(&mut ledger, opening), ["open t on 0", "w: UnknownTopic", "drop 7 on 0"]);
    assert!(ledger.routes().is_empty());
}

#[test]
fn a_drop_that_fails_is_repeated() {
    let mut ledger = ledger();
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    ledger.table_changed(table(2, &[]));
    ledger.dropped(ShardId(0), TopicId(7), false);
    let actions = ledger.tick();
    assert_eq!(obey(&mut ledger, actions), ["drop 7 on 0"]);
    assert!(ledger.tick().is_empty());
}

#[test]
fn orphans_of_a_shard_are_dropped_only_by_the_word_of_the_registry_they_belong_to() {
    let mut ledger = ledger();
    let orphans = [TopicId(7), TopicId(9)];
    assert!(ledger.shard_lists(ShardId(0), &orphans).is_empty(), "nobody has spoken yet");
    let other = RoutingTable { registry: 2, ..(*table(1, &[])).clone() };
    ledger.table_changed(Arc::new(other));
    assert!(ledger.shard_lists(ShardId(0), &orphans).is_empty(), "another registry");
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    let actions = ledger.shard_lists(ShardId(0), &orphans);
    assert_eq!(obey(&mut ledger, actions), ["drop 9 on 0"]);
}

#[test]
fn a_registry_without_its_past_takes_nothing_away() {
    let mut ledger = ledger();
    let actions = ledger.table_changed(table(5, &[topic("t", 7, &[0]), topic("u", 8, &[1])]));
    obey(&mut ledger, actions);
    // The same registry out of an old copy, then a new one.
    for (registry, version) in [(1, 4), (2, 1)] {
        let lost = RoutingTable { registry, version, ..RoutingTable::default() };
        let actions = ledger.table_changed(Arc::new(lost));
        assert_eq!(obey(&mut ledger, actions), Vec::<String>::new());
        assert_eq!(ledger.routes().len(), 2, "still served");
        assert!(!ledger.is_home(), "it has to be offered what there is");
    }
    // It takes one of the two.
    let known = RoutingTable { registry: 2, ..(*table(2, &[topic("t", 7, &[0])])).clone() };
    let actions = ledger.table_changed(Arc::new(known.clone()));
    obey(&mut ledger, actions);
    ledger.settle(vec![TopicId(7), TopicId(8)], vec![TopicId(8)]);
    assert!(ledger.is_home());
    assert!(ledger.shard_lists(ShardId(1), &[TopicId(8)]).is_empty(), "it is never thrown away");
    let later = RoutingTable { version: 3, ..known };
    let actions = ledger.table_changed(Arc::new(later));
    assert_eq!(obey(&mut ledger, actions), ["publish"], "no drop");
    assert!(ledger.routes().get(&name("u")).is_none());
}

#[test]
fn what_another_registry_has_just_taken_is_not_gone_from_a_table_of_before() {
    let mut ledger = ledger();
    let actions = ledger.table_changed(table(5, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    let of_another = |version, topics: &[Arc<TopicRoutes>]| {
        Arc::new(RoutingTable { registry: 2, ..(*table(version, topics)).clone() })
    };
    let actions = ledger.table_changed(of_another(1, &[]));
    obey(&mut ledger, actions);
    // Its answer overtakes its routes.
    ledger.settle(vec![TopicId(7)], vec![]);
    for version in [2, 3] {
        let actions = ledger.table_changed(of_another(version, &[topic("u", 9, &[5])]));
        let said = obey(&mut ledger, actions);
        assert!(!said.iter().any(|said| said.starts_with("drop")), "{said:?}");
        assert!(ledger.routes().get(&name("t")).is_some(), "it is served all the time");
    }
    assert!(ledger.shard_lists(ShardId(0), &[TopicId(7)]).is_empty());
    let actions = ledger.table_changed(of_another(4, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    let actions = ledger.table_changed(of_another(5, &[]));
    assert_eq!(obey(&mut ledger, actions), ["publish", "drop 7 on 0"], "it was deleted");
    // One that is deleted before the routes ever name it does not stay.
    ledger.settle(vec![TopicId(10)], vec![]);
    for _ in 0..TAKEN_TICKS {
        ledger.tick();
    }
    assert_eq!(ledger.shard_lists(ShardId(0), &[TopicId(10)]).len(), 1);
}

#[test]
fn a_table_from_before_a_topic_was_made_does_not_take_it_away() {
    let mut ledger = ledger();
    ledger.table_changed(table(1, &[]));
    let actions = ledger.wait_for(topic("t", 7, &[0]), "w");
    assert_eq!(obey(&mut ledger, actions), ["open t on 0", "publish", "w: 1 queues"]);
    let actions = ledger.table_changed(table(2, &[topic("u", 8, &[0])]));
    assert_eq!(obey(&mut ledger, actions), ["open u on 0", "publish"]);
    assert!(ledger.routes().get(&name("t")).is_some(), "it was made behind that table");
    let actions = ledger.table_changed(table(3, &[topic("t", 7, &[0]), topic("u", 8, &[0])]));
    obey(&mut ledger, actions);
    let actions = ledger.table_changed(table(4, &[topic("u", 8, &[0])]));
    assert_eq!(obey(&mut ledger, actions), ["publish", "drop 7 on 0"], "now it was deleted");
}

#[test]
fn what_was_known_before_the_registry_spoke_takes_nothing_away() {
    let mut ledger = ledger();
    let hearsay = RoutingTable { registry: 0, ..(*table(9, &[topic("u", 8, &[0])])).clone() };
    let actions = ledger.table_changed(Arc::new(hearsay));
    obey(&mut ledger, actions);
    assert!(ledger.shard_lists(ShardId(0), &[TopicId(7), TopicId(8)]).is_empty());
    let actions = ledger.open_found(vec![topic("t", 7, &[0])]);
    assert_eq!(obey(&mut ledger, actions), ["open t on 0", "publish"]);
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    assert_eq!(obey(&mut ledger, actions), ["publish", "drop 8 on 0"], "the registry has spoken");
}

#[test]
fn queues_of_other_brokers_are_named_and_not_opened() {
    let mut ledger = ledger();
    let routes = with_other(&table(1, &[topic("t", 7, &[0, 9]), topic("u", 8, &[9])]), 1, true);
    let actions = ledger.table_changed(Arc::clone(&routes));
    assert_eq!(obey(&mut ledger, actions), ["publish", "open t on 0", "publish", "publish"]);
    let leaders = |ledger: &Ledger<Waiter>| {
        let route = ledger.routes().get(&name("t")).unwrap();
        [0, 1].map(|queue: usize| route.queues[queue].leader_id(BrokerId(1)))
    };
    assert_eq!(leaders(&ledger), [Some(BrokerId(1)), Some(BrokerId(2))]);
    assert_eq!(ledger.routes().brokers.len(), 1);
    let actions = ledger.table_changed(with_other(&routes, 2, false));
    assert_eq!(obey(&mut ledger, actions), ["publish"], "nothing is opened anew");
    assert_eq!(leaders(&ledger), [Some(BrokerId(1)), None]);
    let actions = ledger.table_changed(with_other(&routes, 3, true));
    obey(&mut ledger, actions);
    assert_eq!(leaders(&ledger), [Some(BrokerId(1)), Some(BrokerId(2))]);
}

#[test]
fn many_topics_are_opened_a_few_at_a_time() {
    let mut ledger = ledger();
    let topics: Vec<_> = (1..=100).map(|id| topic(&format!("t{id}"), id, &[0])).collect();
    let actions = ledger.table_changed(table(1, &topics));
    assert_eq!(actions.len(), OPENING_MAX);
    obey(&mut ledger, actions);
    assert_eq!(ledger.routes().len(), 100);
    assert!(ledger.is_settled());
}

fn offer(topic: &TopicRoutes) -> AdoptTopic {
    AdoptTopic {
        name: topic.name.clone(),
        id: topic.id,
        settings: StoredSettings::from(&topic.settings),
        queues: Vec::new(),
        altered: topic.altered,
        created: topic.created,
    }
}

#[test]
fn nobody_is_told_that_there_is_no_topic_that_is_offered_until_the_registry_has_told_of_it() {
    let mut ledger = ledger();
    let (t, u, v) = (topic("t", 7, &[0]), topic("u", 8, &[0]), topic("v", 9, &[1]));
    let of_another = |version, topics: &[Arc<TopicRoutes>]| {
        Arc::new(RoutingTable { registry: 2, ..(*table(version, topics)).clone() })
    };
    let actions = ledger.table_changed(of_another(1, &[]));
    obey(&mut ledger, actions);
    let told = |ledger: &Ledger<Waiter>, text: &str| {
        let error = ledger.routes().no_topic(&name(text));
        assert_eq!(ledger.awaited(&name(text)).is_some(), error.retriable, "nor is it made anew");
        error.code
    };
    let actions = ledger.offering(&[vec![offer(&t), offer(&u)], vec![offer(&v)]]);
    assert_eq!(obey(&mut ledger, actions), ["publish"]);
    for text in ["t", "u", "v"] {
        assert_eq!(told(&ledger, text), ErrorCode::Unavailable);
    }
    assert_eq!(told(&ledger, "x"), ErrorCode::UnknownTopic, "nobody has it");
    let actions = ledger.settle([7, 8, 9].map(TopicId).to_vec(), vec![TopicId(8)]);
    assert_eq!(obey(&mut ledger, actions), ["publish"]);
    assert_eq!(told(&ledger, "u"), ErrorCode::UnknownTopic, "it is not taken");
    // Its answer overtakes its routes: the door stays closed until they are there.
    assert_eq!(told(&ledger, "t"), ErrorCode::Unavailable);
    assert!(!ledger.is_settled());
    let actions = ledger.table_changed(of_another(2, &[Arc::clone(&t)]));
    assert!(!ledger.is_settled() && told_by(&ledger, "t").is_none(), "it is being opened");
    assert_eq!(obey(&mut ledger, actions), ["open t on 0", "publish"]);
    assert!(ledger.routes().found(&name("t")).is_ok() && !ledger.is_settled());
    // What is deleted before the routes ever name it is not waited for without end.
    for _ in 0..TAKEN_TICKS {
        assert_eq!(told(&ledger, "v"), ErrorCode::Unavailable);
        ledger.tick();
    }
    assert_eq!(told(&ledger, "v"), ErrorCode::UnknownTopic);
    assert!(ledger.is_settled());
    let actions = ledger.topic_deleted(&name("t"), TopicId(7));
    obey(&mut ledger, actions);
    assert_eq!(told(&ledger, "t"), ErrorCode::UnknownTopic);
}

/// What is said to one who would make a topic.
fn told_by(ledger: &Ledger<Waiter>, text: &str) -> Option<ErrorCode> {
    ledger.awaited(&name(text)).map(|error| error.code)
}
