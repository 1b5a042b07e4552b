//! What only a queue's leader knows is asked of it, whoever the client came by.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{grus_at, lines, produce_by_queue};
use grus_tests::cluster::quick_registry;
use grus_tests::watch::{PATIENCE, Watch};

/// The queues of `t`, as a client that came by `at` is told.
fn queues(at: SocketAddr) -> Vec<Value> {
    let described = grus_at(&[at], &["topic", "describe", "t", "--json"], b"").ok().json();
    described[0]["queue_list"].as_array().expect("a list of queues").clone()
}

fn ends(queues: &[Value]) -> Vec<Option<u64>> {
    queues.iter().map(|queue| queue["end_offset"].as_u64()).collect()
}

#[test]
fn a_topic_is_described_whole_whoever_is_asked_and_what_nobody_knows_is_named() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    let second = two.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"")
        .ok();
    for queue in 0..4 {
        produce_by_queue(&[home.listen], "t", queue, &lines("m", 10 + queue as usize));
    }
    let all = vec![Some(10), Some(11), Some(12), Some(13)];
    for (at, who) in [(home.listen, "registry"), (one.listen, "one"), (two.listen, "two")] {
        let told = queues(at);
        assert_eq!(ends(&told), all, "asked of {who}");
        assert!(told.iter().all(|queue| queue["bytes"].as_u64() > Some(100)), "{told:?}");
        assert!(told.iter().all(|queue| queue["last_stored"].is_string()), "{told:?}");
        let text = grus_at(&[at], &["topic", "describe", "t"], b"").ok();
        let text = String::from_utf8(text.out).expect("text");
        assert!(text.contains("queue 3: 13 messages, offsets from 0 to before 13"), "{text}");
    }
    let listed = grus_at(&[home.listen], &["client", "list", "--json"], b"").ok().json();
    let brokers: std::collections::BTreeSet<_> =
        listed.iter().map(|client| client["broker"].as_u64()).collect();
    assert_eq!(brokers.len(), 2, "each broker is asked: {listed:?}");

    second.kill();
    let watch = Watch::start();
    loop {
        let told = queues(home.listen);
        let known = ends(&told);
        let unknown: Vec<_> = told.iter().filter(|queue| queue["unknown"].is_string()).collect();
        assert_eq!(unknown.len(), known.iter().filter(|end| end.is_none()).count(), "{told:?}");
        if unknown.len() == 2 {
            for (end, was) in known.iter().zip(&all) {
                assert!(end.is_none() || end == was, "{told:?}");
            }
            break;
        }
        assert!(watch.elapsed() < PATIENCE, "{told:?}");
    }
    let text = grus_at(&[one.listen], &["topic", "describe", "t"], b"").ok();
    let text = String::from_utf8(text.out).expect("text");
    assert_eq!(text.matches(": not known (").count(), 2, "{text}");
    let _second = two.start();
    let watch = Watch::start();
    while ends(&queues(home.listen)) != all {
        assert!(watch.elapsed() < PATIENCE, "back with all it had");
    }
}
