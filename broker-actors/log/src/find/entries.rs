//! The entries of one segment in memory: hash and batch number, in parts by the hash's upper bits,
//! so that a look-up walks a small part and a part is sorted quickly. Pure.

use grus_protocol::ids::MessageId;

use super::hash::{Hashing, time_of};
use super::read::Unreadable;

/// Parts; the upper bits of a hash choose one.
pub(super) const PARTS: usize = 64;
const PART_SHIFT: u32 = u32::BITS - PARTS.trailing_zeros();
/// Most entries of one segment, 128 MiB of memory: more than 256 MiB of the smallest messages have
/// with an id each. A segment that has more (many short keys) is searched by reading it.
pub(super) const ENTRIES_MAX: usize = 16 * 1024 * 1024;

/// From the least to the greatest time in the ids of version 7; none of them when `min > max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    pub min: u64,
    pub max: u64,
}

impl Times {
    pub(super) const NONE: Self = Self { min: u64::MAX, max: 0 };

    /// Whether an id may be here by its time. One without a time may be anywhere.
    pub(super) fn may_hold(self, id: MessageId) -> bool {
        time_of(id).is_none_or(|time| (self.min..=self.max).contains(&time))
    }
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Entries {
    parts: Vec<Vec<u64>>,
    count: usize,
    count_max: usize,
    pub times: Times,
}

impl Entries {
    /// None yet, and never more than `count_max`.
    pub(super) fn new(count_max: usize) -> Self {
        Self { parts: vec![Vec::new(); PARTS], count: 0, count_max, times: Times::NONE }
    }

    pub(super) fn add_id(
        &mut self,
        id: MessageId,
        batch: u32,
        hashing: Hashing,
    ) -> Result<(), Unreadable> {
        if let Some(time) = time_of(id) {
            self.times.min = self.times.min.min(time);
            self.times.max = self.times.max.max(time);
        }
        self.add(hashing.of_id(id), batch)
    }

    pub(super) fn add(&mut self, hash: u32, batch: u32) -> Result<(), Unreadable> {
        if self.is_full() {
            return Err(());
        }
        self.count += 1;
        self.parts[(hash >> PART_SHIFT) as usize].push(entry(hash, batch));
        Ok(())
    }

    /// The batches under a hash, ascending.
    pub(super) fn batches(&self, hash: u32) -> Vec<u32> {
        let part = &self.parts[(hash >> PART_SHIFT) as usize];
        let mut found: Vec<u32> = part
            .iter()
            .filter(|held| hash_of(**held) == hash)
            .map(|held| batch_of(*held))
            .collect();
        found.dedup(); // they came in this order
        found
    }

    /// Whether there is no room for more.
    pub(super) fn is_full(&self) -> bool {
        self.count >= self.count_max
    }

    /// One part, sorted, each entry once; `name` says what each batch is called there.
    pub(super) fn sorted_part(&self, part: usize, name: impl Fn(u32) -> u32) -> Vec<u64> {
        let renamed = |held: &u64| entry(hash_of(*held), name(batch_of(*held)));
        let mut sorted: Vec<u64> = self.parts[part].iter().map(renamed).collect();
        sorted.sort_unstable();
        sorted.dedup();
        sorted
    }
}

/// An entry: they sort by hash, then by batch.
pub(super) const fn entry(hash: u32, batch: u32) -> u64 {
    (hash as u64) << 32 | batch as u64
}

pub(super) const fn hash_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
pub(super) const fn batch_of(entry: u64) -> u32 {
    entry as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_hold_each_entry_once() {
        let mut entries = Entries::new(ENTRIES_MAX);
        for (hash, batch) in [(u32::MAX, 3), (0, 1), (7, 2), (7, 2), (7, 5), (1 << 31, 4)] {
            entries.add(hash, batch).unwrap();
        }
        assert_eq!(entries.batches(7), [2, 5]);
        assert_eq!(entries.batches(8), []);
        let all: Vec<u64> =
            (0..PARTS).flat_map(|part| entries.sorted_part(part, |batch| 10 - batch)).collect();
        assert!(all.is_sorted_by(|before, after| before < after));
        let pairs: Vec<_> = all.iter().map(|held| (hash_of(*held), batch_of(*held))).collect();
        assert_eq!(pairs, [(0, 9), (7, 5), (7, 8), (1 << 31, 6), (u32::MAX, 7)]);
    }

    #[test]
    fn an_id_is_only_where_its_time_is() {
        let id = |time: u64| {
            let mut bytes = [0x42; 16];
            bytes[..6].copy_from_slice(&time.to_be_bytes()[2..]);
            (bytes[6], bytes[8]) = (0x70, 0x80);
            MessageId::from_bytes(bytes)
        };
        let mut entries = Entries::new(ENTRIES_MAX);
        let other = MessageId::from_bytes([0x42; 16]);
        assert!(!entries.times.may_hold(id(5)) && entries.times.may_hold(other));
        for time in [9, 5, 7] {
            entries.add_id(id(time), 0, Hashing::default()).unwrap();
        }
        assert!(entries.times.may_hold(id(5)) && entries.times.may_hold(id(9)));
        assert!(!entries.times.may_hold(id(4)) && !entries.times.may_hold(id(10)));
        entries.add_id(other, 0, Hashing::default()).unwrap();
        assert_eq!(entries.times, Times { min: 5, max: 9 });
    }
}
