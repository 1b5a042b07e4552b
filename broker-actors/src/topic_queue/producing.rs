//! The way of a batch from its producer into the log, or into the ring of a temporary queue.

use grus_log::Disk;
use grus_mailbox::{Credit, PutError};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Durability, TimestampMs};

use super::{Applied, OVERLOADED_RETRY_MS, Produce, Receipt, TopicQueue};
use crate::commands::Command;
use crate::commands::delay::Scheduling;
use crate::error::QueueError;
use crate::retention::Removed;
use crate::shard::{Propose, Waiter};

impl<D: Disk> TopicQueue<D> {
    /// Hands a batch on, with the port that gets its receipt.
    pub(super) fn produce(&mut self, msg: Produce, credit: Credit, now: TimestampMs) {
        let Produce { batch, dedup_key, due, reply } = msg;
        let Some(reading) = self.reading() else {
            return reply.send(Err(QueueError::UnknownQueue));
        };
        if reading.is_temporary() {
            let is_plain = due.is_none() && dedup_key.is_none();
            let kept = if is_plain { self.keep(&batch, now) } else { Err(QueueError::InMemory) };
            reply.send(kept);
            return drop(credit);
        }
        let is_plain = due.is_none() && dedup_key.is_none();
        let first = if is_plain { self.repeats.first(&batch, reply) } else { Some(reply) };
        let Some(reply) = first else { return };
        let queue = self.parts.key;
        // Without the lease it is not known what there is: the shard says who leads instead.
        if dedup_key.is_none() && self.parts.ground.holds_lease() {
            let judged = self.parts.ground.machine.borrow().state.judge_room(queue, &batch);
            if let Err(full) = judged {
                self.parts.retained.refused();
                return reply.send(Err(full.into()));
            }
        }
        let batch = batch.into_bytes();
        let command = match (due, dedup_key) {
            (Some(due), key) => Command::Schedule(Scheduling::new(queue, key, due, batch)),
            (None, None) => Command::Append { queue, batch },
            (None, Some(key)) => Command::AppendOnce { queue, key, batch },
        };
        let waiter = Waiter::Produce { reply, credit };
        match self.parts.shard.try_put(Propose::new(&command, waiter)) {
            Ok(()) => {}
            Err(PutError::Full(propose)) => {
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                propose.waiter.fail(error);
            }
            Err(PutError::Stopped(propose)) => {
                propose.waiter.fail(QueueError::Stopping);
            }
        }
    }

    /// Keeps a batch in the queue's ring. Readers hear of it once the mailbox is drained.
    fn keep(&self, batch: &RecordBatch, now: TimestampMs) -> Result<Receipt, QueueError> {
        let ground = &self.parts.ground;
        if !ground.holds_lease() {
            return Err(ground.not_leader());
        }
        if !ground.complete.get() {
            return Err(QueueError::StorageFull); // it is not known yet which life this is
        }
        let queue = self.parts.key;
        let machine = ground.machine.borrow();
        let config = machine.state.topic(queue.topic).ok_or(QueueError::UnknownQueue)?;
        let newest = machine.state.newest_epoch(batch.producer_id());
        let pushed = ground.rings.borrow_mut().push(config, queue, batch, newest, now);
        let pushed = pushed.inspect_err(|refusal| {
            if refusal.is_of_a_cap() {
                self.parts.retained.refused();
            }
        })?;
        self.parts.retained.removed(Removed { by_age: 0, full: pushed.dropped });
        if let Some(own) = &self.own {
            let _ = own.applied.try_put(Applied); // full: one waits already
        }
        let appended = pushed.appended;
        Ok(Receipt {
            base_offset: appended.base_offset,
            timer: None,
            count: appended.count,
            term: appended.term,
            stored: appended.stored,
            durability: Durability::Memory,
            duplicate: appended.duplicate,
        })
    }
}
