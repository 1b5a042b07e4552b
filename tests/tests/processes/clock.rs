//! The wall clock of a running broker jumps: an hour ahead, an hour back.

use std::time::Duration;

use grus_client::{Message, Producer, Reader, TimestampMs};
use grus_tests::broker::Home;
use grus_tests::http::post;
use grus_tests::watch::{PATIENCE, Watch, wall_ms};

use crate::program::{block_on, connect, reader};
use crate::{create, kept};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: i64 = 3_600_000;

fn move_clock(home: &Home, ms: i64) {
    let (status, answer) = post(home.http, &format!("/fault/clock?ms={ms}")).expect("an answer");
    assert_eq!(status, 202, "{answer}");
}

async fn send(producer: &Producer, body: &str, due_ms: u64) {
    let message = Message::new(body.to_owned()).deliver_at(TimestampMs(due_ms));
    producer.send(message).await.expect("a receipt");
}

async fn next(reader: &mut Reader) -> String {
    let next = tokio::time::timeout(PATIENCE, reader.next()).await.expect("a message in time");
    String::from_utf8_lossy(next.expect("a message").body()).into_owned()
}

async fn nothing_for(reader: &mut Reader, time: Duration) {
    if let Ok(early) = tokio::time::timeout(time, reader.next()).await {
        panic!("{:?} came early", early.expect("a message").body());
    }
}

#[test]
fn an_hour_ahead_releases_what_is_due_and_an_hour_back_nothing_early_or_twice() {
    let home = Home::new().with("GRUS_FAULT_SWITCHES", "1");
    let mut broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(crate::producing::config("t"));
        let (producer, mut reader) = (producer.expect("a producer"), reader(&client, "t"));
        let begun_ms = wall_ms();
        send(&producer, "in 50 minutes", begun_ms + 50 * MINUTE_MS).await;
        send(&producer, "in 10 minutes", begun_ms + 10 * MINUTE_MS).await;
        send(&producer, "in 2 hours", begun_ms + 120 * MINUTE_MS).await;
        nothing_for(&mut reader, Duration::from_secs(1)).await;

        move_clock(&home, HOUR_MS);
        assert_eq!(next(&mut reader).await, "in 10 minutes");
        assert_eq!(next(&mut reader).await, "in 50 minutes");
        let jumped = |line: &str| line.contains("the clock has jumped forward");
        broker.process.wait_for("word of the jump", PATIENCE, jumped);
        nothing_for(&mut reader, Duration::from_secs(1)).await;

        // Back again. What is due a second from now, by its clock, comes then and not before.
        move_clock(&home, -HOUR_MS);
        let jumped = |line: &str| line.contains("the clock has jumped back");
        broker.process.wait_for("word of the jump", PATIENCE, jumped);
        let watch = Watch::start();
        let message = Message::new("in a second").delay(Duration::from_secs(1));
        producer.send(message).await.expect("a receipt");
        send(&producer, "in half an hour", wall_ms() + 30 * MINUTE_MS).await;
        assert_eq!(next(&mut reader).await, "in a second");
        assert!(watch.elapsed() >= Duration::from_secs(1), "it came early");
        nothing_for(&mut reader, Duration::from_secs(1)).await;

        // Earlier than it ever was: what waits goes on waiting, across a kill as well.
        move_clock(&home, -HOUR_MS);
        broker.process.wait_for("word of the jump", PATIENCE, jumped);
        nothing_for(&mut reader, Duration::from_secs(2)).await;
        let log = broker.process.log();
        let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
        assert_eq!(said("the clock has jumped forward"), 1, "{log}");
        assert_eq!(said("the clock has jumped back"), 2, "once each: {log}");
        broker.kill();
        let _broker = home.start();
        nothing_for(&mut reader, Duration::from_secs(1)).await;
        assert_eq!(kept(&home, "t"), 3, "each once");
        let waiting = client.count_scheduled(&grus_client::ScheduledFilter::default()).await;
        assert_eq!(waiting.expect("a count"), 2, "two hours, half an hour");
        client.close().await;
    });
}
