//! A well-behaved client whose round trips are timed: what others cost it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use grus_protocol::TopicName;
use grus_protocol::ids::{Offset, QueueId, Term, TopicId};
use grus_protocol::message::{Fetch, Produce};

use crate::hostile::{Peer, batch};
use crate::watch::Watch;

/// Round trips a second, of each kind.
pub const RATE: u64 = 200;
/// Bytes of its messages.
const MESSAGE_BYTES: usize = 100;

/// How long things took, in microseconds.
#[derive(Debug, Default, Clone)]
pub struct Waits(Vec<u64>);

impl Waits {
    /// Takes one more in.
    pub fn push(&mut self, time: Duration) {
        self.0.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.0.len()
    }

    /// What so many of a thousand are at most; 0 when there are none.
    pub fn at(&mut self, per_mille: usize) -> u64 {
        self.0.sort_unstable();
        let last = self.0.len().saturating_sub(1);
        self.0.get((self.0.len() * per_mille / 1_000).min(last)).copied().unwrap_or(0)
    }
}

/// A request to store a batch in the first queue of a topic.
pub fn produce(topic: &str) -> Produce {
    Produce { topic: name(topic), topic_id: TopicId::UNKNOWN, queue: QueueId(0), timeout_ms: 0 }
}

/// A request to read the first queue of a topic.
pub fn fetch(topic: &str, offset: u64, bytes_max: u32, wait_ms: u32) -> Fetch {
    Fetch {
        topic: name(topic),
        topic_id: TopicId::UNKNOWN,
        queue: QueueId(0),
        offset: Offset(offset),
        last_term: Term::UNKNOWN,
        bytes_max,
        wait_ms,
    }
}

fn name(topic: &str) -> TopicName {
    TopicName::try_from(topic).expect("a name")
}

/// Waits until `watch` has come to `at`.
pub fn wait_until(watch: &Watch, at: Duration) {
    loop {
        let left = watch.left(at);
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// Sends one message and reads it back, [`RATE`] times a second for as long as `goes_on` says, which
/// is told the time since the start. Waits count from when a round trip should have begun, so that a
/// stall is not left out.
pub fn behave(
    at: SocketAddr,
    topic: &str,
    mut goes_on: impl FnMut(Duration) -> bool,
) -> (Waits, Waits) {
    let mut peer = Peer::greeted(at);
    let (mut sends, mut reads) = (Waits::default(), Waits::default());
    let watch = Watch::start();
    for round in 0_u64.. {
        let due = Duration::from_micros(round * 1_000_000 / RATE);
        if !goes_on(due) {
            break;
        }
        wait_until(&watch, due);
        let sent = peer.call_with(&produce(topic), &batch(&[&[7; MESSAGE_BYTES]]));
        let stored = watch.elapsed();
        let offset = sent.expect("it is stored").base_offset.0;
        sends.push(stored.saturating_sub(due));
        peer.call(&fetch(topic, offset, 1 << 16, 0)).expect("it is read");
        reads.push(watch.elapsed().saturating_sub(stored));
    }
    (sends, reads)
}

#[test]
fn quantiles_are_of_what_was_taken_in() {
    let mut waits = Waits::default();
    assert_eq!(waits.at(500), 0);
    for ms in (1..=100).rev() {
        waits.push(Duration::from_millis(ms));
    }
    assert_eq!((waits.at(0), waits.at(500), waits.at(990)), (1_000, 51_000, 100_000));
    assert_eq!((waits.at(1_000), waits.count()), (100_000, 100));
}
