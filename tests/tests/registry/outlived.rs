//! What the leader of a queue keeps beside its messages is there where another one leads: what a group has
//! acknowledged, what it is to try again and how often it has, what lies among its dead letters, and what
//! is to be delivered later.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Duration;

use grus_client::{
    Client, Consumer, ConsumerConfig, Handed, Message, Outcome, Producer, ProducerConfig,
};
use grus_tests::broker::Home;
use grus_tests::cluster::{Cluster, block_on};
use grus_tests::http;
use grus_tests::watch::{PATIENCE, Watch, wall_ms};

/// The message that always fails.
const FAILING: u32 = 3;
/// The message that is sent for later.
const LATER: u32 = 20;
/// How much later.
const DELAY: Duration = Duration::from_secs(1);
/// How often a message is tried.
const DELIVERIES_MAX: u32 = 6;

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it comes in time")
}

/// One who sends to the topic, for as long as an election may take on a busy machine.
fn producer(client: &Client) -> Producer {
    let mut config = ProducerConfig::new("t").expect("a name");
    config.retries = 40;
    client.producer(config).expect("a producer")
}

/// Sends these numbers, one after the other's receipt.
async fn send(producer: &Producer, numbers: Range<u32>) {
    for number in numbers {
        within(producer.send(Message::new(number.to_string()))).await.expect("it is stored");
    }
}

/// A member of the group that reads the topic, with options of its own.
fn member(client: &Client, set: impl FnOnce(&mut ConsumerConfig)) -> Consumer {
    let config = ConsumerConfig::new("g").expect("a name");
    let mut config = config.subscribe("t", "*").expect("a topic");
    set(&mut config);
    client.consumer(config).expect("a consumer")
}

/// What became of the messages so far.
#[derive(Default)]
struct Story {
    acked: BTreeSet<u32>,
    /// How often the failing one had been delivered, each time that it came.
    tries: Vec<u32>,
    later_sent_ms: u64,
}

impl Story {
    async fn take(&mut self, handed: Handed) {
        let body = std::str::from_utf8(handed.body()).expect("text");
        let number: u32 = body.parse().expect("a number");
        assert!(!self.acked.contains(&number), "{number} was acknowledged, and comes again");
        if number == FAILING {
            self.tries.push(handed.deliveries);
            return handed.answer(Outcome::Nack("no stock".to_owned()));
        }
        if number == LATER {
            let waited_ms = wall_ms().saturating_sub(self.later_sent_ms);
            assert!(Duration::from_millis(waited_ms) >= DELAY, "after {waited_ms} ms");
        }
        // Not told so, it may come again.
        if within(handed.ack()).await.is_ok() {
            self.acked.insert(number);
        }
    }

    async fn until_acked(&mut self, consumer: &mut Consumer, count: usize) {
        while self.acked.len() < count {
            let handed = within(consumer.next()).await.expect("a message");
            self.take(handed).await;
        }
    }

    /// Goes on until the dead letters of the group are told, and are some.
    async fn until_given_up(&mut self, client: &Client, consumer: &mut Consumer) {
        let group = "g".try_into().expect("a name");
        let told = within(async {
            loop {
                let page = client.list_dead_letters(&group, None, 0, true).await;
                if let Some(letters) =
                    page.ok().map(|page| page.letters).filter(|all| !all.is_empty())
                {
                    break letters;
                }
                let some = consumer.next_batch(16, Duration::from_millis(100)).await;
                for handed in some.expect("it goes on") {
                    self.take(handed).await;
                }
            }
        });
        let letters = told.await;
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!(
            (&*letter.letter.reason, letter.letter.deliveries),
            ("no stock", DELIVERIES_MAX)
        );
        assert_eq!(letter.record.as_ref().expect("its body").body(), b"3");
    }
}

#[test]
fn groups_retries_timers_and_dead_letters_outlive_their_leaders() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    block_on(async {
        let client = cluster.client_of_brokers().await;
        let producer = producer(&client);
        send(&producer, 0..LATER).await;
        let mut consumer = member(&client, |config| {
            config.options.ladder_ms = Some(vec![1]);
            config.options.max_deliveries = Some(DELIVERIES_MAX);
        });
        let mut story = Story::default();
        story.until_acked(&mut consumer, 10).await;
        story.later_sent_ms = wall_ms();
        let later = Message::new(LATER.to_string()).delay(DELAY);
        within(producer.send(later)).await.expect("it is stored");
        let first = cluster.leader("t");
        cluster.kill(first);
        // All but the failing one.
        story.until_acked(&mut consumer, LATER as usize).await;
        cluster.start_again(first);
        cluster.await_all_led("t");
        story.until_given_up(&client, &mut consumer).await;
        let second = cluster.leader("t");
        cluster.kill(second);
        cluster.await_all_led("t");
        story.until_given_up(&client, &mut consumer).await;
        let group = "g".try_into().expect("a name");
        let lag = async || {
            let progress = client.group_progress(&group).await.ok()?;
            Some(progress.items.iter().map(|queue| queue.lag).sum::<u64>())
        };
        within(async { while lag().await != Some(0) {} }).await;
        assert!(story.tries.is_sorted(), "a failed delivery was forgotten: {:?}", story.tries);
        assert_eq!(story.tries.first(), Some(&0));
        consumer.stop().await;
        client.close().await;
    });
}

/// The broker that says of itself that it coordinates the group.
fn coordinator(cluster: &Cluster) -> usize {
    let says_so = |home: &Home| {
        let (_, page) = http::get(home.http, "/groups/g").ok()?;
        let page: serde_json::Value = serde_json::from_str(&page).ok()?;
        (page["coordinated"] == true).then_some(())
    };
    let watch = Watch::start();
    loop {
        let mut numbers = 0..cluster.homes.len();
        if let Some(found) = numbers.find(|number| says_so(&cluster.homes[*number]).is_some()) {
            return found;
        }
        assert!(watch.elapsed() < PATIENCE, "nobody coordinates it");
    }
}

fn a_group_outlives_its_coordinator(durability: &str) {
    let mut cluster = Cluster::start();
    cluster.topic("t", 2, durability);
    block_on(async {
        let client = cluster.client_of_brokers().await;
        let producer = producer(&client);
        send(&producer, 0..LATER).await;
        let mut all = BTreeSet::new();
        let mut take = async |consumer: &mut Consumer, until: usize| {
            while all.len() < until {
                let handed = within(consumer.next()).await.expect("a message");
                let body = std::str::from_utf8(handed.body()).expect("text").to_owned();
                if within(handed.ack()).await.is_ok() {
                    assert!(all.insert(body), "acknowledged, and comes again");
                }
            }
        };
        let mut first = member(&client, |_| {});
        take(&mut first, LATER as usize).await;
        // It does not come back.
        let coordinator = coordinator(&cluster);
        cluster.kill(coordinator);
        send(&producer, LATER..2 * LATER).await;
        take(&mut first, 2 * LATER as usize).await;
        first.stop().await;
        // Who comes now is let in by another coordinator.
        send(&producer, 2 * LATER..3 * LATER).await;
        let mut second = member(&client, |_| {});
        take(&mut second, 3 * LATER as usize).await;
        second.stop().await;
        client.close().await;
    });
}

#[test]
fn a_group_of_a_persisted_topic_outlives_its_coordinator() {
    a_group_outlives_its_coordinator("persisted");
}

/// A topic whose messages are kept in memory has groups all the same, whose members are kept on disk: on
/// as many brokers, or a group would be gone with one of them.
#[test]
fn a_group_of_a_replicated_topic_outlives_its_coordinator() {
    a_group_outlives_its_coordinator("replicated");
}
