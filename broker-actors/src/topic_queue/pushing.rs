//! The push half of a queue: turns into frames for subscribers.
//!
//! ```text
//! Connection --Subscribe, Credit, Seek--> [TopicQueue] --ask_turn--> its writer
//!                                              |   <----Granted---------'
//!                                              '---deliver------------> its writer
//! ```

use grus_log::Disk;
use grus_mailbox::{Port, PutError, Weigh};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{Offset, Term, TimestampMs};
use grus_protocol::message::SubscribeAt;

use super::reading::{Batches, ReadLimits};
use super::subscriber::{PushTurn, Subscriber};
use super::subscription::{Account, SUBSCRIPTIONS_MAX, Spent, Standing, SubscriptionKey, Turn};
use super::{
    At, Bounds, Cold, Fetched, ListedOffset, OVERLOADED_RETRY_MS, SubscriptionAsk, TopicQueue,
};
use crate::error::QueueError;
use crate::reader::{ColdWork, ReadCold};

/// A connection has given a subscription a turn, or has none for it.
#[derive(Debug)]
pub(crate) struct Granted {
    key: SubscriptionKey,
    turn: Option<PushTurn>,
}

impl Weigh for Granted {}

/// A turn whose batches are being brought into memory.
#[derive(Debug)]
pub(crate) struct ColdTurn {
    key: SubscriptionKey,
    turn: Turn,
    pass: PushTurn,
    /// Where they begin.
    at: Offset,
}

/// What a turn finds.
enum Found {
    Batches(Fetched),
    Cold(grus_log::FaultIn),
    Nothing,
}

impl<D: Disk> TopicQueue<D> {
    pub(super) fn subscription(&mut self, ask: SubscriptionAsk) {
        match ask {
            SubscriptionAsk::Subscribe { key, at, account, subscriber, reply } => {
                self.subscribe(key, at, account, subscriber, reply);
            }
            SubscriptionAsk::Credit { key, more, reply } => {
                let known = self.subscriptions.credit(key, more);
                reply.send(if known { Ok(()) } else { Err(QueueError::UnknownSubscription) });
                self.ask_turn_if_wanted(key);
            }
            SubscriptionAsk::Seek { key, at, account, reply } => {
                self.seek(key, at, account, reply);
            }
            SubscriptionAsk::Unsubscribe { key, reply } => {
                self.forget_member(key);
                let closed = self.subscriptions.close(key);
                let known = closed.is_some();
                if let Some(subscriber) = closed {
                    subscriber.dismiss();
                }
                reply.send(if known { Ok(()) } else { Err(QueueError::UnknownSubscription) });
            }
        }
    }

    fn subscribe(
        &mut self,
        key: SubscriptionKey,
        at: SubscribeAt,
        account: Account,
        subscriber: Box<dyn Subscriber>,
        reply: Port<Result<ListedOffset, QueueError>>,
    ) {
        let (standing, listed) = match self.place(at) {
            Ok(found) => found,
            Err(error) => {
                subscriber.dismiss();
                return reply.send(Err(error));
            }
        };
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            self.subscriptions.close_if(|subscriber| subscriber.is_gone());
        }
        match self.subscriptions.open(key, standing, account, subscriber) {
            Ok(()) => {
                reply.send(Ok(listed)); // first: what is delivered follows it
                self.ask_turn_if_wanted(key);
            }
            Err(subscriber) => {
                subscriber.dismiss();
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                reply.send(Err(error));
            }
        }
    }

    fn seek(
        &mut self,
        key: SubscriptionKey,
        at: SubscribeAt,
        account: Account,
        reply: Port<Result<ListedOffset, QueueError>>,
    ) {
        // A member's goes on where its group has come to.
        if self.subscriptions.sink(key).is_none() || self.groups.contains_key(&key) {
            return reply.send(Err(QueueError::UnknownSubscription));
        }
        match self.place(at) {
            Ok((standing, listed)) => {
                self.subscriptions.seek(key, standing, account);
                reply.send(Ok(listed));
                self.ask_turn_if_wanted(key);
            }
            Err(error) => reply.send(Err(error)),
        }
    }

    /// Where a subscription begins, if it may begin there.
    fn place(&self, at: SubscribeAt) -> Result<(Standing, ListedOffset), QueueError> {
        let at = match at {
            SubscribeAt::Offset(next, last_term) => {
                let standing = Standing { next, last_term };
                let bounds = self.check(standing)?;
                let Bounds { log_start, end_offset } = bounds;
                return Ok((standing, ListedOffset { offset: next, log_start, end_offset }));
            }
            SubscribeAt::First => At::First,
            SubscribeAt::Last => At::Last,
            SubscribeAt::Time(time) => At::Time(time),
        };
        let listed = self.list_offset(at)?;
        Ok((Standing { next: listed.offset, last_term: Term::UNKNOWN }, listed))
    }

    /// Asks for the turns of all who have something to be sent.
    pub(super) fn ask_turns(&mut self) {
        if self.subscriptions.is_empty() {
            return;
        }
        let Some(end) = self.end_offset() else { return };
        for key in self.subscriptions.ask_all(end) {
            self.ask_turn(key);
        }
    }

    pub(super) fn ask_turn_if_wanted(&mut self, key: SubscriptionKey) {
        if let Some(end) = self.end_offset()
            && self.subscriptions.ask(key, end)
        {
            self.ask_turn(key);
        }
    }

    fn end_offset(&self) -> Option<Offset> {
        self.reading().map(|reading| reading.bounds().end_offset)
    }

    fn ask_turn(&self, key: SubscriptionKey) {
        let (Some(own), Some(subscriber)) = (&self.own, self.subscriptions.sink(key)) else {
            return;
        };
        let granted = own.granted.clone();
        subscriber.ask_turn(Port::call(move |turn: Result<PushTurn, _>| {
            let _ = granted.try_put(Granted { key, turn: turn.ok() }); // stopped: so is the queue
        }));
    }

    /// A turn was given, or refused for now.
    pub(super) fn granted(&mut self, granted: Granted, now: TimestampMs) {
        let Granted { key, turn: pass } = granted;
        let Some(turn) = self.subscriptions.turn(key) else {
            return self.ask_turn_if_wanted(key); // its credit was sought away, and given again
        };
        let Some(pass) = pass else {
            if self.subscriptions.sink(key).is_some_and(|subscriber| subscriber.is_gone()) {
                return self.dismiss(key);
            }
            self.subscriptions.put_off(key);
            return self.note_waiting();
        };
        if self.groups.contains_key(&key) {
            return self.group_turn(key, turn, pass, None, now);
        }
        match self.look_for(&turn) {
            Ok(Found::Batches(fetched)) => self.deliver(key, fetched, pass),
            Ok(Found::Cold(fault_in)) => {
                let at = turn.standing.next;
                self.read_cold_turn(key, turn, pass, fault_in, at);
            }
            Ok(Found::Nothing) => self.subscriptions.nothing_sent(key),
            Err(error) => self.end(key, &error),
        }
    }

    fn look_for(&self, turn: &Turn) -> Result<Found, QueueError> {
        let bounds = self.check(turn.standing)?;
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let next = turn.standing.next;
        if next >= bounds.end_offset {
            return Ok(Found::Nothing);
        }
        Ok(match reading.batches(next, limits(turn))? {
            Batches::Warm(batches) => Found::Batches(super::fetched(bounds, batches)),
            Batches::Cold(fault_in) => Found::Cold(fault_in),
        })
    }

    pub(super) fn read_cold_turn(
        &mut self,
        key: SubscriptionKey,
        turn: Turn,
        pass: PushTurn,
        fault_in: grus_log::FaultIn,
        at: Offset,
    ) {
        let Some(own) = &self.own else { return };
        let cold = Cold::Turn(ColdTurn { key, turn, pass, at });
        let work = ColdWork::new(cold, own.warmed.clone());
        match self.parts.reader.try_put(ReadCold { fault_in, work }) {
            Ok(()) => {}
            Err(PutError::Full(ReadCold { work, .. })) => {
                drop(work.refused());
                self.subscriptions.put_off(key);
                self.note_waiting();
            }
            Err(PutError::Stopped(ReadCold { work, .. })) => {
                drop(work.refused());
                self.end(key, &QueueError::Stopping);
            }
        }
    }

    /// What a turn wants could not be brought into memory, as the Reader panicked: again, a little
    /// later.
    pub(super) fn turn_not_read(&mut self, cold: &ColdTurn) {
        if self.subscriptions.is_current(cold.key, cold.turn.course) {
            self.subscriptions.put_off(cold.key);
            self.note_waiting();
        } else {
            self.ask_turn_if_wanted(cold.key);
        }
    }

    /// Sends what was brought into memory for a turn.
    pub(super) fn warmed_turn(&mut self, cold: ColdTurn, batches_max: usize, now: TimestampMs) {
        let ColdTurn { key, turn, pass, at } = cold;
        if !self.subscriptions.is_current(key, turn.course) {
            return self.ask_turn_if_wanted(key);
        }
        if self.groups.contains_key(&key) {
            return self.group_turn(key, turn, pass, Some((at, batches_max)), now);
        }
        let next = turn.standing.next;
        let found = self.check(turn.standing).and_then(|bounds| {
            let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
            let batches = reading.warmed_batches(next, limits(&turn), batches_max)?;
            Ok(super::fetched(bounds, batches))
        });
        match found {
            Ok(fetched) => self.deliver(key, fetched, pass),
            Err(error) => self.end(key, &error),
        }
    }

    fn deliver(&mut self, key: SubscriptionKey, fetched: Fetched, pass: PushTurn) {
        let Some(subscriber) = self.subscriptions.sink(key) else { return };
        let fetched = match subscriber.readable(fetched, &|_| false) {
            Ok(fetched) => fetched,
            Err(error) => return self.end_saying(key, error),
        };
        let Some(last) = fetched.batches.last() else {
            return self.subscriptions.nothing_sent(key);
        };
        let next = Offset(last.base_offset.0 + u64::from(last.count));
        let sent = fetched.batches.iter().filter(|batch| !batch.is_over());
        let spent = Spent {
            standing: Standing { next, last_term: last.term },
            messages: sent.map(|batch| u64::from(batch.count)).sum(),
            bytes: fetched.batches.iter().map(|batch| batch.bytes.len() as u64).sum(),
        };
        subscriber.deliver(fetched, pass);
        self.subscriptions.sent(key, spent);
        self.ask_turn_if_wanted(key);
    }

    /// Tells the subscriber that its subscription is over.
    pub(super) fn end(&mut self, key: SubscriptionKey, error: &QueueError) {
        self.end_saying(key, error.to_reply());
    }

    pub(super) fn end_saying(&mut self, key: SubscriptionKey, error: ErrorReply) {
        self.forget_member(key);
        if let Some(subscriber) = self.subscriptions.close(key) {
            subscriber.end(error);
        }
    }

    fn dismiss(&mut self, key: SubscriptionKey) {
        self.forget_member(key);
        if let Some(subscriber) = self.subscriptions.close(key) {
            subscriber.dismiss();
        }
    }

    /// Ends all subscriptions.
    pub(super) fn end_all(&mut self, error: &QueueError) {
        self.groups.clear();
        for (_, subscriber) in self.subscriptions.close_all() {
            subscriber.end(error.to_reply());
        }
    }
}

pub(super) fn limits(turn: &Turn) -> ReadLimits {
    ReadLimits { bytes_max: turn.bytes_max, messages_max: turn.messages_max }
}
