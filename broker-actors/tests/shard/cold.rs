//! Old messages that are not in memory: read by the Reader's thread, and checked in the background.

use std::fs::File;
use std::path::Path;

use grus_broker::shard::ShardSettings;
use grus_log::RealDisk;
use grus_protocol::ids::Durability;
use rustix::fs::{Advice, fadvise};

use crate::bench::{Bench, Queue, batch, settings, topic};

/// Offset and bytes of a batch.
type Sent = (u64, bytes::Bytes);

/// Has the kernel forget what it holds of the files in `folder`, where the file system can.
fn forget_pages(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
    }
}

/// How often the Reader was asked so far.
fn reads(bench: &Bench<RealDisk>) -> u64 {
    let actors = bench.places.process().census.snapshot();
    actors.into_iter().find(|actor| actor.kind == "Reader").unwrap().handled
}

/// Segments of earlier lives are checked one piece per tick until all are.
async fn all_checked(bench: &Bench<RealDisk>) {
    while bench.status().await.unchecked_segments > 0 {
        tokio::task::yield_now().await;
    }
}

/// A shard whose queues 0 and 1 hold so many batches of 50 kB, all of them out of memory, and what
/// was sent to each.
async fn cold_bench(settings: ShardSettings, batches: u8) -> (Bench<RealDisk>, [Vec<Sent>; 2]) {
    let bench = Bench::start(RealDisk, settings.clone()).await;
    bench.open(topic(1, 2)).await.unwrap();
    let mut sent = [Vec::new(), Vec::new()];
    for number in 0..batches {
        let batch = batch(&[&vec![number; 50_000], &[number]]);
        let queue = u32::from(number % 2);
        let receipt = bench.queue(1, queue).produce(batch.clone()).await.unwrap();
        sent[queue as usize].push((receipt.base_offset.0, batch.into_bytes()));
    }
    bench.stop().await;
    let bench = Bench::start(RealDisk, settings).await;
    forget_pages(&bench.settings.folder); // now that recovery has read what it needs
    (bench, sent)
}

#[actix::test]
async fn what_is_read_from_the_disk_gives_way_to_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path().join("0"), Durability::Persisted);
    settings.log.segment_bytes = 1024 * 1024;
    settings.log.first_segment_bytes = 1024 * 1024;
    let turns = settings.disk_turns.clone();
    let (bench, sent) = cold_bench(settings, 60).await;
    all_checked(&bench).await; // the Reader does that, too, and brings all into memory again
    forget_pages(&bench.settings.folder);
    assert_eq!(turns.gave_way(), 0, "nothing was read for anybody");
    let before = reads(&bench);
    let hangs = turns.begin_sync();
    assert_eq!(bench.queue(1, 0).read_all().await, sent[0], "read all the same");
    drop(hangs);
    // A file system that keeps all in memory has nothing to read.
    assert_eq!(turns.gave_way() > 0, reads(&bench) > before);
    bench.stop().await;
}

#[actix::test]
async fn what_is_not_in_memory_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path().join("0"), Durability::Persisted);
    settings.log.segment_bytes = 1024 * 1024;
    settings.log.first_segment_bytes = 1024 * 1024;
    let (bench, sent) = cold_bench(settings, 120).await;
    for queue in 0..2 {
        assert_eq!(bench.queue(1, queue).read_all().await, sent[queue as usize]);
    }
    println!("the Reader was asked {} times", reads(&bench));
    all_checked(&bench).await;
    for queue in 0..2 {
        assert_eq!(bench.queue(1, queue).read_all().await, sent[queue as usize]);
    }
    bench.stop().await;
}
