//! Rings by themselves.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{
    Offset, ProducerEpoch, QueueId, QueueKey, Sequence, Term, TimestampMs, TopicId,
};
use grus_protocol::message::WhenFull;
use grus_protocol::names::TopicName;

use super::producers::PRODUCERS_MAX;
use super::ring::{Pushed, Ring, cost_of};
use super::{BYTES_MAX, GONE_PER_PUSH, GONE_PER_STEP, LIFE_BITS, Rings, SHED_BYTES};
use crate::commands::TopicConfig;
use crate::machine::model_tests::batch;
use crate::machine::{Refusal, WINDOW_EXPIRY_MS};

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
    assert!(!rings.follow(Term(3)) && !rings.follow(Term(2)));
    assert_eq!(span(&rings), (0, 2));
    assert!(rings.follow(Term(5)));
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
    assert!(matches!(refused, Err(Refusal::AboveCap { what: "retention_bytes", .. })));
    assert_eq!(span(&rings), (7, 10), "what is refused costs nobody anything");
}

#[test]
fn a_ring_that_refuses_keeps_what_it_has_and_knows_it_again() {
    let mut rings = rings();
    let (retention_messages, when_full) = (3, WhenFull::Reject);
    let refuses = TopicConfig { retention_messages, when_full, retention_ms: 100, ..config() };
    let first = push_at(&mut rings, &refuses, &of(7, 0, 0, 2), 10).unwrap().appended;
    let full = Refusal::QueueFull { what: "retention_messages", cap: 3, wanted: 4 };
    assert_eq!(push_at(&mut rings, &refuses, &of(7, 0, 2, 2), 11), Err(full));
    let again = push_at(&mut rings, &refuses, &of(7, 0, 0, 2), 12).unwrap();
    assert_eq!((again.appended.base_offset, again.dropped), (first.base_offset, 0));
    assert!(again.appended.duplicate && !first.duplicate);
    let config_of = |_| Some(&refuses);
    assert_eq!(rings.expire(TimestampMs(110), config_of).0.by_age, 0, "not older than 100 ms");
    assert_eq!(rings.expire(TimestampMs(111), config_of).0.by_age, 2);
    assert_eq!((span(&rings), rings.numbers(QUEUE).bytes), ((2, 2), 0));
    assert!(rings.held_bytes() > 0, "its producer is known");
    assert!(push_at(&mut rings, &refuses, &of(7, 0, 2, 2), 111).is_ok());
    // Not even the first one of a producer lets one behind it in.
    let above = TopicConfig { retention_messages: 1, ..refuses };
    let refused = push_at(&mut rings, &above, &of(8, 0, 0, 2), 112);
    assert!(matches!(refused, Err(Refusal::AboveCap { .. })), "{refused:?}");
    let gap = Refusal::SequenceGap { expected: Sequence(0) };
    assert_eq!(push_at(&mut rings, &config(), &of(8, 0, 2, 1), 113), Err(gap));
}

#[test]
fn producers_are_told_apart_and_begin_anew_in_a_new_life() {
    let mut rings = rings();
    let mut push = |epoch, first, newest: Option<u32>| {
        let newest = newest.map(ProducerEpoch);
        rings.push(&config(), QUEUE, &of(7, epoch, first, 2), newest, TimestampMs(1))
    };
    let gap = |expected| Err(Refusal::SequenceGap { expected: Sequence(expected) });
    assert_eq!(push(1, 40, None), gap(0), "what it wrote before is not known here");
    assert!(push(1, 0, None).is_ok());
    assert_eq!(push(1, 4, None), gap(2));
    for first in [2, 4, 6, 8, 10] {
        assert!(!push(1, first, None).unwrap().appended.duplicate);
    }
    assert!(push(1, 2, None).unwrap().appended.duplicate, "the fifth last");
    let expected = Sequence(12);
    assert_eq!(push(1, 0, None), Err(Refusal::SequenceStale { expected }));
    assert_eq!(push(0, 12, None), Err(Refusal::Fenced { epoch: ProducerEpoch(1) }));
    assert_eq!(push(1, 12, Some(2)), Err(Refusal::Fenced { epoch: ProducerEpoch(2) }));
    assert_eq!(push(2, 12, Some(2)), gap(0));
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
    let gap = |expected| Err(Refusal::SequenceGap { expected: Sequence(expected) });
    assert_eq!(push(2, 1, 1_000_000), gap(0), "it was forgotten");
    assert_eq!(push(1, 9, 1_000_000), gap(2));
    assert_eq!(ring.known_producers(), PRODUCERS_MAX);
}

#[test]
fn all_rings_of_a_shard_share_their_memory() {
    let mut ring = Ring::new(Term(3), Offset(BASE));
    let batch = of(0, 0, 0, 2);
    let mut push =
        |config: &TopicConfig, room| ring.push(config, &batch, None, TimestampMs(1), room);
    let cost = cost_of(&batch);
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

#[test]
fn where_all_memory_is_taken_the_largest_ring_makes_room_for_any_other() {
    let batch = of(0, 0, 0, 2);
    let cost = cost_of(&batch);
    let mut rings = rings();
    let queue = |number| QueueKey { queue: QueueId(number), ..QUEUE };
    let refuses = TopicConfig { when_full: WhenFull::Reject, ..config() };
    for (number, batches, config) in [(0, 5, config()), (1, 9, refuses), (2, 2, config())] {
        for _ in 0..batches {
            let pushed = rings.push(&config, queue(number), &batch, None, TimestampMs(1));
            assert_eq!(pushed.unwrap().dropped, 0);
        }
    }
    let messages = |rings: &Rings| [0, 1, 2].map(|number| rings.numbers(queue(number)).messages());
    assert_eq!(rings.shed(cost, 17 * cost), 0, "there is room");
    assert_eq!(messages(&rings), [10, 18, 4]);
    // Of the largest that may lose any; and all that there is, where that is less than is freed at once.
    assert_eq!(rings.shed(SHED_BYTES, SHED_BYTES + 13 * cost), 6);
    assert_eq!((messages(&rings), rings.held_bytes()), ([4, 18, 4], 13 * cost));
    assert_eq!(rings.shed(cost, 13 * cost), 8);
    assert_eq!((messages(&rings), rings.held_bytes()), ([0, 18, 0], 9 * cost));
    assert_eq!(rings.shed(cost, 9 * cost), 0, "who refuses keeps what it has");
}

#[test]
fn caps_that_are_lowered_hold_at_the_next_sweep() {
    let mut rings = rings();
    for time in 0..6 {
        push_at(&mut rings, &config(), &of(0, 0, 0, 2), time).unwrap();
    }
    rings.take_untold();
    let bytes = u64::from(of(0, 0, 0, 2).len_bytes());
    let mut sweep = |lower: TopicConfig| {
        let (removed, _) = rings.expire(TimestampMs(9), |_| Some(&lower));
        (removed.full, span(&rings), rings.take_untold())
    };
    let (retention_messages, when_full) = (7, WhenFull::Reject);
    let refuses = TopicConfig { retention_messages, when_full, ..config() };
    assert_eq!(sweep(refuses), (0, (0, 12), 0), "who refuses removes nothing");
    assert_eq!(sweep(TopicConfig { retention_messages, ..config() }), (5, (5, 12), 5));
    assert_eq!(sweep(TopicConfig { retention_bytes: 2 * bytes, ..config() }), (3, (8, 12), 3));
}

#[test]
fn producers_cost_memory_until_they_were_still_for_long() {
    let mut rings = rings();
    let batch = of(7, 0, 0, 1);
    push_at(&mut rings, &config(), &batch, 5).unwrap();
    assert!(rings.held_bytes() > cost_of(&batch));
    let kept = config();
    rings.expire(TimestampMs(5 + WINDOW_EXPIRY_MS), |_| Some(&kept));
    assert!(rings.held_bytes() > cost_of(&batch));
    rings.expire(TimestampMs(6 + WINDOW_EXPIRY_MS), |_| Some(&kept));
    assert_eq!(rings.held_bytes(), cost_of(&batch));
    push_at(&mut rings, &kept, &of(7, 0, 0, 1), 6).expect("it is not known any more");
}

#[test]
fn what_is_gone_is_let_go_of_in_steps_and_takes_no_place() {
    const BATCHES: usize = 3 * GONE_PER_STEP;
    let (batch, kept) = (of(0, 0, 0, 1), config());
    let fill = |rings: &mut Rings| {
        for _ in 0..BATCHES {
            push_at(rings, &kept, &batch, 5).unwrap();
        }
    };
    let mut rings = rings();
    fill(&mut rings);
    let ages = TopicConfig { retention_ms: 1, ..config() };
    let steps = [(); 4].map(|()| {
        let (removed, is_behind) = rings.expire(TimestampMs(7), |_| Some(&ages));
        (removed.by_age, is_behind)
    });
    let step = GONE_PER_STEP as u64;
    assert_eq!(steps, [(step, true), (step, true), (step, true), (0, false)]);
    assert_eq!(rings.held_bytes(), 0);
    assert!(rings.queues[&QUEUE].places() <= 64, "its places are given back, too");

    fill(&mut rings);
    rings.follow(Term(4));
    assert_eq!(rings.held_bytes(), 0, "nobody sees it any more");
    let left = |rings: &Rings| rings.gone.iter().map(Ring::batches).sum::<usize>();
    assert_eq!(left(&rings), BATCHES);
    assert!(rings.expire(TimestampMs(7), |_| Some(&kept)).1, "there is more to let go of");
    assert_eq!(left(&rings), 2 * GONE_PER_STEP);
    push_at(&mut rings, &kept, &batch, 5).unwrap();
    assert_eq!(left(&rings), 2 * GONE_PER_STEP - GONE_PER_PUSH);
    rings.forget(QUEUE.topic);
    while rings.expire(TimestampMs(7), |_| Some(&kept)).1 {}
    assert_eq!(left(&rings), 0);
}
