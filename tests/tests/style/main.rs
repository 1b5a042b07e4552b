//! The rules of CONTRIBUTING.md that a machine can check: layering, sizes, banned calls, the
//! folders of the top level, links between documents.

mod arrows;
mod licences;
mod rules;
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

/// Files below `folder` whose name ends with `ending`; build results and hidden folders left out.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut rooms = vec![folder.to_owned()];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).expect("a readable folder") {
            let entry = entry.expect("a readable entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                rooms.push(entry.path());
            } else if kind.is_file() && name.ends_with(ending) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> (String, String) {
    let named = path.strip_prefix(root()).expect("a path below the root");
    let text = fs::read_to_string(path).expect("a text file");
    (named.to_string_lossy().replace('\\', "/"), text)
}

fn sources() -> Vec<Source> {
    rules::ROOMS
        .iter()
        .flat_map(|room| files(&root().join(room), ".rs"))
        .map(|path| read(&path))
        .map(|(path, text)| Source::new(&path, &text))
        .collect()
}

fn assert_none(rule: &str, complaints: &[String]) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}

#[test]
fn sources_keep_the_rules() {
    let sources = sources();
    assert!(sources.len() > 15, "only {} sources found: the walk is broken", sources.len());
    let complaints: Vec<String> = rules::RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(&sources).into_iter().map(move |line| format!("{name}: {line}"))
        })
        .collect();
    assert_none("style", &complaints);
}

#[test]
fn the_top_level_is_the_given_one() {
    let found: BTreeSet<String> = fs::read_dir(root())
        .expect("a readable root")
        .map(|entry| entry.expect("a readable entry"))
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target" && name != "grus-data")
        .collect();
    assert_none("rooms", &rules::rooms(&found));
}

#[test]
fn crates_depend_only_to_the_left() {
    let manifest = root().join("Cargo.toml");
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata");
    let crates = arrows::read(&metadata);
    assert_eq!(crates.len(), arrows::ORDER.len() + 1, "a crate joined or left: {crates:?}");
    assert_none("arrows", &arrows::check(&crates));
}

/// What this machine builds for: crates of other platforms are not here on a machine that is new.
fn host() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let told = std::process::Command::new(rustc).arg("-vV").output().expect("rustc");
    let told = String::from_utf8(told.stdout).expect("text");
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.expect("rustc names its host").to_owned()
}

#[test]
fn every_dependency_has_a_licence_that_deny_toml_allows() {
    let options = ["--offline", "--locked", "--filter-platform"].map(str::to_owned);
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(options.into_iter().chain([host()]).collect::<Vec<_>>())
        .exec()
        .expect("cargo metadata");
    assert!(metadata.packages.len() > 100, "the dependencies are among them");
    let (_, toml) = read(&root().join("deny.toml"));
    let allowed = licences::listed(&toml, "licenses", "allow");
    assert_none("licences", &licences::check(&metadata, &allowed));
}

#[test]
fn the_readme_has_two_commands_and_ci_runs_the_second() {
    let (_, readme) = read(&root().join("README.md"));
    let commands = rules::commands(&readme);
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert!(commands[0].starts_with("cargo run --release"), "{commands:?}");
    assert_eq!(commands[1], "make test");
    let (_, ci) = read(&root().join(".ci/run"));
    assert!(ci.contains("step \"tests\" readme_second_command"), ".ci/run skips the tests");
}

#[test]
fn links_between_documents_hold() {
    let mut documents: Vec<PathBuf> =
        rules::ROOMS.iter().flat_map(|room| files(&root().join(room), ".md")).collect();
    documents
        .extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut complaints = Vec::new();
    for document in &documents {
        let (path, text) = read(document);
        complaints.extend(rules::broken_links(&path, &text, |link| root().join(link).exists()));
    }
    assert_none("links", &complaints);
}

#[test]
fn every_document_is_in_the_reading_order() {
    let (_, index) = read(&root().join("docs/README.md"));
    let (_, records) = read(&root().join("docs/adr/README.md"));
    let mut missing = Vec::new();
    for document in files(&root().join("docs"), ".md") {
        let name = document.file_name().expect("a name").to_string_lossy().into_owned();
        let record = document.parent().is_some_and(|folder| folder.ends_with("adr"));
        let listed = if record { records.contains(&name) } else { index.contains(&name) };
        if name != "README.md" && !listed {
            missing.push(format!("{name} is in no index"));
        }
    }
    assert_none("reading order", &missing);
}
