//! Going on elsewhere: a puller from place to place, and every kind of reader by time, also across a
//! kill -9 of the broker.

use actix::{Actor, Context, Handler};
use grus_client::{
    Client, DeliverTo, Delivery, Message, Offset, QueueId, ReadMode, StartAt, TimestampMs,
};
use grus_mailbox::System;
use grus_tests::broker::Home;
use grus_tests::watch::PATIENCE;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::reading::{config, connect};
use crate::{create, numbered};

const QUEUE: QueueId = QueueId(0);
const LINES: u64 = 200;

/// The times of all messages, by offset.
async fn times(client: &Client) -> Vec<TimestampMs> {
    let mut reader = client.reader(config(ReadMode::Poll)).expect("a reader");
    let mut times = Vec::new();
    for offset in 0..LINES {
        let message = reader.next().await.expect("a message");
        assert_eq!(message.offset, Offset(offset));
        times.push(message.stored);
    }
    reader.close().await;
    times
}

/// Sends in four runs, so that there are several times to seek.
fn fill(home: &Home) {
    for _ in 0..4 {
        home.grus_fed(&["produce", "t"], numbered("line", 50).as_bytes()).ok();
    }
}

#[test]
fn a_puller_goes_from_place_to_place_also_by_time_and_across_a_kill() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    fill(&home);
    let mut broker = Some(broker);
    System::new().block_on(async {
        let client = connect(&home).await;
        let times = times(&client).await;
        let mut puller = client.puller("t").expect("a name");
        for round in 0..2 {
            for from in [120, 7, 199, 0, 63] {
                let pulled = puller.pull(QUEUE, Offset(from), 10).await.expect("messages");
                let offsets: Vec<_> = pulled.messages.iter().map(|one| one.offset.0).collect();
                let end = (from + 10).min(LINES);
                assert_eq!(offsets, (from..end).collect::<Vec<_>>());
                // Going on behind it, by the position that knows the term.
                let next = puller.pull(QUEUE, pulled.next, 1).await.expect("an answer");
                let first = next.messages.first().map(|message| message.offset.0);
                assert_eq!(first, (end < LINES).then_some(end));
            }
            for wanted in [0, 50, 51, 130, 199] {
                let time = times[wanted];
                let first = times.iter().position(|stored| *stored >= time).expect("itself");
                let at = puller.locate(QUEUE, StartAt::Time(time)).await.expect("a place");
                assert_eq!(at.offset, Offset(first as u64));
                let pulled = puller.pull(QUEUE, at, 1).await.expect("a message");
                assert_eq!(pulled.messages[0].stored, time);
            }
            let later = StartAt::Time(TimestampMs(times[199].0 + 1));
            let end = puller.locate(QUEUE, later).await.expect("a place");
            assert_eq!(end.offset, Offset(LINES), "behind the last one");
            if round == 0 {
                broker.take().expect("it runs").kill();
                broker = Some(home.start());
            }
        }
        client.close().await;
    });
}

/// An actor that tells what it hears.
struct Receiver(UnboundedSender<u64>);

impl Actor for Receiver {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Receiver {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Context<Self>) {
        let _ = self.0.send(delivery.offset.0); // the test may be over
    }
}

#[test]
fn readers_of_every_kind_go_on_at_a_time() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    fill(&home);
    broker.kill();
    let _broker = home.start();
    System::new().block_on(async {
        let client = connect(&home).await;
        let times = times(&client).await;
        let at = |wanted: usize| {
            let first = times.iter().position(|stored| *stored >= times[wanted]).expect("itself");
            (StartAt::Time(times[wanted]), first as u64)
        };
        let places = [at(150), at(50), (StartAt::Time(TimestampMs(1)), 0), at(199)];
        for mode in [ReadMode::Poll, ReadMode::Push] {
            let mut reader = client.reader(config(mode)).expect("a reader");
            for (start, first) in places {
                reader.next().await.expect("a message");
                reader.seek(QUEUE, start).await.expect("an open reader");
                for offset in first..(first + 20).min(LINES) {
                    let read = tokio::time::timeout(PATIENCE, reader.next()).await;
                    let read = read.expect("there is one").expect("a message");
                    assert_eq!(read.offset.0, offset, "{mode:?} from {start:?}");
                }
                reader.seek_all(StartAt::First).await.expect("an open reader");
            }
            reader.close().await;
        }
        let (to, mut heard) = unbounded_channel();
        let receiver = Receiver(to).start();
        let delivery = client
            .deliver_to(config(ReadMode::Push), DeliverTo::new(receiver.recipient()))
            .expect("an open client");
        assert_eq!(heard.recv().await, Some(0));
        // From a time to come: what is stored then, and nothing that is there.
        let to_come = StartAt::Time(TimestampMs(times[199].0 + 1));
        delivery.seek_all(to_come).await.expect("an open delivery");
        while heard.try_recv().is_ok() {} // handled before the seek was over
        let producer = client.producer(crate::producing::config("t")).expect("a producer");
        let sent = producer.send(Message::new("later")).await.expect("a receipt");
        let next = tokio::time::timeout(PATIENCE, heard.recv()).await.expect("it comes");
        assert_eq!((next, sent.offset), (Some(LINES), Offset(LINES)));
        delivery.close().await;
        client.close().await;
    });
}
