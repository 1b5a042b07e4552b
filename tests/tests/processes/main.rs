//! Real `grus` processes. docs/TESTING.md says what these tests want of a machine.

mod actors;
mod bench;
mod broadcast;
mod client;
mod client_panics;
mod clients;
mod clock;
mod compression;
mod damage;
mod delay;
mod disk_full;
mod find;
mod group_backlog;
mod group_http;
mod groups;
mod hostile;
mod hostile_crowds;
mod hostile_frames;
mod hostile_peers;
mod idle;
mod intercepting;
mod kill;
mod kinds;
mod members;
mod odd_bytes;
mod producing;
mod program;
mod programs;
mod quickstart;
mod read;
mod reading;
mod registry_folder;
mod schedule;
mod seeks;
mod send;
mod start;
mod stream;
mod sync_order;
mod ttl;

use grus_tests::broker::Home;
use serde_json::Value;

/// A receipt or a message, as `--json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    queue: u64,
    offset: u64,
    id: String,
    body: Option<String>,
}

fn entry(object: &Value) -> Entry {
    let number = |name: &str| object[name].as_u64().unwrap_or_else(|| panic!("{name} in {object}"));
    Entry {
        queue: number("queue"),
        offset: number("offset"),
        id: object["id"].as_str().unwrap_or_else(|| panic!("id in {object}")).to_owned(),
        body: object.get("body").and_then(Value::as_str).map(str::to_owned),
    }
}

fn entries(objects: &[Value]) -> Vec<Entry> {
    objects.iter().map(entry).collect()
}

/// How many messages a topic keeps, by what the broker says of its queues.
fn kept(home: &Home, topic: &str) -> u64 {
    let described = home.grus(&["topic", "describe", topic, "--json"]).ok().json();
    let queues = described[0]["queue_list"].as_array().expect("a list of queues").clone();
    let number = |queue: &Value, name: &str| queue[name].as_u64().expect("an offset");
    queues.iter().map(|queue| number(queue, "end_offset") - number(queue, "first_offset")).sum()
}

/// All messages of a topic, in the order in which they come.
fn read_all(home: &Home, topic: &str) -> Vec<Entry> {
    let max = kept(home, topic).to_string();
    let arguments =
        ["consume", topic, "--json", "--from", "first", "--max", &max, "--idle-exit", "10s"];
    let read = entries(&home.grus(&arguments).ok().json());
    assert_eq!(read.len().to_string(), max, "{topic} has more than can be read");
    read
}

/// Creates a topic.
fn create(home: &Home, topic: &str, queues: u32) {
    home.grus(&["topic", "create", topic, "--queues", &queues.to_string()]).ok();
}

/// `count` lines that tell where they stand: `prefix 1`, `prefix 2`, ...
fn numbered(prefix: &str, count: usize) -> String {
    let lines: Vec<String> = (1..=count).map(|number| format!("{prefix} {number}\n")).collect();
    lines.concat()
}
