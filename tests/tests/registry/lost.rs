//! A registry that has lost its data is told by its brokers what there is.

use std::fs;

use grus_tests::broker::Home;
use grus_tests::registry::RegistryHome;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::{await_leaders, bodies, grus_at, input, leaders, lines};

const SAYS: &str = "the registry does not know topics that the shards hold";

#[test]
fn brokers_offer_what_their_shards_hold_and_no_message_is_lost() {
    let home = RegistryHome::new();
    let registry = home.start();
    let (one, two) = (home.broker(), home.broker());
    let (mut first, _second) = (one.start(), two.start());
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    grus_at(&at, &["topic", "create", "gone", "--replicas", "1"], b"").ok();
    grus_at(&at, &["topic", "delete", "gone"], b"").ok();
    let all = lines("line", 200);
    let keyed = |line: &String| {
        grus_at(&at, &["produce", "t", "--key", line], input(std::slice::from_ref(line)).as_slice())
            .ok()
    };
    all[..4].iter().for_each(|line| drop(keyed(line)));
    grus_at(&at, &["produce", "t"], &input(&all[4..])).ok();
    let spread = leaders(home.listen, "t");

    registry.end(Signal::TERM);
    fs::remove_dir_all(&home.data).expect("a folder to lose");
    let _registry = home.start();
    first.process.wait_for("a word about the loss", PATIENCE, |line| line.contains(SAYS));
    // The topic is there again once the first broker has offered it.
    let there = || grus_at(&at, &["topic", "describe", "t"], b"").status.success();
    let watch = Watch::start();
    while !there() {
        assert!(watch.elapsed() < PATIENCE, "the topic does not come back");
    }
    await_leaders(home.listen, "t", PATIENCE, |leaders| leaders == spread);
    assert_eq!(bodies(&at, "t", 200), all);
    let topics = grus_at(&at, &["topic", "list", "--json"], b"").ok().json();
    assert_eq!(topics.len(), 1, "what was deleted stays so: {topics:?}");
    grus_at(&at, &["produce", "t"], b"more\n").ok();
    grus_at(&at, &["topic", "delete", "t"], b"").ok();
}

#[test]
fn an_embedded_registry_that_lost_its_folder_is_told_as_well() {
    let home = Home::new();
    let broker = home.start();
    home.grus(&["topic", "create", "t", "--queues", "3", "--durability", "replicated"]).ok();
    home.grus(&["topic", "create", "gone"]).ok();
    home.grus(&["topic", "delete", "gone"]).ok();
    let all = lines("line", 100);
    home.grus_fed(&["produce", "t"], &input(&all)).ok();
    let before = home.grus(&["topic", "describe", "t", "--json"]).ok().json();
    broker.end(Signal::TERM);
    fs::remove_dir_all(home.data.join("registry")).expect("a folder to lose");

    let mut broker = home.begin();
    broker.process.wait_for("a word about the loss", PATIENCE, |line| line.contains(SAYS));
    broker.wait_ready();
    assert_eq!(bodies(&[home.listen], "t", 100), all);
    let after = home.grus(&["topic", "describe", "t", "--json"]).ok().json();
    for name in ["id", "queues", "durability", "retention_ms"] {
        assert_eq!(after[0][name], before[0][name], "{name}");
    }
    assert_eq!(home.grus(&["topic", "list", "--json"]).ok().json().len(), 1);
    broker.end(Signal::TERM);
    let _again = home.start();
    assert_eq!(bodies(&[home.listen], "t", 100), all);
}

/// As of a broker whose shards have all grown, or have gone elsewhere, beside a registry that has lost its data.
#[test]
fn no_number_of_which_a_broker_has_a_note_is_given_anew() {
    let home = RegistryHome::new();
    let _registry = home.start();
    let one = home.broker();
    let notes = one.data.join("members");
    fs::create_dir_all(&notes).expect("a folder");
    fs::write(notes.join("0"), "40 out\n").expect("a note");
    let broker = one.start();
    let (status, body) = broker.get("/health");
    assert_eq!(status, 200, "all that it was given is served: {body}");
    let at = [home.listen];
    grus_at(&at, &["topic", "create", "t", "--queues", "4", "--replicas", "1"], b"").ok();
    let all = lines("line", 40);
    grus_at(&at, &["produce", "t"], &input(&all)).ok();
    assert_eq!(bodies(&at, "t", 40), all);
}
