//! Queues that lie in memory alone: what producers and readers see of them, and of a restart.

use grus_broker::error::QueueError;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::{At, ListedOffset, QueueAsk, Receipt};
use grus_protocol::ids::{Durability, Offset, ProducerEpoch, QueueId, TimestampMs};
use grus_protocol::message::{TopicKind, WhenFull};

use crate::bench::{Bench, Queue, batch, settings, sim_bench, stamped, topic};

/// A topic of one queue in memory.
pub(crate) fn in_memory(number: u64) -> TopicConfig {
    TopicConfig { kind: TopicKind::Temporary.number(), ..topic(number, 1) }
}

#[actix::test]
async fn messages_are_read_like_any_others_and_leave_no_trace_in_the_log() {
    let bench = sim_bench().await;
    bench.open(in_memory(1)).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let (queue, stored) = (bench.queue(1, 0), bench.queue(2, 0));
    stored.produce(batch(&[b"stored"])).await.unwrap();
    let last_index = bench.status().await.last_index;
    let base = queue.status().await.log_start.0;
    assert!(base > 0, "each life begins above the one before");
    let parked = queue.fetch(base, 0, 60_000).await;
    let receipt: Receipt = queue.produce(batch(&[b"a", b"b"])).await.unwrap();
    assert_eq!((receipt.base_offset, receipt.durability), (Offset(base), Durability::Memory));
    assert_eq!(parked.await.unwrap().unwrap().batches.len(), 1, "who waits is answered");
    for body in [b"c", b"d"] {
        queue.produce(batch(&[body])).await.unwrap();
    }
    assert_eq!(queue.bodies().await, ["a", "b", "c", "d"]);
    let status = queue.status().await;
    let span = (status.log_start, status.end_offset, status.durable_end);
    assert_eq!(span, (Offset(base), Offset(base + 4), Offset(base)), "none of it is on a disk");
    assert_eq!(status.messages, 4);
    let listed = queue.list(At::Time(receipt.stored)).await.unwrap();
    assert_eq!(listed.offset, Offset(base));
    assert_eq!(bench.status().await.last_index, last_index, "no entry was written for them");
    assert!(bench.status().await.temporary_bytes > 0, "what they cost is told");
    // A queue that panics is rebuilt in place, and has what it had.
    queue.ask.put(QueueAsk::Panic).await.unwrap();
    let parked = queue.fetch(base + 4, receipt.term.0, 60_000).await;
    queue.produce(batch(&[b"e"])).await.unwrap();
    assert_eq!(parked.await.unwrap().unwrap().batches.len(), 1);
    assert_eq!(queue.bodies().await.len(), 5);
    bench.stop().await;
}

#[actix::test]
async fn a_restart_begins_another_life_above_all_offsets_of_the_last() {
    let bench = sim_bench().await;
    bench.open(in_memory(1)).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    bench.queue(2, 0).produce(batch(&[b"kept"])).await.unwrap();
    let mut ends: Vec<(Offset, u64)> = Vec::new();
    let mut bench = bench;
    for _ in 0..3 {
        let queue = bench.queue(1, 0);
        let ListedOffset { offset, end_offset, .. } = queue.list(At::First).await.unwrap();
        assert_eq!(offset, end_offset, "it is empty");
        if let Some((end, term)) = ends.last().copied() {
            assert!(offset > end, "{offset} was given before");
            // A reader of the life before is told that its place is gone.
            for (place, term) in [(end, term), (Offset(end.0 - 1), term), (end, 0)] {
                let gone = queue.fetch(place.0, term, 0).await.await.unwrap();
                let bounds = QueueError::OffsetOutOfRange { log_start: offset, end_offset };
                assert_eq!(gone, Err(bounds));
            }
        }
        let receipt = queue.produce(batch(&[b"a", b"b"])).await.unwrap();
        ends.push((Offset(receipt.base_offset.0 + 2), receipt.term.0));
        assert_eq!(bench.queue(2, 0).bodies().await, ["kept"]);
        bench = bench.restart().await;
    }
    bench.stop().await;
}

#[actix::test]
async fn a_batch_that_is_sent_again_is_kept_once_and_a_new_life_knows_nothing_of_it() {
    let bench = sim_bench().await;
    bench.open(in_memory(1)).await.unwrap();
    let given = bench.init_producer(Some("billing")).await;
    let (producer, epoch) = (given.producer, given.epoch);
    let send = |first, epoch| stamped(&[b"x", b"y"], producer, epoch, first);
    let queue = bench.queue(1, 0);
    let first = queue.produce(send(0, epoch)).await.unwrap();
    let again = queue.produce(send(0, epoch)).await.unwrap();
    assert_eq!(again, Receipt { duplicate: true, ..first });
    let gap = queue.produce(send(9, epoch)).await;
    assert!(matches!(gap, Err(QueueError::OutOfSequence { .. })), "{gap:?}");
    bench.init_producer(Some("billing")).await;
    let fenced = queue.produce(send(2, epoch)).await;
    let newest = ProducerEpoch(epoch.0 + 1);
    assert_eq!(fenced, Err(QueueError::ProducerFenced { epoch: newest }), "by the shard's word");

    let bench = bench.restart().await;
    let queue = bench.queue(1, 0);
    let gap = queue.produce(send(40, newest)).await;
    assert!(matches!(gap, Err(QueueError::OutOfSequence { .. })), "{gap:?}");
    let next = queue.produce(send(0, newest)).await.unwrap();
    assert!(!next.duplicate, "what was sent before is not known any more");
    bench.stop().await;
}

#[actix::test]
async fn caps_hold_at_once_and_age_at_the_next_sweep() {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1;
    let bench = Bench::start(grus_log::SimDisk::new(5), settings).await;
    bench.open(TopicConfig { retention_messages: 3, ..in_memory(1) }).await.unwrap();
    let when_full = WhenFull::Reject;
    bench.open(TopicConfig { retention_messages: 3, when_full, ..in_memory(2) }).await.unwrap();
    bench.open(TopicConfig { retention_ms: 1_000_000, ..in_memory(3) }).await.unwrap();
    let queues = [1, 2, 3].map(|number| bench.queue(number, 0));
    for queue in &queues {
        queue.produce(batch(&[b"a", b"b"])).await.unwrap();
    }
    let [drops, refuses, ages] = queues;
    drops.produce(batch(&[b"c", b"d"])).await.unwrap();
    let status = drops.status().await;
    assert_eq!((status.messages, status.end_offset.0 - status.log_start.0), (3, 3));
    let full = QueueError::QueueFull { what: "retention_messages", cap: 3, wanted: 4 };
    assert_eq!(refuses.produce(batch(&[b"c", b"d"])).await, Err(full));
    assert_eq!(refuses.bodies().await, ["a", "b"]);
    bench.move_clock(2_000_000);
    while ages.status().await.messages > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(drops.status().await.messages, 3, "it keeps for ever, as far as time goes");
    bench.stop().await;
}

#[actix::test]
async fn what_a_temporary_topic_does_not_take_is_refused_and_a_dropped_one_is_gone() {
    let bench = sim_bench().await;
    bench.open(in_memory(1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let (reply, answer) = grus_mailbox::reply::port();
    let (due, dedup_key) = (Some(vec![TimestampMs(1)]), None);
    let later = grus_broker::topic_queue::Produce { batch: batch(&[b"a"]), dedup_key, due, reply };
    queue.produce.put(later).await.unwrap();
    assert_eq!(answer.await.unwrap(), Err(QueueError::InMemory));
    queue.produce(batch(&[b"a"])).await.unwrap();
    let more = TopicConfig { queues: vec![QueueId(0), QueueId(1)], ..in_memory(1) };
    bench.open(more).await.unwrap();
    assert_eq!(bench.queue(1, 1).bodies().await.len(), 0);
    assert_eq!(queue.bodies().await, ["a"], "its neighbour changes nothing");
    bench.drop_topic(1).await.unwrap();
    assert!(bench.handle().queue(queue.key).is_none());
    bench.stop().await;
}
