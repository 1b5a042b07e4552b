//! Turns of one connection: who may put a frame into its output.
//!
//! A turn is room for one frame of deliveries. No more are given than the output has room for, in
//! the order they were asked for: so what waits for a peer is bounded, however many subscriptions
//! it has and whatever credit it gives, and its subscriptions take turns.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use grus_mailbox::Port;
use tokio::sync::Notify;

use crate::topic_queue::PushTurn;
use crate::topic_queue::subscription::TURN_BYTES_MAX;

/// Most bytes of deliveries, written and granted, that wait for the peer, but for one frame.
pub const PUSH_OUTPUT_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Most questions for a turn that wait: more than a connection may have subscriptions. Those of
/// subscriptions that have ended are among them.
const ASKS_MAX: usize = 65_536;

#[derive(Debug, Default)]
struct Given {
    bytes: AtomicU64,
    returned: Notify,
}

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Turns {
    asked: VecDeque<Port<PushTurn>>,
    given: Arc<Given>,
}

impl Turns {
    /// Somebody asks for a turn.
    pub fn ask(&mut self, turn: Port<PushTurn>) {
        if self.asked.len() < ASKS_MAX {
            self.asked.push_back(turn);
        }
    }

    /// Gives turns as long as there is room, `output_bytes` being in the output already.
    pub fn give(&mut self, output_bytes: u64) {
        while output_bytes + self.given.bytes.load(Ordering::Acquire) < PUSH_OUTPUT_BYTES_MAX {
            let Some(turn) = self.asked.pop_front() else { return };
            self.given.bytes.fetch_add(u64::from(TURN_BYTES_MAX), Ordering::AcqRel);
            let given = Arc::clone(&self.given);
            turn.send(PushTurn::new(move || {
                given.bytes.fetch_sub(u64::from(TURN_BYTES_MAX), Ordering::AcqRel);
                given.returned.notify_one();
            }));
        }
    }

    /// Whether somebody waits for a turn.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Resolves when a turn was given back.
    pub async fn returned(&self) {
        self.given.returned.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use grus_mailbox::reply;

    use super::*;

    #[test]
    fn no_more_turns_than_the_output_has_room_for_first_come_first_served() {
        let mut turns = Turns::default();
        let most = PUSH_OUTPUT_BYTES_MAX / u64::from(TURN_BYTES_MAX);
        let mut answers: Vec<_> = (0..=most)
            .map(|_| {
                let (port, answer) = reply::port();
                turns.ask(port);
                answer
            })
            .collect();
        turns.give(0);
        let mut last = answers.pop().unwrap();
        let held: Vec<_> =
            answers.iter_mut().map(|answer| answer.try_take().unwrap().unwrap()).collect();
        assert!(last.try_take().unwrap().is_none() && turns.is_asked());
        drop(held);
        turns.give(PUSH_OUTPUT_BYTES_MAX);
        assert!(last.try_take().unwrap().is_none(), "the output is full");
        turns.give(PUSH_OUTPUT_BYTES_MAX - 1);
        assert!(last.try_take().unwrap().is_some() && !turns.is_asked());
    }
}
