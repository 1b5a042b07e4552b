//! What members answer: acknowledged, to be delivered again, given up. And what is given up because
//! it was delivered often enough.
//!
//! A dead letter is the message itself, so the leader reads it, on the Reader's thread where it is
//! not in memory, and proposes letter and settling as one item. Answers whose letters are many go
//! in several items; whoever waits is told after the last.

use std::collections::VecDeque;

use grus_log::{Disk, FaultIn};
use grus_mailbox::{Credit, Dropped, Port, PutError};
use grus_protocol::ids::{GroupId, Offset, QueueId, TimestampMs};

use super::group_messages::{Answered, AnswersTaken, Failed};
use super::groups::Proposed;
use super::letters::{Death, OpenBatch, dead_letter, squeezed};
use super::reading::{Batches, ReadLimits};
use super::{Cold, OVERLOADED_RETRY_MS, TopicQueue};
use crate::commands::groups::{GroupItem, Holding, Letter, Nack, Settle, Span};
use crate::error::QueueError;
use crate::machine::groups::progress::HeldProgress;
use crate::machine::groups::retries::IN_HANDS;
use crate::machine::groups::{DEAD_LETTER_PREFIX, RETRIES_EACH_MAX, Settled};
use crate::reader::{ColdWork, ReadCold};
use crate::shard::GroupDone;

/// Letters of one item.
const LETTERS_MAX: usize = 64;
/// An item ends with the letter that brings its letters to this many bytes.
const LETTERS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a Settle item without its elements; more than there are.
const ITEM_BYTES: usize = 256;
/// Most bytes of an ack, of a nack, and of a letter without its batch.
const ELEMENT_BYTES: usize = 24;
/// Why a message is a dead letter whose time to live was over before anybody had dealt with it.
const EXPIRED_REASON: &str = "expired";
/// A message that should be a dead letter and cannot be read now is tried again after so long.
const UNREADABLE_RETRY_MS: u64 = 60_000;
/// What the queue itself could not settle is tried again after so long.
pub(super) const BURY_RETRY_MS: u64 = 1_000;

/// A message to be given up.
#[derive(Debug)]
pub(super) struct Dying {
    offset: Offset,
    reason: String,
    deliveries: u32,
}

/// Answers on their way into the log.
#[derive(Debug)]
pub(crate) struct Answers {
    holding: Holding,
    acks: Vec<Span>,
    nacks: Vec<Nack>,
    dying: VecDeque<Dying>,
    /// They die because their time to live is over.
    is_expired: bool,
    /// All that a member has answered for.
    named: Vec<Span>,
    /// Retries among them, and what fails: nobody is sent them until the member is told what they are.
    retries: Vec<Offset>,
    /// How many of its answers found no room so far.
    left: u32,
    /// Whoever waits; none for what the queue itself gives up.
    reply: Option<Port<Result<AnswersTaken, QueueError>>>,
    _credit: Option<Credit>,
}

impl Answers {
    /// What the queue itself settles for a group; nothing yet.
    fn own(holding: Holding) -> Self {
        Self {
            holding,
            acks: Vec::new(),
            nacks: Vec::new(),
            dying: VecDeque::new(),
            is_expired: false,
            named: Vec::new(),
            retries: Vec::new(),
            left: 0,
            reply: None,
            _credit: None,
        }
    }

    /// The group that they are of.
    pub(super) fn group(&self) -> GroupId {
        self.holding.place.group
    }

    /// The queue has stopped.
    pub(super) fn stopped(self) {
        if let Some(reply) = self.reply {
            reply.send(Err(QueueError::Stopping));
        }
    }
}

/// A letter, or why there is none yet.
enum Read {
    Letter(Letter),
    Cold(FaultIn),
    Unreadable,
}

/// How often a message that a member has in its hands was delivered, as far as is known here: the
/// last delivery may not be applied yet.
fn deliveries(held: &HeldProgress, offset: Offset, was_sent: bool) -> u32 {
    if let Some(retry) = held.retry(offset) {
        // In hands: the last delivery is applied, whether the queue has heard of that or not.
        let is_counted = retry.due == IN_HANDS;
        return retry.deliveries.saturating_add(u32::from(was_sent && !is_counted));
    }
    let numbers = held.numbers();
    numbers.deliveries(offset).max(numbers.attempts.at(offset).saturating_add(1))
}

/// The limit of what is kept of a group in a queue is reached.
const fn no_room() -> QueueError {
    QueueError::Limit { what: "gaps or retries of a group", limit: RETRIES_EACH_MAX }
}

/// A message that cannot be read now waits for better times.
fn unreadable(offset: Offset, now: TimestampMs) -> Nack {
    Nack { offset, due: TimestampMs(now.0.saturating_add(UNREADABLE_RETRY_MS)) }
}

/// A letter that takes so many bytes at most, compressed if it has to be.
fn fitting(letter: Letter, bytes_max: usize) -> Option<Letter> {
    if letter.batch.len() <= bytes_max {
        return Some(letter);
    }
    let batch = squeezed(&letter.batch)?;
    (batch.len() <= bytes_max).then_some(Letter { batch, ..letter })
}

impl<D: Disk> TopicQueue<D> {
    /// A member has answered.
    pub(super) fn answered(
        &mut self,
        mut answered: Answered,
        reply: Port<Result<AnswersTaken, QueueError>>,
        credit: Credit,
        now: TimestampMs,
    ) {
        let holding = answered.holding;
        let group = holding.place.group;
        if let Err(error) = self.judge(&holding) {
            self.count_refused(group, &error);
            return reply.send(Err(error));
        }
        if let Some(end) = self.ring_end() {
            answered.cut(end);
        }
        self.count_nacks(group, answered.failed.len());
        let named = answered.named();
        self.propose_noted(group); // it counts before what is said of it
        let given_up = answered.given_up.into_iter();
        let given_up = given_up.map(|one| Dying {
            deliveries: self.deliveries_of(group, one.offset),
            offset: one.offset,
            reason: one.reason,
        });
        let mut dying: VecDeque<Dying> = given_up.collect();
        let mut nacks = Vec::new();
        for failed in answered.failed {
            match self.postponed(group, failed, now) {
                Ok(nack) => nacks.push(nack),
                Err(last) => dying.push_back(last),
            }
        }
        let mut retries = {
            let machine = self.parts.ground.machine.borrow();
            let held = machine.state.progress(holding.place);
            held.map_or_else(Vec::new, |held| held.retries_among(&named))
        };
        // What fails is a retry as soon as the item is applied, and may be due by then: sent again before its
        // member is answered it would be lost, as that member believes that it has not arrived yet.
        retries.extend(nacks.iter().map(|nack| nack.offset));
        self.groups.answering(group, &retries);
        let (acks, reply) = (answered.acks, Some(reply));
        let own = Answers { retries, _credit: Some(credit), ..Answers::own(holding) };
        let answers = Answers { acks, nacks, dying, named, reply, ..own };
        self.settle(Box::new(answers), None, now);
        if let Some(hands_back) = answered.hands_back.map(|back| self.judged(back)) {
            if let Some(key) = self.groups.key_of(group) {
                self.end(key, &QueueError::UnknownSubscription);
            }
            // As good as can be: without it, the next holder finds that all was delivered.
            self.propose_for_group(GroupItem::HandBack(hands_back), Port::call(|_| ()));
        }
    }

    fn deliveries_of(&self, group: GroupId, offset: Offset) -> u32 {
        let was_sent = self.groups.is_sent(group, offset);
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(self.place_of(group));
        held.map_or(1, |held| deliveries(held, offset, was_sent))
    }

    /// When a message is delivered again; or that this was the last time.
    fn postponed(&self, group: GroupId, failed: Failed, now: TimestampMs) -> Result<Nack, Dying> {
        let Failed { offset, retry_after_ms, reason } = failed;
        let deliveries = self.deliveries_of(group, offset);
        let machine = self.parts.ground.machine.borrow();
        let held = machine.state.progress(self.place_of(group));
        let Some(terms) = held.map(|held| &held.numbers().terms) else {
            return Ok(Nack { offset, due: now });
        };
        if terms.is_last(deliveries) {
            return Err(Dying { offset, reason, deliveries });
        }
        let wait_ms = retry_after_ms.unwrap_or_else(|| terms.rung_ms(deliveries));
        Ok(Nack { offset, due: TimestampMs(now.0.saturating_add(wait_ms)) })
    }

    /// Gives up messages that were delivered often enough and never answered.
    pub(super) fn give_up(
        &mut self,
        holding: Holding,
        offsets: impl IntoIterator<Item = (Offset, u32)>,
        now: TimestampMs,
    ) {
        let dying = offsets.into_iter().map(|(offset, deliveries)| Dying {
            offset,
            deliveries,
            reason: format!("delivered {deliveries} times without an answer"),
        });
        let answers = Answers { dying: dying.collect(), ..Answers::own(holding) };
        self.settle(Box::new(answers), None, now);
    }

    /// Makes dead letters of messages whose time to live is over.
    pub(super) fn bury_expired(
        &mut self,
        holding: Holding,
        offsets: impl IntoIterator<Item = (Offset, u32)>,
        now: TimestampMs,
    ) {
        let reason = || EXPIRED_REASON.to_owned();
        let dying = offsets.into_iter();
        let dying =
            dying.map(|(offset, deliveries)| Dying { offset, deliveries, reason: reason() });
        let own = Answers::own(holding);
        let answers = Answers { dying: dying.collect(), is_expired: true, ..own };
        self.settle(Box::new(answers), None, now);
    }

    /// Puts off messages that are due again and cannot be read.
    pub(super) fn postpone_damaged(
        &mut self,
        holding: Holding,
        offsets: &[Offset],
        now: TimestampMs,
    ) {
        let queue = self.parts.key;
        tracing::error!(%queue, first = ?offsets.first(), count = offsets.len(), "due and damaged");
        let nacks = offsets.iter().map(|offset| unreadable(*offset, now)).collect();
        let answers = Answers { nacks, ..Answers::own(holding) };
        self.settle(Box::new(answers), None, now);
    }

    /// Settles what is over for all: its time to live is, or it is not there any more.
    pub(super) fn settle_over(&mut self, holding: Holding, acks: Vec<Span>, now: TimestampMs) {
        self.parts.metrics.dropped(acks.iter().map(|span| span.to.0 - span.from.0).sum());
        let answers = Answers { acks, ..Answers::own(holding) };
        self.settle(Box::new(answers), None, now);
    }

    /// Proposes what can be proposed of answers now. `warmed`: this message was brought into memory.
    pub(super) fn settle(
        &mut self,
        mut answers: Box<Answers>,
        mut warmed: Option<Offset>,
        now: TimestampMs,
    ) {
        let mut letters: Vec<Letter> = Vec::new();
        let (mut bytes, mut open) = (0, None);
        let room = self.parts.ground.item_bytes_max();
        while let Some(next) = answers.dying.front() {
            if letters.len() >= LETTERS_MAX || bytes >= LETTERS_BYTES_MAX {
                break;
            }
            let others = answers.acks.len() + answers.nacks.len() + letters.len() + 1;
            let left = room.saturating_sub(ITEM_BYTES + others * ELEMENT_BYTES + bytes);
            match self.read_letter(&answers.holding, next, (warmed.take(), &mut open), now) {
                Read::Letter(letter) => match fitting(letter, left) {
                    Some(letter) => {
                        bytes += letter.batch.len();
                        letters.push(letter);
                    }
                    // Alone it may fit.
                    None if others > 1 => break,
                    None => {
                        let (queue, offset) = (self.parts.key, next.offset);
                        tracing::error!(%queue, %offset, "too large for a dead letter: it stays");
                        answers.nacks.push(unreadable(offset, now));
                    }
                },
                Read::Unreadable => answers.nacks.push(unreadable(next.offset, now)),
                Read::Cold(fault_in) => {
                    let is_first = letters.is_empty();
                    if is_first && answers.acks.is_empty() && answers.nacks.is_empty() {
                        return self.read_cold_letter(answers, fault_in);
                    }
                    break;
                }
            }
            answers.dying.pop_front();
        }
        let group = answers.holding.place.group;
        let letters_to = {
            let machine = self.parts.ground.machine.borrow();
            machine.state.dead_letter_queue(group).map_or(QueueId(0), |key| key.queue)
        };
        let item = GroupItem::Settle(Settle {
            holding: answers.holding,
            acks: std::mem::take(&mut answers.acks),
            nacks: std::mem::take(&mut answers.nacks),
            letters_to,
            letters,
        });
        let Some(own) = &self.own else { return };
        let proposed = own.proposed.clone();
        let reply = Port::call(move |done: Result<Result<GroupDone, QueueError>, Dropped>| {
            // Dropped: the answer is not known, as when leadership is lost.
            let result = done.unwrap_or(Err(QueueError::OutcomeUnknown));
            let put = proposed.try_put(Proposed::Answers(answers, result));
            if let Err(PutError::Stopped(Proposed::Answers(answers, _))) = put {
                answers.stopped();
            }
        });
        self.propose_for_group(item, reply);
    }

    /// An item of the answers is applied, or will not be.
    pub(super) fn answers_done(
        &mut self,
        mut answers: Box<Answers>,
        result: Result<GroupDone, QueueError>,
        now: TimestampMs,
    ) {
        if let Ok(GroupDone::Settled(settled)) = &result
            && answers.is_expired
        {
            self.parts.metrics.buried(u64::from(settled.dead));
        }
        let result = match result {
            Ok(GroupDone::Settled(settled)) => {
                answers.left = answers.left.saturating_add(settled.left);
                Ok(settled)
            }
            Ok(_) => Err(QueueError::OutcomeUnknown),
            Err(error) => Err(error),
        };
        if result.is_ok() && !answers.dying.is_empty() {
            return self.settle(answers, None, now);
        }
        let group = answers.holding.place.group;
        self.groups.answered(group, &answers.retries);
        if let Some(reply) = answers.reply.take() {
            if let Err(error) = &result {
                self.count_refused(group, error);
            }
            return reply.send(result.map(|settled| self.taken(&answers, settled)));
        }
        let result = result.and_then(|_| match answers.left {
            0 => Ok(()),
            _ => Err(no_room()),
        });
        if let Err(error) = result {
            tracing::warn!(queue = %self.parts.key, group = group.0, %error, "not settled");
            return self.bury_later(group, now);
        }
        self.has_buried(group);
    }

    /// Answers as whoever gave them is told of them.
    fn taken(&self, answers: &Answers, settled: Settled) -> AnswersTaken {
        let mut left = Vec::new();
        if answers.left > 0 {
            let machine = self.parts.ground.machine.borrow();
            let held = machine.state.progress(answers.holding.place);
            let end = self.reading().map_or(Offset(0), |reading| reading.bounds().end_offset);
            let is_left = |held: &HeldProgress, span: &Span| {
                let numbers = held.numbers();
                let (from, to) = (span.from.max(numbers.floor).0, span.to.min(end).0);
                let is_open = from < to && numbers.passed.gaps(from, to).next().is_some();
                let in_hands = held.retry(span.from).is_some_and(|one| one.due == IN_HANDS);
                is_open || in_hands
            };
            left.extend(
                answers.named.iter().filter(|span| held.is_some_and(|it| is_left(it, span))),
            );
        }
        AnswersTaken { settled, left }
    }

    /// What the queue itself settles for a group cannot be settled now, as on a full disk.
    fn bury_later(&mut self, group: GroupId, now: TimestampMs) {
        let again = TimestampMs(now.0.saturating_add(BURY_RETRY_MS));
        if let Some(one) = self.groups.of_group_mut(group) {
            one.bury_again = Some(again);
        }
        self.wake_at(again);
    }

    /// What the queue itself settled for a group is done, or will not be: it goes on.
    fn has_buried(&mut self, group: GroupId) {
        if let Some(one) = self.groups.of_group_mut(group) {
            (one.is_burying, one.bury_again) = (false, None);
        }
    }

    fn read_letter(
        &self,
        holding: &Holding,
        dying: &Dying,
        (warmed, open): (Option<Offset>, &mut Option<OpenBatch>),
        now: TimestampMs,
    ) -> Read {
        let offset = dying.offset;
        let Some(reading) = self.reading() else { return Read::Unreadable };
        let gone = Letter { offset, batch: bytes::Bytes::new() };
        if offset < reading.bounds().log_start || offset >= reading.bounds().end_offset {
            return Read::Letter(gone);
        }
        if open.as_ref().is_none_or(|batch| batch.at(offset).is_none()) {
            let one = ReadLimits { bytes_max: 1, messages_max: 1 };
            let found = if warmed == Some(offset) {
                reading.warmed_batches(offset, one, 1).map(Batches::Warm)
            } else {
                reading.batches(offset, one)
            };
            *open = match found {
                Ok(Batches::Warm(batches)) => batches.first().and_then(OpenBatch::of),
                Ok(Batches::Cold(fault_in)) => return Read::Cold(fault_in),
                Err(_) => return Read::Unreadable,
            };
        }
        let death = Death {
            topic: self.parts.topic.clone(),
            queue: self.parts.key.queue,
            offset,
            reason: dying.reason.clone(),
            deliveries: dying.deliveries,
            group: self.group_name(holding.place.group),
            now,
        };
        let record = open.as_ref().and_then(|batch| batch.at(offset));
        let batch = record.and_then(|record| dead_letter(record, &death));
        batch.map_or(Read::Unreadable, |batch| Read::Letter(Letter { offset, batch }))
    }

    /// The group's name, as its topic of dead letters says it.
    fn group_name(&self, group: GroupId) -> String {
        let machine = self.parts.ground.machine.borrow();
        let config = machine.state.topic(group.dead_letters());
        let name = config.map_or("", |config| config.name.as_str());
        name.strip_prefix(DEAD_LETTER_PREFIX).unwrap_or(name).to_owned()
    }

    fn read_cold_letter(&mut self, answers: Box<Answers>, fault_in: FaultIn) {
        let Some(own) = &self.own else { return };
        let work = ColdWork::new(Cold::Letter(answers), own.warmed.clone());
        match self.parts.reader.try_put(ReadCold { fault_in, work }) {
            Ok(()) => {}
            Err(PutError::Full(ReadCold { work, .. })) => {
                let Some(Cold::Letter(answers)) = work.refused() else { return };
                let error = QueueError::Overloaded { retry_after_ms: OVERLOADED_RETRY_MS };
                let group = answers.group();
                self.groups.answered(group, &answers.retries);
                if let Some(reply) = answers.reply {
                    return reply.send(Err(error));
                }
                self.has_buried(group);
            }
            Err(PutError::Stopped(ReadCold { work, .. })) => {
                work.refused().into_iter().for_each(Cold::stopped);
            }
        }
    }

    /// The message that is given up next was brought into memory.
    pub(super) fn warmed_letter(
        &mut self,
        mut answers: Box<Answers>,
        batches_max: usize,
        now: TimestampMs,
    ) {
        if batches_max == 0
            && let Some(dying) = answers.dying.pop_front()
        {
            answers.nacks.push(unreadable(dying.offset, now));
        }
        let warmed = answers.dying.front().filter(|_| batches_max > 0).map(|dying| dying.offset);
        self.settle(answers, warmed, now);
    }
}
