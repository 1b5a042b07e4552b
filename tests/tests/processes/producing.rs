//! All ways to send, by the client library against real brokers: S3, S5, S6, S7, dedup keys, named
//! producers, and a flood with nobody there.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grus_client::{
    Client, ClientConfig, Interceptor, Message, Producer, ProducerConfig, QueueChoice, QueueId,
    Receipt, SendError, TopicSettings,
};
use grus_tests::broker::Home;
use grus_tests::strain::Strain;
use grus_tests::watch::Watch;

use crate::program::{block_on, client};
use crate::{create, kept, read_all};

/// With a window that outlives the start of a broker on a busy machine.
pub(crate) fn config(topic: &str) -> ProducerConfig {
    let mut config = ProducerConfig::new(topic).expect("a name");
    config.retries = 19;
    config
}

fn producer(client: &Client, topic: &str) -> Producer {
    client.producer(config(topic)).expect("a producer")
}

/// A topic made by the client, which waits for the broker.
async fn topic(client: &Client, name: &str, queues: u32) {
    let settings = TopicSettings { queues, ..TopicSettings::default() };
    client.create_topic(name, settings).await.expect("a topic");
}

#[test]
fn s3_one_way_returns_at_once_without_a_broker_and_arrives_with_it() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    broker.kill();
    block_on(async {
        let client = client(&home);
        let producer = producer(&client, "t");
        let (strain, watch) = (Strain::watch(), Watch::start());
        for number in 0..1_000 {
            producer.send_one_way(Message::new(number.to_string()));
        }
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        assert!(took < Duration::from_secs(1) + allowed, "it waits for nobody: {took:?}");
        let _broker = home.start();
        let flushed = producer.flush().await.expect("an open producer");
        assert_eq!((flushed.stored, flushed.failed), (1_000, 0));
        assert_eq!(producer.one_way_failures(), 0);
        let bodies: Vec<_> = read_all(&home, "t").into_iter().filter_map(|one| one.body).collect();
        let expected: Vec<_> = (0..1_000).map(|number: u32| number.to_string()).collect();
        assert_eq!(bodies, expected);
        client.close().await;
    });
}

#[test]
fn s5_within_the_window_a_send_outlives_a_kill_and_after_it_is_a_timeout() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 2);
    block_on(async {
        let client = client(&home);
        let lasting = producer(&client, "t");
        let mut short = config("t");
        (short.send_timeout, short.retries) = (Duration::from_millis(200), 1);
        lasting.send(Message::new("before")).await.expect("a receipt");
        // One whose window a busy machine has not missed.
        let short = loop {
            let one = client.producer(short.clone()).expect("a producer");
            if one.send(Message::new("before")).await.is_ok() {
                break one;
            }
        };
        broker.kill();

        let failed = short.enqueue(Message::new("too late")).await.expect("room");
        match failed.await {
            Err(SendError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        let closed = short.close().await.expect("an open producer");
        assert_eq!((closed.failed, closed.unsent.len()), (1, 1), "{closed:?}");

        let pending = lasting.enqueue(Message::new("in time")).await.expect("room");
        let _broker = home.start();
        pending.await.expect("a receipt");
        client.close().await;
    });
}

#[test]
fn s6_each_choice_of_queues_does_what_it_says() {
    const SENDS: usize = 400;
    let home = Home::new();
    let _broker = home.start();
    block_on(async {
        let client = client(&home);
        let own = QueueChoice::own(|message, queues| {
            QueueId(u32::from(message.body()[0] - b'a') % queues)
        });
        let choices = [
            ("round-robin", QueueChoice::RoundRobin),
            ("random", QueueChoice::Random),
            ("hash", QueueChoice::KeyHash),
            ("backlog", QueueChoice::LeastBacklog),
            ("own", own),
        ];
        for (name, choice) in choices {
            topic(&client, name, 4).await;
            let mut config = config(name);
            config.queue_choice = choice;
            let producer = client.producer(config).expect("a producer");
            let mut pending = Vec::new();
            for number in 0..SENDS {
                let body = ["a", "b", "c"][number % 3];
                pending.push(producer.enqueue(Message::new(body)).await.expect("room"));
            }
            let mut counts = [0; 4];
            for (number, receipt) in pending.into_iter().enumerate() {
                let queue = receipt.await.expect("a receipt").queue.0 as usize;
                counts[queue] += 1;
                assert!(name != "own" || queue == number % 3, "own: {queue} for {number}");
            }
            match name {
                "round-robin" => assert_eq!(counts, [100; 4]),
                "own" => assert_eq!(counts, [134, 133, 133, 0]),
                _ => assert!(counts.iter().all(|count| *count > 40), "{name}: {counts:?}"),
            }
        }
        client.close().await;
    });
}

/// How often a message was seen before it was sent, and how each of its results looked.
type Sightings = (usize, Vec<bool>);

/// What an interceptor has seen of each message.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Sightings>>>);

impl Interceptor for Seen {
    fn before_send(&self, message: &mut Message) {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        self.0.lock().expect("no panic").entry(body).or_default().0 += 1;
        *message = std::mem::take(message).tag("seen");
    }

    fn after_send(&self, message: &Message, result: &Result<Receipt, SendError>) {
        let body = String::from_utf8_lossy(message.body()).into_owned();
        self.0.lock().expect("no panic").entry(body).or_default().1.push(result.is_ok());
    }
}

/// One that always panics.
#[derive(Clone, Default)]
struct Broken(Arc<AtomicUsize>);

impl Interceptor for Broken {
    fn before_send(&self, message: &mut Message) {
        *message = Message::new("spoilt");
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("meant to");
    }

    fn after_send(&self, _: &Message, _: &Result<Receipt, SendError>) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("meant to");
    }
}

#[test]
fn s7_interceptors_see_every_way_to_send_and_one_that_panics_loses_nothing() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let (seen, broken) = (Seen::default(), Broken::default());
        let mut config = ClientConfig::new([home.listen.to_string()]);
        config.interceptors.add(broken.clone());
        config.interceptors.add(seen.clone());
        let client = Client::connect(config).await.expect("a broker");
        let producer = producer(&client, "t");
        producer.send(Message::new("sync")).await.expect("a receipt");
        producer.send_async(Message::new("async"), |_| ());
        producer.send_one_way(Message::new("one-way"));
        let batch = ["batch 1", "batch 2"].map(Message::new).to_vec();
        producer.send_batch(batch).await.expect("a receipt");
        producer.flush().await.expect("an open producer");
        let too_long = Message::new(vec![b'x'; 5 << 20]);
        producer.send_batch(vec![too_long]).await.expect_err("it is too long");
        let read = read_all(&home, "t");
        let bodies: Vec<_> = read.iter().filter_map(|one| one.body.as_deref()).collect();
        assert_eq!(bodies, ["sync", "async", "one-way", "batch 1", "batch 2"]);

        broker.kill();
        let mut quick = self::config("t");
        (quick.send_timeout, quick.retries) = (Duration::from_millis(400), 0);
        let quick = client.producer(quick).expect("a producer");
        let error = quick.send(Message::new("nobody there")).await;
        error.expect_err("the broker is gone");
        let seen = seen.0.lock().expect("no panic").clone();
        assert_eq!(seen.len(), 7);
        for (body, (before, after)) in &seen {
            let works = body.len() < 8;
            assert_eq!((*before, after.as_slice()), (1, &[works][..]), "{body:.20}");
        }
        assert_eq!(broken.0.load(Ordering::SeqCst), 14);
        assert_eq!(client.panics(), 14);
        client.close().await;
    });
}

#[test]
fn a_dedup_key_is_stored_once_across_producers_and_a_kill() {
    let home = Home::new();
    let broker = home.start();
    block_on(async {
        let first = client(&home);
        let settings = TopicSettings { queues: 4, ..TopicSettings::default() };
        first.create_topic("t", settings).await.expect("a topic");
        let payment = |number: u32| Message::new("pay").dedup_key(format!("payment-{number}"));
        let producer = producer(&first, "t");
        let mut receipts = Vec::new();
        for number in 0..100 {
            receipts.push(producer.send(payment(number)).await.expect("a receipt"));
        }
        assert!(receipts.iter().all(|receipt| !receipt.duplicate));
        broker.kill();
        let broker = home.start();
        let second = client(&home);
        let again = self::producer(&second, "t");
        for (number, had) in (0..).zip(&receipts) {
            let repeat = again.send(payment(number)).await.expect("a receipt");
            assert!(repeat.duplicate, "{repeat:?}");
            let place = (repeat.queue, repeat.offset, repeat.stored);
            assert_eq!(place, (had.queue, had.offset, had.stored));
            let own = producer.send(payment(number)).await.expect("a receipt");
            assert!(own.duplicate && own.offset == had.offset, "{own:?}");
        }
        let batch = (0..3).map(|_| Message::new("three").dedup_key("three")).collect::<Vec<_>>();
        let stored = again.send_batch(batch.clone()).await.expect("a receipt");
        assert!(!stored.duplicate);
        assert!(producer.send_batch(batch).await.expect("a receipt").duplicate);
        let mixed = vec![payment(1), payment(2)];
        match again.send_batch(mixed).await {
            Err(SendError::Invalid { index: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(kept(&home, "t"), 103);

        home.grus(&["topic", "alter", "t", "--dedup-window", "0s"]).ok();
        let refused = again.send(payment(1_000)).await.expect_err("the topic takes none");
        assert!(matches!(refused, SendError::Refused(_)), "{refused}");
        again.send(Message::new("without one")).await.expect("a receipt");
        first.close().await;
        second.close().await;
        drop(broker);
    });
}

#[test]
fn a_named_producer_shuts_out_its_earlier_life_also_across_a_kill() {
    let home = Home::new();
    let broker = home.start();
    block_on(async {
        let old_client = client(&home);
        topic(&old_client, "t", 4).await;
        let named = || {
            let mut named = ProducerConfig::named("t", "billing").expect("names");
            named.retries = 19;
            named
        };
        let old = old_client.producer(named()).expect("a producer");
        for queue in 0..4 {
            let message = Message::new("old").queue(QueueId(queue));
            old.send(message).await.expect("a receipt");
        }
        broker.kill();
        let broker = home.start();
        old.send(Message::new("old, still alone")).await.expect("a receipt");

        let new_client = client(&home);
        let new = new_client.producer(named()).expect("a producer");
        new.send(Message::new("new").queue(QueueId(0))).await.expect("a receipt");
        // A queue to which the new one has not sent anything yet.
        let fenced = old.send(Message::new("a ghost").queue(QueueId(3))).await;
        assert!(matches!(fenced, Err(SendError::Fenced(_))), "{fenced:?}");
        broker.kill();
        let _broker = home.start();
        let fenced = old.send(Message::new("a ghost").queue(QueueId(2))).await;
        assert!(matches!(fenced, Err(SendError::Fenced(_))), "{fenced:?}");
        for queue in 0..4 {
            new.send(Message::new("new").queue(QueueId(queue))).await.expect("a receipt");
        }
        let ghosts = read_all(&home, "t");
        assert!(ghosts.iter().all(|one| one.body.as_deref() != Some("a ghost")));
        assert_eq!(ghosts.len(), 10);
        old_client.close().await;
        new_client.close().await;
    });
}

/// `GRUS_TEST_FLOOD_SECONDS=60` floods for longer.
#[test]
fn a_flood_without_a_broker_is_refused_and_takes_no_memory() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 4);
    broker.kill();
    // In a process of its own, so that the memory is that of the producer alone.
    let seconds = std::env::var("GRUS_TEST_FLOOD_SECONDS").unwrap_or_else(|_| "3".to_owned());
    let mut flood = Command::new(env!("CARGO_BIN_EXE_grus-flood"));
    let done = flood.args([&home.listen.to_string(), &seconds]).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("refused"), "{said}");
}
