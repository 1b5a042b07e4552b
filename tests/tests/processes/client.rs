//! The client library against a real broker: S3, S4, S5 and S21 as a program sees them.

use std::sync::mpsc::channel;
use std::time::Duration;

use grus_client::{
    Client, Message, Producer, ProducerConfig, ReadMode, ReaderConfig, SendError, StartAt,
};
use grus_tests::broker::Home;
use grus_tests::watch::Watch;

use crate::program::{block_on, connect, reader};
use crate::{create, kept, read_all};

fn producer(client: &Client, topic: &str) -> Producer {
    client.producer(crate::producing::config(topic)).expect("a producer")
}

fn body(number: usize) -> String {
    format!("message {number}")
}

#[test]
fn s3_async_answers_exactly_once() {
    const MESSAGES: usize = 1_000;
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let producer = producer(&client, "t");
        let (answered, answers) = channel();
        let send = |number: usize| {
            let answered = answered.clone();
            producer.send_async(Message::new(body(number)), move |answer| {
                answered.send((number, answer.is_ok())).expect("the test listens");
            });
        };
        (0..MESSAGES).for_each(send);
        producer.flush().await.expect("an open producer");
        let mut heard: Vec<(usize, bool)> = answers.try_iter().collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..MESSAGES).map(|number| (number, true)).collect::<Vec<_>>());

        broker.kill();
        (0..MESSAGES).for_each(send);
        producer.flush().await.expect("an open producer");
        let mut heard: Vec<(usize, bool)> = answers.try_iter().collect();
        heard.sort_unstable();
        assert_eq!(heard, (0..MESSAGES).map(|number| (number, false)).collect::<Vec<_>>());
        client.close().await;
        assert_eq!(answers.try_iter().count(), 0, "nothing is answered twice");
    });
}

#[test]
fn s4_a_batch_goes_to_one_queue_in_order_or_not_at_all() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let client = connect(&home).await;
        let producer = producer(&client, "t");
        let whole = (0..100).map(|number| Message::new(body(number))).collect();
        let receipt = producer.send_batch(whole).await.expect("a receipt");
        assert_eq!(receipt.ids.len(), 100);

        let too_long = vec![b'x'; (client.limits().message_bytes_max + 1) as usize];
        let mut broken: Vec<Message> = (0..10).map(|number| Message::new(body(number))).collect();
        broken[7] = Message::new(too_long);
        match producer.send_batch(broken).await {
            Err(SendError::Invalid { index, .. }) => assert_eq!(index, 7),
            other => panic!("{other:?}"),
        }
        client.close().await;

        let read = read_all(&home, "t");
        let expected: Vec<String> = (0..100).map(body).collect();
        let bodies: Vec<_> = read.iter().filter_map(|message| message.body.clone()).collect();
        assert_eq!(bodies, expected, "nothing of the broken batch is there");
        assert!(read.iter().all(|message| message.queue == u64::from(receipt.queue.0)));
    });
}

#[test]
fn producer_and_reader_go_on_across_a_restart() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let mut config = ProducerConfig::new("t").expect("a name");
        config.retries = 19; // a window that outlives the start of a broker on a busy machine
        let producer = client.producer(config).expect("a producer");
        let mut reader = reader(&client, "t");
        producer.send(Message::new("before")).await.expect("a receipt");
        assert_eq!(reader.next().await.expect("a message").body(), b"before");
        broker.kill();
        let pending = producer.enqueue(Message::new("meanwhile")).await.expect("room");
        let _broker = home.start();
        let receipt = pending.await.expect("a receipt, the broker is back within the window");
        let message = reader.next().await.expect("a message");
        assert_eq!(
            (message.body(), message.id(), message.offset),
            (&b"meanwhile"[..], receipt.id, receipt.offset)
        );
        client.close().await;
    });
    assert_eq!(home.grus(&["topic", "list"]).status.code(), Some(1), "the broker is gone by now");
    let _broker = home.start();
    assert_eq!(kept(&home, "t"), 2);
}

#[test]
fn s21_a_message_sent_meanwhile_is_read_long_before_the_hold_is_over() {
    const SENDS: usize = 100;
    const HOLD: Duration = Duration::from_mins(1);
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let (client, other) = (connect(&home).await, connect(&home).await);
        let producer = producer(&client, "t");
        let mut config = ReaderConfig::new("t", StartAt::First).expect("a name");
        config.mode = ReadMode::Poll;
        config.poll_wait = HOLD;
        let mut reader = other.reader(config).expect("a reader");
        let mut took = Vec::new();
        for number in 0..SENDS {
            let watch = Watch::start();
            let (sent, read) =
                tokio::join!(producer.send(Message::new(body(number))), reader.next());
            took.push(watch.elapsed());
            let (sent, read) = (sent.expect("a receipt"), read.expect("a message"));
            assert_eq!(read.id(), sent.id);
        }
        took.sort();
        println!("sent, stored and read: median {:?}, most {:?}", took[SENDS / 2], took[SENDS - 1]);
        assert!(took[SENDS - 1] < HOLD / 2, "{took:?}");
        client.close().await;
        other.close().await;
    });
}
