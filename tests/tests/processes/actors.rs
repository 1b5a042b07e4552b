//! A panic in a live actor: it is rebuilt, its neighbours notice nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use grus_protocol::TopicName;
use grus_protocol::message::DescribeTopic;
use grus_tests::broker::Home;
use grus_tests::hostile::Peer;
use grus_tests::http;
use grus_tests::strain::Strain;
use grus_tests::watch::PATIENCE;
use serde_json::Value;

use crate::stream::{Stream, check};
use crate::{create, read_all};

/// Panics that are injected; few enough that the actor stays within its restart limit.
const PANICS: usize = 3;

#[test]
fn a_queue_that_panics_is_rebuilt_and_its_neighbour_notices_nothing() {
    let home = Home::new().with("GRUS_FAULT_SWITCHES", "1");
    let broker = home.start();
    for topic in ["hurt", "well"] {
        create(&home, topic, 1);
    }
    let enough = Arc::new(AtomicBool::new(false));
    let strain = Strain::watch();
    let (heard, hear) = channel();
    let streams = ["hurt", "well"].map(|topic| {
        let stream = Stream::start(&home, topic, &["--queue", "0"]);
        let (enough, heard) = (enough.clone(), heard.clone());
        thread::spawn(move || stream.run(&enough, &heard))
    });
    for _ in 0..PANICS {
        for _ in 0..1_000 {
            hear.recv_timeout(PATIENCE).expect("receipts go on arriving");
        }
        let asked = http::post(home.http, "/fault/panic?topic=hurt&queue=0").expect("an answer");
        assert_eq!(asked.0, 202, "{}", asked.1);
    }
    for _ in 0..1_000 {
        hear.recv_timeout(PATIENCE).expect("receipts go on arriving");
    }
    enough.store(true, SeqCst);
    let [hurt, well] =
        streams.map(|stream| stream.join().expect("the stream runs to its end").end());
    println!("longest wait: hurt {:?}, well {:?}", hurt.longest_wait, well.longest_wait);
    let limit = Duration::from_secs(5) + strain.allowed();
    assert!(hurt.longest_wait < limit, "a short wait: {:?}", hurt.longest_wait);
    check("hurt", hurt.lines, &hurt.receipts, &read_all(&home, "hurt"));
    check("well", well.lines, &well.receipts, &read_all(&home, "well"));

    let (status, actors) = broker.get("/actors");
    assert_eq!(status, 200);
    let actors: Value = serde_json::from_str(&actors).expect("JSON");
    let restarts = restarts(&actors, "hurt");
    assert_eq!(restarts, PANICS as u64, "{actors:#}");
    assert_eq!(self::restarts(&actors, "well"), 0, "{actors:#}");
}

#[test]
fn a_connection_that_panics_is_closed_alone() {
    let home = Home::new().with("GRUS_FAULT_SWITCHES", "1");
    let broker = home.start();
    create(&home, "well", 1);
    let enough = Arc::new(AtomicBool::new(false));
    let (heard, hear) = channel();
    let stream = Stream::start(&home, "well", &[]);
    let wanted = Arc::clone(&enough);
    let sender = thread::spawn(move || stream.run(&wanted, &heard));
    let mut neighbour = Peer::greeted(home.listen);
    for _ in 0..20 {
        let mut peer = Peer::greeted(home.listen);
        let name = TopicName::try_from("grus-fault-panic").expect("a name");
        peer.ask(1, &DescribeTopic { name });
        peer.rest(); // until its socket is closed
        hear.recv_timeout(PATIENCE).expect("receipts go on arriving");
    }
    assert!(neighbour.is_served());
    enough.store(true, SeqCst);
    let sent = sender.join().expect("the stream runs to its end").end();
    check("well", sent.lines, &sent.receipts, &read_all(&home, "well"));
    let actors: Value = serde_json::from_str(&broker.get("/actors").1).expect("JSON");
    let kinds = actors["kinds"].as_array().expect("a list");
    let restarts = |kind: &str| {
        kinds.iter().find(|one| one["kind"] == kind).map(|one| one["restarts"].clone())
    };
    assert_eq!(restarts("Connection"), Some(20.into()), "{actors:#}");
    assert_eq!(restarts("TopicQueue"), Some(0.into()), "{actors:#}");
}

/// The restarts of the queue actors whose name holds `topic`.
fn restarts(actors: &Value, topic: &str) -> u64 {
    let mut found = 0;
    let mut rest = vec![actors];
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(values) => rest.extend(values),
            Value::Object(object) => {
                let named = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
                if named("name").contains(topic) && named("kind") == "TopicQueue" {
                    found += object.get("restarts").and_then(Value::as_u64).unwrap_or(0);
                }
                rest.extend(object.values());
            }
            _ => {}
        }
    }
    found
}
