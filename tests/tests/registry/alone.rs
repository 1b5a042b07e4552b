//! The registry as a daemon: start, stop, refusals. And the same program with either registry (S36).

use std::fs;

use grus_tests::broker::Home;
use grus_tests::program;
use grus_tests::registry::RegistryHome;
use rustix::process::Signal;

use crate::{bodies, grus_at, input, lines};

#[test]
fn it_starts_and_stops_as_a_daemon_does() {
    let home = RegistryHome::new();
    for signal in [Signal::TERM, Signal::INT] {
        home.start().end(signal);
    }
    let registry = home.start();
    let pid = registry.process.pid();
    let second = RegistryHome::new().in_folder(&home.data);
    let line = second.run_to_end().refused();
    assert!(line.contains("in use") && line.contains(&pid.to_string()), "{line}");
    let same_port = RegistryHome::new().on_port(home.listen);
    let line = same_port.run_to_end().refused();
    assert!(line.contains(&home.listen.to_string()), "{line}");
    // Nobody is there to hold a queue: a typed refusal.
    grus_at(&[home.listen], &["topic", "create", "t", "--timeout", "1s"], b"").refused();
    registry.kill();
    home.start().end(Signal::TERM);

    fs::write(home.data.join("FORMAT"), "2\n").expect("a file");
    let line = home.run_to_end().refused();
    assert!(line.contains("version 2"), "{line}");
}

#[test]
fn what_is_wrong_with_its_configuration_is_named() {
    let home = RegistryHome::new();
    fs::create_dir_all(&home.data).expect("a folder");
    let file = home.data.join("registry.toml");
    fs::write(&file, "[listen]\nadress = \"x\"\n").expect("a file");
    let path = file.to_string_lossy().into_owned();
    let done = program::run(program::grus(&["registry", "--config", &path]), b"");
    assert_eq!(done.status.code(), Some(2), "{}", done.err);
    assert!(done.err.contains("listen.adress") && done.err.contains(":2"), "{}", done.err);
    let printed = program::run(program::grus(&["registry", "--print-config"]), b"").ok().text();
    assert!(printed.contains("listen.address = \"127.0.0.1:11111\""), "{printed}");
}

#[test]
fn the_folders_of_brokers_and_registries_are_told_apart() {
    let broker = Home::new();
    broker.start().end(Signal::TERM);
    let home = RegistryHome::new().in_folder(&broker.data);
    let line = home.run_to_end().refused();
    assert!(line.contains("broker's"), "{line}");
    broker.start().end(Signal::TERM);
}

/// S36, as far as there are registries: the same program, told apart by configuration only.
#[test]
fn s36_the_same_program_runs_on_either_registry() {
    let home = RegistryHome::new();
    let _registry = home.start();
    let mut said = Vec::new();
    for broker in [Home::new(), home.broker()] {
        let _running = broker.start();
        let all = lines("line", 100);
        let at = [broker.listen];
        grus_at(&at, &["topic", "create", "t", "--queues", "3"], b"").ok();
        grus_at(&at, &["produce", "t"], &input(&all)).ok();
        grus_at(&at, &["produce", "made-by-sending"], b"x\n").ok();
        grus_at(&at, &["topic", "alter", "t", "--queues", "5"], b"").ok();
        assert_eq!(bodies(&at, "t", 100), all);
        let listed = grus_at(&at, &["topic", "list", "--json"], b"").ok().json();
        let names: Vec<_> =
            listed.iter().map(|topic| (topic["topic"].clone(), topic["queues"].clone())).collect();
        grus_at(&at, &["topic", "delete", "t"], b"").ok();
        let left = grus_at(&at, &["topic", "list", "--json"], b"").ok().json().len();
        said.push((names, left));
    }
    assert_eq!(said[0], said[1]);
}
