//! `deploy/local-cluster`: a registry and three brokers by one command, and a broker that is killed.

use std::path::Path;
use std::process::Command;

use grus_tests::cluster::{await_leaders, bodies, grus_at};
use grus_tests::ports::{self, Port};
use grus_tests::program::{self, Done};
use grus_tests::random::Random;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use tempfile::TempDir;

use crate::{input, lines};

/// The script with a folder and ports of its own. Dropped, all of it is stopped.
struct Local {
    folder: TempDir,
    ports: Vec<Port>,
}

impl Local {
    fn new() -> Self {
        let mut random = Random::seeded("local-cluster");
        let ports = (0..8).map(|_| ports::free(&mut random)).collect();
        Self { folder: tempfile::tempdir().expect("a folder"), ports }
    }

    fn run(&self, words: &[&str]) -> Done {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local-cluster");
        let ports: Vec<_> = self.ports.iter().map(|port| port.address.port().to_string()).collect();
        let mut command = Command::new(script);
        command.args(words).env("GRUS", program::grus(&[]).get_program());
        command
            .env("GRUS_CLUSTER_DIR", self.folder.path())
            .env("GRUS_CLUSTER_PORTS", ports.join(" "));
        program::run(command, b"")
    }

    /// Asks for the status until it has these words, and gives it.
    fn await_status(&self, words: &str) -> String {
        let (strain, watch) = (Strain::watch(), Watch::start());
        loop {
            let status = self.run(&["status"]).ok().text();
            let (took, allowed) = (watch.elapsed(), strain.allowed());
            if status.contains(words) {
                return status;
            }
            assert!(took < PATIENCE + allowed, "after {took:?} not {words:?}: {status}");
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _ = self.run(&["down"]); // it may be down already
    }
}

#[test]
fn a_cluster_is_started_survives_a_broker_and_is_stopped_by_one_command_each() {
    let local = Local::new();
    let up = local.run(&["up"]).ok().text();
    assert_eq!(up.lines().count(), 4, "{up}");
    let at = [local.ports[0].address];
    // First, while nobody leads more than the others: one queue on each broker.
    grus_at(&at, &["topic", "create", "s", "--queues", "3", "--replicas", "1"], b"").ok();
    grus_at(&at, &["topic", "create", "t", "--queues", "3"], b"").ok();
    local.await_status("queues away       0\n");
    let sent = lines("message", 100);
    grus_at(&at, &["produce", "t"], &input(&sent)).ok();
    assert_eq!(local.run(&["kill", "2"]).ok().text(), "broker-2 is killed\n");
    let all = |leaders: &[Option<u64>]| leaders.iter().all(Option::is_some);
    await_leaders(at[0], "t", PATIENCE, all);
    assert_eq!(bodies(&at, "t", sent.len()), sent);
    // What it had alone is away with it, and no broker that answers knows of it.
    let status = local.await_status("queues away       1 (s[");
    assert!(status.contains("broker-2 is down"), "{status}");
    assert!(status.contains("state             degraded"), "{status}");
    let again = local.run(&["up"]).ok().text();
    assert!(again.starts_with("broker-2 ") && again.lines().count() == 1, "{again}");
    local.run(&["down"]).ok();
    let down = local.run(&["status"]);
    assert_eq!(down.status.code(), Some(1));
    assert_eq!(down.text().matches("is down").count(), 4, "{}", down.text());
    assert!(local.run(&["kill", "4"]).err.contains("1, 2 or 3"));
}
