//! Whether a backlog in one queue holds up the others of a member.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grus_client::{
    Client, Consumer, GroupName, Message, Outcome, ProducerConfig, QueueId, StartAt,
};
use grus_tests::broker::Home;
use grus_tests::calm::Waits;
use grus_tests::watch::Watch;
use tokio::task::JoinHandle;

use crate::options::Options;
use crate::spread::{Spread, judge};
use crate::{TOPIC, block_on, connect, create, member};

/// Queues that have a trickle, 1 to 99; queue 0 has the backlog.
const TRICKLE: u32 = 99;
/// Messages a second over all of them.
const RATE: u64 = 990;
/// How many times its p99 alone the trickle's p99 may be beside a backlog.
const RATIO_MAX: f64 = 2.0;

pub(crate) fn run(options: &Options) {
    let (backlog, size) = (options.number("backlog", 1_000_000), options.bytes("size", "1KiB"));
    let (span, rounds) = (options.number("seconds", 3), options.number("rounds", 3));
    let durability = options.text("durability", "persisted");
    let home = Home::new();
    let _broker = home.start();
    create(&home, &durability, TOPIC, u64::from(TRICKLE) + 1);
    println!(
        "{TRICKLE} queues with {RATE} messages a second, {backlog} messages of {size} bytes in \
         another one, {durability}; microseconds from the send to the handler"
    );
    block_on(async {
        let (client, sender) = (connect(&home).await, connect(&home).await);
        send_backlog(&sender, backlog, size).await;
        let group = GroupName::try_from("g").expect("a name");
        let topic = TOPIC.try_into().expect("a name");
        let mut consumer = client.consumer(member("g", TOPIC)).expect("a consumer");
        drain(&mut consumer, backlog).await; // its queues are its own from here on
        let (mut alone, mut beside, mut ratio) =
            (Spread::default(), Spread::default(), Spread::default());
        for _ in 0..rounds {
            let mut calm = trickle(&mut consumer, &sender, Until::Time(span)).await;
            client
                .reset_group(&group, &topic, Some(QueueId(0)), StartAt::First)
                .await
                .expect("the backlog is back");
            let mut loaded = trickle(&mut consumer, &sender, Until::Backlog(backlog)).await;
            println!(
                "alone p50 {} p99 {} max {} ({}), beside p50 {} p99 {} max {} ({})",
                calm.at(500),
                calm.at(990),
                calm.at(1_000),
                calm.count(),
                loaded.at(500),
                loaded.at(990),
                loaded.at(1_000),
                loaded.count()
            );
            #[expect(clippy::cast_precision_loss, reason = "figures for a person")]
            {
                alone.push(calm.at(990) as f64);
                beside.push(loaded.at(990) as f64);
                ratio.push(loaded.at(990) as f64 / calm.at(990).max(1) as f64);
            }
        }
        println!("p99 alone {alone}, beside {beside}, beside / alone {ratio}");
        judge("p99 of the trickle within 2x", ratio.median() <= RATIO_MAX);
        consumer.stop().await;
        client.close().await;
        sender.close().await;
    });
}

async fn send_backlog(client: &Client, messages: u64, size: usize) {
    let config = ProducerConfig::new(TOPIC).expect("a name");
    let producer = client.producer(config).expect("a producer");
    let each = 1_000.min(messages.max(1));
    let mut out = std::collections::VecDeque::new();
    for _ in 0..messages / each {
        let batch = (0..each).map(|_| Message::new(vec![7; size]).queue(QueueId(0)));
        out.push_back(producer.enqueue_batch(batch.collect()).await.expect("taken"));
        if out.len() >= 8 {
            out.pop_front().expect("one").await.expect("stored");
        }
    }
    for pending in out {
        pending.await.expect("stored");
    }
}

async fn drain(consumer: &mut Consumer, messages: u64) {
    let mut left = messages;
    while left > 0 {
        let batch = consumer.next_stored_batch().await.expect("a batch");
        left = left.saturating_sub(batch.len() as u64);
        batch.answer(Outcome::Ack);
    }
}

/// How long a trickle is looked at.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// So many seconds.
    Time(u64),
    /// Until so many messages of the backlog have come.
    Backlog(u64),
}

/// Waits of a trickle, each counted from when its message should have been sent.
async fn trickle(consumer: &mut Consumer, sender: &Client, until: Until) -> Waits {
    let (watch, over) = (Watch::start(), Arc::new(AtomicBool::new(false)));
    let sending = send_trickle(sender.clone(), watch, Arc::clone(&over));
    let (mut waits, mut backlog) = (Waits::default(), 0);
    loop {
        let batch = consumer.next_stored_batch().await.expect("a batch");
        if batch.queue() == QueueId(0) {
            backlog += batch.len() as u64;
        } else {
            for (_, record) in batch.views() {
                let due_us: [u8; 8] = record.body()[..8].try_into().expect("eight bytes");
                let due = Duration::from_micros(u64::from_le_bytes(due_us));
                waits.push(watch.elapsed().saturating_sub(due));
            }
        }
        batch.answer(Outcome::Ack);
        let is_over = match until {
            Until::Time(limit) => watch.elapsed() >= Duration::from_secs(limit),
            Until::Backlog(all) => backlog >= all,
        };
        if is_over {
            break;
        }
    }
    over.store(true, Relaxed);
    let mut left = sending.await.expect("it sends") - waits.count() as u64;
    while left > 0 {
        // What is on its way is no part of the measurement.
        let batch = consumer.next_stored_batch().await.expect("a batch");
        if batch.queue() != QueueId(0) {
            left -= batch.len() as u64;
        }
        batch.answer(Outcome::Ack);
    }
    waits
}

/// Sends at an even rate to the queues in turn, until it is over; how many.
fn send_trickle(client: Client, watch: Watch, over: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let config = ProducerConfig::new(TOPIC).expect("a name");
        let producer = client.producer(config).expect("a producer");
        let mut pace = tokio::time::interval(Duration::from_millis(1));
        let mut sent = 0;
        while !over.load(Relaxed) {
            pace.tick().await;
            let due = |number: u64| Duration::from_micros(number * 1_000_000 / RATE);
            while due(sent) <= watch.elapsed() {
                let at = u64::try_from(due(sent).as_micros()).expect("not for ever");
                let queue = QueueId(1 + u32::try_from(sent % u64::from(TRICKLE)).expect("few"));
                let message = Message::new(at.to_le_bytes().to_vec()).queue(queue);
                drop(producer.enqueue(message).await.expect("taken"));
                sent += 1;
            }
        }
        producer.close().await.expect("all are stored");
        sent
    })
}
