//! A group of one on a disk that loses what was not synced: every acknowledged entry is there
//! after every crash, and what must stop a replica stops it.

#![allow(clippy::unwrap_used)]

mod common;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use common::machine::{self, NEWER, PANIC, Placed, Queues, queue_key};
use common::{Rt, for_seeds, simulate};
use grus_consensus::{
    Fault, Group, GroupConfig, InlineJobs, JobPort, NewItem, NoPeers, ProposeError, Timings,
};
use grus_log::Seeded;
use grus_log::{Disk, Job, JobDone, Log, LogConfig, SimDisk};
use grus_protocol::ids::{Durability, Offset, ShardId, TimestampMs};

type One = Group<Queues, SimDisk, Rt>;

fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 64 * 1024, first_segment_bytes: 64 * 1024, ..LogConfig::default() }
}

struct Started {
    group: One,
    log: Rc<RefCell<Log<SimDisk>>>,
    machine: Rc<RefCell<Queues>>,
    fault: Rc<RefCell<Option<Fault>>>,
}

fn config(fault: &Rc<RefCell<Option<Fault>>>, clock: &Rc<Cell<u64>>) -> GroupConfig {
    let (fault, clock) = (Rc::clone(fault), Rc::clone(clock));
    let tick = move || {
        clock.set(clock.get() + 1);
        TimestampMs(clock.get())
    };
    let keep = move |why: &Fault| *fault.borrow_mut() = Some(why.clone());
    let shard = ShardId(1);
    GroupConfig::single(shard, 1, Durability::Persisted, Rc::new(tick), Rc::new(keep))
}

async fn start_with(disk: &SimDisk, jobs: impl JobPort<SimDisk>, level_max: u16) -> Started {
    let fault = Rc::default();
    let (log, recovered) = Log::open(disk, Path::new("shard"), log_config()).unwrap();
    let log = Rc::new(RefCell::new(log));
    let machine = Rc::new(RefCell::new(Queues::default()));
    let mut config = config(&fault, &Rc::default());
    config.feature_level_max = level_max;
    let (log_too, machine_too) = (Rc::clone(&log), Rc::clone(&machine));
    let group = Group::start(config, log_too, &recovered, machine_too, jobs, NoPeers);
    let group = group.await.unwrap();
    Started { group, log, machine, fault }
}

async fn start(disk: &SimDisk) -> Started {
    let started = start_with(disk, InlineJobs, 0).await;
    started.group.ready().await.unwrap();
    started
}

/// Reads a message where its receipt says it is.
fn read(started: &Started, placed: Placed) -> Option<u32> {
    let log = started.log.borrow();
    let runs = log.runs(queue_key(placed.queue), Offset(placed.offset), 1);
    let run = runs.first().filter(|run| run.base == Offset(placed.offset))?;
    Some(crc32c::crc32c(&log.slice(run).unwrap()))
}

#[test]
fn an_entry_is_acknowledged_with_its_answers_in_order() {
    simulate(1, async {
        let one = start(&SimDisk::new(1)).await;
        let first = one.group.propose(&[machine::append(1, 0, 10), machine::append(2, 1, 10)]);
        let second = one.group.propose(&[machine::append(1, 2, 10)]);
        let second = second.await.unwrap();
        let first = first.await.unwrap();
        assert_eq!((first.replies.len(), second.replies.len()), (2, 1));
        assert_eq!(second.index, first.index + 1, "order is that of the calls");
        assert_eq!((first.replies[0].offset, second.replies[0].offset), (0, 1));
        assert!(second.time > first.time);
        assert_eq!(read(&one, second.replies[0]), Some(second.replies[0].crc));
        let empty = one.group.propose(&[]).await.unwrap();
        assert!(empty.replies.is_empty());
    });
}

/// Sends messages until the power goes, `cut` disk steps after the start; gives the receipts.
async fn send_until_cut(
    disk: &SimDisk,
    cut: u64,
    next_id: &mut u64,
    rng: &mut Seeded,
) -> Vec<Placed> {
    let mut receipts = Vec::new();
    let fault = Rc::default();
    let Ok((log, recovered)) = Log::open(disk, Path::new("shard"), log_config()) else {
        return receipts;
    };
    let log = Rc::new(RefCell::new(log));
    let config = config(&fault, &Rc::default());
    disk.cut_at_step(disk.steps() + cut);
    let group: Result<One, _> =
        Group::start(config, log, &recovered, Rc::default(), InlineJobs, NoPeers).await;
    let Ok(group) = group else { return receipts };
    if group.ready().await.is_err() {
        return receipts;
    }
    for _ in 0..4000 {
        let bytes = usize::try_from(rng.below(3000)).unwrap();
        let item = machine::append(u32::try_from(rng.below(3)).unwrap(), *next_id, bytes);
        *next_id += 1;
        match group.propose(&[item]).await {
            Ok(reply) if !disk.is_off() => receipts.extend(reply.replies),
            Err(ProposeError::Full) => tokio::task::yield_now().await,
            _ => break,
        }
        if rng.below(60) == 0 {
            let applied = group.status().applied.unwrap();
            let trimmed = group.trim(applied.saturating_sub(rng.below(200))).await;
            assert!(trimmed.is_ok() || disk.is_off(), "{trimmed:?}");
        }
    }
    receipts
}

#[test]
fn what_was_acknowledged_survives_every_power_cut() {
    for_seeds("what_was_acknowledged_survives_every_power_cut", 2, |seed| {
        let disk = SimDisk::new(seed);
        let mut rng = Seeded::new(seed);
        let mut receipts: Vec<Placed> = Vec::new();
        let mut next_id = 0;
        for round in 0..14 {
            let cut = 1 + rng.below(1500);
            let new =
                simulate(seed ^ (round << 32), send_until_cut(&disk, cut, &mut next_id, &mut rng));
            receipts.extend(new);
            // Twice: recovery itself must lose nothing either.
            for _ in 0..2 {
                disk.power_on();
                simulate(seed, async {
                    let one = start(&disk).await;
                    let purged = one.group.status().purged;
                    for placed in &receipts {
                        let next = one.machine.borrow().next(placed.queue);
                        assert!(placed.offset < next, "round {round}: lost {placed:?}");
                        if let Some(crc) = read(&one, *placed) {
                            assert_eq!(crc, placed.crc, "round {round}: {placed:?}");
                        } else {
                            assert!(purged.is_some(), "round {round}: unreadable {placed:?}");
                        }
                    }
                    one.group.stop().await;
                });
            }
            disk.power_on();
        }
        assert!(receipts.len() > 200, "too little happened: {}", receipts.len());
    });
}

#[test]
fn a_restart_goes_on_from_the_newest_checkpoint_and_offsets_go_on() {
    simulate(3, async {
        let disk = SimDisk::new(3);
        let one = start(&disk).await;
        let mut last = None;
        for id in 0..200 {
            let reply = one.group.propose(&[machine::append(1, id, 1500)]).await.unwrap();
            last = reply.replies.first().copied();
        }
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let checkpoint = one.log.borrow().newest_checkpoint().expect("segments have ended");
        assert_eq!(one.machine.borrow().applied.len(), 200);
        one.group.stop().await;
        drop(one);
        disk.kill_process();
        let two = start(&disk).await;
        let replayed = two.machine.borrow().applied.clone();
        assert!(replayed.iter().all(|(index, _)| *index > checkpoint.index), "{replayed:?}");
        assert!(!replayed.is_empty() && replayed.len() < 100);
        let reply = two.group.propose(&[machine::append(1, 200, 10)]).await.unwrap();
        assert_eq!(reply.replies[0].offset, last.unwrap().offset + 1);
        assert!(reply.time > TimestampMs(200), "entry time went back to {}", reply.time);
    });
}

#[test]
fn an_item_of_a_newer_build_stops_the_replica_and_is_named() {
    simulate(4, async {
        let one = start(&SimDisk::new(4)).await;
        let refused = one.group.propose(&[NewItem::new(NEWER, Bytes::new())]).await;
        let want = Fault::UnknownItem { index: 2, kind: NEWER, level: 0 };
        assert_eq!(refused, Err(ProposeError::Fatal(want.clone())));
        assert_eq!(*one.fault.borrow(), Some(want));
        assert!(one.group.ready().await.is_err(), "a replica that stopped is not ready");
    });
}

#[test]
fn a_feature_level_opens_new_kinds_and_one_too_high_stops() {
    simulate(5, async {
        let one = start_with(&SimDisk::new(5), InlineJobs, 1).await;
        one.group.ready().await.unwrap();
        one.group.raise_feature_level(1).await.unwrap();
        assert_eq!(one.group.feature_level(), 1);
        let item = NewItem { kind: NEWER, ..machine::append(1, 0, 4) };
        one.group.propose(&[item]).await.unwrap();
        let refused = one.group.raise_feature_level(2).await;
        let want = Fault::FeatureLevel { index: 4, level: 2, level_max: 1 };
        assert_eq!(refused, Err(ProposeError::Fatal(want)));
    });
}

#[test]
fn two_seals_under_way_at_once_stop_nobody() {
    simulate(13, async {
        let disk = SimDisk::new(13);
        let one = start(&disk).await;
        one.group.propose_seal().await.unwrap();
        // Both carry the digest of the first seal; when the second is applied, that is not the last.
        let (second, third) = (one.group.propose_seal(), one.group.propose_seal());
        second.await.unwrap();
        third.await.unwrap();
        one.group.propose(&[machine::append(1, 0, 10)]).await.unwrap();
        assert_eq!(*one.fault.borrow(), None);
    });
}

#[test]
fn a_panic_while_applying_names_its_entry() {
    simulate(6, async {
        let one = start(&SimDisk::new(6)).await;
        let refused = one.group.propose(&[NewItem::new(PANIC, Bytes::new())]).await;
        let reason = "told to panic".to_owned();
        assert_eq!(refused, Err(ProposeError::Fatal(Fault::Panicked { index: 2, reason })));
    });
}

#[test]
fn a_failed_sync_stops_the_replica_before_anything_is_acknowledged() {
    simulate(7, async {
        let disk = SimDisk::new(7);
        let one = start(&disk).await;
        disk.fail_sync_in(1);
        let refused = one.group.propose(&[machine::append(1, 0, 10)]).await;
        assert!(matches!(refused, Err(ProposeError::Fatal(Fault::Log(_)))), "{refused:?}");
        assert!(matches!(*one.fault.borrow(), Some(Fault::Log(_))));
        let after = one.group.propose(&[machine::append(1, 1, 10)]).await;
        assert!(matches!(after, Err(ProposeError::Fatal(Fault::Log(_)))), "{after:?}");
    });
}

#[test]
fn a_full_disk_refuses_and_heals() {
    simulate(8, async {
        let disk = SimDisk::new(8);
        let one = start(&disk).await;
        disk.set_capacity_bytes(disk.used_bytes() + 100 * 1024);
        let mut sent = 0;
        let refused = loop {
            match one.group.propose(&[machine::append(1, sent, 8000)]).await {
                Ok(_) => sent += 1,
                Err(refused) => break refused,
            }
            assert!(sent < 1000, "a disk of 100 KiB holds everything");
        };
        assert_eq!(refused, ProposeError::Full);
        assert!(read(&one, Placed { queue: 1, offset: 0, crc: 0 }).is_some());
        disk.set_capacity_bytes(u64::MAX);
        let mut healed = false;
        for _ in 0..100 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            healed |= one.group.propose(&[machine::append(1, sent, 8000)]).await.is_ok();
        }
        assert!(healed, "space came back and nothing is taken");
    });
}

#[test]
fn an_entry_larger_than_the_limit_is_refused_with_the_limit() {
    simulate(9, async {
        let one = start(&SimDisk::new(9)).await;
        let refused = one.group.propose(&[machine::append(1, 0, 1 << 20)]).await;
        let limit = one.log.borrow().entry_bytes_max() as u64;
        let named =
            matches!(refused, Err(ProposeError::TooLarge { bytes_max, .. }) if bytes_max == limit);
        assert!(named, "{refused:?}");
        one.group.propose(&[machine::append(1, 0, 10)]).await.unwrap();
    });
}

/// Keeps every job, so that nothing ever becomes durable.
struct Never;

impl JobPort<SimDisk> for Never {
    fn submit(&self, _: Job<SimDisk>) -> Option<JobDone<SimDisk>> {
        None
    }
}

#[test]
fn nothing_is_acknowledged_while_no_job_is_done() {
    simulate(10, async {
        let one = start_with(&SimDisk::new(10), Never, 0).await;
        let wait = std::time::Duration::from_secs(5);
        assert!(tokio::time::timeout(wait, one.group.ready()).await.is_err());
        assert!(one.fault.borrow().is_none(), "waiting for the disk is not a fault");
    });
}

#[test]
fn a_damaged_entry_found_while_starting_is_named() {
    simulate(11, async {
        let disk = SimDisk::new(11);
        let one = start(&disk).await;
        let mut replies = Vec::new();
        for id in 0..10 {
            replies.push(one.group.propose(&[machine::append(1, id, 200)]).await.unwrap());
        }
        let victim = replies[4].index;
        let path = one.log.borrow().segment_path(victim).unwrap();
        one.group.stop().await;
        drop(one);
        disk.kill_process();
        // The bytes of that message are the only ones of their kind in the file.
        let body = machine::body(4, 200);
        let content = disk.load(&path).unwrap();
        let at = content.windows(body.len()).position(|window| *window == body[..]).unwrap();
        disk.flip_bit(&path, (at as u64 + 50) * 8 + 3);
        let (log, recovered) = Log::open(&disk, Path::new("shard"), log_config()).unwrap();
        assert_eq!(recovered.report.damage.len(), 1, "{:?}", recovered.report);
        let fault = Rc::default();
        let log = Rc::new(RefCell::new(log));
        let config = config(&fault, &Rc::default());
        let refused: Result<One, _> =
            Group::start(config, log, &recovered, Rc::default(), InlineJobs, NoPeers).await;
        let Err(refused) = refused else { panic!("started over a damaged entry") };
        let named = matches!(*fault.borrow(), Some(Fault::Entry { index, .. }) if index == victim);
        assert!(named, "{refused}: {:?}", fault.borrow());
    });
}

#[test]
fn a_clean_stop_takes_back_the_mark_that_entries_may_not_be_synced() {
    let lost_after = |clean: bool| {
        let disk = SimDisk::new(12);
        simulate(12, async {
            let log_config = LogConfig { durability: Durability::Replicated, ..log_config() };
            let (log, recovered) = Log::open(&disk, Path::new("shard"), log_config).unwrap();
            let fault = Rc::default();
            let mut config = config(&fault, &Rc::default());
            config.durability = Durability::Replicated;
            let log = Rc::new(RefCell::new(log));
            let machine = Rc::default();
            let group = Group::start(config, log, &recovered, machine, InlineJobs, NoPeers);
            let group: One = group.await.unwrap();
            group.ready().await.unwrap();
            group.propose(&[machine::append(1, 0, 10)]).await.unwrap();
            if clean {
                group.stop().await;
            }
        });
        disk.power_on();
        let log_config = LogConfig { durability: Durability::Replicated, ..log_config() };
        let (log, recovered) = Log::open(&disk, Path::new("shard"), log_config).unwrap();
        (recovered.volatile, log.last().map(|last| last.index))
    };
    assert_eq!(lost_after(true), (false, Some(2)));
    assert!(lost_after(false).0);
}

/// Runs jobs on the spot while it is open, else keeps them.
#[derive(Clone, Default)]
struct Gate {
    closed: Rc<Cell<bool>>,
    kept: Rc<RefCell<Vec<Job<SimDisk>>>>,
}

impl JobPort<SimDisk> for Gate {
    fn submit(&self, job: Job<SimDisk>) -> Option<JobDone<SimDisk>> {
        if !self.closed.get() {
            return Some(job.run());
        }
        self.kept.borrow_mut().push(job);
        None
    }
}

#[test]
fn a_replicated_group_acknowledges_messages_early_and_new_members_only_when_they_are_synced() {
    simulate(12, async {
        let log_config = LogConfig { durability: Durability::Replicated, ..log_config() };
        let (log, recovered) =
            Log::open(&SimDisk::new(12), Path::new("shard"), log_config).unwrap();
        let log = Rc::new(RefCell::new(log));
        let config = GroupConfig {
            durability: Durability::Replicated,
            timings: Timings::default(),
            ..config(&Rc::default(), &Rc::default())
        };
        let gate = Gate::default();
        let machine: Rc<RefCell<Queues>> = Rc::default();
        let group: One =
            Group::start(config, Rc::clone(&log), &recovered, machine, gate.clone(), NoPeers)
                .await
                .unwrap();
        group.ready().await.unwrap();
        gate.closed.set(true);
        group.propose(&[machine::append(1, 0, 10)]).await.unwrap();
        let first = log.borrow().last().unwrap().index;
        assert!(log.borrow().synced_index() < Some(first), "early");

        let wait = std::time::Duration::from_secs(1);
        let mut adding = std::pin::pin!(group.add_learner(2, "nowhere"));
        let added = tokio::time::timeout(wait, &mut adding).await;
        assert!(added.is_err(), "a power cut would take a membership that was acknowledged");
        gate.closed.set(false);
        let kept = std::mem::take(&mut *gate.kept.borrow_mut());
        for job in kept {
            group.job_done(job.run());
        }
        adding.await.unwrap();
        assert!(log.borrow().synced_index() > Some(first));

        // The learner is given what this one has committed alone: nothing of that may be lost with its kernel.
        gate.closed.set(true);
        let mut sending = std::pin::pin!(group.propose(&[machine::append(1, 1, 10)]));
        let sent = tokio::time::timeout(wait, &mut sending).await;
        assert!(sent.is_err(), "acknowledged before it is synced");
        gate.closed.set(false);
        let kept = std::mem::take(&mut *gate.kept.borrow_mut());
        for job in kept {
            group.job_done(job.run());
        }
        sending.await.unwrap();
        group.stop().await;
    });
}

#[test]
fn a_kernel_that_a_group_of_one_has_lost_is_not_held_against_it_for_ever() {
    let disk = SimDisk::new(15);
    let start_replicated = |disk: SimDisk| async move {
        let log_config = LogConfig { durability: Durability::Replicated, ..log_config() };
        let (log, recovered) = Log::open(&disk, Path::new("shard"), log_config).unwrap();
        let config = GroupConfig {
            durability: Durability::Replicated,
            ..config(&Rc::default(), &Rc::default())
        };
        let log = Rc::new(RefCell::new(log));
        let log_too = Rc::clone(&log);
        let group = Group::start(config, log_too, &recovered, Rc::default(), InlineJobs, NoPeers);
        let group: One = group.await.unwrap();
        group.ready().await.unwrap();
        (recovered.volatile, log.borrow().lost_memory())
    };
    let start = |disk: &SimDisk| simulate(15, start_replicated(disk.clone()));
    assert_eq!(start(&disk), (false, false));
    disk.cut();
    disk.power_on();
    assert_eq!(start(&disk), (true, false), "its own word is the only one there is");
    disk.kill_process();
    assert_eq!(start(&disk), (false, false), "and that is durable");
}

/// Gives results back only once it is told to, as threads do whose results nobody takes yet.
#[derive(Clone, Default)]
struct Later(Rc<RefCell<Vec<JobDone<SimDisk>>>>);

impl JobPort<SimDisk> for Later {
    fn submit(&self, job: Job<SimDisk>) -> Option<JobDone<SimDisk>> {
        self.0.borrow_mut().push(job.run());
        None
    }
}

#[test]
fn a_floor_ahead_of_the_state_that_recovery_begins_with_holds_nobody_up() {
    let disk = SimDisk::new(16);
    let (floor, begins_at) = simulate(16, async {
        let one = start(&disk).await;
        for id in 0..200 {
            one.group.propose(&[machine::append(1, id, 2_000)]).await.unwrap();
        }
        let held: Vec<_> = one.log.borrow().checkpoints().collect();
        assert!(held.len() >= 4, "{held:?}");
        // As after a crash between the floor and the purge.
        one.log.borrow_mut().set_floor(held[1]);
        one.group.request_room();
        assert_eq!(one.log.borrow().floor(), Some(held[1]));
        (held[1], held[0])
    });
    disk.kill_process();
    // The footer between them is gone: recovery begins at the checkpoint before it.
    let mut footers: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
    footers.retain(|path| path.to_string_lossy().contains("footer-"));
    footers.sort();
    disk.remove(&footers[1]).unwrap();
    simulate(16, async {
        let fault = Rc::default();
        let (log, recovered) = Log::open(&disk, Path::new("shard"), log_config()).unwrap();
        assert_eq!(recovered.checkpoints.last().map(grus_log::CheckpointData::id), Some(begins_at));
        assert_eq!(log.floor(), Some(floor));
        let later = Later::default();
        let log = Rc::new(RefCell::new(log));
        let machine: Rc<RefCell<Queues>> = Rc::default();
        let config = config(&fault, &Rc::default());
        let machine_too = Rc::clone(&machine);
        let group = Group::start(config, log, &recovered, machine_too, later.clone(), NoPeers);
        let wait = std::time::Duration::from_secs(5);
        let group: One = tokio::time::timeout(wait, group).await.expect("it starts").unwrap();
        let ready = async {
            tokio::join!(group.ready(), async {
                while !group.status().ready {
                    let done: Vec<_> = later.0.borrow_mut().drain(..).collect();
                    for done in done {
                        group.job_done(done);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            })
        };
        tokio::time::timeout(wait, ready).await.unwrap().0.unwrap();
        assert_eq!(machine.borrow().next(1), 200);
        assert!(fault.borrow().is_none());
    });
}

#[test]
fn entries_are_applied_between_the_slices_of_a_checkpoint_and_do_not_show_in_it() {
    let disk = SimDisk::new(17);
    let (queues, at_seal) = (200_u32, 300_u64);
    simulate(17, async {
        let one = start(&disk).await;
        let items: Vec<NewItem> =
            (0..at_seal).map(|id| machine::append((id % 200) as u32, id, 10)).collect();
        one.group.propose(&items).await.unwrap();
        one.group.propose_seal().await.unwrap();
        let mut answered = 0;
        while one.log.borrow().newest_checkpoint().is_none() {
            let next = at_seal + answered;
            one.group.propose(&[machine::append(7, next, 10)]).await.unwrap();
            answered += 1;
        }
        let slices = one.machine.borrow().slices.clone();
        assert_eq!(slices.len(), queues as usize, "one part each");
        let between = slices.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!(answered > 100 && between > 100, "{answered} answers: {slices:?}");
        let at = one.log.borrow().newest_checkpoint().unwrap();
        let chain = one.log.borrow().checkpoint_at(at.index).unwrap();
        let mut restored = Queues::default();
        let mut parts = chain[0].parts.clone();
        parts.retain(|part| !part.key.starts_with(&[0]));
        grus_consensus::StateMachine::restore(&mut restored, parts).unwrap();
        assert_eq!(restored.next(7), 2, "as it was at the Seal");
        assert_eq!(restored.numbers().len(), queues as usize);
        // A Seal while slices are left waits for them.
        let (first, second) = (one.group.propose_seal(), one.group.propose_seal());
        first.await.unwrap();
        second.await.unwrap();
        assert!(one.fault.borrow().is_none());
        one.group.stop().await;
    });
    disk.kill_process();
    simulate(17, async {
        let one = start(&disk).await;
        assert!(one.machine.borrow().next(7) > 2, "what came behind it is applied again");
    });
}
