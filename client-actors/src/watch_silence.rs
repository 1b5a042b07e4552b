//! A broker that tells the routes and falls silent, on paused time: another one is asked to tell them, long before the
//! connection is given up.

use std::time::Duration;

use grus_mailbox::{ActorSpec, Clock, FatalPort, Host, Place, Process, outlet};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::message::{MetadataReply, QueueRoute, TopicKind, TopicMetadata};
use grus_protocol::{
    BrokerId, Durability, Opcode, QueueId, ShardId, TimestampMs, TopicId, TopicName,
};
use tokio::net::TcpListener;

use crate::config::{ClientConfig, millis};
use crate::link::LinkSettings;
use crate::link_silence::{Peer, standing_still};
use crate::router::{FindRoute, Router};

/// How long anything may really take, in milliseconds.
const PATIENCE_MS: u64 = 120_000;

async fn broker(id: u64) -> (TcpListener, BrokerAddress) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, BrokerAddress { id: BrokerId(id), host: "127.0.0.1".to_owned(), port })
}

/// One topic, whose queue the second of two brokers leads.
fn led_by_the_second(brokers: [&BrokerAddress; 2]) -> MetadataReply {
    let topic = TopicMetadata {
        name: TopicName::try_from("t").unwrap(),
        error: None,
        id: TopicId(5),
        durability: Durability::Persisted,
        kind: TopicKind::Durable,
        queues: vec![QueueRoute {
            queue: QueueId(0),
            leader_broker: Some(brokers[1].id),
            shard: ShardId(2),
        }],
    };
    MetadataReply { brokers: brokers.map(Clone::clone).to_vec(), topics: vec![topic], version: 1 }
}

#[actix::test]
async fn when_the_broker_that_tells_the_routes_falls_silent_another_one_tells_them() {
    tokio::time::pause();
    let process = Process::new(Clock::simulated(TimestampMs(0)), FatalPort::channel().0);
    let place = Place::here("test", &process);
    let (first, first_at) = broker(1).await;
    let (second, second_at) = broker(2).await;
    let defaults = ClientConfig::default();
    let settings = LinkSettings {
        addresses: vec![first.local_addr().unwrap().to_string()],
        client_id: "watches".to_owned(),
        open_ms_max: millis(defaults.open_timeout),
        silence_ms_max: millis(defaults.silence_max),
        reconnect_ms_max: millis(defaults.reconnect_wait_max),
        seed: 1,
    };
    let router = Host::spawn_local(&place, ActorSpec::new("Router", "test"), move || {
        Router::new(settings.clone(), 0)
    });
    let (to, mut routes) = outlet(16);
    let find = FindRoute {
        topic: TopicName::try_from("t").unwrap(),
        auto_create: false,
        deadline_ms: 60_000,
        to,
    };
    router.inbox::<FindRoute>(1).try_put(find).unwrap();

    // The first one says that the second leads, is asked to tell the routes, and then stands still.
    let (mut silent, mut second) = standing_still(async {
        let mut silent = Peer::accept(&first, 1).await;
        let mut is_watched = false;
        let mut is_asked = false;
        while !is_watched || !is_asked {
            let frame = silent.next().await.expect("an open connection");
            is_watched |= frame.head.opcode == Opcode::WatchRoutes;
            if frame.head.opcode == Opcode::Metadata {
                is_asked = true;
                silent.answer(frame.head, &led_by_the_second([&first_at, &second_at])).await;
            }
        }
        let second = Peer::accept(&second, 2).await;
        let (routed, _) = routes.take().await.unwrap();
        assert_eq!(routed.result.unwrap().0.links.len(), 1);
        (silent, second)
    })
    .await;

    let begun_ms = process.clock.monotonic_ms();
    let (real, mut asked) = (Clock::system(), Vec::new());
    let told = standing_still(async {
        loop {
            // Time moves by hand, up to just before a link would ask for a sign of life by itself.
            if process.clock.monotonic_ms() < begun_ms + 4_500 {
                tokio::time::advance(Duration::from_millis(25)).await;
            }
            tokio::select! {
                biased;
                frame = second.next() => {
                    asked.push(frame.expect("an open connection").head.opcode);
                    if asked.contains(&Opcode::WatchRoutes) { break true }
                }
                () = tokio::task::yield_now() => {}
            }
            if real.monotonic_ms() > PATIENCE_MS {
                break false;
            }
        }
    });
    assert!(told.await, "the second one is asked to tell them: {asked:?}");
    let mut first_was_asked = Vec::new();
    while !first_was_asked.contains(&Opcode::Ping) {
        let frame = standing_still(silent.next()).await.expect("it is not given up");
        first_was_asked.push(frame.head.opcode);
    }
    router.stop().await;
}
