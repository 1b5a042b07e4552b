//! Which broker leads which shard: after restarts and kills each leads again what it is the first of, while
//! somebody sends; what an operator has moved stays.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::message::{RoutesChanged, ShardState, WatchRoutes};
use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
use grus_tests::hostile::Peer;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::{lines, produce_by_queue};

/// The broker of each shard of several brokers: the first of its list, or who leads it.
type Brokers = BTreeMap<u64, u64>;

/// The first of each list, as the registry has it.
fn firsts(cluster: &Cluster) -> Brokers {
    let mut peer = Peer::greeted(cluster.registry.listen);
    peer.call(&WatchRoutes { topics: Vec::new() }).expect("it is told");
    let mut firsts = Brokers::new();
    loop {
        let told: RoutesChanged = peer.frame().expect("a push").header().expect("the routes");
        let first = |shard: &ShardState| {
            shard.members.first().map(|first| (u64::from(shard.shard.0), first.0))
        };
        firsts.extend(told.shards.iter().filter_map(first));
        if !told.more {
            break;
        }
    }
    let different: BTreeSet<u64> = firsts.values().copied().collect();
    assert_eq!((firsts.len(), different.len()), (3, 3), "{firsts:?}");
    firsts
}

/// Who leads, as the brokers say.
fn leaders(cluster: &Cluster) -> Brokers {
    let asked = grus_at(&cluster.at(), &["--json", "cluster", "shards"], b"");
    if !asked.status.success() {
        return Brokers::new(); // a broker is being stopped or started
    }
    let leader = |shard: &Value| Some((shard["shard"].as_u64()?, shard["leader"].as_u64()?));
    let said = asked.json();
    said.iter().filter(|shard| shard["replicated"] == true).filter_map(leader).collect()
}

/// Sends on until the leaders are as wanted.
async fn send_until(cluster: &Cluster, sender: &mut Sender, wanted: impl Fn(&Brokers) -> bool) {
    let watch = Watch::start();
    loop {
        sender.go_on(20).await;
        let found = leaders(cluster);
        if wanted(&found) {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "they are led by {found:?}");
    }
}

#[test]
fn after_a_rolling_restart_each_broker_leads_again_what_it_is_the_first_of() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let firsts = firsts(&cluster);
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        send_until(&cluster, &mut sender, |leaders| *leaders == firsts).await;
        for number in 0..3 {
            cluster.end(number);
            sender.go_on(50).await;
            cluster.start_again(number);
            sender.go_on(50).await;
            cluster.await_all_led("t");
        }
        // The last one that was stopped leads nothing now.
        send_until(&cluster, &mut sender, |leaders| *leaders == firsts).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn what_an_operator_moved_stays_until_its_leader_stops_and_a_killed_broker_gets_its_own_back() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let firsts = firsts(&cluster);
    let all: Vec<(u64, u64)> = firsts.iter().map(|(shard, first)| (*shard, *first)).collect();
    let [(moved, _), (_, to), (other, killed)] = all[..] else { panic!("{all:?}") };
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        send_until(&cluster, &mut sender, |leaders| *leaders == firsts).await;
        let (shard, broker) = (moved.to_string(), to.to_string());
        let words = ["cluster", "move-leader", &shard, "--to", &broker];
        let watch = Watch::start();
        while leaders(&cluster).get(&moved) != Some(&to) {
            // Asked again where it was refused, as the other one may be late.
            let _ = grus_at(&cluster.at(), &words, b"");
            assert!(watch.elapsed() < PATIENCE, "{moved} is not moved");
        }
        let number = cluster.number_of(killed);
        cluster.kill(number);
        let is_led_by_another =
            |leaders: &Brokers| leaders.get(&other).is_some_and(|leader| *leader != killed);
        send_until(&cluster, &mut sender, is_led_by_another).await;
        cluster.start_again(number);
        // It gets back what it is the first of, later than what was moved would go back.
        let mut expected = firsts.clone();
        expected.insert(moved, to);
        send_until(&cluster, &mut sender, |leaders| *leaders == expected).await;
        let number = cluster.number_of(to);
        cluster.end(number);
        sender.go_on(50).await;
        cluster.start_again(number);
        send_until(&cluster, &mut sender, |leaders| *leaders == firsts).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// Waits until all three shards are led as wanted.
fn await_led(cluster: &Cluster, wanted: impl Fn(&Brokers) -> bool) {
    let watch = Watch::start();
    loop {
        let found = leaders(cluster);
        if found.len() == 3 && wanted(&found) {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "they are led by {found:?}");
    }
}

/// Whether one of the brokers says that it has given a shard back to its first one. On a slow machine that may
/// also come to lead by an election: who leads does not tell.
fn gave_back(cluster: &mut Cluster) -> bool {
    cluster.brokers.iter_mut().flatten().any(|broker| {
        assert_eq!(broker.process.ended(), None); // takes in what it has printed
        broker.process.log().contains("given back to the first of its brokers")
    })
}

/// Stops a cluster's first broker and starts it again: others lead what it is the first of.
fn restart_first(cluster: &mut Cluster) {
    let id = cluster.id_of(0);
    cluster.end(0);
    await_led(cluster, |leaders| leaders.values().all(|leader| *leader != id));
    cluster.start_again(0);
}

/// Another cluster tells when the time has come: there the same is done later, and leaders do go back.
#[test]
fn nothing_comes_back_where_that_is_switched_off() {
    let registry = quick_registry();
    let off = |_| registry.broker().with("GRUS__BROKER__RETURN_LEADERSHIP", "false");
    let homes = (0..3).map(off).collect();
    let (mut off, mut on) = (Cluster::of(registry, homes), Cluster::start());
    off.topic("t", 3, "persisted");
    on.topic("t", 3, "persisted");
    let firsts = firsts(&on);
    restart_first(&mut off);
    restart_first(&mut on);
    await_led(&on, |leaders| *leaders == firsts);
    assert!(gave_back(&mut on), "who gives back says so");
    assert!(!gave_back(&mut off));
}

/// They would be gone with the one that leads. The time is told by a cluster whose queues hold nothing.
#[test]
fn a_shard_whose_temporary_queues_hold_messages_stays_where_it_is() {
    let (mut holds, mut empty) = (Cluster::start(), Cluster::start());
    let create = ["topic", "create", "t", "--queues", "3", "--kind", "temporary"];
    for cluster in [&holds, &empty] {
        grus_at(&cluster.at(), &create, b"").ok();
        cluster.await_all_led("t");
    }
    let firsts = firsts(&empty);
    restart_first(&mut holds);
    (0..3).for_each(|queue| produce_by_queue(&holds.at(), "t", queue, &lines("kept", 1)));
    restart_first(&mut empty);
    await_led(&empty, |leaders| *leaders == firsts);
    assert!(gave_back(&mut empty), "who gives back says so");
    assert!(!gave_back(&mut holds));
}
