//! What one sender has sent to a queue lies there in the order in which it was sent.

use std::collections::BTreeMap;

use grus_protocol::ids::QueueKey;

use super::super::history::NUMBERS_EACH;
use super::{Found, Message, ensure};

/// The newest message of each sender in each queue. A queue is read from its beginning on.
#[derive(Default)]
pub(crate) struct Order(BTreeMap<(QueueKey, u64), Message>);

impl Order {
    pub(crate) fn check(&mut self, message: Message) -> Found {
        let sender = message.number / NUMBERS_EACH;
        let before = self.0.insert((message.queue, sender), message);
        let is_behind =
            |before: Message| before.number < message.number && before.offset < message.offset;
        ensure(before.is_none_or(is_behind), || format!("{message:?} comes behind {before:?}"))
    }
}
