//! A member and what its coordinator says.

use grus_protocol::{BrokerId, ErrorReply, QueueId, TopicId, TopicName};

use super::*;

const SESSION_MS: u64 = 9_000;

fn joined(member: u64) -> JoinGroupReply {
    JoinGroupReply {
        group_id: GroupId(3),
        member: MemberId(member),
        generation: Generation(0),
        session_ms: 9_000,
        heartbeat_ms: 3_000,
        settings: GroupSettings::default(),
        time: grus_protocol::TimestampMs(0),
    }
}

fn beat(generation: u64, assigned: Option<Vec<AssignedQueue>>) -> GroupHeartbeatReply {
    GroupHeartbeatReply {
        generation: Generation(generation),
        assigned,
        settings: None,
        divide: None,
    }
}

fn queue(number: u32) -> AssignedQueue {
    let (topic, topic_id) = (TopicName::try_from("t").unwrap(), TopicId(1));
    AssignedQueue { topic, topic_id, queue: QueueId(number), generation: Generation(1) }
}

fn refusal(code: ErrorCode) -> Refusal {
    ErrorReply::new(code, "x").into()
}

fn heartbeat(ask: &MemberAsk) -> (u64, &[QueuePlace], u32) {
    match &ask.what {
        MemberWord::Heartbeat { known, holding, wait_ms, .. } => (known.0, holding, *wait_ms),
        other => panic!("{other:?}"),
    }
}

/// A member since `now_ms`.
fn member(now_ms: u64) -> Membership {
    let mut member = Membership::new(1);
    let ask = member.poll(1, &[], now_ms).unwrap();
    assert_eq!((ask.what, ask.to), (MemberWord::Join, None));
    assert_eq!(member.poll(2, &[], now_ms), None, "one join at a time");
    assert_eq!(member.is_member(1, joined(7)), News::None);
    member
}

#[test]
fn the_lease_counts_from_the_sending_of_what_was_answered() {
    let mut member = member(100);
    assert_eq!(member.safe_until_ms(), 100 + SESSION_MS * 2 / 3);
    let ask = member.poll(2, &[], 200).unwrap();
    assert_eq!(heartbeat(&ask), (0, &[][..], 2_000));
    assert_eq!(member.poll(3, &[], 2_100), None, "one heartbeat at a time");
    assert_eq!(member.is_heard(2, beat(1, Some(vec![queue(0)]))), News::Assigned(vec![queue(0)]));
    assert_eq!(member.safe_until_ms(), 200 + SESSION_MS * 2 / 3);
    assert_eq!(heartbeat(&member.poll(3, &[], 2_200).unwrap()).0, 1, "it follows that one");
    assert_eq!(member.is_heard(3, beat(1, None)), News::None);
    assert_eq!(member.is_heard(3, beat(9, Some(Vec::new()))), News::None, "not asked");
}

#[test]
fn what_it_let_go_of_is_told_at_once() {
    let mut member = member(0);
    let place = QueuePlace { topic_id: TopicId(1), queue: QueueId(4) };
    let first = member.poll(2, &[place], 0).unwrap();
    assert_eq!(heartbeat(&first).1, [place]);
    assert_eq!(member.poll(3, &[], 1), None);
    member.tell();
    let second = member.poll(3, &[], 1).unwrap();
    assert_eq!(heartbeat(&second).1, [], "beside the one that waits");
    // The older answer may come later; what it says of an older assignment does not count.
    assert_eq!(member.is_heard(3, beat(5, Some(Vec::new()))), News::Assigned(Vec::new()));
    assert_eq!(member.is_heard(2, beat(4, Some(vec![queue(0)]))), News::None);
}

#[test]
fn it_follows_the_coordinator_and_asks_anybody_when_that_is_of_no_use() {
    let mut member = Membership::new(1);
    member.poll(1, &[], 0).unwrap();
    let address = BrokerAddress { id: BrokerId(2), host: "h".into(), port: 1 };
    let detail = ErrorDetail::Leader(address.clone());
    let elsewhere = ErrorReply::new(ErrorCode::NotLeader, "x").with_detail(detail);
    assert_eq!(member.is_refused(1, elsewhere.clone().into(), 0), News::None);
    assert_eq!(member.poll(2, &[], 0).unwrap().to, Some(address), "at once");
    assert_eq!(member.is_refused(2, elsewhere.into(), 0), News::None);
    assert_eq!(member.poll(3, &[], 0), None, "the same again: after a while");
    member.poll(3, &[], 1_000).unwrap();
    assert_eq!(member.is_refused(3, refusal(ErrorCode::Unavailable), 1_000), News::None);
    assert_eq!(member.poll(4, &[], 3_000).unwrap().to, None);
}

#[test]
fn a_member_that_is_not_known_any_more_has_lost_all_and_joins_again() {
    let mut member = member(0);
    member.poll(2, &[], 10).unwrap();
    assert_eq!(member.is_refused(2, refusal(ErrorCode::UnknownMember), 20), News::Lost);
    assert_eq!((member.safe_until_ms(), member.joined()), (0, None));
    assert_eq!(member.poll(3, &[], 20).unwrap().what, MemberWord::Join);
    assert_eq!(member.is_member(3, joined(8)), News::None);
    member.join_again();
    assert_eq!(member.poll(4, &[], 30).unwrap().what, MemberWord::Join);
    assert_eq!(member.is_member(4, joined(9)), News::Lost, "as another one");
}

#[test]
fn it_is_known_since_when_nobody_answers_and_what_was_said_last() {
    let mut member = Membership::new(1);
    let waited = |member: &Membership, now_ms| member.waits().0.waited_ms(now_ms);
    assert_eq!(waited(&member, 0), None, "nothing was asked yet");
    member.poll(1, &[], 100).unwrap();
    member.is_refused(1, refusal(ErrorCode::NotLeader), 400);
    member.poll(2, &[], 2_000).unwrap();
    member.is_lost(2, 2_500);
    assert_eq!((waited(&member, 3_000), member.waits().1), (Some(2_900), false));
    member.poll(3, &[], 5_000).unwrap();
    member.is_member(3, joined(7));
    assert_eq!((waited(&member, 9_000), member.waits().1), (None, true));
    member.poll(4, &[], 5_000).unwrap();
    member.is_lost(4, 6_000);
    assert_eq!(waited(&member, 9_000), Some(3_000), "since it was in touch");
    member.poll(5, &[], 9_000).unwrap();
    member.is_heard(5, beat(1, None));
    assert_eq!(waited(&member, 9_000), None);
}

#[test]
fn a_lost_connection_shortens_the_lease_and_silence_counts_as_one() {
    let mut member = member(0);
    member.poll(2, &[], 1_000).unwrap();
    assert_eq!(member.is_lost(2, 1_500), News::None);
    assert_eq!(member.safe_until_ms(), 1_500 + ORPHAN_MS * 2 / 3);
    let ask = member.poll(3, &[], 3_000).unwrap();
    assert_eq!(ask.deadline_ms, 3_000 + 2_000 + SESSION_MS / ANSWER_SLACK_PART);
    assert_eq!(member.tick(ask.deadline_ms - 1), News::None);
    assert_eq!(member.under_way.len(), 1);
    member.tick(ask.deadline_ms);
    assert_eq!(member.under_way.len(), 0, "another one is sent");
}

#[test]
fn a_refusal_for_good_ends_a_first_join_and_leaves_a_member_what_it_was() {
    let mut refused = Membership::new(1);
    refused.poll(1, &[], 0).unwrap();
    let no = refusal(ErrorCode::InvalidSettings);
    assert_eq!(refused.is_refused(1, no.clone(), 0), News::Refused(no.clone()));
    assert!(refused.is_over() && refused.poll(2, &[], 9_000).is_none());
    let mut member = member(0);
    member.join_again();
    member.poll(2, &[], 0).unwrap();
    assert_eq!(member.is_refused(2, no.clone(), 0), News::Refused(no));
    assert!(!member.is_over());
    assert_eq!(heartbeat(&member.poll(3, &[], 5_000).unwrap()).0, 0);
}

#[test]
fn leaving_ends_it_whatever_the_answer() {
    for answered in [true, false] {
        let mut member = member(0);
        member.leave(0);
        let ask = member.poll(2, &[], 0).unwrap();
        assert!(matches!(ask.what, MemberWord::Leave { .. }));
        assert_eq!(member.poll(3, &[], 0), None);
        let news = if answered { member.has_left(2) } else { member.is_lost(2, 5) };
        assert_eq!((news, member.is_over()), (News::Left, true));
    }
    let mut nobody = Membership::new(1);
    nobody.leave(0);
    assert!(nobody.is_over());
}

#[test]
fn a_coordinator_that_takes_no_leave_is_asked_for_a_while_and_then_left_alone() {
    let mut member = member(0);
    member.leave(10);
    let (mut asked, mut now_ms) = (0, 10);
    while !member.is_over() {
        member.leave(now_ms);
        if member.poll(2 + now_ms, &[], now_ms).is_some() {
            asked += 1;
            let full = refusal(ErrorCode::Unavailable);
            assert_eq!(member.is_refused(2 + now_ms, full, now_ms), News::None);
        }
        now_ms += 25;
        assert!(now_ms < 60_000, "it leaves without end");
        member.tick(now_ms);
    }
    assert!((2..40).contains(&asked), "asked {asked} times");
    assert!(now_ms >= 10 + LEAVE_MS_MAX);
}

#[test]
fn one_that_leaves_before_it_has_joined_is_gone_when_its_join_is_lost() {
    let mut member = Membership::new(1);
    member.poll(1, &[], 0).unwrap();
    member.leave(0);
    assert!(!member.is_over(), "it may have joined");
    member.is_lost(1, 20);
    member.leave(25);
    assert!(member.is_over());
}
