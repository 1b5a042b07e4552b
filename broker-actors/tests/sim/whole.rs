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
mod contents;
mod history;
mod mishaps;
mod rules;
mod senders;
mod story;

use std::panic::{AssertUnwindSafe, catch_unwind};

use grus_consensus::Sabotage;
use grus_protocol::ids::{QueueId, QueueKey, TopicId};

use crate::groups::facts::Facts;
use crate::seeds::{for_seeds, number, replayed, seeds};
use crate::world::{self as member, simulate_by};
use story::Story;

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

/// What comes of a story when everything is mended: the trace, and what the leaders and the members of the group
/// have seen.
async fn end_well(mut story: Story) -> (Vec<String>, Facts) {
    story.heal().await;
    story.everyone_leads().await;
    story.all_was_delivered();
    story.end_all().await
}

/// Mishaps of every kind.
fn told(seed: u64) -> (Vec<String>, Facts) {
    simulate_by(seed, async {
        let mut story = Story::begin(seed, Sabotage::default()).await;
        story.suffer(STEPS).await;
        end_well(story).await
    })
}

#[test]
fn nothing_is_lost_doubled_or_stuck_whatever_happens() {
    for_seeds("whole::nothing_is_lost_doubled_or_stuck_whatever_happens", SEEDS, |seed| {
        let (trace, facts) = told(seed);
        println!("seed {seed}: {} lines, {} facts", trace.len(), facts.len());
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| std::thread::spawn(move || told(seed)).join().unwrap();
    for seed in seeds(number("GRUS_SIM_TWICE").unwrap_or(1)) {
        let settings = format!("GRUS_SIM_SEED={seed} GRUS_SIM_SEEDS=1");
        replayed("whole::the_same_seed_gives_the_same_run", &settings, || {
            let ((trace, facts), (trace_again, facts_again)) = (run(seed), run(seed));
            for (nth, (one, two)) in trace.iter().zip(&trace_again).enumerate() {
                assert_eq!(one, two, "the runs of {seed} part at line {nth}");
            }
            for (nth, (one, two)) in facts.iter().zip(&facts_again).enumerate() {
                assert_eq!(one, two, "the runs of {seed} part at fact {nth}");
            }
            assert_eq!((trace.len(), facts.len()), (trace_again.len(), facts_again.len()));
        });
    }
}

#[test]
fn a_receipt_that_does_not_wait_for_the_disk_is_missed() {
    let story = |seed, complete_early| {
        simulate_by(seed, async {
            let sabotage = Sabotage { complete_early, ..Sabotage::default() };
            let mut story = Story::begin(seed, sabotage).await;
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
