//! The group half of a queue: claims, resets, subscriptions of members, and what is noted of
//! deliveries.
//!
//! ```text
//! Connection --Claim, Settle, Subscribe--> [TopicQueue] --Propose (Claim, Settle, Delivered)--> Shard
//!                                               |   <--- GroupDone ---------------------------'
//!                                               '--- its deliveries --> the connection's writer
//! ```
//!
//! All is judged against applied state, here for a quick answer and again when it is applied. What
//! is in memory of a group is its member's subscription alone.

use std::collections::BTreeSet;
use std::rc::Rc;

use grus_log::Disk;
use grus_mailbox::{Credit, Dropped, Port, PutError, Weigh};
use grus_protocol::ids::{GroupId, Offset, Term, TimestampMs};
use grus_protocol::message::{ACK_RANGES_MAX, MessageFilter};

use super::group_messages::{ClaimTaken, GroupAsk, ProgressStatus, ResetTo};
use super::group_subscription::GroupSubscription;
use super::reading::QueueReading;
use super::settling::Answers;
use super::subscriber::Subscriber;
use super::subscription::{Account, Standing, SubscriptionKey};
use super::{At, Bounds, ListedOffset, OVERLOADED_RETRY_MS, TopicQueue};
use crate::commands::Command;
use crate::commands::groups::{
    Delivered, GroupItem, HandBack, Holding, ProgressKey, RetryTerms, Span,
};
use crate::error::QueueError;
use crate::machine::groups::Moved;
use crate::machine::groups::progress::{HeldProgress, Progress};
use crate::machine::groups::retries::IN_HANDS;
use crate::shard::{GroupDone, Propose, Waiter};

/// Something that this queue has proposed for a group is done, or will not be.
#[derive(Debug)]
pub(crate) enum Proposed {
    /// A member's answers.
    Answers(Box<Answers>, Result<GroupDone, QueueError>),
    /// Deliveries were counted.
    Deliveries(SubscriptionKey, Box<Delivered>, Result<GroupDone, QueueError>),
}

impl Weigh for Proposed {}

impl<D: Disk> TopicQueue<D> {
    pub(super) fn group_ask(&mut self, ask: GroupAsk, credit: Credit, now: TimestampMs) {
        match ask {
            GroupAsk::Claim { holding, start, terms, reply } => {
                self.claim(holding, start, terms, reply, credit);
            }
            GroupAsk::Settle { answered, reply } => self.answered(answered, reply, credit, now),
            GroupAsk::Subscribe { key, holding, filter, account, subscriber, reply } => {
                self.subscribe_group(key, (holding, filter), account, subscriber, reply);
                self.look_after(&[key], now);
            }
            GroupAsk::Status { group, reply } => reply.send(self.progress_status(group)),
            GroupAsk::Reset { group, to, reply } => self.reset_group(group, to, reply, credit),
            GroupAsk::Open { group, from, reply } => reply.send(self.open_spans(group, from)),
            GroupAsk::Letters { item, reply } => {
                let answer = |done: GroupDone| match done {
                    GroupDone::Letters(count) => Some(count),
                    _ => None,
                };
                self.propose_for_group(item, answering(reply, credit, answer));
            }
        }
    }

    pub(super) fn place_of(&self, group: GroupId) -> ProgressKey {
        ProgressKey { queue: self.parts.key, group }
    }

    /// Proposes an item; what it did is told to `reply`. The shard's order is this one's.
    pub(super) fn propose_for_group(
        &self,
        item: GroupItem,
        reply: Port<Result<GroupDone, QueueError>>,
    ) {
        let propose = Propose::new(&Command::Group(item), Waiter::Group { reply });
        match self.parts.shard.try_put(propose) {
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

    fn claim(
        &mut self,
        holding: Holding,
        start: At,
        terms: RetryTerms,
        reply: Port<Result<ClaimTaken, QueueError>>,
        credit: Credit,
    ) {
        let listed = match self.list_offset(start) {
            Ok(listed) => listed,
            Err(error) => return reply.send(Err(error)),
        };
        self.count_claim(&holding);
        // What an earlier holder has in its hands counts as delivered to it.
        self.propose_noted(holding.place.group);
        let ListedOffset { offset: start, log_start, end_offset } = listed;
        let answer = move |done: GroupDone| match done {
            GroupDone::Claimed(claimed) => Some(ClaimTaken { claimed, log_start, end_offset }),
            _ => None,
        };
        let reply = answering(reply, credit, answer);
        self.propose_for_group(GroupItem::Claim { holding, start, terms }, reply);
    }

    fn reset_group(
        &mut self,
        group: GroupId,
        to: ResetTo,
        reply: Port<Result<Moved, QueueError>>,
        credit: Credit,
    ) {
        let end = self.ring_end().unwrap_or(Offset(u64::MAX));
        let to = match to {
            ResetTo::Offset(offset) => Ok(offset.min(end)),
            ResetTo::At(at) => self.list_offset(at).map(|listed| listed.offset),
        };
        let to = match to {
            Ok(to) => to,
            Err(error) => return reply.send(Err(error)),
        };
        let answer = |done: GroupDone| match done {
            GroupDone::Moved(moved) => Some(moved),
            _ => None,
        };
        let reply = answering(reply, credit, answer);
        self.propose_for_group(GroupItem::Reset { place: self.place_of(group), to }, reply);
    }

    /// Where a temporary queue ends: the state does not know it, so nothing behind it is proposed.
    pub(super) fn ring_end(&self) -> Option<Offset> {
        let reading = self.reading().filter(QueueReading::is_temporary)?;
        Some(reading.bounds().end_offset)
    }

    /// Whether a member holds the queue and knows of all resets, by what is applied.
    pub(super) fn judge(&self, holding: &Holding) -> Result<(), QueueError> {
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(holding.place);
        Ok(held.ok_or(QueueError::UnknownGroup)?.numbers().judge(holding)?)
    }

    /// What a member says as it lets go, with the first place that it has not seen as the state tells it: in
    /// what it has in work, messages that were sent again may lie far ahead of what was sent first.
    pub(super) fn judged(&self, back: HandBack) -> HandBack {
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(back.holding.place);
        let is_whole = back.in_work.len() < ACK_RANGES_MAX;
        let seen_to = held.filter(|_| is_whole).map(|held| held.numbers().seen_to(&back.in_work));
        let unseen_from = seen_to.map_or(back.unseen_from, |seen_to| seen_to.min(back.unseen_from));
        HandBack { unseen_from, ..back }
    }

    fn subscribe_group(
        &mut self,
        key: SubscriptionKey,
        (holding, filter): (Holding, MessageFilter),
        account: Account,
        subscriber: Box<dyn Subscriber>,
        reply: Port<Result<ListedOffset, QueueError>>,
    ) {
        let found = self.judge(&holding).and_then(|()| self.list_offset(At::First));
        let bounds = match found {
            Ok(bounds) => bounds,
            Err(error) => {
                self.count_refused(holding.place.group, &error);
                subscriber.dismiss();
                return reply.send(Err(error));
            }
        };
        self.subscriptions.close_if(|subscriber| subscriber.is_gone());
        // One at a time: an earlier one of the same claim is of a connection that is no more.
        let group = holding.place.group;
        if let Some(earlier) = self.groups.key_of(group) {
            self.end(earlier, &QueueError::UnknownSubscription);
        }
        let (floor, owed) = {
            let machine = self.parts.ground.machine.borrow();
            let held = machine.state.progress(holding.place);
            let owed: BTreeSet<Offset> =
                held.into_iter().flat_map(HeldProgress::in_hands).collect();
            (held.map_or(Offset(0), |held| held.numbers().floor), owed)
        };
        let offset = floor.max(bounds.log_start);
        let standing = Standing { next: offset, last_term: Term::UNKNOWN };
        match self.subscriptions.open(key, standing, account, subscriber) {
            Ok(()) => {
                self.groups.insert(key, GroupSubscription::new(holding, filter, owed));
                reply.send(Ok(ListedOffset { offset, ..bounds })); // first: what is sent follows
            }
            Err(subscriber) => {
                subscriber.dismiss();
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                reply.send(Err(error));
            }
        }
    }

    /// A subscription ends: what was noted of its deliveries is proposed, if it was a member's.
    pub(super) fn forget_member(&mut self, key: SubscriptionKey) {
        if self.groups.contains_key(&key) {
            self.propose_noted_of(key);
            self.groups.remove(key);
        }
    }

    /// Proposes what was noted of deliveries to a group.
    pub(super) fn propose_noted(&mut self, group: GroupId) {
        if let Some(key) = self.groups.key_of(group) {
            self.propose_noted_of(key);
        }
    }

    pub(super) fn propose_noted_of(&mut self, key: SubscriptionKey) {
        while let Some(delivered) =
            self.groups.get_mut(&key).and_then(GroupSubscription::take_noted)
        {
            let Some(own) = &self.own else { return };
            let (proposed, noted) = (own.proposed.clone(), Box::new(delivered.clone()));
            let reply = Port::call(move |done: Result<Result<GroupDone, QueueError>, Dropped>| {
                let result = done.unwrap_or(Err(QueueError::OutcomeUnknown));
                // Stopped: so is the queue.
                let _ = proposed.try_put(Proposed::Deliveries(key, noted, result));
            });
            self.propose_for_group(GroupItem::Delivered(delivered), reply);
        }
    }

    pub(super) fn proposed(&mut self, done: Proposed, now: TimestampMs) {
        let concerned = match done {
            Proposed::Answers(answers, result) => {
                let group = answers.group();
                self.answers_done(answers, result, now);
                self.groups.key_of(group)
            }
            Proposed::Deliveries(key, delivered, result) => {
                let group = delivered.holding.place.group;
                self.deliveries_done(key, *delivered, &result, now);
                self.groups.key_of(group)
            }
        };
        self.look_after(concerned.as_slice(), now);
    }

    fn deliveries_done(
        &mut self,
        key: SubscriptionKey,
        delivered: Delivered,
        result: &Result<GroupDone, QueueError>,
        now: TimestampMs,
    ) {
        self.groups.were_sent(&delivered);
        let of_it = self.groups.get_mut(&key).filter(|one| one.holding == delivered.holding);
        let Some(one) = of_it else { return };
        match result {
            // It may be in the log, or will be: twice is no harm but to counts.
            Ok(_) | Err(QueueError::OutcomeUnknown) => {
                let machine = self.parts.ground.machine.borrow();
                if let Some(held) = machine.state.progress(delivered.holding.place) {
                    one.noted(&delivered, held.numbers());
                }
            }
            Err(_) => one.put_back(delivered, now),
        }
    }

    /// Looks after the subscriptions of all groups.
    pub(super) fn look_after_groups(&mut self, now: TimestampMs) {
        if !self.groups.is_empty() {
            let keys: Vec<SubscriptionKey> = self.groups.keys().copied().collect();
            self.look_after(&keys, now);
        }
    }

    /// Ends the subscriptions of members that do not hold the queue any more, asks for turns where
    /// retries are due, and has itself woken for the next one: of those that something has happened to, so
    /// that a message that is for many groups costs each of them the same.
    pub(super) fn look_after(&mut self, keys: &[SubscriptionKey], now: TimestampMs) {
        let Some(log_start) = self.reading().map(|reading| reading.bounds().log_start) else {
            return;
        };
        let mut next_due: Option<TimestampMs> = None;
        for key in keys.iter().copied() {
            let Some(one) = self.groups.get(&key) else { continue };
            if self.subscriptions.sink(key).is_none() {
                self.forget_member(key);
                continue;
            }
            if let Err(error) = self.judge(&one.holding) {
                self.end(key, &error);
                continue;
            }
            let ground = Rc::clone(&self.parts.ground);
            let machine = ground.machine.borrow();
            let Some(one) = self.groups.get_mut(&key) else { continue };
            let Some(held) = machine.state.progress(one.holding.place) else { continue };
            one.owe_only(|offset| held.retry(offset).is_some_and(|retry| retry.due == IN_HANDS));
            one.house(held.numbers());
            one.bound_waits(now);
            let (group, rests_until) = (one.holding.place.group, one.rests_until(now));
            let bury_again = one.bury_again;
            let is_awake = !one.is_burying && rests_until.is_none();
            let is_sendable =
                |offset| offset >= log_start && !self.groups.is_under_way(group, offset);
            let has_due = held.due(now).any(|retry| is_sendable(retry.offset));
            // What a turn would find, and nothing else: a queue that asked for turns that find nothing would
            // ask for them without an end, while an item of an earlier subscription is on its way.
            let is_in_hands =
                |offset| held.retry(offset).is_some_and(|retry| retry.due == IN_HANDS);
            let mut owed = self.groups.get(&key).into_iter().flat_map(|one| &one.owed);
            let is_owed = owed.any(|offset| is_sendable(*offset) && is_in_hands(*offset));
            let is_urged = is_awake && (is_owed || has_due);
            let next = held.next_due().filter(|due| *due > now);
            next_due = [next_due, next, bury_again, rests_until].into_iter().flatten().min();
            drop(machine);
            self.subscriptions.urge(key, is_urged);
            self.ask_turn_if_wanted(key);
        }
        if let Some(due) = next_due {
            self.wake_at(due);
        }
        self.note_waiting();
    }

    /// Has the shard's tick come to this queue at that time, unless it does so before.
    pub(super) fn wake_at(&mut self, due: TimestampMs) {
        if self.wakes_at.is_none_or(|at| due < at) {
            self.wakes_at = Some(due);
            self.parts.alarms.borrow_mut().put(due.0, self.parts.key);
        }
    }

    /// Time has passed.
    pub(super) fn tick_groups(&mut self, now: TimestampMs) {
        if self.wakes_at.is_some_and(|at| at <= now) {
            self.wakes_at = None;
        }
        for one in self.groups.values_mut() {
            if one.bury_again.is_some_and(|at| at <= now) {
                (one.is_burying, one.bury_again) = (false, None);
            }
        }
        let awake = self.groups.iter().filter(|(_, one)| one.rests_until(now).is_none());
        let awake: Vec<SubscriptionKey> = awake.map(|(key, _)| *key).collect();
        for key in awake {
            self.propose_noted_of(key);
        }
        self.look_after_groups(now);
    }

    /// What a group has not passed here, from an offset on.
    fn open_spans(&self, group: GroupId, from: Offset) -> Result<Vec<Span>, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        let Bounds { log_start, end_offset } = reading.bounds();
        let from = from.max(log_start);
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(self.place_of(group));
        let none = Progress::at(Offset(0));
        let numbers = held.map_or(&none, HeldProgress::numbers);
        let gaps = numbers.passed.gaps(from.max(numbers.floor).0, end_offset.0);
        Ok(gaps.map(|(from, to)| Span { from: Offset(from), to: Offset(to) }).collect())
    }

    fn progress_status(&self, group: GroupId) -> Result<Option<ProgressStatus>, QueueError> {
        let reading = self.reading().ok_or(QueueError::UnknownQueue)?;
        Ok(reading.progress(group))
    }
}

/// A port for an item whose answer is `answer` of what it did; `credit` is held until then.
fn answering<T: Send + 'static>(
    reply: Port<Result<T, QueueError>>,
    credit: Credit,
    answer: impl FnOnce(GroupDone) -> Option<T> + Send + 'static,
) -> Port<Result<GroupDone, QueueError>> {
    Port::call(move |done: Result<Result<GroupDone, QueueError>, Dropped>| {
        match done {
            Ok(Ok(done)) => {
                if let Some(answer) = answer(done) {
                    reply.send(Ok(answer));
                }
            }
            Ok(Err(error)) => reply.send(Err(error)),
            Err(_dropped) => {} // and so is this one's
        }
        drop(credit);
    })
}
