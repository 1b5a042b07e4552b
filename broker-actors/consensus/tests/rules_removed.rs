//! Each ordering rule removed by itself must make its story end badly: a rule that can go without
//! being missed is either not needed or not tested.

#![allow(clippy::unwrap_used)]

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use common::{cluster, scenarios, simulate};
use grus_consensus::Sabotage;

/// How many seeds are tried until the missing rule is noticed.
const SEEDS_MAX: u64 = 6;

/// Runs a story with the rule in place, and without it for some seeds: one of these must fail. Tells which, and how
/// soon; with `GRUS_SIM_SEEDS=n` also how many of the seeds 1 to n do.
fn needs_its_rule<Story: Future<Output = ()>>(
    rule: &str,
    sabotage: Sabotage,
    story: impl Fn(u64, Sabotage) -> Story,
) {
    // The panics of the second part are what is wanted; they need not be printed.
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::env::var_os("GRUS_SIM_TRACE").is_some() {
                usual(panic);
            }
        }));
    });
    let ends_well = |seed, sabotage| {
        let run = || simulate(seed, story(seed, sabotage));
        catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("").to_owned()
        })
    };
    assert_eq!(ends_well(1, Sabotage::default()), Ok(()), "fails with all rules in place");
    let asked = std::env::var("GRUS_SIM_SEEDS").ok().and_then(|text| text.parse().ok());
    let (mut noticed, mut first) = (0, None);
    for seed in 1..=asked.unwrap_or(SEEDS_MAX) {
        let began = now();
        let Err(missed) = ends_well(seed, sabotage) else { continue };
        noticed += 1;
        first.get_or_insert((seed, cluster::looked(), began.elapsed(), missed));
        if asked.is_none() {
            break;
        }
    }
    let (seed, (sim_ms, looks), took, missed) = first.expect("nobody misses the rule");
    let said = missed.lines().next().unwrap_or_default();
    let of_all = asked.map(|all| format!(", {noticed} of {all} seeds")).unwrap_or_default();
    eprintln!(
        "{rule}: seed {seed}, {sim_ms} ms simulated, {looks} looks, {took:.1?}{of_all}: {said}"
    );
}

#[expect(clippy::disallowed_methods, reason = "how long it takes to notice is told, not judged")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

#[test]
fn completions_must_wait_for_their_sync() {
    let sabotage = Sabotage { complete_early: true, ..Sabotage::default() };
    needs_its_rule("complete_early", sabotage, scenarios::power_goes_behind_a_receipt);
}

#[test]
fn votes_must_wait_for_their_sync() {
    let sabotage = Sabotage { vote_unsynced: true, ..Sabotage::default() };
    needs_its_rule("vote_unsynced", sabotage, scenarios::power_goes_behind_a_vote);
}

#[test]
fn a_restarted_leader_must_be_elected_again() {
    let sabotage = Sabotage { leader_restore: true, ..Sabotage::default() };
    needs_its_rule("leader_restore", sabotage, scenarios::a_leader_comes_back_without_its_tail);
}

#[test]
fn the_snapshot_must_be_the_purge_point() {
    let sabotage = Sabotage { newest_snapshot: true, ..Sabotage::default() };
    needs_its_rule("newest_snapshot", sabotage, scenarios::an_empty_member_joins_behind_a_trim);
}

#[test]
fn a_member_without_memory_must_not_vote() {
    let sabotage = Sabotage { trust_amnesiacs: true, ..Sabotage::default() };
    needs_its_rule("trust_amnesiacs", sabotage, scenarios::a_voter_loses_its_memory);
}

#[test]
fn a_member_without_its_folder_must_not_vote() {
    let sabotage = Sabotage { trust_amnesiacs: true, ..Sabotage::default() };
    needs_its_rule("trust_amnesiacs (folder)", sabotage, scenarios::a_voter_loses_its_folder);
}

/// Only openraft's own assertions notice: its release build finds its way back as long as nothing was lost.
#[cfg(debug_assertions)]
#[test]
fn a_conflict_counts_only_of_what_was_sent_alone() {
    let sabotage = Sabotage { tells_every_conflict: true, ..Sabotage::default() };
    needs_its_rule("tells_every_conflict", sabotage, scenarios::appends_overtake_one_another);
}

#[test]
fn an_answer_must_not_count_for_an_append_that_has_none() {
    let sabotage = Sabotage { credits_unanswered: true, ..Sabotage::default() };
    needs_its_rule("credits_unanswered", sabotage, scenarios::a_late_answer_behind_a_lost_append);
}

#[test]
fn appends_must_be_taken_in_order() {
    let sabotage = Sabotage { no_intake_line: true, ..Sabotage::default() };
    needs_its_rule("no_intake_line", sabotage, scenarios::a_member_is_short_of_room);
}

#[test]
fn members_that_all_lost_their_folders_begin_anew() {
    for later_ms in [0, 13, 37, 50, 71, 93] {
        simulate(7, scenarios::all_lose_their_folders(7, later_ms));
    }
}
