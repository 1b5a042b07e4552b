//! Each of three brokers is stopped and started again, one after the other, while somebody sends to each queue: no
//! send fails, and no queue stands still for long, as whoever stops has handed over what it led before.

use std::time::Duration;

use grus_client::ProducerConfig;
use grus_tests::cluster::{Cluster, check, grus_at, quick_registry};
use grus_tests::queue_senders::{QueueSenders, Wait};
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;
use serde_json::Value;

/// Longest that a send may wait, whichever queue it is for, on a machine that has time for it.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two sends to a queue: next to nothing of [`WAIT_MAX`], and a disk that rests most of the time.
const REST: Duration = Duration::from_millis(20);

/// Judges each send since the last time; how long the longest took.
fn judge(when: &str, waits: &[Wait]) -> Wait {
    for Wait { waited, allowed } in waits {
        assert!(
            *waited < WAIT_MAX + *allowed,
            "{when} a send waited {waited:?}, {allowed:?} allowed"
        );
    }
    *waits.iter().max_by_key(|wait| wait.waited).expect("some were sent")
}

#[test]
fn a_rolling_restart_fails_no_send_and_stalls_no_queue() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let mut config = ProducerConfig::new("t").expect("a name");
    config.retries = 40; // what takes too long is to be told with its time, not as a failure
    let mut senders = QueueSenders::start(&cluster.at(), &config, 3, REST);
    judge("before", &senders.go_on(20));
    for number in 0..3 {
        let when = format!("while broker {number} was stopped");
        cluster.end(number);
        let stopped = judge(&when, &senders.go_on(20));
        let when = format!("while broker {number} came back");
        cluster.start_again(number);
        cluster.await_all_led("t");
        let back = judge(&when, &senders.go_on(20));
        println!("broker {number}, longest wait: stopped {stopped:?}, back {back:?}");
    }
    let sent = senders.end();
    check(&cluster, "t", &sent);
}

/// Followers that stand still could answer at any moment, so whoever stops asks them for as long as they count as
/// there. That is longer than each of its stages would have if all were as long.
#[test]
fn who_stops_has_half_of_its_time_to_find_successors() {
    // None is on its way to the first of its brokers when the others stand still.
    let registry = quick_registry();
    let stays = |_| registry.broker().with("GRUS__BROKER__RETURN_LEADERSHIP", "false");
    let homes = (0..3).map(stays).collect();
    let mut cluster = Cluster::of(registry, homes);
    cluster.topic("t", 1, "persisted");
    let leader = cluster.leader("t");
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    let strain = Strain::watch();
    for number in followers {
        cluster.signal(number, Signal::STOP);
    }
    let mut broker = cluster.brokers[leader].take().expect("it runs");
    broker.process.end(Signal::TERM);
    let (lost, log) = (strain.lost(), broker.process.log());
    let is_told = |line: &&str| line.contains("leadership") && line.contains("took_ms");
    let told = log.lines().find(is_told).unwrap_or_else(|| panic!("no word of that stage: {log}"));
    println!("{told}, {lost:?} lost");
    // Of two seconds it needs one and a half at the most.
    let is_busy = lost > Duration::from_millis(400);
    assert!(!told.contains("overdue") || is_busy, "{told}, {lost:?} lost");
    for number in followers {
        cluster.signal(number, Signal::CONT);
    }
    cluster.start_again(leader);
    cluster.await_all_led("t");
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
