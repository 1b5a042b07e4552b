//! Which queue a message goes to.

use grus_protocol::QueueId;

use crate::config::QueueChoice;

/// What a message says about its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// Any will do.
    Any,
    /// The one for this hash of a key.
    Key(u64),
    /// This one.
    Given(QueueId),
}

/// Chooses for the messages that do not say.
#[derive(Debug)]
pub(crate) struct Chooser {
    choice: QueueChoice,
    /// Where it is in its round; taken modulo the number of queues.
    at: u32,
}

impl Chooser {
    /// Begins its round at `start`, so that many producers do not begin at the same queue.
    pub(crate) fn new(choice: QueueChoice, start: u32) -> Self {
        Self { choice, at: start % (1 << 20) }
    }

    /// The queue for a message, out of `queues`; `None` when the one it asks for is not there.
    pub(crate) fn choose(&mut self, pick: Pick, queues: u32) -> Option<u32> {
        assert!(queues > 0, "a topic has at least one queue");
        match pick {
            Pick::Given(queue) => (queue.0 < queues).then_some(queue.0),
            Pick::Key(hash) => Some(queue_of_hash(hash, queues)),
            Pick::Any => {
                let queue = self.at % queues;
                if self.choice == QueueChoice::RoundRobin {
                    self.at = (queue + 1) % queues;
                }
                Some(queue)
            }
        }
    }

    /// A batch of `queue` is complete: a sticky choice moves on.
    pub(crate) fn batch_closed(&mut self, queue: u32, queues: u32) {
        if self.choice == QueueChoice::Sticky && self.at % queues == queue {
            self.at = (queue + 1) % queues;
        }
    }
}

/// Spreads hashes evenly over the queues: the high half of `hash * queues`.
fn queue_of_hash(hash: u64, queues: u32) -> u32 {
    let product = u128::from(hash) * u128::from(queues);
    u32::try_from(product >> 64).unwrap_or(0) // it is below `queues`
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_gives_each_queue_the_same_number() {
        let mut chooser = Chooser::new(QueueChoice::RoundRobin, 7);
        let mut counts = [0; 4];
        for _ in 0..400 {
            counts[chooser.choose(Pick::Any, 4).unwrap() as usize] += 1;
        }
        assert_eq!(counts, [100; 4]);
    }

    #[test]
    fn sticky_stays_until_its_batch_is_closed() {
        let mut chooser = Chooser::new(QueueChoice::Sticky, 2);
        assert_eq!(chooser.choose(Pick::Any, 3), Some(2));
        chooser.batch_closed(1, 3);
        assert_eq!(chooser.choose(Pick::Any, 3), Some(2), "a batch of another queue");
        chooser.batch_closed(2, 3);
        assert_eq!(chooser.choose(Pick::Any, 3), Some(0));
    }

    #[test]
    fn a_key_always_has_the_same_queue_and_keys_spread() {
        let mut chooser = Chooser::new(QueueChoice::Sticky, 0);
        let mut counts = [0_u32; 8];
        for key in 0..8_000_u32 {
            let hash = xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes());
            let queue = chooser.choose(Pick::Key(hash), 8);
            assert_eq!(queue, chooser.choose(Pick::Key(hash), 8));
            counts[queue.unwrap() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_given_queue_must_exist() {
        let mut chooser = Chooser::new(QueueChoice::Sticky, 0);
        assert_eq!(chooser.choose(Pick::Given(QueueId(3)), 4), Some(3));
        assert_eq!(chooser.choose(Pick::Given(QueueId(4)), 4), None);
    }
}
