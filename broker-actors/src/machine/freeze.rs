//! A checkpoint in slices: the state at one moment, encoded bit by bit while entries go on.
//!
//! [`Machine::freeze`] fixes the moment and costs nothing. [`Machine::frozen_parts`] then gives some
//! parts at a time. What is about to change before its turn has come is given first, as it still
//! is ([`Machine::touch`], copy on write); so the parts are those of that moment, whatever is
//! applied in between.

use std::collections::BTreeSet;
use std::ops::Bound;

use grus_log::Part;
use grus_protocol::ids::{ProducerId, QueueKey};
use grus_protocol::names::ProducerName;

use super::Machine;
use super::digest::part_hash;
use super::part::PartKey;

/// Parts given in one slice: each takes about a microsecond.
pub const SLICE_PARTS_MAX: usize = 256;
/// A slice ends behind the part that brings its values to this many bytes.
pub const SLICE_BYTES_MAX: usize = 256 * 1024;

/// What is still to be given of the frozen state.
#[derive(Debug)]
pub(super) struct Frozen {
    /// All parts are wanted, not only those that had changed.
    whole: bool,
    /// Had changed, and have not been given.
    dirty: BTreeSet<PartKey>,
    /// Wanted whole: every part up to this one has been given.
    cursor: Option<PartKey>,
    /// Wanted whole: behind the cursor, but given already, or not there at that moment.
    settled: BTreeSet<PartKey>,
    /// Given ahead of its turn, to leave with the next slice.
    early: Vec<Part>,
    /// The digest of that moment, but for what is still in `dirty`.
    digest: u64,
}

impl Frozen {
    /// Whether the part is still to be given as it is now.
    fn awaits(&self, key: &PartKey) -> bool {
        if self.whole {
            self.cursor.as_ref().is_none_or(|cursor| key > cursor) && !self.settled.contains(key)
        } else {
            self.dirty.contains(key)
        }
    }

    /// Parts that had changed and were not given.
    pub(super) fn dirty(&self) -> impl Iterator<Item = &PartKey> {
        self.dirty.iter()
    }
}

impl Machine {
    /// Fixes what [`Machine::frozen_parts`] gives: the state as it is now, whole, or what has
    /// changed since the last time. The last one must have been taken to its end, or replaced by
    /// [`Machine::restore`]: what was given of it counts as saved.
    pub fn freeze(&mut self, whole: bool) {
        debug_assert!(self.frozen.is_none(), "what is frozen was not taken to its end");
        if let Some(Frozen { mut dirty, .. }) = self.frozen.take() {
            self.dirty.append(&mut dirty);
        }
        self.frozen = Some(Frozen {
            whole,
            dirty: std::mem::take(&mut self.dirty),
            cursor: None,
            settled: BTreeSet::new(),
            early: Vec::new(),
            digest: self.clean_digest,
        });
    }

    /// Adds the next slice of the frozen state to `parts`, in no order; a part that is gone comes
    /// without a value, unless all were wanted. With the last slice comes the digest of the state.
    pub fn frozen_parts(&mut self, parts: &mut Vec<Part>) -> Option<u64> {
        self.slice_of(SLICE_PARTS_MAX, parts)
    }

    /// The same with at most `parts_max` parts besides those that had to leave early.
    pub(super) fn slice_of(&mut self, parts_max: usize, parts: &mut Vec<Part>) -> Option<u64> {
        let frozen = self.frozen.as_mut()?;
        parts.append(&mut frozen.early);
        let (keys, is_last) = if frozen.whole {
            let cursor = frozen.cursor.clone();
            self.next_keys(cursor.as_ref(), parts_max)
        } else {
            let keys: Vec<PartKey> = frozen.dirty.iter().take(parts_max).cloned().collect();
            let is_last = keys.len() == frozen.dirty.len();
            (keys, is_last)
        };
        let mut bytes = 0;
        let asked = keys.len();
        let mut given = 0;
        for key in keys {
            given += 1;
            self.give(&key, parts);
            bytes += parts.last().and_then(|part| part.value.as_ref()).map_or(0, bytes::Bytes::len);
            if let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.whole) {
                frozen.settled.remove(&key);
                frozen.cursor = Some(key);
            }
            if bytes >= SLICE_BYTES_MAX {
                break;
            }
        }
        if !is_last || given < asked {
            return None;
        }
        self.frozen.take().map(|frozen| frozen.digest)
    }

    /// Before a part changes, comes or goes: the frozen state gets it as it still is.
    pub(super) fn touch(&mut self, key: &PartKey) {
        if self.frozen.as_ref().is_some_and(|frozen| frozen.awaits(key)) {
            let mut early = Vec::new();
            self.give(key, &mut early);
            if let Some(frozen) = &mut self.frozen {
                frozen.early.append(&mut early);
                if frozen.whole {
                    frozen.settled.insert(key.clone());
                }
            }
        } else if let Some(frozen) = &mut self.frozen {
            // It was gone at that moment, and its place has been passed.
            frozen.dirty.remove(key);
        }
    }

    /// The same for a queue that goes with all its windows and dedup keys.
    pub(super) fn touch_queue(&mut self, queue: QueueKey) {
        self.touch(&PartKey::Queue(queue));
        if self.frozen.is_none() {
            return;
        }
        let Some(state) = self.queues.get(&queue) else { return };
        let windows = state.windows.keys().map(|producer| PartKey::Window(queue, *producer));
        let buckets = state.dedup.buckets.keys().map(|number| PartKey::Dedup(queue, *number));
        let parts: Vec<PartKey> = windows.chain(buckets).collect();
        for part in &parts {
            self.touch(part);
        }
    }

    /// Encodes a part, if it is still to be given; one that had changed is clean from here on.
    fn give(&mut self, key: &PartKey, parts: &mut Vec<Part>) {
        let Some(frozen) = self.frozen.as_mut().filter(|frozen| frozen.awaits(key)) else { return };
        let had_changed = frozen.dirty.remove(key);
        let whole = frozen.whole;
        let value = self.encode_part(key);
        let name = key.encode();
        if had_changed && let Some(value) = &value {
            let hash = part_hash(&name, value);
            self.clean_digest ^= hash;
            self.save_part(key, hash);
            if let Some(frozen) = &mut self.frozen {
                frozen.digest ^= hash;
            }
        }
        if value.is_some() || !whole {
            parts.push(Part { key: name, value });
        }
    }

    /// Keys of the parts behind `after`, in order, and whether those are the last.
    fn next_keys(&self, after: Option<&PartKey>, parts_max: usize) -> (Vec<PartKey>, bool) {
        let is_at_timers = matches!(after, Some(PartKey::TimerRun(_) | PartKey::TimerDone(_)));
        let is_at_groups = after.is_some_and(PartKey::is_of_groups);
        let last = match after {
            Some(PartKey::Schedule(key)) => Some(key),
            _ => None,
        };
        let is_early = !is_at_timers && !is_at_groups && last.is_none();
        let before = is_early.then(|| self.keys_before_timers(after));
        let timers = (is_early || is_at_timers).then(|| self.timer_parts(after));
        let schedules = (!is_at_groups).then(|| self.schedule_parts(last));
        let all = before.into_iter().flatten().chain(timers.into_iter().flatten());
        let all = all.chain(schedules.into_iter().flatten()).chain(self.group_parts(after));
        let mut keys: Vec<PartKey> = all.take(parts_max + 1).collect();
        let is_last = keys.len() <= parts_max;
        keys.truncate(parts_max);
        (keys, is_last)
    }

    fn keys_before_timers<'a>(
        &'a self,
        after: Option<&'a PartKey>,
    ) -> impl Iterator<Item = PartKey> + 'a {
        let behind_shard = after.is_none().then_some(PartKey::Shard);
        let topics = match after {
            None | Some(PartKey::Shard) => Some(Bound::Unbounded),
            Some(PartKey::Topic(topic)) => Some(Bound::Excluded(*topic)),
            _ => None,
        };
        let topics = topics.map(|from| self.topics.range((from, Bound::Unbounded)));
        let topics = topics.into_iter().flatten().map(|(topic, _)| PartKey::Topic(*topic));
        let queues = match after {
            None | Some(PartKey::Shard | PartKey::Topic(_)) => Some(Bound::Unbounded),
            Some(PartKey::Queue(queue)) => Some(Bound::Excluded(*queue)),
            _ => None,
        };
        let queues = queues.map(|from| self.queues.range((from, Bound::Unbounded)));
        let queues = queues.into_iter().flatten().map(|(queue, _)| PartKey::Queue(*queue));
        let windows = match after {
            Some(PartKey::Window(queue, producer)) => Some(Some((*queue, *producer))),
            Some(PartKey::NamedProducer(_) | PartKey::Dedup(..) | PartKey::Fence(_)) => None,
            _ => Some(None),
        };
        let windows = windows.into_iter().flat_map(|after| self.windows_behind(after));
        let names = match after {
            Some(PartKey::NamedProducer(name)) => Some(Bound::Excluded(name)),
            Some(PartKey::Dedup(..) | PartKey::Fence(_)) => None,
            _ => Some(Bound::Unbounded),
        };
        let names = names
            .map(|from| self.named_producers.range::<ProducerName, _>((from, Bound::Unbounded)));
        let names = names.into_iter().flatten();
        let names = names.map(|(name, _)| PartKey::NamedProducer(name.clone()));
        let dedups = match after {
            Some(PartKey::Dedup(queue, number)) => Some(Some((*queue, *number))),
            Some(PartKey::Fence(_)) => None,
            _ => Some(None),
        };
        let dedups = dedups.into_iter().flat_map(|after| self.dedup_keys_behind(after));
        let fences = match after {
            Some(PartKey::Fence(producer)) => Bound::Excluded(*producer),
            _ => Bound::Unbounded,
        };
        let fences = self.fences.range((fences, Bound::Unbounded));
        let fences = fences.map(|(producer, _)| PartKey::Fence(*producer));
        let all = behind_shard.into_iter().chain(topics).chain(queues).chain(windows);
        all.chain(names).chain(dedups).chain(fences)
    }

    fn windows_behind(
        &self,
        after: Option<(QueueKey, ProducerId)>,
    ) -> impl Iterator<Item = PartKey> {
        let from = after.map_or(Bound::Unbounded, |(queue, _)| Bound::Included(queue));
        self.queues.range((from, Bound::Unbounded)).flat_map(move |(queue, state)| {
            let from = match after {
                Some((last, producer)) if last == *queue => Bound::Excluded(producer),
                _ => Bound::Unbounded,
            };
            let windows = state.windows.range((from, Bound::Unbounded));
            windows.map(move |(producer, _)| PartKey::Window(*queue, *producer))
        })
    }

    fn dedup_keys_behind(&self, after: Option<(QueueKey, u64)>) -> impl Iterator<Item = PartKey> {
        let from = after.map_or(Bound::Unbounded, |(queue, _)| Bound::Included(queue));
        self.queues.range((from, Bound::Unbounded)).flat_map(move |(queue, state)| {
            let from = match after {
                Some((last, number)) if last == *queue => Bound::Excluded(number),
                _ => Bound::Unbounded,
            };
            let buckets = state.dedup.buckets.range((from, Bound::Unbounded));
            buckets.map(move |(number, _)| PartKey::Dedup(*queue, *number))
        })
    }
}
