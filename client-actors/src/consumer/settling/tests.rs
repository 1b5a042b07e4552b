use grus_protocol::limits::REQUEST_HEADER_BYTES_MAX;
use grus_protocol::message::AckMessages;
use grus_protocol::{Generation, GroupId, MemberId, QueueId, TopicId, TopicName};

use super::*;

fn nack() -> Verdict {
    Verdict::Nack { retry_after_ms: None, reason: "x".into() }
}

fn ranges(told: &Told) -> Vec<(u64, u64)> {
    told.acks.ranges().map(|range| (range.from.0, range.to.0)).collect()
}

#[test]
fn answers_are_gathered_for_a_moment_and_told_together() {
    let mut settling = Settling::<u32>::default();
    assert_eq!(settling.poll(1, 0), None);
    for offset in [5, 6, 8] {
        settling.settle(Offset(offset), Verdict::Ack, None, 100);
    }
    assert_eq!(settling.poll(1, 100 + GATHER_MS - 1), None);
    let told = settling.poll(1, 100 + GATHER_MS).unwrap();
    assert_eq!(ranges(&told), [(5, 7), (8, 9)]);
    assert!(settling.contains(Offset(6)) && !settling.contains(Offset(7)));
    let range = OffsetRange { from: Offset(4), to: Offset(10) };
    let missing: Vec<_> = settling.missing_of(range).iter().map(OffsetRange::numbers).collect();
    assert_eq!(missing, [4..5, 7..8, 9..10]);
    settling.settle(Offset(7), Verdict::Ack, None, 200);
    assert_eq!(settling.poll(2, 300), None, "one at a time");
    assert_eq!(settling.done(&[], 0), []);
    assert_eq!(ranges(&settling.poll(2, 300).unwrap()), [(7, 8)]);
    settling.done(&[], 0);
    assert!(settling.is_idle());
}

#[test]
fn who_waits_is_not_kept_and_hears_when_it_is_known() {
    let mut settling = Settling::default();
    settling.settle(Offset(1), Verdict::Ack, Some(11), 0);
    assert!(settling.poll(1, 0).is_some());
    settling.settle(Offset(2), nack(), Some(12), 0);
    assert_eq!(settling.done(&[], 0), [11]);
    let told = settling.poll(2, 0).unwrap();
    assert_eq!(told.nacks[0].offset, Offset(2));
    settling.failed(70);
    assert_eq!(settling.poll(3, 69), None);
    assert_eq!(settling.poll(3, 70), Some(told), "the same once more");
    assert_eq!(settling.done(&[], 0), [12]);
}

#[test]
fn a_request_holds_no_more_than_it_may_and_the_rest_follows() {
    let mut settling = Settling::default();
    for offset in 0..2 * ACK_RANGES_MAX as u64 {
        settling.settle(Offset(2 * offset), Verdict::Ack, None, 0);
    }
    for offset in 0..ACK_MARKS_MAX as u64 {
        settling.settle(Offset(100_000 + offset), nack(), None, 0);
    }
    let dead = Verdict::Dead { reason: "y".repeat(3_000) };
    settling.settle(Offset(200_000), dead, Some(1), 0);
    let first = settling.poll(1, 0).unwrap();
    assert_eq!(first.acks.ranges_len(), ACK_RANGES_MAX);
    assert_eq!((first.nacks.len(), first.dead.len()), (ACK_MARKS_MAX, 0));
    assert_eq!(settling.done(&[], 0), []);
    let second = settling.poll(2, 0).unwrap();
    assert_eq!(second.acks.ranges_len(), ACK_RANGES_MAX);
    assert_eq!(second.dead[0].reason.len(), REASON_BYTES_MAX);
    assert_eq!(settling.done(&[], 0), [1]);
    assert!(settling.is_idle());
}

#[test]
fn a_queue_is_handed_back_behind_all_answers_and_that_holds_up_nothing() {
    let mut settling = Settling::<u32>::default();
    for offset in 0..=ACK_RANGES_MAX as u64 {
        settling.settle(Offset(2 * offset), Verdict::Ack, None, 0);
    }
    let hands_back = HandBack { unseen_from: Offset(9_000), in_work: Vec::new() };
    settling.hand_back(hands_back.clone(), 0);
    assert!(settling.is_handing_back() && !settling.is_idle());
    assert_eq!(settling.poll(1, 0).unwrap().hands_back, None, "there are more answers");
    settling.done(&[], 0);
    let told = settling.poll(2, 0).unwrap();
    assert_eq!(told.hands_back, Some(hands_back.clone()));
    settling.failed(0);
    assert_eq!(settling.poll(3, 0).unwrap(), told, "once more");
    settling.done(&[], 0);
    assert!(settling.is_idle() && !settling.is_handing_back());
    settling.hand_back(hands_back, 0);
    assert!(settling.is_idle(), "nothing is to be told of a message");
    assert!(settling.poll(4, 0).is_some());
    assert!(settling.is_idle() && settling.is_handing_back());
    settling.failed(0);
    settling.keep_back();
    assert_eq!(settling.poll(5, 0), None);
    assert!(!settling.is_handing_back());
}

#[test]
fn what_counts_no_more_is_forgotten_and_its_waiters_are_given_back() {
    let mut settling = Settling::default();
    settling.settle(Offset(1), Verdict::Ack, Some(1), 0);
    settling.poll(1, 0);
    settling.settle(Offset(2), Verdict::Unhandled, Some(9), 0);
    settling.settle(Offset(3), Verdict::Ack, Some(2), 0);
    assert_eq!(settling.clear(), [1, 2]);
    assert!(settling.is_idle() && settling.sent().is_none());
}

/// The bytes of a request's header that says it, where all numbers are as long as they can be.
fn header_bytes(told: &Told) -> usize {
    let ask = AckMessages {
        topic: TopicName::try_from("t".repeat(120).as_str()).unwrap(),
        topic_id: TopicId(u64::MAX),
        queue: QueueId(u32::MAX),
        group_id: GroupId(u64::MAX),
        member: MemberId(u64::MAX),
        generation: Generation(u64::MAX),
        round: u32::MAX,
        acks: told.acks.ranges().collect(),
        nacks: told.nacks.clone(),
        dead: told.dead.clone(),
        unseen_from: told.hands_back.as_ref().map(|back| back.unseen_from),
        in_work: told.hands_back.as_ref().map_or_else(Vec::new, |back| back.in_work.clone()),
    };
    crate::link::encode(&ask, 0).len()
}

#[test]
fn however_long_the_reasons_are_a_request_fits_its_header_and_all_are_told() {
    let mut settling = Settling::default();
    let first = u64::MAX / 2; // long numbers
    for at in 0..ACK_MARKS_MAX as u64 {
        let (retry_after_ms, reason) = (Some(u64::MAX), "x".repeat(REASON_BYTES_MAX));
        settling.settle(Offset(first + at), Verdict::Nack { retry_after_ms, reason }, None, 0);
        let dead = Verdict::Dead { reason: "y".repeat(REASON_BYTES_MAX) };
        settling.settle(Offset(first + 10_000 + at), dead, Some(at), 0);
    }
    let mut in_work = Vec::new();
    for at in 0..ACK_RANGES_MAX as u64 {
        settling.settle(Offset(first + 20_000 + 2 * at), Verdict::Ack, None, 0);
        in_work.push(OffsetRange::one(Offset(first + 40_000 + 2 * at)));
    }
    settling.hand_back(HandBack { unseen_from: Offset(u64::MAX), in_work }, 0);
    let (mut nacks, mut dead, mut heard, mut number) = (0, 0, 0, 0);
    while let Some(told) = settling.poll(number, 0) {
        assert!(header_bytes(&told) <= REQUEST_HEADER_BYTES_MAX as usize, "request {number}");
        assert!(!told.nacks.is_empty() || !told.dead.is_empty(), "request {number} goes on");
        (nacks, dead, number) = (nacks + told.nacks.len(), dead + told.dead.len(), number + 1);
        heard += settling.done(&[], 0).len();
    }
    assert_eq!((nacks, dead, heard), (ACK_MARKS_MAX, ACK_MARKS_MAX, ACK_MARKS_MAX));
    assert!(settling.is_at_rest());
}

#[test]
fn the_most_of_all_in_one_request_fits_its_header() {
    let mut settling = Settling::<u32>::default();
    let mut in_work = Vec::new();
    for at in 0..ACK_RANGES_MAX as u64 {
        let offset = u64::MAX / 2 + 2 * at;
        settling.settle(Offset(offset), Verdict::Ack, None, 0);
        in_work.push(OffsetRange::one(Offset(offset)));
    }
    let reason = "z".repeat(ACK_REASONS_BYTES_MAX / ACK_MARKS_MAX);
    for at in 0..ACK_MARKS_MAX as u64 {
        let nack = Verdict::Nack { retry_after_ms: Some(u64::MAX), reason: reason.clone() };
        settling.settle(Offset(u64::MAX - 1 - at), nack, None, 0);
    }
    settling.hand_back(HandBack { unseen_from: Offset(u64::MAX), in_work }, 0);
    let told = settling.poll(1, 0).unwrap();
    assert!(told.hands_back.is_some() && told.nacks.len() == ACK_MARKS_MAX);
    let bytes = header_bytes(&told);
    assert!(bytes <= REQUEST_HEADER_BYTES_MAX as usize, "{bytes}");
}

#[test]
fn what_a_broker_finds_too_large_goes_in_halves_and_at_last_without_reasons() {
    let mut settling = Settling::<u32>::default();
    for at in 0..8 {
        settling.settle(Offset(2 * at), Verdict::Ack, None, 0);
        let reason = "x".repeat(REASON_BYTES_MAX);
        settling.settle(Offset(100 + at), Verdict::Nack { retry_after_ms: None, reason }, None, 0);
    }
    // A broker whose requests may be of 80 bytes.
    let (mut told, mut number) = (Told::default(), 0);
    while let Some(asked) = settling.poll(number, GATHER_MS) {
        number += 1;
        if header_bytes(&asked) > header_bytes(&Told::default()) + 80 {
            settling.was_too_large(0);
            continue;
        }
        settling.done(&[], 0);
        told.acks.extend(&asked.acks);
        told.nacks.extend(asked.nacks);
        assert!(number < 100, "it comes to an end");
    }
    assert_eq!((told.acks.ranges_len(), told.nacks.len()), (8, 8));
    assert!(told.nacks.iter().all(|nack| nack.reason.len() < 80), "cut as far as needed");
}

#[test]
fn what_was_refused_goes_behind_what_was_not_told_yet() {
    let mut settling = Settling::<u32>::default();
    for offset in 0..=ACK_MARKS_MAX as u64 {
        settling.settle(Offset(offset), nack(), None, 0);
    }
    assert_eq!(settling.poll(1, GATHER_MS).unwrap().nacks.len(), ACK_MARKS_MAX);
    settling.failed(0);
    let told = settling.poll(2, 0).unwrap();
    assert_eq!(told.nacks[0].offset, Offset(ACK_MARKS_MAX as u64));
}

#[test]
fn what_finds_no_room_waits_by_itself_and_all_else_goes_on() {
    let mut settling = Settling::default();
    let one = |offset| OffsetRange::one(Offset(offset));
    settling.ack_all(&[OffsetRange { from: Offset(0), to: Offset(3) }], Some(1), 0);
    settling.settle(Offset(5), nack(), Some(2), 0);
    settling.settle(Offset(6), nack(), Some(3), 0);
    let dead = Verdict::Dead { reason: "y".into() };
    settling.settle(Offset(7), dead, Some(4), 0);
    assert_eq!(settling.untold_marks(), 3);
    settling.poll(1, 0).unwrap();
    assert_eq!(settling.done(&[one(1), one(6), one(7)], 500), [1, 2], "those are known");
    assert_eq!((settling.untold_marks(), settling.is_idle()), (2, false));
    let all = settling.missing_of(OffsetRange { from: Offset(0), to: Offset(9) });
    let missing: Vec<_> = all.iter().map(OffsetRange::numbers).collect();
    assert_eq!(missing, [0..1, 2..6, 8..9], "what is left comes to nobody meanwhile");
    settling.settle(Offset(8), Verdict::Ack, Some(5), 100);
    assert_eq!(ranges(&settling.poll(2, 100).unwrap()), [(8, 9)], "and holds up nothing");
    assert_eq!(settling.done(&[], 0), [5]);
    assert_eq!(settling.poll(3, 499), None);
    let told = settling.poll(3, 500).unwrap();
    assert_eq!((ranges(&told), told.nacks.len(), told.dead.len()), (vec![(1, 2)], 1, 1));
    assert_eq!(settling.done(&[], 0), [3, 4]);
    assert!(settling.is_at_rest());
}
