//! Groups by way of a registry: a member that was told nothing else, and what each broker shows by HTTP.

use std::time::Duration;

use grus_tests::broker::Broker;
use grus_tests::process::Process;
use grus_tests::program;
use grus_tests::watch::Watch;
use serde_json::Value;

use crate::{grus_at, lines, produce_by_queue};
use grus_tests::cluster::quick_registry;

/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

fn json_of(broker: &Broker, path: &str) -> Value {
    let (status, text) = broker.get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

/// What both brokers say, once it is so.
fn until(brokers: [&Broker; 2], path: &str, is_so: impl Fn(&[Value; 2]) -> bool) -> [Value; 2] {
    let begun = Watch::start();
    loop {
        let now = brokers.map(|broker| json_of(broker, path));
        if is_so(&now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays so: {now:?}");
    }
}

#[test]
fn a_member_that_knows_a_registry_alone_says_that_it_waits_and_is_served_when_a_broker_comes() {
    let home = quick_registry();
    let _registry = home.start();
    let words = ["consume", "t", "--group", "g", "--timeout", "4s"];
    let refused = grus_at(&[home.listen], &words, b"");
    assert_eq!(refused.status.code(), Some(1), "{}", refused.err);
    let why = "t: not a member of the group after";
    assert!(refused.err.contains(why), "{}", refused.err);
    assert!(refused.err.contains("the registry knows of no broker that is there"));

    let command = program::grus_at(home.listen, &["consume", "t", "--group", "g"]);
    let mut member = Process::start("consume", command);
    member.wait_for("word that it waits", PATIENCE, |line| line.contains("not a member"));
    let one = home.broker();
    let _broker = one.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "1"], b"").ok();
    produce_by_queue(&[home.listen], "t", 0, &lines("late", 3));
    for line in lines("late", 3) {
        let printed = member.next_line(PATIENCE).expect("a message");
        assert_eq!(String::from_utf8_lossy(&printed), line);
    }
}

#[test]
fn each_broker_shows_its_part_of_a_group_and_only_the_coordinator_its_members() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let (first, second) = (one.start(), two.start());
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    for queue in 0..4 {
        produce_by_queue(&at, "t", queue, &lines(&format!("q{queue}"), 10));
    }
    let words = ["consume", "t", "--group", "g"];
    let mut member = Process::start("consume", program::grus_at(home.listen, &words));
    for _ in 0..40 {
        assert!(member.next_line(PATIENCE).is_some(), "a message");
    }
    let settled = |page: &Value| page["sums"]["settled"].as_u64().unwrap_or(0);
    let all = |pages: &[Value; 2]| pages.iter().map(settled).sum::<u64>() == 40;
    let pages = until([&first, &second], "/groups/g", all);
    let here: Vec<_> = pages.iter().filter(|page| page["coordinated"] == true).collect();
    let there: Vec<_> = pages.iter().filter(|page| page["coordinated"] == false).collect();
    let ([here], [there]) = (&here[..], &there[..]) else { panic!("{pages:?}") };
    assert_eq!((settled(here), settled(there)), (20, 20), "two queues each");
    assert_eq!((&here["queuesElsewhere"], &there["queuesElsewhere"]), (&2.into(), &Value::Null));
    assert_eq!((&here["members"], &here["memberList"][0]["queues"]), (&1.into(), &4.into()));
    assert_eq!((&there["members"], &there["memberList"]), (&Value::Null, &Value::Null));
    assert_eq!(here["coordinator"], there["coordinator"], "both know who does");
    for page in &pages {
        assert_eq!(page["queueList"].as_array().map(Vec::len), Some(2), "{page}");
    }
    for broker in [&first, &second] {
        let listed = json_of(broker, "/groups");
        assert_eq!(listed["groups"][0]["group"], "g", "either lists it");
        let (_, metrics) = broker.get("/metrics");
        assert!(metrics.contains("grus_group_queues{group=\"g\"} 2"), "{metrics}");
    }
    // What one changes it changes of its own, and says what it left.
    let (status, moved) = first.change("/groups/g/reset?topic=t&to=last");
    let moved: Value = serde_json::from_str(&moved).expect("JSON");
    assert_eq!((status, &moved["queuesElsewhere"]), (200, &2.into()), "{moved}");
    assert_eq!(moved["queues"].as_array().map(Vec::len), Some(2));
}
