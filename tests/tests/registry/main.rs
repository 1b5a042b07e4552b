//! A registry and its brokers as real processes.

mod alone;
mod altered;
mod away;
mod described;
mod drained;
mod find;
mod groups;
mod groups_http;
mod grown;
mod hostile;
mod http;
mod identity;
mod lag;
mod leads_back;
mod local_cluster;
mod lost;
mod members;
mod moved;
mod named;
mod outlived;
mod partition;
mod readers;
mod replaced;
mod replicas;
mod replicated;
mod rolling;
mod two_brokers;

use std::net::SocketAddr;

use grus_tests::cluster::{await_leaders, bodies, grus_at, leaders};

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
    // Longer than an election on a busy machine.
    let words = ["--timeout", "60s", "produce", topic, "--queue", &queue];
    grus_at(at, &words, &input(lines)).ok();
}
