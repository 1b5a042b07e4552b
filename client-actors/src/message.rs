//! What a program sends.

use std::time::Duration;

use bytes::Bytes;
use grus_protocol::{MessageId, NewRecord, QueueId, TimestampMs};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::millis;
use crate::producer::Pick;

/// A message to be sent: a body, and what else it carries.
///
/// Its id is made when it is sent, unless it was given one, and stays the same on every retry.
///
/// ```
/// use grus_client::Message;
///
/// let message = Message::new("42 EUR")
///     .key("order-7")
///     .tag("paid")
///     .header("currency", "EUR");
/// assert_eq!(message.body(), b"42 EUR");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    pub(crate) record: NewRecord,
    pub(crate) queue: Option<QueueId>,
}

impl Message {
    /// A message with a body and nothing else. The body is not copied before it is encoded.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let record = NewRecord { body: body.into(), ..NewRecord::default() };
        Self { record, queue: None }
    }

    /// Adds a key to find the message by. The first one also chooses the queue, unless there is
    /// an [order key](Message::order_key) or a [given queue](Message::queue): messages of one key
    /// keep their order, as long as the topic keeps its number of queues.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.record.keys.push(key.into());
        self
    }

    /// Sets the key of the order it keeps with other messages; it chooses the queue.
    #[must_use]
    pub fn order_key(mut self, key: impl Into<Bytes>) -> Self {
        self.record.order_key = Some(key.into());
        self
    }

    /// Sets the key by which it is stored once: a message whose key its queue has stored within
    /// the topic's `dedup_window_ms` (10 minutes by default) is not stored again, whoever sends
    /// it, and gets the first one's receipt with `duplicate` set. It travels in a batch of its
    /// own. The key chooses the queue, unless something else does: give the same one each time.
    #[must_use]
    pub fn dedup_key(mut self, key: impl Into<Bytes>) -> Self {
        self.record.dedup_key = Some(key.into());
        self
    }

    /// Sets the tag to filter it by.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.record.tag = Some(tag.into());
        self
    }

    /// Adds a header. A name may come more than once.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.record.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the priority, 0 to 9, the greater goes first.
    #[must_use]
    pub fn priority(mut self, priority: u8) -> Self {
        self.record.priority = Some(priority);
        self
    }

    /// Has it delivered at this time, or as soon as it is stored when that is over. It is stored at
    /// once; its receipt says by what it can be [recalled](crate::Client::recall). What counts is
    /// the broker's clock; for a time from now on, [`Message::delay`] does not need this one to be
    /// right.
    ///
    /// ```
    /// use grus_client::{Message, TimestampMs};
    ///
    /// let reminder = Message::new("renew").deliver_at(TimestampMs(1_900_000_000_000));
    /// # assert_eq!(reminder.body(), b"renew");
    /// ```
    #[must_use]
    pub fn deliver_at(mut self, time: TimestampMs) -> Self {
        (self.record.deliver_at, self.record.delay_ms) = (Some(time), None);
        self
    }

    /// Has it delivered so long after the broker took it, by the broker's clock; instead of a
    /// [time](Message::deliver_at). In whole milliseconds.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let check = grus_client::Message::new("paid?").delay(Duration::from_secs(900));
    /// # assert_eq!(check.body(), b"paid?");
    /// ```
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        (self.record.deliver_at, self.record.delay_ms) = (None, Some(millis(delay)));
        self
    }

    /// Has it delivered to nobody once it has been in its queue for so long: since it was stored
    /// or, with a delay, since it was due. In whole milliseconds.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.record.ttl_ms = Some(millis(ttl));
        self
    }

    /// Sends it to this queue of the topic and no other.
    #[must_use]
    pub fn queue(mut self, queue: QueueId) -> Self {
        self.queue = Some(queue);
        self
    }

    /// Gives it an id made before, as when it is sent once more after a restart.
    #[must_use]
    pub fn id(mut self, id: MessageId) -> Self {
        self.record.id = id;
        self
    }

    /// Says when it was made; otherwise that is when it is sent.
    #[must_use]
    pub fn born(mut self, born: TimestampMs) -> Self {
        self.record.born = born;
        self
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.record.body
    }

    /// Which queue it asks for.
    pub(crate) fn pick(&self) -> Pick {
        if let Some(queue) = self.queue {
            return Pick::Given(queue);
        }
        let record = &self.record;
        let key = record.order_key.as_ref().or(record.keys.first()).or(record.dedup_key.as_ref());
        key.map_or(Pick::Any, |key| Pick::Key(xxh3_64(key)))
    }

    /// About how many bytes it takes, encoded and while it waits.
    pub(crate) fn weight(&self) -> usize {
        const FIXED: usize = 96; // the record's own fields, its id, its place in a batch
        FIXED + self.content_bytes()
    }

    /// About how many bytes it takes in a batch.
    pub(crate) fn encoded_bytes(&self) -> usize {
        const FIXED: usize = 26; // lengths, attributes, id, birth
        FIXED + self.content_bytes()
    }

    fn content_bytes(&self) -> usize {
        let record = &self.record;
        let keys: usize = record.keys.iter().map(|key| key.len() + 4).sum();
        let headers: usize =
            record.headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
        let tag = record.tag.as_ref().map_or(0, String::len);
        let order_key = record.order_key.as_ref().map_or(0, Bytes::len);
        let dedup_key = record.dedup_key.as_ref().map_or(0, Bytes::len);
        record.body.len() + keys + headers + tag + order_key + dedup_key
    }
}

impl From<Bytes> for Message {
    fn from(body: Bytes) -> Self {
        Self::new(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_queue_wins_over_an_order_key_and_that_over_a_key() {
        let keyed = Message::new("").key("a").key("b");
        assert_eq!(keyed.pick(), Pick::Key(xxh3_64(b"a")));
        let ordered = keyed.order_key("c");
        assert_eq!(ordered.pick(), Pick::Key(xxh3_64(b"c")));
        assert_eq!(ordered.queue(QueueId(3)).pick(), Pick::Given(QueueId(3)));
        assert_eq!(Message::new("").pick(), Pick::Any);
        let once = Message::new("").dedup_key("d");
        assert_eq!(once.pick(), Pick::Key(xxh3_64(b"d")));
        assert_eq!(once.key("a").pick(), Pick::Key(xxh3_64(b"a")));
    }
}
