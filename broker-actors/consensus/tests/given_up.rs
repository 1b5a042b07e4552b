//! Damage that a group of one gets over: entries that the operator gives up, and a snapshot whose
//! checkpoint cannot be read.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use common::machine::{self, Placed, Queues, queue_key};
use common::{Rt, simulate};
use grus_consensus::{
    ChangeError, Fault, Group, GroupConfig, InlineJobs, NoPeers, StartError, Timings,
};
use grus_log::{Disk, EntryId, Log, LogConfig, OpenError, SimDisk};
use grus_protocol::ids::{Durability, Offset, ShardId, TimestampMs};

type One = Group<Queues, SimDisk, Rt>;

const FOLDER: &str = "shard";

fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 64 * 1024, first_segment_bytes: 64 * 1024, ..LogConfig::default() }
}

struct Started {
    group: One,
    log: Rc<RefCell<Log<SimDisk>>>,
    machine: Rc<RefCell<Queues>>,
    fault: Rc<RefCell<Option<Fault>>>,
}

async fn start(disk: &SimDisk, accept_loss: bool) -> Result<Started, StartError> {
    start_as(1, disk, accept_loss).await
}

async fn start_as(node: u64, disk: &SimDisk, accept_loss: bool) -> Result<Started, StartError> {
    start_with(node, disk, accept_loss, Timings::ALONE).await
}

async fn start_with(
    node: u64,
    disk: &SimDisk,
    accept_loss: bool,
    timings: Timings,
) -> Result<Started, StartError> {
    let fault: Rc<RefCell<Option<Fault>>> = Rc::default();
    let (clock, kept) = (Cell::new(0), Rc::clone(&fault));
    let tick = move || {
        clock.set(clock.get() + 1);
        TimestampMs(clock.get())
    };
    let keep = move |why: &Fault| *kept.borrow_mut() = Some(why.clone());
    let config =
        GroupConfig::single(ShardId(1), node, Durability::Persisted, Rc::new(tick), Rc::new(keep));
    let config = GroupConfig { timings, ..config };
    let log_config = LogConfig { accept_loss, ..log_config() };
    let (log, recovered) = Log::open(disk, Path::new(FOLDER), log_config)?;
    let log = Rc::new(RefCell::new(log));
    let machine = Rc::new(RefCell::new(Queues::default()));
    let (log_too, machine_too) = (Rc::clone(&log), Rc::clone(&machine));
    let group = Group::start(config, log_too, &recovered, machine_too, InlineJobs, NoPeers).await?;
    group.ready().await.unwrap();
    Ok(Started { group, log, machine, fault })
}

impl Started {
    /// Sends `count` messages; where each went, with its log index.
    async fn send(&self, ids: std::ops::Range<u64>) -> Vec<(u64, Placed)> {
        let mut placed = Vec::new();
        for id in ids {
            let reply = self.group.propose(&[machine::append(1, id, 1500)]).await.unwrap();
            placed.push((reply.index, reply.replies[0]));
            if self.log.borrow().should_seal() {
                self.group.propose_seal().await.unwrap();
            }
        }
        placed
    }

    async fn end(self) {
        assert_eq!(*self.fault.borrow(), None);
        self.group.stop().await;
    }

    fn read(&self, placed: Placed) -> Option<u32> {
        let log = self.log.borrow();
        let runs = log.runs(queue_key(placed.queue), Offset(placed.offset), 1);
        let run = runs.first().filter(|run| run.base == Offset(placed.offset))?;
        Some(crc32c::crc32c(&log.slice(run).unwrap()))
    }

    /// Seals and checkpoints go on, and agree with themselves at the next start.
    async fn goes_on(&self) {
        let before = self.log.borrow().newest_checkpoint();
        self.send(1_000..1_100).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(self.log.borrow().newest_checkpoint() > before);
        assert_eq!(*self.fault.borrow(), None);
    }
}

fn files(disk: &SimDisk, kind: &str) -> Vec<PathBuf> {
    let names = disk.files().into_iter().map(|(path, _)| path);
    names.filter(|path| path.to_string_lossy().contains(kind)).collect()
}

fn damage_both_copies(disk: &SimDisk, path: &Path) {
    let length = disk.content(path).len() as u64;
    disk.flip_bit(path, 8 * 70);
    disk.flip_bit(path, 8 * (length / 2 + 70));
}

/// A log of several segments, its seals, and the process dead.
async fn build(disk: &SimDisk) -> (Vec<(u64, Placed)>, Vec<u64>) {
    let one = start(disk, false).await.unwrap();
    let placed = one.send(0..200).await;
    let seals: Vec<u64> = one.log.borrow().checkpoints().map(|id| id.index).collect();
    assert!(seals.len() >= 4, "{seals:?}");
    one.group.stop().await;
    drop(one);
    disk.kill_process();
    (placed, seals)
}

/// Damages entry `victim` and takes every checkpoint away, so that all has to be applied again.
fn damage(disk: &SimDisk, victim: u64) {
    let (log, _) = Log::open(disk, Path::new(FOLDER), log_config()).unwrap();
    let path = log.segment_path(victim).unwrap();
    let at = log.entry_place(victim).unwrap();
    drop(log);
    disk.kill_process();
    for path in files(disk, "checkpoint-").into_iter().chain(files(disk, "footer-")) {
        disk.remove(&path).unwrap();
    }
    disk.flip_bit(&path, 8 * (at.end - 1));
}

/// What is lost is entry `victim`, and every checkpoint with it.
async fn gives_up(seed: u64, victim: impl Fn(&[(u64, Placed)], &[u64]) -> u64) {
    let disk = SimDisk::new(seed);
    let (placed, seals) = build(&disk).await;
    let victim = victim(&placed, &seals);
    damage(&disk, victim);

    let refused = start(&disk, false).await.err().unwrap();
    assert!(refused.to_string().contains(&victim.to_string()), "{refused}");
    disk.kill_process();
    let one = start(&disk, true).await.unwrap();
    let kept = placed.iter().filter(|(index, _)| *index != victim).count() as u64;
    assert_eq!(one.machine.borrow().next(1), kept, "victim {victim}: nothing else is lost");
    one.goes_on().await;
    one.end().await;
    // Also when a start begins from a checkpoint in the middle of what was there before.
    let kept = kept + 100;
    for round in 0..4 {
        disk.kill_process();
        let one = start(&disk, false).await.unwrap();
        assert_eq!(one.machine.borrow().next(1), kept + round * 100, "victim {victim}");
        one.goes_on().await;
        one.end().await;
        for path in files(&disk, "checkpoint-").iter().rev().take(3) {
            damage_both_copies(&disk, path);
        }
    }
}

#[test]
fn an_entry_before_a_seal_is_given_up() {
    simulate(1, gives_up(1, |placed, _| placed[3].0));
}

#[test]
fn a_seal_is_given_up() {
    simulate(2, gives_up(2, |_, seals| seals[0]));
    simulate(3, gives_up(3, |_, seals| seals[2]));
}

#[test]
fn the_first_entry_is_given_up_and_the_group_knows_its_founder() {
    simulate(4, gives_up(4, |_, _| 0));
}

/// A log that is trimmed to its third seal; the seals, and what was sent.
async fn trimmed(disk: &SimDisk) -> (Vec<(u64, Placed)>, Vec<EntryId>) {
    let one = start(disk, false).await.unwrap();
    let placed = one.send(0..400).await;
    let seals: Vec<EntryId> = one.log.borrow().checkpoints().collect();
    one.group.trim(seals[2].index).await.unwrap();
    one.send(400..410).await;
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(one.log.borrow().purged(), Some(seals[2]));
    assert_eq!(one.log.borrow().floor(), Some(seals[2]));
    one.end().await;
    disk.kill_process();
    (placed, seals)
}

#[test]
fn a_snapshot_that_cannot_be_read_is_stood_in_for_by_a_later_checkpoint() {
    simulate(5, async {
        let disk = SimDisk::new(5);
        let (placed, seals) = trimmed(&disk).await;
        let floor = Path::new(FOLDER).join(format!("checkpoint-{:016x}", seals[2].index));
        damage_both_copies(&disk, &floor);
        // Where the group knows somebody else, that member may need the very one that is lost.
        let refused = start_as(7, &disk, false).await.err().unwrap();
        assert!(matches!(refused, StartError::FloorLost { floor: at, .. } if at == seals[2].index));
        let text = refused.to_string();
        assert!(text.contains("checkpoint-") && text.contains("from a copy"), "{text}");
        disk.kill_process();
        for round in 0..3 {
            let one = start(&disk, false).await.unwrap();
            let now = one.log.borrow().floor().unwrap();
            assert!(now > seals[2] && seals.contains(&now), "{now}");
            assert_eq!(one.log.borrow().purged(), Some(seals[2]), "nothing more is dropped");
            for (index, placed) in &placed {
                if *index > seals[2].index {
                    assert_eq!(one.read(*placed), Some(placed.crc), "round {round}");
                }
            }
            assert_eq!(one.machine.borrow().next(1), 410);
            one.end().await;
            disk.kill_process();
        }
        // A trim below the snapshot that stands in takes no more than it says.
        let one = start(&disk, false).await.unwrap();
        let refused = one.group.add_learner(2, "nowhere").await;
        assert!(refused.is_err());
        let now = one.log.borrow().floor().unwrap();
        let between: Vec<_> = seals.iter().filter(|id| **id > seals[2] && **id < now).collect();
        let target = **between.first().expect("the snapshot moved by more than one seal");
        one.group.trim(target.index).await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(one.log.borrow().purged().map(|id| id.index), Some(target.index));
        assert_eq!(one.log.borrow().floor(), Some(now));
        one.goes_on().await;
        let newest = one.log.borrow().newest_checkpoint().unwrap();
        one.group.trim(newest.index).await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(one.log.borrow().purged(), one.log.borrow().floor());
        one.end().await;
        disk.kill_process();
        start(&disk, false).await.unwrap().end().await;
    });
}

#[test]
fn without_any_checkpoint_behind_what_is_purged_the_file_is_named_and_nothing_changed() {
    simulate(6, async {
        let disk = SimDisk::new(6);
        trimmed(&disk).await;
        for path in files(&disk, "checkpoint-") {
            damage_both_copies(&disk, &path);
        }
        let before: Vec<_> = disk.files();
        let refused = start(&disk, false).await.err().unwrap();
        let named = matches!(&refused, StartError::Open(OpenError::Damaged { path, .. })
            if path.to_string_lossy().contains("checkpoint-"));
        assert!(named && refused.to_string().contains("from a copy"), "{refused}");
        assert_eq!(disk.files(), before);
    });
}

#[test]
fn segment_files_taken_away_are_refused_until_given_up_and_the_group_goes_on() {
    simulate(7, async {
        for kept in [0, 1, 3] {
            let disk = SimDisk::new(7 + kept as u64);
            let (placed, _) = build(&disk).await;
            for kind in ["checkpoint-", "footer-"] {
                for path in files(&disk, kind) {
                    disk.remove(&path).unwrap();
                }
            }
            let (log, _) = Log::open(&disk, Path::new(FOLDER), log_config()).unwrap();
            let path_of = |(index, _): &(u64, Placed)| log.segment_path(*index).unwrap();
            let paths: Vec<PathBuf> = placed.iter().map(path_of).collect();
            drop(log);
            disk.kill_process();
            let mut all = paths.clone();
            all.dedup();
            let gone = &all[kept..];
            for path in gone {
                disk.remove(path).unwrap();
            }
            let refused = start(&disk, false).await.err().unwrap();
            assert!(matches!(refused, StartError::Fault(Fault::Entry { .. })), "{refused}");
            disk.kill_process();
            let one = start(&disk, true).await.unwrap();
            let there = paths.iter().filter(|path| !gone.contains(path)).count() as u64;
            assert_eq!(one.machine.borrow().next(1), there, "{kept} files are left");
            one.goes_on().await;
            one.end().await;
            disk.kill_process();
            let one = start(&disk, false).await.unwrap();
            assert_eq!(one.machine.borrow().next(1), there + 100, "{kept} files are left");
            one.end().await;
        }
    });
}

/// What a group of one answers that is to take another one in.
async fn refusal(started: &Started) -> Option<ChangeError> {
    started.group.add_learner(2, "nowhere").await.err()
}

#[test]
fn a_log_that_is_not_checked_or_is_damaged_or_was_given_up_is_given_to_nobody() {
    simulate(8, async {
        let disk = SimDisk::new(8);
        let (placed, _) = build(&disk).await;
        let victim = placed[3].0;
        let one = start_with(1, &disk, false, Timings::default()).await.unwrap();
        let why = refusal(&one).await.expect("nothing is known of it as yet").to_string();
        assert!(why.contains("still being checked"), "{why}");
        let (path, at) = {
            let log = one.log.borrow();
            (log.segment_path(victim).unwrap(), log.entry_place(victim).unwrap())
        };
        one.end().await;
        disk.kill_process();

        disk.flip_bit(&path, 8 * (at.end - 1));
        let one = start_with(1, &disk, false, Timings::default()).await.unwrap();
        check_all(&one);
        let why = refusal(&one).await.expect("a learner could not read it");
        let expected = matches!(&why, ChangeError::Damaged { asked: 0, .. });
        assert!(expected && why.to_string().contains("an entry of the log is damaged"), "{why}");
        let wanted = [1, 2].into();
        let why = one.group.approach(&wanted).await.unwrap_err();
        assert!(matches!(why, ChangeError::Damaged { asked: 0, unchecked: 0, .. }), "{why}");
        assert_eq!(*one.fault.borrow(), None, "nothing has read it");
        // Once retention has removed it the rest can be given.
        let seals: Vec<u64> = one.log.borrow().checkpoints().map(|id| id.index).collect();
        let behind = seals.into_iter().find(|seal| *seal > victim).unwrap();
        one.group.trim(behind).await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(one.log.borrow().purged().is_some_and(|purged| purged.index >= victim));
        assert_eq!(refusal(&one).await, None);
        one.end().await;
    });
}

#[test]
fn what_was_given_up_is_given_to_nobody() {
    simulate(9, async {
        let disk = SimDisk::new(9);
        let (placed, _) = build(&disk).await;
        damage(&disk, placed[3].0);
        let one = start_with(1, &disk, true, Timings::default()).await.unwrap();
        check_all(&one);
        let why = refusal(&one).await.expect("a learner would lack it");
        assert!(matches!(why, ChangeError::Damaged { .. }), "{why}");
        one.group.stop().await;
    });
}

/// Reads the whole log, as a shard does in the background.
fn check_all(started: &Started) {
    let mut log = started.log.borrow_mut();
    while let Some(scrub) = log.next_scrub(u32::MAX) {
        log.complete_scrub(scrub.run());
    }
}
