//! Which queue a message goes to.

use grus_protocol::{MessageId, QueueId};
use xxhash_rust::xxh3::xxh3_64;

use crate::backoff::Jitter;
use crate::config::QueueChoice;
use crate::guard::Guard;
use crate::message::Message;

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

/// What is known of a topic's queues when one of them is chosen.
pub(crate) trait Queues {
    /// How many there are, at least one.
    fn count(&self) -> u32;
    /// Whether somebody leads it now.
    fn is_led(&self, queue: u32) -> bool;
    /// Bytes of this producer that are not answered yet.
    fn backlog_bytes(&self, queue: u32) -> u64;
}

/// Chooses for the messages that do not say.
#[derive(Debug)]
pub(crate) struct Chooser {
    choice: QueueChoice,
    /// Where it is in its round; taken modulo the number of queues.
    at: u32,
    jitter: Jitter,
    guard: Guard,
}

impl Chooser {
    /// Begins its round at a place of `seed`, so that many producers do not begin at one queue.
    pub(crate) fn new(choice: QueueChoice, seed: u64, guard: Guard) -> Self {
        let mut jitter = Jitter::new(seed);
        Self { choice, at: jitter.next_u32() % (1 << 20), jitter, guard }
    }

    /// The queue for a message, out of `queues`; `None` when the one it asks for is not there.
    /// `message` is needed for a function of the program's own.
    pub(crate) fn choose(
        &mut self,
        pick: Pick,
        first_id: MessageId,
        message: Option<&Message>,
        queues: &impl Queues,
    ) -> Result<u32, QueueId> {
        let count = queues.count();
        assert!(count > 0, "a topic has at least one queue");
        if let Pick::Given(queue) = pick {
            return if queue.0 < count { Ok(queue.0) } else { Err(queue) };
        }
        if let (QueueChoice::Own(selector), Some(message)) = (&self.choice, message) {
            let chosen = self.guard.call("queue selector", || selector.select(message, count));
            match chosen {
                Some(queue) if queue.0 < count => return Ok(queue.0),
                Some(queue) => return Err(queue),
                None => {} // it panicked: as if there were none
            }
        }
        Ok(match pick {
            Pick::Given(queue) => queue.0,
            Pick::Key(hash) => queue_of_hash(hash, count),
            Pick::Any => self.choose_any(first_id, queues),
        })
    }

    fn choose_any(&mut self, first_id: MessageId, queues: &impl Queues) -> u32 {
        let count = queues.count();
        let led_from = |start: u32| {
            let round = (0..count).map(|step| (start % count + step) % count);
            round.clone().find(|queue| queues.is_led(*queue)).unwrap_or(start % count)
        };
        match self.choice {
            QueueChoice::Sticky | QueueChoice::Own(_) => {
                self.at = led_from(self.at);
                self.at
            }
            QueueChoice::RoundRobin => {
                let queue = led_from(self.at);
                self.at = (queue + 1) % count;
                queue
            }
            QueueChoice::Random => led_from(self.jitter.next_u32()),
            QueueChoice::KeyHash => led_from(queue_of_hash(xxh3_64(first_id.as_bytes()), count)),
            QueueChoice::LeastBacklog => {
                self.at = (self.at + 1) % count;
                let cost = |queue: &u32| (!queues.is_led(*queue), queues.backlog_bytes(*queue));
                let round = (0..count).map(|step| (self.at + step) % count);
                round.min_by_key(cost).unwrap_or(self.at)
            }
        }
    }

    /// A batch of `queue` is complete: a sticky choice moves on.
    pub(crate) fn batch_closed(&mut self, queue: u32, queues: u32) {
        let is_sticky = matches!(self.choice, QueueChoice::Sticky | QueueChoice::Own(_));
        if is_sticky && self.at % queues == queue {
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

    /// Queues with these backlogs; `None` for one that nobody leads.
    struct Fake(Vec<Option<u64>>);

    impl Queues for Fake {
        fn count(&self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }
        fn is_led(&self, queue: u32) -> bool {
            self.0[queue as usize].is_some()
        }
        fn backlog_bytes(&self, queue: u32) -> u64 {
            self.0[queue as usize].unwrap_or(0)
        }
    }

    fn four() -> Fake {
        Fake(vec![Some(0); 4])
    }

    fn chooser(choice: QueueChoice, seed: u64) -> Chooser {
        Chooser::new(choice, seed, Guard::default())
    }

    fn id(number: u128) -> MessageId {
        MessageId(uuid::Uuid::from_u128(number))
    }

    fn counts(mut chooser: Chooser, queues: &Fake, messages: u128) -> Vec<u32> {
        let mut counts = vec![0; queues.0.len()];
        for number in 0..messages {
            counts[chooser.choose(Pick::Any, id(number), None, queues).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_gives_each_queue_the_same_number() {
        assert_eq!(counts(chooser(QueueChoice::RoundRobin, 7), &four(), 400), [100; 4]);
        let one_gone = Fake(vec![Some(0), None, Some(0)]);
        let spread = counts(chooser(QueueChoice::RoundRobin, 7), &one_gone, 100);
        assert_eq!(spread, [50, 0, 50], "what nobody leads is passed over");
    }

    #[test]
    fn random_and_ids_leave_no_queue_empty() {
        for choice in [QueueChoice::Random, QueueChoice::KeyHash] {
            let counts = counts(chooser(choice, 3), &four(), 400);
            assert!(counts.iter().all(|count| (60..140).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn the_least_backlog_is_taken_and_equal_ones_take_turns() {
        let busy = Fake(vec![Some(9), Some(3), Some(5), None]);
        assert_eq!(counts(chooser(QueueChoice::LeastBacklog, 1), &busy, 10), [0, 10, 0, 0]);
        assert_eq!(counts(chooser(QueueChoice::LeastBacklog, 1), &four(), 40), [10; 4]);
    }

    #[test]
    fn sticky_stays_until_its_batch_is_closed() {
        let mut chooser = chooser(QueueChoice::Sticky, 2);
        let queues = Fake(vec![Some(0); 3]);
        let choose = |chooser: &mut Chooser| chooser.choose(Pick::Any, id(1), None, &queues);
        let first = choose(&mut chooser).unwrap();
        chooser.batch_closed((first + 1) % 3, 3);
        assert_eq!(choose(&mut chooser), Ok(first), "a batch of another queue");
        chooser.batch_closed(first, 3);
        assert_eq!(choose(&mut chooser), Ok((first + 1) % 3));
    }

    #[test]
    fn a_key_always_has_the_same_queue_and_keys_spread() {
        let mut chooser = chooser(QueueChoice::Sticky, 0);
        let queues = Fake(vec![Some(0); 8]);
        let mut counts = [0_u32; 8];
        for key in 0..8_000_u32 {
            let pick = Pick::Key(xxh3_64(&key.to_le_bytes()));
            let queue = chooser.choose(pick, id(1), None, &queues);
            assert_eq!(queue, chooser.choose(pick, id(2), None, &queues));
            counts[queue.unwrap() as usize] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_given_queue_must_exist() {
        let mut chooser = chooser(QueueChoice::Sticky, 0);
        let mut given = |queue| chooser.choose(Pick::Given(QueueId(queue)), id(1), None, &four());
        assert_eq!((given(3), given(4)), (Ok(3), Err(QueueId(4))));
    }

    #[test]
    fn a_function_of_the_programs_own_decides_unless_it_panics() {
        let own = QueueChoice::own(|message: &Message, queues| {
            assert!(message.body() != b"bad", "meant to");
            QueueId(u32::from(message.body()[0]) % (queues + 1))
        });
        let mut chooser = chooser(own, 0);
        let mut choose = |body: &'static str| {
            chooser.choose(Pick::Key(0), id(1), Some(&Message::new(body)), &four())
        };
        assert_eq!(choose("\u{3}"), Ok(3));
        assert_eq!(choose("\u{4}"), Err(QueueId(4)), "out of range is said");
        assert_eq!(choose("bad"), Ok(0), "the key decides");
        assert_eq!(chooser.guard.panics(), 1);
    }
}
