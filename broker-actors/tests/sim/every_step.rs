//! The power goes at one step of the disk after the other while messages are stored, recalled, released, carried
//! on and their first entries trimmed, and once more soon after the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grus_broker::delay_wheel::messages::Recalled;
use grus_broker::timers::TimerId;
use grus_mailbox::Answer;

use crate::later::{body_of, key, recall, send, visible, waiting};
use crate::world::{SEGMENT_BYTES, World, power_off, simulate, topic};

const LATER: u64 = 1;
const NOISE: u64 = 2;
const BODY_BYTES: usize = 1_000;
const NOISE_BYTES: u32 = 8_000;
const HOUR_MS: u64 = 3_600_000;

/// What was under way when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Start,
    Store,
    Recall,
    Release,
    RollAndTrim,
    Rest,
}

#[derive(Default)]
struct Story {
    doing: Option<Doing>,
    sent: BTreeMap<u64, u64>,
    acked: BTreeSet<u64>,
    recalled: BTreeSet<u64>,
    /// Asked to be taken back; perhaps they are.
    asked: BTreeSet<u64>,
}

/// The answer. None comes once the power is off: it did not leave before.
pub(crate) async fn answered<T>(world: &World, answer: Answer<T>) -> T {
    let answer = answer.await;
    if world.members[&1].disk.is_off() {
        std::future::pending::<()>().await;
    }
    match answer {
        Ok(answer) => answer,
        Err(_dropped) => std::future::pending().await,
    }
}

/// Starts the member; only without power it does not.
pub(crate) async fn start(world: &mut World) {
    if let Err(error) = world.start(1).await {
        assert!(world.members[&1].disk.is_off(), "it does not start: {error}");
        std::future::pending::<()>().await;
    }
}

impl Story {
    /// Stores a batch to be seen at these times; its first message and timer.
    async fn store(&mut self, world: &World, due: &[u64]) -> (u64, TimerId) {
        let first = self.sent.len() as u64;
        let numbers = first..first + due.len() as u64;
        self.sent.extend(numbers.clone().zip(due.iter().copied()));
        let bodies: Vec<_> = numbers.clone().map(|number| body_of(number, BODY_BYTES)).collect();
        let queue = world.running(1).handle.queue(key(LATER)).expect("it was opened");
        let answer = send(&queue, &bodies, due).await;
        let receipt = answered(world, answer).await.expect("it is stored");
        self.acked.extend(numbers);
        (first, receipt.timer.expect("it waits"))
    }

    /// A message of others.
    async fn noise(&self, world: &World) {
        let noise = world.running(1).handle.queue(key(NOISE)).expect("it was opened");
        let body = body_of(u64::MAX, NOISE_BYTES as usize);
        let answer = send(&noise, &[body], &[]).await;
        answered(world, answer).await.expect("it is stored");
    }

    /// All of it.
    async fn tell(&mut self, world: &mut World) {
        self.doing = Some(Doing::Start);
        start(world).await;
        let topics = [topic(LATER, 0), topic(NOISE, u64::from(SEGMENT_BYTES))];
        if !world.open_topics(1, &topics).await {
            std::future::pending::<()>().await; // the power is off
        }
        self.doing = Some(Doing::Store);
        let now = world.now();
        let (_, far) = self.store(world, &[now + HOUR_MS]).await;
        let other = self.store(world, &[now + HOUR_MS, now + HOUR_MS + 1]).await;
        // What is released stays, and its segment with it: those above lie in an earlier one.
        for _ in 0..SEGMENT_BYTES / NOISE_BYTES {
            self.noise(world).await;
        }
        let now = world.now();
        let near = self.store(world, &[now + 300, now + 350, now + 300]).await;
        self.doing = Some(Doing::Recall);
        for (number, timer) in [near, other] {
            self.asked.insert(number);
            let answer = recall(world.running(1), key(LATER), timer).await;
            assert_eq!(answered(world, answer).await, Ok(vec![Recalled::Recalled]));
            self.recalled.insert(number);
        }
        self.doing = Some(Doing::Release);
        while visible(world.running(1), key(LATER), 0).len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.doing = Some(Doing::RollAndTrim);
        let mut sent = 0;
        while world.running(1).group.status().purged < Some(far.index) {
            self.noise(world).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            sent += 1;
            assert!(sent < 200, "what waits is never carried on");
        }
        self.doing = Some(Doing::Rest);
    }

    /// Each acknowledged message waits or has come, once and not before its time; what was taken back
    /// is nowhere. Each is whole.
    async fn check(&self, world: &World, cut: u64) {
        // What is due comes now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut found = BTreeSet::new();
        for (_, number, stored) in visible(world.running(1), key(LATER), 0) {
            let due = self.sent[&number];
            assert!(stored >= due, "cut {cut}: {number} came {} ms early", due - stored);
            assert!(found.insert(number), "cut {cut}: {number} came twice");
        }
        for (number, due) in waiting(world.running(1)).0 {
            assert_eq!(self.sent[&number], due, "cut {cut}: {number}");
            assert!(due > world.now(), "cut {cut}: {number} is due and waits");
            assert!(found.insert(number), "cut {cut}: {number} came and waits");
        }
        for number in &self.acked {
            let is_gone = self.asked.contains(number);
            assert!(is_gone || found.contains(number), "cut {cut}: {number} is lost");
            let is_back = self.recalled.contains(number) && found.contains(number);
            assert!(!is_back, "cut {cut}: {number} was taken back");
        }
    }
}

/// The story with a cut at a step, and a second one soon after the next start; what was under way at the
/// first.
fn told_with_cuts(cut: u64) -> Doing {
    simulate(async {
        let mut world = World::of(&[1], 11);
        let mut story = Story::default();
        let disk = world.members[&1].disk.clone();
        disk.cut_at_step(cut);
        tokio::select! {
            () = story.tell(&mut world) => {}
            () = power_off(&disk) => {}
        }
        let doing = story.doing.expect("it was begun");
        world.cut_power(1).await;
        if doing != Doing::Rest {
            disk.cut_at_step(1 + cut * 7 % 60);
            // It may come through: then it is cut while it releases, or rests.
            let comes_through = async {
                start(&mut world).await;
                tokio::time::sleep(Duration::from_millis(cut % 700)).await;
            };
            tokio::select! {
                () = comes_through => {}
                () = power_off(&disk) => {}
            }
            world.cut_power(1).await;
            world.start(1).await.expect("it starts on what is left");
            story.check(&world, cut).await;
            world.cut_power(1).await;
        }
        doing
    })
}

/// Cuts tried by default; `GRUS_EVERY_STEP=1` tries every step.
const CUTS: u64 = 120;

#[test]
fn the_power_goes_at_any_step_twice_in_a_row_and_nothing_is_lost_early_or_twice() {
    let steps = steps_of_the_story();
    let stride = if std::env::var_os("GRUS_EVERY_STEP").is_some() { 1 } else { steps / CUTS };
    let mut cuts: BTreeMap<Doing, u64> = BTreeMap::new();
    let mut cut = 1;
    while cut <= steps {
        *cuts.entry(told_with_cuts(cut)).or_default() += 1;
        cut += stride.max(1);
    }
    println!("{steps} steps; cuts by what was under way: {cuts:?}");
    for doing in [Doing::Start, Doing::Store, Doing::Recall, Doing::Release, Doing::RollAndTrim] {
        assert!(cuts.contains_key(&doing), "no cut while doing {doing:?}: {cuts:?}");
    }
}

/// How many steps the disk makes when the power stays on.
fn steps_of_the_story() -> u64 {
    simulate(async {
        let mut world = World::of(&[1], 11);
        let mut story = Story::default();
        story.tell(&mut world).await;
        let steps = world.members[&1].disk.steps();
        world.cut_power(1).await;
        steps
    })
}
