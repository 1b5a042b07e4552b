//! A full disk: producers are told, readers are served, and it heals.

use std::fs;

use grus_tests::broker::Home;
use grus_tests::small_disk::SmallDisk;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;

use crate::{create, kept, read_all};

/// Where a broker of small segments lives on it.
fn home(disk: &SmallDisk) -> Home {
    Home::at(&disk.path().join("data"))
        .with("GRUS__LOG__SEGMENT_BYTES", "4MiB")
        .with("GRUS__LOG__FIRST_SEGMENT_BYTES", "4MiB")
}

#[test]
fn producers_are_told_readers_are_served_and_it_heals() {
    let Some(disk) = SmallDisk::mount(256, 256) else { return };
    let home = home(&disk);
    let mut broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], b"first\n").ok();
    let ballast = disk.fill();
    // More than the segments that were allocated ahead can hold.
    let line = [vec![b'x'; 64 * 1024 - 1], vec![b'\n']].concat();
    let watch = Watch::start();
    loop {
        let produce = ["produce", "t", "--timeout", "3s"];
        let told = home.grus_fed(&produce, &line.repeat(1_024)).refused().to_lowercase();
        if ["full", "storage", "space"].iter().any(|word| told.contains(word)) {
            break;
        }
        // A busy machine may have answered nothing at all within that time.
        assert!(watch.elapsed() < PATIENCE, "{told}");
    }
    assert!(broker.process.ended().is_none(), "it lives: {}", broker.process.log());

    let stored = kept(&home, "t");
    let read = read_all(&home, "t");
    assert_eq!((read.len() as u64, read[0].body.as_deref()), (stored, Some("first")));
    let line = home.grus_fed(&["produce", "t", "--timeout", "1s"], &line.repeat(1_024)).refused();
    println!("while it is full: {line}");

    fs::remove_dir_all(ballast).expect("the ballast goes");
    let watch = Watch::start();
    while !home.grus_fed(&["produce", "t", "--timeout", "5s"], b"healed\n").status.success() {
        assert!(watch.elapsed() < PATIENCE, "it does not heal: {}", broker.process.log());
    }
    let healed = read_all(&home, "t");
    assert_eq!(healed.last().and_then(|message| message.body.as_deref()), Some("healed"));
    broker.end(Signal::TERM);
    let broker = home.start();
    assert_eq!(read_all(&home, "t"), healed, "and after a restart all of it is there");
    broker.end(Signal::TERM);
}

#[test]
fn a_start_without_any_room_serves_readers_refuses_producers_and_heals() {
    let Some(disk) = SmallDisk::mount(128, 256) else { return };
    let home = home(&disk);
    let mut broker = home.start();
    create(&home, "t", 1);
    home.grus_fed(&["produce", "t"], b"first\nsecond\n").ok();
    let line = [vec![b'x'; 64 * 1024 - 1], vec![b'\n']].concat();
    let full = "starts on a full disk";
    let mut ballast = disk.fill();
    // Each start takes what the last one has kept back, until there is nothing.
    for _ in 0..8 {
        home.grus_fed(&["produce", "t", "--timeout", "1s"], &line.repeat(256)).refused();
        ballast = disk.fill();
        broker.process.kill();
        broker = home.start();
        if broker.process.log().contains(full) {
            break;
        }
    }
    assert!(broker.process.log().contains(full), "there is always some room left");

    let read = read_all(&home, "t");
    assert_eq!(read.len() as u64, kept(&home, "t"));
    assert_eq!(read[1].body.as_deref(), Some("second"));
    let told = home.grus_fed(&["produce", "t", "--timeout", "1s"], b"more\n").refused();
    println!("while there is no room: {told}");
    let (_, metrics) = broker.get("/metrics");
    assert!(
        metrics.contains("grus_shard_disk_full{shard=\"0\",durability=\"persisted\"} 1"),
        "{metrics}"
    );
    broker.end(Signal::TERM); // it does not wait for the room that never comes
    let broker = home.start();
    assert_eq!(read_all(&home, "t").len(), read.len());

    fs::remove_dir_all(ballast).expect("the ballast goes");
    let watch = Watch::start();
    while !home.grus_fed(&["produce", "t", "--timeout", "5s"], b"healed\n").status.success() {
        let log = broker.process.log();
        assert!(watch.elapsed() < PATIENCE, "it does not heal: {log}");
    }
    let healed = read_all(&home, "t");
    // Stored and not answered in time, it was sent once more.
    let new = &healed[read.len()..];
    assert!(!new.is_empty() && new.iter().all(|one| one.body.as_deref() == Some("healed")));
    broker.end(Signal::TERM);
    let broker = home.start();
    assert_eq!(read_all(&home, "t"), healed, "and after a restart all of it is there");
    broker.end(Signal::TERM);
}
