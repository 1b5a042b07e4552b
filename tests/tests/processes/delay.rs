//! Messages for later on real processes: S12 to S15, recall, listings, topics of kind delay.

use std::time::Duration;

use grus_client::{
    Client, Delivered, Message, Producer, ProducerConfig, QueueId, Reader, Receipt,
    ScheduledFilter, TimestampMs,
};
use grus_tests::broker::Home;
use grus_tests::http::post;
use grus_tests::random::Random;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch, wall_ms};

use crate::program::{block_on, connect, reader};
use crate::{create, kept};

/// How late a message may be on a machine that has time for it.
const LATE_MAX: Duration = Duration::from_millis(50);
/// Threads that a message which is due comes through: the wheel's, the disk's, the writer's, the
/// reader's. Each may be let down by a machine that is busy with other tests.
const HOPS: u32 = 4;
/// Kills, or what `GRUS_TEST_ROUNDS` says.
const ROUNDS: usize = 30;

fn producer(client: &Client, topic: &str) -> Producer {
    let mut config = ProducerConfig::new(topic).expect("a name");
    config.send_timeout = PATIENCE;
    client.producer(config).expect("a producer")
}

fn text(message: &Delivered) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

async fn send(producer: &Producer, body: &str, due_ms: u64) -> Receipt {
    let message = Message::new(body.to_owned()).deliver_at(TimestampMs(due_ms));
    let receipt = producer.send(message).await.expect("a receipt");
    assert!(receipt.scheduled.is_some(), "{body} waits for its time");
    assert_eq!(receipt.due, Some(TimestampMs(due_ms)));
    receipt
}

/// The next message, which must come within `limit`.
async fn next(reader: &mut Reader, limit: Duration) -> Delivered {
    let next = tokio::time::timeout(limit, reader.next()).await;
    next.expect("a message in time").expect("a message")
}

/// Nothing comes for so long.
async fn nothing_for(reader: &mut Reader, time: Duration) {
    if let Ok(early) = tokio::time::timeout(time, reader.next()).await {
        panic!("{} came early", text(&early.expect("a message")));
    }
}

#[test]
fn s12_delays_up_to_years_and_none_is_early() {
    const DAY_MS: u64 = 86_400_000;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let (producer, mut reader) = (producer(&client, "t"), reader(&client, "t"));
        let begun_ms = wall_ms();
        for delay_ms in [3_000, 10_000, 3_600_000, 30 * DAY_MS, 730 * DAY_MS] {
            send(&producer, &delay_ms.to_string(), begun_ms + delay_ms).await;
        }
        for delay_ms in [3_000, 10_000] {
            let due_ms = begun_ms + delay_ms;
            let strain = Strain::watch();
            let sent_ms = wall_ms();
            let message = next(&mut reader, PATIENCE).await;
            let (arrived_ms, lost) = (wall_ms(), strain.lost());
            assert_eq!(text(&message), delay_ms.to_string());
            assert!(message.stored.0 >= due_ms && arrived_ms >= due_ms, "early");
            // What was due while the others were sent is late from then on.
            let late = Duration::from_millis(arrived_ms - due_ms.max(sent_ms));
            println!("{late:?} late, while this machine let others wait for {lost:?}");
            assert!(late <= LATE_MAX + (HOPS - 1) * lost + strain.allowed(), "{late:?} late");
        }
        let waiting = client.count_scheduled(&ScheduledFilter::default()).await;
        assert_eq!(waiting.expect("a count"), 3, "an hour, a month, two years");
        client.close().await;
    });
}

/// Sends one for 10 s later, kills the broker at 3 s, and starts it again at `restart`.
fn killed_at_3_s(restart: Duration) -> Duration {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let (producer, mut reader) = (producer(&client, "t"), reader(&client, "t"));
        let begun_ms = wall_ms();
        let watch = Watch::start();
        send(&producer, "later", begun_ms + 10_000).await;
        nothing_for(&mut reader, watch.left(Duration::from_secs(3))).await;
        broker.kill();
        nothing_for(&mut reader, watch.left(restart)).await;
        let _broker = home.start();
        let message = next(&mut reader, PATIENCE).await;
        assert_eq!(text(&message), "later");
        assert!(message.stored.0 >= begun_ms + 10_000, "early");
        let arrived = watch.elapsed();
        nothing_for(&mut reader, Duration::from_secs(1)).await;
        assert_eq!(kept(&home, "t"), 1, "once");
        client.close().await;
        arrived
    })
}

#[test]
fn s13_a_crash_and_a_restart_before_it_is_due() {
    let strain = Strain::watch();
    let arrived = killed_at_3_s(Duration::from_secs(6));
    // What a reconnect takes on a busy machine is not the wheel's.
    let limit = Duration::from_secs(13) + strain.allowed();
    assert!(arrived < limit, "it came {arrived:?} after it was sent");
}

#[test]
fn s13_a_crash_and_a_restart_when_it_is_overdue() {
    let strain = Strain::watch();
    let arrived = killed_at_3_s(Duration::from_secs(20));
    let limit = Duration::from_secs(25) + strain.allowed();
    assert!(arrived < limit, "it came {arrived:?} after it was sent");
}

#[test]
fn s13_crashes_in_a_row_at_any_instant_lose_none_and_double_none() {
    let rounds =
        std::env::var("GRUS_TEST_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut random = Random::seeded("delay");
    // Small segments, so that they are sealed between the kills.
    let home = Home::new()
        .with("GRUS__LOG__SEGMENT_BYTES", "1MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "1MiB");
    let mut broker = home.start();
    create(&home, "t", 1);
    let mut dues: Vec<(String, u64)> = Vec::new();
    block_on(async {
        let client = connect(&home).await;
        let (producer, mut reader) = (producer(&client, "t"), reader(&client, "t"));
        for round in 0..rounds {
            let mut pending = Vec::new();
            for number in 0..40 {
                let (body, due_ms) = (format!("{round}/{number}"), wall_ms() + random.below(3_000));
                let message = Message::new(body.clone()).deliver_at(TimestampMs(due_ms));
                pending.push(producer.enqueue(message).await.expect("room"));
                dues.push((body, due_ms));
            }
            for receipt in pending {
                receipt.await.expect("a receipt");
            }
            // Some wait and some are due when it dies; twice in a row each third time.
            let instant = Duration::from_micros(random.below(800_000));
            let _ = tokio::time::timeout(instant, std::future::pending::<()>()).await;
            broker.kill();
            if round % 3 == 2 {
                let mut early = home.begin();
                early.process.next_line(Duration::from_millis(random.below(150)));
                early.kill();
            }
            broker = home.start();
        }
        let last_due = dues.iter().map(|(_, due_ms)| *due_ms).max().expect("some");
        let mut read: Vec<(String, u64)> = Vec::new();
        while read.len() < dues.len() {
            let message = next(&mut reader, PATIENCE).await;
            read.push((text(&message), message.stored.0));
        }
        nothing_for(&mut reader, Duration::from_secs(1)).await;
        assert!(wall_ms() >= last_due);
        let (mut sent, mut came) = (dues.clone(), read.clone());
        sent.sort();
        came.sort();
        for ((body, due_ms), (other, stored_ms)) in sent.iter().zip(&came) {
            assert_eq!(body, other, "each once");
            assert!(stored_ms >= due_ms, "{body} came {} ms early", due_ms - stored_ms);
        }
        println!("{} messages through {rounds} kills", dues.len());
        client.close().await;
    });
}

#[test]
fn s14_a_hundred_thousand_in_the_same_second_and_the_wheel_turns_on() {
    const MESSAGES: usize = 100_000;
    const BATCH: usize = 1_000;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let (producer, mut reader) = (producer(&client, "t"), reader(&client, "t"));
        let due_ms = wall_ms() + 25_000;
        for first in (0..MESSAGES).step_by(BATCH) {
            let due = |number: usize| TimestampMs(due_ms + (number * 1_000 / MESSAGES) as u64);
            let one = |number: usize| Message::new(number.to_string()).deliver_at(due(number));
            let batch = (first..first + BATCH).map(one).collect();
            producer.send_batch(batch).await.expect("a receipt");
        }
        println!("scheduled {} ms before they are due", due_ms.saturating_sub(wall_ms()));
        for number in 0..MESSAGES {
            let message = next(&mut reader, PATIENCE).await;
            assert_eq!(text(&message), number.to_string(), "by due time, ties as they were sent");
            let own_due_ms = due_ms + (number * 1_000 / MESSAGES) as u64;
            assert!(message.stored.0 >= own_due_ms, "{number} is early");
        }
        println!("all were there {} ms after the last was due", wall_ms() - due_ms - 1_000);
        let again = producer.send(Message::new("on").delay(Duration::from_millis(300))).await;
        again.expect("a receipt");
        assert_eq!(text(&next(&mut reader, PATIENCE).await), "on");
        client.close().await;
    });
}

#[test]
fn s15_earliest_first_and_ties_in_the_order_of_sending() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let (producer, mut reader) = (producer(&client, "t"), reader(&client, "t"));
        let begun_ms = wall_ms();
        for seconds in [30, 10, 20] {
            send(&producer, &seconds.to_string(), begun_ms + seconds * 1_000).await;
        }
        // Together, so that they are all there long before they are due.
        let mut ties = Vec::new();
        for number in 0..100 {
            let due = TimestampMs(begun_ms + 5_000);
            let message = Message::new(format!("tie {number}")).deliver_at(due);
            ties.push(producer.enqueue(message).await.expect("room"));
        }
        for receipt in ties {
            receipt.await.expect("a receipt");
        }
        for number in 0..100 {
            let message = next(&mut reader, PATIENCE).await;
            assert_eq!(text(&message), format!("tie {number}"));
        }
        for seconds in [10, 20, 30] {
            let message = next(&mut reader, PATIENCE).await;
            assert_eq!(text(&message), seconds.to_string());
            assert!(message.stored.0 >= begun_ms + seconds * 1_000, "early");
        }
        client.close().await;
    });
}

#[test]
fn what_is_recalled_never_comes_and_what_waits_is_listed() {
    let home = Home::new().with("GRUS_FAULT_SWITCHES", "1");
    let broker = home.start();
    create(&home, "t", 2);
    let lines = "first\nsecond\nthird\n";
    let produce = ["produce", "t", "--queue", "1", "--delay", "1h", "--json"];
    let receipts = home.grus_fed(&produce, lines.as_bytes()).ok().json();
    let handles: Vec<String> = receipts
        .iter()
        .map(|receipt| receipt["handle"].as_str().expect("a handle").to_owned())
        .collect();
    assert_eq!(handles.len(), 3);
    assert!(receipts[0].get("offset").is_none(), "no offset yet: {}", receipts[0]);
    assert_eq!(kept(&home, "t"), 0, "nothing is to be read yet");

    let listed = home.grus(&["delay", "list", "t", "--json", "--bodies"]).ok().json();
    let field = |name: &str| -> Vec<String> {
        let text = |one: &serde_json::Value| one[name].as_str().expect(name).to_owned();
        listed.iter().map(text).collect()
    };
    assert_eq!(field("handle"), handles);
    let told = receipts.iter().map(|receipt| receipt["due"].as_str().expect("a due time"));
    assert_eq!(field("due"), told.collect::<Vec<_>>(), "to the millisecond");
    assert_eq!(field("body"), ["first", "second", "third"]);
    assert_eq!(home.grus(&["delay", "list", "t", "--count"]).ok().text().trim(), "3");
    let shown = home.grus(&["delay", "show", &handles[1]]).ok().text();
    assert!(shown.contains("second") && shown.contains(&handles[1]), "{shown}");
    let (status, page) = broker.get("/scheduled?topic=t");
    assert_eq!(status, 200, "{page}");
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(
        (&page["pending"], &page["messages"][2]["handle"]),
        (&3.into(), &handles[2].clone().into())
    );
    assert_eq!(page["messages"][0]["message"]["body"]["value"], "first");

    home.grus(&["delay", "recall", &handles[1]]).ok();
    let again = home.grus(&["delay", "recall", &handles[1]]);
    assert!(again.refused().contains("not scheduled"));
    assert!(home.grus(&["delay", "show", &handles[1]]).refused().contains("not scheduled"));
    broker.kill();
    let _broker = home.start();
    let (status, answer) = post(home.http, "/fault/clock?ms=3600000").expect("an answer");
    assert_eq!(status, 202, "{answer}");
    block_on(async {
        let client = connect(&home).await;
        let mut reader = reader(&client, "t");
        assert_eq!(text(&next(&mut reader, PATIENCE).await), "first");
        assert_eq!(text(&next(&mut reader, PATIENCE).await), "third");
        nothing_for(&mut reader, Duration::from_secs(1)).await;
        client.close().await;
    });
    assert!(home.grus(&["delay", "recall", &handles[0]]).refused().contains("released"));
}

#[test]
fn a_topic_of_kind_delay_takes_only_what_has_a_due_time() {
    let home = Home::new();
    let _broker = home.start();
    home.grus(&["topic", "create", "later", "--kind", "delay", "--queues", "1"]).ok();
    let described = home.grus(&["topic", "describe", "later", "--json"]).ok().json();
    assert_eq!(described[0]["kind"], "delay");
    let refused = home.grus_fed(&["produce", "later"], b"now\n").refused();
    assert!(refused.contains("due time"), "{refused}");
    home.grus_fed(&["produce", "later", "--delay", "100ms"], b"soon\n").ok();
    home.grus_fed(&["produce", "later", "--at", "2001-01-01T00:00:00Z"], b"long ago\n").ok();
    let consume = ["consume", "later", "--from", "first", "--max", "2", "--idle-exit", "30s"];
    let mut read: Vec<String> =
        home.grus(&consume).ok().text().lines().map(str::to_owned).collect();
    read.sort();
    assert_eq!(read, ["long ago", "soon"]);
}

/// Seven messages, each sent another way and due a minute behind the one before it; the first is due at
/// `base_ms`.
async fn sent_in_every_way(producer: &Producer, base_ms: u64) {
    let message = |nth: u64| {
        let due = TimestampMs(base_ms + nth * 60_000);
        Message::new(format!("m{nth}")).key(format!("k{}", nth % 3)).deliver_at(due)
    };
    let mut told = vec![producer.send(message(0)).await.expect("a receipt")];
    told.push(producer.enqueue(message(1)).await.expect("room").await.expect("a receipt"));
    let (answered, answer) = tokio::sync::oneshot::channel();
    producer.send_async(message(2), move |receipt| drop(answered.send(receipt)));
    told.push(answer.await.expect("an answer").expect("a receipt"));
    producer.send_one_way(message(3));
    let batch = producer.send_batch(vec![message(4), message(5)]).await.expect("a receipt");
    told.extend(batch.receipts());
    let once = producer.send(message(6).dedup_key("once")).await.expect("a receipt");
    let again = producer.send(message(6).dedup_key("once")).await.expect("a receipt");
    assert_eq!((again.scheduled.as_ref(), again.duplicate), (once.scheduled.as_ref(), true));
    told.push(once);
    assert!(told.iter().all(|receipt| receipt.scheduled.is_some()), "{told:?}");
    producer.flush().await.expect("all are there");
    assert_eq!(producer.one_way_failures(), 0);
}

#[test]
fn every_way_to_send_takes_a_due_time_and_what_waits_is_found_by_topic_time_and_key() {
    const MINUTE_MS: u64 = 60_000;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 2);
    create(&home, "other", 1);
    block_on(async {
        let client = connect(&home).await;
        let elsewhere = producer(&client, "other");
        let message = Message::new("elsewhere").delay(Duration::from_hours(2));
        elsewhere.send(message).await.expect("a receipt");
        let base_ms = wall_ms() + 60 * MINUTE_MS;
        sent_in_every_way(&producer(&client, "t"), base_ms).await;

        let of_topic = ScheduledFilter::topic("t".try_into().expect("a name"));
        let (from, until) = (base_ms + 2 * MINUTE_MS, base_ms + 5 * MINUTE_MS);
        let of_time = ScheduledFilter {
            from: TimestampMs(from),
            until: TimestampMs(until),
            ..of_topic.clone()
        };
        let of_key = ScheduledFilter { key: Some("k1".into()), ..of_topic.clone() };
        let (mut of_queue, mut handles) = (Vec::new(), Vec::new());
        for queue in 0..2 {
            let filter = ScheduledFilter { queue: Some(QueueId(queue)), ..of_topic.clone() };
            of_queue.extend(found(&client, &filter).await);
        }
        of_queue.sort();
        assert_eq!(of_queue.join(" "), "m0 m1 m2 m3 m4 m5 m6", "each in one of its queues");
        assert_eq!(found(&client, &of_topic).await.join(" "), "m0 m1 m2 m3 m4 m5 m6");
        assert_eq!(found(&client, &of_time).await.join(" "), "m2 m3 m4");
        assert_eq!(found(&client, &of_key).await.join(" "), "m1 m4");
        assert_eq!(found(&client, &ScheduledFilter::default()).await.len(), 8);

        let page = client.list_scheduled(&of_topic, None, 100, false).await.expect("a page");
        for message in page.messages {
            let shown = client.show_scheduled(&message.handle).await.expect("an answer");
            assert_eq!(shown.expect("it waits").due, message.due);
            handles.push(message.handle);
        }
        assert_eq!(client.recall_all(&handles).await.expect("answers"), [true; 7]);
        assert!(found(&client, &of_topic).await.is_empty());
        client.close().await;
    });
    assert_eq!(kept(&home, "t"), 0);
}

/// Bodies of what waits and is meant, page by page; as many as are counted.
async fn found(client: &Client, filter: &ScheduledFilter) -> Vec<String> {
    let (mut bodies, mut after) = (Vec::new(), None);
    loop {
        let page = client.list_scheduled(filter, after, 3, true).await.expect("a page");
        for message in page.messages {
            let body = message.record.expect("its record").body_bytes();
            bodies.push(String::from_utf8_lossy(&body).into_owned());
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let count = client.count_scheduled(filter).await.expect("a count");
    assert_eq!(count, bodies.len() as u64, "{filter:?}");
    bodies
}
