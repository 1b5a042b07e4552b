//! A full disk: producers are told, readers are served, and it heals.

use grus_broker::error::QueueError;

use crate::bench::{Queue, batch, sim_bench, topic};

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
