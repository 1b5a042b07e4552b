//! Bits that turn over and sectors that go bad: found, named, and nothing else lost.

use std::ops::Range;
use std::path::{Path, PathBuf};

use grus_log::{
    DamagedRange, EntryId, EntryKind, Log, LogConfig, ReadError, Recovered, Seeded, SimDisk,
};

use crate::harness::{FOLDER, Harness};
use crate::model::{Model, checkpoint, payload, run};

const HEADER_BYTES: u64 = 64;

/// A log of several segments, some with footers, all of it on the disk, and its process dead.
pub struct Built {
    pub disk: SimDisk,
    pub model: Model,
    /// Where each entry stands: file, header to end of payload.
    pub places: Vec<(u64, PathBuf, Range<u64>)>,
    /// Whether the damage that is done leaves each entry its term.
    pub keeps_terms: bool,
}

pub fn build(seed: u64) -> Built {
    // A multiple of four: of the class that syncs before it acknowledges.
    let mut harness = Harness::new(seed * 4, None);
    let segments = |harness: &Harness| harness.log.as_ref().unwrap().stats().segments;
    while harness.seals < 6 || harness.model.live.len() < 60 || segments(&harness) < 5 {
        assert!(harness.step().unwrap(), "nothing cuts the power here");
    }
    harness.settle();
    let mut log = harness.log.take().unwrap();
    while let Some(job) = log.next_job() {
        log.complete(job.run()).unwrap();
    }
    let mut places = Vec::new();
    for index in harness.model.live.keys() {
        let path = log.segment_path(*index).unwrap();
        let bytes = log.entry_place(*index).unwrap();
        places.push((*index, path, bytes));
    }
    drop(log);
    harness.disk.kill_process();
    Built { disk: harness.disk.clone(), model: harness.model, places, keeps_terms: true }
}

pub fn config() -> LogConfig {
    LogConfig { segment_bytes: 64 * 1024, first_segment_bytes: 64 * 1024, ..LogConfig::default() }
}

/// Opens, and checks all that a start does not read.
fn open_and_scrub(disk: &SimDisk) -> (Log<SimDisk>, Recovered, Vec<DamagedRange>) {
    let (mut log, recovered) = Log::open(disk, Path::new(FOLDER), config()).unwrap();
    let mut damage = recovered.report.damage.clone();
    while let Some(scrub) = log.next_scrub(20_000) {
        damage.extend(log.complete_scrub(scrub.run()));
    }
    (log, recovered, damage)
}

/// Everything but the entries `hit` is as it was; those are named, and keep their identity.
pub fn check(built: &Built, disk: &SimDisk, hit: &[u64], what: &str) {
    let (log, recovered, damage) = open_and_scrub(disk);
    let model = &built.model;
    assert_eq!(log.last(), model.last(), "{what}: {:?}", recovered.report);
    assert_eq!(log.vote(), model.vote_written.to_le_bytes(), "{what}");
    assert_eq!(log.purged(), model.purged_written, "{what}");
    for (index, (term, kind)) in &model.live {
        let id = EntryId { term: *term, index: *index };
        if built.keeps_terms || !hit.contains(index) {
            assert_eq!(log.term_of(*index), Some(*term), "{what}: entry {index}");
        }
        if hit.contains(index) {
            assert_eq!(log.entry(*index), Err(ReadError::Corrupt { index: *index }), "{what}");
            let name = log.segment_path(*index).unwrap();
            let named = damage.iter().any(|range| {
                (range.first_index..=range.last_index).contains(index)
                    && name.ends_with(format!("segment-{:016x}", range.sequence))
            });
            assert!(named, "{what}: entry {index} is not named in {damage:?}");
        } else {
            let entry = log.entry(*index).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((entry.kind, entry.payload), (*kind, payload(id)), "{what}: entry {index}");
        }
    }
    let named = damage.iter().flat_map(|range| range.first_index..=range.last_index);
    for index in named {
        assert!(hit.contains(&index), "{what}: entry {index} was named for nothing: {damage:?}");
    }
    let newest = recovered.checkpoints.last().map(|data| data.index);
    assert_eq!(newest, model.checkpoint_durable, "{what}: {:?}", recovered.report);
    for data in &recovered.checkpoints {
        assert_eq!(*data, checkpoint(data.id(), data.full), "{what}");
    }
    for (index, (term, _)) in model.live.range(..=newest.unwrap_or(0)) {
        let expected = run(EntryId { term: *term, index: *index });
        let found = log.runs(expected.queue, expected.base, 1);
        assert_eq!(found.first(), Some(&expected), "{what}: run of entry {index}");
    }
    let to_apply = hit.iter().copied().filter(|index| Some(*index) > newest).min();
    assert_eq!(recovered.damaged_to_apply(), to_apply, "{what}");
}

fn hits(built: &Built, path: &Path, bytes: &Range<u64>) -> Vec<u64> {
    let hit = |(_, file, place): &&(u64, PathBuf, Range<u64>)| {
        file == path && place.start < bytes.end && bytes.start < place.end
    };
    built.places.iter().filter(hit).map(|(index, ..)| *index).collect()
}

#[test]
fn one_flipped_bit_is_found_and_named_and_costs_one_entry_at_most() {
    let (mut in_entries, mut elsewhere) = (0, 0);
    for seed in 0..4 {
        let built = build(seed);
        let segments: Vec<_> = built.places.iter().map(|(_, path, _)| path).collect();
        let segments = segments.iter().collect::<std::collections::BTreeSet<_>>().len();
        assert!(segments >= 4, "seed {seed}: {segments} segments");
        let mut random = Seeded::new(seed);
        for round in 0..50 {
            let files = built.disk.files();
            // Half of the flips in entries, the others in any file.
            let (path, bit) = if round % 2 == 0 {
                let (_, path, place) =
                    &built.places[random.below(built.places.len() as u64) as usize];
                (path.clone(), 8 * place.start + random.below(8 * (place.end - place.start)))
            } else {
                let (path, length) = files[random.below(files.len() as u64) as usize].clone();
                (path, random.below(8 * length))
            };
            let disk = built.disk.fork();
            disk.flip_bit(&path, bit);
            let hit = hits(&built, &path, &(bit / 8..bit / 8 + 1));
            if hit.is_empty() {
                elsewhere += 1;
            } else {
                in_entries += 1;
            }
            check(&built, &disk, &hit, &format!("seed {seed}, bit {bit} of {}", path.display()));
        }
    }
    println!("{in_entries} flips in entries, {elsewhere} elsewhere");
    assert!(in_entries >= 100 && elsewhere >= 50);
}

#[test]
fn a_damaged_vote_or_note_or_checkpoint_copy_is_named() {
    let built = build(1);
    for (path, length) in built.disk.files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let is_double =
            ["vote", "notes", "footer", "checkpoint"].iter().any(|kind| name.starts_with(kind));
        if !is_double {
            continue;
        }
        let disk = built.disk.fork();
        disk.flip_bit(&path, 8 * (length / 2) + 77);
        let (_, recovered, _) = open_and_scrub(&disk);
        // Files that a purge has made useless are not read.
        let is_read = recovered.report.notes.iter().any(|note| note.contains(&name));
        assert!(is_read, "{name} is not named in {:?}", recovered.report.notes);
    }
}

#[test]
fn a_bad_sector_costs_the_entries_in_it_and_no_other() {
    for seed in 0..3 {
        let built = build(seed);
        let mut random = Seeded::new(seed);
        for round in 0..25 {
            let (_, path, place) = &built.places[random.below(built.places.len() as u64) as usize];
            let sector = (place.start + random.below(place.end - place.start)) / 512 * 512;
            let bytes: Vec<u8> = match round % 3 {
                0 => vec![0; 512],
                1 => vec![0xff; 512],
                _ => (0..512).map(|_| random.draw() as u8).collect(),
            };
            let disk = built.disk.fork();
            disk.overwrite(path, sector, &bytes);
            let hit = hits(&built, path, &(sector..sector + 512));
            check(
                &built,
                &disk,
                &hit,
                &format!("seed {seed}, sector {sector} of {}", path.display()),
            );
        }
    }
}

#[test]
fn a_flip_far_from_the_end_is_damage_after_a_power_cut_too() {
    let built = build(2);
    let mut random = Seeded::new(2);
    for _ in 0..40 {
        let disk = built.disk.fork();
        disk.cut();
        disk.power_on();
        // The marks in later entries vouch for all but the last that were synced together.
        let known = built.places.len() as u64 - 25;
        let (index, path, place) = &built.places[random.below(known) as usize];
        let bit = 8 * place.start + random.below(8 * (place.end - place.start));
        disk.flip_bit(path, bit);
        check(&built, &disk, &[*index], &format!("bit {bit} of {}", path.display()));
    }
}

#[test]
fn a_loss_is_accepted_by_the_operator_once_and_for_all() {
    let built = build(3);
    let (index, path, place) = built.places.last().unwrap();
    let disk = built.disk.fork();
    disk.flip_bit(path, 8 * (place.start + HEADER_BYTES - 1));
    let open = |accept_loss| {
        let config = LogConfig { accept_loss, ..config() };
        Log::open(&disk, Path::new(FOLDER), config).unwrap()
    };
    let (log, recovered) = open(false);
    assert_eq!(recovered.damaged_to_apply(), Some(*index));
    assert_eq!(log.entry(*index), Err(ReadError::Corrupt { index: *index }));
    drop(log);
    let (log, _) = open(true);
    let lost = log.entry(*index).unwrap();
    assert_eq!((lost.kind, lost.payload.len()), (EntryKind::Lost, 0));
    assert_eq!(Some(lost.id()), built.model.last());
    drop(log);
    let (log, _) = open(false);
    assert_eq!(log.entry(*index).unwrap().kind, EntryKind::Lost, "the flag is not needed again");
}

#[test]
fn any_garbage_opens_or_is_refused_and_never_panics() {
    let built = build(1);
    let mut random = Seeded::new(9);
    for _ in 0..60 {
        let disk = built.disk.fork();
        for _ in 0..=random.below(4) {
            let files = disk.files();
            let (path, length) = files[random.below(files.len() as u64) as usize].clone();
            let at = random.below(length);
            let bytes =
                (0..(1 + random.below(3_000)).min(length - at)).map(|_| random.draw() as u8);
            disk.overwrite(&path, at, &bytes.collect::<Vec<u8>>());
        }
        let Ok((log, _)) = Log::open(&disk, Path::new(FOLDER), config()) else { continue };
        let Some(first) = log.first_index() else { continue };
        for index in first..=log.last().unwrap().index {
            // Whatever reads as an entry is one.
            if let Ok(entry) = log.entry(index) {
                assert_eq!(entry.payload, payload(entry.id()), "entry {index}");
            }
        }
    }
}
