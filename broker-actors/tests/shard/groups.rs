//! Consumer groups on a real log: claims, deliveries, retries, dead letters, and what of them is
//! there after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::error::QueueError;
use grus_broker::machine::groups::Settled;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::letters::facts_of;
use grus_broker::topic_queue::sifting::Marks;
use grus_broker::topic_queue::{
    Account, Answered, At, ClaimTaken, Failed, Fetched, GivenUp, GroupAsk, ProgressStatus,
    PushTurn, QueueHandle, ResetTo, Subscriber, SubscriptionKey,
};
use grus_log::{Disk, SimDisk};
use grus_mailbox::Port;
use grus_mailbox::reply::port;
use grus_protocol::batch::{BatchBuilder, NewRecord, RecordBatch};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{
    Generation, GroupId, MemberId, MessageId, Offset, SubscriptionId, TimestampMs, TopicId,
};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::MessageFilter;
use grus_protocol::names::GroupName;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::bench::{Bench, Queue, batch, sim_bench, topic};

const GROUP: GroupId = GroupId(9);
const WINDOW: u32 = 1 << 20;

/// What a member is sent.
#[derive(Debug)]
enum Push {
    Batches(Fetched, Marks),
    End(ErrorReply),
    Gone,
}

/// A connection that always has room.
struct Wire(UnboundedSender<Push>);

impl Subscriber for Wire {
    fn ask_turn(&self, turn: Port<PushTurn>) {
        turn.send(PushTurn::new(|| ()));
    }

    fn readable(&self, fetched: Fetched) -> Result<Fetched, ErrorReply> {
        Ok(fetched)
    }

    fn deliver(&self, _fetched: Fetched, _turn: PushTurn) {
        panic!("a member is sent by deliver_group");
    }

    fn deliver_group(&self, fetched: Fetched, marks: Marks, _turn: PushTurn) {
        let _ = self.0.send(Push::Batches(fetched, marks));
    }

    fn end(self: Box<Self>, error: ErrorReply) {
        let _ = self.0.send(Push::End(error));
    }

    fn dismiss(self: Box<Self>) {
        let _ = self.0.send(Push::Gone);
    }

    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// A delivered message: its offset, how often it was delivered before, its body.
type Message = (u64, u32, Bytes);

fn messages(fetched: &Fetched, marks: &Marks) -> Vec<Message> {
    let holds = |span: &Span, at: u64| (span.from.0..span.to.0).contains(&at);
    let mut all = Vec::new();
    for batch in &fetched.batches {
        let records = RecordBatch::check(batch.bytes.clone(), &BatchLimits::FORMAT).unwrap();
        for (record, at) in records.records().zip(batch.base_offset.0..) {
            if marks.skipped.iter().any(|span| holds(span, at)) {
                continue;
            }
            let before = marks.again.iter().find(|again| holds(&again.span, at));
            all.push((at, before.map_or(0, |b| b.deliveries), record.unwrap().body_bytes()));
        }
    }
    all
}

struct Member {
    queue: Arc<QueueHandle>,
    holding: Holding,
    terms: RetryTerms,
    pushes: Option<UnboundedReceiver<Push>>,
}

impl Member {
    fn new(queue: &Arc<QueueHandle>, generation: u64, member: u64) -> Self {
        let holding = Holding {
            place: ProgressKey { queue: queue.key, group: GROUP },
            generation: Generation(generation),
            member: MemberId(member),
            round: 0,
        };
        let terms = RetryTerms { deliveries_max: 3, ladder_ms: vec![5, 10] };
        Self { queue: Arc::clone(queue), holding, terms, pushes: None }
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(Port<Result<T, QueueError>>) -> GroupAsk,
    ) -> Result<T, QueueError> {
        let (reply, answer) = port();
        self.queue.group.put(ask(reply)).await.unwrap();
        answer.await.unwrap()
    }

    async fn claim(&mut self) -> Result<ClaimTaken, QueueError> {
        let (holding, terms) = (self.holding, self.terms.clone());
        let taken =
            self.ask(|reply| GroupAsk::Claim { holding, start: At::First, terms, reply }).await?;
        self.holding.round = taken.claimed.round;
        Ok(taken)
    }

    async fn subscribe(&mut self, filter: MessageFilter) -> Result<u64, QueueError> {
        let (sender, pushes) = unbounded_channel();
        let connection = self.holding.member.0 << 8 | self.holding.generation.0;
        let key = SubscriptionKey { connection, id: SubscriptionId(1) };
        let (holding, account) = (self.holding, Account::new(WINDOW, WINDOW));
        let subscriber = Box::new(Wire(sender));
        let listed = self
            .ask(|reply| GroupAsk::Subscribe { key, holding, filter, account, subscriber, reply })
            .await?;
        self.pushes = Some(pushes);
        Ok(listed.offset.0)
    }

    /// Claims and subscribes.
    async fn begin(&mut self) -> u64 {
        self.claim().await.unwrap();
        self.subscribe(MessageFilter::All).await.unwrap()
    }

    async fn push(&mut self) -> Push {
        self.pushes.as_mut().unwrap().recv().await.unwrap()
    }

    /// The next messages, until there are so many.
    async fn next(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.push().await {
                Push::Batches(fetched, marks) => {
                    let some = messages(&fetched, &marks);
                    assert!(!some.is_empty(), "a push holds something for its member");
                    all.extend(some);
                }
                other => panic!("{other:?}"),
            }
        }
        all
    }

    async fn end(&mut self) -> ErrorCode {
        loop {
            match self.push().await {
                Push::End(error) => return error.code,
                Push::Batches(..) => {}
                Push::Gone => panic!("not ended by itself"),
            }
        }
    }

    async fn answer(
        &self,
        acks: &[(u64, u64)],
        failed: &[u64],
        dead: &[u64],
    ) -> Result<Settled, QueueError> {
        let span = |(from, to): &(u64, u64)| Span { from: Offset(*from), to: Offset(*to) };
        let failed = failed.iter().map(|offset| Failed {
            offset: Offset(*offset),
            retry_after_ms: None,
            reason: "no luck".into(),
        });
        let given_up =
            dead.iter().map(|offset| GivenUp { offset: Offset(*offset), reason: "bad".into() });
        let answered = Answered {
            holding: self.holding,
            acks: acks.iter().map(span).collect(),
            failed: failed.collect(),
            given_up: given_up.collect(),
            hands_back: None,
        };
        self.ask(|reply| GroupAsk::Settle { answered, reply }).await
    }

    async fn status(&self) -> ProgressStatus {
        self.ask(|reply| GroupAsk::Status { group: GROUP, reply }).await.unwrap().unwrap()
    }
}

fn offsets(messages: &[Message]) -> Vec<(u64, u32)> {
    messages.iter().map(|(at, before, _)| (*at, *before)).collect()
}

fn letters_topic() -> TopicConfig {
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
async fn letters<D: Disk>(bench: &Bench<D>) -> Vec<(u64, u32, String, Bytes)> {
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
