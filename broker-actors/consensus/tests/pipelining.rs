//! Several appends to one member under way at once: they are, in order, and whatever overtakes them or goes
//! lost in the middle does no harm.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::cluster::Cluster;
use common::{for_seeds, scenarios, simulate};
use grus_consensus::{NodeId, Sabotage};
use grus_protocol::ids::Durability;

/// A message each few milliseconds, for so long.
async fn send_steadily(cluster: &mut Cluster, leader: NodeId, ms: u64) {
    let until = cluster.trace.now_ms() + ms;
    while cluster.trace.now_ms() < until {
        cluster.send_up_to(leader, 1, 200);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn appends_follow_one_another_without_waiting_for_answers() {
    for_seeds("appends_follow_one_another_without_waiting_for_answers", 2, |seed| {
        simulate(seed, async move {
            let mut cluster =
                scenarios::three(seed, Durability::Persisted, Sabotage::default()).await;
            cluster.run(1_500).await;
            cluster.net.slow((25, 35));
            let leader = cluster.leader().unwrap();
            let before = cluster.receipts.borrow().len();
            send_steadily(&mut cluster, leader, 1_000).await;
            cluster.run(100).await;
            assert_eq!(cluster.leader(), Some(leader));
            for other in cluster.others(leader) {
                let appends = cluster.net.appends(leader, other);
                assert!((2..=4).contains(&appends.most), "to member {other}: {appends:?}");
                assert_eq!(appends.conflicts, 0, "nothing was overtaken");
            }
            // One message waits for its own way there and back, not for that of the one before, too.
            let received = cluster.receipts.borrow().len() - before;
            assert!(received > 150, "{received} receipts of some 200");
            scenarios::mend_and_read(&mut cluster).await;
        });
    });
}

#[test]
fn appends_that_overtake_one_another_or_go_lost_do_no_harm() {
    for_seeds("appends_that_overtake_one_another_or_go_lost_do_no_harm", 3, |seed| {
        simulate(seed, scenarios::appends_overtake_one_another(seed, Sabotage::default()));
    });
}

#[test]
fn a_late_answer_lengthens_no_lease() {
    for_seeds("a_late_answer_lengthens_no_lease", 3, |seed| {
        let all_rules = Sabotage::default();
        simulate(seed, scenarios::a_late_answer_behind_a_lost_append(seed, all_rules));
    });
}

#[test]
fn a_member_short_of_room_takes_appends_in_order() {
    for_seeds("a_member_short_of_room_takes_appends_in_order", 2, |seed| {
        simulate(seed, scenarios::a_member_is_short_of_room(seed, Sabotage::default()));
    });
}

#[test]
fn a_member_whose_disk_is_full_votes() {
    for_seeds("a_member_whose_disk_is_full_votes", 6, |seed| {
        simulate(seed, scenarios::a_member_whose_disk_is_full(seed, Sabotage::default()));
    });
}
