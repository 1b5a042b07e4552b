//! A digest of the whole state that costs only what has changed.
//!
//! The digest is the exclusive or of a hash per part. A part that changes takes its old hash out
//! once, and is hashed anew when it is next saved, so a digest reads only the dirty parts.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The hash of one part.
pub(super) fn part_hash(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, 0))
}

/// A value that is saved as a part, with what its last saved form hashes to.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracked<T> {
    value: T,
    /// Hash of the saved form; meaningless while dirty.
    hash: u64,
    dirty: bool,
}

impl<T> Tracked<T> {
    /// A value that was not saved yet. The caller names its part as dirty.
    pub(super) const fn unsaved(value: T) -> Self {
        Self { value, hash: 0, dirty: true }
    }

    /// A value as it was read from a checkpoint.
    pub(super) const fn saved(value: T, hash: u64) -> Self {
        Self { value, hash, dirty: false }
    }

    pub(super) const fn get(&self) -> &T {
        &self.value
    }

    /// The hash that stands in the clean digest for this part; 0 while dirty.
    pub(super) const fn clean_hash(&self) -> u64 {
        if self.dirty { 0 } else { self.hash }
    }

    /// Opens the value for a change. `dirtied` gets the hash to take out of the digest, on the
    /// first change after the part was saved.
    pub(super) fn change(&mut self, dirtied: impl FnOnce(u64)) -> &mut T {
        if !self.dirty {
            self.dirty = true;
            dirtied(self.hash);
        }
        &mut self.value
    }

    /// Opens the value for what changes nothing of its saved form.
    pub(super) fn tidy(&mut self, tidy: impl FnOnce(&mut T)) {
        tidy(&mut self.value);
    }

    /// The part was saved in a form that hashes to `hash`.
    pub(super) fn save(&mut self, hash: u64) {
        self.hash = hash;
        self.dirty = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_change_after_a_save_takes_the_hash_out() {
        let mut tracked = Tracked::saved(1, 77);
        assert_eq!(tracked.clean_hash(), 77);
        let mut out = Vec::new();
        *tracked.change(|hash| out.push(hash)) = 2;
        *tracked.change(|hash| out.push(hash)) = 3;
        assert_eq!((out.as_slice(), *tracked.get(), tracked.clean_hash()), ([77].as_slice(), 3, 0));

        tracked.save(88);
        tracked.change(|hash| out.push(hash));
        assert_eq!(out, [77, 88]);
    }

    #[test]
    fn key_and_value_both_count_and_do_not_commute() {
        assert_ne!(part_hash(b"a", b"b"), part_hash(b"b", b"a"));
        assert_ne!(part_hash(b"a", b"b"), part_hash(b"a", b"c"));
    }
}
