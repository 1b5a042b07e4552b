//! A number that a cut has declared void, and a file of that number that came back as a spare.

use std::path::Path;

use grus_log::switches::OrderRule;
use grus_log::{EntryId, EntryKind, Log, LogConfig, NewEntry, SimDisk};

use crate::harness::FOLDER;
use crate::model::payload;

fn open(disk: &SimDisk, without: Option<OrderRule>) -> Log<SimDisk> {
    let config = LogConfig {
        segment_bytes: 64 * 1024,
        first_segment_bytes: 64 * 1024,
        without,
        ..LogConfig::default()
    };
    Log::open(disk, Path::new(FOLDER), config).unwrap().0
}

fn append(log: &mut Log<SimDisk>, term: u64) -> EntryId {
    let id = EntryId { term, index: log.last().map_or(0, |last| last.index + 1) };
    let payload = [payload(id)];
    let entry = NewEntry { kind: EntryKind::Normal, term, index: id.index, payload: &payload };
    log.append(&[entry]).unwrap();
    id
}

fn work(log: &mut Log<SimDisk>) {
    while let Some(job) = log.next_job() {
        log.complete(job.run()).unwrap();
    }
}

/// How many segments hold entries.
fn segments(log: &Log<SimDisk>) -> u64 {
    log.stats().segments
}

/// Up to which number a segment's close records declare the ones behind it void.
fn voids(file: &[u8]) -> u64 {
    let record = |at: usize| file[at..].starts_with(b"GRUX").then_some(at + 40);
    let number = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap());
    [512, 1024].into_iter().filter_map(record).map(number).max().unwrap_or(0)
}

/// An entry goes to a new segment and is truncated away again; the power goes off before anything of
/// that is synced. What is acknowledged afterwards must be there. `Ok(true)`: the cut was on the disk,
/// and the file it voids had nothing in it, so that it looked like a spare.
fn cut_voids_what_looks_like_a_spare(
    seed: u64,
    without: Option<OrderRule>,
) -> Result<bool, String> {
    let disk = SimDisk::new(seed);
    let mut log = open(&disk, without);
    let mut last = append(&mut log, 1);
    while log.room_bytes() > 0 && segments(&log) < 2 {
        work(&mut log);
        last = append(&mut log, 1);
    }
    log.truncate_after(last.index.checked_sub(1));
    drop(log);
    disk.cut();
    disk.power_on();

    let content = |number: u64| {
        let path = Path::new(FOLDER).join(format!("segment-{number:016x}"));
        let there = disk.files().iter().any(|(file, _)| *file == path);
        there.then(|| disk.content(&path))
    };
    let looks_unused = content(2).is_some_and(|file| file[512..].iter().all(|byte| *byte == 0));
    let is_void = content(1).is_some_and(|file| voids(&file) >= 2);
    let mut log = open(&disk, without);
    for _ in 0..3 {
        last = append(&mut log, 2);
    }
    work(&mut log);
    assert_eq!(log.durable_index(), Some(last.index));
    drop(log);
    disk.kill_process();

    let log = open(&disk, without);
    if log.last() != Some(last) {
        return Err(format!("seed {seed}: acknowledged {last}, now ends at {:?}", log.last()));
    }
    for index in 0..=last.index {
        let entry = log.entry(index).map_err(|error| format!("seed {seed}: {error}"))?;
        assert_eq!(entry.payload, payload(entry.id()), "seed {seed}");
    }
    Ok(looks_unused && is_void)
}

#[test]
fn a_spare_whose_number_a_cut_has_declared_void_is_never_used_again() {
    let hit = (0..100).filter(|seed| {
        cut_voids_what_looks_like_a_spare(*seed, None).unwrap_or_else(|error| panic!("{error}"))
    });
    let hit: Vec<u64> = hit.collect();
    assert!(hit.len() >= 5, "{hit:?} left a file that looked like a spare");
    for seed in &hit {
        let without = Some(OrderRule::NumbersBeyondCuts);
        let lost = cut_voids_what_looks_like_a_spare(*seed, without);
        assert!(lost.is_err(), "seed {seed} loses nothing without the rule");
    }
    println!("{} cuts hit it; without the rule each loses what was acknowledged", hit.len());
}

#[test]
fn a_cut_in_a_segment_closed_long_ago_is_on_the_disk_when_the_job_is_done() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut log = open(&disk, None);
        while segments(&log) < 3 {
            append(&mut log, 1);
            work(&mut log);
        }
        // All is synced, so that the first segments need no descriptor any more.
        let keep = EntryId { term: 1, index: 5 };
        log.truncate_after(Some(keep.index));
        work(&mut log);
        let next = (seed % 2 == 0).then(|| append(&mut log, 2));
        work(&mut log);
        drop(log);
        disk.cut();
        disk.power_on();
        let log = open(&disk, None);
        assert_eq!(log.last(), Some(next.unwrap_or(keep)), "seed {seed}");
        assert_eq!(log.term_of(keep.index), Some(1), "seed {seed}");
    }
}
