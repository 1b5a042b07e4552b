//! Three brokers, each queue on all of them: any one may die at any moment. Every acknowledged message
//! is there, none twice, and whoever sends goes on without doing anything for it.

use grus_tests::cluster::{
    Cluster, Sender, await_leaders, block_on, check, grus_at, quick_registry,
};
use grus_tests::watch::PATIENCE;
use rustix::process::Signal;

/// What befalls a leader.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// SIGKILL.
    Dies,
    /// SIGSTOP, and SIGCONT once others have taken over: it wakes up as one that still leads.
    StandsStill,
}

fn leaders_fall(durability: &str) {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, durability);
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(300).await;
        for blow in [Blow::Dies, Blow::StandsStill, Blow::Dies] {
            let number = cluster.leader("t");
            match blow {
                Blow::Dies => cluster.kill(number),
                Blow::StandsStill => cluster.signal(number, Signal::STOP),
            }
            let longest = sender.go_on(400).await;
            println!("{durability}, a leader {blow:?}: longest wait for a receipt {longest:?}");
            match blow {
                Blow::Dies => cluster.start_again(number),
                Blow::StandsStill => cluster.signal(number, Signal::CONT),
            }
            sender.go_on(100).await;
            cluster.await_all_led("t");
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

#[test]
fn s34_leaders_of_persisted_queues_fall_and_nothing_acknowledged_is_lost() {
    leaders_fall("persisted");
}

#[test]
fn s34_leaders_of_replicated_queues_fall_and_nothing_acknowledged_is_lost() {
    leaders_fall("replicated");
}

#[test]
fn all_brokers_die_at_once_and_come_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 3, "persisted");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        for number in 0..3 {
            cluster.kill(number);
        }
        for number in 0..3 {
            cluster.start_again(number);
        }
        cluster.await_all_led("t");
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// One member has not heard of what two others have acknowledged; one of these loses its shards with all
/// that they promised, perhaps with the notes that it was there, and the other one is down: nobody may lead
/// before it is back.
fn a_member_loses_its_shards(with_notes: bool) {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    let leader = cluster.leader("t");
    let (lossy, behind) = ((leader + 1) % 3, (leader + 2) % 3);
    // It has heard that somebody leads, and keeps that.
    let listen = cluster.homes[lossy].listen;
    await_leaders(listen, "t", PATIENCE, |leaders| leaders.iter().all(Option::is_some));
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(50).await;
        cluster.kill(behind);
        sender.go_on(200).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    cluster.kill(lossy);
    cluster.kill(leader);
    let data = cluster.homes[lossy].data.clone();
    for member in std::fs::read_dir(data.join("members")).expect("what it is a member of") {
        let note = member.expect("a file");
        let shard = data.join("shards").join(note.file_name());
        std::fs::remove_dir_all(shard).expect("the folder of a shard");
        if with_notes {
            std::fs::remove_file(note.path()).expect("its note");
        }
    }
    let mut empty = cluster.homes[lossy].begin();
    empty.process.wait_for("word of what is lost", PATIENCE, |line| line.contains("log is gone"));
    empty.wait_ready();
    cluster.brokers[lossy] = Some(empty);
    cluster.start_again(behind);
    cluster.start_again(leader);
    cluster.await_all_led("t");
    check(&cluster, "t", &sent);
}

#[test]
fn a_member_whose_shards_are_gone_elects_nobody_who_knows_less() {
    a_member_loses_its_shards(false);
}

#[test]
fn a_member_whose_shards_are_gone_with_their_notes_elects_nobody_who_knows_less() {
    a_member_loses_its_shards(true);
}

#[test]
fn more_replicas_than_brokers_are_refused_by_a_word() {
    let home = quick_registry();
    let _registry = home.start();
    let one = home.broker();
    let _broker = one.start();
    for at in [home.listen, one.listen] {
        let refused = grus_at(&[at], &["topic", "create", "t", "--replicas", "3"], b"");
        assert_eq!(refused.status.code(), Some(1), "{}", refused.err);
        assert!(refused.err.contains("3 replicas, and 1 brokers are there"), "{}", refused.err);
    }
}
