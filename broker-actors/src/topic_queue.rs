//! TopicQueue: one queue, as producers and readers meet it.
//!
//! ```text
//! Connection --Produce--> [TopicQueue] --Propose (reply port inside)--> Shard --Receipt--> Connection
//! Connection --Fetch----> [TopicQueue] <--Applied-- state machine
//!                             '--ReadCold--> Reader --Warmed--> back, for what is not in memory
//! ```
//!
//! * Owns: the fetches parked on the queue. All else it reads from the shard's state and index,
//!   so a rebuilt one knows everything that was applied.
//! * Lives on: its shard's core arbiter.
//! * Inbox: [`Produce`] in bytes, [`Fetch`], `Warmed` and [`QueueAsk`] in messages, `Applied`
//!   and `Expire` of one each.
//! * Talks to: Shard, Reader.
//! * Stops: with its shard, or when its topic is dropped; parked fetches are answered.
//! * If it panics: it is rebuilt in place. Batches that were handed on get their receipts, as the
//!   reply port travels with them; the message that did it and parked fetches lose their port,
//!   which the connection answers with a code that clients retry.

pub mod fetch_plan;
pub mod messages;
pub mod parking;
pub mod reading;
pub mod search;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use grus_log::{Disk, FaultIn};
use grus_mailbox::{Credit, Inbox, PutError, Receive, Resident, Room, Weigh};
use grus_protocol::ids::QueueKey;
use grus_protocol::names::TopicName;

pub use messages::{
    ASKS_MAX, At, FETCH_BYTES_MAX, FETCH_WAIT_MS_MAX, FETCHES_MAX, Fetch, Fetched, FetchedBatch,
    ListedOffset, OVERLOADED_RETRY_MS, PRODUCE_BYTES_MAX, Produce, QueueAsk, QueueHandle,
    QueueStatus, Receipt,
};

use crate::commands::Command;
use crate::error::QueueError;
use crate::reader::ReadCold;
use crate::shard::ground::Ground;
use crate::shard::{Propose, Waiter};
use fetch_plan::{Bounds, FetchPlan};
use parking::Parking;
use reading::{Batches, QueueReading};

/// The queue has changed: more batches, a new start, or its topic is gone. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Applied;

impl Weigh for Applied {}

/// Parked fetches whose time is over leave. At most one waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expire {
    pub(crate) monotonic_ms: u64,
}

impl Weigh for Expire {}

/// A fetch and what it holds.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) fetch: Fetch,
    /// Of the queue's inbox of fetches.
    credit: Credit,
}

/// What a fetch wants was brought into memory.
#[derive(Debug)]
pub(crate) struct Warmed {
    pub(crate) asked: Asked,
    /// How many batches could be read.
    pub(crate) batches_max: usize,
}

impl Weigh for Warmed {}

/// What a TopicQueue is built from, at first and after a panic.
pub(crate) struct TopicQueueParts<D: Disk> {
    pub(crate) key: QueueKey,
    pub(crate) topic: TopicName,
    pub(crate) ground: Rc<Ground<D>>,
    pub(crate) shard: Inbox<Propose>,
    pub(crate) reader: Inbox<ReadCold>,
    /// Holds this queue while fetches are parked: the shard then sends [`Expire`].
    pub(crate) waiting: Waiting,
}

/// The queues of a shard on which fetches are parked.
pub(crate) type Waiting = Rc<RefCell<BTreeSet<QueueKey>>>;

/// See the module documentation.
pub(crate) struct TopicQueue<D: Disk> {
    parts: Rc<TopicQueueParts<D>>,
    parking: Parking<Asked>,
    /// Where the Reader sends fetches back.
    warmed: Option<Inbox<Warmed>>,
}

impl<D: Disk> TopicQueue<D> {
    pub(crate) fn new(parts: Rc<TopicQueueParts<D>>) -> Self {
        parts.waiting.borrow_mut().remove(&parts.key);
        Self { parts, parking: Parking::new(FETCHES_MAX as usize), warmed: None }
    }

    /// Notes whether fetches are parked.
    fn note_parked(&self) {
        let mut waiting = self.parts.waiting.borrow_mut();
        if self.parking.is_empty() {
            waiting.remove(&self.parts.key);
        } else {
            waiting.insert(self.parts.key);
        }
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
        match found {
            Err(error) => asked.fetch.reply.send(Err(error)),
            Ok(Look::Found(fetched)) => asked.fetch.reply.send(Ok(fetched)),
            Ok(Look::Cold(fault_in)) => self.read_cold(asked, fault_in),
            Ok(Look::AtEnd(bounds)) if deadline_ms <= now_ms => {
                asked.fetch.reply.send(Ok(fetched(bounds, Vec::new())));
            }
            Ok(Look::AtEnd(_)) => {
                if let Err(asked) = self.parking.park(deadline_ms, asked) {
                    let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                    asked.fetch.reply.send(Err(error));
                }
            }
        }
    }

    /// Has the Reader bring the batches into memory, and the fetch come back.
    fn read_cold(&self, asked: Asked, fault_in: FaultIn) {
        let Some(queue) = self.warmed.clone() else { return };
        match self.parts.reader.try_put(ReadCold { fault_in, asked, queue }) {
            Ok(()) => {}
            Err(PutError::Full(read)) => {
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                read.asked.fetch.reply.send(Err(error));
            }
            Err(PutError::Stopped(read)) => read.asked.fetch.reply.send(Err(QueueError::Stopping)),
        }
    }

    /// Answers a fetch whose batches were brought in.
    fn serve_warmed(&self, fetch: &Fetch, batches_max: usize) -> Result<Fetched, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let Bounds { log_start, end_offset } = reading.bounds();
        if fetch.offset < log_start {
            return Err(QueueError::OffsetOutOfRange { log_start, end_offset });
        }
        let bytes_max = fetch.bytes_max.min(FETCH_BYTES_MAX);
        let batches = reading.warmed_batches(fetch.offset, bytes_max, batches_max)?;
        Ok(fetched(reading.bounds(), batches))
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
        let Bounds { log_start, end_offset } = reading.bounds();
        let offset = match at {
            At::First => log_start,
            At::Last => end_offset,
            At::Time(time) => reading.first_stored_at(time),
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

fn look<D: Disk>(reading: &QueueReading<'_, D>, fetch: &Fetch) -> Result<Look, QueueError> {
    let bounds = reading.bounds();
    let Bounds { log_start, end_offset } = bounds;
    let term_before = || reading.term_before(fetch.offset);
    match fetch_plan::plan(bounds, fetch.offset, fetch.last_term, term_before) {
        FetchPlan::AtEnd => Ok(Look::AtEnd(bounds)),
        FetchPlan::OutOfRange => Err(QueueError::OffsetOutOfRange { log_start, end_offset }),
        FetchPlan::Diverged => {
            let (term, end_offset) = reading.end_of_term(fetch.last_term);
            Err(QueueError::Diverged { term, end_offset, log_start })
        }
        FetchPlan::Read => {
            let bytes_max = fetch.bytes_max.min(FETCH_BYTES_MAX);
            Ok(match reading.batches(fetch.offset, bytes_max)? {
                Batches::Warm(batches) => Look::Found(fetched(bounds, batches)),
                Batches::Cold(fault_in) => Look::Cold(fault_in),
            })
        }
    }
}

const fn fetched(bounds: Bounds, batches: Vec<FetchedBatch>) -> Fetched {
    let Bounds { log_start, end_offset } = bounds;
    Fetched { log_start, end_offset, batches }
}

impl<D: Disk> Resident for TopicQueue<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.warmed = Some(room.inbox(FETCHES_MAX));
    }

    fn stopping(&mut self, _room: &mut Room<'_, Self>) {
        let gone = self.reading().is_none();
        self.parts.waiting.borrow_mut().remove(&self.parts.key);
        for (_, asked) in self.parking.take_all() {
            let error = if gone { QueueError::UnknownQueue } else { QueueError::Stopping };
            asked.fetch.reply.send(Err(error));
        }
    }
}

impl<D: Disk> Receive<Produce> for TopicQueue<D> {
    fn receive(&mut self, msg: Produce, credit: Credit, _room: &mut Room<'_, Self>) {
        let Produce { batch, reply } = msg;
        if self.reading().is_none() {
            return reply.send(Err(QueueError::UnknownQueue));
        }
        let queue = self.parts.key;
        let command = Command::Append { queue, batch: batch.into_bytes() };
        let waiter = Waiter::Produce { reply, credit };
        match self.parts.shard.try_put(Propose::new(&command, waiter)) {
            Ok(()) => {}
            Err(PutError::Full(propose)) => {
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                propose.waiter.fail(error);
            }
            Err(PutError::Stopped(propose)) => {
                propose.waiter.fail(QueueError::Stopping);
            }
        }
    }
}

impl<D: Disk> Receive<Fetch> for TopicQueue<D> {
    fn receive(&mut self, msg: Fetch, credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        let wait_ms = msg.wait_ms.min(FETCH_WAIT_MS_MAX);
        self.serve(Asked { fetch: msg, credit }, now_ms + u64::from(wait_ms), now_ms);
        self.note_parked();
    }
}

impl<D: Disk> Receive<Warmed> for TopicQueue<D> {
    fn receive(&mut self, msg: Warmed, _credit: Credit, _room: &mut Room<'_, Self>) {
        let Asked { fetch, credit } = msg.asked;
        let result = self.serve_warmed(&fetch, msg.batches_max);
        fetch.reply.send(result);
        drop(credit);
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
        if self.parking.is_empty() {
            return;
        }
        let now_ms = room.clock().monotonic_ms();
        for (deadline_ms, asked) in self.parking.take_all() {
            if !asked.fetch.reply.is_closed() {
                self.serve(asked, deadline_ms, now_ms);
            }
        }
        self.note_parked();
    }
}

impl<D: Disk> Receive<Expire> for TopicQueue<D> {
    fn receive(&mut self, msg: Expire, _credit: Credit, _room: &mut Room<'_, Self>) {
        for asked in self.parking.take_expired(msg.monotonic_ms) {
            self.serve(asked, msg.monotonic_ms, msg.monotonic_ms);
        }
        self.note_parked();
    }
}
