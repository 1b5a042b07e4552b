//! Shard: one replicated log and the queues that live in it.
//!
//! ```text
//! TopicQueue --Propose--> [Shard] --one entry of many items--> consensus --log--> disk
//!                            '<---- Proposed (applied) ---------'
//!                            '---- Receipt to each port that travelled along
//! ```
//!
//! * Owns: what waits to be proposed and who waits for it, the queue actors, retention.
//! * Lives on: a core arbiter, by shard, together with its consensus, Storage and queues.
//! * Inbox: `Propose` in bytes, [`ShardRequest`] in messages.
//! * Talks to: consensus (a proposal under way is a future of its room), TopicQueues,
//!   DelayWheel, Finder.
//! * Stops: its queues first, then what is under way ends, then consensus.
//! * If it panics: the process ends; recovery is a restart.

pub(crate) mod finding;
pub mod gather;
pub(crate) mod ground;
mod group_progress;
mod groups;
pub(crate) mod leading;
mod membership;
pub mod messages;
mod queues;
mod recurring;
mod requests;
mod set;
mod settings;
mod start;
mod upkeep;
mod waiter;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::{AppliedReply, Group, NewItem, ProposeError};
use grus_log::Disk;
use grus_mailbox::{Credit, Drained, HostHandle, Inbox, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::ids::Term;
use tokio::sync::watch;

pub use crate::commands::TopicConfig;
pub use crate::machine::InitializedProducer;
pub use ground::{Ground, ShardMachine};
pub use leading::ShardStanding;
pub use membership::Membership;
pub(crate) use messages::RoutesAre;
pub use messages::{
    GroupQueuesPage, GroupSums, GroupSumsPage, QueueTable, ScheduleAsk, ShardHandle, ShardRequest,
    ShardStatus, SumsPlace, TopicOpened,
};
pub use set::{FailedShard, FailedShards, ShardSet};
pub use settings::{ShardPlaces, ShardSettings};
pub use start::{Shard, ShardMember, ShardStartError, start, start_member, start_on};
pub(crate) use waiter::{GroupDone, Waiter};

use crate::commands::Command;
use crate::commands::recurring::ScheduleKey;
use crate::delay_wheel::DelayWheel;
use crate::delay_wheel::messages::ClearBelow;
use crate::error::QueueError;
use crate::group_ties::RouteWatch;
use crate::machine::Outcome;
use crate::metrics::shards::ShardMetrics;
use crate::topic_queue::OVERLOADED_RETRY_MS;
use finding::Finding;
use gather::{Gather, Pending};
use groups::Groups;
use leading::LeaderChanged;
use queues::Queues;
use upkeep::{Cleared, TrimDone, Upkeep};
use waiter::Rest;

/// Where the queues of a shard are looked up; told of each change.
pub type QueueTableWatch = watch::Receiver<QueueTable>;
/// Where changes of that table are told.
pub(crate) type QueueTableSender = watch::Sender<QueueTable>;

/// Where it is told who leads a shard.
pub type StandingWatch = watch::Receiver<ShardStanding>;

/// Of a member that has just started.
fn standing_channel(first: ShardStanding) -> (watch::Sender<ShardStanding>, StandingWatch) {
    watch::channel(first)
}

/// The shards that a broker is a member of, replaced as a whole.
pub type Replicated = Arc<[ShardHandle]>;
/// Where those are told.
pub type ReplicatedWatch = watch::Receiver<Replicated>;
/// Where some shards are told, again and again.
pub type ShardTeller = watch::Sender<Replicated>;

/// None, for ever.
fn none_replicated() -> ReplicatedWatch {
    always(Replicated::from([]))
}

/// These, for ever.
fn always(shards: Replicated) -> ReplicatedWatch {
    watch::channel(shards).1
}

/// An empty table.
fn queue_table() -> (QueueTableSender, QueueTableWatch) {
    watch::channel(QueueTable::default())
}

/// Bytes that may wait to be proposed or be under way, over all queues of the shard.
pub const PROPOSED_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Requests to a shard that may be on their way.
pub const REQUESTS_MAX: u32 = 4096;
/// How often a shard looks at the time.
pub const TICK_MS: u64 = 100;

/// Bytes that an entry spends on an item besides the item's own (kind u16, length u32).
const ITEM_HEADER_BYTES: usize = 6;
/// Bytes that an entry spends besides its items (time u64, count u32).
const ENTRY_HEADER_BYTES: usize = 12;

/// Proposes one item. Comes from the queues of the shard.
#[derive(Debug)]
pub(crate) struct Propose {
    item: NewItem,
    bytes: usize,
    pub(crate) waiter: Waiter,
}

impl Propose {
    pub(crate) fn new(command: &Command, waiter: Waiter) -> Self {
        let item = NewItem { kind: command.kind(), bytes: command.encode() };
        let bytes = item.len_bytes() + ITEM_HEADER_BYTES;
        Self { item, bytes, waiter }
    }
}

impl Weigh for Propose {
    fn weight(&self) -> u32 {
        u32::try_from(self.bytes).unwrap_or(u32::MAX)
    }
}

/// An entry that was under way is applied, or will not be.
struct Proposed {
    ticket: u64,
    /// When it left, on the monotonic clock.
    left_ns: u64,
    result: Result<AppliedReply<Outcome>, ProposeError>,
}

impl Weigh for Proposed {}

/// There may be room in the log again. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RoomAgain;

impl Weigh for RoomAgain {}

/// All queues have stopped.
#[derive(Debug)]
struct QueuesStopped;

impl Weigh for QueuesStopped {}

/// Consensus has stopped.
#[derive(Debug)]
struct GroupStopped;

impl Weigh for GroupStopped {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    StoppingQueues,
    Finishing,
    StoppingGroup,
}

/// See the module documentation.
pub(crate) struct ShardActor<D: Disk> {
    ground: Rc<Ground<D>>,
    group: Group<ShardMachine, D>,
    queues: Queues<D>,
    groups: Groups<D>,
    /// Where it is told whether it leads; none: it always does.
    leading: Option<watch::Sender<ShardStanding>>,
    /// Where the routes are told, for its groups.
    routes: Option<RouteWatch>,
    gather: Gather<NewItem, (Waiter, Credit)>,
    /// The largest item that fits an entry.
    item_bytes_max: usize,
    /// Room in the log that a full disk keeps for retention.
    reserve_bytes: u64,
    upkeep: Upkeep,
    metrics: ShardMetrics,
    finding: Option<Finding>,
    /// Schedules of which a step is under way.
    running: BTreeSet<ScheduleKey>,
    /// Where the wheel is asked to carry messages on.
    wheel: Inbox<ClearBelow>,
    wheel_host: HostHandle<DelayWheel<D>>,
    stage: Stage,
}

impl<D: Disk> ShardActor<D> {
    /// Takes an item into the gathering; it leaves once the mailbox is drained.
    fn propose(&mut self, propose: Propose, credit: Credit, room: &mut Room<'_, Self>) {
        if self.stage > Stage::StoppingQueues {
            propose.waiter.fail(QueueError::Stopping);
            return;
        }
        let Propose { item, bytes, waiter } = propose;
        if waiter.is_client() {
            self.ground.worked_at_ms.set(Some(room.clock().monotonic_ms()));
        }
        if bytes > self.item_bytes_max {
            let bytes_max = self.item_bytes_max as u64;
            waiter.fail(QueueError::BatchTooLarge { bytes: bytes as u64, bytes_max });
            return;
        }
        self.gather.push(Pending { item, bytes, waiter: (waiter, credit) });
        room.notify_drained();
    }

    /// Sends off what may leave now.
    fn depart(&mut self, room: &mut Room<'_, Self>) {
        while self.gather.may_leave() {
            let next = if self.has_room() {
                self.gather.next_entry()
            } else if self.starve() {
                continue;
            } else if self.has_room_for_one() {
                self.gather.next_single()
            } else {
                break;
            };
            let Some((ticket, items)) = next else { break };
            self.ground.starved.set(false);
            let proposal = self.group.propose(&items);
            let left_ns = room.clock().monotonic_ns();
            room.spawn_into(async move { Proposed { ticket, left_ns, result: proposal.await } });
        }
        self.go_on_stopping(room);
    }

    /// Whether the next entry fits the log. On a full disk producers leave the last of the room to
    /// what lets go of messages: without it the log could never be trimmed again.
    fn has_room(&self) -> bool {
        let is_full = self.ground.log.borrow().is_disk_full();
        let spends = is_full && !self.gather.waits_only_for(|(waiter, _)| waiter.makes_room());
        let reserve = if spends { self.reserve_bytes } else { 0 };
        self.group.has_room(self.gather.next_bytes_max() as u64 + reserve)
    }

    /// On a full disk: whether what lets go of messages can leave one by one, where all that has
    /// gathered is more than the room that is left.
    fn has_room_for_one(&self) -> bool {
        let is_full = self.ground.log.borrow().is_disk_full();
        is_full && self.group.has_room((self.gather.first_bytes() + ENTRY_HEADER_BYTES) as u64)
    }

    /// The log has no room now. When the disk is full, nobody waits for better times but what lets
    /// go of messages, and when the shard stops, not even that. True if somebody was sent away.
    fn starve(&mut self) -> bool {
        self.ground.starved.set(true);
        if !self.ground.log.borrow().is_disk_full() {
            return false;
        }
        let stops = self.stage >= Stage::Finishing;
        let gone = self.gather.give_up(|(waiter, _)| waiter.makes_room() && !stops);
        let somebody = !gone.is_empty();
        for (waiter, credit) in gone {
            self.finish(waiter.fail(QueueError::StorageFull));
            drop(credit);
        }
        somebody
    }

    fn finish(&mut self, rest: Rest) {
        match rest {
            Rest::Done => {}
            Rest::Open(_, reply) if self.stage != Stage::Serving => {
                reply.send(Err(QueueError::Stopping));
            }
            Rest::Open(_, reply) if !self.ground.leads.get() => {
                reply.send(Err(QueueError::NotLeader { leader: self.ground.leader.get() }));
            }
            Rest::Open(topic, reply) => {
                let queues = self.queues.open(topic);
                self.groups.follow(topic);
                reply.send(Ok(TopicOpened { queues }));
            }
            Rest::Close(topic, reply) => {
                self.groups.follow(topic);
                self.queues.close(topic);
                reply.send(Ok(()));
            }
            Rest::ScheduleRan { key, late_ms, counts } => {
                self.schedule_ran(&key, late_ms, counts);
            }
            Rest::Retained { removed } => {
                self.upkeep.retain_finished(removed);
                self.metrics.retained().removed(removed.unwrap_or_default());
            }
        }
    }

    fn error_of(&self, error: &ProposeError) -> QueueError {
        match error {
            ProposeError::NotLeader { leader } => QueueError::NotLeader { leader: *leader },
            // The entry may be applied yet, here or by the next leader.
            ProposeError::Unknown { .. } | ProposeError::Stopped | ProposeError::Fatal(_) => {
                QueueError::OutcomeUnknown
            }
            ProposeError::TooLarge { bytes, bytes_max } => {
                QueueError::BatchTooLarge { bytes: *bytes, bytes_max: *bytes_max }
            }
            ProposeError::Full if self.ground.log.borrow().is_disk_full() => {
                QueueError::StorageFull
            }
            ProposeError::Full => QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS },
        }
    }

    /// After a start on a full disk: once there was room, the state holds all that was acknowledged.
    fn complete_state(&mut self) {
        if !self.ground.complete.get() && self.group.status().ready {
            self.ground.rings.borrow_mut().follow(Term(self.group.status().term));
            self.ground.complete.set(true);
            self.queues.follow_state();
            self.groups.follow_state();
            tracing::info!(shard = self.ground.shard.0, "the disk has room again");
        }
    }

    /// When queues have stopped and nothing is under way any more, consensus stops.
    fn go_on_stopping(&mut self, room: &mut Room<'_, Self>) {
        if self.stage == Stage::Finishing && self.gather.is_idle() {
            self.stage = Stage::StoppingGroup;
            let group = self.group.clone();
            room.spawn_into(async move {
                group.stop().await;
                GroupStopped
            });
        }
    }
}

impl<D: Disk> Resident for ShardActor<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        if self.leading.is_some() {
            self.watch_leader(room);
        } else {
            self.queues.follow_state();
            self.groups.follow_state();
        }
        if let Some(routes) = self.routes.take() {
            room.spawn(routes.feed(room.inbox(1)));
        }
        room.tick_every(Duration::from_millis(TICK_MS));
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        room.linger();
        self.stage = Stage::StoppingQueues;
        let mut stops = self.look_at_leader();
        stops.extend(self.queues.stop());
        stops.extend(self.groups.stop());
        stops.push(self.wheel_host.stop());
        room.spawn_into(async move {
            for stopped in stops {
                stopped.await;
            }
            QueuesStopped
        });
    }
}

impl<D: Disk> Receive<Propose> for ShardActor<D> {
    fn receive(&mut self, msg: Propose, credit: Credit, room: &mut Room<'_, Self>) {
        self.propose(msg, credit, room);
    }
}

impl<D: Disk> Receive<ShardRequest> for ShardActor<D> {
    fn receive(&mut self, msg: ShardRequest, credit: Credit, room: &mut Room<'_, Self>) {
        self.request(msg, credit, room);
    }
}

impl<D: Disk> Receive<Drained> for ShardActor<D> {
    fn receive(&mut self, _: Drained, _credit: Credit, room: &mut Room<'_, Self>) {
        self.depart(room);
    }
}

impl<D: Disk> Receive<RoutesAre> for ShardActor<D> {
    fn receive(&mut self, msg: RoutesAre, _credit: Credit, _room: &mut Room<'_, Self>) {
        self.groups.routes_are(msg.routes);
    }
}

impl<D: Disk> Receive<RoomAgain> for ShardActor<D> {
    fn receive(&mut self, _: RoomAgain, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit);
        self.depart(room);
    }
}

impl<D: Disk> Receive<Proposed> for ShardActor<D> {
    fn receive(&mut self, msg: Proposed, _credit: Credit, room: &mut Room<'_, Self>) {
        let waiters = self.gather.finished(msg.ticket);
        let schedules = self.running.len();
        match msg.result {
            Ok(applied) => {
                let took_ns = room.clock().monotonic_ns().saturating_sub(msg.left_ns);
                self.metrics.appended(took_ns);
                assert_eq!(applied.replies.len(), waiters.len(), "every item has one answer");
                for ((waiter, credit), outcome) in waiters.into_iter().zip(applied.replies) {
                    if matches!(&outcome, Outcome::Append(Err(refusal)) if refusal.is_of_a_cap()) {
                        self.metrics.retained().refused();
                    }
                    let rest = waiter.answer(outcome, self.ground.durability);
                    self.finish(rest);
                    drop(credit);
                }
                self.run_more_schedules(schedules, room);
            }
            Err(error) => {
                let error = self.error_of(&error);
                for (waiter, credit) in waiters {
                    let rest = waiter.fail(error.clone());
                    self.finish(rest);
                    drop(credit);
                }
            }
        }
        self.depart(room);
    }
}

impl<D: Disk> Receive<LeaderChanged> for ShardActor<D> {
    fn receive(&mut self, _: LeaderChanged, credit: Credit, _room: &mut Room<'_, Self>) {
        drop(credit); // what changes from here on needs another one
        drop(self.look_at_leader());
    }
}

impl<D: Disk> Receive<Tick> for ShardActor<D> {
    fn receive(&mut self, msg: Tick, _credit: Credit, room: &mut Room<'_, Self>) {
        drop(self.look_at_leader()); // a lease ends without a word
        self.queues.expire(msg.now, msg.monotonic_ms);
        self.groups.tick(msg.monotonic_ms);
        if self.ground.starved.get() {
            self.group.request_room();
            self.depart(room);
        }
        if self.stage == Stage::Serving {
            self.complete_state();
            self.check_old_entries();
            self.keep_findable(msg.monotonic_ms);
            self.run_schedules(msg.now, room);
            self.keep_up(msg, room);
        }
    }
}

impl<D: Disk> Receive<Cleared> for ShardActor<D> {
    fn receive(&mut self, msg: Cleared, _credit: Credit, room: &mut Room<'_, Self>) {
        match msg.index {
            Some(index) => self.trim(index, room),
            None => self.upkeep.trim_finished(TrimDone { error: None }),
        }
    }
}

impl<D: Disk> Receive<TrimDone> for ShardActor<D> {
    fn receive(&mut self, msg: TrimDone, _credit: Credit, _room: &mut Room<'_, Self>) {
        self.upkeep.trim_finished(msg);
    }
}

impl<D: Disk> Receive<QueuesStopped> for ShardActor<D> {
    fn receive(&mut self, _: QueuesStopped, _credit: Credit, room: &mut Room<'_, Self>) {
        self.stage = Stage::Finishing;
        self.depart(room);
    }
}

impl<D: Disk> Receive<GroupStopped> for ShardActor<D> {
    fn receive(&mut self, _: GroupStopped, _credit: Credit, room: &mut Room<'_, Self>) {
        room.stop();
    }
}
