//! What is hashed, and how: part of the format of the tables.

use grus_protocol::ids::{MessageId, TopicId};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The hash of the tables; a weak one only in tests that want collisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hashing {
    mask: u32,
}

impl Default for Hashing {
    fn default() -> Self {
        Self { mask: u32::MAX }
    }
}

impl Hashing {
    #[cfg(test)]
    pub(super) fn weak(mask: u32) -> Self {
        Self { mask }
    }

    /// The upper 32 bits of XXH3-64 of the id's 16 bytes.
    pub(super) fn of_id(self, id: MessageId) -> u32 {
        self.upper(xxh3_64(id.as_bytes()))
    }

    /// The upper 32 bits of XXH3-64 of the key, seeded with the number of the topic's incarnation.
    pub(super) fn of_key(self, topic: TopicId, key: &[u8]) -> u32 {
        self.upper(xxh3_64_with_seed(key, topic.0))
    }

    fn upper(self, hash: u64) -> u32 {
        u32::try_from(hash >> 32).expect("32 bits are left") & self.mask
    }
}

/// The time in an id of version 7, in milliseconds since 1970; `None` for ids of other kinds.
pub(super) fn time_of(id: MessageId) -> Option<u64> {
    let bytes = id.as_bytes();
    let (time, rest) = bytes.split_first_chunk::<6>()?;
    let is_version_7 = rest[0] >> 4 == 7 && rest[2] >> 6 == 0b10;
    let time = time.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
    is_version_7.then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_never_change() {
        let id = MessageId::from_bytes([
            1, 0x8b, 0xcf, 0xe5, 0x68, 0x7b, 0x72, 2, 0x82, 2, 2, 2, 2, 2, 2, 2,
        ]);
        let hashing = Hashing::default();
        assert_eq!(hashing.of_id(id), 0xa148_ef43);
        assert_eq!(hashing.of_key(TopicId(7), b"order-17"), 0xfe53_680d);
        assert_ne!(
            hashing.of_key(TopicId(8), b"order-17"),
            hashing.of_key(TopicId(7), b"order-17")
        );
        assert_eq!(time_of(id), Some(1_700_000_000_123));
        assert_eq!(time_of(MessageId::from_bytes([0x42; 16])), None);
    }
}
