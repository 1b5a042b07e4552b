//! Produce and fetch while all goes well.

use std::sync::mpsc::channel;

use grus_broker::error::QueueError;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::{At, Produce};
use grus_log::{RealDisk, SimDisk};
use grus_mailbox::Port;
use grus_protocol::ids::{Durability, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

use crate::bench::{Bench, Queue, batch, key, settings, sim_bench, stamped, topic};

#[actix::test]
async fn what_is_produced_is_fetched_byte_for_byte_and_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path().join("shards/0"), Durability::Persisted);
    let bench = Bench::start(RealDisk, settings).await;
    bench.open(topic(1, 3)).await.unwrap();
    let mut sent = Vec::new();
    for round in 0_u8..40 {
        let body = vec![round; 100 * usize::from(round)];
        let batch = batch(&[&body, b"", b"\0\xff\r\n"]);
        let receipt = bench.queue(1, u32::from(round % 3)).produce(batch.clone()).await.unwrap();
        assert_eq!(receipt.base_offset.0, u64::from(round / 3) * 3);
        assert_eq!((receipt.count, receipt.duplicate), (3, false));
        sent.push((round % 3, receipt.base_offset.0, batch.into_bytes()));
    }
    let of_queue = |queue: u8| -> Vec<_> {
        let of_it = sent.iter().filter(move |(its, ..)| *its == queue);
        of_it.map(|(_, base, bytes)| (*base, bytes.clone())).collect()
    };
    for queue in 0..3 {
        assert_eq!(bench.queue(1, queue.into()).read_all().await, of_queue(queue));
    }
    let bench = bench.restart().await;
    for queue in 0..3 {
        assert_eq!(bench.queue(1, queue.into()).read_all().await, of_queue(queue));
    }
    let status = bench.queue(1, 2).status().await;
    assert_eq!((status.end_offset, status.durable_end), (Offset(39), Offset(39)));
    assert_eq!((status.messages, status.log_start), (39, Offset(0)));
    assert!(status.last_modified > TimestampMs(0));
    bench.stop().await;
}

#[actix::test]
async fn a_batch_that_comes_again_while_it_is_on_its_way_is_written_once() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let before = bench.status().await.log_bytes;
    let (queue, body) = (bench.queue(1, 0), vec![5; 20_000]);
    let batch = stamped(&[&body], ProducerId(7), ProducerEpoch(0), 0);
    // Its own thread stands still until all of them are in its inbox.
    let ((stands, standing), (go_on, wait)) = (channel::<()>(), channel::<()>());
    let plain = crate::bench::batch(&[b"x"]);
    let reply = Port::call(move |_| {
        stands.send(()).unwrap();
        wait.recv().unwrap();
    });
    let other = Produce { batch: plain, dedup_key: None, due: None, reply };
    queue.produce.put(other).await.unwrap();
    standing.recv().unwrap();
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(queue.send(batch.clone()).await);
    }
    go_on.send(()).unwrap();
    let mut repetitions = 0;
    for answer in answers {
        let receipt = answer.await.unwrap().unwrap();
        assert_eq!(receipt.base_offset, Offset(1));
        repetitions += usize::from(receipt.duplicate);
    }
    assert_eq!(repetitions, 4);
    let written = bench.status().await.log_bytes - before;
    assert!(written < 2 * body.len() as u64, "{written} bytes of log for one batch");
    assert_eq!(queue.status().await.end_offset, Offset(2));
    bench.stop().await;
}

#[actix::test]
async fn many_producers_at_once_share_entries_and_every_offset_is_given_once() {
    let bench = sim_bench().await;
    bench.open(topic(1, 4)).await.unwrap();
    let applied_before = bench.status().await.applied_index.unwrap();
    let mut answers = Vec::new();
    for number in 0..2_000_u32 {
        let queue = bench.queue(1, number % 4);
        let body = number.to_le_bytes();
        answers.push((number, queue.send(batch(&[&body])).await));
    }
    let mut given = vec![vec![u32::MAX; 500]; 4];
    for (number, answer) in answers {
        let receipt = answer.await.unwrap().unwrap();
        let place = usize::try_from(receipt.base_offset.0).unwrap();
        let queue = usize::try_from(number % 4).unwrap();
        assert_eq!(std::mem::replace(&mut given[queue][place], number), u32::MAX);
    }
    for queue in 0..4_u32 {
        let bodies = bench.queue(1, queue).bodies().await;
        let order: Vec<u32> = given[queue as usize].clone();
        let read: Vec<u32> =
            bodies.iter().map(|body| u32::from_le_bytes(body[..].try_into().unwrap())).collect();
        assert_eq!(read, order, "receipts name the offsets at which the bodies are found");
        assert!(order.is_sorted(), "each queue keeps the order of arrival");
    }
    let entries = bench.status().await.applied_index.unwrap() - applied_before;
    assert!(entries < 1_000, "{entries} entries for 2000 batches: they were not gathered");
    bench.stop().await;
}

#[actix::test]
async fn an_idempotent_producer_gets_its_first_receipt_again_across_a_restart() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let given = bench.init_producer(Some("billing")).await;
    let (id, epoch) = (given.producer, given.epoch);
    let queue = bench.queue(1, 0);
    let first = queue.produce(stamped(&[b"a", b"b"], id, epoch, 0)).await.unwrap();
    let second = queue.produce(stamped(&[b"c"], id, epoch, 2)).await.unwrap();
    assert_eq!((first.base_offset.0, second.base_offset.0), (0, 2));
    let gap = queue.produce(stamped(&[b"e"], id, epoch, 4)).await;
    assert_eq!(gap, Err(QueueError::OutOfSequence { expected: Sequence(3) }));

    let bench = bench.restart().await;
    let queue = bench.queue(1, 0);
    let again = queue.produce(stamped(&[b"a", b"b"], id, epoch, 0)).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(
        (again.base_offset, again.stored, again.term),
        (first.base_offset, first.stored, first.term)
    );
    assert_eq!(queue.produce(stamped(&[b"d"], id, epoch, 3)).await.unwrap().base_offset.0, 3);
    assert_eq!(queue.bodies().await, ["a", "b", "c", "d"]);

    let later = bench.init_producer(Some("billing")).await;
    assert_eq!((later.producer, later.epoch), (id, ProducerEpoch(1)));
    let fenced = queue.produce(stamped(&[b"x"], id, epoch, 4)).await;
    assert_eq!(fenced, Err(QueueError::ProducerFenced { epoch: ProducerEpoch(1) }));
    let other = bench.init_producer(None).await;
    assert!(other.producer > id && other.producer != ProducerId::NONE);
    bench.stop().await;
}

/// A queue elsewhere may remember what the one of before had sent under the same number.
#[actix::test]
async fn a_shard_that_has_lost_its_log_gives_other_identities_than_before() {
    let (one, other) = (sim_bench().await, sim_bench().await);
    let given = one.init_producer(None).await.producer;
    let again = other.init_producer(None).await.producer;
    assert_eq!(given.0 >> 48, again.0 >> 48, "both are of the same shard");
    assert_ne!(given, again, "but for one time in 65,535");
    let next = one.init_producer(None).await.producer;
    let one = one.restart().await;
    let after = one.init_producer(None).await.producer;
    assert_eq!((next.0, after.0), (given.0 + 1, given.0 + 2), "it counts on");
    one.stop().await;
    other.stop().await;
}

#[actix::test]
async fn places_in_a_queue_are_found_by_first_last_and_time() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let empty = queue.list(At::First).await.unwrap();
    assert_eq!((empty.offset, empty.end_offset), (Offset(0), Offset(0)));
    let mut stored = Vec::new();
    for body in [&b"a"[..], b"b", b"c"] {
        stored.push(queue.produce(batch(&[body, body])).await.unwrap());
    }
    assert_eq!(queue.list(At::Last).await.unwrap().offset, Offset(6));
    assert_eq!(queue.list(At::Time(TimestampMs(0))).await.unwrap().offset, Offset(0));
    let first_of = stored.iter().find(|receipt| receipt.stored >= stored[1].stored).unwrap();
    let found = queue.list(At::Time(stored[1].stored)).await.unwrap().offset;
    assert_eq!(found, first_of.base_offset);
    let later = TimestampMs(stored[2].stored.0 + 1);
    assert_eq!(queue.list(At::Time(later)).await.unwrap().offset, Offset(6));
    bench.stop().await;
}

#[actix::test]
async fn offsets_outside_and_terms_that_disagree_are_named() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let term = queue.produce(batch(&[b"a", b"b"])).await.unwrap().term.0;
    let beyond = queue.fetch(3, 0, 0).await.await.unwrap();
    let bounds = QueueError::OffsetOutOfRange { log_start: Offset(0), end_offset: Offset(2) };
    assert_eq!(beyond, Err(bounds));
    let inside = queue.fetch(1, term, 0).await.await.unwrap().unwrap();
    assert_eq!(inside.batches[0].base_offset, Offset(0), "the batch that holds the offset");
    let diverged = queue.fetch(1, term + 1, 0).await.await.unwrap();
    assert!(matches!(diverged, Err(QueueError::Diverged { end_offset: Offset(2), .. })));
    bench.stop().await;
}

#[actix::test]
async fn a_topic_made_again_starts_empty_and_its_old_queues_are_gone() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let old = bench.queue(1, 0);
    old.produce(batch(&[b"old"])).await.unwrap();
    let parked = old.fetch(1, 0, 30_000).await;
    bench.drop_topic(1).await.unwrap();
    bench.drop_topic(1).await.unwrap(); // not there: no error
    assert_eq!(parked.await.unwrap(), Err(QueueError::UnknownQueue));
    assert!(bench.handle().queue(key(1, 0)).is_none());

    bench.open(topic(2, 1)).await.unwrap();
    assert_eq!(bench.queue(2, 0).bodies().await, Vec::<bytes::Bytes>::new());
    let bench = bench.restart().await;
    assert!(bench.handle().queue(key(1, 0)).is_none());
    assert_eq!(bench.queue(2, 0).status().await.end_offset, Offset(0));
    bench.stop().await;
}

#[actix::test]
async fn opening_a_topic_again_writes_nothing_and_more_queues_are_added() {
    let bench = sim_bench().await;
    assert_eq!(bench.open(topic(1, 2)).await.unwrap().len(), 2);
    let index = bench.status().await.applied_index;
    assert_eq!(bench.open(topic(1, 2)).await.unwrap().len(), 2);
    assert_eq!(bench.open(topic(1, 1)).await.unwrap().len(), 2, "queues are never taken away");
    assert_eq!(bench.status().await.applied_index, index);
    bench.queue(1, 1).produce(batch(&[b"kept"])).await.unwrap();
    assert_eq!(bench.open(topic(1, 5)).await.unwrap().len(), 5);
    assert_eq!(bench.queue(1, 1).bodies().await, ["kept"]);
    bench.stop().await;
}

#[actix::test]
async fn a_batch_larger_than_an_entry_is_refused_and_its_neighbours_are_not() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let large = vec![1; 1024 * 1024];
    let answers = [
        queue.send(batch(&[b"before"])).await,
        queue.send(batch(&[&large])).await,
        queue.send(batch(&[b"behind"])).await,
    ];
    let mut results = Vec::new();
    for answer in answers {
        results.push(answer.await.unwrap());
    }
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(QueueError::BatchTooLarge { .. })), "{:?}", results[1]);
    assert_eq!(queue.bodies().await, ["before", "behind"]);
    bench.stop().await;
}

#[actix::test]
async fn a_replicated_shard_says_what_it_promises_and_has_it_on_disk_soon() {
    let settings = settings("/data/1".into(), Durability::Replicated);
    let bench = Bench::start(SimDisk::new(3), settings).await;
    assert_eq!(bench.open(topic(1, 1)).await.unwrap_err(), QueueError::WrongShard);
    let durability = Durability::Replicated;
    bench.open(TopicConfig { durability, ..topic(1, 1) }).await.unwrap();
    let queue = bench.queue(1, 0);
    let receipt = queue.produce(batch(&[b"a"])).await.unwrap();
    assert_eq!(receipt.durability, Durability::Replicated);
    while queue.status().await.durable_end < Offset(1) {
        tokio::task::yield_now().await;
    }
    let bench = bench.restart().await;
    assert_eq!(bench.queue(1, 0).bodies().await, ["a"]);
    bench.stop().await;
}
