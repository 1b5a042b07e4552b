//! A producer with sequences may send a batch as often as it likes: its messages are stored once.

use std::collections::BTreeMap;

use super::{Found, Message, ensure};

/// Where each message is.
#[derive(Default)]
pub(crate) struct Stored(BTreeMap<u64, Message>);

impl Stored {
    /// Of each place, the first time it is seen.
    pub(crate) fn check(&mut self, message: Message) -> Found {
        let before = self.0.insert(message.number, message);
        ensure(before.is_none(), || format!("stored twice: {before:?} and {message:?}"))
    }
}
