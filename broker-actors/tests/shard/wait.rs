//! Long polls.

use grus_broker::error::QueueError;
use grus_broker::topic_queue::PARKED_MAX;

use crate::bench::{Queue, batch, sim_bench, topic};

#[actix::test]
async fn a_parked_fetch_is_woken_by_the_next_batch_of_its_queue() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let (queue, other) = (bench.queue(1, 0), bench.queue(1, 1));
    let mut parked = queue.fetch(0, 0, 60_000).await;
    other.produce(batch(&[b"elsewhere"])).await.unwrap();
    queue.status().await; // has gone through the same mailbox behind whatever woke the queue
    assert_eq!(parked.try_take(), Ok(None), "nothing has come for it");
    queue.produce(batch(&[b"here"])).await.unwrap();
    let fetched = parked.await.unwrap().unwrap();
    assert_eq!((fetched.batches.len(), fetched.end_offset.0), (1, 1));
    bench.stop().await;
}

#[actix::test]
async fn a_fetch_at_the_end_comes_back_empty_at_once_or_when_its_time_is_over() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    for wait_ms in [0, 1, 150] {
        let fetched = queue.fetch(0, 0, wait_ms).await.await.unwrap().unwrap();
        assert!(fetched.batches.is_empty());
    }
    bench.stop().await;
}

#[actix::test]
async fn parked_fetches_are_answered_when_the_shard_stops() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let parked = bench.queue(1, 0).fetch(0, 0, 60_000).await;
    bench.stop().await;
    assert_eq!(parked.await.unwrap(), Err(QueueError::Stopping));
}

#[actix::test]
async fn whoever_waits_in_great_numbers_keeps_nobody_else_out() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let mut crowd = Vec::new();
    for _ in 0..2 * PARKED_MAX {
        crowd.push(queue.fetch(0, 0, 60_000).await);
    }
    queue.status().await; // behind all of them
    // Those that found no room were told so; once the others have waited, they make place.
    let answered = crowd.iter_mut().filter_map(|one| one.try_take().unwrap()).count();
    assert_eq!(answered, PARKED_MAX as usize);
    let newcomer = loop {
        let mut newcomer = queue.fetch(0, 0, 60_000).await;
        queue.status().await;
        match newcomer.try_take() {
            Ok(None) => break newcomer,
            told => {
                assert!(matches!(told, Ok(Some(Err(QueueError::Overloaded { .. })))), "{told:?}");
            }
        }
    };
    queue.produce(batch(&[b"news"])).await.unwrap();
    assert_eq!(newcomer.await.unwrap().unwrap().batches.len(), 1);
    bench.stop().await;
}
