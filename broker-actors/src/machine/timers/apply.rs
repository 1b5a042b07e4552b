//! Applying items about scheduled messages.

use grus_log::Position;
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{Offset, QueueKey, TimestampMs, TopicId};

use super::Held;
use crate::commands::delay::{ROLL_HEADER_BYTES, ReleasedBatch, release_places};
use crate::machine::digest::Tracked;
use crate::machine::part::PartKey;
use crate::machine::{
    Appended, IndexChange, Machine, Moment, Outcome, Refusal, ReleasedRun, TIMERS_MAX,
};
use crate::timers::TimerId;
use crate::timers::done::Done;
use crate::timers::run::{Content, NewBatch, RunForm};

/// Runs of fewer timers are not worth writing anew.
const COMPACTED_TIMERS_MIN: usize = 64;

impl Machine {
    /// Whether a batch of so many records can be scheduled, its first timer being `first`.
    pub(in crate::machine) fn may_schedule(
        &self,
        first: TimerId,
        count: usize,
    ) -> Result<(), Refusal> {
        if self.timers.pending + count > TIMERS_MAX {
            return Err(Refusal::Limit { what: "scheduled messages", limit: TIMERS_MAX });
        }
        let last = self.timers.runs.last_key_value().map(|(_, held)| {
            let content = held.content.get();
            content.timer(content.len() - 1).id
        });
        if last.is_some_and(|last| last >= first) { Err(Refusal::MalformedBatch) } else { Ok(()) }
    }

    /// Adds the timers of a batch that [`Machine::may_schedule`]. A run that it begins has this form.
    pub(in crate::machine) fn add_timers(&mut self, batch: &NewBatch<'_>, form: RunForm) {
        let last = self.timers.runs.last_key_value();
        let run = match last {
            Some((run, held)) if held.content.get().takes(batch) => *run,
            _ => batch.first,
        };
        let part = PartKey::TimerRun(run);
        self.touch(&part);
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        if run == batch.first {
            if let Some((_, held)) = self.timers.runs.iter_mut().next_back() {
                held.content.tidy(Content::pack);
            }
            let mut content = Content::new(batch.first.index, form);
            content.push(batch);
            dirty.insert(part);
            self.timers.runs.insert(run, Held::new(Tracked::unsaved(content)));
        } else if let Some(held) = self.timers.runs.get_mut(&run) {
            let content = held.content.change(|hash| {
                *digest ^= hash;
                dirty.insert(part);
            });
            content.push(batch);
            held.order = None;
            held.reach.take();
            held.bytes += u64::from(batch.length);
            held.min_due = batch.due.iter().copied().fold(held.min_due, TimestampMs::min);
        }
        self.timers.added(batch.queue, batch.first, batch.due);
    }

    /// Lets messages be seen. A batch all of whose timers are pending, of this queue, and due is
    /// stored in the queue; any other is left alone, and tried again by whoever proposed it.
    pub(in crate::machine) fn apply_release(
        &mut self,
        moment: Moment,
        queue: QueueKey,
        batches: &[ReleasedBatch],
    ) -> (Outcome, Vec<ReleasedRun>) {
        let mut runs = Vec::new();
        for (place, released) in release_places(batches).zip(batches) {
            let Ok(batch) = RecordBatch::from_log(released.batch.clone()) else { continue };
            let is_whole = batch.count() == released.timers && batch.count() > 0;
            if !is_whole || !self.may_release(moment, queue, released) {
                continue;
            }
            let Ok(appended) = self.store_in_queue(moment, queue, &batch) else { continue };
            self.finish_timers(released.timer, released.timers);
            runs.push(ReleasedRun { place, appended, batch });
        }
        let count = u32::try_from(runs.len()).expect("an item's batches are bounded");
        (Outcome::Release(count), runs)
    }

    fn may_release(&self, moment: Moment, queue: QueueKey, released: &ReleasedBatch) -> bool {
        let Some((_, held)) = self.timers.runs.range(..=released.timer).next_back() else {
            return false;
        };
        let (content, done) = (held.content.get(), held.done.get());
        let Some(first) = content.find(released.timer) else { return false };
        let timer = content.timer(first);
        let last = timer.number().saturating_add(released.timers);
        timer.queue == queue
            && last <= timer.count
            && (first..first + released.timers as usize)
                .all(|position| !done.contains(position) && content.due(position) <= moment.time)
    }

    /// Takes a message back. False when there is nothing to take back any more.
    pub(in crate::machine) fn apply_recall(&mut self, queue: QueueKey, timer: TimerId) -> bool {
        let known = self.timers.get(timer).is_some_and(|timer| timer.queue == queue);
        if known {
            self.finish_timers(timer, 1);
        }
        known
    }

    /// A batch lies in this entry from now on. False when nobody needs it any more.
    pub(in crate::machine) fn apply_roll(
        &mut self,
        moment: Moment,
        queue: QueueKey,
        batch: TimerId,
        length: usize,
    ) -> bool {
        let Some((&run, held)) = self.timers.runs.range(..=batch).next_back() else { return false };
        let (content, done) = (held.content.get(), held.done.get());
        let Some(first) = content.find(batch) else { return false };
        let timer = content.timer(first);
        let mut positions = first..first + timer.count as usize;
        let is_meant = timer.batch == batch
            && timer.queue == queue
            && timer.length as usize == length
            && !positions.all(|position| done.contains(position));
        if !is_meant {
            return false;
        }
        self.touch(&PartKey::TimerRun(run));
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let Some(held) = self.timers.runs.get_mut(&run) else { return false };
        let content = held.content.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::TimerRun(run));
        });
        held.reach.take();
        let byte = moment.byte.saturating_add(ROLL_HEADER_BYTES);
        content.carry(batch, Position { index: moment.index, byte })
    }

    /// `count` timers of one batch, from `first` on, are over.
    fn finish_timers(&mut self, first: TimerId, count: u32) {
        let Some((&run, held)) = self.timers.runs.range(..=first).next_back() else { return };
        let Some(position) = held.content.get().find(first) else { return };
        let topic = held.content.get().timer(position).queue.topic;
        self.finish_positions(run, topic, position..position + count as usize);
    }

    /// Timers of one run, all of this topic, are over.
    fn finish_positions(
        &mut self,
        run: TimerId,
        topic: TopicId,
        positions: impl IntoIterator<Item = usize>,
    ) {
        self.touch(&PartKey::TimerDone(run));
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let Some(held) = self.timers.runs.get_mut(&run) else { return };
        let before = held.pending();
        let done = held.done.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::TimerDone(run));
        });
        let over = positions.into_iter().filter(|position| done.insert(*position)).count();
        self.timers.gone(topic, over);
        self.tidy_run(run, before);
    }

    /// After timers of a run are over: it goes when all are, and is written anew each time another
    /// half is.
    fn tidy_run(&mut self, run: TimerId, pending_before: usize) {
        let Some(held) = self.timers.runs.get(&run) else { return };
        let (pending, timers) = (held.pending(), held.content.get().len());
        if pending == 0 {
            self.touch(&PartKey::TimerRun(run));
            self.touch(&PartKey::TimerDone(run));
            if let Some(held) = self.timers.runs.remove(&run) {
                self.forget_part(PartKey::TimerRun(run), held.content.clean_hash());
                self.forget_part(PartKey::TimerDone(run), held.done.clean_hash());
            }
            return;
        }
        // The greatest power of two by which it was divided rises: alike on every replica.
        let halvings = |pending: usize| (timers / pending).ilog2();
        if timers < COMPACTED_TIMERS_MIN || halvings(pending) == halvings(pending_before) {
            return;
        }
        self.touch(&PartKey::TimerRun(run));
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let Some(held) = self.timers.runs.get_mut(&run) else { return };
        let (content, done) = held.content.get().without(held.done.get());
        if content.len() == timers {
            return;
        }
        held.order = None;
        held.reach.take();
        held.min_due = content.min_due();
        held.bytes = content.bytes();
        *held.content.change(|hash| {
            *digest ^= hash;
            dirty.insert(PartKey::TimerRun(run));
        }) = content;
        // It was changed just now, so it is named as dirty already.
        if done.count() == 0 {
            held.done = Tracked::saved(done, 0);
        } else {
            *held.done.change(|hash| *digest ^= hash) = done;
        }
    }

    /// A topic is gone, and nobody waits for its messages any more.
    pub(in crate::machine) fn drop_timers_of(&mut self, topic: TopicId) {
        if !self.timers.by_topic.contains_key(&topic) {
            return;
        }
        let runs = self.timers.runs.iter();
        let concerned =
            runs.filter(|(_, held)| held.content.get().queues().any(|q| q.topic == topic));
        let concerned: Vec<TimerId> = concerned.map(|(run, _)| *run).collect();
        for run in concerned {
            let Some(held) = self.timers.runs.get(&run) else { continue };
            let positions = held.content.get().positions_of(topic, held.done.get());
            if !positions.is_empty() {
                self.finish_positions(run, topic, positions);
            }
        }
    }

    /// Takes a run out of a checkpoint.
    pub(in crate::machine) fn restore_run(
        &mut self,
        run: TimerId,
        content: Content,
        hash: u64,
    ) -> bool {
        let is_its_own = !content.is_empty() && run <= content.timer(0).id;
        let before = self.timers.runs.last_key_value().map(|(_, held)| {
            let content = held.content.get();
            content.timer(content.len() - 1).id
        });
        if !is_its_own || before.is_some_and(|before| before >= run) {
            return false;
        }
        self.timers.pending += content.len();
        for (topic, count) in content.counts_by_topic() {
            *self.timers.by_topic.entry(topic).or_default() += count;
        }
        self.timers.runs.insert(run, Held::new(Tracked::saved(content, hash)));
        true
    }

    /// Takes a run's bits out of a checkpoint.
    pub(in crate::machine) fn restore_done(&mut self, run: TimerId, done: Done, hash: u64) -> bool {
        let Some(held) = self.timers.runs.get_mut(&run) else { return false };
        let content = held.content.get();
        if done.count() >= content.len() {
            return false;
        }
        let over = (0..content.len()).filter(|position| done.contains(*position));
        let over: Vec<TopicId> = content.timers_at(over).map(|timer| timer.queue.topic).collect();
        held.done = Tracked::saved(done, hash);
        for topic in over {
            self.timers.gone(topic, 1);
        }
        true
    }

    /// What stored an entry's released messages, for the index.
    pub(in crate::machine) fn released(
        queue: QueueKey,
        runs: Vec<ReleasedRun>,
    ) -> Option<IndexChange> {
        if runs.is_empty() { None } else { Some(IndexChange::Released { queue, runs }) }
    }

    /// The receipt of a batch that was scheduled.
    pub(in crate::machine) const fn scheduled(
        moment: Moment,
        first: TimerId,
        count: u32,
    ) -> Appended {
        Appended {
            base_offset: Offset(0),
            timer: Some(first),
            count,
            term: moment.term,
            stored: moment.time,
            duplicate: false,
        }
    }
}
