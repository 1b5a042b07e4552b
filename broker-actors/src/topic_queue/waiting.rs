//! The queues of a shard that have to be told the time: fetches are parked on them, or turns put off.
//! Pure.
//!
//! Where a shard is led again soon after it was not, two actors of one queue live side by side for a
//! while: the one of before has much to answer still. Each notes itself by its own reign.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use grus_protocol::ids::QueueKey;

/// See the module documentation. A clone is the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiting(Rc<RefCell<BTreeSet<(QueueKey, u64)>>>);

impl Waiting {
    /// Notes whether somebody waits in the actor of that queue and reign.
    pub(crate) fn note(&self, queue: QueueKey, reign: u64, waits: bool) {
        let mut waiting = self.0.borrow_mut();
        if waits {
            waiting.insert((queue, reign));
        } else {
            waiting.remove(&(queue, reign));
        }
    }

    /// All actors in which somebody waits.
    pub(crate) fn all(&self) -> Vec<(QueueKey, u64)> {
        self.0.borrow().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{QueueId, TopicId};

    use super::*;

    #[test]
    fn an_actor_of_before_that_ends_takes_nothing_from_the_one_of_now() {
        let queue = QueueKey { topic: TopicId(1), queue: QueueId(0) };
        let waiting = Waiting::default();
        waiting.note(queue, 0, true);
        waiting.note(queue, 1, true);
        waiting.clone().note(queue, 0, false);
        assert_eq!(waiting.all(), [(queue, 1)]);
        waiting.note(queue, 1, false);
        assert_eq!(waiting.all(), []);
    }
}
