//! A place in a queue has one message, on whichever replica, whoever leads.

use std::collections::BTreeMap;

use grus_consensus::NodeId;
use grus_protocol::ids::QueueKey;

use super::{Found, Message};

/// The message at each place, and when it was stored.
#[derive(Default)]
pub(crate) struct Offsets(BTreeMap<(QueueKey, u64), Message>);

impl Offsets {
    /// Whether it is the first that is seen there.
    pub(crate) fn check(&mut self, node: NodeId, message: Message) -> Result<bool, String> {
        let place = (message.queue, message.offset);
        let Some(first) = self.0.get(&place) else {
            self.0.insert(place, message);
            return Ok(true);
        };
        let same: Found = super::ensure(*first == message, || {
            format!("member {node} has {message:?}, another one has {first:?}")
        });
        same.map(|()| false)
    }
}
