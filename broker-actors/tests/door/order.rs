//! Requests that are well: what reaches the queue, in which order, and what comes back.

use std::sync::Arc;

use grus_broker::config::BrokerConfig;
use grus_broker::registry_link::LinkRequest;
use grus_broker::registry_link::routes::{Routes, TopicRoute};
use grus_broker::topic_queue::{At, ListedOffset, QueueAsk};
use grus_protocol::frame::{FrameFlags, FrameHead, encode};
use grus_protocol::ids::{BrokerId, Offset, QueueId, TimestampMs, TopicId};
use grus_protocol::message::{
    FetchReply, ListAt, ListOffsets, ListOffsetsReply, Metadata, MetadataReply, Ping, Produce,
    ProduceReply,
};
use grus_protocol::{ErrorCode, ErrorReply, Opcode, TopicName};

use crate::support::{Door, DoorConfig, batch, fetch, fetched, produce, receipt, topic};

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
async fn the_first_batch_for_an_unknown_topic_asks_for_it_and_keeps_its_place() {
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let new = TopicName::try_from("new").unwrap();
    let to_new = Produce { topic: new.clone(), ..produce() };
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

    let stale = Produce { topic_id: TopicId(5), ..to_new };
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
