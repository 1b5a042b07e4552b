//! A message is found wherever it is, by whoever is asked (S36 with several brokers).

use grus_tests::watch::PATIENCE;
use serde_json::Value;

use crate::{await_leaders, grus_at, leaders};
use grus_tests::cluster::quick_registry;

#[test]
fn a_message_is_found_through_the_registry_and_through_either_broker() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    let second = two.start();
    let through = [home.listen, one.listen, two.listen];
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"")
        .ok();
    let spread = leaders(home.listen, "t");
    let mut ids = Vec::new();
    for queue in 0..4 {
        let line = format!("line of queue {queue}\n");
        let options = ["produce", "t", "--json", "--queue", &queue.to_string()];
        let receipts = grus_at(&[home.listen], &options, line.as_bytes()).ok().json();
        ids.push(receipts[0]["id"].as_str().expect("an id").to_owned());
        let (key, line) = (format!("key-{queue}"), format!("keyed {queue}\n"));
        let options = ["produce", "t", "--key", &key];
        grus_at(&[home.listen], &options, line.as_bytes()).ok();
    }
    let show = |at, arguments: &[&str]| -> Vec<Value> {
        let all = [&["message", "show", "--json"], arguments].concat();
        grus_at(&[at], &all, b"").ok().json()
    };
    for at in through {
        for (queue, id) in ids.iter().enumerate() {
            let found = show(at, &[id]);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0]["body"], format!("line of queue {queue}"), "{at}");
            assert_eq!(found[0]["queue"], queue, "{at}");
            let keyed = show(at, &["--topic", "t", "--key", &format!("key-{queue}")]);
            assert_eq!(keyed[0]["body"], format!("keyed {queue}"), "{at}");
        }
        let none = "01a20077-1882-7af0-af21-74148bd9d561";
        let refused = grus_at(&[at], &["message", "show", none], b"").refused();
        assert!(refused.ends_with("no such message"), "{refused}");
    }

    // One broker gone: what it has is not called missing.
    second.kill();
    let half = |leaders: &[Option<u64>]| leaders.iter().filter(|at| at.is_none()).count() == 2;
    await_leaders(home.listen, "t", PATIENCE, half);
    let left = leaders(home.listen, "t");
    assert_ne!(left, spread);
    for (id, leader) in ids.iter().zip(&left) {
        if leader.is_some() {
            assert_eq!(show(home.listen, &[id]).len(), 1, "it is on the broker that is there");
        } else {
            let refused = grus_at(&[home.listen], &["message", "show", id], b"").refused();
            assert!(refused.contains("2 queues have none now"), "{refused}");
        }
    }
}
