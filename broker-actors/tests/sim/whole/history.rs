//! What clients have sent, and what they were told of it.

use std::collections::BTreeMap;

use grus_protocol::ids::QueueKey;

/// Messages that one sender may send; the number of a message is that of its sender times this, and which of
/// its messages it is.
pub(crate) const NUMBERS_EACH: u64 = 1_000_000;

/// A message that somebody wants stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) queue: QueueKey,
    /// When it is to be seen; 0: at once.
    pub(crate) due: u64,
}

/// A batch that is stored: its sender was told so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Receipt {
    pub(crate) queue: QueueKey,
    /// Its first message; the others follow.
    pub(crate) number: u64,
    pub(crate) count: u64,
    /// Where its first message is; of no account if it is to be seen later.
    pub(crate) offset: u64,
    pub(crate) is_later: bool,
    pub(crate) term: u64,
}

impl Receipt {
    /// Its messages, each with its place.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        (self.number..self.number + self.count).zip(self.offset..)
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) sent: BTreeMap<u64, Sent>,
    pub(crate) receipts: Vec<Receipt>,
    /// Answers that nobody may be given.
    pub(crate) outrages: Vec<String>,
}
