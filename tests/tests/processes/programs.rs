//! Programs that use the client library: every example, and README's twenty lines as a crate that
//! stands outside of the workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use grus_tests::broker::Home;
use grus_tests::program;

use crate::{create, kept};

/// Examples that read: they get a topic with messages in it, and end after as many as they are
/// told.
const READERS: [&str; 8] =
    ["consumer", "read", "pull", "long_poll", "push", "stream", "receiver", "seek"];
/// Examples that measure, or want standard input.
const OTHERS: [&str; 2] = ["find_speed", "produce"];
/// Messages each one sends or reads.
const COUNT: u64 = 10;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned()
}

/// The folder that cargo builds into: that of this test.
fn target() -> PathBuf {
    let binary = program::binary();
    let profile = binary.parent().expect("a binary is in a folder");
    let own = std::env::current_exe().expect("the path of this test");
    let own = own.ancestors().nth(3).expect("target/debug/deps/test").to_owned();
    if profile.starts_with(&own) { profile.parent().expect("target").to_owned() } else { own }
}

fn cargo(folder: &Path, arguments: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(folder).args(arguments).arg("--offline").env("CARGO_TARGET_DIR", target());
    let done = command.output().expect("cargo runs");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// What a program prints that ends well, within the harness's limit.
fn said_by(program: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    program::run(command, b"").ok().text()
}

#[test]
fn every_example_runs_against_a_broker() {
    let home = Home::new();
    let _broker = home.start();
    // As `cargo test --workspace` builds them, so that there is nothing left to build in CI.
    cargo(&root(), &["build", "--workspace", "--examples", "--locked"]);
    let mut names: Vec<String> = fs::read_dir(root().join("client-actors/examples"))
        .expect("the examples")
        .filter_map(|entry| {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            name.strip_suffix(".rs").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert!(names.len() >= 11, "{names:?}");
    let (address, count) = (home.listen.to_string(), COUNT.to_string());
    for name in names.iter().map(String::as_str).filter(|name| !OTHERS.contains(name)) {
        let example = target().join("debug/examples").join(name);
        create(&home, name, 2);
        if READERS.contains(&name) {
            let lines = crate::numbered("message", 20);
            home.grus_fed(&["produce", name, "--spread"], lines.as_bytes()).ok();
            let said = said_by(&example, &[name, &address, &count]);
            assert!(!said.is_empty(), "{name} says nothing of what it has read");
            continue;
        }
        let said = said_by(&example, &[name, &address, &count]);
        assert!(!said.is_empty(), "{name} says nothing of what it has sent");
        assert_eq!(kept(&home, name), COUNT, "{name}");
    }
}

/// The first block of Rust in README.md.
fn readme_program() -> String {
    let readme = fs::read_to_string(root().join("README.md")).expect("the readme");
    let (_, block) = readme.split_once("```rust\n").expect("a block of Rust");
    block.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_lines_of_the_readme_are_a_program_outside_of_the_workspace() {
    let home = Home::new();
    let _broker = home.start();
    let folder = tempfile::tempdir().expect("a folder");
    let program = readme_program();
    assert!(program.lines().count() <= 24, "the readme says twenty lines");
    let client = root().join("client-actors");
    let manifest = format!(
        "[package]\nname = \"grus-readme\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n\
         [dependencies]\ngrus-client = {{ path = {:?} }}\n\
         tokio = {{ version = \"1\", features = [\"macros\", \"rt\", \"time\"] }}\n",
        client.display().to_string(),
    );
    fs::create_dir(folder.path().join("src")).expect("a folder");
    fs::write(folder.path().join("Cargo.toml"), manifest).expect("a manifest");
    fs::write(folder.path().join("src/main.rs"), program).expect("a program");
    fs::copy(root().join("Cargo.lock"), folder.path().join("Cargo.lock")).expect("a lock file");
    cargo(folder.path(), &["build"]);
    let built = target().join("debug/grus-readme");
    let said = said_by(&built, &[&home.listen.to_string()]);
    assert!(said.contains("hello"), "{said}");
    let described = home.grus(&["topic", "describe", "greetings", "--json"]).ok().json();
    let queues = described[0]["queue_list"].as_array().map(Vec::len);
    assert!(queues.is_some_and(|queues| queues > 0), "{described:?}");
}
