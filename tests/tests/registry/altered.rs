//! Topics that are altered and deleted while one of three brokers is down: it comes back to what they are now,
//! also where one is made again at once, and counts.

use grus_tests::cluster::{Cluster, bodies, ends, grus_at};
use grus_tests::watch::{PATIENCE, Watch};

use crate::{lines, produce_by_queue};

/// Messages of each queue.
const EACH: usize = 20;

#[test]
fn topics_change_while_a_leader_is_down_and_it_comes_back_to_what_they_are_now() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    cluster.topic("gone", 1, "persisted");
    let at = cluster.at();
    produce_by_queue(&at, "t", 0, &lines("first", EACH));
    produce_by_queue(&at, "gone", 0, &lines("old", EACH));
    let down = cluster.leader("gone");
    cluster.kill(down);
    cluster.await_all_led("gone");
    grus_at(&at, &["topic", "alter", "t", "--queues", "2"], b"").ok();
    grus_at(&at, &["topic", "delete", "gone"], b"").ok();
    cluster.await_all_led("t");
    produce_by_queue(&at, "t", 1, &lines("second", EACH));
    let all = [lines("first", EACH), lines("second", EACH)].concat();

    cluster.start_again(down);
    // Three replicas need three brokers, also as the registry sees it.
    let make = ["topic", "create", "gone", "--replicas", "3", "--durability", "persisted"];
    let make = [&make[..], &["--queues", "1"]].concat();
    let watch = Watch::start();
    loop {
        let made = grus_at(&cluster.at(), &make, b"");
        if made.status.success() {
            break;
        }
        assert!(watch.elapsed() < PATIENCE, "{}", made.err);
    }
    cluster.await_all_led("gone");
    produce_by_queue(&at, "gone", 0, &lines("new", EACH));
    cluster.await_agreement();
    // Without it none of them has a majority from here on.
    cluster.kill((down + 1) % 3);
    for topic in ["t", "gone"] {
        cluster.await_all_led(topic);
    }
    let watch = Watch::start();
    while ends(&cluster, "t") != [EACH as u64; 2] {
        assert!(watch.elapsed() < PATIENCE, "queues that end at {:?}", ends(&cluster, "t"));
    }
    let own = [cluster.homes[down].listen];
    assert_eq!(bodies(&own, "t", 2 * EACH), all);
    assert_eq!(bodies(&own, "gone", EACH), lines("new", EACH), "nothing of what was deleted");
    assert_eq!(ends(&cluster, "gone"), [EACH as u64], "and nothing behind it");
}
