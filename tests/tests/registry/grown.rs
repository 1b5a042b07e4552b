//! S41: a broker that stands alone, with data, becomes the first of three, and all that it has comes to be
//! on all three, while producers and a group of consumers go on: nothing is lost, and nobody sees an error.
//! Then the first one dies for good, and the others have everything.
//!
//! `GRUS_GROWN_MIB=1024` has the broker begin with so many MiB, else with 24.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use grus_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, Message, ProducerConfig, QueueId, StartAt,
};
use grus_tests::broker::Home;
use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
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
        let watch = Watch::start();
        let longest = sender.go_on(300).await;
        println!("{count} shards grow: the longest wait of a send was {longest:?}");
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
