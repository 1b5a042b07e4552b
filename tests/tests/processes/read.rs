//! Reading, as scenarios S20 and S21 have it.

use std::io::Write;
use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::{create, entries, numbered};

#[test]
fn s20_from_first_last_offset_and_time() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], numbered("old", 10).as_bytes()).ok();
    let all_old =
        home.grus(&["consume", "t", "--from", "first", "--max", "10", "--json"]).ok().json();
    let time = |message: &Value| message["stored"].as_str().expect("a time").to_owned();
    let stored = time(&all_old[9]);
    // The ten may have come in several batches, the earlier ones in an earlier millisecond.
    let first = all_old.iter().position(|message| time(message) == stored).expect("at least one");
    let mut late = home.grus_running(&["consume", "t", "--from", "last", "--max", "1"]);
    // A second run has a later store time: the clock moves on at least while a process starts.
    home.grus_fed(&["produce", "t"], numbered("new", 5).as_bytes()).ok();
    let read = |from: &str, max: &str| {
        home.grus(&["consume", "t", "--from", from, "--max", max]).ok().text()
    };
    assert_eq!(read("first", "1"), "old 1\n");
    assert_eq!(read("offset:12", "3"), "new 3\nnew 4\nnew 5\n");
    assert_eq!(read("time:2000-01-01T00:00:00Z", "1"), "old 1\n");
    let wanted: Vec<String> = (first + 1..=10).map(|number| format!("old {number}")).collect();
    assert_eq!(
        read(&format!("time:{stored}"), &wanted.len().to_string()).lines().collect::<Vec<_>>(),
        wanted
    );
    let first_new =
        home.grus(&["consume", "t", "--from", "offset:10", "--max", "1", "--json"]).ok().json();
    let stored_new = time(&first_new[0]);
    assert!(stored_new > stored, "{stored_new} {stored}");
    assert_eq!(read(&format!("time:{stored_new}"), "1"), "new 1\n");
    // A reader from `last` sees nothing of what was there before it began. Whether it began before or
    // after the second run is not known here, so it is given one more message. It may have begun
    // after that one, too, so it is given more until it has had one.
    let begun = Watch::start();
    let line = loop {
        home.grus_fed(&["produce", "t"], b"newest\n").ok();
        if let Some(line) = late.next_line(Duration::from_secs(1)) {
            break line;
        }
        assert!(!begun.left(PATIENCE).is_zero(), "it hears nothing: {}", late.log());
    };
    assert!(line.starts_with(b"new"), "{}", String::from_utf8_lossy(&line));
    assert!(late.wait(PATIENCE).success());
}

#[test]
fn s20_a_reader_from_last_begins_at_the_end() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], numbered("old", 10).as_bytes()).ok();
    let none = home.grus(&["consume", "t", "--from", "last", "--idle-exit", "500ms"]).ok();
    assert_eq!(none.text(), "");
}

#[test]
fn s21_a_pull_ends_where_it_is_told_and_at_the_end_finds_nothing() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], numbered("line", 200).as_bytes()).ok();
    let offsets = |from: &str, idle_exit: &str| {
        let mut arguments = vec!["consume", "t", "--queue", "0", "--max", "30", "--json"];
        arguments.extend(["--from", from, "--idle-exit", idle_exit]);
        let read = entries(&home.grus(&arguments).ok().json());
        read.iter().map(|message| message.offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets("offset:100", "1m"), (100..130).collect::<Vec<_>>());
    assert_eq!(offsets("offset:130", "1m")[0], 130);
    assert!(offsets("offset:200", "500ms").is_empty(), "nothing new is no error");
    // Ten are all there is, which a machine that is busy may say late.
    let mut idle_s = 1;
    while offsets("offset:190", &format!("{idle_s}s")) != (190..200).collect::<Vec<_>>() {
        idle_s *= 2;
        assert!(idle_s < 100, "they never come");
    }
}

#[test]
fn an_offset_or_a_queue_that_is_not_there_is_an_error() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], b"x\n").ok();
    let line = home.grus(&["consume", "t", "--from", "offset:7", "--idle-exit", "1m"]).refused();
    assert!(line.contains('7') || line.contains("offset"), "{line}");
    let line = home.grus(&["consume", "t", "--queue", "3", "--idle-exit", "1m"]).refused();
    assert!(line.contains('3'), "{line}");
}

#[test]
fn s21_a_waiting_reader_is_woken() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    let mut reader = home.grus_running(&["consume", "t", "--from", "first"]);
    let mut sender = home.grus_running(&["produce", "t", "--json"]);
    let mut input = sender.take_input();
    let strain = Strain::watch();
    let mut took = Vec::new();
    for _ in 0..50 {
        let watch = Watch::start();
        input.write_all(b"ping\n").expect("an open pipe");
        assert!(reader.next_line(PATIENCE).is_some(), "{}", reader.log());
        took.push(watch.elapsed());
        assert!(sender.next_line(PATIENCE).is_some());
    }
    took.sort();
    println!("from the sender's line to the reader's: median {:?}, most {:?}", took[25], took[49]);
    let hold = Duration::from_secs(15);
    assert!(
        took[49] < hold + strain.allowed(),
        "a reader waited for the end of its hold: {took:?}"
    );
}
