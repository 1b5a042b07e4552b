//! The copy in sled: what was written is there again, and damage of any sort ends in a rebuild.

use std::fs;
use std::path::Path;

use bytes::Bytes;
use grus_registry::disk_store::{AppliedAt, DiskStore, Parts};
use grus_registry::machine::Change;

const fn at(index: u64) -> AppliedAt {
    AppliedAt { index, term: 3 }
}

fn part(number: u32, value: &str) -> Change {
    let key = Bytes::from(format!("t{number:08}"));
    Change { key, value: Some(Bytes::copy_from_slice(value.as_bytes())) }
}

fn gone(number: u32) -> Change {
    Change { key: part(number, "").key, value: None }
}

fn fill(dir: &Path, count: u32) -> Parts {
    let (store, _) = DiskStore::open(dir).expect("a folder to write in");
    let mut parts = Parts::new();
    for number in 0..count {
        let change = part(number, &format!("value {number}"));
        store
            .write(at(u64::from(number)), std::slice::from_ref(&change))
            .expect("a folder to write in");
        parts.insert(change.key, change.value.expect("a folder to write in"));
    }
    store.sync().expect("a folder to write in");
    parts
}

#[test]
fn an_entry_is_there_with_all_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("sled");
    {
        let (store, rebuilt) = DiskStore::open(&dir).unwrap();
        assert!(!rebuilt);
        assert_eq!(store.read().unwrap(), (None, Parts::new()));
        store.write(at(7), &[part(1, "one"), part(2, "two")]).unwrap();
        store.write(at(8), &[gone(1), part(2, "zwei")]).unwrap();
        store.write(at(9), &[]).unwrap();
        store.sync().unwrap();
    }
    let (store, rebuilt) = DiskStore::open(&dir).unwrap();
    assert!(!rebuilt);
    let (applied, parts) = store.read().unwrap();
    assert_eq!(applied, Some(at(9)));
    assert_eq!(parts.into_values().collect::<Vec<_>>(), ["zwei"]);
}

#[test]
fn a_rewrite_leaves_exactly_what_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("sled");
    fill(&dir, 3_000);
    let (store, _) = DiskStore::open(&dir).unwrap();
    let wanted: Parts = (1_500..4_500)
        .map(|number| part(number, if number % 2 == 0 { "new" } else { "value" }))
        .map(|change| (change.key, change.value.unwrap()))
        .collect();
    store.rewrite(at(1), &wanted).unwrap();
    assert_eq!(store.read().unwrap(), (Some(at(1)), wanted));
}

#[test]
fn a_half_written_snapshot_of_sled_does_not_keep_it_shut() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("sled");
    let parts = fill(&dir, 10);
    fs::write(dir.join("snap.0000000000001234.generating"), b"half").unwrap();
    let (store, rebuilt) = DiskStore::open(&dir).unwrap();
    assert!(!rebuilt);
    assert_eq!(store.read().unwrap().1, parts);
}

#[test]
fn whatever_byte_is_damaged_it_opens_again_and_is_whole_or_different_and_never_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    let parts = fill(&good, 200);
    let length = fs::metadata(good.join("db")).unwrap().len();
    let (mut whole, mut different, mut aside) = (0, 0, 0);
    for round in 0..24_u64 {
        let dir = folder.path().join(format!("round-{round}"));
        fs::create_dir(&dir).unwrap();
        for file in fs::read_dir(&good).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::copy(file.path(), dir.join(file.file_name())).unwrap();
            }
        }
        let mut bytes = fs::read(dir.join("db")).unwrap();
        let start = usize::try_from(round * length.min(40_000) / 24).unwrap();
        for byte in bytes.iter_mut().skip(start).take(64) {
            *byte ^= 0x5a;
        }
        fs::write(dir.join("db"), &bytes).unwrap();
        if round % 5 == 0 {
            fs::write(dir.join("conf"), b"not a conf").unwrap();
        }

        let (store, rebuilt) = DiskStore::open(&dir).unwrap();
        let read = store.read().unwrap();
        match (rebuilt, read == (Some(at(199)), parts.clone())) {
            (true, same) => {
                assert!(!same);
                aside += 1;
            }
            (false, true) => whole += 1,
            (false, false) => different += 1,
        }
        store.rewrite(at(199), &parts).unwrap();
        assert_eq!(store.read().unwrap(), (Some(at(199)), parts.clone()));
        store.sync().unwrap();
    }
    println!("damaged: {whole} whole, {different} different, {aside} moved aside");
    assert!(different + aside > 0, "no damage was ever noticed: the test damages nothing");
}

#[test]
fn of_the_damaged_folders_the_newest_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("sled");
    for _ in 0..5 {
        fill(&dir, 3);
        fs::write(dir.join("conf"), b"not a conf").unwrap();
        let (_store, rebuilt) = DiskStore::open(&dir).unwrap();
        assert!(rebuilt);
    }
    let mut names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["sled", "sled.damaged-4", "sled.damaged-5"]);
}
