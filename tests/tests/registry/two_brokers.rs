//! Two brokers, one registry: queues spread, brokers come and go.

use std::fs;
use std::time::Duration;

use grus_tests::cluster::quick_registry;
use grus_tests::registry::RegistryHome;
use rustix::process::Signal;

use crate::{await_leaders, bodies, grus_at, input, leaders, lines, produce_by_queue};

/// Longer than a busy machine keeps a broker from its heartbeats.
const LEASE: Duration = Duration::from_secs(5);
/// What may be added to a lease: the looks at it, and the telling.
const SLACK: Duration = Duration::from_secs(8);

#[test]
fn queues_are_spread_and_a_broker_leaves_and_comes_back_with_all_it_had() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    let second = two.start();
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    let spread = leaders(home.listen, "t");
    let mut brokers: Vec<u64> = spread.iter().flatten().copied().collect();
    brokers.sort_unstable();
    assert_eq!(brokers.len(), 4, "{spread:?}");
    assert!(brokers[0] == brokers[1] && brokers[2] == brokers[3] && brokers[1] < brokers[2]);
    for broker in [&one, &two] {
        await_leaders(broker.listen, "t", SLACK, |leaders| leaders == spread);
    }

    // To every queue, from a client that knows the registry alone.
    for queue in 0..4 {
        produce_by_queue(&at, "t", queue, &lines(&format!("q{queue}"), 50));
    }
    let mut expected: Vec<String> =
        (0..4).flat_map(|queue| lines(&format!("q{queue}"), 50)).collect();
    assert_eq!(bodies(&at, "t", 200), expected);
    // From one that knows a broker alone.
    assert_eq!(bodies(&[one.listen], "t", 200), expected);

    let gone = fs::read_to_string(two.data.join("broker.id")).expect("its id");
    let gone: u64 = gone.trim().parse().expect("a number");
    second.kill();
    let is_gone = |leaders: &[Option<u64>]| leaders.iter().filter(|at| at.is_none()).count() == 2;
    let took = await_leaders(home.listen, "t", LEASE + SLACK, is_gone);
    println!("out of the routes after {took:?}");
    let is_known = |leaders: &[Option<u64>]| leaders.iter().all(|leader| *leader != Some(gone));
    await_leaders(one.listen, "t", SLACK, is_known);
    // Sends that leave the queue open go to the broker that is there.
    let more = lines("more", 100);
    grus_at(&at, &["produce", "t"], &input(&more)).ok();
    // A queue that is not there is a typed refusal after its time, not a hang and not a success.
    let absent = spread.iter().position(|leader| *leader == Some(gone)).expect("it had two");
    let refused = grus_at(
        &at,
        &["produce", "t", "--queue", &absent.to_string(), "--timeout", "1s"],
        b"nobody\n",
    );
    assert_eq!(refused.status.code(), Some(1), "{}", refused.err);

    let _second = two.start();
    let all_there = |leaders: &[Option<u64>]| leaders == spread;
    let took = await_leaders(home.listen, "t", SLACK, all_there);
    println!("back in the routes after {took:?}");
    expected.extend(more);
    expected.sort();
    assert_eq!(bodies(&at, "t", 300), expected);
}

#[test]
fn a_broker_that_stops_in_order_leaves_the_routes_at_once() {
    let home = RegistryHome::new(); // with its lease of 10 s
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    let second = two.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "2", "--replicas", "1"], b"")
        .ok();
    second.end(Signal::TERM);
    let half = |leaders: &[Option<u64>]| leaders.iter().filter(|at| at.is_none()).count() == 1;
    // Both in less than a lease: it says so before it ends.
    await_leaders(home.listen, "t", SLACK, half);
    await_leaders(one.listen, "t", SLACK, half);
}

#[test]
fn the_same_broker_id_in_another_folder_is_refused() {
    let home = RegistryHome::new();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    fs::create_dir_all(&two.data).expect("a folder");
    fs::copy(one.data.join("broker.id"), two.data.join("broker.id")).expect("a copy");
    let line = two.run_to_end().refused_last();
    assert!(line.contains("BrokerIdTaken"), "{line}");
    grus_at(&[home.listen], &["topic", "create", "t"], b"").ok();
    let stored = grus_at(&[one.listen, home.listen], &["produce", "t", "--json"], b"on\n").ok();
    assert_eq!(stored.json().len(), 1, "the first one serves on");
}

#[test]
fn s5_a_send_outlives_its_broker_while_the_registry_watches() {
    let home = quick_registry();
    let _registry = home.start();
    let one = home.broker();
    let broker = one.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "1", "--replicas", "1"], b"")
        .ok();
    broker.kill();
    let sender = std::thread::spawn({
        let at = home.listen;
        move || grus_at(&[at], &["produce", "t", "--json", "--timeout", "60s"], b"late\n").ok()
    });
    let _again = one.start();
    assert_eq!(sender.join().expect("it ends").json().len(), 1);
    assert_eq!(bodies(&[home.listen], "t", 1), ["late"]);
}

#[test]
fn what_is_scheduled_on_all_brokers_is_one_list() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let (_first, _second) = (one.start(), two.start());
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    let mut expected = Vec::new();
    for queue in 0..4 {
        for hours in [4 - queue, 6] {
            let (queue, delay) = (queue.to_string(), format!("{hours}h"));
            let produce = ["produce", "t", "--queue", &queue, "--delay", &delay, "--json"];
            let receipt = grus_at(&at, &produce, b"later\n").ok().json();
            expected.push((hours, receipt[0]["handle"].as_str().expect("a handle").to_owned()));
        }
    }
    // From the registry, and from either broker, by pages of any size.
    for from in [home.listen, one.listen, two.listen] {
        for topic in [&["t"][..], &[]] {
            let list = [&["delay", "list", "--json"], topic].concat();
            let listed = grus_at(&[from], &list, b"").ok().json();
            let text = |one: &serde_json::Value, name: &str| one[name].as_str().map(str::to_owned);
            let dues: Vec<_> = listed.iter().map(|one| text(one, "due")).collect();
            assert!(dues.is_sorted(), "{dues:?}");
            let mut handles: Vec<_> = listed.iter().filter_map(|one| text(one, "handle")).collect();
            handles.sort();
            let mut all: Vec<_> = expected.iter().map(|(_, handle)| handle.clone()).collect();
            all.sort();
            assert_eq!(handles, all, "from {from}");
            let count = [&["delay", "list", "--count"], topic].concat();
            assert_eq!(grus_at(&[from], &count, b"").ok().text().trim(), "8");
        }
    }
    // Each is recalled where it waits.
    let handles: Vec<&str> = expected.iter().map(|(_, handle)| handle.as_str()).collect();
    grus_at(&[one.listen], &[&["delay", "recall"], &handles[..]].concat(), b"").ok();
    let left = grus_at(&at, &["delay", "list", "--count"], b"").ok().text();
    assert_eq!(left.trim(), "0");
}
