//! The ways of a group, one by one.

mod crowd;
mod own;

use std::collections::BTreeSet;
use std::sync::Arc;

use grus_protocol::ids::{Generation, MemberId, QueueKey, ShardId, TimestampMs};
use grus_protocol::message::{GroupModel, GroupOptions, MessageFilter};
use grus_protocol::names::InstanceName;

use super::super::book::Book;
use super::super::field::tests::{GROUP, group, key, put, subscription};
use super::super::records::encode;
use super::joining::PATTERNS_MAX;
use super::{Beat, Coordination, JoinRefusal, Joining, News, NoMember, ORPHAN_MS};
use crate::registry_link::routes::Routes;

/// A group that writes at once.
struct Desk {
    coordination: Coordination,
    routes: Routes,
    now_ms: u64,
}

impl Desk {
    fn new(queues: u32) -> Self {
        let mut routes = Routes::default();
        put(&mut routes, "%DLQ%g", GROUP.0, &[0]);
        put(&mut routes, "t", 1, &vec![0; queues as usize]);
        let coordination = Coordination::new((group(), GROUP), Book::default(), 0);
        let mut desk = Self { coordination, routes, now_ms: 1 };
        desk.tell_routes();
        desk
    }

    fn tell_routes(&mut self) {
        self.coordination.routes_are(Arc::new(self.routes.clone()), self.now_ms);
    }

    fn joining(session: u64) -> Joining {
        Joining {
            session,
            client_id: "c".into(),
            address: "a".into(),
            instance: None,
            lane: None,
            subscriptions: vec![subscription("t")],
            options: GroupOptions::default(),
            connection: session,
        }
    }

    fn now(&self) -> (u64, TimestampMs) {
        (self.now_ms, TimestampMs(self.now_ms))
    }

    fn try_join(&mut self, joining: Joining) -> Result<MemberId, JoinRefusal> {
        let now = self.now();
        self.coordination.join(joining, 77, now)?;
        let news = self.write();
        let member = news.iter().find_map(|news| match news {
            News::Joined(77, member) => Some(*member),
            _ => None,
        });
        Ok(member.expect("whoever joins is told"))
    }

    fn join(&mut self, session: u64) -> MemberId {
        self.try_join(Self::joining(session)).unwrap()
    }

    /// Writes all there is to write; what came of it.
    fn write(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for _ in 0..10 {
            while self.coordination.next_change(self.now_ms).is_some() {
                self.coordination.applied(self.now_ms);
            }
            news.extend(self.coordination.take_news());
            self.now_ms += 10;
        }
        news
    }

    fn beat(
        &mut self,
        member: MemberId,
        known: u64,
        holding: &[QueueKey],
    ) -> Result<Beat, NoMember> {
        let holding: BTreeSet<_> = holding.iter().copied().collect();
        let now = self.now();
        let known = (Generation(known), &holding);
        self.coordination.heartbeat(member, known, member.0, now)
    }

    /// What a member is told that asks now, as (generation, queues).
    fn ask(&mut self, member: MemberId, known: u64, holding: &[QueueKey]) -> (u64, Vec<QueueKey>) {
        self.beat(member, known, holding).unwrap();
        self.write();
        let told = self.coordination.tell(member).unwrap();
        let queues = told.assigned.expect("it is news").into_iter();
        let queues = queues.map(|one| QueueKey { topic: one.topic_id, queue: one.queue }).collect();
        (told.generation.0, queues)
    }
}

#[test]
fn a_second_member_has_its_queues_once_the_first_has_let_go() {
    let mut desk = Desk::new(4);
    let first = desk.join(1);
    let (known, queues) = desk.ask(first, 0, &[]);
    assert_eq!(queues.len(), 4);
    assert_eq!(desk.beat(first, known, &[]), Ok(Beat::Park), "it knows that");

    let second = desk.join(2);
    assert_eq!(desk.ask(second, 0, &[]).1, [], "nothing is free yet");
    let (known, kept) = desk.ask(first, known, &[]);
    let given: Vec<_> = queues.iter().filter(|queue| !kept.contains(queue)).copied().collect();
    assert_eq!((kept.len(), given.len()), (2, 2));

    assert_eq!(desk.beat(first, known, &given), Ok(Beat::Park));
    assert!(desk.write().is_empty(), "it holds them still");
    desk.beat(first, known, &given[..1]).unwrap();
    assert!(desk.write().contains(&News::Changed(second)));
    let (follows, has) = desk.ask(second, 0, &[]);
    assert_eq!(has, given[1..], "the one let go of");
    desk.beat(first, known, &[]).unwrap();
    desk.write();
    assert_eq!(desk.ask(second, follows, &[]).1, given);
    let grants = desk.coordination.book().grants();
    let generations: BTreeSet<_> = given.iter().map(|queue| grants[queue].generation).collect();
    assert_eq!(generations.len(), 2, "each at its own time");
}

#[test]
fn a_group_has_no_more_patterns_than_it_may_and_those_of_who_has_gone_count_no_more() {
    let mut desk = Desk::new(1);
    let wants = |session: u64, from: usize, count: usize| {
        let patterns = (from..from + count).map(|number| subscription(&format!("t{number}*")));
        Joining { subscriptions: patterns.collect(), ..Desk::joining(session) }
    };
    let first = desk.try_join(wants(1, 0, 200)).unwrap();
    desk.try_join(wants(2, 0, 200)).unwrap();
    let refused = desk.try_join(wants(3, 200, 100));
    assert!(matches!(refused, Err(JoinRefusal::Invalid(_))), "{refused:?}");
    desk.try_join(wants(3, 200, PATTERNS_MAX - 200)).unwrap();
    desk.join(4); // a name is no pattern
    desk.try_join(wants(2, 0, 1)).unwrap(); // wants less from now on
    desk.coordination.leave(first, 9).unwrap();
    desk.write();
    desk.try_join(wants(5, 300, 100)).unwrap();
}

#[test]
fn members_that_want_different_messages_of_a_topic_are_told_of() {
    let mut desk = Desk::new(2);
    desk.join(1);
    desk.join(2);
    let mut third = Desk::joining(3);
    third.subscriptions[0].filter = MessageFilter::parse_tags("a").unwrap();
    let now = desk.now();
    desk.coordination.join(third.clone(), 78, now).unwrap();
    let topics = third.subscriptions[0].topics.clone();
    let differs = News::FiltersDiffer(topics);
    assert!(desk.write().contains(&differs));
    let fourth = Joining { session: 4, ..third };
    desk.coordination.join(fourth, 79, now).unwrap();
    assert!(!desk.write().contains(&differs), "that is what the last one wants, too");
}

#[test]
fn what_a_member_does_not_follow_yet_it_has_not_let_go_of() {
    let mut desk = Desk::new(2);
    let first = desk.join(1);
    let (known, _) = desk.ask(first, 0, &[]);
    let second = desk.join(2);
    // The answer that took a queue away is lost: the member says what it followed before.
    desk.coordination.tell(first);
    desk.beat(first, known, &[]).unwrap();
    desk.write();
    assert!(desk.coordination.book().held_by(second).next().is_none());
    // And a number that it was never told counts for nothing.
    desk.beat(first, 1_000, &[]).unwrap();
    desk.write();
    assert!(desk.coordination.book().held_by(second).next().is_none());
}

#[test]
fn a_silent_member_is_gone_when_its_session_is_over_and_one_cut_off_sooner() {
    let mut desk = Desk::new(2);
    let (first, second) = (desk.join(1), desk.join(2));
    desk.ask(first, 0, &[]);
    desk.ask(second, 0, &[]);
    let heard_ms = desk.now_ms;
    desk.beat(first, 0, &[]).unwrap();
    desk.beat(second, 0, &[]).unwrap();
    desk.coordination.orphaned(second, 99, heard_ms);
    desk.coordination.tick(heard_ms + ORPHAN_MS);
    assert!(desk.write().is_empty(), "that was not the connection it came over last");
    desk.coordination.orphaned(second, second.0, heard_ms);
    desk.coordination.tick(heard_ms + ORPHAN_MS - 1);
    assert!(desk.write().is_empty());
    desk.coordination.tick(heard_ms + ORPHAN_MS);
    assert_eq!(desk.beat(second, 0, &[]), Err(NoMember));
    assert!(desk.write().contains(&News::Gone(second)));
    assert_eq!(desk.ask(first, 0, &[]).1.len(), 2);
    desk.coordination.tick(desk.now_ms + 10_000);
    assert!(desk.write().contains(&News::Gone(first)));
    assert!(desk.coordination.is_empty() && desk.coordination.book().grants().is_empty());
    assert_eq!(desk.coordination.silent(), 2);
}

#[test]
fn a_stall_of_the_broker_expels_nobody() {
    let mut desk = Desk::new(1);
    let first = desk.join(1);
    desk.coordination.stalled(60_000);
    desk.coordination.tick(desk.now_ms + 60_000);
    desk.now_ms += 60_000;
    assert!(desk.beat(first, 0, &[]).is_ok());
}

#[test]
fn the_same_session_is_the_same_member_and_wants_what_it_said_last() {
    let mut desk = Desk::new(2);
    put(&mut desk.routes, "u", 2, &[0]);
    desk.tell_routes();
    let first = desk.join(1);
    let generation = desk.coordination.book().generation();
    assert_eq!(desk.join(1), first);
    assert_eq!(desk.coordination.book().generation(), generation, "nothing was written");
    let mut joining = Desk::joining(1);
    joining.subscriptions = vec![subscription("u")];
    assert_eq!(desk.try_join(joining), Ok(first));
    assert_eq!(desk.ask(first, 0, &[]).1, [key(2, 0)]);
    // It held the others; they are nobody's once it follows that.
    let known = desk.coordination.book().generation().0;
    desk.beat(first, known, &[]).unwrap();
    desk.write();
    assert_eq!(desk.coordination.book().grants().len(), 1);
}

#[test]
fn a_stable_name_takes_the_place_of_its_earlier_life_at_once() {
    let mut desk = Desk::new(3);
    let named = |session| Joining {
        instance: Some(InstanceName::try_from("i").unwrap()),
        ..Desk::joining(session)
    };
    let first = desk.try_join(named(1)).unwrap();
    let other = desk.join(5);
    let (known, _) = desk.ask(first, 0, &[]);
    desk.beat(first, known, &[]).unwrap();
    desk.write();
    let had: Vec<_> = desk.coordination.book().held_by(first).collect();
    let others: Vec<_> = desk.coordination.book().held_by(other).collect();
    let second = desk.try_join(named(2)).unwrap();
    assert_ne!(first, second);
    assert_eq!(desk.coordination.book().held_by(second).collect::<Vec<_>>(), had);
    assert_eq!(desk.coordination.book().held_by(other).collect::<Vec<_>>(), others);
    assert_eq!(desk.beat(first, 0, &[]), Err(NoMember));
    // The earlier one lives, and comes back: it would take the place again, and so on for ever.
    assert_eq!(desk.try_join(named(1)), Err(JoinRefusal::Superseded));
    assert_eq!(desk.try_join(named(2)), Ok(second), "the later one has it");
    let now = desk.now();
    desk.coordination.join(named(3), 33, now).unwrap();
    desk.coordination.join(named(4), 44, now).unwrap();
    let news = desk.write();
    assert!(news.contains(&News::Superseded(33)), "of two that wait the later one: {news:?}");
    assert!(news.iter().any(|news| matches!(news, News::Joined(44, _))));
    assert_eq!(desk.try_join(named(3)), Err(JoinRefusal::Superseded));
    assert_eq!(desk.beat(second, 0, &[]), Err(NoMember));
}

#[test]
fn after_a_restart_members_keep_what_they_have_and_generations_go_on() {
    let mut desk = Desk::new(4);
    let (first, second) = (desk.join(1), desk.join(2));
    let (known, _) = desk.ask(first, 0, &[]);
    desk.beat(first, known, &[]).unwrap();
    desk.write();
    let book = desk.coordination.book().clone();
    desk.now_ms += 5_000;
    desk.coordination = Coordination::new((group(), GROUP), book.clone(), desk.now_ms);
    // Before the routes are known nobody is told anything.
    assert_eq!(desk.beat(first, known, &[]), Ok(Beat::Park));
    assert_eq!(desk.coordination.tell(first).unwrap().assigned, None);
    desk.coordination.tick(desk.now_ms + 9_999);
    assert!(desk.write().is_empty(), "a full lease");
    desk.tell_routes();
    let news = desk.write();
    assert!(news.contains(&News::Changed(first)) && news.contains(&News::Changed(second)));
    assert_eq!(desk.coordination.book(), &book, "nothing changes hands");
    let (told, queues) = desk.ask(second, 7, &[]);
    assert_eq!((Generation(told), queues.len()), (book.generation(), 2));
    let third = desk.join(3);
    assert!(third > second && desk.coordination.book().generation() > book.generation());
}

#[test]
fn more_queues_new_topics_and_deleted_ones_are_followed() {
    let mut desk = Desk::new(1);
    let mut joining = Desk::joining(1);
    joining.subscriptions = vec![subscription("t"), subscription("orders.*")];
    let first = desk.try_join(joining).unwrap();
    let (known, queues) = desk.ask(first, 0, &[]);
    assert_eq!(queues, [key(1, 0)]);
    put(&mut desk.routes, "t", 1, &[0, 0]);
    put(&mut desk.routes, "orders.eu", 2, &[0]);
    desk.tell_routes();
    assert!(desk.write().contains(&News::Changed(first)));
    let (known, queues) = desk.ask(first, known, &[]);
    assert_eq!(queues, [key(1, 0), key(1, 1), key(2, 0)]);
    desk.routes.remove(&"t".try_into().unwrap());
    desk.tell_routes();
    assert!(desk.write().contains(&News::Changed(first)));
    assert_eq!(desk.ask(first, known, &[]).1, [key(2, 0)]);
}

#[test]
fn queues_on_a_shard_without_a_dead_letter_queue_wait_for_it() {
    let mut desk = Desk::new(1);
    let first = desk.join(1);
    let (known, _) = desk.ask(first, 0, &[]);
    put(&mut desk.routes, "t", 1, &[0, 7]);
    desk.tell_routes();
    desk.write();
    assert_eq!(desk.coordination.unready(), &BTreeSet::from([ShardId(7)]));
    put(&mut desk.routes, "%DLQ%g", GROUP.0, &[0, 7]);
    desk.tell_routes();
    desk.write();
    assert!(desk.coordination.unready().is_empty());
    assert_eq!(desk.ask(first, known, &[]).1.len(), 2);
}

#[test]
fn what_cannot_be_joined_with_is_refused() {
    let mut desk = Desk::new(1);
    let mut refused = |change: fn(&mut Joining)| {
        let mut joining = Desk::joining(1);
        change(&mut joining);
        desk.try_join(joining).unwrap_err()
    };
    let invalid = |error| matches!(error, JoinRefusal::Invalid(_));
    assert!(invalid(refused(|joining| joining.session = 0)));
    assert!(invalid(refused(|joining| joining.subscriptions = vec![subscription("%DLQ%g")])));
    assert!(invalid(refused(|joining| joining.subscriptions = vec![subscription("t"); 257])));
    assert!(invalid(refused(|joining| joining.client_id = "x".repeat(5_000))));
    assert!(matches!(
        refused(|joining| joining.options.session_ms = Some(1)),
        JoinRefusal::Settings(_)
    ));
    assert!(matches!(
        refused(|joining| joining.options.model = Some(GroupModel::Shared)),
        JoinRefusal::Unserved(_)
    ));
}

#[test]
fn a_uniform_group_refuses_a_member_that_differs() {
    let mut desk = Desk::new(1);
    let mut joining = Desk::joining(1);
    joining.options.is_uniform = Some(true);
    desk.try_join(joining).unwrap();
    let mut other = Desk::joining(2);
    other.subscriptions = vec![subscription("u")];
    assert_eq!(desk.try_join(other), Err(JoinRefusal::Differs));
    assert!(desk.try_join(Desk::joining(2)).is_ok());
}

#[test]
fn new_settings_are_told_to_all() {
    let mut desk = Desk::new(1);
    let first = desk.join(1);
    let (known, _) = desk.ask(first, 0, &[]);
    let mut joining = Desk::joining(2);
    joining.options.max_deliveries = Some(3);
    desk.try_join(joining).unwrap();
    desk.beat(first, known, &[]).unwrap();
    let told = desk.coordination.tell(first).unwrap();
    assert_eq!(told.settings.map(|settings| settings.max_deliveries), Some(3));
}

#[test]
fn what_is_refused_by_the_log_is_tried_again() {
    let mut desk = Desk::new(1);
    let first = desk.join(1);
    let now = desk.now();
    desk.coordination.join(Desk::joining(2), 5, now).unwrap();
    desk.coordination.leave(first, 6).unwrap();
    assert!(desk.coordination.next_change(desk.now_ms).is_some());
    let mut told = desk.coordination.refused(desk.now_ms);
    told.sort_unstable();
    assert_eq!(told, [5, 6], "both are told that it was not written");
    assert_eq!(desk.coordination.next_change(desk.now_ms), None, "not at once");
    desk.now_ms += 1_000;
    assert!(desk.write().contains(&News::Gone(first)));
    assert!(desk.coordination.is_empty());
}

#[test]
fn each_member_of_a_broadcast_group_is_told_all_that_it_subscribes_to() {
    let mut desk = Desk::new(2);
    let broadcast = |session| {
        let mut joining = Desk::joining(session);
        joining.options.model = Some(GroupModel::Broadcast);
        joining
    };
    let first = desk.try_join(broadcast(1)).unwrap();
    let second = desk.try_join(broadcast(2)).unwrap();
    let all = [key(1, 0), key(1, 1)];
    let (known, queues) = desk.ask(first, 0, &[]);
    assert_eq!((&queues[..], &desk.ask(second, 0, &[]).1[..]), (&all[..], &all[..]));
    assert!(desk.coordination.book().grants().is_empty(), "nobody has any of them alone");
    assert_eq!(desk.beat(first, known, &[]), Ok(Beat::Park), "it knows that");
    // A third queue comes: all are told.
    put(&mut desk.routes, "t", 1, &[0; 3]);
    desk.tell_routes();
    let news = desk.write();
    assert!(news.contains(&News::Changed(first)) && news.contains(&News::Changed(second)));
    let (known, queues) = desk.ask(first, known, &[]);
    assert_eq!(queues.len(), 3);
    // The other one goes: nothing changes for those that stay.
    desk.coordination.leave(second, 9).unwrap();
    assert!(!desk.write().contains(&News::Changed(first)));
    assert_eq!(desk.beat(first, known, &[]), Ok(Beat::Park));
    // Another one comes, and is told; the first is not told all of it again.
    let third = desk.try_join(broadcast(3)).unwrap();
    assert_eq!(desk.ask(third, 0, &[]).1.len(), 3);
    assert_eq!(desk.beat(first, known, &[]), Ok(Beat::Park));
    // One of another model is refused while somebody is in it.
    let mut cluster = Desk::joining(4);
    cluster.options.model = Some(GroupModel::Cluster);
    assert!(matches!(desk.try_join(cluster), Err(JoinRefusal::Settings(_))));
}

#[test]
fn a_crowd_of_large_members_is_taken_in_by_changes_that_a_log_takes() {
    let mut desk = Desk::new(1);
    let crowd = 100;
    for session in 1..=crowd {
        let subscriptions = (0..250).map(|number| subscription(&format!("{:t<190}{number}", "")));
        let joining = Joining { subscriptions: subscriptions.collect(), ..Desk::joining(session) };
        desk.coordination.join(joining, session, desk.now()).unwrap();
    }
    let mut changes = 0;
    while let Some(change) = desk.coordination.next_change(desk.now_ms) {
        let records = change.members_set.iter();
        let bytes: usize = records.map(|(_, record)| encode(record).len()).sum();
        assert!(bytes < 2 * 1024 * 1024, "{bytes} bytes of members in one change");
        desk.coordination.applied(desk.now_ms);
        changes += 1;
    }
    assert_eq!(desk.coordination.book().members().len() as u64, crowd);
    assert!(changes > 3, "{changes} changes");
    let joined = desk.coordination.take_news().into_iter();
    let joined = joined.filter(|news| matches!(news, News::Joined(..))).count();
    assert_eq!(joined as u64, crowd, "each is told");
}
