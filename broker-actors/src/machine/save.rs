//! Saving the state in parts, reading it back, and its digest.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::{BufMut, Bytes, BytesMut};
use grus_log::Part;
use thiserror::Error;

use super::dedup::Bucket;
use super::digest::{Tracked, part_hash};
use super::fence::Fence;
use super::freeze::Frozen;
use super::part::PartKey;
use super::produce::NamedProducer;
use super::queue::{QueueNumbers, QueueState};
use super::schedules::Schedule;
use super::window::Window;
use super::{HOUR_MS, Machine, ShardNumbers};
use crate::codec::{CodecError, Decoder};
use crate::commands::recurring::ScheduleKey;
use crate::commands::{TopicConfig, decode_topic_config, encode_topic_config};
use crate::timers::done::Done;
use crate::timers::run::Content;

const VERSION: u8 = 1;

/// Why a checkpoint's parts cannot be the state of this shard.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PartError {
    /// A key or value does not read.
    #[error("part {key:?}: {error}")]
    Unreadable {
        /// The key's bytes.
        key: Bytes,
        /// What is wrong.
        error: CodecError,
    },
    /// A part belongs to something that is not there.
    #[error("part {0:?} belongs to nothing")]
    Orphan(PartKey),
}

impl PartError {
    /// The key of the part, as bytes.
    pub fn key(&self) -> Bytes {
        match self {
            Self::Unreadable { key, .. } => key.clone(),
            Self::Orphan(part) => part.encode(),
        }
    }
}

impl ShardNumbers {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(VERSION);
        out.put_u64_le(self.next_producer);
        out.freeze()
    }

    fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        decoder.version(VERSION)?;
        let numbers = Self { next_producer: decoder.u64()? };
        decoder.finish()?;
        Ok(numbers)
    }
}

fn encode_topic(config: &TopicConfig) -> Bytes {
    let mut out = BytesMut::new();
    encode_topic_config(config, &mut out);
    out.freeze()
}

fn decode_topic(bytes: Bytes) -> Result<TopicConfig, CodecError> {
    decode_topic_config(Decoder::new(bytes))
}

impl Machine {
    /// The parts that changed since the last call, a part that is gone without a value.
    pub fn dirty_parts(&mut self) -> Vec<Part> {
        self.freeze(false);
        let mut parts = Vec::new();
        while self.frozen_parts(&mut parts).is_none() {}
        parts
    }

    /// Every part of the state.
    pub fn all_parts(&self) -> Vec<Part> {
        let queues = self.queues.iter().flat_map(|(key, state)| {
            let windows = state.windows.keys().map(|producer| PartKey::Window(*key, *producer));
            let dedup = state.dedup.buckets.keys().map(|number| PartKey::Dedup(*key, *number));
            std::iter::once(PartKey::Queue(*key)).chain(windows).chain(dedup)
        });
        std::iter::once(PartKey::Shard)
            .chain(self.topics.keys().map(|topic| PartKey::Topic(*topic)))
            .chain(queues)
            .chain(self.named_producers.keys().cloned().map(PartKey::NamedProducer))
            .chain(self.fences.keys().copied().map(PartKey::Fence))
            .chain(self.timer_parts(None))
            .chain(self.schedule_parts(None))
            .chain(self.group_parts(None))
            .map(|part| Part { key: part.encode(), value: self.encode_part(&part) })
            .collect()
    }

    /// A number that is equal on two replicas exactly if (but for chance) their states are.
    pub fn digest(&self) -> u64 {
        let frozen = self.frozen.iter().flat_map(Frozen::dirty);
        self.dirty.iter().chain(frozen).fold(self.clean_digest, |digest, part| {
            self.encode_part(part)
                .map_or(digest, |value| digest ^ part_hash(&part.encode(), &value))
        })
    }

    /// Takes the state that `parts` hold; later parts replace earlier ones of the same key.
    ///
    /// # Errors
    /// When a part does not read or belongs to nothing; the state is then as it was.
    pub fn restore(&mut self, parts: Vec<Part>) -> Result<(), PartError> {
        let mut latest = BTreeMap::new();
        for Part { key, value } in parts {
            let part = PartKey::decode(&key)
                .map_err(|error| PartError::Unreadable { key: key.clone(), error })?;
            latest.insert(part, value);
        }
        let mut fresh = Self::new(self.shard);
        let mut found_shard = false;
        for (part, value) in latest {
            let Some(value) = value else { continue };
            found_shard |= part == PartKey::Shard;
            fresh.restore_part(part, value)?;
        }
        if found_shard {
            fresh.dirty.clear();
        }
        *self = fresh;
        Ok(())
    }

    fn restore_part(&mut self, part: PartKey, value: Bytes) -> Result<(), PartError> {
        let key = part.encode();
        let hash = part_hash(&key, &value);
        self.clean_digest ^= hash;
        let unreadable = |error| PartError::Unreadable { key, error };
        match part {
            PartKey::Shard => {
                let numbers = ShardNumbers::decode(value).map_err(unreadable)?;
                self.numbers = Tracked::saved(numbers, hash);
            }
            PartKey::Topic(topic) => {
                let config = decode_topic(value).map_err(unreadable)?;
                self.topics.insert(topic, Tracked::saved(config, hash));
            }
            PartKey::Queue(queue) => {
                if !self.topics.contains_key(&queue.topic) {
                    return Err(PartError::Orphan(part));
                }
                let numbers = QueueNumbers::decode(value).map_err(unreadable)?;
                let numbers = Tracked::saved(numbers, hash);
                self.queues.insert(queue, QueueState { numbers, ..QueueState::default() });
            }
            PartKey::Window(queue, producer) => {
                let window = Window::decode(value).map_err(unreadable)?;
                let state = self.queues.get_mut(&queue).ok_or(PartError::Orphan(part))?;
                let hour = window.last_stored().0 / HOUR_MS;
                self.windows_by_hour.entry(hour).or_default().insert((queue, producer));
                self.windows += 1;
                state.windows.insert(producer, Tracked::saved(window, hash));
            }
            PartKey::NamedProducer(name) => {
                let named = NamedProducer::decode(value).map_err(unreadable)?;
                self.epochs.insert(named.producer, named.epoch);
                self.named_producers.insert(name, Tracked::saved(named, hash));
            }
            PartKey::Dedup(queue, number) => {
                let bucket = Bucket::decode(value).map_err(unreadable)?;
                if !self.restore_bucket(queue, number, bucket, hash) {
                    return Err(PartError::Orphan(part));
                }
            }
            PartKey::Fence(producer) => {
                let fence = Fence::decode(value).map_err(unreadable)?;
                self.epochs.insert(producer, fence.epoch);
                self.fences.insert(producer, Tracked::saved(fence, hash));
            }
            PartKey::TimerRun(run) => {
                let content = Content::decode(value).map_err(unreadable)?;
                if !self.restore_run(run, content, hash) {
                    return Err(PartError::Orphan(part));
                }
            }
            PartKey::TimerDone(run) => {
                let timers = self.timers.runs.get(&run).map_or(0, |held| held.content.get().len());
                let done = Done::decode(value, timers).map_err(unreadable)?;
                if !self.restore_done(run, done, hash) {
                    return Err(PartError::Orphan(part));
                }
            }
            PartKey::Schedule(key) => {
                if !self.queues.contains_key(&key.queue) {
                    return Err(PartError::Orphan(PartKey::Schedule(key)));
                }
                let schedule = Schedule::decode(value).map_err(unreadable)?;
                self.schedules.restore(key, schedule, hash);
            }
            _ => return self.restore_group_part(part, value, hash),
        }
        Ok(())
    }

    /// Keys of the parts of schedules behind `after`, in order.
    pub(super) fn schedule_parts(
        &self,
        after: Option<&ScheduleKey>,
    ) -> impl Iterator<Item = PartKey> {
        self.schedules.keys_behind(after).cloned().map(PartKey::Schedule)
    }

    /// Keys of the parts of timers behind `after`, in order.
    pub(super) fn timer_parts(&self, after: Option<&PartKey>) -> impl Iterator<Item = PartKey> {
        let runs = match after {
            Some(PartKey::TimerRun(run)) => Some(Bound::Excluded(*run)),
            Some(PartKey::TimerDone(_)) => None,
            _ => Some(Bound::Unbounded),
        };
        let runs = runs.map(|from| self.timers.runs.range((from, Bound::Unbounded)));
        let runs = runs.into_iter().flatten().map(|(run, _)| PartKey::TimerRun(*run));
        let done = match after {
            Some(PartKey::TimerDone(run)) => Bound::Excluded(*run),
            _ => Bound::Unbounded,
        };
        let done = self.timers.runs.range((done, Bound::Unbounded));
        let done = done.filter(|(_, held)| held.done.get().count() > 0);
        runs.chain(done.map(|(run, _)| PartKey::TimerDone(*run)))
    }

    pub(super) fn encode_part(&self, part: &PartKey) -> Option<Bytes> {
        match part {
            PartKey::Shard => Some(self.numbers.get().encode()),
            PartKey::Topic(topic) => {
                self.topics.get(topic).map(|config| encode_topic(config.get()))
            }
            PartKey::Queue(queue) => {
                self.queues.get(queue).map(|state| state.numbers.get().encode())
            }
            PartKey::Window(queue, producer) => {
                let state = self.queues.get(queue)?;
                state.windows.get(producer).map(|window| window.get().encode())
            }
            PartKey::NamedProducer(name) => {
                self.named_producers.get(name).map(|named| named.get().encode())
            }
            PartKey::Dedup(queue, number) => {
                let dedup = &self.queues.get(queue)?.dedup;
                dedup.buckets.get(number).map(|bucket| bucket.get().encode())
            }
            PartKey::Fence(producer) => self.fences.get(producer).map(|fence| fence.get().encode()),
            PartKey::TimerRun(run) => {
                self.timers.runs.get(run).map(|held| held.content.get().encode())
            }
            PartKey::TimerDone(run) => self.timers.runs.get(run)?.done.get().encode(),
            PartKey::Schedule(key) => self.schedule(key).map(Schedule::encode),
            _ => self.encode_group_part(part),
        }
    }

    pub(super) fn save_part(&mut self, part: &PartKey, hash: u64) {
        match part {
            PartKey::Shard => self.numbers.save(hash),
            PartKey::Topic(topic) => {
                if let Some(config) = self.topics.get_mut(topic) {
                    config.save(hash);
                }
            }
            PartKey::Queue(queue) => {
                if let Some(state) = self.queues.get_mut(queue) {
                    state.numbers.save(hash);
                }
            }
            PartKey::Window(queue, producer) => {
                let state = self.queues.get_mut(queue);
                if let Some(window) = state.and_then(|state| state.windows.get_mut(producer)) {
                    window.save(hash);
                }
            }
            PartKey::NamedProducer(name) => {
                if let Some(named) = self.named_producers.get_mut(name) {
                    named.save(hash);
                }
            }
            PartKey::Dedup(queue, number) => {
                let state = self.queues.get_mut(queue);
                let bucket = state.and_then(|state| state.dedup.buckets.get_mut(number));
                if let Some(bucket) = bucket {
                    bucket.save(hash);
                }
            }
            PartKey::Fence(producer) => {
                if let Some(fence) = self.fences.get_mut(producer) {
                    fence.save(hash);
                }
            }
            PartKey::TimerRun(run) => {
                if let Some(held) = self.timers.runs.get_mut(run) {
                    held.content.save(hash);
                }
            }
            PartKey::TimerDone(run) => {
                if let Some(held) = self.timers.runs.get_mut(run) {
                    held.done.save(hash);
                }
            }
            PartKey::Schedule(key) => {
                if let Some(schedule) = self.schedules.by_key.get_mut(key) {
                    schedule.save(hash);
                }
            }
            _ => self.save_group_part(part, hash),
        }
    }
}
