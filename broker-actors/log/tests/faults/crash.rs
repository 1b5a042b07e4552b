//! Power cuts at any store and any job step, each recovered twice.

use crate::harness::torture;

/// `GRUS_SEED=17 cargo test -p grus-log --test faults cuts` runs one seed again, and
/// `GRUS_SEEDS=1000` that many.
fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match (number("GRUS_SEED"), number("GRUS_SEEDS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, count) => 0..count.unwrap_or(default),
    }
}

#[test]
fn cuts_lose_nothing_that_was_acknowledged() {
    let (mut appended, mut sealed, mut truncated, mut purged) = (0, 0, 0, 0);
    let (mut installed, mut voted, mut cuts) = (0, 0, 0);
    for seed in seeds(4) {
        let harness = torture(seed, 40, None).unwrap_or_else(|error| {
            panic!("{error}\nagain: GRUS_SEED={seed} cargo test -p grus-log --test faults cuts")
        });
        appended += harness.model.appended;
        sealed += harness.seals;
        truncated += harness.truncations;
        purged += harness.purges;
        installed += harness.installs;
        voted += harness.votes;
        cuts += harness.cuts;
    }
    println!(
        "{appended} appends, {sealed} seals, {truncated} truncations, {purged} purges, {installed} installs, {voted} votes, {cuts} cuts"
    );
    if std::env::var("GRUS_SEED").is_err() {
        assert!(appended >= 2_000 && sealed >= 6, "too little was tried");
        assert!(
            truncated > 20 && purged > 5 && installed > 5 && voted > 100,
            "too little was tried"
        );
    }
}
