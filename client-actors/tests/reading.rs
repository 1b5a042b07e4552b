//! A reader against the fake broker.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::time::Duration;

use fake::{FakeBroker, PATIENCE};
use grus_client::protocol::batch::BATCH_HEADER_BYTES;
use grus_client::protocol::{ProducerEpoch, ProducerId, RecordBatch, Sequence, Term};
use grus_client::{
    Client, ClientConfig, ErrorCode, Message, MissingTopic, Offset, OutOfRange, Producer,
    ProducerConfig, QueueId, Queues, ReadError, Reader, ReaderConfig, StartAt, TimestampMs,
    TopicChange,
};

async fn client(broker: &FakeBroker) -> Client {
    Client::connect(ClientConfig::new([broker.address()])).await.unwrap()
}

fn producer(client: &Client) -> Producer {
    client.producer(ProducerConfig::new("orders").unwrap()).unwrap()
}

fn config(start: StartAt) -> ReaderConfig {
    ReaderConfig::new("orders", start).unwrap()
}

fn reader(client: &Client, start: StartAt) -> Reader {
    client.reader(config(start)).unwrap()
}

/// Sends `numbers` to queue 0, three a batch.
async fn send(producer: &Producer, numbers: std::ops::Range<u32>) {
    let all: Vec<_> = numbers.collect();
    for three in all.chunks(3) {
        let messages =
            three.iter().map(|number| Message::new(number.to_string()).queue(QueueId(0))).collect();
        producer.send_batch(messages).await.unwrap();
    }
}

async fn next(reader: &mut Reader) -> u32 {
    let message = within(reader.next()).await.unwrap();
    std::str::from_utf8(message.body()).unwrap().parse().unwrap()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

async fn take(reader: &mut Reader, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(next(reader).await);
    }
    numbers
}

#[tokio::test]
async fn a_reader_starts_where_it_is_told() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    let producer = producer(&client);
    send(&producer, 0..9).await;
    let stored = broker.state().queue("orders", 0).batches[2].stored;

    let mut from_first = reader(&client, StartAt::First);
    assert_eq!(take(&mut from_first, 9).await, (0..9).collect::<Vec<_>>());
    let mut from_offset = reader(&client, StartAt::Offset(Offset(4)));
    let message = within(from_offset.next()).await.unwrap();
    assert_eq!((message.offset, message.body()), (Offset(4), &b"4"[..]), "amid a batch");
    let mut from_time = reader(&client, StartAt::Time(stored));
    assert_eq!(next(&mut from_time).await, 6);
    let mut from_later = reader(&client, StartAt::Time(TimestampMs(stored.0 + 1_000_000)));
    let mut from_last = reader(&client, StartAt::Last);
    broker.until("all are parked", |state| state.parked == 5).await;
    send(&producer, 9..10).await;
    assert_eq!((next(&mut from_last).await, next(&mut from_later).await), (9, 9));
    assert_eq!(next(&mut from_first).await, 9);
}

#[tokio::test]
async fn a_message_sent_meanwhile_ends_the_wait() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 2);
    let client = client(&broker).await;
    let mut reader = reader(&client, StartAt::First);
    let waiting = tokio::spawn(async move { reader.next().await.map(|message| message.id()) });
    broker.until("it waits at the broker", |state| state.fetch_requests >= 2).await;
    let receipt = producer(&client).send(Message::new("x")).await.unwrap();
    assert_eq!(within(waiting).await.unwrap(), Ok(receipt.id));
}

#[tokio::test]
async fn dropping_a_wait_loses_nothing() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    let producer = producer(&client);
    let mut reader = reader(&client, StartAt::First);
    let mut numbers = Vec::new();
    for round in 0..50 {
        send(&producer, round..round + 1).await;
        // Given up at once, mostly while the answer is under way.
        if let Ok(message) = tokio::time::timeout(Duration::ZERO, reader.next()).await {
            numbers.push(message.unwrap().offset.0);
        }
    }
    while numbers.len() < 50 {
        numbers.push(within(reader.next()).await.unwrap().offset.0);
    }
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn batches_come_as_messages_or_as_they_are_stored() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    send(&producer(&client), 0..6).await;
    let mut by_batch = reader(&client, StartAt::Offset(Offset(1)));
    let batch = within(by_batch.next_batch()).await.unwrap();
    assert_eq!(batch.iter().map(|message| message.offset.0).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(within(by_batch.next_batch()).await.unwrap().len(), 3);

    let mut stored = reader(&client, StartAt::Offset(Offset(2)));
    let batch = within(stored.next_stored_batch()).await.unwrap();
    assert_eq!((batch.len(), batch.is_empty(), batch.queue), (1, false, QueueId(0)));
    let views: Vec<_> = batch.views().map(|(at, record)| (at.0, record.body().to_vec())).collect();
    assert_eq!(views, [(2, b"2".to_vec())]);
}

#[tokio::test]
async fn restarts_and_cuts_leave_no_gap_and_no_repetition() {
    let mut broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut client_config = ClientConfig::new([broker.address()]);
    client_config.reconnect_wait_max = Duration::from_millis(5);
    let client = Client::connect(client_config).await.unwrap();
    send(&producer(&client), 0..900).await;
    let mut small = config(StartAt::First);
    small.fetch_bytes_max = 1024;
    small.buffer_bytes_max = 2048;
    let mut reader = client.reader(small).unwrap();
    let mut numbers = Vec::new();
    for round in 0..9_u64 {
        numbers.extend(take(&mut reader, 100).await);
        let cuts = (0..6).map(|n| 200 + (n + 6 * round) * 97 % 2_500);
        broker.state().faults.cut_after_bytes = cuts.collect();
        broker.kill().await;
        broker.resume().await;
    }
    assert_eq!(numbers, (0..900).collect::<Vec<_>>());
}

#[tokio::test]
async fn it_reads_ahead_within_its_bound() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    let sender = producer(&client);
    for _ in 0..200 {
        sender.send(Message::new(vec![b'1'; 1_000])).await.unwrap();
    }
    let mut small = config(StartAt::First);
    small.fetch_bytes_max = 4 * 1024;
    small.buffer_bytes_max = 16 * 1024;
    let mut reader = client.reader(small).unwrap();
    broker.until("it has read ahead", |state| state.fetch_requests >= 4).await;
    let more = broker.until("it reads on", |state| state.fetch_requests > 6);
    let more = tokio::time::timeout(Duration::from_millis(300), more).await;
    assert!(more.is_err(), "more than six fetches of 4 KiB for a buffer of 16 KiB");
    for offset in 0..200 {
        assert_eq!(within(reader.next()).await.unwrap().offset, Offset(offset));
    }
}

#[tokio::test]
async fn an_offset_that_is_gone_is_an_error_once_or_the_nearest_by_policy() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    send(&producer(&client), 0..9).await;
    {
        let mut state = broker.state();
        let queue = state.queue("orders", 0);
        queue.batches.drain(..2);
        queue.log_start = Offset(6);
    }
    let mut strict = reader(&client, StartAt::Offset(Offset(3)));
    let expected = ReadError::OffsetOutOfRange {
        queue: QueueId(0),
        asked: Offset(3),
        log_start: Offset(6),
        end_offset: Offset(9),
    };
    assert_eq!(within(strict.next()).await.unwrap_err(), expected);
    strict.seek(QueueId(0), StartAt::First).await.unwrap();
    assert_eq!(next(&mut strict).await, 6);

    let mut nearest = config(StartAt::Offset(Offset(3)));
    nearest.out_of_range = OutOfRange::Nearest;
    assert_eq!(next(&mut client.reader(nearest).unwrap()).await, 6);
}

#[tokio::test]
async fn seeking_drops_what_was_read_ahead() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    send(&producer(&client), 0..30).await;
    let mut reader = reader(&client, StartAt::First);
    assert_eq!(take(&mut reader, 5).await, [0, 1, 2, 3, 4]);
    reader.seek(QueueId(0), StartAt::Offset(Offset(20))).await.unwrap();
    assert_eq!(next(&mut reader).await, 20);
    reader.seek(QueueId(0), StartAt::First).await.unwrap();
    assert_eq!(take(&mut reader, 30).await, (0..30).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_missing_topic_is_an_error_or_waited_for() {
    let broker = FakeBroker::start().await;
    let client = client(&broker).await;
    let mut strict = reader(&client, StartAt::First);
    let error = within(strict.next()).await.unwrap_err();
    assert!(
        matches!(&error, ReadError::Topic { refusal, .. } if refusal.code == ErrorCode::UnknownTopic),
        "{error}"
    );
    assert!(!broker.state().topics.contains_key("orders"), "a reader makes no topic");
    let mut patient = config(StartAt::Last);
    patient.missing_topic = MissingTopic::Wait;
    let mut patient = client.reader(patient).unwrap();
    broker.topic("orders", 1);
    // It was not there when the reader started, so all of it is later than that... or it was
    // found before the first message: either way the last one is read.
    let sender = producer(&client);
    let first = async {
        loop {
            sender.send(Message::new("1")).await.unwrap();
            let waited = tokio::time::timeout(Duration::from_millis(50), patient.next()).await;
            if let Ok(message) = waited {
                return message;
            }
        }
    };
    assert_eq!(within(first).await.unwrap().body(), b"1");
    assert!(within(strict.next()).await.is_ok(), "asked again, it is there");
}

#[tokio::test]
async fn queues_can_be_chosen_and_must_exist() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 3);
    let client = client(&broker).await;
    let sender = producer(&client);
    for queue in 0..3 {
        sender.send(Message::new(queue.to_string()).queue(QueueId(queue))).await.unwrap();
    }
    let mut one = config(StartAt::First);
    one.queues = Queues::Only(vec![QueueId(1)]);
    let mut one = client.reader(one).unwrap();
    assert_eq!(next(&mut one).await, 1);
    assert!(tokio::time::timeout(Duration::from_millis(50), one.next()).await.is_err());

    let mut beyond = config(StartAt::First);
    beyond.queues = Queues::Only(vec![QueueId(5)]);
    let error = within(client.reader(beyond).unwrap().next()).await.unwrap_err();
    assert_eq!(error, ReadError::UnknownQueue { queue: QueueId(5), queues: 3 });
}

#[tokio::test]
async fn what_was_never_committed_is_a_typed_error_and_a_later_term_is_none() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    let sender = producer(&client);
    send(&sender, 0..3).await;
    let mut reader = reader(&client, StartAt::First);
    assert_eq!(take(&mut reader, 3).await, [0, 1, 2]);
    broker.state().term = Term(5);
    send(&sender, 3..6).await;
    assert_eq!(take(&mut reader, 3).await, [3, 4, 5], "a later term is no divergence");

    broker.state().queue("orders", 0).batches[1].term = Term(6);
    send(&sender, 6..9).await;
    let diverged = within(reader.next()).await.unwrap_err();
    let agreed = Some((Offset(0), Term(0)));
    assert_eq!(diverged, ReadError::Diverged { queue: QueueId(0), asked: Offset(6), agreed });
    reader.seek(QueueId(0), StartAt::First).await.unwrap();
    assert_eq!(take(&mut reader, 9).await, (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_that_cannot_be_decoded_is_named_and_the_rest_is_read() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let client = client(&broker).await;
    send(&producer(&client), 0..6).await;
    {
        let mut state = broker.state();
        let kept = &mut state.queue("orders", 0).batches[0];
        let mut bytes = kept.batch.bytes().to_vec();
        let record_bytes = (bytes.len() - BATCH_HEADER_BYTES) / 3;
        bytes[BATCH_HEADER_BYTES + record_bytes] = 0x7f; // the length of the second record
        let broken = RecordBatch::from_log(bytes.into()).unwrap();
        kept.batch = broken.restamped(ProducerId(1), ProducerEpoch(0), Sequence(0));
    }
    let mut reader = reader(&client, StartAt::First);
    assert_eq!(next(&mut reader).await, 0);
    let damage = within(reader.next()).await.unwrap_err();
    assert!(matches!(damage, ReadError::Damaged { at: Offset(1), .. }), "{damage}");
    assert_eq!(take(&mut reader, 3).await, [3, 4, 5]);
}

#[tokio::test]
async fn topics_are_managed_and_lost_answers_are_not_errors() {
    let broker = FakeBroker::start().await;
    let client = client(&broker).await;
    let settings = grus_client::TopicSettings { queues: 2, ..Default::default() };
    broker.state().faults.cut_before_topic_reply = true;
    let made = client.create_topic("orders", settings.clone()).await.unwrap();
    assert!(made.created);
    let again = client.create_topic("orders", settings).await.unwrap_err();
    assert!(
        matches!(&again, grus_client::ClientError::Refused(refusal)
            if refusal.code == ErrorCode::TopicExists),
        "{again}"
    );
    let change = TopicChange { queues: Some(3), ..TopicChange::default() };
    assert_eq!(client.alter_topic("orders", change).await.unwrap().settings.queues, 3);
    assert_eq!(client.describe_topic("orders").await.unwrap().queues.len(), 3);
    assert_eq!(client.queue_count("orders").await.unwrap(), 3);
    for name in ["a", "b", "c", "d", "e"] {
        broker.topic(name, 1);
    }
    let names: Vec<_> =
        client.list_topics().await.unwrap().iter().map(|topic| topic.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "orders"]);
    broker.state().faults.cut_before_topic_reply = true;
    client.delete_topic("orders").await.unwrap();
    assert!(client.describe_topic("orders").await.is_err());
    assert!(client.describe_topic("../x").await.is_err());
    let other = client.clone();
    client.close().await;
    assert_eq!(other.list_topics().await.unwrap_err(), grus_client::ClientError::Closed);
}
