//! Groups whose members change, in simulation: nothing that was acknowledged is lost, no two lead in a
//! term, whoever is killed in the middle of it, and who is out learns so, and only it.
//!
//! `GRUS_SIM_SEEDS=n` runs n seeds of each test, `GRUS_SIM_SEED=s` one, `GRUS_SIM_TRACE=1` prints
//! what happens.

#![allow(clippy::unwrap_used)]

mod common;

use common::{changes, for_seeds, simulate};
use grus_protocol::ids::Durability;

#[test]
fn a_dead_follower_is_replaced_by_one_that_installs_what_is_trimmed() {
    for_seeds("a_dead_follower_is_replaced_by_one_that_installs_what_is_trimmed", 1, |seed| {
        simulate(seed, changes::a_dead_follower_is_replaced(seed));
    });
}

#[test]
fn a_leader_that_is_not_to_remain_hands_over_first() {
    for_seeds("a_leader_that_is_not_to_remain_hands_over_first", 1, |seed| {
        simulate(seed, changes::a_leader_is_replaced(seed));
        simulate(seed, changes::an_heir_that_does_not_want_to_lead(seed));
    });
}

#[test]
fn all_members_change_and_nothing_is_lost() {
    for_seeds("all_members_change_and_nothing_is_lost", 1, |seed| {
        simulate(seed, changes::all_members_change(seed));
    });
}

#[test]
fn a_joiner_that_loses_its_folder_begins_again() {
    for_seeds("a_joiner_that_loses_its_folder_begins_again", 1, |seed| {
        simulate(seed, changes::a_joiner_loses_its_folder(seed));
    });
}

#[test]
fn leaders_that_die_in_the_middle_of_a_change_lose_nothing() {
    for_seeds("leaders_that_die_in_the_middle_of_a_change_lose_nothing", 1, |seed| {
        simulate(seed, changes::leaders_die_while_they_change(seed));
    });
}

#[test]
fn without_the_leader_whoever_is_said_to_vote_makes_the_majority() {
    for_seeds("without_the_leader_whoever_is_said_to_vote_makes_the_majority", 4, |seed| {
        simulate(seed, changes::who_is_said_to_vote_counts_at_once(seed));
    });
}

#[test]
fn lists_change_under_mishaps_of_every_kind() {
    for_seeds("lists_change_under_mishaps_of_every_kind", 1, |seed| {
        for durability in [Durability::Persisted, Durability::Replicated] {
            simulate(seed, changes::lists_change_under_mishaps(seed, 12, durability));
        }
    });
}

#[test]
fn a_change_that_the_group_could_not_finish_is_refused_and_it_goes_on() {
    for_seeds("a_change_that_the_group_could_not_finish_is_refused_and_it_goes_on", 1, |seed| {
        simulate(seed, changes::a_change_that_could_not_end(seed));
    });
}
