//! A member of the group as a program: it joins, keeps its lease, claims what it is assigned, handles
//! what it is sent and answers for it, and lets go of what is another's. Its process may stand still
//! or end at any moment, its connections may be cut.

mod held;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grus_broker::consumer_group::CoordinatorAsk;
use grus_broker::consumer_group::coordination::Joining;
use grus_broker::consumer_group::error::CoordinatorError;
use grus_broker::error::QueueError;
use grus_broker::topic_queue::{AnswersTaken, ClaimTaken, ListedOffset, SubscriptionKey};
use grus_mailbox::Port;
use grus_mailbox::reply::port;
use grus_protocol::ids::{Generation, MemberId, QueueKey};
use grus_protocol::message::{
    GroupHeartbeatReply, GroupOptions, GroupSubscription, JoinGroupReply,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::facts::{Dice, Fact, Holder};
use super::town::Town;
use super::wire::Push;
use held::{Held, Stage, Told};

pub(crate) const SESSION_MS: u32 = 3_000;
/// Deliveries before a message is given up.
pub(crate) const DELIVERIES_MAX: u32 = 5;
const BEAT_WAIT_MS: u32 = 400;
const TICK: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Messages of a queue that it handles at once; others wait, unseen.
const IN_WORK_MAX: usize = 4;
/// Why a message failed.
pub(crate) const FAILS_REASON: &str = "no luck";
/// Why a member gives a message up.
pub(crate) const GIVES_UP_REASON: &str = "hopeless";
/// How long it waits before it tries again what did not go well, in milliseconds.
const AGAIN_MS: u64 = 60;

/// What the story does to a member from outside.
#[derive(Default)]
pub(crate) struct Strings {
    /// It stands still for so long, as soon as it notices.
    pub(crate) stall_ms: Cell<u64>,
    /// It is to leave the group, in order.
    pub(crate) leaves: Cell<bool>,
    /// Nothing comes through before, in milliseconds.
    pub(crate) cut_until_ms: Cell<u64>,
    /// Its connection, while it holds.
    line: RefCell<Arc<AtomicBool>>,
    /// Counts its connections, of all lives.
    connections: Cell<u64>,
    /// The coordinator, as the one to be told that a connection is closed.
    heard_as: Cell<Option<MemberId>>,
}

impl Strings {
    /// The connection breaks; the broker notices, or does not.
    pub(crate) fn cut(&self, town: &Town, number: u64, is_noticed: bool) {
        let connection = self.connection(number);
        self.line.replace(Arc::default()).store(true, Relaxed);
        self.connections.set(self.connections.get() + 1);
        if let (true, Some(member), Some(handle)) =
            (is_noticed, self.heard_as.get(), town.coordinator())
        {
            let _ = handle.asks.try_put(CoordinatorAsk::Orphaned { member, connection });
        }
    }

    /// What says that its connections of now are cut.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.line.borrow())
    }

    /// The coordinator is told of this one when a connection is closed.
    pub(crate) fn is_heard_as(&self, member: MemberId) {
        self.heard_as.set(Some(member));
    }

    /// As whom the coordinator knows it.
    pub(crate) fn member(&self) -> Option<MemberId> {
        self.heard_as.get()
    }

    pub(crate) fn connection(&self, number: u64) -> u64 {
        number << 32 | self.connections.get()
    }
}

/// What a member hears.
pub(super) enum Heard {
    Tick,
    Joined(Result<JoinGroupReply, ()>),
    Beat(u64, Result<GroupHeartbeatReply, Option<CoordinatorError>>),
    Claimed(Holder, Result<ClaimTaken, Option<QueueError>>),
    Subscribed(Holder, SubscriptionKey, Result<ListedOffset, Option<QueueError>>),
    Pushed(Holder, SubscriptionKey, Push),
    Settled(Holder, Told, Result<AnswersTaken, Option<QueueError>>),
    /// It is no member any more, by its own wish.
    Left,
}

/// One life of a member.
pub(crate) struct Life {
    pub(crate) town: Rc<Town>,
    pub(crate) strings: Rc<Strings>,
    /// Which of all members, and which life.
    pub(crate) number: u64,
    pub(crate) session: u64,
    pub(crate) subscriptions: Vec<GroupSubscription>,
    pub(crate) dice: Dice,
    /// The message that kills whoever handles it.
    pub(crate) poison: (QueueKey, u64),
}

struct Program {
    life: Life,
    to: UnboundedSender<Heard>,
    calls: JoinSet<()>,
    member: Option<MemberId>,
    is_joining: bool,
    is_leaving: bool,
    join_from_ms: u64,
    is_beating: bool,
    beat_from_ms: u64,
    known: Generation,
    until_ms: u64,
    queues: BTreeMap<QueueKey, Held>,
    /// Counts its subscriptions: no name is used twice, as what ends one may come late.
    subscriptions: u64,
    /// The message that has killed it.
    killed_by: Option<u64>,
}

/// Lives until it is aborted.
pub(crate) async fn live(life: Life) {
    let (to, mut heard): (_, UnboundedReceiver<Heard>) = unbounded_channel();
    let mut program = Program {
        life,
        to,
        calls: JoinSet::new(),
        member: None,
        is_joining: false,
        is_leaving: false,
        join_from_ms: 0,
        is_beating: false,
        beat_from_ms: 0,
        known: Generation::NONE,
        until_ms: 0,
        queues: BTreeMap::new(),
        subscriptions: 0,
        killed_by: None,
    };
    loop {
        let one = tokio::select! {
            biased;
            Some(one) = heard.recv() => one,
            () = sleep(TICK) => Heard::Tick,
        };
        let stall_ms = program.life.strings.stall_ms.take();
        if stall_ms > 0 {
            sleep(Duration::from_millis(stall_ms)).await;
            program.speak_late(); // as if it had stood still between looking at the clock and sending
        }
        while program.calls.try_join_next().is_some() {}
        if matches!(one, Heard::Left) {
            return;
        }
        program.hear(one);
        program.act();
        if program.killed_by.is_some() {
            let Life { town, strings, number, dice, .. } = &mut program.life;
            return strings.cut(town, *number, dice.below(2) == 0);
        }
    }
}

impl Program {
    fn now_ms(&self) -> u64 {
        self.life.town.scribe.now_ms()
    }

    fn note(&self, fact: Fact) {
        self.life.town.scribe.note(fact);
    }

    /// Asks something over the network: `put` sends it, `heard` is what its answer is to the member.
    fn call<T: Send + 'static>(
        &mut self,
        put: impl FnOnce(Port<T>) + 'static,
        heard: impl FnOnce(Option<T>) -> Heard + 'static,
    ) {
        let legs = [self.life.dice.below(12), self.life.dice.below(12)].map(Duration::from_millis);
        let (strings, town) = (Rc::clone(&self.life.strings), Rc::clone(&self.life.town));
        let (to, is_cut) = (self.to.clone(), Arc::clone(&strings.line.borrow()));
        let is_lost =
            move || is_cut.load(Relaxed) || strings.cut_until_ms.get() > town.scribe.now_ms();
        self.calls.spawn_local(async move {
            sleep(legs[0]).await;
            let mut answer = None;
            if !is_lost() {
                let (reply, answered) = port();
                put(reply);
                answer = timeout(ANSWER_WITHIN, answered).await.ok().and_then(Result::ok);
            }
            sleep(legs[1]).await;
            let _ = to.send(heard(answer.filter(|_| !is_lost())));
        });
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Tick | Heard::Left => {}
            Heard::Joined(joined) => self.joined(joined),
            Heard::Beat(sent_ms, told) => self.told(sent_ms, told),
            Heard::Claimed(by, taken) => self.claimed(by, &taken),
            Heard::Subscribed(by, key, result) => self.subscribed(by, key, &result),
            Heard::Pushed(by, key, push) => self.pushed(by, key, push),
            Heard::Settled(by, told, result) => self.settled(by, &told, &result),
        }
    }

    fn loses_all(&mut self) {
        self.queues.clear();
        self.known = Generation::NONE;
    }

    fn act(&mut self) {
        let now_ms = self.now_ms();
        if self.member.is_some() && self.until_ms <= now_ms {
            self.loses_all();
        }
        let Some(member) = self.member else {
            if !self.is_joining && self.join_from_ms <= now_ms {
                self.join();
            }
            return;
        };
        if self.life.strings.leaves.get() {
            self.queues.values_mut().for_each(|held| held.is_revoked = true);
            if self.queues.is_empty() && !std::mem::replace(&mut self.is_leaving, true) {
                self.leave(member);
            }
        } else if !self.is_beating && self.beat_from_ms <= now_ms {
            self.beat(member);
        }
        self.work(now_ms);
        let keys: Vec<QueueKey> = self.queues.keys().copied().collect();
        for key in keys {
            self.go_on(key, now_ms);
        }
    }

    fn join(&mut self) {
        self.is_joining = true;
        let Life { session, number, strings, subscriptions, .. } = &self.life;
        let joining = Joining {
            session: *session,
            client_id: format!("c{number}"),
            address: String::new(),
            instance: None,
            lane: None,
            subscriptions: subscriptions.clone(),
            options: GroupOptions {
                session_ms: Some(SESSION_MS),
                ladder_ms: Some(vec![50, 200]),
                max_deliveries: Some(DELIVERIES_MAX),
                ..GroupOptions::default()
            },
            connection: strings.connection(*number),
        };
        let town = Rc::clone(&self.life.town);
        self.call(
            move |reply| {
                if let Some(handle) = town.coordinator() {
                    let _ = handle.asks.try_put(CoordinatorAsk::Join { joining, reply });
                }
            },
            |joined| Heard::Joined(joined.and_then(Result::ok).ok_or(())),
        );
    }

    fn joined(&mut self, joined: Result<JoinGroupReply, ()>) {
        self.is_joining = false;
        match joined {
            Ok(reply) => {
                self.member = Some(reply.member);
                self.life.strings.heard_as.set(self.member);
                self.until_ms = self.now_ms() + u64::from(SESSION_MS) / 2;
            }
            Err(()) => self.join_from_ms = self.now_ms() + AGAIN_MS,
        }
    }

    fn leave(&mut self, member: MemberId) {
        let town = Rc::clone(&self.life.town);
        self.call(
            move |reply| {
                if let Some(handle) = town.coordinator() {
                    let _ = handle.asks.try_put(CoordinatorAsk::Leave { member, reply });
                }
            },
            |_: Option<Result<(), CoordinatorError>>| Heard::Left, // or its lease ends
        );
    }

    fn beat(&mut self, member: MemberId) {
        self.is_beating = true;
        let sent_ms = self.now_ms();
        let held = self.queues.values().filter(|held| held.is_revoked);
        let holding: BTreeSet<QueueKey> = held.map(|held| held.by.queue).collect();
        let (known, town) = (self.known, Rc::clone(&self.life.town));
        let connection = self.life.strings.connection(self.life.number);
        self.call(
            move |reply| {
                if let Some(handle) = town.coordinator() {
                    let wait_ms = BEAT_WAIT_MS;
                    let beat = CoordinatorAsk::Heartbeat {
                        member,
                        known,
                        holding,
                        wait_ms,
                        connection,
                        reply,
                    };
                    let _ = handle.asks.try_put(beat);
                }
            },
            move |told: Option<Result<_, _>>| {
                Heard::Beat(sent_ms, told.map_or(Err(None), |told| told.map_err(Some)))
            },
        );
    }

    fn told(&mut self, sent_ms: u64, told: Result<GroupHeartbeatReply, Option<CoordinatorError>>) {
        self.is_beating = false;
        if self.life.strings.leaves.get() {
            return;
        }
        let now_ms = self.now_ms();
        let told = match told {
            Ok(told) => told,
            Err(Some(CoordinatorError::NoMember)) => {
                self.loses_all();
                self.member = None;
                return;
            }
            Err(_) => {
                self.beat_from_ms = now_ms + AGAIN_MS;
                return;
            }
        };
        self.until_ms = self.until_ms.max(sent_ms + u64::from(SESSION_MS) * 2 / 3);
        let Some(assigned) = told.assigned else { return };
        self.known = told.generation; // not without what it has: it may have lost it meanwhile
        let member = self.member.expect("only a member beats").0;
        let now: BTreeMap<QueueKey, u64> = assigned
            .into_iter()
            .map(|one| (QueueKey { topic: one.topic_id, queue: one.queue }, one.generation.0))
            .collect();
        for held in self.queues.values_mut() {
            held.is_revoked |= !now.contains_key(&held.by.queue);
        }
        for (queue, generation) in now {
            let known = self.queues.get_mut(&queue);
            if let Some(held) = known.filter(|held| held.by.generation == generation) {
                if std::mem::take(&mut held.is_revoked) {
                    held.stage = Stage::Wants(now_ms);
                    held.is_handed_back = false;
                }
                continue;
            }
            let by = Holder { queue, generation, member, round: 0 };
            self.queues.insert(queue, Held::new(by, now_ms));
        }
    }
}
