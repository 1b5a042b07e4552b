//! A registry that is down stops no message.

use std::io::Write as _;
use std::time::Duration;

use grus_client::{Client, ClientConfig, ErrorCode, Message, ProducerConfig, SendError};
use grus_tests::cluster::block_on;
use grus_tests::registry::RegistryHome;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::{bodies, grus_at, leaders, lines};

#[test]
fn messages_go_on_while_the_registry_is_down_and_topics_wait() {
    let home = RegistryHome::new();
    let registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let (broker, _second) = (one.start(), two.start());
    let at = [home.listen, one.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    let spread = leaders(home.listen, "t");

    // Under way before, while and after the registry is gone.
    let mut sender = one.grus_running(&["produce", "t", "--json"]);
    let mut pipe = sender.take_input();
    let all = lines("line", 300);
    let mut send = |from: usize, to: usize| {
        for line in &all[from..to] {
            writeln!(pipe, "{line}").expect("it reads");
        }
        pipe.flush().expect("it reads");
    };
    let mut receipts = 0;
    let mut await_receipts = |sender: &mut grus_tests::process::Process, upto: usize| {
        while receipts < upto {
            sender.next_line(PATIENCE).expect("a receipt");
            receipts += 1;
        }
    };
    send(0, 100);
    await_receipts(&mut sender, 100);
    registry.kill();
    send(100, 200);
    await_receipts(&mut sender, 200);

    // What the registry alone can do is refused, at once and by name.
    let (strain, watch) = (Strain::watch(), Watch::start());
    for ask in [
        &["topic", "create", "other"][..],
        &["topic", "alter", "t", "--queues", "8"],
        &["topic", "delete", "t"],
    ] {
        let line = grus_at(&[one.listen], ask, b"").refused();
        assert!(line.contains("RegistryUnavailable"), "{ask:?}: {line}");
    }
    let (took, allowed) = (watch.elapsed(), strain.allowed());
    assert!(took < Duration::from_secs(6) + allowed, "{took:?}");
    let (status, health) = broker.get("/health");
    assert!(status == 200 && health.contains("\"away\""), "{status}: {health}");
    // A client that comes now finds its way, by a broker or with the registry first on its list.
    assert_eq!(leaders(two.listen, "t"), spread);
    assert_eq!(bodies(&[two.listen], "t", 200), all[..200]);
    assert_eq!(bodies(&at, "t", 200), all[..200]);

    let _registry = home.start();
    send(200, 300);
    drop(pipe);
    await_receipts(&mut sender, 300);
    assert!(sender.wait(PATIENCE).success(), "no send failed");
    assert_eq!(leaders(home.listen, "t"), spread, "nothing that was acknowledged is lost");
    // Brokers come back to it by themselves: topics can be made again.
    let made = || grus_at(&[one.listen], &["topic", "create", "other"], b"").status.success();
    let watch = Watch::start();
    while !made() {
        assert!(watch.elapsed() < PATIENCE, "the broker does not come back");
    }
    assert_eq!(bodies(&[home.listen], "t", 300), all);
}

#[test]
fn a_broker_that_starts_while_the_registry_is_down_serves_what_it_owns() {
    let home = RegistryHome::new();
    let registry = home.start();
    let one = home.broker();
    let broker = one.start();
    let all = lines("line", 100);
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "2"], b"").ok();
    grus_at(&[one.listen], &["produce", "t", "--json"], all.join("\n").as_bytes()).ok();
    broker.end(Signal::TERM);
    registry.kill();

    let mut broker = one.begin();
    let says = |line: &str| line.contains("registry is away");
    broker.process.wait_for("a word about the registry", PATIENCE, says);
    broker.wait_ready();
    assert_eq!(bodies(&[one.listen], "t", 100), all);
    grus_at(&[one.listen], &["produce", "t"], b"more\n").ok();
    let line = grus_at(&[one.listen], &["topic", "create", "u"], b"").refused();
    assert!(line.contains("RegistryUnavailable"), "{line}");

    // One that owns nothing has nothing to serve: it waits, says so, and ends when told.
    let two = home.broker();
    let mut waiting = two.begin();
    let says = |line: &str| line.contains("waiting for the registry");
    waiting.process.wait_for("a word about the registry", PATIENCE, says);
    waiting.end(Signal::TERM);

    let mut waiting = two.begin();
    let _registry = home.start();
    waiting.wait_ready();
    grus_at(&[home.listen], &["topic", "create", "v", "--queues", "2", "--replicas", "1"], b"")
        .ok();
    assert!(leaders(home.listen, "v").iter().all(Option::is_some), "both are there");
}

#[test]
fn the_first_producer_with_a_name_is_told_that_the_registry_is_away_and_begins_once_it_is_back() {
    let home = RegistryHome::new();
    let registry = home.start();
    let one = home.broker();
    let _broker = one.start();
    grus_at(&[home.listen], &["topic", "create", "t", "--replicas", "1"], b"").ok();
    registry.kill();
    block_on(async {
        let config = ClientConfig::new([one.listen.to_string()]);
        let client = Client::connect(config).await.expect("the broker");
        let nameless = client.producer(ProducerConfig::new("t").expect("a name"));
        nameless.expect("a producer").send(Message::new("a")).await.expect("it has no name");
        let mut named = ProducerConfig::named("t", "billing").expect("names");
        named.send_timeout = Duration::from_secs(2);
        named.retries = 1;
        let producer = client.producer(named).expect("a producer");
        let refused = producer.send(Message::new("b")).await.expect_err("nobody keeps its name");
        let SendError::Timeout { maybe_stored: false, cause: Some(cause) } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!((cause.code, cause.retriable), (ErrorCode::RegistryUnavailable, true));
        let mut named = ProducerConfig::named("t", "billing").expect("names");
        named.retries = 40;
        let producer = client.producer(named).expect("a producer");
        let pending = producer.enqueue(Message::new("c")).await.expect("room");
        let _registry = home.start();
        pending.await.expect("it waits for the registry");
        client.close().await;
    });
    assert_eq!(bodies(&[one.listen], "t", 2), ["a", "c"]);
}
