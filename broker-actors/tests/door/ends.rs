//! How a connection ends, and what it leaves behind.

use std::time::Duration;

use grus_broker::config::BrokerConfig;
use grus_broker::connection::Closed;
use grus_broker::dispatch::PANIC_TOPIC;
use grus_protocol::TopicName;
use grus_protocol::message::{DescribeTopic, Ping};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    Door, DoorConfig, batch, fetch, produce, receipt, standing_still, timed_door,
};

#[actix::test]
async fn half_a_close_still_gets_its_replies() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    client.ask_with(1, &produce(), &batch(&[b"x"])).await;
    client.stream.shutdown().await.unwrap();
    let (message, _credit) = door.produce.take().await.unwrap();
    message.reply.send(Ok(receipt(1)));
    assert_eq!(client.frame().await.unwrap().head.correlation, 1);
    assert!(client.frame().await.is_none());
}

#[actix::test]
async fn a_stop_answers_what_is_under_way_and_then_closes() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    client.ask_with(1, &produce(), &batch(&[b"x"])).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    let stopped = door.listener.stop();
    client.ask(2, &Ping {}).await; // may come too late, and then gets no answer
    message.reply.send(Ok(receipt(1)));
    let first = client.frame().await.expect("an answer");
    assert!([1, 2].contains(&first.head.correlation));
    stopped.await;
    assert!(door.process.census.is_empty(), "everyone has left");
}

#[actix::test]
async fn the_metrics_say_why_a_connection_ended() {
    let door = timed_door().await;
    let closed = |reason| door.metrics.closed_by(reason);
    assert!(door.stranger().await.frame().await.is_none(), "no hello");
    let mut rude = door.stranger().await;
    rude.ask(1, &Ping {}).await;
    standing_still(rude.rest()).await;
    let mut browser = door.stranger().await;
    browser.send(b"GET / HTTP/1.1\r\n\r\n").await;
    standing_still(browser.rest()).await;
    drop(door.client().await);
    while door.metrics.connections() > 0 {
        tokio::task::yield_now().await;
    }
    let counts = [Closed::Overdue, Closed::Refused, Closed::ByPeer, Closed::Stopping].map(closed);
    assert_eq!(counts, [1, 2, 1, 0]);
}

#[actix::test]
async fn a_queue_can_tell_whose_reader_has_left() {
    let mut connection = BrokerConfig::default().connection;
    connection.write_timeout = Duration::from_millis(500);
    let mut door = Door::open(DoorConfig { connection, ..DoorConfig::default() }).await;
    let mut client = door.client().await;
    client.ask(1, &fetch(100)).await;
    let (message, _credit) = door.fetch.take().await.unwrap();
    assert!(!message.reply.is_closed());
    drop(client);
    while !message.reply.is_closed() || door.metrics.connections() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn a_panic_costs_one_connection_and_all_it_held_comes_back() {
    let mut door = Door::open(DoorConfig { connections_max: 2, ..DoorConfig::default() }).await;
    let mut neighbour = door.client().await;
    let mut client = door.client().await;
    client.ask_with(1, &produce(), &batch(&[b"x"])).await;
    client.ask(2, &fetch(100)).await;
    let (produced, produce_credit) = door.produce.take().await.unwrap();
    let (fetched, _credit) = door.fetch.take().await.unwrap();
    let name = TopicName::try_from(PANIC_TOPIC).unwrap();
    client.ask(3, &DescribeTopic { name }).await;
    client.rest().await; // until its socket is closed
    produced.reply.send(Ok(receipt(1))); // goes nowhere, and harms nobody
    drop(produce_credit);
    assert!(fetched.reply.is_closed());
    neighbour.ask(4, &Ping {}).await;
    assert_eq!(neighbour.frame().await.unwrap().head.correlation, 4);
    while door.metrics.connections() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(door.metrics.closed_by(Closed::Panicked), 1);
    let kinds = door.process.census.totals();
    let connections = kinds.iter().find(|kind| kind.kind == "Connection").unwrap();
    assert_eq!((connections.actors, connections.restarts), (1, 1), "counted though it is gone");
    let mut another = door.client().await; // there is room for it again
    another.ask_with(5, &produce(), &batch(&[b"y"])).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    message.reply.send(Ok(receipt(2)));
    assert_eq!(another.frame().await.unwrap().head.correlation, 5);
}
