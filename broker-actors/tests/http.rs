//! What a broker shows of itself, and what it shows to whom.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::net::SocketAddr;

use client::{Client, batch};
use grus_broker::Broker;
use grus_broker::config::BrokerConfig;
use grus_mailbox::{Clock, FatalPort, Process};
use grus_protocol::TopicName;
use grus_protocol::ids::{QueueId, TopicId};
use grus_protocol::message::{Produce, ProduceReply};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start(folder: &tempfile::TempDir) -> (Broker, SocketAddr) {
    let config = BrokerConfig {
        data: folder.path().join("data"),
        listen_address: "127.0.0.1:0".into(),
        http_address: "127.0.0.1:0".into(),
        http_hosts: vec!["grus.example".into()],
        core_arbiters: 1,
        ..BrokerConfig::default()
    };
    let process = Process::new(Clock::system(), FatalPort::new(|fatal| panic!("{fatal}")));
    let broker = Broker::start(config, process).await.unwrap();
    let http = broker.addresses().http.unwrap();
    (broker, http)
}

/// Sends a request; answers its status, head and body.
async fn ask(address: SocketAddr, method: &str, path: &str, host: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn json(address: SocketAddr, path: &str) -> Value {
    let (status, head, body) = ask(address, "GET", path, "localhost").await;
    assert_eq!(status, 200, "{path}: {body}");
    assert!(head.contains("content-type: application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

#[actix::test]
async fn queues_health_actors_and_metrics_show_what_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    assert_eq!(json(http, "/queue/list").await, Value::Array(Vec::new()));
    let mut client = Client::greeted(broker.addresses().listen).await;
    let ask_for = |topic: &str| Produce {
        topic: TopicName::try_from(topic).unwrap(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(1),
        timeout_ms: 0,
    };
    let sent = batch(&[b"a", b"b"]);
    let _: ProduceReply = client.call_with(&ask_for("orders"), &sent).await.unwrap();
    let _: ProduceReply = client.call_with(&ask_for("other"), &sent).await.unwrap();

    let queues = json(http, "/queue/list?topic=orders").await;
    assert_eq!(queues.as_array().unwrap().len(), 4);
    let queue = &queues[1];
    assert_eq!((&queue["topic"], &queue["queueId"]), (&"orders".into(), &1.into()));
    assert_eq!((&queue["writePointer"], &queue["messageNumber"]), (&2.into(), &2.into()));
    assert_eq!(queue["flushPointer"], 2, "a receipt was given");
    assert!(queue["lastModifiedTime"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(queue["type"], "durable");
    assert_eq!(queues[0]["messageNumber"], 0);
    assert_eq!(json(http, "/queue/list").await.as_array().unwrap().len(), 8);

    let health = json(http, "/health").await;
    assert_eq!((&health["status"], &health["topics"]), (&"ok".into(), &2.into()));
    assert_eq!((&health["connections"], &health["shards"][0]["ready"]), (&1.into(), &true.into()));

    let actors = json(http, "/actors").await;
    let kinds: Vec<_> =
        actors["kinds"].as_array().unwrap().iter().map(|kind| kind["kind"].clone()).collect();
    for kind in ["Connection", "Listener", "RegistryLink", "Shard", "TopicQueue"] {
        assert!(kinds.contains(&kind.into()), "{kind} is missing: {kinds:?}");
    }
    let queue = actors["actors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|actor| actor["kind"] == "TopicQueue" && actor["name"] == "orders/1");
    assert_eq!(queue.unwrap()["place"], "core-0");

    let (_, head, metrics) = ask(http, "GET", "/metrics", "localhost").await;
    assert!(head.contains("openmetrics-text"), "{head}");
    for line in [
        "grus_connections 1",
        "grus_produce_batches_total 2",
        "grus_produce_records_total 4",
        "grus_requests_total{opcode=\"Produce\"} 2",
        "grus_queue_write_pointer{topic=\"orders\",queue=\"1\"} 2",
        "grus_shard_ready{shard=\"0\",durability=\"persisted\"} 1",
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    broker.stop().await;
}

#[actix::test]
async fn only_requests_that_name_this_host_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    for host in ["localhost", "127.0.0.1:7654", "[::1]:1", "grus.example"] {
        assert_eq!(ask(http, "GET", "/health", host).await.0, 200, "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", ""] {
        let (status, _, body) = ask(http, "GET", "/health", host).await;
        assert_eq!(status, 403, "{host}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].is_string());
    }
    broker.stop().await;
}

#[actix::test]
async fn errors_are_json_and_the_index_lists_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    for (method, path, expected) in [
        ("GET", "/nothing", 404),
        ("GET", "/queue/list/../../etc", 404),
        ("POST", "/health", 405),
        ("POST", "/fault/panic?topic=t&queue=0", 404),
        ("GET", "/queue/list?topic=a&topic=b", 400),
    ] {
        let (status, head, body) = ask(http, method, path, "localhost").await;
        assert_eq!(status, expected, "{method} {path}: {body}");
        assert!(head.contains("application/json"), "{method} {path}: {head}");
        assert!(serde_json::from_str::<Value>(&body).unwrap()["error"].is_string());
    }
    let (status, head, index) = ask(http, "GET", "/", "localhost").await;
    assert_eq!(status, 200);
    assert!(head.contains("content-security-policy"));
    for path in ["/health", "/queue/list", "/actors", "/metrics"] {
        assert!(index.contains(path), "{path}");
    }
    broker.stop().await;
}
