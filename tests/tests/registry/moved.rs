//! Clients whose way to a broker becomes another one.

use grus_client::{Client, ClientConfig, Message, Producer, ProducerConfig, QueueId};
use grus_tests::watch::{PATIENCE, Watch};

use crate::{await_leaders, bodies, grus_at, leaders};
use grus_tests::cluster::quick_registry;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

/// With a window that outlives the start of a broker on a busy machine.
fn lasting(mut config: ProducerConfig) -> ProducerConfig {
    config.retries = 19;
    config
}

async fn send(producer: &Producer, queue: u32, body: String) {
    let message = Message::new(body.clone()).queue(QueueId(queue));
    let sent = producer.send(message).await;
    assert!(sent.is_ok(), "{body} to queue {queue}: {sent:?}");
}

#[test]
fn a_named_producer_does_not_shut_itself_out_when_its_connections_change_places() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let (first, _second) = (one.start(), two.start());
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "2", "--replicas", "1"], b"").ok();
    let spread = leaders(home.listen, "t");
    let mut expected = Vec::new();
    block_on(async {
        // Its first connection leads to the one, and to the other when the one is gone.
        let bootstrap = [one.listen, two.listen].map(|address| address.to_string());
        let client = Client::connect(ClientConfig::new(bootstrap)).await.expect("a broker");
        let named = lasting(ProducerConfig::named("t", "billing").expect("names"));
        let producer = client.producer(named).expect("a producer");
        for queue in 0..2 {
            expected.push(format!("before {queue}"));
            send(&producer, queue, format!("before {queue}")).await;
        }
        first.kill();
        let is_half = |leaders: &[Option<u64>]| leaders.iter().flatten().count() == 1;
        await_leaders(two.listen, "t", PATIENCE, is_half);
        let there = leaders(two.listen, "t").iter().position(Option::is_some);
        let there = u32::try_from(there.expect("one is led")).expect("a queue");
        for number in 0..20 {
            expected.push(format!("meanwhile {number:02}"));
            send(&producer, there, format!("meanwhile {number:02}")).await;
        }
        let _again = one.start();
        await_leaders(two.listen, "t", PATIENCE, |leaders| leaders == spread);
        for number in 0..20 {
            for queue in 0..2 {
                expected.push(format!("after {queue} {number:02}"));
                send(&producer, queue, format!("after {queue} {number:02}")).await;
            }
        }
        client.close().await;
        expected.sort();
        assert_eq!(bodies(&at, "t", expected.len()), expected);
    });
}

#[test]
fn a_broker_that_comes_back_elsewhere_is_found_there_also_by_those_who_began_with_it() {
    let home = quick_registry();
    let _registry = home.start();
    let (mut one, two) = (home.broker(), home.broker());
    let (first, _second) = (one.start(), two.start());
    grus_at(&[home.listen], &["topic", "create", "t", "--queues", "2", "--replicas", "1"], b"")
        .ok();
    let spread = leaders(home.listen, "t");
    block_on(async {
        let config = ClientConfig::new([one.listen.to_string()]);
        let client = Client::connect(config).await.expect("a broker");
        let config = lasting(ProducerConfig::new("t").expect("a name"));
        let producer = client.producer(config).expect("a producer");
        for queue in 0..2 {
            send(&producer, queue, "before".to_owned()).await;
        }
        first.kill();
        one.move_elsewhere();
        let _again = one.start();
        await_leaders(two.listen, "t", PATIENCE, |leaders| leaders == spread);
        let watch = Watch::start();
        for queue in 0..2 {
            send(&producer, queue, "after".to_owned()).await;
        }
        assert!(watch.elapsed() < PATIENCE, "{:?}", watch.elapsed());
        client.close().await;
    });
}
