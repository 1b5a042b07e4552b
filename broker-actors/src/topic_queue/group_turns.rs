//! Turns of members of groups: what is due again, and what lies ahead, but for what is settled and
//! what nobody of the group wants.
//!
//! A turn makes one frame of the one or of the other, in turns where there are both. What is passed
//! over is found by the index alone where the blooms of tags allow it, and is settled by the item
//! that counts the delivery, so a million messages that do not match cost no frame.

mod again;

use grus_log::{Disk, FaultIn};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{Offset, Term, TimestampMs};
use grus_protocol::message::{ExpiredPolicy, MessageFilter};

use super::group_subscription::{GroupSubscription, may_send_ahead};
use super::pushing::limits;
use super::reading::{Batches, QueueReading, ReadLimits};
use super::sifting::{Marks, push, sift, wanted_of};
use super::subscriber::PushTurn;
use super::subscription::{Spent, Standing, SubscriptionKey, Turn};
use super::{Bounds, Fetched, FetchedBatch, QueueError, TopicQueue};
use crate::commands::groups::{Holding, Span};
use crate::machine::groups::progress::{HeldProgress, Progress};

/// Most retries of one frame.
const RETRIES_PER_TURN_MAX: usize = 64;
/// Most batches whose blooms are looked at in one turn.
const BLOOMS_PER_TURN_MAX: usize = 4_096;
/// Most messages given up at once that were delivered often enough.
const GIVEN_UP_PER_TURN_MAX: usize = 64;
/// Most messages made dead letters in one turn because their time is over.
const EXPIRED_PER_TURN_MAX: usize = 1_024;

/// A place whose batch was brought into memory, and how many batches from there on could be read.
pub(super) type Warm = Option<(Offset, usize)>;

/// What a turn finds for a member of a group.
enum Found {
    /// What lies ahead, up to `next`.
    Ahead {
        fetched: Fetched,
        marks: Marks,
        next: Offset,
        passed: Vec<Span>,
        /// Messages among the passed that are over.
        over: u64,
    },
    /// What is due again.
    Again {
        fetched: Fetched,
        marks: Marks,
        offsets: Vec<Offset>,
        /// The member has them in its hands since an earlier connection.
        in_hands: bool,
    },
    /// These retries are over for everybody: their time to live is.
    Over(Vec<Span>),
    /// Nothing for it, up to `next`.
    PassedOver {
        next: Offset,
        passed: Vec<Span>,
        /// Messages among the passed that are over.
        over: u64,
    },
    /// The time to live of these is over, and they are to be dead letters.
    Expired(Vec<(Offset, u32)>),
    /// These were delivered often enough.
    Dying(Vec<(Offset, u32)>),
    /// These are due again and cannot be read.
    Damaged(Vec<Offset>),
    /// Dead letters are under way, or what was passed over waits for room, or what fails would find none.
    Wait,
    /// The subscriber can read nothing more.
    Ended(Box<ErrorReply>),
    /// The batch at this place must be brought in first.
    Cold(Offset, FaultIn),
    Nothing,
}

impl<D: Disk> TopicQueue<D> {
    /// A member of a group has a turn.
    pub(super) fn group_turn(
        &mut self,
        key: SubscriptionKey,
        turn: Turn,
        pass: PushTurn,
        warm: Warm,
        now: TimestampMs,
    ) {
        if !self.parts.ground.holds_lease() {
            // Another leader may have taken another claim.
            let error = self.parts.ground.not_leader();
            return self.end(key, &error);
        }
        match self.look_for_group(key, &turn, warm, now) {
            Err(error) => self.end(key, &error),
            Ok(Found::Ended(error)) => self.end_saying(key, *error),
            Ok(Found::Nothing) => self.subscriptions.nothing_sent(key),
            Ok(Found::Wait) => self.subscriptions.put_off(key),
            Ok(Found::Cold(at, fault_in)) => self.read_cold_turn(key, turn, pass, fault_in, at),
            Ok(Found::PassedOver { next, passed, over }) => {
                self.parts.metrics.dropped(over);
                self.note_delivered(key, next, &passed);
                self.subscriptions.passed_over(key, next);
            }
            Ok(Found::Dying(offsets)) => {
                if let Some(holding) = self.put_off_for_letters(key) {
                    self.give_up(holding, offsets, now);
                }
            }
            Ok(Found::Expired(offsets)) => {
                if let Some(holding) = self.put_off_for_letters(key) {
                    self.bury_expired(holding, offsets, now);
                }
            }
            Ok(Found::Damaged(offsets)) => {
                if let Some(holding) = self.put_off_for_letters(key) {
                    self.postpone_damaged(holding, &offsets, now);
                }
            }
            Ok(Found::Over(spans)) => {
                if let Some(holding) = self.put_off_for_letters(key) {
                    self.settle_over(holding, spans, now);
                }
            }
            Ok(Found::Ahead { fetched, marks, next, passed, over }) => {
                self.parts.metrics.dropped(over);
                let (messages, bytes) = cost(&fetched);
                let Some(subscriber) = self.subscriptions.sink(key) else { return };
                self.count_sent(key, &fetched, &marks);
                subscriber.deliver_group(fetched, marks, pass);
                let standing = Standing { next, last_term: Term::UNKNOWN };
                self.subscriptions.sent(key, Spent { standing, messages, bytes });
                self.note_delivered(key, next, &passed);
            }
            Ok(Found::Again { fetched, marks, offsets, in_hands }) => {
                let (messages, bytes) = cost(&fetched);
                let Some(subscriber) = self.subscriptions.sink(key) else { return };
                self.count_sent(key, &fetched, &marks);
                subscriber.deliver_group(fetched, marks, pass);
                self.subscriptions.sent_again(key, messages, bytes);
                if let Some(one) = self.groups.get_mut(&key) {
                    one.delivered_again(&offsets, in_hands);
                    one.was_retries = true;
                }
            }
        }
        if self.groups.get(&key).is_some_and(GroupSubscription::is_full) {
            self.propose_noted_of(key);
        }
        self.look_after(&[key], now);
    }

    /// The queue itself settles something for a group: what comes next waits for it.
    fn put_off_for_letters(&mut self, key: SubscriptionKey) -> Option<Holding> {
        self.subscriptions.put_off(key);
        let one = self.groups.get_mut(&key)?;
        one.is_burying = true;
        Some(one.holding)
    }

    fn note_delivered(&mut self, key: SubscriptionKey, next: Offset, passed: &[Span]) {
        if let Some(one) = self.groups.get_mut(&key) {
            one.delivered_to(next, passed);
            one.was_retries = false;
        }
    }

    fn look_for_group(
        &self,
        key: SubscriptionKey,
        turn: &Turn,
        warm: Warm,
        now: TimestampMs,
    ) -> Result<Found, QueueError> {
        let one = self.groups.get(&key).ok_or(QueueError::UnknownSubscription)?;
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(one.holding.place).ok_or(QueueError::UnknownGroup)?;
        held.numbers().judge(&one.holding)?;
        if one.rests_until(now).is_some() {
            return Ok(Found::Wait);
        }
        let topic = machine.state.topic(self.parts.key.topic);
        let buries = topic.is_some_and(|topic| topic.expired == ExpiredPolicy::DeadLetter);
        let room = machine.state.room_for_retries(held) as u64;
        let looking = Looking { queue: self, key, one, reading, held, turn, warm, buries, room };
        let found = if one.was_retries { looking.ahead()? } else { looking.again(now)? };
        match (found, one.was_retries) {
            (Found::Nothing, true) => looking.again(now),
            // What waits behind goes on: there will be room when it is dealt with.
            (Found::Wait, true) => match looking.again(now)? {
                Found::Nothing => Ok(Found::Wait),
                found => Ok(found),
            },
            (Found::Nothing, false) => looking.ahead(),
            (found, _) => Ok(found),
        }
    }
}

fn cost(fetched: &Fetched) -> (u64, u64) {
    let messages = fetched.batches.iter().map(|batch| u64::from(batch.count)).sum();
    (messages, fetched.batches.iter().map(|batch| batch.bytes.len() as u64).sum())
}

/// A look at a queue for one turn of a group's member.
struct Looking<'a, D: Disk> {
    queue: &'a TopicQueue<D>,
    key: SubscriptionKey,
    one: &'a GroupSubscription,
    reading: QueueReading<'a, D>,
    held: &'a HeldProgress,
    turn: &'a Turn,
    warm: Warm,
    /// What is over becomes a dead letter.
    buries: bool,
    /// So many more messages may fail and be delivered again.
    room: u64,
}

impl<D: Disk> Looking<'_, D> {
    fn numbers(&self) -> &Progress {
        self.held.numbers()
    }

    /// What the subscriber can read of batches, those that are over without their bytes, unless the
    /// member has them in its hands.
    fn readable(
        &self,
        batches: Vec<FetchedBatch>,
        in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Result<Fetched, Box<ErrorReply>>, QueueError> {
        let fetched = super::fetched(self.reading.bounds(), batches);
        let subscriber = self.queue.subscriptions.sink(self.key);
        let subscriber = subscriber.ok_or(QueueError::UnknownSubscription)?;
        Ok(subscriber.readable(fetched, in_hands).map_err(Box::new))
    }

    /// Whether the member was sent something of a batch, over an earlier connection, and has not
    /// answered for it: its answer is waited for, whatever the time to live.
    fn has_in_hands(&self, batch: &FetchedBatch) -> bool {
        let numbers = self.numbers();
        let end = end_of(batch).min(numbers.delivered_to).0;
        let open_from = batch.base_offset.max(numbers.floor).0;
        open_from < end && numbers.passed.gaps(open_from, end).next().is_some()
    }

    /// What lies ahead.
    fn ahead(&self) -> Result<Found, QueueError> {
        if self.one.is_crowded() {
            return Ok(Found::Wait);
        }
        let Bounds { log_start, end_offset } = self.reading.bounds();
        let numbers = self.numbers();
        let mut next = self.turn.standing.next.max(log_start).max(numbers.floor);
        next = Offset(numbers.passed.end_of(next.0).unwrap_or(next.0));
        let mut passed = Vec::new();
        if next >= end_offset {
            let is_ahead = next > self.turn.standing.next;
            let passed_over = Found::PassedOver { next: next.min(end_offset), passed, over: 0 };
            return Ok(if is_ahead { passed_over } else { Found::Nothing });
        }
        let tried = numbers.attempts.at(next);
        if numbers.terms.is_last(tried) {
            if self.one.is_burying {
                return Ok(Found::Wait);
            }
            let end = numbers.attempts.next_end(next).unwrap_or(end_offset).min(end_offset);
            let open = numbers.passed.gaps(next.0, end.0).flat_map(|(from, to)| from..to);
            let open = open.take(GIVEN_UP_PER_TURN_MAX).map(|at| (Offset(at), tried));
            return Ok(Found::Dying(open.collect()));
        }
        if self.one.filter != MessageFilter::All {
            let wanted = self.reading.first_that_may(next, BLOOMS_PER_TURN_MAX, |bloom| {
                self.one.filter.may_match(bloom)
            });
            push_open(numbers, next, wanted.at, &mut passed);
            next = wanted.at;
            if !wanted.is_found {
                return Ok(Found::PassedOver { next, passed, over: 0 });
            }
        }
        if may_send_ahead(numbers, next, self.room) {
            return self.read_ahead(next, passed);
        }
        let is_empty = passed.is_empty();
        Ok(if is_empty { Found::Wait } else { Found::PassedOver { next, passed, over: 0 } })
    }

    fn read_ahead(&self, next: Offset, mut passed: Vec<Span>) -> Result<Found, QueueError> {
        let limits = limits(self.turn);
        let found = match self.warm {
            Some((at, batches_max)) if at == next => {
                self.reading.warmed_batches(next, limits, batches_max).map(Batches::Warm)
            }
            _ => self.reading.batches(next, limits),
        };
        let batches = match found {
            Ok(Batches::Warm(batches)) => batches,
            Ok(Batches::Cold(fault_in)) => return Ok(Found::Cold(next, fault_in)),
            Err(QueueError::CorruptRange { from, to }) => {
                // It stays unsettled, and holds the floor: what is behind it is served.
                let queue = self.queue.parts.key;
                tracing::error!(%queue, %from, %to, "damaged, and not delivered to a group");
                return Ok(Found::PassedOver { next: to, passed, over: 0 });
            }
            Err(error) => return Err(error),
        };
        let first = batches.first().filter(|_| self.buries).cloned();
        let mut fetched = match self.readable(batches, &|batch| self.has_in_hands(batch))? {
            Ok(fetched) => fetched,
            Err(error) => return Ok(Found::Ended(error)),
        };
        if let Some(first) = first {
            match fetched.batches.iter().position(FetchedBatch::is_over) {
                Some(0) => return Ok(self.expired(&first, next, passed)),
                Some(before) => fetched.batches.truncate(before),
                None => {}
            }
        }
        let mut marks = Marks::default();
        let mut over = 0;
        let mut end = next;
        let numbers = self.numbers();
        fetched.batches.retain(|batch| {
            let sifted = sift(batch, next, numbers, &self.one.filter, &mut marks, &mut passed);
            end = end_of(batch);
            over += sifted.over;
            if sifted.is_unreadable {
                let queue = self.queue.parts.key;
                tracing::error!(%queue, at = %batch.base_offset, "tags cannot be read: not delivered");
            }
            sifted.is_wanted
        });
        Ok(if fetched.batches.is_empty() {
            Found::PassedOver { next: end, passed, over }
        } else {
            Found::Ahead { fetched, marks, next: end, passed, over }
        })
    }

    /// A batch whose time is over, and whose messages are to be dead letters, but for those that the
    /// group does not want.
    fn expired(&self, batch: &FetchedBatch, next: Offset, mut passed: Vec<Span>) -> Found {
        let numbers = self.numbers();
        let wanted = wanted_of(batch, next, numbers, &self.one.filter, &mut passed);
        let wanted = wanted.unwrap_or_else(|| {
            let queue = self.queue.parts.key;
            tracing::error!(%queue, at = %batch.base_offset, "tags cannot be read: no dead letters");
            Vec::new()
        });
        if wanted.is_empty() {
            return Found::PassedOver { next: end_of(batch), passed, over: 0 };
        }
        if self.one.is_burying {
            return Found::Wait;
        }
        let offsets = wanted.into_iter().flat_map(|(from, to)| from..to).map(Offset);
        let dying = offsets.map(|offset| (offset, numbers.attempts.at(offset)));
        Found::Expired(dying.take(EXPIRED_PER_TURN_MAX).collect())
    }
}

/// What of a range is not passed yet.
fn push_open(progress: &Progress, from: Offset, to: Offset, passed: &mut Vec<Span>) {
    for (from, to) in progress.passed.gaps(from.0, to.0.max(from.0)) {
        push(passed, from, to);
    }
}

fn end_of(batch: &FetchedBatch) -> Offset {
    Offset(batch.base_offset.0 + u64::from(batch.count))
}
