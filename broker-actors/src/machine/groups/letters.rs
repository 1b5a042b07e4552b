//! Dead letters: stored with the settling of what they are of, sent back, forgotten.
//!
//! What was sent back or forgotten of a queue of dead letters is the group's progress in that
//! queue.

use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, QueueKey, TopicId};

use super::RANGES_MAX;
use crate::commands::groups::{Letter, ProgressKey, Settle, Span, redriven_places};
use crate::machine::effect::{Effect, IndexChange, Outcome, ReleasedRun};
use crate::machine::{Appended, Machine, Moment, Refusal};

impl Machine {
    /// Stores dead letters and settles what they are of: both or neither, each by itself. Those
    /// that are settled already are not stored again.
    pub(super) fn bury(
        &mut self,
        moment: Moment,
        settle: &Settle,
        left: &mut u32,
    ) -> (u32, Option<IndexChange>) {
        let place = settle.holding.place;
        let queue = QueueKey { topic: TopicId(place.group.0), queue: settle.letters_to };
        let mut runs = Vec::new();
        for (letter, at) in settle.letters.iter().zip(settle.letter_places()) {
            if !self.is_open(place, letter.offset) {
                continue;
            }
            let stored = if letter.batch.is_empty() {
                Ok(None)
            } else {
                self.move_letter(moment, place, letter, queue).map(Some)
            };
            let Ok(stored) = stored else {
                *left += 1;
                continue;
            };
            if stored.is_none() && !self.settle_one(place, letter.offset) {
                *left += 1;
                continue;
            }
            let Some(progress) = self.change_progress(place) else { continue };
            match stored {
                Some((appended, batch)) => {
                    progress.counts.dead += 1;
                    runs.push(ReleasedRun { place: at, appended, batch });
                }
                None => progress.counts.lost += 1,
            }
        }
        let dead = u32::try_from(runs.len()).unwrap_or(u32::MAX);
        (dead, Self::released(queue, runs))
    }

    /// Whether a message is there and not settled, and could be settled now.
    fn is_open(&self, place: ProgressKey, offset: Offset) -> bool {
        let (_, end) = self.bounds_of(place);
        let Some(held) = self.progress(place).filter(|_| offset < end) else { return false };
        held.retry(offset).is_some() || !held.numbers().is_passed(offset)
    }

    fn has_room_to_settle(&self, place: ProgressKey, offset: Offset) -> bool {
        let Some(held) = self.progress(place) else { return false };
        let numbers = held.numbers();
        let joins = offset <= numbers.floor || numbers.passed.joins(offset.0, offset.0 + 1);
        joins || numbers.passed.len() < RANGES_MAX
    }

    fn settle_one(&mut self, place: ProgressKey, offset: Offset) -> bool {
        self.take_retry(place, offset);
        let next = Offset(offset.0 + 1);
        let progress = self.change_progress(place);
        progress.is_some_and(|progress| progress.pass(offset, next, RANGES_MAX).is_some())
    }

    /// Stores a letter in a queue, and settles it where it comes from.
    fn move_letter(
        &mut self,
        moment: Moment,
        place: ProgressKey,
        letter: &Letter,
        to: QueueKey,
    ) -> Result<(Appended, RecordBatch), Refusal> {
        if !self.has_room_to_settle(place, letter.offset) {
            return Err(Refusal::Limit { what: "ranges of a group", limit: RANGES_MAX });
        }
        let batch = RecordBatch::from_log(letter.batch.clone());
        let batch = batch.map_err(|_| Refusal::MalformedBatch)?;
        if batch.count() == 0 {
            return Err(Refusal::MalformedBatch);
        }
        let appended = self.store_in_queue(moment, to, &batch)?;
        let settled = self.settle_one(place, letter.offset);
        debug_assert!(settled, "there was room");
        Ok((appended, batch))
    }

    /// Whether these are a group's dead letters; if so, they have a progress from here on.
    fn open_letters(&mut self, place: ProgressKey) -> Result<(), Refusal> {
        self.knows_place(place)?;
        if place.queue.topic != TopicId(place.group.0) {
            return Err(Refusal::UnknownQueue);
        }
        let (first, _) = self.bounds_of(place);
        self.begin_progress(place, first)
    }

    /// Stores dead letters where they came from, and settles them. Those that are settled already
    /// are left alone, so none is sent back twice.
    pub(super) fn redrive(
        &mut self,
        moment: Moment,
        place: ProgressKey,
        to: QueueKey,
        letters: &[Letter],
    ) -> Effect {
        if let Err(refusal) = self.open_letters(place) {
            return Outcome::Redrive(Err(refusal)).into();
        }
        let (mut runs, mut refused) = (Vec::new(), None);
        for (letter, at) in letters.iter().zip(redriven_places(letters)) {
            if !self.is_open(place, letter.offset) {
                continue;
            }
            match self.move_letter(moment, place, letter, to) {
                Ok((appended, batch)) => runs.push(ReleasedRun { place: at, appended, batch }),
                Err(refusal) => refused = Some(refusal),
            }
        }
        let sent = runs.len() as u64;
        if let Some(progress) = self.change_progress(place) {
            progress.counts.settled += sent;
        }
        let result = refused.filter(|_| sent == 0).map_or(Ok(sent), Err);
        Effect { outcome: Outcome::Redrive(result), index: Self::released(to, runs) }
    }

    /// Forgets dead letters; how many.
    pub(super) fn purge(&mut self, place: ProgressKey, spans: &[Span]) -> Result<u64, Refusal> {
        self.open_letters(place)?;
        let (_, end) = self.bounds_of(place);
        let Some(progress) = self.change_progress(place) else { return Err(Refusal::UnknownQueue) };
        let mut purged = 0;
        for span in spans {
            let fresh = progress.pass(span.from, span.to.min(end), RANGES_MAX);
            let limit = Refusal::Limit { what: "ranges of a group", limit: RANGES_MAX };
            let fresh = fresh.ok_or(limit)?;
            progress.counts.passed = progress.counts.passed.saturating_add(fresh);
            purged += fresh;
        }
        Ok(purged)
    }
}
