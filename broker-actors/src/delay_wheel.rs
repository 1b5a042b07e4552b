//! DelayWheel: the timers of one shard. When one is due, it has the log say so.
//!
//! ```text
//! state machine --TimersStored--> [DelayWheel] --Propose(Release | Roll | Recall)--> Shard
//! Connection ----DelayAsk-------->   |  ^  '<---ItemDone (by reply port)----------------'
//! Shard ---------ClearBelow------->  |  '--BodiesRead-- Reader <--ReadBodies--'
//! ```
//!
//! A message's time has come only by a Release entry, so nothing here needs to be remembered: the
//! state says what is pending ([`crate::machine::timers`]), and a Release acts on nothing else. Each
//! round releases what is due, in order, and waits for its entry before the next; so overdue messages
//! leave a little at a time and producers get their turn between. What is asked waits in a line of its
//! own, of which a turn does one step: a flood of questions holds up no round.
//!
//! * Owns: the wheel of what is near ([`near`]), the round under way, listings under way.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`DelayAsk`], `ClearBelow`, `TimersStored`, and answers to what it has asked.
//! * Talks to: Shard, Reader. Their inboxes have room for all that a wheel can have under way.
//! * Stops: with its shard; whoever still asks is told by a dropped port.
//! * If it panics: it is rebuilt and looks at the state again. What it had proposed is applied
//!   or not; either way the state says what is left to do.

mod asks;
pub mod clock_watch;
mod damage;
pub mod listing;
pub mod messages;
pub mod near;
mod releasing;
mod rolling;
pub mod round;
pub mod wheel;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grus_consensus::Group;
use grus_log::{Disk, Run};
use grus_mailbox::{Credit, Drained, Inbox, Port, Receive, Resident, Room, Tick};
use grus_protocol::ids::{Offset, Term, TimestampMs};

use crate::commands::Command;
use crate::error::QueueError;
use crate::machine::timers::Fresh;
use crate::metrics::delays::DelayMetrics;
use crate::reader::ReadBodies;
use crate::shard::ground::{Ground, ShardMachine};
use crate::shard::{Propose, Waiter};
use crate::timers::TimerId;
use crate::timers::run::Timer;
use crate::topic_queue::OVERLOADED_RETRY_MS;
use asks::{Job, PageRead, RecallJob};
use clock_watch::{ClockWatch, Jump};
use messages::{
    Alarm, BodiesRead, ClearBelow, DELAY_ASKS_MAX, DelayAsk, ItemDone, RECALL_MAX, TimersStored,
};
use near::Near;
use releasing::Round;
use rolling::{RollRound, Rolling};
use round::{RELEASED_BYTES_MAX, follow};

/// How often the wheel looks at the time when nothing is due sooner.
const TICK_MS: u64 = 100;
/// After a round in which something failed.
const BACKOFF_MS: u64 = 100;
/// More items than can be under way.
const ITEMS_MAX: u32 = (DELAY_ASKS_MAX * RECALL_MAX) + (1 << 16);
/// Reads that can be under way: a round, what is carried on, each question, and one that the Reader
/// has answered and not let go of.
pub(crate) const READS_MAX: u32 = DELAY_ASKS_MAX + 3;
/// More than a Recall item takes of an entry.
const RECALL_ITEM_BYTES: u32 = 64;

/// What a DelayWheel is built from, at first and after a panic.
pub(crate) struct WheelParts<D: Disk> {
    pub(crate) ground: Rc<Ground<D>>,
    pub(crate) group: Group<ShardMachine, D>,
    pub(crate) shard: Inbox<Propose>,
    pub(crate) reader: Inbox<ReadBodies>,
    pub(crate) metrics: DelayMetrics,
    /// The largest item that the log takes.
    pub(crate) item_bytes_max: usize,
}

/// Bytes of items that a wheel can have under way, where one takes `item_bytes_max` at most: all recalls
/// that can be asked for, a round, and what is carried on.
pub(crate) fn proposed_bytes_max(item_bytes_max: usize) -> u32 {
    let round_and_roll = 2 * (RELEASED_BYTES_MAX + item_bytes_max);
    let recalls = DELAY_ASKS_MAX * RECALL_MAX * RECALL_ITEM_BYTES;
    recalls.saturating_add(u32::try_from(round_and_roll).unwrap_or(u32::MAX))
}

/// Something under way, by its ticket.
enum Work {
    Round(Round),
    Roll(RollRound),
    Recall(RecallJob),
    Page(PageRead),
}

struct OwnInboxes {
    done: Inbox<ItemDone>,
    read: Inbox<BodiesRead>,
}

/// See the module documentation.
pub(crate) struct DelayWheel<D: Disk> {
    parts: Rc<WheelParts<D>>,
    /// None while another member leads.
    near: Option<Near>,
    clock_watch: ClockWatch,
    works: BTreeMap<u64, Work>,
    next_ticket: u64,
    /// A Round is among the works.
    is_releasing: bool,
    /// Monotonic: no round begins before.
    paused_until_ms: u64,
    rolling: Option<Rolling>,
    jobs: VecDeque<Job>,
    alarm_at_ms: Option<u64>,
    /// Batches that were found damaged, and are needed still.
    damaged: BTreeSet<TimerId>,
    own: Option<OwnInboxes>,
}

impl<D: Disk> DelayWheel<D> {
    pub(crate) fn new(parts: Rc<WheelParts<D>>) -> Self {
        Self {
            parts,
            near: None,
            clock_watch: ClockWatch::default(),
            works: BTreeMap::new(),
            next_ticket: 0,
            is_releasing: false,
            paused_until_ms: 0,
            rolling: None,
            jobs: VecDeque::new(),
            alarm_at_ms: None,
            damaged: BTreeSet::new(),
            own: None,
        }
    }

    /// Whether messages may be released here and now.
    fn leads(&self) -> bool {
        let status = self.parts.group.status();
        status.ready && !status.lease_left.is_zero() && self.parts.ground.complete.get()
    }

    /// Does what there is to do.
    fn turn(&mut self, tick: Tick, room: &mut Room<'_, Self>) {
        if !self.leads() {
            self.near = None;
            self.rolling = None;
            // Its numbers are told wherever the messages may be released.
            if self.list_on() {
                room.notify_drained();
            }
            return;
        }
        let mut more = self.look(tick.now);
        self.begin_round(tick);
        self.roll_on();
        more |= self.list_on();
        if more {
            room.notify_drained();
        }
        self.set_alarm(tick.now, room);
    }

    /// Takes note of what is stored and brings into the wheel what is near; true if there is more.
    fn look(&mut self, now: TimestampMs) -> bool {
        let mut machine = self.parts.ground.machine.borrow_mut();
        let timers = machine.state.timers_mut();
        let fresh = timers.take_fresh();
        let near = match (self.near.take(), fresh) {
            (Some(mut near), Fresh::Timers(fresh)) => {
                for timer in fresh {
                    near.add(timer);
                }
                near
            }
            (None, _) | (_, Fresh::Unknown) => Near::new(now, timers),
        };
        let near = self.near.insert(near);
        near.load(now, timers)
    }

    /// Has itself woken when the next message is due.
    fn set_alarm(&mut self, now: TimestampMs, room: &mut Room<'_, Self>) {
        if self.is_releasing {
            return; // the end of the round wakes it
        }
        let paused_ms = self.paused_until_ms.saturating_sub(room.clock().monotonic_ms());
        let Some(next_ms) = self.near.as_ref().and_then(Near::next_ms) else { return };
        let wait_ms = next_ms.saturating_sub(now.0).max(paused_ms).max(1);
        let at_ms = now.0.saturating_add(wait_ms);
        if wait_ms >= TICK_MS || self.alarm_at_ms.is_some_and(|rings_ms| rings_ms <= at_ms) {
            return;
        }
        self.alarm_at_ms = Some(at_ms);
        room.spawn_into(async move {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            Alarm { at_ms }
        });
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// Starts work that reads the messages of `timers`: at once, or once they are in memory.
    fn start(&mut self, work: Work, timers: &[Timer]) {
        let ticket = self.ticket();
        self.works.insert(ticket, work);
        self.bring_in(ticket, timers);
    }

    fn bring_in(&mut self, ticket: u64, timers: &[Timer]) {
        let mut runs: Vec<Run> = timers.iter().map(run_of).collect();
        runs.sort_unstable_by_key(|run| (run.at.index, run.at.byte));
        runs.dedup_by_key(|run| (run.at.index, run.at.byte));
        let log = self.parts.ground.log.borrow();
        if runs.iter().all(|run| log.is_resident(run)) {
            drop(log);
            return self.go_on(ticket);
        }
        let fault_in = log.fault_in(&runs);
        drop(log);
        let Some(own) = &self.own else { return };
        let read = own.read.clone();
        let done = Port::call(move |answer: Result<(), _>| {
            // Stopped: it is rebuilt, and looks at the state.
            let _ = read.try_put(BodiesRead { ticket, is_read: answer.is_ok() });
        });
        // Stopped, or rebuilt meanwhile: the port says so.
        let _ = self.parts.reader.try_put(ReadBodies { fault_in, done });
    }

    /// The Reader has brought in what some work needs, unless it was rebuilt meanwhile. Where a batch was
    /// carried on since, it may be gone from where it lay: the work goes on from where it lies now.
    fn bodies_read(&mut self, msg: &BodiesRead) {
        let machine = self.parts.ground.machine.borrow();
        let state = machine.state.timers();
        let timers = match self.works.get_mut(&msg.ticket) {
            Some(Work::Round(round)) => &mut round.timers,
            Some(Work::Roll(roll)) => &mut roll.batches,
            Some(Work::Page(page)) => &mut page.timers,
            Some(Work::Recall(_)) | None => return,
        };
        let has_moved = follow(timers, |timer| state.get(timer));
        let is_there = msg.is_read && !has_moved;
        let timers = if is_there { Vec::new() } else { timers.clone() };
        drop(machine);
        if is_there {
            self.go_on(msg.ticket);
        } else {
            self.bring_in(msg.ticket, &timers);
        }
    }

    /// The messages that some work needs are in memory.
    fn go_on(&mut self, ticket: u64) {
        match self.works.get(&ticket) {
            Some(Work::Round(_)) => self.release(ticket),
            Some(Work::Roll(_)) => self.roll(ticket),
            Some(Work::Page(_)) => self.answer_page(ticket),
            Some(Work::Recall(_)) | None => {}
        }
    }

    /// The bytes of the batch that a timer's message lies in; none if they are damaged.
    fn batch_of(&self, timer: &Timer) -> Option<Bytes> {
        self.parts.ground.log.borrow().slice(&run_of(timer)).ok()
    }

    /// Proposes an item; what becomes of it comes as `ItemDone`.
    fn propose(&self, command: &Command, ticket: u64, number: usize) {
        let Some(own) = &self.own else { return };
        let done = own.done.clone();
        let reply = Port::call(move |answer: Result<Result<bool, QueueError>, _>| {
            let result = answer.unwrap_or(Err(QueueError::OutcomeUnknown));
            // Stopped: it is rebuilt, and looks at the state.
            let _ = done.try_put(ItemDone { ticket, number, result });
        });
        let error = match self.parts.shard.try_put(Propose::new(command, Waiter::Timer { reply })) {
            Ok(()) => return,
            Err(refused) if refused.is_full() => {
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                (refused.into_message(), error)
            }
            Err(stopped) => (stopped.into_message(), QueueError::Stopping),
        };
        error.0.waiter.fail(error.1);
    }
}

/// Where a timer's message lies, as the log is asked for it.
fn run_of(timer: &Timer) -> Run {
    Run {
        queue: timer.queue,
        base: Offset(0),
        count: timer.count,
        at: timer.at,
        length: timer.length,
        term: Term(0),
        stored: TimestampMs(0),
        born_max: TimestampMs(0),
        tag_bloom: 0,
    }
}

impl<D: Disk> Resident for DelayWheel<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.own = Some(OwnInboxes { done: room.inbox(ITEMS_MAX), read: room.inbox(ITEMS_MAX) });
        room.tick_every(Duration::from_millis(TICK_MS));
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<Tick> for DelayWheel<D> {
    fn receive(&mut self, msg: Tick, _credit: Credit, room: &mut Room<'_, Self>) {
        // Forward: what is due now is released as ever. RegistryLink says so, once for all shards.
        if let Some(Jump::Back(_)) = self.clock_watch.look(msg.now.0, msg.monotonic_ms) {
            self.near = None;
            self.alarm_at_ms = None;
        }
        self.turn(msg, room);
        self.measure(msg.now);
    }
}

impl<D: Disk> Receive<TimersStored> for DelayWheel<D> {
    fn receive(&mut self, _: TimersStored, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // what is stored from here on needs another message
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<Alarm> for DelayWheel<D> {
    fn receive(&mut self, msg: Alarm, _credit: Credit, room: &mut Room<'_, Self>) {
        if self.alarm_at_ms == Some(msg.at_ms) {
            self.alarm_at_ms = None;
        }
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<Drained> for DelayWheel<D> {
    fn receive(&mut self, _: Drained, _credit: Credit, room: &mut Room<'_, Self>) {
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<BodiesRead> for DelayWheel<D> {
    fn receive(&mut self, msg: BodiesRead, _credit: Credit, room: &mut Room<'_, Self>) {
        if self.parts.reader.is_stopped() {
            return; // so does the shard
        }
        self.bodies_read(&msg);
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<ItemDone> for DelayWheel<D> {
    fn receive(&mut self, msg: ItemDone, _credit: Credit, room: &mut Room<'_, Self>) {
        let tick = Tick::of(&room.clock());
        let is_over = match self.works.get_mut(&msg.ticket) {
            Some(Work::Round(round)) => round.item_done(&msg),
            Some(Work::Roll(roll)) => roll.item_done(&msg),
            Some(Work::Recall(recall)) => recall.item_done(&msg),
            Some(Work::Page(_)) | None => false,
        };
        if is_over {
            self.finish(msg.ticket, tick);
            self.turn(tick, room);
        }
    }
}

impl<D: Disk> Receive<ClearBelow> for DelayWheel<D> {
    fn receive(&mut self, msg: ClearBelow, _credit: Credit, room: &mut Room<'_, Self>) {
        self.clear_below(msg);
        self.turn(Tick::of(&room.clock()), room);
    }
}

impl<D: Disk> Receive<DelayAsk> for DelayWheel<D> {
    fn receive(&mut self, msg: DelayAsk, credit: Credit, room: &mut Room<'_, Self>) {
        let now = room.clock().now();
        if self.ask(msg, credit, now) {
            room.notify_drained();
        }
    }
}
