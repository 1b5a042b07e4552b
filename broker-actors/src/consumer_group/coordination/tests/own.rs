//! Queues divided by the members' own program.

use grus_protocol::ids::{MemberId, TopicId};
use grus_protocol::message::{AssignTopic, GroupStrategy};

use super::super::{AnswerRefusal, Beat, Joining, News};
use super::Desk;

/// One whose program divides the queues itself.
fn own(session: u64) -> Joining {
    let mut joining = Desk::joining(session);
    joining.options.strategy = Some(GroupStrategy::Own);
    joining
}

/// All queues of the topic to one member.
fn all_to(member: MemberId, queues: usize) -> [AssignTopic; 1] {
    [AssignTopic { topic_id: TopicId(1), members: vec![member; queues] }]
}

#[test]
fn a_member_is_asked_to_divide_and_its_answer_is_carried_out() {
    let mut desk = Desk::new(4);
    let first = desk.try_join(own(1)).unwrap();
    let second = desk.try_join(own(2)).unwrap();
    assert_eq!(desk.beat(second, 0, &[]), Ok(Beat::Park), "nothing is divided yet");
    assert_eq!(desk.beat(first, 0, &[]), Ok(Beat::Answer));
    let told = desk.coordination.tell(first).unwrap();
    assert_eq!(told.assigned, None);
    let asked = told.divide.expect("it is asked");
    assert_eq!(asked.members.iter().map(|one| one.member).collect::<Vec<_>>(), [first, second]);
    let topic = &asked.topics[0];
    assert_eq!((topic.queues.len(), &topic.members[..]), (4, &[first, second][..]));
    assert_eq!(topic.owners, [MemberId::NONE; 4]);
    assert_eq!(desk.coordination.tell(first).unwrap().divide, None, "it is asked once");

    let (number, now_ms) = (asked.question, desk.now_ms);
    let answer = all_to(second, 4);
    let of_others = desk.coordination.answered(second, number, Some(&all_to(first, 4)), now_ms);
    assert_eq!(of_others, Ok(()), "nobody has asked it: of no account");
    assert_eq!(desk.coordination.answered(first, number, Some(&answer), now_ms), Ok(()));
    desk.write();
    assert_eq!(desk.coordination.book().held_by(second).count(), 4);
    assert_eq!(desk.coordination.answered(first, number, Some(&all_to(first, 4)), now_ms), Ok(()));
    desk.tell_routes();
    desk.write();
    assert_eq!(desk.coordination.book().held_by(second).count(), 4, "the same field, as before");
    // Who had everything goes: whoever answered last is asked again.
    desk.coordination.leave(second, 9).unwrap();
    desk.write();
    let asked = desk.coordination.tell(first).unwrap().divide.expect("it is another field");
    let answer = all_to(first, 4);
    desk.coordination.answered(first, asked.question, Some(&answer), desk.now_ms).unwrap();
    desk.write();
    assert_eq!(desk.coordination.book().held_by(first).count(), 4);
}

#[test]
fn a_silent_member_is_waited_for_no_longer_because_the_field_changes_meanwhile() {
    let mut desk = Desk::new(4);
    let silent = desk.try_join(own(1)).unwrap();
    desk.coordination.tell(silent).unwrap().divide.expect("it is asked");
    let second = desk.try_join(own(2)).unwrap();
    let (begun_ms, mut session) = (desk.now_ms, 3);
    let asked = loop {
        assert!(desk.now_ms < begun_ms + 3_500, "the same one is asked, again and again");
        desk.try_join(own(session)).unwrap(); // each is another field
        session += 1;
        desk.now_ms += 400;
        for member in [silent, second] {
            let _ = desk.beat(member, 0, &[]);
        }
        let _ = desk.coordination.tell(silent); // it is told, and says nothing
        desk.coordination.tick(desk.now_ms);
        desk.write();
        if let Some(asked) = desk.coordination.tell(second).unwrap().divide {
            break asked;
        }
    };
    let answer = all_to(second, 4);
    let now_ms = desk.now_ms;
    assert_eq!(desk.coordination.answered(second, asked.question, Some(&answer), now_ms), Ok(()));
    desk.write();
    assert_eq!(desk.coordination.book().held_by(second).count(), 4);
}

#[test]
fn a_group_whose_members_do_not_divide_is_shared_all_the_same() {
    let mut desk = Desk::new(4);
    let first = desk.try_join(own(1)).unwrap();
    let second = desk.try_join(own(2)).unwrap();
    let asked = desk.coordination.tell(first).unwrap().divide.expect("it is asked");
    let short =
        desk.coordination.answered(first, asked.question, Some(&all_to(second, 3)), desk.now_ms);
    assert_eq!(short, Err(AnswerRefusal::Unusable));
    let stranger = all_to(MemberId(99), 4);
    let asked = desk.coordination.tell(second).unwrap().divide.expect("then another one");
    let strange = desk.coordination.answered(second, asked.question, Some(&stranger), desk.now_ms);
    assert_eq!(strange, Err(AnswerRefusal::Unusable));
    assert!(desk.write().contains(&News::DividedWithoutAnswer));
    let held = |desk: &Desk, member| desk.coordination.book().held_by(member).count();
    assert_eq!((held(&desk, first), held(&desk, second)), (2, 2));
    // A third one comes: who has no function says so, who is silent is passed by in time.
    let third = desk.try_join(own(3)).unwrap();
    let asked = desk.coordination.tell(first).unwrap().divide.expect("it is asked");
    assert_eq!(desk.coordination.answered(first, asked.question, None, desk.now_ms), Ok(()));
    let (mut news, until_ms) = (desk.write(), desk.now_ms + 7_000);
    while desk.now_ms < until_ms {
        for member in [first, second, third] {
            let _ = desk.beat(member, 0, &[]);
        }
        desk.coordination.tick(desk.now_ms);
        news.extend(desk.write());
    }
    assert!(news.contains(&News::DividedWithoutAnswer), "two were waited for in vain");
    assert_eq!(desk.coordination.target().values().filter(|one| **one == third).count(), 1);
}
