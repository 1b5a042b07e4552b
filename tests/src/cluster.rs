//! A registry and brokers whose queues are on all of them, one who sends to them without pause, and what
//! may happen to a broker meanwhile.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use grus_client::{Client, ClientConfig, Message, PendingReceipt, Producer, ProducerConfig};
use rustix::process::Signal;
use serde_json::Value;

use crate::broker::{Broker, Home};
use crate::http;
use crate::program::{self, Done};
use crate::registry::{Registry, RegistryHome};
use crate::strain::Strain;
use crate::watch::Watch;

/// What a busy machine may take for an election, or for a broker to be back.
const PATIENCE: Duration = Duration::from_mins(1);
/// Messages under way at once.
const UNDER_WAY: usize = 40;

/// `grus` run against any of these addresses.
pub fn grus_at(bootstrap: &[SocketAddr], arguments: &[&str], input: &[u8]) -> Done {
    let all: Vec<String> = bootstrap.iter().map(ToString::to_string).collect();
    let mut command = program::grus(arguments);
    command.env("GRUS_BOOTSTRAP", all.join(","));
    program::run(command, input)
}

/// The leader of each queue of a topic, as `at` knows them.
pub fn leaders(at: SocketAddr, topic: &str) -> Vec<Option<u64>> {
    leaders_told(at, topic).unwrap_or_else(|refused| panic!("{topic} is not described: {refused}"))
}

/// The same, or what is said instead: a broker knows of a new topic a little later than the registry.
fn leaders_told(at: SocketAddr, topic: &str) -> Result<Vec<Option<u64>>, String> {
    let described = grus_at(&[at], &["topic", "describe", topic, "--json"], b"");
    if !described.status.success() {
        return Err(described.err);
    }
    let described = described.json();
    let queues = described[0]["queue_list"].as_array().expect("a list of queues").clone();
    Ok(queues.iter().map(|queue| queue["leader"].as_u64()).collect())
}

/// Asks until `wanted` holds of the leaders of a topic, which must be within `limit` of a machine that has
/// time for it; how long that took.
pub fn await_leaders(
    at: SocketAddr,
    topic: &str,
    limit: Duration,
    wanted: impl Fn(&[Option<u64>]) -> bool,
) -> Duration {
    let (strain, watch) = (Strain::watch(), Watch::start());
    loop {
        let found = leaders_told(at, topic);
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        if found.as_ref().is_ok_and(|found| wanted(found)) {
            return took;
        }
        assert!(took < limit + allowed, "after {took:?} the leaders of {topic} are {found:?}");
    }
}

/// Waits until no group is listed: who coordinates one that was deleted hears of it later than the registry answers.
///
/// # Panics
/// When one stays.
pub fn await_no_group(at: SocketAddr) {
    let watch = Watch::start();
    loop {
        let listed = grus_at(&[at], &["group", "list"], b"").ok().text();
        if listed.is_empty() {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "{listed}");
    }
}

/// All bodies of a topic, sorted.
pub fn bodies(at: &[SocketAddr], topic: &str, count: usize) -> Vec<String> {
    let max = count.to_string();
    let arguments =
        ["consume", topic, "--json", "--from", "first", "--max", &max, "--idle-exit", "30s"];
    let read = grus_at(at, &arguments, b"").ok().json();
    let body = |message: &Value| message["body"].as_str().expect("text").to_owned();
    let mut bodies: Vec<_> = read.iter().map(body).collect();
    bodies.sort();
    bodies
}

/// A registry that soon notices that a broker is gone.
pub fn quick_registry() -> RegistryHome {
    RegistryHome::new().with("GRUS__BROKER__LEASE", "5s").with("GRUS__BROKER__HEARTBEAT", "200ms")
}

/// A registry and some brokers.
pub struct Cluster {
    /// Where the registry lives.
    pub registry: RegistryHome,
    running: Option<Registry>,
    /// Where the brokers live.
    pub homes: Vec<Home>,
    /// The brokers; none where one is down.
    pub brokers: Vec<Option<Broker>>,
}

impl Cluster {
    /// Starts a registry and three brokers.
    pub fn start() -> Self {
        let registry = quick_registry();
        let homes = (0..3).map(|_| registry.broker()).collect();
        Self::of(registry, homes)
    }

    /// Starts a registry and its brokers there.
    pub fn of(registry: RegistryHome, homes: Vec<Home>) -> Self {
        let running = Some(registry.start());
        let brokers = homes.iter().map(|home| Some(home.start())).collect();
        Self { registry, running, homes, brokers }
    }

    /// Starts a registry, and a broker there that may have been alone before.
    pub fn around(registry: RegistryHome, home: Home) -> Self {
        let home = home.with("GRUS__REGISTRY__ADDRESSES", &registry.listen.to_string());
        Self::of(registry, vec![home])
    }

    /// Stops the registry in an orderly way.
    pub fn end_registry(&mut self) {
        self.running.take().expect("it runs").end(Signal::TERM);
    }

    /// Starts it again.
    pub fn start_registry(&mut self) {
        self.running = Some(self.registry.start());
    }

    /// Where a client begins: at the registry.
    pub fn at(&self) -> [SocketAddr; 1] {
        [self.registry.listen]
    }

    /// One more broker, with an empty folder and the log settings of the first; its number.
    pub fn join(&mut self) -> usize {
        let mut home = self.registry.broker();
        let of_log = |(name, _): &&(String, String)| name.starts_with("GRUS__LOG__");
        home.settings.extend(self.homes[0].settings.iter().filter(of_log).cloned());
        self.brokers.push(Some(home.start()));
        self.homes.push(home);
        self.homes.len() - 1
    }

    /// The id of a broker.
    pub fn id_of(&self, number: usize) -> u64 {
        let text = std::fs::read_to_string(self.homes[number].data.join("broker.id"));
        text.expect("its id").trim().parse().expect("a number")
    }

    /// A client that begins at the registry.
    pub async fn client(&self) -> Client {
        let bootstrap = [self.registry.listen.to_string()];
        Client::connect(ClientConfig::new(bootstrap)).await.expect("a registry")
    }

    /// A client that begins at the brokers.
    pub async fn client_of_brokers(&self) -> Client {
        let bootstrap = self.homes.iter().map(|home| home.listen.to_string());
        Client::connect(ClientConfig::new(bootstrap)).await.expect("a broker")
    }

    /// Makes a topic of so many queues, each on three brokers, and waits until all are led.
    pub fn topic(&self, name: &str, queues: u32, durability: &str) {
        let queues = queues.to_string();
        let arguments = ["topic", "create", name, "--queues", &queues, "--replicas", "3"];
        grus_at(&self.at(), &[&arguments[..], &["--durability", durability]].concat(), b"").ok();
        self.await_all_led(name);
    }

    /// Waits until each queue of a topic has a leader that runs: who was killed counts as there for a while.
    pub fn await_all_led(&self, topic: &str) {
        let running = (0..self.homes.len()).filter(|number| self.brokers[*number].is_some());
        let running: BTreeSet<u64> = running.map(|number| self.id_of(number)).collect();
        let is_led = |leader: &Option<u64>| leader.is_some_and(|leader| running.contains(&leader));
        let all = |leaders: &[Option<u64>]| leaders.iter().all(is_led);
        await_leaders(self.registry.listen, topic, PATIENCE, all);
    }

    /// What each broker says of the replicated shards.
    ///
    /// # Panics
    /// When one of them does not say.
    pub fn shards(&self) -> Vec<Vec<Value>> {
        let said = self.homes.iter().map(|home| {
            let (_, body) = http::get(home.http, "/cluster/shards").expect("it runs");
            let all: Vec<Value> = serde_json::from_str(&body).expect("a list");
            all.into_iter().filter(|shard| shard["replicated"] == true).collect()
        });
        said.collect()
    }

    /// Waits until all members of each shard follow one leader and have applied all that it has.
    ///
    /// # Panics
    /// When that takes too long.
    pub fn await_agreement(&self) {
        let watch = Watch::start();
        loop {
            let said = self.shards();
            let state = |shards: &Vec<Value>| -> Vec<_> {
                let fields = ["shard", "term", "leader", "lastIndex", "appliedIndex"];
                let of = |shard: &Value| fields.map(|name| shard[name].as_u64());
                shards.iter().map(of).collect()
            };
            let states: Vec<_> = said.iter().map(state).collect();
            let is_whole = |state: &[Option<u64>; 5]| state[2].is_some() && state[3] == state[4];
            let agree = states.iter().all(|state| *state == states[0] && !state.is_empty());
            if agree && states[0].iter().all(is_whole) {
                return;
            }
            assert!(watch.elapsed() < PATIENCE, "they do not agree: {states:?}");
        }
    }

    /// Which of the brokers has that id.
    ///
    /// # Panics
    /// When none has.
    pub fn number_of(&self, id: u64) -> usize {
        let mut numbers = 0..self.homes.len();
        numbers.find(|number| self.id_of(*number) == id).expect("one of the brokers")
    }

    /// The broker that leads the first queue of a topic.
    pub fn leader(&self, topic: &str) -> usize {
        self.number_of(leaders(self.registry.listen, topic)[0].expect("it is led"))
    }

    /// Kills a broker.
    pub fn kill(&mut self, number: usize) {
        self.brokers[number].take().expect("it runs").kill();
    }

    /// Has a broker stand still, or go on.
    pub fn signal(&mut self, number: usize, signal: Signal) {
        self.brokers[number].as_mut().expect("it runs").process.signal(signal);
    }

    /// Stops a broker in an orderly way.
    pub fn end(&mut self, number: usize) {
        self.brokers[number].take().expect("it runs").end(Signal::TERM);
    }

    /// Starts a broker that is down.
    pub fn start_again(&mut self, number: usize) {
        self.brokers[number] = Some(self.homes[number].start());
    }
}

/// Runs work that waits.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// One who sends, and what came of it. A send that fails ends the test.
pub struct Sender {
    producer: Producer,
    under_way: VecDeque<(String, PendingReceipt)>,
    sent: usize,
    acked: Vec<String>,
}

impl Sender {
    /// One that has sent nothing yet.
    pub fn new(client: &Client, topic: &str) -> Self {
        let mut config = ProducerConfig::new(topic).expect("a name");
        config.retries = 40; // outlives an election on a busy machine
        let producer = client.producer(config).expect("a producer");
        Self { producer, under_way: VecDeque::new(), sent: 0, acked: Vec::new() }
    }

    /// Sends on until so many more are acknowledged; how long the longest wait for one was.
    pub async fn go_on(&mut self, more: usize) -> Duration {
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
    pub async fn end(mut self) -> Vec<String> {
        while !self.under_way.is_empty() {
            self.take_receipt().await;
        }
        self.acked
    }
}

/// Reads a topic: what was acknowledged is there, and nothing twice.
pub fn check(cluster: &Cluster, topic: &str, sent: &[String]) {
    let mut sent = sent.to_vec();
    sent.sort();
    let read = bodies(&cluster.at(), topic, sent.len());
    assert_eq!(read.len(), sent.len(), "none lost");
    assert_eq!(read, sent);
    assert_eq!(messages(cluster, topic), sent.len() as u64, "none twice");
}

/// How many messages the queues of a topic hold, as their leaders say.
fn messages(cluster: &Cluster, topic: &str) -> u64 {
    ends(cluster, topic).iter().sum()
}

/// Where the queues of a topic end, as their leaders say.
///
/// # Panics
/// When they do not say so for too long.
pub fn ends(cluster: &Cluster, topic: &str) -> Vec<u64> {
    let watch = Watch::start();
    loop {
        let described = grus_at(&cluster.at(), &["topic", "describe", topic, "--json"], b"");
        let described = described.ok().json();
        let queues = described[0]["queue_list"].as_array().expect("a list of queues").clone();
        let ends: Option<Vec<u64>> =
            queues.iter().map(|queue| queue["end_offset"].as_u64()).collect();
        if let Some(ends) = ends {
            return ends;
        }
        assert!(watch.elapsed() < PATIENCE, "a leader does not say: {queues:?}");
    }
}
