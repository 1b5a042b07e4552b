//! Groups in which an entry of a member's log is damaged, in simulation: whose log is damaged gives it to nobody,
//! and holds nobody up whose log is whole.
//!
//! `GRUS_SIM_SEEDS=n` runs n seeds of each test, `GRUS_SIM_SEED=s` one, `GRUS_SIM_TRACE=1` prints
//! what happens.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::changes::Driver;
use common::checks::read_everything;
use common::cluster::Cluster;
use common::net::IS_WHOLE;
use common::scenarios::{fill, three};
use common::{for_seeds, simulate};
use grus_consensus::{ChangeError, GivenBack, NodeId, Sabotage};
use grus_log::Log;
use grus_protocol::ids::Durability;

/// An entry of a segment that was sealed long ago.
const VICTIM: u64 = 5;
/// How often something is looked for before it is given up.
const LOOKS_MAX: u32 = 3_000;

/// Lets time pass. The checks of every step read all logs, which are not whole here.
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

async fn all_agree(cluster: &Cluster) {
    for _ in 0..LOOKS_MAX {
        if cluster.all_applied() {
            return;
        }
        wait(20).await;
    }
    panic!("they do not agree: {}", cluster.brief());
}

/// Damages an old entry on the disk of each of them, while it is down.
async fn damage(cluster: &mut Cluster, nodes: &[NodeId]) {
    for node in nodes {
        cluster.kill(*node).await;
        let disk = cluster.members[node].disk.clone();
        let config = cluster.setup.log.clone();
        let (log, _) = Log::open(&disk, Path::new("shard"), config).unwrap();
        let (path, at) = (log.segment_path(VICTIM).unwrap(), log.entry_place(VICTIM).unwrap());
        drop(log);
        disk.kill_process();
        disk.flip_bit(&path, 8 * (at.end - 1));
        cluster.setup.damaged.insert(*node);
        cluster.start_member(*node).await;
        let running = cluster.members[node].running.as_ref().unwrap();
        assert_eq!(running.log.borrow().stats().damaged_entries, 1, "member {node}");
        all_agree(cluster).await;
    }
}

async fn lead(cluster: &Cluster, node: NodeId) {
    for _ in 0..LOOKS_MAX {
        match cluster.leader() {
            Some(leader) if leader == node => return,
            Some(leader)
                if cluster.group(node).status().last == cluster.group(leader).status().last =>
            {
                let _ = cluster.group(leader).transfer_leader(node).await; // asked again
            }
            _ => {}
        }
        wait(200).await;
    }
    panic!("member {node} never leads: {}", cluster.brief());
}

/// The leader's log is damaged, and a new member is wanted: another one leads, and gives its own.
async fn the_leaders_log_is_damaged(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let damaged = 1 + seed % 3;
    damage(&mut cluster, &[damaged]).await;
    lead(&cluster, damaged).await;
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    let mut looks = 0;
    while !driver.turn(&mut cluster).await {
        looks += 1;
        assert!(
            looks < LOOKS_MAX,
            "nobody takes it in: {}\n{}",
            cluster.brief(),
            cluster.trace.tail(60)
        );
        wait(20).await;
    }
    all_agree(&cluster).await;
    assert_ne!(cluster.leader(), Some(damaged), "it could not have given what it has");
    let new = cluster.members[&4].running.as_ref().unwrap();
    assert_eq!(new.group.voters(), BTreeSet::from([1, 2, 3, 4]));
    read_everything(4, new, &cluster.receipts.borrow()).unwrap();
}

#[test]
fn a_leader_whose_log_is_damaged_leaves_it_to_one_whose_log_is_whole() {
    for_seeds("a_leader_whose_log_is_damaged_leaves_it_to_one_whose_log_is_whole", 3, |seed| {
        simulate(seed, the_leaders_log_is_damaged(seed));
    });
}

/// A member whose log is damaged comes to lead while a new one gets the log: it leaves it to one whose log is whole,
/// instead of reading for the new one what it cannot.
async fn the_damaged_one_leads_with_a_learner(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let (damaged, whole) = (1 + seed % 3, 1 + (seed + 1) % 3);
    damage(&mut cluster, &[damaged]).await;
    lead(&cluster, whole).await;
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    driver.start_joiners(&mut cluster).await;
    cluster.net.isolate(4, [1, 2, 3]); // it is to get the log, and has nothing of it as yet
    let has_a_learner = |cluster: &Cluster| {
        let members = cluster.group(damaged).members();
        members.is_settled && members.learners.contains(&4)
    };
    let mut looks = 0;
    while !has_a_learner(&cluster) {
        looks += 1;
        assert!(looks < LOOKS_MAX, "it becomes no learner: {}", cluster.brief());
        driver.turn(&mut cluster).await;
        wait(20).await;
    }
    lead(&cluster, damaged).await;
    let is_led_by_another =
        |cluster: &Cluster| cluster.leader().is_some_and(|leader| leader != damaged);
    while !is_led_by_another(&cluster) {
        looks += 1;
        let tail = cluster.trace.tail(20);
        assert!(looks < LOOKS_MAX, "it goes on leading: {}\n{tail}", cluster.brief());
        driver.turn(&mut cluster).await;
        wait(20).await;
    }
    cluster.net.heal();
    while !driver.turn(&mut cluster).await {
        looks += 1;
        let tail = cluster.trace.tail(60);
        assert!(looks < LOOKS_MAX, "nobody takes it in: {}\n{tail}", cluster.brief());
        wait(20).await;
    }
    all_agree(&cluster).await;
    assert!(cluster.members[&damaged].is_alive(), "it has read for the new one what it cannot");
    let new = cluster.members[&4].running.as_ref().unwrap();
    assert_eq!(new.group.voters(), BTreeSet::from([1, 2, 3, 4]));
    read_everything(4, new, &cluster.receipts.borrow()).unwrap();
}

#[test]
fn one_whose_log_is_damaged_leaves_it_also_when_it_comes_to_lead_with_a_learner() {
    let name = "one_whose_log_is_damaged_leaves_it_also_when_it_comes_to_lead_with_a_learner";
    for_seeds(name, 3, |seed| {
        simulate(seed, the_damaged_one_leads_with_a_learner(seed));
    });
}

/// A member whose log is damaged comes to lead while a new one gets the log, and nobody who is there has a log that is
/// whole: it reads nothing for the new one, and goes on leading, until one is there whose log is.
async fn the_damaged_one_leads_with_a_learner_and_nobody_is_whole(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let (damaged, whole) = (1 + seed % 3, 1 + (seed + 1) % 3);
    let third = 6 - damaged - whole;
    damage(&mut cluster, &[damaged, third]).await;
    lead(&cluster, whole).await;
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    driver.start_joiners(&mut cluster).await;
    cluster.net.isolate(4, [1, 2, 3]); // it is to get the log, and has nothing of it as yet
    let has_a_learner = |cluster: &Cluster| {
        let members = cluster.group(damaged).members();
        members.is_settled && members.learners.contains(&4)
    };
    let mut looks = 0;
    while !has_a_learner(&cluster) {
        looks += 1;
        assert!(looks < LOOKS_MAX, "it becomes no learner: {}", cluster.brief());
        driver.turn(&mut cluster).await;
        wait(20).await;
    }
    lead(&cluster, damaged).await;
    cluster.kill(whole).await;
    cluster.net.heal();
    let receipts = cluster.receipts.borrow().len();
    for _ in 0..50 {
        driver.turn(&mut cluster).await;
        if let Some(leader) = cluster.leader() {
            cluster.send(leader, 1);
        }
        wait(100).await;
        for node in [damaged, third] {
            let tail = cluster.trace.tail(60);
            assert!(cluster.members[&node].is_alive(), "{node} has read what it cannot: {tail}");
        }
    }
    assert!(cluster.receipts.borrow().len() > receipts, "it serves: {}", cluster.brief());
    cluster.start_member(whole).await;
    let mut looks = 0;
    while !driver.turn(&mut cluster).await {
        looks += 1;
        let tail = cluster.trace.tail(60);
        assert!(looks < LOOKS_MAX, "nobody takes it in: {}\n{tail}", cluster.brief());
        wait(50).await;
    }
    all_agree(&cluster).await;
    let new = cluster.members[&4].running.as_ref().unwrap();
    assert_eq!(new.group.voters(), BTreeSet::from([1, 2, 3, 4]));
    read_everything(4, new, &cluster.receipts.borrow()).unwrap();
}

#[test]
fn one_whose_log_is_damaged_reads_nothing_for_a_learner_while_nobody_is_whole() {
    let name = "one_whose_log_is_damaged_reads_nothing_for_a_learner_while_nobody_is_whole";
    for_seeds(name, 3, |seed| {
        simulate(seed, the_damaged_one_leads_with_a_learner_and_nobody_is_whole(seed));
    });
}

/// The only one whose log is whole says that it could lead, and then nobody hears that it stands: the leader asks it
/// again, but less and less often, as nothing is taken meanwhile; and it is asked when it is heard again.
async fn the_whole_one_never_takes_over(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let (damaged, whole) = (1 + seed % 3, 1 + (seed + 1) % 3);
    let third = 6 - damaged - whole;
    damage(&mut cluster, &[damaged, third]).await;
    lead(&cluster, damaged).await;
    cluster.net.lose_candidacies(whole);
    cluster.group(third).retire(); // it stands late, so that the same one leads again
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    let until = cluster.trace.now_ms() + 60_000;
    let mut served = 0;
    while cluster.trace.now_ms() < until {
        driver.turn(&mut cluster).await;
        wait(100).await;
        let is_served = cluster
            .leader()
            .is_some_and(|leader| !cluster.group(leader).status().lease_left.is_zero());
        served += u64::from(is_served);
    }
    let lost = cluster.net.lost_candidacies(whole);
    let tail = cluster.trace.tail(60);
    assert!(lost >= 2, "it was never asked: {tail}");
    assert!(lost <= 24, "it was asked for ever, {lost} candidacies, {served} served: {tail}");
    cluster.net.heal();
    let mut looks = 0;
    while !driver.turn(&mut cluster).await {
        looks += 1;
        let tail = cluster.trace.tail(60);
        assert!(looks < LOOKS_MAX, "nobody takes it in: {}\n{tail}", cluster.brief());
        wait(50).await;
    }
    all_agree(&cluster).await;
    let new = cluster.members[&4].running.as_ref().unwrap();
    assert_eq!(new.group.voters(), BTreeSet::from([1, 2, 3, 4]));
    read_everything(4, new, &cluster.receipts.borrow()).unwrap();
}

#[test]
fn one_that_never_takes_over_a_damaged_ones_group_is_asked_less_and_less_often() {
    let name = "one_that_never_takes_over_a_damaged_ones_group_is_asked_less_and_less_often";
    for_seeds(name, 3, |seed| {
        simulate(seed, the_whole_one_never_takes_over(seed));
    });
}

/// Nobody's log is whole: nothing is begun, the leader goes on, and says why.
async fn all_logs_are_damaged(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    damage(&mut cluster, &[1, 2, 3]).await;
    wait(2_000).await;
    let leader = cluster.leader().unwrap();
    let term = cluster.group(leader).status().term;
    let wanted = BTreeSet::from([1, 2, 3, 4]);
    for _ in 0..5 {
        let refused = cluster.group(leader).approach(&wanted).await.unwrap_err();
        let expected = matches!(refused, ChangeError::Damaged { asked: 2, unchecked: 0, .. });
        assert!(expected, "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("an entry of the log is damaged"), "{text}");
        assert!(text.contains("of 2 other voters") && text.contains("retention"), "{text}");
        wait(500).await;
    }
    let status = cluster.group(leader).status();
    assert_eq!((cluster.leader(), status.term), (Some(leader), term), "it goes on as it was");
    assert_eq!(cluster.group(leader).members().learners, BTreeSet::new());
    let receipts = cluster.receipts.borrow().len();
    cluster.send(leader, 3);
    wait(500).await;
    assert_eq!(cluster.receipts.borrow().len(), receipts + 3);
}

#[test]
fn where_nobodys_log_is_whole_the_members_stay_and_it_is_said_why() {
    for_seeds("where_nobodys_log_is_whole_the_members_stay_and_it_is_said_why", 1, |seed| {
        simulate(seed, all_logs_are_damaged(seed));
    });
}

/// Of the two others one is damaged, and the other one of a build that does not know what it is asked.
async fn one_is_of_an_older_build(seed: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let older = 1 + seed % 3;
    let others = cluster.others(older);
    damage(&mut cluster, &others).await;
    lead(&cluster, others[0]).await;
    wait(2_000).await;
    cluster.net.is_older(older, IS_WHOLE);
    let wanted = BTreeSet::from([1, 2, 3, 4]);
    let refused = cluster.group(others[0]).approach(&wanted).await.unwrap_err();
    let expected = matches!(refused, ChangeError::Damaged { asked: 2, unknowing: 1, .. });
    assert!(expected, "{refused:?}");
    let text = refused.to_string();
    assert!(text.contains("1 cannot say") && text.contains("upgrade"), "{text}");
    assert!(!text.contains("retention"), "its log may be whole: {text}");
}

#[test]
fn a_member_that_does_not_know_the_question_does_not_count_as_damaged() {
    for_seeds("a_member_that_does_not_know_the_question_does_not_count_as_damaged", 1, |seed| {
        simulate(seed, one_is_of_an_older_build(seed));
    });
}

/// A new member that is to be a voter is a learner already, added by one whose log is whole; it is cut off, so that
/// it has nothing yet. Gives who leads, and whose log is damaged.
async fn a_learner_has_nothing_yet(seed: u64) -> (Cluster, NodeId, NodeId) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    fill(&mut cluster, 5).await;
    cluster.run(1_000).await;
    let damaged = 1 + seed % 3;
    damage(&mut cluster, &[damaged]).await;
    let whole = cluster.others(damaged)[0];
    lead(&cluster, whole).await;
    wait(3_000).await;
    let mut driver = Driver::new(&[1, 2, 3, 4]);
    driver.start_joiners(&mut cluster).await;
    let others = cluster.others(4);
    cluster.net.isolate(4, others);
    for _ in 0..LOOKS_MAX {
        driver.turn(&mut cluster).await;
        if cluster.group(whole).members().learners == BTreeSet::from([4]) {
            wait(500).await;
            assert_eq!(cluster.leader(), Some(whole), "{}", cluster.brief());
            return (cluster, whole, damaged);
        }
        wait(20).await;
    }
    panic!("it is never a learner: {}", cluster.brief());
}

/// A leader that is about to stop while there is a learner gives its leadership to the one whose log is whole; where
/// that one is away, to the damaged one.
async fn a_planned_stop_with_a_learner(seed: u64, is_whole_one_away: bool) {
    let (cluster, leader, damaged) = a_learner_has_nothing_yet(seed).await;
    let other = (1..=3).find(|node| *node != leader && *node != damaged).unwrap();
    if is_whole_one_away {
        cluster.group(other).retire();
    }
    wait(3_000).await;
    assert!(cluster.group(leader).hand_over(None).await, "{}", cluster.brief());
    let expected = if is_whole_one_away { damaged } else { other };
    for _ in 0..100 {
        if cluster.leader() == Some(expected) {
            return;
        }
        wait(20).await;
    }
    panic!("{expected} does not lead: {}", cluster.brief());
}

#[test]
fn while_there_is_a_learner_a_whole_log_comes_first_among_successors_and_a_damaged_one_last() {
    for_seeds(
        "while_there_is_a_learner_a_whole_log_comes_first_among_successors_and_a_damaged_one_last",
        3,
        |seed| {
            simulate(seed, a_planned_stop_with_a_learner(seed, false));
            simulate(seed, a_planned_stop_with_a_learner(seed, true));
        },
    );
}

/// Whoever leads gives leadership back to one whose log is whole, and neither to one whose log is damaged nor while
/// there is a learner.
async fn a_damaged_one_is_to_lead(seed: u64) {
    let (cluster, leader, damaged) = a_learner_has_nothing_yet(seed).await;
    let other = (1..=3).find(|node| *node != leader && *node != damaged).unwrap();
    let group = cluster.group(leader);
    assert_eq!(group.give_back(other).await, GivenBack::NotNow, "there is a learner");
    let removed = group.approach(&BTreeSet::from([1, 2, 3])).await;
    assert!(removed.is_ok(), "{removed:?}");
    wait(2_000).await;
    let term = group.status().term;
    assert!(group.may_give_back(damaged), "it keeps up: {}", cluster.brief());
    assert_eq!(group.give_back(damaged).await, GivenBack::NotNow);
    assert_eq!((cluster.leader(), group.status().term), (Some(leader), term));
    assert_eq!(group.give_back(other).await, GivenBack::Done);
    wait(1_000).await;
    assert_eq!(cluster.leader(), Some(other), "{}", cluster.brief());
}

#[test]
fn leadership_goes_not_back_to_one_whose_log_is_damaged_nor_while_there_is_a_learner() {
    let name = "leadership_goes_not_back_to_one_whose_log_is_damaged_nor_while_there_is_a_learner";
    for_seeds(name, 3, |seed| {
        simulate(seed, a_damaged_one_is_to_lead(seed));
    });
}
