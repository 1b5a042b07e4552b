//! The notes and the vote on their way to the disk: never an old value over a new one.

use std::path::Path;

use grus_log::{EntryId, EntryKind, Log, LogConfig, NewEntry, SimDisk};

use crate::harness::FOLDER;
use crate::model::{checkpoint, payload};

fn open(disk: &SimDisk) -> Log<SimDisk> {
    Log::open(disk, Path::new(FOLDER), LogConfig::default()).unwrap().0
}

fn append(log: &mut Log<SimDisk>, term: u64) -> EntryId {
    let id = EntryId { term, index: log.last().map_or(0, |last| last.index + 1) };
    let payload = [payload(id)];
    let entry = NewEntry { kind: EntryKind::Normal, term, index: id.index, payload: &payload };
    log.append(&[entry]).unwrap();
    id
}

fn one_job(log: &mut Log<SimDisk>) {
    let job = log.next_job().expect("there is something to do");
    log.complete(job.run()).unwrap();
}

fn work(log: &mut Log<SimDisk>) {
    while let Some(job) = log.next_job() {
        log.complete(job.run()).unwrap();
    }
}

#[test]
fn notes_that_waited_never_come_over_those_of_a_snapshot_that_went_first() {
    let disk = SimDisk::new(1);
    let mut log = open(&disk);
    append(&mut log, 1);
    work(&mut log);
    // Waits for the next commit, and both snapshots go first.
    log.set_volatile();
    for index in [10, 20] {
        log.install(checkpoint(EntryId { term: 2, index }, true));
        one_job(&mut log);
    }
    let purged = log.purged();
    assert_eq!(purged, Some(EntryId { term: 2, index: 20 }));
    work(&mut log);
    let last = append(&mut log, 3);
    work(&mut log);
    drop(log);
    disk.kill_process();
    let log = open(&disk);
    assert_eq!((log.purged(), log.last()), (purged, Some(last)));
}

/// A checkpoint is refused by a full disk while a snapshot comes: the snapshot still goes before anything else is
/// written, or the notes would name a checkpoint that is not there.
#[test]
fn a_snapshot_goes_first_also_behind_a_checkpoint_that_was_refused() {
    let disk = SimDisk::new(3);
    let mut log = open(&disk);
    append(&mut log, 1);
    let seal = EntryId { term: 1, index: 1 };
    let payload = [payload(seal)];
    let entry = NewEntry { kind: EntryKind::Seal, term: 1, index: 1, payload: &payload };
    log.append(&[entry]).unwrap();
    work(&mut log);
    log.checkpoint(checkpoint(seal, true)).unwrap();
    let job = log.next_job().expect("the checkpoint");
    let snapshot = EntryId { term: 2, index: 20 };
    log.install(checkpoint(snapshot, true));
    log.set_volatile();
    disk.set_capacity_bytes(disk.used_bytes());
    log.complete(job.run()).unwrap();
    assert!(log.is_disk_full(), "the checkpoint was refused");
    disk.set_capacity_bytes(u64::MAX);
    log.request_room();
    one_job(&mut log);
    drop(log);
    disk.kill_process();
    let log = open(&disk);
    assert_eq!((log.purged(), log.floor()), (Some(snapshot), Some(snapshot)));
}

/// A value that is asked for over and over before the disk is free takes the place of the older slot only,
/// so that the newest durable one stands whatever becomes of the write.
#[test]
fn a_write_never_goes_over_the_newest_durable_value() {
    let path = Path::new(FOLDER).join("vote");
    let disk = SimDisk::new(2);
    let mut log = open(&disk);
    for round in 1..=20_u64 {
        log.append_vote(&(round * 10).to_le_bytes());
        work(&mut log);
        let before = disk.content(&path);
        for again in 1..=round % 4 + 1 {
            log.append_vote(&(round * 10 + again).to_le_bytes());
        }
        work(&mut log);
        let after = disk.content(&path);
        let stands = |half: usize| before[half * 1024..][..1024] == after[half * 1024..][..1024];
        let newest =
            before.chunks(1024).position(|half| half[16..24] == (round * 10).to_le_bytes());
        assert!(stands(newest.expect("it is durable")), "round {round}: written in place");
    }
}

/// What was lost with the folder is told apart from what a lost kernel took, at each start until it is healed.
#[test]
fn a_log_that_was_lost_with_its_folder_says_so_until_it_is_healed_and_one_of_a_lost_kernel_never() {
    let disk = SimDisk::new(4);
    let written = LogConfig { was_written: true, ..LogConfig::default() };
    let start = |disk: &SimDisk| {
        let (log, recovered) = Log::open(disk, Path::new(FOLDER), written.clone()).unwrap();
        (log.was_emptied(), recovered.volatile, log)
    };
    let (emptied, volatile, mut log) = start(&disk);
    assert!(emptied && volatile);
    append(&mut log, 1);
    work(&mut log);
    drop(log);
    disk.kill_process();
    let (emptied, volatile, mut log) = start(&disk);
    assert!(emptied && volatile, "a part of it is not all of it");
    log.heal_volatile();
    work(&mut log);
    log.set_volatile();
    work(&mut log);
    drop(log);
    disk.cut();
    disk.power_on();
    let (emptied, volatile, log) = start(&disk);
    assert_eq!((emptied, volatile), (false, true), "that was a kernel");
    drop(log);
}
