//! A disk that is full: refused with a type, readers served, heals by itself. And syncs that fail.

use std::path::Path;
use std::process::Command;

use grus_log::{
    AppendError, Disk, EntryId, EntryKind, Log, LogConfig, NewEntry, RealDisk, SimDisk,
};

use crate::model::{checkpoint, payload};

fn config() -> LogConfig {
    LogConfig { segment_bytes: 64 * 1024, first_segment_bytes: 64 * 1024, ..LogConfig::default() }
}

fn append<D: Disk>(log: &mut Log<D>, kind: EntryKind) -> Result<u64, AppendError> {
    let index = log.last().map_or(0, |last| last.index + 1);
    let id = EntryId { term: 1, index };
    let payload = [payload(id)];
    log.append(&[NewEntry { kind, term: 1, index, payload: &payload }])?;
    Ok(index)
}

fn work<D: Disk>(log: &mut Log<D>) {
    while let Some(job) = log.next_job() {
        log.complete(job.run()).unwrap();
    }
}

fn check<D: Disk>(log: &Log<D>) {
    for index in log.first_index().unwrap()..=log.last().unwrap().index {
        let entry = log.entry(index).unwrap();
        assert_eq!(entry.payload, payload(entry.id()), "entry {index}");
    }
}

/// Fills the disk, finds the typed error, makes room by purging, and goes on.
fn fills_and_heals<D: Disk>(disk: &D, folder: &Path) {
    let (mut log, _) = Log::open(disk, folder, config()).unwrap();
    let mut seals = Vec::new();
    let refused = loop {
        let kind = if log.should_seal() { EntryKind::Seal } else { EntryKind::Normal };
        let appended = append(&mut log, kind);
        work(&mut log);
        match appended {
            Ok(index) if kind == EntryKind::Seal => {
                let id = EntryId { term: 1, index };
                log.checkpoint(checkpoint(id, seals.is_empty())).unwrap();
                seals.push(id);
                work(&mut log);
            }
            Ok(_) | Err(AppendError::NoRoom) => {}
            Err(error) => break error,
        }
        assert!(seals.len() < 1_000, "the disk never fills");
    };
    assert_eq!(refused, AppendError::DiskFull);
    assert!(log.is_disk_full() && seals.len() >= 3, "{} segments", seals.len());
    // What was refused was not half done; what was acknowledged is on the disk.
    let last = log.last().unwrap();
    assert_eq!(log.durable_index(), Some(last.index));
    check(&log);
    drop(log);

    let (mut log, recovered) = Log::open(disk, folder, config()).unwrap();
    assert!(recovered.report.damage.is_empty());
    assert_eq!(log.last(), Some(last), "a full disk starts, and serves readers");
    check(&log);
    // A new leader's first entry has room, or nothing could ever be purged.
    log.append(&[NewEntry {
        kind: EntryKind::Blank,
        term: 2,
        index: last.index + 1,
        payload: &[],
    }])
    .unwrap();
    work(&mut log);
    log.truncate_after(Some(last.index));
    let held: Vec<EntryId> = log.checkpoints().collect();
    let floor = held[held.len() - 1];
    log.set_floor(floor);
    log.purge(floor);
    work(&mut log);
    log.request_room();
    work(&mut log);
    for _ in 0..5 {
        append(&mut log, EntryKind::Normal).expect("healed");
        work(&mut log);
    }
    assert!(!log.is_disk_full());
    assert_eq!(log.durable_index(), Some(last.index + 5));
    check(&log);
}

#[test]
fn a_full_simulated_disk_refuses_serves_and_heals() {
    let disk = SimDisk::new(1);
    disk.set_capacity_bytes(700 * 1024);
    fills_and_heals(&disk, Path::new("/log"));
}

#[test]
fn a_full_real_disk_refuses_serves_and_heals() {
    let mount = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(mount.path())
        .output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: a small tmpfs can be mounted by root only ({mounted:?})");
        return;
    }
    let filled = std::panic::catch_unwind(|| fills_and_heals(&RealDisk, &mount.path().join("log")));
    let unmounted = Command::new("umount").arg(mount.path()).status().unwrap();
    filled.unwrap();
    assert!(unmounted.success());
}

#[test]
fn a_failed_sync_is_fatal_and_acknowledges_nothing() {
    for n in 1..4 {
        let disk = SimDisk::new(n);
        let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
        append(&mut log, EntryKind::Normal).unwrap();
        work(&mut log);
        let durable = log.durable_index();
        let mut fatal = None;
        disk.fail_sync_in(n);
        for _ in 0..10 {
            append(&mut log, EntryKind::Normal).unwrap();
            log.append_vote(b"vote");
            let job = log.next_job().unwrap();
            match log.complete(job.run()) {
                Ok(_) if fatal.is_none() => {}
                Ok(_) => panic!("went on after a failed sync"),
                Err(error) => {
                    fatal = Some(error.to_string());
                    break;
                }
            }
        }
        let fatal = fatal.expect("a sync failed");
        assert!(fatal.contains("sync") || fatal.contains("vote"), "{fatal}");
        assert!(log.durable_index() >= durable);
    }
}

/// Appends while each job is out, as many pipelined producers do: the log is never idle.
#[test]
fn a_log_that_is_never_idle_still_gets_checkpoints_and_lets_purged_files_go() {
    let disk = SimDisk::new(7);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    let mut seals = Vec::new();
    let mut purged = 0;
    for _ in 0..20_000 {
        let kind = if log.should_seal() { EntryKind::Seal } else { EntryKind::Normal };
        if let (Ok(index), EntryKind::Seal) = (append(&mut log, kind), kind) {
            let id = EntryId { term: 1, index };
            log.checkpoint(checkpoint(id, seals.is_empty())).unwrap();
            seals.push(id);
        }
        let Some(job) = log.next_job() else { continue };
        let _ = append(&mut log, EntryKind::Normal);
        log.complete(job.run()).unwrap();
        let newest = log.newest_checkpoint();
        if log.floor() < newest {
            log.set_floor(newest.unwrap());
            log.purge(newest.unwrap());
            purged += 1;
        }
        if seals.len() >= 40 {
            break;
        }
    }
    assert_eq!(seals.len(), 40);
    assert!(purged >= 20, "{purged} checkpoints became durable");
    let files = disk.files();
    let names = files.iter().map(|(path, _)| path.to_string_lossy());
    let segments = names.filter(|name| name.contains("segment-")).count();
    assert!(segments <= 10, "{segments} segments are still there");
    check(&log);
}

#[test]
fn a_checkpoint_that_found_the_disk_full_is_written_later_and_the_disk_counts_as_healed() {
    let disk = SimDisk::new(8);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    while !log.should_seal() {
        append(&mut log, EntryKind::Normal).unwrap();
        work(&mut log);
    }
    let index = append(&mut log, EntryKind::Seal).unwrap();
    work(&mut log);
    disk.set_capacity_bytes(disk.used_bytes());
    log.checkpoint(checkpoint(EntryId { term: 1, index }, true)).unwrap();
    work(&mut log);
    assert!(log.is_disk_full() && log.newest_checkpoint().is_none());
    disk.set_capacity_bytes(u64::MAX);
    log.request_room();
    work(&mut log);
    assert_eq!(log.newest_checkpoint().map(|id| id.index), Some(index));
    assert!(!log.is_disk_full(), "there is a spare segment, and the checkpoint is written");
}
