//! S41: a broker that stands alone, with data, becomes the first of three, and all that it has comes to be
//! on all three, while producers and a group of consumers go on: nothing is lost, and nobody sees an error.
//! Then the first one dies for good, and the others have everything.
//!
//! `GRUS_GROWN_MIB=1024` has the broker begin with so many MiB, else with 24.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grus_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Message, ProducerConfig, QueueId, StartAt,
};
use grus_tests::broker::Home;
use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::replaced::await_shards;

const BODY_BYTES: usize = 16 << 10;

/// How many messages of [`BODY_BYTES`] there are before anything happens.
fn old_messages() -> usize {
    let mib = std::env::var("GRUS_GROWN_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(24);
    mib * (1 << 20) / BODY_BYTES
}

fn old_body(number: usize) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.resize(BODY_BYTES, u8::try_from(number % 251).expect("it fits"));
    body
}

/// What a broker has that has been alone for a while.
async fn fill(client: &Client) {
    let mut config = ProducerConfig::new("old").expect("a name");
    config.retries = 40;
    let producer = client.producer(config).expect("a producer");
    let mut under_way = Vec::new();
    for number in 0..old_messages() {
        under_way.push(producer.enqueue(Message::new(old_body(number))).await.expect("room"));
    }
    for pending in under_way {
        pending.await.expect("it is stored");
    }
    let later = Message::new("later").delay(Duration::from_hours(24));
    producer.send(later).await.expect("it is stored");
}

/// Reads all that was there before.
async fn read_old(client: &Client) {
    let mut puller = client.puller("old").expect("a name");
    let mut at = puller.locate(QueueId(0), StartAt::First).await.expect("the queue");
    let mut read = 0;
    while read < old_messages() {
        let pulled = puller.pull(QueueId(0), at, 100).await.expect("it goes on");
        for message in &pulled.messages {
            assert_eq!(message.body(), old_body(read), "message {read}");
            read += 1;
        }
        at = pulled.next;
    }
}

/// Takes and acknowledges all that comes, until it has been told to end; whatever is refused to it ends the
/// test. What it took.
async fn consume(mut consumer: Consumer, taken: Arc<AtomicUsize>, goal: Arc<AtomicUsize>) {
    let mut seen = BTreeSet::new();
    while seen.len() < goal.load(Ordering::SeqCst) {
        let some = consumer.next_batch(64, Duration::from_millis(200)).await;
        for handed in some.expect("it goes on") {
            seen.insert(handed.body().to_vec());
            taken.store(seen.len(), Ordering::SeqCst);
            let _ = handed.ack().await; // not told so, it comes again
        }
    }
    consumer.stop().await;
}

/// Waits until what waits for its time is listed. Leaders are asked once each, so one that has just gone, or
/// has just come to lead, answers nothing.
fn await_scheduled(cluster: &Cluster) {
    let watch = Watch::start();
    loop {
        let listed = grus_at(&cluster.at(), &["delay", "list", "old", "--json"], b"");
        if listed.status.success() && listed.json().len() == 1 {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "what waits for its time is lost: {}", listed.err);
    }
}

/// How many shards a broker runs as a member of several.
fn replicated(cluster: &Cluster, number: usize) -> usize {
    let running = cluster.brokers[number].as_ref().expect("it runs");
    let (_, body) = running.get("/cluster/shards");
    let all: Vec<serde_json::Value> = serde_json::from_str(&body).expect("a list");
    all.iter().filter(|shard| shard["replicated"] == true).count()
}

/// The first broker, still by itself, and then with a registry beside it: as docs/OPERATING.md says.
async fn join_first(
    home: Home,
    running: grus_tests::broker::Broker,
    sender: &mut Sender,
) -> Cluster {
    running.end(Signal::TERM);
    let cluster = Cluster::around(quick_registry(), home);
    sender.go_on(100).await;
    cluster
}

#[test]
fn s41_a_broker_that_stands_alone_becomes_the_first_of_three_under_load() {
    let home = Home::new()
        .with("GRUS__BROKER__CORE_ARBITERS", "1")
        .with("GRUS__LOG__SEGMENT_BYTES", "8 MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "8 MiB");
    let running = home.start();
    let at = home.listen;
    for (topic, queues) in [("old", "1"), ("t", "3")] {
        grus_at(&[at], &["topic", "create", topic, "--queues", queues], b"").ok();
    }
    let (cluster, sent) = block_on(async {
        let config = ClientConfig::new([at.to_string()]);
        let client = Client::connect(config).await.expect("the broker");
        fill(&client).await;
        let consumer = ConsumerConfig::new("g").expect("a name").subscribe("t", "*");
        let consumer = client.consumer(consumer.expect("a topic")).expect("a consumer");
        let (taken, goal) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
        let consuming = tokio::spawn(consume(consumer, Arc::clone(&taken), Arc::clone(&goal)));
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        let mut cluster = join_first(home, running, &mut sender).await;
        let (second, third) = (cluster.join(), cluster.join());
        sender.go_on(100).await;
        let grown = grus_at(&cluster.at(), &["--json", "cluster", "grow"], b"").ok().json();
        let count = grown[0]["changing"].as_array().map_or(0, Vec::len);
        assert!(count >= 1, "{grown:?}");
        let (watch, strain) = (Watch::start(), Strain::watch());
        let mut longest = Duration::ZERO;
        while replicated(&cluster, 0) < count {
            longest = longest.max(sender.go_on(20).await);
            assert!(watch.elapsed() < PATIENCE, "they do not grow");
        }
        longest = longest.max(sender.go_on(100).await);
        println!("{count} shards grow: the longest wait of a send was {longest:?}");
        // The others are asked for two seconds whether they have come: not while it stands still.
        let limit = Duration::from_millis(1_500) + strain.allowed();
        assert!(longest < limit, "{longest:?}, {limit:?}");
        let all: BTreeSet<u64> = (0..3).map(|number| cluster.id_of(number)).collect();
        await_shards(&cluster, count, |members, is_short| *members == all && !is_short);
        println!("{} MiB are on three brokers after {:?}", old_messages() >> 6, watch.elapsed());
        let listed = grus_at(&cluster.at(), &["topic", "describe", "old", "--json"], b"");
        assert_eq!(listed.ok().json()[0]["replicas"], 3);
        // The one that had it all starts again as one of three, and dies for good.
        cluster.end(0);
        cluster.start_again(0);
        sender.go_on(100).await;
        await_shards(&cluster, count, |members, is_short| *members == all && !is_short);
        await_scheduled(&cluster);
        cluster.kill(0);
        let before = taken.load(Ordering::SeqCst);
        sender.go_on(200).await;
        for number in [second, third] {
            assert!(cluster.brokers[number].is_some());
        }
        let sent = sender.end().await;
        goal.store(sent.len(), Ordering::SeqCst);
        let done = tokio::time::timeout(PATIENCE, consuming).await;
        done.expect("the group gets everything").expect("the group sees no error");
        assert!(taken.load(Ordering::SeqCst) > before, "also of the other two");
        read_old(&client).await;
        client.close().await;
        (cluster, sent)
    });
    check(&cluster, "t", &sent);
    await_scheduled(&cluster);
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file");
        }
    }
}

/// The shards that a broker cannot start, and why, once there are some.
fn await_failed(cluster: &Cluster, number: usize) -> Vec<(u64, String)> {
    let watch = Watch::start();
    loop {
        let (status, body) = cluster.brokers[number].as_ref().expect("it runs").get("/health");
        let health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let failed = health["failed"].as_array().expect("a list").iter();
        let why = |failed: &serde_json::Value| failed["reason"].as_str().map(str::to_owned);
        let failed: Vec<_> =
            failed.filter_map(|failed| Some((failed["shard"].as_u64()?, why(failed)?))).collect();
        if !failed.is_empty() {
            assert_eq!(status, 503, "{body}");
            return failed;
        }
        assert!(watch.elapsed() < PATIENCE, "it does not say that it cannot start: {body}");
    }
}

/// Waits until all members could be started, and remember what they promised.
fn await_ok(cluster: &Cluster) {
    let watch = Watch::start();
    loop {
        let told = grus_at(&cluster.at(), &["--json", "cluster", "status"], b"").ok().json();
        if told[0]["state"] == "ok" {
            return;
        }
        assert!(watch.elapsed() < PATIENCE, "{told:?}");
    }
}

/// A broker that was alone, and from that time a copy of its folder; two others have come since, and all
/// that it had is on all three. It is down, and the copy is in the place of its folder.
struct PutBack {
    cluster: Cluster,
    /// Kept until the end.
    old: tempfile::TempDir,
    client: Client,
    sender: Sender,
    /// How many shards have grown.
    count: usize,
    all: BTreeSet<u64>,
}

impl PutBack {
    async fn new() -> Self {
        let home = Home::new().with("GRUS__BROKER__CORE_ARBITERS", "1");
        let running = home.start();
        let at = home.listen;
        grus_at(&[at], &["topic", "create", "t"], b"").ok();
        let old = tempfile::tempdir().expect("a folder");
        let client = Client::connect(ClientConfig::new([at.to_string()])).await;
        let client = client.expect("the broker");
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        running.end(Signal::TERM);
        copy(&home.data, old.path());
        let mut cluster = Cluster::around(quick_registry(), home);
        sender.go_on(100).await;
        cluster.join();
        cluster.join();
        let grown = grus_at(&cluster.at(), &["--json", "cluster", "grow", "t"], b"").ok().json();
        let count = grown[0]["changing"].as_array().map_or(0, Vec::len);
        let all: BTreeSet<u64> = (0..3).map(|number| cluster.id_of(number)).collect();
        await_shards(&cluster, count, |members, is_short| *members == all && !is_short);
        sender.go_on(100).await;
        cluster.end(0);
        sender.go_on(100).await;
        let data = cluster.homes[0].data.clone();
        fs::remove_dir_all(&data).expect("a folder to lose");
        copy(old.path(), &data);
        Self { cluster, old, client, sender, count, all }
    }

    /// The broker says that it cannot start what has grown, and why; which shards these are.
    fn await_refused(&self) -> Vec<u64> {
        let failed = await_failed(&self.cluster, 0);
        assert_eq!(failed.len(), self.count, "{failed:?}");
        assert!(failed.iter().all(|(_, why)| why.contains("an old copy")), "{failed:?}");
        failed.into_iter().map(|(shard, _)| shard).collect()
    }
}

#[test]
fn s41_a_folder_of_before_the_growth_that_is_put_back_leads_nobody_and_nothing_is_lost() {
    let (cluster, sent, _old) = block_on(async {
        let mut story = PutBack::new().await;
        story.cluster.start_again(0);
        let refused = story.await_refused();
        let PutBack { mut cluster, old, client, mut sender, count, all } = story;
        let told = grus_at(&cluster.at(), &["--json", "cluster", "status"], b"").ok().json();
        assert_eq!(told[0]["state"], "degraded");
        assert_eq!(told[0]["cannot_start"], count);
        let told = grus_at(&cluster.at(), &["cluster", "shards"], b"").ok();
        let told = String::from_utf8_lossy(&told.out).into_owned();
        assert!(told.contains("cannot start it: the log in"), "{told}");
        sender.go_on(100).await;
        // Without the folder of the shard it joins anew, and counts: of the others one may die.
        let data = cluster.homes[0].data.clone();
        for shard in refused.iter().map(ToString::to_string) {
            assert!(!data.join("members").join(&shard).exists(), "it has not begun");
            let aside = old.path().join(format!("aside-{shard}"));
            fs::rename(data.join("shards").join(&shard), aside).expect("a folder to put aside");
        }
        await_shards(&cluster, count, |members, is_short| *members == all && !is_short);
        await_ok(&cluster);
        cluster.kill(1);
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        (cluster, sent, old)
    });
    check(&cluster, "t", &sent);
}

#[test]
fn s41_such_a_folder_that_is_served_while_the_registry_is_away_is_not_once_it_is_back() {
    let (cluster, sent) = block_on(async {
        let story = PutBack::new().await;
        let PutBack { mut cluster, old, client, sender, count, all } = story;
        let mut sent = sender.end().await;
        client.close().await;
        cluster.end_registry();
        cluster.start_again(0);
        let (_, body) = cluster.brokers[0].as_ref().expect("it runs").get("/health");
        let health: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(
            health["failed"].as_array().map(Vec::len),
            Some(0),
            "nobody has told it: {body}"
        );
        cluster.start_registry();
        let client = cluster.client().await;
        let sender = Sender::new(&client, "t");
        let mut story = PutBack { cluster, old, client, sender, count, all };
        story.await_refused();
        story.sender.go_on(100).await;
        sent.extend(story.sender.end().await);
        story.client.close().await;
        (story.cluster, sent)
    });
    check(&cluster, "t", &sent);
}
