//! Scheduled messages on a real log: never early, never lost, never twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use grus_broker::commands::TopicConfig;
use grus_broker::delay_wheel::messages::{
    DelayAsk, DelayFilter, DelayStatus, Recalled, Scheduled, ScheduledPage,
};
use grus_broker::error::QueueError;
use grus_broker::timers::TimerId;
use grus_broker::topic_queue::{Produce, QueueHandle, Receipt};
use grus_log::{Disk, SimDisk};
use grus_mailbox::reply::port;
use grus_mailbox::{Answer, Clock, Port};
use grus_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use grus_protocol::ids::{Durability, MessageId, QueueId, QueueKey, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;

use crate::bench::{Bench, Queue, batch, key, settings, sim_bench, topic};

fn now() -> u64 {
    Clock::system().now().0
}

/// A batch of these bodies, each with itself as its key.
fn keyed(bodies: &[&[u8]]) -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for body in bodies {
        let id = MessageId::from_parts(TimestampMs(1), &[9; 10]);
        let record = NewRecord::new(id, TimestampMs(1), body.to_vec());
        let keys = vec![Bytes::copy_from_slice(&body[..body.len().min(40)])];
        builder.push(&NewRecord { keys, ..record }).unwrap();
    }
    RecordBatch::check(builder.finish(), &BatchLimits::FORMAT).unwrap()
}

/// Sends a batch to be seen later.
async fn send_later(
    queue: &QueueHandle,
    bodies: &[&[u8]],
    due: &[u64],
) -> Answer<Result<Receipt, QueueError>> {
    let (reply, answer) = port();
    let due = Some(due.iter().copied().map(TimestampMs).collect());
    let produce = Produce { batch: keyed(bodies), dedup_key: None, due, reply };
    queue.produce.put(produce).await.unwrap();
    answer
}

async fn later(queue: &QueueHandle, bodies: &[&[u8]], due: &[u64]) -> TimerId {
    let receipt = send_later(queue, bodies, due).await.await.unwrap().unwrap();
    receipt.timer.expect("it was scheduled")
}

async fn ask<D: Disk, T>(bench: &Bench<D>, ask: impl FnOnce(Port<T>) -> DelayAsk) -> T {
    let (reply, answer) = port();
    bench.handle().delays.put(ask(reply)).await.unwrap();
    answer.await.unwrap()
}

async fn recall<D: Disk>(bench: &Bench<D>, queue: QueueKey, timers: &[TimerId]) -> Vec<Recalled> {
    let timers = timers.to_vec();
    ask(bench, |reply| DelayAsk::Recall { queue, timers, reply }).await.unwrap()
}

async fn status<D: Disk>(bench: &Bench<D>) -> DelayStatus {
    ask(bench, |reply| DelayAsk::Status { reply }).await
}

async fn page<D: Disk>(
    bench: &Bench<D>,
    filter: DelayFilter,
    after: Option<(TimestampMs, TimerId)>,
    messages_max: u32,
) -> ScheduledPage {
    let with_bodies = true;
    ask(bench, |reply| DelayAsk::List { filter, after, messages_max, with_bodies, reply })
        .await
        .unwrap()
}

/// Bodies with the times of the entries that made them visible, once there are `count`.
async fn seen(queue: &QueueHandle, count: u64) -> Vec<(Bytes, u64)> {
    let mut seen: Vec<(Bytes, u64)> = Vec::new();
    while (seen.len() as u64) < count {
        let offset = seen.len() as u64;
        let fetched = queue.fetch(offset, 0, 20_000).await.await.unwrap().unwrap();
        assert!(!fetched.batches.is_empty(), "{offset} of {count} came");
        for found in fetched.batches {
            let batch = RecordBatch::check(found.bytes, &BatchLimits::FORMAT).unwrap();
            let bodies = batch.records().map(|record| record.unwrap().body_bytes());
            seen.extend(bodies.map(|body| (body, found.stored.0)));
        }
    }
    seen
}

fn texts(seen: &[(Bytes, u64)]) -> Vec<&str> {
    seen.iter().map(|(body, _)| std::str::from_utf8(body).unwrap()).collect()
}

/// Messages for later in queue 0 of a topic, sent before the first of them is due; the time from which
/// their due times count. None when this took too long, so that the order of sending may show.
async fn sent_in_time(queue: &QueueHandle, lead_ms: u64) -> Option<u64> {
    let start = now() + lead_ms;
    later(queue, &[b"at 300"], &[start + 300]).await;
    later(queue, &[b"at 100", b"at 200", b"at 300 too"], &[start + 100, start + 200, start + 300])
        .await;
    later(queue, &[b"at 200 too"], &[start + 200]).await;
    later(queue, &[b"both", b"at 150"], &[start + 150]).await;
    later(queue, &[b"in two years"], &[start + 63_072_000_000]).await;
    later(queue, &[b"overdue"], &[5]).await;
    queue.produce(batch(&[b"now"])).await.unwrap();
    (now() < start + 100).then_some(start)
}

#[actix::test]
async fn messages_come_when_they_are_due_earliest_first_and_ties_in_send_order() {
    let bench = sim_bench().await;
    let (mut number, mut lead_ms) = (1, 700);
    let (queue, start) = loop {
        bench.open(topic(number, 1)).await.unwrap();
        let queue = bench.queue(number, 0);
        if let Some(start) = sent_in_time(&queue, lead_ms).await {
            break (queue, start);
        }
        bench.drop_topic(number).await.unwrap();
        (number, lead_ms) = (number + 1, lead_ms * 2); // the machine is busy with other tests
    };
    let seen = seen(&queue, 9).await;
    let mut order = texts(&seen);
    let (first, rest) = order.split_at_mut(2);
    first.sort_unstable();
    assert_eq!(first, ["now", "overdue"]);
    let wanted = ["at 100", "both", "at 150", "at 200", "at 200 too", "at 300", "at 300 too"];
    assert_eq!(rest, wanted);
    for (due, (body, stored)) in [100, 150, 150, 200, 200, 300, 300].into_iter().zip(&seen[2..]) {
        assert!(*stored >= start + due, "{body:?} came {} ms early", start + due - stored);
    }
    let left = status(&bench).await;
    assert_eq!((left.pending, left.by_topic), (1, vec![(TopicId(number), 1)]));
    assert_eq!(
        (left.oldest_due, left.due_histogram[7]),
        (Some(TimestampMs(start + 63_072_000_000)), 1)
    );
    bench.stop().await;
}

#[actix::test]
async fn a_large_batch_that_is_due_leaves_as_a_whole_and_a_backlog_of_them_in_few_entries() {
    const BATCHES: u64 = 8;
    const RECORDS: usize = 180;
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let due = now() + 1_000;
    let body = [7; 1_000]; // a batch that is nearly all that an entry of these segments may hold
    for _ in 0..BATCHES {
        later(&queue, &[&body[..]; RECORDS], &[due]).await;
    }
    let before = bench.status().await.applied_index.unwrap();
    let all = BATCHES * RECORDS as u64;
    assert_eq!(seen(&queue, all).await.len() as u64, all);
    let entries = bench.status().await.applied_index.unwrap() - before;
    assert!(entries <= 4 * BATCHES, "{entries} entries to release {BATCHES} batches");
    bench.stop().await;
}

#[actix::test]
async fn a_backlog_goes_out_in_few_entries_however_little_one_of_them_takes() {
    const HOUR_MS: u64 = 3_600_000;
    const MESSAGES: u64 = 700;
    for segment_bytes in [64 * 1024, 256 * 1024, 1024 * 1024] {
        let mut settings = settings("/data/0".into(), Durability::Persisted);
        settings.log.first_segment_bytes = segment_bytes;
        settings.log.segment_bytes = segment_bytes;
        let bench = Bench::start(SimDisk::new(7), settings).await;
        bench.open(topic(1, 1)).await.unwrap();
        let queue = bench.queue(1, 0);
        let due = now() + HOUR_MS;
        let body_of = |number: u64| number.to_le_bytes().repeat(250);
        for number in 0..MESSAGES {
            later(&queue, &[&body_of(number)], &[due + number]).await;
        }
        let before = bench.status().await.applied_index.unwrap();
        bench.move_clock(2 * HOUR_MS);
        let came = seen(&queue, MESSAGES).await;
        let bodies = came.iter().map(|(body, _)| body.to_vec());
        assert!(bodies.eq((0..MESSAGES).map(body_of)), "each once, earliest first");
        // An entry of the smallest takes some twenty of them; each segment has an entry of its own.
        let entries = bench.status().await.applied_index.unwrap() - before;
        assert!(entries <= MESSAGES / 5, "{entries} entries of segments of {segment_bytes} bytes");
        bench.stop().await;
    }
}

#[actix::test]
async fn what_is_recalled_never_comes_and_what_came_is_not_recalled() {
    const HOUR_MS: u64 = 3_600_000;
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let due = now() + HOUR_MS;
    let first = later(&queue, &[b"a", b"b", b"c"], &[due]).await;
    let far = later(&queue, &[b"far"], &[due + HOUR_MS]).await;
    let (won, late) = (Recalled::Recalled, Recalled::TooLate);
    let unknown = TimerId { index: 1 << 40, place: 7 };
    let timers = [first.nth(1), first.nth(3), unknown, far, far];
    assert_eq!(recall(&bench, key(1, 0), &timers).await, [won, late, late, won, late]);
    bench.move_clock(HOUR_MS);
    assert_eq!(texts(&seen(&queue, 2).await), ["a", "c"]);
    assert_eq!(recall(&bench, key(1, 0), &[first]).await, [late]);
    assert_eq!(recall(&bench, key(1, 0), &[]).await, []);
    let elsewhere =
        ask(&bench, |reply| DelayAsk::Recall { queue: key(9, 0), timers: vec![far], reply });
    assert_eq!(elsewhere.await, Err(QueueError::UnknownQueue));
    let bench = bench.restart().await;
    assert_eq!((status(&bench).await.pending, bench.queue(1, 0).bodies().await.len()), (0, 2));
    bench.stop().await;
}

#[actix::test]
async fn what_is_scheduled_is_listed_counted_and_shown_as_it_will_be_seen() {
    let bench = sim_bench().await;
    bench.open(topic(1, 2)).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let far = now() + 1_000_000;
    for number in 0..40_u64 {
        let queue = bench.queue(1 + number % 2, u32::from(number % 4 == 2));
        let body = format!("m{number:02}");
        // Every ten share their time.
        later(&queue, &[body.as_bytes(), b"beside"], &[far + number % 10, far + 500 + number])
            .await;
    }
    let of_topic = DelayFilter { topic: Some(TopicId(1)), ..DelayFilter::default() };
    let until = TimestampMs(far + 100);
    let early = DelayFilter { until, ..of_topic.clone() };
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let ScheduledPage { messages, next } = page(&bench, early.clone(), after, 7).await;
        all.extend(messages);
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(all.len(), 20);
    assert!(all.is_sorted_by_key(|message| (message.due, message.timer)));
    let count = |filter| ask(&bench, |reply| DelayAsk::Count { filter, reply });
    assert_eq!(count(early).await, Ok(20));
    assert_eq!(count(DelayFilter::default()).await, Ok(80));
    assert_eq!(count(DelayFilter { queue: Some(QueueId(1)), ..of_topic }).await, Ok(20));
    later(&bench.queue(2, 0), &[b"never"], &[u64::MAX]).await;
    assert_eq!(count(DelayFilter::default()).await, Ok(81), "also what is due at the end of time");
    let last = DelayFilter { from: TimestampMs(u64::MAX), ..DelayFilter::default() };
    assert_eq!(count(last).await, Ok(1));

    let with_key = DelayFilter { key: Some(Bytes::from("m17")), ..DelayFilter::default() };
    let found = page(&bench, with_key, None, 100).await;
    let [Scheduled { queue, timer, due, bytes: Some(bytes) }] = found.messages.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((*queue, due.0, found.next), (key(2, 0), far + 7, None));
    let shown = |queue, timer| ask(&bench, move |reply| DelayAsk::Show { queue, timer, reply });
    let shown_once = shown(*queue, *timer).await.unwrap().unwrap();
    assert_eq!(shown_once.bytes.as_ref(), Some(bytes));
    assert_eq!(shown(key(1, 0), *timer).await, Ok(None), "of another queue");
    assert_eq!(recall(&bench, *queue, &[*timer]).await, [Recalled::Recalled]);
    assert_eq!(shown(*queue, *timer).await, Ok(None));
    bench.stop().await;
}

#[actix::test]
async fn a_wheel_that_panics_is_rebuilt_and_goes_on() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    let queue = bench.queue(1, 0);
    let due = now() + 250;
    for number in 0..600_u64 {
        later(&queue, &[&number.to_le_bytes()], &[due + number / 200]).await;
    }
    for _ in 0..3 {
        bench.handle().delays.put(DelayAsk::Panic).await.unwrap();
        assert!(status(&bench).await.pending <= 600);
    }
    let came: Vec<Bytes> = seen(&queue, 600).await.into_iter().map(|(body, _)| body).collect();
    assert_eq!(
        came,
        (0..600_u64).map(|n| Bytes::copy_from_slice(&n.to_le_bytes())).collect::<Vec<_>>()
    );
    let actors = bench.places.process().census.snapshot();
    let wheel = actors.into_iter().find(|actor| actor.kind == "DelayWheel").unwrap();
    assert_eq!(wheel.restarts, 3);
    assert_eq!(queue.status().await.messages, 600, "none twice");
    bench.stop().await;
}

#[actix::test]
async fn a_topic_that_is_dropped_takes_its_scheduled_messages_along() {
    let bench = sim_bench().await;
    bench.open(topic(1, 1)).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let due = now() + 100;
    for number in 0..50_u8 {
        later(&bench.queue(1, 0), &[&[number]], &[due]).await;
        later(&bench.queue(2, 0), &[&[number]], &[due]).await;
    }
    bench.drop_topic(1).await.unwrap();
    assert_eq!(seen(&bench.queue(2, 0), 50).await.len(), 50);
    assert_eq!(status(&bench).await.pending, 0);
    let bench = bench.restart().await;
    assert_eq!(bench.queue(2, 0).bodies().await.len(), 50);
    bench.stop().await;
}

/// What was sent in a round of crashes, by body.
#[derive(Default)]
struct Sent {
    /// Acknowledged, with due time.
    acked: BTreeMap<u64, u64>,
    /// Sent; perhaps stored.
    tried: BTreeMap<u64, u64>,
    /// Taken back, by the log's word.
    recalled: BTreeSet<u64>,
    /// Asked to be taken back, and no answer came: perhaps they are.
    asked: BTreeSet<u64>,
    next: u64,
}

impl Sent {
    /// Each acknowledged message is there once, not before its time; what was taken back is not.
    async fn check<D: Disk>(&self, bench: &Bench<D>, seed: u64) {
        while status(bench).await.oldest_due.is_some_and(|due| due.0 <= now() + 500) {
            tokio::task::yield_now().await; // questions do not hold up what they ask about
        }
        let queue = bench.queue(1, 0);
        let count = queue.status().await.messages;
        let mut found = BTreeMap::new();
        for (body, stored) in seen(&queue, count).await {
            let number = u64::from_le_bytes(body[..8].try_into().unwrap());
            let due = self.tried.get(&number).copied().expect("what comes was sent");
            assert!(stored >= due, "seed {seed}: {number} came {} ms early", due - stored);
            assert_eq!(found.insert(number, stored), None, "seed {seed}: {number} came twice");
            assert!(!self.recalled.contains(&number), "seed {seed}: {number} was taken back");
        }
        // Those that are due in an hour wait, whole, wherever they were carried on to.
        for (number, due) in waiting(bench).await {
            assert_eq!(self.tried.get(&number), Some(&due), "seed {seed}: {number} waits");
            assert_eq!(found.insert(number, 0), None, "seed {seed}: {number} waits and came");
            assert!(!self.recalled.contains(&number), "seed {seed}: {number} was taken back");
        }
        for (number, due) in &self.acked {
            let is_gone = self.recalled.contains(number) || self.asked.contains(number);
            assert!(
                is_gone || found.contains_key(number),
                "seed {seed}: {number} due {due} is lost"
            );
        }
    }
}

/// What waits for its time, by number: when it is due. Each with its whole body.
async fn waiting<D: Disk>(bench: &Bench<D>) -> BTreeMap<u64, u64> {
    let (mut waiting, mut after) = (BTreeMap::new(), None);
    loop {
        let ScheduledPage { messages, next } =
            page(bench, DelayFilter::default(), after, 100).await;
        for message in messages {
            let bytes = message.bytes.expect("its bytes can be read");
            let read = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
            let body = read.records().next().unwrap().unwrap().body_bytes();
            assert_eq!(body.len(), 2_000);
            let number = u64::from_le_bytes(body[..8].try_into().unwrap());
            assert_eq!(waiting.insert(number, message.due.0), None, "{number} waits twice");
        }
        after = next;
        if after.is_none() {
            return waiting;
        }
    }
}

/// The answer; none when it will not come, as the power is off.
async fn answered<T>(disk: &SimDisk, mut answer: Answer<T>) -> Option<T> {
    loop {
        let is_off = disk.is_off();
        match answer.try_take() {
            Ok(None) if !is_off => tokio::task::yield_now().await,
            Ok(answer) => return answer,
            Err(_dropped) => return None,
        }
    }
}

/// Schedules, recalls and fills the log, until the power is cut at a step that the seed chooses.
async fn disturb(bench: &Bench<SimDisk>, sent: &mut Sent, seed: u64, after_ms: u64) {
    let disk = &bench.disk;
    disk.cut_at_step(disk.steps() + 5 + seed * 137 % 1_900);
    let (queue, noise) = (bench.queue(1, 0), bench.queue(2, 0));
    let mut under_way = Vec::new();
    for number in 0..4_000 {
        if disk.is_off() {
            break;
        }
        let id = sent.next;
        sent.next += 1;
        let mut body = vec![7; 2_000];
        body[..8].copy_from_slice(&id.to_le_bytes());
        let due = now() + (id * 7_919 + seed) % 180 + after_ms;
        sent.tried.insert(id, due);
        under_way.push((id, due, send_later(&queue, &[&body], &[due]).await));
        drop(noise.send(batch(&[&[1; 6_000]])).await);
        if number % 8 == 7 {
            for (id, due, answer) in under_way.drain(..) {
                let Some(Ok(receipt)) = answered(disk, answer).await else { continue };
                sent.acked.insert(id, due);
                if id % 5 == 0 {
                    let timers = vec![receipt.timer.unwrap()];
                    let (reply, answer) = port();
                    let ask = DelayAsk::Recall { queue: key(1, 0), timers, reply };
                    bench.handle().delays.put(ask).await.unwrap();
                    match answered(disk, answer).await {
                        Some(Ok(result)) if result == [Recalled::Recalled] => {
                            sent.recalled.insert(id);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => {
                            sent.asked.insert(id);
                        }
                    }
                }
            }
        }
    }
    disk.cut();
}

/// Power cuts in a row while messages are stored, released, recalled, carried on and trimmed.
/// True when the log has let go of entries that messages in wait first lay in.
async fn crash_round(seed: u64, after_ms: u64) -> bool {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 20;
    let mut bench = Bench::start(SimDisk::new(seed), settings).await;
    bench.open(topic(1, 1)).await.unwrap();
    bench.open(TopicConfig { retention_bytes: 100_000, ..topic(2, 1) }).await.unwrap();
    let mut sent = Sent::default();
    for crash in 0..4 {
        disturb(&bench, &mut sent, seed * 4 + crash, after_ms).await;
        let (disk, settings) = bench.abandon().await;
        disk.power_on();
        bench = Bench::start(disk, settings).await;
    }
    sent.check(&bench, seed).await;
    let oldest = page(&bench, DelayFilter::default(), None, 1_000).await;
    let oldest = oldest.messages.iter().map(|message| message.timer.index).min();
    let has_rolled = oldest.is_some() && oldest <= bench.status().await.purged_index;
    bench.stop().await;
    has_rolled
}

fn seeds() -> std::ops::Range<u64> {
    let one = std::env::var("GRUS_SEED").ok().map(|seed| seed.parse().unwrap());
    one.map_or(0..5, |seed: u64| seed..seed + 1)
}

#[actix::test]
async fn power_cuts_in_a_row_lose_nothing_and_repeat_nothing() {
    for seed in seeds() {
        eprintln!("GRUS_SEED={seed}");
        crash_round(seed, 0).await;
    }
}

#[actix::test]
async fn power_cuts_while_messages_are_carried_on_lose_none() {
    let mut rolled = 0;
    for seed in seeds() {
        eprintln!("GRUS_SEED={seed}");
        rolled += usize::from(crash_round(seed, 3_600_000).await);
    }
    assert!(rolled > 0, "no seed has carried a message on");
}

#[actix::test]
async fn messages_that_outlive_many_segments_are_carried_on_and_come_whole() {
    let mut settings = settings("/data/0".into(), Durability::Persisted);
    settings.retention_check_ms = 1;
    let mut bench = Bench::start(SimDisk::new(3), settings).await;
    // Eight segments of what is seen.
    bench.open(TopicConfig { retention_bytes: 2 * 1024 * 1024, ..topic(1, 1) }).await.unwrap();
    bench.open(topic(2, 1)).await.unwrap();
    let far = now() + 3_600_000;
    let body_of = |number: u64| {
        let mut body = number.to_le_bytes().repeat(250);
        body.extend_from_slice(b"whole");
        body
    };
    for number in 0..60_u64 {
        let due = [far + number, far + 100 + number];
        later(&bench.queue(2, 0), &[&body_of(number), b"beside"], &due).await;
    }
    let first = bench.status().await.purged_index;
    // Twenty segments go by, with a restart in the middle.
    for round in 0..2 {
        for _ in 0..260 {
            bench.queue(1, 0).produce(batch(&[&[round; 10_000]])).await.unwrap();
        }
        while bench.status().await.purged_index.is_none_or(|purged| Some(purged) <= first) {
            bench.queue(1, 0).produce(batch(&[&[round; 10_000]])).await.unwrap();
        }
        bench = bench.restart().await;
    }
    let shown = page(&bench, DelayFilter::default(), None, 1_000).await;
    assert_eq!(shown.messages.len(), 120);
    let oldest = shown.messages.iter().map(|message| message.timer.index).min().unwrap();
    let purged = bench.status().await.purged_index.unwrap();
    assert!(oldest <= purged, "the first entry {oldest} is gone, {purged} is purged");
    for (number, message) in shown.messages[..60].iter().enumerate() {
        let bytes = message.bytes.clone().expect("its bytes were carried on");
        let read = RecordBatch::check(bytes, &BatchLimits::FORMAT).unwrap();
        let body = read.records().next().unwrap().unwrap().body_bytes();
        assert_eq!(body, body_of(number as u64));
    }
    while bench.status().await.segments > 14 {
        tokio::task::yield_now().await; // retention still catches up with the restart
    }
    bench.stop().await;
}
