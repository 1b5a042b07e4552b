//! Queues that refuse what finds them full.

use grus_protocol::batch::RecordBatch;
use grus_protocol::error::ErrorCode;
use grus_protocol::ids::{Offset, Sequence, TimestampMs};
use grus_protocol::message::WhenFull;

use super::model_tests::{Pair, batch, config, queue};
use super::{Appended, Outcome, Refusal};
use crate::commands::delay::Scheduling;
use crate::commands::{Command, DedupKey, RetainQueue, TopicConfig};
use crate::error::QueueError;

fn refusing(retention_messages: u64, retention_bytes: u64) -> Command {
    let when_full = WhenFull::Reject;
    let caps = TopicConfig { retention_bytes, retention_messages, when_full, ..config(1, 2) };
    Command::TopicConfig(caps)
}

/// Of a producer that counts its batches of two from `first`.
fn append(pair: &mut Pair, producer: u64, first: u64) -> Result<Appended, Refusal> {
    let batch = batch(producer, 0, first, 2);
    match pair.apply(Command::Append { queue: queue(1, 0), batch }).0 {
        Outcome::Append(result) => result,
        outcome => panic!("{outcome:?}"),
    }
}

#[test]
fn a_full_queue_refuses_what_is_new_and_knows_what_it_has() {
    let mut pair = Pair::new();
    pair.apply(refusing(5, 0));
    let stored = append(&mut pair, 9, 0).unwrap();
    append(&mut pair, 9, 2).unwrap();
    let full = Refusal::QueueFull { what: "retention_messages", cap: 5, wanted: 6 };
    assert_eq!(append(&mut pair, 9, 4), Err(full));
    assert_eq!(append(&mut pair, 0, 0), Err(full), "of a producer that does not count, too");
    assert_eq!(append(&mut pair, 9, 0), Ok(Appended { duplicate: true, ..stored }));
    assert_eq!(append(&mut pair, 9, 6), Err(Refusal::SequenceGap { expected: Sequence(4) }));
    assert_eq!(pair.machine.queue(queue(1, 0)).unwrap().messages(), 4, "nothing was stored");
    let key = DedupKey::of(b"once");
    let once = Command::AppendOnce { queue: queue(1, 0), key, batch: batch(0, 0, 0, 2) };
    assert_eq!(pair.apply(once.clone()).0, Outcome::Append(Err(full)));

    let gone = RetainQueue { queue: queue(1, 0), start: Offset(2), bytes_given_up: 0 };
    pair.apply(Command::Retain(vec![gone]));
    let Outcome::Append(Ok(first)) = pair.apply(once.clone()).0 else { panic!("there is room") };
    assert!(!first.duplicate, "what was refused was not remembered");
    assert!(append(&mut pair, 9, 4).is_err());
    let Outcome::Append(Ok(again)) = pair.apply(once).0 else { panic!("it is known") };
    assert_eq!((again.duplicate, again.base_offset), (true, first.base_offset));
}

#[test]
fn bytes_are_a_cap_of_each_queue_by_itself() {
    let bytes = batch(9, 0, 0, 2).len() as u64;
    let mut pair = Pair::new();
    pair.apply(refusing(0, 2 * bytes));
    append(&mut pair, 9, 0).unwrap();
    append(&mut pair, 9, 2).unwrap();
    let full = Refusal::QueueFull { what: "retention_bytes", cap: 2 * bytes, wanted: 3 * bytes };
    assert_eq!(append(&mut pair, 9, 4), Err(full));
    let other = Command::Append { queue: queue(1, 1), batch: batch(9, 0, 0, 2) };
    assert!(matches!(pair.apply(other).0, Outcome::Append(Ok(_))));
    // Where the oldest go instead, they go later: nothing is refused.
    let dropping = TopicConfig { retention_bytes: 2 * bytes, ..config(1, 2) };
    pair.apply(Command::TopicConfig(dropping));
    assert!(append(&mut pair, 9, 4).is_ok());
}

/// Who merged the messages of many can take the batch apart, and nobody waits for room that never comes.
#[test]
fn a_batch_above_a_cap_by_itself_is_refused_for_good_and_its_parts_are_not() {
    let mut pair = Pair::new();
    pair.apply(refusing(1, 0));
    let above = Refusal::AboveCap { what: "retention_messages", cap: 1, wanted: 2 };
    assert_eq!(append(&mut pair, 9, 0), Err(above));
    let (of_messages, full) = (QueueError::from(above).to_reply(), QueueError::from(full_of(1)));
    assert_eq!((of_messages.code, of_messages.retriable), (ErrorCode::BatchTooLarge, false));
    let full = full.to_reply();
    assert_eq!((full.code, full.retriable), (ErrorCode::QueueFull, true));
    assert!(full.retry_after_ms > 0);
    let one = Command::Append { queue: queue(1, 0), batch: batch(9, 0, 0, 1) };
    assert!(matches!(pair.apply(one).0, Outcome::Append(Ok(_))), "its sequence is free");
    let bytes = batch(9, 0, 1, 1).len() as u64;
    pair.apply(refusing(0, bytes - 1));
    let one = Command::Append { queue: queue(1, 0), batch: batch(9, 0, 1, 1) };
    let above = Refusal::AboveCap { what: "retention_bytes", cap: bytes - 1, wanted: bytes };
    assert_eq!(pair.apply(one).0, Outcome::Append(Err(above)));
}

/// Else a due time of a moment from now would be a way past the cap.
#[test]
fn what_is_for_later_is_judged_by_what_can_be_seen_and_comes_all_the_same() {
    let mut pair = Pair::new();
    pair.apply(refusing(2, 0));
    let later = |batch| {
        let due = vec![TimestampMs(1 << 40)];
        Command::Schedule(Scheduling::new(queue(1, 0), None, due, batch))
    };
    let taken = pair.apply(later(batch(0, 0, 0, 1))).0;
    assert!(matches!(taken, Outcome::Append(Ok(_))), "{taken:?}");
    append(&mut pair, 0, 0).unwrap();
    let full = Refusal::QueueFull { what: "retention_messages", cap: 2, wanted: 3 };
    assert_eq!(pair.apply(later(batch(0, 0, 0, 1))).0, Outcome::Append(Err(full)));
    assert_eq!(pair.machine.timers().by_topic().map(|(_, count)| count).sum::<u64>(), 1);
}

const fn full_of(cap: u64) -> Refusal {
    Refusal::QueueFull { what: "retention_messages", cap, wanted: cap + 1 }
}

#[test]
fn a_first_look_refuses_only_what_the_log_would_refuse_for_want_of_room() {
    let mut pair = Pair::new();
    pair.apply(refusing(4, 0));
    append(&mut pair, 9, 0).unwrap();
    let look = |pair: &Pair, producer, first, count| {
        let batch = RecordBatch::from_log(batch(producer, 0, first, count)).unwrap();
        pair.machine.judge_room(queue(1, 0), &batch)
    };
    let full = |wanted| Err(Refusal::QueueFull { what: "retention_messages", cap: 4, wanted });
    assert_eq!(look(&pair, 9, 2, 2), Ok(()));
    let above = Err(Refusal::AboveCap { what: "retention_messages", cap: 4, wanted: 5 });
    assert_eq!(look(&pair, 9, 2, 5), above, "no room would ever be enough");
    assert_eq!(look(&pair, 9, 2, 3), full(5));
    assert_eq!(look(&pair, 0, 0, 3), full(5));
    assert_eq!(look(&pair, 9, 0, 2), Ok(()), "it was stored before");
    assert_eq!(look(&pair, 9, 7, 3), Ok(()), "one before it may be under way");
}
