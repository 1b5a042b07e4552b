//! The tag bloom: lets a reader skip a batch none of whose records has a wanted tag.
//!
//! 64 bits. A tag's hash is XXH3 (64 bits, seed 0, default secret) of its UTF-8 bytes; it sets the
//! bits numbered by bits 0-5, 6-11 and 12-17 of the hash. A batch's bloom is the union over its
//! records' tags and may have more bits: all ones stands for "may contain anything".

use xxhash_rust::xxh3::xxh3_64;

/// The bits of one tag.
pub fn bloom_of_tag(tag: &str) -> u64 {
    bloom_of_tag_bytes(tag.as_bytes())
}

pub(super) fn bloom_of_tag_bytes(tag: &[u8]) -> u64 {
    let hash = xxh3_64(tag);
    1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
}

/// The bits of several tags.
pub fn bloom_of<'a>(tags: impl IntoIterator<Item = &'a str>) -> u64 {
    tags.into_iter().fold(0, |bits, tag| bits | bloom_of_tag(tag))
}

/// Whether a batch of this bloom may contain a record with the tag; if not, it does not.
pub fn may_contain(bloom: u64, tag: &str) -> bool {
    let wanted = bloom_of_tag(tag);
    bloom & wanted == wanted
}
