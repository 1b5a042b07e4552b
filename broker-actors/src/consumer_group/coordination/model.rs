//! A group as a whole against what it promises: members with delays, lost answers, deaths and cut
//! connections, a log that refuses, a coordinator that is rebuilt, topics that come, grow and go.
//! At no instant two members believe that a queue is theirs; in the end every queue has an owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{Generation, MemberId, QueueKey, TimestampMs, TopicId};
use grus_protocol::message::{GroupOptions, GroupStrategy};
use proptest::prelude::*;

use super::super::book::{Book, Change};
use super::super::field::tests::{GROUP, group, put, subscription};
use super::{Beat, Coordination, Joining, News, ORPHAN_MS, Ticket};
use crate::registry_link::routes::Routes;

const SESSION_MS: u64 = 10_000;
const TOPICS: [&str; 4] = ["orders.eu", "orders.us", "bills", "mails"];
const WANTS: [&[&str]; 5] =
    [&["orders.*"], &["orders.*", "bills"], &["*"], &["orders.eu"], &["bills", "mails"]];

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Join(usize, usize),
    Beat(usize),
    Hear(usize),
    LoseAnswer(usize),
    /// Its heartbeat has waited long enough.
    WaitOver(usize),
    Drain(usize),
    Leave(usize),
    Die(usize),
    Cut(usize),
    Advance(u64),
    Write,
    Refuse,
    /// The coordinator is rebuilt; what was under way may be in the log.
    Rebuild(bool),
    Topic(usize, u32),
    Delete(usize),
}

/// A member as it sees itself.
#[derive(Debug, Default)]
struct Member {
    session: u64,
    id: Option<MemberId>,
    has: BTreeMap<QueueKey, Generation>,
    /// Not its own any more, and not let go of yet.
    holds: BTreeSet<QueueKey>,
    known: Generation,
    until_ms: u64,
    /// A heartbeat that is not answered, and when it was sent.
    asked: Option<u64>,
    /// What is on its way to it; none: that it is no member.
    answer: Option<(u64, Option<super::Told>)>,
    connection: u64,
}

impl Member {
    fn loses_all(&mut self) {
        self.has.clear();
        self.holds.clear();
        self.known = Generation::NONE;
    }

    fn ends(&mut self) {
        *self = Self { session: self.session, connection: self.connection, ..Self::default() };
    }

    fn hears(&mut self) {
        let Some((sent_ms, told)) = self.answer.take() else { return };
        self.asked = None;
        let Some(told) = told else { return self.ends() };
        self.until_ms = self.until_ms.max(sent_ms + SESSION_MS * 2 / 3);
        let Some(assigned) = told.assigned else { return };
        self.known = told.generation; // not without what it has: it may have lost it meanwhile
        let now: BTreeMap<QueueKey, Generation> = assigned
            .into_iter()
            .map(|one| (QueueKey { topic: one.topic_id, queue: one.queue }, one.generation))
            .collect();
        let before = std::mem::take(&mut self.has);
        self.holds.extend(before.into_keys());
        self.holds.retain(|queue| !now.contains_key(queue));
        self.has = now;
    }
}

struct World {
    now_ms: u64,
    log: Book,
    written: Option<Change>,
    coordination: Coordination,
    routes: Routes,
    members: Vec<Member>,
    sessions: u64,
    strategy: GroupStrategy,
    next_topic: u64,
}

impl World {
    fn new(members: usize, strategy: GroupStrategy) -> Self {
        let mut routes = Routes::default();
        put(&mut routes, "%DLQ%g", GROUP.0, &[0, 1]);
        let coordination = Coordination::new((group(), GROUP), Book::default(), 0);
        let members = (0..members).map(|_| Member::default()).collect();
        let mut world = Self {
            now_ms: 1,
            log: Book::default(),
            written: None,
            coordination,
            routes,
            members,
            sessions: 0,
            strategy,
            next_topic: 1,
        };
        world.topic(0, 3);
        world
    }

    fn topic(&mut self, number: usize, more: u32) {
        let name = TOPICS[number % TOPICS.len()];
        let known = self.routes.topics().find(|topic| topic.name.as_str() == name).cloned();
        let (id, queues) = known.map_or_else(
            || {
                self.next_topic += 1;
                (self.next_topic, 0)
            },
            |topic| (topic.id.0, topic.queues.len()),
        );
        let more = (0..more).map(|_| 0);
        let shards: Vec<u32> = (0..queues).map(|_| 1).chain(more).take(12).collect();
        put(&mut self.routes, name, id, &shards);
        self.tell_routes();
    }

    fn tell_routes(&mut self) {
        let routes = Arc::new(self.routes.clone());
        self.coordination.routes_are(routes, self.now_ms);
    }

    fn join(&mut self, number: usize, wants: usize) {
        let member = &mut self.members[number];
        if member.id.is_none() {
            self.sessions += 1;
            member.session = self.sessions;
        }
        let joining = Joining {
            session: member.session,
            client_id: format!("c{number}"),
            address: String::new(),
            instance: None,
            lane: None,
            subscriptions: WANTS[wants % WANTS.len()]
                .iter()
                .map(|text| subscription(text))
                .collect(),
            options: GroupOptions { strategy: Some(self.strategy), ..GroupOptions::default() },
            connection: member.connection,
        };
        let now = TimestampMs(self.now_ms);
        self.coordination.join(joining, number as u64, (self.now_ms, now)).unwrap();
    }

    fn beat(&mut self, number: usize) {
        let member = &mut self.members[number];
        let Some(id) = member.id else { return };
        if member.asked.is_some() {
            return;
        }
        let now = (self.now_ms, TimestampMs(self.now_ms));
        let beat =
            self.coordination.heartbeat(id, (member.known, &member.holds), member.connection, now);
        member.asked = Some(self.now_ms);
        match beat {
            Ok(Beat::Park) => {}
            Ok(Beat::Answer) => member.answer = Some((self.now_ms, self.coordination.tell(id))),
            Err(_) => member.answer = Some((self.now_ms, None)),
        }
    }

    fn happen(&mut self, event: &Event) {
        let count = self.members.len();
        match *event {
            Event::Join(member, wants) => self.join(member % count, wants),
            Event::Beat(member) => self.beat(member % count),
            Event::Hear(member) => self.members[member % count].hears(),
            Event::LoseAnswer(member) => {
                let member = &mut self.members[member % count];
                if member.answer.take().is_some() {
                    member.asked = None;
                }
            }
            Event::WaitOver(member) => {
                if let Some(id) = self.members[member % count].id {
                    self.answer(id);
                }
            }
            Event::Drain(member) => self.members[member % count].holds.clear(),
            Event::Leave(member) => {
                let member = &mut self.members[member % count];
                if let Some(id) = member.id {
                    member.ends();
                    let _ = self.coordination.leave(id, 1_000);
                }
            }
            Event::Die(member) => self.members[member % count].ends(),
            Event::Cut(member) => {
                let member = &mut self.members[member % count];
                let Some(id) = member.id else { return };
                self.coordination.orphaned(id, member.connection, self.now_ms);
                member.connection += 1;
                (member.asked, member.answer) = (None, None);
                member.until_ms = member.until_ms.min(self.now_ms + ORPHAN_MS - 1);
            }
            Event::Advance(ms) => self.now_ms += ms,
            Event::Write => self.write(),
            Event::Refuse => {
                if self.written.take().is_some() {
                    for ticket in self.coordination.refused(self.now_ms) {
                        assert!(ticket < count as u64 || ticket == 1_000);
                    }
                }
            }
            Event::Rebuild(is_written) => self.rebuild(is_written),
            Event::Topic(number, more) => self.topic(number, more),
            Event::Delete(number) => {
                let name = TOPICS[number % TOPICS.len()];
                let name = grus_protocol::names::TopicName::try_from(name).unwrap();
                if self.routes.remove(&name).is_some() {
                    self.tell_routes();
                }
            }
        }
        self.settle();
    }

    fn write(&mut self) {
        if let Some(change) = self.written.take() {
            self.log.apply(&change);
            self.coordination.applied(self.now_ms);
            assert_eq!(self.coordination.book(), &self.log, "the book says what the log says");
        }
    }

    fn rebuild(&mut self, is_written: bool) {
        if let Some(change) = self.written.take().filter(|_| is_written) {
            self.log.apply(&change);
        }
        let book = Book::restored(
            self.log.head().clone(),
            self.log.generation(),
            self.log.members().clone(),
            self.log.grants().clone(),
        );
        assert_eq!(book, self.log);
        self.coordination = Coordination::new((group(), GROUP), book, self.now_ms);
        self.tell_routes();
        for member in &mut self.members {
            (member.asked, member.answer) = (None, None);
        }
    }

    /// What follows from an event by itself.
    fn settle(&mut self) {
        for member in &mut self.members {
            if member.until_ms <= self.now_ms {
                member.loses_all();
            }
        }
        self.coordination.tick(self.now_ms);
        if self.written.is_none() {
            self.written = self.coordination.next_change(self.now_ms);
        }
        for news in self.coordination.take_news() {
            match news {
                News::Joined(ticket, id) => self.member_of(ticket).id = Some(id),
                News::Done(_)
                | News::Superseded(_)
                | News::DividedWithoutAnswer
                | News::FiltersDiffer(_) => {}
                News::Changed(id) => self.answer(id),
                News::Gone(id) => {
                    for member in self.members.iter_mut().filter(|member| member.id == Some(id)) {
                        if let Some(sent_ms) = member.asked {
                            member.answer.get_or_insert((sent_ms, None));
                        }
                    }
                }
            }
        }
        self.check();
    }

    fn member_of(&mut self, ticket: Ticket) -> &mut Member {
        let number = usize::try_from(ticket).unwrap();
        &mut self.members[number]
    }

    fn answer(&mut self, id: MemberId) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == Some(id)) else {
            return;
        };
        if let (Some(sent_ms), None) = (member.asked, &member.answer) {
            member.answer = Some((sent_ms, self.coordination.tell(id)));
        }
    }

    /// What must hold at every instant.
    fn check(&self) {
        let mut owners: BTreeMap<QueueKey, usize> = BTreeMap::new();
        for (number, member) in self.members.iter().enumerate() {
            for queue in member.has.keys().chain(&member.holds) {
                let there = self.routes.topics().any(|topic| topic.id == queue.topic);
                if there && let Some(other) = owners.insert(*queue, number) {
                    panic!("{queue} is believed to be theirs by {other} and {number}");
                }
            }
        }
        for (queue, grant) in self.log.grants() {
            assert!(grant.generation <= self.log.generation(), "{queue}");
            assert!(self.log.members().contains_key(&grant.member), "{queue} is a member's");
        }
    }

    /// All goes well from here on, until nothing changes any more.
    fn calm_down(&mut self) {
        for round in 0..60 {
            for number in 0..self.members.len() {
                self.happen(&Event::LoseAnswer(number));
                self.members[number].asked = None;
                self.happen(&Event::Beat(number));
                self.happen(&Event::WaitOver(number));
                self.happen(&Event::Hear(number));
                self.happen(&Event::Drain(number));
                let member = &self.members[number];
                if member.id.is_none() && round % 20 == 10 && number % 2 == 0 {
                    self.happen(&Event::Join(number, number));
                }
            }
            self.happen(&Event::Write);
            self.happen(&Event::Advance(400));
        }
    }

    /// Every queue that somebody wants is its owner's, who knows it.
    fn check_calm(&self) {
        let living: BTreeSet<_> = self.members.iter().filter_map(|member| member.id).collect();
        let written: BTreeSet<_> = self.log.members().keys().copied().collect();
        assert_eq!(living, written, "the dead are gone, the living are there");
        let field: Vec<_> = self.coordination.field().queues().collect();
        let granted: Vec<_> = self.log.grants().keys().copied().collect();
        assert_eq!(granted, field, "every queue has an owner, and nothing else has");
        for topic in self.coordination.field().topics() {
            assert_ne!(topic.id, TopicId(GROUP.0), "dead letters are nobody's");
        }
        for member in &self.members {
            let Some(id) = member.id else { continue };
            let has: BTreeMap<_, _> = self
                .log
                .grants()
                .iter()
                .filter(|(_, grant)| grant.member == id)
                .map(|(queue, grant)| (*queue, grant.generation))
                .collect();
            assert_eq!(member.has, has, "member {id} knows what is its own");
            assert!(member.holds.is_empty());
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..4_usize;
    prop_oneof![
        4 => (member.clone(), 0..5_usize).prop_map(|(member, wants)| Event::Join(member, wants)),
        10 => member.clone().prop_map(Event::Beat),
        8 => member.clone().prop_map(Event::Hear),
        1 => member.clone().prop_map(Event::LoseAnswer),
        3 => member.clone().prop_map(Event::WaitOver),
        4 => member.clone().prop_map(Event::Drain),
        1 => member.clone().prop_map(Event::Leave),
        1 => member.clone().prop_map(Event::Die),
        1 => member.prop_map(Event::Cut),
        6 => (1..60_u64).prop_map(Event::Advance),
        2 => (500..4_000_u64).prop_map(Event::Advance),
        10 => Just(Event::Write),
        1 => Just(Event::Refuse),
        1 => any::<bool>().prop_map(Event::Rebuild),
        1 => (0..4_usize, 1..4_u32).prop_map(|(topic, more)| Event::Topic(topic, more)),
        1 => (0..4_usize).prop_map(Event::Delete),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_queue_has_one_owner_at_most_and_finds_one_in_the_end(
        events in prop::collection::vec(event(), 1..250),
        strategy in prop_oneof![
            Just(GroupStrategy::Sticky), Just(GroupStrategy::Average),
            Just(GroupStrategy::RoundRobin), Just(GroupStrategy::ConsistentHash),
        ],
    ) {
        let mut world = World::new(4, strategy);
        for event in &events {
            world.happen(event);
        }
        world.calm_down();
        world.check_calm();
    }
}
