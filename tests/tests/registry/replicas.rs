//! On how many brokers a topic is of which nobody has said it: on three, or on as many as are there when it is
//! made.

use std::net::SocketAddr;

use grus_tests::broker::Home;
use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
use rustix::process::Signal;

/// What `grus topic create` says of a topic that it has made.
fn made(at: SocketAddr, words: &str) -> u64 {
    let create = ["--json", "topic", "create"];
    let words: Vec<&str> = create.into_iter().chain(words.split(' ')).collect();
    replicas(at, &words)
}

fn described(at: SocketAddr, topic: &str) -> u64 {
    replicas(at, &["--json", "topic", "describe", topic])
}

fn replicas(at: SocketAddr, words: &[&str]) -> u64 {
    grus_at(&[at], words, b"").ok().json()[0]["replicas"].as_u64().expect("a number")
}

#[test]
fn a_topic_of_three_brokers_is_on_all_of_them_and_outlives_its_leader() {
    let mut cluster = Cluster::start();
    let (registry, broker) = (cluster.registry.listen, cluster.homes[0].listen);
    assert_eq!(made(registry, "t --queues 3"), 3);
    assert_eq!(made(broker, "early --durability replicated"), 3, "from a broker");
    assert_eq!(made(broker, "temporary --kind temporary"), 3);
    assert_eq!(made(registry, "one --replicas 1"), 1, "as it is named");
    assert_eq!(made(broker, "two --replicas 2"), 2);
    grus_at(&[broker], &["produce", "sent"], b"x\n").ok();
    for at in [registry, broker, cluster.homes[2].listen] {
        let all = ["t", "early", "temporary", "one", "two", "sent"].map(|name| described(at, name));
        assert_eq!(all, [3, 3, 3, 1, 2, 3]);
    }
    let told = grus_at(&[registry], &["topic", "describe", "t"], b"").ok().text();
    assert!(told.contains("3 queues, on 3 brokers each, persisted"), "{told}");
    let listed = grus_at(&[registry], &["topic", "list"], b"").ok().text();
    assert_eq!(listed.matches(", on 3 brokers each").count(), 4, "{listed}");
    cluster.await_all_led("t");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        let leader = cluster.leader("t");
        cluster.kill(leader);
        sender.go_on(200).await;
        cluster.await_all_led("t");
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn a_topic_is_on_the_brokers_that_are_there_and_on_no_more_than_the_registry_is_told() {
    let home = quick_registry();
    let registry = home.start();
    let at = home.listen;
    let (one, two) = (home.broker(), home.broker());
    let _first = one.start();
    assert_eq!(made(at, "alone"), 1);
    let _second = two.start();
    assert_eq!(made(at, "both"), 2);
    assert_eq!((described(at, "alone"), described(at, "both")), (1, 2), "as they were made");
    registry.end(Signal::TERM);
    let home = home.with("GRUS__TOPIC__REPLICAS", "1");
    let _registry = home.start();
    assert_eq!(made(at, "one"), 1);
    assert_eq!((described(at, "alone"), described(at, "both")), (1, 2), "what was chosen stays");
    let refused = grus_at(&[at], &["topic", "create", "three", "--replicas", "3"], b"").refused();
    assert!(refused.contains("3 replicas, and 2 brokers are there"), "{refused}");
}

#[test]
fn a_broker_that_stands_alone_has_its_topics_alone() {
    let home = Home::new();
    let _broker = home.start();
    assert_eq!(made(home.listen, "t"), 1);
    assert_eq!(made(home.listen, "u --replicas 1"), 1);
    let told = grus_at(&[home.listen], &["topic", "describe", "t"], b"").ok().text();
    assert!(!told.contains("brokers"), "{told}");
}
