//! The power goes at one step of the disk after the other while messages are stored, recalled, released, carried
//! on and their first entries trimmed, and once more soon after the next start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use grus_broker::delay_wheel::messages::Recalled;
use grus_broker::timers::TimerId;

use crate::cuts::{Story, answered, cut_at_every_step, start};
use crate::later::{body_of, key, recall, send, visible, waiting};
use crate::world::{SEGMENT_BYTES, World, topic};

const LATER: u64 = 1;
const NOISE: u64 = 2;
const BODY_BYTES: usize = 1_000;
const NOISE_BYTES: u32 = 8_000;
const HOUR_MS: u64 = 3_600_000;
/// Cuts tried by default; `GRUS_EVERY_STEP=1` tries every step.
const CUTS: u64 = 120;

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
struct Told {
    doing: Option<Doing>,
    sent: BTreeMap<u64, u64>,
    acked: BTreeSet<u64>,
    recalled: BTreeSet<u64>,
    /// Asked to be taken back; perhaps they are.
    asked: BTreeSet<u64>,
}

impl Told {
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
}

impl Story for Told {
    type Doing = Doing;
    const REST: Doing = Doing::Rest;
    const SEED: u64 = 11;
    const TEST: &'static str =
        "every_step::the_power_goes_at_any_step_twice_in_a_row_and_nothing_is_lost_early_or_twice";

    fn doing(&self) -> Option<Doing> {
        self.doing
    }

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

#[test]
fn the_power_goes_at_any_step_twice_in_a_row_and_nothing_is_lost_early_or_twice() {
    let wanted = [Doing::Start, Doing::Store, Doing::Recall, Doing::Release, Doing::RollAndTrim];
    cut_at_every_step::<Told>(CUTS, &wanted);
}
