//! Consumer groups in numbers, on a broker that is a process of its own.
//!
//! `cargo bench -p grus-tests --bench groups -- PART [OPTIONS]`. Each part starts a broker in a new
//! folder, prints what it measured with its spread and whether the bound of its kind holds, and removes it.
//!
//! | part | options and defaults | what it measures |
//! |---|---|---|
//! | `consume` | `--size 1KiB --fill 3s --rounds 5` | messages of 8 queues in stored batches: a group's only member, each batch acknowledged, against a reader without a group, in turn; and message by message |
//! | `acks` | `--messages 2000 --rounds 5` | one message after the other, each when the broker knows that the one before is done, on both levels |
//! | `rebalance` | `--queues 1000 --members 100 --rounds 5` | dividing alone; and from a join, and from half of the members leaving, until every queue is served by its new member |
//! | `filter` | `--messages 2000000 --size 100 --rounds 5` | messages passed over a second until the one that matches: skipped by the batches' blooms, and looked at one by one |
//! | `fairness` | `--backlog 1000000 --size 1KiB --seconds 3 --rounds 3` | p99 of a trickle in 99 queues alone, and while the member has a backlog in the hundredth |
//! | `slow` | `--fill 4s --seconds 300` | S23: a member of one message a second before a backlog of 1 KiB messages: anonymous memory of broker and member |
//! | `crowd` | `--members 10000 --connections 20 --messages 1` | S33: so many queues, each with a member of its own, on few connections: all served, memory of the broker |
//! | `sockets` | `--members 10000` | S33: the same, each on a connection of its own |
//!
//! `--durability persisted|replicated` (persisted) is that of the topic. Not a test: a busy machine
//! changes its numbers.

use std::time::Duration;

use grus_client::{Client, ClientConfig, ConsumerConfig};
use grus_tests::broker::Home;

mod acks;
mod consume;
mod crowd;
mod fairness;
mod filter;
#[path = "../scheduled/options.rs"]
mod options;
mod rebalance;
mod slow;
mod sockets;
mod spread;

use options::Options;

/// The topic of each part.
const TOPIC: &str = "t";

fn main() {
    let options = Options::of_command_line();
    match options.part() {
        "consume" => consume::run(&options),
        "acks" => acks::run(&options),
        "rebalance" => rebalance::run(&options),
        "filter" => filter::run(&options),
        "fairness" => fairness::run(&options),
        "slow" => slow::run(&options),
        "crowd" => crowd::run(&options),
        "sockets" => sockets::run(&options),
        other => {
            eprintln!(
                "no part {other:?}: consume, acks, rebalance, filter, fairness, slow, crowd or sockets"
            );
            std::process::exit(1);
        }
    }
}

/// Creates a topic.
fn create(home: &Home, durability: &str, topic: &str, queues: u64) {
    let queues = queues.to_string();
    let words = ["topic", "create", topic, "--queues", &queues, "--durability", durability];
    home.grus(&words).ok();
}

/// Fills the topic by `grus bench produce` for so long; how many messages there are then.
fn fill(home: &Home, size: &str, time: &str) -> u64 {
    let words = ["--json", "bench", "produce", TOPIC, "--size", size, "--time", time];
    let done = home.grus(&words).ok().json();
    done[0]["produce"]["messages"].as_u64().expect("a number of messages")
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn connect(home: &Home) -> Client {
    Client::connect(ClientConfig::new([home.listen.to_string()])).await.expect("a broker")
}

/// A member of a group that begins at the first message.
fn member(group: &str, topics: &str) -> ConsumerConfig {
    let config = ConsumerConfig::new(group).expect("a name");
    config.subscribe(topics, "*").expect("topics")
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
