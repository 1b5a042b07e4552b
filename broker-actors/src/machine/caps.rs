//! What a queue may have at most, where its topic refuses what is more.
//!
//! Judged when a batch is applied, in the order of the log: so batches under way count, every
//! replica says the same, and a batch that was stored before is known as that first. Only what a
//! producer sends is judged, for now or for later, by what can be seen at that time: what was taken
//! once, and becomes visible or comes back, never is.

use grus_protocol::batch::RecordBatch;
use grus_protocol::message::WhenFull;

use super::Refusal;
use crate::commands::TopicConfig;

/// What a queue may have at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caps {
    /// Messages; 0: any number.
    pub(crate) messages: u64,
    /// Bytes of batches; 0: any number.
    pub(crate) bytes: u64,
    /// What becomes of more.
    pub(crate) when_full: WhenFull,
}

impl Caps {
    /// Those of a topic's queues.
    pub(crate) const fn of(config: &TopicConfig) -> Self {
        Self {
            messages: config.retention_messages,
            bytes: config.retention_bytes,
            when_full: config.when_full,
        }
    }

    /// Whether a batch fits a queue that has so many messages and bytes.
    ///
    /// # Errors
    /// [`Refusal::AboveCap`] of a batch that would not fit an empty queue either, else
    /// [`Refusal::QueueFull`]; both name the cap.
    pub(crate) fn judge(
        &self,
        messages: u64,
        bytes: u64,
        batch: &RecordBatch,
    ) -> Result<(), Refusal> {
        if self.when_full != WhenFull::Reject {
            return Ok(());
        }
        let (count, length) = (u64::from(batch.count()), u64::from(batch.len_bytes()));
        let above = |messages: u64, bytes: u64| {
            let caps = [
                ("retention_messages", self.messages, messages),
                ("retention_bytes", self.bytes, bytes),
            ];
            caps.into_iter().find(|(_, cap, wanted)| *cap > 0 && wanted > cap)
        };
        if let Some((what, cap, wanted)) = above(count, length) {
            return Err(Refusal::AboveCap { what, cap, wanted });
        }
        match above(messages.saturating_add(count), bytes.saturating_add(length)) {
            None => Ok(()),
            Some((what, cap, wanted)) => Err(Refusal::QueueFull { what, cap, wanted }),
        }
    }
}
