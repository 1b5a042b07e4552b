//! What a queue remembers of dedup keys: a message whose key was stored within the window is
//! answered with the first one's receipt, and is not stored again.
//!
//! A key's time is that of the entry that stored it, plus its topic's window as it was then. Keys
//! lie in buckets in the order they came in; a bucket is a part of the state, and is forgotten
//! whole once all its keys are over, so what is remembered is the same on every replica, and
//! after a restart.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ids::{QueueKey, Term, TimestampMs};

use super::digest::Tracked;
use super::landed::Landed;
use super::part::PartKey;
use super::{Appended, DEDUP_KEYS_MAX, Machine, Moment, Refusal};
use crate::codec::{CodecError, Decoder};
use crate::commands::DedupKey;

/// Most keys of a bucket.
const BUCKET_KEYS_MAX: usize = 256;
/// A bucket takes keys for an eighth of the window, so that few outlive it for long.
const BUCKET_SPANS_OF_WINDOW: u64 = 8;
/// Buckets forgotten at most per entry, so that no entry takes long to apply.
const EXPIRED_PER_ENTRY_MAX: usize = 16;
/// Times at which buckets end are rounded up to this, so that they seldom change.
const EXPIRY_STEP_MS: u64 = 1_000;

/// Of buckets whose keys all have offsets.
const VERSION: u8 = 1;
/// Of buckets with a key that was scheduled.
const VERSION_TIMERS: u8 = 2;

/// A key that was stored, with what its receipt said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stored {
    key: DedupKey,
    landed: Landed,
    count: u32,
    at: TimestampMs,
}

/// Keys that were stored one after the other in one term under one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bucket {
    window_ms: u64,
    term: Term,
    keys: Vec<Stored>,
}

impl Bucket {
    /// When its last key is over, rounded up.
    fn expires_ms(&self) -> u64 {
        let last = self.keys.last().map_or(0, |last| last.at.0);
        last.saturating_add(self.window_ms).div_ceil(EXPIRY_STEP_MS)
    }

    /// Whether a key stored now belongs into it.
    fn takes(&self, window_ms: u64, moment: Moment) -> bool {
        let first = self.keys.first().map_or(0, |first| first.at.0);
        let is_young = moment.time.0.saturating_sub(first) <= window_ms / BUCKET_SPANS_OF_WINDOW;
        let is_same = self.window_ms == window_ms && self.term == moment.term;
        is_young && is_same && self.keys.len() < BUCKET_KEYS_MAX
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(19 + 40 * self.keys.len());
        let has_timers = self.keys.iter().any(|stored| stored.landed.timer().is_some());
        out.put_u8(if has_timers { VERSION_TIMERS } else { VERSION });
        out.put_u64_le(self.window_ms);
        out.put_u64_le(self.term.0);
        out.put_u16_le(u16::try_from(self.keys.len()).expect("a bucket is bounded"));
        for stored in &self.keys {
            out.put_slice(&stored.key.0);
            stored.landed.encode(has_timers, &mut out);
            out.put_u32_le(stored.count);
            out.put_u64_le(stored.at.0);
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, CodecError> {
        let mut decoder = Decoder::new(bytes);
        let version = decoder.u8()?;
        if version != VERSION && version != VERSION_TIMERS {
            return Err(CodecError::Version(version));
        }
        let (window_ms, term) = (decoder.u64()?, Term(decoder.u64()?));
        let count = usize::from(decoder.u16()?);
        if count == 0 || count > BUCKET_KEYS_MAX {
            return Err(CodecError::Value("keys of a bucket"));
        }
        let mut keys = Vec::with_capacity(count);
        for _ in 0..count {
            let mut key = [0; 16];
            key.copy_from_slice(&decoder.take(16)?);
            keys.push(Stored {
                key: DedupKey(key),
                landed: Landed::decode(version == VERSION_TIMERS, &mut decoder)?,
                count: decoder.u32()?,
                at: TimestampMs(decoder.u64()?),
            });
        }
        decoder.finish()?;
        Ok(Self { window_ms, term, keys })
    }
}

/// The dedup keys of one queue.
#[derive(Debug, Clone, Default)]
pub(super) struct DedupKeys {
    /// By number, in the order they came in.
    pub(super) buckets: BTreeMap<u64, Tracked<Bucket>>,
    /// Where the newest entry of each key is; derived from the buckets.
    places: BTreeMap<DedupKey, (u64, u16)>,
}

impl DedupKeys {
    /// The first receipt of a key that is not over yet.
    fn find(&self, key: &DedupKey, time: TimestampMs) -> Option<Appended> {
        let (number, index) = self.places.get(key)?;
        let bucket = self.buckets.get(number)?.get();
        let stored = bucket.keys.get(usize::from(*index))?;
        let is_over = time.0 >= stored.at.0.saturating_add(bucket.window_ms);
        (!is_over).then_some(Appended {
            base_offset: stored.landed.offset(),
            timer: stored.landed.timer(),
            count: stored.count,
            term: bucket.term,
            stored: stored.at,
            duplicate: true,
        })
    }

    /// Puts a bucket that was read from a checkpoint in its place.
    fn restore(&mut self, number: u64, bucket: Bucket, hash: u64) {
        for (stored, index) in bucket.keys.iter().zip(0..) {
            self.places.insert(stored.key, (number, index));
        }
        self.buckets.insert(number, Tracked::saved(bucket, hash));
    }
}

impl Machine {
    /// The first receipt, if a batch with this key was stored in this queue and is remembered.
    ///
    /// # Errors
    /// When keys are not remembered here, or no more can be.
    pub(super) fn find_by_dedup_key(
        &self,
        moment: Moment,
        queue: QueueKey,
        key: &DedupKey,
    ) -> Result<Option<Appended>, Refusal> {
        let state = self.queues.get(&queue).ok_or(Refusal::UnknownQueue)?;
        if self.dedup_window_ms(queue) == 0 {
            return Err(Refusal::NoDedup);
        }
        let first = state.dedup.find(key, moment.time);
        if first.is_none() && self.dedup_keys >= DEDUP_KEYS_MAX {
            return Err(Refusal::Limit { what: "dedup keys", limit: DEDUP_KEYS_MAX });
        }
        Ok(first)
    }

    fn dedup_window_ms(&self, queue: QueueKey) -> u64 {
        self.topics.get(&queue.topic).map_or(0, |topic| topic.get().dedup_window_ms)
    }

    /// A batch with this key was stored.
    pub(super) fn remember_dedup_key(
        &mut self,
        moment: Moment,
        queue: QueueKey,
        key: DedupKey,
        appended: &Appended,
    ) {
        let window_ms = self.dedup_window_ms(queue);
        let Some(state) = self.queues.get(&queue) else { return };
        let last = state.dedup.buckets.last_key_value();
        let number = match last {
            Some((number, bucket)) if bucket.get().takes(window_ms, moment) => *number,
            Some((number, _)) => number + 1,
            None => 0,
        };
        let part = || PartKey::Dedup(queue, number);
        self.touch(&part());
        let Some(state) = self.queues.get_mut(&queue) else { return };
        let dedup = &mut state.dedup;
        let (digest, dirty) = (&mut self.clean_digest, &mut self.dirty);
        let bucket = dedup.buckets.entry(number).or_insert_with(|| {
            dirty.insert(part());
            Tracked::unsaved(Bucket { window_ms, term: moment.term, keys: Vec::new() })
        });
        let was_empty = bucket.get().keys.is_empty();
        let before = bucket.get().expires_ms();
        let bucket = bucket.change(|hash| {
            *digest ^= hash;
            dirty.insert(part());
        });
        let index = u16::try_from(bucket.keys.len()).expect("a bucket is bounded");
        let Appended { base_offset, timer, count, stored: at, .. } = *appended;
        let landed = timer.map_or(Landed::at(base_offset), Landed::later);
        bucket.keys.push(Stored { key, landed, count, at });
        let after = bucket.expires_ms();
        dedup.places.insert(key, (number, index));
        self.dedup_keys += 1;
        if was_empty || before != after {
            self.dedup_order.remove(&(before, queue, number));
            self.dedup_order.insert((after, queue, number));
        }
    }

    /// Forgets buckets whose keys are all over, some at a time.
    pub(super) fn expire_dedup_keys(&mut self, time: TimestampMs) {
        for _ in 0..EXPIRED_PER_ENTRY_MAX {
            let Some(&(expires, queue, number)) = self.dedup_order.first() else { return };
            if expires.saturating_mul(EXPIRY_STEP_MS) > time.0 {
                return;
            }
            self.dedup_order.pop_first();
            self.touch(&PartKey::Dedup(queue, number));
            let Some(state) = self.queues.get_mut(&queue) else { continue };
            let Some(bucket) = state.dedup.buckets.remove(&number) else { continue };
            for stored in &bucket.get().keys {
                let place = state.dedup.places.get(&stored.key);
                if place.is_some_and(|(newest, _)| *newest == number) {
                    state.dedup.places.remove(&stored.key);
                }
            }
            self.dedup_keys -= bucket.get().keys.len();
            self.forget_part(PartKey::Dedup(queue, number), bucket.clean_hash());
        }
    }

    /// A queue is gone, and with it the keys it remembered.
    pub(super) fn forget_dedup_keys(&mut self, queue: QueueKey, dedup: &DedupKeys) {
        for (number, bucket) in &dedup.buckets {
            self.dedup_order.remove(&(bucket.get().expires_ms(), queue, *number));
            self.dedup_keys -= bucket.get().keys.len();
            self.forget_part(PartKey::Dedup(queue, *number), bucket.clean_hash());
        }
    }

    /// Takes a bucket out of a checkpoint. False when its queue is not there.
    pub(super) fn restore_bucket(
        &mut self,
        queue: QueueKey,
        number: u64,
        bucket: Bucket,
        hash: u64,
    ) -> bool {
        let Some(state) = self.queues.get_mut(&queue) else { return false };
        self.dedup_keys += bucket.keys.len();
        self.dedup_order.insert((bucket.expires_ms(), queue, number));
        state.dedup.restore(number, bucket, hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::Offset;

    use super::*;
    use crate::timers::TimerId;

    fn bucket(keys: u8) -> Bucket {
        let stored = |number: u8| Stored {
            key: DedupKey([number; 16]),
            landed: Landed::at(Offset(number.into())),
            count: 2,
            at: TimestampMs(1_000 * u64::from(number)),
        };
        Bucket { window_ms: 8_000, term: Term(3), keys: (1..=keys).map(stored).collect() }
    }

    #[test]
    fn a_bucket_reads_back_as_it_was_written() {
        let mut three = bucket(3);
        assert_eq!((three.encode()[0], Bucket::decode(three.encode())), (1, Ok(three.clone())));
        three.keys[1].landed = Landed::later(TimerId { index: 9, place: 64 });
        assert_eq!((three.encode()[0], Bucket::decode(three.encode())), (2, Ok(three)));
        assert!(Bucket::decode(bucket(0).encode()).is_err(), "an empty one is never saved");
        let bytes = bucket(3).encode();
        for length in 0..bytes.len() {
            assert!(Bucket::decode(bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_key_is_found_until_its_window_is_over_to_the_millisecond() {
        let mut dedup = DedupKeys::default();
        dedup.restore(7, bucket(3), 0);
        let find = |key: u8, time: u64| dedup.find(&DedupKey([key; 16]), TimestampMs(time));
        assert_eq!(find(2, 9_999).unwrap().base_offset, Offset(2));
        assert_eq!(find(2, 10_000), None);
        assert_eq!(find(4, 0), None);
        assert_eq!(bucket(3).expires_ms(), 11);
    }

    #[test]
    fn a_bucket_takes_keys_of_its_term_its_window_and_its_time() {
        let moment =
            |term, time| Moment { byte: 0, term: Term(term), index: 1, time: TimestampMs(time) };
        let two = bucket(2);
        assert!(two.takes(8_000, moment(3, 2_000)));
        assert!(!two.takes(8_000, moment(3, 2_001)), "an eighth of the window");
        assert!(!two.takes(8_000, moment(4, 2_000)));
        assert!(!two.takes(9_000, moment(3, 2_000)));
    }
}
