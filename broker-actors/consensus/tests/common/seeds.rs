//! Which seeds a simulation runs, and how one that fails is run again. The simulations of the broker have it,
//! too.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// The seeds to run: `GRUS_SIM_SEED` names the first, `GRUS_SIM_SEEDS` how many; else that one alone, or
/// `count` from 1.
pub fn seeds(count: u64) -> Vec<u64> {
    let first = number("GRUS_SIM_SEED");
    let count = number("GRUS_SIM_SEEDS").unwrap_or(if first.is_some() { 1 } else { count });
    let first = first.unwrap_or(1);
    (first..first + count).collect()
}

/// A number in the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs `simulation` for each seed; a failure prints how that seed alone is run again.
pub fn for_seeds(test: &str, count: u64, simulation: impl Fn(u64)) {
    for seed in seeds(count) {
        let settings = format!("GRUS_SIM_SEED={seed} GRUS_SIM_SEEDS=1");
        replayed(test, &settings, || simulation(seed));
    }
}

/// Runs a part of a test that `settings` in the environment repeat; a failure prints the command.
pub fn replayed<T>(test: &str, settings: &str, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        eprintln!("{test} failed; again with:\n  {}", command(test, settings));
        resume_unwind(panic)
    })
}

/// What runs a test again. It names everything that decides what is run, so that nothing in the environment of
/// whoever enters it does.
pub fn command(test: &str, settings: &str) -> String {
    let package = env!("CARGO_PKG_NAME");
    let cargo = format!("cargo test -p {package} {test} -- --exact --nocapture");
    [settings, &cargo].join(" ").trim_start().to_owned()
}
