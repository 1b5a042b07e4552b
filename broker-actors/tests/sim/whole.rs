//! All of it at once, by a seed: three brokers that are the members of one shard, with the real log, consensus,
//! state machine, queues, groups and schedules; producers with sequences that send again until they hear;
//! members of a group that claim, handle and answer; and a network that loses, delays, shuffles and is cut, also
//! one way, processes that are killed, powers that go, disks that become slow, and clocks that are wrong.
//!
//! Whatever happens, what [`checks`] says holds at every look. Then nothing is broken any more: everything comes
//! right, all that was sent is stored once and comes, and the group settles it.
//!
//! `GRUS_SIM_SEEDS=n` runs n seeds, `GRUS_SIM_SEED=s` one, `GRUS_SIM_TRACE=1` prints what happens,
//! `GRUS_SIM_TWICE=n` compares two runs of n seeds each.

mod checks;
mod clients;
mod consumers;
mod contents;
mod history;
mod kinds;
mod lines;
mod mishaps;
mod rules;
mod senders;
mod story;
mod tally;

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::Duration;

use grus_consensus::Sabotage;
use grus_protocol::ids::{QueueId, QueueKey, TopicId};

use crate::seeds::{for_seeds, number, replayed, seeds};
use crate::world::{self as member, simulate_by};
use kinds::Kind;
use story::{Story, Told};
use tally::Tally;

/// The topic that the group consumes.
const ORDERS_NAME: &str = "orders";
/// Its queues.
const CONSUMED: [QueueKey; 2] = [queue(1, 0), queue(1, 1)];
/// Its messages are to be seen later.
const LATER: QueueKey = queue(2, 0);
/// All queues of users.
const QUEUES: [QueueKey; 3] = [CONSUMED[0], CONSUMED[1], LATER];
/// Mishaps and wishes of a story.
const STEPS: u64 = 70;
/// Seeds that run by default.
const SEEDS: u64 = 3;
/// How many seeds are tried until a missing rule is noticed.
const RULE_SEEDS_MAX: u64 = 6;

const fn queue(topic: u64, number: u32) -> QueueKey {
    QueueKey { topic: TopicId(topic), queue: QueueId(number) }
}

/// What comes of a story when everything is mended.
async fn end_well(mut story: Story) -> Told {
    story.heal().await;
    story.everyone_leads().await;
    story.all_was_delivered();
    story.end_all().await
}

/// Mishaps of every kind.
fn told(seed: u64, kind: Kind) -> Told {
    simulate_by(seed, async {
        let mut story = Story::begin(seed, kind, Sabotage::default()).await;
        story.suffer(STEPS).await;
        story.heal().await; // by itself: whoever takes a queue over is sent also what was forgotten
        story.unrest().await;
        end_well(story).await
    })
}

#[test]
fn nothing_is_lost_doubled_or_stuck_whatever_happens() {
    all_end_well("whole::nothing_is_lost_doubled_or_stuck_whatever_happens", Kind::PERSISTED);
}

#[test]
fn nothing_is_lost_doubled_or_stuck_by_the_clients_own_logic() {
    let test = "whole::nothing_is_lost_doubled_or_stuck_by_the_clients_own_logic";
    all_end_well(test, Kind::BY_CLIENT);
}

#[test]
fn nothing_is_lost_where_receipts_wait_for_memory_while_a_majority_has_its_power() {
    let test =
        "whole::nothing_is_lost_where_receipts_wait_for_memory_while_a_majority_has_its_power";
    all_end_well(test, Kind::REPLICATED);
}

#[test]
fn nothing_but_what_is_old_is_lost_where_the_log_loses_its_beginning() {
    let test = "whole::nothing_but_what_is_old_is_lost_where_the_log_loses_its_beginning";
    all_end_well(test, Kind::RETAINED);
}

/// In this story a member subscribes anew while a retry of its last subscription is on its way into the log, at a
/// leader that nobody answers: a queue that asks for a turn which finds nothing asks for ever, and time stands still.
#[test]
fn a_queue_asks_for_no_turn_that_finds_nothing() {
    let (tell, told_it) = channel();
    std::thread::spawn(move || tell.send(told(30, Kind::PERSISTED).trace.len()));
    let lines = told_it.recv_timeout(Duration::from_mins(2));
    lines.expect("the story ends, and ends well");
}

/// In this story the item with which a message fails for the first time takes so long that it is due again when it
/// is applied.
#[test]
fn what_fails_comes_again_behind_the_answer() {
    told(507, Kind::PERSISTED);
}

/// A story of each seed; in each, and in all together, enough happens.
fn all_end_well(test: &str, kind: Kind) {
    let (all, stories) = (RefCell::new(Tally::default()), Cell::new(0));
    for_seeds(test, SEEDS, |seed| {
        let Told { trace, facts, tally } = told(seed, kind);
        println!("seed {seed}: {} lines, {} facts: {tally}", trace.len(), facts.len());
        tally.is_enough(1, kind.is_retained());
        all.borrow_mut().add(&tally);
        stories.set(stories.get() + 1);
    });
    let (first, stories) = (number("GRUS_SIM_SEED").unwrap_or(1), stories.get());
    let settings = format!("GRUS_SIM_SEED={first} GRUS_SIM_SEEDS={stories}");
    println!("{stories} stories: {}", all.borrow());
    replayed(test, &settings, || all.borrow().is_enough(stories, kind.is_retained()));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed, kind| std::thread::spawn(move || told(seed, kind)).join().unwrap();
    let kinds = [Kind::PERSISTED, Kind::REPLICATED, Kind::RETAINED, Kind::BY_CLIENT];
    for seed in seeds(number("GRUS_SIM_TWICE").unwrap_or(1)) {
        let settings = format!("GRUS_SIM_SEED={seed} GRUS_SIM_SEEDS=1");
        replayed("whole::the_same_seed_gives_the_same_run", &settings, || {
            let kind = kinds[usize::try_from(seed % 4).unwrap()];
            let (first, again) = (run(seed, kind), run(seed, kind));
            for (nth, (one, two)) in first.trace.iter().zip(&again.trace).enumerate() {
                assert_eq!(one, two, "the runs of {seed} part at line {nth}");
            }
            for (nth, (one, two)) in first.facts.iter().zip(&again.facts).enumerate() {
                assert_eq!(one, two, "the runs of {seed} part at fact {nth}");
            }
            let lengths = |told: &Told| (told.trace.len(), told.facts.len());
            assert_eq!(lengths(&first), lengths(&again));
            assert_eq!(first.tally, again.tally);
        });
    }
}

#[test]
fn a_receipt_that_does_not_wait_for_the_disk_is_missed() {
    let story = |seed, complete_early| {
        simulate_by(seed, async {
            let sabotage = Sabotage { complete_early, ..Sabotage::default() };
            let mut story = Story::begin(seed, Kind::PERSISTED, sabotage).await;
            story.lose_power_behind_receipts().await;
            end_well(story).await
        })
    };
    replayed("whole::a_receipt_that_does_not_wait_for_the_disk_is_missed", "", || {
        story(1, false);
        let misses = |seed: &u64| catch_unwind(AssertUnwindSafe(|| story(*seed, true))).is_err();
        let first = (1..=RULE_SEEDS_MAX).find(misses).expect("nobody misses the rule");
        println!("complete_early: seed {first}");
    });
}
