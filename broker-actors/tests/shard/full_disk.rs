//! A full disk: producers are told, readers are served, and it heals.

use std::time::Duration;

use grus_broker::error::QueueError;
use grus_broker::shard::ShardRequest;
use grus_log::{Disk as _, SimDisk};
use grus_protocol::ids::{Durability, TopicId};

use crate::bench::{Bench, Queue, batch, settings, sim_bench, topic};

#[actix::test]
async fn producers_are_told_readers_are_served_and_it_heals_when_space_returns() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    bench.disk.set_capacity_bytes(bench.disk.used_bytes());
    let body = [7; 10_000];
    let mut stored = 0;
    let error = loop {
        match queue.produce(batch(&[&body])).await {
            Ok(receipt) => {
                assert_eq!(receipt.base_offset.0, stored);
                stored += 1;
            }
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the disk never filled up");
    };
    assert_eq!(error, QueueError::StorageFull);
    assert!(stored > 0);
    assert!(bench.status().await.disk_full);
    assert_eq!(queue.bodies().await.len() as u64, stored, "readers are served");

    bench.disk.set_capacity_bytes(u64::MAX);
    let healed = loop {
        match queue.produce(batch(&[b"again"])).await {
            Ok(receipt) => break receipt,
            Err(error) => assert_eq!(error, QueueError::StorageFull),
        }
    };
    assert_eq!(healed.base_offset.0, stored, "what was refused was not stored");
    let bench = bench.restart().await;
    assert_eq!(bench.queue(1, 0).bodies().await.len() as u64, stored + 1);
    bench.stop().await;
}

/// Longest that anything may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);

/// Nobody gives the disk more space here: what the shard itself holds has to go.
#[actix::test]
async fn a_disk_full_of_our_own_messages_is_freed_by_dropping_a_topic() {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1;
    let bench = Bench::start(SimDisk::new(9), settings).await;
    bench.open(topic(1, 1)).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    bench.disk.set_capacity_bytes(bench.disk.used_bytes() + 1_000_000);
    // The smaller the batches, the less room they leave.
    for size in [10_000, 1_000, 100, 1] {
        let body = vec![7; size];
        while queue.produce(batch(&[&body])).await.is_ok() {}
    }
    assert!(bench.status().await.disk_full);

    bench.drop_topic(1).await.expect("what lets go of messages is taken on a full disk");
    let other = bench.queue(2, 0);
    let tries = async {
        while let Err(error) = other.produce(batch(&[b"again"])).await {
            assert_eq!(error, QueueError::StorageFull);
        }
    };
    tokio::time::timeout(PATIENCE, tries).await.expect("the log was trimmed");
    let bench = bench.restart().await;
    assert_eq!(bench.queue(2, 0).bodies().await.len(), 1);
    bench.stop().await;
}

/// Not even the room that a start keeps for itself is left.
#[actix::test]
async fn a_start_on_a_disk_without_any_room_serves_readers_refuses_producers_and_heals() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let mut stored = 0;
    for number in 0..20_u8 {
        stored += u64::from(queue.produce(batch(&[&[number; 100]])).await.unwrap().count);
    }
    let (disk, settings) = bench.stop().await;
    let reserve = settings.folder.join("reserve");
    disk.remove(&reserve).unwrap();
    disk.set_capacity_bytes(0); // what a start lets go of is taken by others at once
    let start = Bench::start(disk, settings);
    let bench = tokio::time::timeout(PATIENCE, start).await.expect("it starts");
    let status = bench.status().await;
    assert!(status.disk_full && !status.is_ready);
    let queue = bench.queue(1, 0);
    assert_eq!(queue.bodies().await.len() as u64, stored, "readers have all of it");
    assert_eq!(queue.produce(batch(&[b"more"])).await, Err(QueueError::StorageFull));
    assert_eq!(bench.open(topic(2, 1)).await.err(), Some(QueueError::StorageFull));
    assert_eq!(bench.drop_topic(1).await, Err(QueueError::StorageFull), "its outcome is not known");
    assert_eq!(bench.open(topic(1, 1)).await.map(|queues| queues.len()), Ok(1));
    let beyond = queue.fetch(stored + 1, 0, 0).await.await.unwrap();
    assert_eq!(beyond.err(), Some(QueueError::Unavailable), "the queue may be longer than that");

    // It stops in order and starts again, as often as one likes.
    let bench = bench.restart().await;
    bench.disk.set_capacity_bytes(u64::MAX);
    let queue = bench.queue(1, 0);
    let heals = async {
        loop {
            match queue.produce(batch(&[b"again"])).await {
                Ok(receipt) => break receipt,
                Err(error) => assert_eq!(error, QueueError::StorageFull),
            }
        }
    };
    let healed = tokio::time::timeout(PATIENCE, heals).await.expect("it heals");
    assert_eq!(healed.base_offset.0, stored);
    assert_eq!(queue.bodies().await.len() as u64, stored + 1);
    let bench = bench.restart().await;
    assert!(bench.status().await.is_ready);
    assert_eq!(bench.queue(1, 0).bodies().await.len() as u64, stored + 1);
    bench.stop().await;
}

/// What lets go of messages may be more, together, than the room that a full disk keeps for it.
#[actix::test]
async fn many_drops_on_a_full_disk_leave_one_by_one_and_a_stop_does_not_wait_for_the_rest() {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1_000_000_000; // nothing is trimmed: the room only shrinks
    let bench = Bench::start(SimDisk::new(11), settings).await;
    for number in 1..=300 {
        bench.open(topic(number, 1)).await.unwrap();
    }
    let queue = bench.queue(1, 0);
    bench.disk.set_capacity_bytes(bench.disk.used_bytes());
    for size in [10_000, 1_000, 100, 1] {
        let body = vec![7; size];
        while queue.produce(batch(&[&body])).await.is_ok() {}
    }
    assert!(bench.status().await.disk_full);
    let mut answers = Vec::new();
    for number in 2..=300 {
        let (reply, answer) = grus_mailbox::reply::port();
        let drop = ShardRequest::DropTopic { topic: TopicId(number), reply };
        bench.handle().inbox.put(drop).await.unwrap();
        answers.push(answer);
    }
    let mut dropped = 0;
    for answer in answers.drain(..10) {
        answer.await.unwrap().expect("there is room for these");
        dropped += 1;
    }
    let stop = tokio::time::timeout(PATIENCE, bench.stop());
    let (disk, settings) = stop.await.expect("it stops, whatever still waits for room");
    for answer in answers {
        match answer.await {
            Ok(Ok(())) => dropped += 1,
            Ok(Err(error)) => assert_eq!(error, QueueError::StorageFull),
            Err(_gone) => {}
        }
    }
    assert!(dropped < 299, "all of them found room: the test shows nothing");
    disk.set_capacity_bytes(u64::MAX);
    let bench = Bench::start(disk, settings).await;
    assert_eq!(bench.status().await.queues, 300 - dropped, "what was acknowledged is gone");
    bench.stop().await;
}
