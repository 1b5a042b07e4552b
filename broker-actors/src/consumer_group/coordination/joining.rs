//! Joining a group: who may, and who takes whose place.

use std::collections::{BTreeSet, VecDeque};

use grus_protocol::ids::{MemberId, TimestampMs};
use grus_protocol::message::{
    GROUP_SUBSCRIPTIONS_MAX, GroupModel, GroupOptions, GroupSettings, GroupSubscription,
    HELLO_TEXT_BYTES_MAX,
};
use grus_protocol::names::{InstanceName, TopicPattern};
use thiserror::Error;

use super::super::book::Book;
use super::super::field::wildcards;
use super::super::records::{MemberRecord, RECORD_BYTES_MAX, encode};
use super::{Coordination, GRANT_BYTES, MEMBERS_MAX, News, Ticket, UnderWay};

/// A change takes in no more members once theirs are so many bytes: others wait for the next one, or
/// a crowd that joins together would be an entry that the log does not take, again and again.
pub(super) const TAKEN_IN_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of a member in a change, besides its record.
const SET_BYTES: usize = 12;

/// Most different patterns of topics in a group, besides names: each is held against every topic there is
/// whenever the group is divided.
pub const PATTERNS_MAX: usize = 256;

/// So many topics and patterns are remembered with what was wanted of them.
const FILTERS_MAX: usize = 4_096;

/// So many of those whose place was taken are remembered.
const SUPERSEDED_MAX: usize = 4_096;

/// What one that wants to be a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// Drawn by it when it started.
    pub session: u64,
    /// Its name for itself.
    pub client_id: String,
    /// Where it is.
    pub address: String,
    /// Its stable name.
    pub instance: Option<InstanceName>,
    /// Its lane.
    pub lane: Option<String>,
    /// What it wants.
    pub subscriptions: Vec<GroupSubscription>,
    /// What it asks of the group's settings.
    pub options: GroupOptions,
    /// The connection that it asks over.
    pub connection: u64,
}

/// The patterns of all members.
pub(super) fn patterns_of(book: &Book) -> BTreeSet<TopicPattern> {
    let all = book.members().values().flat_map(|record| wildcards(&record.subscriptions));
    all.cloned().collect()
}

/// One that waits to be a member, or to be one with other subscriptions.
#[derive(Debug)]
pub(super) struct Waiting {
    joining: Joining,
    pub(super) tickets: Vec<Ticket>,
    received_ms: u64,
    received: TimestampMs,
}

/// One that is about to be a member.
#[derive(Debug)]
pub(super) struct TakenIn {
    pub(super) waiting: Waiting,
    member: MemberId,
}

/// Sessions whose place another one has taken by its stable name. They do not get it back: two programs
/// of one name would take it from each other for ever.
#[derive(Debug, Default)]
pub(super) struct Superseded {
    known: BTreeSet<u64>,
    order: VecDeque<u64>,
}

impl Superseded {
    pub(super) fn note(&mut self, session: u64) {
        if self.known.insert(session) {
            self.order.push_back(session);
        }
        if self.order.len() > SUPERSEDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Why one is no member.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinRefusal {
    /// It asks for what cannot be.
    #[error("{0}")]
    Invalid(String),
    /// It asks for settings that cannot be.
    #[error("{0}")]
    Settings(String),
    /// It asks for what comes later.
    #[error("{0} are not served yet")]
    Unserved(&'static str),
    /// The group's members must subscribe to the same.
    #[error("the members of this group subscribe to the same topics with the same filters")]
    Differs,
    /// A later one has taken its place.
    #[error("another consumer has joined under the stable name of this one, and has its place")]
    Superseded,
    /// There are too many members.
    #[error("a group has at most {MEMBERS_MAX} members")]
    Full,
}

impl Joining {
    fn check(&self) -> Result<(), JoinRefusal> {
        let invalid = |reason: String| Err(JoinRefusal::Invalid(reason));
        if self.session == 0 {
            return invalid("the session of a member is not 0".to_owned());
        }
        let too_long = |text: &str| text.len() > HELLO_TEXT_BYTES_MAX;
        if too_long(&self.client_id) || self.lane.as_deref().is_some_and(too_long) {
            return invalid(format!("a name or lane has at most {HELLO_TEXT_BYTES_MAX} bytes"));
        }
        if self.subscriptions.len() > GROUP_SUBSCRIPTIONS_MAX {
            return invalid(format!(
                "a member has at most {GROUP_SUBSCRIPTIONS_MAX} subscriptions"
            ));
        }
        for subscription in &self.subscriptions {
            if subscription.topics.topic().is_some_and(|topic| topic.is_system()) {
                return invalid(format!("{}: groups read users' topics", subscription.topics));
            }
            if let Err(error) = subscription.filter.check() {
                return invalid(format!("{}: {error}", subscription.topics));
            }
        }
        Ok(())
    }

    fn record(&self, joined: TimestampMs) -> MemberRecord {
        MemberRecord {
            session: self.session,
            client_id: self.client_id.clone(),
            address: self.address.clone(),
            instance: self.instance.clone(),
            lane: self.lane.clone(),
            subscriptions: self.subscriptions.clone(),
            joined,
        }
    }
}

impl Coordination {
    /// One wants to be a member, or one that is wants something else. Answered by [`News::Joined`].
    ///
    /// # Errors
    /// See [`JoinRefusal`].
    pub fn join(
        &mut self,
        joining: Joining,
        ticket: Ticket,
        (now_ms, now): (u64, TimestampMs),
    ) -> Result<(), JoinRefusal> {
        joining.check()?;
        if self.superseded.known.contains(&joining.session) {
            return Err(JoinRefusal::Superseded);
        }
        let own = self.member_of(joining.session);
        let settings = joining.options.applied_to(self.settings());
        self.check_settings(&settings, own)?;
        if settings.is_uniform && self.differs(&joining.subscriptions, own) {
            return Err(JoinRefusal::Differs);
        }
        if own.is_none() && self.book.members().len() + self.waiting.len() >= MEMBERS_MAX {
            return Err(JoinRefusal::Full);
        }
        if self.patterns_with(&joining.subscriptions) > PATTERNS_MAX {
            let reason = format!("a group has at most {PATTERNS_MAX} different patterns of topics");
            return Err(JoinRefusal::Invalid(reason));
        }
        let record = joining.record(now);
        let bytes = encode(&record).len();
        if bytes > RECORD_BYTES_MAX {
            let reason = format!("{bytes} bytes of subscriptions, at most {RECORD_BYTES_MAX}");
            return Err(JoinRefusal::Invalid(reason));
        }
        if let Some(member) = own
            && !self.waiting.contains_key(&joining.session)
            && settings == *self.settings()
            && is_same(&self.book.members()[&member], &record)
        {
            let until_ms = now_ms + self.session_ms();
            self.leases.set(member, until_ms);
            if let Some(presence) = self.presences.get_mut(&member) {
                (presence.connection, presence.last_seen) = (joining.connection, now);
            }
            self.news.push(News::Joined(ticket, member));
            return Ok(());
        }
        self.note_filters(&joining.subscriptions);
        self.supersede_waiting(&joining);
        let before = self.waiting.remove(&joining.session);
        let mut tickets = before.map_or_else(Vec::new, |waiting| waiting.tickets);
        tickets.push(ticket);
        let session = joining.session;
        let waiting = Waiting { joining, tickets, received_ms: now_ms, received: now };
        self.waiting.insert(session, waiting);
        Ok(())
    }

    /// Tells of topics of which somebody else wants other messages.
    fn note_filters(&mut self, subscriptions: &[GroupSubscription]) {
        if self.filters.len() > FILTERS_MAX {
            self.filters.clear();
        }
        for GroupSubscription { topics, filter } in subscriptions {
            let before = self.filters.insert(topics.clone(), filter.clone());
            let differs = before.is_some_and(|before| before != *filter);
            if differs && self.book.members().len() > 1 {
                self.news.push(News::FiltersDiffer(topics.clone()));
            }
        }
    }

    /// How many different patterns the group has once somebody with these subscriptions is in it: those of
    /// members that have gone count until then, where there would be too many.
    fn patterns_with(&mut self, more: &[GroupSubscription]) -> usize {
        let known = |pattern: &TopicPattern| self.patterns.contains(pattern);
        if wildcards(more).all(known) {
            return 0;
        }
        self.patterns.extend(wildcards(more).cloned());
        if self.patterns.len() > PATTERNS_MAX {
            let members = self.book.members().values().map(|record| &record.subscriptions);
            let waiting = self.waiting.values().map(|one| &one.joining.subscriptions);
            let all = members.chain(waiting).flat_map(|all| wildcards(all));
            self.patterns = all.cloned().collect();
            let with = wildcards(more).filter(|pattern| !self.patterns.contains(pattern)).count();
            return self.patterns.len() + with;
        }
        self.patterns.len()
    }

    /// Whoever waits to be a member under the same stable name will not be one.
    fn supersede_waiting(&mut self, joining: &Joining) {
        let Some(instance) = &joining.instance else { return };
        let is_earlier = |(session, waiting): (&u64, &Waiting)| {
            let bears = waiting.joining.instance.as_ref() == Some(instance);
            (bears && *session != joining.session).then_some(*session)
        };
        let Some(session) = self.waiting.iter().find_map(is_earlier) else { return };
        let tickets = self.waiting.remove(&session).map(|waiting| waiting.tickets);
        self.superseded.note(session);
        self.news.extend(tickets.into_iter().flatten().map(News::Superseded));
    }

    /// The member of a session, unless it is about to go.
    fn member_of(&self, session: u64) -> Option<MemberId> {
        self.book.of_session(session).filter(|member| !self.is_leaving(*member))
    }

    fn check_settings(
        &self,
        settings: &GroupSettings,
        own: Option<MemberId>,
    ) -> Result<(), JoinRefusal> {
        settings.check().map_err(|reason| JoinRefusal::Settings(reason.to_owned()))?;
        if !matches!(settings.model, GroupModel::Cluster | GroupModel::Broadcast) {
            return Err(JoinRefusal::Unserved("groups of other models than cluster and broadcast"));
        }
        let others = self.book.members().keys().any(|member| Some(*member) != own);
        if settings.model != self.settings().model && others {
            let reason = "the model of a group stays while it has other members".to_owned();
            return Err(JoinRefusal::Settings(reason));
        }
        Ok(())
    }

    /// Whether another member, or one that is about to be one, subscribes to something else.
    fn differs(&self, subscriptions: &[GroupSubscription], own: Option<MemberId>) -> bool {
        let sorted = |subscriptions: &[GroupSubscription]| {
            let mut texts: Vec<_> = subscriptions
                .iter()
                .map(|one| (one.topics.clone(), one.filter.to_string()))
                .collect();
            texts.sort_unstable();
            texts
        };
        let wanted = sorted(subscriptions);
        let members = self.book.members().iter();
        let others = members.filter(|(id, _)| Some(**id) != own && !self.is_leaving(**id));
        let waiting = self.waiting.values().map(|waiting| &waiting.joining.subscriptions);
        let mut others = others.map(|(_, record)| &record.subscriptions).chain(waiting);
        others.any(|other| sorted(other) != wanted)
    }

    /// Those that wait are members with this change, as many as it has room for that has `bytes` already.
    pub(super) fn take_in(&mut self, under_way: &mut UnderWay, mut bytes: usize) {
        let mut head = self.book.head().clone();
        let most = TAKEN_IN_BYTES_MAX.min(self.change_bytes_max);
        while bytes < most
            && let Some((session, waiting)) = self.waiting.pop_first()
        {
            let change = &mut under_way.change;
            let known = self.book.of_session(session);
            let known = known.filter(|member| !change.members_gone.contains(member));
            let member = known.unwrap_or_else(|| {
                let next = head.next_member;
                head.next_member = MemberId(next.0 + 1);
                next
            });
            head.settings = waiting.joining.options.applied_to(&head.settings);
            // Its earlier life, by its stable name: what that had is its own at once.
            let earlier = waiting.joining.instance.as_ref().and_then(|instance| {
                let bears = |record: &MemberRecord| record.instance.as_ref() == Some(instance);
                let mut members = self.book.members().iter();
                members.find(|(id, record)| **id != member && bears(record)).map(|(id, _)| *id)
            });
            if let Some(earlier) = earlier.filter(|id| !change.members_gone.contains(id)) {
                change.members_gone.push(earlier);
                under_way.superseded.extend(self.book.members().get(&earlier).map(|it| it.session));
                let held = self.book.held_by(earlier);
                change.grants.extend(held.map(|queue| (queue, Some(member))));
                bytes += GRANT_BYTES * self.book.held_by(earlier).count();
            }
            let joined = self.book.members().get(&member).map(|record| record.joined);
            let record = waiting.joining.record(joined.unwrap_or(waiting.received));
            bytes += SET_BYTES + encode(&record).len();
            change.members_set.push((member, record));
            under_way.joined.push(TakenIn { waiting, member });
        }
        if head != *self.book.head() {
            under_way.change.head = Some(head);
        }
    }

    /// It is a member.
    pub(super) fn taken_in(&mut self, TakenIn { waiting, member }: TakenIn) {
        let until_ms = waiting.received_ms + self.session_ms();
        self.leases.set(member, until_ms);
        let presence = self.presences.entry(member).or_default();
        presence.connection = waiting.joining.connection;
        presence.last_seen = waiting.received;
        let news = waiting.tickets.into_iter().map(|ticket| News::Joined(ticket, member));
        self.news.extend(news);
    }
}

/// Whether a member says of itself what it said before.
fn is_same(known: &MemberRecord, now: &MemberRecord) -> bool {
    let MemberRecord { session, client_id, address: _, instance, lane, subscriptions, joined: _ } =
        known;
    *session == now.session
        && *client_id == now.client_id
        && *instance == now.instance
        && *lane == now.lane
        && *subscriptions == now.subscriptions
}
