//! Samples of what registries, brokers and watchers of routes say.

use bytes::Bytes;
use grus_protocol::message::{
    BrokerHeartbeat, BrokerHeartbeatReply, BrokerState, LeadShards, LeadShardsReply, LedShard,
    OfferTopics, OfferTopicsReply, OfferedQueue, OfferedTopic, PlaceDeadLetters,
    PlaceDeadLettersReply, QueueSpan, RefusedTopic, RegisterBroker, RegisterBrokerReply,
    RoutesChanged, ShardClaim, ShardMembership, ShardState, TopicState, WatchRoutes,
    WatchRoutesReply,
};
use grus_protocol::{
    BrokerId, Durability, ErrorCode, ErrorReply, FrameHead, FrameKind, Offset, Opcode, QueueId,
    ShardId, Term, TopicId, TopicName,
};

use super::{BORN, pair, settings, topic, whole};

const REGISTRY: u64 = 0x000a_bcde_f012_3456;

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let watching = WatchRoutesReply { registry: REGISTRY, version: 41 };
    pair(out, &WatchRoutes { topics: vec![topic()] }, &watching, [b"", b""]);
    let head = FrameHead {
        kind: FrameKind::Push,
        ..FrameHead::request(Opcode::RoutesChanged, 0x0102_0304_0506_0719)
    };
    out.push(("RoutesChanged.push".into(), whole(head, &changed(), b"")));

    let (broker, session) = (BrokerId(5), 0x0007_7777_0000_0001);
    let claims = vec![
        ShardClaim { shard: ShardId(3), durability: Durability::Persisted },
        ShardClaim { shard: ShardId(4), durability: Durability::Replicated },
    ];
    let register = RegisterBroker {
        broker,
        disk: 0x0001_2345_6789_abcd,
        session,
        host: "mq.example".into(),
        port: 6086,
        shards: claims[..1].to_vec(),
        shards_wanted: 2,
        memberships: vec![ShardMembership {
            shard: ShardId(9),
            durability: Durability::Replicated,
            members: vec![BrokerId(5), BrokerId(6)],
            group: 0x000b_0b0b_0b0b_0b0b,
            wanted: vec![BrokerId(5), BrokerId(8)],
            members_at: 300,
        }],
        shards_below: 12,
    };
    let registered = RegisterBrokerReply {
        registry: REGISTRY,
        lease_ms: 10_000,
        heartbeat_ms: 1_000,
        shards: claims,
    };
    pair(out, &register, &registered, [b"", b""]);
    let beat = BrokerHeartbeat {
        broker,
        session,
        produced_bytes_per_second: 1 << 20,
        leaving: true,
        drained: true,
    };
    pair(out, &beat, &BrokerHeartbeatReply { lease_ms: 10_000 }, [b"", b""]);
    topics(out, broker, session);
    let led = LedShard {
        shard: ShardId(9),
        term: Term(8),
        members: vec![BrokerId(5), BrokerId(8)],
        members_at: 311,
    };
    let lead = LeadShards { broker, shards: vec![led] };
    pair(out, &lead, &LeadShardsReply {}, [b"", b""]);
}

/// What is said of topics.
fn topics(out: &mut Vec<(String, Bytes)>, broker: BrokerId, session: u64) {
    let offered = OfferedTopic {
        name: topic(),
        id: TopicId(77),
        settings: settings(),
        queues: vec![OfferedQueue { queue: QueueId(2), shard: ShardId(3) }],
        altered: BORN,
    };
    let error = ErrorReply::new(ErrorCode::TopicExists, "topic exists, with id 78");
    let refused = RefusedTopic { name: topic(), id: TopicId(77), error };
    let offer = OfferTopics { broker, session, topics: vec![offered] };
    pair(out, &offer, &OfferTopicsReply { refused: vec![refused] }, [b"", b""]);
    let place = PlaceDeadLetters {
        name: TopicName::system("DLQ", "billing").expect("a valid name"),
        topic_id: TopicId(77),
        home: Some(ShardId(3)),
        shards: vec![ShardId(3), ShardId(4)],
    };
    let placed = PlaceDeadLettersReply { id: TopicId(78), queues: 2, created: true };
    pair(out, &place, &placed, [b"", b""]);
}

fn changed() -> RoutesChanged {
    RoutesChanged {
        registry: REGISTRY,
        version: 42,
        whole: true,
        more: true,
        brokers: vec![BrokerState {
            id: BrokerId(5),
            host: "mq.example".into(),
            port: 6086,
            live: true,
            disk: 0x0001_2345_6789_abcd,
        }],
        shards: vec![ShardState {
            shard: ShardId(3),
            durability: Durability::Persisted,
            broker: BrokerId(5),
            open: true,
            members: vec![BrokerId(5), BrokerId(6)],
            group: 0x000b_0b0b_0b0b_0b0b,
            term: Term(7),
            wanted: vec![BrokerId(5), BrokerId(8)],
            members_at: 300,
        }],
        topics: vec![TopicState {
            name: topic(),
            id: TopicId(77),
            settings: settings(),
            created: BORN,
            queues: vec![
                vec![QueueSpan { shard: ShardId(3), from: Offset(0) }],
                vec![],
                vec![
                    QueueSpan { shard: ShardId(3), from: Offset(0) },
                    QueueSpan { shard: ShardId(9), from: Offset(1000) },
                ],
            ],
            altered: grus_protocol::TimestampMs(BORN.0 + 1),
        }],
        gone: vec![TopicName::try_from("nobody").unwrap()],
    }
}
