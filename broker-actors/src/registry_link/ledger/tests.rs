//! Tests of the ledger: a registry and shards that exist only as calls.

use grus_mailbox::outlet;
use grus_protocol::ids::{Durability, Offset, QueueKey, TimestampMs};
use grus_protocol::message::TopicSettings;
use grus_registry::RouteSpan;

use super::*;

type Waiter = &'static str;

fn name(text: &str) -> TopicName {
    TopicName::try_from(text).unwrap()
}

/// A topic with one queue on each of the shards.
fn topic(text: &str, id: u64, shards: &[u32]) -> Arc<TopicRoutes> {
    let span = |shard: &u32| vec![RouteSpan { shard: ShardId(*shard), from: Offset(0) }];
    Arc::new(TopicRoutes {
        name: name(text),
        id: TopicId(id),
        settings: TopicSettings {
            queues: u32::try_from(shards.len()).unwrap(),
            ..TopicSettings::default()
        },
        created: TimestampMs(5),
        queues: shards.iter().map(span).collect(),
    })
}

fn table(version: u64, topics: &[Arc<TopicRoutes>]) -> Arc<RoutingTable> {
    let topics = topics.iter().map(|topic| (topic.name.clone(), Arc::clone(topic)));
    Arc::new(RoutingTable { version, topics: topics.collect(), ..RoutingTable::default() })
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
            ask: outlet(1).0,
        })
    };
    config.queues.iter().map(handle).collect()
}

/// Lets every shard do what it is asked; returns what came of it in words.
fn obey(ledger: &mut Ledger<Waiter>, actions: Vec<Action<Waiter>>) -> Vec<String> {
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
    let mut ledger = Ledger::<Waiter>::default();
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
    let mut ledger = Ledger::<Waiter>::default();
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
    let mut ledger = Ledger::<Waiter>::default();
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
    let mut ledger = Ledger::<Waiter>::default();
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
    let mut ledger = Ledger::<Waiter>::default();
    let opening = ledger.wait_for(topic("t", 7, &[0]), "w");
    let actions = ledger.topic_deleted(&name("t"), TopicId(7));
    assert!(actions.is_empty());
    assert_eq!(obey(&mut ledger, opening), ["open t on 0", "w: UnknownTopic", "drop 7 on 0"]);
    assert!(ledger.routes().is_empty());
}

#[test]
fn a_drop_that_fails_is_repeated() {
    let mut ledger = Ledger::<Waiter>::default();
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    ledger.table_changed(table(2, &[]));
    ledger.dropped(ShardId(0), TopicId(7), false);
    let actions = ledger.tick();
    assert_eq!(obey(&mut ledger, actions), ["drop 7 on 0"]);
    assert!(ledger.tick().is_empty());
}

#[test]
fn orphans_of_a_shard_are_dropped_unless_the_registry_knows_nothing_at_all() {
    let mut ledger = Ledger::<Waiter>::default();
    let orphans = [TopicId(7), TopicId(9)];
    assert!(ledger.shard_lists(ShardId(0), &orphans).is_empty(), "an empty registry lost its data");
    let actions = ledger.table_changed(table(1, &[topic("t", 7, &[0])]));
    obey(&mut ledger, actions);
    let actions = ledger.shard_lists(ShardId(0), &orphans);
    assert_eq!(obey(&mut ledger, actions), ["drop 9 on 0"]);
}

#[test]
fn many_topics_are_opened_a_few_at_a_time() {
    let mut ledger = Ledger::<Waiter>::default();
    let topics: Vec<_> = (1..=100).map(|id| topic(&format!("t{id}"), id, &[0])).collect();
    let actions = ledger.table_changed(table(1, &topics));
    assert_eq!(actions.len(), OPENING_MAX);
    obey(&mut ledger, actions);
    assert_eq!(ledger.routes().len(), 100);
    assert!(ledger.is_settled());
}
