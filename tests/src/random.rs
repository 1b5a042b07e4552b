//! Random choices that can be replayed: the seed is printed, and `GRUS_TEST_SEED` sets it.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A small generator (splitmix64, Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random {
    state: u64,
}

impl Random {
    /// Seeded by `GRUS_TEST_SEED`, or anew; says how to replay it.
    pub fn seeded(test: &str) -> Self {
        let given = std::env::var("GRUS_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        println!("{test}: replay its choices with GRUS_TEST_SEED={seed}");
        Self { state: seed }
    }

    /// Of this seed.
    pub const fn of(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below 0");
        self.next_u64() % bound
    }
}
