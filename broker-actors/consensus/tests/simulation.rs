//! Three members in simulation: whatever happens to processes, powers and network, nothing that
//! was acknowledged is lost, no two members differ, and everything comes right again.
//!
//! `GRUS_SIM_SEEDS=n` runs n seeds of each test, `GRUS_SIM_SEED=s` one, `GRUS_SIM_TRACE=1` prints
//! what happens, `GRUS_SIM_TWICE=n` compares the traces of n seeds.

#![allow(clippy::unwrap_used)]

mod common;

use std::rc::Rc;
use std::time::Duration;

use common::chaos::{self, Mishaps};
use common::cluster::Cluster;
use common::{for_seeds, replayed, scenarios, seeds, simulate};
use grus_consensus::{Fault, Sabotage};
use grus_protocol::ids::Durability;

async fn three(seed: u64, durability: Durability) -> Cluster {
    scenarios::three(seed, durability, Sabotage::default()).await
}

#[test]
fn a_killed_leader_is_replaced_and_nothing_is_lost() {
    for_seeds("a_killed_leader_is_replaced_and_nothing_is_lost", 2, |seed| {
        simulate(seed, async move {
            let mut cluster = three(seed, Durability::Persisted).await;
            for _ in 0..3 {
                let leader = cluster.leader().unwrap();
                cluster.send(leader, 20);
                cluster.run(15).await;
                let killed_at = cluster.trace.now_ms();
                cluster.kill(leader).await;
                let next = cluster.wait_leader(10_000).await;
                let took_ms = cluster.trace.now_ms() - killed_at;
                assert!(took_ms < 3_000, "failover took {took_ms} ms");
                assert_ne!(next, leader);
                cluster.start_member(leader).await;
                cluster.run(2_000).await;
            }
            cluster.settle(60_000).await;
            chaos::everyone_leads_and_reads(&mut cluster).await;
        });
    });
}

#[test]
fn the_tail_of_a_leader_that_was_cut_off_is_truncated() {
    for_seeds("the_tail_of_a_leader_that_was_cut_off_is_truncated", 2, |seed| {
        simulate(seed, async move {
            let mut cluster = three(seed, Durability::Persisted).await;
            let old = cluster.leader().unwrap();
            cluster.send(old, 5);
            cluster.run(200).await;
            cluster.net.isolate(old, cluster.others(old));
            cluster.send(old, 30);
            cluster.run(5_000).await;
            let status = cluster.group(old).status();
            assert!(status.is_leader, "a leader that is cut off believes that it leads");
            assert!(status.lease_left.is_zero(), "but it knows that it has no lease");
            let lost = status.last.unwrap();
            let new = cluster.leader().unwrap();
            assert_ne!(new, old);
            cluster.send(new, 3);
            cluster.run(300).await;
            cluster.net.heal();
            cluster.run(3_000).await;
            let last = cluster.group(old).status().last.unwrap();
            assert!(last < lost, "entries {last}..={lost} were not truncated");
            cluster.settle(60_000).await;
            chaos::everyone_leads_and_reads(&mut cluster).await;
        });
    });
}

#[test]
fn a_member_whose_state_differs_stops_at_the_next_seal_and_says_where() {
    replayed("a_member_whose_state_differs_stops_at_the_next_seal_and_says_where", "", || {
        simulate(5, async {
            let mut cluster = three(5, Durability::Persisted).await;
            let leader = cluster.leader().unwrap();
            let wrong = cluster.others(leader)[0];
            cluster.members[&wrong].running.as_ref().unwrap().machine.borrow_mut().wrong = true;
            let fault = Rc::clone(&cluster.members[&wrong].fault);
            for _ in 0..200 {
                cluster.send(leader, 8);
                tokio::time::sleep(Duration::from_millis(40)).await;
                if fault.borrow().is_some() {
                    break;
                }
            }
            let log = Rc::clone(&cluster.members[&leader].running.as_ref().unwrap().log);
            let first_seal = log.borrow().checkpoints().map(|id| id.index).next().unwrap();
            let fault = fault.borrow().clone();
            let Some(Fault::Diverged { index, ours, theirs }) = fault else { panic!("{fault:?}") };
            assert_eq!(index, first_seal);
            assert_ne!(ours, theirs);
            assert!(cluster.members[&leader].is_alive(), "the others serve on");
        });
    });
}

#[test]
fn a_leader_that_asks_for_a_successor_has_no_lease_any_more() {
    replayed("a_leader_that_asks_for_a_successor_has_no_lease_any_more", "", || {
        simulate(6, async {
            let mut cluster = three(6, Durability::Persisted).await;
            cluster.run(1_500).await;
            let leader = cluster.leader().unwrap();
            let group = cluster.group(leader);
            assert!(!group.status().lease_left.is_zero());
            let next = cluster.others(leader)[0];
            group.transfer_leader(next).await.unwrap();
            assert!(group.status().lease_left.is_zero(), "the successor may be elected already");
            cluster.run(1_000).await;
            assert_eq!(cluster.leader(), Some(next));
            assert!(!cluster.group(next).status().lease_left.is_zero());
        });
    });
}

#[test]
fn each_story_ends_well() {
    for_seeds("each_story_ends_well", 1, |seed| {
        let all_rules = Sabotage::default();
        simulate(seed, scenarios::power_goes_behind_a_receipt(seed, all_rules));
        simulate(seed, scenarios::power_goes_behind_a_vote(seed, all_rules));
        simulate(seed, scenarios::a_leader_comes_back_without_its_tail(seed, all_rules));
        simulate(seed, scenarios::an_empty_member_joins_behind_a_trim(seed, all_rules));
        simulate(seed, scenarios::a_voter_loses_its_memory(seed, all_rules));
    });
}

#[test]
fn mishaps_of_every_kind_on_a_persisted_shard() {
    for_seeds("mishaps_of_every_kind_on_a_persisted_shard", 8, |seed| {
        simulate(seed, async move {
            let mut cluster = three(seed, Durability::Persisted).await;
            chaos::run(&mut cluster, Mishaps::persisted()).await;
        });
    });
}

#[test]
fn power_cuts_around_seals_trims_and_installs() {
    for_seeds("power_cuts_around_seals_trims_and_installs", 1, |seed| {
        simulate(seed, async move {
            let mut cluster = three(seed, Durability::Persisted).await;
            chaos::cuts_around_seals(&mut cluster, 10).await;
        });
    });
}

#[test]
fn mishaps_of_a_minority_on_a_replicated_shard() {
    for_seeds("mishaps_of_a_minority_on_a_replicated_shard", 5, |seed| {
        simulate(seed, async move {
            let mut cluster = three(seed, Durability::Replicated).await;
            chaos::run(&mut cluster, Mishaps::replicated()).await;
        });
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let run = std::thread::spawn(move || {
            simulate(seed, async move {
                let mut cluster = three(seed, Durability::Persisted).await;
                chaos::run(&mut cluster, Mishaps::persisted()).await;
                cluster.trace.lines()
            })
        });
        run.join().unwrap()
    };
    let twice = seeds::number("GRUS_SIM_TWICE").unwrap_or(1);
    for seed in 77..77 + twice {
        let settings = format!("GRUS_SIM_TWICE={}", seed - 76);
        replayed("the_same_seed_gives_the_same_run", &settings, || {
            let (first, second) = (trace(seed), trace(seed));
            assert!(first.len() > 40, "nothing happened");
            for (nth, (one, two)) in first.iter().zip(&second).enumerate() {
                assert_eq!(one, two, "the runs of {seed} part at line {nth}");
            }
            assert_eq!(first.len(), second.len());
            if seed == 77 {
                assert_ne!(first, trace(78), "the seed decides nothing");
            }
        });
    }
}

#[test]
fn the_command_of_a_failure_says_all_that_decides_what_is_run() {
    let again = seeds::command("some::test", "GRUS_SIM_SEED=7 GRUS_SIM_SEEDS=1");
    let wanted = "GRUS_SIM_SEED=7 GRUS_SIM_SEEDS=1 cargo test -p grus-consensus some::test -- --exact --nocapture";
    assert_eq!(again, wanted);
    assert!(seeds::command("some::test", "").starts_with("cargo test"));
}
