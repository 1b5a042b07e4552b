//! Kinds of topics and caps of queues: what waits, what a restart takes along, what a full queue does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use grus_client::{Client, Consumer, ConsumerConfig, Message, Outcome, Producer, QueueId, Receipt};
use grus_tests::broker::{Broker, Home};
use grus_tests::watch::Watch;
use serde_json::Value;

use crate::program::{block_on, connect};
use crate::{create, kept, numbered, read_all};

const LINES: usize = 50;
/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn s31_messages_wait_for_a_consumer_and_a_restart_takes_the_temporary_ones_alone() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "stored", 1);
    for (topic, kind) in [("later", "delay"), ("now", "temporary")] {
        home.grus(&["topic", "create", topic, "--queues", "1", "--kind", kind]).ok();
    }
    let lines = numbered("line", LINES);
    home.grus_fed(&["produce", "stored"], lines.as_bytes()).ok();
    home.grus_fed(&["produce", "later", "--delay", "1h"], lines.as_bytes()).ok();
    let sent = home.grus_fed(&["produce", "now", "--json"], lines.as_bytes()).ok().json();
    assert!(sent.iter().all(|receipt| receipt["durability"] == "memory"), "{:?}", sent[0]);
    let line = home.grus_fed(&["produce", "now", "--delay", "1h"], b"x\n").refused();
    assert!(line.contains("temporary"), "{line}");
    // Nobody was there: whoever comes first gets all of it, in order.
    for topic in ["stored", "now"] {
        let bodies: Vec<String> =
            read_all(&home, topic).into_iter().filter_map(|message| message.body).collect();
        assert_eq!(bodies.join("\n") + "\n", lines, "{topic}");
    }
    let last = read_all(&home, "now").last().map(|message| message.offset);
    let mut reader = home.grus_running(&["consume", "now", "--from", "first"]);
    for _ in 0..LINES {
        reader.next_line(PATIENCE).expect("a message");
    }

    broker.kill();
    let _broker = home.start();
    // Where the reader waits nothing will ever come: it is told so.
    reader.wait_for("an end", PATIENCE, |line| line.contains("holds offsets"));
    assert!(!reader.wait(PATIENCE).success());
    assert_eq!(read_all(&home, "stored").len(), LINES);
    let waiting = home.grus(&["delay", "list", "later", "--count"]).ok().text();
    assert_eq!(waiting.trim(), LINES.to_string());
    assert_eq!(kept(&home, "now"), 0, "gone with the broker");
    home.grus_fed(&["produce", "now"], b"again\n").ok();
    let read = read_all(&home, "now");
    assert_eq!(read.len(), 1);
    assert!(Some(read[0].offset) > last, "no offset is used twice");
    // Made again under its name, it is another one.
    home.grus(&["topic", "delete", "now"]).ok();
    home.grus(&["topic", "create", "now", "--queues", "1", "--kind", "temporary"]).ok();
    assert_eq!(kept(&home, "now"), 0);
}

async fn send(producer: &Producer, bodies: &[&str]) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for body in bodies {
        let message = Message::new((*body).to_owned()).queue(QueueId(0));
        receipts.push(producer.send(message).await.expect("it is kept"));
    }
    receipts
}

fn consumer(client: &Client, group: &str, file: Option<&Path>) -> Consumer {
    let config = ConsumerConfig::new(group).expect("a name").subscribe("now", "*");
    let mut config = config.expect("a topic");
    if let Some(file) = file {
        config = config.broadcast(file);
    }
    config.options.ladder_ms = Some(vec![1]);
    config.options.session_ms = Some(600_000); // it does not leave for a machine that is busy
    client.consumer(config).expect("a consumer")
}

/// The next so many: body, and how often it was delivered before. `fails` fails the first time.
async fn take(consumer: &mut Consumer, count: usize, fails: &str) -> BTreeSet<(String, u32)> {
    let mut all = BTreeSet::new();
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("in time");
        let handed = next.expect("a message");
        let body = String::from_utf8_lossy(handed.body()).into_owned();
        let is_bad = body == fails && handed.deliveries == 0;
        all.insert((body, handed.deliveries));
        if is_bad {
            handed.answer(Outcome::Nack("not now".to_owned()));
        } else {
            handed.ack().await.expect("it counts");
        }
    }
    all
}

fn set(all: &[(&str, u32)]) -> BTreeSet<(String, u32)> {
    all.iter().map(|(body, deliveries)| ((*body).to_owned(), *deliveries)).collect()
}

#[test]
fn groups_of_a_temporary_topic_retry_and_go_on_with_its_next_life() {
    let home = Home::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (stays, comes_back) = (folder.path().join("stays"), folder.path().join("back"));
    let broker = home.start();
    home.grus(&["topic", "create", "now", "--queues", "1", "--kind", "temporary"]).ok();
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(crate::producing::config("now"));
        let producer = producer.expect("a producer");
        send(&producer, &["a", "bad", "c"]).await;
        let first = set(&[("a", 0), ("bad", 0), ("bad", 1), ("c", 0)]);
        let mut cluster = consumer(&client, "cluster", None);
        assert_eq!(take(&mut cluster, 4, "bad").await, first);
        let mut broadcast = consumer(&client, "broadcast", Some(&stays));
        assert_eq!(take(&mut broadcast, 4, "bad").await, first);
        let mut leaves = consumer(&client, "broadcast", Some(&comes_back));
        assert_eq!(take(&mut leaves, 4, "bad").await, first);
        leaves.stop().await;

        broker.kill();
        let _broker = home.start();
        // The next life knows nobody who wrote to the last one, and nobody waits for what is gone.
        let receipts = send(&producer, &["d", "bad"]).await;
        let second = set(&[("d", 0), ("bad", 0), ("bad", 1)]);
        assert_eq!(take(&mut cluster, 3, "bad").await, second);
        assert_eq!(take(&mut broadcast, 3, "bad").await, second);
        let mut back = consumer(&client, "broadcast", Some(&comes_back));
        assert_eq!(take(&mut back, 3, "bad").await, second);
        let progress = client.group_progress(&"cluster".try_into().expect("a name")).await;
        let progress = progress.expect("told").items;
        assert_eq!((progress[0].lag, progress[0].retries), (0, 0));
        assert_eq!(progress[0].end_offset.0, receipts[1].offset.0 + 1);
        producer.close().await.expect("nothing is left");
        for one in [cluster, broadcast, back] {
            one.stop().await;
        }
        client.close().await;
    });
}

/// The sum of the series of a counter whose labels have this.
fn counted(broker: &Broker, name: &str, label: &str) -> u64 {
    let (_, text) = broker.get("/metrics");
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines
        .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>().expect("a number"))
        .sum()
}

fn bodies(home: &Home, topic: &str) -> Vec<String> {
    read_all(home, topic).into_iter().filter_map(|message| message.body).collect()
}

#[test]
fn a_full_queue_removes_its_oldest_or_refuses_and_says_so() {
    let home = Home::new();
    let mut broker = home.start();
    let capped = |topic: &str, more: &[&str]| {
        let make = ["topic", "create", topic, "--queues", "1", "--retention-messages", "5"];
        home.grus(&[&make[..], more].concat()).ok();
    };
    capped("drops", &["--when-full", "drop-oldest"]);
    capped("refuses", &["--when-full", "reject"]);
    capped("drops-now", &["--kind", "temporary"]);
    capped("refuses-now", &["--kind", "temporary", "--when-full", "reject"]);
    for topic in ["drops", "drops-now"] {
        home.grus_fed(&["produce", topic], numbered("line", 8).as_bytes()).ok();
    }
    let last: Vec<String> = (4..=8).map(|number| format!("line {number}")).collect();
    assert_eq!(bodies(&home, "drops-now"), last, "memory has no moment above its cap");
    for topic in ["refuses", "refuses-now"] {
        // More than the queue may have: what the client sent together is taken apart.
        let lines = numbered("line", 20);
        let line =
            home.grus_fed(&["--timeout", "10s", "produce", topic], lines.as_bytes()).refused();
        assert!(line.contains("full") && line.contains("retention_messages"), "{line}");
        let first: Vec<String> = (1..=5).map(|number| format!("line {number}")).collect();
        assert_eq!(bodies(&home, topic), first, "{topic}");
    }
    assert!(counted(&broker, "grus_queue_refused_batches_total", "") >= 4);
    home.grus(&["topic", "alter", "refuses", "--retention-messages", "6"]).ok();
    home.grus_fed(&["produce", "refuses"], b"sixth\n").ok();
    let (status, text) = broker.get("/topics");
    assert_eq!(status, 200, "{text}");
    let listed: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let told = |name: &str| {
        let topic = listed.iter().find(|topic| topic["name"] == name).expect("it is listed");
        ["type", "durability", "retentionMessages", "whenFull", "messages"]
            .map(|key| topic[key].clone())
    };
    let expected = |told: &str| serde_json::from_str::<[Value; 5]>(told).expect("JSON");
    let refuses = r#"["durable", "persisted", 6, "reject", 6]"#;
    assert_eq!(told("refuses"), expected(refuses));
    let drops_now = r#"["temporary", "memory", 5, "drop_oldest", 5]"#;
    assert_eq!(told("drops-now"), expected(drops_now));

    broker.process.wait_for("a word of it", PATIENCE, |line| {
        line.contains("full queues have removed their oldest messages")
    });
    let begun = Watch::start();
    while kept(&home, "drops") > 5 {
        assert!(begun.elapsed() < PATIENCE, "it is still above its cap");
    }
    assert_eq!(bodies(&home, "drops"), last);
    let removed = "grus_queue_removed_messages_total";
    assert_eq!(counted(&broker, removed, "why=\"full\""), 6, "three of each");
    assert_eq!(counted(&broker, removed, "why=\"age\""), 0);

    broker.kill();
    let _broker = home.start();
    let line = home.grus_fed(&["--timeout", "10s", "produce", "refuses"], b"x\n").refused();
    assert!(line.contains("full"), "{line}");
    assert_eq!((kept(&home, "refuses"), kept(&home, "drops"), kept(&home, "drops-now")), (6, 5, 0));
}
