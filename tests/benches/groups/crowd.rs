//! S33: very many queues, each with a member of its own, on few connections.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use grus_client::{Consumer, Message, Outcome, ProducerConfig, QueueId};
use grus_tests::broker::Home;
use grus_tests::usage::{anonymous_memory_kib, memory_kib};
use grus_tests::watch::Watch;

use crate::options::Options;
use crate::spread::judge;
use crate::{block_on, connect, create, member, seconds};

/// What the broker may take, in KiB.
pub(crate) const MEMORY_KIB_MAX: u64 = 400_000;
/// Queues of one topic.
const QUEUES_EACH: u64 = 1_000;

/// Makes topics `t0` and so on of so many queues in all.
pub(crate) fn create_all(home: &Home, durability: &str, queues: u64) {
    for topic in 0..queues.div_ceil(QUEUES_EACH) {
        let left = (queues - topic * QUEUES_EACH).min(QUEUES_EACH);
        create(home, durability, &format!("t{topic}"), left);
    }
}

/// Sends a message to each queue.
pub(crate) async fn send_all(client: &grus_client::Client, queues: u64) {
    for topic in 0..queues.div_ceil(QUEUES_EACH) {
        let config = ProducerConfig::new(&format!("t{topic}")).expect("a name");
        let producer = client.producer(config).expect("a producer");
        let left = (queues - topic * QUEUES_EACH).min(QUEUES_EACH);
        for queue in 0..u32::try_from(left).expect("few") {
            let message = Message::new(format!("t{topic}/{queue}")).queue(QueueId(queue));
            drop(producer.enqueue(message).await.expect("taken"));
        }
        producer.close().await.expect("all are stored");
    }
}

pub(crate) fn run(options: &Options) {
    let members = options.number("members", 10_000);
    let connections = options.number("connections", 20);
    let durability = options.text("durability", "persisted");
    let home = Home::new();
    let broker = home.start();
    create_all(&home, &durability, members);
    let pid = broker.process.pid();
    println!(
        "{members} queues and members on {connections} connections, {durability}; broker at first \
         {} KiB anonymous",
        anonymous_memory_kib(pid)
    );
    block_on(async {
        let clients = join_all((0..connections).map(|_| connect(&home))).await;
        let watch = Watch::start();
        let consumers: Vec<Consumer> = (0..members)
            .zip(clients.iter().cycle())
            .map(|(_, client)| {
                let mut config = member("g", "t*");
                config.buffer_bytes_max = 64 * 1_024;
                client.consumer(config).expect("a consumer")
            })
            .collect();
        let group = "g".try_into().expect("a name");
        loop {
            let told = clients[0].describe_group(&group).await;
            let owners: BTreeSet<_> =
                told.iter().flat_map(|told| &told.queues).filter_map(|one| one.member).collect();
            if owners.len() as u64 >= members {
                break;
            }
            tokio::task::yield_now().await;
        }
        println!("each has a queue after {:.1} s", seconds(watch.elapsed()));
        let watch = Watch::start();
        send_all(&clients[0], members).await;
        let served = join_all(consumers.into_iter().map(async |mut consumer| {
            let handed = consumer.next().await.expect("a message");
            let body = String::from_utf8_lossy(handed.body()).into_owned();
            handed.answer(Outcome::Ack);
            (body, consumer)
        }))
        .await;
        let (anonymous, resident) = (anonymous_memory_kib(pid), memory_kib(pid));
        let bodies: BTreeSet<_> = served.iter().map(|(body, _)| body).collect();
        println!(
            "a message of each has come after {:.1} s; broker {anonymous} KiB anonymous, {resident} \
             resident",
            seconds(watch.elapsed())
        );
        judge("each queue is served by a member of its own", bodies.len() as u64 == members);
        judge("less than 400 MB", anonymous < MEMORY_KIB_MAX);
        drop(served);
        for client in clients {
            client.close().await;
        }
    });
}
