//! What waits for a group: where it begins, what waits while nobody is there, a member that is slow, a member
//! for each of very many queues.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use grus_client::{
    Client, Consumer, ConsumerConfig, ConsumerEvent, Handed, ListAt, Message, OwnQueue, QueueId,
    Receipt,
};
use grus_tests::broker::Home;
use grus_tests::usage;

use crate::create;
use crate::program::{block_on, connect};

/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it comes in time")
}

fn config(group: &str, topics: &str) -> ConsumerConfig {
    ConsumerConfig::new(group).expect("a name").subscribe(topics, "*").expect("a topic")
}

/// Sends each to queue 0 of `t` and waits for its receipt.
async fn send(client: &Client, messages: impl Iterator<Item = Message>) -> Vec<Receipt> {
    let producer = client.producer(crate::producing::config("t")).expect("a producer");
    let mut receipts = Vec::new();
    for message in messages {
        receipts.push(producer.send(message.queue(QueueId(0))).await.expect("it is stored"));
    }
    producer.close().await.expect("nothing is left");
    receipts
}

/// The next so many, each acknowledged: offset and body. One whose answer counts for nothing, as the
/// group was moved meanwhile, is none of them.
async fn take(consumer: &mut Consumer, count: usize) -> Vec<(u64, String)> {
    let mut all = Vec::new();
    while all.len() < count {
        let handed: Handed = within(consumer.next()).await.expect("a message");
        let taken = (handed.offset.0, String::from_utf8_lossy(handed.body()).into_owned());
        if within(handed.ack()).await.is_ok() {
            all.push(taken);
        }
    }
    all
}

fn offsets(taken: &[(u64, String)]) -> Vec<u64> {
    taken.iter().map(|(offset, _)| *offset).collect()
}

#[test]
fn a_group_begins_at_the_first_the_last_or_a_time_and_a_reset_replays() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let mut receipts = send(&client, (0..6).map(|n| Message::new(n.to_string()))).await;
        // Until one is stored later than the others, so that its time tells it from them.
        while receipts[receipts.len() - 1].stored <= receipts[5].stored {
            receipts.extend(send(&client, std::iter::once(Message::new("later"))).await);
        }
        let later = &receipts[receipts.len() - 1];
        let (last, time) = (later.offset.0, later.stored);

        let mut first = client.consumer(config("first", "t")).expect("a consumer");
        assert_eq!(
            offsets(&take(&mut first, receipts.len()).await),
            (0..=last).collect::<Vec<_>>()
        );
        let mut timed = config("timed", "t");
        timed.options.start = Some(ListAt::Time(time));
        let mut timed = client.consumer(timed).expect("a consumer");
        assert_eq!(offsets(&take(&mut timed, 1).await), [last], "what was stored then or later");
        let mut at_end = config("last", "t");
        at_end.options.start = Some(ListAt::Last);
        let mut at_end = client.consumer(at_end).expect("a consumer");
        // It has its place from the moment in which its queue is claimed.
        let group = "last".try_into().expect("a name");
        within(async {
            while client.group_progress(&group).await.map_or(true, |told| told.items.is_empty()) {}
        })
        .await;
        send(&client, std::iter::once(Message::new("new"))).await;
        let new = [(last + 1, "new".to_owned())];
        assert_eq!(take(&mut at_end, 1).await, new);
        assert_eq!(take(&mut first, 1).await, new);
        assert_eq!(take(&mut timed, 1).await, new);

        // While it runs, and only for the group that is named.
        let reset =
            |to: &str| home.grus(&["group", "reset", "first", "--topic", "t", "--to", to]).ok();
        reset("first");
        assert_eq!(offsets(&take(&mut first, 3).await)[..], [0, 1, 2]);
        reset(&format!("offset:{last}"));
        let mut again = BTreeSet::new();
        while again.len() < 2 {
            // What was on its way before may come, and is of no account.
            again.extend(offsets(&take(&mut first, 1).await).into_iter().filter(|at| *at >= last));
        }
        reset("last");
        send(&client, std::iter::once(Message::new("newest"))).await;
        for consumer in [&mut timed, &mut at_end] {
            assert_eq!(take(consumer, 1).await, [(last + 2, "newest".to_owned())]);
        }
        while take(&mut first, 1).await[0].0 != last + 2 {}
        for consumer in [first, timed, at_end] {
            consumer.stop().await;
        }
        client.close().await;
    });
}

#[test]
fn messages_wait_for_the_first_member_in_order_and_outlive_their_broker() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let delayed =
            (0..3).map(|n| Message::new(format!("delayed {n}")).delay(Duration::from_secs(3)));
        let delayed = send(&client, delayed).await;
        let waiting = send(&client, (0..300).map(|n| Message::new(format!("waits {n}")))).await;
        client.close().await;
        broker.kill();
        let _broker = home.start();
        let client = connect(&home).await;
        let mut consumer = client.consumer(config("g", "t")).expect("a consumer");
        let taken = take(&mut consumer, waiting.len() + delayed.len()).await;
        let bodies = |prefix: &str| -> Vec<_> {
            taken
                .iter()
                .map(|(_, body)| body.clone())
                .filter(|body| body.starts_with(prefix))
                .collect()
        };
        let expected = |prefix: &str, count: u32| -> Vec<_> {
            (0..count).map(|n| format!("{prefix} {n}")).collect()
        };
        assert_eq!(bodies("waits"), expected("waits", 300), "all of it, in order");
        assert_eq!(bodies("delayed"), expected("delayed", 3), "and what is due later");
        consumer.stop().await;
        client.close().await;
    });
}

#[test]
fn a_backlog_costs_a_slow_member_and_its_broker_no_memory() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    let line = [&[b'x'; 1_024][..], b"\n"].concat();
    home.grus_fed(&["produce", "t"], &line.repeat(20_000)).ok();
    block_on(async {
        let client = connect(&home).await;
        let mut slow = config("g", "t");
        slow.buffer_bytes_max = 64 * 1_024;
        let mut consumer = client.consumer(slow).expect("a consumer");
        // Its window is full from the first message on, and stays so.
        take(&mut consumer, 20).await;
        let before_kib = usage::anonymous_memory_kib(broker.process.pid());
        take(&mut consumer, 80).await;
        let after_kib = usage::anonymous_memory_kib(broker.process.pid());
        assert!(after_kib < before_kib + 2 * 1_024, "{before_kib} KiB grew to {after_kib} KiB");
        let progress = client.group_progress(&"g".try_into().expect("a name")).await;
        let progress = progress.expect("told").items;
        assert_eq!((progress[0].lag, progress[0].lost, progress[0].dead), (19_900, 0, 0));
        consumer.stop().await;
        client.close().await;
    });
}

#[test]
fn each_of_many_queues_is_served_by_a_member_of_its_own() {
    const QUEUES: u32 = 60;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t0", QUEUES / 2);
    create(&home, "t1", QUEUES / 2);
    block_on(async {
        let clients = join_all((0..6).map(|_| connect(&home))).await;
        let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
        let members: Vec<Consumer> = (0..QUEUES)
            .zip(clients.iter().cycle())
            .map(|(number, client)| {
                let told = told.clone();
                let mut config = config("g", "t*").on_event(move |event| {
                    let _ = told.send((number, event.clone()));
                });
                config.options.session_ms = Some(600_000); // none leaves for a busy machine
                client.consumer(config).expect("a consumer")
            })
            .collect();
        let mut owned: BTreeMap<u32, HashSet<OwnQueue>> = BTreeMap::new();
        let shared = async {
            while owned.len() < QUEUES as usize || owned.values().any(|own| own.len() != 1) {
                let (member, event) = events.recv().await.expect("they live");
                let own = owned.entry(member).or_default();
                match event {
                    ConsumerEvent::Assigned(queues) => own.extend(queues),
                    ConsumerEvent::Revoked(queues) | ConsumerEvent::Lost(queues) => {
                        own.retain(|queue| !queues.contains(queue));
                    }
                    _ => {}
                }
            }
        };
        within(shared).await;
        for topic in ["t0", "t1"] {
            let producer = clients[0].producer(crate::producing::config(topic));
            let producer = producer.expect("a producer");
            for queue in 0..QUEUES / 2 {
                let message = Message::new(format!("{topic}/{queue}")).queue(QueueId(queue));
                drop(producer.enqueue(message).await.expect("it is taken"));
            }
            producer.close().await.expect("all are stored");
        }
        let served = join_all(members.into_iter().map(async |mut member| {
            let handed = within(member.next()).await.expect("a message");
            let body = String::from_utf8_lossy(handed.body()).into_owned();
            within(handed.ack()).await.expect("it is done");
            member.stop().await;
            body
        }))
        .await;
        let served: BTreeSet<String> = served.into_iter().collect();
        assert_eq!(served.len(), QUEUES as usize, "each queue by its own");
        for client in clients {
            client.close().await;
        }
    });
}
