//! Readers of all kinds, from a plain program and from inside actix, across kill -9 of the broker:
//! no gap, no repeat. And what a seek promises: nothing that was in flight before it comes after it.

use std::collections::HashMap;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use grus_client::{
    Client, ClientConfig, DeliverTo, Delivered, Delivery, Message, Offset, ProducerConfig, QueueId,
    ReadError, ReadFailed, ReadMode, ReaderConfig, StartAt,
};
use grus_mailbox::System;
use grus_protocol::frame::encode;
use grus_protocol::message::{Hello, Subscribe, SubscribeAt};
use grus_protocol::{FrameHead, Opcode, SubscriptionId, TopicId, TopicName};
use grus_tests::broker::Home;
use grus_tests::random::Random;
use grus_tests::usage::anonymous_memory_kib;
use grus_tests::watch::PATIENCE;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{create, numbered};

const QUEUES: u32 = 2;
const KILLS: usize = 12;
const MESSAGES_EACH_ROUND: usize = 120;

/// A message that came to one of the readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    kind: &'static str,
    queue: u32,
    offset: u64,
}

#[derive(Clone)]
pub(crate) struct Ear {
    pub(crate) kind: &'static str,
    pub(crate) to: UnboundedSender<Heard>,
}

impl Ear {
    fn hear(&self, message: &Delivered) {
        let (queue, offset) = (message.queue.0, message.offset.0);
        let _ = self.to.send(Heard { kind: self.kind, queue, offset }); // the test may be over
    }
}

/// What came to each kind of reader: every offset of a queue once, in order.
#[derive(Default)]
pub(crate) struct Heards {
    next: HashMap<(&'static str, u32), u64>,
}

impl Heards {
    pub(crate) fn take(&mut self, heard: &Heard) {
        let next = self.next.entry((heard.kind, heard.queue)).or_insert(0);
        assert_eq!(heard.offset, *next, "a gap or a repeat: {heard:?}");
        *next += 1;
    }

    pub(crate) fn count(&self, kind: &str) -> u64 {
        self.next.iter().filter(|((of, _), _)| *of == kind).map(|(_, next)| next).sum()
    }

    /// Hears what is still to come: `total` messages by each kind of reader, and no more.
    pub(crate) async fn all(&mut self, ear: &mut UnboundedReceiver<Heard>, total: u64) {
        for kind in ["poll", "push", "stream", "pull", "receiver"] {
            while self.count(kind) < total {
                self.take(&heard(ear, kind).await);
            }
            assert_eq!(self.count(kind), total, "{kind}");
        }
    }
}

pub(crate) async fn heard(ear: &mut UnboundedReceiver<Heard>, what: &str) -> Heard {
    let next = tokio::time::timeout(PATIENCE, ear.recv()).await;
    next.unwrap_or_else(|_| panic!("nothing is heard any more: {what}")).expect("readers live")
}

/// An actor of a program's own.
pub(crate) struct Receiver {
    pub(crate) ear: Ear,
}

impl Actor for Receiver {
    type Context = Context<Self>;
}

impl Handler<Delivery> for Receiver {
    type Result = ();

    fn handle(&mut self, delivery: Delivery, _: &mut Context<Self>) {
        self.ear.hear(&delivery);
    }
}

impl Handler<ReadFailed> for Receiver {
    type Result = ();

    fn handle(&mut self, failed: ReadFailed, _: &mut Context<Self>) {
        panic!("{failed:?}");
    }
}

pub(crate) async fn connect(home: &Home) -> Client {
    Client::connect(ClientConfig::new([home.listen.to_string()])).await.expect("a broker")
}

pub(crate) fn config(mode: ReadMode) -> ReaderConfig {
    let mut config = ReaderConfig::new("t", StartAt::First).expect("a name");
    config.mode = mode;
    config.poll_wait = Duration::from_secs(2);
    config
}

pub(crate) type Work = Pin<Box<dyn Future<Output = ()>>>;

/// A reader of each kind, which tells what comes until it is dropped.
pub(crate) fn readers(client: &Client, to: &UnboundedSender<Heard>) -> Vec<Work> {
    let ear = |kind| Ear { kind, to: to.clone() };
    let mut works: Vec<Work> = Vec::new();
    for (kind, mode) in [("poll", ReadMode::Poll), ("push", ReadMode::Push)] {
        let (ear, mut reader) = (ear(kind), client.reader(config(mode)).expect("a reader"));
        works.push(Box::pin(async move {
            loop {
                ear.hear(&reader.next().await.expect("a message"));
            }
        }));
    }
    let (streamed, mut stream) =
        (ear("stream"), client.reader(config(ReadMode::Push)).expect("a reader"));
    works.push(Box::pin(async move {
        while let Some(message) = stream.try_next().await.expect("a message") {
            streamed.hear(&message);
        }
    }));
    for queue in (0..QUEUES).map(QueueId) {
        let (ear, mut puller) = (ear("pull"), client.puller("t").expect("a name"));
        works.push(Box::pin(async move {
            let mut at = puller.locate(queue, StartAt::First).await.expect("a place");
            loop {
                match puller.long_poll(queue, at, 50, Duration::from_secs(2)).await {
                    Ok(pulled) => {
                        assert!(pulled.messages.len() <= 50);
                        pulled.messages.iter().for_each(|message| ear.hear(message));
                        at = pulled.next;
                    }
                    Err(ReadError::Unanswered { .. }) => {} // asked again
                    Err(error) => panic!("{error}"),
                }
            }
        }));
    }
    works
}

#[test]
fn readers_of_every_kind_go_on_across_kill_9_without_gap_or_repeat() {
    let mut random = Random::seeded("reading");
    let home = Home::new();
    let mut broker = Some(home.start());
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
        let mut patient = ProducerConfig::new("t").expect("a name");
        patient.retries = 100;
        let producer = sender.producer(patient).expect("a producer");
        let mut heards = Heards::default();
        for round in 0..KILLS {
            let mut pending = Vec::new();
            for number in 0..MESSAGES_EACH_ROUND {
                let message = Message::new(format!("{round}/{number}"));
                pending.push(producer.enqueue(message).await.expect("room"));
            }
            for _ in 0..random.below(MESSAGES_EACH_ROUND as u64 * 3) {
                heards.take(&heard(&mut ear, "before a kill").await);
            }
            broker.take().expect("it runs").kill();
            broker = Some(home.start());
            for receipt in pending {
                receipt.await.expect("the broker is back within the window");
            }
        }
        let total = (KILLS * MESSAGES_EACH_ROUND) as u64;
        heards.all(&mut ear, total).await;
        delivery.close().await;
        client.close().await;
        sender.close().await;
    });
}

/// Reads so many messages of one kind of reader; their offsets.
async fn some(ear: &mut UnboundedReceiver<Heard>, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        offsets.push(heard(ear, "after a seek").await.offset);
    }
    offsets
}

#[test]
fn after_a_seek_nothing_that_was_in_flight_before_it_is_delivered() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], numbered("line", 20_000).as_bytes()).ok();
    System::new().block_on(async {
        let client = connect(&home).await;
        let places = [(StartAt::Offset(Offset(15_000)), 15_000), (StartAt::First, 0)];
        for mode in [ReadMode::Poll, ReadMode::Push] {
            let mut reader = client.reader(config(mode)).expect("a reader");
            let mut next = 0;
            for round in 0..10_u64 {
                for _ in 0..round * 37 {
                    assert_eq!(reader.next().await.expect("a message").offset.0, next);
                    next += 1;
                }
                let (start, offset) = places[usize::from(round % 2 == 1)];
                reader.seek(QueueId(0), start).await.expect("an open reader");
                next = offset;
            }
            reader.seek_all(StartAt::Last).await.expect("an open reader");
            let nothing = tokio::time::timeout(Duration::from_millis(200), reader.next()).await;
            assert!(nothing.is_err(), "{nothing:?}");
            reader.close().await;
        }
        let (to, mut ear) = unbounded_channel();
        let receiver = Receiver { ear: Ear { kind: "receiver", to } }.start();
        let mut deliver_to = DeliverTo::new(receiver.recipient());
        deliver_to.messages_max = 64;
        let delivery =
            client.deliver_to(config(ReadMode::Push), deliver_to).expect("an open client");
        for round in 0..10_u64 {
            some(&mut ear, 100).await;
            let (start, offset) = places[usize::from(round % 2 == 1)];
            delivery.seek(QueueId(0), start).await.expect("an open delivery");
            while ear.try_recv().is_ok() {} // handled before the seek was over, or after it
            // What is handled from now on follows the place, not what came before.
            let heard = some(&mut ear, 1).await[0];
            assert!((offset..offset + 5_000).contains(&heard), "{heard} after a seek to {offset}");
        }
        delivery.close().await;
        client.close().await;
    });
}

#[test]
fn s21_a_pull_of_thirty_at_a_hundred_and_nothing_at_the_end() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], numbered("line", 200).as_bytes()).ok();
    System::new().block_on(async {
        let client = connect(&home).await;
        let mut puller = client.puller("t").expect("a name");
        let queue = QueueId(0);
        let pulled = puller.pull(queue, Offset(100), 30).await.expect("messages");
        let offsets: Vec<u64> = pulled.messages.iter().map(|message| message.offset.0).collect();
        assert_eq!(offsets, (100..130).collect::<Vec<_>>());
        assert_eq!(pulled.next.offset, Offset(130));
        let end = puller.locate(queue, StartAt::Last).await.expect("a place");
        let none = puller.pull(queue, end, 30).await.expect("no message is no error");
        assert!(none.messages.is_empty() && none.next.offset == Offset(200));
        // A held question is answered by a message that is sent meanwhile.
        let producer = client.producer(crate::producing::config("t")).expect("a producer");
        let hold = Duration::from_secs(50);
        let (held, sent) = tokio::join!(
            tokio::time::timeout(hold / 2, puller.long_poll(queue, none.next, 30, hold)),
            producer.send(Message::new("meanwhile")),
        );
        let held = held.expect("answered long before the hold is over").expect("messages");
        assert_eq!(held.messages[0].id(), sent.expect("a receipt").id);
        let beyond = puller.pull(queue, Offset(9_999), 1).await;
        assert!(matches!(beyond, Err(ReadError::OffsetOutOfRange { .. })), "{beyond:?}");
        let nobody = client.puller("nobody").expect("a name").pull(queue, Offset(0), 1).await;
        assert!(matches!(nobody, Err(ReadError::Topic { .. })), "{nobody:?}");
        client.close().await;
    });
}

#[test]
fn s17_three_readers_get_all_and_one_resumes_from_the_offset_it_kept() {
    const LINES: usize = 1_000;
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    let consume = ["consume", "t", "--from", "first", "--json"];
    let mut readers = [(); 3].map(|()| home.grus_running(&consume));
    home.grus_fed(&["produce", "t"], numbered("line", LINES).as_bytes()).ok();
    let offset_of = |line: &[u8]| -> u64 {
        let value: serde_json::Value = serde_json::from_slice(line).expect("a line of JSON");
        value["offset"].as_u64().expect("an offset")
    };
    let mut kept = 0;
    for (number, reader) in readers.iter_mut().enumerate() {
        let lines = if number == 2 { 400 } else { LINES };
        for expected in 0..lines as u64 {
            let line = reader.next_line(PATIENCE).unwrap_or_else(|| panic!("{}", reader.log()));
            assert_eq!(offset_of(&line), expected);
            kept = expected;
        }
    }
    readers[2].kill();
    let from = format!("offset:{}", kept + 1);
    let rest = ["consume", "t", "--queue", "0", "--from", &from, "--max", "600", "--json"];
    let resumed = home.grus(&rest).ok();
    let offsets: Vec<u64> = resumed
        .out
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(offset_of)
        .collect();
    assert_eq!(offsets, (400..LINES as u64).collect::<Vec<_>>());
}

#[test]
fn a_subscriber_that_never_reads_costs_no_memory_and_holds_up_nobody() {
    const SUBSCRIPTIONS: u64 = 200;
    const LINE_BYTES: usize = 64 * 1024;
    const LINES: usize = 1_000;
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    let line = format!("{}\n", "x".repeat(LINE_BYTES));
    home.grus_fed(&["produce", "t"], line.repeat(LINES).as_bytes()).ok();
    let before_kib = anonymous_memory_kib(broker.process.pid());

    let mut deaf = std::net::TcpStream::connect(home.listen).expect("a connection");
    let mut said = BytesMut::new();
    let hello = FrameHead::request(Opcode::Hello, 0);
    encode(hello, &Hello::new("deaf", "test"), 0, &mut said).expect("it encodes");
    for id in 1..=SUBSCRIPTIONS {
        let subscribe = Subscribe {
            subscription: SubscriptionId(id),
            topic: TopicName::try_from("t").expect("a name"),
            topic_id: TopicId::UNKNOWN,
            queue: QueueId(0),
            at: SubscribeAt::First,
            credit_messages: u32::MAX,
            credit_bytes: u32::MAX,
        };
        let head = FrameHead::request(Opcode::Subscribe, id);
        encode(head, &subscribe, 0, &mut said).expect("it encodes");
    }
    deaf.write_all(&said).expect("an open connection");

    let read = home.grus(&["consume", "t", "--from", "first", "--max", "1000"]).ok();
    assert_eq!(read.out.len(), LINES * line.len());
    let grown_kib = anonymous_memory_kib(broker.process.pid()).saturating_sub(before_kib);
    println!("{SUBSCRIPTIONS} subscriptions that nobody reads: {grown_kib} KiB");
    assert!(grown_kib < 24 * 1024, "{grown_kib} KiB");
    drop(deaf);
}
