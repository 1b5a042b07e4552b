//! A consumer group over two brokers and a registry: shared by both, given up in both, and what goes on while
//! one of them is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use grus_client::{Client, ClientConfig, Consumer, ConsumerConfig, Handed, Outcome};

use crate::{await_leaders, grus_at, leaders, lines, produce_by_queue};
use grus_tests::cluster::{await_no_group, quick_registry};
use grus_tests::watch::PATIENCE;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(work)
}

async fn member(at: SocketAddr) -> (Client, Consumer) {
    let client = Client::connect(ClientConfig::new([at.to_string()])).await.expect("a registry");
    let mut config =
        ConsumerConfig::new("g").expect("a name").subscribe("t", "*").expect("a topic");
    config.options.ladder_ms = Some(vec![1]);
    config.options.max_deliveries = Some(3);
    config.options.session_ms = Some(600_000); // neither leaves for a machine that is busy
    let consumer = client.consumer(config).expect("a consumer");
    (client, consumer)
}

async fn next(members: &mut [(Client, Consumer)]) -> (usize, Handed) {
    let [one, other] = members else { panic!("two members") };
    let next = async {
        tokio::select! {
            handed = one.1.next() => (0, handed),
            handed = other.1.next() => (1, handed),
        }
    };
    let (of, handed) = tokio::time::timeout(PATIENCE, next).await.expect("it comes in time");
    (of, handed.expect("a message"))
}

fn body(handed: &Handed) -> String {
    String::from_utf8_lossy(handed.body()).into_owned()
}

fn grus(at: SocketAddr, words: &str) -> String {
    let words: Vec<&str> = words.split(' ').collect();
    grus_at(&[at], &words, b"").ok().text()
}

/// Sends 20 messages to the four queues; whatever was in hands before, all of them come.
async fn all_comes(at: &[SocketAddr], prefix: &str, members: &mut [(Client, Consumer)]) {
    let more = lines(prefix, 20);
    for queue in 0..4 {
        produce_by_queue(at, "t", queue, &more[5 * queue as usize..][..5]);
    }
    let mut left: BTreeSet<String> = more.into_iter().collect();
    while !left.is_empty() {
        let (_, handed) = next(members).await;
        left.remove(&body(&handed));
        handed.answer(Outcome::Ack);
    }
}

#[test]
fn a_group_shares_queues_of_two_brokers_gives_up_in_both_and_outlives_either() {
    let home = quick_registry();
    let _registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let mut running = [Some(one.start()), Some(two.start())];
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    let spread = leaders(home.listen, "t");
    assert_eq!(spread.iter().flatten().collect::<BTreeSet<_>>().len(), 2, "{spread:?}");
    for queue in 0..4 {
        produce_by_queue(&at, "t", queue, &lines(&format!("q{queue}"), 25));
    }
    block_on(async {
        let mut members = [member(home.listen).await, member(two.listen).await];
        // The first of each queue always fails.
        let (mut seen, mut tries) = (BTreeSet::new(), BTreeMap::<String, u32>::new());
        let mut of_each = [0, 0];
        while seen.len() < 96 || tries.values().sum::<u32>() < 12 {
            let (of, handed) = next(&mut members).await;
            let body = body(&handed);
            if body.ends_with(" 00001") {
                *tries.entry(body).or_default() += 1;
                handed.answer(Outcome::Nack("never".to_owned()));
            } else {
                of_each[of] += 1;
                assert!(seen.insert(body), "each once");
                handed.answer(Outcome::Ack);
            }
        }
        assert_eq!(tries.into_values().collect::<Vec<_>>(), [3; 4]);
        assert!(of_each.iter().all(|count| *count > 0), "{of_each:?}");
        // A dead letter lies with its origin: the broker that coordinates had the other one's queue of
        // them made by the registry.
        let group = "g".try_into().expect("a name");
        let letters = async {
            loop {
                let page = members[0].0.list_dead_letters(&group, None, 0, false).await;
                if let Ok(page) = page
                    && page.letters.len() == 4
                {
                    return page.letters;
                }
            }
        };
        let letters = tokio::time::timeout(PATIENCE, letters).await.expect("four letters");
        let places: BTreeSet<_> = letters.iter().map(|letter| letter.letter.queue).collect();
        assert_eq!(places.len(), 2, "in a queue of each broker: {letters:?}");
        assert_eq!(grus(home.listen, "dlq redrive g --all"), "4 sent back\n");
        for _ in 0..4 {
            let (_, handed) = next(&mut members).await;
            assert!(body(&handed).ends_with(" 00001") && handed.deliveries == 0);
            handed.answer(Outcome::Ack);
        }

        // Each broker in turn, among them the one that coordinates the group.
        for (number, home_of) in [&one, &two].into_iter().enumerate() {
            running[number].take().expect("it runs").kill();
            running[number] = Some(home_of.start());
            let all_there = |leaders: &[Option<u64>]| leaders == spread;
            await_leaders(home.listen, "t", PATIENCE, all_there);
            all_comes(&at, &format!("after {number}"), &mut members).await;
        }
        for (client, consumer) in members {
            consumer.stop().await;
            client.close().await;
        }
    });
    let described = grus(home.listen, "group describe g");
    assert!(described.contains("lag          0"), "{described}");
    assert_eq!(grus(home.listen, "dlq list g"), "");
    grus(home.listen, "group delete g");
    await_no_group(one.listen);
}
