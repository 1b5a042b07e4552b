//! Carrying messages on, so that the log can let go of its oldest segments.
//!
//! What is carried on is written once more, so it is done only where it frees at least as much as it
//! writes: of the segments that nobody else needs, those go whose pending messages are at most half
//! of their bytes. So the log is at most about twice what is pending, and rolling writes no more
//! than producers did.

use bytes::Bytes;
use grus_log::Disk;
use grus_mailbox::Port;

use super::messages::{ClearBelow, ItemDone};
use super::{DelayWheel, Work};
use crate::commands::Command;
use crate::commands::delay::ROLL_HEADER_BYTES;
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Batches carried on at once.
const ROLLED_BATCHES_MAX: usize = 256;
/// Bytes of them, but for a single larger batch.
const ROLLED_BYTES_MAX: u64 = 256 * 1024;
/// Looks at all that lies below, from the first on: what a look leaves behind, the next one takes.
const LOOKS_MAX: u32 = 3;

/// Clearing the log up to an index.
pub(super) struct Rolling {
    bound: u64,
    after: TimerId,
    looks: u32,
    is_under_way: bool,
    reply: Port<Option<u64>>,
}

/// Batches that are on their way into a later entry.
pub(super) struct RollRound {
    pub(super) batches: Vec<Timer>,
    left: usize,
    has_failed: bool,
}

impl RollRound {
    /// Notes what became of an item; true when that was the last.
    pub(super) fn item_done(&mut self, done: &ItemDone) -> bool {
        self.left -= 1;
        self.has_failed |= done.result.is_err();
        self.left == 0
    }
}

/// How many of the oldest segments may go, given the bytes of each and those of them that must be
/// carried on.
fn segments_to_clear(bytes: &[u64], pending: &[u64], may_roll: bool) -> usize {
    let (mut all, mut carried, mut cleared) = (0, 0, 0);
    for (nth, (bytes, pending)) in (1..).zip(bytes.iter().zip(pending)) {
        all += bytes;
        carried += pending;
        if carried == 0 || may_roll && carried * 2 <= all {
            cleared = nth;
        }
    }
    cleared
}

impl<D: Disk> DelayWheel<D> {
    /// Answers up to where the log may go, once what is pending there was carried on.
    pub(super) fn clear_below(&mut self, ask: ClearBelow) {
        let ClearBelow { index, reply } = ask;
        let ground = &self.parts.ground;
        let machine = ground.machine.borrow();
        let timers = machine.state.timers();
        if timers.pending() == 0 {
            return reply.send(Some(index));
        }
        let log = ground.log.borrow();
        let (ends, bytes): (Vec<u64>, Vec<u64>) = log.segments_below(index).into_iter().unzip();
        let pending = timers.bytes_below(&ends);
        let cleared = segments_to_clear(&bytes, &pending, !log.is_disk_full());
        let bound = cleared.checked_sub(1).map(|last| ends[last]);
        drop(log);
        drop(machine);
        let Some(bound) = bound.filter(|_| self.rolling.is_none()) else {
            return reply.send(None);
        };
        let (after, looks, is_under_way) = (TimerId::FIRST, 0, false);
        self.rolling = Some(Rolling { bound, after, looks, is_under_way, reply });
    }

    /// Carries the next batches on.
    pub(super) fn roll_on(&mut self) {
        let Some(rolling) = self.rolling.as_mut().filter(|rolling| !rolling.is_under_way) else {
            return;
        };
        let machine = self.parts.ground.machine.borrow();
        let timers = machine.state.timers();
        let mut batches = timers.lying_below(rolling.bound, rolling.after, ROLLED_BATCHES_MAX);
        while batches.is_empty() && rolling.looks < LOOKS_MAX && rolling.after != TimerId::FIRST {
            rolling.looks += 1;
            rolling.after = TimerId::FIRST;
            batches = timers.lying_below(rolling.bound, rolling.after, ROLLED_BATCHES_MAX);
        }
        drop(machine);
        if batches.is_empty() || rolling.looks == LOOKS_MAX {
            let bound = batches.is_empty().then_some(rolling.bound);
            if let Some(rolling) = self.rolling.take() {
                rolling.reply.send(bound);
            }
            return;
        }
        let mut bytes = 0;
        let fits = batches.iter().take_while(|batch| {
            bytes += u64::from(batch.length);
            bytes <= ROLLED_BYTES_MAX
        });
        let count = fits.count().max(1);
        batches.truncate(count);
        rolling.is_under_way = true;
        let round = RollRound { batches: batches.clone(), left: 0, has_failed: false };
        self.start(Work::Roll(round), &batches);
    }

    /// Proposes what is carried on; it is in memory. What is damaged, or larger than an entry may be by
    /// now, cannot be carried on: the log keeps it, from its entry on, unless it was given up.
    pub(super) fn roll(&mut self, ticket: u64) {
        let Some(Work::Roll(round)) = self.works.get(&ticket) else { return };
        let (mut commands, mut damaged) = (Vec::new(), Vec::new());
        let batch_bytes_max = self.parts.item_bytes_max.saturating_sub(ROLL_HEADER_BYTES as usize);
        let fits = |bytes: &Bytes| bytes.len() <= batch_bytes_max;
        for batch in &round.batches {
            match self.batch_of(batch).filter(fits) {
                Some(bytes) => {
                    let (queue, timer) = (batch.queue, batch.batch);
                    commands.push(Command::Roll { queue, timer, batch: bytes });
                }
                None => damaged.push(*batch),
            }
        }
        for batch in damaged {
            let recalls = self.give_up(&self.pending_of(&batch));
            if let (true, Some(rolling)) = (recalls.is_empty(), &mut self.rolling) {
                rolling.bound = rolling.bound.min(batch.at.index.saturating_sub(1));
            }
            commands.extend(recalls);
        }
        if commands.is_empty() {
            self.works.remove(&ticket);
            if let Some(rolling) = &mut self.rolling {
                rolling.is_under_way = false;
            }
            return;
        }
        if let Some(Work::Roll(round)) = self.works.get_mut(&ticket) {
            round.left = commands.len();
        }
        for (number, command) in commands.iter().enumerate() {
            self.propose(command, ticket, number);
        }
    }

    pub(super) fn finish_roll(&mut self, round: &RollRound) {
        if round.has_failed {
            return self.give_up_rolling();
        }
        let bytes = round.batches.iter().map(|batch| u64::from(batch.length)).sum();
        self.parts.metrics.rolled(bytes);
        if let (Some(rolling), Some(last)) = (&mut self.rolling, round.batches.last()) {
            rolling.after = last.batch;
            rolling.is_under_way = false;
        }
    }

    /// The next sweep of retention tries again.
    fn give_up_rolling(&mut self) {
        if let Some(rolling) = self.rolling.take() {
            rolling.reply.send(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::segments_to_clear;

    #[test]
    fn segments_go_while_carrying_on_frees_more_than_it_writes() {
        assert_eq!(segments_to_clear(&[], &[], true), 0);
        assert_eq!(segments_to_clear(&[100, 100], &[0, 0], true), 2, "nothing pending");
        assert_eq!(segments_to_clear(&[100, 100, 100], &[50, 50, 51], true), 2);
        assert_eq!(segments_to_clear(&[100, 100, 100], &[90, 10, 10], true), 3, "taken together");
        assert_eq!(segments_to_clear(&[100, 100], &[100, 100], true), 0, "all of it is pending");
        assert_eq!(segments_to_clear(&[100, 100], &[0, 10], false), 1, "no room to write");
    }
}
