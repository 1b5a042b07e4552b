//! Old messages that are not in memory: read by the Reader's thread, and checked in the background.

use std::fs::File;
use std::path::Path;

use grus_broker::shard::ShardSettings;
use grus_log::RealDisk;
use grus_protocol::ids::Durability;
use rustix::fs::{Advice, fadvise};

use crate::bench::{Bench, Queue, batch, settings, topic};
use crate::groups::{Member, letters, letters_topic};

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

#[actix::test]
async fn what_is_given_up_and_not_in_memory_becomes_a_dead_letter_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path().join("0"), Durability::Persisted);
    settings.log.segment_bytes = 1024 * 1024;
    settings.log.first_segment_bytes = 1024 * 1024;
    let (bench, _) = cold_bench(settings, 60).await;
    bench.open(letters_topic()).await.unwrap();
    let mut member = Member::new(&bench.queue(1, 0), 1, 1);
    member.claim().await.unwrap();
    let dead: Vec<u64> = (0..60).filter(|offset| offset % 7 == 0).collect();
    member.answer(&[(1, 3)], &[4], &dead).await.unwrap();
    let found = letters(&bench).await;
    let origins: Vec<u64> = found.iter().map(|letter| letter.0).collect();
    assert_eq!(origins, dead, "each once, in order");
    for (origin, _, _, body) in &found {
        // Batch n of this queue holds number 2n: 50 kB of it, then one byte.
        let number = u8::try_from(origin / 2 * 2).unwrap();
        let length = if origin % 2 == 0 { 50_000 } else { 1 };
        assert_eq!(*body, vec![number; length], "the body of {origin}");
    }
    let status = member.status().await;
    assert_eq!((status.counts.dead, status.counts.settled, status.retries), (9, 2, 1));
    let actors = bench.places.process().census.snapshot();
    let reader = actors.into_iter().find(|actor| actor.kind == "Reader").unwrap();
    println!("the Reader was asked {} times", reader.handled);
    bench.stop().await;
}
