//! What a group's coordinator decides. Pure: it is told what was asked, what has been written and
//! what the time is, and says what is to be written ([`Coordination::next_change`]) and whom to tell
//! ([`News`]).
//!
//! Nothing is so before it is written: an event is noted, the next [`Change`] gathers all that was
//! noted, and only when that is applied does the [`Book`] say so and are members told. One change is
//! under way at a time.
//!
//! A queue changes hands like this ([`rebalance`] says whose it is to be):
//!
//! ```text
//! A has q (generation 4)    B joins: q is to be B's; A is told an assignment without q (5)
//! A: "I follow 5, I hold q"          q stays A's: it finishes what it has in hands
//! A: "I follow 5"                    A has let go: q is nobody's, and B's with the next change (6)
//! ```
//!
//! If A falls silent instead, its lease ends, and its queues with it. So at no instant do two members
//! have a queue, by this book and by what they may believe; and a member whose clock stood still is
//! refused where the queue is led, by its generation.
//!
//! Times are monotonic milliseconds unless they are of type `TimestampMs`.

mod asking;
mod joining;
mod news;
mod rebalance;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use grus_protocol::ids::{Generation, GroupId, MemberId, QueueKey, ShardId, TimestampMs};
use grus_protocol::message::{AssignedQueue, GroupModel, GroupSettings, MessageFilter};
use grus_protocol::names::{GroupName, TopicPattern};

use super::book::{Book, Change};
use super::field::Field;
use super::leases::Leases;
use super::strategy::Target;
use crate::registry_link::routes::Routes;
pub use asking::AnswerRefusal;
use asking::OwnStrategy;
pub use joining::{JoinRefusal, Joining};
use joining::{Superseded, TAKEN_IN_BYTES_MAX, TakenIn, Waiting, patterns_of};
pub use news::{Beat, News, NoMember, Told};
use rebalance::{GONE_BYTES, GRANT_BYTES};

/// Most members of one group.
pub const MEMBERS_MAX: usize = 20_000;
/// How long a member whose connection is closed counts as there, unless it is heard of again: a
/// process that was killed costs its group no whole session.
pub const ORPHAN_MS: u64 = 2_000;
/// How long a rebalance waits for more that changes the field, in a small group.
const GATHER_MS: u64 = 10;
/// So many members and queues make it wait a millisecond longer: what is computed stays a small part.
const SIZE_PER_MS: usize = 100;
/// How long after a change that could not be written the next one is tried.
const BACKOFF_MS: u64 = 500;

/// One that waits for what it asked to be written.
pub type Ticket = u64;

/// What is known of a member besides what is written.
#[derive(Debug, Clone, Default)]
struct Presence {
    /// The generation of the assignment that it was told last; none: not in this life of the
    /// coordinator.
    told: Option<Generation>,
    /// The one that it says it follows.
    known: Generation,
    /// When its assignment was another one last.
    changed: Generation,
    /// Queues that are its own and not in its assignment any more, and since when.
    revoked: BTreeMap<QueueKey, Generation>,
    connection: u64,
    last_seen: TimestampMs,
}

/// A change that is being written.
#[derive(Debug, Default)]
struct UnderWay {
    change: Change,
    /// What the field and the target are with it, if it is a rebalance.
    division: Option<(Field, Target)>,
    joined: Vec<TakenIn>,
    /// Sessions whose place one of those takes.
    superseded: Vec<u64>,
    done: Vec<Ticket>,
    /// Not all queues that change hands found room in it.
    is_part: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub struct Coordination {
    name: GroupName,
    group: GroupId,
    book: Book,
    /// None before they were told in this life.
    routes: Option<Arc<Routes>>,
    field: Field,
    target: Target,
    /// Whether the field was divided in this life: nobody is told an assignment before.
    is_divided: bool,
    presences: BTreeMap<MemberId, Presence>,
    leases: Leases,
    /// Members to be, or to be changed, by session.
    waiting: BTreeMap<u64, Waiting>,
    superseded: Superseded,
    /// Patterns of topics that members have, and some that have gone.
    patterns: BTreeSet<TopicPattern>,
    /// What was asked of topics last: who asks otherwise is told of in the log.
    filters: BTreeMap<TopicPattern, MessageFilter>,
    own: OwnStrategy,
    leaving: BTreeMap<MemberId, Vec<Ticket>>,
    /// Queues whose member has let go of them.
    let_go: BTreeSet<QueueKey>,
    rebalance_at_ms: Option<u64>,
    under_way: Option<UnderWay>,
    paused_until_ms: u64,
    /// The newest generation that was proposed, applied or not.
    proposed: Generation,
    settings_changed: Generation,
    silent: u64,
    news: Vec<News>,
    /// A change ends with what brings it to so many bytes: less than the log takes in an entry.
    change_bytes_max: usize,
}

impl Coordination {
    /// Begins with what the log says: every member gets a full lease, and the field is divided anew
    /// once the routes are told.
    #[must_use]
    pub fn new((name, group): (GroupName, GroupId), book: Book, now_ms: u64) -> Self {
        let generation = book.generation();
        let mut coordination = Self {
            name,
            group,
            routes: None,
            field: Field::default(),
            target: Target::new(),
            is_divided: false,
            presences: BTreeMap::new(),
            leases: Leases::default(),
            waiting: BTreeMap::new(),
            superseded: Superseded::default(),
            patterns: patterns_of(&book),
            filters: BTreeMap::new(),
            own: OwnStrategy::default(),
            leaving: BTreeMap::new(),
            let_go: BTreeSet::new(),
            rebalance_at_ms: None,
            under_way: None,
            paused_until_ms: 0,
            proposed: generation,
            settings_changed: generation,
            silent: 0,
            news: Vec::new(),
            change_bytes_max: TAKEN_IN_BYTES_MAX,
            book,
        };
        let until_ms = now_ms + coordination.session_ms();
        for member in coordination.book.members().keys() {
            coordination.leases.set(*member, until_ms);
            coordination.presences.insert(*member, Presence::default());
        }
        coordination.want_rebalance(now_ms);
        coordination
    }

    /// The log takes items of so many bytes.
    #[must_use]
    pub fn within(mut self, item_bytes_max: usize) -> Self {
        self.change_bytes_max = item_bytes_max / 2;
        self
    }

    /// What the log says.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// What is divided.
    #[must_use]
    pub const fn field(&self) -> &Field {
        &self.field
    }

    /// Whose each queue is to be.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// How the group works.
    #[must_use]
    pub const fn settings(&self) -> &GroupSettings {
        &self.book.head().settings
    }

    /// Members that fell silent, in this life of the coordinator.
    #[must_use]
    pub const fn silent(&self) -> u64 {
        self.silent
    }

    /// When a member was heard of last, and which assignment it follows.
    #[must_use]
    pub fn heard(&self, member: MemberId) -> (TimestampMs, Generation) {
        let presence = self.presences.get(&member);
        presence.map_or_else(Default::default, |presence| (presence.last_seen, presence.known))
    }

    /// Whether nobody is a member, or is about to be one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.book.members().is_empty() && self.waiting.is_empty()
    }

    /// Shards on which the group needs a dead-letter queue.
    #[must_use]
    pub const fn unready(&self) -> &BTreeSet<ShardId> {
        self.field.unready()
    }

    fn session_ms(&self) -> u64 {
        u64::from(self.settings().session_ms)
    }

    /// How often members send heartbeats: a third of a session at least.
    #[must_use]
    pub fn heartbeat_ms(&self) -> u32 {
        (self.settings().session_ms * 3 / 10).max(1)
    }

    /// A member is there, and follows the assignment of `known`, but that it holds some queues still.
    ///
    /// # Errors
    /// [`NoMember`]: it joins again.
    pub fn heartbeat(
        &mut self,
        member: MemberId,
        (known, holding): (Generation, &BTreeSet<QueueKey>),
        connection: u64,
        (now_ms, now): (u64, TimestampMs),
    ) -> Result<Beat, NoMember> {
        if self.is_leaving(member) {
            return Err(NoMember);
        }
        let session_ms = self.session_ms();
        let presence = self.presences.get_mut(&member).ok_or(NoMember)?;
        self.leases.set(member, now_ms + session_ms);
        presence.connection = connection;
        presence.last_seen = now;
        presence.known = known;
        // What it says it follows counts only if it was told that in this life.
        let follows = presence.told.filter(|told| known <= *told).map(|_| known);
        for (queue, since) in &presence.revoked {
            if follows.is_some_and(|known| known >= *since) && !holding.contains(queue) {
                self.let_go.insert(*queue);
            }
        }
        let is_news = presence.told != Some(known) || presence.changed > known;
        let is_asked = self.is_to_be_asked(member);
        Ok(if is_asked || (is_news && self.is_divided) { Beat::Answer } else { Beat::Park })
    }

    fn is_leaving(&self, member: MemberId) -> bool {
        let going = |under_way: &UnderWay| under_way.change.members_gone.contains(&member);
        self.leaving.contains_key(&member) || self.under_way.as_ref().is_some_and(going)
    }

    /// What a member is told now; it counts as told.
    pub fn tell(&mut self, member: MemberId) -> Option<Told> {
        let generation = self.book.generation();
        let settings = self.settings().clone();
        let divide = self.question_for(member);
        let presence = self.presences.get_mut(&member)?;
        if !self.is_divided {
            let generation = presence.known;
            return Some(Told { generation, assigned: None, settings: None, divide });
        }
        let before = presence.told.replace(generation);
        let knows = before == Some(presence.known);
        let is_whole = !knows || presence.changed > presence.known;
        let is_new = !knows || self.settings_changed > presence.known;
        let presence = &self.presences[&member];
        let assigned = is_whole.then(|| self.assigned(member, presence));
        Some(Told { generation, assigned, settings: is_new.then_some(settings), divide })
    }

    /// Whether each member has all that it subscribes to, and keeps its progress itself.
    fn is_broadcast(&self) -> bool {
        self.settings().model == GroupModel::Broadcast
    }

    /// All queues that a member of a broadcast group subscribes to. Nobody claims them.
    fn subscribed(&self, member: MemberId) -> Vec<AssignedQueue> {
        let topics = self.field.topics();
        let own = topics.filter(|topic| topic.members.binary_search(&member).is_ok());
        let queues = own.flat_map(|topic| {
            topic.queues.iter().map(|queue| AssignedQueue {
                topic: topic.name.clone(),
                topic_id: topic.id,
                queue: *queue,
                generation: Generation::NONE,
            })
        });
        queues.collect()
    }

    fn assigned(&self, member: MemberId, presence: &Presence) -> Vec<AssignedQueue> {
        if self.is_broadcast() {
            return self.subscribed(member);
        }
        let queue = |key: QueueKey| {
            let topic = self.field.topic(key.topic)?;
            Some(AssignedQueue {
                topic: topic.name.clone(),
                topic_id: key.topic,
                queue: key.queue,
                generation: self.book.grants().get(&key)?.generation,
            })
        };
        let kept = self.book.held_by(member).filter(|key| !presence.revoked.contains_key(key));
        kept.filter_map(queue).collect()
    }

    /// A member goes; its queues are free with the next change.
    ///
    /// # Errors
    /// [`NoMember`]: it is gone.
    pub fn leave(&mut self, member: MemberId, ticket: Ticket) -> Result<(), NoMember> {
        if !self.book.members().contains_key(&member) || self.is_leaving(member) {
            return Err(NoMember);
        }
        self.leases.remove(member);
        self.leaving.entry(member).or_default().push(ticket);
        Ok(())
    }

    /// A connection is closed: a member that was heard of over it last has a short while to be heard
    /// of over another one.
    pub fn orphaned(&mut self, member: MemberId, connection: u64, now_ms: u64) {
        if self.presences.get(&member).is_some_and(|presence| presence.connection == connection) {
            self.leases.shorten(member, now_ms + ORPHAN_MS);
        }
    }

    /// Some time has passed; those whose leases are over are members no more with the next change.
    pub fn tick(&mut self, now_ms: u64) {
        for member in self.leases.take_over(now_ms) {
            self.silent += 1;
            self.leaving.entry(member).or_default();
        }
        self.look_at_question(now_ms);
    }

    /// Nobody could be heard for so long: that is not the members' fault.
    pub fn stalled(&mut self, for_ms: u64) {
        self.leases.extend_all(for_ms);
    }

    /// The routes are these now.
    pub fn routes_are(&mut self, routes: Arc<Routes>, now_ms: u64) {
        self.routes = Some(routes);
        if !self.book.members().is_empty() {
            self.want_rebalance(now_ms);
        }
    }

    /// When there may be something to do, if nothing happens before.
    #[must_use]
    pub fn next_ms(&self) -> Option<u64> {
        let rebalance_ms = self
            .rebalance_at_ms
            .filter(|_| self.routes.is_some())
            .map(|at_ms| at_ms.max(self.paused_until_ms));
        let noted = self.has_noted().then_some(self.paused_until_ms);
        let question_ms = self.question_ends_ms();
        [self.leases.next_ms(), rebalance_ms, noted, question_ms].into_iter().flatten().min()
    }

    fn has_noted(&self) -> bool {
        !self.waiting.is_empty() || !self.leaving.is_empty() || !self.let_go.is_empty()
    }

    /// What is to be written next; none while something is being written, or nothing is to be.
    pub fn next_change(&mut self, now_ms: u64) -> Option<Change> {
        if self.under_way.is_some() || now_ms < self.paused_until_ms {
            return None;
        }
        let under_way = self.change_of_members().or_else(|| self.change_of_queues(now_ms))?;
        let change = under_way.change.clone();
        self.proposed = change.generation;
        self.under_way = Some(under_way);
        Some(change)
    }

    fn begun(&self) -> Change {
        Change { generation: Generation(self.proposed.0 + 1), ..Change::default() }
    }

    /// Those who leave and join.
    fn change_of_members(&mut self) -> Option<UnderWay> {
        if self.leaving.is_empty() && self.waiting.is_empty() {
            return None;
        }
        let mut under_way = UnderWay { change: self.begun(), ..UnderWay::default() };
        let mut bytes = 0;
        while bytes < self.change_bytes_max
            && let Some((member, tickets)) = self.leaving.pop_first()
        {
            bytes += GONE_BYTES + GRANT_BYTES * self.book.held_by(member).count();
            under_way.done.extend(tickets);
            under_way.change.members_gone.push(member);
        }
        self.take_in(&mut under_way, bytes);
        let change = &mut under_way.change;
        let granted: BTreeSet<QueueKey> = change.grants.iter().map(|(queue, _)| *queue).collect();
        for member in &change.members_gone {
            let held = self.book.held_by(*member).filter(|queue| !granted.contains(queue));
            change.grants.extend(held.map(|queue| (queue, None)));
        }
        Some(under_way)
    }

    /// What was being written is applied.
    ///
    /// # Panics
    /// When nothing was.
    pub fn applied(&mut self, now_ms: u64) {
        let under_way = self.under_way.take().expect("only what is under way is applied");
        let UnderWay { change, division, joined, superseded, done, is_part } = under_way;
        for session in superseded {
            self.superseded.note(session);
        }
        let generation = change.generation;
        let mut changed = BTreeSet::new();
        for (queue, member) in &change.grants {
            let before = self.book.grants().get(queue).map(|grant| grant.member);
            changed.extend([before, *member].into_iter().flatten());
            if let Some(presence) = before.and_then(|owner| self.presences.get_mut(&owner)) {
                presence.revoked.remove(queue);
            }
            self.let_go.remove(queue);
        }
        if change.head.as_ref().is_some_and(|head| head.settings != *self.settings()) {
            self.settings_changed = generation;
            changed.extend(self.book.members().keys());
        }
        self.book.apply(&change);
        if is_part || !change.members_gone.is_empty() || !change.members_set.is_empty() {
            self.want_rebalance(now_ms);
        }
        self.news.extend(done.into_iter().map(News::Done));
        for member in &change.members_gone {
            self.presences.remove(member);
            self.leases.remove(*member);
            self.news.push(News::Gone(*member));
        }
        for taken_in in joined {
            self.taken_in(taken_in);
        }
        if let Some((field, target)) = division {
            self.divided(field, target, generation, &mut changed);
        }
        for member in changed {
            if let Some(presence) = self.presences.get_mut(&member) {
                presence.changed = generation;
                self.news.push(News::Changed(member));
            }
        }
    }

    /// What was being written was refused, and is not in the log. What follows from the members and
    /// the routes is tried again later; whoever asked for something is told by the shell.
    pub fn refused(&mut self, now_ms: u64) -> Vec<Ticket> {
        let Some(under_way) = self.under_way.take() else { return Vec::new() };
        self.paused_until_ms = now_ms + BACKOFF_MS;
        self.want_rebalance(now_ms);
        for member in under_way.change.members_gone {
            self.leaving.entry(member).or_default();
        }
        let joined = under_way.joined.into_iter().flat_map(|taken_in| taken_in.waiting.tickets);
        joined.chain(under_way.done).collect()
    }

    /// Whom to tell what, since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }
}
