use super::tests::*;
use super::*;
use grus_protocol::ids::{BrokerAddress, Durability};
use grus_registry::{BrokerPlace, ShardPlace};

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
fn who_comes_to_lead_drops_what_was_deleted_while_nobody_did() {
    let t = topic("t", 7, &[9]);
    let begin = |home: Home| Ledger::<Waiter>::new(BrokerId(1), Routes::default(), [].into(), home);
    let told = |ledger: &mut Ledger<Waiter>, version, topics: &[Arc<TopicRoutes>]| {
        let actions = ledger.table_changed(table_of(version, topics, 1));
        obey(ledger, actions)
    };
    let mut ledger = begin(Home { registry: 1, ..Home::default() });
    told(&mut ledger, 1, &[Arc::clone(&t)]);
    ledger.stands(ShardId(9), None, Some(OTHER));
    let said = told(&mut ledger, 2, &[]);
    assert_eq!(said, ["publish"], "whoever leads drops it");
    let asks = |actions: Vec<Action<Waiter>>| {
        actions.iter().filter(|action| matches!(action, Action::Drop(..))).count()
    };
    assert_eq!(asks(ledger.tick()), 1, "a member that follows knows whether that was done");
    ledger.dropped(ShardId(9), TopicId(7), false); // it has the topic still
    ledger.stands(ShardId(9), None, None);
    assert_eq!(asks(ledger.tick()), 0, "nobody leads: what it knows may be old");

    // What is to be done outlives the process.
    let mut ledger = begin(ledger.home().clone());
    told(&mut ledger, 3, &[]);
    ledger.stands(ShardId(9), None, None);
    for reign in 1..=2 {
        let actions = ledger.stands(ShardId(9), Some(reign), Some(BrokerId(1)));
        assert_eq!(asks(actions), 1, "the one before may have died over it");
        ledger.stands(ShardId(9), None, Some(OTHER));
    }
    let actions = ledger.stands(ShardId(9), Some(3), Some(BrokerId(1)));
    assert!(obey(&mut ledger, actions).contains(&"drop 7 on 9".into()));
    assert_eq!((ledger.home().drops.len(), asks(ledger.tick())), (0, 0), "it was done");
}

#[test]
fn a_member_that_was_away_while_a_topic_was_deleted_drops_it_when_it_leads() {
    let home = Home { registry: 1, ..Home::default() };
    let mut ledger = Ledger::<Waiter>::new(BrokerId(1), Routes::default(), [].into(), home);
    let kept = ledger.table_changed(table_of(1, &[topic("t", 7, &[9])], 1));
    obey(&mut ledger, kept);
    ledger.table_changed(table_of(2, &[], 1)); // before its member has started
    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    assert!(obey(&mut ledger, actions).contains(&"drop 7 on 9".into()));

    let mut other = ledger;
    let actions = other.table_changed(table_of(3, &[topic("u", 8, &[9])], 1));
    obey(&mut other, actions);
    let actions = other.table_changed(table_of(4, &[], 1));
    assert_eq!(obey(&mut other, actions), ["publish", "drop 8 on 9"]);
}

#[test]
fn what_the_registry_has_again_is_not_dropped() {
    let mut ledger = ledger();
    let t = topic("t", 7, &[9]);
    for (version, topics) in [(5, vec![Arc::clone(&t)]), (6, vec![])] {
        let actions = ledger.table_changed(table_of(version, &topics, 1));
        obey(&mut ledger, actions);
    }
    assert_eq!(ledger.home().drops, [(ShardId(9), TopicId(7))].into());
    let actions = ledger.table_changed(table_of(4, &[t], 1)); // out of an older copy
    obey(&mut ledger, actions);
    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    let said = obey(&mut ledger, actions);
    assert!(said.contains(&"open t on 9".into()), "{said:?}");
    assert!(!said.contains(&"drop 7 on 9".into()), "{said:?}");
}

#[test]
fn a_topic_that_is_gone_before_it_is_open_is_not_published_and_dropped_behind_its_opening() {
    let mut ledger = ledger();
    let opening = ledger.table_changed(table_of(1, &[topic("t", 7, &[0])], 1));
    let mut actions = ledger.table_changed(table_of(2, &[], 1));
    let mut said = obey(&mut ledger, opening);
    said.extend(obey(&mut ledger, std::mem::take(&mut actions)));
    assert!(ledger.routes().is_empty(), "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("drop 7 on 0"), "{said:?}");
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
    ledger.settle(vec![], vec![]);
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
    ledger.tick();
    ledger.dropped(ShardId(9), TopicId(7), false); // it has not yet
    let actions = ledger.stands(ShardId(9), Some(1), Some(BrokerId(1)));
    assert!(obey(&mut ledger, actions).contains(&"drop 7 on 9".into()), "it may have died before");
    let actions = ledger.stands(ShardId(9), Some(2), Some(BrokerId(1)));
    let said = obey(&mut ledger, actions);
    assert!(!said.contains(&"drop 7 on 9".into()), "it is done: {said:?}");
}
