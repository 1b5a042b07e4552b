//! Three brokers under a nemesis, and the verdict on what their clients saw; docs/TESTING.md "Histories".
//!
//! `cargo bench -p grus-tests --bench nemesis -- [--minutes N | --seconds N] [--durability LEVEL] [--seed N]
//! [--history FILE]`, or `-- --judge FILE` for a history that was kept.
//!
//! It ends with exit code 1 when something is not as it should be. `GRUS_BIN` names another binary. Where the
//! kernel allows network namespaces it runs in some of its own, so that brokers can be cut off; `GRUS_TEST_NAMESPACES`
//! makes that a must.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use grus_tests::history;
use grus_tests::history::judge::judge;
use grus_tests::nemesis::{Plan, run};
use grus_tests::network;

fn words() -> Vec<String> {
    std::env::args().skip(1).collect()
}

fn word(name: &str) -> Option<String> {
    let words = words();
    let at = words.iter().position(|word| word == name)?;
    words.get(at + 1).cloned()
}

fn number(name: &str) -> Option<u64> {
    word(name).map(|text| text.parse().expect("a number"))
}

fn code(is_sound: bool) -> ExitCode {
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    if let Some(file) = word("--judge") {
        let verdict = judge(&history::read(Path::new(&file)).expect("a history"));
        println!("{verdict}");
        return code(verdict.is_sound());
    }
    if !network::is_apart() {
        let Some(why) = network::refused() else {
            let mut inside = network::apart(std::env::current_exe().expect("this program"));
            let status = inside.args(words()).status().expect("a program that was probed");
            return code(status.success());
        };
        println!("SKIPPED: cut-off brokers, no network namespaces here: {why}");
    }
    let seconds = number("--minutes").map(|minutes| minutes * 60).or_else(|| number("--seconds"));
    let plan = Plan {
        seed: number("--seed").unwrap_or(1),
        seconds: seconds.unwrap_or(60),
        durability: word("--durability").unwrap_or_else(|| "persisted".to_owned()),
        history: word("--history").map(PathBuf::from),
    };
    println!("{plan:?}");
    let outcome = run(&plan);
    println!("{}", outcome.verdict);
    for skipped in &outcome.skipped {
        println!("SKIPPED: {skipped}");
    }
    for trouble in &outcome.troubles {
        println!("TROUBLE: {}", trouble.lines().next().unwrap_or_default());
    }
    println!("{} troubles beside it", outcome.troubles.len());
    code(outcome.is_sound())
}
