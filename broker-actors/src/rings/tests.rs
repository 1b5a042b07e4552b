//! Rings by themselves.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{
    Offset, ProducerEpoch, QueueId, QueueKey, Sequence, Term, TimestampMs, TopicId,
};
use grus_protocol::message::WhenFull;
use grus_protocol::names::TopicName;

use super::producers::PRODUCERS_MAX;
use super::ring::{Pushed, Ring};
use super::{BYTES_MAX, LIFE_BITS, Rings};
use crate::commands::TopicConfig;
use crate::machine::Refusal;
use crate::machine::model_tests::batch;

const QUEUE: QueueKey = QueueKey { topic: TopicId(1), queue: QueueId(0) };
/// The first offset of term 3.
const BASE: u64 = 3 << LIFE_BITS;

fn config() -> TopicConfig {
    TopicConfig::plain(QUEUE.topic, TopicName::try_from("prices").unwrap(), vec![QUEUE.queue])
}

fn rings() -> Rings {
    let mut rings = Rings::default();
    rings.follow(Term(3));
    rings
}

fn of(producer: u64, epoch: u32, first: u64, count: u32) -> RecordBatch {
    RecordBatch::from_log(batch(producer, epoch, first, count)).unwrap()
}

fn push_at(
    rings: &mut Rings,
    config: &TopicConfig,
    batch: &RecordBatch,
    now: u64,
) -> Result<Pushed, Refusal> {
    rings.push(config, QUEUE, batch, None, TimestampMs(now))
}

/// Offsets from the base of term 3 on: start and end.
fn span(rings: &Rings) -> (u64, u64) {
    let numbers = rings.numbers(QUEUE);
    (numbers.visible_start.0 - BASE, numbers.next_offset.0 - BASE)
}

#[test]
fn a_new_life_begins_above_all_that_was_given_and_a_lease_that_comes_back_is_the_same_one() {
    let mut rings = rings();
    assert_eq!(span(&rings), (0, 0), "nobody has written yet");
    let pushed = push_at(&mut rings, &config(), &of(0, 0, 0, 2), 10).unwrap();
    assert_eq!((pushed.appended.base_offset, pushed.appended.term), (Offset(BASE), Term(3)));
    rings.follow(Term(3));
    rings.follow(Term(2));
    assert_eq!(span(&rings), (0, 2));
    rings.follow(Term(5));
    assert_eq!(rings.held_bytes(), 0);
    let end = Offset(5 << LIFE_BITS);
    let numbers = rings.numbers(QUEUE);
    assert_eq!((numbers.visible_start, numbers.next_offset), (end, end));
    rings.follow(Term(1 << (63 - LIFE_BITS)));
    let refused = push_at(&mut rings, &config(), &of(0, 0, 0, 2), 10);
    assert!(matches!(refused, Err(Refusal::Limit { what: "terms", .. })), "{refused:?}");
}

#[test]
fn what_is_above_the_caps_goes_at_once_the_oldest_first() {
    let bytes = u64::from(of(0, 0, 0, 2).len_bytes());
    let mut rings = rings();
    let by_bytes = TopicConfig { retention_bytes: 2 * bytes, ..config() };
    let dropped: Vec<u64> = (0..4)
        .map(|time| push_at(&mut rings, &by_bytes, &of(0, 0, 0, 2), time).unwrap().dropped)
        .collect();
    assert_eq!((span(&rings), dropped), ((4, 8), vec![0, 0, 2, 2]));
    assert_eq!(rings.numbers(QUEUE).bytes, 2 * bytes);
    let by_messages = TopicConfig { retention_messages: 3, ..config() };
    let pushed = push_at(&mut rings, &by_messages, &of(0, 0, 0, 2), 9).unwrap();
    assert_eq!((span(&rings), pushed.dropped), ((7, 10), 3), "to the message");
    let batches = rings.batches(QUEUE, Offset(BASE + 7), (u32::MAX, u64::MAX, 9));
    let bases: Vec<u64> = batches.iter().map(|one| one.base_offset.0 - BASE).collect();
    assert_eq!(bases, [6, 8], "a batch is given whole");
    assert_eq!(rings.runs(QUEUE, Offset(BASE + 8), 1).len(), 1, "one at least");
    assert!(rings.runs(QUEUE, Offset(BASE + 10), 1).is_empty());
    let too_large = TopicConfig { retention_bytes: bytes - 1, ..config() };
    let refused = push_at(&mut rings, &too_large, &of(0, 0, 0, 2), 9);
    assert!(matches!(refused, Err(Refusal::QueueFull { what: "retention_bytes", .. })));
    assert_eq!(span(&rings), (7, 10), "what is refused costs nobody anything");
}

#[test]
fn a_ring_that_refuses_keeps_what_it_has_and_knows_it_again() {
    let mut rings = rings();
    let (retention_messages, when_full) = (3, WhenFull::Reject);
    let refuses = TopicConfig { retention_messages, when_full, retention_ms: 100, ..config() };
    let first = push_at(&mut rings, &refuses, &of(7, 0, 4, 2), 10).unwrap().appended;
    let full = Refusal::QueueFull { what: "retention_messages", cap: 3, wanted: 4 };
    assert_eq!(push_at(&mut rings, &refuses, &of(7, 0, 6, 2), 11), Err(full));
    let again = push_at(&mut rings, &refuses, &of(7, 0, 4, 2), 12).unwrap();
    assert_eq!((again.appended.base_offset, again.dropped), (first.base_offset, 0));
    assert!(again.appended.duplicate && !first.duplicate);
    let config_of = |_| Some(&refuses);
    assert_eq!(rings.expire(TimestampMs(110), config_of).by_age, 0, "not older than 100 ms");
    assert_eq!(rings.expire(TimestampMs(111), config_of).by_age, 2);
    assert_eq!((span(&rings), rings.held_bytes()), ((2, 2), 0));
    assert!(push_at(&mut rings, &refuses, &of(7, 0, 6, 2), 111).is_ok());
}

#[test]
fn producers_are_told_apart_and_begin_where_they_are_in_a_new_life() {
    let mut rings = rings();
    let mut push = |epoch, first, newest: Option<u32>| {
        let newest = newest.map(ProducerEpoch);
        rings.push(&config(), QUEUE, &of(7, epoch, first, 2), newest, TimestampMs(1))
    };
    assert!(push(1, 40, None).is_ok(), "what it wrote before is not known here");
    let expected = Sequence(42);
    assert_eq!(push(1, 44, None), Err(Refusal::SequenceGap { expected }));
    for first in [42, 44, 46, 48, 50] {
        assert!(!push(1, first, None).unwrap().appended.duplicate);
    }
    assert!(push(1, 42, None).unwrap().appended.duplicate, "the fifth last");
    let expected = Sequence(52);
    assert_eq!(push(1, 40, None), Err(Refusal::SequenceStale { expected }));
    assert_eq!(push(0, 52, None), Err(Refusal::Fenced { epoch: ProducerEpoch(1) }));
    assert_eq!(push(1, 52, Some(2)), Err(Refusal::Fenced { epoch: ProducerEpoch(2) }));
    assert!(push(2, 0, Some(2)).is_ok());
}

#[test]
fn a_ring_forgets_the_producer_that_was_still_for_longest() {
    let mut ring = Ring::new(Term(3), Offset(BASE));
    let mut push = |producer, first, now| {
        let batch = of(producer, 0, first, 1);
        ring.push(&config(), &batch, None, TimestampMs(now), BYTES_MAX)
    };
    for producer in 1..=PRODUCERS_MAX as u64 {
        push(producer, 0, producer).unwrap();
    }
    push(1, 1, 1_000_000).unwrap();
    push(1_000_000, 0, 1_000_000).unwrap();
    assert!(push(2, 9, 1_000_000).is_ok(), "it was forgotten");
    assert!(push(1, 9, 1_000_000).is_err());
    assert_eq!(ring.known_producers(), PRODUCERS_MAX);
}

#[test]
fn all_rings_of_a_shard_share_their_memory() {
    let mut ring = Ring::new(Term(3), Offset(BASE));
    let batch = of(0, 0, 0, 2);
    let mut push =
        |config: &TopicConfig, room| ring.push(config, &batch, None, TimestampMs(1), room);
    let cost = u64::from(batch.len_bytes()) + 128;
    assert!(push(&config(), cost).is_ok());
    assert_eq!(push(&config(), cost).unwrap().dropped, 2, "its own oldest go");
    let what = "bytes in temporary queues";
    let full = |pushed: Result<Pushed, Refusal>| {
        let Err(Refusal::Limit { what: why, .. }) = pushed else { return false };
        why == what
    };
    assert!(full(push(&config(), cost - 1)), "others have it all");
    assert!(full(push(&TopicConfig { when_full: WhenFull::Reject, ..config() }, cost)));

    let mut rings = rings();
    push_at(&mut rings, &config(), &batch, 1).unwrap();
    assert_eq!(rings.held_bytes(), cost);
    rings.forget(QUEUE.topic);
    assert_eq!((rings.held_bytes(), span(&rings)), (0, (0, 0)));
}
