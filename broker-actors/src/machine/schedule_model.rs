//! Schedules in the machine against a model that is a map, saved and restored all the while, in one go
//! and in slices between which items are applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use grus_log::Part;
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{MessageId, QueueKey, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::ScheduleName;
use proptest::prelude::*;

use super::model_tests::{SHARD, config, queue};
use super::{Machine, Moment, Outcome, Refusal};
use crate::commands::Command;
use crate::commands::recurring::{Recurring, ScheduleKey, ScheduleTerms};
use crate::schedule::{CadenceText, NEVER, Step, Timing};

#[derive(Debug, Clone)]
enum Act {
    Create {
        name: u8,
        every_ms: u64,
        next: u64,
    },
    Pause {
        name: u8,
        is_paused: bool,
        next: u64,
    },
    Delete {
        name: u8,
    },
    /// `off` milliseconds off its next time.
    Run {
        name: u8,
        off: i64,
        step_ms: u64,
        runs: bool,
        timing: Timing,
    },
    Topic {
        topic: u64,
    },
    Drop {
        topic: u64,
    },
    Save {
        slices: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let name = || 0_u8..6;
    let next = || prop_oneof![8 => 1_u64..5_000, 1 => Just(NEVER.0)];
    let timing =
        || prop_oneof![Just(Timing::InTime), Just(Timing::Missed), Just(Timing::LastMissed)];
    let off = prop_oneof![6 => Just(0_i64), 1 => -3_000_i64..3_000];
    prop_oneof![
        4 => (name(), prop_oneof![Just(1_000_u64), Just(2_000)], next())
            .prop_map(|(name, every_ms, next)| Act::Create { name, every_ms, next }),
        2 => (name(), any::<bool>(), next())
            .prop_map(|(name, is_paused, next)| Act::Pause { name, is_paused, next }),
        1 => name().prop_map(|name| Act::Delete { name }),
        12 => (name(), off, 0_u64..3_000, any::<bool>(), timing()).prop_map(
            |(name, off, step_ms, runs, timing)| Act::Run { name, off, step_ms, runs, timing }
        ),
        1 => (1_u64..3).prop_map(|topic| Act::Topic { topic }),
        1 => (1_u64..3).prop_map(|topic| Act::Drop { topic }),
        3 => any::<bool>().prop_map(|slices| Act::Save { slices }),
    ]
}

/// What the model knows of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    every_ms: u64,
    is_paused: bool,
    next: u64,
    made_up: u32,
    runs: u64,
}

/// A machine, one that is saved and restored all the while, and the model of both.
struct Trio {
    machine: Machine,
    saved: Machine,
    state: BTreeMap<Bytes, Bytes>,
    parts: Vec<Part>,
    is_saving: bool,
    index: u64,
    known: BTreeMap<ScheduleKey, Known>,
    /// Messages by queue, of those that are there.
    sent: BTreeMap<QueueKey, u64>,
}

/// Names 0 to 2 are of topic 1, the others of topic 2.
fn key(name: u8) -> ScheduleKey {
    let topic = 1 + u64::from(name / 3);
    let name = ScheduleName::try_from(format!("s{name}").as_str()).unwrap();
    ScheduleKey { queue: queue(topic, 0), name }
}

fn message() -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    let id = MessageId::from_parts(TimestampMs(1), &[7; 10]);
    builder.push(&NewRecord::new(id, TimestampMs(5), "body")).unwrap();
    builder.finish()
}

impl Trio {
    fn new() -> Self {
        let (machine, saved) = (Machine::new(SHARD), Machine::new(SHARD));
        let (state, parts, known) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let sent = BTreeMap::new();
        Self { machine, saved, state, parts, is_saving: false, index: 0, known, sent }
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.index += 1;
        let time = TimestampMs(self.index);
        let moment = Moment { term: Term(1), index: self.index, time, byte: 18 };
        let effect = self.machine.apply(moment, command.clone());
        assert_eq!(self.saved.apply(moment, command).outcome, effect.outcome);
        if self.is_saving && self.index.is_multiple_of(3) {
            self.is_saving = self.saved.slice_of(1, &mut self.parts).is_none();
            self.lay();
        }
        effect.outcome
    }

    fn recur(&mut self, item: Recurring) -> Outcome {
        self.apply(Command::Recurring(item))
    }

    fn lay(&mut self) {
        for part in self.parts.drain(..) {
            match part.value {
                Some(value) => self.state.insert(part.key, value),
                None => self.state.remove(&part.key),
            };
        }
    }

    fn save(&mut self, slices: bool) {
        while self.is_saving {
            self.is_saving = self.saved.slice_of(1, &mut self.parts).is_none();
        }
        self.lay();
        self.saved.freeze(false);
        self.is_saving = true;
        if slices {
            return; // the rest while items are applied
        }
        while self.is_saving {
            self.is_saving = self.saved.slice_of(1, &mut self.parts).is_none();
        }
        self.lay();
        let part =
            |(key, value): (&Bytes, &Bytes)| Part { key: key.clone(), value: Some(value.clone()) };
        let mut read = Machine::new(SHARD);
        read.restore(self.state.iter().map(part).collect()).unwrap();
        assert_eq!(read.all_parts(), self.machine.all_parts());
        self.saved = read;
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Create { name, every_ms, next } => self.create(key(name), every_ms, next),
            Act::Pause { name, is_paused, next } => {
                let item = Recurring::Pause { key: key(name), is_paused, next: TimestampMs(next) };
                let outcome = self.recur(item);
                let Some(known) = self.known.get_mut(&key(name)) else {
                    return assert_eq!(outcome, Outcome::Schedule(Err(Refusal::UnknownSchedule)));
                };
                assert_eq!(outcome, Outcome::Schedule(Ok(())));
                if known.is_paused && !is_paused {
                    (known.next, known.made_up) = (known.next.max(next), 0);
                }
                known.is_paused = is_paused;
            }
            Act::Delete { name } => {
                let was_there = self.known.remove(&key(name)).is_some();
                let outcome = self.recur(Recurring::Delete { key: key(name) });
                let wanted = if was_there { Ok(()) } else { Err(Refusal::UnknownSchedule) };
                assert_eq!(outcome, Outcome::Schedule(wanted));
            }
            Act::Run { name, off, step_ms, runs, timing } => {
                self.run(&key(name), off, (step_ms, runs, timing));
            }
            Act::Topic { topic } => {
                self.apply(Command::TopicConfig(config(topic, 1)));
                self.sent.entry(queue(topic, 0)).or_default();
            }
            Act::Drop { topic } => {
                self.apply(Command::TopicDrop { topic: TopicId(topic) });
                self.known.retain(|key, _| key.queue.topic.0 != topic);
                self.sent.retain(|key, _| key.topic.0 != topic);
            }
            Act::Save { slices } => self.save(slices),
        }
    }

    fn create(&mut self, key: ScheduleKey, every_ms: u64, next: u64) {
        let cadence = CadenceText::Every(every_ms);
        let terms = ScheduleTerms { cadence, made_up_max: 1, batch: message() };
        let item = Recurring::Create { key: key.clone(), terms, next: TimestampMs(next) };
        let outcome = self.recur(item);
        let wanted = if !self.sent.contains_key(&key.queue) {
            Err(Refusal::UnknownQueue)
        } else if let Some(known) = self.known.get(&key) {
            if known.every_ms == every_ms { Ok(()) } else { Err(Refusal::ScheduleExists) }
        } else {
            let known = Known { every_ms, is_paused: false, next, made_up: 0, runs: 0 };
            self.known.insert(key, known);
            Ok(())
        };
        assert_eq!(outcome, Outcome::Schedule(wanted));
    }

    fn run(&mut self, key: &ScheduleKey, off: i64, (step_ms, runs, timing): (u64, bool, Timing)) {
        let next = self.known.get(key).map_or(1_000, |known| known.next);
        let due = next.saturating_add_signed(off);
        let step = Step {
            due: TimestampMs(due),
            next: TimestampMs(due.saturating_add(step_ms)),
            runs,
            timing,
        };
        let batch = if runs { message() } else { Bytes::new() };
        let outcome = self.recur(Recurring::Run { key: key.clone(), step, batch });
        let known = self
            .known
            .get_mut(key)
            .filter(|known| !known.is_paused && known.next == due && step.next.0 > due);
        assert_eq!(outcome, Outcome::ScheduleRun(known.is_some()));
        let Some(known) = known else { return };
        known.next = step.next.0;
        known.made_up = if timing == Timing::Missed { known.made_up + u32::from(runs) } else { 0 };
        if runs {
            known.runs += 1;
            *self.sent.get_mut(&key.queue).expect("a schedule has its queue") += 1;
        }
    }

    fn check(&self) {
        assert_eq!(self.machine.digest(), self.saved.digest());
        let found: BTreeMap<ScheduleKey, Known> = self
            .machine
            .schedules_behind(None)
            .map(|(key, schedule)| {
                let CadenceText::Every(every_ms) = schedule.terms.cadence else { panic!("every") };
                let (progress, is_paused) = (schedule.progress, schedule.is_paused);
                let (next, made_up) = (progress.next.0, progress.made_up);
                let runs = schedule.runs;
                (key.clone(), Known { every_ms, is_paused, next, made_up, runs })
            })
            .collect();
        assert_eq!(found, self.known);
        let mut due: Vec<(u64, &ScheduleKey)> = self
            .known
            .iter()
            .filter(|(_, known)| !known.is_paused && known.next != NEVER.0)
            .map(|(key, known)| (known.next, key))
            .collect();
        due.sort_unstable();
        assert_eq!(self.machine.schedule_counts(), (self.known.len(), due.len()));
        let now = 2_500;
        let due: Vec<_> = due.into_iter().filter(|(next, _)| *next <= now).map(|d| d.1).collect();
        assert_eq!(self.machine.schedules_due(TimestampMs(now)).collect::<Vec<_>>(), due);
        for (queue, sent) in &self.sent {
            assert_eq!(self.machine.queue(*queue).unwrap().next_offset.0, *sent);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn schedules_are_those_of_the_model_after_every_step(
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut trio = Trio::new();
        trio.act(&Act::Topic { topic: 1 });
        for act in &acts {
            trio.act(act);
            trio.check();
        }
        trio.save(false);
    }
}
