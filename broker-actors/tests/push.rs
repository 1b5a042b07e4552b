//! Subscriptions over real sockets: credit, turns, seeks, and every way they end.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use client::{Client, batch};
use grus_broker::Broker;
use grus_broker::config::BrokerConfig;
use grus_broker::topic_queue::QueueAsk;
use grus_mailbox::{Clock, FatalPort, Process};
use grus_protocol::frame::{Frame, FrameFlags, FrameHead, FrameKind, encode};
use grus_protocol::ids::{Offset, QueueId, SubscriptionId, Term, TopicId};
use grus_protocol::message::{
    Credit, DeleteTopic, Deliver, Ping, Produce, ProduceReply, Request, Seek, SeekReply, Subscribe,
    SubscribeAt, SubscribeReply, Unsubscribe,
};
use grus_protocol::{BatchLimits, ErrorCode, ErrorReply, Opcode, RecordBatch, TopicName};

const WINDOW: u32 = 64 << 20;
/// No stop is given up on a machine that is busy with other tests.
const UNHURRIED: Duration = Duration::from_mins(2);

async fn start(folder: &Path) -> Broker {
    let config = BrokerConfig {
        data: folder.join("data"),
        listen_address: "127.0.0.1:0".into(),
        http_address: "127.0.0.1:0".into(),
        core_arbiters: 2,
        shutdown_timeout: UNHURRIED,
        ..BrokerConfig::default()
    };
    let process = Process::new(Clock::system(), FatalPort::new(|fatal| panic!("{fatal}")));
    Broker::start(config, process).await.unwrap()
}

async fn client(broker: &Broker) -> Client {
    Client::greeted(broker.addresses().listen).await
}

fn name() -> TopicName {
    TopicName::try_from("t").unwrap()
}

async fn send(client: &mut Client, queue: u32, bytes: &Bytes) -> ProduceReply {
    let (topic, queue) = (name(), QueueId(queue));
    let produce = Produce { topic, topic_id: TopicId::UNKNOWN, queue, timeout_ms: 0 };
    client.call_with(&produce, bytes).await.unwrap()
}

fn subscribe(id: u64, at: SubscribeAt, (messages, bytes): (u32, u32)) -> Subscribe {
    Subscribe {
        subscription: SubscriptionId(id),
        topic: name(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        at,
        credit_messages: messages,
        credit_bytes: bytes,
    }
}

const fn at(offset: u64) -> SubscribeAt {
    SubscribeAt::Offset(Offset(offset), Term(0))
}

/// The offsets of the records of a delivery; it must be one of `id`.
fn offsets(frame: &Frame, id: u64) -> Vec<u64> {
    assert_eq!((frame.head.kind, frame.head.opcode), (FrameKind::Push, Opcode::Deliver));
    assert_eq!((frame.head.correlation, frame.head.is_error()), (id, false), "{frame:?}");
    let deliver: Deliver = frame.header().unwrap();
    let mut body = frame.body.clone();
    let mut offsets = Vec::new();
    for head in &deliver.batches {
        let bytes = body.split_to(head.length as usize);
        let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        offsets.extend(head.base_offset.0..head.base_offset.0 + u64::from(batch.count()));
    }
    assert!(body.is_empty() && !offsets.is_empty());
    offsets
}

async fn delivered(client: &mut Client, id: u64) -> Vec<u64> {
    offsets(&client.frame().await.unwrap(), id)
}

/// Delivered until the offset before `end` is there.
async fn delivered_to(client: &mut Client, id: u64, end: u64) -> Vec<u64> {
    let mut all = Vec::new();
    while all.last().is_none_or(|last| last + 1 < end) {
        all.extend(delivered(client, id).await);
    }
    all
}

/// Asserts that nothing was delivered: the answer to a later request is the next frame.
async fn quiet(client: &mut Client) {
    client.ask(4_711, &Ping {}).await;
    let frame = client.frame().await.unwrap();
    assert_eq!((frame.head.opcode, frame.head.correlation), (Opcode::Ping, 4_711), "{frame:?}");
}

fn quiet_frame<R: Request>(request: &R) -> BytesMut {
    let mut bytes = BytesMut::new();
    let head = FrameHead { flags: FrameFlags::NO_REPLY, ..FrameHead::request(R::OPCODE, 0) };
    encode(head, request, 0, &mut bytes).unwrap();
    bytes
}

async fn tell<R: Request>(client: &mut Client, request: &R) {
    client.send(&quiet_frame(request)).await;
}

fn ended(frame: &Frame, id: u64) -> ErrorReply {
    assert_eq!((frame.head.kind, frame.head.opcode), (FrameKind::Push, Opcode::Deliver));
    assert_eq!((frame.head.correlation, frame.head.is_error()), (id, true), "{frame:?}");
    frame.header().unwrap()
}

#[actix::test]
async fn what_is_there_and_what_comes_is_delivered_in_order_within_the_credit() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let (mut producer, mut reader) = (client(&broker).await, client(&broker).await);
    let three = batch(&[b"a", b"b", b"c"]);
    for _ in 0..4 {
        send(&mut producer, 0, &three).await;
    }
    // A credit smaller than a batch: one batch whole, and no more before it is made good.
    let reply: SubscribeReply = reader.call(&subscribe(5, at(1), (1, WINDOW))).await.unwrap();
    assert_eq!(
        (reply.offset, reply.log_start, reply.end_offset),
        (Offset(1), Offset(0), Offset(12))
    );
    assert_eq!(delivered(&mut reader, 5).await, [0, 1, 2]);
    quiet(&mut reader).await;
    let more = |messages| Credit { subscription: SubscriptionId(5), messages, bytes: 0 };
    tell(&mut reader, &more(2)).await;
    quiet(&mut reader).await;
    tell(&mut reader, &more(1)).await;
    assert_eq!(delivered(&mut reader, 5).await, [3, 4, 5]);
    quiet(&mut reader).await;
    tell(&mut reader, &more(1_000)).await;
    assert_eq!(delivered_to(&mut reader, 5, 12).await, (6..12).collect::<Vec<_>>());
    // What is stored from now on comes by itself.
    for round in 0..3_u64 {
        send(&mut producer, 0, &three).await;
        let base = 12 + round * 3;
        assert_eq!(delivered(&mut reader, 5).await, (base..base + 3).collect::<Vec<_>>());
    }
    let end: Unsubscribe = Unsubscribe { subscription: SubscriptionId(5) };
    reader.call(&end).await.unwrap();
    send(&mut producer, 0, &three).await;
    quiet(&mut reader).await;
    let unknown = reader.call(&end).await.unwrap_err();
    assert_eq!(unknown.code, ErrorCode::UnknownSubscription);
    broker.stop().await;
}

#[actix::test]
async fn bytes_are_a_credit_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let one = batch(&[&[7; 10_000]]);
    for _ in 0..5 {
        send(&mut client, 0, &one).await;
    }
    let length = u32::try_from(one.len()).unwrap();
    client.call(&subscribe(1, at(0), (1_000, 2 * length))).await.unwrap();
    assert_eq!(delivered_to(&mut client, 1, 2).await, [0, 1]);
    quiet(&mut client).await;
    let credit = Credit { subscription: SubscriptionId(1), messages: 0, bytes: 1 };
    client.ask(9, &credit).await;
    assert_eq!(client.frame().await.unwrap().head.opcode, Opcode::Credit);
    assert_eq!(delivered(&mut client, 1).await, [2], "one byte lets one batch through");
    quiet(&mut client).await;
    broker.stop().await;
}

#[actix::test]
async fn after_the_reply_to_a_seek_nothing_old_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let big = batch(&[&vec![1; 100_000]]);
    for _ in 0..60 {
        send(&mut client, 0, &big).await;
    }
    client.call(&subscribe(1, at(0), (1_000, WINDOW))).await.unwrap();
    let mut next = 0;
    for round in 0..20_u64 {
        let to = (round * 37) % 55;
        let seek = Seek {
            subscription: SubscriptionId(1),
            at: at(to),
            credit_messages: 1_000,
            credit_bytes: WINDOW,
        };
        client.ask(100 + round, &seek).await;
        loop {
            let frame = client.frame().await.unwrap();
            if frame.head.kind == FrameKind::Push {
                for offset in offsets(&frame, 1) {
                    assert_eq!(offset, next, "before the reply: from before the seek");
                    next += 1;
                }
                continue;
            }
            assert_eq!(frame.head.correlation, 100 + round);
            let reply: SeekReply = frame.header().unwrap();
            assert_eq!(reply.offset, Offset(to));
            break;
        }
        let first = delivered(&mut client, 1).await;
        assert_eq!(first[0], to);
        next = first.last().unwrap() + 1;
    }
    let beyond = Seek {
        subscription: SubscriptionId(1),
        at: at(9_999),
        credit_messages: 1,
        credit_bytes: 1,
    };
    client.ask(3, &beyond).await;
    let refused = loop {
        let frame = client.frame().await.unwrap();
        if frame.head.kind == FrameKind::Reply {
            break frame;
        }
        next = offsets(&frame, 1).last().unwrap() + 1;
    };
    let error: ErrorReply = refused.header().unwrap();
    assert_eq!(error.code, ErrorCode::OffsetOutOfRange);
    if next < 60 {
        assert_eq!(delivered_to(&mut client, 1, 60).await[0], next, "it stands where it stood");
    }
    broker.stop().await;
}

#[actix::test]
async fn places_are_found_as_list_offsets_finds_them_and_bad_ones_are_typed() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    let receipt = send(&mut client, 0, &batch(&[b"x", b"y"])).await;
    let credit = (0, 0);
    let places = [
        (SubscribeAt::First, 0),
        (SubscribeAt::Last, 2),
        (SubscribeAt::Time(receipt.stored), 0),
        (SubscribeAt::Offset(Offset(2), receipt.term), 2),
    ];
    for (id, (place, offset)) in (1..).zip(places) {
        let reply: SubscribeReply = client.call(&subscribe(id, place, credit)).await.unwrap();
        assert_eq!(reply.offset, Offset(offset), "{place:?}");
    }
    let bad = [
        (subscribe(1, at(0), credit), ErrorCode::InvalidRequest),
        (subscribe(9, at(3), credit), ErrorCode::OffsetOutOfRange),
        (
            subscribe(9, SubscribeAt::Offset(Offset(2), Term(receipt.term.0 + 1)), credit),
            ErrorCode::Diverged,
        ),
        (Subscribe { queue: QueueId(99), ..subscribe(9, at(0), credit) }, ErrorCode::UnknownQueue),
        (Subscribe { topic_id: TopicId(4), ..subscribe(9, at(0), credit) }, ErrorCode::StaleTopic),
        (
            Subscribe {
                topic: TopicName::try_from("nobody").unwrap(),
                ..subscribe(9, at(0), credit)
            },
            ErrorCode::UnknownTopic,
        ),
    ];
    for (ask, code) in bad {
        assert_eq!(client.call(&ask).await.unwrap_err().code, code);
    }
    let seek =
        Seek { subscription: SubscriptionId(9), at: at(0), credit_messages: 0, credit_bytes: 0 };
    let error = client.call(&seek).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownSubscription, "none of those stands");
    broker.stop().await;
}

#[actix::test]
async fn a_deleted_topic_and_a_panicked_queue_end_their_subscriptions() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut client = client(&broker).await;
    send(&mut client, 0, &batch(&[b"x"])).await;
    client.call(&subscribe(1, at(0), (100, WINDOW))).await.unwrap();
    assert_eq!(delivered(&mut client, 1).await, [0]);

    let topic = broker.routes().get(&name()).cloned().unwrap();
    topic.queue(topic.id, QueueId(0)).unwrap().ask.try_put(QueueAsk::Panic).unwrap();
    let error = ended(&client.frame().await.unwrap(), 1);
    assert_eq!((error.code, error.retriable), (ErrorCode::Unavailable, true));
    let reply = client.call(&subscribe(1, at(1), (100, WINDOW))).await;
    assert_eq!(reply.unwrap().offset, Offset(1), "its id is free again");
    send(&mut client, 0, &batch(&[b"y"])).await;
    assert_eq!(delivered(&mut client, 1).await, [1]);

    client.ask(8, &DeleteTopic { name: name(), topic_id: TopicId::UNKNOWN }).await;
    let mut ends = Vec::new();
    for _ in 0..2 {
        let frame = client.frame().await.unwrap();
        if frame.head.kind == FrameKind::Push {
            ends.push(ended(&frame, 1).code);
        }
    }
    assert_eq!(ends, [ErrorCode::UnknownQueue]);
    broker.stop().await;
}

#[actix::test]
async fn subscriptions_end_with_their_connection_and_with_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut producer = client(&broker).await;
    send(&mut producer, 0, &batch(&[b"x"])).await;
    // More connections, one after the other, than a queue has room for subscriptions.
    for _ in 0..3 {
        let mut gone = client(&broker).await;
        // Room comes as the broker notices that those before are gone, and in no other way.
        let mut waiting: Vec<u64> = (0..2_000).collect();
        while !waiting.is_empty() {
            for id in &waiting {
                gone.ask(*id, &subscribe(*id, SubscribeAt::Last, (1, 1))).await;
            }
            let mut refused = Vec::new();
            for _ in 0..waiting.len() {
                let frame = gone.frame().await.unwrap();
                if frame.head.is_error() {
                    let error: ErrorReply = frame.header().unwrap();
                    assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}");
                    refused.push(frame.head.correlation);
                }
            }
            waiting = refused;
        }
    }
    let mut last = client(&broker).await;
    last.call(&subscribe(1, at(1), (100, WINDOW))).await.unwrap();
    let reader = tokio::task::spawn_local(async move {
        // Its queue may stop before it has heard that the connection does: then it says so.
        if let Some(frame) = last.frame().await {
            assert_eq!(ended(&frame, 1).code, ErrorCode::ShuttingDown);
            assert!(last.frame().await.is_none(), "and the connection ends");
        }
    });
    for report in broker.stop().await {
        assert_eq!(report.overdue, Vec::<String>::new(), "{report:?}");
    }
    reader.await.unwrap();
}

#[actix::test]
async fn subscriptions_of_a_connection_take_turns_and_one_that_does_not_read_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let broker = start(folder.path()).await;
    let mut producer = client(&broker).await;
    let big = batch(&[&vec![3; 200_000]]);
    for _ in 0..100 {
        send(&mut producer, 0, &big).await;
    }
    let mut deaf = client(&broker).await;
    for id in 0..50 {
        deaf.ask(id, &subscribe(id, at(0), (1_000, WINDOW))).await;
    }
    // It never reads. Meanwhile another connection gets all of it, twice, in turns.
    let mut reader = client(&broker).await;
    for id in [1, 2] {
        reader.call(&subscribe(id, at(0), (1_000, 1))).await.unwrap();
        assert_eq!(delivered(&mut reader, id).await, [0]);
    }
    // In one write, so that neither begins before the other.
    let mut both = BytesMut::new();
    for id in [1, 2] {
        let (messages, bytes) = (0, WINDOW);
        both.unsplit(quiet_frame(&Credit { subscription: SubscriptionId(id), messages, bytes }));
    }
    reader.send(&both).await;
    let mut got = [1, 1];
    while got != [100, 100] {
        let frame = reader.frame().await.unwrap();
        let id = frame.head.correlation;
        let count = &mut got[usize::try_from(id - 1).unwrap()];
        assert_eq!(offsets(&frame, id)[0], *count);
        *count += offsets(&frame, id).len() as u64;
        let ahead = got[0].abs_diff(got[1]);
        assert!(ahead <= 12 || got.contains(&100), "one is {ahead} ahead of the other");
    }
    broker.stop().await;
}
