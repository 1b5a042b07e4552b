//! Each of three brokers is stopped and started again, one after the other, while somebody sends: no send
//! fails, and none waits for an election, as whoever stops has handed over what it led before.

use std::time::Duration;

use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at};
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// Longest that a send may wait on a machine that has time for it. There it waits 30 to 50 ms, which
/// `cargo bench -p grus-tests --bench failover -- --only ends` measures; a busy one may need an election.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[test]
fn a_rolling_restart_fails_no_send_and_stalls_none() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        for number in 0..3 {
            let strain = Strain::watch();
            cluster.end(number);
            let longest = sender.go_on(200).await;
            let lost = strain.lost();
            println!("broker {number} stopped: longest wait {longest:?}, of it lost {lost:?}");
            assert!(longest < WAIT_MAX + lost, "a send waited {longest:?}, {lost:?} of it lost");
            cluster.start_again(number);
            sender.go_on(100).await;
            cluster.await_all_led("t");
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// What a command about the cluster says, object by object; nothing while it fails.
fn asked(cluster: &Cluster, words: &str) -> Vec<Value> {
    let words: Vec<&str> = ["--json", "cluster"].into_iter().chain(words.split(' ')).collect();
    let done = grus_at(&cluster.at(), &words, b"");
    if done.status.success() { done.json() } else { Vec::new() }
}

/// Asks, and does `again` before each time, until it is so.
fn until(
    cluster: &Cluster,
    again: Option<&str>,
    words: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Vec<Value> {
    let watch = Watch::start();
    loop {
        let _ = again.map(|words| asked(cluster, words));
        let said = asked(cluster, words);
        if said.iter().any(&is_so) {
            return said;
        }
        assert!(watch.elapsed() < PATIENCE, "{words}: {said:?}");
    }
}

#[test]
fn leaders_are_shown_and_moved_and_a_broker_is_drained() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let is_whole = |said: &Value| {
        let counts = ["brokers", "answering", "replicated"].map(|name| said[name].as_u64());
        said["state"] == "ok" && counts == [Some(3); 3]
    };
    until(&cluster, None, "status", is_whole);
    until(&cluster, None, "brokers", |broker| broker["leads"].as_u64() > Some(0));
    let is_led = |shard: &Value| shard["replicated"] == true && shard["leader"].is_u64();
    let shards = until(&cluster, None, "shards", is_led);
    let shard = shards.iter().find(|shard| is_led(shard)).expect("it was just found");
    let number = shard["shard"].as_u64().expect("a number");
    let to = shard["members"][0]["broker"].as_u64().expect("another member");
    let leads = |shard: &Value| shard["shard"] == number && shard["leader"] == to;
    until(&cluster, Some(&format!("move-leader {number} --to {to}")), "shards", leads);
    // A drained broker leads nothing from here on.
    until(&cluster, None, &format!("drain {to}"), |said| said["broker"] == to);
    let watch = Watch::start();
    let leads_any = |shard: &Value| shard["replicated"] == true && shard["leader"] == to;
    loop {
        let said = asked(&cluster, "shards");
        if !said.is_empty() && !said.iter().any(leads_any) {
            break;
        }
        assert!(watch.elapsed() < PATIENCE, "{said:?}");
    }
    let broker = cluster.number_of(to);
    let (_, metrics) = cluster.brokers[broker].as_ref().expect("it runs").get("/metrics");
    assert!(metrics.contains("grus_shard_lag_entries"), "{metrics}");
    // One that is down is missed by whoever leads.
    cluster.kill((broker + 1) % 3);
    until(&cluster, None, "shards", |shard| shard["under_replicated"] == true);
    until(&cluster, None, "status", |said| said["state"] == "degraded");
}
