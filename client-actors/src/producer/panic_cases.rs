//! A panic inside the producer itself: every message is answered once, and the producer goes on.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::client::Client;
use crate::config::{ClientConfig, ProducerConfig};
use crate::error::SendError;
use crate::message::Message;

const LIMIT: Duration = Duration::from_mins(2);

#[test]
fn after_a_panic_every_message_is_answered_once_and_the_producer_goes_on() {
    const MESSAGES: usize = 300;
    const PANICS: usize = 3;
    let mut config = ClientConfig::new(["127.0.0.1:9"]); // nobody answers there
    config.reconnect_wait_max = Duration::from_secs(10);
    let client = Client::start(config).unwrap();
    let mut config = ProducerConfig::new("t").unwrap();
    (config.send_timeout, config.retries) = (Duration::from_secs(8), 0);
    config.pending_bytes_max = 256 * 1024;
    let producer = client.producer(config).unwrap();
    let (answered, answers) = channel();
    for round in 0..PANICS {
        for number in 0..MESSAGES {
            let answered = answered.clone();
            // As many as find room: what a panic answers gives its room back.
            producer.send_async(Message::new("x"), move |result| {
                answered.send((round * MESSAGES + number, result)).unwrap();
            });
        }
        producer.inject_panic();
        let mut heard: Vec<_> =
            (0..MESSAGES).map(|_| answers.recv_timeout(LIMIT).unwrap()).collect();
        heard.sort_unstable_by_key(|(number, _)| *number);
        for (number, (had, result)) in heard.into_iter().enumerate() {
            assert_eq!(had, round * MESSAGES + number);
            assert_eq!(result, Err(SendError::Closed { maybe_stored: true }));
        }
    }
    let later = answered.clone();
    producer.send_async(Message::new("later"), move |result| {
        later.send((usize::MAX, result)).unwrap();
    });
    let (number, result) = answers.recv_timeout(LIMIT).unwrap();
    assert_eq!(number, usize::MAX);
    assert!(matches!(result, Err(SendError::Timeout { maybe_stored: false, .. })), "{result:?}");
    drop((producer, client, answered));
    let nothing_more = answers.recv_timeout(LIMIT);
    assert!(matches!(nothing_more, Err(RecvTimeoutError::Disconnected)), "{nothing_more:?}");
}
