//! Sending, as scenarios S2, S4, S5 and S8 have it.

use std::io::Write;

use grus_tests::broker::Home;
use grus_tests::watch::PATIENCE;

use crate::{create, entries, numbered, read_all};

#[test]
fn s2_a_receipt_says_where_and_a_reader_finds_it() {
    let home = Home::new();
    let _broker = home.start();
    let sent = home
        .grus_fed(
            &["produce", "t", "--json", "--key", "k", "--tag", "red", "--header", "a=1"],
            b"hello\n",
        )
        .ok()
        .json();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["topic"], "t");
    assert_eq!(sent[0]["durability"], "persisted");
    let read = home.grus(&["consume", "t", "--from", "first", "--json", "--max", "1"]).ok().json();
    for name in ["id", "topic", "queue", "offset"] {
        assert_eq!(read[0][name], sent[0][name], "{name}");
        assert!(!read[0][name].is_null(), "{name}");
    }
    let said = (&read[0]["body"], &read[0]["key"], &read[0]["tag"], &read[0]["headers"]["a"]);
    assert_eq!(said, (&"hello".into(), &"k".into(), &"red".into(), &"1".into()));
    let plain = home.grus(&["consume", "t", "--from", "first", "--max", "1"]).ok();
    assert_eq!(plain.text(), "hello\n");
}

#[test]
fn s4_a_hundred_arrive_in_order_in_one_queue() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    let sent = home.grus_fed(&["produce", "t", "--json"], numbered("line", 100).as_bytes()).ok();
    let sent = entries(&sent.json());
    let read = read_all(&home, "t");
    assert_eq!(read.len(), 100);
    for (at, message) in read.iter().enumerate() {
        assert_eq!((message.queue, message.offset), (sent[0].queue, at as u64));
        assert_eq!(message.body.as_deref(), Some(format!("line {}", at + 1).as_str()));
        assert_eq!(message.id, sent[at].id);
    }
}

#[test]
fn a_line_over_the_limit_names_its_number() {
    let home = Home::new();
    let _broker = home.start();
    let mut input = b"one\ntwo\n".to_vec();
    input.extend(std::iter::repeat_n(b'x', 5 << 20));
    input.extend_from_slice(b"\nfour\n");
    let line = home.grus_fed(&["produce", "t"], &input).refused();
    assert!(line.contains("line 3") && line.contains("limit"), "{line}");
    let bodies: Vec<_> =
        read_all(&home, "t").into_iter().filter_map(|message| message.body).collect();
    assert_eq!(bodies, ["one", "two"], "what stood before it is stored, nothing after it");
}

#[test]
fn the_longest_line_passes() {
    let home = Home::new();
    let _broker = home.start();
    let input = vec![b'x'; 4 << 20];
    home.grus_fed(&["produce", "t"], &input).ok();
    let read = home.grus(&["consume", "t", "--from", "first", "--max", "1"]).ok();
    assert!(read.out == input, "{} bytes came back", read.out.len());
}

#[test]
fn s5_a_send_outlives_a_broker_that_comes_back() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    let mut sender = home.grus_running(&["produce", "t", "--json", "--timeout", "60s"]);
    let mut input = sender.take_input();
    input.write_all(b"before\n").expect("an open pipe");
    assert!(sender.next_line(PATIENCE).is_some());
    broker.kill();
    input.write_all(b"while it is down\n").expect("an open pipe");
    let _broker = home.start();
    assert!(sender.next_line(PATIENCE).is_some(), "a receipt after the restart");
    drop(input);
    assert!(sender.wait(PATIENCE).success());
    let bodies: Vec<_> =
        read_all(&home, "t").into_iter().filter_map(|message| message.body).collect();
    assert_eq!(bodies, ["before", "while it is down"]);
}

#[test]
fn s5_after_its_time_a_send_fails() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    // The first line must be there within the time that the second is not: more of it, on a busy machine.
    let (mut sender, mut input) = (1..8)
        .find_map(|doubled| {
            let timeout = format!("{}ms", 750 << doubled);
            let mut sender = home.grus_running(&["produce", "t", "--json", "--timeout", &timeout]);
            let mut input = sender.take_input();
            input.write_all(b"before\n").expect("an open pipe");
            sender.next_line(PATIENCE).map(|_| (sender, input))
        })
        .expect("a receipt");
    broker.kill();
    input.write_all(b"never\n").expect("an open pipe");
    let status = sender.wait(PATIENCE);
    assert_eq!(status.code(), Some(1), "{}", sender.log());
    assert!(sender.log().contains("line 2"), "{}", sender.log());
}

#[test]
fn a_sender_may_come_before_its_broker() {
    let home = Home::new();
    let mut sender = home.grus_running(&["produce", "t", "--json", "--timeout", "60s"]);
    let mut input = sender.take_input();
    input.write_all(b"early\n").expect("an open pipe");
    drop(input);
    sender.wait_for("word that it waits", PATIENCE, |line| line.contains("waiting"));
    let _broker = home.start();
    assert!(sender.wait(PATIENCE).success(), "{}", sender.log());
    assert_eq!(read_all(&home, "t")[0].body.as_deref(), Some("early"));
}

#[test]
fn without_a_broker_a_command_fails_in_one_line() {
    let home = Home::new();
    let line = home.grus(&["topic", "list", "--timeout", "500ms"]).refused();
    assert!(line.contains(&home.listen.to_string()), "{line}");
    let line = home.grus(&["topic", "list", "--timeout", "500ms", "--json"]).refused();
    assert!(line.starts_with("{\"error\":"), "{line}");
}

#[test]
fn s8_an_unknown_topic_is_created() {
    let home = Home::new();
    let _broker = home.start();
    home.grus_fed(&["produce", "new"], b"x\n").ok();
    let topics = home.grus(&["topic", "list", "--json"]).ok().json();
    assert_eq!((topics[0]["topic"].as_str(), topics[0]["queues"].as_u64()), (Some("new"), Some(4)));
}

#[test]
fn s8_or_refused_by_policy() {
    let home = Home::new().with("GRUS__TOPIC__AUTO_CREATE", "false");
    let _broker = home.start();
    let line = home.grus_fed(&["produce", "new"], b"x\n").refused();
    assert!(line.contains("new"), "{line}");
    assert!(home.grus(&["topic", "list", "--json"]).ok().json().is_empty());
    create(&home, "new", 1);
    home.grus_fed(&["produce", "new"], b"x\n").ok();
}

#[test]
fn s8_wrong_names_are_refused_and_the_broker_serves_on() {
    let home = Home::new();
    let _broker = home.start();
    let long = "x".repeat(256);
    for name in ["../x", "", "a/b", "%RETRY%x", ".hidden", "sp ace", &long] {
        home.grus(&["topic", "create", name]).refused();
        home.grus_fed(&["produce", name], b"x\n").refused();
    }
    assert!(home.grus(&["topic", "list", "--json"]).ok().json().is_empty());
    home.grus_fed(&["produce", "right"], b"x\n").ok();
    assert_eq!(read_all(&home, "right").len(), 1);
}

#[test]
fn queues_are_chosen_by_key_in_turn_or_by_number() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    let queues = |arguments: &[&str], lines: usize| {
        let mut all = vec!["produce", "t", "--json"];
        all.extend_from_slice(arguments);
        let sent = entries(&home.grus_fed(&all, numbered("x", lines).as_bytes()).ok().json());
        let mut counts = [0; 4];
        for receipt in sent {
            counts[usize::try_from(receipt.queue).expect("a small number")] += 1;
        }
        counts
    };
    assert_eq!(queues(&["--spread"], 400), [100; 4]);
    assert_eq!(queues(&["--queue", "2"], 7), [0, 0, 7, 0]);
    let by_key = queues(&["--key", "customer 7"], 10);
    assert_eq!(by_key.iter().max(), Some(&10), "a key keeps to its queue: {by_key:?}");
    assert_eq!(queues(&["--key", "customer 7"], 10), by_key, "in every run");
    let line = home.grus_fed(&["produce", "t", "--queue", "4"], b"x\n").refused();
    assert!(line.contains('4'), "{line}");
}

#[test]
fn topics_are_made_changed_and_removed() {
    let home = Home::new();
    let _broker = home.start();
    let make = [
        "topic",
        "create",
        "t",
        "--queues",
        "2",
        "--durability",
        "replicated",
        "--retention",
        "1h",
    ];
    home.grus(&make).ok();
    let line = home.grus(&make).refused();
    assert!(line.contains('t') && line.contains("exists"), "{line}");
    home.grus(&["topic", "alter", "t", "--queues", "3", "--retention-bytes", "1GiB"]).ok();
    home.grus(&["topic", "alter", "t", "--retention-messages", "7", "--when-full", "reject"]).ok();
    let line = home.grus(&["topic", "alter", "t", "--queues", "1"]).refused();
    assert!(line.contains("queues"), "{line}");
    let said = &home.grus(&["topic", "describe", "t", "--json"]).ok().json()[0];
    assert_eq!(said["queues"], 3);
    assert_eq!(said["durability"], "replicated");
    assert_eq!(said["retention_ms"], 3_600_000);
    assert_eq!(said["retention_bytes"], 1 << 30);
    assert_eq!(said["retention_messages"], 7);
    assert_eq!(said["when_full"], "reject");
    assert_eq!(said["queue_list"].as_array().map(Vec::len), Some(3));
    home.grus_fed(&["produce", "t"], b"old\n").ok();
    home.grus(&["topic", "delete", "t"]).ok();
    home.grus(&["topic", "describe", "t"]).refused();
    home.grus(&["topic", "delete", "t"]).refused();
    create(&home, "t", 1);
    assert!(read_all(&home, "t").is_empty(), "a topic made again shows nothing of the old one");
}
