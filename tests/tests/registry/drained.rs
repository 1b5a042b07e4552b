//! A broker that is drained leads nothing of what others have, also of what comes later and when it is started again,
//! until that is undone; it says so, and what it has alone stays.

use std::time::Duration;

use grus_tests::cluster::{Cluster, grus_at, leaders};
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// Longer than it takes until a broker that has come back leads again what it is the first of.
const CALM: Duration = Duration::from_secs(15);

/// What a command about the cluster says, object by object; nothing while it fails.
fn asked(cluster: &Cluster, words: &[&str]) -> Vec<Value> {
    let done = grus_at(&cluster.at(), &[&["--json", "cluster"][..], words].concat(), b"");
    if done.status.success() { done.json() } else { Vec::new() }
}

/// Asks until it is so; the object that it is so of.
fn until(cluster: &Cluster, words: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
    let watch = Watch::start();
    loop {
        let said = asked(cluster, words);
        if let Some(found) = said.iter().find(|value| is_so(value)) {
            return found.clone();
        }
        assert!(watch.elapsed() < PATIENCE, "{words:?}: {said:?}");
    }
}

/// How many shards of several brokers that one leads; none while not all of them are led.
fn led_by(cluster: &Cluster, broker: u64) -> Option<usize> {
    let said = asked(cluster, &["shards"]);
    let several: Vec<&Value> = said.iter().filter(|shard| shard["replicated"] == true).collect();
    let all_are_led = !several.is_empty() && several.iter().all(|shard| shard["leader"].is_u64());
    let led = several.iter().filter(|shard| shard["leader"] == broker).count();
    all_are_led.then_some(led)
}

/// Waits until it leads some, or none.
fn await_that_it_leads(cluster: &Cluster, broker: u64, any: bool) {
    let watch = Watch::start();
    while led_by(cluster, broker).is_none_or(|led| (led > 0) != any) {
        assert!(watch.elapsed() < PATIENCE, "broker {broker} leads, or not: {any}");
    }
}

/// Makes a topic of queues that one broker has each; whether that broker has any.
fn has_queues_of(cluster: &Cluster, topic: &str, broker: u64) -> bool {
    let make = ["topic", "create", topic, "--queues", "6", "--replicas", "1"];
    grus_at(&cluster.at(), &make, b"").ok();
    cluster.await_all_led(topic);
    leaders(cluster.registry.listen, topic).contains(&Some(broker))
}

/// Makes topics until the registry has heard whether it places queues there: by a heartbeat of the broker.
fn until_placed(cluster: &Cluster, name: &str, broker: u64, any: bool) {
    let watch = Watch::start();
    let mut number = 0;
    while has_queues_of(cluster, &format!("{name}-{number}"), broker) != any {
        number += 1;
        assert!(watch.elapsed() < PATIENCE, "it gets queues, or none: {any}");
    }
}

#[test]
fn a_drain_holds_for_what_comes_later_and_after_a_restart_until_it_is_undone() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let number = cluster.leader("t");
    let broker = cluster.id_of(number);
    // Where it leads all shards already, the first new queues go to the others.
    until_placed(&cluster, "alone", broker, true);
    let id = broker.to_string();
    let is_it = |value: &Value| value["broker"] == broker;
    // It fails while another one cannot take over yet. Queues that nobody else has are told of once they are open.
    let tells = |value: &Value| {
        is_it(value) && value["stays"].as_array().is_some_and(|stays| !stays.is_empty())
    };
    let drained = until(&cluster, &["drain", &id], tells);
    assert_eq!(drained["drained"], true);
    await_that_it_leads(&cluster, broker, false);
    until(&cluster, &["brokers"], |value| is_it(value) && value["drained"] == true);
    until(&cluster, &["status"], |said| said["drained"] == serde_json::json!([broker]));
    let metric = |cluster: &Cluster| {
        let (_, metrics) = cluster.brokers[number].as_ref().expect("it runs").get("/metrics");
        metrics.lines().find(|line| line.starts_with("grus_broker_drained ")).map(str::to_owned)
    };
    assert_eq!(metric(&cluster).as_deref(), Some("grus_broker_drained 1"));
    until_placed(&cluster, "drained", broker, false);
    // Shards that it comes to have now: of three brokers it is a member of each.
    cluster.topic("later", 3, "replicated");
    await_that_it_leads(&cluster, broker, false);
    cluster.kill(number);
    cluster.start_again(number);
    until(&cluster, &["brokers"], |value| is_it(value) && value["drained"] == true);
    assert!(!has_queues_of(&cluster, "restarted", broker), "the registry knows it as before");
    // Whoever leads would give back by now what it is the first of; given back, it would stay.
    let watch = Watch::start();
    while watch.elapsed() < CALM {
        led_by(&cluster, broker);
    }
    await_that_it_leads(&cluster, broker, false);
    let ask = |cluster: &Cluster, query: &str| {
        let running = cluster.brokers[number].as_ref().expect("it runs");
        running.change(&format!("/cluster/hand-over?{query}"))
    };
    assert_eq!(ask(&cluster, "undo=true&retire=true").0, 400, "nothing stands beside it");
    let undone = asked(&cluster, &["drain", &id, "--undo"]);
    assert!(undone.iter().any(|value| is_it(value) && value["drained"] == false), "{undone:?}");
    until(&cluster, &["status"], |said| said["drained"] == serde_json::json!([]));
    assert_eq!(metric(&cluster).as_deref(), Some("grus_broker_drained 0"));
    until_placed(&cluster, "undone", broker, true);
    await_that_it_leads(&cluster, broker, true);
    // By HTTP alike, and twice.
    let (status, said) = ask(&cluster, "retire=true");
    assert!(status == 200 && said.contains("\"drained\":true"), "{status}: {said}");
    for _ in 0..2 {
        let (status, said) = ask(&cluster, "undo=true");
        assert!(status == 200 && said.contains("\"drained\":false"), "{status}: {said}");
    }
}
