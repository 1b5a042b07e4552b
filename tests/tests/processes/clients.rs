//! Who is connected, by every way to ask; what readers are given, by the counters.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;

use bytes::BytesMut;
use grus_client::{
    Client, ClientConfig, ConsumerConfig, Message, ProducerConfig, QueueId, ReadMode, ReaderConfig,
    StartAt,
};
use grus_protocol::frame::encode;
use grus_protocol::message::Hello;
use grus_protocol::{FrameHead, Opcode};
use grus_tests::broker::{Broker, Home};
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::create;
use crate::program::block_on;

const NAME: &str = "billing-1";

async fn client(home: &Home) -> Client {
    let mut config = ClientConfig::new([home.listen.to_string()]);
    NAME.clone_into(&mut config.client_id);
    Client::connect(config).await.expect("a broker")
}

/// The one client of that name, as the command line shows it.
fn by_command(home: &Home) -> Value {
    let listed = home.grus(&["client", "list", "--json"]).ok().json();
    let mut found = listed.into_iter().filter(|client| client["client_id"] == NAME);
    let client = found.next().expect("it is connected");
    assert!(found.next().is_none(), "one connection");
    client
}

/// The same as HTTP shows it.
fn by_http(broker: &Broker) -> Value {
    let (status, body) = broker.get("/clients");
    assert_eq!(status, 200, "{body}");
    let listed: Value = serde_json::from_str(&body).expect("JSON");
    let clients = listed["clients"].as_array().expect("a list").clone();
    clients.into_iter().find(|client| client["clientId"] == NAME).expect("it is connected")
}

/// Its parts of one kind, as what these fields say.
fn parts(client: &Value, kind: &str, fields: &[&str]) -> BTreeSet<String> {
    let parts = client[kind].as_array().expect("a list");
    let told = |part: &Value| {
        let values: Vec<_> = fields.iter().map(|field| part[*field].to_string()).collect();
        values.join(" ")
    };
    parts.iter().map(told).collect()
}

/// Asks until the client's list of this kind is as long.
fn until_listed(home: &Home, kind: &str, count: usize) -> Value {
    let watch = Watch::start();
    loop {
        let client = by_command(home);
        if client[kind].as_array().expect("a list").len() == count {
            return client;
        }
        assert!(watch.elapsed() < PATIENCE, "{client}");
    }
}

#[test]
fn clients_are_listed_alike_and_a_closed_producer_or_reader_leaves_at_once() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 2);
    block_on(async {
        let client = client(&home).await;
        let named = ProducerConfig::named("t", "billing").expect("names");
        let named = client.producer(named).expect("a producer");
        let other = client.producer(crate::producing::config("t")).expect("a producer");
        for _ in 0..3 {
            named.send(Message::new("named").queue(QueueId(0))).await.expect("a receipt");
        }
        other.send(Message::new("unnamed")).await.expect("a receipt");
        let mut readers = Vec::new();
        for mode in [ReadMode::Push, ReadMode::Poll] {
            let mut config = ReaderConfig::new("t", StartAt::First).expect("a name");
            config.mode = mode;
            let mut reader = client.reader(config).expect("a reader");
            for _ in 0..4 {
                reader.next().await.expect("a message");
            }
            readers.push(reader);
        }
        let told = until_listed(&home, "readers", 4);
        let shown = by_http(&broker);
        for (field, as_http) in [("connection", "connection"), ("software", "software")] {
            assert_eq!(told[field], shown[as_http], "{field}");
        }
        assert_eq!(told["address"], shown["address"]);
        let facts = ["name", "epoch", "topic", "batches", "messages"];
        let producers =
            |client: &Value, id| parts(client, "producers", &[&[id], &facts[..]].concat());
        assert_eq!(producers(&told, "producer_id"), producers(&shown, "producerId"));
        assert!(
            parts(&told, "producers", &["name", "topic", "messages"])
                .contains("\"billing\" \"t\" 3")
        );
        let config = ConsumerConfig::new("g").expect("a name").subscribe("t", "*");
        let consumer = client.consumer(config.expect("a topic")).expect("a consumer");
        let member = until_listed(&home, "groups", 1);
        assert_eq!(member["connection"], told["connection"], "its coordinator is asked over it");
        let members = parts(&member, "groups", &["group", "member"]);
        assert_eq!(members, parts(&by_http(&broker), "groups", &["group", "member"]));
        assert_eq!(members, BTreeSet::from(["\"g\" 1".to_owned()]));
        consumer.stop().await;
        until_listed(&home, "groups", 0);
        let modes = parts(&told, "readers", &["topic", "queue", "mode"]);
        assert_eq!(modes, parts(&shown, "readers", &["topic", "queueId", "mode"]));
        assert_eq!(modes.len(), 4, "{modes:?}");
        let text = String::from_utf8(home.grus(&["client", "list"]).ok().out).expect("text");
        let line = "named billing, epoch 0 of topic t: 3 messages in ";
        assert!(text.contains(NAME) && text.contains(line), "{text}");
        assert!(text.contains("  reader of queue 1 of topic t: pushed, since "), "{text}");

        named.close().await.expect("an open producer");
        let left = until_listed(&home, "producers", 1);
        assert_eq!(left["connection"], told["connection"], "the connection stays");
        assert!(parts(&left, "producers", &["name"]).contains("null"), "the other one stays");
        readers.remove(0).close().await;
        let left = until_listed(&home, "readers", 2);
        assert_eq!(parts(&left, "readers", &["mode"]), BTreeSet::from(["\"fetch\"".to_owned()]));
        client.close().await;
    });
}

#[test]
fn more_clients_than_fit_a_page_are_all_listed() {
    const CLIENTS: usize = 300;
    let home = Home::new().with("GRUS__CONNECTION__SESSION_TIMEOUT", "60s");
    let _broker = home.start();
    let crowd: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let mut said = BytesMut::new();
            let hello = Hello::new(format!("crowd-{number}"), "test");
            encode(FrameHead::request(Opcode::Hello, 0), &hello, 0, &mut said).expect("it encodes");
            let mut stream = TcpStream::connect(home.listen).expect("a connection");
            stream.write_all(&said).expect("an open connection");
            stream
        })
        .collect();
    block_on(async {
        let client = client(&home).await;
        let watch = Watch::start();
        loop {
            let listed = client.list_clients(false).await.expect("an answer");
            assert!(listed.unasked.is_empty());
            let numbers: Vec<_> = listed.clients.iter().map(|one| one.client.connection).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other), "each once");
            let crowd = listed.clients.iter();
            let crowd = crowd.filter(|one| one.client.client_id.starts_with("crowd-")).count();
            if crowd == CLIENTS {
                break;
            }
            assert!(watch.elapsed() < PATIENCE, "{crowd} of {CLIENTS} are listed");
        }
        client.close().await;
    });
    drop(crowd);
}

/// A counter of `/metrics` with these labels.
fn counter(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

#[test]
fn what_is_delivered_is_counted_by_how_it_comes() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], crate::numbered("line", 100).as_bytes()).ok();
    let count = |mode: &str| {
        let (_, text) = broker.get("/metrics");
        let labelled = |name: &str| format!("grus_delivered_{name}_total{{mode=\"{mode}\"}}");
        (counter(&text, &labelled("messages")), counter(&text, &labelled("bytes")))
    };
    assert_eq!((count("push"), count("fetch")), ((0, 0), (0, 0)));
    let read = ["consume", "t", "--from", "first", "--max", "100", "--mode"];
    home.grus(&[&read[..], &["push"]].concat()).ok();
    let (messages, bytes) = count("push");
    assert!(messages == 100 && bytes > 100 * 10, "{messages} messages, {bytes} bytes");
    assert_eq!(count("fetch"), (0, 0));
    home.grus(&[&read[..], &["pull"]].concat()).ok();
    assert_eq!(count("fetch"), (messages, bytes), "the same batches");
    let (_, text) = broker.get("/metrics");
    assert_eq!(counter(&text, "grus_fetch_bytes_total"), 2 * bytes);
}
