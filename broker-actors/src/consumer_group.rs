//! ConsumerGroup: the coordinator of one group: who its members are, and who has which queue.
//!
//! ```text
//! Connection --CoordinatorAsk--> [ConsumerGroup] --Propose(GroupChange)--> Shard
//! Shard ----Awaken------------->    |     ^  '<------Written (by reply port)---'
//! Registry <--PlaceDeadLetters------'     '--Placed (by reply port)
//! ```
//!
//! What is decided is an entry of the shard that leads the group's first dead-letter queue, and is
//! told only once it is applied. The members carry it on: each claims its queues where those are led,
//! by the generation that it was told, so no broker has to talk to another one. What is decided, and
//! how a queue changes hands, is [`coordination`]'s.
//!
//! * Owns: the [`Coordination`], heartbeats that wait for news, who waits to join or leave.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`CoordinatorAsk`], held until it is answered; [`Awaken`]; answers to what it has asked.
//! * Talks to: Shard, the registry.
//! * Stops: when its group is deleted, and with its shard; whoever still asks is told by a dropped port.
//! * If it panics: it is rebuilt from the shard's state; members get full leases, those who wait are
//!   told to ask again.

mod asks;
pub mod book;
pub mod coordination;
pub mod error;
pub mod field;
mod keeping;
pub mod leases;
mod messages;
pub(crate) mod pace;
pub mod polls;
pub mod records;
pub mod strategy;
mod telling;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use grus_consensus::Group;
use grus_log::Disk;
use grus_mailbox::{Credit, Inbox, Port, Receive, Resident, Room, Tick};
use grus_protocol::ids::{GroupId, MemberId, TimestampMs};
use grus_protocol::message::{GroupHeartbeatReply, JoinGroupReply};
use grus_protocol::names::GroupName;
use grus_registry::RegistryRequest;

use crate::commands::Command;
use crate::commands::groups::GroupItem;
use crate::error::QueueError;
use crate::registry_link::routes::Routes;
use crate::shard::ground::{Ground, ShardMachine};
use crate::shard::{GroupDone, Propose, Waiter};
use crate::topic_queue::OVERLOADED_RETRY_MS;
use book::Change;
use coordination::{Coordination, JoinRefusal, News, Ticket};
use error::CoordinatorError;
use keeping::{item, read_book};
pub(crate) use messages::{Awaken, Placed, Written};
pub use messages::{CoordinatorAsk, GroupHandle, GroupTable};
pub(crate) use pace::Pace;
use polls::Polls;

/// Requests to one group that may be on their way or wait: a heartbeat of each member, and some.
pub const ASKS_MAX: u32 = 32_768;
/// How long after the registry was asked for dead-letter queues it is asked again, if they are not
/// there, in milliseconds.
const PLACE_AGAIN_MS: u64 = 1_000;
/// How often a group looks whether it may coordinate, while it may not, in milliseconds.
const LOOK_MS: u64 = 200;

const _: () = assert!(ASKS_MAX as usize > coordination::MEMBERS_MAX);

/// The routes as a shard was told them last; none before.
pub(crate) type KnownRoutes = Rc<RefCell<Option<Arc<Routes>>>>;
/// When each group wants to be awakened next, in monotonic milliseconds.
pub(crate) type Alarms = Rc<RefCell<BTreeSet<(u64, GroupId)>>>;

/// What a ConsumerGroup is built from, at first and after a panic.
pub(crate) struct GroupParts<D: Disk> {
    pub(crate) name: GroupName,
    pub(crate) group: GroupId,
    pub(crate) ground: Rc<Ground<D>>,
    pub(crate) consensus: Group<ShardMachine, D>,
    pub(crate) shard: Inbox<Propose>,
    /// None in tests without one: dead letters are placed by hand then.
    pub(crate) registry: Option<Inbox<RegistryRequest>>,
    pub(crate) routes: KnownRoutes,
    pub(crate) alarms: Alarms,
    pub(crate) pace: Rc<Pace>,
}

/// One that waits for what it asked to be written.
enum Waits {
    Join(Port<Result<JoinGroupReply, CoordinatorError>>, Credit),
    Leave(Port<Result<(), CoordinatorError>>, Credit),
}

/// A heartbeat that waits for news.
type Poll = (Port<Result<GroupHeartbeatReply, CoordinatorError>>, Credit);

struct OwnInboxes {
    written: Inbox<Written>,
    placed: Inbox<Placed>,
}

/// See the module documentation.
pub(crate) struct ConsumerGroup<D: Disk> {
    parts: Rc<GroupParts<D>>,
    /// None while this broker does not lead the shard, or cannot read what is kept of the group.
    coordination: Option<Coordination>,
    polls: Polls<Poll>,
    waits: BTreeMap<Ticket, Waits>,
    next_ticket: Ticket,
    /// Counts what was proposed: an answer to what an earlier coordination proposed counts for none.
    writing: u64,
    is_placing: bool,
    place_again_ms: u64,
    is_unreadable: bool,
    alarm_ms: Option<u64>,
    /// The routes that the coordination was told.
    seen: Option<Arc<Routes>>,
    /// How much of all stalls its members were given.
    stalled_ms: u64,
    own: Option<OwnInboxes>,
}

impl<D: Disk> ConsumerGroup<D> {
    pub(crate) fn new(parts: Rc<GroupParts<D>>) -> Self {
        Self {
            parts,
            coordination: None,
            polls: Polls::default(),
            waits: BTreeMap::new(),
            next_ticket: 0,
            writing: 0,
            is_placing: false,
            place_again_ms: 0,
            is_unreadable: false,
            alarm_ms: None,
            seen: None,
            stalled_ms: 0,
            own: None,
        }
    }

    /// Whether members may be told anything here and now.
    fn leads(&self) -> bool {
        let status = self.parts.consensus.status();
        status.ready && !status.lease_left.is_zero() && self.parts.ground.complete.get()
    }

    /// Begins to coordinate, or ceases to, as this broker leads the shard or not.
    fn look(&mut self, now_ms: u64) {
        if !self.leads() {
            return self.cease();
        }
        if self.coordination.is_some() || self.is_unreadable {
            return;
        }
        let read = read_book(&self.parts.ground.machine.borrow().state, self.parts.group);
        let book = match read {
            Ok(book) => book,
            Err(error) => {
                tracing::error!(group = %self.parts.name, %error, "what is kept of the group cannot be read");
                self.is_unreadable = true;
                return;
            }
        };
        let name = (self.parts.name.clone(), self.parts.group);
        let most = self.parts.ground.item_bytes_max();
        self.coordination = Some(Coordination::new(name, book, now_ms).within(most));
        self.seen = None;
        self.stalled_ms = self.parts.pace.stalled_ms();
        tracing::debug!(group = %self.parts.name, "coordinates");
    }

    /// Takes note of what the shard has been told.
    fn follow(&mut self, now_ms: u64) {
        let Some(coordination) = &mut self.coordination else { return };
        let stalled_ms = self.parts.pace.stalled_ms();
        if stalled_ms > self.stalled_ms {
            coordination.stalled(stalled_ms - self.stalled_ms);
            self.stalled_ms = stalled_ms;
        }
        let routes = self.parts.routes.borrow().clone();
        if let Some(routes) = routes
            && self.seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &routes))
        {
            coordination.routes_are(Arc::clone(&routes), now_ms);
            self.seen = Some(routes);
        }
    }

    fn cease(&mut self) {
        if self.coordination.take().is_some() {
            self.writing += 1; // what is under way is not this one's any more
        }
        for (_, (reply, _credit)) in self.polls.take_all() {
            reply.send(Err(CoordinatorError::NotLeader));
        }
        for (_, waits) in std::mem::take(&mut self.waits) {
            waits.fail(CoordinatorError::NotLeader);
        }
    }

    /// Does what there is to do, and says when to be awakened.
    fn turn(&mut self, room: &Room<'_, Self>) {
        let tick = Tick::of(&room.clock());
        let now_ms = tick.monotonic_ms;
        self.follow(now_ms);
        if let Some(coordination) = &mut self.coordination {
            if !self.parts.pace.is_behind(now_ms) {
                coordination.tick(now_ms);
            }
            if let Some(change) = coordination.next_change(now_ms) {
                self.write(&change);
            }
        }
        self.tell_news(tick.now);
        while let Some((member, poll)) = self.polls.take_over(now_ms) {
            self.answer(member, poll);
        }
        self.place(now_ms);
        self.set_alarm(now_ms);
    }

    /// Proposes a change; what becomes of it comes as `Written`.
    fn write(&mut self, change: &Change) {
        let Some(own) = &self.own else { return };
        self.writing += 1;
        let (number, written) = (self.writing, own.written.clone());
        let reply = Port::call(move |answer: Result<Result<GroupDone, QueueError>, _>| {
            let result = answer.unwrap_or(Err(QueueError::OutcomeUnknown)).map(drop);
            // Stopped: it is rebuilt from the state.
            let _ = written.try_put(Written { number, result });
        });
        let command = Command::Group(GroupItem::Change(item(self.parts.group, change)));
        let refused =
            match self.parts.shard.try_put(Propose::new(&command, Waiter::Group { reply })) {
                Ok(()) => return,
                Err(refused) => refused,
            };
        let error = if refused.is_full() {
            QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS }
        } else {
            QueueError::Stopping
        };
        refused.into_message().waiter.fail(error);
    }

    fn tell_news(&mut self, now: TimestampMs) {
        let news = self.coordination.as_mut().map(Coordination::take_news).unwrap_or_default();
        for one in news {
            match one {
                News::Joined(ticket, member) => self.joined(ticket, member, now),
                News::Superseded(ticket) => {
                    if let Some(waits) = self.waits.remove(&ticket) {
                        waits.fail(CoordinatorError::Join(JoinRefusal::Superseded));
                    }
                }
                News::DividedWithoutAnswer => {
                    let text = "no member has divided the queues in time: shared as by `sticky`";
                    tracing::warn!(group = %self.parts.name, "{text}");
                }
                News::FiltersDiffer(topics) => {
                    let text = "members want different messages: what the member of a queue does \
                                not want is passed over for all of the group";
                    tracing::warn!(group = %self.parts.name, %topics, "{text}");
                }
                News::Done(ticket) => {
                    if let Some(Waits::Leave(reply, _credit)) = self.waits.remove(&ticket) {
                        reply.send(Ok(()));
                    }
                }
                News::Changed(member) => {
                    if let Some(poll) = self.polls.take(member) {
                        self.answer(member, poll);
                    }
                }
                News::Gone(member) => {
                    if let Some((reply, _credit)) = self.polls.take(member) {
                        reply.send(Err(CoordinatorError::NoMember));
                    }
                }
            }
        }
    }

    fn joined(&mut self, ticket: Ticket, member: MemberId, now: TimestampMs) {
        let Some(Waits::Join(reply, _credit)) = self.waits.remove(&ticket) else { return };
        let Some(coordination) = &self.coordination else { return };
        reply.send(Ok(JoinGroupReply {
            group_id: self.parts.group,
            member,
            generation: coordination.book().generation(),
            session_ms: coordination.settings().session_ms,
            heartbeat_ms: coordination.heartbeat_ms(),
            settings: coordination.settings().clone(),
            time: now,
        }));
    }

    /// Answers a heartbeat.
    fn answer(&mut self, member: MemberId, (reply, _credit): Poll) {
        let told = self.coordination.as_mut().and_then(|one| one.tell(member));
        let answer = told.map(|told| GroupHeartbeatReply {
            generation: told.generation,
            assigned: told.assigned,
            settings: told.settings,
            divide: told.divide,
        });
        reply.send(answer.ok_or(CoordinatorError::NoMember));
    }

    /// Has the registry place dead-letter queues where the group needs them.
    fn place(&mut self, now_ms: u64) {
        let Some(coordination) = &self.coordination else { return };
        let shards: Vec<_> = coordination.unready().iter().copied().collect();
        if shards.is_empty() || self.is_placing || now_ms < self.place_again_ms {
            return;
        }
        let (Some(registry), Some(own)) = (&self.parts.registry, &self.own) else { return };
        let placed = own.placed.clone();
        let reply = Port::call(move |answer: Result<Result<_, _>, _>| {
            let error = match answer {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(error),
                Err(_dropped) => Some(grus_registry::RegistryError::Busy),
            };
            let _ = placed.try_put(Placed { error }); // stopped: it asks again when it is rebuilt
        });
        let (name, id) = (self.parts.name.dead_letters(), self.parts.group.dead_letters());
        let request = RegistryRequest::PlaceDeadLetters { name, id, home: None, shards, reply };
        self.is_placing = true;
        self.place_again_ms = now_ms + PLACE_AGAIN_MS;
        let _ = registry.try_put(request); // refused: heard as busy
    }

    fn set_alarm(&mut self, now_ms: u64) {
        let next_ms = match &self.coordination {
            None => Some(now_ms + LOOK_MS),
            Some(coordination) => {
                let place_ms = (!coordination.unready().is_empty()).then_some(self.place_again_ms);
                [coordination.next_ms(), self.polls.next_ms(), place_ms].into_iter().flatten().min()
            }
        };
        if next_ms == self.alarm_ms {
            return;
        }
        self.clear_alarm();
        self.alarm_ms = next_ms;
        if let Some(at_ms) = next_ms {
            self.parts.alarms.borrow_mut().insert((at_ms, self.parts.group));
        }
    }

    fn clear_alarm(&mut self) {
        if let Some(at_ms) = self.alarm_ms.take() {
            self.parts.alarms.borrow_mut().remove(&(at_ms, self.parts.group));
        }
    }

    fn ticket(&mut self, waits: Waits) -> Ticket {
        self.next_ticket += 1;
        self.waits.insert(self.next_ticket, waits);
        self.next_ticket
    }
}

impl Waits {
    fn fail(self, error: CoordinatorError) {
        match self {
            Self::Join(reply, _credit) => reply.send(Err(error)),
            Self::Leave(reply, _credit) => reply.send(Err(error)),
        }
    }
}

impl<D: Disk> Resident for ConsumerGroup<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.own = Some(OwnInboxes { written: room.inbox(2), placed: room.inbox(2) });
        self.look(room.clock().monotonic_ms());
        self.turn(room);
    }

    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        self.clear_alarm();
        for (_, (reply, _credit)) in self.polls.take_all() {
            reply.send(Err(CoordinatorError::Stopping));
        }
        for (_, waits) in std::mem::take(&mut self.waits) {
            waits.fail(CoordinatorError::Stopping);
        }
    }
}

impl<D: Disk> Receive<CoordinatorAsk> for ConsumerGroup<D> {
    fn receive(&mut self, msg: CoordinatorAsk, credit: Credit, room: &mut Room<'_, Self>) {
        let tick = Tick::of(&room.clock());
        self.look(tick.monotonic_ms);
        self.ask(msg, credit, tick);
        self.turn(room);
    }
}

impl<D: Disk> Receive<Awaken> for ConsumerGroup<D> {
    fn receive(&mut self, Awaken: Awaken, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // what is told from here on needs another one
        self.look(room.clock().monotonic_ms());
        self.clear_alarm();
        self.turn(room);
    }
}

impl<D: Disk> Receive<Written> for ConsumerGroup<D> {
    fn receive(&mut self, msg: Written, _credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        let Some(coordination) = self.coordination.as_mut().filter(|_| msg.number == self.writing)
        else {
            return;
        };
        match msg.result {
            Ok(()) => coordination.applied(now_ms),
            // It may be in the log, or something is that was not known here, as of an earlier life
            // that panicked: begins anew with what the log says.
            Err(QueueError::OutcomeUnknown | QueueError::NotHeld { .. }) => {
                self.cease();
                self.look(now_ms);
            }
            Err(error) => {
                for ticket in coordination.refused(now_ms) {
                    if let Some(waits) = self.waits.remove(&ticket) {
                        waits.fail(CoordinatorError::NotWritten(error.clone()));
                    }
                }
            }
        }
        self.turn(room);
    }
}

impl<D: Disk> Receive<Placed> for ConsumerGroup<D> {
    fn receive(&mut self, msg: Placed, _credit: Credit, room: &mut Room<'_, Self>) {
        self.is_placing = false;
        if let Some(error) = msg.error {
            tracing::debug!(group = %self.parts.name, %error, "dead letters are not placed yet");
        }
        self.turn(room);
    }
}
