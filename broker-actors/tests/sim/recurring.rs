//! Schedules of recurring messages while the power goes at one step after the other: each run is there
//! once, at its time or later, and none is left out that was to be made up for.

use std::time::Duration;

use futures_util::future::join_all;
use grus_broker::commands::recurring::{ScheduleKey, ScheduleTerms};
use grus_broker::error::QueueError;
use grus_broker::schedule::{CadenceText, MISSED_AFTER_MS};
use grus_broker::shard::{ScheduleAsk, ShardRequest};
use grus_mailbox::Answer;
use grus_mailbox::reply::port;
use grus_protocol::ids::TimestampMs;
use grus_protocol::names::ScheduleName;

use crate::later::{batch, body_of, key, number_of, records};
use crate::world::{World, power_off, simulate_test, topic};

const TOPIC: u64 = 1;
/// Cuts of the power.
const CUTS: u64 = 120;

/// A schedule of the story.
struct Known<'a> {
    name: &'a str,
    every_ms: u64,
    made_up_max: u32,
    /// Its first run, once it was told.
    first: u64,
}

async fn create(world: &World, number: u64, known: &Known<'_>) -> Option<u64> {
    let name = ScheduleName::try_from(known.name).unwrap();
    let cadence = CadenceText::Every(known.every_ms);
    let message = batch(&[body_of(number, 40)]).into_bytes();
    let terms = ScheduleTerms { cadence, made_up_max: known.made_up_max, batch: message };
    let (reply, answer): (_, Answer<Result<Option<TimestampMs>, QueueError>>) = port();
    let ask = ScheduleAsk::Create { key: ScheduleKey { queue: key(TOPIC), name }, terms, reply };
    let request = ShardRequest::Schedule(ask);
    world.running(1).handle.inbox.put(request).await.unwrap();
    answer.await.unwrap().unwrap().map(|first| first.0)
}

/// The times of the runs of each schedule, in the order of the queue.
fn runs(world: &World, schedules: usize) -> Vec<Vec<u64>> {
    let mut runs = vec![Vec::new(); schedules];
    for (offset, record, stored) in records(world.running(1), key(TOPIC), 0) {
        let number = usize::try_from(number_of(&record.body_bytes())).unwrap();
        let due = record.born().0;
        assert!(stored >= due, "offset {offset}: {} ms early", due - stored);
        runs[number].push(due);
    }
    runs
}

fn check(known: &Known<'_>, runs: &[u64], now: u64) {
    let Known { name, every_ms, made_up_max, first } = known;
    assert!(runs.is_sorted_by(|one, next| one < next), "{name}: in order, none twice");
    let off_beat: Vec<_> = runs.iter().filter(|run| (*run - first) % every_ms != 0).collect();
    assert!(off_beat.is_empty(), "{name}: {off_beat:?} are no times of it");
    assert_eq!(runs.first(), Some(first), "{name}");
    let last = runs.last().copied().unwrap_or(0);
    assert!(last + every_ms + 1_000 >= now, "{name} goes on: its last run was {last}, it is {now}");
    if *made_up_max > 1_000 {
        let gaps: Vec<_> = runs.windows(2).filter(|two| two[1] - two[0] != *every_ms).collect();
        assert!(gaps.is_empty(), "{name}: runs are left out at {gaps:?}");
    }
}

#[test]
fn the_power_goes_at_one_step_after_the_other_and_each_run_is_there_once() {
    simulate_test(async {
        let mut world = World::of(&[1], 5);
        world.start(1).await.unwrap();
        assert!(world.open_topics(1, &[topic(TOPIC, 0)]).await);
        let known = |name, every_ms, made_up_max| Known { name, every_ms, made_up_max, first: 0 };
        let mut all =
            [known("all", 1_000, 10_000), known("one", 1_300, 1), known("none", 1_700, 0)];
        for (number, known) in (0..).zip(&mut all) {
            known.first = create(&world, number, known).await.expect("it runs");
        }
        let mut skipped = false;
        for cut in 0..CUTS {
            // At the next step, or one of those after it; down for a moment, or so long that runs
            // are missed.
            let disk = world.members[&1].disk.clone();
            disk.cut_at_step(disk.steps() + 1 + cut % 40);
            tokio::select! {
                () = power_off(&disk) => {}
                () = tokio::time::sleep(Duration::from_secs(4)) => {}
            }
            world.cut_power(1).await;
            let down_ms = if cut % 10 == 9 { MISSED_AFTER_MS + 5_000 } else { cut * 37 % 900 };
            skipped |= down_ms > MISSED_AFTER_MS;
            tokio::time::sleep(Duration::from_millis(down_ms)).await;
            world.start(1).await.unwrap();
        }
        assert!(skipped);
        tokio::time::sleep(Duration::from_secs(5)).await;
        let runs = runs(&world, all.len());
        for (known, runs) in all.iter().zip(&runs) {
            check(known, runs, world.now());
        }
        let gaps = |runs: &[u64], every_ms| {
            runs.windows(2).filter(|two| two[1] - two[0] > every_ms).count() as u64
        };
        assert!(gaps(&runs[2], 1_700) >= CUTS / 10, "missed runs are passed over");
        world.kill(1).await;
    });
}

#[test]
fn thousands_of_schedules_of_one_moment_are_all_in_time() {
    const SCHEDULES: u64 = 4_000;
    simulate_test(async {
        let mut world = World::of(&[1], 5);
        world.start(1).await.unwrap();
        assert!(world.open_topics(1, &[topic(TOPIC, 0)]).await);
        let names: Vec<String> = (0..SCHEDULES).map(|number| format!("s{number}")).collect();
        let firsts = join_all((0..).zip(&names).map(|(number, name)| {
            let known = Known { name, every_ms: 60_000, made_up_max: 0, first: 0 };
            let world = &world;
            async move { create(world, number, &known).await.expect("it runs") }
        }));
        let firsts = firsts.await;
        let (first, last) = (firsts.iter().min().unwrap(), firsts.iter().max().unwrap());
        assert!(last - first < 1_000, "they were made within {} ms", last - first);
        tokio::time::sleep(Duration::from_millis(last + 30_000 - world.now())).await;
        let runs = runs(&world, names.len());
        for (first, runs) in firsts.iter().zip(&runs) {
            assert_eq!(runs, &[*first], "nobody is late but by the number of the others");
        }
        world.kill(1).await;
    });
}
