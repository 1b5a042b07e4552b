//! What is too much goes: the start of queues moves, segments and their space come back.

use grus_broker::commands::TopicConfig;
use grus_broker::error::QueueError;
use grus_broker::topic_queue::At;
use grus_log::SimDisk;
use grus_protocol::ids::{Durability, Offset, TimestampMs};
use grus_protocol::message::WhenFull;

use crate::bench::{Bench, Queue, batch, settings, topic};

async fn bench_that_looks_often() -> Bench<SimDisk> {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1;
    Bench::start(SimDisk::new(5), settings).await
}

#[actix::test]
async fn a_queue_above_its_bytes_moves_its_start_and_gives_its_space_back() {
    let bench = bench_that_looks_often().await;
    let bound = 200_000;
    bench.open(TopicConfig { retention_bytes: bound, ..topic(1, 1) }).await.unwrap();
    let queue = bench.queue(1, 0);
    let body = [7; 10_000];
    for _ in 0..400 {
        queue.produce(batch(&[&body])).await.unwrap();
    }
    loop {
        let (status, shard) = (queue.status().await, bench.status().await);
        if status.bytes <= bound && shard.segments <= 5 && shard.purged_index.is_some() {
            assert!(status.log_start > Offset(350), "{status:?}");
            break;
        }
        tokio::task::yield_now().await;
    }
    let used = bench.disk.used_bytes();
    assert!(used < 4_000_000, "4 MB were written, {used} bytes are still used");
    let before = queue.fetch(0, 0, 0).await.await.unwrap();
    assert!(matches!(before, Err(QueueError::OffsetOutOfRange { .. })), "{before:?}");
    let kept = queue.read_all().await;
    assert_eq!(kept.len() as u64, queue.status().await.messages);

    let bench = bench.restart().await;
    assert_eq!(bench.queue(1, 0).read_all().await, kept);
    assert_eq!(bench.queue(1, 0).status().await.end_offset, Offset(400));
    bench.stop().await;
}

#[actix::test]
async fn a_queue_above_its_messages_keeps_so_many_and_a_reader_begins_inside_of_a_batch() {
    let bench = bench_that_looks_often().await;
    bench.open(TopicConfig { retention_messages: 5, ..topic(1, 1) }).await.unwrap();
    let queue = bench.queue(1, 0);
    for _ in 0..4 {
        queue.produce(batch(&[b"a", b"b", b"c"])).await.unwrap();
    }
    while queue.status().await.messages > 5 {
        tokio::task::yield_now().await;
    }
    let status = queue.status().await;
    assert_eq!((status.log_start, status.end_offset), (Offset(7), Offset(12)));
    let fetched = queue.fetch(7, 0, 0).await.await.unwrap().unwrap();
    let first = fetched.batches.first().unwrap();
    assert_eq!((first.base_offset, first.count), (Offset(6), 3), "a batch is given whole");
    let listed = queue.list(At::Time(TimestampMs(0))).await.unwrap();
    assert_eq!(listed.offset, Offset(7), "nobody begins before the first that there is");
    let bench = bench.restart().await;
    assert_eq!(bench.queue(1, 0).status().await, status);
    bench.stop().await;
}

#[actix::test]
async fn a_full_queue_that_refuses_says_so_until_age_makes_room() {
    let bench = bench_that_looks_often().await;
    let (retention_messages, when_full) = (3, WhenFull::Reject);
    let refuses =
        TopicConfig { retention_messages, when_full, retention_ms: 1_000_000, ..topic(1, 1) };
    bench.open(refuses).await.unwrap();
    let queue = bench.queue(1, 0);
    // Both at once: the second is judged behind the first, whether that is applied by then or not.
    let first = queue.send(batch(&[b"a", b"b"])).await;
    let second = queue.send(batch(&[b"c", b"d"])).await;
    assert_eq!(first.await.unwrap().unwrap().base_offset, Offset(0));
    let full = QueueError::QueueFull { what: "retention_messages", cap: 3, wanted: 4 };
    assert_eq!(second.await.unwrap(), Err(full.clone()));
    assert!(full.to_reply().retriable);
    queue.produce(batch(&[b"c"])).await.unwrap();
    let bench = bench.restart().await;
    let queue = bench.queue(1, 0);
    assert!(matches!(queue.produce(batch(&[b"d"])).await, Err(QueueError::QueueFull { .. })));
    assert_eq!(queue.bodies().await, ["a", "b", "c"]);
    bench.move_clock(2_000_000);
    while queue.status().await.messages > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.produce(batch(&[b"d"])).await.unwrap().base_offset, Offset(3));
    bench.stop().await;
}

/// Another member that comes to lead may have heard of a change less than the one before it.
#[actix::test]
async fn who_opens_a_topic_by_older_settings_shortens_no_retention() {
    let bench = bench_that_looks_often().await;
    let given = |altered, retention_ms, queues| TopicConfig {
        altered: TimestampMs(altered),
        retention_ms,
        ..topic(1, queues)
    };
    bench.open(given(8, 1 << 40, 1)).await.unwrap();
    bench.open(TopicConfig { retention_ms: 1, ..topic(2, 1) }).await.unwrap();
    let (kept, short) = (bench.queue(1, 0), bench.queue(2, 0));
    kept.produce(batch(&[b"kept"])).await.unwrap();
    short.produce(batch(&[b"short"])).await.unwrap();
    bench.open(given(5, 1, 1)).await.unwrap();
    assert_eq!(bench.open(given(5, 1, 2)).await.unwrap().len(), 2, "its queues are opened");
    bench.move_clock(1_000);
    while short.status().await.messages > 0 {
        tokio::task::yield_now().await; // one sweep looks at both
    }
    let bench = bench.restart().await;
    assert_eq!(bench.queue(1, 0).bodies().await, ["kept"]);
    bench.open(given(9, 1, 2)).await.unwrap();
    while bench.queue(1, 0).status().await.messages > 0 {
        tokio::task::yield_now().await;
    }
    bench.stop().await;
}

#[actix::test]
async fn what_is_too_old_goes_and_a_neighbour_that_keeps_for_ever_loses_nothing() {
    let bench = bench_that_looks_often().await;
    bench.open(TopicConfig { retention_ms: 1, ..topic(1, 1) }).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let (short, long) = (bench.queue(1, 0), bench.queue(2, 0));
    let body = [7; 10_000];
    for _ in 0..50 {
        short.produce(batch(&[&body])).await.unwrap();
        long.produce(batch(&[&body])).await.unwrap();
    }
    while short.status().await.messages > 0 {
        tokio::task::yield_now().await;
    }
    let status = short.status().await;
    assert_eq!((status.log_start, status.bytes), (Offset(50), 0));
    assert_eq!(long.bodies().await.len(), 50);
    let bench = bench.restart().await;
    assert_eq!(bench.queue(2, 0).bodies().await.len(), 50);
    assert_eq!(bench.queue(1, 0).status().await.log_start, Offset(50));
    bench.stop().await;
}
