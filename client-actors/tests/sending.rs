//! A producer against the fake broker.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fake::{FakeBroker, PATIENCE};
use grus_client::protocol::RecordError;
use grus_client::{
    Client, ClientConfig, Compression, Durability, ErrorCode, Message, Offset, Producer,
    ProducerConfig, QueueChoice, QueueId, SendError,
};
use tokio::sync::mpsc;

/// Whose sends do not fail because the machine is busy with other tests.
fn quick() -> ProducerConfig {
    let mut config = ProducerConfig::new("orders").unwrap();
    config.send_timeout = PATIENCE;
    config
}

async fn producer(broker: &FakeBroker, config: ProducerConfig) -> (Client, Producer) {
    let mut client_config = ClientConfig::new([broker.address()]);
    client_config.reconnect_wait_max = Duration::from_millis(20);
    let client = Client::connect(client_config).await.unwrap();
    let producer = client.producer(config).unwrap();
    (client, producer)
}

fn numbers(bodies: &[Vec<u8>]) -> Vec<u32> {
    bodies.iter().map(|body| String::from_utf8_lossy(body).parse().unwrap()).collect()
}

#[tokio::test]
async fn a_message_is_stored_with_all_it_carries_and_its_receipt_says_where() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 3);
    let (client, producer) = producer(&broker, quick()).await;

    let message = Message::new("42").key("k").tag("paid").header("a", "1").header("a", "2");
    let receipt = producer.send(message.queue(QueueId(2)).priority(7)).await.unwrap();
    assert_eq!((receipt.queue, receipt.offset), (QueueId(2), Offset(0)));
    assert_eq!((receipt.durability, receipt.duplicate), (Durability::Persisted, false));
    assert_eq!(receipt.topic.as_str(), "orders");
    assert_eq!(receipt.id.0.get_version_num(), 7);

    {
        let mut state = broker.state();
        let kept = &state.queue("orders", 2).batches[0];
        let record = kept.batch.records().next().unwrap().unwrap();
        assert_eq!(
            (record.id(), record.body(), record.tag()),
            (receipt.id, &b"42"[..], Some("paid"))
        );
        assert_eq!(record.keys().collect::<Vec<_>>(), [b"k"]);
        assert_eq!(record.headers().collect::<Vec<_>>(), [("a", &b"1"[..]), ("a", b"2")]);
        assert_eq!(record.priority(), 7);
        assert!(record.born().0 > 1_700_000_000_000, "born by the client's clock");
    }
    client.close().await;
}

#[tokio::test]
async fn many_sends_at_once_share_batches_and_keep_their_order() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let (_client, producer) = producer(&broker, quick()).await;
    let mut pending = Vec::new();
    for number in 0..5_000 {
        pending.push(producer.enqueue(Message::new(number.to_string())).await.unwrap());
    }
    for (number, receipt) in (0..).zip(pending) {
        assert_eq!(receipt.await.unwrap().offset, Offset(number));
    }
    let mut state = broker.state();
    assert_eq!(numbers(&state.queue("orders", 0).bodies()), (0..5_000).collect::<Vec<_>>());
    assert!(state.produce_requests < 1_000, "{} requests", state.produce_requests);
}

#[tokio::test]
async fn messages_of_one_key_share_a_queue_and_round_robin_is_even() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 4);
    let mut config = quick();
    config.queue_choice = QueueChoice::RoundRobin;
    let (_client, producer) = producer(&broker, config).await;
    let mut counts = [0; 4];
    for _ in 0..40 {
        let receipt = producer.send(Message::new("")).await.unwrap();
        counts[receipt.queue.0 as usize] += 1;
    }
    assert_eq!(counts, [10; 4]);
    let first = producer.send(Message::new("").key("a")).await.unwrap();
    for _ in 0..10 {
        let next = producer.send(Message::new("").key("a")).await.unwrap();
        assert_eq!(next.queue, first.queue);
    }
}

#[tokio::test]
async fn a_batch_is_one_batch_in_one_queue() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 4);
    let (_client, producer) = producer(&broker, quick()).await;
    let messages = (0..100).map(|number| Message::new(number.to_string())).collect();
    let receipt = producer.send_batch(messages).await.unwrap();
    let receipts: Vec<_> = receipt.receipts().collect();
    assert_eq!((receipts.len(), receipts[99].offset), (100, Offset(receipt.base_offset.0 + 99)));
    let mut state = broker.state();
    let queue = state.queue("orders", receipt.queue.0 as usize);
    assert_eq!(numbers(&queue.bodies()), (0..100).collect::<Vec<_>>());
    assert_eq!(queue.batches.len(), 1);
}

#[tokio::test]
async fn a_batch_with_a_wrong_message_names_it_and_nothing_of_it_is_sent() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 4);
    let (_client, producer) = producer(&broker, quick()).await;

    let mut messages: Vec<_> = (0..10).map(|number| Message::new(number.to_string())).collect();
    messages[7] = Message::new("7").tag("x".repeat(300));
    let error = producer.send_batch(messages).await.unwrap_err();
    let SendError::Invalid { index: 7, reason: RecordError::Limit { name, .. } } = error else {
        panic!("{error}");
    };
    assert_eq!(name, "tag_bytes_max");

    let mixed = vec![Message::new("").queue(QueueId(1)), Message::new("").queue(QueueId(2))];
    assert_eq!(producer.send_batch(mixed).await, Err(SendError::MixedQueues { index: 1 }));
    let mixed = vec![Message::new("").order_key("a"), Message::new("").order_key("b")];
    assert_eq!(producer.send_batch(mixed).await, Err(SendError::MixedQueues { index: 1 }));
    assert_eq!(producer.send_batch(Vec::new()).await, Err(SendError::EmptyBatch));
    assert_eq!(broker.state().produce_requests, 0);
}

#[tokio::test]
async fn a_wrong_message_fails_alone() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let (_client, producer) = producer(&broker, quick()).await;
    let before = producer.enqueue(Message::new("1")).await.unwrap();
    let wrong = producer.enqueue(Message::new(vec![0; 5 * 1024 * 1024])).await.unwrap();
    let after = producer.enqueue(Message::new("2")).await.unwrap();
    assert!(matches!(wrong.await, Err(SendError::Invalid { index: 0, .. })));
    assert!(before.await.is_ok() && after.await.is_ok());
    let elsewhere = producer.send(Message::new("").queue(QueueId(9))).await;
    assert_eq!(elsewhere, Err(SendError::UnknownQueue { queue: QueueId(9), queues: 1 }));
    assert_eq!(numbers(&broker.state().queue("orders", 0).bodies()), [1, 2]);
}

#[tokio::test]
async fn a_callback_is_called_once_for_each_message_and_may_panic() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 2);
    let (client, producer) = producer(&broker, quick()).await;
    let (told, mut heard) = mpsc::unbounded_channel();
    for number in 0..500 {
        let told = told.clone();
        producer.send_async(Message::new(number.to_string()), move |result| {
            told.send(result.is_ok()).unwrap();
            assert!(number % 100 != 50, "injected");
        });
    }
    let flushed = producer.flush().await.unwrap();
    assert_eq!((flushed.stored, flushed.failed), (500, 0));
    drop(told);
    client.close().await;
    let mut count = 0;
    while let Some(ok) = heard.recv().await {
        assert!(ok);
        count += 1;
    }
    assert_eq!(count, 500);
}

#[tokio::test]
async fn a_client_waits_for_a_broker_that_is_not_up_yet() {
    let mut broker = FakeBroker::stopped();
    let config = ClientConfig::new([broker.address()]);
    let connecting = tokio::spawn(Client::connect(config.clone()));
    let started = Client::start(config.clone()).unwrap();
    let producer = started.producer(quick()).unwrap();
    let early = producer.enqueue(Message::new("early")).await.unwrap();
    tokio::task::yield_now().await;
    assert!(!connecting.is_finished());

    let mut impatient = config;
    impatient.connect_wait_max = Some(Duration::from_millis(60));
    let refused = Client::connect(impatient).await.unwrap_err();
    assert!(refused.to_string().contains(&broker.address()), "{refused}");

    broker.resume().await;
    connecting.await.unwrap().unwrap().close().await;
    assert_eq!(early.await.unwrap().offset, Offset(0));
}

#[tokio::test]
async fn a_topic_is_made_or_its_absence_is_a_typed_error() {
    let broker = FakeBroker::start().await;
    let (client, producer) = producer(&broker, quick()).await;
    producer.send(Message::new("made")).await.unwrap();
    assert_eq!(broker.state().topics["orders"].settings.queues, 4);

    broker.state().faults.no_auto_create = true;
    let elsewhere = client.producer(ProducerConfig::new("nowhere").unwrap()).unwrap();
    let error = elsewhere.send(Message::new("")).await.unwrap_err();
    assert!(
        matches!(&error, SendError::Topic { refusal, .. } if refusal.code == ErrorCode::UnknownTopic),
        "{error}"
    );
    assert!(!error.maybe_stored());
    broker.topic("nowhere", 1);
    elsewhere.send(Message::new("there now")).await.unwrap();
}

#[tokio::test]
async fn a_topic_made_anew_is_sent_to_under_its_new_incarnation() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 2);
    let (_client, producer) = producer(&broker, quick()).await;
    for _ in 0..5 {
        producer.send(Message::new("old")).await.unwrap();
    }
    broker.topic("orders", 2);
    for offset in 0..3 {
        let receipt = producer.send(Message::new("new").queue(QueueId(1))).await.unwrap();
        assert_eq!(receipt.offset, Offset(offset));
    }
    assert_eq!(broker.state().bodies("orders")[1], [b"new", b"new", b"new"]);
}

#[tokio::test]
async fn refusals_are_overcome_without_changing_the_order() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let faults = [
        Some((ErrorCode::Overloaded, false)),
        None,
        Some((ErrorCode::Timeout, true)),
        Some((ErrorCode::Timeout, false)),
        None,
        Some((ErrorCode::StorageFull, false)),
        Some((ErrorCode::NotLeader, false)),
        Some((ErrorCode::Unavailable, true)),
    ];
    broker.state().faults.produce = faults.into_iter().cycle().take(64).collect();
    let mut config = quick();
    config.batch_bytes_max = 1024;
    let (_client, producer) = producer(&broker, config).await;
    let mut pending = Vec::new();
    for number in 0..600 {
        pending.push(producer.enqueue(Message::new(number.to_string())).await.unwrap());
    }
    for (number, receipt) in (0..).zip(pending) {
        assert_eq!(receipt.await.unwrap().offset, Offset(number));
    }
    let stored = numbers(&broker.state().queue("orders", 0).bodies());
    assert_eq!(stored, (0..600).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_batch_refused_for_good_does_not_stop_those_behind_it() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let faults = [None, None, Some((ErrorCode::RecordNotAllowed, false))];
    broker.state().faults.produce.extend(faults);
    let (_client, producer) = producer(&broker, quick()).await;
    let mut pending = Vec::new();
    for number in 0..8_u32 {
        let batch = vec![Message::new(number.to_string())];
        pending.push(producer.enqueue_batch(batch).await.unwrap());
    }
    for (number, receipt) in (0..).zip(pending) {
        match receipt.await {
            Ok(_) => assert_ne!(number, 2),
            Err(SendError::Refused(refusal)) => {
                assert_eq!((number, refusal.code), (2, ErrorCode::RecordNotAllowed));
            }
            Err(other) => panic!("{number}: {other}"),
        }
    }
    let stored = numbers(&broker.state().queue("orders", 0).bodies());
    assert_eq!(stored, [0, 1, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn restarts_in_the_middle_lose_double_and_reorder_nothing() {
    let mut broker = FakeBroker::start().await;
    broker.topic("orders", 3);
    let (_client, producer) = producer(&broker, quick()).await;
    let stored = Arc::new(AtomicU32::new(0));
    let sender = tokio::spawn({
        let stored = Arc::clone(&stored);
        async move {
            let mut pending = Vec::new();
            for number in 0..3_000_u32 {
                let message = Message::new(number.to_string()).queue(QueueId(number % 3));
                pending.push(producer.enqueue(message).await.unwrap());
                if number % 50 == 0 {
                    while let Some(receipt) = pending.pop() {
                        receipt.await.unwrap();
                        stored.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
            for receipt in pending {
                receipt.await.unwrap();
            }
        }
    });
    for round in 1..6 {
        let goal = round * 400;
        broker.until("more is stored", |_| stored.load(Ordering::SeqCst) >= goal).await;
        broker.kill().await;
        broker.resume().await;
    }
    sender.await.unwrap();
    for (queue, bodies) in (0..).zip(broker.state().bodies("orders")) {
        let expected: Vec<_> = (0..3_000).filter(|number| number % 3 == queue).collect();
        assert_eq!(numbers(&bodies), expected);
    }
}

#[tokio::test]
async fn connections_cut_at_any_byte_lose_double_and_reorder_nothing() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 2);
    // Short lives of all lengths around what Hello, InitProducer and the first batches take.
    broker.state().faults.cut_after_bytes = (0..60_u64).map(|n| 40 + n * 53 % 3_000).collect();
    let mut client_config = ClientConfig::new([broker.address()]);
    client_config.reconnect_wait_max = Duration::from_millis(5);
    let client = Client::start(client_config).unwrap();
    let mut config = quick();
    config.retries = 100;
    config.batch_bytes_max = 1024;
    let producer = client.producer(config).unwrap();
    let mut pending = Vec::new();
    for number in 0..400_u32 {
        let message = Message::new(number.to_string()).queue(QueueId(number % 2));
        pending.push(producer.enqueue(message).await.unwrap());
    }
    for receipt in pending {
        receipt.await.unwrap();
    }
    for (queue, bodies) in (0..).zip(broker.state().bodies("orders")) {
        let expected: Vec<_> = (0..400).filter(|number| number % 2 == queue).collect();
        assert_eq!(numbers(&bodies), expected);
    }
    assert!(broker.state().connections > 20, "{}", broker.state().connections);
}

#[tokio::test]
async fn without_a_broker_a_producer_is_full_at_its_bound_and_then_times_out() {
    let mut broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut config = quick();
    config.batch_bytes_max = 1024;
    config.pending_bytes_max = 8 * 1024;
    let (client, producer) = producer(&broker, config.clone()).await;
    producer.send(Message::new("first")).await.unwrap();
    broker.kill().await;

    let mut pending = Vec::new();
    let error = loop {
        match producer.try_enqueue(Message::new(vec![b'1'; 100])) {
            Ok(receipt) => pending.push(receipt),
            Err(error) => break error,
        }
        assert!(pending.len() < 100, "not bounded");
    };
    assert_eq!(error, SendError::Full { pending_bytes_max: 8 * 1024 });
    assert!(pending.len() > 20, "{}", pending.len());
    // One whose time is over sooner, and who has room again then.
    (config.send_timeout, config.retries) = (Duration::from_millis(150), 1);
    let hasty = client.producer(config).unwrap();
    for _ in 0..3 {
        let sent: Vec<_> =
            (0..10).map(|_| hasty.try_enqueue(Message::new(vec![b'2'; 400])).unwrap()).collect();
        for receipt in sent {
            let error = receipt.await.unwrap_err();
            assert!(matches!(error, SendError::Timeout { .. }), "{error}");
        }
    }
    broker.resume().await;
    producer.send(Message::new("last")).await.unwrap();
    for receipt in pending {
        receipt.await.unwrap();
    }
}

#[tokio::test]
async fn a_timeout_says_that_the_message_may_be_stored_and_it_is_not_sent_again() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut config = quick();
    // All the others must be stored within what is too long for one of them.
    config.send_timeout = Duration::from_secs(2);
    config.retries = 1;
    let (_client, producer) = producer(&broker, config).await;
    producer.send(Message::new("1")).await.unwrap();
    broker.state().faults.ignores_produce = true;
    let error = producer.send(Message::new("2")).await.unwrap_err();
    assert_eq!(error, SendError::Timeout { maybe_stored: true, cause: None });
    assert!(broker.state().produce_requests >= 3, "it was tried again");
    broker.state().faults.ignores_produce = false;
    for number in 3..6 {
        producer.send(Message::new(number.to_string())).await.unwrap();
    }
    let stored = numbers(&broker.state().queue("orders", 0).bodies());
    assert_eq!(stored, [1, 3, 4, 5], "2 was given up, and its sequence not used again");
}

#[tokio::test]
async fn a_silent_connection_is_replaced() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut client_config = ClientConfig::new([broker.address()]);
    client_config.silence_max = Duration::from_millis(100);
    client_config.open_timeout = Duration::from_millis(100);
    let client = Client::connect(client_config).await.unwrap();
    let producer = client.producer(quick()).unwrap();
    producer.send(Message::new("1")).await.unwrap();
    broker.state().faults.is_mute = true;
    let pending = producer.enqueue(Message::new("2")).await.unwrap();
    broker.until("it connects again", |state| state.connections >= 2).await;
    broker.state().faults.is_mute = false;
    pending.await.unwrap();
    assert_eq!(numbers(&broker.state().queue("orders", 0).bodies()), [1, 2]);
}

#[tokio::test]
async fn closing_sends_what_was_taken_and_ends_all_handles() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut config = quick();
    config.linger = Duration::from_mins(1);
    let (client, producer) = producer(&broker, config).await;
    let pending = producer.enqueue(Message::new("1")).await.unwrap();
    let other = producer.clone();
    client.close().await;
    pending.await.unwrap();
    let error = other.send(Message::new("2")).await.unwrap_err();
    assert_eq!(error, SendError::Closed { maybe_stored: false });
    assert!(other.flush().await.is_err());
    assert!(producer.send(Message::new("3")).await.is_err());
}

#[tokio::test]
async fn linger_lets_a_batch_fill_and_a_flush_does_not_wait_for_it() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let mut config = quick();
    config.linger = Duration::from_mins(1);
    config.send_timeout = Duration::from_mins(2);
    let (_client, producer) = producer(&broker, config).await;
    let first = producer.enqueue(Message::new("1")).await.unwrap();
    let second = producer.enqueue(Message::new("2")).await.unwrap();
    let flushed = producer.flush().await.unwrap();
    assert_eq!((flushed.stored, flushed.failed), (2, 0));
    assert!(first.await.is_ok() && second.await.is_ok());
    assert_eq!(broker.state().queue("orders", 0).batches.len(), 1);
}

#[test]
fn inside_an_actix_system_the_client_lives_in_that_system() {
    actix_rt::System::new().block_on(async {
        let broker = FakeBroker::start().await;
        broker.topic("orders", 1);
        let (client, producer) = producer(&broker, quick()).await;
        let receipt = producer.send(Message::new("1")).await.unwrap();
        assert_eq!(receipt.offset, Offset(0));
        client.close().await;
    });
}

#[tokio::test]
async fn what_was_taken_is_sent_even_when_all_handles_are_dropped() {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let (client, producer) = producer(&broker, quick()).await;
    let clone = client.clone();
    let pending = producer.enqueue(Message::new("1")).await.unwrap();
    drop(producer);
    pending.await.unwrap();
    drop(client);
    clone.close().await;
    assert_eq!(numbers(&broker.state().queue("orders", 0).bodies()), [1]);
}

#[tokio::test]
async fn a_broker_that_has_lost_a_codec_gets_plain_batches_in_order_and_once() {
    for breaks_its_word in [false, true] {
        let mut broker = FakeBroker::start().await;
        broker.topic("orders", 1);
        let mut config = quick();
        config.compression = Compression::Zstd;
        let (client, producer) = producer(&broker, config).await;
        let text = |number: u32| format!("{}{number}", "0".repeat(200));
        let batch = |from: u32| (from..from + 20).map(|one| Message::new(text(one))).collect();
        producer.send_batch(batch(0)).await.unwrap();
        assert!(broker.state().queue("orders", 0).batches[0].batch.is_compressed());
        // Stored or not, nobody knows: it is sent again, and so are those behind it.
        broker.state().faults.ignores_produce = true;
        let mut pending = Vec::new();
        for from in [20, 40, 60] {
            pending.push(producer.enqueue_batch(batch(from)).await.unwrap());
        }
        pending.push(producer.enqueue_batch(vec![Message::new(text(80))]).await.unwrap());
        broker.until("batches are under way", |state| state.produce_requests > 1).await;
        broker.kill().await;
        {
            let faults = &mut broker.state().faults;
            faults.ignores_produce = false;
            faults.compressions = Some(Compression::None.bit() | Compression::Lz4.bit());
            faults.breaks_its_word = breaks_its_word;
        }
        broker.resume().await;
        for receipt in pending {
            receipt.await.unwrap();
        }
        let stored = numbers(&broker.state().bodies("orders")[0]);
        assert_eq!(stored, (0..=80).collect::<Vec<_>>());
        client.close().await;
    }
}
