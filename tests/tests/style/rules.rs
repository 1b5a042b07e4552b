//! The rules over source text. Each is a function from sources to complaints, and each has a small
//! fixture beside it that it must complain about, so that no rule can fall asleep unseen.

use std::collections::BTreeSet;

use crate::source::Source;

/// Most lines of a source file.
const LINES_MAX: usize = 500;
/// Most lines of a file that holds only tests.
const TEST_LINES_MAX: usize = 800;
/// The folders of the repository's top level.
pub const ROOMS: [&str; 7] =
    ["broker-actors", "client-actors", "deploy", "docs", "registry-actors", "tests", "wire"];
/// What an actor's file says about it before anything else.
const ACTOR_HEADINGS: [&str; 6] =
    ["Owns", "Lives on", "Inbox", "Talks to", "Stops", "If it panics"];
/// The one crate that may touch actix's own way of sending.
const MAILBOX: &str = "wire/mailbox/";
/// The one file with unsafe code.
const UNSAFE_CRATE: &str = "broker-actors/log/";

/// One rule: its name, and what it finds wrong.
pub type Rule = (&'static str, fn(&[Source]) -> Vec<String>);

/// Every rule over sources.
pub const RULES: [Rule; 9] = [
    ("file_size", file_size),
    ("logic_is_pure", logic_is_pure),
    ("nothing_unfinished", nothing_unfinished),
    ("no_sleep", no_sleep),
    ("no_raw_sends", no_raw_sends),
    ("lints_stay_on", lints_stay_on),
    ("actors_are_described", actors_are_described),
    ("unsafe_in_one_file", unsafe_in_one_file),
    ("openraft_is_hidden", openraft_is_hidden),
];

fn each_line(source: &Source, words: &[&str], why: &str) -> Vec<String> {
    words
        .iter()
        .flat_map(|word| source.lines_with(word).map(move |line| (word, line)))
        .map(|(word, line)| format!("{}:{line}: `{word}` {why}", source.path))
        .collect()
}

fn file_size(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        let lines_max = if source.is_test() { TEST_LINES_MAX } else { LINES_MAX };
        if lines > lines_max {
            found.push(format!("{}: {lines} lines, at most {lines_max}", source.path));
        }
    }
    found
}

/// Whether the file is the shell of an actor.
fn is_actor(source: &Source) -> bool {
    let heads = source.code.lines().filter(|line| line.trim_start().starts_with("impl"));
    let mut shells =
        heads.filter(|line| line.contains("Resident for ") || line.contains(" Actor for "));
    !source.is_test() && shells.next().is_some()
}

/// The folder beside an actor's file holds its logic: no actix, tokio, clock, random, I/O.
fn logic_is_pure(sources: &[Source]) -> Vec<String> {
    const IMPURE: [&str; 10] = [
        "actix",
        "actix_rt",
        "tokio",
        "Instant",
        "SystemTime",
        "std::fs",
        "std::net",
        "std::thread",
        "rand",
        "grus_mailbox::Clock",
    ];
    let rooms: BTreeSet<String> = sources
        .iter()
        .filter(|source| is_actor(source))
        .map(|source| format!("{}/", source.path.trim_end_matches(".rs")))
        .collect();
    sources
        .iter()
        .filter(|source| rooms.iter().any(|room| source.path.starts_with(room)))
        .flat_map(|source| each_line(source, &IMPURE, "in logic (the folder beside an actor)"))
        .collect()
}

fn nothing_unfinished(sources: &[Source]) -> Vec<String> {
    sources
        .iter()
        .flat_map(|source| each_line(source, &["todo!", "unimplemented!", "dbg!"], "is unfinished"))
        .collect()
}

/// Tests wait for events. Outside tests clippy.toml forbids it by type; here by name, everywhere.
fn no_sleep(sources: &[Source]) -> Vec<String> {
    const SLEEPS: [&str; 2] = ["thread::sleep", "sleep_ms"];
    let mut found: Vec<String> = sources
        .iter()
        .flat_map(|source| each_line(source, &SLEEPS, "waits for no event"))
        .collect();
    for source in sources.iter().filter(|source| source.path.starts_with("tests/")) {
        found.extend(each_line(source, &["time::sleep"], "waits for no event"));
    }
    found
}

fn no_raw_sends(sources: &[Source]) -> Vec<String> {
    const RAW: [&str; 8] = [
        "do_send(",
        "run_later(",
        "run_interval(",
        "notify_later(",
        "actix::Addr",
        "actix::Recipient",
        "Recipient<",
        "actix::prelude",
    ];
    sources
        .iter()
        .filter(|source| !source.path.starts_with(MAILBOX))
        .flat_map(|source| each_line(source, &RAW, "outside wire/mailbox"))
        .collect()
}

/// A lint is switched off only where it is expected, with a reason; the length of functions never.
fn lints_stay_on(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        found.extend(each_line(source, &["clippy::too_many_lines"], "hides a long function"));
        for (line, number) in source.code.lines().zip(1..) {
            let open =
                line.contains("allow(clippy::disallowed") || line.contains("allow(unsafe_code");
            if open {
                found.push(format!("{}:{number}: use expect with a reason", source.path));
            }
        }
    }
    found
}

fn actors_are_described(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| is_actor(source)) {
        if source.path.starts_with(MAILBOX) || source.path.starts_with("tests/") {
            continue; // the mailbox runs actors and its tests make toys of them
        }
        let head: String = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect::<Vec<_>>()
            .join("\n");
        for heading in ACTOR_HEADINGS {
            if !head.contains(heading) {
                found.push(format!("{}: its head does not say: {heading}", source.path));
            }
        }
    }
    found
}

fn unsafe_in_one_file(sources: &[Source]) -> Vec<String> {
    let with: Vec<&Source> =
        sources.iter().filter(|source| source.lines_with("unsafe").next().is_some()).collect();
    let stray = |source: &&&Source| with.len() > 1 || !source.path.starts_with(UNSAFE_CRATE);
    with.iter().filter(stray).map(|source| format!("{}: unsafe code", source.path)).collect()
}

fn openraft_is_hidden(sources: &[Source]) -> Vec<String> {
    const NAMES: [&str; 3] = ["openraft", "openraft_rt", "openraft_rt_tokio"];
    sources
        .iter()
        .filter(|source| !source.path.starts_with("broker-actors/consensus/"))
        .flat_map(|source| each_line(source, &NAMES, "outside grus-consensus"))
        .collect()
}

/// Folders of the top level that are not in the list, and those of the list that are missing.
pub fn rooms(found: &BTreeSet<String>) -> Vec<String> {
    let wanted: BTreeSet<String> = ROOMS.iter().map(|room| (*room).to_owned()).collect();
    found.symmetric_difference(&wanted).map(|room| format!("top level: {room}")).collect()
}

/// Relative links of a Markdown file that lead nowhere.
pub fn broken_links(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    for part in text.split("](").skip(1) {
        let target = part.split([')', '#', ' ']).next().unwrap_or("");
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let joined =
            if folder.is_empty() { target.to_owned() } else { format!("{folder}/{target}") };
        if !exists(&joined) {
            found.push(format!("{path}: link to {target} leads nowhere"));
        }
    }
    found
}

/// The commands a reader of the README is asked to run: lines of its fenced blocks.
pub fn commands(readme: &str) -> Vec<String> {
    let mut fence: Option<&str> = None;
    let mut found = Vec::new();
    for line in readme.lines() {
        if line.starts_with("```") {
            fence = if fence.is_none() { Some(line) } else { None };
        } else if fence.is_some_and(|fence| fence != "```rust") && !line.trim().is_empty() {
            found.push(line.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod bites {
    //! Every rule against a fixture that breaks it and one that keeps it.

    use super::*;

    const SHELL: &str =
        "//! Owns Lives on Inbox Talks to Stops If it panics\nimpl Resident for Clerk {}\n";

    fn complaints(rule: fn(&[Source]) -> Vec<String>, files: &[(&str, &str)]) -> usize {
        let sources: Vec<Source> =
            files.iter().map(|(path, text)| Source::new(path, text)).collect();
        rule(&sources).len()
    }

    #[test]
    fn file_size_bites() {
        let long = "x\n".repeat(501);
        assert_eq!(complaints(file_size, &[("wire/a/src/b.rs", &long)]), 1);
        assert_eq!(complaints(file_size, &[("wire/a/tests/b.rs", &long)]), 0);
        assert_eq!(complaints(file_size, &[("wire/a/tests/b.rs", &"x\n".repeat(801))]), 1);
        assert_eq!(complaints(file_size, &[("wire/a/src/b.rs", &"x\n".repeat(500))]), 0);
    }

    #[test]
    fn logic_is_pure_bites() {
        let shell = ("b/src/clerk.rs", SHELL);
        for impure in ["use tokio::sync::mpsc;", "let now = Instant::now();", "std::fs::read(path)"]
        {
            assert_eq!(complaints(logic_is_pure, &[shell, ("b/src/clerk/desk.rs", impure)]), 1);
            assert_eq!(complaints(logic_is_pure, &[("b/src/clerk/desk.rs", impure)]), 0);
        }
        assert_eq!(complaints(logic_is_pure, &[shell, ("b/src/clerk/desk.rs", "fn pure() {}")]), 0);
    }

    #[test]
    fn nothing_unfinished_bites() {
        for word in ["todo", "unimplemented", "dbg"] {
            let (code, comment) = (format!("{word}!(x)"), format!("// {word}!(x) later"));
            assert_eq!(complaints(nothing_unfinished, &[("a/src/b.rs", &code)]), 1);
            assert_eq!(complaints(nothing_unfinished, &[("a/src/b.rs", &comment)]), 0);
        }
    }

    #[test]
    fn no_sleep_bites() {
        assert_eq!(complaints(no_sleep, &[("a/src/b.rs", "std::thread::sleep(d)")]), 1);
        assert_eq!(complaints(no_sleep, &[("tests/tests/b.rs", "tokio::time::sleep(d).await")]), 1);
        assert_eq!(complaints(no_sleep, &[("a/src/b.rs", "receiver.recv_timeout(d)")]), 0);
    }

    #[test]
    fn no_raw_sends_bites() {
        for text in
            ["addr.do_send(x)", "ctx.run_later(d, f)", "use actix::prelude::*;", "x: Recipient<M>"]
        {
            assert_eq!(complaints(no_raw_sends, &[("a/src/b.rs", text)]), 1, "{text}");
            assert_eq!(complaints(no_raw_sends, &[("wire/mailbox/src/b.rs", text)]), 0);
        }
    }

    #[test]
    fn lints_stay_on_bites() {
        for text in [
            "#[allow(clippy::too_many_lines)]",
            "#[expect(clippy::too_many_lines, reason = \"x\")]",
            "#[allow(clippy::disallowed_methods)]",
            "#![allow(unsafe_code)]",
        ] {
            assert_eq!(complaints(lints_stay_on, &[("a/src/b.rs", text)]), 1, "{text}");
        }
        let expected = "#[expect(clippy::disallowed_methods, reason = \"the clock's one place\")]";
        assert_eq!(complaints(lints_stay_on, &[("a/src/b.rs", expected)]), 0);
    }

    #[test]
    fn actors_are_described_bites() {
        let bare = "//! A clerk. Owns nothing.\nimpl<D> Resident for Clerk<D> {}\n";
        assert_eq!(complaints(actors_are_described, &[("b/src/clerk.rs", bare)]), 5);
        assert_eq!(complaints(actors_are_described, &[("b/src/clerk.rs", SHELL)]), 0);
    }

    #[test]
    fn unsafe_in_one_file_bites() {
        let file = |path| (path, "unsafe { x }");
        assert_eq!(complaints(unsafe_in_one_file, &[file("broker-actors/log/src/map.rs")]), 0);
        assert_eq!(complaints(unsafe_in_one_file, &[file("broker-actors/src/x.rs")]), 1);
        let two = [file("broker-actors/log/src/map.rs"), file("broker-actors/log/src/y.rs")];
        assert_eq!(complaints(unsafe_in_one_file, &two), 2);
    }

    #[test]
    fn openraft_is_hidden_bites() {
        let text = "use openraft::Raft;";
        assert_eq!(complaints(openraft_is_hidden, &[("broker-actors/src/shard.rs", text)]), 1);
        assert_eq!(
            complaints(openraft_is_hidden, &[("broker-actors/consensus/src/a.rs", text)]),
            0
        );
    }

    #[test]
    fn every_rule_has_a_fixture() {
        let here = include_str!("rules.rs");
        for (name, _) in RULES {
            assert!(here.contains(&format!("fn {name}_bites()")), "{name} has no fixture");
        }
    }

    #[test]
    fn rooms_bite() {
        let mut found: BTreeSet<String> = ROOMS.iter().map(|room| (*room).to_owned()).collect();
        assert!(rooms(&found).is_empty());
        found.insert("misc".to_owned());
        found.remove("docs");
        assert_eq!(rooms(&found), ["top level: docs", "top level: misc"]);
    }

    #[test]
    fn broken_links_bite() {
        let exists = |path: &str| path == "docs/A.md";
        let text = "[a](A.md) [b](B.md#part) [c](https://example.org) [d](#here)";
        assert_eq!(broken_links("docs/README.md", text, exists).len(), 1);
    }

    #[test]
    fn commands_are_found() {
        assert_eq!(commands("a\n```sh\nmake test\n\n```\nb `c`\n```\nx\n```"), ["make test", "x"]);
        assert_eq!(commands("```rust\nlet a = 1;\n```\n```sh\nx\n```"), ["x"]);
    }
}
