//! Groups of one that grow, in simulation: what is put back from before others came leads nobody, and how long a
//! receipt takes while, and after, they come.
//!
//! `GRUS_SIM_SEEDS=n` runs n seeds of each test, `GRUS_SIM_SEED=s` one, `GRUS_SIM_TRACE=1` prints
//! what happens.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use common::changes::Driver;
use common::cluster::Cluster;
use common::member::{Member, Setup};
use common::scenarios::{fill, mend_and_read};
use common::{for_seeds, machine, simulate};
use grus_consensus::StartError;
use grus_log::{EntryId, Log};
use grus_protocol::ids::Durability;

/// A group of one that has sent for a while.
async fn one(seed: u64, durability: Durability) -> Cluster {
    let mut cluster = Cluster::start(seed, Setup::new(durability, &[1])).await;
    fill(&mut cluster, 2).await;
    cluster
}

/// The last entry on the disk of a member that does not run.
fn last_entry(cluster: &Cluster, member: &Member) -> Option<EntryId> {
    let disk = member.disk.fork();
    disk.kill_process();
    let (log, _) = Log::open(&disk, Path::new("shard"), cluster.setup.log.clone()).unwrap();
    log.last()
}

/// The disk of the only member is copied, then others come, and then it is to be put back.
async fn with_an_old_copy(seed: u64, durability: Durability) -> (Cluster, Member) {
    let mut cluster = one(seed, durability).await;
    cluster.kill(1).await;
    let mut old = Member::new(1, seed ^ 0x01d);
    old.disk = cluster.members[&1].disk.fork();
    cluster.start_member(1).await;
    Driver::new(&[1, 2, 3]).finish(&mut cluster).await;
    let leader = cluster.leader().unwrap();
    cluster.send(leader, 20);
    cluster.run(500).await;
    cluster.kill(1).await;
    (cluster, old)
}

/// What tells it that it is one of before others came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Whoever starts it knows of the others.
    AtItsStart,
    /// Nobody knows of them, but it was to have others, and those are asked.
    ByTheOthers,
}

async fn an_old_copy_is_put_back(seed: u64, durability: Durability, told: Told) {
    let (mut cluster, mut old) = with_an_old_copy(seed, durability).await;
    match told {
        Told::AtItsStart => drop(cluster.setup.outgrown.insert(1)),
        Told::ByTheOthers => cluster.setup.wanted = vec![1, 2, 3],
    }
    if seed.is_multiple_of(2) {
        cluster.wait_leader(30_000).await;
    } else {
        cluster.run(500).await; // they elect while they are asked
    }
    let before = last_entry(&cluster, &old);
    let (net, setup, trace) = (cluster.net.clone(), cluster.setup.clone(), cluster.trace.clone());
    let refused = old.start(&net, &setup, &trace).await.err().unwrap();
    assert!(matches!(refused, StartError::Outgrown { last: 1.. }), "{refused}");
    assert!(refused.to_string().contains("an old copy"), "{refused}");
    assert_eq!(last_entry(&cluster, &old), before, "nothing is written there");
    // Not as a bystander either: those that were there go on without it.
    cluster.members.remove(&1);
    cluster.wait_leader(30_000).await;
    // Without its folder it is a new member, and gets everything from them.
    cluster.setup.joiners.insert(1);
    cluster.members.insert(1, Member::new(1, seed ^ 0xf01d));
    cluster.start_member(1).await;
    mend_and_read(&mut cluster).await;
}

#[test]
fn a_copy_of_before_others_came_does_not_start_and_they_go_on() {
    for_seeds("a_copy_of_before_others_came_does_not_start_and_they_go_on", 2, |seed| {
        for durability in [Durability::Persisted, Durability::Replicated] {
            simulate(seed, an_old_copy_is_put_back(seed, durability, Told::AtItsStart));
        }
    });
}

#[test]
fn a_copy_of_before_others_came_asks_those_that_were_to_come_where_nobody_knows_of_them() {
    for_seeds(
        "a_copy_of_before_others_came_asks_those_that_were_to_come_where_nobody_knows_of_them",
        2,
        |seed| {
            for durability in [Durability::Persisted, Durability::Replicated] {
                simulate(seed, an_old_copy_is_put_back(seed, durability, Told::ByTheOthers));
            }
        },
    );
}

/// Nobody knew of the others at its start, nor could they be asked: it leads alone, until somebody knows.
#[test]
fn a_copy_that_has_started_is_known_for_one_as_soon_as_somebody_knows_of_the_others() {
    for durability in [Durability::Persisted, Durability::Replicated] {
        simulate(7, async move {
            let (mut cluster, mut old) = with_an_old_copy(7, durability).await;
            let leader = cluster.wait_leader(30_000).await;
            let list = cluster.group(leader).members();
            let (voters, at) = (list.voters, list.index.unwrap());
            cluster.setup.wanted = vec![1, 2, 3];
            cluster.net.isolate(1, [2, 3]);
            cluster.members.remove(&1);
            let (net, setup) = (cluster.net.clone(), cluster.setup.clone());
            old.start(&net, &setup, &cluster.trace).await.unwrap();
            let group = old.group().unwrap().clone();
            group.ready().await.unwrap();
            assert!(group.is_outgrown(&voters, at), "{:?}", group.members());
            assert!(!group.is_outgrown(&BTreeSet::from([1]), at), "nobody else is named");
            let own = group.members().index.unwrap();
            assert!(!group.is_outgrown(&voters, own), "what is told is older than what it knows");
            old.kill(&net).await;
            cluster.net.heal();
            cluster.setup.joiners.insert(1);
            cluster.members.insert(1, Member::new(1, 0xf01d));
            cluster.start_member(1).await;
            mend_and_read(&mut cluster).await;
        });
    }
}

/// Each list of members that is committed is one that may be told. Nobody who is a member by right is taken for a
/// copy by any of them, and the only voter starts again at any moment, also asking those who are not voters yet.
async fn grows_and_is_killed_meanwhile(seed: u64, durability: Durability) {
    let mut cluster = one(seed, durability).await;
    cluster.setup.wanted = vec![1, 2, 3];
    let mut driver = Driver::new(&[1, 2, 3]);
    let mut told: Vec<(BTreeSet<u64>, u64)> = Vec::new();
    for round in 0..400 {
        let is_there = driver.turn(&mut cluster).await;
        let pause = 1 + cluster.rng.below(40);
        cluster.run(pause).await;
        for node in cluster.nodes() {
            let list = cluster.group(node).members();
            told.extend(list.index.filter(|_| list.is_settled).map(|at| (list.voters, at)));
        }
        told.dedup();
        for node in cluster.nodes() {
            let group = cluster.group(node);
            let of = told.iter().find(|(voters, at)| group.is_outgrown(voters, *at));
            assert!(of.is_none(), "{node} by {of:?}: {:?}", group.members());
        }
        if is_there {
            break;
        }
        if round % 40 == 39 {
            cluster.kill(1).await;
            cluster.start_member(1).await;
        }
    }
    driver.finish(&mut cluster).await;
    assert!(told.iter().any(|(voters, _)| voters.len() == 3), "it never grew: {told:?}");
    mend_and_read(&mut cluster).await;
}

#[test]
fn the_rightful_first_member_is_taken_for_a_copy_at_no_step_of_the_growth() {
    for_seeds(
        "the_rightful_first_member_is_taken_for_a_copy_at_no_step_of_the_growth",
        4,
        |seed| {
            for durability in [Durability::Persisted, Durability::Replicated] {
                simulate(seed, grows_and_is_killed_meanwhile(seed, durability));
            }
        },
    );
}

/// The one that began alone loses its folder once the others have come, and is killed again and again while it gets
/// its log back, the first entries of which name nobody else. It may be told of the others, or not.
async fn the_first_loses_its_folder(seed: u64, durability: Durability, is_told: bool) {
    let mut cluster = one(seed, durability).await;
    Driver::new(&[1, 2, 3]).finish(&mut cluster).await;
    cluster.run(500).await;
    cluster.kill(1).await;
    cluster.wait_leader(30_000).await;
    if is_told {
        cluster.setup.outgrown.insert(1);
    }
    cluster.setup.joiners.insert(1);
    cluster.members.insert(1, Member::new(1, seed ^ 0xf01d));
    let mut lives = 0;
    for _ in 0..400 {
        if cluster.members[&1].running.is_none() {
            cluster.start_member(1).await;
            lives += 1;
        }
        cluster.run(20).await;
        let leader = cluster.wait_leader(30_000).await;
        assert_ne!(leader, 1, "elected by itself alone: {}", cluster.brief());
        cluster.send(leader, 1);
        let regained = cluster.group(1);
        if regained.voters() == BTreeSet::from([1]) && lives < 6 {
            cluster.kill(1).await;
        } else if regained.voters().len() == 3 {
            break;
        }
    }
    assert!(lives > 1, "it was never met with a part of its log");
    mend_and_read(&mut cluster).await;
}

#[test]
fn the_first_member_that_has_lost_its_folder_elects_nobody_by_a_part_of_its_log() {
    for_seeds(
        "the_first_member_that_has_lost_its_folder_elects_nobody_by_a_part_of_its_log",
        2,
        |seed| {
            for durability in [Durability::Persisted, Durability::Replicated] {
                for is_told in [true, false] {
                    simulate(seed, the_first_loses_its_folder(seed, durability, is_told));
                }
            }
        },
    );
}

/// What it is told of others is no reason to refuse a log that knows them, nor one that is empty.
#[test]
fn whoever_knows_of_the_others_starts_though_it_is_told_of_them() {
    simulate(3, async {
        let mut cluster = one(3, Durability::Persisted).await;
        cluster.setup.outgrown.extend([1, 2, 3]);
        Driver::new(&[1, 2, 3]).finish(&mut cluster).await;
        for node in cluster.nodes() {
            cluster.kill(node).await;
            cluster.start_member(node).await;
        }
        mend_and_read(&mut cluster).await;
    });
}

/// How long a message takes from when it is sent until it is acknowledged.
async fn receipt_takes(cluster: &Cluster, node: u64, id: u64) -> Duration {
    let sent = tokio::time::Instant::now();
    cluster.group(node).propose(&[machine::append(0, 1_000_000 + id, 10)]).await.unwrap();
    sent.elapsed()
}

#[test]
fn while_a_replicated_group_of_one_has_learners_a_receipt_takes_a_sync_and_not_a_second() {
    simulate(4, async {
        let mut cluster = one(4, Durability::Replicated).await;
        cluster.set_flush_us(1, 40_000);
        let disk_takes = Duration::from_millis(20);
        for id in 0..4 {
            let took = receipt_takes(&cluster, 1, id).await;
            assert!(took < disk_takes, "alone it waits for no disk: {took:?}");
        }
        // One that is not there: it stays a learner.
        cluster.group(1).add_learner(2, "").await.unwrap();
        for id in 4..12 {
            let took = receipt_takes(&cluster, 1, id).await;
            assert!(took >= disk_takes, "a power cut takes what learners may have: {took:?}");
            assert!(took < Duration::from_millis(200), "nobody asks for the sync: {took:?}");
        }
        // Also behind a restart: the log says that there are learners.
        cluster.kill(1).await;
        cluster.start_member(1).await;
        cluster.wait_leader(30_000).await;
        let took = receipt_takes(&cluster, 1, 12).await;
        assert!(took >= disk_takes, "it forgot its learners: {took:?}");
        // Without learners it is as it was.
        cluster.group(1).approach(&BTreeSet::from([1])).await.unwrap();
        cluster.group(1).approach(&BTreeSet::from([1])).await.unwrap();
        let took = receipt_takes(&cluster, 1, 13).await;
        assert!(took < disk_takes, "nobody could lose anything any more: {took:?}");
    });
}

/// The wish ends with the step that fulfils it, as where another member leads from there on.
#[test]
fn once_others_vote_a_receipt_waits_for_no_disk_whoever_has_ended_the_growth() {
    simulate(5, async {
        let mut cluster = one(5, Durability::Replicated).await;
        let wanted = BTreeSet::from([1, 2, 3]);
        Driver::new(&[1, 2, 3]).start_joiners(&mut cluster).await;
        for _ in 0..500 {
            if cluster.group(1).voters() == wanted {
                break;
            }
            let _ = cluster.group(1).approach(&wanted).await; // those that come have to catch up
            cluster.run(50).await;
        }
        assert_eq!(cluster.group(1).voters(), wanted);
        cluster.run(3_000).await;
        assert_eq!(cluster.leader(), Some(1));
        // The other one that is left has a fast disk.
        cluster.kill(3).await;
        cluster.set_flush_us(1, 1_000_000);
        cluster.run(1_000).await;
        let took = receipt_takes(&cluster, 1, 0).await;
        assert!(took < Duration::from_millis(200), "it still syncs first: {took:?}");
    });
}
