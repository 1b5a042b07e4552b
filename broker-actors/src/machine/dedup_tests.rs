//! Dedup keys over the life of a queue.

use grus_protocol::ids::{Offset, TopicId};

use super::model_tests::{DEDUP_WINDOW_MS, Pair, SHARD, batch, config, queue};
use super::{Appended, Machine, Outcome, Refusal};
use crate::commands::{Command, DedupKey, TopicConfig};

#[test]
fn dedup_keys_are_forgotten_when_their_window_is_over_and_with_their_topic() {
    let mut pair = Pair::new();
    pair.apply(Command::TopicConfig(config(1, 1)));
    let once = |pair: &mut Pair, number: u32| {
        let key = DedupKey::of(&number.to_le_bytes());
        pair.apply(Command::AppendOnce { queue: queue(1, 0), key, batch: batch(0, 0, 0, 1) }).0
    };
    for number in 0..1_000 {
        let Outcome::Append(Ok(appended)) = once(&mut pair, number) else { panic!("not stored") };
        assert!(!appended.duplicate);
    }
    assert!(matches!(once(&mut pair, 999), Outcome::Append(Ok(Appended { duplicate: true, .. }))));
    assert_eq!(pair.machine.dedup_keys, 1_000);
    let parts = pair.machine.all_parts();
    assert_eq!(parts.iter().filter(|part| part.key[0] == 6).count(), 4, "256 keys in each");
    pair.moment.time.0 += DEDUP_WINDOW_MS + 1_000;
    pair.apply(Command::Retain(Vec::new()));
    assert_eq!(pair.machine.dedup_keys, 0);
    assert!(matches!(once(&mut pair, 5), Outcome::Append(Ok(Appended { duplicate: false, .. }))));
    pair.apply(Command::TopicDrop { topic: TopicId(1) });
    assert_eq!((pair.machine.dedup_keys, pair.machine.dedup_order.len()), (0, 0));
    assert_eq!(pair.machine.digest(), {
        let mut restored = Machine::new(SHARD);
        restored.restore(pair.machine.all_parts()).unwrap();
        restored.digest()
    });

    let off = TopicConfig { dedup_window_ms: 0, ..config(1, 1) };
    pair.apply(Command::TopicConfig(off));
    assert_eq!(once(&mut pair, 7), Outcome::Append(Err(Refusal::NoDedup)));
}

#[test]
fn a_producer_goes_on_behind_a_batch_that_its_dedup_key_answered() {
    let mut pair = Pair::new();
    pair.apply(Command::TopicConfig(config(1, 1)));
    let key = DedupKey::of(b"payment-7");
    let (place, batch) = (queue(1, 0), |first| batch(9, 0, first, 1));
    let append = |pair: &mut Pair, command: Command| match pair.apply(command).0 {
        Outcome::Append(Ok(appended)) => (appended.base_offset.0, appended.duplicate),
        outcome => panic!("{outcome:?}"),
    };
    let once = |first| Command::AppendOnce { queue: place, key, batch: batch(first) };
    assert_eq!(append(&mut pair, once(0)), (0, false));
    pair.moment.time.0 += 1_000;
    assert_eq!(append(&mut pair, once(1)), (0, true));
    assert_eq!(append(&mut pair, once(1)), (0, true), "its own repetition, too");
    let plain = Command::Append { queue: place, batch: batch(2) };
    assert_eq!(append(&mut pair, plain), (1, false));
    assert_eq!(pair.machine.queue(place).unwrap().next_offset, Offset(2));
}
