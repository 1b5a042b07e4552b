//! What a queue may have at most, where its topic refuses what is more.
//!
//! Judged when a batch is applied, in the order of the log: so batches under way count, every
//! replica says the same, and a batch that was stored before is known as that first. Only what a
//! producer sends is judged: what was taken once, and becomes visible or comes back, never is.

use grus_protocol::batch::RecordBatch;
use grus_protocol::message::WhenFull;

use super::Refusal;
use crate::commands::TopicConfig;

/// Whether a batch fits a queue that has so many messages and bytes.
///
/// # Errors
/// [`Refusal::QueueFull`], which names the cap.
pub(crate) fn judge(
    config: &TopicConfig,
    messages: u64,
    bytes: u64,
    batch: &RecordBatch,
) -> Result<(), Refusal> {
    if config.when_full != WhenFull::Reject {
        return Ok(());
    }
    let messages = messages.saturating_add(u64::from(batch.count()));
    let bytes = bytes.saturating_add(u64::from(batch.len_bytes()));
    let caps = [
        ("retention_messages", config.retention_messages, messages),
        ("retention_bytes", config.retention_bytes, bytes),
    ];
    match caps.into_iter().find(|(_, cap, wanted)| *cap > 0 && wanted > cap) {
        None => Ok(()),
        Some((what, cap, wanted)) => Err(Refusal::QueueFull { what, cap, wanted }),
    }
}
