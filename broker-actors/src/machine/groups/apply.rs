//! The items of groups, applied. Each element of an item is judged by itself against the state: what
//! is settled already stays so, so an item that is sent again does no harm.

use grus_protocol::ids::{Generation, Offset, TimestampMs};

use super::progress::Progress;
use super::ranges::Ranges;
use super::retries::{IN_HANDS, Retry};
use super::{Claimed, DEAD_LETTER_PREFIX, Moved, RANGES_MAX, Settled};
use crate::commands::groups::{
    Delivered, GroupItem, HandBack, Holding, Nack, ProgressKey, RetryTerms, Settle, Span,
};
use crate::machine::effect::{Effect, Outcome};
use crate::machine::{Machine, Moment, Refusal};
use crate::rings::OFFSETS_END;

impl Machine {
    pub(in crate::machine) fn apply_group(&mut self, moment: Moment, item: GroupItem) -> Effect {
        match item {
            GroupItem::Claim { holding, start, terms } => {
                Outcome::Claim(self.claim(moment.time, &holding, start, terms)).into()
            }
            GroupItem::Settle(settle) => self.settle(moment, &settle),
            GroupItem::Delivered(delivered) => {
                Outcome::Delivered(self.delivered(&delivered)).into()
            }
            GroupItem::Reset { place, to } => Outcome::Reset(self.reset_progress(place, to)).into(),
            GroupItem::Drop { group } => Outcome::DropGroup(self.drop_group(group)).into(),
            GroupItem::Change(change) => Outcome::GroupChange(self.change_group(&change)).into(),
            GroupItem::Redrive { place, to, letters } => self.redrive(moment, place, to, &letters),
            GroupItem::HandBack(back) => {
                Outcome::Delivered(self.hand_back(moment.time, &back)).into()
            }
            GroupItem::Purge { place, spans } => Outcome::Purge(self.purge(place, &spans)).into(),
        }
    }

    /// Whether the queue and the group are known here.
    pub(super) fn knows_place(&self, place: ProgressKey) -> Result<(), Refusal> {
        if self.queue(place.queue).is_none() {
            return Err(Refusal::UnknownQueue);
        }
        self.dead_letter_queue(place.group).map(drop).ok_or(Refusal::UnknownGroup)
    }

    /// Whether the queue holds no dead letters: what is settled of those is settled for good.
    fn is_users(&self, place: ProgressKey) -> Result<(), Refusal> {
        let topic = self.topic(place.queue.topic);
        let holds_letters =
            topic.is_some_and(|topic| topic.name.as_str().starts_with(DEAD_LETTER_PREFIX));
        if holds_letters { Err(Refusal::UnknownQueue) } else { Ok(()) }
    }

    /// First and end offset of a queue. Where a temporary one ends is known to its leader alone, which
    /// proposes nothing behind it.
    pub(super) fn bounds_of(&self, place: ProgressKey) -> (Offset, Offset) {
        let Some(numbers) = self.queue(place.queue) else { return Default::default() };
        let is_temporary = self.is_temporary(place.queue.topic);
        let end = if is_temporary { OFFSETS_END } else { numbers.next_offset };
        (numbers.visible_start, end.max(numbers.visible_start))
    }

    fn claim(
        &mut self,
        time: TimestampMs,
        holding: &Holding,
        start: Offset,
        terms: RetryTerms,
    ) -> Result<Claimed, Refusal> {
        let place = holding.place;
        self.knows_place(place)?;
        self.is_users(place)?;
        if holding.generation == Generation::NONE {
            return Err(Refusal::NotHeld { generation: Generation::NONE });
        }
        let (first, end) = self.bounds_of(place);
        self.begin_progress(place, start.clamp(first, end))?;
        let Some(held) = self.progress(place) else { return Err(Refusal::UnknownQueue) };
        let numbers = held.numbers();
        let known = (numbers.generation, numbers.member);
        let is_same = known == (holding.generation, holding.member);
        if !is_same && holding.generation <= numbers.generation {
            return Err(Refusal::NotHeld { generation: numbers.generation });
        }
        if !is_same {
            // What the one before had in its hands comes to the next one, at once.
            let in_hands: Vec<Retry> =
                held.in_hands().filter_map(|offset| held.retry(offset)).collect();
            for retry in in_hands {
                self.put_retry(place, Retry { due: time, ..retry });
            }
            self.mark_changed(place.queue);
        }
        let Some(progress) = self.change_progress(place) else {
            return Err(Refusal::UnknownQueue);
        };
        if !is_same {
            if progress.delivered_to > progress.floor {
                progress.attempts.add(progress.delivered_to);
            }
            progress.delivered_to = progress.floor;
            (progress.generation, progress.member) = (holding.generation, holding.member);
            progress.claimed = time;
        }
        progress.terms = terms;
        let (floor, round) = (progress.floor, progress.round);
        Ok(Claimed { floor, round, retries: self.retries_of(place) })
    }

    pub(super) fn retries_of(&self, place: ProgressKey) -> u64 {
        self.progress(place).map_or(0, |held| held.retries() as u64)
    }

    fn judge(&self, holding: &Holding) -> Result<&Progress, Refusal> {
        let held = self.progress(holding.place);
        let held = held.ok_or(Refusal::NotHeld { generation: Generation::NONE })?;
        held.numbers().judge(holding)?;
        Ok(held.numbers())
    }

    fn settle(&mut self, moment: Moment, settle: &Settle) -> Effect {
        if let Err(refusal) = self.judge(&settle.holding) {
            return Outcome::Settle(Err(refusal)).into();
        }
        let place = settle.holding.place;
        let mut left = 0;
        for span in &settle.acks {
            left += u32::from(!self.acknowledge(place, *span));
        }
        for nack in &settle.nacks {
            left += u32::from(!self.postpone(moment.time, place, *nack));
        }
        let (stored, index) = self.bury(moment, settle, &mut left);
        let floor = self.progress(place).map_or(Offset(0), |held| held.numbers().floor);
        let retries = self.retries_of(place);
        let outcome = Outcome::Settle(Ok(Settled { floor, retries, left, dead: stored }));
        Effect { outcome, index }
    }

    /// Settles what of the range is there; false if there was no room for it.
    fn acknowledge(&mut self, place: ProgressKey, span: Span) -> bool {
        let (_, end) = self.bounds_of(place);
        let (from, to) = (span.from, span.to.min(end));
        if from >= to {
            return true;
        }
        let waited = self.take_retries(place, from, to);
        let Some(progress) = self.change_progress(place) else { return true };
        let fresh = progress.pass(from, to, RANGES_MAX);
        let settled = waited.saturating_add(fresh.unwrap_or(0));
        progress.counts.settled = progress.counts.settled.saturating_add(settled);
        fresh.is_some()
    }

    /// Has a message that is not settled wait for its time; false if there was no room for it. One
    /// that waits already waits no longer than it did: an answer may be told twice.
    fn postpone(&mut self, time: TimestampMs, place: ProgressKey, nack: Nack) -> bool {
        let Nack { offset, due } = nack;
        let due = due.min(TimestampMs(IN_HANDS.0 - 1));
        let (_, end) = self.bounds_of(place);
        let Some(held) = self.progress(place).filter(|_| offset < end) else { return true };
        if let Some(retry) = held.retry(offset) {
            if retry.due == IN_HANDS || retry.due <= time {
                self.put_retry(place, Retry { due, ..retry });
            }
            return true;
        }
        if held.numbers().is_passed(offset) {
            return true; // settled
        }
        if self.room_for_retries(held) == 0 {
            return false;
        }
        let deliveries = held.numbers().deliveries(offset).max(1);
        let Some(progress) = self.change_progress(place) else { return true };
        let next = Offset(offset.0 + 1);
        if progress.pass(offset, next, RANGES_MAX).is_none() {
            return false;
        }
        self.put_retry(place, Retry { offset, due, deliveries });
        true
    }

    /// The leader sends: what of it is not for the group is settled, and deliveries are counted.
    /// False, and nothing is changed, when the queue is held by another one now.
    fn delivered(&mut self, delivered: &Delivered) -> bool {
        let place = delivered.holding.place;
        if self.judge(&delivered.holding).is_err() {
            return false;
        }
        let (_, end) = self.bounds_of(place);
        for offset in &delivered.again {
            let retry = self.progress(place).and_then(|held| held.retry(*offset));
            let Some(retry) = retry else { continue };
            let deliveries = retry.deliveries.saturating_add(1);
            self.put_retry(place, Retry { due: IN_HANDS, deliveries, ..retry });
        }
        let Some(progress) = self.change_progress(place) else { return false };
        progress.counts.redelivered += delivered.again.len() as u64;
        progress.delivered_to = progress.delivered_to.max(delivered.end.min(end));
        for span in &delivered.passed {
            // What finds no room is looked at again, after the next claim.
            let fresh = progress.pass(span.from, span.to.min(end), RANGES_MAX);
            let passed = progress.counts.passed.saturating_add(fresh.unwrap_or(0));
            progress.counts.passed = passed;
        }
        true
    }

    /// A member lets go of a queue: what it was sent and nobody saw was not delivered, and comes to
    /// the next holder as if it had never been sent. False, and nothing is changed, when the queue
    /// is held by another one now.
    fn hand_back(&mut self, time: TimestampMs, back: &HandBack) -> bool {
        let place = back.holding.place;
        if self.judge(&back.holding).is_err() {
            return false;
        }
        let mut in_work = Ranges::default();
        for span in &back.in_work {
            in_work.insert(span.from.0, span.to.0);
        }
        let unseen: Vec<Retry> = self.progress(place).map_or_else(Vec::new, |held| {
            let offsets = held.in_hands().filter(|offset| !in_work.contains(offset.0));
            offsets.filter_map(|offset| held.retry(offset)).collect()
        });
        for retry in unseen {
            let deliveries = retry.deliveries.saturating_sub(1).max(1);
            self.put_retry(place, Retry { due: time, deliveries, ..retry });
        }
        let Some(progress) = self.change_progress(place) else { return false };
        let seen_to = back.unseen_from.max(progress.floor);
        progress.delivered_to = progress.delivered_to.min(seen_to);
        self.mark_changed(place.queue);
        true
    }

    fn reset_progress(&mut self, place: ProgressKey, to: Offset) -> Result<Moved, Refusal> {
        self.knows_place(place)?;
        self.is_users(place)?;
        let (first, end) = self.bounds_of(place);
        let floor = to.clamp(first, end);
        self.begin_progress(place, floor)?;
        self.take_retries(place, Offset(0), Offset(u64::MAX));
        let Some(progress) = self.change_progress(place) else {
            return Err(Refusal::UnknownQueue);
        };
        progress.passed.clear();
        progress.attempts.clear();
        progress.floor = floor;
        progress.delivered_to = floor;
        progress.round = progress.round.saturating_add(1);
        let round = progress.round;
        self.mark_changed(place.queue);
        Ok(Moved { floor, round })
    }
}
