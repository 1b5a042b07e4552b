//! Groups in the machine against a model that knows of every single message what has become of it.

mod stories;
mod temporary;

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_log::Part;
use grus_protocol::ids::{
    Generation, GroupId, MemberId, Offset, QueueId, QueueKey, Term, TimestampMs, TopicId,
};
use grus_protocol::names::TopicName;
use proptest::prelude::*;

use super::groups::retries::IN_HANDS;
use super::groups::{Claimed, Settled};
use super::model_tests::{SHARD, batch, config, queue};
use super::{Effect, IndexChange, Machine, Moment, Outcome, Refusal};
use crate::commands::groups::{
    Delivered, GroupItem, HandBack, Holding, Letter, Nack, ProgressKey, RetryTerms, Settle, Span,
};
use crate::commands::{Command, RetainQueue, TopicConfig};

const LETTERS: QueueKey = QueueKey { topic: TopicId(9), queue: QueueId(0) };
const GROUP: GroupId = GroupId(LETTERS.topic.0);

fn place() -> ProgressKey {
    ProgressKey { queue: queue(1, 0), group: GROUP }
}

fn letters_config() -> TopicConfig {
    let name = TopicName::system("DLQ", "billing").unwrap();
    TopicConfig { name, ..config(LETTERS.topic.0, 1) }
}

/// What has become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Waits { due: u64, deliveries: u32 },
    Settled,
}

#[derive(Debug, Default)]
struct Model {
    fates: Vec<Fate>,
    /// Deliveries by earlier holders, while it was open.
    attempts: Vec<u32>,
    start: usize,
    delivered_to: usize,
    holder: (u64, u64),
    round: u32,
    has_progress: bool,
    letters: u64,
    lost: u64,
}

impl Model {
    fn floor(&self) -> usize {
        let first = self.fates.iter().position(|fate| *fate == Fate::Open);
        first.unwrap_or(self.fates.len())
    }

    /// Whether somebody may settle.
    fn is_held(&self) -> bool {
        self.has_progress && self.holder.0 > 0
    }

    fn claim(&mut self, generation: u64, member: u64, now: u64, start: usize) -> bool {
        if !self.has_progress {
            let start = start.clamp(self.start, self.fates.len());
            self.fates[..start].fill(Fate::Settled);
            self.has_progress = true;
        }
        let is_same = self.holder == (generation, member);
        if !is_same && generation <= self.holder.0 {
            return false;
        }
        if !is_same {
            for at in 0..self.fates.len() {
                match &mut self.fates[at] {
                    Fate::Open if at < self.delivered_to => self.attempts[at] += 1,
                    Fate::Waits { due, .. } if *due == IN_HANDS.0 => *due = now,
                    _ => {}
                }
            }
            self.delivered_to = 0;
            self.holder = (generation, member);
        }
        true
    }

    fn deliveries(&self, at: usize) -> u32 {
        self.attempts[at] + u32::from(at < self.delivered_to)
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(u32),
    Claim { generation: u64, member: u64, start: u64 },
    Deliver { to: u64, passed: Option<(u64, u64)>, again: Vec<u64> },
    Ack { from: u64, count: u64 },
    HandBack { from: u64, in_work: (u64, u64) },
    Nack { offset: u64, after: u64 },
    Letter { offset: u64, is_gone: bool },
    Stale { generation: u64, round: u32 },
    Reset { to: u64 },
    Retain { to: u64 },
    Later(u64),
    DropTopic,
    DropGroup,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = || 0_u64..40;
    prop_oneof![
        4 => (1_u32..6).prop_map(Step::Append),
        3 => (1_u64..30, 1_u64..3, offset())
            .prop_map(|(generation, member, start)| Step::Claim { generation, member, start }),
        6 => (offset(), prop::option::of((offset(), 0_u64..5)), prop::collection::vec(offset(), 0..3))
            .prop_map(|(to, passed, again)| Step::Deliver { to, passed, again }),
        8 => (offset(), 0_u64..6).prop_map(|(from, count)| Step::Ack { from, count }),
        2 => (offset(), offset(), 0_u64..9)
            .prop_map(|(from, seen, count)| Step::HandBack { from, in_work: (seen, seen + count) }),
        6 => (offset(), 0_u64..50).prop_map(|(offset, after)| Step::Nack { offset, after }),
        4 => (offset(), any::<bool>()).prop_map(|(offset, is_gone)| Step::Letter { offset, is_gone }),
        1 => (0_u64..30, 0_u32..2).prop_map(|(generation, round)| Step::Stale { generation, round }),
        1 => offset().prop_map(|to| Step::Reset { to }),
        1 => offset().prop_map(|to| Step::Retain { to }),
        2 => (1_u64..40).prop_map(Step::Later),
        1 => Just(Step::DropTopic),
        1 => Just(Step::DropGroup),
        3 => Just(Step::Checkpoint),
    ]
}

struct Pair {
    machine: Machine,
    model: Model,
    moment: Moment,
    saved: BTreeMap<Bytes, Bytes>,
}

impl Pair {
    fn new() -> Self {
        let moment = Moment { term: Term(1), index: 0, time: TimestampMs(1_000), byte: 0 };
        let (machine, model) = (Machine::new(SHARD), Model::default());
        let mut pair = Self { machine, model, moment, saved: BTreeMap::new() };
        pair.apply(Command::TopicConfig(config(1, 1)));
        pair.apply(Command::TopicConfig(letters_config()));
        pair
    }

    fn apply(&mut self, command: Command) -> Effect {
        self.moment.index += 1;
        let effect = self.machine.apply(self.moment, command);
        self.machine.entry_applied(self.moment);
        effect
    }

    fn group(&mut self, item: GroupItem) -> Effect {
        self.apply(Command::Group(item))
    }

    fn holding(&self) -> Holding {
        let (generation, member) = self.model.holder;
        let (generation, member) = (Generation(generation), MemberId(member));
        Holding { place: place(), generation, member, round: self.model.round }
    }

    fn end(&self) -> u64 {
        self.model.fates.len() as u64
    }

    fn settle(&mut self, acks: Vec<Span>, nacks: Vec<Nack>, letters: Vec<Letter>) -> Effect {
        let holding = self.holding();
        let letters_to = LETTERS.queue;
        self.group(GroupItem::Settle(Settle { holding, acks, nacks, letters_to, letters }))
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append(count) => {
                self.apply(Command::Append { queue: queue(1, 0), batch: batch(0, 0, 0, count) });
                let length = self.model.fates.len() + count as usize;
                self.model.fates.resize(length, Fate::Open);
                self.model.attempts.resize(length, 0);
            }
            Step::Claim { generation, member, start } => self.claim(generation, member, start),
            Step::Deliver { to, passed, ref again } => self.deliver(to, passed, again),
            Step::Ack { from, count } => self.ack(from, from + count),
            Step::HandBack { from, in_work } => self.hand_back(from, in_work),
            Step::Nack { offset, after } => self.nack(offset, self.moment.time.0 + after),
            Step::Letter { offset, is_gone } => self.letter(offset, is_gone),
            Step::Stale { generation, round } => self.stale(generation, round),
            Step::Reset { to } => self.reset(to),
            Step::Retain { to } => self.retain(to),
            Step::Later(ms) => self.moment.time.0 += ms,
            Step::DropTopic => {
                self.apply(Command::TopicDrop { topic: TopicId(1) });
                self.model = Model { letters: self.model.letters, ..Model::default() };
                assert_eq!(self.machine.progress_count(), 0);
                self.apply(Command::TopicConfig(config(1, 1)));
            }
            Step::DropGroup => {
                let effect = self.group(GroupItem::Drop { group: GROUP });
                assert_eq!(effect.outcome, Outcome::DropGroup(self.model.has_progress));
                self.model.forget_group();
            }
            Step::Checkpoint => self.checkpoint(),
        }
        self.compare();
    }

    fn claim(&mut self, generation: u64, member: u64, start: u64) {
        let (generation, member) = (Generation(generation), MemberId(member));
        let holding = Holding { place: place(), generation, member, round: 77 };
        let terms = RetryTerms { deliveries_max: 3, ladder_ms: vec![10, 20] };
        let effect = self.group(GroupItem::Claim { holding, start: Offset(start), terms });
        let start = usize::try_from(start).unwrap();
        let now = self.moment.time.0;
        let taken = self.model.claim(generation.0, member.0, now, start);
        let expected = if taken {
            let retries = self.model.waiting();
            let floor = Offset(self.model.floor() as u64);
            Ok(Claimed { floor, round: self.model.round, retries })
        } else {
            Err(Refusal::NotHeld { generation: Generation(self.model.holder.0) })
        };
        assert_eq!(effect.outcome, Outcome::Claim(expected));
    }

    fn deliver(&mut self, to: u64, passed: Option<(u64, u64)>, again: &[u64]) {
        let holding = self.holding();
        let passed: Vec<Span> = passed
            .map(|(from, count)| Span { from: Offset(from), to: Offset((from + count).min(to)) })
            .into_iter()
            .collect();
        let again_offsets = again.iter().map(|offset| Offset(*offset)).collect();
        let delivered =
            Delivered { holding, end: Offset(to), passed: passed.clone(), again: again_offsets };
        let effect = self.group(GroupItem::Delivered(delivered));
        assert_eq!(effect.outcome, Outcome::Delivered(self.model.is_held()));
        if !self.model.is_held() {
            return;
        }
        for offset in again {
            let at = usize::try_from(*offset).unwrap();
            if let Some(Fate::Waits { due, deliveries }) = self.model.fates.get_mut(at) {
                (*due, *deliveries) = (IN_HANDS.0, *deliveries + 1);
            }
        }
        let to = usize::try_from(to.min(self.end())).unwrap();
        self.model.delivered_to = self.model.delivered_to.max(to);
        for Span { from, to } in passed {
            for at in from.0..to.0.min(self.end()) {
                let fate = &mut self.model.fates[usize::try_from(at).unwrap()];
                if *fate == Fate::Open {
                    *fate = Fate::Settled;
                }
            }
        }
    }

    fn ack(&mut self, from: u64, to: u64) {
        let effect = self.settle(vec![Span { from: Offset(from), to: Offset(to) }], vec![], vec![]);
        if self.model.is_held() {
            let to = to.min(self.end());
            for at in from.min(to)..to {
                self.model.fates[usize::try_from(at).unwrap()] = Fate::Settled;
            }
        }
        self.check_settled(&effect, 0);
    }

    fn nack(&mut self, offset: u64, due: u64) {
        let nack = Nack { offset: Offset(offset), due: TimestampMs(due) };
        let effect = self.settle(vec![], vec![nack], vec![]);
        let at = usize::try_from(offset).unwrap();
        if self.model.is_held() && at < self.model.fates.len() {
            let deliveries = match self.model.fates[at] {
                Fate::Open => Some(self.model.deliveries(at).max(1)),
                Fate::Waits { due, .. } if due != IN_HANDS.0 && due > self.moment.time.0 => None,
                Fate::Waits { deliveries, .. } => Some(deliveries),
                Fate::Settled => None,
            };
            if let Some(deliveries) = deliveries {
                self.model.fates[at] = Fate::Waits { due, deliveries };
            }
        }
        self.check_settled(&effect, 0);
    }

    fn letter(&mut self, offset: u64, is_gone: bool) {
        let bytes = if is_gone { Bytes::new() } else { batch(0, 0, 0, 1) };
        let letter = Letter { offset: Offset(offset), batch: bytes };
        let effect = self.settle(vec![], vec![], vec![letter]);
        let at = usize::try_from(offset).unwrap();
        let is_open = self.model.fates.get(at).is_some_and(|fate| *fate != Fate::Settled);
        let counts = self.model.is_held() && is_open;
        if counts {
            self.model.fates[at] = Fate::Settled;
            self.model.letters += u64::from(!is_gone);
            self.model.lost += u64::from(is_gone);
        }
        let stored = counts && !is_gone;
        assert_eq!(matches!(effect.index, Some(IndexChange::Released { .. })), stored);
        self.check_settled(&effect, u32::from(stored));
    }

    fn check_settled(&self, effect: &Effect, dead: u32) {
        let floor = Offset(self.model.floor() as u64);
        let retries = self.model.waiting();
        let expected = if self.model.is_held() {
            Ok(Settled { floor, retries, left: 0, dead })
        } else {
            Err(Refusal::NotHeld { generation: Generation(0) })
        };
        assert_eq!(effect.outcome, Outcome::Settle(expected));
    }

    /// One that does not hold the queue settles nothing.
    fn stale(&mut self, generation: u64, round: u32) {
        let mut holding = self.holding();
        if (generation, round) == (holding.generation.0, holding.round) {
            return;
        }
        holding.generation = Generation(generation);
        holding.round = round;
        let acks = vec![Span { from: Offset(0), to: Offset(u64::MAX) }];
        let settle =
            Settle { holding, acks, nacks: vec![], letters_to: QueueId(0), letters: vec![] };
        let effect = self.group(GroupItem::Settle(settle));
        let refusal = if generation == self.model.holder.0 && self.model.is_held() {
            Refusal::ProgressReset { round: self.model.round }
        } else {
            Refusal::NotHeld { generation: Generation(self.model.holder.0) }
        };
        assert_eq!(effect.outcome, Outcome::Settle(Err(refusal)));
    }

    fn reset(&mut self, to: u64) {
        let effect = self.group(GroupItem::Reset { place: place(), to: Offset(to) });
        let Outcome::Reset(Ok(moved)) = effect.outcome else { panic!("{:?}", effect.outcome) };
        let model = &mut self.model;
        let floor = usize::try_from(to).unwrap().clamp(model.start, model.fates.len());
        assert_eq!(moved.floor, Offset(floor as u64));
        model.fates[..floor].fill(Fate::Settled);
        model.fates[floor..].fill(Fate::Open);
        model.attempts.fill(0);
        model.delivered_to = 0;
        model.has_progress = true;
        model.round += 1;
        assert_eq!(moved.round, model.round);
    }

    fn retain(&mut self, to: u64) {
        let to = to.min(self.end());
        let retain = RetainQueue { queue: queue(1, 0), start: Offset(to), bytes_given_up: 0 };
        self.apply(Command::Retain(vec![retain]));
        let model = &mut self.model;
        let to = usize::try_from(to).unwrap();
        model.start = model.start.max(to);
        if model.has_progress {
            let open = model.fates[..to].iter().filter(|fate| **fate != Fate::Settled);
            model.lost += open.count() as u64;
            model.fates[..to].fill(Fate::Settled);
        }
    }

    fn checkpoint(&mut self) {
        let before = self.machine.digest();
        for Part { key, value } in self.machine.dirty_parts() {
            match value {
                Some(value) => drop(self.saved.insert(key, value)),
                None => drop(self.saved.remove(&key)),
            }
        }
        assert_eq!(self.machine.digest(), before);
        let all = self.machine.all_parts();
        let all_saved: BTreeMap<_, _> =
            all.iter().map(|part| (part.key.clone(), part.value.clone().unwrap())).collect();
        assert_eq!(all_saved, self.saved, "the deltas add up to the whole");
        let mut restored = Machine::new(SHARD);
        restored.restore(all).unwrap();
        assert_eq!(restored.digest(), before);
        self.machine = restored;
    }

    fn compare(&self) {
        let model = &self.model;
        let letters = self.machine.queue(LETTERS).unwrap().next_offset.0;
        assert_eq!(letters, model.letters, "one letter for each that died");
        let listed = self.machine.progress_in(GROUP, None).map(|(queue, _)| queue);
        assert_eq!(listed.count(), self.machine.progress_count(), "by group there are as many");
        let Some(held) = self.machine.progress(place()) else {
            return assert!(!model.has_progress);
        };
        let numbers = held.numbers();
        assert_eq!(numbers.floor, Offset(model.floor() as u64));
        assert_eq!((numbers.generation.0, numbers.member.0), model.holder);
        assert_eq!(held.retries() as u64, model.waiting());
        assert_eq!(self.machine.retries_waiting(), held.retries());
        let end = Offset(self.end());
        let unsettled = |fate: &&Fate| **fate != Fate::Settled;
        assert_eq!(held.lag(Offset(0), end), model.fates.iter().filter(unsettled).count() as u64);
        let oldest = model.fates.iter().position(|fate| *fate != Fate::Settled);
        assert_eq!(held.oldest_unsettled(Offset(0), end), oldest.map(|at| Offset(at as u64)));
        for (at, fate) in model.fates.iter().enumerate() {
            let offset = Offset(at as u64);
            let retry = held.retry(offset).map(|retry| (retry.due.0, retry.deliveries));
            match *fate {
                Fate::Open => {
                    assert!(!numbers.is_passed(offset) && retry.is_none());
                    assert_eq!(numbers.deliveries(offset), model.deliveries(at), "at {at}");
                }
                Fate::Waits { due, deliveries } => {
                    assert!(numbers.is_passed(offset));
                    assert_eq!(retry, Some((due, deliveries)));
                }
                Fate::Settled => assert!(numbers.is_passed(offset) && retry.is_none()),
            }
        }
        let now = self.moment.time;
        let due = model.fates.iter().filter_map(|fate| match fate {
            Fate::Waits { due, .. } if *due <= now.0 => Some(*due),
            _ => None,
        });
        let mut due: Vec<u64> = due.collect();
        due.sort_unstable();
        assert_eq!(held.due(now).map(|retry| retry.due.0).collect::<Vec<_>>(), due);
        assert_eq!(numbers.counts.lost, model.lost);
    }
}

impl Model {
    fn waiting(&self) -> u64 {
        self.fates.iter().filter(|fate| matches!(fate, Fate::Waits { .. })).count() as u64
    }

    fn forget_group(&mut self) {
        let fates = vec![Fate::Open; self.fates.len()];
        let attempts = vec![0; self.fates.len()];
        let (start, letters) = (self.start, self.letters);
        *self = Self { fates, attempts, start, letters, ..Self::default() };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn groups_settle_what_the_model_settles(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        pair.step(&Step::Append(5));
        pair.step(&Step::Claim { generation: 1, member: 1, start: 0 });
        for step in &steps {
            pair.step(step);
        }
        pair.step(&Step::Checkpoint);
    }

    #[test]
    fn a_checkpoint_of_groups_in_slices_is_that_of_its_moment(
        before in prop::collection::vec(step(), 1..40),
        between in prop::collection::vec(step(), 1..40),
        whole in any::<bool>(),
    ) {
        let (mut one, mut sliced) = (Pair::new(), Pair::new());
        for pair in [&mut one, &mut sliced] {
            pair.step(&Step::Append(9));
            pair.step(&Step::Claim { generation: 1, member: 1, start: 0 });
            for step in &before {
                pair.step(step);
            }
        }
        let dirty = one.machine.dirty_parts();
        let wanted = if whole { one.machine.all_parts() } else { dirty };
        sliced.machine.freeze(whole);
        let (mut parts, mut done) = (Vec::new(), false);
        for step in between.iter().filter(|step| !matches!(step, Step::Checkpoint)) {
            one.step(step);
            sliced.step(step);
            done = done || sliced.machine.slice_of(1, &mut parts).is_some();
        }
        while !done {
            done = sliced.machine.slice_of(1, &mut parts).is_some();
        }
        let by_key = |parts: &[Part]| -> BTreeMap<Bytes, Option<Bytes>> {
            parts.iter().map(|part| (part.key.clone(), part.value.clone())).collect()
        };
        prop_assert_eq!(by_key(&parts), by_key(&wanted));
        prop_assert_eq!(sliced.machine.digest(), one.machine.digest());
    }
}
