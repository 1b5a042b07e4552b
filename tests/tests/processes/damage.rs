//! A log damaged where it has to be applied again: named, refused, and given up only when the
//! operator says so.

use std::fs;
use std::path::{Path, PathBuf};

use grus_tests::broker::Home;
use rustix::process::Signal;

use crate::start::refusal;
use crate::{create, numbered, read_all};

#[test]
fn a_damaged_entry_is_named_and_given_up_only_when_told_to() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 1);
    for part in ["before", "needle", "behind"] {
        home.grus_fed(&["produce", "t"], numbered(part, 50).as_bytes()).ok();
    }
    broker.end(Signal::TERM);
    let (segment, at) = find(&home.data.join("shards"), b"needle 25");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[at] ^= 1;
    let behind = find(&home.data.join("shards"), b"behind 50");
    fs::write(&segment, &bytes).expect("a writable segment");

    let refused = refusal(&home.run_to_end());
    assert!(refused.contains("is damaged"), "{refused}");
    assert!(refused.contains("log.accept_loss"), "{refused}");
    assert_eq!(find(&home.data.join("shards"), b"behind 50"), behind, "nothing was cut");

    let home = home.with("GRUS__LOG__ACCEPT_LOSS", "true");
    home.start().end(Signal::TERM);
    let mut home = home;
    home.settings.clear(); // one start is enough
    let _broker = home.start();
    let read = read_all(&home, "t");
    let count = |part: &str| {
        read.iter().filter(|entry| entry.body.as_ref().is_some_and(|b| b.starts_with(part))).count()
    };
    assert_eq!((count("before"), count("behind")), (50, 50), "only what was damaged is gone");
    assert!(count("needle") < 50, "what was damaged is not shown");
}

/// The one file below `folder` that holds `needle`, and where.
fn find(folder: &Path, needle: &[u8]) -> (PathBuf, usize) {
    let mut rooms = vec![folder.to_owned()];
    while let Some(room) = rooms.pop() {
        for entry in fs::read_dir(&room).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                rooms.push(path);
                continue;
            }
            let bytes = fs::read(&path).expect("a readable file");
            if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
                return (path, at);
            }
        }
    }
    panic!("nothing below {} holds it", folder.display());
}
