//! Groups over temporary queues, of which the machine knows the start alone, and that late.

use grus_protocol::message::TopicKind;

use super::*;
use crate::commands::DedupKey;
use crate::commands::delay::Scheduling;
use crate::rings::LIFE_BITS;

/// Where the lives of terms 3 and 5 begin.
const THIRD: u64 = 3 << LIFE_BITS;
const FIFTH: u64 = 5 << LIFE_BITS;

fn ring() -> QueueKey {
    queue(5, 0)
}

fn holding() -> Holding {
    let place = ProgressKey { queue: ring(), group: GROUP };
    Holding { place, generation: Generation(1), member: MemberId(1), round: 0 }
}

/// A temporary queue in its third term, which a member has claimed at its start.
fn claimed() -> Pair {
    let mut pair = Pair::new();
    let kind = TopicKind::Temporary.number();
    pair.apply(Command::TopicConfig(TopicConfig { kind, ..config(5, 1) }));
    let (start, terms) = (Offset(THIRD), RetryTerms::default());
    let claim = GroupItem::Claim { holding: holding(), start, terms };
    let claimed = Claimed { floor: Offset(THIRD), round: 0, retries: 0 };
    assert_eq!(pair.group(claim).outcome, Outcome::Claim(Ok(claimed)));
    pair
}

fn delivered(pair: &mut Pair, end: u64) {
    let (end, passed, again) = (Offset(end), Vec::new(), Vec::new());
    let item = GroupItem::Delivered(Delivered { holding: holding(), end, passed, again });
    assert_eq!(pair.group(item).outcome, Outcome::Delivered(true));
}

fn settle(pair: &mut Pair, (from, to): (u64, u64), nack: Option<u64>) -> Settled {
    let nack = nack.map(|offset| Nack { offset: Offset(offset), due: TimestampMs(1 << 40) });
    let settle = Settle {
        holding: holding(),
        acks: vec![Span { from: Offset(from), to: Offset(to) }],
        nacks: nack.into_iter().collect(),
        letters_to: LETTERS.queue,
        letters: Vec::new(),
    };
    match pair.group(GroupItem::Settle(settle)).outcome {
        Outcome::Settle(Ok(settled)) => settled,
        outcome => panic!("{outcome:?}"),
    }
}

fn begins_at(pair: &mut Pair, start: u64) {
    let (queue, start) = (ring(), Offset(start));
    let moved = RetainQueue { queue, start, bytes_given_up: 0 };
    assert_eq!(pair.apply(Command::Retain(vec![moved])).outcome, Outcome::Retain(1));
}

/// Floor, retries, lost.
fn numbers(machine: &Machine) -> (u64, usize, u64) {
    let held = machine.progress(holding().place).expect("it was claimed");
    (held.numbers().floor.0, held.retries(), held.numbers().counts.lost)
}

#[test]
fn progress_goes_on_above_what_the_machine_knows_and_over_lives() {
    let mut pair = claimed();
    delivered(&mut pair, THIRD + 10);
    let settled = settle(&mut pair, (THIRD, THIRD + 4), Some(THIRD + 6));
    assert_eq!((settled.floor, settled.retries), (Offset(THIRD + 4), 1));
    // Its ring has dropped the first six, of which two were not answered for.
    begins_at(&mut pair, THIRD + 6);
    assert_eq!(numbers(&pair.machine), (THIRD + 7, 1, 2), "what waits for its retry is there");
    let held = pair.machine.progress(holding().place).unwrap();
    assert_eq!(held.lag(Offset(THIRD + 6), Offset(THIRD + 12)), 6, "five, and one retry");
    // A new leader: what was delivered is lost, and of the rest nobody knows how much it was.
    let early = settle(&mut pair, (FIFTH, FIFTH + 1), None);
    assert_eq!(early.floor, Offset(THIRD + 7), "the floor hears of the new life later");
    let held = pair.machine.progress(holding().place).unwrap();
    assert_eq!(held.lag(Offset(FIFTH), Offset(FIFTH + 3)), 2);
    assert_eq!(held.oldest_unsettled(Offset(FIFTH), Offset(FIFTH)), None, "nor is a retry there");
    begins_at(&mut pair, FIFTH);
    assert_eq!(numbers(&pair.machine), (FIFTH + 1, 0, 2 + 3 + 1), "7, 8 and 9, and the retry");
    assert_eq!(pair.machine.queue(ring()).unwrap().messages(), 0, "none of them is in the log");

    let mut restored = Machine::new(SHARD);
    restored.restore(pair.machine.all_parts()).unwrap();
    assert_eq!(restored.digest(), pair.machine.digest());
    assert_eq!(numbers(&restored), numbers(&pair.machine));
}

#[test]
fn a_temporary_queue_takes_nothing_out_of_the_log() {
    let mut pair = claimed();
    let refused = Outcome::Append(Err(Refusal::InMemory));
    let (queue, batch) = (ring(), batch(0, 0, 0, 1));
    let append = Command::Append { queue, batch: batch.clone() };
    assert_eq!(pair.apply(append).outcome, refused);
    let key = DedupKey::of(b"key");
    let once = Command::AppendOnce { queue, key, batch: batch.clone() };
    assert_eq!(pair.apply(once).outcome, refused);
    let due = vec![TimestampMs(1 << 40)];
    let later = Scheduling::new(queue, None, due, batch.clone());
    assert_eq!(pair.apply(Command::Schedule(later)).outcome, refused);
    let letters = vec![Letter { offset: Offset(0), batch: batch.clone() }];
    pair.apply(Command::Append { queue: LETTERS, batch });
    let place = ProgressKey { queue: LETTERS, group: GROUP };
    let back = GroupItem::Redrive { place, to: queue, letters };
    assert_eq!(pair.group(back).outcome, Outcome::Redrive(Err(Refusal::InMemory)));
    let held = pair.machine.progress(place).unwrap();
    assert_eq!(held.lag(Offset(0), Offset(1)), 1, "the letter stays");
}
