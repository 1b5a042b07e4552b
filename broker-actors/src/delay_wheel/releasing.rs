//! Rounds of releases.

use grus_log::Disk;
use grus_mailbox::Tick;
use grus_protocol::ids::TimestampMs;

use super::messages::ItemDone;
use super::near::Near;
use super::round::{Budget, Pace, releases};
use super::{BACKOFF_MS, DelayWheel, Work};
use crate::timers::run::Timer;

/// Messages that are later than this are a backlog: who works in the shard meanwhile goes first.
const BACKLOG_MS: u64 = 1_000;
/// Somebody does who has sent or answered for messages within this time.
const AT_WORK_MS: u64 = 1_000;
/// Behind each round of a backlog they get this time for themselves.
const PAUSE_MS: u64 = 2;

/// Messages that are on their way to be seen.
pub(super) struct Round {
    pub(super) timers: Vec<Timer>,
    left: usize,
    has_failed: bool,
}

impl Round {
    /// Notes what became of an item; true when that was the last.
    pub(super) fn item_done(&mut self, done: &ItemDone) -> bool {
        self.left -= 1;
        self.has_failed |= done.result.is_err();
        self.left == 0
    }
}

/// At what pace messages leave that are so late.
const fn pace_of(late_ms: u64, is_shared: bool) -> Pace {
    if late_ms > BACKLOG_MS && is_shared { Pace::Gentle } else { Pace::Full }
}

impl<D: Disk> DelayWheel<D> {
    /// Whether clients are at work in this shard.
    fn is_shared(&self, tick: Tick) -> bool {
        let worked_at_ms = self.parts.ground.worked_at_ms.get();
        worked_at_ms.is_some_and(|at_ms| tick.monotonic_ms.saturating_sub(at_ms) < AT_WORK_MS)
    }

    /// Begins a round with what is due, unless one is under way.
    pub(super) fn begin_round(&mut self, tick: Tick) {
        if self.is_releasing || tick.monotonic_ms < self.paused_until_ms {
            return;
        }
        let is_shared = self.is_shared(tick);
        let Some(near) = &mut self.near else { return };
        let machine = self.parts.ground.machine.borrow();
        let state = machine.state.timers();
        let (mut timers, mut budget) = (Vec::new(), None);
        while let Some((_, id)) = near.take(tick.now) {
            // Those that were taken back meanwhile are not there.
            let Some(timer) = state.get(id) else { continue };
            let late_ms = tick.now.0.saturating_sub(timer.due.0);
            let of_first = || Budget::of(pace_of(late_ms, is_shared));
            if !budget.get_or_insert_with(of_first).takes(&timer) {
                near.put_back((timer.due, timer.id));
                break;
            }
            timers.push(timer);
        }
        drop(machine);
        if timers.is_empty() {
            return;
        }
        self.is_releasing = true;
        let round = Round { timers: timers.clone(), left: 0, has_failed: false };
        self.start(Work::Round(round), &timers);
    }

    /// Proposes what a round releases; its messages are in memory.
    pub(super) fn release(&mut self, ticket: u64) {
        let Some(Work::Round(round)) = self.works.get(&ticket) else { return };
        let item_bytes_max = self.parts.item_bytes_max;
        let mut made = releases(&round.timers, item_bytes_max, |timer| self.batch_of(timer));
        let damaged: Vec<Timer> = {
            let machine = self.parts.ground.machine.borrow();
            let state = machine.state.timers();
            // What was taken back meanwhile may be gone from the log.
            let is_damaged = |timer: &&Timer| {
                made.unreadable.contains(&timer.id) && state.get(timer.id).is_some()
            };
            round.timers.iter().filter(is_damaged).copied().collect()
        };
        made.commands.extend(self.give_up(&damaged));
        let Some(Work::Round(round)) = self.works.get_mut(&ticket) else { return };
        let left = round.timers.split_off(made.looked_at);
        round.timers.retain(|timer| !made.unreadable.contains(&timer.id));
        if let Some(near) = &mut self.near {
            for timer in left {
                near.put_back((timer.due, timer.id));
            }
        }
        round.left = made.commands.len();
        if made.commands.is_empty() {
            self.works.remove(&ticket);
            self.is_releasing = false;
            return;
        }
        for (number, command) in made.commands.iter().enumerate() {
            self.propose(command, ticket, number);
        }
    }

    /// A round is over: what is still pending is tried again.
    pub(super) fn finish_round(&mut self, round: &Round, tick: Tick) {
        self.is_releasing = false;
        let machine = self.parts.ground.machine.borrow();
        let state = machine.state.timers();
        let (mut latest_ms, mut is_left) = (0, round.has_failed);
        for timer in &round.timers {
            if state.get(timer.id).is_some() {
                is_left = true;
                if let Some(near) = &mut self.near {
                    near.put_back((timer.due, timer.id));
                }
            } else {
                let late_ms = tick.now.0.saturating_sub(timer.due.0);
                latest_ms = latest_ms.max(late_ms);
                self.parts.metrics.released(late_ms);
            }
        }
        drop(machine);
        let pause_ms = match pace_of(latest_ms, self.is_shared(tick)) {
            _ if is_left => BACKOFF_MS,
            Pace::Gentle => PAUSE_MS,
            Pace::Full => 0,
        };
        self.paused_until_ms = tick.monotonic_ms + pause_ms;
    }

    /// Sets the gauges.
    pub(super) fn measure(&mut self, now: TimestampMs) {
        let damaged = self.count_damaged();
        let pending = self.parts.ground.machine.borrow().state.timers().pending();
        let of_round = self.works.values().find_map(|work| match work {
            Work::Round(round) => round.timers.first().map(|timer| timer.due.0),
            _ => None,
        });
        let of_wheel = self.near.as_ref().and_then(Near::next_ms);
        let oldest_ms = of_round.into_iter().chain(of_wheel).min();
        let overdue_ms = oldest_ms.map_or(0, |oldest_ms| now.0.saturating_sub(oldest_ms));
        self.parts.metrics.measured(pending, overdue_ms, damaged);
    }
}
