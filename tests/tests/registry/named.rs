//! Producers with a name: of all lives the newest is the only one that stores, whichever brokers fall.

use std::io::Write;
use std::process::{ChildStdin, Command};

use grus_tests::cluster::{Cluster, bodies, grus_at};
use grus_tests::process::Process;
use grus_tests::watch::PATIENCE;
use rustix::process::Signal;

/// A producer named `billing` in a process of its own.
struct Life {
    process: Process,
    input: ChildStdin,
}

impl Life {
    fn begin(cluster: &Cluster) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grus-named"));
        command.args(cluster.homes.iter().map(|home| home.listen.to_string()));
        let mut process = Process::start("named", command);
        let input = process.take_input();
        Self { process, input }
    }

    /// What becomes of a message that it sends.
    fn send(&mut self, body: &str) -> String {
        writeln!(self.input, "{body}").expect("it listens");
        self.process.wait_for("outcome", PATIENCE, |line| line.contains(body))
    }
}

/// The newest identity of the name that brokers have heard of: id and epoch.
fn identity(cluster: &Cluster) -> (String, u64) {
    // A broker that is down is named by a warning.
    let clients = grus_at(&cluster.at(), &["client", "list", "--json"], b"").json();
    let all = clients.iter().flat_map(|client| client["producers"].as_array().expect("a list"));
    let named = all.filter(|producer| producer["name"] == "billing").map(|producer| {
        let id = producer["producer_id"].as_str().expect("an id").to_owned();
        (id, producer["epoch"].as_u64().expect("an epoch"))
    });
    named.max_by_key(|(_, epoch)| *epoch).expect("it is listed")
}

/// Each broker is gone once, so also the one that leads the names, and the one that leads the queue.
#[test]
fn a_later_life_is_the_only_one_that_stores_whichever_brokers_have_fallen() {
    let mut cluster = Cluster::start();
    cluster.topic("t", 1, "persisted");
    let mut old = Life::begin(&cluster);
    assert_eq!(old.send("the old one"), "stored the old one");
    let (id, mut epoch) = identity(&cluster);
    old.process.signal(Signal::STOP);
    let mut newest = None;
    for number in 0..3 {
        cluster.kill(number);
        cluster.await_all_led("t");
        let mut life = Life::begin(&cluster);
        let body = format!("life {number}");
        assert_eq!(life.send(&body), format!("stored {body}"));
        let (same, later) = identity(&cluster);
        assert_eq!(same, id, "the name keeps its id");
        assert!(later > epoch, "{later} is after {epoch}");
        epoch = later;
        newest = Some(life); // the one before is killed
        cluster.start_again(number);
        cluster.await_all_led("t");
    }
    let mut newest = newest.expect("three lives");

    old.process.signal(Signal::CONT);
    // Its connection broke meanwhile, so that it may have to say that it does not know.
    let ghost = old.send("a ghost");
    assert!(!ghost.starts_with("stored"), "{ghost}");
    assert_eq!(old.send("one more"), "fenced one more");
    assert_eq!(newest.send("the last word"), "stored the last word");
    let stored = ["life 0", "life 1", "life 2", "the last word", "the old one"];
    assert_eq!(bodies(&cluster.at(), "t", stored.len() + 1), stored);
}
