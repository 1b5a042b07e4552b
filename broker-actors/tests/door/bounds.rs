//! What one connection may have under way, and what one question may cost.

use std::sync::Arc;

use bytes::Bytes;
use grus_broker::registry_link::routes::{Leader, QueuePlace, Routes, TopicRoute};
use grus_protocol::ErrorCode;
use grus_protocol::ids::{ShardId, TimestampMs, TopicId};
use grus_protocol::message::{Metadata, MetadataReply, TopicSettings};
use grus_protocol::names::TopicName;

use crate::support::{Door, DoorConfig, described, fetch, fetched, topic};

#[actix::test]
async fn replies_that_wait_for_a_peer_count_and_no_more_is_read_from_it() {
    const ASKED: u32 = 500;
    let mut door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    for correlation in 0..u64::from(ASKED) {
        client.ask(correlation, &fetch(1 << 20)).await;
    }
    let body = Bytes::from(vec![7; 1 << 20]);
    let mut answered = 0_u64;
    let load = loop {
        while let Some((fetch, _credit)) = door.fetch.try_take() {
            fetch.reply.send(Ok(fetched(body.clone())));
            answered += 1;
        }
        let load = described(&door).await.load;
        if load.output_bytes >= 16 << 20 {
            break load;
        }
        assert!(answered < u64::from(ASKED), "all of it was taken, and {load:?} is known to wait");
        tokio::task::yield_now().await;
    };
    assert!(load.requests < 64, "{load:?}");
    // It reads after all: everything comes.
    for correlation in 0..u64::from(ASKED) {
        let answer = tokio::select! {
            answer = client.frame() => answer,
            () = async {
                while let Some((fetch, _credit)) = door.fetch.take().await {
                    fetch.reply.send(Ok(fetched(body.clone())));
                }
            } => unreachable!("the door is open"),
        };
        assert_eq!(answer.unwrap().head.correlation, correlation);
    }
    assert_eq!(described(&door).await.load.requests, 0, "all its room is given back");
}

#[actix::test]
async fn routes_of_too_many_queues_are_refused_and_fewer_are_told() {
    let door = Door::open(DoorConfig::default()).await;
    let mut client = door.client().await;
    let wide = TopicName::try_from("wide").unwrap();
    let with = |name: &TopicName, id| {
        let place = QueuePlace { shard: ShardId(0), handle: None, leader: Leader::Nobody };
        TopicRoute {
            name: name.clone(),
            id: TopicId(id),
            settings: TopicSettings::default(),
            created: TimestampMs(1),
            queues: vec![place; 1_001],
        }
    };
    let mut routes = Routes::clone(&door.routes.borrow());
    routes.put(with(&wide, 1));
    door.routes.send_replace(Arc::new(routes.clone()));
    let asking = |topics: Vec<TopicName>| Metadata { topics, auto_create: false };
    let all: MetadataReply = client.call(&asking(Vec::new())).await.unwrap();
    assert_eq!(all.topics.len(), 2);
    let some: MetadataReply = client.call(&asking(vec![wide.clone(); 99])).await.unwrap();
    assert_eq!(some.topics.len(), 99);
    let error = client.call(&asking(vec![wide; 100])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    assert!(error.message.contains("ListTopics"), "{error:?}");

    for number in 0..100 {
        routes.put(with(&TopicName::try_from(format!("wide-{number}").as_str()).unwrap(), number));
    }
    door.routes.send_replace(Arc::new(routes));
    let error = client.call(&asking(Vec::new())).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidRequest, "all at once");
    assert!(client.call(&asking(vec![topic()])).await.is_ok(), "by name");
}
