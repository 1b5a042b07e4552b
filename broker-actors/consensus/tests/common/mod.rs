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
pub mod trace;

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

/// The seeds to run: `GRUS_SIM_SEED` names the first, `GRUS_SIM_SEEDS` how many; else that one alone, or
/// `count` from 1.
pub fn seeds(count: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("GRUS_SIM_SEED");
    let count = number("GRUS_SIM_SEEDS").unwrap_or(if first.is_some() { 1 } else { count });
    let first = first.unwrap_or(1);
    (first..first + count).collect()
}

/// Runs `simulation` for each seed; a failure prints the seed and how to run it again.
pub fn for_seeds(test: &str, count: u64, simulation: impl Fn(u64)) {
    for seed in seeds(count) {
        let run = std::panic::AssertUnwindSafe(|| simulation(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!(
                "{test}: seed {seed} failed; again with:\n  GRUS_SIM_SEED={seed} GRUS_SIM_SEEDS=1 cargo test -p \
                 grus-consensus {test} -- --exact --nocapture"
            );
            std::panic::resume_unwind(panic);
        }
    }
}
