//! What a shard does by the clock: retention, one sweep at a time, and a look at old entries.

use grus_log::{Disk, Log};
use grus_mailbox::reply::port;
use grus_mailbox::{Credit, Inbox, Room, Tick, Weigh};
use grus_protocol::ids::{Offset, QueueKey};

use super::{Propose, ShardActor, Waiter};
use crate::commands::Command;
use crate::delay_wheel::messages::ClearBelow;
use crate::reader::CheckEntries;
use crate::retention::{Moves, Removed, RunFacts, RunSource, Step, Sweep};
use crate::rings::Rings;
use crate::storage::Checked;

/// How often a shard says in the log that full queues remove messages.
const TOLD_EVERY_MS: u64 = 60_000;
/// A sweep comes early once this much has been stored since the last: what it lets go of at once the log
/// uses again, where all of ten seconds' load (3.6 GB at 360 MB/s) had to be taken from the disk and new
/// files made, and the log was that much larger than retention asks for.
const SWEEP_BYTES: u64 = 1 << 30;
/// Bytes of batches looked up at a time.
const RUNS_STEP_BYTES: u64 = 64 * 1024;

/// The log was trimmed, or there was nothing to trim.
#[derive(Debug)]
pub(super) struct TrimDone {
    pub(super) error: Option<String>,
}

impl Weigh for TrimDone {}

/// Nothing that waits for its time lies up to there any more; none if the log should stay.
#[derive(Debug)]
pub(super) struct Cleared {
    pub(super) index: Option<u64>,
}

impl Weigh for Cleared {}

/// Bytes of old entries checked per tick, so that a start with much data disturbs nobody.
const CHECKED_BYTES_PER_TICK: u32 = 4 * 1024 * 1024;

/// Where old entries are checked.
#[derive(Debug)]
pub(super) struct Checking {
    /// The Reader.
    pub(super) reader: Inbox<CheckEntries>,
    /// Whom it tells.
    pub(super) storage: Inbox<Checked>,
}

/// Where retention stands.
#[derive(Debug)]
pub(super) struct Upkeep {
    checking: Checking,
    every_ms: u64,
    schedule: Schedule,
    sweep: Option<Sweep>,
    /// Retain items proposed and not yet applied.
    retains_under_way: usize,
    /// Index up to which the log may go once those are applied.
    unneeded: Option<u64>,
    trimming: bool,
    /// A Retain item of this sweep was not applied.
    spoiled: bool,
    /// Messages that full queues have removed, and nobody was told of yet.
    untold: u64,
    /// When that may be told again.
    tells_at_ms: u64,
    /// When rings are looked at next.
    next_expiry_ms: u64,
}

/// When retention sweeps.
#[derive(Debug)]
struct Schedule {
    next_sweep_ms: u64,
    /// The least that the log has held since the last sweep began.
    held_bytes: u64,
}

impl Schedule {
    /// Whether it is time for a sweep of a log that holds so much.
    fn is_due(&mut self, monotonic_ms: u64, log_bytes: u64) -> bool {
        self.held_bytes = self.held_bytes.min(log_bytes);
        monotonic_ms >= self.next_sweep_ms || log_bytes - self.held_bytes >= SWEEP_BYTES
    }

    const fn begin(&mut self, monotonic_ms: u64, every_ms: u64) {
        self.next_sweep_ms = monotonic_ms + every_ms;
        self.held_bytes = u64::MAX;
    }
}

impl Upkeep {
    /// Sweeps once in `every_ms`, and whenever [`SWEEP_BYTES`] have been stored.
    pub(super) const fn new(every_ms: u64, checking: Checking) -> Self {
        Self {
            checking,
            every_ms,
            schedule: Schedule { next_sweep_ms: 0, held_bytes: u64::MAX },
            sweep: None,
            retains_under_way: 0,
            unneeded: None,
            trimming: false,
            spoiled: false,
            untold: 0,
            tells_at_ms: 0,
            next_expiry_ms: 0,
        }
    }

    /// A Retain item is applied, and has removed so much, or has failed. If it failed, its queues keep
    /// their starts, so nothing that this sweep found may be trimmed.
    pub(super) fn retain_finished(&mut self, removed: Option<Removed>) {
        self.retains_under_way -= 1;
        self.spoiled |= removed.is_none();
        self.untold += removed.map_or(0, |removed| removed.full);
    }

    /// Messages that full queues have removed since that was told last; none where it is too early to
    /// tell again, for some queues are at their cap always.
    fn take_untold(&mut self, monotonic_ms: u64) -> Option<u64> {
        if self.untold == 0 || monotonic_ms < self.tells_at_ms {
            return None;
        }
        self.tells_at_ms = monotonic_ms + TOLD_EVERY_MS;
        Some(std::mem::take(&mut self.untold))
    }

    fn begin(&mut self, tick: Tick, applied: u64) {
        self.schedule.begin(tick.monotonic_ms, self.every_ms);
        self.spoiled = false;
        self.sweep = Some(Sweep::new(tick.now, applied));
    }

    /// Forgets the sweep: another member leads. Should this one come to lead again, it begins at once:
    /// groups of temporary queues must hear where those begin now.
    fn give_up(&mut self) {
        self.schedule.next_sweep_ms = 0;
        self.sweep = None;
        self.unneeded = None;
    }

    pub(super) fn trim_finished(&mut self, done: TrimDone) {
        self.trimming = false;
        if let Some(error) = done.error {
            tracing::warn!(%error, "log was not trimmed");
        }
    }

    /// The index to trim to, once.
    fn take_trim(&mut self) -> Option<u64> {
        if self.retains_under_way > 0 || self.trimming {
            return None;
        }
        let index = self.unneeded.take()?;
        if self.spoiled {
            return None;
        }
        self.trimming = true;
        Some(index)
    }
}

/// The index of a log, and the rings beside it, for retention.
struct LogRuns<'a, D: Disk>(&'a Log<D>, &'a Rings);

impl<D: Disk> RunSource for LogRuns<'_, D> {
    fn runs(&self, queue: QueueKey, from: Offset, runs_max: usize) -> Vec<RunFacts> {
        let mut found: Vec<RunFacts> = Vec::new();
        while found.len() < runs_max {
            // One byte asks for one run; small steps, for a queue of tiny batches has very many.
            let bytes_max = if runs_max == 1 { 1 } else { RUNS_STEP_BYTES };
            let from = found.last().map_or(from, |last| last.end);
            let runs = self.0.runs(queue, from, bytes_max);
            if runs.is_empty() {
                break;
            }
            found.extend(runs.into_iter().take(runs_max - found.len()).map(|run| RunFacts {
                end: Offset(run.base.0 + u64::from(run.count)),
                bytes: u64::from(run.length),
                stored: run.stored,
                index: run.at.index,
            }));
        }
        found
    }

    fn ring_start(&self, queue: QueueKey) -> Option<Offset> {
        Some(self.1.numbers(queue).visible_start)
    }
}

impl<D: Disk> ShardActor<D> {
    /// Has the next old entries checked, once the last ones are.
    pub(super) fn check_old_entries(&self) {
        let Checking { reader, storage } = &self.upkeep.checking;
        if reader.free() == 0 {
            return;
        }
        let scrub = self.ground.log.borrow().next_scrub(CHECKED_BYTES_PER_TICK);
        if let Some(scrub) = scrub {
            // Stopped: the shard is stopping, too.
            let _ = reader.try_put(CheckEntries { scrub, storage: storage.clone() });
        }
    }

    /// Says that full queues remove messages, if they do.
    fn tell_of_full_queues(&mut self, monotonic_ms: u64) {
        self.upkeep.untold += self.ground.rings.borrow_mut().take_untold();
        if let Some(messages) = self.upkeep.take_untold(monotonic_ms) {
            let shard = self.ground.shard;
            tracing::warn!(%shard, messages, "full queues have removed their oldest messages");
        }
    }

    /// Drops what temporary queues have kept for long enough. It needs nothing of the log, and waits
    /// for nothing there.
    fn expire_rings(&mut self, tick: Tick) {
        if tick.monotonic_ms < self.upkeep.next_expiry_ms {
            return;
        }
        let machine = self.ground.machine.borrow();
        let mut rings = self.ground.rings.borrow_mut();
        let (removed, is_behind) = rings.expire(tick.now, |topic| machine.state.topic(topic));
        self.metrics.retained().removed(removed);
        let wait_ms = if is_behind { 0 } else { self.upkeep.every_ms };
        self.upkeep.next_expiry_ms = tick.monotonic_ms + wait_ms;
    }

    /// Goes on with retention; only a leader that is ready decides what goes.
    pub(super) fn keep_up(&mut self, tick: Tick, room: &mut Room<'_, Self>) {
        self.tell_of_full_queues(tick.monotonic_ms);
        self.expire_rings(tick);
        let status = self.group.status();
        if !status.ready {
            self.upkeep.give_up();
            return;
        }
        if let Some(index) = self.upkeep.take_trim() {
            return self.clear_below(index, room);
        }
        if self.upkeep.sweep.is_none() {
            let busy = self.upkeep.retains_under_way > 0 || self.upkeep.trimming;
            let log_bytes = self.ground.log.borrow().stats().bytes;
            if !self.upkeep.schedule.is_due(tick.monotonic_ms, log_bytes) || busy {
                return;
            }
            let Some(applied) = status.applied else { return };
            self.upkeep.begin(tick, applied);
        }
        let Some(mut sweep) = self.upkeep.sweep.take() else { return };
        let step = {
            let machine = self.ground.machine.borrow();
            let log = self.ground.log.borrow();
            sweep.step(&machine.state, &LogRuns(&log, &self.ground.rings.borrow()))
        };
        let Moves { retain, removed } = match step {
            Step::More(moves) => {
                self.upkeep.sweep = Some(sweep);
                moves
            }
            Step::Last { moves, unneeded } => {
                if sweep.is_behind() {
                    self.upkeep.schedule.next_sweep_ms = 0;
                }
                self.upkeep.unneeded = Some(unneeded);
                moves
            }
        };
        if !retain.is_empty() {
            self.upkeep.retains_under_way += 1;
            let propose = Propose::new(&Command::Retain(retain), Waiter::Retain { removed });
            self.propose(propose, Credit::unbounded(), room);
        }
    }

    /// Has the wheel carry on what must stay, before the log lets go of what lies up to `index`.
    fn clear_below(&mut self, index: u64, room: &mut Room<'_, Self>) {
        let (reply, answer) = port();
        // A wheel that stops, or panics, drops the port: nothing is trimmed this time.
        let _ = self.wheel.try_put(ClearBelow { index, reply });
        room.spawn_into(async move { Cleared { index: answer.await.ok().flatten() } });
    }

    pub(super) fn trim(&mut self, index: u64, room: &mut Room<'_, Self>) {
        let group = self.group.clone();
        room.spawn_into(async move {
            TrimDone { error: group.trim(index).await.err().map(|error| error.to_string()) }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_due_by_the_clock_and_by_what_was_stored() {
        const GIB: u64 = 1 << 30;
        let mut schedule = Schedule { next_sweep_ms: 0, held_bytes: u64::MAX };
        // At 0 ms it has never swept.
        assert!(schedule.is_due(0, 5 * GIB));
        schedule.begin(0, 10_000);
        assert!(!schedule.is_due(100, 5 * GIB));
        assert!(!schedule.is_due(200, 6 * GIB - 1));
        // What the last sweep let go of has left the log meanwhile.
        assert!(!schedule.is_due(300, 4 * GIB));
        assert!(!schedule.is_due(400, 5 * GIB - 1));
        assert!(schedule.is_due(500, 5 * GIB));
        schedule.begin(500, 10_000);
        assert!(!schedule.is_due(10_499, 5 * GIB));
        assert!(schedule.is_due(10_500, 5 * GIB), "by the clock");
    }
}
