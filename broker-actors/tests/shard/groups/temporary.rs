//! Groups over queues that lie in memory alone.

use grus_protocol::ids::QueueId;

use super::*;
use crate::temporary::in_memory;

async fn bench_with(config: TopicConfig) -> (Bench<SimDisk>, Arc<QueueHandle>) {
    let mut settings = crate::bench::settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1;
    let bench = Bench::start(SimDisk::new(5), settings).await;
    bench.open(config).await.unwrap();
    bench.open(letters_topic()).await.unwrap();
    let queue = bench.queue(1, 0);
    (bench, queue)
}

/// Offsets and deliveries, from the start of the queue's life on.
fn from(base: u64, messages: &[member::Message]) -> Vec<(u64, u32)> {
    offsets(messages).into_iter().map(|(at, before)| (at - base, before)).collect()
}

#[actix::test]
async fn a_group_reads_settles_and_fails_as_in_any_queue() {
    let (bench, queue) = bench_with(in_memory(1)).await;
    queue.produce(batch(&[b"a", b"bad", b"c"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    let base = member.begin().await;
    assert_eq!(from(base, &member.next(3).await), [(0, 0), (1, 0), (2, 0)]);
    let settled = member.answer(&[(base, base + 1), (base + 2, u64::MAX)], &[base + 1], &[]).await;
    let settled = settled.unwrap();
    assert_eq!((settled.floor, settled.retries), (Offset(base + 3), 1), "nothing behind the end");
    for deliveries in 1..3 {
        assert_eq!(from(base, &member.next(1).await), [(1, deliveries)]);
        member.answer(&[], &[base + 1], &[]).await.unwrap();
    }
    let bad = Bytes::from_static(b"bad");
    assert_eq!(letters(&bench).await, [(base + 1, 3, "no luck".to_owned(), bad)]);
    queue.produce(tagged(&["x", "y"])).await.unwrap();
    assert_eq!(from(base, &member.next(2).await), [(3, 0), (4, 0)]);
    assert_eq!(member.status().await.lag, 2);
    bench.stop().await;
}

#[actix::test]
async fn tags_are_passed_over_by_the_ring_alone() {
    let (bench, queue) = bench_with(in_memory(1)).await;
    for _ in 0..40 {
        queue.produce(tagged(&["x"])).await.unwrap();
    }
    queue.produce(tagged(&["x", "a"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.claim().await.unwrap();
    let base = member.subscribe(MessageFilter::parse_tags("a").unwrap()).await.unwrap();
    assert_eq!(from(base, &member.next(1).await), [(41, 0)]);
    let settled = member.answer(&[(base + 41, base + 42)], &[], &[]).await.unwrap();
    assert_eq!(settled.floor, Offset(base + 42));
    bench.stop().await;
}

#[actix::test]
async fn a_new_life_is_read_from_its_start_and_old_retries_are_lost_and_counted() {
    let (bench, queue) = bench_with(in_memory(1)).await;
    queue.produce(batch(&[b"a", b"b", b"c", b"d"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.terms.ladder_ms = vec![3_600_000];
    let base = member.begin().await;
    member.next(4).await;
    member.answer(&[(base, base + 1)], &[base + 3], &[]).await.unwrap();

    let bench = bench.restart().await;
    let queue = bench.queue(1, 0);
    let mut member = Member { queue, pushes: None, ..member };
    // Retention tells the group where the queue begins now.
    while member.status().await.retries > 0 {
        tokio::task::yield_now().await;
    }
    let status = member.status().await;
    assert!(status.log_start > Offset(base + 4));
    assert_eq!((status.lag, status.floor), (0, status.log_start));
    assert_eq!(status.counts.lost, 3, "two in its hands, and one that waited");
    let next = member.begin().await;
    assert_eq!(next, status.log_start.0);
    member.queue.produce(batch(&[b"e"])).await.unwrap();
    assert_eq!(from(next, &member.next(1).await), [(0, 0)], "delivered for the first time");
    member.answer(&[(next, next + 1)], &[], &[]).await.unwrap();
    assert_eq!(member.status().await.lag, 0);
    let bench = bench.restart().await; // its progress is in the checkpoint's terms, too
    assert_eq!(Member { queue: bench.queue(1, 0), pushes: None, ..member }.status().await.lag, 0);
    bench.stop().await;
}

#[actix::test]
async fn what_the_ring_drops_is_lost_to_a_group_that_is_slow_and_does_not_wait_for_ever() {
    let (bench, queue) = bench_with(TopicConfig { retention_messages: 2, ..in_memory(1) }).await;
    queue.produce(batch(&[b"a", b"b"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    let base = member.begin().await;
    member.next(2).await;
    // It fails, is due at once, and is not there any more when it would be delivered.
    queue.produce(batch(&[b"c", b"d"])).await.unwrap();
    member.answer(&[(base + 1, base + 2)], &[base], &[]).await.unwrap();
    assert_eq!(from(base, &member.next(2).await), [(2, 0), (3, 0)]);
    while member.status().await.counts.lost == 0 {
        tokio::task::yield_now().await;
    }
    let status = member.status().await;
    // What had been acknowledged may have been dropped, and told of, before.
    assert!(status.retries == 0 && (1..=2).contains(&status.counts.lost), "{status:?}");
    bench.stop().await;
}

#[actix::test]
async fn nobody_settles_what_is_not_there_yet_and_a_group_at_the_end_has_what_came_later_than_it() {
    let queues = (0..3).map(QueueId).collect();
    let (bench, queue) = bench_with(TopicConfig { queues, ..in_memory(1) }).await;
    let first = queue.produce(batch(&[b"a", b"b"])).await.unwrap();
    let base = first.base_offset.0;
    let mut member = Member::new(&queue, 1, 1);
    assert_eq!(member.begin().await, base);
    member.next(2).await;
    let (acks, behind) = ([(base, base + 9)], [base + 3]);
    let settled = member.answer(&acks, &behind, &[base + 2, base + 5]).await.unwrap();
    assert_eq!((settled.floor, settled.retries), (Offset(base + 2), 0));
    queue.produce(batch(&[b"c", b"d", b"e", b"f"])).await.unwrap();
    let rest: Vec<(u64, u32)> = (2..6).map(|at| (at, 0)).collect();
    assert_eq!(from(base, &member.next(4).await), rest);
    assert_eq!(member.status().await.counts.lost, 0);
    // All that there is came later than this group, and none of it later than that.
    for (queue, came, messages) in [(1, 0, 0), (2, u64::MAX, 2)] {
        let queue = bench.queue(1, queue);
        let first = queue.produce(batch(&[b"a", b"b"])).await.unwrap().base_offset;
        let claim = Member::new(&queue, 1, 1).claim_at(At::New(TimestampMs(came))).await;
        assert_eq!(claim.unwrap().claimed.floor, Offset(first.0 + messages));
    }
    bench.stop().await;
}
