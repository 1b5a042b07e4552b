//! A consumer against brokers, a coordinator and a program that do as they please.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::message::{
    AssignedQueue, ClaimQueueReply, GroupDeliver, GroupHeartbeatReply, GroupSettings,
    GroupSubscription, JoinGroupReply, MessageFilter, OffsetRange,
};
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorCode, ErrorReply, Generation, GroupId, MemberId, MessageId,
    NewRecord, Offset, QueueId, RecordBatch, Term, TimestampMs, TopicId, TopicName,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::membership::MemberWord;
use super::queue::HandItem;
use super::settling::Verdict;
use super::state::{ConsumerSettings, ConsumerState, QueueAsk, QueueWord, Telling};
use crate::reader::cursor::{Content, Fetched};
use crate::route::{LinkId, Route};

mod steps;
use steps::{Fate, Step, Word, step};

const QUEUES: u32 = 3;
const BATCH: u64 = 3;
const WINDOW: u32 = 8;
const LINK: LinkId = LinkId(0);

fn topic() -> TopicName {
    TopicName::try_from("t").unwrap()
}

fn batch() -> RecordBatch {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for number in 1..=BATCH {
        let id = MessageId::from_bytes([u8::try_from(number).unwrap(); 16]);
        builder.push(&NewRecord::new(id, TimestampMs(1), "x")).unwrap();
    }
    RecordBatch::from_log(builder.finish()).unwrap()
}

/// One queue at its broker.
#[derive(Debug, Default)]
struct BrokerQueue {
    claim: Generation,
    round: u32,
    subscription: Option<u64>,
    credit: i64,
    settled: BTreeSet<u64>,
    /// Sent under the subscription that stands.
    sent: BTreeSet<u64>,
    /// Whose acks were taken: (round, offset).
    acked: BTreeSet<(u32, u64)>,
    /// Likewise, those that failed, too.
    answered: BTreeSet<(u32, u64)>,
}

impl BrokerQueue {
    /// The next batch that holds something to be sent, its offsets.
    fn next(&self) -> Option<(u64, Vec<u64>)> {
        (0..8).map(|number| number * BATCH).find_map(|base| {
            let open: Vec<_> = (base..base + BATCH)
                .filter(|offset| !self.settled.contains(offset) && !self.sent.contains(offset))
                .collect();
            (!open.is_empty()).then_some((base, open))
        })
    }
}

/// A message that the program has.
#[derive(Debug, Clone)]
struct InHand {
    item: HandItem,
    offset: u64,
    round: u32,
}

#[derive(Debug)]
struct World {
    batch: RecordBatch,
    state: ConsumerState<u64>,
    now_ms: u64,
    generation: u64,
    granted: BTreeMap<u32, u64>,
    queues: Vec<BrokerQueue>,
    is_up: bool,
    /// With the queue, the generation and the round that the request names.
    asks: Vec<(QueueAsk, u32, Generation, u32)>,
    hand: Vec<InHand>,
    /// What the program has acked: (queue, round, offset).
    acked_by_program: BTreeSet<(u32, u32, u64)>,
    /// Who waits for the word to arrive, and who was told.
    waiting: BTreeMap<u64, (u32, u32, u64)>,
    next_port: u64,
    member: u64,
    /// What the program answered for: (queue, generation of the claim, round, offset).
    seen: BTreeSet<(u32, Generation, u32, u64)>,
}

impl World {
    fn new() -> Self {
        let settings = ConsumerSettings {
            acks_before: false,
            queue_messages_max: WINDOW,
            bytes_max: 1 << 20,
            revoke_ms_max: 3_000,
            join_ms_max: None,
        };
        let subscription =
            GroupSubscription { topics: (&topic()).into(), filter: MessageFilter::All };
        let mut world = Self {
            batch: batch(),
            state: ConsumerState::new(settings, vec![subscription], 7),
            now_ms: 1,
            generation: 1,
            granted: BTreeMap::new(),
            queues: (0..QUEUES).map(|_| BrokerQueue::default()).collect(),
            is_up: true,
            asks: Vec::new(),
            hand: Vec::new(),
            acked_by_program: BTreeSet::new(),
            waiting: BTreeMap::new(),
            next_port: 0,
            member: 5,
            seen: BTreeSet::new(),
        };
        world.state.link_up(LINK);
        world.settle_down();
        world
    }

    /// Whatever is asked of the coordinator, and for routes, is answered at once; what is asked of
    /// brokers waits.
    fn settle_down(&mut self) {
        for _ in 0..3 {
            while let Some(ask) = self.state.poll_member(self.now_ms) {
                match ask.what {
                    MemberWord::Join => {
                        let reply = JoinGroupReply {
                            group_id: GroupId(9),
                            member: MemberId(self.member),
                            generation: Generation(self.generation),
                            session_ms: 10_000,
                            heartbeat_ms: 3_000,
                            settings: GroupSettings::default(),
                            time: grus_protocol::TimestampMs(0),
                        };
                        self.state.joined(ask.number, reply, self.now_ms);
                    }
                    MemberWord::Heartbeat { known, holding, .. } => {
                        // A queue that was taken away and is held no more is free for another.
                        let is_new = known.0 < self.generation;
                        let assigned = self.granted.iter().map(|(queue, generation)| {
                            let (topic_id, queue) = (TopicId(1), QueueId(*queue));
                            let generation = Generation(*generation);
                            AssignedQueue { topic: topic(), topic_id, queue, generation }
                        });
                        let generation = Generation(self.generation);
                        let assigned = is_new.then(|| assigned.collect());
                        let (settings, divide) = (None, None);
                        let reply = GroupHeartbeatReply { generation, assigned, settings, divide };
                        assert!(holding.len() <= QUEUES as usize);
                        self.state.heard(ask.number, reply, self.now_ms);
                        if !is_new {
                            break;
                        }
                    }
                    MemberWord::Leave { .. } => self.state.left(ask.number, self.now_ms),
                    MemberWord::Assign { .. } => panic!("it was asked for no division"),
                }
            }
            while let Some(topic) = self.state.poll_route(self.now_ms) {
                let links = vec![Some(LINK); QUEUES as usize].into();
                let route = Route { topic_id: TopicId(1), links };
                self.state.route(&topic, Ok(route), self.now_ms);
            }
            while let Some(ask) = self.state.poll_ask(self.now_ms) {
                assert!(self.is_up, "asked over a connection that is down");
                let owned = self.state.queue(ask.slot).expect("it is its own");
                let (queue, round) = (owned.place.queue.0, owned.round);
                self.asks.push((ask, queue, owned.generation, round));
            }
            while let Some(telling) = self.state.poll_tell() {
                self.tell(telling);
            }
        }
    }

    fn tell(&mut self, telling: Telling) {
        match telling {
            Telling::Credit { number, credit, .. } => {
                let of = |queue: &&mut BrokerQueue| queue.subscription == Some(number);
                if let Some(queue) = self.queues.iter_mut().find(of) {
                    queue.credit += i64::from(credit.0);
                }
            }
            Telling::Leave { number, .. } => {
                for queue in &mut self.queues {
                    queue.subscription.take_if(|standing| *standing == number);
                }
                // What was sent before is carried out before: it has no effect any more.
                let is_its = |ask: &QueueAsk| matches!(ask.what, QueueWord::Subscribe { .. });
                self.asks.retain(|(ask, ..)| ask.number != number || !is_its(ask));
            }
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Assign(bits) => self.assign(*bits),
            Step::Answer(at, fate) => {
                if !self.asks.is_empty() {
                    let ask = self.asks.remove(at.index(self.asks.len()));
                    self.answer(&ask, *fate);
                }
            }
            Step::Send(queue) => self.send(*queue),
            Step::Break => self.turn(!self.is_up),
            Step::Take => self.take(),
            Step::Settle(at, word) => {
                if !self.hand.is_empty() {
                    let held = self.hand.remove(at.index(self.hand.len()));
                    self.settle(&held, *word);
                }
            }
            Step::Reset(queue) => self.reset(*queue),
            Step::Wait(wait_ms) => {
                self.now_ms += wait_ms;
                self.state.tick(self.now_ms);
            }
        }
        self.settle_down();
    }

    fn assign(&mut self, bits: u8) {
        self.generation += 1;
        for queue in 0..QUEUES {
            if bits & (1 << queue) == 0 {
                self.granted.remove(&queue);
            } else {
                self.granted.entry(queue).or_insert(self.generation);
            }
        }
    }

    fn turn(&mut self, up: bool) {
        self.is_up = up;
        self.asks.clear();
        for queue in &mut self.queues {
            queue.subscription = None;
        }
        if up { self.state.link_up(LINK) } else { self.state.link_down(LINK) }
    }

    fn answer(
        &mut self,
        (ask, number, generation, round): &(QueueAsk, u32, Generation, u32),
        fate: Fate,
    ) {
        let (number, generation, round) = (*number, *generation, *round);
        let at = (ask.slot, ask.number);
        let refuse = |code| ErrorReply::new(code, "x").into();
        if matches!(fate, Fate::Busy) {
            return self.state.refused(at, &refuse(ErrorCode::Overloaded), self.now_ms);
        }
        let queue = &mut self.queues[number as usize];
        let is_over = match &ask.what {
            QueueWord::Claim => {
                queue.claim = queue.claim.max(generation);
                (queue.claim != generation).then_some(ErrorCode::Fenced)
            }
            _ if queue.claim != generation => Some(ErrorCode::Fenced),
            _ if queue.round != round => Some(ErrorCode::ProgressReset),
            _ => None,
        };
        if let Some(code) = is_over {
            return self.state.refused(at, &refuse(code), self.now_ms);
        }
        match &ask.what {
            QueueWord::Claim => {}
            QueueWord::Subscribe { credit } => {
                queue.subscription = Some(ask.number);
                queue.credit = i64::from(credit.0);
                queue.sent.clear();
            }
            QueueWord::Ack(told) => {
                for offset in told.acks.ranges().flat_map(|range| range.numbers()) {
                    assert!(
                        self.acked_by_program.contains(&(number, round, offset)),
                        "offset {offset} of queue {number} was acked for the program"
                    );
                    queue.settled.insert(offset);
                    queue.acked.insert((round, offset));
                }
                queue.answered.extend(told.nacks.iter().map(|nack| (round, nack.offset.0)));
                queue.answered.extend(queue.acked.iter());
                for nack in told.nacks.iter().filter(|_| !matches!(fate, Fate::Full)) {
                    queue.sent.remove(&nack.offset.0); // due again at once
                }
                if let Some(back) = &told.hands_back {
                    let from = (number, generation, round, back.unseen_from.0);
                    let mut seen = self.seen.range(from..(number, generation, round, u64::MAX));
                    let is_known = |offset| queue.answered.contains(&(round, offset));
                    assert!(seen.all(|(.., offset)| is_known(*offset)), "it was handed out");
                    queue.subscription = None;
                }
            }
        }
        if matches!(fate, Fate::Unknown) {
            return self.state.refused(at, &refuse(ErrorCode::OutcomeUnknown), self.now_ms);
        }
        let round = queue.round;
        match &ask.what {
            QueueWord::Claim => {
                let (floor, log_start, end_offset) = (Offset(0), Offset(0), Offset(24));
                let reply = ClaimQueueReply { floor, log_start, end_offset, round, retries: 0 };
                self.state.claimed(at, &reply);
            }
            QueueWord::Subscribe { .. } => self.state.subscribed(at, Offset(0)),
            QueueWord::Ack(told) => {
                let left = told.nacks.iter().filter(|_| matches!(fate, Fate::Full));
                let left: Vec<_> = left.map(|nack| OffsetRange::one(nack.offset)).collect();
                for port in self.state.acked(at, &left, self.now_ms) {
                    let (queue, round, offset) = self.waiting.remove(&port).expect("it waits");
                    let known = &self.queues[queue as usize].acked;
                    assert!(known.contains(&(round, offset)), "told before the broker knew");
                }
            }
        }
    }

    fn send(&mut self, number: u32) {
        let queue = &mut self.queues[number as usize];
        let Some(subscription) = queue.subscription else { return };
        let Some((base, open)) = queue.next().filter(|_| queue.credit > 0) else { return };
        queue.credit -= i64::try_from(BATCH).unwrap();
        queue.sent.extend(&open);
        let skipped = (base..base + BATCH).filter(|offset| !open.contains(offset));
        let push = GroupDeliver {
            queue: QueueId(number),
            log_start: Offset(0),
            end_offset: Offset(24),
            batches: Vec::new(),
            skipped: skipped.map(|offset| OffsetRange::one(Offset(offset))).collect(),
            redelivered: Vec::new(),
        };
        let (term, stored, content) = (Term(1), TimestampMs(1), Content::Batch(self.batch.clone()));
        let fetched = Fetched { base_offset: Offset(base), term, stored, content };
        self.state.delivered(subscription, &push, vec![fetched], self.now_ms);
        let live = self.queues[number as usize].subscription;
        assert_eq!(live, Some(subscription), "the push was within its credit");
    }

    fn take(&mut self) {
        let is_safe = self.now_ms < self.state.safe_until_ms();
        for item in self.state.take(self.now_ms) {
            assert!(is_safe, "handed out beyond the lease");
            let round = self.state.queue(item.slot).expect("it is its own").round;
            let offsets: Vec<_> = item.wanted.iter().flat_map(OffsetRange::numbers).collect();
            for offset in offsets {
                let twice = self.hand.iter().any(|held| {
                    held.offset == offset
                        && held.item.queue == item.queue
                        && !held.item.claim.is_over()
                });
                assert!(!twice, "offset {offset} of queue {} is in hand", item.queue);
                self.hand.push(InHand { item: item.clone(), offset, round });
            }
        }
    }

    fn settle(&mut self, held: &InHand, word: Word) {
        let (slot, at) = (held.item.slot, (held.item.number, Offset(held.offset)));
        let acked = (held.item.queue.0, held.round, held.offset);
        let nack = || Verdict::Nack { retry_after_ms: None, reason: "x".into() };
        let (verdict, port) = match word {
            _ if held.item.claim.is_over() => (Verdict::Unhandled, None),
            Word::Nack => (nack(), None),
            Word::Ack => (Verdict::Ack, None),
            Word::AckAndWait => {
                self.next_port += 1;
                self.waiting.insert(self.next_port, acked);
                (Verdict::Ack, Some(self.next_port))
            }
        };
        if verdict == Verdict::Ack {
            self.acked_by_program.insert(acked);
        }
        if let Some(owned) = self.state.queue(slot).filter(|_| verdict != Verdict::Unhandled) {
            let (queue, generation) = (held.item.queue.0, owned.generation);
            self.seen.insert((queue, generation, held.round, held.offset));
        }
        self.state.settle(slot, at, verdict, port, self.now_ms);
    }

    fn reset(&mut self, number: u32) {
        let queue = &mut self.queues[number as usize];
        queue.round += 1;
        queue.settled.clear();
        if let Some(subscription) = queue.subscription.take() {
            let reset = ErrorReply::new(ErrorCode::ProgressReset, "x").into();
            self.state.ended(subscription, &reset, self.now_ms);
        }
    }

    /// Everything works from now on, and the program acks all that it is given: in the end all is
    /// settled in the queues that are the consumer's, and nothing is held of others.
    fn comes_to_rest(&mut self) {
        if !self.is_up {
            self.turn(true);
        }
        for _ in 0..30 {
            self.run(&Step::Wait(500));
            while !self.asks.is_empty() {
                let ask = self.asks.remove(0);
                self.answer(&ask, Fate::Done);
                self.settle_down();
            }
            for queue in 0..QUEUES {
                for _ in 0..2 {
                    self.send(queue);
                    self.take();
                    while let Some(held) = self.hand.pop() {
                        self.settle(&held, Word::Ack);
                    }
                    self.settle_down();
                }
            }
        }
        for (number, queue) in self.queues.iter().enumerate() {
            let number = u32::try_from(number).unwrap();
            if self.granted.contains_key(&number) {
                let all = u64::try_from(queue.settled.len()).unwrap();
                assert_eq!(all, 8 * BATCH, "queue {number} is not settled: {queue:?}");
            } else {
                assert_eq!(queue.subscription, None, "queue {number} is another's");
            }
        }
        for owned in self.state.queues.values() {
            assert!(self.granted.contains_key(&owned.place.queue.0), "it let go of the others");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_it_says_what_the_program_said_and_gets_there(
        steps in vec(step(), 0..100),
    ) {
        let mut world = World::new();
        world.run(&Step::Assign(0b101));
        for step in &steps {
            world.run(step);
        }
        world.comes_to_rest();
    }
}
