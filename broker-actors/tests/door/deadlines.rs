//! Peers and queues that let the other side wait.

use std::time::Duration;

use bytes::Bytes;
use grus_broker::config::BrokerConfig;
use grus_broker::registry_link::LinkRequest;
use grus_protocol::frame::{FrameHead, encode};
use grus_protocol::ids::Offset;
use grus_protocol::message::{Ping, Produce, ProduceReply};
use grus_protocol::{ErrorCode, ErrorReply, Opcode, TopicName};
use tokio::io::AsyncWriteExt as _;

use crate::support::{
    Client, Door, DoorConfig, batch, described, fetch, fetched, produce, receipt, timed_door,
};

#[actix::test]
async fn one_that_says_nothing_or_never_ends_a_frame_is_closed() {
    let door = timed_door().await;
    let mut silent = door.stranger().await;
    assert!(silent.frame().await.is_none(), "no hello within 10 s");

    let mut dripping = door.client().await;
    let mut bytes = bytes::BytesMut::new();
    encode(FrameHead::request(Opcode::Produce, 8), &produce(), 1 << 20, &mut bytes).unwrap();
    let start = tokio::time::Instant::now();
    for byte in &bytes[..bytes.len() - 1] {
        if door.metrics.connections() == 0 {
            break; // closed, whenever the other end hears of it
        }
        let _ = dripping.stream.write_all(&[*byte]).await;
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(dripping.frame().await.is_none());

    let mut idle = door.client().await;
    let start = tokio::time::Instant::now();
    assert!(idle.frame().await.is_none());
    assert!(start.elapsed() >= Duration::from_secs(119), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(130), "{:?}", start.elapsed());
}

#[actix::test]
async fn a_peer_that_never_reads_is_cut_off_and_costs_bounded_memory() {
    let mut door = timed_door().await;
    let mut greedy = door.client().await;
    for n in 0..64 {
        greedy.ask(n, &fetch(1 << 20)).await;
    }
    let stored = Bytes::from(vec![7; 1 << 20]);
    let mut answered = 0;
    while described(&door).await.load.output_bytes < 16 << 20 {
        while let Some((message, _credit)) = door.fetch.try_take() {
            message.reply.send(Ok(fetched(stored.clone())));
            answered += 1;
        }
    }
    assert!(answered < 64, "it is not read from once enough waits for it");
    let start = tokio::time::Instant::now();
    while door.metrics.connections() > 0 {
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(30), "it is still there");
    }
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(greedy.rest().await.len() < 64 << 20, "what was not sent was given up");
}

fn within(timeout_ms: u32) -> Produce {
    Produce { timeout_ms, ..produce() }
}

async fn timeout_of(client: &mut Client, correlation: u64) {
    let frame = client.frame().await.expect("an answer");
    assert_eq!((frame.head.correlation, frame.head.is_error()), (correlation, true));
    let error: ErrorReply = frame.header().expect("an error");
    assert_eq!((error.code, error.retriable), (ErrorCode::Timeout, true));
}

#[actix::test]
async fn a_queue_that_does_not_answer_is_answered_for_and_its_late_receipt_goes_nowhere() {
    let mut connection = BrokerConfig::default().connection;
    connection.inflight_requests_max = 2;
    let mut door = Door::open(DoorConfig { connection, ..DoorConfig::default() }).await;
    let mut client = door.client().await;
    let start = tokio::time::Instant::now();
    for correlation in 0..2 {
        client.ask_with(correlation, &within(300), &batch(&[b"x"])).await;
    }
    let held = [door.produce.take().await.unwrap(), door.produce.take().await.unwrap()];
    timeout_of(&mut client, 0).await;
    timeout_of(&mut client, 1).await;
    assert!(start.elapsed() >= Duration::from_millis(299), "{:?}", start.elapsed());

    // The room of both is free again, though the queue still has them.
    client.ask_with(7, &within(0), &batch(&[b"y"])).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    for (late, _credit) in held {
        late.reply.send(Ok(receipt(1)));
    }
    message.reply.send(Ok(receipt(9)));
    let frame = client.frame().await.expect("an answer");
    assert_eq!(frame.head.correlation, 7, "nothing for those that were answered");
    assert_eq!(frame.reply::<ProduceReply>().unwrap().base_offset, Offset(9));
}

#[actix::test]
async fn the_urgent_one_of_several_is_late_alone() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    for (correlation, timeout_ms) in [(1, 60_000), (2, 300), (3, 90_000)] {
        client.ask_with(correlation, &within(timeout_ms), &batch(&[b"x"])).await;
    }
    let mut messages = Vec::new();
    for _ in 0..3 {
        messages.push(door.produce.take().await.unwrap());
    }
    timeout_of(&mut client, 2).await;
    for (message, _credit) in messages {
        message.reply.send(Ok(receipt(5)));
    }
    client.ask(4, &Ping {}).await;
    for correlation in [1, 3, 4] {
        let frame = client.frame().await.expect("an answer");
        assert_eq!((frame.head.correlation, frame.head.is_error()), (correlation, false));
    }
}

#[actix::test]
async fn a_queue_without_room_and_a_topic_that_is_not_made_are_answered_in_time() {
    let one = u32::try_from(batch(&[b"x"]).len()).unwrap();
    let mut door = Door::open(DoorConfig { produce_bytes: one, ..DoorConfig::default() }).await;
    let mut client = door.client().await;
    client.ask_with(1, &within(60_000), &batch(&[b"x"])).await;
    client.ask_with(2, &within(300), &batch(&[b"y"])).await;
    let (first, credit) = door.produce.take().await.unwrap();
    timeout_of(&mut client, 2).await;
    first.reply.send(Ok(receipt(1)));
    drop(credit);
    assert_eq!(client.frame().await.unwrap().head.correlation, 1);

    let new = TopicName::try_from("new").unwrap();
    let to_new = Produce { topic: new, ..within(300) };
    client.ask_with(3, &to_new, &batch(&[b"z"])).await;
    let (asked, _credit) = door.link.take().await.unwrap();
    assert!(matches!(asked, LinkRequest::Resolve { .. }));
    timeout_of(&mut client, 3).await;
    client.ask(4, &Ping {}).await;
    assert_eq!(client.frame().await.unwrap().head.correlation, 4, "the reader goes on");
    assert!(door.produce.try_take().is_none(), "what had no room was given up");
}
