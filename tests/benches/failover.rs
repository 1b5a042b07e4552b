//! How long a sender waits when the broker that leads its queue falls: from the blow to the receipt of the
//! next message, for each kind of blow over a number of rounds.
//!
//! `cargo bench -p grus-tests --bench failover [-- --rounds N] [--only KIND] [--durability LEVEL]`
//!
//! A registry and three brokers on this machine, one queue on all of them, one sender with the settings
//! that a program has by default. `dies` is SIGKILL; `stands-still` is SIGSTOP, and SIGCONT after the
//! receipt; `ends` is SIGTERM: there a broker still answers for a while, so that messages are sent to the
//! queue one behind the other's receipt, from before the signal until the registry knows another leader, and
//! [`CALM`] more; told is how long the longest of these sends took. Between two rounds the broker is brought
//! back, and the sender sends [`CALM`] messages. Not a test: a busy machine changes its numbers.

use std::time::Duration;

use grus_client::{Client, Message, Producer, ProducerConfig};
use grus_tests::cluster::{Cluster, await_leaders, block_on};
use grus_tests::queue_senders::QueueSenders;
use grus_tests::watch::{PATIENCE, Watch};
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

fn config() -> ProducerConfig {
    ProducerConfig::new("t").expect("a name")
}

/// One blow to the leader; how long the next message waited for its receipt.
async fn round(cluster: &mut Cluster, producer: &Producer, kind: &str) -> Duration {
    let number = cluster.leader("t");
    let watch = Watch::start();
    let waited = match kind {
        "dies" => {
            cluster.kill(number);
            send(producer).await;
            watch.elapsed()
        }
        "stands-still" => {
            cluster.signal(number, Signal::STOP);
            send(producer).await;
            let waited = watch.elapsed();
            cluster.signal(number, Signal::CONT);
            waited
        }
        _ => end(cluster, number),
    };
    if kind != "stands-still" {
        cluster.start_again(number);
    }
    calm(producer).await;
    cluster.await_all_led("t");
    waited
}

/// Has the leader end in order; how long the longest send took from then on until another one leads. It may
/// answer for some time before it gives way, so that a single message would tell nothing.
fn end(cluster: &mut Cluster, number: usize) -> Duration {
    let mut senders = QueueSenders::start(&cluster.at(), &config(), 1, Duration::ZERO);
    senders.go_on(CALM);
    let ending = cluster.id_of(number);
    cluster.signal(number, Signal::TERM);
    let is_led_anew = |leaders: &[Option<u64>]| leaders[0].is_some_and(|leader| leader != ending);
    await_leaders(cluster.registry.listen, "t", PATIENCE, is_led_anew);
    let waits = senders.go_on(CALM);
    senders.end();
    let mut broker = cluster.brokers[number].take().expect("it was told to end");
    broker.process.wait(PATIENCE);
    waits.iter().map(|wait| wait.waited).max().expect("messages were sent")
}

async fn producer(client: &Client) -> Producer {
    let producer = client.producer(config());
    let producer = producer.expect("a producer");
    calm(&producer).await;
    producer
}

fn main() {
    let wanted = Wanted::read();
    println!("milliseconds from the blow to the next receipt, {} rounds each;", wanted.rounds);
    println!("where the leader ends in order: of the longest send until another one leads");
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
