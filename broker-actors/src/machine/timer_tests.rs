//! Scheduled messages in the machine against a model that is a sorted map.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_log::Part;
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{
    MessageId, ProducerEpoch, ProducerId, QueueKey, Sequence, Term, TimestampMs, TopicId,
};
use grus_protocol::limits::BatchLimits;
use proptest::prelude::*;

use super::model_tests::{SHARD, config, queue};
use super::{Appended, IndexChange, Machine, Moment, Outcome};
use crate::commands::delay::{ReleasedBatch, Scheduling};
use crate::commands::{Command, DedupKey};
use crate::timers::TimerId;
use crate::timers::run::RunForm;

fn batch(producer: u64, first: u64, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    if producer != 0 {
        builder.set_producer(ProducerId(producer), ProducerEpoch(0), Sequence(first));
    }
    for record in 0..count {
        let id = MessageId::from_parts(TimestampMs(1 + record as u64), &[7; 10]);
        builder.push(&NewRecord::new(id, TimestampMs(5), "body")).unwrap();
    }
    builder.finish()
}

#[derive(Debug, Clone)]
enum Step {
    Schedule { topic: u64, due: Vec<u64>, same: bool },
    Release { which: Vec<prop::sample::Index>, whole: bool, wrong_queue: bool },
    Recall { which: prop::sample::Index },
    Roll { which: prop::sample::Index },
    Later(u64),
    Drop { topic: u64 },
    Checkpoint { slices: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<prop::sample::Index>;
    prop_oneof![
        6 => (1_u64..3, prop::collection::vec(0_u64..50, 1..40), any::<bool>())
            .prop_map(|(topic, due, same)| Step::Schedule { topic, due, same }),
        8 => (prop::collection::vec(which(), 1..8), any::<bool>(), prop::bool::weighted(0.05))
            .prop_map(|(which, whole, wrong_queue)| Step::Release { which, whole, wrong_queue }),
        3 => which().prop_map(|which| Step::Recall { which }),
        2 => which().prop_map(|which| Step::Roll { which }),
        3 => (0_u64..30).prop_map(Step::Later),
        1 => (1_u64..3).prop_map(|topic| Step::Drop { topic }),
        2 => any::<bool>().prop_map(|slices| Step::Checkpoint { slices }),
    ]
}

/// What the model knows of a timer.
#[derive(Debug, Clone)]
struct Known {
    queue: QueueKey,
    due: u64,
    batch: TimerId,
    count: u32,
    at: (u64, u32),
}

/// A machine, one that is saved all the while, and the model of both.
struct Trio {
    machine: Machine,
    saved: Machine,
    state: BTreeMap<Bytes, Bytes>,
    parts: Vec<Part>,
    is_saving: bool,
    moment: Moment,
    /// Every timer there ever was, so that those that are over are asked for, too.
    ever: Vec<(TimerId, Known)>,
    pending: BTreeMap<TimerId, Known>,
    released: u64,
}

impl Trio {
    fn new() -> Self {
        let moment = Moment { term: Term(1), index: 1, time: TimestampMs(0), byte: 18 };
        let (machine, saved) = (Machine::new(SHARD), Machine::new(SHARD));
        let (state, parts, is_saving) = (BTreeMap::new(), Vec::new(), false);
        let (ever, pending, released) = (Vec::new(), BTreeMap::new(), 0);
        let mut trio =
            Self { machine, saved, state, parts, is_saving, moment, ever, pending, released };
        trio.apply(Command::TopicConfig(config(1, 1)));
        trio.apply(Command::TopicConfig(config(2, 1)));
        trio
    }

    fn apply(&mut self, command: Command) -> (Outcome, Option<IndexChange>) {
        self.moment.index += 1;
        let effect = self.machine.apply(self.moment, command.clone());
        assert_eq!(self.saved.apply(self.moment, command).outcome, effect.outcome);
        assert_eq!(self.machine.digest(), self.saved.digest());
        if self.is_saving && self.moment.index.is_multiple_of(3) {
            self.is_saving = self.saved.slice_of(1, &mut self.parts).is_none();
            self.lay();
        }
        (effect.outcome, effect.index)
    }

    fn lay(&mut self) {
        for part in self.parts.drain(..) {
            match part.value {
                Some(value) => self.state.insert(part.key, value),
                None => self.state.remove(&part.key),
            };
        }
    }

    fn finish_saving(&mut self) {
        while self.is_saving {
            self.is_saving = self.saved.slice_of(1, &mut self.parts).is_none();
        }
        self.lay();
    }

    /// A state read back from what was saved takes the place of the one that was saved.
    fn restore(&mut self) {
        self.finish_saving();
        self.saved.freeze(false);
        self.is_saving = true;
        self.finish_saving();
        let parts = self
            .state
            .iter()
            .map(|(key, value)| Part { key: key.clone(), value: Some(value.clone()) });
        let mut read = Machine::new(SHARD);
        read.restore(parts.collect()).unwrap();
        assert_eq!(read.digest(), self.machine.digest());
        assert_eq!(read.all_parts(), self.machine.all_parts());
        self.saved = read;
    }

    fn schedule(&mut self, topic: u64, due: &[u64], same: bool) {
        let due: Vec<u64> = due.iter().map(|due| due + self.moment.time.0).collect();
        let due = if same { vec![due[0]; due.len()] } else { due };
        let bytes = batch(0, 0, due.len());
        let times = due.iter().copied().map(TimestampMs);
        let times: Vec<TimestampMs> = times.take(if same { 1 } else { due.len() }).collect();
        let form = if due.len() % 2 == 0 { RunForm::Rows } else { RunForm::Columns };
        let scheduling =
            Scheduling { form, ..Scheduling::new(queue(topic, 0), None, times, bytes) };
        let place = self.moment.byte + scheduling.header_bytes();
        let (outcome, index) = self.apply(Command::Schedule(scheduling));
        assert!(index.is_none(), "nobody sees it yet");
        let first = TimerId { index: self.moment.index, place };
        let Outcome::Append(result) = outcome else { panic!("{outcome:?}") };
        let is_here = self.machine.queue(queue(topic, 0)).is_some();
        assert_eq!(result.map(|appended| appended.timer).ok(), is_here.then_some(Some(first)));
        if !is_here {
            return;
        }
        let count = u32::try_from(due.len()).unwrap();
        for (number, due) in (0..).zip(due) {
            let at = (first.index, first.place);
            let known = Known { queue: queue(topic, 0), due, batch: first, count, at };
            self.ever.push((first.nth(number), known.clone()));
            self.pending.insert(first.nth(number), known);
        }
    }

    fn release(&mut self, which: &[prop::sample::Index], whole: bool, wrong_queue: bool) {
        if self.ever.is_empty() {
            return;
        }
        let chosen: Vec<(TimerId, Known)> =
            which.iter().map(|which| self.ever[which.index(self.ever.len())].clone()).collect();
        let mut of_queue = chosen[0].1.queue;
        let chosen = chosen.into_iter().filter(|(_, known)| known.queue == of_queue);
        let batches: Vec<ReleasedBatch> = chosen
            .map(|(id, known)| {
                let (timer, timers) = if whole { (known.batch, known.count) } else { (id, 1) };
                ReleasedBatch { timer, timers, batch: batch(0, 0, timers as usize) }
            })
            .collect();
        if wrong_queue {
            of_queue.queue.0 += 1;
        }
        let mut wanted = Vec::new();
        for released in &batches {
            let ids: Vec<TimerId> = (0..released.timers).map(|n| released.timer.nth(n)).collect();
            let now = self.moment.time.0;
            let is_due = |id| self.pending.get(id).is_some_and(|known| known.due <= now);
            if !wrong_queue && ids.iter().all(is_due) {
                self.pending.retain(|id, _| !ids.contains(id));
                wanted.push(released.timers);
                self.released += u64::from(released.timers);
            }
        }
        let before = self.machine.queue(of_queue).map_or(0, |numbers| numbers.next_offset.0);
        let (outcome, index) = self.apply(Command::Release { queue: of_queue, batches });
        assert_eq!(outcome, Outcome::Release(u32::try_from(wanted.len()).unwrap()));
        let runs = match index {
            Some(IndexChange::Released { runs, .. }) => runs,
            None => Vec::new(),
            other => panic!("{other:?}"),
        };
        let counts: Vec<u32> = runs.iter().map(|run| run.appended.count).collect();
        assert_eq!(counts, wanted);
        let mut next = before;
        for run in runs {
            assert_eq!(run.appended.base_offset.0, next, "offsets follow one another");
            next += u64::from(run.appended.count);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Schedule { topic, due, same } => self.schedule(*topic, due, *same),
            Step::Release { which, whole, wrong_queue } => {
                self.release(which, *whole, *wrong_queue);
            }
            Step::Recall { which } if !self.ever.is_empty() => {
                let (timer, known) = which.get(&self.ever).clone();
                let won = self.pending.remove(&timer).is_some();
                let (outcome, _) = self.apply(Command::Recall { queue: known.queue, timer });
                assert_eq!(outcome, Outcome::Recall(won));
            }
            Step::Roll { which } if !self.ever.is_empty() => {
                let (_, known) = which.get(&self.ever).clone();
                let roll = Command::Roll {
                    queue: known.queue,
                    timer: known.batch,
                    batch: batch(0, 0, known.count as usize),
                };
                let (outcome, _) = self.apply(roll);
                let to = (self.moment.index, self.moment.byte + 32);
                let mut is_needed = false;
                for known in self.pending.values_mut().filter(|k| k.batch == known.batch) {
                    (known.at, is_needed) = (to, true);
                }
                assert_eq!(outcome, Outcome::Roll(is_needed));
            }
            Step::Recall { .. } | Step::Roll { .. } => {}
            Step::Later(ms) => self.moment.time.0 += ms,
            Step::Drop { topic } => {
                self.apply(Command::TopicDrop { topic: TopicId(*topic) });
                self.pending.retain(|_, known| known.queue.topic.0 != *topic);
            }
            Step::Checkpoint { slices: true } => {
                self.finish_saving();
                self.saved.freeze(false);
                self.is_saving = true;
            }
            Step::Checkpoint { slices: false } => self.restore(),
        }
    }

    fn check(&mut self) {
        let timers = self.machine.timers();
        let runs = timers.runs_behind(None).flat_map(|(run, _)| timers.timers_of(run));
        let found: Vec<_> = runs
            .map(|timer| (timer.id, timer.due.0, timer.queue, timer.batch, timer.at))
            .map(|(id, due, queue, batch, at)| (id, due, queue, batch, (at.index, at.byte)))
            .collect();
        let wanted: Vec<_> = self
            .pending
            .iter()
            .map(|(id, known)| (*id, known.due, known.queue, known.batch, known.at))
            .collect();
        assert_eq!(found, wanted);
        assert_eq!(timers.pending(), wanted.len());
        let by_topic: u64 = timers.by_topic().map(|(_, count)| count).sum();
        assert_eq!(by_topic, wanted.len() as u64);
        let low = timers.lying_below(self.moment.index / 2, TimerId::FIRST, usize::MAX);
        let low: Vec<TimerId> = low.iter().map(|timer| timer.batch).collect();
        let mut wanted: Vec<TimerId> = self
            .pending
            .values()
            .filter(|known| known.at.0 <= self.moment.index / 2)
            .map(|known| known.batch)
            .collect();
        wanted.dedup();
        assert_eq!(low, wanted);
        self.check_bytes();
        self.check_order();
    }

    /// Bytes are told where something lies, and nowhere else.
    fn check_bytes(&self) {
        let timers = self.machine.timers();
        let bounds = [self.moment.index / 4, self.moment.index / 2, self.moment.index];
        let mut from = 0;
        for (bytes, bound) in timers.bytes_below(&bounds).into_iter().zip(bounds) {
            let is_there = self.pending.values().any(|known| (from..=bound).contains(&known.at.0));
            // A run that lies on one side of a bound is taken as a whole, with batches that are over.
            assert!(bytes > 0 || !is_there, "{from} to {bound}: nothing");
            from = bound + 1;
        }
        let all: u64 = timers.bytes_below(&[u64::MAX]).iter().sum();
        assert_eq!(all > 0, !self.pending.is_empty());
    }

    /// By due time, as the wheel asks.
    fn check_order(&mut self) {
        let timers = self.machine.timers_mut();
        let runs: Vec<TimerId> = timers.runs_behind(None).map(|(run, _)| run).collect();
        for run in runs {
            let mut wanted: Vec<_> = timers.timers_of(run).map(|t| (t.due, t.id)).collect();
            wanted.sort_unstable();
            let (mut after, mut found) = ((TimestampMs(0), TimerId::FIRST), Vec::new());
            while let Some(next) = timers.next_due(run, after) {
                found.push(next);
                after = next;
            }
            assert_eq!(found, wanted);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn timers_are_those_of_the_model_after_every_step(steps in prop::collection::vec(step(), 1..80)) {
        let mut trio = Trio::new();
        for step in &steps {
            trio.step(step);
            trio.check();
        }
        trio.restore();
    }
}

#[test]
fn a_scheduled_batch_that_comes_again_gets_its_first_receipt_and_is_stored_once() {
    let mut trio = Trio::new();
    let later = |producer, key: Option<&[u8]>| {
        Command::Schedule(Scheduling {
            queue: queue(1, 0),
            key: key.map(DedupKey::of),
            due: vec![TimestampMs(900)],
            form: RunForm::Columns,
            batch: batch(producer, 0, 2),
        })
    };
    let receipt = |trio: &mut Trio, command| -> Appended {
        let Outcome::Append(Ok(appended)) = trio.apply(command).0 else { panic!("refused") };
        appended
    };
    let first = receipt(&mut trio, later(5, None));
    let again = receipt(&mut trio, later(5, None));
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(first.timer.unwrap().index, trio.moment.index - 1);
    let first = receipt(&mut trio, later(0, Some(b"key")));
    trio.restore();
    let again = receipt(&mut trio, later(0, Some(b"key")));
    assert_eq!(again, Appended { duplicate: true, ..first });
    assert_eq!(trio.machine.timers().pending(), 4);
    // Seen at once and seen later share a producer's sequence.
    let next = Command::Append { queue: queue(1, 0), batch: batch(5, 2, 1) };
    assert_eq!(receipt(&mut trio, next).timer, None);
}

#[test]
fn memory_of_a_run_follows_what_is_pending() {
    let mut trio = Trio::new();
    trio.schedule(1, &[10], false);
    for _ in 0..400 {
        trio.schedule(1, &[0], false);
    }
    trio.moment.time.0 = 5;
    let ids: Vec<TimerId> = trio.pending.keys().skip(1).copied().collect();
    for timer in ids {
        let released = ReleasedBatch { timer, timers: 1, batch: batch(0, 0, 1) };
        let release = Command::Release { queue: queue(1, 0), batches: vec![released] };
        assert_eq!(trio.apply(release).0, Outcome::Release(1));
        trio.pending.remove(&timer);
    }
    trio.check();
    let held = trio.machine.timers.runs.values().next().unwrap();
    assert!(held.content.get().len() < 64, "{} of 401 timers are kept", held.content.get().len());
}
