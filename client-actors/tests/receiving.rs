//! What a program is given, and by which way: interceptors, pulls, an actor of its own; against the
//! fake broker.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Context, Handler};
use fake::{FakeBroker, PATIENCE};
use grus_client::{
    Client, ClientConfig, DeliverTo, Delivered, Delivery, Interceptor, ListAt, Message, Offset,
    ProducerConfig, QueueId, ReadError, ReaderConfig, Received, StartAt,
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

type Seen = Arc<Mutex<Vec<(&'static str, u64, Option<Received>)>>>;

/// Notes what it sees, and panics over offset 1 after that.
struct Witness(Seen);

impl Witness {
    fn note(&self, when: &'static str, message: &Delivered, result: Option<Received>) {
        self.0.lock().unwrap().push((when, message.offset.0, result));
        assert_ne!(message.offset, Offset(1), "a bug of the program's");
    }
}

impl Interceptor for Witness {
    fn before_receive(&self, message: &Delivered) {
        self.note("before", message, None);
    }

    fn after_receive(&self, message: &Delivered, result: Received) {
        self.note("after", message, Some(result));
    }
}

/// A broker with a topic of one queue and four messages, and a client with a witness.
async fn scene() -> (FakeBroker, Client, Seen) {
    let broker = FakeBroker::start().await;
    broker.topic("orders", 1);
    let seen = Seen::default();
    let mut config = ClientConfig::new([broker.address()]);
    config.interceptors.add(Witness(Arc::clone(&seen)));
    let client = Client::connect(config).await.unwrap();
    let producer = client.producer(ProducerConfig::new("orders").unwrap()).unwrap();
    for number in 0..4 {
        producer.send(Message::new(number.to_string())).await.unwrap();
    }
    (broker, client, seen)
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap()
}

fn taken(seen: &Seen) -> Vec<(&'static str, u64, Option<Received>)> {
    std::mem::take(&mut *seen.lock().unwrap())
}

const HANDLED: Option<Received> = Some(Received::Handled);

#[tokio::test]
async fn s7_interceptors_see_each_message_before_and_after_and_one_that_panics_loses_none() {
    let (_broker, client, seen) = scene().await;
    let mut reader = client.reader(ReaderConfig::new("orders", StartAt::First).unwrap()).unwrap();
    for offset in 0..3 {
        assert_eq!(within(reader.next()).await.unwrap().offset, Offset(offset));
    }
    let both = |offset| [("before", offset, None), ("after", offset, HANDLED)];
    let expected = [&both(0)[..], &both(1), &both(2)[..1]].concat();
    assert_eq!(taken(&seen), expected, "2 is in the program's hand");
    drop(reader);
    assert_eq!(taken(&seen), [("after", 2, HANDLED)]);
    assert_eq!(client.panics(), 2, "before and after offset 1");

    let mut puller = client.puller("orders").unwrap();
    let pulled = within(puller.pull(QueueId(0), Offset(2), 10)).await.unwrap();
    assert_eq!((pulled.messages.len(), pulled.next.offset), (2, Offset(4)));
    assert_eq!(taken(&seen), [("before", 2, None), ("before", 3, None)]);
    let none = within(puller.pull(QueueId(0), pulled.next, 10)).await.unwrap();
    assert!(none.messages.is_empty());
    assert_eq!(taken(&seen), [("after", 2, HANDLED), ("after", 3, HANDLED)]);
}

/// Sends on what it is given, without dropping it.
struct Keeper(UnboundedSender<Delivery>);

impl Actor for Keeper {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Keeper {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Context<Self>) {
        let _ = self.0.send(delivery); // the test may be over
    }
}

#[actix::test]
async fn a_receiver_is_given_no_more_than_it_may_have_in_hand() {
    let (_broker, client, seen) = scene().await;
    let (to, mut given) = unbounded_channel();
    let mut deliver_to = DeliverTo::new(Keeper(to).start().recipient());
    deliver_to.messages_max = 2;
    let config = ReaderConfig::new("orders", StartAt::First).unwrap();
    let delivery = client.deliver_to(config, deliver_to).unwrap();
    let first = within(given.recv()).await.unwrap();
    let second = within(given.recv()).await.unwrap();
    assert_eq!((first.offset, second.offset), (Offset(0), Offset(1)));
    let none = tokio::time::timeout(Duration::from_millis(100), given.recv()).await;
    assert!(none.is_err(), "two are in hand");
    drop(first);
    assert_eq!(within(given.recv()).await.unwrap().offset, Offset(2), "one place was given back");
    let last = within(given.recv()).await.unwrap();
    assert_eq!(last.offset, Offset(3));
    // What was given before a seek is dropped before the seek is over.
    let mut seek = Box::pin(delivery.seek(QueueId(0), StartAt::First));
    let early = tokio::time::timeout(Duration::from_millis(100), seek.as_mut()).await;
    assert!(early.is_err(), "two are in hand");
    drop((second, last));
    within(seek).await.unwrap();
    assert_eq!(within(given.recv()).await.unwrap().offset, Offset(0));
    assert!(taken(&seen).contains(&("after", 0, HANDLED)), "seen on the receiver's thread");
    delivery.close().await;
    client.close().await;
}

#[tokio::test]
async fn pulls_and_offsets_go_to_the_leader_and_say_what_is_wrong() {
    let (_broker, client, _seen) = scene().await;
    let listed = client.list_offset("orders", QueueId(0), ListAt::Last).await.unwrap();
    assert_eq!((listed.offset, listed.log_start), (Offset(4), Offset(0)));
    let mut puller = client.puller("orders").unwrap();
    let beyond = within(puller.pull(QueueId(0), Offset(9), 1)).await.unwrap_err();
    assert!(matches!(beyond, ReadError::OffsetOutOfRange { .. }), "{beyond}");
    let other = within(puller.pull(QueueId(7), Offset(0), 1)).await.unwrap_err();
    assert!(matches!(other, ReadError::Refused { .. }), "{other}");
    let mut nobody = client.puller("nobody").unwrap();
    let missing = within(nobody.pull(QueueId(0), Offset(0), 1)).await.unwrap_err();
    assert!(matches!(missing, ReadError::Topic { .. }), "{missing}");
}
