//! Ends that nobody prepared for: a killed process, a power cut, a disk that fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use grus_broker::error::QueueError;
use grus_broker::shard::{ShardSettings, ShardStartError, TopicConfig};
use grus_broker::topic_queue::{QueueHandle, Receipt};
use grus_log::switches::OrderRule;
use grus_log::{Log, OpenError, RealDisk, SimDisk};
use grus_mailbox::{Answer, FatalReason};
use grus_protocol::ids::{Durability, Offset, Term};

use crate::bench::{Bench, Queue, batch, key, settings, sim_bench, topic};

/// Makes every batch of these tests another one.
static SENT: AtomicU64 = AtomicU64::new(0);

/// A batch under way: its queue, its bytes, and where its receipt comes.
type Sent = (u32, Bytes, Answer<Result<Receipt, QueueError>>);

/// Sends `count` batches to each queue without waiting for receipts.
async fn send(queues: &[Arc<QueueHandle>], count: u32, salt: u8) -> Vec<Sent> {
    let mut sent = Vec::new();
    for number in 0..count {
        for queue in queues {
            let mut body = vec![salt; 700];
            body[..4].copy_from_slice(&number.to_le_bytes());
            let round = SENT.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            let batch = batch(&[&body, &round]);
            let bytes = batch.bytes().clone();
            sent.push((queue.key.queue.0, bytes, queue.send(batch).await));
        }
    }
    sent
}

/// Waits for all answers; gives those with a receipt: queue, offset, bytes.
async fn receipts_of(sent: Vec<Sent>) -> Vec<(u32, u64, Bytes)> {
    let mut receipts = Vec::new();
    for (queue, bytes, answer) in sent {
        if let Ok(Ok(receipt)) = answer.await {
            receipts.push((queue, receipt.base_offset.0, bytes));
        }
    }
    receipts
}

/// Every batch that has a receipt is where the receipt says; nothing is there twice.
async fn check(bench: &Bench<impl grus_log::Disk>, receipts: &[(u32, u64, Bytes)]) {
    for queue in 0..2 {
        let read = bench.queue(1, queue).read_all().await;
        for (_, base, bytes) in receipts.iter().filter(|(its, ..)| *its == queue) {
            let found = read.iter().find(|(at, _)| at == base);
            assert!(found.is_some_and(|(_, found)| found == bytes), "queue {queue} offset {base}");
        }
        let mut all: Vec<&Bytes> = read.iter().map(|(_, bytes)| bytes).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count, "a batch is there twice");
    }
}

#[actix::test]
async fn every_receipt_holds_after_the_process_is_killed() {
    let mut bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let mut receipts = Vec::new();
    for round in 0..5 {
        let queues = [bench.queue(1, 0), bench.queue(1, 1)];
        receipts.extend(receipts_of(send(&queues, 300, round).await).await);
        let (disk, settings) = bench.abandon().await;
        disk.kill_process();
        bench = Bench::start(disk, settings).await;
        check(&bench, &receipts).await;
    }
    assert_eq!(receipts.len(), 5 * 600, "over several segments: {:?}", bench.status().await);
    assert!(bench.status().await.segments >= 6);
    bench.stop().await;
}

/// Moves what is answered by now out of `sent` into `receipts`.
fn settle(sent: &mut Vec<Sent>, receipts: &mut Vec<(u32, u64, Bytes)>) {
    sent.retain_mut(|(queue, bytes, answer)| match answer.try_take() {
        Ok(None) => true,
        Ok(Some(Ok(receipt))) => {
            receipts.push((*queue, receipt.base_offset.0, bytes.clone()));
            false
        }
        Ok(Some(Err(_))) | Err(_) => false,
    });
}

/// Cuts the power at a step that `seed` chooses while batches are on their way, and starts again:
/// the receipts, and what is read then.
async fn cut_round(
    seed: u64,
    settings: ShardSettings,
) -> (Vec<(u32, u64, Bytes)>, Result<Bench<SimDisk>, ShardStartError>) {
    let disk = SimDisk::new(seed);
    let mut bench = Bench::start(disk.clone(), settings.clone()).await;
    let durability = settings.log.durability;
    bench.open(TopicConfig { durability, ..topic(1, 2) }).await.unwrap();
    let queues = [bench.queue(1, 0), bench.queue(1, 1)];
    disk.cut_at_step(disk.steps() + 1 + seed * 29);
    let (mut receipts, mut sent) = (Vec::new(), Vec::new());
    while !disk.is_off() {
        assert!(receipts.len() < 10_000, "the cut never came");
        let salt = u8::try_from(receipts.len() % 256).unwrap();
        sent.extend(send(&queues, 3, salt).await);
        while !sent.is_empty() && !disk.is_off() {
            settle(&mut sent, &mut receipts);
            tokio::task::yield_now().await;
        }
    }
    // The process ends by a fatal, if there is something left to do that can fail.
    while !sent.is_empty() && bench.fatals.try_recv().is_err() {
        settle(&mut sent, &mut receipts);
        tokio::task::yield_now().await;
    }
    bench.abandon().await;
    receipts.extend(receipts_of(sent).await);
    disk.power_on();
    (receipts, Bench::try_start(disk, settings).await)
}

#[actix::test]
async fn every_receipt_holds_after_the_power_is_cut_at_any_step() {
    let mut answered = Vec::new();
    for seed in 0..32_u64 {
        let settings = settings("/data/0".into(), Durability::Persisted);
        let (receipts, bench) = cut_round(seed, settings).await;
        let bench = bench.map_err(|error| format!("seed {seed}: {error}")).unwrap();
        check(&bench, &receipts).await;
        answered.push(receipts.len());
        bench.stop().await;
    }
    let after_receipts = answered.iter().filter(|count| **count > 0).count();
    assert!(after_receipts >= 24, "receipts before each cut: {answered:?}");
}

/// Receipts whose batch is not where they say.
async fn lost(bench: &Bench<SimDisk>, receipts: &[(u32, u64, Bytes)]) -> usize {
    let mut lost = 0;
    for queue in 0..2 {
        let read = bench.queue(1, queue).read_all().await;
        let of_it = receipts.iter().filter(|(its, ..)| *its == queue);
        lost += of_it.filter(|(_, base, bytes)| !read.contains(&(*base, bytes.clone()))).count();
    }
    lost
}

#[actix::test]
async fn without_the_sync_before_the_receipt_the_cuts_do_lose_batches() {
    let mut rounds_that_lost = 0;
    for seed in 10..22_u64 {
        let mut settings = settings("/data/0".into(), Durability::Persisted);
        settings.log.without = Some(OrderRule::SyncBeforeAcknowledge);
        let (receipts, bench) = cut_round(seed, settings).await;
        let Ok(bench) = bench else {
            rounds_that_lost += 1; // so much is missing that it does not even start
            continue;
        };
        rounds_that_lost += usize::from(lost(&bench, &receipts).await > 0);
        bench.abandon().await;
    }
    assert!(rounds_that_lost >= 3, "the cuts would not notice that nothing is synced");
}

#[actix::test]
async fn a_reader_of_what_a_power_cut_took_from_a_replicated_shard_is_told_where_to_go_on() {
    let mut taken_back = 0;
    for seed in 10..22_u64 {
        let settings = settings("/data/1".into(), Durability::Replicated);
        let (receipts, bench) = cut_round(seed, settings).await;
        let bench = bench.map_err(|error| format!("seed {seed}: {error}")).unwrap();
        for queue in 0..2 {
            let of_it = receipts.iter().filter(|(its, ..)| *its == queue);
            let Some(seen_end) = of_it.map(|(_, base, _)| base + 2).max() else { continue };
            let handle = bench.queue(1, queue);
            let kept_end = handle.status().await.end_offset;
            // The first term was 1 at founding; a group of one counts one on at each start.
            let term = receipts_term(&handle, kept_end).await;
            let receipt = handle.produce(batch(&[b"new", b"term"])).await.unwrap();
            assert_eq!(receipt.base_offset, kept_end);
            assert!(receipt.term > term, "a new term after each start");
            let answer = handle.fetch(seen_end, term.0, 0).await.await.unwrap();
            if seen_end > kept_end.0 {
                taken_back += 1;
                let log_start = Offset(0);
                let told = QueueError::Diverged { term, end_offset: kept_end, log_start };
                assert_eq!(answer, Err(told));
            } else {
                assert!(answer.is_ok(), "{answer:?}");
            }
        }
        bench.stop().await;
    }
    assert!(taken_back > 0, "the cuts took nothing back");
}

/// The term of the last batch of a queue.
async fn receipts_term(queue: &QueueHandle, end: Offset) -> Term {
    let fetched = queue.fetch(end.0 - 1, 0, 0).await.await.unwrap().unwrap();
    fetched.batches.last().unwrap().term
}

#[actix::test]
async fn a_failed_sync_ends_the_process_and_gives_no_receipt() {
    let mut bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    queue.produce(batch(&[b"safe"])).await.unwrap();
    bench.disk.fail_sync_in(1);
    let answer = queue.send(batch(&[b"lost"])).await;
    let fatal = bench.fatals.recv().await.unwrap();
    assert_eq!(fatal.reason, FatalReason::Storage, "{fatal}");
    let (disk, settings) = bench.abandon().await;
    assert!(!matches!(answer.await, Ok(Ok(_))), "no receipt for what is not on disk");
    disk.kill_process();
    let bench = Bench::start(disk, settings).await;
    assert_eq!(bench.queue(1, 0).bodies().await[0], "safe");
    bench.stop().await;
}

#[actix::test]
async fn a_folder_in_use_is_refused_and_free_again_after_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path().join("0"), Durability::Persisted);
    let bench = Bench::start(RealDisk, settings.clone()).await;
    let second = Bench::try_start(RealDisk, settings.clone()).await;
    let refused = second.map(|_| ()).unwrap_err();
    let pid = std::process::id();
    assert!(
        matches!(refused, ShardStartError::Open(OpenError::Locked { pid: held, .. }) if held == pid),
        "{refused}"
    );
    bench.open(topic(1, 1)).await.unwrap();
    bench.stop().await;
    let bench = Bench::start(RealDisk, settings).await;
    assert!(bench.handle().queue(key(1, 0)).is_some());
    bench.stop().await;
}

#[actix::test]
async fn producers_under_way_at_a_stop_get_a_receipt_that_holds_or_an_error() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    let queues = [bench.queue(1, 0), bench.queue(1, 1)];
    let sent = send(&queues, 200, 4).await;
    let (disk, settings) = bench.stop().await;
    let receipts = receipts_of(sent).await;
    assert!(!receipts.is_empty());
    let bench = Bench::start(disk, settings).await;
    check(&bench, &receipts).await;
    bench.stop().await;
}

/// Reads a queue to its end past whatever is damaged: the batches, and the damaged ranges.
async fn read_past_damage(queue: &QueueHandle) -> (Vec<(u64, Bytes)>, Vec<(u64, u64)>) {
    let (mut next, mut read, mut damaged) = (0, Vec::new(), Vec::new());
    loop {
        match queue.fetch(next, 0, 0).await.await.unwrap() {
            Ok(fetched) if fetched.batches.is_empty() => return (read, damaged),
            Ok(fetched) => {
                for batch in fetched.batches {
                    next = batch.base_offset.0 + u64::from(batch.count);
                    read.push((batch.base_offset.0, batch.bytes));
                }
            }
            Err(QueueError::CorruptRange { from, to }) => {
                assert_eq!(from.0, next);
                damaged.push((from.0, to.0));
                next = to.0;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[actix::test]
async fn a_flipped_bit_costs_the_batch_it_hits_and_no_other() {
    let mut hit = 0;
    for seed in 0..12_u64 {
        let disk = SimDisk::new(seed);
        let settings = settings("/data/0".into(), Durability::Persisted);
        let bench = Bench::start(disk.clone(), settings.clone()).await;
        bench.open(topic(1, 1)).await.unwrap();
        let queue = bench.queue(1, 0);
        let mut sent = Vec::new();
        for number in 0..150_u8 {
            let batch = batch(&[&vec![number; 7_000]]);
            let receipt = queue.produce(batch.clone()).await.unwrap(); // an entry each
            sent.push((receipt.base_offset.0, batch.into_bytes()));
        }
        assert!(bench.status().await.segments >= 4);
        bench.stop().await;

        // Somewhere in the entries of the first two segments, which have their checkpoints.
        let mut segments = disk.files();
        segments.retain(|(path, _)| path.to_string_lossy().contains("segment-"));
        let (path, _) = &segments[usize::try_from(seed % 2).unwrap()];
        disk.flip_bit(path, (8_192 + seed * 9_001 % 180_000) * 8 + seed % 8);

        let bench = Bench::start(disk, settings).await;
        let (read, damaged) = read_past_damage(&bench.queue(1, 0)).await;
        assert!(damaged.len() <= 1, "{damaged:?}");
        for (from, to) in &damaged {
            assert_eq!(to - from, 1, "one batch");
        }
        let lost = |base: &u64| damaged.iter().any(|(from, to)| (*from..*to).contains(base));
        sent.retain(|(base, _)| !lost(base));
        assert_eq!(read, sent, "all else is there, byte for byte");
        hit += damaged.len();
        let receipt = bench.queue(1, 0).produce(batch(&[b"on"])).await.unwrap();
        assert_eq!(receipt.base_offset.0, 150);
        bench.stop().await;
    }
    assert!(hit >= 9, "{hit} of 12 flips hit a batch");
}

#[actix::test]
async fn damage_in_what_must_be_applied_again_is_named_and_only_the_operator_gives_it_up() {
    let disk = SimDisk::new(1);
    let settings = settings("/data/0".into(), Durability::Persisted);
    let bench = Bench::start(disk.clone(), settings.clone()).await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    for number in 0..10_u8 {
        queue.produce(batch(&[&vec![number; 7_000]])).await.unwrap();
    }
    bench.stop().await;
    let mut files = disk.files();
    files.retain(|(path, _)| path.to_string_lossy().contains("segment-"));
    disk.flip_bit(&files[0].0, 40_000 * 8);

    for _ in 0..2 {
        let refused = Bench::try_start(disk.clone(), settings.clone()).await;
        let refused = refused.map(|_| ()).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, ShardStartError::Damaged { .. }), "{text}");
        assert!(text.contains("segment-") && text.contains("accept_loss"), "{text}");
    }
    let mut accepting = settings.clone();
    accepting.log.accept_loss = true;
    let bench = Bench::start(disk.clone(), accepting).await;
    assert_eq!(bench.queue(1, 0).bodies().await.len(), 9);
    let (disk, _) = bench.stop().await;
    let bench = Bench::start(disk, settings).await; // what was given up once stays given up
    assert_eq!(bench.queue(1, 0).bodies().await.len(), 9);
    bench.stop().await;
}

#[actix::test]
async fn a_clean_stop_of_a_replicated_shard_leaves_no_doubt_behind_a_reboot() {
    let settings = settings("/data/0".into(), Durability::Replicated);
    let bench = Bench::start(SimDisk::new(13), settings).await;
    bench.open(TopicConfig { durability: Durability::Replicated, ..topic(1, 1) }).await.unwrap();
    for number in 0..50_u8 {
        bench.queue(1, 0).produce(batch(&[&[number]])).await.unwrap();
    }
    let (disk, settings) = bench.stop().await;
    disk.cut();
    disk.power_on();
    let (log, recovered) = Log::open(&disk, &settings.folder, settings.log.clone()).unwrap();
    assert!(!recovered.volatile && !log.lost_memory(), "all was synced, and it was said so");
    drop(log);
    let bench = Bench::start(disk, settings).await;
    assert_eq!(bench.queue(1, 0).bodies().await.len(), 50);
    bench.stop().await;
}
