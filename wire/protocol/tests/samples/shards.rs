//! Samples of what operators ask of brokers about their shards.

use bytes::Bytes;
use grus_protocol::message::{
    ChangeReplicas, ChangeReplicasReply, DescribeShards, DescribeShardsReply, HandOverShards,
    HandOverShardsReply, MemberDescription, ShardDescription,
};
use grus_protocol::{BrokerId, Durability, ShardId, Term};

use super::pair;

pub(super) fn frames(out: &mut Vec<(String, Bytes)>) {
    let alone = ShardDescription {
        shard: ShardId(2),
        durability: Durability::Persisted,
        is_replicated: false,
        leads: true,
        leader: Some(BrokerId(5)),
        term: Term(1),
        queues: 3,
        last_index: Some(300),
        applied_index: Some(299),
        synced_index: Some(298),
        disk_full: true,
        is_amnesiac: false,
        members: Vec::new(),
        failed: None,
    };
    let member = |broker, matched_index, heard_ms| MemberDescription {
        broker: BrokerId(broker),
        matched_index,
        heard_ms,
        votes: heard_ms.is_some(),
    };
    let led = ShardDescription {
        shard: ShardId(9),
        durability: Durability::Replicated,
        is_replicated: true,
        term: Term(7),
        disk_full: false,
        members: vec![member(6, Some(290), Some(120)), member(7, None, None)],
        ..alone.clone()
    };
    let followed = ShardDescription {
        shard: ShardId(11),
        leads: false,
        leader: None,
        last_index: None,
        applied_index: None,
        synced_index: None,
        is_amnesiac: true,
        members: Vec::new(),
        failed: Some("an old copy".to_owned()),
        ..led.clone()
    };
    let shards = vec![alone, led, followed];
    let described = DescribeShardsReply { broker: BrokerId(5), shards, drained: Some(true) };
    pair(out, &DescribeShards {}, &described, [b"", b""]);
    let shards = vec![ShardId(9), ShardId(11)];
    let hand_over = HandOverShards { shards, to: Some(BrokerId(6)), retire: true, undo: true };
    let done = HandOverShardsReply { handed_over: vec![ShardId(9)], kept: vec![ShardId(11)] };
    pair(out, &hand_over, &done, [b"", b""]);
    let change = ChangeReplicas {
        shards: vec![ShardId(9)],
        topic: Some(super::topic()),
        add: Some(BrokerId(8)),
        remove: Some(BrokerId(7)),
        replicas: 0,
    };
    pair(out, &change, &ChangeReplicasReply { shards: vec![ShardId(9)] }, [b"", b""]);
}
