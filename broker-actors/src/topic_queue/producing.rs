//! The way of a batch from its producer into the log.

use grus_log::Disk;
use grus_mailbox::{Credit, PutError};

use super::{OVERLOADED_RETRY_MS, Produce, TopicQueue};
use crate::commands::Command;
use crate::commands::delay::Scheduling;
use crate::error::QueueError;
use crate::shard::{Propose, Waiter};

impl<D: Disk> TopicQueue<D> {
    /// Hands a batch on, with the port that gets its receipt.
    pub(super) fn produce(&mut self, msg: Produce, credit: Credit) {
        let Produce { batch, dedup_key, due, reply } = msg;
        if self.reading().is_none() {
            return reply.send(Err(QueueError::UnknownQueue));
        }
        let queue = self.parts.key;
        if dedup_key.is_none() && due.is_none() {
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
}
