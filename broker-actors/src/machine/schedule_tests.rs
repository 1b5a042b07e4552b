//! Schedules in the machine: each run once, saved with all else, gone with their topic.

use bytes::Bytes;
use grus_log::Part;
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{MessageId, Offset, QueueKey, Term, TimestampMs, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::names::ScheduleName;

use super::model_tests::{SHARD, config, queue};
use super::{Effect, IndexChange, Machine, Moment, Outcome, Refusal};
use crate::commands::Command;
use crate::commands::recurring::{Recurring, ScheduleKey, ScheduleTerms};
use crate::schedule::{CadenceText, NEVER, Progress, Step, Timing};

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    let id = MessageId::from_parts(TimestampMs(1), &[7; 10]);
    builder.push(&NewRecord::new(id, TimestampMs(5), "body")).unwrap();
    builder.finish()
}

fn key(name: &str) -> ScheduleKey {
    ScheduleKey { queue: queue(1, 0), name: ScheduleName::try_from(name).unwrap() }
}

fn apply(machine: &mut Machine, item: Recurring) -> Effect {
    let moment = Moment { term: Term(1), index: 9, time: TimestampMs(9), byte: 100 };
    machine.apply(moment, Command::Recurring(item))
}

fn create(machine: &mut Machine, name: &str, next: u64) -> Outcome {
    let cadence = CadenceText::Every(1_000);
    let terms = ScheduleTerms { cadence, made_up_max: 1, batch: batch() };
    apply(machine, Recurring::Create { key: key(name), terms, next: TimestampMs(next) }).outcome
}

fn run(machine: &mut Machine, name: &str, due: u64) -> Effect {
    let (due, next) = (TimestampMs(due), TimestampMs(due + 1_000));
    let step = Step { due, next, runs: true, timing: Timing::InTime };
    apply(machine, Recurring::Run { key: key(name), step, batch: batch() })
}

fn pause(machine: &mut Machine, name: &str, is_paused: bool, next: u64) -> Outcome {
    let next = TimestampMs(next);
    apply(machine, Recurring::Pause { key: key(name), is_paused, next }).outcome
}

fn due(machine: &Machine, now: u64) -> Vec<&str> {
    machine.schedules_due(TimestampMs(now)).map(|key| key.name.as_str()).collect()
}

fn machine() -> Machine {
    let mut machine = Machine::new(SHARD);
    let moment = Moment { term: Term(1), index: 1, time: TimestampMs(1), byte: 0 };
    machine.apply(moment, Command::TopicConfig(config(1, 1)));
    assert_eq!(create(&mut machine, "a", 1_000), Outcome::Schedule(Ok(())));
    machine
}

fn next_offset(machine: &Machine) -> Offset {
    let key: QueueKey = queue(1, 0);
    machine.queue(key).unwrap().next_offset
}

#[test]
fn a_run_is_stored_once_however_often_it_is_proposed() {
    let mut machine = machine();
    assert_eq!(due(&machine, 999), [""; 0]);
    assert_eq!(due(&machine, 1_000), ["a"]);
    let effect = run(&mut machine, "a", 1_000);
    assert_eq!(effect.outcome, Outcome::ScheduleRun(true));
    let Some(IndexChange::Released { runs, .. }) = effect.index else { panic!("a run") };
    assert_eq!(runs[0].appended.base_offset, Offset(0));
    assert_eq!(runs[0].place, 35, "behind the name");
    for again in [1_000, 0, 500, 3_000] {
        let effect = run(&mut machine, "a", again);
        assert_eq!(effect.outcome, Outcome::ScheduleRun(false));
        assert!(effect.index.is_none());
    }
    assert_eq!(next_offset(&machine), Offset(1));
    assert_eq!(due(&machine, 1_999), [""; 0]);
    assert_eq!(run(&mut machine, "a", 2_000).outcome, Outcome::ScheduleRun(true));
    assert_eq!(machine.schedule(&key("a")).unwrap().runs, 2);
}

#[test]
fn a_step_that_does_not_go_on_is_none() {
    let mut machine = machine();
    let due = TimestampMs(1_000);
    let step = Step { due, next: due, runs: true, timing: Timing::InTime };
    let item = Recurring::Run { key: key("a"), step, batch: batch() };
    assert_eq!(apply(&mut machine, item).outcome, Outcome::ScheduleRun(false));
    assert_eq!(next_offset(&machine), Offset(0));
}

#[test]
fn what_was_missed_is_counted_and_what_is_skipped_stores_nothing() {
    let mut machine = machine();
    let step = |due, runs, timing| {
        let (due, next) = (TimestampMs(due), TimestampMs(due + 1_000));
        let step = Step { due, next, runs, timing };
        let batch = if runs { batch() } else { Bytes::new() };
        Recurring::Run { key: key("a"), step, batch }
    };
    apply(&mut machine, step(1_000, true, Timing::Missed));
    apply(&mut machine, step(2_000, false, Timing::Missed));
    let schedule = machine.schedule(&key("a")).unwrap();
    assert_eq!(schedule.progress, Progress { next: TimestampMs(3_000), made_up: 1 });
    assert_eq!((schedule.runs, next_offset(&machine)), (1, Offset(1)));
    run(&mut machine, "a", 3_000);
    assert_eq!(machine.schedule(&key("a")).unwrap().progress.made_up, 0);
    apply(&mut machine, step(4_000, true, Timing::Missed));
    apply(&mut machine, step(5_000, true, Timing::LastMissed));
    assert_eq!(machine.schedule(&key("a")).unwrap().progress.made_up, 0, "another absence");
}

#[test]
fn one_that_rests_is_not_due_and_its_time_never_goes_back() {
    let mut machine = machine();
    assert_eq!(pause(&mut machine, "a", true, 0), Outcome::Schedule(Ok(())));
    assert_eq!(due(&machine, u64::MAX - 1), [""; 0]);
    assert_eq!(run(&mut machine, "a", 1_000).outcome, Outcome::ScheduleRun(false));
    pause(&mut machine, "a", false, 5_000);
    assert_eq!(due(&machine, 5_000), ["a"]);
    run(&mut machine, "a", 5_000);
    pause(&mut machine, "a", false, 5_000); // said twice
    assert_eq!(run(&mut machine, "a", 5_000).outcome, Outcome::ScheduleRun(false));
    pause(&mut machine, "a", true, 0);
    pause(&mut machine, "a", false, 5_000); // worked out before it ran
    assert_eq!(run(&mut machine, "a", 5_000).outcome, Outcome::ScheduleRun(false));
    assert_eq!(machine.schedule(&key("a")).unwrap().due(), TimestampMs(6_000));
    let unknown = Outcome::Schedule(Err(Refusal::UnknownSchedule));
    assert_eq!(pause(&mut machine, "b", true, 0), unknown);
}

#[test]
fn names_are_unique_in_a_queue_and_what_is_deleted_runs_no_more() {
    let mut machine = machine();
    run(&mut machine, "a", 1_000);
    assert_eq!(create(&mut machine, "a", 1_000), Outcome::Schedule(Ok(())), "said twice");
    assert_eq!(due(&machine, 1_999), [""; 0], "and nothing is changed");
    let terms =
        ScheduleTerms { cadence: CadenceText::Every(1_001), made_up_max: 1, batch: batch() };
    let item = Recurring::Create { key: key("a"), terms, next: TimestampMs(9) };
    let exists = Outcome::Schedule(Err(Refusal::ScheduleExists));
    assert_eq!(apply(&mut machine, item).outcome, exists);
    assert_eq!(create(&mut machine, "never", NEVER.0), Outcome::Schedule(Ok(())));
    assert_eq!(due(&machine, u64::MAX), ["a"]);
    let delete = || Recurring::Delete { key: key("a") };
    assert_eq!(apply(&mut machine, delete()).outcome, Outcome::Schedule(Ok(())));
    let unknown = Outcome::Schedule(Err(Refusal::UnknownSchedule));
    assert_eq!(apply(&mut machine, delete()).outcome, unknown);
    assert_eq!(run(&mut machine, "a", 1_000).outcome, Outcome::ScheduleRun(false));
    assert_eq!(due(&machine, u64::MAX), [""; 0]);
    let elsewhere = ScheduleKey { queue: queue(2, 0), name: key("a").name };
    let terms =
        ScheduleTerms { cadence: CadenceText::Every(1_000), made_up_max: 1, batch: batch() };
    let item = Recurring::Create { key: elsewhere, terms, next: TimestampMs(1) };
    assert_eq!(apply(&mut machine, item).outcome, Outcome::Schedule(Err(Refusal::UnknownQueue)));
}

#[test]
fn schedules_are_saved_in_parts_and_read_back() {
    let mut machine = machine();
    create(&mut machine, "b", 3_000);
    create(&mut machine, "c", 2_000);
    let mut parts: Vec<Part> = machine.dirty_parts();
    run(&mut machine, "a", 1_000);
    pause(&mut machine, "b", true, 0);
    apply(&mut machine, Recurring::Delete { key: key("c") });
    parts.extend(machine.dirty_parts());
    let mut restored = Machine::new(SHARD);
    restored.restore(parts).unwrap();
    assert_eq!(restored.digest(), machine.digest());
    assert_eq!(due(&restored, u64::MAX), ["a"]);
    for one in ["a", "b", "c"] {
        assert_eq!(restored.schedule(&key(one)), machine.schedule(&key(one)), "{one}");
    }
    let mut whole = Machine::new(SHARD);
    whole.restore(machine.all_parts()).unwrap();
    assert_eq!(whole.digest(), machine.digest());
    let mut slices = Vec::new();
    machine.freeze(true);
    run(&mut machine, "a", 2_000); // while it is being saved
    while machine.slice_of(1, &mut slices).is_none() {}
    let mut frozen = Machine::new(SHARD);
    frozen.restore(slices).unwrap();
    assert_eq!(frozen.digest(), whole.digest());

    let moment = Moment { term: Term(1), index: 20, time: TimestampMs(9), byte: 0 };
    machine.apply(moment, Command::TopicDrop { topic: TopicId(1) });
    assert_eq!(machine.schedules_behind(None).count(), 0);
    assert_eq!(due(&machine, u64::MAX), [""; 0]);
    let mut empty = Machine::new(SHARD);
    empty.restore(machine.all_parts()).unwrap();
    assert_eq!(empty.digest(), machine.digest());
}
