//! What a shard does about schedules of recurring messages: their steps, by the clock, and what is
//! asked about them.

use grus_log::Disk;
use grus_mailbox::{Credit, Room};
use grus_protocol::ids::TimestampMs;

use super::{Propose, ScheduleAsk, ShardActor, Stage, Waiter};
use crate::commands::Command;
use crate::commands::recurring::{Recurring, ScheduleKey};
use crate::error::QueueError;
use crate::machine::schedules::Schedule;
use crate::schedule::{Cadence, NEVER, Progress, Step, Timing, run_batch, step};

/// Most steps under way at once: each takes some ten microseconds to work out. What else is due
/// follows as soon as these are applied: were it held until the next tick, a few thousand schedules
/// of the same minute would be too late by their number alone.
const STEPS_MAX: usize = 32;

/// What the schedule has to do now. One whose cadence cannot be read any more (its time zone is
/// not known to this build) runs a last time.
fn step_now(key: &ScheduleKey, schedule: &Schedule, now: TimestampMs) -> Option<Step> {
    match Cadence::read(&schedule.terms.cadence) {
        Ok(cadence) => step(&cadence, schedule.terms.made_up_max, schedule.progress, now),
        Err(error) => {
            tracing::error!(schedule = key.name.as_str(), %error, "a schedule ends");
            let due = schedule.progress.next;
            (due <= now).then_some(Step { due, next: NEVER, runs: true, timing: Timing::InTime })
        }
    }
}

/// When the schedule runs next, if it goes on now.
fn next_of(schedule: &Schedule, now: TimestampMs) -> TimestampMs {
    let Progress { next, .. } = schedule.progress;
    if next > now {
        return next;
    }
    let cadence = Cadence::read(&schedule.terms.cadence).ok();
    cadence.and_then(|cadence| cadence.next(next, now)).unwrap_or(NEVER)
}

fn told(next: TimestampMs) -> Option<TimestampMs> {
    (next != NEVER).then_some(next)
}

impl<D: Disk> ShardActor<D> {
    /// Proposes what schedules have to do; only a leader that is ready does.
    pub(super) fn run_schedules(&mut self, now: TimestampMs, room: &mut Room<'_, Self>) {
        if !self.group.status().ready || !self.ground.complete.get() {
            return self.metrics.schedules().measured(0, 0);
        }
        let mut steps = Vec::new();
        {
            let machine = self.ground.machine.borrow();
            let (count, waiting) = machine.state.schedule_counts();
            self.metrics.schedules().measured(count, waiting);
            let due = machine.state.schedules_due(now).filter(|key| !self.running.contains(*key));
            for key in due.take(STEPS_MAX.saturating_sub(self.running.len())) {
                let Some(schedule) = machine.state.schedule(key) else { continue };
                let Some(step) = step_now(key, schedule, now) else { continue };
                steps.push((key.clone(), step, run_batch(key, &schedule.terms, &step)));
            }
        }
        for (key, step, batch) in steps {
            self.running.insert(key.clone());
            let late_ms = step.runs.then(|| now.0.saturating_sub(step.due.0));
            let waiter = Waiter::ScheduleRun { key: key.clone(), late_ms };
            let item = Command::Recurring(Recurring::Run { key, step, batch });
            self.propose(Propose::new(&item, waiter), Credit::unbounded(), room);
        }
    }

    /// Proposes what else is due, when `before` steps were under way and are applied now.
    pub(super) fn run_more_schedules(&mut self, before: usize, room: &mut Room<'_, Self>) {
        if before > 0 && self.running.is_empty() && self.stage == Stage::Serving {
            self.run_schedules(room.clock().now(), room);
        }
    }

    /// A step of a schedule is applied, or was not.
    pub(super) fn schedule_ran(&mut self, key: &ScheduleKey, late_ms: Option<u64>, counts: bool) {
        self.running.remove(key);
        match late_ms.filter(|_| counts) {
            Some(late_ms) => self.metrics.schedules().ran(late_ms),
            None if counts => self.metrics.schedules().skipped(),
            None => {}
        }
    }

    /// Answers what is asked about schedules.
    pub(super) fn schedule(&mut self, ask: ScheduleAsk, credit: Credit, room: &mut Room<'_, Self>) {
        let now = room.clock().now();
        let machine = self.ground.machine.borrow();
        let (item, next, reply) = match ask {
            ScheduleAsk::List { topic, after, most, reply } => {
                if !self.group.status().ready {
                    return reply.send(Err(QueueError::Unavailable));
                }
                let all = machine.state.schedules_behind(after.as_ref());
                let wanted = all.filter(|(key, _)| topic.is_none_or(|id| key.queue.topic == id));
                let page = wanted.take(most).map(|(key, one)| (key.clone(), one.clone()));
                return reply.send(Ok(page.collect()));
            }
            ScheduleAsk::Create { key, terms, reply } => {
                let cadence = Cadence::read(&terms.cadence).ok();
                let next = cadence.and_then(|cadence| cadence.next(now, now)).unwrap_or(NEVER);
                (Recurring::Create { key, terms, next }, told(next), reply)
            }
            ScheduleAsk::Pause { key, is_paused, reply } => {
                let Some(schedule) = machine.state.schedule(&key) else {
                    return reply.send(Err(QueueError::UnknownSchedule));
                };
                let next = next_of(schedule, now);
                let told = if is_paused { None } else { told(next) };
                (Recurring::Pause { key, is_paused, next }, told, reply)
            }
            ScheduleAsk::Delete { key, reply } => (Recurring::Delete { key }, None, reply),
        };
        drop(machine);
        let waiter = Waiter::Schedule { next, reply };
        if self.stage == Stage::Serving {
            self.propose(Propose::new(&Command::Recurring(item), waiter), credit, room);
        } else {
            waiter.fail(QueueError::Stopping);
        }
    }
}
