//! Files taken away, or cut short, by hand: what was acknowledged in them never silently vanishes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use grus_log::{
    Disk, EntryId, EntryKind, Log, LogConfig, NewEntry, OpenError, ReadError, Recovered, SimDisk,
};

use crate::flips::{Built, build, check, config};
use crate::harness::FOLDER;
use crate::model::{checkpoint, payload};

fn segments(built: &Built) -> Vec<PathBuf> {
    let files: BTreeSet<_> = built.places.iter().map(|(_, path, _)| path.clone()).collect();
    files.into_iter().collect()
}

fn entries_in(built: &Built, path: &Path, from_byte: u64) -> Vec<u64> {
    let hit = built.places.iter().filter(|(_, file, bytes)| file == path && bytes.end > from_byte);
    hit.map(|(index, ..)| *index).collect()
}

fn open(disk: &SimDisk, accept_loss: bool) -> (Log<SimDisk>, Recovered) {
    Log::open(disk, Path::new(FOLDER), LogConfig { accept_loss, ..config() }).unwrap()
}

fn work(log: &mut Log<SimDisk>) {
    while let Some(job) = log.next_job() {
        log.complete(job.run()).unwrap();
    }
}

fn append(log: &mut Log<SimDisk>, kind: EntryKind, term: u64) -> EntryId {
    let id = EntryId { term, index: log.last().map_or(0, |last| last.index + 1) };
    let payload = [payload(id)];
    log.append(&[NewEntry { kind, term, index: id.index, payload: &payload }]).unwrap();
    id
}

#[test]
fn a_segment_file_taken_away_is_named_and_costs_no_entry_of_another() {
    for seed in 0..4 {
        let built = Built { keeps_terms: false, ..build(seed) };
        for path in segments(&built) {
            let disk = built.disk.fork();
            disk.remove(&path).unwrap();
            let hit = entries_in(&built, &path, 0);
            check(&built, &disk, &hit, &format!("seed {seed}, without {}", path.display()));
        }
    }
}

#[test]
fn a_segment_file_cut_short_is_named_and_costs_what_was_cut() {
    for seed in 0..3 {
        let built = Built { keeps_terms: false, ..build(seed) };
        for path in segments(&built) {
            let places = built.places.iter().filter(|(_, file, _)| *file == path);
            let middle = places.map(|(.., bytes)| bytes.end - 1).max().unwrap();
            for length in [0, 600, 4096, middle] {
                let disk = built.disk.fork();
                disk.shorten(&path, length as usize);
                let hit = entries_in(&built, &path, length);
                let what = format!("seed {seed}, {} cut to {length}", path.display());
                check(&built, &disk, &hit, &what);
            }
        }
    }
}

#[test]
fn the_last_segments_taken_away_are_refused_until_given_up_and_nothing_is_written_over_them() {
    let built = build(2);
    let all = segments(&built);
    let last = built.model.last().unwrap();
    for count in 1..=all.len() {
        let disk = built.disk.fork();
        for path in &all[all.len() - count..] {
            disk.remove(path).unwrap();
        }
        let newest = built.model.checkpoint_durable;
        let gone: Vec<u64> =
            all[all.len() - count..].iter().flat_map(|path| entries_in(&built, path, 0)).collect();
        let to_apply = gone.iter().copied().filter(|index| Some(*index) > newest).min();
        assert!(to_apply.is_some(), "the last segment is behind the newest checkpoint");
        for _ in 0..2 {
            let (log, recovered) = open(&disk, false);
            assert_eq!(recovered.damaged_to_apply(), to_apply, "{count} files");
            assert_eq!(log.last(), Some(last), "{count} files");
            let text = recovered.report.damage.iter().map(ToString::to_string).collect::<String>();
            assert!(text.contains("is missing"), "{text}");
            assert!(!log.accepts_loss_of(gone[0]));
        }
        let (mut log, _) = open(&disk, true);
        for index in &gone {
            let entry = log.entry(*index).unwrap();
            assert_eq!((entry.kind, entry.payload.len()), (EntryKind::Lost, 0), "entry {index}");
        }
        let next = append(&mut log, EntryKind::Normal, last.term + 1);
        assert_eq!(next.index, last.index + 1, "an index is given once");
        work(&mut log);
        drop(log);
        disk.cut();
        disk.power_on();
        let (log, recovered) = open(&disk, false);
        assert_eq!(log.last(), Some(next));
        for (index, (term, kind)) in &built.model.live {
            let entry = log.entry(*index).unwrap();
            let id = EntryId { term: *term, index: *index };
            if gone.contains(index) {
                assert_eq!(entry.kind, EntryKind::Lost, "given up once and for all");
            } else {
                assert_eq!((entry.kind, entry.payload), (*kind, payload(id)));
            }
        }
        assert_eq!(recovered.checkpoints.last().map(|data| data.index), newest);
    }
}

#[test]
fn damage_found_later_is_not_given_up_by_the_flag() {
    let built = build(1);
    let disk = built.disk.fork();
    let newest = built.model.checkpoint_durable.unwrap();
    let (index, path, place) = built.places.iter().find(|(index, ..)| *index < newest).unwrap();
    let (last, last_path, last_place) = built.places.last().unwrap();
    disk.flip_bit(last_path, 8 * (last_place.end - 1));
    // In a segment with a footer, which a start does not read.
    disk.flip_bit(path, 8 * (place.end - 1));
    let (log, _) = open(&disk, true);
    assert_eq!(log.entry(*last).unwrap().kind, EntryKind::Lost, "named at the start");
    assert_eq!(log.entry(*index), Err(ReadError::Corrupt { index: *index }), "nobody was asked");
}

#[test]
fn the_control_page_taken_away_is_refused_by_name() {
    let built = build(1);
    let disk = built.disk.fork();
    disk.remove(&Path::new(FOLDER).join("control")).unwrap();
    let refused = Log::open(&disk, Path::new(FOLDER), config()).unwrap_err();
    assert!(matches!(&refused, OpenError::Damaged { path, .. } if path.ends_with("control")));
    let (log, recovered) = open(&disk, true);
    assert_eq!(log.last(), built.model.last());
    assert!(recovered.report.notes[0].contains("control"), "{:?}", recovered.report.notes);
}

/// The durable mark may point into a segment that a truncation took, and the control page may come
/// back from a cut as it was before: that is no loss.
#[test]
fn a_truncation_of_everything_is_not_taken_for_files_taken_away() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let (mut log, _) = open(&disk, false);
        if seed % 2 == 0 {
            log.install(checkpoint(EntryId { term: 1, index: 9 }, true));
            work(&mut log);
        }
        let start = log.last();
        for _ in 0..60 {
            append(&mut log, EntryKind::Normal, 1);
            work(&mut log);
        }
        assert!(log.stats().segments >= 2);
        log.truncate_after(start.map(|id| id.index));
        work(&mut log);
        drop(log);
        // The first start takes the files away, the second one does not find them.
        for _ in 0..2 {
            disk.cut();
            disk.power_on();
            let (log, recovered) = open(&disk, false);
            assert_eq!((log.last(), recovered.report.damage), (start, vec![]), "seed {seed}");
        }
        disk.kill_process();
        let (mut log, _) = open(&disk, false);
        let next = append(&mut log, EntryKind::Normal, 2);
        work(&mut log);
        drop(log);
        disk.cut();
        disk.power_on();
        let (log, recovered) = open(&disk, false);
        assert_eq!((log.last(), recovered.report.damage), (Some(next), vec![]), "seed {seed}");
    }
}

/// A young log: nothing is purged, and no segment has a footer.
#[test]
fn the_first_segments_of_a_young_log_taken_away_are_refused_until_given_up() {
    for gone in [&[1][..], &[1, 2], &[1, 2, 3], &[2], &[3]] {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk, false);
        let mut in_gone = Vec::new();
        while log.stats().segments < 3 || in_gone.is_empty() {
            let id = append(&mut log, EntryKind::Normal, 1);
            let path = log.segment_path(id.index).unwrap();
            let is_gone = |number: &u64| path.ends_with(format!("segment-{number:016x}"));
            in_gone.extend(gone.iter().any(is_gone).then_some(id.index));
            work(&mut log);
        }
        let last = log.last().unwrap();
        drop(log);
        disk.kill_process();
        for number in gone {
            disk.remove(&Path::new(FOLDER).join(format!("segment-{number:016x}"))).unwrap();
        }
        for _ in 0..2 {
            let (log, recovered) = open(&disk, false);
            assert_eq!(recovered.damaged_to_apply(), Some(in_gone[0]), "{gone:?}");
            assert_eq!((log.first_index(), log.last()), (Some(0), Some(last)), "{gone:?}");
        }
        let (mut log, _) = open(&disk, true);
        let next = append(&mut log, EntryKind::Normal, 2);
        work(&mut log);
        drop(log);
        for cut in [true, false] {
            if cut {
                disk.cut();
                disk.power_on();
            } else {
                disk.kill_process();
            }
            let (log, _) = open(&disk, false);
            assert_eq!((log.first_index(), log.last()), (Some(0), Some(next)), "{gone:?}");
            for index in 0..next.index {
                let entry = log.entry(index).unwrap();
                let lost = entry.kind == EntryKind::Lost;
                assert_eq!(lost, in_gone.contains(&index), "{gone:?}: entry {index}");
            }
        }
    }
}
