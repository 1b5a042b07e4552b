//! A registry and its brokers as real processes.

mod alone;
mod away;
mod described;
mod find;
mod groups_http;
mod hostile;
mod http;
mod lost;
mod moved;
mod replicated;
mod two_brokers;

use std::net::SocketAddr;
use std::time::Duration;

use grus_tests::program::{self, Done};
use grus_tests::strain::Strain;
use grus_tests::watch::Watch;
use serde_json::Value;

/// `grus` run against any of these addresses.
fn grus_at(bootstrap: &[SocketAddr], arguments: &[&str], input: &[u8]) -> Done {
    let all: Vec<String> = bootstrap.iter().map(ToString::to_string).collect();
    let mut command = program::grus(arguments);
    command.env("GRUS_BOOTSTRAP", all.join(","));
    program::run(command, input)
}

/// The leader of each queue of a topic, as `at` knows them.
fn leaders(at: SocketAddr, topic: &str) -> Vec<Option<u64>> {
    let described = grus_at(&[at], &["topic", "describe", topic, "--json"], b"").ok().json();
    let queues = described[0]["queue_list"].as_array().expect("a list of queues").clone();
    queues.iter().map(|queue| queue["leader"].as_u64()).collect()
}

/// Asks until `wanted` holds of the leaders of a topic, which must be within `limit` of a machine that has
/// time for it; how long that took.
fn await_leaders(
    at: SocketAddr,
    topic: &str,
    limit: Duration,
    wanted: impl Fn(&[Option<u64>]) -> bool,
) -> Duration {
    let (strain, watch) = (Strain::watch(), Watch::start());
    loop {
        let found = leaders(at, topic);
        let (took, lost) = (watch.elapsed(), strain.lost());
        if wanted(&found) {
            return took;
        }
        assert!(took < limit + lost, "after {took:?} the leaders of {topic} are {found:?}");
    }
}

/// All bodies of a topic, sorted.
fn bodies(at: &[SocketAddr], topic: &str, count: usize) -> Vec<String> {
    let max = count.to_string();
    let arguments =
        ["consume", topic, "--json", "--from", "first", "--max", &max, "--idle-exit", "10s"];
    let read = grus_at(at, &arguments, b"").ok().json();
    let body = |message: &Value| message["body"].as_str().expect("text").to_owned();
    let mut bodies: Vec<_> = read.iter().map(body).collect();
    bodies.sort();
    bodies
}

/// `count` lines, `prefix 00001` and so on: in order also when sorted.
fn lines(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix} {number:05}")).collect()
}

fn input(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
}

/// Sends each line to one of the queues, by a key of its own.
fn produce_by_queue(at: &[SocketAddr], topic: &str, queue: u32, lines: &[String]) {
    let queue = queue.to_string();
    grus_at(at, &["produce", topic, "--queue", &queue], &input(lines)).ok();
}
