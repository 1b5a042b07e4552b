//! Messages that live for a while: what is over is given to nobody, pushed or fetched, and keeps
//! its offset.

use std::time::Duration;

use grus_client::{
    Client, Compression, Message, ProducerConfig, Pulled, QueueId, ReadMode, ReaderConfig, StartAt,
};
use grus_tests::broker::Home;
use grus_tests::watch::Watch;

use crate::create;
use crate::program::{block_on, connect};

const QUEUE: QueueId = QueueId(0);

/// Every third message is over as soon as it is stored.
async fn send(client: &Client, topic: &str, compression: Compression) {
    let mut config = ProducerConfig::new(topic).expect("a name");
    config.compression = compression;
    let producer = client.producer(config).expect("a producer");
    let message = |number: u32| {
        let message = Message::new(format!("message {number}, which compresses, compresses"));
        if number.is_multiple_of(3) { message.ttl(Duration::ZERO) } else { message }
    };
    for number in 0..30 {
        producer.enqueue(message(number)).await.expect("room").await.expect("a receipt");
    }
    let over: Vec<_> = (0..9).map(|number| message(3 * number)).collect();
    producer.send_batch(over).await.expect("a receipt of what is over at once");
    let last = producer.send(message(40)).await.expect("a receipt");
    assert_eq!(last.offset.0, 39, "what is over has its offset");
    let mixed = vec![message(1), message(3)];
    let refused = producer.send_batch(mixed).await.expect_err("one time to live for a batch");
    assert!(refused.to_string().contains("time to live"), "{refused}");
}

#[test]
fn what_is_over_is_given_to_nobody_and_keeps_its_offset() {
    let home = Home::new();
    let broker = home.start();
    let living: Vec<u64> = (0..30).filter(|number| number % 3 > 0).chain([39]).collect();
    block_on(async {
        let client = connect(&home).await;
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let topic = compression.to_string();
            create(&home, &topic, 1);
            send(&client, &topic, compression).await;
            for mode in [ReadMode::Push, ReadMode::Poll] {
                let mut config = ReaderConfig::new(&topic, StartAt::First).expect("a name");
                config.mode = mode;
                let mut reader = client.reader(config).expect("a reader");
                let mut offsets = Vec::new();
                while offsets.last() != Some(&39) {
                    offsets.push(reader.next().await.expect("a message").offset.0);
                }
                assert_eq!(offsets, living, "{topic} {mode:?}");
            }
        }
        client.close().await;
    });
    let (_, metrics) = broker.get("/metrics");
    let expired =
        metrics.lines().find_map(|line| line.strip_prefix("grus_fetch_expired_records_total "));
    let expired: u64 = expired.expect("the counter").parse().expect("a number");
    assert_eq!(expired, 3 * 2 * 19, "each time a reader came by");
}

#[test]
fn a_message_lives_until_its_time_is_over_across_a_crash() {
    const TTL: Duration = Duration::from_secs(3);
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(ProducerConfig::new("t").expect("a name"));
        let watch = Watch::start();
        let message = Message::new("soon over").ttl(TTL);
        producer.expect("a producer").send(message).await.expect("a receipt");
        let stored = watch.elapsed(); // or a little before
        broker.kill();
        let _broker = home.start();
        let mut puller = client.puller("t").expect("a name");
        loop {
            let asked = watch.elapsed();
            let Pulled { messages, next, end_offset, .. } =
                puller.pull(QUEUE, grus_client::Offset(0), 10).await.expect("an answer");
            assert_eq!(end_offset.0, 1);
            if messages.len() == 1 {
                assert!(asked <= stored + TTL, "still given {asked:?} later");
                continue;
            }
            // Stored times are cut to whole milliseconds.
            let elapsed = watch.elapsed() + Duration::from_millis(2);
            assert!(elapsed >= TTL, "over {elapsed:?} later");
            assert_eq!(next.offset.0, 1, "it is passed over");
            break;
        }
        client.close().await;
    });
}
