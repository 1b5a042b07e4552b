//! A whole producer against a modelled broker of several queues: real batches, checked byte for
//! byte as a broker checks them, and each caller's receipt compared with what is stored.

use std::collections::{HashMap, HashSet, VecDeque};

use grus_protocol::{
    BatchBuilder, BatchLimits, BrokerId, Durability, ErrorCode, ErrorDetail, ErrorReply, MessageId,
    NewRecord, Offset, ProducerEpoch, ProducerId, QueueId, RecordBatch, TimestampMs, TopicId,
};
use proptest::prelude::*;

use super::choice::Pick;
use super::lane::Identity;
use super::outcome::Stored;
use super::parts::{Ids, Load, Need, Sending};
use super::state::ProducerState;
use crate::config::ProducerConfig;
use crate::error::{Refusal, SendError};
use crate::guard::Guard;
use crate::route::{LinkId, Route};

const QUEUES: u32 = 3;
const LINKS: [LinkId; 2] = [LinkId(0), LinkId(1)];

#[derive(Debug, Clone, Copy)]
enum Step {
    Message {
        pick: Pick,
    },
    Batch {
        pick: Pick,
        messages: u32,
    },
    Send {
        has_room: bool,
    },
    Process {
        code: Option<ErrorCode>,
    },
    Deliver,
    Route,
    Identity {
        works: bool,
    },
    Up(usize),
    Down(usize),
    Wait {
        ms: u64,
    },
    Flush,
    /// Each queue is led by the other broker.
    FailOver,
}

/// Epochs that a life of a name has: few, so that all of them are used up.
const EPOCHS: u32 = 4;

#[derive(Debug, Default)]
struct Queue {
    stored: Vec<MessageId>,
    known: HashMap<ProducerId, Window>,
}

/// The newest epoch, the sequence that comes next, and the last five batches.
#[derive(Debug, Default)]
struct Window {
    epoch: ProducerEpoch,
    expected: u64,
    last_five: VecDeque<(u64, u64)>,
}

impl Queue {
    fn take(&mut self, batch: &RecordBatch) -> Result<u64, ErrorCode> {
        let window = self.known.entry(batch.producer_id()).or_default();
        if batch.producer_epoch() < window.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        let first = batch.first_sequence().0;
        if batch.producer_epoch() > window.epoch {
            if first > 0 {
                return Err(ErrorCode::OutOfSequence);
            }
            *window = Window { epoch: batch.producer_epoch(), ..Window::default() };
        }
        let Window { expected, last_five, .. } = window;
        if first == *expected {
            last_five.push_back((first, self.stored.len() as u64));
            last_five.drain(..last_five.len().saturating_sub(5));
            *expected += u64::from(batch.count());
            self.stored.extend(batch.views().map(|record| record.unwrap().id()));
        } else if first > *expected {
            return Err(ErrorCode::OutOfSequence);
        }
        let found = last_five.iter().find(|(had, _)| *had == first);
        found.map(|(_, offset)| *offset).ok_or(ErrorCode::DuplicateForgotten)
    }
}

type Answer = (QueueId, u64, u64, Result<u64, ErrorCode>);

struct World {
    state: ProducerState<usize, u32>,
    queues: Vec<Queue>,
    pipes: [VecDeque<Sending>; 2],
    answers: [VecDeque<Answer>; 2],
    is_up: [bool; 2],
    sent: Vec<Ids>,
    heard: HashMap<usize, Result<(QueueId, u64), SendError>>,
    flushes: u32,
    flushed: Vec<(u32, u64)>,
    messages: u128,
    identities: u64,
    /// Whether its name is known to all brokers, which it tells of its life.
    is_named: bool,
    /// Which of both brokers leads the first queue.
    first_leader: usize,
    has_route: bool,
    now_ms: u64,
}

impl World {
    fn new(seed: u64, is_named: bool) -> Self {
        let mut config = ProducerConfig::new("t").unwrap();
        config.name = is_named.then(|| "billing".try_into().unwrap());
        config.send_timeout = std::time::Duration::from_millis(300);
        config.batch_bytes_max = 1024;
        Self {
            state: ProducerState::new(&config, BatchLimits::PRODUCE, seed, &Guard::default(), 0),
            queues: (0..QUEUES).map(|_| Queue::default()).collect(),
            pipes: Default::default(),
            answers: Default::default(),
            is_up: [false; 2],
            sent: Vec::new(),
            heard: HashMap::new(),
            flushes: 0,
            flushed: Vec::new(),
            messages: 0,
            identities: 0,
            is_named,
            first_leader: 0,
            has_route: false,
            now_ms: 0,
        }
    }

    fn record(&mut self) -> NewRecord {
        self.messages += 1;
        let id = MessageId(uuid::Uuid::from_u128(self.messages));
        NewRecord::new(id, TimestampMs(5), vec![7; 90])
    }

    fn send(&mut self, has_room: bool) {
        while let Some(sending) = self.state.poll_send(self.now_ms) {
            let link = sending.link.0 as usize;
            assert!(self.is_up[link], "sent over a connection that is down");
            if !has_room {
                self.state.not_sent(sending.queue, sending.serial, self.now_ms);
                continue;
            }
            self.pipes[link].push_back(sending);
        }
    }

    fn process(&mut self, refuse: Option<ErrorCode>) {
        for (pipe, answers) in self.pipes.iter_mut().zip(&mut self.answers) {
            let Some(sending) = pipe.pop_front() else { continue };
            let batch = RecordBatch::check(sending.bytes, &BatchLimits::PRODUCE).unwrap();
            assert_ne!(batch.producer_id(), ProducerId::NONE);
            let result = match refuse {
                Some(code) => Err(code),
                None => self.queues[sending.queue.0 as usize].take(&batch),
            };
            answers.push_back((sending.queue, sending.serial, sending.attempt, result));
        }
    }

    fn deliver(&mut self) {
        for answers in &mut self.answers {
            let Some((queue, serial, attempt, result)) = answers.pop_front() else { continue };
            match result {
                Ok(offset) => {
                    let stored = Stored {
                        base_offset: Offset(offset),
                        at: TimestampMs(0),
                        durability: Durability::Persisted,
                        duplicate: false,
                        timer: None,
                        delays_from: None,
                    };
                    self.state.stored(queue, serial, stored);
                }
                Err(code) => {
                    let mut reply = ErrorReply::new(code, "");
                    if code == ErrorCode::InvalidRecord && !serial.is_multiple_of(3) {
                        let record_index = u32::try_from(serial % 5).unwrap();
                        reply = reply.with_detail(ErrorDetail::Record { record_index });
                    }
                    let refusal = Refusal::from(reply);
                    self.state.refused(queue, (serial, attempt), refusal, self.now_ms);
                }
            }
        }
    }

    fn answer_needs(&mut self, route: bool, identity: Option<bool>) {
        while let Some(need) = self.state.poll_need(self.now_ms) {
            match need {
                Need::Route if route => {
                    self.has_route = true;
                    self.tell_route();
                }
                Need::Identity { source, .. } if identity == Some(true) && self.is_named => {
                    let life = u32::try_from(self.identities).unwrap() * EPOCHS;
                    if source.is_none() {
                        self.identities += 1;
                    }
                    let identity = Identity { producer: ProducerId(1), epoch: ProducerEpoch(life) };
                    self.state.identity(source, Ok((identity, EPOCHS)), self.now_ms);
                }
                Need::Identity { source, .. } if identity == Some(true) => {
                    self.identities += 1;
                    let producer = ProducerId(self.identities);
                    let identity = Identity { producer, epoch: ProducerEpoch(0) };
                    self.state.identity(source, Ok((identity, 0)), self.now_ms);
                }
                need => {
                    let refusal = Refusal::from(ErrorReply::new(ErrorCode::Unavailable, ""));
                    match need {
                        Need::Route => self.state.route(Err(refusal), self.now_ms),
                        Need::Identity { source, .. } => {
                            self.state.identity(source, Err(refusal), self.now_ms);
                        }
                    }
                }
            }
        }
    }

    fn tell_route(&mut self) {
        let led_by = |queue: u32| Some(LINKS[(queue as usize + self.first_leader) % 2]);
        let links = (0..QUEUES).map(led_by).collect();
        self.state.route(Ok(Route { topic_id: TopicId(1), links }), self.now_ms);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::FailOver => {
                self.step(Step::Down(0));
                self.step(Step::Down(1));
                self.first_leader = 1 - self.first_leader;
                if self.has_route {
                    self.tell_route();
                }
            }
            Step::Message { pick } => {
                let record = self.record();
                self.sent.push(Ids::One(record.id));
                let port = self.sent.len() - 1;
                let ids = self.sent[port].clone();
                self.state.take(pick, Load::One(record), ids, port, self.now_ms);
            }
            Step::Batch { pick, messages } => {
                let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
                let mut ids = Vec::new();
                for _ in 0..messages {
                    let record = self.record();
                    builder.push(&record).unwrap();
                    ids.push(record.id);
                }
                self.sent.push(Ids::Many(ids));
                let port = self.sent.len() - 1;
                let ids = self.sent[port].clone();
                self.state.take(pick, Load::Many(builder), ids, port, self.now_ms);
            }
            Step::Send { has_room } => self.send(has_room),
            Step::Process { code } => self.process(code),
            Step::Deliver => self.deliver(),
            Step::Route => self.answer_needs(true, None),
            Step::Identity { works } => self.answer_needs(true, Some(works)),
            Step::Up(link) if !self.is_up[link] => {
                self.is_up[link] = true;
                self.state.leads_to(LINKS[link], BrokerId(link as u64));
                self.state.link_up(LINKS[link]);
            }
            Step::Down(link) if self.is_up[link] => {
                self.is_up[link] = false;
                let strays = if self.now_ms.is_multiple_of(2) { 0 } else { 3 };
                // Bytes under way may still be read by the broker, their answers are lost.
                for sending in self.pipes[link].drain(..).take(strays) {
                    let batch = RecordBatch::check(sending.bytes, &BatchLimits::PRODUCE).unwrap();
                    let _ = self.queues[sending.queue.0 as usize].take(&batch);
                }
                self.answers[link].clear();
                self.state.link_down(LINKS[link]);
            }
            Step::Up(_) | Step::Down(_) => {}
            Step::Wait { ms } => {
                self.now_ms += ms;
                self.state.tick(self.now_ms);
            }
            Step::Flush => {
                self.flushes += 1;
                self.state.flush(self.flushes);
            }
        }
        self.hear();
    }

    fn hear(&mut self) {
        while let Some(ended) = self.state.poll_ended() {
            let mut offset = ended.result.as_ref().map_or(0, |stored| stored.base_offset.0);
            for member in ended.members {
                assert_eq!(member.ids, self.sent[member.port], "another's answer");
                let heard = ended.result.clone().map(|_| (ended.queue, offset));
                offset += match &member.ids {
                    Ids::One(_) => 1,
                    Ids::Many(ids) => ids.len() as u64,
                };
                let before = self.heard.insert(member.port, heard);
                assert!(before.is_none(), "{} was answered twice", member.port);
            }
        }
        while let Some((flush, report)) = self.state.poll_flushed() {
            self.flushed.push((flush, report.stored + report.failed));
        }
    }

    fn calm(&mut self) {
        self.step(Step::Up(0));
        self.step(Step::Up(1));
        for _ in 0..2_000 {
            for step in [
                Step::Identity { works: true },
                Step::Send { has_room: true },
                Step::Process { code: None },
                Step::Deliver,
                Step::Wait { ms: 1 },
            ] {
                self.step(step);
            }
            if self.state.is_idle() && self.answers.iter().all(VecDeque::is_empty) {
                return;
            }
        }
        panic!("the producer is stuck: {:?}", self.state);
    }

    fn check(&self) {
        let mut last = HashMap::new();
        let all: Vec<_> = self.queues.iter().flat_map(|queue| &queue.stored).collect();
        let there: HashSet<_> = all.iter().copied().collect();
        assert_eq!(there.len(), all.len(), "something is stored twice");
        for (port, ids) in self.sent.iter().enumerate() {
            let ids = match ids {
                Ids::One(id) => std::slice::from_ref(id),
                Ids::Many(ids) => ids,
            };
            match &self.heard[&port] {
                Ok((queue, offset)) => {
                    let from = usize::try_from(*offset).unwrap();
                    let stored = &self.queues[queue.0 as usize].stored[from..from + ids.len()];
                    assert_eq!(stored, ids, "the receipt points elsewhere");
                    let before = last.insert(*queue, from);
                    assert!(before.is_none_or(|before| before < from), "out of order");
                }
                Err(error) if error.maybe_stored() => {}
                Err(error) => {
                    assert!(!ids.iter().any(|id| there.contains(id)), "stored after {error}");
                }
            }
        }
        let expected: Vec<_> = (1..=self.flushes).collect();
        let flushed: Vec<_> = self.flushed.iter().map(|(flush, _)| *flush).collect();
        assert_eq!(flushed, expected, "every flush ends, in order");
    }
}

fn pick() -> impl Strategy<Value = Pick> {
    prop_oneof![
        Just(Pick::Any),
        any::<u64>().prop_map(Pick::Key),
        (0..QUEUES + 1).prop_map(|queue| Pick::Given(QueueId(queue))),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let code = prop_oneof![
        5 => Just(None),
        1 => Just(Some(ErrorCode::Overloaded)),
        1 => Just(Some(ErrorCode::NotLeader)),
        1 => Just(Some(ErrorCode::Timeout)),
        1 => Just(Some(ErrorCode::InvalidRecord)),
    ];
    prop_oneof![
        8 => pick().prop_map(|pick| Step::Message { pick }),
        3 => (pick(), 1_u32..20).prop_map(|(pick, messages)| Step::Batch { pick, messages }),
        8 => prop::bool::weighted(0.9).prop_map(|has_room| Step::Send { has_room }),
        8 => code.prop_map(|code| Step::Process { code }),
        8 => Just(Step::Deliver),
        2 => Just(Step::Route),
        4 => any::<bool>().prop_map(|works| Step::Identity { works }),
        4 => (0_usize..2).prop_map(Step::Up),
        2 => (0_usize..2).prop_map(Step::Down),
        4 => (1_u64..400).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Flush),
    ]
}

fn run(steps: Vec<Step>, seed: u64, is_named: bool) -> World {
    let mut world = World::new(seed, is_named);
    for one in steps {
        world.step(one);
    }
    world.calm();
    let last = world.sent.len();
    world.step(Step::Message { pick: Pick::Any });
    world.calm();
    assert!(world.heard[&last].is_ok(), "{:?}", world.heard[&last]);
    world.check();
    let counted: u64 = world.flushed.iter().map(|(_, messages)| messages).sum();
    assert!(u128::from(counted) <= world.messages);
    world
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_caller_is_told_the_truth_once(
        steps in prop::collection::vec(step(), 1..150),
        seed: u64,
    ) {
        run(steps, seed, false);
    }

    /// Also when other brokers come to lead its queues; and it never shuts itself out.
    #[test]
    fn a_named_producer_tells_every_caller_the_truth_once(
        steps in prop::collection::vec(prop_oneof![20 => step(), 1 => Just(Step::FailOver)], 1..150),
        seed: u64,
    ) {
        let world = run(steps, seed, true);
        let is_fenced = |heard: &Result<_, _>| matches!(heard, Err(SendError::Fenced(_)));
        prop_assert!(!world.heard.values().any(is_fenced), "by itself");
    }
}
