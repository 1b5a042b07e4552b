//! Consumer groups on a real log: claims, deliveries, retries, dead letters, and what of them is
//! there after a restart.

mod member;
mod temporary;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use grus_broker::commands::groups::Span;
use grus_broker::error::QueueError;
use grus_broker::machine::groups::RETRIES_EACH_MAX;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::letters::facts_of;
use grus_broker::topic_queue::{At, GroupAsk, QueueHandle, ResetTo};
use grus_log::{Disk, SimDisk};
use grus_protocol::batch::{BatchBuilder, Compression, NewRecord, RecordBatch};
use grus_protocol::error::ErrorCode;
use grus_protocol::ids::{Durability, Generation, MessageId, Offset, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{ExpiredPolicy, MessageFilter};
use grus_protocol::names::GroupName;

use crate::bench::{Bench, Queue, batch, sim_bench, topic};
pub(crate) use member::Member;
use member::{GROUP, Push, offsets};

pub(crate) fn letters_topic() -> TopicConfig {
    let name = GroupName::try_from("billing").unwrap().dead_letters();
    TopicConfig { name, ..topic(GROUP.0, 1) }
}

/// A shard with a queue and the group's queue of dead letters.
async fn bench() -> (Bench<SimDisk>, Arc<QueueHandle>) {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    bench.open(letters_topic()).await.unwrap();
    let queue = bench.queue(1, 0);
    (bench, queue)
}

fn tagged(tags: &[&str]) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for tag in tags {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        let record = NewRecord::new(id, TimestampMs(1), tag.as_bytes().to_vec());
        builder.push(&NewRecord { tag: Some((*tag).into()), ..record }).unwrap();
    }
    RecordBatch::check(builder.finish(), &BatchLimits::FORMAT).unwrap()
}

/// Dead letters: offset of the origin, deliveries, reason, body.
pub(crate) async fn letters<D: Disk>(bench: &Bench<D>) -> Vec<(u64, u32, String, Bytes)> {
    let mut all = Vec::new();
    for (_, bytes) in bench.queue(GROUP.0, 0).read_all().await {
        let batch = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        for record in batch.records() {
            let record = record.unwrap();
            let facts = facts_of(&record).expect("a letter says where it came from");
            assert_eq!(facts.topic.as_str(), "topic-1");
            all.push((facts.offset.0, facts.deliveries, facts.reason, record.body_bytes()));
        }
    }
    all
}

#[actix::test]
async fn the_greater_generation_takes_over_what_was_not_settled_and_the_other_is_fenced() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"a", b"b", b"c"])).await.unwrap();
    let mut one = Member::new(&queue, 1, 1);
    assert_eq!(one.begin().await, 0);
    assert_eq!(offsets(&one.next(3).await), [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(one.answer(&[(1, 2)], &[], &[]).await.unwrap().floor, Offset(0));

    let mut two = Member::new(&queue, 2, 2);
    assert_eq!(two.begin().await, 0);
    assert_eq!(one.end().await, ErrorCode::Fenced, "its subscription is over");
    let held = QueueError::NotHeld { generation: Generation(2) };
    assert_eq!(one.answer(&[(0, 3)], &[], &[]).await, Err(held.clone()));
    assert_eq!(one.claim().await, Err(held.clone()), "an older generation claims nothing");
    assert_eq!(Member::new(&queue, 2, 3).claim().await, Err(held), "nor another member");
    assert_eq!(offsets(&two.next(2).await), [(0, 1), (2, 1)], "delivered once before");
    assert_eq!(two.answer(&[(0, 3)], &[], &[]).await.unwrap().floor, Offset(3));
    let status = two.status().await;
    assert_eq!((status.lag, status.oldest, status.counts.settled), (0, None, 3));
    queue.produce(batch(&[b"d"])).await.unwrap();
    assert_eq!(offsets(&two.next(1).await), [(3, 0)]);
    bench.stop().await;
}

#[actix::test]
async fn what_is_new_to_a_group_is_all_of_a_queue_that_is_younger_and_nothing_of_an_older_one() {
    let bench = sim_bench().await;
    bench.open(topic(1, 3)).await.unwrap();
    bench.open(letters_topic()).await.unwrap();
    for queue in [0, 1] {
        bench.queue(1, queue).produce(batch(&[b"a", b"b"])).await.unwrap();
    }
    let start_of = async |queue: u32, came: u64| {
        let mut member = Member::new(&bench.queue(1, queue), 1, 1);
        let taken = member.claim_at(At::New(TimestampMs(came))).await.unwrap();
        taken.claimed.floor
    };
    assert_eq!(start_of(0, 0).await, Offset(0), "all of it came after the group");
    assert_eq!(start_of(1, u64::MAX).await, Offset(2), "some of it came before");
    assert_eq!(start_of(2, u64::MAX).await, Offset(0), "there is nothing");
    bench.stop().await;
}

#[actix::test]
async fn a_failed_message_comes_again_until_it_is_a_dead_letter_and_the_others_do_not() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"a", b"bad", b"c"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    assert_eq!(offsets(&member.next(3).await), [(0, 0), (1, 0), (2, 0)]);
    let settled = member.answer(&[(0, 1), (2, 3)], &[1], &[]).await.unwrap();
    assert_eq!((settled.floor, settled.retries), (Offset(3), 1), "it holds nobody up");
    assert_eq!(member.status().await.lag, 1);
    assert_eq!(offsets(&member.next(1).await), [(1, 1)]);
    member.answer(&[], &[1], &[]).await.unwrap();
    assert_eq!(offsets(&member.next(1).await), [(1, 2)]);
    let last = member.answer(&[], &[1], &[]).await.unwrap();
    assert_eq!((last.retries, last.dead), (0, 1), "the third time was the last");
    let bad = Bytes::from_static(b"bad");
    assert_eq!(letters(&bench).await, [(1, 3, "no luck".to_owned(), bad)]);
    let again = member.answer(&[], &[1], &[1]).await.unwrap();
    assert_eq!((again.retries, again.dead), (0, 0), "said again, it does nothing");
    let status = member.status().await;
    assert_eq!((status.lag, status.counts.dead, status.counts.redelivered), (0, 1, 2));
    bench.stop().await;
}

#[actix::test]
async fn counts_retries_and_progress_are_there_after_a_restart() {
    let (bench, queue) = bench().await;
    for round in 0..4_u8 {
        queue.produce(batch(&[&[round], &[round, 1]])).await.unwrap();
    }
    let mut member = Member::new(&queue, 4, 1);
    member.terms.ladder_ms = vec![5, 3_600_000];
    member.begin().await;
    member.next(8).await;
    member.answer(&[(3, 5)], &[0, 6], &[7]).await.unwrap();
    let mut again = offsets(&member.next(2).await);
    again.sort_unstable();
    assert_eq!(again, [(0, 1), (6, 1)]);
    member.answer(&[], &[6], &[]).await.unwrap(); // an hour from now
    let before = member.status().await;

    let bench = bench.restart().await;
    let queue = bench.queue(1, 0);
    let mut member = Member { queue, pushes: None, ..member };
    let after = member.status().await;
    assert_eq!(after, before);
    assert_eq!((after.floor, after.retries, after.counts.dead), (Offset(1), 2, 1));
    member.terms.ladder_ms = vec![5];
    assert_eq!(member.begin().await, 1, "the same claim again");
    let mut all = offsets(&member.next(4).await);
    all.sort_unstable();
    // 0 was in its hands the second time; 1, 2 and 5 the first.
    assert_eq!(all, [(0, 2), (1, 1), (2, 1), (5, 1)]);
    member.answer(&[(1, 6)], &[], &[]).await.unwrap();
    // It was sent once more because the connection was another one: that is no third delivery.
    let second = member.answer(&[], &[0], &[]).await.unwrap();
    assert_eq!((second.dead, second.retries), (0, 2));
    assert_eq!(offsets(&member.next(1).await), [(0, 2)]);
    let last = member.answer(&[], &[0], &[]).await.unwrap();
    assert_eq!((last.dead, last.retries), (1, 1), "the third was the last; 6 has an hour to wait");
    let letters = letters(&bench).await;
    let of: Vec<(u64, u32)> = letters.iter().map(|letter| (letter.0, letter.1)).collect();
    assert_eq!(of, [(7, 1), (0, 3)]);
    bench.stop().await;
}

#[actix::test]
async fn what_a_filter_leaves_out_is_settled_without_a_push() {
    let (bench, queue) = bench().await;
    queue.produce(tagged(&["x", "x"])).await.unwrap();
    queue.produce(tagged(&["a", "x", "b"])).await.unwrap();
    for _ in 0..40 {
        queue.produce(tagged(&["x"])).await.unwrap();
    }
    queue.produce(tagged(&["b"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.claim().await.unwrap();
    let filter = MessageFilter::parse_tags("a || b").unwrap();
    member.subscribe(filter).await.unwrap();
    let all = member.next(3).await;
    assert_eq!(offsets(&all), [(2, 0), (4, 0), (45, 0)]);
    member.answer(&[(2, 3), (4, 5), (45, 46)], &[], &[]).await.unwrap();
    let status = member.status().await;
    assert_eq!((status.lag, status.floor), (0, Offset(46)), "nothing is left behind");
    assert_eq!((status.counts.settled, status.counts.passed), (3, 43));
    bench.stop().await;
}

#[actix::test]
async fn a_reset_sends_all_again_and_takes_no_answers_of_before() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"a", b"b", b"c", b"d"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    member.next(4).await;
    member.answer(&[(0, 3)], &[3], &[]).await.unwrap();
    let to = ResetTo::Offset(Offset(1));
    let moved = member.ask(|reply| GroupAsk::Reset { group: GROUP, to, reply }).await.unwrap();
    assert_eq!((moved.floor, moved.round), (Offset(1), 1));
    assert_eq!(member.end().await, ErrorCode::ProgressReset);
    let refused = Err(QueueError::ProgressReset { round: 1 });
    assert_eq!(member.answer(&[(0, 4)], &[], &[]).await, refused);
    assert_eq!(member.begin().await, 1, "the same generation claims it again");
    assert_eq!(offsets(&member.next(3).await), [(1, 0), (2, 0), (3, 0)]);
    member.answer(&[(1, 4)], &[], &[]).await.unwrap();
    assert_eq!(member.status().await.lag, 0);
    bench.stop().await;
}

#[actix::test]
async fn a_message_that_kills_its_consumers_becomes_a_dead_letter() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"poison"])).await.unwrap();
    for generation in 1..=3_u32 {
        let mut victim = Member::new(&queue, generation.into(), 7);
        victim.begin().await;
        assert_eq!(offsets(&victim.next(1).await), [(0, generation - 1)]);
    }
    let mut last = Member::new(&queue, 4, 7);
    last.begin().await;
    queue.produce(batch(&[b"good"])).await.unwrap();
    assert_eq!(offsets(&last.next(1).await), [(1, 0)], "the first is delivered no more");
    let letters = letters(&bench).await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].0, letters[0].1, &letters[0].3[..]), (0, 3, &b"poison"[..]));
    bench.stop().await;
}

#[actix::test]
async fn many_letters_at_once_are_each_stored_once() {
    let (bench, queue) = bench().await;
    let body = vec![7; 30_000];
    for _ in 0..100 {
        queue.produce(batch(&[&body, &body])).await.unwrap();
    }
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    member.next(20).await;
    let dead: Vec<u64> = (0..200).collect();
    let (first, second) =
        tokio::join!(member.answer(&[], &[], &dead), member.answer(&[], &[], &dead));
    assert_eq!((first.unwrap().floor, second.unwrap().floor), (Offset(200), Offset(200)));
    let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
    for (offset, ..) in letters(&bench).await {
        *counts.entry(offset).or_default() += 1;
    }
    assert_eq!(counts, (0..200).map(|offset| (offset, 1)).collect());
    bench.stop().await;
}

#[actix::test]
async fn a_group_is_gone_with_its_topic_of_dead_letters() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"a"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    member.next(1).await;
    bench.drop_topic(TopicId(GROUP.0).0).await.unwrap();
    assert_eq!(member.end().await, ErrorCode::UnknownGroup);
    assert_eq!(member.answer(&[(0, 1)], &[], &[]).await, Err(QueueError::UnknownGroup));
    assert_eq!(member.claim().await, Err(QueueError::UnknownGroup));
    bench.stop().await;
}

#[actix::test]
async fn a_connection_that_breaks_is_no_delivery_and_no_end_of_what_is_in_hands() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"slow", b"bad"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    member.next(2).await;
    for deliveries in 1..3 {
        member.answer(&[], &[1], &[]).await.unwrap();
        assert_eq!(offsets(&member.next(1).await), [(1, deliveries)]);
    }
    // Its third delivery is its last, and its member is at work on it.
    for _ in 0..5 {
        member.begin().await;
        let mut all = offsets(&member.next(2).await);
        all.sort_unstable();
        assert_eq!(all, [(0, 1), (1, 3)], "both are in its hands");
    }
    let settled = member.answer(&[(0, 2)], &[], &[]).await.unwrap();
    assert_eq!((settled.floor, settled.retries), (Offset(2), 0));
    assert_eq!(letters(&bench).await, [], "nothing is given up");
    let status = member.status().await;
    assert_eq!((status.counts.redelivered, status.counts.settled), (2, 2));
    bench.stop().await;
}

#[actix::test]
async fn what_a_member_has_in_its_hands_is_never_over() {
    let bench = sim_bench().await;
    bench.open(TopicConfig { expired: ExpiredPolicy::DeadLetter, ..topic(1, 1) }).await.unwrap();
    bench.open(letters_topic()).await.unwrap();
    let queue = bench.queue(1, 0);
    queue.produce(batch(&[b"slow", b"failed"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.begin().await;
    member.next(2).await;
    member.answer(&[], &[1], &[]).await.unwrap();
    assert_eq!(offsets(&member.next(1).await), [(1, 1)]);
    // Its time to live ends while it is at work, and its connection breaks.
    member.is_late.store(true, Relaxed);
    queue.produce(batch(&[b"nobody has it"])).await.unwrap();
    member.begin().await;
    let mut all = offsets(&member.next(2).await);
    all.sort_unstable();
    assert_eq!(all, [(0, 1), (1, 2)], "its answers are waited for");
    let settled = member.answer(&[(0, 2)], &[], &[]).await.unwrap();
    assert_eq!(settled.retries, 0);
    let buried = async { while member.status().await.lag > 0 {} };
    tokio::time::timeout(Duration::from_mins(2), buried).await.expect("the third is over");
    let letters: Vec<u64> = letters(&bench).await.iter().map(|(offset, ..)| *offset).collect();
    assert_eq!(letters, [2], "which nobody had");
    let counts = member.status().await.counts;
    assert_eq!((counts.settled, counts.dead), (2, 1));
    bench.stop().await;
}

#[actix::test]
async fn what_finds_no_room_is_named_and_nothing_is_sent_ahead_until_there_is_some() {
    const MOST: u64 = RETRIES_EACH_MAX as u64;
    let (bench, queue) = bench().await;
    let bodies = [&b"x"[..]; 256];
    for _ in 0..=MOST / 256 {
        queue.produce(batch(&bodies)).await.unwrap();
    }
    let end = (MOST / 256 + 1) * 256;
    let mut member = Member::new(&queue, 1, 1);
    member.terms.ladder_ms = vec![3_600_000];
    member.claim().await.unwrap();
    for first in (0..MOST).step_by(10_000) {
        let failed: Vec<u64> = (first..first + 10_000).collect();
        assert_eq!(member.answer_in_full(&[], &failed, &[]).await.unwrap().left, []);
    }
    assert_eq!(member.subscribe(MessageFilter::All).await, Ok(MOST));
    for _ in 0..3 {
        assert_eq!(member.status().await.retries, MOST);
        assert!(member.pushes.as_mut().unwrap().try_recv().is_err(), "there is no room for it");
    }
    member.answer(&[(0, 1)], &[], &[]).await.unwrap();
    let came = offsets(&member.next(usize::try_from(end - MOST).unwrap()).await);
    assert_eq!(came, (MOST..end).map(|at| (at, 0)).collect::<Vec<_>>());
    // All of it fails: the first finds room, and what was answered beside it is taken.
    let failed: Vec<u64> = (MOST..end).collect();
    let taken = member.answer_in_full(&[(1, 2)], &failed, &[]).await.unwrap();
    let one = |at| Span { from: Offset(at), to: Offset(at + 1) };
    assert_eq!(taken.left, (MOST + 2..end).map(one).collect::<Vec<_>>());
    assert_eq!(taken.settled.retries, MOST);
    let taken = member.answer_in_full(&[(2, 200)], &failed, &[]).await.unwrap();
    assert_eq!((taken.left, taken.settled.floor), (Vec::new(), Offset(end)));
    bench.stop().await;
}

/// Fills the disk with messages for others.
async fn fill(bench: &Bench<SimDisk>) {
    bench.open(topic(2, 1)).await.unwrap();
    let others = bench.queue(2, 0);
    bench.disk.set_capacity_bytes(bench.disk.used_bytes());
    for size in [10_000, 1_000, 100, 1] {
        let body = vec![7; size];
        while others.produce(batch(&[&body])).await.is_ok() {}
    }
    assert!(bench.status().await.disk_full);
}

#[actix::test]
async fn what_is_delivered_while_the_disk_is_full_is_counted_once_when_there_is_room() {
    let (bench, queue) = bench().await;
    queue.produce(tagged(&["a", "x", "a", "x"])).await.unwrap();
    for _ in 0..20 {
        queue.produce(tagged(&["x"])).await.unwrap();
    }
    let mut member = Member::new(&queue, 1, 1);
    member.claim().await.unwrap();
    member.answer(&[], &[0], &[]).await.unwrap();
    fill(&bench).await;
    member.subscribe(MessageFilter::parse_tags("a").unwrap()).await.unwrap();
    let mut all = offsets(&member.next(2).await);
    all.sort_unstable();
    assert_eq!(all, [(0, 1), (2, 0)]);
    let full = QueueError::StorageFull;
    assert_eq!(member.answer(&[(2, 3)], &[], &[]).await, Err(full), "nothing can be written");
    // A second in which it might be sent again and again.
    let again = tokio::time::timeout(Duration::from_secs(1), member.push()).await;
    assert!(again.is_err(), "it is in its member's hands: {again:?}");
    assert_eq!(member.status().await.lag, 24);

    bench.disk.set_capacity_bytes(u64::MAX);
    let settles = async {
        while member.answer(&[(0, 1), (2, 3)], &[], &[]).await.is_err() {}
        while member.status().await.lag > 0 {}
    };
    let within = Duration::from_mins(1);
    tokio::time::timeout(within, settles).await.expect("what was passed over is settled");
    let counts = member.status().await.counts;
    assert_eq!((counts.settled, counts.passed, counts.redelivered), (2, 22, 1));
    bench.stop().await;
}

#[actix::test]
async fn a_batch_of_very_many_gaps_is_settled_to_the_end() {
    let (bench, queue) = bench().await;
    // More gaps than the state keeps of one group at a time, and all of them in one turn.
    let tags: Vec<&str> = (0..36_000).map(|at| if at % 2 == 0 { "a" } else { "x" }).collect();
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for tag in tags {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        let record = NewRecord::new(id, TimestampMs(1), "");
        builder.push(&NewRecord { tag: Some(tag.into()), ..record }).unwrap();
    }
    builder.compress(Compression::Zstd);
    let gaps = RecordBatch::check(builder.finish(), &BatchLimits::FORMAT).unwrap();
    queue.produce(gaps).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.claim().await.unwrap();
    member.subscribe(MessageFilter::parse_tags("a").unwrap()).await.unwrap();
    let mut seen = 0;
    while seen < 18_000 {
        let Push::Batches(fetched, marks) = member.push().await else { panic!("batches") };
        let spans: Vec<_> = fetched
            .batches
            .iter()
            .flat_map(|batch| batch.base_offset.0..batch.base_offset.0 + u64::from(batch.count))
            .filter(|at| at % 2 == 0)
            .map(|at| (at, at + 1))
            .collect();
        assert!(!marks.skipped.is_empty());
        seen += spans.len();
        // What finds no room may be said again.
        for some in spans.chunks(4_000) {
            while let Err(error) = member.answer(some, &[], &[]).await {
                assert!(matches!(error, QueueError::Limit { .. }), "{error}");
            }
        }
    }
    let settles = async { while member.status().await.lag > 0 {} };
    let within = Duration::from_mins(1);
    tokio::time::timeout(within, settles).await.expect("nothing is left behind");
    bench.restart().await.stop().await;
}

#[actix::test]
async fn a_message_that_cannot_be_read_is_neither_given_up_nor_lost_and_holds_nobody_else_up() {
    let (bench, queue) = bench().await;
    for number in 0..150_u8 {
        queue.produce(batch(&[&vec![number; 7_000]])).await.unwrap(); // an entry each
    }
    let (disk, settings) = bench.stop().await;
    let mut segments = disk.files();
    segments.retain(|(path, _)| path.to_string_lossy().contains("segment-"));
    let (path, _) = &segments[0];
    let needle = [10_u8; 7_000];
    let content = disk.content(path);
    let at = content.windows(needle.len()).position(|window| window == needle).unwrap();
    disk.flip_bit(path, 8 * at as u64 + 8 * 100);
    let bench = Bench::start(disk, settings).await;
    let queue = bench.queue(1, 0);
    let mut member = Member::new(&queue, 1, 1);
    member.claim().await.unwrap();
    let told = member.answer(&[(0, 9)], &[], &[9, 10, 11]).await.unwrap();
    assert_eq!((told.floor, told.retries), (Offset(12), 1), "10 waits for better times");
    let origins: Vec<u64> = letters(&bench).await.iter().map(|letter| letter.0).collect();
    assert_eq!(origins, [9, 11]);
    let status = member.status().await;
    assert_eq!((status.counts.dead, status.counts.lost, status.lag), (2, 0, 139));
    assert!(status.next_retry.is_some());
    // It is damaged for whoever reads ahead as well: the others come, and it stays unsettled.
    member
        .ask(|reply| GroupAsk::Reset { group: GROUP, to: ResetTo::Offset(Offset(9)), reply })
        .await
        .unwrap();
    assert_eq!(member.begin().await, 9);
    let mut all = offsets(&member.next(30).await);
    all.sort_unstable();
    let expected: Vec<u64> = (9..40).filter(|at| *at != 10).collect();
    let first = all.iter().map(|(at, _)| *at).take(expected.len());
    assert_eq!(first.collect::<Vec<_>>(), expected);
    member.answer(&[(9, 10), (11, 40)], &[], &[]).await.unwrap();
    assert_eq!(member.status().await.floor, Offset(10), "it is named, and not lost");
    bench.stop().await;
}

#[actix::test]
async fn what_its_member_has_just_answered_for_is_not_sent_again_meanwhile() {
    let (bench, queue) = bench().await;
    queue.produce(batch(&[b"a", b"bad", b"c"])).await.unwrap();
    let mut member = Member::new(&queue, 1, 1);
    member.terms.ladder_ms = vec![0];
    member.claim().await.unwrap();
    let settled = member.answer(&[], &[1], &[]).await.unwrap();
    assert_eq!(settled.retries, 1, "due at once, to whoever subscribes");
    // As one does whose leader has died: it answers once more, and its subscription begins before that
    // is in the log.
    let not_for_an_hour = member.answering(1, 3_600_000);
    member.subscribe(MessageFilter::All).await.unwrap();
    let sent = offsets(&member.next(2).await);
    assert_eq!(sent, [(0, 0), (2, 0)], "the one that waits for an hour is not among them");
    assert_eq!(not_for_an_hour.await.unwrap().unwrap().settled.retries, 1);
    queue.produce(batch(&[b"d"])).await.unwrap();
    assert_eq!(offsets(&member.next(1).await), [(3, 0)]);
    bench.stop().await;
}

#[actix::test]
async fn retries_of_many_batches_stay_within_the_credit() {
    let (bench, queue) = bench().await;
    for _ in 0..4 {
        queue.produce(batch(&[b"a", b"b", b"c"])).await.unwrap();
    }
    let mut member = Member::new(&queue, 1, 1);
    member.terms.ladder_ms = vec![0];
    member.claim().await.unwrap();
    member.answer(&[], &[0, 3, 6, 9], &[]).await.unwrap();
    // A retry is sent with its whole batch: two of them, as the first leaves one message of credit.
    member.subscribe_for(MessageFilter::All, 4).await.unwrap();
    let mut sent = 0;
    while sent < 4 {
        let Push::Batches(fetched, _) = member.push().await else { panic!("it goes on") };
        assert!(sent < 4, "there was credit");
        sent +=
            fetched.batches[..fetched.batches.len() - 1].iter().map(|one| one.count).sum::<u32>();
        assert!(sent < 4, "each but the first batch of a push came while there was some");
        sent += fetched.batches.last().map_or(0, |last| last.count);
    }
    assert_eq!(sent, 6);
    bench.stop().await;
}
