//! The connection side alone, on real sockets, with friendly and hostile peers.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::config::BrokerConfig;
use grus_broker::connection::Closed;
use grus_broker::dispatch::PANIC_TOPIC;
use grus_broker::registry_link::LinkRequest;
use grus_broker::registry_link::routes::{Routes, TopicRoute};
use grus_broker::topic_queue::{At, Fetched, FetchedBatch, ListedOffset, QueueAsk, Receipt};
use grus_mailbox::Clock;
use grus_protocol::frame::{FrameFlags, FrameHead, encode};
use grus_protocol::ids::{BrokerId, Durability, Offset, QueueId, Term, TimestampMs, TopicId};
use grus_protocol::message::{
    DescribeTopic, Fetch, FetchReply, Hello, HelloReply, ListAt, ListOffsets, ListOffsetsReply,
    Metadata, MetadataReply, Ping, ProduceReply,
};
use grus_protocol::{ErrorCode, ErrorDetail, ErrorReply, Opcode, TopicName};
use support::{Door, DoorConfig, batch, produce, topic};
use tokio::io::AsyncWriteExt as _;

fn receipt(offset: u64) -> Receipt {
    Receipt {
        base_offset: Offset(offset),
        count: 1,
        term: Term(3),
        stored: TimestampMs(4),
        durability: Durability::Persisted,
        duplicate: false,
    }
}

fn fetch(bytes_max: u32) -> Fetch {
    Fetch {
        topic: topic(),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        offset: Offset(0),
        last_term: Term::UNKNOWN,
        bytes_max,
        wait_ms: 0,
    }
}

fn fetched(body: Bytes) -> Fetched {
    let batch = FetchedBatch {
        base_offset: Offset(0),
        count: 1,
        term: Term(1),
        stored: TimestampMs(1),
        bytes: body,
    };
    Fetched { log_start: Offset(0), end_offset: Offset(1), batches: vec![batch] }
}

/// A door whose deadlines are driven by tokio's paused clock.
async fn timed_door() -> Door {
    tokio::time::pause();
    Door::open(DoorConfig { clock: Clock::simulated(TimestampMs(0)), ..DoorConfig::default() })
        .await
}

#[actix::test]
async fn hello_tells_the_limits_and_pings_are_answered_by_correlation() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    client.ask(5, &Hello::new("me", "test")).await;
    let frame = client.frame().await.expect("an answer");
    assert_eq!((frame.head.opcode, frame.head.correlation), (Opcode::Hello, 5));
    let hello: HelloReply = frame.reply().unwrap();
    assert_eq!(hello.broker_id.0, 9);
    assert_eq!(hello.message_bytes_max, 4 << 20);
    for correlation in [u64::MAX, 0, 77] {
        client.ask(correlation, &Ping {}).await;
    }
    for correlation in [u64::MAX, 0, 77] {
        assert_eq!(client.frame().await.unwrap().head.correlation, correlation);
    }
}

#[actix::test]
async fn a_request_before_hello_is_told_so_and_closed() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    client.ask(1, &Ping {}).await;
    assert_eq!(client.error().await.code, ErrorCode::HelloRequired);
    assert!(client.frame().await.is_none());
}

#[actix::test]
async fn a_hello_of_unknown_versions_is_told_so_and_another_may_follow() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.stranger().await;
    let hello = Hello { version_min: 40, version_max: 41, ..Hello::new("me", "test") };
    client.ask(1, &hello).await;
    assert_eq!(client.error().await.code, ErrorCode::UnsupportedVersion);
    let hello = Hello { client_id: "x".repeat(10_000), ..Hello::new("me", "test") };
    client.ask(2, &hello).await;
    assert_eq!(client.error().await.code, ErrorCode::InvalidRequest);
    client.ask(3, &Hello::new("me", "test")).await;
    assert!(!client.frame().await.unwrap().head.is_error());
}

#[actix::test]
async fn http_and_tls_on_this_port_get_one_clear_answer() {
    let door = Door::open(DoorConfig::default()).await;
    let mut browser = door.stranger().await;
    browser.send(b"GET / HTTP/1.1\r\nHost: localhost:6086\r\n\r\n").await;
    let answer = String::from_utf8(browser.rest().await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("127.0.0.1:7654"), "{answer}");

    let mut tls = door.stranger().await;
    tls.send(&[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3]).await;
    assert_eq!(tls.rest().await[..2], [0x15, 3], "a TLS alert");
}

#[actix::test]
async fn a_giant_length_is_refused_before_its_bytes_come() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let mut bytes = bytes::BytesMut::new();
    encode(FrameHead::request(Opcode::Produce, 8), &produce(), 0, &mut bytes).unwrap();
    bytes[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    client.send(&bytes).await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::FrameTooLarge);
    assert!(matches!(error.detail, Some(ErrorDetail::Limit { limit, .. }) if limit == 16 << 20));
    assert!(client.frame().await.is_none());
}

#[actix::test]
async fn what_is_not_known_here_is_refused_and_the_connection_goes_on() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let mut frame = bytes::BytesMut::new();
    encode(FrameHead::request(Opcode::Ping, 8), &Ping {}, 0, &mut frame).unwrap();
    let spoilt = |at: usize, byte: u8| {
        let mut bytes = frame.to_vec();
        bytes[at] = byte;
        bytes
    };
    for (bytes, code) in [
        (spoilt(8, 99), ErrorCode::UnknownOpcode),
        (spoilt(4, 9), ErrorCode::UnsupportedVersion),
        (spoilt(6, 0x80), ErrorCode::UnsupportedFeature),
        (spoilt(24, 0xc1), ErrorCode::MalformedHeader),
    ] {
        client.send(&bytes).await;
        assert_eq!(client.raw_error().await.code, code);
        client.ask(9, &Ping {}).await;
        assert_eq!(client.frame().await.unwrap().head.correlation, 9);
    }
}

#[actix::test]
async fn batches_reach_the_queue_in_order_and_receipts_leave_in_any() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    for n in 0..50_u64 {
        client.ask_with(n, &produce(), &batch(&[&n.to_le_bytes()])).await;
    }
    let mut taken = Vec::new();
    for n in 0..50_u64 {
        let (message, credit) = door.produce.take().await.unwrap();
        let body = message.batch.records().next().unwrap().unwrap().body_bytes();
        assert_eq!(body, n.to_le_bytes()[..], "batch {n}");
        taken.push((n, message.reply, credit));
    }
    for (n, reply, _credit) in taken.into_iter().rev() {
        reply.send(Ok(receipt(n + 1_000)));
    }
    for n in (0..50_u64).rev() {
        let frame = client.frame().await.expect("an answer");
        assert_eq!(frame.head.correlation, n);
        assert_eq!(frame.reply::<ProduceReply>().unwrap().base_offset, Offset(n + 1_000));
    }
}

#[actix::test]
async fn a_queue_without_room_holds_the_socket_back_and_loses_no_order() {
    let one = u32::try_from(batch(&[b"x"]).len()).unwrap();
    let mut door = Door::open(DoorConfig { produce_bytes: one, ..DoorConfig::default() }).await;
    let mut client = door.client().await;
    for n in 0..20_u64 {
        client.ask_with(n, &produce(), &batch(&[b"x"])).await;
    }
    client.ask(100, &Ping {}).await;
    for n in 0..20_u64 {
        let (message, credit) = door.produce.take().await.unwrap();
        assert!(door.produce.try_take().is_none(), "one at a time");
        message.reply.send(Ok(receipt(n)));
        drop(credit);
    }
    let mut answered = Vec::new();
    for _ in 0..21 {
        answered.push(client.frame().await.unwrap().head.correlation);
    }
    let ping = answered.iter().position(|correlation| *correlation == 100).unwrap();
    assert!(ping >= 19, "the ping was read before the batches in front of it had room");
    answered.remove(ping);
    assert_eq!(answered, (0..20).collect::<Vec<_>>());
}

#[actix::test]
async fn requests_under_way_are_bounded() {
    let mut connection = BrokerConfig::default().connection;
    connection.inflight_requests_max = 4;
    let mut door = Door::open(DoorConfig { connection, ..DoorConfig::default() }).await;
    let mut client = door.client().await;
    for n in 0..10_u64 {
        client.ask_with(n, &produce(), &batch(&[b"x"])).await;
    }
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(door.produce.take().await.unwrap());
    }
    for n in 4..10_u64 {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        assert!(door.produce.try_take().is_none(), "a fifth before one is answered");
        let (first, _credit) = held.remove(0);
        first.reply.send(Ok(receipt(n)));
        held.push(door.produce.take().await.unwrap());
    }
}

#[actix::test]
async fn a_bad_item_is_named_and_nothing_of_its_batch_is_stored() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let too_large = vec![0_u8; (4 << 20) + 1];
    client.ask_with(1, &produce(), &batch(&[b"good", &too_large, b"good"])).await;
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::MessageTooLarge);
    assert!(
        matches!(error.detail, Some(ErrorDetail::Limit { record_index: Some(1), .. })),
        "{error:?}"
    );
    let mut damaged = batch(&[b"abc"]).to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    client.ask_with(2, &produce(), &damaged).await;
    assert_eq!(client.error().await.code, ErrorCode::BatchChecksum);
    client.ask_with(3, &produce(), b"no batch").await;
    assert_eq!(client.error().await.code, ErrorCode::MalformedBatch);
    assert!(door.produce.try_take().is_none());

    client.ask_with(4, &produce(), &batch(&[b"good"])).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    message.reply.send(Ok(receipt(7)));
    assert_eq!(client.frame().await.unwrap().head.correlation, 4);
}

#[actix::test]
async fn a_wrong_queue_or_incarnation_is_typed() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let wrong_queue = grus_protocol::message::Produce { queue: QueueId(1), ..produce() };
    client.ask_with(1, &wrong_queue, &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::UnknownQueue);
    let stale = grus_protocol::message::Produce { topic_id: TopicId(76), ..produce() };
    client.ask_with(2, &stale, &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::StaleTopic);
}

#[actix::test]
async fn a_port_that_is_dropped_is_answered_as_unavailable() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    client.ask_with(1, &produce(), &batch(&[b"x"])).await;
    drop(door.produce.take().await.unwrap());
    let error = client.error().await;
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert!(error.retriable);
    drop(door.produce);
    client.ask_with(2, &produce(), &batch(&[b"x"])).await;
    assert_eq!(client.error().await.code, ErrorCode::Unavailable, "the queue has stopped");
}

#[actix::test]
async fn a_request_that_wants_no_reply_gets_none() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let mut head = FrameHead::request(Opcode::Produce, 1);
    head.flags = FrameFlags::NO_REPLY;
    let body = batch(&[b"x"]);
    let mut bytes = bytes::BytesMut::new();
    encode(head, &produce(), body.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(&body);
    client.send(&bytes).await;
    let (message, _credit) = door.produce.take().await.unwrap();
    message.reply.send(Ok(receipt(1)));
    client.ask(2, &Ping {}).await;
    assert_eq!(client.frame().await.unwrap().head.correlation, 2);
}

#[actix::test]
async fn fetched_batches_come_as_they_are_stored() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    client.ask(1, &fetch(100)).await;
    let (message, _credit) = door.fetch.take().await.unwrap();
    assert_eq!(message.bytes_max, 100);
    let stored = batch(&[b"one", &vec![7; 100_000]]);
    message.reply.send(Ok(fetched(stored.clone())));
    let frame = client.frame().await.expect("an answer");
    let reply: FetchReply = frame.reply().unwrap();
    assert_eq!(reply.batches[0].length as usize, stored.len());
    assert_eq!(frame.body, stored);
}

#[actix::test]
async fn an_offset_is_asked_of_the_queue() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let at = ListAt::Time(TimestampMs(9));
    let ask = ListOffsets { topic: topic(), topic_id: TopicId(77), queue: QueueId(0), at };
    client.ask(1, &ask).await;
    let (asked, _credit) = door.ask.take().await.unwrap();
    let QueueAsk::ListOffset { at: At::Time(TimestampMs(9)), reply } = asked else {
        panic!("{asked:?}");
    };
    let [offset, log_start, end_offset] = [5, 1, 8].map(Offset);
    reply.send(Ok(ListedOffset { offset, log_start, end_offset }));
    let reply: ListOffsetsReply = client.frame().await.unwrap().reply().unwrap();
    assert_eq!(reply, ListOffsetsReply { offset, log_start, end_offset });
}

#[actix::test]
async fn the_first_batch_for_an_unknown_topic_asks_for_it_and_keeps_its_place() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let new = TopicName::try_from("new").unwrap();
    let to_new = grus_protocol::message::Produce { topic: new.clone(), ..produce() };
    client.ask_with(1, &to_new, &batch(&[b"first"])).await;
    client.ask_with(2, &produce(), &batch(&[b"second"])).await;
    let (asked, _credit) = door.link.take().await.unwrap();
    let LinkRequest::Resolve { name, reply } = asked else { panic!("{asked:?}") };
    assert_eq!(name, new);
    assert!(door.produce.try_take().is_none(), "the second waits behind the first");
    let known = door.routes.borrow().get(&topic()).cloned().unwrap();
    reply.send(Ok(known));
    for body in [&b"first"[..], b"second"] {
        let (message, _credit) = door.produce.take().await.unwrap();
        assert_eq!(message.batch.records().next().unwrap().unwrap().body_bytes(), body);
    }

    let stale = grus_protocol::message::Produce { topic_id: TopicId(5), ..to_new };
    client.ask_with(3, &stale, &batch(&[b"x"])).await;
    let error = loop {
        let frame = client.frame().await.expect("an answer");
        if frame.head.correlation == 3 {
            break frame.header::<ErrorReply>().unwrap();
        }
    };
    assert_eq!(error.code, ErrorCode::UnknownTopic, "one that was known is not made again");
}

#[actix::test]
async fn a_topic_that_is_made_meanwhile_is_seen() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let all = Metadata { topics: Vec::new(), auto_create: false };
    client.ask(1, &all).await;
    let before: MetadataReply = client.frame().await.unwrap().reply().unwrap();
    assert_eq!(before.topics.len(), 1);
    assert_eq!(before.topics[0].queues[0].leader_broker, Some(BrokerId(9)));

    let mut routes = Routes::clone(&door.routes.borrow());
    let known = routes.get(&topic()).cloned().unwrap();
    let name = TopicName::try_from("made").unwrap();
    routes.put(TopicRoute { name: name.clone(), ..TopicRoute::clone(&known) });
    door.routes.send_replace(Arc::new(routes));
    client.ask(2, &Metadata { topics: vec![name.clone()], auto_create: false }).await;
    let after: MetadataReply = client.frame().await.unwrap().reply().unwrap();
    assert_eq!((&after.topics[0].name, &after.topics[0].error), (&name, &None));
    let unknown = TopicName::try_from("unknown").unwrap();
    client.ask(3, &Metadata { topics: vec![unknown], auto_create: false }).await;
    let none: MetadataReply = client.frame().await.unwrap().reply().unwrap();
    assert_eq!(none.topics[0].error.as_ref().unwrap().code, ErrorCode::UnknownTopic);
}

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
async fn one_socket_too_many_is_told_so() {
    let door = Door::open(DoorConfig { connections_max: 1, ..DoorConfig::default() }).await;
    let mut first = door.client().await;
    let mut second = door.stranger().await;
    assert_eq!(second.error().await.code, ErrorCode::TooManyConnections);
    assert!(second.frame().await.is_none());
    first.ask(2, &Ping {}).await;
    assert!(first.frame().await.is_some());
}

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
        if dripping.stream.write_all(&[*byte]).await.is_err() {
            break; // closed
        }
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(dripping.frame().await.is_none());
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());

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
    while answered < 64 {
        let (message, _credit) = door.fetch.take().await.unwrap();
        message.reply.send(Ok(fetched(stored.clone())));
        answered += 1;
    }
    let start = tokio::time::Instant::now();
    while door.metrics.connections() > 0 {
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(start.elapsed() < Duration::from_secs(30), "it is still there");
    }
    assert!(start.elapsed() >= Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(greedy.rest().await.len() < 64 << 20, "what was not sent was given up");
}

#[actix::test]
async fn noise_is_survived() {
    let mut door = Door::open(DoorConfig::default()).await;
    for seed in 0..200_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut noise = vec![0_u8; 400];
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = state.to_le_bytes()[3];
        }
        if seed % 2 == 0 {
            noise[0..4].copy_from_slice(&60_u32.to_le_bytes()); // a length that may be
            noise[4] = 1;
            noise[5] = 1;
        }
        let mut client = if seed % 4 < 2 { door.client().await } else { door.stranger().await };
        client.send(&noise).await;
        client.stream.shutdown().await.unwrap();
        client.rest().await;
    }
    assert!(door.produce.try_take().is_none());
    assert_eq!(door.process.census.restarts_total(), 0, "no panic");
    let mut client = door.client().await;
    client.ask(1, &Ping {}).await;
    assert!(client.frame().await.is_some());
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

fn within(timeout_ms: u32) -> grus_protocol::message::Produce {
    grus_protocol::message::Produce { timeout_ms, ..produce() }
}

async fn timeout_of(client: &mut support::Client, correlation: u64) {
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
    let to_new = grus_protocol::message::Produce { topic: new, ..within(300) };
    client.ask_with(3, &to_new, &batch(&[b"z"])).await;
    let (asked, _credit) = door.link.take().await.unwrap();
    assert!(matches!(asked, LinkRequest::Resolve { .. }));
    timeout_of(&mut client, 3).await;
    client.ask(4, &Ping {}).await;
    assert_eq!(client.frame().await.unwrap().head.correlation, 4, "the reader goes on");
    assert!(door.produce.try_take().is_none(), "what had no room was given up");
}

#[actix::test]
async fn the_metrics_say_why_a_connection_ended() {
    let door = timed_door().await;
    let closed = |reason| door.metrics.closed_by(reason);
    assert!(door.stranger().await.frame().await.is_none(), "no hello");
    let mut rude = door.stranger().await;
    rude.ask(1, &Ping {}).await;
    rude.rest().await;
    let mut browser = door.stranger().await;
    browser.send(b"GET / HTTP/1.1\r\n\r\n").await;
    browser.rest().await;
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
    while !message.reply.is_closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(door.metrics.connections(), 0);
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
