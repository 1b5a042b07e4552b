//! What a broker is known by, and what it keeps: a folder that lost its number is told what to do, one that lost
//! everything joins as new, and one that was replaced in some shards keeps all others.

use std::collections::BTreeSet;
use std::fs;

use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::replaced::{await_shards, change, noted};
use crate::{bodies, leaders, lines, produce_by_queue};

/// What is on three brokers is on those, and nobody else.
fn await_on(cluster: &Cluster, count: usize, brokers: &BTreeSet<u64>) {
    await_shards(cluster, count, |members, is_short| members == brokers && !is_short);
}

#[test]
fn a_folder_that_lost_its_number_is_told_which_it_was_and_serves_again_with_it() {
    let registry = quick_registry();
    let _running = registry.start();
    let home = registry.broker();
    let broker = home.start();
    let at = [registry.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "1", "--replicas", "1"], b"").ok();
    grus_at(&at, &["produce", "t"], b"kept\n").ok();
    broker.kill();
    let file = home.data.join("disk.id");
    let number = fs::read_to_string(&file).expect("its number");
    fs::remove_file(&file).expect("a file to lose");
    let line = home.run_to_end().refused_last();
    assert!(line.contains("BrokerIdTaken") && line.contains("empty folder"), "{line}");
    assert!(line.contains(&format!("write {} into", number.trim())), "{line}");
    fs::write(&file, number).expect("a file to mend");
    let _again = home.start();
    assert_eq!(bodies(&at, "t", 1), ["kept"]);
}

#[test]
fn a_folder_that_lost_everything_joins_as_new_and_is_given_replicas_again() {
    let registry = quick_registry().with("GRUS__BROKER__REBUILD_AFTER", "5s");
    let homes = (0..3).map(|_| registry.broker()).collect();
    let mut cluster = Cluster::of(registry, homes);
    cluster.topic("t", 3, "persisted");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        let before = cluster.id_of(0);
        cluster.kill(0);
        fs::remove_dir_all(&cluster.homes[0].data).expect("a folder to lose");
        cluster.start_again(0); // at the same address
        assert_ne!(cluster.id_of(0), before, "it is another broker");
        sender.go_on(100).await;
        let all: BTreeSet<u64> = (0..3).map(|number| cluster.id_of(number)).collect();
        await_on(&cluster, 3, &all);
        // It counts: of the two others one may go.
        cluster.kill(1);
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// Waits until a broker has begun in so many shards of several; which these are.
fn await_noted(cluster: &Cluster, number: usize, count: usize) -> BTreeSet<String> {
    let watch = Watch::start();
    loop {
        let found = noted(cluster, number);
        if found.len() == count {
            return found;
        }
        assert!(watch.elapsed() < PATIENCE, "not {count}: {found:?}");
    }
}

/// Waits until those shards are on these brokers.
fn await_some(cluster: &Cluster, shards: &BTreeSet<String>, brokers: &BTreeSet<u64>) {
    let watch = Watch::start();
    loop {
        let said = grus_at(&cluster.at(), &["--json", "cluster", "shards"], b"").ok().json();
        let is_one = |shard: &&Value| shards.contains(&shard["shard"].to_string());
        let is_there = |shard: &Value| {
            let others = shard["members"].as_array().into_iter().flatten();
            let others = others.filter_map(|member| member["broker"].as_u64());
            let all: BTreeSet<u64> = others.chain(shard["leader"].as_u64()).collect();
            all == *brokers && shard["under_replicated"] == false
        };
        let there = said.iter().filter(is_one).filter(|shard| is_there(shard)).count();
        if there == shards.len() {
            return;
        }
        assert!(watch.elapsed() < PATIENCE * 2, "{there} of {shards:?}: {said:?}");
    }
}

#[test]
fn one_that_was_replaced_in_some_shards_keeps_all_others_when_it_comes_back() {
    let mut cluster = Cluster::start();
    let at = cluster.at();
    cluster.topic("t", 3, "persisted");
    let surplus = await_noted(&cluster, 0, 3);
    // Two of the three shards of two brokers each are its own as well, and a queue is its own alone: of
    // so many one is, whoever leads the six of the others.
    for (topic, queues, replicas) in [("u", "3", "2"), ("own", "15", "1")] {
        let create = ["topic", "create", topic, "--queues", queues, "--replicas", replicas];
        grus_at(&at, &create, b"").ok();
        cluster.await_all_led(topic);
    }
    let others: BTreeSet<String> = &await_noted(&cluster, 0, 5) - &surplus;
    let told = |topic: &str| lines(topic, if topic == "own" { 300 } else { 60 });
    for topic in ["t", "u", "own"] {
        for (queue, some) in (0..).zip(told(topic).chunks(20)) {
            produce_by_queue(&at, topic, queue, some);
        }
    }
    let new = cluster.join();
    let ids: Vec<u64> = (0..4).map(|number| cluster.id_of(number)).collect();
    assert!(leaders(at[0], "own").contains(&Some(ids[0])), "it has a queue of its own");
    cluster.kill(0);
    cluster.await_all_led("t");
    change(&cluster, &format!("add-replica t --broker {} --instead-of {}", ids[new], ids[0]));
    await_some(&cluster, &surplus, &[1, 2, new].map(|number| ids[number]).into());
    cluster.start_again(0);
    let folder = |shard: &String| cluster.homes[0].data.join("shards").join(shard);
    let watch = Watch::start();
    while noted(&cluster, 0) != others || surplus.iter().any(|shard| folder(shard).exists()) {
        assert!(watch.elapsed() < PATIENCE * 2, "it has {:?}", noted(&cluster, 0));
    }
    assert!(others.iter().all(|shard| folder(shard).is_dir()), "it is a member there");
    for topic in ["t", "u", "own"] {
        cluster.await_all_led(topic);
        assert_eq!(bodies(&at, topic, told(topic).len()), told(topic), "{topic}");
    }
    // Without it nothing is taken where two have everything: it takes part.
    let more = lines("more", 20);
    for queue in 0..3 {
        produce_by_queue(&at, "u", queue, &more);
    }
}
