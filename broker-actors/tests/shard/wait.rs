//! Long polls.

use grus_broker::error::QueueError;

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
