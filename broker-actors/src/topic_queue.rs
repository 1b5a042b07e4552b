//! TopicQueue: one queue, as producers and readers meet it.
//!
//! ```text
//! Connection --Produce--> [TopicQueue] --Propose (reply port inside)--> Shard --Receipt--> Connection
//! Connection --Fetch----> [TopicQueue] <--Applied-- state machine
//! Connection --Subscribe->     |  '--deliver--> the connection's writer
//!                              '--ReadCold--> Reader --Warmed--> back, for what is not in memory
//! ```
//!
//! * Owns: the fetches parked on the queue, its subscriptions ([`subscription`]), those of members
//!   of groups among them. All else it reads from the shard's state and index, or, where its topic
//!   is temporary, from the shard's rings, so a rebuilt one knows everything that was applied or kept.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`Produce`] and [`GroupAsk`] in bytes, [`Fetch`], [`SubscriptionAsk`], `Granted`,
//!   `Warmed`, `Proposed` and [`QueueAsk`] in messages, `Applied` and `Expire` of one each.
//! * Talks to: Shard, Reader; the writers of connections, by [`subscriber`].
//! * Stops: with its shard, or when its topic is dropped; parked fetches are answered and
//!   subscribers told.
//! * If it panics: it is rebuilt in place. Batches that were handed on get their receipts, as the
//!   reply port travels with them; the message that did it and parked fetches lose their port,
//!   which the connection answers with a code that clients retry; subscribers are told to come
//!   again.

mod cold;
mod counting;
pub mod fetch_plan;
pub mod group_messages;
mod group_subscription;
mod group_subscriptions;
mod group_turns;
mod groups;
pub mod letters;
pub mod messages;
pub mod parking;
mod producing;
pub(crate) mod pushing;
pub mod reading;
mod repeats;
pub mod search;
mod settling;
pub mod sifting;
pub mod subscriber;
pub mod subscription;
mod waiting;

use std::cell::RefCell;
use std::rc::Rc;

use grus_log::{Disk, FaultIn};
use grus_mailbox::{Credit, Inbox, PutError, Receive, Resident, Room, Weigh};
use grus_protocol::ids::{Offset, QueueKey, Term, TimestampMs};
use grus_protocol::names::TopicName;

pub(crate) use cold::{Asked, Cold, Warmed};
pub use group_messages::{
    Answered, AnswersTaken, ClaimTaken, Failed, GROUP_BYTES_MAX, GivenUp, GroupAsk, ProgressStatus,
    ResetTo,
};
pub use messages::{
    ASKS_MAX, At, FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, FETCHES_MAX, Fetch, Fetched, FetchedBatch,
    ListedOffset, OVERLOADED_RETRY_MS, PARKED_MAX, PRODUCE_BYTES_MAX, Produce, QueueAsk,
    QueueHandle, QueueStatus, Receipt, SUBSCRIPTION_ASKS_MAX, SubscriptionAsk,
};
pub use subscriber::{PushTurn, Subscriber};
pub use subscription::{Account, SUBSCRIPTIONS_MAX, SubscriptionKey};
pub(crate) use waiting::Waiting;

use crate::delay_wheel::wheel::Wheel;
use crate::error::QueueError;
use crate::metrics::expired::ExpiredMetrics;
use crate::metrics::retained::RetainedMetrics;
use crate::reader::{ColdWork, ReadCold};
use crate::shard::Propose;
use crate::shard::ground::Ground;
use fetch_plan::{Bounds, FetchPlan};
use group_subscription::GroupSubscription;
use group_subscriptions::GroupSubscriptions;
use groups::Proposed;
use parking::Parking;
use pushing::Granted;
use reading::{Batches, QueueReading, ReadLimits};
use repeats::Repeats;
use subscription::{Standing, Subscriptions};

/// The queue has changed: more batches, a new start, or its topic is gone. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied;

impl Weigh for Applied {}

/// Parked fetches whose time is over leave, and what was put off is tried again. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expire {
    pub(crate) monotonic_ms: u64,
}

impl Weigh for Expire {}

/// What a TopicQueue is built from, at first and after a panic.
pub(crate) struct TopicQueueParts<D: Disk> {
    pub(crate) key: QueueKey,
    /// Which of the actors of that queue it is: where a shard is led again, an earlier one may live
    /// still.
    pub(crate) reign: u64,
    pub(crate) topic: TopicName,
    pub(crate) ground: Rc<Ground<D>>,
    pub(crate) shard: Inbox<Propose>,
    pub(crate) reader: Inbox<ReadCold>,
    /// Holds this queue while somebody waits for time to pass: the shard then sends [`Expire`].
    pub(crate) waiting: Waiting,
    /// Holds this queue at the times when a retry is due: the shard then sends [`Expire`], too.
    pub(crate) alarms: Alarms,
    /// What is counted about groups.
    pub(crate) metrics: ExpiredMetrics,
    /// What is counted about full queues.
    pub(crate) retained: RetainedMetrics,
}

/// The queues of a shard by when a retry is due in them.
pub(crate) type Alarms = Rc<RefCell<Wheel<QueueKey>>>;

/// See the module documentation.
pub(crate) struct TopicQueue<D: Disk> {
    parts: Rc<TopicQueueParts<D>>,
    parking: Parking<Asked>,
    subscriptions: Subscriptions<Box<dyn Subscriber>>,
    /// Batches that are on their way.
    repeats: Repeats,
    /// Those of them that are of members of groups.
    groups: GroupSubscriptions,
    /// When this queue is woken for a retry.
    wakes_at: Option<TimestampMs>,
    own: Option<OwnInboxes>,
}

/// The inboxes by which others answer.
struct OwnInboxes {
    /// Where the Reader sends back what was cold.
    warmed: Inbox<Warmed>,
    /// Where connections give turns.
    granted: Inbox<Granted>,
    /// Where the shard says what became of proposals for groups.
    proposed: Inbox<Proposed>,
    /// Where it tells itself that its ring has more.
    applied: Inbox<Applied>,
}

/// More than turns can be on their way: those of all subscriptions, and of some that have ended.
const GRANTED_MAX: u32 = 1 << 20;
/// More than proposals for groups can be under way: each takes some bytes of the shard's inbox.
const GROUP_PROPOSED_MAX: u32 = 1 << 20;

impl<D: Disk> TopicQueue<D> {
    pub(crate) fn new(parts: Rc<TopicQueueParts<D>>) -> Self {
        parts.waiting.note(parts.key, parts.reign, false);
        let parking = Parking::new(PARKED_MAX as usize);
        let subscriptions = Subscriptions::new(SUBSCRIPTIONS_MAX);
        let (groups, wakes_at) = (GroupSubscriptions::default(), None);
        let repeats = Repeats::default();
        Self { parts, parking, subscriptions, repeats, groups, wakes_at, own: None }
    }

    /// Notes whether somebody waits for time to pass.
    fn note_waiting(&self) {
        let has_noted = self.groups.values().any(GroupSubscription::has_noted);
        let rests = self.parking.is_empty() && !self.subscriptions.has_put_off() && !has_noted;
        self.parts.waiting.note(self.parts.key, self.parts.reign, !rests);
    }

    fn reading(&self) -> Option<QueueReading<'_, D>> {
        QueueReading::new(&self.parts.ground, self.parts.key)
    }

    /// Answers a fetch, or parks it until `deadline_ms` if it has time left at `now_ms`.
    fn serve(&mut self, asked: Asked, deadline_ms: u64, now_ms: u64) {
        let found = match self.reading() {
            None => Err(QueueError::UnknownQueue),
            Some(reading) => look(&reading, &asked.fetch),
        };
        // What is there may be read of anyone; where the queue ends, only the leader knows.
        let is_certain = matches!(found, Ok(Look::Found(_) | Look::Cold(_)));
        match found {
            _ if !is_certain && !self.parts.ground.holds_lease() => {
                asked.fetch.reply.send(Err(self.parts.ground.not_leader()));
            }
            Err(error) => asked.fetch.reply.send(Err(error)),
            Ok(Look::Found(fetched)) => asked.fetch.reply.send(Ok(fetched)),
            Ok(Look::Cold(fault_in)) => self.read_cold(asked, fault_in),
            Ok(Look::AtEnd(bounds)) if deadline_ms <= now_ms => {
                asked.fetch.reply.send(Ok(fetched(bounds, Vec::new())));
            }
            Ok(Look::AtEnd(bounds)) => match self.parking.park(now_ms, deadline_ms, asked) {
                Ok(None) => {}
                Ok(Some(longest)) => {
                    longest.fetch.reply.send(Ok(fetched(bounds, Vec::new())));
                }
                Err(asked) => {
                    let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                    asked.fetch.reply.send(Err(error));
                }
            },
        }
    }

    /// Has the Reader bring the batches into memory, and the fetch come back.
    fn read_cold(&self, asked: Asked, fault_in: FaultIn) {
        let Some(queue) = self.own.as_ref().map(|own| own.warmed.clone()) else { return };
        let work = ColdWork::new(Cold::Fetch(asked), queue);
        match self.parts.reader.try_put(ReadCold { fault_in, work }) {
            Ok(()) => {}
            Err(PutError::Full(ReadCold { work, .. })) => {
                if let Some(Cold::Fetch(asked)) = work.refused() {
                    asked.overloaded();
                }
            }
            Err(PutError::Stopped(ReadCold { work, .. })) => {
                work.refused().into_iter().for_each(Cold::stopped);
            }
        }
    }

    /// Answers a fetch whose batches were brought in.
    fn serve_warmed(&self, fetch: &Fetch, batches_max: usize) -> Result<Fetched, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let Bounds { log_start, end_offset } = reading.bounds();
        if fetch.offset < log_start {
            return Err(QueueError::OffsetOutOfRange { log_start, end_offset });
        }
        let batches = reading.warmed_batches(fetch.offset, limits(fetch), batches_max)?;
        Ok(fetched(reading.bounds(), batches))
    }

    /// Whether a reader may go on there; the queue's bounds.
    fn check(&self, Standing { next, last_term }: Standing) -> Result<Bounds, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        match plan(&reading, next, last_term) {
            Err(_) if !self.parts.ground.holds_lease() => Err(self.parts.ground.not_leader()),
            planned => planned.map(|(bounds, _)| bounds),
        }
    }

    fn status(&self) -> Result<QueueStatus, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let numbers = reading.numbers();
        Ok(QueueStatus {
            key: self.parts.key,
            topic: self.parts.topic.clone(),
            log_start: numbers.visible_start,
            end_offset: numbers.next_offset,
            durable_end: reading.durable_end(),
            messages: numbers.messages(),
            bytes: numbers.bytes,
            last_modified: numbers.last_modified,
        })
    }

    fn list_offset(&self, at: At) -> Result<ListedOffset, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        if !self.parts.ground.holds_lease() {
            return Err(self.parts.ground.not_leader());
        }
        let Bounds { log_start, end_offset } = reading.bounds();
        let offset = match at {
            At::First => log_start,
            At::Last => end_offset,
            At::Time(time) => reading.first_stored_at(time),
            At::New(came) => {
                let later = reading.first_stored_at(TimestampMs(came.0.saturating_add(1)));
                if later == reading.first_of_all() { later } else { end_offset }
            }
        };
        Ok(ListedOffset { offset, log_start, end_offset })
    }
}

/// What there is for a fetch.
enum Look {
    Found(Fetched),
    Cold(FaultIn),
    AtEnd(Bounds),
}

/// Whether the offset lies behind an end that may not be the end: neither out of range nor diverged.
fn offset_is_unknown<D: Disk>(reading: &QueueReading<'_, D>, offset: Offset) -> bool {
    reading.is_cut_short() && offset > reading.bounds().end_offset
}

fn look<D: Disk>(reading: &QueueReading<'_, D>, fetch: &Fetch) -> Result<Look, QueueError> {
    let (bounds, is_at_end) = plan(reading, fetch.offset, fetch.last_term)?;
    if is_at_end {
        return Ok(Look::AtEnd(bounds));
    }
    Ok(match reading.batches(fetch.offset, limits(fetch))? {
        Batches::Warm(batches) => Look::Found(fetched(bounds, batches)),
        Batches::Cold(fault_in) => Look::Cold(fault_in),
    })
}

/// The queue's bounds, and whether `offset` is its end; or why it cannot be read there.
fn plan<D: Disk>(
    reading: &QueueReading<'_, D>,
    offset: Offset,
    last_term: Term,
) -> Result<(Bounds, bool), QueueError> {
    let bounds = reading.bounds();
    let Bounds { log_start, end_offset } = bounds;
    if offset_is_unknown(reading, offset) {
        return Err(QueueError::Unavailable);
    }
    match fetch_plan::plan(bounds, offset, last_term, || reading.term_before(offset)) {
        FetchPlan::AtEnd => Ok((bounds, true)),
        FetchPlan::Read => Ok((bounds, false)),
        FetchPlan::OutOfRange => Err(QueueError::OffsetOutOfRange { log_start, end_offset }),
        FetchPlan::Diverged => {
            let (term, end_offset) = reading.end_of_term(last_term);
            Err(QueueError::Diverged { term, end_offset, log_start })
        }
    }
}

fn limits(fetch: &Fetch) -> ReadLimits {
    ReadLimits { bytes_max: fetch.bytes_max.min(FETCH_BYTES_MAX), messages_max: u64::MAX }
}

const fn fetched(bounds: Bounds, batches: Vec<FetchedBatch>) -> Fetched {
    let Bounds { log_start, end_offset } = bounds;
    Fetched { log_start, end_offset, batches }
}

impl<D: Disk> Resident for TopicQueue<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.own = Some(OwnInboxes {
            warmed: room.inbox(FETCHES_MAX + GRANTED_MAX + GROUP_PROPOSED_MAX),
            granted: room.inbox(GRANTED_MAX),
            proposed: room.inbox(GROUP_PROPOSED_MAX),
            applied: room.inbox(1),
        });
    }

    fn stopping(&mut self, _room: &mut Room<'_, Self>) {
        let gone = self.reading().is_none();
        let ground = &self.parts.ground;
        let error = match (gone, ground.leads.get()) {
            (true, _) => QueueError::UnknownQueue,
            (false, true) => QueueError::Stopping,
            (false, false) => QueueError::NotLeader { leader: ground.leader.get() },
        };
        self.parts.waiting.note(self.parts.key, self.parts.reign, false);
        for (_, asked) in self.parking.take_all() {
            asked.fetch.reply.send(Err(error.clone()));
        }
        self.end_all(&error);
    }
}

impl<D: Disk> Receive<SubscriptionAsk> for TopicQueue<D> {
    fn receive(&mut self, msg: SubscriptionAsk, _credit: Credit, _room: &mut Room<'_, Self>) {
        self.subscription(msg);
    }
}

impl<D: Disk> Receive<Granted> for TopicQueue<D> {
    fn receive(&mut self, msg: Granted, _credit: Credit, room: &mut Room<'_, Self>) {
        self.granted(msg, room.clock().now());
    }
}

impl<D: Disk> Receive<GroupAsk> for TopicQueue<D> {
    fn receive(&mut self, msg: GroupAsk, credit: Credit, room: &mut Room<'_, Self>) {
        self.group_ask(msg, credit, room.clock().now());
    }
}

impl<D: Disk> Receive<Proposed> for TopicQueue<D> {
    fn receive(&mut self, msg: Proposed, _credit: Credit, room: &mut Room<'_, Self>) {
        self.proposed(msg, room.clock().now());
    }
}

impl<D: Disk> Receive<Produce> for TopicQueue<D> {
    fn receive(&mut self, msg: Produce, credit: Credit, room: &mut Room<'_, Self>) {
        self.produce(msg, credit, room.clock().now());
    }
}

impl<D: Disk> Receive<Fetch> for TopicQueue<D> {
    fn receive(&mut self, msg: Fetch, credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        let wait_ms = msg.wait_ms.min(FETCH_WAIT_MS_MAX);
        self.serve(Asked { fetch: msg, credit }, now_ms + u64::from(wait_ms), now_ms);
        self.note_waiting();
    }
}

impl<D: Disk> Receive<Warmed> for TopicQueue<D> {
    fn receive(&mut self, msg: Warmed, _credit: Credit, room: &mut Room<'_, Self>) {
        let now = room.clock().now();
        match msg.cold {
            Cold::Turn(turn) => match msg.batches_max {
                Some(batches_max) => self.warmed_turn(turn, batches_max, now),
                None => self.turn_not_read(&turn),
            },
            Cold::Letter(answers) => {
                self.warmed_letter(answers, msg.batches_max.unwrap_or(0), now);
            }
            Cold::Fetch(asked) => match msg.batches_max {
                Some(batches_max) => {
                    let Asked { fetch, credit } = asked;
                    let result = self.serve_warmed(&fetch, batches_max);
                    fetch.reply.send(result);
                    drop(credit);
                }
                None => asked.overloaded(),
            },
        }
    }
}

impl<D: Disk> Receive<QueueAsk> for TopicQueue<D> {
    fn receive(&mut self, msg: QueueAsk, _credit: Credit, _room: &mut Room<'_, Self>) {
        match msg {
            QueueAsk::ListOffset { at, reply } => reply.send(self.list_offset(at)),
            QueueAsk::Status { reply } => reply.send(self.status()),
            QueueAsk::Panic => panic!("a test asked for this panic"),
        }
    }
}

impl<D: Disk> Receive<Applied> for TopicQueue<D> {
    fn receive(&mut self, _: Applied, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // what is applied from here on needs another message
        self.look_after_groups(room.clock().now());
        self.ask_turns();
        if self.parking.is_empty() {
            return;
        }
        let now_ms = room.clock().monotonic_ms();
        for (deadline_ms, asked) in self.parking.take_all() {
            if !asked.fetch.reply.is_closed() {
                self.serve(asked, deadline_ms, now_ms);
            }
        }
        self.note_waiting();
    }
}

impl<D: Disk> Receive<Expire> for TopicQueue<D> {
    fn receive(&mut self, msg: Expire, _credit: Credit, room: &mut Room<'_, Self>) {
        self.parking.retain(|asked| !asked.fetch.reply.is_closed()); // its peer has gone
        for asked in self.parking.take_expired(msg.monotonic_ms) {
            self.serve(asked, msg.monotonic_ms, msg.monotonic_ms);
        }
        self.tick_groups(room.clock().now());
        if self.subscriptions.has_put_off() {
            self.subscriptions.resume();
            self.ask_turns();
        }
        self.note_waiting();
    }
}
