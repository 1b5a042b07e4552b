//! A group of real members in one thread: real logs on simulated disks, a simulated network,
//! paused time. Everything that is left to chance comes from one seed.

#![allow(dead_code, clippy::unwrap_used)]

pub mod changes;
pub mod chaos;
pub mod checks;
pub mod cluster;
pub mod machine;
pub mod member;
pub mod net;
pub mod scenarios;
pub mod seeds;
pub mod trace;

#[allow(unused_imports, reason = "not every test runs by seeds")]
pub use seeds::{for_seeds, replayed};

use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::LocalSet;

/// The runtime of simulated members: tokio's, with a seeded random source.
pub type Rt = DeterministicRng<TokioRuntime>;

/// Runs a simulation on paused time, with every random choice of the runtime seeded.
pub fn simulate<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().unwrap();
    LocalSet::new().block_on(&runtime, Rt::scope(seed, simulation))
}
