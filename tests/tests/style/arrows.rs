//! Which crate may stand on which.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, Metadata};

/// The workspace's crates; each may use those before it. grus-client stands aside.
pub const ORDER: [&str; 8] = [
    "grus-protocol",
    "grus-mailbox",
    "grus-log",
    "grus-consensus",
    "grus-registry",
    "grus-broker",
    "grus-cli",
    "grus-tests",
];
const CLIENT: &str = "grus-client";
const CONSENSUS: &str = "grus-consensus";

/// The names of each crate's dependencies, of every kind; but what simulates brokers drives the client's logic, too.
pub type Crates = BTreeMap<String, BTreeSet<String>>;

/// Takes them out of what cargo says.
pub fn read(metadata: &Metadata) -> Crates {
    let is_simulated = |dependency: &&cargo_metadata::Dependency| {
        dependency.name == CLIENT && dependency.kind == DependencyKind::Development
    };
    let names = |package: &cargo_metadata::Package| {
        let dependencies = package.dependencies.iter().filter(|one| !is_simulated(one));
        dependencies.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), names(package))).collect()
}

/// The arrows that must not be.
pub fn check(crates: &Crates) -> Vec<String> {
    let mut found = Vec::new();
    for (name, dependencies) in crates {
        for dependency in dependencies {
            let inner = dependency.starts_with("grus-");
            // Its own tests may name a crate to turn one of its features on.
            if inner && dependency != name && !allowed(name, dependency) {
                found.push(format!("{name} -> {dependency}"));
            }
            if dependency.starts_with("openraft") && name != CONSENSUS {
                found.push(format!("{name} names {dependency}"));
            }
        }
    }
    found
}

fn allowed(name: &str, dependency: &str) -> bool {
    let place = |wanted: &str| ORDER.iter().position(|known| *known == wanted);
    if name == CLIENT {
        return ["grus-protocol", "grus-mailbox"].contains(&dependency);
    }
    if dependency == CLIENT {
        return ["grus-cli", "grus-tests"].contains(&name);
    }
    match (place(name), place(dependency)) {
        (Some(user), Some(used)) => used < user,
        _ => false,
    }
}

#[test]
fn wrong_arrows_are_found() {
    let one = |name: &str, dependency: &str| {
        check(&Crates::from([(name.to_owned(), BTreeSet::from([dependency.to_owned()]))]))
    };
    assert_eq!(one("grus-log", "grus-consensus"), ["grus-log -> grus-consensus"]);
    assert_eq!(one("grus-client", "grus-log"), ["grus-client -> grus-log"]);
    assert_eq!(one("grus-broker", "grus-client"), ["grus-broker -> grus-client"]);
    assert_eq!(one("grus-log", "grus-stranger"), ["grus-log -> grus-stranger"]);
    assert_eq!(one("grus-broker", "openraft-rt"), ["grus-broker names openraft-rt"]);
    for (name, dependency) in [
        ("grus-consensus", "openraft"),
        ("grus-cli", "grus-client"),
        ("grus-tests", "grus-cli"),
        ("grus-client", "grus-mailbox"),
        ("grus-broker", "grus-protocol"),
    ] {
        assert!(one(name, dependency).is_empty(), "{name} -> {dependency}");
    }
}
