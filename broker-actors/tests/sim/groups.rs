//! A group's whole life by a seed: the real coordinator, queues, state machine and log of two brokers,
//! on simulated disks and paused time, and members that join, stall, die and return, with networks that
//! are cut and brokers that end by kill or power cut. What the leaders do is judged message by message.

pub(crate) mod facts;
mod judge;
pub(crate) mod member;
pub(crate) mod town;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use grus_broker::error::QueueError;
use grus_broker::machine::groups::Moved;
use grus_broker::topic_queue::{At, GroupAsk, ResetTo};
use grus_mailbox::reply::port;
use grus_protocol::ids::QueueKey;
use grus_protocol::message::{GroupSubscription, MessageFilter};
use tokio::task::JoinHandle;

use crate::later::{body_of, send};
use crate::world::simulate;
use facts::{Dice, Fact, Facts, Scribe};
use judge::{Paths, judge};
use member::{Life, Strings, live};
use town::{Brokers, GROUP};

/// So many members at most are made to come late, or to leave in the middle, until one has what that is for.
const SPEAKERS_MAX: usize = 36;
/// What counts as a fault.
const FAULTS: [&str; 7] =
    ["kill", "vanish", "stall", "cut", "blip", "end a broker", "cut the power"];
/// Members that there are at most.
const MEMBERS: u64 = 6;
const ORDERS: (u64, &str) = (1, "orders.eu");
const BILLS: (u64, &str) = (2, "bills");
const LATER: (u64, &str) = (3, "orders.later");
/// Seeds that run by default; `GRUS_SEEDS` says how many instead, `GRUS_SEED` the first.
const SEEDS: u64 = 3;

/// An operation of the story, or a fault.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Send,
    Join,
    Leave,
    Reset,
    Grow,
    Kill,
    /// It is gone, and its connection stays open.
    Vanish,
    Stall,
    Cut,
    /// Its connections break and are made anew at once.
    Blip,
    EndBroker,
    CutPower,
}

/// How often each is done.
const DEEDS: [(Deed, u64); 12] = [
    (Deed::Send, 520),
    (Deed::Join, 40),
    (Deed::Leave, 6),
    (Deed::Reset, 2),
    (Deed::Grow, 2),
    (Deed::Kill, 5),
    (Deed::Vanish, 3),
    (Deed::Stall, 6),
    (Deed::Cut, 4),
    (Deed::Blip, 4),
    (Deed::EndBroker, 4),
    (Deed::CutPower, 4),
];

/// A place for a member.
struct Seat {
    strings: Rc<Strings>,
    life: Option<JoinHandle<()>>,
    wants: usize,
}

impl Seat {
    fn is_taken(&self) -> bool {
        self.life.as_ref().is_some_and(|life| !life.is_finished())
    }
}

struct Story {
    brokers: Brokers,
    seats: Vec<Seat>,
    dice: Dice,
    seed: u64,
    lives: u64,
    sent: u64,
    was_reset: BTreeSet<QueueKey>,
    poison: (QueueKey, u64),
}

impl Story {
    fn note(&self, fact: Fact) {
        self.brokers.town.scribe.note(fact);
    }

    fn subscriptions(wants: usize) -> Vec<GroupSubscription> {
        let wanted: [&[&str]; 3] = [&["orders.*", "bills"], &["orders.*"], &["*"]];
        let one = |topics: &&str| GroupSubscription {
            topics: topics.parse().unwrap(),
            filter: MessageFilter::All,
        };
        wanted[wants].iter().map(one).collect()
    }

    /// A seat where somebody lives, or nobody does.
    fn seat(&mut self, is_taken: bool) -> Option<usize> {
        let fits = |seat: &usize| self.seats[*seat].is_taken() == is_taken;
        let all: Vec<usize> = (0..self.seats.len()).filter(fits).collect();
        let at = usize::try_from(self.dice.below(all.len().max(1) as u64)).unwrap();
        all.get(at).copied()
    }

    fn join(&mut self) -> bool {
        let Some(seat) = self.seat(false) else { return false };
        self.lives += 1;
        self.seats[seat].strings.leaves.set(false);
        let life = Life {
            town: Rc::clone(&self.brokers.town),
            strings: Rc::clone(&self.seats[seat].strings),
            number: seat as u64 + 1,
            session: self.lives,
            subscriptions: Self::subscriptions(self.seats[seat].wants),
            dice: Dice::new(self.seed, 1_000 + self.lives),
            poison: self.poison,
        };
        self.seats[seat].life = Some(tokio::task::spawn_local(live(life)));
        true
    }

    /// A process ends.
    async fn kill(&mut self, is_noticed: bool) -> bool {
        let Some(seat) = self.seat(true) else { return false };
        let life = self.seats[seat].life.take().expect("somebody lives there");
        life.abort();
        let _ = life.await; // it was aborted
        self.seats[seat].strings.cut(&self.brokers.town, seat as u64 + 1, is_noticed);
        true
    }

    /// Batches of one to four messages to some queue, whose broker may be down.
    fn send(&mut self) {
        let queues = self.brokers.queues();
        let queue = queues[usize::try_from(self.dice.below(queues.len() as u64)).unwrap()];
        let count = 1 + self.dice.below(4);
        self.send_to(queue, count);
    }

    fn send_to(&mut self, queue: QueueKey, count: u64) {
        let bodies: Vec<_> =
            (self.sent..self.sent + count).map(|number| body_of(number, 300)).collect();
        self.sent += count;
        let Some(handle) = self.brokers.town.queue(queue) else { return };
        let scribe = self.brokers.town.scribe.clone();
        tokio::task::spawn_local(async move {
            let answer = send(&handle, &bodies, &[]).await;
            if let Ok(Ok(receipt)) = answer.await {
                for offset in (receipt.base_offset.0..).take(bodies.len()) {
                    scribe.note(Fact::Sent(queue, offset));
                }
            }
        });
    }

    fn reset(&mut self) -> bool {
        let queues = self.brokers.queues();
        let queue = queues[usize::try_from(self.dice.below(queues.len() as u64)).unwrap()];
        let Some(handle) = self.brokers.town.queue(queue) else { return false };
        self.was_reset.insert(queue);
        let to = ResetTo::At(At::First); // not ahead: what is skipped nobody handles
        let scribe = self.brokers.town.scribe.clone();
        scribe.note(Fact::ResetBegins(queue));
        tokio::task::spawn_local(async move {
            let (reply, answer) = port::<Result<Moved, QueueError>>();
            let _ = handle.group.try_put(GroupAsk::Reset { group: GROUP, to, reply });
            drop(answer.await); // a broker that ends meanwhile may have done it or not
            scribe.note(Fact::ResetEnds(queue));
        });
        true
    }

    async fn restart(&mut self, is_power: bool) {
        let broker = u32::try_from(self.dice.below(town::BROKERS.into())).unwrap();
        let down = Duration::from_millis(20 + self.dice.below(1_200));
        self.brokers.restart(broker, is_power, down).await;
    }

    /// Whether it could be done.
    async fn does(&mut self, deed: Deed) -> Option<&'static str> {
        let some = |name, done: bool| done.then_some(name);
        match deed {
            Deed::Send => {
                self.send();
                Some("send")
            }
            Deed::Join => some("join", self.join()),
            Deed::Leave => {
                let seat = self.seat(true)?;
                self.seats[seat].strings.leaves.set(true);
                Some("leave")
            }
            Deed::Kill => some("kill", self.kill(true).await),
            Deed::Vanish => some("vanish", self.kill(false).await),
            Deed::Reset => some("reset", self.reset()),
            Deed::Grow => {
                let (id, name) = if self.dice.below(2) == 0 { ORDERS } else { LATER };
                self.brokers.grow(id, name, 1 + u32::try_from(self.dice.below(2)).unwrap()).await;
                Some("grow")
            }
            Deed::Stall => {
                let seat = self.seat(true)?;
                // Often longer than its lease, so that it is late with what it answers then.
                let for_ms = 300 + 3_500 * self.dice.below(2) + self.dice.below(3_000);
                self.seats[seat].strings.stall_ms.set(for_ms);
                Some("stall")
            }
            Deed::Cut | Deed::Blip => {
                let seat = self.seat(true)?;
                let is_noticed = self.dice.below(2) == 0;
                let strings = Rc::clone(&self.seats[seat].strings);
                strings.cut(&self.brokers.town, seat as u64 + 1, is_noticed);
                if matches!(deed, Deed::Cut) {
                    let until_ms = self.brokers.town.scribe.now_ms() + 200 + self.dice.below(6_000);
                    strings.cut_until_ms.set(until_ms);
                    return Some("cut");
                }
                Some("blip")
            }
            Deed::EndBroker => {
                self.restart(false).await;
                Some("end a broker")
            }
            Deed::CutPower => {
                self.restart(true).await;
                Some("cut the power")
            }
        }
    }

    async fn tell(&mut self) {
        let mut deeds: Vec<Deed> = Vec::new();
        for (deed, times) in DEEDS {
            deeds.extend((0..times).map(|_| deed));
        }
        for at in (1..deeds.len()).rev() {
            deeds.swap(at, usize::try_from(self.dice.below(at as u64 + 1)).unwrap());
        }
        self.join();
        self.join();
        for (number, deed) in (0..).zip(deeds) {
            if let Some(name) = self.does(deed).await {
                self.note(Fact::Did(name, number));
            }
            let pause_ms = self.dice.below(40);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Enough members that somebody takes what another one loses, each with its queues.
    async fn gather(&mut self) {
        while self.seats.iter().filter(|seat| seat.is_taken()).count() < 3 {
            self.join();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    /// Each broker ends once when it has something to remember.
    async fn come_back(&mut self) {
        self.gather().await;
        for broker in 0..town::BROKERS {
            let mut tries = 0..600;
            while !self.brokers.has_progress(broker) && tries.next().is_some() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            self.brokers.restart(broker, broker == 0, Duration::from_millis(300)).await;
            self.note(Fact::Did("end a broker", broker.into()));
        }
    }

    /// Each in turn stands still for longer than its lease, and then speaks of what it had: until one
    /// was refused that had lost a queue.
    async fn speak_late(&mut self) {
        let before = self.brokers.town.scribe.fenced();
        for seat in (0..self.seats.len()).cycle().take(SPEAKERS_MAX) {
            self.gather().await;
            if self.seats[seat].is_taken() {
                self.seats[seat].strings.stall_ms.set(8_000);
                self.note(Fact::Did("stall", 0));
                tokio::time::sleep(Duration::from_secs(9)).await;
            }
            if seat + 1 >= self.seats.len() && self.brokers.town.scribe.fenced() > before {
                return;
            }
        }
    }

    /// Members leave while they have messages that they have not looked at: until one has said so.
    async fn leave_unseen(&mut self) {
        let before = self.brokers.town.scribe.unseen();
        for seat in (0..self.seats.len()).cycle().take(SPEAKERS_MAX) {
            self.gather().await;
            for queue in self.brokers.queues() {
                for _ in 0..4 {
                    self.send_to(queue, 4);
                }
            }
            tokio::time::sleep(Duration::from_millis(60)).await;
            if self.seats[seat].is_taken() {
                self.seats[seat].strings.leaves.set(true);
                self.note(Fact::Did("leave", 1));
            }
            if seat >= 2 && self.brokers.town.scribe.unseen() > before {
                return;
            }
        }
    }

    /// No more mishaps: what is left is handled. What is not, two minutes later.
    async fn calm_down(&mut self) -> BTreeMap<QueueKey, u64> {
        for _ in 0..1_200 {
            if self.seats.iter().filter(|seat| seat.is_taken()).count() < 3 {
                self.join();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            if self.brokers.lag().is_empty() {
                break;
            }
        }
        self.brokers.lag()
    }
}

/// A whole story: what happened, and the ways it went.
fn told(seed: u64) -> (Facts, Paths) {
    simulate(async {
        let mut from = None;
        let scribe = |world: &crate::world::World| {
            let (scribe, facts) = Scribe::new(world.clock);
            from = Some(facts);
            scribe
        };
        let topics = [(ORDERS.0, ORDERS.1, 4), (BILLS.0, BILLS.1, 2)];
        let brokers = Brokers::start(seed, scribe, &topics).await;
        let seat = |number: u64| Seat {
            strings: Rc::default(),
            life: None,
            wants: usize::try_from(number % 3).unwrap(),
        };
        let seats = (0..MEMBERS).map(seat).collect();
        let mut dice = Dice::new(seed, 1);
        let was_reset = BTreeSet::new();
        let queues = brokers.queues();
        let queue = queues[usize::try_from(dice.below(queues.len() as u64)).unwrap()];
        let poison = (queue, dice.below(40));
        let mut story = Story { brokers, seats, dice, seed, lives: 0, sent: 0, was_reset, poison };
        story.tell().await;
        story.come_back().await;
        story.speak_late().await;
        story.leave_unseen().await;
        let left = story.calm_down().await;
        let dead = story.brokers.dead();
        for seat in &mut story.seats {
            if let Some(life) = seat.life.take() {
                life.abort();
                let _ = life.await; // it was aborted
            }
        }
        story.brokers.end().await;
        let mut from = from.expect("the brokers were started");
        let mut facts = Vec::new();
        while let Ok(fact) = from.try_recv() {
            facts.push(fact);
        }
        tell_of(&facts);
        assert!(left.is_empty(), "two minutes without a mishap, and not all is settled: {left:?}");
        let paths = judge(&facts, &dead, &story.was_reset);
        (facts, paths)
    })
}

/// Prints what happened to one queue, if `GRUS_FACTS` names one, as in `GRUS_FACTS=3/0`, or all of it, if that
/// says `all`.
fn tell_of(facts: &Facts) {
    let Ok(wanted) = std::env::var("GRUS_FACTS") else { return };
    for (at_ns, fact) in facts {
        let is_it = |queue: QueueKey| format!("{}/{}", queue.topic.0, queue.queue.0) == wanted;
        if wanted == "all" || fact.queue().is_none_or(is_it) {
            println!("{:>10} ms {fact:?}", at_ns / 1_000_000);
        }
    }
}

/// The story of a seed; its number is told if it goes wrong.
fn told_of(seed: u64) -> (Facts, Paths) {
    struct Replay(u64);
    impl Drop for Replay {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let seed = self.0;
                println!(
                    "again: GRUS_SEED={seed} GRUS_SEEDS=1 cargo test -p grus-broker --test sim groups"
                );
            }
        }
    }
    let replay = Replay(seed);
    let (facts, paths) = told(seed);
    let ways = [
        ("hand-over", paths.hand_over),
        ("takeover", paths.takeover),
        ("fence refusal", paths.fence_refusal),
        ("redelivery", paths.redelivery),
        ("restore", paths.restore),
        ("hand-back", paths.hand_back),
        ("message that is given up", paths.hopeless),
        ("message that fails as often as it may", paths.worn_out),
        ("message that kills as often as it may", paths.unanswered),
    ];
    for (way, times) in ways {
        assert!(times > 0, "seed {seed}: no {way}: {paths:?}");
    }
    assert!(paths.operations >= 500 && paths.faults >= 20, "seed {seed}: {paths:?}");
    drop(replay);
    (facts, paths)
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn a_group_lives_through_whatever_happens_to_its_members_and_brokers() {
    let first = number_from("GRUS_SEED").unwrap_or(1);
    for seed in first..first + number_from("GRUS_SEEDS").unwrap_or(SEEDS) {
        let (facts, paths) = told_of(seed);
        println!("seed {seed}: {} facts, {paths:?}", facts.len());
    }
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let seed = number_from("GRUS_SEED").unwrap_or(1);
    let (one, other) = (told_of(seed).0, told_of(seed).0);
    for (number, (one, other)) in one.iter().zip(&other).enumerate() {
        assert_eq!(one, other, "fact {number} of seed {seed}");
    }
    assert_eq!(one.len(), other.len());
}
