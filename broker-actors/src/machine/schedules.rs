//! Schedules of recurring messages in the state: made, paused, run, removed.
//!
//! A schedule's next time changes only by an item that names it, so a run is never doubled: a
//! second Run of the same time finds another next time, and does nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::batch::RecordBatch;
use grus_protocol::ids::{TimestampMs, TopicId};

use super::digest::Tracked;
use super::effect::{Effect, IndexChange, Outcome, ReleasedRun};
use super::part::PartKey;
use super::{Machine, Moment, Refusal};
use crate::codec::{CodecError, Decoder};
use crate::commands::recurring::{Recurring, ScheduleKey, ScheduleTerms};
use crate::schedule::{MISSED_AFTER_MS, NEVER, Progress, Step};

/// Most schedules in a shard.
pub const SCHEDULES_MAX: usize = 10_000;
/// Most bytes of messages of all schedules of a shard.
pub const SCHEDULE_BYTES_MAX: usize = 64 * 1024 * 1024;

const VERSION: u8 = 1;

/// A schedule and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it is.
    pub terms: ScheduleTerms,
    /// Whether it rests.
    pub is_paused: bool,
    /// Where it stands.
    pub progress: Progress,
    /// Messages that it has sent.
    pub runs: u64,
}

impl Schedule {
    /// When it is due; [`NEVER`] while it rests.
    pub const fn due(&self) -> TimestampMs {
        if self.is_paused { NEVER } else { self.progress.next }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(u8::from(self.is_paused));
        out.put_bytes(0, 2);
        out.put_u32_le(self.progress.made_up);
        out.put_u64_le(self.progress.next.0);
        out.put_u64_le(self.runs);
        self.terms.encode(&mut out);
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let is_paused = match decoder.u8()? {
            0 => false,
            1 => true,
            _ => return Err(CodecError::Value("flag")),
        };
        decoder.take(2)?;
        let made_up = decoder.u32()?;
        let progress = Progress { next: TimestampMs(decoder.u64()?), made_up };
        let runs = decoder.u64()?;
        Ok(Self { terms: ScheduleTerms::decode(decoder)?, is_paused, progress, runs })
    }
}

/// All schedules of a shard.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    pub(super) by_key: BTreeMap<ScheduleKey, Tracked<Schedule>>,
    /// By their next time, but those that rest; derived.
    by_due: BTreeSet<(TimestampMs, ScheduleKey)>,
    /// Bytes of their messages; derived.
    bytes: usize,
}

impl Schedules {
    /// Takes one in, in all that is derived.
    fn enter(&mut self, key: &ScheduleKey, schedule: &Schedule) {
        self.bytes += schedule.terms.batch.len();
        self.expect(key, schedule.due());
    }

    fn expect(&mut self, key: &ScheduleKey, due: TimestampMs) {
        if due != NEVER {
            self.by_due.insert((due, key.clone()));
        }
    }

    pub(super) fn restore(&mut self, key: ScheduleKey, schedule: Schedule, hash: u64) {
        self.enter(&key, &schedule);
        self.by_key.insert(key, Tracked::saved(schedule, hash));
    }

    /// Keys behind `after`, in order.
    pub(super) fn keys_behind(
        &self,
        after: Option<&ScheduleKey>,
    ) -> impl Iterator<Item = &ScheduleKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range::<ScheduleKey, _>((from, Bound::Unbounded)).map(|(key, _)| key)
    }
}

impl Machine {
    /// A schedule.
    pub fn schedule(&self, key: &ScheduleKey) -> Option<&Schedule> {
        self.schedules.by_key.get(key).map(Tracked::get)
    }

    /// The schedules behind `after`, in order.
    pub fn schedules_behind(
        &self,
        after: Option<&ScheduleKey>,
    ) -> impl Iterator<Item = (&ScheduleKey, &Schedule)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let schedules = self.schedules.by_key.range::<ScheduleKey, _>((from, Bound::Unbounded));
        schedules.map(|(key, schedule)| (key, schedule.get()))
    }

    /// How many schedules there are, and how many of them wait for a next run.
    #[must_use]
    pub fn schedule_counts(&self) -> (usize, usize) {
        (self.schedules.by_key.len(), self.schedules.by_due.len())
    }

    /// Those that are due at `now`: those in time before those that were missed, so that whoever
    /// makes up for a long absence makes nobody else late; the earliest first of both.
    pub fn schedules_due(&self, now: TimestampMs) -> impl Iterator<Item = &ScheduleKey> {
        let in_time = now.0.saturating_sub(MISSED_AFTER_MS);
        let by_due = &self.schedules.by_due;
        let due = by_due.iter().skip_while(move |(due, _)| due.0 < in_time);
        let due = due.take_while(move |(due, _)| *due <= now);
        let missed = by_due.iter().take_while(move |(due, _)| due.0 < in_time);
        due.chain(missed).map(|(_, key)| key)
    }

    pub(super) fn apply_recurring(&mut self, moment: Moment, item: Recurring) -> Effect {
        match item {
            Recurring::Create { key, terms, next } => {
                Outcome::Schedule(self.create_schedule(key, terms, next)).into()
            }
            Recurring::Pause { key, is_paused, next } => {
                let done = self.change_schedule(&key, |schedule| {
                    // The next time never goes back: what has run does not run again.
                    if schedule.is_paused && !is_paused {
                        let next = next.max(schedule.progress.next);
                        schedule.progress = Progress { next, made_up: 0 };
                    }
                    schedule.is_paused = is_paused;
                });
                Outcome::Schedule(if done { Ok(()) } else { Err(Refusal::UnknownSchedule) }).into()
            }
            Recurring::Delete { key } => {
                let done = self.forget_schedule(&key);
                Outcome::Schedule(if done { Ok(()) } else { Err(Refusal::UnknownSchedule) }).into()
            }
            Recurring::Run { key, step, batch } => self.run_schedule(moment, &key, &step, batch),
        }
    }

    fn create_schedule(
        &mut self,
        key: ScheduleKey,
        terms: ScheduleTerms,
        next: TimestampMs,
    ) -> Result<(), Refusal> {
        if !self.queues.contains_key(&key.queue) {
            return Err(Refusal::UnknownQueue);
        }
        if let Some(known) = self.schedule(&key) {
            // The same again: its maker was not sure that it was made.
            return if known.terms == terms { Ok(()) } else { Err(Refusal::ScheduleExists) };
        }
        if self.schedules.by_key.len() >= SCHEDULES_MAX {
            return Err(Refusal::Limit { what: "schedules", limit: SCHEDULES_MAX });
        }
        if self.schedules.bytes + terms.batch.len() > SCHEDULE_BYTES_MAX {
            let what = "bytes of schedules";
            return Err(Refusal::Limit { what, limit: SCHEDULE_BYTES_MAX });
        }
        let part = PartKey::Schedule(key.clone());
        self.touch(&part);
        self.dirty.insert(part);
        let progress = Progress { next, made_up: 0 };
        let schedule = Schedule { terms, is_paused: false, progress, runs: 0 };
        self.schedules.enter(&key, &schedule);
        self.schedules.by_key.insert(key, Tracked::unsaved(schedule));
        Ok(())
    }

    /// Changes a schedule; false if it is not there.
    fn change_schedule(&mut self, key: &ScheduleKey, change: impl FnOnce(&mut Schedule)) -> bool {
        let part = PartKey::Schedule(key.clone());
        self.touch(&part);
        let Some(schedule) = self.schedules.by_key.get_mut(key) else { return false };
        self.schedules.by_due.remove(&(schedule.get().due(), key.clone()));
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let schedule = schedule.change(|hash| {
            *digest ^= hash;
            dirty.insert(part);
        });
        change(schedule);
        let due = schedule.due();
        self.schedules.expect(key, due);
        true
    }

    fn forget_schedule(&mut self, key: &ScheduleKey) -> bool {
        let part = PartKey::Schedule(key.clone());
        self.touch(&part);
        let Some(schedule) = self.schedules.by_key.remove(key) else { return false };
        self.schedules.by_due.remove(&(schedule.get().due(), key.clone()));
        self.schedules.bytes -= schedule.get().terms.batch.len();
        self.forget_part(part, schedule.clean_hash());
        true
    }

    /// A topic goes, and its schedules with it.
    pub(super) fn drop_schedules_of(&mut self, topic: TopicId) {
        let keys = self.schedules.by_key.keys();
        let gone: Vec<_> = keys.filter(|key| key.queue.topic == topic).cloned().collect();
        for key in &gone {
            self.forget_schedule(key);
        }
    }

    /// A step that is not the schedule's next one changes nothing.
    fn run_schedule(
        &mut self,
        moment: Moment,
        key: &ScheduleKey,
        step: &Step,
        batch: Bytes,
    ) -> Effect {
        let counts = self.schedule(key).is_some_and(|schedule| schedule.due() == step.due);
        if !counts || step.next <= step.due {
            return Outcome::ScheduleRun(false).into();
        }
        let mut index = None;
        if step.runs
            && let Ok(batch) = RecordBatch::from_log(batch)
            && batch.count() > 0
            && let Ok(appended) = self.store_in_queue(moment, key.queue, &batch)
        {
            let place = Recurring::run_header_bytes(key);
            let runs = vec![ReleasedRun { place, appended, batch }];
            index = Some(IndexChange::Released { queue: key.queue, runs });
        }
        let sent = u64::from(index.is_some());
        self.change_schedule(key, |schedule| {
            schedule.progress = schedule.progress.after(step);
            schedule.runs += sent;
        });
        Effect { outcome: Outcome::ScheduleRun(true), index }
    }
}
