//! Scheduled messages whose bytes are damaged, or more than an entry takes since limits were lowered.
//!
//! One is named once, counted, and stays pending: nobody but the operator may decide that it is lost. It is
//! recalled by its handle like any other one. Where its entry was given up by `log.accept_loss` (of those that a
//! start names), the wheel takes it back. Until then the log keeps what it lies in, and nothing else.

use grus_log::Disk;

use super::DelayWheel;
use crate::commands::Command;
use crate::timers::TimerId;
use crate::timers::run::Timer;

/// Damaged batches that are told apart; of those beyond, each look says so again.
const NAMED_MAX: usize = 1_024;

impl<D: Disk> DelayWheel<D> {
    /// Takes note of timers whose messages cannot be read. What takes back those that the operator has
    /// given up.
    pub(super) fn give_up(&mut self, timers: &[Timer]) -> Vec<Command> {
        let mut recalls = Vec::new();
        for timer in timers {
            if self.parts.ground.log.borrow().accepts_loss_of(timer.at.index) {
                recalls.push(Command::Recall { queue: timer.queue, timer: timer.id });
                continue;
            }
            let is_known = self.damaged.contains(&timer.batch);
            if !is_known && self.damaged.len() < NAMED_MAX {
                self.damaged.insert(timer.batch);
            }
            if !is_known {
                self.name(timer);
            }
        }
        if !recalls.is_empty() {
            let (shard, messages) = (self.parts.ground.shard.0, recalls.len());
            tracing::warn!(
                shard,
                messages,
                "damaged scheduled messages were given up: they are taken back"
            );
        }
        recalls
    }

    fn name(&self, timer: &Timer) {
        let machine = self.parts.ground.machine.borrow();
        let topic = machine.state.topic(timer.queue.topic).map(|topic| topic.name.to_string());
        let Timer { queue, id, due, count, at, .. } = timer;
        let handle = format!("{}/{}/{id}", topic.unwrap_or_default(), queue.queue);
        let shard = self.parts.ground.shard.0;
        tracing::error!(
            shard,
            handle,
            due = due.0,
            messages = count,
            entry = at.index,
            "a scheduled message cannot be read, or is larger than limits.batch_bytes_max now allows: it and the \
             others of its batch wait until they are recalled"
        );
    }

    /// The pending timers of a batch.
    pub(super) fn pending_of(&self, batch: &Timer) -> Vec<Timer> {
        let machine = self.parts.ground.machine.borrow();
        let timers = machine.state.timers();
        (0..batch.count).filter_map(|number| timers.get(batch.batch.nth(number))).collect()
    }

    /// Forgets those that nobody needs any more; how many batches are damaged.
    pub(super) fn count_damaged(&mut self) -> usize {
        if !self.damaged.is_empty() {
            let machine = self.parts.ground.machine.borrow();
            let timers = machine.state.timers();
            let lives = |batch: &TimerId| {
                let from = TimerId { index: batch.index, place: batch.place.saturating_sub(1) };
                timers
                    .lying_below(u64::MAX, from, 1)
                    .first()
                    .is_some_and(|next| next.batch == *batch)
            };
            self.damaged.retain(lives);
        }
        self.damaged.len()
    }
}
