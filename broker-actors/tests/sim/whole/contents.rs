//! What replicas have in their queues: each is read by itself, from its own log.

use std::collections::BTreeMap;

use grus_broker::topic_queue::letters::facts_of;
use grus_consensus::NodeId;
use grus_protocol::ids::{QueueId, QueueKey};

use super::CONSUMED;
use super::checks::Message;
use super::story::Story;
use crate::groups::town::GROUP;
use crate::later::{records, visible_so_far};
use crate::world::Running;

/// What any replica has shown so far.
#[derive(Default)]
pub(crate) struct Contents {
    /// The number of each message by its place.
    pub(crate) at: BTreeMap<(QueueKey, u64), u64>,
    /// How far each member's queues were read.
    read_to: BTreeMap<(NodeId, QueueKey), u64>,
}

impl Contents {
    /// What a member has in a queue that it had not when it was looked at last.
    pub(crate) fn news(
        &mut self,
        node: NodeId,
        running: &Running,
        queue: QueueKey,
    ) -> Vec<Message> {
        let read_to = self.read_to.entry((node, queue)).or_default();
        let mut news = Vec::new();
        for (offset, number, stored) in visible_so_far(running, queue, *read_to) {
            news.push(Message { queue, offset, number, stored });
            self.at.entry((queue, offset)).or_insert(number);
            *read_to = offset + 1;
        }
        news
    }

    /// Reads all of a member's queues anew, in the next look.
    pub(crate) fn forget_reads_of(&mut self, node: NodeId) {
        self.read_to.retain(|(member, _), _| *member != node);
    }

    /// How many messages a queue has.
    pub(crate) fn count(&self, queue: QueueKey) -> usize {
        self.at.range((queue, 0)..=(queue, u64::MAX)).count()
    }
}

impl Story {
    /// Reads what dead letters have come since the last look, where they are led.
    pub(super) fn read_letters(&mut self) {
        let Some(leader) = self.leader() else { return };
        let own = QueueKey { topic: GROUP.dead_letters(), queue: QueueId(0) };
        let from = self.letters.last_key_value().map_or(0, |(offset, _)| offset + 1);
        for (offset, record, _) in records(self.world.running(leader), own, from) {
            let facts = facts_of(&record).expect("a letter says where it came from");
            let queue = QueueKey { queue: facts.queue, ..CONSUMED[0] };
            let place = (queue, facts.offset.0);
            let is_new = self.letters.values().all(|other| *other != place);
            assert!(is_new, "two dead letters of {queue} at {}", facts.offset);
            self.letters.insert(offset, place);
        }
    }
}
