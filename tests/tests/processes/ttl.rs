//! Messages that live for a while: what is over is given to nobody, pushed or fetched, and keeps
//! its offset.

use std::time::Duration;

use grus_client::{
    Client, Compression, ConsumerConfig, Message, Outcome, ProducerConfig, Pulled, QueueId,
    ReadMode, ReaderConfig, StartAt,
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
        let producer = client.producer(crate::producing::config("t"));
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

fn counted(metrics: &str, became: &str) -> u64 {
    let label = format!("became=\"{became}\"");
    let of_it = |line: &&str| {
        line.starts_with("grus_group_expired_messages_total{") && line.contains(&label)
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|text| text.parse::<u64>().ok());
    metrics.lines().filter(of_it).filter_map(value).sum()
}

#[test]
fn what_is_over_is_a_dead_letter_of_each_group_where_the_topic_says_so() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    let grus = |words: &str| home.grus(&words.split(' ').collect::<Vec<_>>()).ok().text();
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(crate::producing::config("t"));
        let producer = producer.expect("a producer");
        let over = |number: u32| {
            let tag = if number.is_multiple_of(2) { "even" } else { "odd" };
            Message::new(number.to_string()).key("k").tag(tag).ttl(Duration::ZERO)
        };
        // Alone, then a batch of more than one item takes, then what lives.
        producer.send(over(0)).await.expect("a receipt");
        let many = (1..200).map(over).collect();
        producer.send_batch(many).await.expect("a receipt");
        producer.send(Message::new("lives").tag("even")).await.expect("a receipt");

        // As long as nobody says otherwise, a group passes over them.
        assert_eq!(grus("consume t --group passes --max 1"), "lives\n");
        assert_eq!(grus("dlq list passes"), "");
        let (_, metrics) = broker.get("/metrics");
        assert_eq!((counted(&metrics, "nothing"), counted(&metrics, "dead_letter")), (200, 0));

        let altered = grus("topic alter t --expired dead-letter");
        assert!(altered.contains("what is expired becomes a dead letter"), "{altered}");
        assert_eq!(grus("consume t --group all --max 1"), "lives\n", "readers see none of them");
        assert_eq!(grus("consume t --group even --tags even --max 1"), "lives\n");
        let group = "all".try_into().expect("a name");
        let page = client.list_dead_letters(&group, None, 1_000, true).await.expect("a list");
        let offsets: Vec<u64> = page.letters.iter().map(|one| one.letter.origin_offset.0).collect();
        assert_eq!(offsets, (0..200).collect::<Vec<_>>(), "each of them, once, in order");
        for (number, one) in page.letters.iter().enumerate() {
            assert_eq!((&*one.letter.reason, one.letter.deliveries), ("expired", 0));
            let record = one.record.as_ref().expect("its body");
            assert_eq!(record.body(), number.to_string().as_bytes());
            assert_eq!(record.keys().collect::<Vec<_>>(), [b"k"]);
            assert!(record.tag().is_some() && record.ttl_ms().is_none(), "it waits for somebody");
        }
        let even = "even".try_into().expect("a name");
        let page = client.list_dead_letters(&even, None, 1_000, false).await.expect("a list");
        assert_eq!(page.letters.len(), 100, "what it does not want is no letter of it");
        for group in ["all", "even", "passes"] {
            let described = grus(&format!("group describe {group}"));
            assert!(described.contains("lag          0"), "{described}");
        }
        let (_, metrics) = broker.get("/metrics");
        assert_eq!((counted(&metrics, "nothing"), counted(&metrics, "dead_letter")), (200, 300));

        // Once sent back it lives, and a group that was there before has it, too.
        assert_eq!(grus("dlq redrive all 0/7"), "1 sent back\n");
        assert_eq!(grus("consume t --group all --max 1"), "7\n");
        client.close().await;
    });
    // Killed, and as before: nobody has a second letter.
    broker.kill();
    let _broker = home.start();
    assert_eq!(grus("consume t --group all --idle-exit 300ms"), "");
    let listed = grus("dlq list all --max 1000");
    assert_eq!(listed.lines().count(), 199, "{listed}");
    assert!(listed.lines().all(|line| line.ends_with("delivered 0 times  expired")), "{listed}");
    let told = grus("topic describe t --json");
    assert!(told.contains("\"expired\":\"dead_letter\""), "{told}");
}

#[test]
fn what_fails_and_is_over_when_it_is_due_again_is_a_dead_letter() {
    let home = Home::new();
    let _broker = home.start();
    home.grus(&["topic", "create", "t", "--queues", "1", "--expired", "dead-letter"]).ok();
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(crate::producing::config("t"));
        let message = Message::new("short").ttl(Duration::from_secs(5));
        producer.expect("a producer").send(message).await.expect("a receipt");
        let config = ConsumerConfig::new("g").expect("a name");
        let mut consumer =
            client.consumer(config.subscribe("t", "*").expect("a topic")).expect("a consumer");
        // Slow machines may find it over before it is delivered even once: a letter either way.
        let group = "g".try_into().expect("a name");
        let nacked = async {
            let handed = consumer.next().await.expect("it lives");
            handed.answer(Outcome::RetryAfter(Duration::from_secs(6), "not yet".to_owned()));
            std::future::pending::<()>().await;
        };
        let buried = async {
            loop {
                let page = client.list_dead_letters(&group, None, 0, false).await;
                match page.map(|page| page.letters) {
                    Ok(letters) if !letters.is_empty() => break letters,
                    _ => {}
                }
            }
        };
        let letters = tokio::select! {
            () = nacked => unreachable!("it waits"),
            letters = tokio::time::timeout(Duration::from_mins(1), buried) => letters,
        };
        let letters = letters.expect("it comes in time");
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        assert_eq!(&*letter.letter.reason, "expired");
        assert!(letter.letter.deliveries <= 1);
        client.close().await;
    });
}
