//! Stories that end well because of one rule each. `rules_removed.rs` tells them without the rule.

use grus_consensus::{NodeId, Sabotage, Standing};
use grus_protocol::ids::Durability;

use super::chaos;
use super::checks::Checks;
use super::cluster::Cluster;
use super::member::{Member, Setup};

/// Three founders with a leader.
pub async fn three(seed: u64, durability: Durability, sabotage: Sabotage) -> Cluster {
    let mut setup = Setup::new(durability, &[1, 2, 3]);
    setup.sabotage = sabotage;
    let mut cluster = Cluster::start(seed, setup).await;
    cluster.wait_leader(10_000).await;
    cluster
}

/// Messages until at least `seals` segments have ended.
pub async fn fill(cluster: &mut Cluster, seals: usize) {
    for _ in 0..400 {
        let leader = cluster.wait_leader(30_000).await;
        let have = cluster.members[&leader].running.as_ref().unwrap();
        if have.log.borrow().checkpoints().count() >= seals {
            return;
        }
        cluster.send(leader, 8);
        cluster.run(40).await;
    }
    panic!("the log never seals: {}", cluster.brief());
}

pub async fn mend_and_read(cluster: &mut Cluster) {
    cluster.settle(60_000).await;
    chaos::everyone_leads_and_reads(cluster).await;
}

/// All powers go right after receipts were given.
pub async fn power_goes_behind_a_receipt(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    for _ in 0..4 {
        let leader = cluster.wait_leader(30_000).await;
        for node in cluster.nodes() {
            cluster.set_flush_us(node, 30_000); // a receipt that does not wait for it comes long before
        }
        let before = cluster.receipts.borrow().len();
        cluster.send(leader, 30);
        while cluster.receipts.borrow().len() == before {
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
        }
        for node in cluster.nodes() {
            cluster.cut_power(node).await;
        }
        for node in cluster.nodes() {
            cluster.start_member(node).await;
        }
        cluster.wait_leader(30_000).await;
        cluster.run(500).await;
    }
    mend_and_read(&mut cluster).await;
}

/// A voter loses its power right after its vote made somebody the leader.
pub async fn power_goes_behind_a_vote(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    for round in 0..4 {
        let old = cluster.wait_leader(30_000).await;
        cluster.run(2_500).await;
        let term = cluster.group(old).status().term;
        let [one, two] = cluster.others(old)[..] else { unreachable!() };
        cluster.set_flush_us(one, 40_000);
        cluster.set_flush_us(two, 40_000);
        cluster.kill(old).await;
        let leads = |cluster: &Cluster, node: NodeId| {
            let status = cluster.group(node).status();
            status.is_leader && status.term > term
        };
        let mut waited = 0;
        let new = loop {
            if let Some(node) = [one, two].into_iter().find(|node| leads(&cluster, *node)) {
                break node;
            }
            tokio::time::sleep(std::time::Duration::from_micros(200)).await;
            waited += 1;
            assert!(waited < 50_000, "round {round}: nobody leads: {}", cluster.brief());
        };
        let voter = if new == one { two } else { one };
        cluster.cut_power(voter).await;
        cluster.check();
        cluster.net.isolate(new, cluster.others(new));
        cluster.set_flush_us(one, 3_000);
        cluster.set_flush_us(two, 3_000);
        cluster.start_member(voter).await;
        cluster.start_member(old).await;
        cluster.run(8_000).await;
        cluster.net.heal();
        cluster.run(3_000).await;
    }
    mend_and_read(&mut cluster).await;
}

/// A leader acknowledges what only its followers have on disk, loses its power and is back before
/// anybody has missed it.
pub async fn a_leader_comes_back_without_its_tail(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    for _ in 0..3 {
        let leader = cluster.wait_leader(30_000).await;
        cluster.run(1_500).await;
        cluster.set_flush_us(leader, 400_000);
        let before = cluster.receipts.borrow().len();
        cluster.send(leader, 10);
        for _ in 0..200 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            if cluster.receipts.borrow().len() > before {
                break;
            }
        }
        cluster.cut_power(leader).await;
        cluster.set_flush_us(leader, 3_000);
        cluster.start_member(leader).await;
        cluster.send(leader, 5);
        cluster.run(200).await;
        cluster.send(leader, 5);
        cluster.run(5_000).await;
    }
    mend_and_read(&mut cluster).await;
}

/// A trim drops the same log on all members, and an empty one that joins later gets all the rest.
pub async fn an_empty_member_joins_behind_a_trim(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    fill(&mut cluster, 5).await;
    let leader = cluster.leader().unwrap();
    let half = cluster.group(leader).status().applied.unwrap() / 2;
    let point = cluster.group(leader).trim(half).await.unwrap().unwrap();
    cluster.run(2_000).await;
    for node in cluster.nodes() {
        let purged = cluster.group(node).status().purged;
        assert_eq!(purged, Some(point.index), "member {node}");
    }
    cluster.members.insert(4, Member::new(4, seed));
    let founders = std::mem::take(&mut cluster.setup.founders);
    cluster.start_member(4).await;
    cluster.setup.founders = founders;
    let leader = cluster.leader().unwrap();
    cluster.group(leader).add_learner(4, "m4").await.unwrap();
    let early = cluster.group(leader).promote_learner(4).await;
    assert!(early.is_err(), "an empty learner became a voter: {early:?}");
    cluster.run(5_000).await;
    cluster.group(leader).promote_learner(4).await.unwrap();
    let purged = cluster.group(4).status().purged;
    assert_eq!(purged, Some(point.index), "it installs the purge point, nothing newer");
    mend_and_read(&mut cluster).await;
}

/// What one voter acknowledged before it was synced is gone with its kernel, and then the only
/// other member that has it dies.
pub async fn a_voter_loses_its_memory(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Replicated, sabotage).await;
    cluster.run(1_500).await;
    let leader = cluster.leader().unwrap();
    let [lossy, other] = cluster.others(leader)[..] else { unreachable!() };
    cluster.net.isolate(other, cluster.others(other));
    cluster.send(leader, 10);
    cluster.run(20).await;
    cluster.cut_power(lossy).await;
    cluster.start_member(lossy).await;
    // The leader dies. The lossy one and the one that never knew must not elect.
    cluster.kill(leader).await;
    cluster.net.heal();
    cluster.run(5_000).await;
    assert_eq!(cluster.leader(), None, "elected without the only one that remembers");
    assert_eq!(cluster.group(lossy).status().standing, Standing::Amnesiac);
    cluster.start_member(leader).await;
    cluster.wait_leader(30_000).await;
    cluster.run(5_000).await;
    assert_eq!(cluster.group(lossy).status().standing, Standing::Sound);
    cluster.settle(60_000).await;
    // All three lose their power: they elect over what is left, and that is all that was synced.
    cluster.run(5_000).await;
    for node in cluster.nodes() {
        cluster.cut_power(node).await;
    }
    mend_and_read(&mut cluster).await;
    cluster.run(3_000).await;
    for node in cluster.nodes() {
        let standing = cluster.group(node).status().standing;
        assert_eq!(standing, Standing::Sound, "member {node} never recovers from what it lost");
    }
}

/// One voter loses its whole folder, its votes included, and then the only other member that has what was
/// acknowledged dies.
pub async fn a_voter_loses_its_folder(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    fill(&mut cluster, 2).await;
    cluster.setup.log.was_written = true;
    let leader = cluster.leader().unwrap();
    let [lossy, other] = cluster.others(leader)[..] else { unreachable!() };
    cluster.net.isolate(other, cluster.others(other));
    cluster.send(leader, 10);
    cluster.run(200).await;
    cluster.kill(lossy).await;
    cluster.kill(leader).await;
    cluster.members.insert(lossy, Member::new(lossy, seed ^ 0xf01d));
    cluster.start_member(lossy).await;
    cluster.net.heal();
    cluster.run(5_000).await;
    assert_eq!(cluster.leader(), None, "elected without the only one that remembers");
    assert_eq!(cluster.group(lossy).status().standing, Standing::Amnesiac);
    // Nobody takes it back as yet; its broker may let it speak all the same, or nobody ever could.
    let lost = cluster.group(lossy);
    let founded = tokio::time::timeout(std::time::Duration::from_secs(1), lost.is_founded()).await;
    assert_eq!(founded, Ok(true), "it waits for an entry that never comes");
    // It stays so however often it starts, and also when it has got a part of the log.
    cluster.kill(lossy).await;
    cluster.start_member(lossy).await;
    cluster.start_member(leader).await;
    cluster.wait_leader(30_000).await;
    cluster.run(5_000).await;
    assert_eq!(cluster.group(lossy).status().standing, Standing::Sound);
    mend_and_read(&mut cluster).await;
}

/// All members lose their folders: nobody is left who remembers more, and they begin anew, whenever each
/// of them notices: the last one is started so much later.
pub async fn all_lose_their_folders(seed: u64, later_ms: u64) {
    let mut cluster = three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.setup.log.was_written = true;
    for node in cluster.nodes() {
        cluster.kill(node).await;
        cluster.members.insert(node, Member::new(node, seed ^ 0xf01d));
    }
    cluster.checks = Checks::default(); // another life begins
    let [one, two, three] = cluster.nodes()[..] else { unreachable!() };
    cluster.start_member(one).await;
    cluster.start_member(two).await;
    cluster.run(5_000 + later_ms).await;
    assert_eq!(cluster.leader(), None, "the third one may remember");
    cluster.start_member(three).await;
    mend_and_read(&mut cluster).await;
    for node in cluster.nodes() {
        let standing = cluster.group(node).status().standing;
        assert_eq!(standing, Standing::Sound, "member {node} never recovers from what it lost");
    }
}

/// Appends overtake one another on their way, and some are lost, while there is always more than one.
pub async fn appends_overtake_one_another(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    cluster.run(1_500).await;
    for loss in [0, 10, 50] {
        cluster.net.trouble(loss, 30);
        for _ in 0..300 {
            let Some(leader) = cluster.leader() else {
                cluster.run(20).await;
                continue;
            };
            cluster.send_up_to(leader, 2, 200);
            cluster.run(7).await;
        }
        cluster.net.heal();
        cluster.run(1_000).await;
    }
    let ways = cluster.nodes().into_iter().flat_map(|from| {
        let net = cluster.net.clone();
        cluster.others(from).into_iter().map(move |to| net.appends(from, to))
    });
    let (most, conflicts) =
        ways.fold((0, 0), |(most, conflicts), way| (way.most.max(most), way.conflicts + conflicts));
    assert!(most > 1 && conflicts > 10, "{most} at once, {conflicts} overtaken");
    mend_and_read(&mut cluster).await;
}

/// A member answers an append after a later one to it was lost: its leader's lease counts from what was heard.
pub async fn a_late_answer_behind_a_lost_append(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    for _ in 0..3 {
        let leader = cluster.wait_leader(30_000).await;
        cluster.run(1_500).await;
        let [slow, other] = cluster.others(leader)[..] else { unreachable!() };
        cluster.net.isolate(other, [leader]);
        cluster.run(200).await;
        cluster.send_up_to(leader, 1, 100);
        cluster.run(40).await; // this one comes back quickly: more than one may be under way
        cluster.set_flush_us(slow, 110_000);
        for _ in 0..2 {
            cluster.send_up_to(leader, 1, 100);
            tokio::time::sleep(std::time::Duration::from_millis(8)).await;
        }
        // Nobody hears this leader from here on. The first of the two is committed by the slow one's word, and
        // the leader says so behind the second, in vain; then the slow one answers that.
        cluster.net.cut(leader, slow);
        let cut_ms = cluster.trace.now_ms();
        for _ in 0..25 {
            cluster.run(20).await;
            let left_ms = cluster.group(leader).status().lease_left.as_millis();
            let since_ms = u128::from(cluster.trace.now_ms() - cut_ms);
            // The lease lasts an election timeout, and a bit less for clocks that differ.
            let is_true = left_ms == 0 || left_ms + since_ms <= 950;
            assert!(is_true, "a lease of {left_ms} ms, {since_ms} ms after it was heard last");
        }
        cluster.set_flush_us(slow, 3_000);
        cluster.net.heal();
        cluster.run(2_000).await;
    }
    mend_and_read(&mut cluster).await;
}

/// A member whose disk is slow has no room for what comes, again and again: none of it is taken before what was
/// sent ahead of it.
pub async fn a_member_is_short_of_room(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    let leader = cluster.leader().unwrap();
    let slow = cluster.others(leader)[0];
    cluster.set_flush_us(slow, 60_000);
    fill(&mut cluster, 6).await;
    if cluster.leader() == Some(leader) {
        let appends = cluster.net.appends(leader, slow);
        assert!(appends.most > 1, "one at a time: {appends:?}");
        assert_eq!(appends.conflicts, 0, "taken before what was sent ahead: {appends:?}");
    }
    cluster.set_flush_us(slow, 3_000);
    mend_and_read(&mut cluster).await;
}

/// The log of a member whose disk is full must not wait for room in the middle of what comes: it could vote for
/// nobody meanwhile.
pub async fn a_member_whose_disk_is_full(seed: u64, sabotage: Sabotage) {
    let mut cluster = three(seed, Durability::Persisted, sabotage).await;
    fill(&mut cluster, 2).await;
    let leader = cluster.leader().unwrap();
    let full = cluster.others(leader)[0];
    let disk = cluster.members[&full].disk.clone();
    disk.set_capacity_bytes(disk.used_bytes());
    cluster.net.slow((5, 8));
    for _ in 0..150 {
        cluster.send(leader, 4);
        cluster.run(20).await;
    }
    let is_full = cluster.members[&full].running.as_ref().unwrap().log.borrow().is_disk_full();
    assert!(is_full, "{}", cluster.brief());
    cluster.kill(leader).await;
    // It is elected, and ready once the other one can store that.
    let other = cluster.others(leader).into_iter().find(|node| *node != full).unwrap();
    let until = cluster.trace.now_ms() + 20_000;
    while cluster.group(full).status().leader != Some(other) {
        assert!(cluster.trace.now_ms() < until, "{}", cluster.brief());
        cluster.run(20).await;
    }
    disk.set_capacity_bytes(u64::MAX);
    mend_and_read(&mut cluster).await;
}
