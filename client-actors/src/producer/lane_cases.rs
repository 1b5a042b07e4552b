//! What a lane sends, case by case.

use grus_protocol::{
    Durability, ErrorCode, ErrorReply, Offset, ProducerEpoch, ProducerId, TimestampMs,
};

use super::lane::{Batch, Divided, Identity, Lane, LaneSettings};
use super::outcome::{Outcome, Stored};
use crate::error::{Refusal, SendError};

const SETTINGS: LaneSettings = LaneSettings {
    send_timeout_ms: 1_000,
    retries: 2,
    in_flight_batches_max: 5,
    backoff_ms: (10, 10),
};

fn identity(producer: u64) -> Identity {
    Identity { producer: ProducerId(producer), epoch: ProducerEpoch(0) }
}

/// A lane that is up, with batches 0 to before `count` of two records each.
fn lane(count: u32) -> Lane<u32, u32> {
    let mut lane = Lane::new(SETTINGS, 1, 0);
    for payload in 0..count {
        lane.push(Batch { payload, members: payload, records: 2, bytes: 10, deadline_ms: 3_000 });
    }
    lane.link_up();
    lane.give_identity(identity(1));
    lane
}

/// All there is to send: which batch, as which sequence of which producer.
fn sent(lane: &mut Lane<u32, u32>, now_ms: u64) -> Vec<(u32, u64, u64)> {
    let mut sent = Vec::new();
    while let Some(order) = lane.poll_send(now_ms) {
        sent.push((*order.payload, order.first_sequence.0, order.identity.producer.0));
    }
    sent
}

fn refusal(code: ErrorCode) -> Refusal {
    ErrorReply::new(code, "").into()
}

fn receipt() -> Stored {
    let (at, durability) = (TimestampMs(0), Durability::Persisted);
    Stored {
        base_offset: Offset(0),
        at,
        durability,
        duplicate: false,
        timer: None,
        delays_from: None,
    }
}

fn results(out: Vec<Outcome<u32>>) -> Vec<(u32, Result<(), SendError>)> {
    out.into_iter().map(|outcome| (outcome.members, outcome.result.map(|_| ()))).collect()
}

#[test]
fn five_batches_are_in_flight_and_each_answer_lets_one_more_go() {
    let mut lane = lane(7);
    let first = [(0, 0, 1), (1, 2, 1), (2, 4, 1), (3, 6, 1), (4, 8, 1)];
    assert_eq!(sent(&mut lane, 0), first);
    let mut out = Vec::new();
    lane.stored(1, receipt(), &mut out);
    assert_eq!(sent(&mut lane, 0), [], "the oldest one is not answered");
    lane.stored(0, receipt(), &mut out);
    assert_eq!(sent(&mut lane, 0), [(5, 10, 1), (6, 12, 1)]);
    assert_eq!(results(out), [(1, Ok(())), (0, Ok(()))]);
}

#[test]
fn after_a_reconnect_all_that_is_unanswered_leaves_at_once_in_order_under_the_same_sequences() {
    let mut lane = lane(6);
    let before = sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.stored(0, receipt(), &mut out);
    lane.link_down();
    assert_eq!(sent(&mut lane, 5), [], "there is no connection");
    lane.link_up();
    let mut again = before[1..].to_vec();
    again.push((5, 10, 1));
    assert_eq!(sent(&mut lane, 5), again);
    assert_eq!(results(out), [(0, Ok(()))]);
}

#[test]
fn lost_connections_do_not_count_as_attempts_within_a_messages_time() {
    let mut lane = lane(1);
    let mut out = Vec::new();
    for now_ms in 0..100 {
        assert_eq!(sent(&mut lane, now_ms), [(0, 0, 1)], "sent again after {now_ms} losses");
        lane.link_down();
        lane.link_up();
    }
    assert!(out.is_empty());
    sent(&mut lane, 100);
    lane.stored(0, receipt(), &mut out);
    assert_eq!(results(out), [(0, Ok(()))]);
}

#[test]
fn a_refusal_is_waited_out_and_then_what_is_behind_it_follows_one_by_one() {
    let mut lane = lane(3);
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.refused(
        (1, 1),
        refusal(ErrorCode::Overloaded),
        100,
        |batch, _| Divided::whole(batch),
        &mut out,
    );
    lane.refused(
        (2, 2),
        refusal(ErrorCode::OutOfSequence),
        100,
        |batch, _| Divided::whole(batch),
        &mut out,
    );
    assert_eq!(sent(&mut lane, 104), [], "it waits at least half of its backoff");
    assert_eq!(sent(&mut lane, 110), [], "one is on its way, and the broker had no room for two");
    lane.stored(0, receipt(), &mut out);
    assert_eq!(sent(&mut lane, 110), [(1, 2, 1)]);
    assert_eq!(results(std::mem::take(&mut out)), [(0, Ok(()))]);
    lane.stored(1, receipt(), &mut out);
    assert_eq!(sent(&mut lane, 110), [(2, 4, 1)]);
}

#[test]
fn a_gap_behind_one_that_is_not_answered_waits_for_that_answer() {
    let mut lane = lane(2);
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.refused(
        (1, 1),
        refusal(ErrorCode::OutOfSequence),
        0,
        |batch, _| Divided::whole(batch),
        &mut out,
    );
    assert_eq!(sent(&mut lane, 500), []);
    lane.stored(0, receipt(), &mut out);
    assert_eq!(sent(&mut lane, 500), [(1, 2, 1)]);
}

#[test]
fn a_gap_before_the_oldest_means_another_identity_for_all() {
    let mut lane = lane(2);
    sent(&mut lane, 0);
    lane.refused(
        (0, 0),
        refusal(ErrorCode::UnknownProducer),
        0,
        |batch, _| Divided::whole(batch),
        &mut Vec::new(),
    );
    assert_eq!(sent(&mut lane, 0), []);
    assert!(lane.wants_identity());
    lane.give_identity(identity(2));
    assert_eq!(sent(&mut lane, 0), [(0, 0, 2), (1, 2, 2)]);
}

#[test]
fn what_nobody_awaits_is_not_sent_again_and_its_sequences_are_not_used_again() {
    let mut lane = lane(2);
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.link_down();
    lane.expire(3_000, &mut out);
    let timeout = Err(SendError::Timeout { maybe_stored: true, cause: None });
    assert_eq!(results(out), [(0, timeout.clone()), (1, timeout)]);
    lane.push(Batch { payload: 9, members: 9, records: 1, bytes: 10, deadline_ms: 9_000 });
    lane.link_up();
    assert_eq!(sent(&mut lane, 3_000), []);
    lane.give_identity(identity(2));
    assert_eq!(sent(&mut lane, 3_000), [(9, 0, 2)]);
}

#[test]
fn what_timed_out_is_sent_again_while_one_behind_it_is_awaited() {
    let mut lane = lane(1);
    lane.push(Batch { payload: 1, members: 1, records: 1, bytes: 10, deadline_ms: 5_000 });
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.link_down();
    lane.expire(3_000, &mut out);
    assert_eq!(out.len(), 1);
    lane.link_up();
    assert_eq!(sent(&mut lane, 3_000), [(0, 0, 1), (1, 2, 1)], "1 cannot be stored without 0");
}

#[test]
fn a_batch_refused_for_good_frees_those_behind_it_once_those_before_it_are_answered() {
    let mut lane = lane(3);
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.refused(
        (1, 1),
        refusal(ErrorCode::RecordNotAllowed),
        0,
        |batch, _| Divided::whole(batch),
        &mut out,
    );
    assert!(!lane.wants_identity(), "0 is not answered: 2 must not overtake it");
    lane.stored(0, receipt(), &mut out);
    assert!(lane.wants_identity());
    lane.give_identity(identity(2));
    assert_eq!(sent(&mut lane, 0), [(2, 0, 2)]);
    let refused = Err(SendError::Refused(refusal(ErrorCode::RecordNotAllowed)));
    assert_eq!(results(out), [(1, refused), (0, Ok(()))]);
}

#[test]
fn an_attempt_without_an_answer_is_repeated_as_often_as_allowed() {
    let mut lane = lane(1);
    let mut out = Vec::new();
    for attempt in 0..3 {
        let now_ms = attempt * 1_100;
        assert_eq!(sent(&mut lane, now_ms), [(0, 0, 1)], "attempt {attempt}");
        assert!(out.is_empty());
        lane.expire((now_ms + 1_000).min(2_999), &mut out);
    }
    lane.expire(3_200, &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_batch_that_did_not_leave_gives_its_sequence_back() {
    let mut lane = lane(2);
    let order = lane.poll_send(0).unwrap();
    assert_eq!((*order.payload, order.serial), (0, 0));
    lane.not_sent(0, 0, 5);
    assert_eq!(sent(&mut lane, 4), []);
    assert_eq!(sent(&mut lane, 5), [(0, 0, 1), (1, 2, 1)]);
}

#[test]
fn a_fenced_lane_fails_everything() {
    let mut lane = lane(7);
    sent(&mut lane, 0);
    let mut out = Vec::new();
    lane.refused(
        (0, 0),
        refusal(ErrorCode::ProducerFenced),
        0,
        |batch, _| Divided::whole(batch),
        &mut out,
    );
    assert_eq!(out.len(), 7);
    assert!(lane.is_idle());
    let results = results(out);
    assert!(matches!(results[0].1, Err(SendError::Fenced(_))));
    assert!(results[1].1.as_ref().unwrap_err().maybe_stored(), "its answer was awaited");
    assert!(matches!(results[6].1, Err(SendError::Fenced(_))));
}
