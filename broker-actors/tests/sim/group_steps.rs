//! The power goes at one step of the disk after the other while a group claims a queue, settles, fails,
//! gives up, changes hands and sends dead letters back, and once more soon after the next start.

use std::collections::{BTreeMap, BTreeSet};

use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::dead_letters::DeadLetters;
use grus_broker::error::QueueError;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::letters::facts_of;
use grus_broker::topic_queue::{
    Answered, At, ClaimTaken, Failed, GivenUp, GroupAsk, ProgressStatus,
};
use grus_mailbox::reply::port;
use grus_mailbox::{Answer, Port};
use grus_protocol::ids::{Generation, GroupId, MemberId, Offset, TopicId};
use grus_protocol::names::GroupName;

use crate::cuts::{Story, answered, cut_at_every_step, start};
use crate::later::{body_of, key, number_of, records, send};
use crate::world::{SEGMENT_BYTES, World, topic};

const QUEUE: u64 = 1;
const NOISE: u64 = 2;
const GROUP: GroupId = GroupId(900);
const MESSAGES: u64 = 40;
const NOISE_BYTES: u32 = 8_000;
/// Cuts tried by default; `GRUS_EVERY_STEP=1` tries every step.
const CUTS: u64 = 80;

/// What was under way when the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Start,
    Claim,
    Settle,
    GiveUp,
    HandOver,
    Redrive,
    Rest,
}

#[derive(Default)]
struct Told {
    doing: Option<Doing>,
    acked: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    /// Asked to be given up, and those of which that was answered.
    asked_dead: BTreeSet<u64>,
    dead: BTreeSet<u64>,
    generation: u64,
    redriven: bool,
}

fn topics() -> [TopicConfig; 3] {
    let name = GroupName::try_from("g").unwrap().dead_letters();
    let letters = TopicConfig { name, ..topic(GROUP.0, 0) };
    [topic(QUEUE, 0), topic(NOISE, 0), letters]
}

fn place() -> ProgressKey {
    ProgressKey { queue: key(QUEUE), group: GROUP }
}

fn holding(generation: u64) -> Holding {
    let (generation, member) = (Generation(generation), MemberId(generation));
    Holding { place: place(), generation, member, round: 0 }
}

async fn ask<T>(
    world: &World,
    ask: impl FnOnce(Port<Result<T, QueueError>>) -> GroupAsk,
) -> Answer<Result<T, QueueError>> {
    let (reply, answer) = port();
    let queue = world.running(1).handle.queue(key(QUEUE)).expect("it was opened");
    let _ = queue.group.put(ask(reply)).await; // stopped: the answer says so
    answer
}

async fn claim(world: &World, generation: u64) -> Answer<Result<ClaimTaken, QueueError>> {
    let terms = RetryTerms { deliveries_max: 9, ladder_ms: vec![100_000] };
    let (holding, start) = (holding(generation), At::First);
    ask(world, |reply| GroupAsk::Claim { holding, start, terms, reply }).await
}

fn letters(world: &World) -> DeadLetters {
    let queue = world.running(1).handle.queue(key(GROUP.0)).expect("it was opened");
    DeadLetters { group: GROUP, queue }
}

impl Told {
    async fn settle(&mut self, world: &World, acks: &[u64], failed: &[u64], dead: &[u64]) {
        self.asked_dead.extend(dead);
        let reason = || "bad".to_owned();
        let of = holding(self.generation);
        let one = |at: &u64| Span { from: Offset(*at), to: Offset(*at + 1) };
        let fails =
            |at: &u64| Failed { offset: Offset(*at), retry_after_ms: None, reason: reason() };
        let gives_up = |at: &u64| GivenUp { offset: Offset(*at), reason: reason() };
        let answers = Answered {
            holding: of,
            acks: acks.iter().map(one).collect(),
            failed: failed.iter().map(fails).collect(),
            given_up: dead.iter().map(gives_up).collect(),
            hands_back: None,
        };
        let answer = ask(world, |reply| GroupAsk::Settle { answered: answers, reply }).await;
        answered(world, answer).await.expect("it holds the queue");
        self.acked.extend(acks);
        self.failed.extend(failed);
        self.dead.extend(dead);
    }

    async fn claim(&mut self, world: &World, generation: u64) {
        let answer = claim(world, generation).await;
        answered(world, answer).await.expect("it is the newest");
        self.generation = generation;
    }

    async fn noise(world: &World) {
        let noise = world.running(1).handle.queue(key(NOISE)).expect("it was opened");
        for _ in 0..SEGMENT_BYTES / NOISE_BYTES {
            let answer = send(&noise, &[body_of(u64::MAX, NOISE_BYTES as usize)], &[]).await;
            answered(world, answer).await.expect("it is stored");
        }
    }

    /// A re-drive that was interrupted goes on without doubles, and a later member settles what is left.
    async fn goes_on(
        &self,
        world: &World,
        cut: u64,
        buried: &BTreeMap<u64, u32>,
        before: &BTreeMap<u64, u32>,
    ) {
        assert!(world.open_topics(1, &topics()).await);
        for number in buried.keys().filter(|_| self.redriven) {
            assert_eq!(before[number], 2, "cut {cut}: {number} went back");
        }
        letters(world).redrive(&[], 1_000, |_| Some(TopicId(QUEUE))).await.expect("they go back");
        let mut copies: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, record, _) in records(world.running(1), key(QUEUE), 0) {
            *copies.entry(number_of(&record.body_bytes())).or_default() += 1;
        }
        for (number, copies) in &copies {
            let expected = 1 + u32::from(buried.contains_key(number));
            assert_eq!(*copies, expected, "cut {cut}: {number} went back once, or not at all");
        }
        let late = claim(world, self.generation.saturating_sub(1)).await;
        let late = late.await.expect("it is answered");
        assert!(self.generation == 0 || late.is_err(), "cut {cut}: an older claim is taken");
        let taken = claim(world, 9).await.await.expect("it is answered").expect("it is the newest");
        let acks = vec![Span { from: Offset(0), to: taken.end_offset }];
        let (failed, given_up, hands_back) = (Vec::new(), Vec::new(), None);
        let answers = Answered { holding: holding(9), acks, failed, given_up, hands_back };
        let answer = ask(world, |reply| GroupAsk::Settle { answered: answers, reply }).await;
        answer.await.expect("it is answered").expect("it holds the queue");
        let status = ask(world, |reply| GroupAsk::Status { group: GROUP, reply }).await;
        let status: ProgressStatus = status.await.unwrap().unwrap().expect("it has been here");
        assert_eq!((status.lag, status.retries), (0, 0), "cut {cut}: all is settled");
    }
}

impl Story for Told {
    type Doing = Doing;
    const REST: Doing = Doing::Rest;
    const SEED: u64 = 17;
    const TEST: &'static str = "group_steps::the_power_goes_at_any_step_of_a_group_and_nothing_answered_is_forgotten_or_done_twice";

    fn doing(&self) -> Option<Doing> {
        self.doing
    }

    async fn tell(&mut self, world: &mut World) {
        self.doing = Some(Doing::Start);
        start(world).await;
        if !world.open_topics(1, &topics()).await {
            std::future::pending::<()>().await; // the power is off
        }
        let queue = world.running(1).handle.queue(key(QUEUE)).expect("it was opened");
        for first in (0..MESSAGES).step_by(4) {
            let bodies: Vec<_> = (first..first + 4).map(|number| body_of(number, 200)).collect();
            let answer = send(&queue, &bodies, &[]).await;
            answered(world, answer).await.expect("it is stored");
        }
        self.doing = Some(Doing::Claim);
        self.claim(world, 1).await;
        self.doing = Some(Doing::Settle);
        self.settle(world, &[0, 1, 2, 7, 9], &[3, 8], &[]).await;
        self.settle(world, &[12], &[13], &[]).await;
        Self::noise(world).await; // a checkpoint lies between
        self.doing = Some(Doing::GiveUp);
        self.settle(world, &[5], &[], &[4, 8]).await;
        self.settle(world, &[], &[20], &[6, 10, 11]).await;
        self.doing = Some(Doing::HandOver);
        self.claim(world, 2).await;
        self.settle(world, &[14, 15], &[], &[16]).await;
        Self::noise(world).await;
        self.doing = Some(Doing::Redrive);
        let sent = letters(world).redrive(&[], 1_000, |_| Some(TopicId(QUEUE))).await;
        if world.members[&1].disk.is_off() {
            std::future::pending::<()>().await;
        }
        assert_eq!(sent.expect("they go back").redriven, 6);
        self.redriven = true;
        self.doing = Some(Doing::Rest);
    }

    /// What was answered is so, the rest is whole or not at all.
    async fn check(&self, world: &World, cut: u64) {
        let is_told = self.doing > Some(Doing::Start);
        let running = world.running(1);
        let mut copies: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, record, _) in records(running, key(QUEUE), 0) {
            *copies.entry(number_of(&record.body_bytes())).or_default() += 1;
        }
        assert!(!is_told || copies.len() as u64 == MESSAGES, "cut {cut}: messages are lost");
        let mut buried: BTreeMap<u64, u32> = BTreeMap::new();
        for (_, record, _) in records(running, key(GROUP.0), 0) {
            let facts = facts_of(&record).expect("a letter says where it came from");
            assert_eq!(number_of(&record.body_bytes()), facts.offset.0, "cut {cut}");
            *buried.entry(facts.offset.0).or_default() += 1;
        }
        {
            let machine = running.ground.machine.borrow();
            let held = machine.state.progress(place());
            let is_settled = |at: &u64| {
                held.is_some_and(|held| {
                    held.numbers().is_passed(Offset(*at)) && held.retry(Offset(*at)).is_none()
                })
            };
            for at in &self.acked {
                assert!(is_settled(at), "cut {cut}: the ack of {at} is forgotten");
            }
            for at in self.failed.difference(&self.asked_dead) {
                let waits = held.is_some_and(|held| held.retry(Offset(*at)).is_some());
                assert!(waits, "cut {cut}: {at} failed, and does not wait for its retry");
            }
            for at in &self.asked_dead {
                let has_letter = buried.get(at).copied().unwrap_or(0);
                assert_eq!(has_letter, u32::from(is_settled(at)), "cut {cut}: letters of {at}");
                assert!(has_letter == 1 || !self.dead.contains(at), "cut {cut}: no letter of {at}");
            }
            let generation = held.map_or(0, |held| held.numbers().generation.0);
            assert!(generation >= self.generation, "cut {cut}: a claim is forgotten");
        }
        self.goes_on(world, cut, &buried, &copies).await;
    }
}

#[test]
fn the_power_goes_at_any_step_of_a_group_and_nothing_answered_is_forgotten_or_done_twice() {
    let wanted = [Doing::Start, Doing::Settle, Doing::GiveUp, Doing::HandOver, Doing::Redrive];
    cut_at_every_step::<Told>(CUTS, &wanted);
}
