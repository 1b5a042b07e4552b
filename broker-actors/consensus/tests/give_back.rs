//! Three members in simulation, the first of which is to lead when all is well: whoever leads gives leadership
//! back to it where nothing speaks against it, and begins nothing where something does.

#![allow(clippy::unwrap_used)]

mod common;

use common::cluster::Cluster;
use common::net::STAY;
use common::{scenarios, simulate};
use grus_consensus::{GivenBack, NodeId, Sabotage};
use grus_protocol::ids::Durability;

const FIRST: NodeId = 1;
const LEADER: NodeId = 2;
const THIRD: NodeId = 3;

/// Three members that may vote, led by the second.
async fn three(seed: u64) -> Cluster {
    let mut cluster = scenarios::three(seed, Durability::Persisted, Sabotage::default()).await;
    cluster.run(2_000).await;
    cluster.make_leader(LEADER).await;
    cluster.run(1_000).await;
    cluster
}

/// Runs the cluster until that has come to an end.
async fn run_to_its_end<T: 'static>(
    cluster: &mut Cluster,
    doing: impl Future<Output = T> + 'static,
) -> T {
    let task = tokio::task::spawn_local(doing);
    while !task.is_finished() {
        cluster.run(5).await;
    }
    task.await.unwrap()
}

async fn give_back(cluster: &mut Cluster, from: NodeId) -> GivenBack {
    let group = cluster.group(from);
    run_to_its_end(cluster, async move { group.give_back(FIRST).await }).await
}

/// Has an operator move the leader.
async fn move_leader(cluster: &mut Cluster, from: NodeId, to: NodeId) {
    let group = cluster.group(from);
    let is_done = run_to_its_end(cluster, async move { group.move_leader(Some(to)).await }).await;
    assert!(is_done && cluster.wait_leader(2_000).await == to, "{}", cluster.brief());
    cluster.run(1_000).await;
}

/// It leads on in the term in which it did.
async fn is_refused(cluster: &mut Cluster, from: NodeId, why: &str) {
    let term = cluster.group(from).status().term;
    assert_eq!(give_back(cluster, from).await, GivenBack::NotNow, "{why}");
    let status = cluster.group(from).status();
    assert!(status.ready && status.term == term, "{why}: {}", cluster.brief());
    assert!(!status.lease_left.is_zero(), "{why}: it serves all the time");
}

#[test]
fn the_first_gets_it_back_with_messages_under_way() {
    simulate(41, async {
        let mut cluster = three(41).await;
        cluster.send(LEADER, 40);
        assert!(cluster.group(LEADER).may_give_back(FIRST));
        assert_eq!(give_back(&mut cluster, LEADER).await, GivenBack::Done);
        assert_eq!(cluster.wait_leader(1_000).await, FIRST);
        is_refused(&mut cluster, FIRST, "it is its own").await;
        cluster.settle(60_000).await;
    });
}

#[test]
fn nothing_is_begun_towards_one_that_could_not_lead_or_by_one_that_is_to_stop() {
    simulate(42, async {
        let mut cluster = three(42).await;
        assert!(!cluster.group(LEADER).may_give_back(9), "it is no member");
        assert!(!cluster.group(THIRD).may_give_back(FIRST), "it does not lead");
        cluster.kill(FIRST).await;
        is_refused(&mut cluster, LEADER, "it has just died").await;
        cluster.run(2_000).await;
        assert!(!cluster.group(LEADER).may_give_back(FIRST), "it was not heard of for long");
        cluster.start_member(FIRST).await;
        cluster.run(2_000).await;
        cluster.group(FIRST).retire();
        is_refused(&mut cluster, LEADER, "it is drained").await;
        cluster.kill(FIRST).await;
        cluster.start_member(FIRST).await;
        cluster.run(2_000).await;
        assert!(cluster.group(LEADER).may_give_back(FIRST));
        cluster.group(LEADER).retire();
        assert!(!cluster.group(LEADER).may_give_back(FIRST), "it gives all away");
        cluster.settle(60_000).await;
    });
}

#[test]
fn who_is_drained_no_more_gets_it_back_and_keeps_it() {
    simulate(45, async {
        let mut cluster = three(45).await;
        cluster.group(FIRST).retire();
        is_refused(&mut cluster, LEADER, "it is drained").await;
        cluster.group(FIRST).unretire();
        assert!(cluster.group(LEADER).may_give_back(FIRST));
        assert_eq!(give_back(&mut cluster, LEADER).await, GivenBack::Done);
        assert_eq!(cluster.wait_leader(1_000).await, FIRST);
        cluster.run(5_000).await;
        assert_eq!(cluster.leader(), Some(FIRST), "it looks for nobody any more");
        cluster.settle(60_000).await;
    });
}

#[test]
fn who_was_named_by_an_operator_leads_on_until_leadership_changes() {
    simulate(43, async {
        let mut cluster = three(43).await;
        move_leader(&mut cluster, LEADER, THIRD).await;
        assert!(!cluster.group(THIRD).may_give_back(FIRST));
        is_refused(&mut cluster, THIRD, "an operator has moved it").await;
        // It is stopped: whoever leads next has not been named, and neither has it when it comes to lead again.
        cluster.group(THIRD).hand_over(Some(LEADER)).await;
        cluster.run(1_000).await;
        assert!(cluster.group(LEADER).may_give_back(FIRST));
        cluster.group(LEADER).hand_over(Some(THIRD)).await;
        cluster.run(1_000).await;
        assert!(cluster.group(THIRD).may_give_back(FIRST));
        assert_eq!(give_back(&mut cluster, THIRD).await, GivenBack::Done);
        // One of an older build takes over all the same.
        cluster.net.is_older(THIRD, STAY);
        cluster.run(1_000).await;
        move_leader(&mut cluster, FIRST, THIRD).await;
        assert!(cluster.group(THIRD).may_give_back(FIRST), "it was not told");
        cluster.settle(60_000).await;
    });
}

/// What the one that is to take over asks for at first is lost, and who asked it to is gone: an election later it
/// is the leader that the operator wanted all the same.
#[test]
fn who_was_named_by_an_operator_leads_on_where_it_is_elected_in_a_later_term_than_was_asked() {
    simulate(45, async {
        let mut cluster = three(45).await;
        let group = cluster.group(LEADER);
        let asked_from = group.status().term + 1;
        cluster.group(FIRST).retire(); // it stands late
        cluster.net.lose_candidacies(THIRD);
        let moving = tokio::task::spawn_local(async move { group.move_leader(Some(THIRD)).await });
        while cluster.net.lost_candidacies(THIRD) == 0 {
            assert!(!moving.is_finished(), "nobody was asked: {}", cluster.brief());
            cluster.run(5).await;
        }
        moving.abort();
        assert!(moving.await.unwrap_err().is_cancelled());
        cluster.kill(LEADER).await;
        // Whoever stands stands in a later term, behind a pre-vote.
        cluster.run(5).await;
        cluster.net.heal();
        assert_eq!(cluster.wait_leader(10_000).await, THIRD);
        let term = cluster.group(THIRD).status().term;
        assert!(term > asked_from, "it came at once, in term {term}");
        cluster.start_member(LEADER).await;
        cluster.run(2_000).await;
        cluster.kill(FIRST).await;
        cluster.start_member(FIRST).await;
        cluster.run(2_000).await;
        assert_eq!(cluster.group(THIRD).status().term, term, "{}", cluster.brief());
        assert!(!cluster.group(THIRD).may_give_back(FIRST), "an operator has moved it");
        is_refused(&mut cluster, THIRD, "an operator has moved it").await;
        // Another one has led: the word is spent.
        cluster.group(THIRD).hand_over(Some(LEADER)).await;
        cluster.run(1_000).await;
        cluster.group(LEADER).hand_over(Some(THIRD)).await;
        cluster.run(1_000).await;
        assert!(cluster.group(THIRD).may_give_back(FIRST), "{}", cluster.brief());
        cluster.settle(60_000).await;
    });
}

#[test]
fn a_first_that_does_not_take_over_is_told_apart_from_one_that_was_not_asked() {
    simulate(44, async {
        let mut cluster = three(44).await;
        cluster.group(THIRD).retire(); // it stands late, so that the same one leads again
        cluster.net.lose_candidacies(FIRST);
        assert_eq!(give_back(&mut cluster, LEADER).await, GivenBack::InVain);
        assert_eq!(cluster.wait_leader(10_000).await, LEADER);
        cluster.net.heal();
        cluster.run(2_000).await;
        assert_eq!(give_back(&mut cluster, LEADER).await, GivenBack::Done);
        cluster.settle(60_000).await;
    });
}
