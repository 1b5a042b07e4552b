//! How long a sender waits when the broker that leads its queue falls: from the blow to the receipt of the
//! next message, for each kind of blow over a number of rounds.
//!
//! `cargo bench -p grus-tests --bench failover [-- --rounds N] [--only KIND] [--durability LEVEL]`
//!
//! A registry and three brokers on this machine, one queue on all of them, one sender with the settings
//! that a program has by default. `dies` is SIGKILL; `stands-still` is SIGSTOP, and SIGCONT after the
//! receipt; `ends` is SIGTERM. Between two rounds the broker is brought back, and the sender sends
//! [`CALM`] messages. Not a test: a busy machine changes its numbers.

use std::time::Duration;

use grus_client::{Client, Message, Producer, ProducerConfig};
use grus_tests::cluster::{Cluster, block_on};
use grus_tests::watch::Watch;
use rustix::process::Signal;

/// Messages between two rounds.
const CALM: usize = 200;
const KINDS: [&str; 3] = ["dies", "stands-still", "ends"];

/// What the command line asks for.
struct Wanted {
    rounds: usize,
    only: Option<String>,
    durability: String,
}

impl Wanted {
    fn read() -> Self {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let value = |name: &str| {
            let at = words.iter().position(|word| word == name)?;
            words.get(at + 1).cloned()
        };
        let rounds = value("--rounds").map_or(10, |text| text.parse().expect("a number"));
        let durability = value("--durability").unwrap_or_else(|| "persisted".to_owned());
        Self { rounds, only: value("--only"), durability }
    }
}

async fn send(producer: &Producer) {
    producer.send(Message::new(vec![7; 1_024])).await.expect("it is stored");
}

async fn calm(producer: &Producer) {
    for _ in 0..CALM {
        send(producer).await;
    }
}

/// One blow to the leader; how long the next message waited for its receipt.
async fn round(cluster: &mut Cluster, producer: &Producer, kind: &str) -> Duration {
    let number = cluster.leader("t");
    let watch = Watch::start();
    match kind {
        "dies" => cluster.kill(number),
        "stands-still" => cluster.signal(number, Signal::STOP),
        _ => cluster.signal(number, Signal::TERM),
    }
    send(producer).await;
    let waited = watch.elapsed();
    match kind {
        "dies" => {}
        "stands-still" => cluster.signal(number, Signal::CONT),
        _ => cluster.end(number),
    }
    if kind != "stands-still" {
        cluster.start_again(number);
    }
    calm(producer).await;
    cluster.await_all_led("t");
    waited
}

async fn producer(client: &Client) -> Producer {
    let producer = client.producer(ProducerConfig::new("t").expect("a name"));
    let producer = producer.expect("a producer");
    calm(&producer).await;
    producer
}

fn main() {
    let wanted = Wanted::read();
    println!("milliseconds from the blow to the next receipt, {} rounds each", wanted.rounds);
    println!("| the leader | p50 | p90 | max |\n|---|---|---|---|");
    for kind in KINDS.iter().filter(|kind| wanted.only.as_deref().is_none_or(|only| only == **kind))
    {
        let mut cluster = Cluster::start();
        cluster.topic("t", 1, &wanted.durability);
        let mut waits = block_on(async {
            let client = cluster.client().await;
            let producer = producer(&client).await;
            let mut waits = Vec::new();
            for _ in 0..wanted.rounds {
                waits.push(round(&mut cluster, &producer, kind).await.as_millis());
            }
            waits
        });
        waits.sort_unstable();
        let at = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
        println!("| {kind} | {} | {} | {} |", at(50), at(90), at(100));
    }
}
