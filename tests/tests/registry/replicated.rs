//! Three brokers, each queue on all of them: any one may die at any moment. Every acknowledged message
//! is there, none twice, and whoever sends goes on without doing anything for it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use grus_client::{Client, ClientConfig, Message, PendingReceipt, Producer, ProducerConfig};
use grus_tests::broker::{Broker, Home};
use grus_tests::registry::{Registry, RegistryHome};
use grus_tests::watch::Watch;

use crate::two_brokers::quick_registry;
use crate::{await_leaders, bodies, grus_at, leaders};

/// What a busy machine may take for an election, or for a broker to be back.
const PATIENCE: Duration = Duration::from_mins(1);
/// Messages under way at once.
const UNDER_WAY: usize = 40;

/// A registry and three brokers.
struct Cluster {
    registry: RegistryHome,
    _registry: Registry,
    homes: Vec<Home>,
    brokers: Vec<Option<Broker>>,
}

impl Cluster {
    fn start() -> Self {
        let registry = quick_registry();
        let running = registry.start();
        let homes: Vec<Home> = (0..3).map(|_| registry.broker()).collect();
        let brokers = homes.iter().map(|home| Some(home.start())).collect();
        Self { registry, _registry: running, homes, brokers }
    }

    fn at(&self) -> [SocketAddr; 1] {
        [self.registry.listen]
    }

    /// Makes a topic of three queues, each on three brokers, and waits until all are led.
    fn topic(&self, name: &str, durability: &str) {
        let arguments = ["topic", "create", name, "--queues", "3", "--replicas", "3"];
        grus_at(&self.at(), &[&arguments[..], &["--durability", durability]].concat(), b"").ok();
        self.await_all_led(name);
    }

    fn await_all_led(&self, topic: &str) {
        let all = |leaders: &[Option<u64>]| leaders.iter().all(Option::is_some);
        await_leaders(self.registry.listen, topic, PATIENCE, all);
    }

    /// Which of the brokers has that id.
    fn number_of(&self, id: u64) -> usize {
        let is_it = |home: &Home| {
            let text = std::fs::read_to_string(home.data.join("broker.id")).expect("its id");
            text.trim() == id.to_string()
        };
        self.homes.iter().position(is_it).expect("one of the three")
    }

    /// Kills the broker that leads the first queue of a topic; its number.
    fn kill_leader(&mut self, topic: &str) -> usize {
        let leader = leaders(self.registry.listen, topic)[0].expect("it is led");
        let number = self.number_of(leader);
        self.brokers[number].take().expect("it runs").kill();
        number
    }

    fn start_again(&mut self, number: usize) {
        self.brokers[number] = Some(self.homes[number].start());
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// One who sends, and what came of it.
struct Sender {
    producer: Producer,
    under_way: VecDeque<(String, PendingReceipt)>,
    sent: usize,
    acked: Vec<String>,
}

impl Sender {
    fn new(client: &Client, topic: &str) -> Self {
        let mut config = ProducerConfig::new(topic).expect("a name");
        config.retries = 40; // outlives an election on a busy machine
        let producer = client.producer(config).expect("a producer");
        Self { producer, under_way: VecDeque::new(), sent: 0, acked: Vec::new() }
    }

    /// Sends on until so many more are acknowledged; how long the longest wait for one was.
    async fn go_on(&mut self, more: usize) -> Duration {
        let goal = self.acked.len() + more;
        let mut longest = Duration::ZERO;
        while self.acked.len() < goal {
            while self.under_way.len() < UNDER_WAY {
                let body = format!("message {:06}", self.sent);
                self.sent += 1;
                let message = Message::new(body.clone());
                let pending = self.producer.enqueue(message).await.expect("room");
                self.under_way.push_back((body, pending));
            }
            longest = longest.max(self.take_receipt().await);
        }
        longest
    }

    async fn take_receipt(&mut self) -> Duration {
        let watch = Watch::start();
        let (body, pending) = self.under_way.pop_front().expect("some are under way");
        let receipt = pending.await;
        assert!(receipt.is_ok(), "{body}: {receipt:?}");
        self.acked.push(body);
        watch.elapsed()
    }

    /// Waits for all receipts; what was sent.
    async fn end(mut self) -> Vec<String> {
        while !self.under_way.is_empty() {
            self.take_receipt().await;
        }
        self.acked
    }
}

fn check(cluster: &Cluster, topic: &str, sent: &[String]) {
    let mut sent = sent.to_vec();
    sent.sort();
    let read = bodies(&cluster.at(), topic, sent.len() + 1);
    assert_eq!(read.len(), sent.len(), "none lost, none twice");
    assert_eq!(read, sent);
}

fn leaders_die(durability: &str) {
    let mut cluster = Cluster::start();
    cluster.topic("t", durability);
    let sent = block_on(async {
        let bootstrap = [cluster.registry.listen.to_string()];
        let client = Client::connect(ClientConfig::new(bootstrap)).await.expect("a registry");
        let mut sender = Sender::new(&client, "t");
        sender.go_on(300).await;
        for round in 0..3 {
            let number = cluster.kill_leader("t");
            let longest = sender.go_on(400).await;
            println!("{durability}, round {round}: longest wait for a receipt {longest:?}");
            cluster.start_again(number);
            sender.go_on(100).await;
            cluster.await_all_led("t");
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn s34_leaders_of_persisted_queues_die_and_nothing_acknowledged_is_lost() {
    leaders_die("persisted");
}

#[test]
fn s34_leaders_of_replicated_queues_die_and_nothing_acknowledged_is_lost() {
    leaders_die("replicated");
}

#[test]
fn all_brokers_die_at_once_and_come_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start();
    cluster.topic("t", "persisted");
    let sent = block_on(async {
        let bootstrap = [cluster.registry.listen.to_string()];
        let client = Client::connect(ClientConfig::new(bootstrap)).await.expect("a registry");
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        for broker in cluster.brokers.iter_mut().filter_map(Option::take) {
            broker.kill();
        }
        for number in 0..3 {
            cluster.start_again(number);
        }
        cluster.await_all_led("t");
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn more_replicas_than_brokers_are_refused_by_a_word() {
    let home = quick_registry();
    let _registry = home.start();
    let one = home.broker();
    let _broker = one.start();
    for at in [home.listen, one.listen] {
        let refused = grus_at(&[at], &["topic", "create", "t", "--replicas", "3"], b"");
        assert_eq!(refused.status.code(), Some(1), "{}", refused.err);
        assert!(refused.err.contains("3 replicas, and 1 brokers are there"), "{}", refused.err);
    }
}
