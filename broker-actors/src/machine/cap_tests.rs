//! Queues that refuse what finds them full.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, Sequence};
use grus_protocol::message::WhenFull;

use super::model_tests::{Pair, batch, config, queue};
use super::{Appended, Outcome, Refusal};
use crate::commands::{Command, DedupKey, RetainQueue, TopicConfig};

fn refusing(retention_messages: u64, retention_bytes: u64) -> Command {
    let when_full = WhenFull::Reject;
    let caps = TopicConfig { retention_messages, retention_bytes, when_full, ..config(1, 2) };
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
    assert_eq!(look(&pair, 9, 2, 3), full(5));
    assert_eq!(look(&pair, 0, 0, 3), full(5));
    assert_eq!(look(&pair, 9, 0, 2), Ok(()), "it was stored before");
    assert_eq!(look(&pair, 9, 7, 3), Ok(()), "one before it may be under way");
}
