//! What a broker shows of itself, and what it shows to whom.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, batch};
use grus_broker::Broker;
use grus_broker::config::BrokerConfig;
use grus_mailbox::{Clock, FatalPort, Process};
use grus_protocol::ids::{Offset, QueueId, TopicId};
use grus_protocol::message::{Fetch, GroupOptions, JoinGroup, Produce, ProduceReply};
use grus_protocol::{GroupName, TopicName};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);

async fn start(folder: &tempfile::TempDir) -> (Broker, SocketAddr) {
    let config = BrokerConfig {
        data: folder.path().join("data"),
        listen_address: "127.0.0.1:0".into(),
        http_address: "127.0.0.1:0".into(),
        http_hosts: vec!["grus.example".into()],
        core_arbiters: 1,
        shutdown_timeout: Duration::from_mins(2), // a machine may be busy with other tests
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
        "grus_topic_messages{topic=\"orders\"} 2",
        "grus_shard_ready{shard=\"0\",durability=\"persisted\"} 1",
    ] {
        assert!(metrics.lines().any(|is| is == line), "{line} is not in\n{metrics}");
    }
    // How many entries they share is a matter of time.
    let appends = "grus_log_append_seconds_count{shard=\"0\",durability=\"persisted\"} ";
    let appends = metrics.lines().find_map(|line| line.strip_prefix(appends));
    assert!(appends.is_some_and(|count| count.parse::<u64>().unwrap() >= 2), "{appends:?}");
    assert!(metrics.ends_with("# EOF\n"));
    assert!(!metrics.contains("queue=\""), "single queues on request");
    let (_, _, one) = ask(http, "GET", "/metrics?topic=orders", "localhost").await;
    assert!(one.contains("grus_queue_write_pointer{topic=\"orders\",queue=\"1\"} 2"), "{one}");
    assert!(!one.contains("other"), "{one}");
    broker.stop().await;
}

/// Names by `# TYPE` lines, as Prometheus reads them.
fn types(metrics: &str) -> BTreeMap<String, String> {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let pair =
        |line: &str| line.split_once(' ').map(|(name, kind)| (name.to_owned(), kind.to_owned()));
    lines.filter_map(pair).collect()
}

#[actix::test]
async fn the_live_metrics_and_the_documented_ones_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut client = Client::greeted(broker.addresses().listen).await;
    send(&mut client, "t", &[b"a"]).await;
    let join = JoinGroup {
        group: GroupName::try_from("g").unwrap(),
        session: 1,
        client_id: "c".into(),
        subscriptions: Vec::new(),
        options: GroupOptions::default(),
        instance: None,
        lane: None,
    };
    client.call(&join).await.unwrap(); // what there is nothing of is not shown
    let unknown = TopicName::try_from("unknown").unwrap();
    let unknown = Fetch::new(unknown, QueueId(0), Offset(0), 1);
    client.call(&unknown).await.unwrap_err();
    drop(client);
    // A closed connection is counted no more, as soon as that is known.
    let live = async {
        loop {
            let (_, _, text) = ask(http, "GET", "/metrics?queues=true", "localhost").await;
            if text.contains("grus_actors{kind=\"Connection\"} 0") {
                break text;
            }
        }
    };
    let live = tokio::time::timeout(PATIENCE, live).await.expect("its connections are gone");
    let handled = "grus_actor_handled_total{kind=\"Connection\"} ";
    assert!(live.contains(handled) && !live.contains(&format!("{handled}0")), "never goes back");
    let served = types(&live);
    let page = include_str!("../../docs/OPERATING.md");
    let (page, _of_a_registry) = page.split_once("### Metrics of a registry").unwrap();
    let mut documented = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| `grus_")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        let kind = ["counter", "histogram"]
            .into_iter()
            .find(|kind| cells[2].contains(&format!(", {kind}")));
        documented.insert(name, kind.unwrap_or("gauge").to_owned());
    }
    // This broker's shards have no other members, so that nothing is said of any.
    let of_members = documented.remove("grus_shard_member_lag_entries");
    assert_eq!(of_members.as_deref(), Some("gauge"));
    assert_eq!(served, documented);
    for line in live.lines().filter(|line| line.starts_with("# ")) {
        let name = line.split(' ').nth(2).unwrap_or_default();
        assert!(line == "# EOF" || live.contains(&format!("# HELP {name} ")), "{line}");
    }
    for name in served.keys() {
        let odd = ["_ms", "_us", "_total", "_mib", "_count"].iter().any(|end| name.ends_with(end));
        assert!(
            name.starts_with("grus_") && !odd,
            "{name}: base units, no suffix of the format's own"
        );
    }
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
async fn listings_are_read_page_by_page() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut client = Client::greeted(broker.addresses().listen).await;
    for topic in ["a", "b", "c"] {
        send(&mut client, topic, &[b"x"]).await; // of four queues each
    }
    for (path, key, whole) in [("/queue/list", "queueId", 12), ("/topics", "queues", 3)] {
        let all = json(http, path).await;
        let all = all.as_array().unwrap();
        assert_eq!(all.len(), whole, "{path}");
        for size in [1, 5, 12] {
            let mut listed = Vec::new();
            let mut after = String::new();
            loop {
                let path = format!("{path}?max={size}{after}");
                let (status, head, body) = ask(http, "GET", &path, "localhost").await;
                assert_eq!(status, 200, "{path}: {body}");
                let page: Vec<Value> = serde_json::from_str(&body).unwrap();
                assert!(page.len() <= size && page.iter().all(|item| item[key].is_u64()));
                listed.extend(page);
                let next = head.lines().find_map(|line| line.strip_prefix("grus-next: "));
                let Some(next) = next else { break };
                after = format!("&after={}", next.trim());
            }
            assert_eq!(&listed, all, "{path} by {size}");
        }
        for wrong in ["max=0", "max=10001", "after=a%2Fb%2Fc", "after="] {
            let (status, _, body) = ask(http, "GET", &format!("{path}?{wrong}"), "localhost").await;
            assert_eq!(status, 400, "{path}?{wrong}: {body}");
        }
    }
    let first = json(http, "/actors?max=2").await;
    assert_eq!(first["actors"].as_array().unwrap().len(), 2);
    let rest = json(http, &format!("/actors?after={}", first["next"])).await;
    assert!(rest["actors"].as_array().unwrap().len() > 2 && rest["next"].is_null(), "{rest}");
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

#[actix::test]
async fn the_page_is_whole_and_may_do_nothing_but_read_its_own_server() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut waiting = vec!["/".to_owned()];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(path) = waiting.pop() {
        let (status, head, text) = ask(http, "GET", &path, "localhost").await;
        assert_eq!(status, 200, "{path}");
        assert!(head.contains("default-src 'none'; script-src 'self'"), "{path}: {head}");
        assert!(!head.contains("unsafe"), "{path}: {head}");
        assert!(head.contains("x-content-type-options: nosniff"), "{path}: {head}");
        let mut outside = text
            .split("http")
            .skip(1)
            .filter(|rest| rest.starts_with("s://") || rest.starts_with("://"));
        assert!(outside.all(|rest| rest.starts_with("://www.w3.org/2000/svg")), "{path}");
        for sink in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            "onclick",
        ] {
            assert!(!text.contains(sink), "{path}: {sink}");
        }
        for word in text.split(['"', '\'']) {
            let file =
                word.strip_prefix("./").map_or(word.to_owned(), |rest| format!("/page/{rest}"));
            if file.starts_with("/page/") && seen.insert(file.clone()) {
                waiting.push(file);
            }
        }
    }
    assert_eq!(seen.len(), 8, "{seen:?}");
    broker.stop().await;
}

async fn send(client: &mut Client, topic: &str, bodies: &[&[u8]]) {
    let produce = Produce {
        topic: TopicName::try_from(topic).unwrap(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        timeout_ms: 0,
    };
    let _: ProduceReply = client.call_with(&produce, &batch(bodies)).await.unwrap();
}

#[actix::test]
async fn messages_are_shown_from_any_place_and_what_cannot_be_is_a_typed_error() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut client = Client::greeted(broker.addresses().listen).await;
    let large = vec![b'x'; 1 << 20];
    send(&mut client, "t", &[b"<script>", b"", b"\xff\x00", b"{}", &large]).await;
    send(&mut client, "t", &[b"last"]).await;

    let page = json(http, "/messages?topic=t").await;
    let offsets = |page: &Value| -> Vec<u64> {
        let messages = page["messages"].as_array().unwrap();
        messages.iter().map(|message| message["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(offsets(&page), [0, 1, 2, 3, 4, 5]);
    let body = |at: usize, field: &str| page["messages"][at]["body"][field].clone();
    assert_eq!(body(0, "value"), "<script>");
    assert_eq!((body(1, "value"), &page["messages"][1]["bodyBytes"]), ("".into(), &0.into()));
    assert_eq!((body(2, "value"), body(2, "encoding")), ("/wA=".into(), "base64".into()));
    assert_eq!(body(4, "value").as_str().unwrap().len(), 4096);
    assert_eq!(page["messages"][4]["truncated"], true);
    assert_eq!(
        (&page["logStart"], &page["endOffset"], &page["next"]),
        (&0.into(), &6.into(), &Value::Null)
    );

    let whole = json(http, "/messages?topic=t&from=4&max=1&body=16777216").await;
    assert_eq!(whole["messages"][0]["body"]["value"].as_str().unwrap().len(), 1 << 20);
    assert_eq!((&whole["messages"][0]["truncated"], &whole["next"]), (&false.into(), &5.into()));
    assert_eq!(offsets(&json(http, "/messages?topic=t&from=newest&max=2").await), [4, 5]);
    assert_eq!(offsets(&json(http, "/messages?topic=t&from=6").await), [0_u64; 0]);
    let stored = page["messages"][5]["storeTime"].as_u64().unwrap();
    assert_eq!(
        offsets(&json(http, &format!("/messages?topic=t&time={stored}")).await).last(),
        Some(&5)
    );
    assert_eq!(
        offsets(&json(http, &format!("/messages?topic=t&time={}", stored + 1)).await),
        [0_u64; 0]
    );
    assert_eq!(offsets(&json(http, "/messages?topic=t&queue=1").await), [0_u64; 0]);

    for (query, status, code) in [
        ("topic=nothing", 404, Some("UnknownTopic")),
        ("topic=t&queue=9", 404, Some("UnknownQueue")),
        ("topic=..%2Fx", 400, Some("InvalidRequest")),
        ("topic=t&from=soon", 400, Some("InvalidRequest")),
        ("topic=t&from=1&time=1", 400, Some("InvalidRequest")),
        ("topic=t&max=0", 400, Some("InvalidRequest")),
        ("topic=t&max=201", 400, Some("InvalidRequest")),
        ("topic=t&queue=-1", 400, None),
        ("topic=t&other=1", 400, None),
        ("", 400, None),
    ] {
        let (is, _, body) = ask(http, "GET", &format!("/messages?{query}"), "localhost").await;
        assert_eq!(is, status, "{query}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert!(body["error"].is_string(), "{query}");
        assert_eq!(body["code"].as_str(), code, "{query}");
    }
    broker.stop().await;
}

#[actix::test]
async fn clients_are_listed_while_they_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut producer = Client::greeted(broker.addresses().listen).await;
    send(&mut producer, "t", &[b"a", b"b"]).await;
    let stranger = Client::stranger(broker.addresses().listen).await;
    let listed = json(http, "/clients").await;
    let clients = listed["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 1, "{listed}");
    assert_eq!(
        (&clients[0]["clientId"], &clients[0]["software"]),
        (&"test".into(), &"test".into())
    );
    assert_eq!(clients[0]["address"], producer.stream.local_addr().unwrap().to_string());
    assert_eq!(clients[0]["producers"][0]["messages"], 2);
    assert_eq!(clients[0]["requests"], 2);
    assert_eq!(listed["next"], Value::Null);

    // The stranger is there once the broker has taken it in.
    while json(http, "/clients?all=true").await["clients"].as_array().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    let all = json(http, "/clients?all=true&max=1").await;
    assert_eq!(
        (all["clients"].as_array().unwrap().len(), &all["next"]),
        (1, &all["clients"][0]["connection"])
    );
    let rest = json(http, &format!("/clients?all=true&after={}", all["next"])).await;
    assert_eq!(rest["clients"][0]["greeted"], false, "{rest}");
    assert_eq!(ask(http, "GET", "/clients?max=0", "localhost").await.0, 400);

    drop((producer, stranger));
    while !json(http, "/clients?all=true").await["clients"].as_array().unwrap().is_empty() {
        // Closed clients leave as soon as that is known.
    }
    broker.stop().await;
}

#[actix::test]
async fn topics_and_configuration_are_what_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let mut client = Client::greeted(broker.addresses().listen).await;
    send(&mut client, "t", &[b"a", b"b"]).await;
    let topics = json(http, "/topics").await;
    assert_eq!(
        (&topics[0]["name"], &topics[0]["queues"], &topics[0]["messages"]),
        (&"t".into(), &4.into(), &2.into())
    );
    assert_eq!(topics[0]["retentionMs"], 7 * 24 * 3_600_000);
    assert_eq!(json(http, "/topics?topic=u").await, Value::Array(Vec::new()));

    let settings = json(http, "/config").await;
    let of = |key: &str| {
        let mut all = settings.as_array().unwrap().iter();
        all.find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("{key}")).clone()
    };
    assert_eq!(of("http.hosts")["value"], "[\"grus.example\"]");
    assert_eq!(of("http.hosts")["source"], "command line");
    assert_eq!(
        (&of("topic.queues")["value"], &of("topic.queues")["source"]),
        (&"4".into(), &"default".into())
    );
    broker.stop().await;
}

/// Connects and sends bytes; answers with all that comes until the other side closes.
async fn hostile(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _closed_early = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _reset_is_an_end_too = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[actix::test]
async fn slow_and_giant_heads_are_cut_off_and_others_are_served_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (broker, http) = start(&folder).await;
    let slow = futures_util::future::join_all(
        (0..150).map(|_| hostile(http, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")),
    );
    let served = async {
        for _ in 0..20 {
            assert_eq!(ask(http, "GET", "/health", "localhost").await.0, 200);
        }
        let mut giant = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Giant: ".to_vec();
        giant.resize(1 << 20, b'x');
        assert!(!hostile(http, &giant).await.contains("200 OK"), "a giant head");
        let many = "X-Many: 1\r\n".repeat(5_000);
        let many = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
        assert!(!hostile(http, many.as_bytes()).await.contains("200 OK"), "too many headers");
        for odd in
            [&b"\x16\x03\x01\x02\x00"[..], b"GRUS\0\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
        {
            assert!(!hostile(http, odd).await.contains("200 OK"), "{odd:?}");
        }
    };
    let both = tokio::time::timeout(PATIENCE, async { tokio::join!(slow, served) });
    let (ends, ()) = both.await.expect("slow heads are cut off");
    for end in ends {
        assert!(end.is_empty() || end.contains("408"), "{end}");
    }
    assert_eq!(ask(http, "GET", "/health", "localhost").await.0, 200);
    let two_hosts = b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert!(!hostile(http, two_hosts).await.contains("200 OK"), "two hosts");
    let absolute =
        b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = hostile(http, absolute).await;
    assert!(!answer.contains("200 OK"), "a target that names another: {answer}");
    broker.stop().await;
}
