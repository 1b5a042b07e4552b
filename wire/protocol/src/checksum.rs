//! CRC32C, the checksum of everything that travels or is stored, at the speed of the machine.
//!
//! Short stretches take the processor's own CRC instruction, 8 bytes a step in three strands; long
//! ones take carry-less multiplication, up to 256 bytes a step. Both give the same number. On an
//! Intel Xeon of 2.1 GHz with AVX-512, a batch of 0.9 MB in the nearest cache: 23 GB/s by the
//! instruction, 88 by multiplication (`check_speed`).

use crc_fast::{CrcAlgorithm, Digest};

/// From so many bytes on multiplication is faster.
const LONG_BYTES_MIN: usize = 256;

/// The checksum of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c_append(0, bytes)
}

/// The checksum of bytes whose checksum is `crc` followed by `bytes`.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a checksum of 32 bits in a u64")]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    if bytes.len() < LONG_BYTES_MIN {
        return crc32c::crc32c_append(crc, bytes);
    }
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(count: usize) -> Vec<u8> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let next = |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn it_is_the_checksum_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(&[0; 512]), crc32c_append(crc32c(&[0; 32]), &[0; 480]));
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720, B.4");
    }

    #[test]
    fn every_length_and_start_gives_what_the_instruction_gives() {
        let bytes = bytes_of(5_000);
        for length in 0..4_400 {
            let from = length % 64;
            let part = &bytes[from..from + length];
            assert_eq!(crc32c(part), crc32c::crc32c(part), "{length} bytes from {from} on");
        }
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_gives(
            from in 0_usize..70,
            cuts in proptest::collection::vec(0_usize..200_000, 0..4),
        ) {
            let bytes = bytes_of(200_070);
            let bytes = &bytes[from..];
            let mut cuts = cuts;
            cuts.push(200_000);
            cuts.sort_unstable();
            let (mut crc, mut at) = (0, 0);
            for cut in cuts {
                crc = crc32c_append(crc, &bytes[at..cut]);
                at = cut;
            }
            prop_assert_eq!(crc, crc32c::crc32c(&bytes[..200_000]));
        }
    }
}
