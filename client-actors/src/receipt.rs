//! What a program gets back for what it sent.

use std::fmt;
use std::str::FromStr;

use grus_protocol::message::Timer;
use grus_protocol::{Durability, MessageId, NewRecord, Offset, QueueId, TimestampMs, TopicName};
use thiserror::Error;

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
    /// It waits for its time, and can be [recalled](crate::Client::recall) by this until then. It
    /// has no place in the queue yet: `offset` is 0.
    pub scheduled: Option<RecallHandle>,
    /// When it is due, by the broker's clock. `None`: it is in its queue, or it is a duplicate,
    /// which is due when the first one is ([`Client::show_scheduled`](crate::Client::show_scheduled)).
    pub due: Option<TimestampMs>,
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
    /// They wait for their time: the handle of the first one. They have no places in the queue
    /// yet: `base_offset` is 0.
    pub scheduled: Option<RecallHandle>,
    /// When each is due, see [`Receipt::due`]; empty where that is `None`.
    pub dues: Vec<TimestampMs>,
}

impl BatchReceipt {
    /// One receipt for each message, in order.
    pub fn receipts(&self) -> impl Iterator<Item = Receipt> + '_ {
        self.ids.iter().zip(0..).map(|(id, number)| {
            let due = self.dues.get(number as usize).copied();
            let scheduled = self.scheduled.as_ref().map(|first| first.nth(number));
            let offset =
                if scheduled.is_some() { 0 } else { self.base_offset.0 + u64::from(number) };
            Receipt {
                id: *id,
                topic: self.topic.clone(),
                queue: self.queue,
                offset: Offset(offset),
                stored: self.stored,
                durability: self.durability,
                duplicate: self.duplicate,
                scheduled,
                due,
            }
        })
    }
}

/// When a message asked to be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DueTime {
    /// At this time.
    At(TimestampMs),
    /// So many milliseconds after the broker took it.
    After(u64),
}

impl DueTime {
    /// What a record asks for; `None`: at once.
    pub(crate) fn of(record: &NewRecord) -> Option<Self> {
        record.deliver_at.map(Self::At).or_else(|| record.delay_ms.map(Self::After))
    }

    /// The time itself, given that from which delays count.
    pub(crate) const fn counted_from(self, from: TimestampMs) -> TimestampMs {
        match self {
            Self::At(time) => time,
            Self::After(delay_ms) => TimestampMs(from.0.saturating_add(delay_ms)),
        }
    }
}

/// Names a scheduled message for as long as it waits. As text: `orders/3/70000.12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecallHandle {
    /// The topic it is for.
    pub topic: TopicName,
    /// The queue it is for.
    pub queue: QueueId,
    /// Which it is of those.
    pub timer: Timer,
}

impl RecallHandle {
    /// The handle of the message so many behind this one in its batch.
    #[must_use]
    pub fn nth(&self, number: u32) -> Self {
        Self { timer: self.timer.nth(number), ..self.clone() }
    }
}

impl fmt::Display for RecallHandle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}.{}", self.topic, self.queue, self.timer.index, self.timer.place)
    }
}

impl FromStr for RecallHandle {
    type Err = NotAHandle;

    fn from_str(text: &str) -> Result<Self, NotAHandle> {
        let parts = || {
            let (queue, timer) = text.rsplit_once('/')?;
            let (topic, queue) = queue.rsplit_once('/')?;
            let (index, place) = timer.split_once('.')?;
            Some(Self {
                topic: TopicName::parse_any(topic).ok()?,
                queue: QueueId(queue.parse().ok()?),
                timer: Timer { index: index.parse().ok()?, place: place.parse().ok()? },
            })
        };
        parts().ok_or(NotAHandle)
    }
}

/// A text names no scheduled message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a handle is TOPIC/QUEUE/INDEX.PLACE, such as orders/3/70000.12")]
pub struct NotAHandle;

#[cfg(test)]
mod tests {
    use super::*;

    fn handle() -> RecallHandle {
        let topic = TopicName::try_from("a.b-c").unwrap();
        RecallHandle { topic, queue: QueueId(3), timer: Timer { index: 1 << 40, place: 12 } }
    }

    #[test]
    fn a_handle_reads_back_from_its_text_and_nothing_else_does() {
        assert_eq!(handle().to_string(), "a.b-c/3/1099511627776.12");
        assert_eq!(handle().to_string().parse(), Ok(handle()));
        for wrong in
            ["", "a", "a/3", "a/3/5", "a/x/5.1", "a/3/5.-1", "../3/5.1", "a/3/5.99999999999"]
        {
            assert_eq!(wrong.parse::<RecallHandle>(), Err(NotAHandle), "{wrong}");
        }
    }

    #[test]
    fn the_messages_of_a_batch_are_scheduled_one_by_one() {
        let receipt = |scheduled: Option<RecallHandle>| BatchReceipt {
            ids: vec![MessageId::from_bytes([1; 16]), MessageId::from_bytes([2; 16])],
            topic: handle().topic,
            queue: QueueId(3),
            base_offset: Offset(0),
            stored: TimestampMs(1),
            durability: Durability::Persisted,
            duplicate: false,
            dues: vec![TimestampMs(7); if scheduled.is_some() { 2 } else { 0 }],
            scheduled,
        };
        let due = Some(TimestampMs(7));
        let places = |receipt: &BatchReceipt| -> Vec<_> {
            let each = receipt.receipts();
            each.map(|one| (one.offset.0, one.scheduled.map(|it| it.timer.place), one.due))
                .collect()
        };
        assert_eq!(places(&receipt(Some(handle()))), [(0, Some(12), due), (0, Some(13), due)]);
        assert_eq!(places(&receipt(None)), [(0, None, None), (1, None, None)]);
    }
}
