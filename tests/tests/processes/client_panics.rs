//! Panics injected into the actors of a client while it works with a live broker: messages go on, none
//! is lost, doubled or overtaken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use actix::Actor;
use grus_client::{
    Client, DeliverTo, Message, Producer, ProducerConfig, QueueId, ReadMode, Receipt, SendError,
};
use grus_mailbox::System;
use grus_tests::broker::Home;
use tokio::sync::mpsc::unbounded_channel;

use crate::producing::config as patient;
use crate::program::{block_on, client};
use crate::reading::{Ear, Heards, Receiver, config, connect, heard, readers};
use crate::{create, read_all};

/// Fewer than an actor survives in a minute.
const PANICS: usize = 6;
const MESSAGES_EACH_ROUND: usize = 150;
/// Messages of a producer under load, in each round.
const ROUND: usize = 2_000;
const QUEUES: u32 = 2;

/// Readers of every kind, an actor of the program's own among them, while `panic` strikes.
fn readers_go_on_when(panic: fn(&Client)) {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", QUEUES);
    System::new().block_on(async {
        let (client, sender) = (connect(&home).await, connect(&home).await);
        let (to, mut ear) = unbounded_channel();
        for work in readers(&client, &to) {
            tokio::task::spawn_local(work);
        }
        let receiver = Receiver { ear: Ear { kind: "receiver", to: to.clone() } }.start();
        let deliver_to =
            DeliverTo::new(receiver.clone().recipient()).failures_to(receiver.recipient());
        let delivery =
            client.deliver_to(config(ReadMode::Push), deliver_to).expect("an open client");
        let producer = sender.producer(crate::producing::config("t")).expect("a producer");
        let mut heards = Heards::default();
        for round in 0..PANICS {
            let mut pending = Vec::new();
            for number in 0..MESSAGES_EACH_ROUND {
                let message = Message::new(format!("{round}/{number}"));
                pending.push(producer.enqueue(message).await.expect("room"));
            }
            // Some are on their way to the readers, some are still to be stored.
            for _ in 0..round * 60 {
                heards.take(&heard(&mut ear, "before a panic").await);
            }
            panic(&client);
            for receipt in pending {
                receipt.await.expect("the sender is another client");
            }
        }
        let total = (PANICS * MESSAGES_EACH_ROUND) as u64;
        heards.all(&mut ear, total).await;
        delivery.close().await;
        client.close().await;
        sender.close().await;
    });
}

#[test]
fn readers_of_every_kind_go_on_when_the_link_under_them_panics() {
    readers_go_on_when(Client::inject_link_panics);
}

#[test]
fn readers_of_every_kind_go_on_when_the_router_panics() {
    readers_go_on_when(Client::inject_router_panic);
}

type Results = Arc<Mutex<Vec<(usize, Result<Receipt, SendError>)>>>;

fn send(producer: &Producer, number: usize, results: &Results) {
    let results = Arc::clone(results);
    let queue = QueueId(u32::try_from(number).expect("a few") % QUEUES);
    producer.send_async(Message::new(number.to_string()).queue(queue), move |result| {
        results.lock().expect("no panic").push((number, result));
    });
}

/// Every message is answered once; what was acknowledged stands where its receipt says; what is
/// stored stands in the order it was sent in, once. Returns how many were acknowledged.
fn check(home: &Home, sent: usize, results: &Results) -> usize {
    let mut results = std::mem::take(&mut *results.lock().expect("no panic"));
    results.sort_by_key(|(number, _)| *number);
    let answered: Vec<_> = results.iter().map(|(number, _)| *number).collect();
    assert_eq!(answered, (0..sent).collect::<Vec<_>>(), "each one once");
    let mut places = BTreeMap::new();
    let mut last = [None; QUEUES as usize];
    for entry in read_all(home, "t") {
        let number: usize = entry.body.expect("text").parse().expect("a number");
        let last = &mut last[usize::try_from(entry.queue).expect("a few")];
        assert!(*last < Some(number), "{number} behind {last:?}");
        *last = Some(number);
        places.insert(number, (entry.queue, entry.offset));
    }
    let mut acknowledged = 0;
    for (number, result) in results {
        match result {
            Ok(receipt) => {
                let place = (u64::from(receipt.queue.0), receipt.offset.0);
                assert_eq!(places.get(&number), Some(&place), "{number} is acknowledged");
                acknowledged += 1;
            }
            Err(error) => {
                assert!(error.maybe_stored() || !places.contains_key(&number), "{number}: {error}");
            }
        }
    }
    acknowledged
}

/// Sends [`ROUND`] messages in each of `rounds`, with something to upset it before each of them: how many
/// were sent and how many of them acknowledged, none of which is lost.
fn under_load(rounds: usize, upset: impl Fn(&Client, &Producer, usize, usize)) -> (usize, usize) {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", QUEUES);
    block_on(async {
        let client = client(&home);
        let producer = client.producer(patient("t")).expect("a producer");
        let results = Results::default();
        let mut sent = 0;
        for round in 0..rounds {
            for number in 0..ROUND {
                send(&producer, sent, &results);
                sent += 1;
                upset(&client, &producer, round, number);
            }
            producer.flush().await.expect("it goes on");
        }
        let acknowledged = check(&home, sent, &results);
        client.close().await;
        (sent, acknowledged)
    })
}

#[test]
fn a_producer_that_panics_under_load_loses_nothing_acknowledged_and_keeps_the_order() {
    let (sent, acknowledged) = under_load(PANICS, |_, producer, round, number| {
        // Sooner and sooner: also when its first batches are under way.
        if number == ROUND >> (2 * round) {
            producer.inject_panic();
        }
    });
    println!("{acknowledged} of {sent} acknowledged");
    assert!(acknowledged >= sent / 3, "{acknowledged} of {sent}");
}

#[test]
fn a_named_producer_that_panics_while_it_asks_for_its_name_does_not_shut_itself_out() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", QUEUES);
    block_on(async {
        let client = client(&home);
        client.ready().await.expect("a broker");
        for round in 0..8_usize {
            let mut config = ProducerConfig::named("t", "billing").expect("names");
            config.retries = 19;
            let producer = client.producer(config).expect("a producer");
            for number in 0..PANICS {
                let sent = producer.enqueue(Message::new("x")).await.expect("room");
                producer.inject_panic();
                match sent.await {
                    Ok(_) | Err(SendError::Closed { .. }) => {}
                    other => panic!("round {round}, panic {number}: {other:?}"),
                }
            }
            producer.send(Message::new("last")).await.expect("it is the newest of its name");
            producer.close().await.expect("an open producer");
        }
        client.close().await;
    });
}

#[test]
fn a_producer_loses_nothing_when_links_or_the_router_under_it_panic() {
    let (sent, acknowledged) =
        under_load(2 * PANICS, |client, _, round, number| match (number == ROUND / 2, round % 2) {
            (true, 0) => client.inject_link_panics(),
            (true, _) => client.inject_router_panic(),
            _ => {}
        });
    assert_eq!(acknowledged, sent, "all of them, whatever it took");
}
