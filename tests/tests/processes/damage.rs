//! A log damaged where it has to be applied again: named, refused, and given up only when the
//! operator says so.

use std::fs;
use std::path::{Path, PathBuf};

use grus_tests::broker::Home;
use grus_tests::http::post;
use grus_tests::watch::PATIENCE;
use rustix::process::Signal;

use crate::start::refusal;
use crate::{create, numbered, read_all};

#[test]
fn a_damaged_entry_is_named_and_given_up_only_when_told_to() {
    // Small ones are looked through sooner.
    let mut home = Home::new()
        .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB");
    let broker = home.start();
    create(&home, "t", 1);
    for part in ["before", "needle", "behind"] {
        home.grus_fed(&["produce", "t"], numbered(part, 50).as_bytes()).ok();
    }
    broker.end(Signal::TERM);
    let (segment, at) = find(&home.data.join("shards"), b"needle 25");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[at] ^= 1;
    let behind = find(&home.data.join("shards"), b"behind 50");
    fs::write(&segment, &bytes).expect("a writable segment");

    let refused = refusal(&home.run_to_end());
    assert!(refused.contains("is damaged"), "{refused}");
    assert!(refused.contains("log.accept_loss"), "{refused}");
    assert_eq!(find(&home.data.join("shards"), b"behind 50"), behind, "nothing was cut");

    home = home.with("GRUS__LOG__ACCEPT_LOSS", "true");
    home.start().end(Signal::TERM);
    home.settings.pop(); // one start is enough
    let _broker = home.start();
    let read = read_all(&home, "t");
    let count = |part: &str| {
        read.iter().filter(|entry| entry.body.as_ref().is_some_and(|b| b.starts_with(part))).count()
    };
    assert_eq!((count("before"), count("behind")), (50, 50), "only what was damaged is gone");
    assert!(count("needle") < 50, "what was damaged is not shown");
}

/// The one file below `folder` that holds `needle`, and where.
fn find(folder: &Path, needle: &[u8]) -> (PathBuf, usize) {
    let mut rooms = vec![folder.to_owned()];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                rooms.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a readable file");
            if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                return (path, at);
            }
        }
    }
    panic!("nothing below {} holds it", folder.display());
}

/// The log's error that names a scheduled message which cannot be read.
fn names(handle: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains("cannot be read") && line.contains(handle)
}

#[test]
fn a_damaged_message_that_waits_is_named_and_goes_when_it_is_recalled() {
    let home = Home::new()
        .with("GRUS_FAULT_SWITCHES", "1")
        .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB");
    let broker = home.start();
    create(&home, "t", 1);
    let mut handles = Vec::new();
    for (body, delay) in [("needle one", "9h"), ("needle two", "1h"), ("needle three", "1h")] {
        let sent = home.grus_fed(&["produce", "t", "--delay", delay, "--json"], body.as_bytes());
        handles.push(sent.ok().json()[0]["handle"].as_str().expect("a handle").to_owned());
    }
    // A segment ends behind them, with a checkpoint: they need not be applied again.
    home.grus_fed(&["produce", "t"], "noise ".repeat(400_000 / 6).as_bytes()).ok();
    for _ in 0..5 {
        home.grus_fed(&["produce", "t"], "noise ".repeat(400_000 / 6).as_bytes()).ok();
    }
    broker.end(Signal::TERM);
    for needle in [&b"needle one"[..], b"needle two"] {
        let (segment, at) = find(&home.data.join("shards"), needle);
        let mut bytes = fs::read(&segment).expect("a segment");
        bytes[at] ^= 1;
        fs::write(&segment, &bytes).expect("a writable segment");
    }

    let mut broker = home.start();
    // It is time for two of them.
    let (status, answer) = post(home.http, "/fault/clock?ms=3600000").expect("an answer");
    assert_eq!(status, 202, "{answer}");
    broker.process.wait_for("the name of the damaged one", PATIENCE, names(&handles[1]));
    let consume = ["consume", "t", "--from", "first", "--max", "7", "--idle-exit", "30s"];
    let read = home.grus(&consume).ok().text();
    assert!(read.ends_with("needle three"), "it holds up no other");
    let listed = home.grus(&["delay", "list", "t", "--count"]).ok().text();
    assert_eq!(listed.trim(), "2", "the operator decides");
    let (_, metrics) = broker.get("/metrics");
    let damaged = |line: &&str| line.starts_with("grus_delay_damaged_batches{");
    let counts = metrics.lines().filter(damaged).filter_map(|line| line.rsplit(' ').next());
    assert_eq!(counts.filter(|count| *count == "1").count(), 1, "{metrics}");
    home.grus(&["delay", "recall", &handles[0], &handles[1]]).ok();
    assert_eq!(home.grus(&["delay", "list", "t", "--count"]).ok().text().trim(), "0");
}
