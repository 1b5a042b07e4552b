//! Messages found by id, key, offset and time, in the processes that people run: after kill -9, with
//! tables on the disk and without, damaged, trimmed and deleted.

use std::fs;
use std::path::PathBuf;

use grus_tests::broker::Home;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;
use serde_json::Value;

use crate::{create, entry, numbered};

/// A home whose segments are small, so that they are sealed soon.
fn small() -> Home {
    Home::new()
        .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB")
}

/// Lines of some 400 bytes.
fn long(prefix: &str, count: usize) -> String {
    let filler = "x".repeat(380);
    let line = |number| format!("{prefix} {number} {filler}\n");
    (1..=count).map(line).collect::<Vec<_>>().concat()
}

fn produced(home: &Home, arguments: &[&str], lines: &str) -> Vec<Value> {
    home.grus_fed(&[&["produce", "--json"], arguments].concat(), lines.as_bytes()).ok().json()
}

fn shown(home: &Home, arguments: &[&str]) -> Vec<Value> {
    home.grus(&[&["message", "show", "--json"], arguments].concat()).ok().json()
}

/// The tables in the data folder.
fn tables(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for shard in fs::read_dir(home.data.join("shards")).expect("shards") {
        for file in fs::read_dir(shard.expect("an entry").path()).expect("a shard's folder") {
            let file = file.expect("an entry").path();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned());
            if name.is_some_and(|name| name.starts_with("find-") && !name.contains('.')) {
                found.push(file);
            }
        }
    }
    found.sort();
    found
}

/// Waits until there are so many tables.
fn await_tables(home: &Home, count: usize) -> Vec<PathBuf> {
    let begun = Watch::start();
    loop {
        let found = tables(home);
        if found.len() >= count {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{} tables, {count} expected", found.len());
        home.grus(&["topic", "list"]).ok(); // looks again after a round trip
    }
}

#[test]
fn each_receipt_is_found_by_its_id_through_kills_and_lost_tables() {
    let home = small();
    let broker = home.start();
    create(&home, "t", 3);
    let mut receipts = produced(&home, &["t", "--spread"], &long("first", 4_000));
    receipts.extend(produced(&home, &["t", "--spread"], &numbered("last", 50)));
    let some: Vec<&Value> = receipts.iter().step_by(337).chain(receipts.last()).collect();
    let check = |home: &Home| {
        for receipt in &some {
            let wanted = entry(receipt);
            let found = shown(home, &[&wanted.id]);
            assert_eq!(found.len(), 1, "{receipt}");
            let found_one = entry(&found[0]);
            assert_eq!((found_one.queue, found_one.offset), (wanted.queue, wanted.offset));
            assert_eq!(found[0]["stored"], receipt["stored"]);
        }
    };
    check(&home);
    let made = await_tables(&home, 1);
    broker.kill();
    let broker = home.start();
    check(&home);
    broker.kill();
    for table in &made {
        fs::remove_file(table).expect("a table");
    }
    let broker = home.start();
    check(&home);
    await_tables(&home, made.len());
    check(&home);
    broker.end(Signal::TERM);
    // One bit in the first block of each: the look-up notices, or it is somewhere else.
    for table in &tables(&home) {
        let mut bytes = fs::read(table).expect("a table");
        bytes[4096 + 2000] ^= 4;
        fs::write(table, bytes).expect("a writable table");
    }
    let _broker = home.start();
    check(&home);
}

#[test]
fn a_message_is_shown_whole_by_key_offset_and_time() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 4);
    let early = produced(&home, &["t", "--key", "a", "--tag", "paid"], "one\n");
    let arguments = ["t", "--key", "b", "--header", "currency=EUR"];
    let late = produced(&home, &arguments, "two\nthree\n");
    let bodies = |found: &[Value]| -> Vec<String> {
        found.iter().map(|one| one["body"].as_str().expect("a body").to_owned()).collect()
    };
    let by_key = shown(&home, &["--topic", "t", "--key", "b"]);
    assert_eq!(bodies(&by_key), ["two", "three"], "the newest last");
    assert_eq!(by_key[0]["headers"]["currency"], "EUR");
    assert_eq!(bodies(&shown(&home, &["--topic", "t", "--key", "b", "--max", "1"])), ["three"]);
    let (queue, offset) = (early[0]["queue"].to_string(), early[0]["offset"].to_string());
    let by_offset = shown(&home, &["--topic", "t", "--queue", &queue, "--offset", &offset]);
    assert_eq!((bodies(&by_offset), &by_offset[0]["id"]), (vec!["one".into()], &early[0]["id"]));
    assert_eq!(by_offset[0]["tag"], "paid");
    assert!(by_offset[0]["producer"]["id"].as_u64().is_some_and(|id| id > 0));
    let at = late[0]["stored"].as_str().expect("a time").to_owned();
    let by_time = shown(&home, &["--topic", "t", "--time", &at]);
    assert_eq!(by_time[0]["stored"], late[0]["stored"]);
    let first = shown(&home, &["--topic", "t", "--time", "1970-01-01T00:00:00Z", "--max", "10"]);
    assert_eq!(first.len(), if early[0]["queue"] == late[0]["queue"] { 1 } else { 2 });
    let text = home.grus(&["message", "show", late[1]["id"].as_str().expect("an id")]).ok().text();
    for part in ["id        ", "topic     t (id ", "key       b", "currency = EUR", "\nthree\n"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let get = |path: &str| -> (u16, Value) {
        let (status, body) = broker.get(path);
        (status, serde_json::from_str(&body).expect("JSON"))
    };
    let id = late[1]["id"].as_str().expect("an id");
    let same = format!("topic=t&queue={queue}&offset={offset}");
    for (query, body) in [
        (format!("id={id}"), "three"),
        ("topic=t&key=b&max=1".to_owned(), "three"),
        (same, "one"),
        ("topic=t&time=0&max=1".to_owned(), "one"),
    ] {
        let (status, found) = get(&format!("/message/find?{query}"));
        assert_eq!(status, 200, "{query}: {found}");
        assert_eq!(found["messages"][0]["body"]["value"], body, "{query}: {found}");
        assert_eq!(found["messages"][0]["topic"], "t", "{query}: {found}");
    }
    assert_eq!(get("/message/find?topic=t&key=nobody").1["messages"], serde_json::json!([]));
    assert_eq!(get("/message/find?topic=t").0, 400);
    assert_eq!(get("/message/find?topic=nobody&key=k").0, 404);
}

#[test]
fn what_is_not_there_is_told_and_ends_with_1() {
    let home = small();
    let broker = home.start();
    create(&home, "t", 1);
    let receipts = produced(&home, &["t", "--key", "k"], "x\n");
    let refused = |arguments: &[&str], why: &str| {
        let line = home.grus(&[&["message", "show"], arguments].concat()).refused();
        assert!(line.contains(why), "{arguments:?}: {line}");
    };
    refused(&["018bcfe5-687b-7202-8202-020202020202"], "no such message");
    refused(&["--topic", "t", "--key", "l"], "no such message");
    refused(&["--topic", "nobody", "--key", "k"], "UnknownTopic");
    refused(&["--topic", "t", "--queue", "3", "--offset", "0"], "UnknownQueue");
    refused(&["--topic", "t", "--queue", "0", "--offset", "1"], "OffsetOutOfRange");
    refused(&["--topic", "t", "--time", "2999-01-01T00:00:00Z"], "no such message");
    // A topic that is gone answers no more, nor does one made again under its name.
    let id = receipts[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(shown(&home, &[&id]).len(), 1);
    home.grus(&["topic", "delete", "t"]).ok();
    refused(&[&id], "no such message");
    create(&home, "t", 1);
    refused(&["--topic", "t", "--key", "k"], "no such message");
    broker.kill();
    let _broker = home.start();
    refused(&[&id], "no such message");
    refused(&["--topic", "t", "--key", "k"], "no such message");
}

#[test]
fn an_index_that_is_off_is_told_and_made_when_it_is_on_again() {
    let mut home = small().with("GRUS__LOG__FIND_INDEX", "false");
    let broker = home.start();
    create(&home, "t", 1);
    let receipts = produced(&home, &["t"], &long("line", 4_000));
    let id = receipts[10]["id"].as_str().expect("an id").to_owned();
    let line = home.grus(&["message", "show", &id]).refused();
    assert!(line.contains("log.find_index is off"), "{line}");
    let by_offset = shown(&home, &["--topic", "t", "--queue", "0", "--offset", "10"]);
    assert_eq!(by_offset[0]["id"], id.as_str());
    assert!(tables(&home).is_empty());
    broker.end(Signal::TERM);
    home.settings.retain(|(name, _)| name != "GRUS__LOG__FIND_INDEX");
    let _broker = home.start();
    assert_eq!(shown(&home, &[&id]).len(), 1);
    await_tables(&home, 1);
    assert_eq!(shown(&home, &[&id]).len(), 1);
}
