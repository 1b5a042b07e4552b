//! The log on both disks, without faults.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

use std::path::Path;

use bytes::Bytes;
use grus_log::{
    AppendError, CheckpointData, Disk, EntryId, EntryKind, Log, LogConfig, NewEntry, OpenError,
    Part, Progress, ReadError, RealDisk, SimDisk,
};

fn config() -> LogConfig {
    LogConfig { segment_bytes: 64 * 1024, first_segment_bytes: 64 * 1024, ..LogConfig::default() }
}

fn payload(index: u64, bytes: usize) -> Bytes {
    (0..bytes).map(|at| (index as usize * 31 + at) as u8).collect::<Vec<u8>>().into()
}

fn append<D: Disk>(log: &mut Log<D>, kind: EntryKind, term: u64, index: u64) {
    let payload = [payload(index, 300), payload(index + 1, 700)];
    let entry = NewEntry { kind, term, index, payload: &payload };
    log.append(&[entry]).unwrap();
}

fn run<D: Disk>(log: &mut Log<D>) -> Vec<Progress> {
    let mut all = Vec::new();
    while let Some(job) = log.next_job() {
        all.push(log.complete(job.run()).unwrap());
    }
    all
}

fn check<D: Disk>(log: &Log<D>, indexes: std::ops::Range<u64>) {
    let entries = log.entries(indexes.clone(), u64::MAX).unwrap();
    assert_eq!(entries.len() as u64, indexes.end - indexes.start);
    for (entry, index) in entries.iter().zip(indexes) {
        assert_eq!(entry.index, index);
        assert_eq!(entry.payload[..300], payload(index, 300)[..], "entry {index}");
        assert_eq!(entry.payload[300..], payload(index + 1, 700)[..], "entry {index}");
    }
}

fn checkpoint(index: u64, term: u64, full: bool) -> CheckpointData {
    let part = Part { key: "k".into(), value: Some(payload(index, 40)) };
    CheckpointData { index, term, membership: "m".into(), full, parts: vec![part], digest: index }
}

fn grows_and_comes_back<D: Disk>(disk: &D, folder: &Path) {
    let (mut log, recovered) = Log::open(disk, folder, config()).unwrap();
    assert!(recovered.checkpoints.is_empty() && log.last().is_none() && log.vote().is_empty());
    let mut sealed = Vec::new();
    for index in 0..400 {
        let seal = log.should_seal();
        append(&mut log, if seal { EntryKind::Seal } else { EntryKind::Normal }, 1, index);
        let progress = run(&mut log);
        assert_eq!(progress.iter().filter_map(|p| p.durable_index).max(), Some(index));
        if seal {
            log.checkpoint(checkpoint(index, 1, sealed.is_empty())).unwrap();
            let progress = run(&mut log);
            assert_eq!(progress.iter().filter_map(|p| p.checkpoint).max(), Some(index));
            sealed.push(index);
        }
    }
    assert!(sealed.len() >= 6, "{sealed:?}");
    let ticket = log.append_vote(b"vote 7");
    log.save_committed(Some(EntryId { term: 1, index: 390 }));
    assert!(run(&mut log).iter().any(|progress| progress.tickets.contains(&ticket)));
    check(&log, 0..400);
    drop(log);

    let (mut log, recovered) = Log::open(disk, folder, config()).unwrap();
    assert_eq!(recovered.report, grus_log::Report::default());
    assert_eq!(recovered.checkpoints.len(), sealed.len());
    assert_eq!(recovered.checkpoints.last().unwrap().index, *sealed.last().unwrap());
    assert_eq!(
        (log.vote(), log.committed()),
        (&b"vote 7"[..], Some(EntryId { term: 1, index: 390 }))
    );
    check(&log, 0..400);

    let keep = log.entries(60..61, u64::MAX).unwrap();
    let floor = EntryId { term: 1, index: sealed[1] };
    log.set_floor(floor);
    log.purge(floor);
    run(&mut log);
    assert_eq!(log.first_index(), Some(floor.index + 1));
    assert_eq!(
        log.entries(5..6, u64::MAX),
        Err(ReadError::Purged { index: 5, purged: floor.index })
    );
    log.truncate_after(Some(390));
    append(&mut log, EntryKind::Blank, 2, 391);
    run(&mut log);
    assert_eq!(log.durable_index(), Some(391));
    assert_eq!(keep[0].payload[..300], payload(60, 300)[..], "a slice outlives its purge");
    drop(keep);
    run(&mut log);
    drop(log);

    let (log, recovered) = Log::open(disk, folder, config()).unwrap();
    assert_eq!(recovered.report, grus_log::Report::default());
    assert_eq!(log.last(), Some(EntryId { term: 2, index: 391 }));
    assert_eq!(log.purged(), Some(floor));
    assert_eq!(log.checkpoint_at(floor.index).unwrap().last().unwrap().digest, floor.index);
    check(&log, floor.index + 1..392);
}

#[test]
fn a_log_grows_and_comes_back_on_the_simulated_disk() {
    grows_and_comes_back(&SimDisk::new(1), Path::new("/log"));
}

#[test]
fn a_log_grows_and_comes_back_on_the_real_disk() {
    let folder = tempfile::tempdir().unwrap();
    grows_and_comes_back(&RealDisk, &folder.path().join("a/log"));
}

/// A log that closes its segments early, as a follower does whose leader allocates smaller ones.
fn gives_back_what_it_does_not_use<D: Disk>(disk: &D, folder: &Path, used: impl Fn() -> u64) {
    const SEALS: u64 = 8;
    let config = LogConfig {
        segment_bytes: 1024 * 1024,
        first_segment_bytes: 1024 * 1024,
        ..LogConfig::default()
    };
    let segment = u64::from(config.segment_bytes);
    let (mut log, _) = Log::open(disk, folder, config.clone()).unwrap();
    let round = |log: &mut Log<D>, from: u64| {
        for index in from..from + 9 {
            append(log, EntryKind::Normal, 1, index);
        }
        append(log, EntryKind::Seal, 1, from + 9);
        run(log);
        log.checkpoint(checkpoint(from + 9, 1, true)).unwrap();
        run(log);
    };
    for seal in 0..SEALS {
        round(&mut log, seal * 10);
    }
    // One is open at most, and one or two stand ready.
    assert!(used() < 4 * segment, "{} of {SEALS} segments of {segment}", used());
    check(&log, 0..SEALS * 10);
    drop(log);

    let (mut log, recovered) = Log::open(disk, folder, config).unwrap();
    assert_eq!(recovered.report, grus_log::Report::default());
    check(&log, 0..SEALS * 10);
    // What was given back is there again for whoever uses the file again.
    let floor = EntryId { term: 1, index: SEALS * 10 - 1 };
    log.set_floor(floor);
    run(&mut log);
    log.purge(floor);
    run(&mut log);
    let last = SEALS * 10 + 1_500;
    for index in SEALS * 10..last {
        append(&mut log, EntryKind::Normal, 1, index);
        run(&mut log);
    }
    check(&log, SEALS * 10..last);
}

#[test]
fn what_a_closed_segment_does_not_use_is_given_back_on_the_simulated_disk() {
    let disk = SimDisk::new(1);
    gives_back_what_it_does_not_use(&disk, Path::new("/log"), || disk.used_bytes());
}

#[test]
fn what_a_closed_segment_does_not_use_is_given_back_on_the_real_disk() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let used = || {
        let files = std::fs::read_dir(&path).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().blocks() * 512).sum()
    };
    gives_back_what_it_does_not_use(&RealDisk, &path, used);
}

#[test]
fn who_reads_what_is_truncated_keeps_it_when_the_rest_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig {
        segment_bytes: 1024 * 1024,
        first_segment_bytes: 1024 * 1024,
        ..LogConfig::default()
    };
    let (mut log, _) = Log::open(&RealDisk, folder.path(), config).unwrap();
    for index in 0..60 {
        append(&mut log, EntryKind::Normal, 1, index);
    }
    run(&mut log);
    let held = log.entries(40..41, 1).unwrap();
    log.truncate_after(Some(5));
    run(&mut log);
    append(&mut log, EntryKind::Seal, 2, 6);
    run(&mut log);
    log.checkpoint(checkpoint(6, 2, true)).unwrap();
    let progress = run(&mut log);
    assert!(progress.iter().any(|progress| progress.checkpoint == Some(6)));
    assert_eq!(held[0].payload[..300], payload(40, 300)[..]);
    assert_eq!(held[0].payload[300..], payload(41, 700)[..]);
}

#[test]
fn appends_are_refused_whole_when_they_do_not_follow_or_fit() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    append(&mut log, EntryKind::Normal, 1, 7);
    let payload = [payload(0, 100)];
    let entry = |index| NewEntry { kind: EntryKind::Normal, term: 1, index, payload: &payload };
    assert_eq!(log.append(&[entry(8), entry(10)]), Err(AppendError::Gap { expected: 9, got: 10 }));
    let large = [Bytes::from(vec![0; 60_000])];
    let large = NewEntry { payload: &large, ..entry(8) };
    assert!(matches!(log.append(&[large]), Err(AppendError::TooLarge { .. })));
    let seal = NewEntry { kind: EntryKind::Seal, ..entry(9) };
    // The seal closes the segment, the one behind it takes entry 10, and there is no third.
    assert_eq!(
        log.append(&[entry(8), seal, NewEntry { kind: EntryKind::Seal, ..entry(10) }, entry(11)]),
        Err(AppendError::NoRoom)
    );
    assert_eq!(log.last(), Some(EntryId { term: 1, index: 7 }));
    assert_eq!(log.entries(8..9, 1), Err(ReadError::Missing { index: 8 }));
}

#[test]
fn a_snapshot_takes_the_place_of_a_log_that_disagrees() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    for index in 0..100 {
        append(&mut log, EntryKind::Normal, 1, index);
        run(&mut log);
    }
    let ticket = log.install(checkpoint(500, 3, true));
    assert_eq!(log.last(), Some(EntryId { term: 3, index: 500 }));
    let progress = run(&mut log);
    assert!(progress.iter().any(|progress| progress.tickets.contains(&ticket)));
    append(&mut log, EntryKind::Normal, 3, 501);
    run(&mut log);
    drop(log);
    let (log, recovered) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    assert_eq!(recovered.report, grus_log::Report::default());
    assert_eq!(recovered.checkpoints, [checkpoint(500, 3, true)]);
    assert_eq!((log.purged(), log.floor()), (log.floor(), Some(EntryId { term: 3, index: 500 })));
    check(&log, 501..502);
}

#[test]
fn a_second_open_is_refused_with_folder_and_process() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::open(&RealDisk, folder.path(), config()).unwrap();
    match Log::open(&RealDisk, folder.path(), config()) {
        Err(OpenError::Locked { folder: named, pid }) => {
            assert_eq!((named.as_path(), pid), (folder.path(), std::process::id()));
        }
        other => panic!("{other:?}"),
    }
    drop(log);
    Log::open(&RealDisk, folder.path(), config()).unwrap();
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    drop(Log::open(&RealDisk, folder.path(), config()).unwrap());
    std::fs::remove_file(folder.path().join("LOCK")).unwrap();
    std::fs::write(folder.path().join("FORMAT"), "2\n").unwrap();
    let before = contents(folder.path());
    let error = Log::open(&RealDisk, folder.path(), config()).unwrap_err();
    assert!(matches!(error, OpenError::NewerFormat { found: 2, supported: 1, .. }), "{error}");
    assert_eq!(contents(folder.path()), before);
}

fn contents(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn what_follows_an_installed_snapshot_is_not_durable_because_a_longer_log_once_was() {
    let disk = SimDisk::new(9);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    for index in 0..16 {
        append(&mut log, EntryKind::Normal, 5, index);
    }
    run(&mut log);
    assert_eq!(log.durable_index(), Some(15));
    log.install(checkpoint(8, 4, true));
    run(&mut log);
    assert_eq!((log.last(), log.durable_index()), (Some(EntryId { term: 4, index: 8 }), Some(8)));
    append(&mut log, EntryKind::Normal, 6, 9);
    assert_eq!(log.durable_index(), Some(8), "entry 9 is not synced yet");
    run(&mut log);
    assert_eq!(log.durable_index(), Some(9));
}

#[test]
fn an_idle_log_writes_nothing() {
    let disk = SimDisk::new(1);
    let (mut log, _) = Log::open(&disk, Path::new("/log"), config()).unwrap();
    append(&mut log, EntryKind::Normal, 1, 0);
    run(&mut log);
    let steps = disk.steps();
    for _ in 0..10 {
        log.request_sync();
        log.save_committed(Some(EntryId { term: 1, index: 0 }));
        assert!(log.next_job().is_none());
    }
    // The first note of what is committed is a store into the control page, nothing else.
    assert_eq!(disk.steps(), steps + 1);
}
