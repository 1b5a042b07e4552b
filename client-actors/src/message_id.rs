//! Making message ids: version 7 UUIDs (RFC 9562) that grow with every message of a producer.

use std::sync::atomic::{AtomicU32, Ordering};

use grus_protocol::{MessageId, TimestampMs};
use uuid::Uuid;

/// Makes the ids of one producer, from any thread.
///
/// Of the 74 bits beside the time, the first 32 count messages and the other 42 are the
/// producer's own: two producers make the same id only if these 42 random bits, the random start
/// of the count and the millisecond all agree.
#[derive(Debug)]
pub(crate) struct MessageIds {
    next: AtomicU32,
    own: u64,
}

const OWN_BITS: u32 = 42;

impl MessageIds {
    /// Ids that hold 42 bits of `own` and count from `first`.
    pub(crate) fn new(own: u64, first: u32) -> Self {
        Self { next: AtomicU32::new(first), own: own & ((1 << OWN_BITS) - 1) }
    }

    /// Numbers of `count` ids in a row.
    pub(crate) fn reserve(&self, count: u32) -> u32 {
        self.next.fetch_add(count, Ordering::Relaxed)
    }

    /// The id with a reserved number.
    pub(crate) fn id(&self, born: TimestampMs, number: u32) -> MessageId {
        let time = (u128::from(born.0) & 0xffff_ffff_ffff) << 80;
        let number = u128::from(number);
        let version_and_12_bits = (0x7000 | (number >> 20)) << 64;
        let variant_and_20_bits = (0b10 << 62) | ((number & 0xf_ffff) << OWN_BITS);
        let bits = time | version_and_12_bits | variant_and_20_bits | u128::from(self.own);
        MessageId(Uuid::from_u128(bits))
    }

    /// The next id.
    pub(crate) fn next(&self, born: TimestampMs) -> MessageId {
        self.id(born, self.reserve(1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_version_7_and_carry_their_time() {
        let ids = MessageIds::new(u64::MAX, u32::MAX);
        for _ in 0..3 {
            let id = ids.next(TimestampMs(0x0123_4567_89ab)).0;
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert!(id.to_string().starts_with("01234567-89ab-7"), "{id}");
        }
    }

    #[test]
    fn ids_of_one_producer_grow_and_never_repeat() {
        let ids = MessageIds::new(0, 5);
        let made: Vec<_> = (0..3_000_000).map(|_| ids.next(TimestampMs(77))).collect();
        assert!(made.is_sorted_by(|before, after| before < after));
    }

    #[test]
    fn producers_of_the_same_millisecond_do_not_meet() {
        let all: HashSet<_> = (0..1_000)
            .flat_map(|own| {
                let ids = MessageIds::new(own, 0);
                (0..10).map(move |_| ids.next(TimestampMs(1))).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(all.len(), 10_000);
    }
}
