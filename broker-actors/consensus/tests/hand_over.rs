//! Three members in simulation that give leadership away: to one that can lead at once, to nobody when
//! there is none, and with a way back when the one that was asked does not come.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::cluster::Cluster;
use common::{scenarios, simulate};
use grus_consensus::{NodeId, Sabotage};
use grus_protocol::ids::Durability;

async fn three(seed: u64) -> Cluster {
    let mut cluster = scenarios::three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.run(2_000).await; // everybody votes again
    cluster
}

/// Waits at most `ms` until one more message has its receipt.
async fn takes_a_message_within(cluster: &mut Cluster, ms: u64) {
    let until = cluster.trace.now_ms() + ms;
    let before = cluster.receipts.borrow().len();
    while cluster.receipts.borrow().len() == before {
        let now_ms = cluster.trace.now_ms();
        assert!(
            now_ms < until,
            "none after {ms} ms: {}\n{}",
            cluster.brief(),
            cluster.trace.tail(40)
        );
        if let Some(leader) = cluster.leader() {
            cluster.send(leader, 1);
        }
        cluster.run(20).await;
    }
}

/// Runs the cluster while a member hands over; what came of it, and after how many milliseconds.
async fn hand_over(cluster: &mut Cluster, from: NodeId, to: Option<NodeId>) -> (bool, u64) {
    let group = cluster.group(from);
    let task = tokio::task::spawn_local(async move { group.hand_over(to).await });
    let begun_ms = cluster.trace.now_ms();
    while !task.is_finished() {
        cluster.run(5).await;
    }
    (task.await.unwrap(), cluster.trace.now_ms() - begun_ms)
}

#[test]
fn when_all_retire_the_last_one_leads_on() {
    simulate(11, async {
        let mut cluster = three(11).await;
        for left in [2, 1] {
            let leader = cluster.leader().unwrap();
            cluster.group(leader).retire();
            let (done, took_ms) = hand_over(&mut cluster, leader, None).await;
            assert!(done && took_ms < 200, "{left} are left: {done} after {took_ms} ms");
            takes_a_message_within(&mut cluster, 200).await;
        }
        let last = cluster.leader().unwrap();
        let term = cluster.group(last).status().term;
        cluster.group(last).retire();
        let (done, took_ms) = hand_over(&mut cluster, last, None).await;
        assert!(!done && took_ms < 200, "there is nobody: {done} after {took_ms} ms");
        takes_a_message_within(&mut cluster, 200).await;
        assert_eq!(cluster.group(last).status().term, term, "it has led all the time");
        assert!(!cluster.group(last).status().lease_left.is_zero());

        // One that is started again takes over: whoever is retired looks for somebody all the time.
        let back = cluster.others(last)[0];
        cluster.kill(back).await;
        cluster.start_member(back).await;
        let until = cluster.trace.now_ms() + 5_000;
        while cluster.leader() != Some(back) {
            assert!(cluster.trace.now_ms() < until, "{}", cluster.brief());
            cluster.run(20).await;
        }
        takes_a_message_within(&mut cluster, 200).await;
        cluster.group(back).retire();
        let (done, _) = hand_over(&mut cluster, back, None).await;
        assert!(!done, "nobody who stays is left");
        let last = back;

        // Nobody wants to, but somebody has to.
        cluster.kill(last).await;
        takes_a_message_within(&mut cluster, 8_000).await;
        cluster.settle(60_000).await;
    });
}

#[test]
fn a_leader_does_not_give_way_to_one_that_is_dead() {
    simulate(12, async {
        let mut cluster = three(12).await;
        let leader = cluster.leader().unwrap();
        let dead = cluster.others(leader)[1];
        cluster.kill(dead).await;
        let term = cluster.group(leader).status().term;
        let (done, took_ms) = hand_over(&mut cluster, leader, Some(dead)).await;
        assert!(!done && took_ms < 1_500, "{done} after {took_ms} ms");
        cluster.send(leader, 1);
        takes_a_message_within(&mut cluster, 200).await;
        assert_eq!((cluster.leader(), cluster.group(leader).status().term), (Some(leader), term));
        // Without a name it is the other one's, though the dead one was heard of a moment ago.
        let (done, took_ms) = hand_over(&mut cluster, leader, None).await;
        assert!(done && took_ms < 500, "{done} after {took_ms} ms");
        cluster.settle(60_000).await;
    });
}

#[test]
fn a_leader_takes_back_what_nobody_came_for() {
    for seed in 20..24 {
        simulate(seed, async move {
            let mut cluster = three(seed).await;
            let leader = cluster.leader().unwrap();
            let [third, to] = cluster.others(leader)[..] else { unreachable!() };
            // Nobody else would stand, and the leader itself is about to be stopped, or not.
            cluster.group(third).retire();
            if seed % 2 == 0 {
                cluster.group(leader).retire();
            }
            cluster.kill(to).await;
            cluster.group(leader).transfer_leader(to).await.unwrap();
            cluster.run(500).await;
            assert!(cluster.group(leader).status().lease_left.is_zero());
            takes_a_message_within(&mut cluster, 2_000).await;
            assert_eq!(cluster.leader(), Some(leader), "seed {seed}");
            assert!(!cluster.group(leader).status().lease_left.is_zero());
            cluster.settle(60_000).await;
        });
    }
}

#[test]
fn whenever_the_successor_dies_somebody_leads_again() {
    for delay_ms in 0..12 {
        simulate(delay_ms, async move {
            let mut cluster = three(30 + delay_ms).await;
            let leader = cluster.leader().unwrap();
            let [third, to] = cluster.others(leader)[..] else { unreachable!() };
            cluster.group(third).retire();
            let group = cluster.group(leader);
            group.retire();
            let task = tokio::task::spawn_local(async move { group.hand_over(Some(to)).await });
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            cluster.kill(to).await;
            takes_a_message_within(&mut cluster, 8_000).await;
            while !task.is_finished() {
                cluster.run(20).await;
            }
            cluster.settle(60_000).await;
        });
    }
}

#[test]
fn a_successor_that_has_just_started_is_not_asked_before_it_may_vote() {
    simulate(13, async {
        let mut cluster = three(13).await;
        let leader = cluster.leader().unwrap();
        let [other, fresh] = cluster.others(leader)[..] else { unreachable!() };
        cluster.kill(fresh).await;
        cluster.start_member(fresh).await;
        cluster.send(leader, 5);
        while !cluster.all_applied() {
            cluster.run(10).await;
        }
        let (done, took_ms) = hand_over(&mut cluster, leader, None).await;
        assert!(done && took_ms < 100, "{done} after {took_ms} ms");
        assert_eq!(cluster.leader(), Some(other));

        // It alone is there: the leader goes on until it may.
        cluster.run(2_000).await;
        cluster.kill(fresh).await;
        cluster.kill(leader).await;
        cluster.start_member(fresh).await;
        takes_a_message_within(&mut cluster, 1_000).await;
        let (done, took_ms) = hand_over(&mut cluster, other, None).await;
        assert!(done && took_ms < 1_200, "{done} after {took_ms} ms");
        takes_a_message_within(&mut cluster, 200).await;
        assert_eq!(cluster.leader(), Some(fresh));
        cluster.settle(60_000).await;
    });
}

#[test]
fn a_leader_that_is_to_go_serves_on_while_its_successor_is_behind() {
    simulate(14, async {
        let mut cluster = three(14).await;
        let leader = cluster.leader().unwrap();
        let [other, slow] = cluster.others(leader)[..] else { unreachable!() };
        cluster.kill(other).await;
        cluster.set_flush_us(slow, 400_000); // more than 64 entries behind all the time
        let until = cluster.trace.now_ms() + 2_000;
        while cluster.trace.now_ms() < until {
            cluster.send(leader, 8);
            cluster.run(20).await;
        }
        cluster.group(leader).retire();
        let term = cluster.group(leader).status().term;
        for round in 0..4 {
            let before = cluster.receipts.borrow().len();
            for _ in 0..200 {
                cluster.send(leader, 8);
                cluster.run(20).await;
            }
            assert!(
                cluster.receipts.borrow().len() > before,
                "none in 4 s, round {round}: {}",
                cluster.brief()
            );
        }
        assert_eq!(cluster.group(leader).status().term, term, "nothing was given away in vain");
        // Once it keeps up it takes over.
        cluster.set_flush_us(slow, 3_000);
        let until = cluster.trace.now_ms() + 10_000;
        while cluster.leader() != Some(slow) {
            assert!(cluster.trace.now_ms() < until, "{}", cluster.brief());
            cluster.run(20).await;
        }
        cluster.settle(60_000).await;
    });
}

#[test]
fn a_leader_under_load_gives_way_to_one_that_keeps_up() {
    simulate(16, async {
        let mut cluster = three(16).await;
        let leader = cluster.leader().unwrap();
        for node in [1, 2, 3] {
            cluster.set_flush_us(node, 20_000);
        }
        // More than 64 entries are under way to everybody at each moment.
        let until = cluster.trace.now_ms() + 1_000;
        while cluster.trace.now_ms() < until {
            cluster.send_up_to(leader, 50, 16);
            cluster.run(10).await;
        }
        let last = cluster.group(leader).status().last.unwrap();
        let lags = cluster.group(leader).lags();
        assert!(
            lags.iter().all(|member| member.matched.unwrap() + 64 < last),
            "{last}, {lags:?}: nobody is ever near"
        );
        cluster.group(leader).retire();
        let group = cluster.group(leader);
        let task = tokio::task::spawn_local(async move { group.hand_over(None).await });
        let begun_ms = cluster.trace.now_ms();
        while cluster.leader().is_none_or(|now| now == leader) {
            assert!(cluster.trace.now_ms() < begun_ms + 3_000, "{}", cluster.brief());
            cluster.send_up_to(leader, 50, 16);
            cluster.run(10).await;
        }
        assert!(task.await.unwrap(), "it gave way, nobody took it from it");
        takes_a_message_within(&mut cluster, 200).await;
        cluster.settle(60_000).await;
    });
}

#[test]
fn who_does_not_lead_gives_nothing_away() {
    simulate(15, async {
        let mut cluster = three(15).await;
        let first = cluster.leader().unwrap();
        let [heir, third] = cluster.others(first)[..] else { unreachable!() };
        cluster.group(first).retire();
        assert!(hand_over(&mut cluster, first, Some(heir)).await.0);
        // Late, as of another hand-over at the same time: it must not make a retired member stand at once.
        cluster.group(first).transfer_leader(third).await.unwrap();
        cluster.run(3_000).await;
        assert_eq!(cluster.leader(), Some(heir));
        cluster.kill(heir).await;
        assert_eq!(cluster.wait_leader(8_000).await, third);
        cluster.settle(60_000).await;
    });
}
