//! The network between brokers breaks, and no broker does: each has a network namespace of its own, and what
//! goes from one to another passes through the one of the test, where rules drop it, one way or both. Clients and
//! the registry reach all of them all the time, so the leader that is cut off goes on being asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;

use grus_tests::cluster::{
    Cluster, Sender, await_leaders, block_on, check, leaders, quick_registry,
};
use grus_tests::network::{self, Net, apart};
use grus_tests::watch::PATIENCE;

/// Who was seen to lead which shard in which term.
#[derive(Default)]
struct Reigns(BTreeMap<(u64, u64), usize>);

impl Reigns {
    fn look(&mut self, cluster: &Cluster) {
        for (broker, shards) in cluster.shards().iter().enumerate() {
            for shard in shards.iter().filter(|shard| shard["leads"] == true) {
                let number = |name: &str| shard[name].as_u64().expect("a number");
                let first = *self.0.entry((number("shard"), number("term"))).or_insert(broker);
                assert_eq!(first, broker, "two lead in one term: {shard}");
            }
        }
    }
}

fn a_leader_is_cut_off() {
    let registry = network::open(quick_registry());
    let at = registry.listen;
    let nets: Vec<Net> = (1..=3).map(Net::new).collect();
    let homes = nets.iter().map(|net| net.house(registry.broker())).collect();
    let cluster = Cluster::of(registry, homes);
    cluster.topic("t", 1, "persisted");
    let reigns = RefCell::new(Reigns::default());
    let sent = block_on(async {
        let client = cluster.client().await;
        let mut sender = Sender::new(&client, "t");
        sender.go_on(100).await;
        for hears in [false, true] {
            cluster.await_all_led("t");
            let before = leaders(at, "t")[0].expect("it is led");
            let leader = cluster.number_of(before);
            reigns.borrow_mut().look(&cluster);
            let each = |act: fn(&Net, &Net)| {
                for other in (0..3).filter(|other| *other != leader) {
                    act(&nets[leader], &nets[other]);
                    if !hears {
                        act(&nets[other], &nets[leader]);
                    }
                }
            };
            each(Net::cut);
            for _ in 0..10 {
                let longest = sender.go_on(20).await;
                println!("a leader is cut off, it hears the others: {hears}: waited {longest:?}");
                reigns.borrow_mut().look(&cluster);
            }
            let is_another = |leads: &[Option<u64>]| {
                reigns.borrow_mut().look(&cluster);
                leads[0].is_some_and(|now| now != before)
            };
            await_leaders(at, "t", PATIENCE, is_another);
            each(Net::mend);
            for _ in 0..5 {
                sender.go_on(20).await;
                reigns.borrow_mut().look(&cluster);
            }
        }
        let sent = sender.end().await;
        client.close().await;
        sent
    });
    cluster.await_agreement();
    reigns.borrow_mut().look(&cluster);
    check(&cluster, "t", &sent);
}

#[test]
fn a_leader_that_is_cut_off_from_the_others_is_replaced_and_nothing_is_lost() {
    if network::is_apart() {
        return a_leader_is_cut_off();
    }
    if let Some(why) = network::refused() {
        // Past what the harness keeps to itself of a test that passes.
        let said = format!("\nSKIPPED registry::partition, no network namespaces here: {why}\n");
        let _ = std::io::stderr().write_all(said.as_bytes());
        return;
    }
    let name = "a_leader_that_is_cut_off_from_the_others_is_replaced_and_nothing_is_lost";
    let mut inside = apart(std::env::current_exe().expect("this program"));
    inside.args(["--exact", &format!("partition::{name}"), "--nocapture"]);
    let done = inside.output().expect("a program that was probed");
    let said = [done.stdout, done.stderr].map(|out| String::from_utf8_lossy(&out).into_owned());
    println!("{}", said.join("\n"));
    assert!(done.status.success(), "see above");
    assert!(said[0].contains("1 passed"), "it was run");
}
