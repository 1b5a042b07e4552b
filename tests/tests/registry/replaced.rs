//! A broker is lost for good, and another one gets its replicas by itself, under load; when it comes back
//! after all, it loses what it is no member of any more, and only that. It comes in again by hand.

use std::collections::BTreeSet;

use grus_tests::cluster::{Cluster, Sender, block_on, check, grus_at, quick_registry};
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

/// The replicated shards: who has each, leader first, and whether one of them is behind. Nothing of one
/// that nobody leads.
fn shards(cluster: &Cluster) -> Vec<(BTreeSet<u64>, bool)> {
    let said = grus_at(&cluster.at(), &["--json", "cluster", "shards"], b"");
    if !said.status.success() {
        return Vec::new();
    }
    let all = said.json().into_iter().filter(|shard| shard["replicated"] == true);
    let members = |shard: Value| {
        let others = shard["members"].as_array()?.iter();
        let others = others.filter_map(|member| member["broker"].as_u64());
        let all = others.chain(shard["leader"].as_u64()).collect();
        Some((all, shard["under_replicated"] == true))
    };
    all.filter_map(members).collect()
}

/// Waits until that is so of each of `count` shards.
pub(super) fn await_shards(
    cluster: &Cluster,
    count: usize,
    is_so: impl Fn(&BTreeSet<u64>, bool) -> bool,
) {
    let watch = Watch::start();
    loop {
        let said = shards(cluster);
        if said.len() == count && said.iter().all(|(members, is_short)| is_so(members, *is_short)) {
            return;
        }
        assert!(watch.elapsed() < PATIENCE * 2, "{said:?}");
    }
}

/// The numbers of the shards of several brokers that a broker notes it has, and has not been let go of.
pub(super) fn noted(cluster: &Cluster, number: usize) -> BTreeSet<String> {
    let folder = cluster.homes[number].data.join("members");
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let is_in = |file: &std::fs::DirEntry| {
        std::fs::read_to_string(file.path()).is_ok_and(|text| !text.contains("out"))
    };
    let inside = files.filter(is_in);
    inside.map(|file| file.file_name().into_string().expect("text")).collect()
}

/// Has the members of the topic's shards changed, by a command.
pub(super) fn change(cluster: &Cluster, words: &str) {
    let words: Vec<&str> = ["--json", "cluster"].into_iter().chain(words.split(' ')).collect();
    let told = grus_at(&cluster.at(), &words, b"").ok().json();
    assert_eq!(told[0]["changing"].as_array().map(Vec::len), Some(3), "{words:?}: {told:?}");
}

#[test]
fn a_broker_that_is_lost_is_replaced_and_loses_its_replicas_when_it_comes_back() {
    let registry = quick_registry().with("GRUS__BROKER__REBUILD_AFTER", "5s");
    let homes = (0..3).map(|_| registry.broker()).collect();
    let mut cluster = Cluster::of(registry, homes);
    cluster.topic("t", 3, "persisted");
    let new = cluster.join();
    let ids: Vec<u64> = (0..4).map(|number| cluster.id_of(number)).collect();
    let set = |numbers: [usize; 3]| numbers.map(|number| ids[number]).into_iter().collect();
    let replaced: BTreeSet<u64> = set([1, 2, new]);
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(200).await;
        // All three have begun.
        let watch = Watch::start();
        while noted(&cluster, 0).len() < 3 {
            assert!(watch.elapsed() < PATIENCE, "begun: {:?}", noted(&cluster, 0));
            sender.go_on(10).await;
        }
        // Nobody says a word: it is gone for longer than the grace time.
        cluster.kill(0);
        sender.go_on(100).await;
        await_shards(&cluster, 3, |members, is_short| *members == replaced && !is_short);
        let before = noted(&cluster, 0);
        assert_eq!(before.len(), 3);
        cluster.start_again(0);
        let watch = Watch::start();
        while !noted(&cluster, 0).is_empty() {
            assert!(watch.elapsed() < PATIENCE * 2, "never told: {:?}", noted(&cluster, 0));
            sender.go_on(10).await;
        }
        for shard in &before {
            let folder = cluster.homes[0].data.join("shards").join(shard);
            while folder.exists() {
                assert!(watch.elapsed() < PATIENCE * 2, "{} stays", folder.display());
            }
        }
        for member in [1, 2, new] {
            assert_eq!(noted(&cluster, member), before, "only those that are out go");
        }
        // By hand: it comes in again with an empty folder, in place of one that is there.
        change(&cluster, &format!("add-replica t --broker {} --instead-of {}", ids[0], ids[1]));
        let back: BTreeSet<u64> = set([0, 2, new]);
        await_shards(&cluster, 3, |members, is_short| *members == back && !is_short);
        while !noted(&cluster, 1).is_empty() {
            assert!(watch.elapsed() < PATIENCE * 4, "never told: {:?}", noted(&cluster, 1));
            sender.go_on(10).await;
        }
        // Those that came later count: without one of the three they are the majority.
        cluster.kill(2);
        sender.go_on(100).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// The brokers of these numbers, by their ids.
fn ids_of(cluster: &Cluster, numbers: &[usize]) -> BTreeSet<u64> {
    numbers.iter().map(|number| cluster.id_of(*number)).collect()
}

/// Each shard has so many members, all of them keep up, and none is one of those that are gone.
fn await_rebuilt(cluster: &Cluster, count: usize, members: usize, gone: &BTreeSet<u64>) {
    await_shards(cluster, count, |of, is_short| {
        of.len() == members && of.is_disjoint(gone) && !is_short
    });
}

/// S35, and once more: what a rebuild has made counts, or the second loss would leave one of three.
#[test]
fn s35_of_five_brokers_two_are_lost_one_after_the_other_and_each_shard_has_three_again() {
    let registry = quick_registry().with("GRUS__BROKER__REBUILD_AFTER", "2s");
    let homes = (0..5).map(|_| registry.broker()).collect();
    let mut cluster = Cluster::of(registry, homes);
    cluster.topic("t", 5, "persisted");
    await_rebuilt(&cluster, 5, 3, &BTreeSet::new());
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        let mut gone = Vec::new();
        for _ in 0..2 {
            let number = cluster.leader("t");
            gone.push(number);
            let lost = ids_of(&cluster, &gone);
            cluster.kill(number);
            sender.go_on(100).await;
            await_rebuilt(&cluster, 5, 3, &lost);
        }
        // The first one returns to a cluster that has done without it: what it has is surplus, and goes.
        let back = gone[0];
        cluster.start_again(back);
        let watch = Watch::start();
        while !noted(&cluster, back).is_empty() {
            assert!(watch.elapsed() < PATIENCE * 2, "never told: {:?}", noted(&cluster, back));
            sender.go_on(10).await;
        }
        await_rebuilt(&cluster, 5, 3, &ids_of(&cluster, &gone));
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    check(&cluster, "t", &sent);
}

/// Waits until that is so of each of the four shards of so many members, and all of them keep up; who has each.
fn await_four(
    cluster: &Cluster,
    count: usize,
    is_so: impl Fn(&BTreeSet<u64>) -> bool,
) -> BTreeSet<BTreeSet<u64>> {
    let watch = Watch::start();
    loop {
        let all = shards(cluster).into_iter();
        let said: Vec<_> = all.filter(|(members, _)| members.len() == count).collect();
        if said.len() == 4 && said.iter().all(|(members, is_short)| is_so(members) && !*is_short) {
            return said.into_iter().map(|(members, _)| members).collect();
        }
        assert!(watch.elapsed() < PATIENCE * 2, "{said:?}");
    }
}

/// Of two members both are needed: what is asked for in place of one that is lost could not be agreed on
/// by the other one alone. A shard of three is rebuilt meanwhile; that of two has all when both are there.
#[test]
fn of_two_members_the_one_that_is_lost_is_not_replaced_and_all_is_there_when_it_comes_back() {
    let registry = quick_registry().with("GRUS__BROKER__REBUILD_AFTER", "2s");
    let homes = (0..4).map(|_| registry.broker()).collect();
    let mut cluster = Cluster::of(registry, homes);
    cluster.topic("three", 4, "persisted");
    let create = ["topic", "create", "two", "--queues", "4", "--replicas", "2"];
    grus_at(&cluster.at(), &create, b"").ok();
    cluster.await_all_led("two");
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "two");
        sender.go_on(200).await;
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    let number = cluster.leader("two");
    let lost = cluster.id_of(number);
    await_four(&cluster, 3, |_| true);
    let before = await_four(&cluster, 2, |_| true);
    cluster.kill(number);
    await_four(&cluster, 3, |members| !members.contains(&lost));
    cluster.start_again(number);
    cluster.await_all_led("two");
    let after = await_four(&cluster, 2, |_| true);
    assert!(before.iter().any(|members| members.contains(&lost)), "{before:?}");
    assert_eq!(after, before, "their members are who they were");
    check(&cluster, "two", &sent);
}
