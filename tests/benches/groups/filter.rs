//! How fast a filter by tags passes over what does not match.

use grus_client::{
    Client, ConsumerConfig, ConsumerEvent, Message, Outcome, ProducerConfig, QueueId,
};
use grus_tests::broker::Home;
use grus_tests::watch::Watch;

use crate::options::Options;
use crate::spread::{Spread, judge};
use crate::{TOPIC, block_on, connect, create, seconds};

/// Messages a second that the broker has to look at.
const SCANNED_MIN: f64 = 2e6;
const BATCH: u64 = 1_000;
/// Batches that may be on their way.
const IN_FLIGHT: usize = 8;

pub(crate) fn run(options: &Options) {
    let (messages, rounds) = (options.number("messages", 2_000_000), options.number("rounds", 5));
    let (size, durability) =
        (options.bytes("size", "100"), options.text("durability", "persisted"));
    println!("{messages} messages of {size} bytes, {durability}; million messages a second");
    // All of one tag: the bloom of a batch says that it has no other. Of a thousand tags: it cannot
    // say so of any, and each record is looked at.
    for (what, tags) in [("skipped by blooms", 1), ("looked at one by one", BATCH)] {
        let home = Home::new();
        let _broker = home.start();
        create(&home, &durability, TOPIC, 1);
        let mut rate = Spread::default();
        block_on(async {
            let client = connect(&home).await;
            send(&client, messages, size, tags).await;
            for round in 0..rounds {
                let took = find(&client, &format!("g{round}")).await;
                #[expect(clippy::cast_precision_loss, reason = "a figure for a person")]
                rate.push(messages as f64 / took);
            }
            client.close().await;
        });
        println!("{what}: {:.2} M/s, all runs {rate} /s", rate.median() / 1e6);
        judge("2 M messages/s scanned", rate.median() >= SCANNED_MIN);
    }
}

/// All but the last message have a tag that is not wanted.
async fn send(client: &Client, messages: u64, size: usize, tags: u64) {
    let config = ProducerConfig::new(TOPIC).expect("a name");
    let producer = client.producer(config).expect("a producer");
    let mut out = std::collections::VecDeque::new();
    let message = |tag: &str| Message::new(vec![7; size]).queue(QueueId(0)).tag(tag);
    let names: Vec<String> = (0..tags).map(|number| format!("other-{number}")).collect();
    for first in (0..messages).step_by(usize::try_from(BATCH).expect("few")) {
        let end = (first + BATCH).min(messages);
        let tag = |number: u64| &names[usize::try_from(number % tags).expect("few")];
        let batch = (first..end).map(|number| message(tag(number))).collect();
        out.push_back(producer.enqueue_batch(batch).await.expect("taken"));
        if out.len() >= IN_FLIGHT {
            out.pop_front().expect("one").await.expect("stored");
        }
    }
    for pending in out {
        pending.await.expect("stored");
    }
    producer.send(message("wanted")).await.expect("stored");
}

/// Seconds from when a new member has the queue until it has the message that it wants.
async fn find(client: &Client, group: &str) -> f64 {
    let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
    let config = ConsumerConfig::new(group).expect("a name");
    let config = config.subscribe(TOPIC, "wanted").expect("a tag").on_event(move |event| {
        if matches!(event, ConsumerEvent::Assigned(_)) {
            let _ = told.send(Watch::start());
        }
    });
    let mut consumer = client.consumer(config).expect("a consumer");
    let handed = consumer.next().await.expect("the message");
    let watch = events.recv().await.expect("it was assigned");
    let took = seconds(watch.elapsed());
    handed.answer(Outcome::Ack);
    consumer.stop().await;
    took
}
