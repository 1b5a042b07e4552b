//! A lane against a modelled broker: connections that break with bytes under way, answers that
//! are lost, refusals, timeouts, restarts of time. What must hold is asserted at every step.

use std::collections::{HashMap, VecDeque};

use grus_protocol::{
    Durability, ErrorCode, ErrorReply, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs,
};
use proptest::prelude::*;

use super::lane::{Batch, Divided, Identity, Lane, LaneSettings};
use super::outcome::{Outcome, Stored};
use crate::error::{Refusal, SendError};

type BatchId = usize;

#[derive(Debug, Clone, Copy)]
struct Request {
    token: (u64, u64),
    identity: Identity,
    first_sequence: Sequence,
    batch: BatchId,
}

#[derive(Debug, Clone)]
enum Reply {
    Stored((u64, u64), Stored),
    Refused((u64, u64), ErrorCode),
}

/// What the broker does to the next request beside its duty.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Good,
    Overloaded,
    /// It answers with a timeout, and has or has not stored the batch.
    Unsure {
        stores: bool,
    },
    /// It reads what is left of a connection that is gone.
    Deaf,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Push { records: u32, is_bad: bool },
    Send { most: usize, refused: bool },
    Process { most: usize, mood: Mood },
    ProcessStray { most: usize },
    Deliver { most: usize },
    Disconnect,
    Connect,
    Identity,
    Wait { ms: u64 },
    Forget,
}

#[derive(Debug, Default)]
struct Known {
    expected: u64,
    last_five: VecDeque<(u64, BatchId, usize)>,
}

#[derive(Debug, Default)]
struct Broker {
    log: Vec<BatchId>,
    known: HashMap<ProducerId, Known>,
}

impl Broker {
    fn take(&mut self, request: Request, batches: &[(u32, bool)], mood: Mood) -> Reply {
        let (records, is_bad) = batches[request.batch];
        let refuse = |code| Reply::Refused(request.token, code);
        if is_bad {
            return refuse(ErrorCode::InvalidRecord);
        }
        if mood == Mood::Overloaded {
            return refuse(ErrorCode::Overloaded);
        }
        if mood == (Mood::Unsure { stores: false }) {
            return refuse(ErrorCode::Timeout);
        }
        let known = self.known.entry(request.identity.producer).or_default();
        let first = request.first_sequence.0;
        if first > known.expected {
            return refuse(ErrorCode::OutOfSequence);
        }
        if first == known.expected {
            self.log.push(request.batch);
            known.expected += u64::from(records);
            known.last_five.push_back((first, request.batch, self.log.len() - 1));
            known.last_five.drain(..known.last_five.len().saturating_sub(5));
        }
        let Some(&(_, held, place)) = known.last_five.iter().find(|(had, ..)| *had == first) else {
            assert_eq!(mood, Mood::Deaf, "more were in flight than the broker remembers");
            return refuse(ErrorCode::DuplicateForgotten);
        };
        assert_eq!(held, request.batch, "a sequence was used for two batches");
        if mood == (Mood::Unsure { stores: true }) {
            return refuse(ErrorCode::Timeout);
        }
        let stored = Stored {
            base_offset: Offset(place as u64),
            at: TimestampMs(0),
            durability: Durability::Persisted,
            duplicate: false,
            timer: None,
            delays_from: None,
        };
        Reply::Stored(request.token, stored)
    }
}

struct World {
    lane: Lane<BatchId, BatchId>,
    batches: Vec<(u32, bool)>,
    outcomes: HashMap<BatchId, Result<Stored, SendError>>,
    broker: Broker,
    pipe: VecDeque<Request>,
    stray: VecDeque<Request>,
    replies: VecDeque<Reply>,
    is_up: bool,
    identities: u64,
    now_ms: u64,
}

const SETTINGS: LaneSettings = LaneSettings {
    send_timeout_ms: 300,
    retries: 2,
    in_flight_batches_max: 5,
    backoff_ms: (5, 50),
};

impl World {
    fn new(seed: u64) -> Self {
        Self {
            lane: Lane::new(SETTINGS, seed, 0),
            batches: Vec::new(),
            outcomes: HashMap::new(),
            broker: Broker::default(),
            pipe: VecDeque::new(),
            stray: VecDeque::new(),
            replies: VecDeque::new(),
            is_up: false,
            identities: 0,
            now_ms: 0,
        }
    }

    fn hear(&mut self, outcomes: Vec<Outcome<BatchId>>) {
        for Outcome { members, result } in outcomes {
            if let Ok(stored) = &result {
                let at = usize::try_from(stored.base_offset.0).unwrap();
                assert_eq!(self.broker.log[at], members, "somebody else's receipt");
            }
            let before = self.outcomes.insert(members, result);
            assert!(before.is_none(), "batch {members} was answered twice");
        }
    }

    fn send(&mut self, most: usize, refused: bool) {
        for _ in 0..most {
            let Some(order) = self.lane.poll_send(self.now_ms) else { return };
            assert!(self.is_up, "sent into a connection that is down");
            let request = Request {
                token: (order.serial, order.attempt),
                identity: order.identity,
                first_sequence: order.first_sequence,
                batch: *order.payload,
            };
            if refused {
                return self.lane.not_sent(request.token.0, self.now_ms, 3);
            }
            self.pipe.push_back(request);
        }
    }

    fn process(&mut self, most: usize, mood: Mood) {
        for _ in 0..most {
            let Some(request) = self.pipe.pop_front() else { return };
            let reply = self.broker.take(request, &self.batches, mood);
            self.replies.push_back(reply);
        }
    }

    fn deliver(&mut self, most: usize) {
        let mut out = Vec::new();
        for _ in 0..most {
            match self.replies.pop_front() {
                Some(Reply::Stored((serial, _), stored)) => {
                    self.lane.stored(serial, stored, &mut out);
                }
                Some(Reply::Refused(token, code)) => {
                    let refusal = Refusal::from(ErrorReply::new(code, ""));
                    self.lane.refused(
                        token,
                        refusal,
                        self.now_ms,
                        |batch, _| Divided::whole(batch),
                        &mut out,
                    );
                }
                None => break,
            }
        }
        self.hear(out);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push { records, is_bad } => {
                let id = self.batches.len();
                self.batches.push((records, is_bad));
                let deadline_ms = self.now_ms + 3 * SETTINGS.send_timeout_ms;
                let bytes = 100 + id as u64;
                self.lane.push(Batch { payload: id, members: id, records, bytes, deadline_ms });
            }
            Step::Send { most, refused } => self.send(most, refused),
            Step::Process { most, mood } => self.process(most, mood),
            Step::ProcessStray { most } => {
                for request in self.stray.drain(..most.min(self.stray.len())) {
                    self.broker.take(request, &self.batches, Mood::Deaf);
                }
            }
            Step::Deliver { most } => self.deliver(most),
            Step::Disconnect if self.is_up => {
                self.is_up = false;
                self.stray.extend(self.pipe.drain(..));
                self.replies.clear();
                self.lane.link_down();
            }
            Step::Connect if !self.is_up => {
                self.is_up = true;
                self.lane.link_up();
            }
            Step::Disconnect | Step::Connect => {}
            Step::Identity => {
                if self.lane.wants_identity() {
                    self.identities += 1;
                    let producer = ProducerId(self.identities);
                    self.lane.give_identity(Identity { producer, epoch: ProducerEpoch(0) });
                }
            }
            Step::Wait { ms } => {
                self.now_ms += ms;
                let mut out = Vec::new();
                self.lane.expire(self.now_ms, &mut out);
                self.hear(out);
            }
            Step::Forget => {
                if self.lane.is_idle() && self.pipe.is_empty() && self.stray.is_empty() {
                    self.broker.known.clear();
                }
            }
        }
    }

    /// The safety that must hold at the end, when every byte under way has been dealt with.
    fn check(&self) {
        let mut seen = vec![0; self.batches.len()];
        self.broker.log.iter().for_each(|batch| seen[*batch] += 1);
        for (batch, count) in seen.iter().enumerate() {
            assert!(*count <= 1, "batch {batch} is stored {count} times");
            let outcome = self.outcomes.get(&batch);
            let Some(outcome) = outcome else { panic!("batch {batch} was never answered") };
            match outcome {
                Ok(_) => assert_eq!(*count, 1, "batch {batch} has a receipt and is not there"),
                Err(error) if error.maybe_stored() => {}
                Err(error) => assert_eq!(*count, 0, "batch {batch} is there after {error}"),
            }
        }
        let acked: Vec<_> =
            self.broker.log.iter().filter(|batch| self.outcomes[batch].is_ok()).collect();
        assert!(acked.is_sorted(), "the order of what was acknowledged: {acked:?}");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        6 => Just(Mood::Good),
        2 => Just(Mood::Overloaded),
        1 => any::<bool>().prop_map(|stores| Mood::Unsure { stores }),
    ];
    prop_oneof![
        6 => (1_u32..4, prop::bool::weighted(0.1))
            .prop_map(|(records, is_bad)| Step::Push { records, is_bad }),
        8 => (1_usize..7, prop::bool::weighted(0.1))
            .prop_map(|(most, refused)| Step::Send { most, refused }),
        8 => (1_usize..4, mood).prop_map(|(most, mood)| Step::Process { most, mood }),
        2 => (1_usize..4).prop_map(|most| Step::ProcessStray { most }),
        8 => (1_usize..4).prop_map(|most| Step::Deliver { most }),
        2 => Just(Step::Disconnect),
        4 => Just(Step::Connect),
        4 => Just(Step::Identity),
        4 => (1_u64..400).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Forget),
    ]
}

/// From here on nothing goes wrong any more.
fn calm(world: &mut World) {
    world.step(Step::Connect);
    for _ in 0..1_000 {
        world.step(Step::Identity);
        world.step(Step::Send { most: 10, refused: false });
        world.step(Step::Process { most: 10, mood: Mood::Good });
        world.step(Step::Deliver { most: 10 });
        world.step(Step::Wait { ms: 1 });
        if world.lane.is_idle() && world.pipe.is_empty() && world.replies.is_empty() {
            assert_eq!(world.lane.backlog_bytes(), 0, "nothing waits");
            return;
        }
    }
    panic!("the lane is stuck: {:?}", world.lane);
}

/// Twice the usual number of cases; `PROPTEST_CASES` scales it.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases * 2, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        steps in prop::collection::vec(step(), 1..120),
        seed: u64,
    ) {
        let mut world = World::new(seed);
        for one in steps {
            world.step(one);
        }
        calm(&mut world);
        let last = world.batches.len();
        world.step(Step::Push { records: 2, is_bad: false });
        calm(&mut world);
        prop_assert!(world.outcomes[&last].is_ok(), "{:?}", world.outcomes[&last]);
        world.step(Step::ProcessStray { most: usize::MAX });
        world.check();
    }
}
