//! Bodies that do not compress and that betray a lost, doubled or damaged message.
//!
//! A body is: sequence u64, CRC32C u32 of all that follows it and then of the sequence, then bytes of
//! a random pool at a place that the sequence picks. At least [`BODY_BYTES_MIN`] long.
//!
//! Load and broker share the processors, so what the load costs is taken from the broker: the
//! checksum of what follows is computed once for each place. Whoever checks a body computes it all.

use bytes::{Bytes, BytesMut};
use grus_protocol::checksum::{crc32c, crc32c_append};

/// The shortest body that can carry its proof.
pub const BODY_BYTES_MIN: usize = 12;
/// Size of the random pool. A power of two.
const POOL_BYTES: usize = 1 << 20;
/// Bodies begin at multiples of this in it.
const PLACE_BYTES: usize = 64;
const PLACES: usize = POOL_BYTES / PLACE_BYTES;

/// Makes bodies of one size.
#[derive(Debug)]
pub struct Bodies {
    pool: Vec<u8>,
    bytes: usize,
    /// The checksum of what a body takes of the pool, for each place that was used.
    sums: Vec<Option<u32>>,
}

impl Bodies {
    /// Bodies of `bytes` each, at least [`BODY_BYTES_MIN`], at most the pool's size.
    pub fn new(bytes: usize) -> Self {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut pool = Vec::with_capacity(2 * POOL_BYTES);
        while pool.len() < 2 * POOL_BYTES {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            pool.extend_from_slice(&state.to_le_bytes());
        }
        let bytes = bytes.clamp(BODY_BYTES_MIN, POOL_BYTES);
        Self { pool, bytes, sums: vec![None; PLACES] }
    }

    /// The bodies of `count` messages beginning with `first`, in one allocation.
    pub fn make(&mut self, first: u64, count: usize) -> Vec<Bytes> {
        let mut all = BytesMut::with_capacity(count * self.bytes);
        for sequence in first..first + count as u64 {
            let place = usize::try_from(sequence % PLACES as u64).unwrap_or(0);
            let from = place * PLACE_BYTES;
            let rest = &self.pool[from..from + self.bytes - BODY_BYTES_MIN];
            let sum = *self.sums[place].get_or_insert_with(|| crc32c(rest));
            let sequence = sequence.to_le_bytes();
            all.extend_from_slice(&sequence);
            all.extend_from_slice(&crc32c_append(sum, &sequence).to_le_bytes());
            all.extend_from_slice(rest);
        }
        let mut all = all.freeze();
        (0..count).map(|_| all.split_to(self.bytes)).collect()
    }
}

/// The sequence of a body, or `None` when it is not as it was made.
pub fn check(body: &[u8]) -> Option<u64> {
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let (stated, rest) = rest.split_first_chunk::<4>()?;
    let sum = crc32c_append(crc32c(rest), sequence);
    (sum == u32::from_le_bytes(*stated)).then(|| u64::from_le_bytes(*sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_proves_itself_and_a_changed_one_does_not() {
        for size in [0, 12, 13, 100, 1024] {
            let mut bodies = Bodies::new(size);
            let mut made = bodies.make(41, 3);
            made.truncate(1);
            made.extend(bodies.make(42, 2)); // by sums that are known
            for (body, sequence) in made.iter().zip(41..) {
                assert_eq!(body.len(), size.max(BODY_BYTES_MIN));
                assert_eq!(check(body), Some(sequence));
                for at in [0, 8, body.len() - 1] {
                    let mut changed = body.to_vec();
                    changed[at] ^= 1;
                    assert_eq!(check(&changed), None);
                }
            }
        }
        assert_eq!(check(b"short"), None);
    }
}
