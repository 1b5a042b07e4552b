use super::tests::*;
use super::*;
use grus_protocol::ids::{BrokerAddress, Durability};
use grus_registry::BrokerPlace;

const OTHER: BrokerId = BrokerId(2);

/// Of a broker with shards 0 and 1, and a topic on them and on shard 9, which it has with others.
fn table_of(version: u64, topics: &[Arc<TopicRoutes>], registry: u64) -> Arc<RoutingTable> {
    let mut table = RoutingTable { registry, ..(*table(version, topics)).clone() };
    let address = BrokerAddress { id: OTHER, host: "other".into(), port: 6086 };
    table.brokers.insert(OTHER, BrokerPlace { address, live: true, disk: 2 });
    let alone = ShardPlace::alone(Durability::Persisted, OTHER);
    let members = vec![BrokerId(1), OTHER];
    table.shards.insert(ShardId(9), ShardPlace { members, group: 5, ..alone });
    Arc::new(table)
}

fn leaders(ledger: &Ledger<Waiter>) -> Vec<(Leader, bool)> {
    let route = ledger.routes().get(&name("t")).unwrap();
    route.queues.iter().map(|place| (place.leader.clone(), place.handle.is_some())).collect()
}

fn there() -> Leader {
    Leader::There(BrokerAddress { id: OTHER, host: "other".into(), port: 6086 })
}

#[test]
fn queues_are_opened_where_their_shard_is_led_and_named_elsewhere_otherwise() {
    let mut ledger = ledger();
    let t = topic("t", 7, &[0, 9]);
    let actions = ledger.table_changed(table_of(1, &[Arc::clone(&t)], 1));
    assert_eq!(obey(&mut ledger, actions), ["publish", "open t on 0", "publish"]);
    assert_eq!(leaders(&ledger), [(Leader::Here, true), (Leader::Nobody, false)], "none told yet");

    let actions = ledger.stands(ShardId(9), None, Some(OTHER));
    assert_eq!(obey(&mut ledger, actions), ["publish"]);
    assert_eq!(leaders(&ledger), [(Leader::Here, true), (there(), false)], "before the registry");

    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    let said = obey(&mut ledger, actions);
    assert_eq!(said, ["publish", "open t on 0", "open t on 9", "publish"]);
    assert_eq!(leaders(&ledger), [(Leader::Here, true), (Leader::Here, true)]);
    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    assert_eq!(obey(&mut ledger, actions), ["publish"], "nothing is opened twice");
    let actions = ledger.stands(ShardId(9), Some(2), Some(BrokerId(1)));
    assert!(obey(&mut ledger, actions).contains(&"open t on 9".into()), "its queues are new ones");

    let actions = ledger.stands(ShardId(9), None, None);
    obey(&mut ledger, actions);
    assert_eq!(leaders(&ledger), [(Leader::Here, true), (Leader::Nobody, false)], "election");
}

#[test]
fn an_opening_under_way_does_not_hide_that_a_shard_came_to_lead() {
    let mut ledger = ledger();
    let t = topic("t", 7, &[0, 9]);
    let begun = ledger.table_changed(table_of(1, &[Arc::clone(&t)], 1));
    let leads = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    let mut said = obey(&mut ledger, begun);
    said.extend(obey(&mut ledger, leads));
    assert!(said.contains(&"open t on 9".into()), "{said:?}");
    assert_eq!(leaders(&ledger)[1], (Leader::Here, true));
}

#[test]
fn what_several_members_have_is_dropped_only_when_it_was_deleted_for_certain() {
    let t = topic("t", 7, &[0, 9]);
    let known = || {
        let mut ledger = ledger();
        let actions = ledger.table_changed(table_of(1, &[Arc::clone(&t)], 1));
        obey(&mut ledger, actions);
        let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
        obey(&mut ledger, actions);
        ledger
    };
    let mut ledger = known();
    let actions = ledger.table_changed(table_of(2, &[], 1));
    let said = obey(&mut ledger, actions);
    assert_eq!(
        said,
        ["publish", "drop 7 on 0", "drop 7 on 9"],
        "the routes had it, and lack it now"
    );

    // A registry without its data, to which this broker's shards belong by now: another member, which
    // tells of the topic on shard 9, may not have been there yet.
    let mut ledger = known();
    let actions = ledger.table_changed(table_of(1, &[], 2));
    obey(&mut ledger, actions);
    ledger.settle([]);
    let actions = ledger.table_changed(table_of(2, &[], 2));
    let said = obey(&mut ledger, actions);
    assert!(!said.iter().any(|said| said == "drop 7 on 9"), "{said:?}");
}

#[test]
fn what_was_deleted_while_another_one_led_is_dropped_by_whoever_leads_next() {
    let t = topic("t", 7, &[0, 9]);
    let mut ledger = ledger();
    let actions = ledger.table_changed(table_of(1, &[Arc::clone(&t)], 1));
    obey(&mut ledger, actions);
    let actions = ledger.stands(ShardId(9), None, Some(OTHER));
    obey(&mut ledger, actions);
    let actions = ledger.table_changed(table_of(2, &[], 1));
    assert_eq!(
        obey(&mut ledger, actions),
        ["publish", "drop 7 on 0"],
        "the other one drops its own"
    );
    assert_eq!(obey_tick(&mut ledger), [""; 0]);
    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    assert!(obey(&mut ledger, actions).contains(&"drop 7 on 9".into()), "it may have died before");
    let actions = ledger.stands(ShardId(9), Some(2), Some(BrokerId(1)));
    let said = obey(&mut ledger, actions);
    assert!(!said.contains(&"drop 7 on 9".into()), "it is done: {said:?}");
}

fn obey_tick(ledger: &mut Ledger<Waiter>) -> Vec<String> {
    let actions = ledger.tick();
    obey(ledger, actions)
}
