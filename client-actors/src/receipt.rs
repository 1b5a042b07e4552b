//! What a program gets back for what it sent.

use grus_protocol::{Durability, MessageId, Offset, QueueId, TimestampMs, TopicName};

/// The broker's promise for one message: it is stored as `durability` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id.
    pub id: MessageId,
    /// The topic it is in.
    pub topic: TopicName,
    /// The queue it is in.
    pub queue: QueueId,
    /// Its place in the queue.
    pub offset: Offset,
    /// When it was stored, by the broker's clock.
    pub stored: TimestampMs,
    /// What the promise covers.
    pub durability: Durability,
    /// Whether it had been stored before; this is the receipt of that time then: by an earlier
    /// attempt, or as another message with the same [dedup key](crate::Message::dedup_key), whose
    /// id is the one in the queue.
    pub duplicate: bool,
}

/// The broker's promise for a batch: its messages are stored in one queue, in order, without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchReceipt {
    /// The ids of its messages.
    pub ids: Vec<MessageId>,
    /// The topic they are in.
    pub topic: TopicName,
    /// The queue they are in.
    pub queue: QueueId,
    /// The place of the first one; the others follow.
    pub base_offset: Offset,
    /// When they were stored, by the broker's clock.
    pub stored: TimestampMs,
    /// What the promise covers.
    pub durability: Durability,
    /// Whether they had been stored before, see [`Receipt::duplicate`].
    pub duplicate: bool,
}

impl BatchReceipt {
    /// One receipt for each message, in order.
    pub fn receipts(&self) -> impl Iterator<Item = Receipt> + '_ {
        self.ids.iter().zip(self.base_offset.0..).map(|(id, offset)| Receipt {
            id: *id,
            topic: self.topic.clone(),
            queue: self.queue,
            offset: Offset(offset),
            stored: self.stored,
            durability: self.durability,
            duplicate: self.duplicate,
        })
    }
}
