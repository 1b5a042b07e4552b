//! The ordering rules taken away one by one: the crash test must notice each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use grus_log::switches::OrderRule;

use crate::harness::torture;

/// Seeds tried before a rule counts as not noticed.
const SEEDS_MAX: u64 = 60;

#[test]
fn each_rule_that_is_taken_away_is_noticed() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for rule in OrderRule::ALL {
        // Logs that sync late are where a checkpoint can overtake the log; every fourth seed is one.
        let late_only = rule == OrderRule::LogBeforeCheckpoint;
        let seeds = (0..SEEDS_MAX).filter(|seed| !late_only || seed % 4 == 3);
        let noticed = { seeds }.find_map(|seed| {
            let began = now();
            let run = AssertUnwindSafe(|| torture(seed, 12, Some(rule)).err());
            let found = match catch_unwind(run) {
                Ok(found) => found?,
                Err(_) => "an assertion failed".to_owned(),
            };
            Some((seed, began.elapsed(), found))
        });
        match noticed {
            Some((seed, took, how)) => println!("{rule:?}: seed {seed}, {took:.1?}: {how}"),
            None => missed.push(rule),
        }
    }
    std::panic::set_hook(quiet);
    assert!(missed.is_empty(), "not noticed in {SEEDS_MAX} seeds: {missed:?}");
}

#[expect(clippy::disallowed_methods, reason = "how long it takes to notice is told, not judged")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
