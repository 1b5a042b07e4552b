//! A member of the group as a program: it joins, keeps its lease, claims what it is assigned, handles
//! what it is sent and answers for it, and lets go of what is another's. Its process may stand still
//! or end at any moment, its connections may be cut.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::consumer_group::CoordinatorAsk;
use grus_broker::consumer_group::coordination::Joining;
use grus_broker::consumer_group::error::CoordinatorError;
use grus_broker::error::QueueError;
use grus_broker::machine::groups::Settled;
use grus_broker::topic_queue::{
    Account, Answered, At, ClaimTaken, Failed, GivenUp, GroupAsk, ListedOffset, QueueHandle,
    SubscriptionAsk, SubscriptionKey,
};
use grus_mailbox::Port;
use grus_mailbox::reply::port;
use grus_protocol::error::ErrorCode;
use grus_protocol::ids::{Generation, MemberId, Offset, QueueKey, SubscriptionId};
use grus_protocol::message::{
    GroupHeartbeatReply, GroupOptions, GroupSubscription, JoinGroupReply, MessageFilter,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::facts::{Dice, Fact, Holder, Scribe};
use super::town::{GROUP, Town};
use super::wire::{Push, Wire};

pub(crate) const SESSION_MS: u32 = 3_000;
/// Deliveries before a message is given up.
pub(crate) const DELIVERIES_MAX: u32 = 5;
const BEAT_WAIT_MS: u32 = 400;
const TICK: Duration = Duration::from_millis(20);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long it waits before it tries again what did not go well, in milliseconds.
const AGAIN_MS: u64 = 60;
/// Messages that it may have in work of one queue.
const CREDIT: u32 = 30;

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

    fn connection(&self, number: u64) -> u64 {
        number << 32 | self.connections.get()
    }
}

/// What a member hears.
pub(super) enum Heard {
    Tick,
    Joined(Result<JoinGroupReply, ()>),
    Beat(u64, Result<GroupHeartbeatReply, Option<CoordinatorError>>),
    Claimed(Holder, Result<ClaimTaken, Option<QueueError>>),
    Subscribed(Holder, u64, Result<ListedOffset, Option<QueueError>>),
    Pushed(Holder, u64, Push),
    Settled(Holder, Vec<u64>, Result<Settled, Option<QueueError>>),
    /// It is no member any more, by its own wish.
    Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ack,
    Fail,
    Dead,
}

/// How far it has come with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// To be claimed, not before.
    Wants(u64),
    Asked,
    Runs,
}

/// A queue that it has, or holds still.
struct Held {
    by: Holder,
    stage: Stage,
    /// The connection of its subscription.
    connection: u64,
    /// When each message in work is done.
    work: BTreeMap<u64, u64>,
    done: BTreeMap<u64, Verdict>,
    /// What was answered and not acknowledged by the leader yet.
    under_way: BTreeSet<u64>,
    settle_from_ms: u64,
    is_revoked: bool,
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
            Heard::Subscribed(by, connection, result) => self.subscribed(by, connection, &result),
            Heard::Pushed(by, connection, push) => self.pushed(by, connection, push),
            Heard::Settled(by, offsets, result) => self.settled(by, &offsets, &result),
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
        self.known = told.generation;
        let Some(assigned) = told.assigned else { return };
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
                }
                continue;
            }
            let by = Holder { queue, generation, member, round: 0 };
            self.queues.insert(queue, Held::new(by, now_ms));
        }
    }

    fn held(&mut self, by: Holder) -> Option<&mut Held> {
        let held = self.queues.get_mut(&by.queue)?;
        (held.by.generation == by.generation && held.by.member == by.member).then_some(held)
    }

    /// Finishes what is done by now.
    fn work(&mut self, now_ms: u64) {
        let mut handled = Vec::new();
        for held in self.queues.values_mut() {
            let over = held.work.iter().filter(|(_, done_ms)| **done_ms <= now_ms);
            let over: Vec<u64> = over.map(|(offset, _)| *offset).collect();
            for offset in over {
                held.work.remove(&offset);
                let odds = Dice::new(held.by.queue.queue.0.into(), offset).below(40);
                let verdict = match (odds, self.life.dice.below(100)) {
                    (0, _) | (_, 0..6) => Verdict::Fail, // the first always fails
                    (_, 6) => Verdict::Dead,
                    _ => Verdict::Ack,
                };
                held.done.insert(offset, verdict);
                handled.push((held.by.queue, offset));
            }
        }
        for (queue, offset) in handled {
            self.note(Fact::Handled(queue, offset));
        }
    }

    fn go_on(&mut self, key: QueueKey, now_ms: u64) {
        let connection = self.life.strings.connection(self.life.number);
        let Some(held) = self.queues.get_mut(&key) else { return };
        if held.stage == Stage::Runs && held.connection != connection && !held.is_revoked {
            held.stage = Stage::Wants(now_ms); // its connection is no more
        }
        if held.is_revoked {
            held.work.clear(); // it bounds how long it finishes: at once
            if held.done.is_empty() && held.under_way.is_empty() {
                let (by, of) = (held.by, held.connection);
                self.queues.remove(&key);
                self.unsubscribe(by, of);
                return self.note(Fact::LetGo { queue: key, member: by.member });
            }
        }
        let may_settle = !held.done.is_empty() && held.under_way.is_empty();
        let (by, settle_from_ms, stage) = (held.by, held.settle_from_ms, held.stage);
        if may_settle && settle_from_ms <= now_ms {
            self.settle(key);
        }
        if matches!(stage, Stage::Wants(from_ms) if from_ms <= now_ms) {
            self.claim(by);
        }
    }

    fn holding(by: Holder) -> Holding {
        Holding {
            place: ProgressKey { queue: by.queue, group: GROUP },
            generation: Generation(by.generation),
            member: MemberId(by.member),
            round: by.round,
        }
    }

    fn claim(&mut self, by: Holder) {
        if let Some(held) = self.held(by) {
            held.stage = Stage::Asked;
        }
        let terms = RetryTerms { deliveries_max: DELIVERIES_MAX, ladder_ms: vec![50, 200] };
        let (town, scribe) = (Rc::clone(&self.life.town), self.life.town.scribe.clone());
        self.call(
            move |reply| {
                let seen = seen(reply, move |taken: &Result<ClaimTaken, QueueError>| match taken {
                    Ok(taken) => {
                        let by = Holder { round: taken.claimed.round, ..by };
                        scribe.note(Fact::Claimed { by, floor: taken.claimed.floor.0 });
                    }
                    Err(error) => refused(&scribe, by, error),
                });
                let (holding, start) = (Self::holding(by), At::First);
                ask(&town, by.queue, GroupAsk::Claim { holding, start, terms, reply: seen });
            },
            move |taken: Option<Result<_, _>>| {
                Heard::Claimed(by, taken.map_or(Err(None), |taken| taken.map_err(Some)))
            },
        );
    }

    fn claimed(&mut self, by: Holder, taken: &Result<ClaimTaken, Option<QueueError>>) {
        let again_ms = self.now_ms() + AGAIN_MS;
        let Some(held) = self.held(by) else { return };
        match taken {
            Ok(taken) => {
                if held.by.round != taken.claimed.round {
                    held.forgets();
                }
                held.by.round = taken.claimed.round;
                let by = held.by;
                self.subscribe(by);
            }
            Err(Some(QueueError::NotHeld { .. })) => self.is_fenced(by),
            Err(_) => held.stage = Stage::Wants(again_ms),
        }
    }

    /// Another one has the queue: it is told so in a moment.
    fn is_fenced(&mut self, by: Holder) {
        if self.held(by).is_some() {
            self.queues.remove(&by.queue);
            self.known = Generation::NONE;
        }
    }

    fn subscribe(&mut self, by: Holder) {
        let connection = self.life.strings.connection(self.life.number);
        let key = SubscriptionKey { connection, id: subscription_id(by) };
        let wire = Wire {
            by,
            connection,
            scribe: self.life.town.scribe.clone(),
            is_cut: Arc::clone(&self.life.strings.line.borrow()),
            to: self.to.clone(),
        };
        let (town, scribe) = (Rc::clone(&self.life.town), self.life.town.scribe.clone());
        self.call(
            move |reply| {
                let seen = seen(reply, move |listed: &Result<ListedOffset, QueueError>| {
                    if let Err(error) = listed {
                        refused(&scribe, by, error);
                    }
                });
                let (holding, filter) = (Self::holding(by), MessageFilter::All);
                let (account, subscriber) = (Account::new(CREDIT, 1 << 20), Box::new(wire));
                let ask_it =
                    GroupAsk::Subscribe { key, holding, filter, account, subscriber, reply: seen };
                ask(&town, by.queue, ask_it);
            },
            move |listed: Option<Result<_, _>>| {
                let listed = listed.map_or(Err(None), |listed| listed.map_err(Some));
                Heard::Subscribed(by, connection, listed)
            },
        );
    }

    fn subscribed(
        &mut self,
        by: Holder,
        connection: u64,
        result: &Result<ListedOffset, Option<QueueError>>,
    ) {
        let again_ms = self.now_ms() + AGAIN_MS;
        let Some(held) = self.held(by) else { return };
        if held.stage != Stage::Asked {
            return;
        }
        match result {
            Ok(_) => (held.stage, held.connection) = (Stage::Runs, connection),
            Err(Some(QueueError::NotHeld { .. })) => self.is_fenced(by),
            Err(_) => held.stage = Stage::Wants(again_ms),
        }
    }

    fn unsubscribe(&mut self, by: Holder, connection: u64) {
        let town = Rc::clone(&self.life.town);
        let key = SubscriptionKey { connection, id: subscription_id(by) };
        self.call(
            move |reply: Port<Result<(), QueueError>>| {
                if let Some(queue) = town.queue(by.queue) {
                    let _ = queue.subscribe.try_put(SubscriptionAsk::Unsubscribe { key, reply });
                }
            },
            |_| Heard::Tick,
        );
    }

    fn pushed(&mut self, by: Holder, connection: u64, push: Push) {
        let now_ms = self.now_ms();
        let slowness = 1 + self.life.dice.below(60);
        let Some(held) = self.held(by).filter(|held| held.by.round == by.round) else { return };
        match push {
            Push::Messages(messages) => {
                for (offset, _) in messages {
                    let has = held.done.contains_key(&offset) || held.under_way.contains(&offset);
                    if !has && !held.is_revoked {
                        held.work.entry(offset).or_insert(now_ms + slowness);
                    }
                }
            }
            Push::End(ErrorCode::Fenced) => {
                self.note(Fact::Refused { by, fenced: true });
                self.is_fenced(by);
            }
            Push::End(_) if held.stage == Stage::Runs && held.connection == connection => {
                held.stage = Stage::Wants(now_ms + AGAIN_MS);
            }
            Push::End(_) => {}
        }
    }

    /// It answers for what it has done, and where that is nothing it claims what it believes its own.
    fn speak_late(&mut self) {
        let keys: Vec<QueueKey> = self.queues.keys().copied().collect();
        self.work(self.now_ms());
        for key in keys {
            let held = &self.queues[&key];
            let by = held.by;
            match (held.done.is_empty(), held.under_way.is_empty()) {
                (false, true) => self.settle(key),
                (true, true) if held.stage == Stage::Runs => self.claim(by),
                _ => {}
            }
        }
    }

    /// Answers for what is done.
    fn settle(&mut self, key: QueueKey) {
        let Some(held) = self.queues.get_mut(&key) else { return };
        held.under_way = held.done.keys().copied().collect();
        let by = held.by;
        let of = |wanted: Verdict| -> Vec<u64> {
            let all = held.done.iter().filter(|(_, verdict)| **verdict == wanted);
            all.map(|(offset, _)| *offset).collect()
        };
        let (acks, failed, dead) = (of(Verdict::Ack), of(Verdict::Fail), of(Verdict::Dead));
        let offsets: Vec<u64> = held.done.keys().copied().collect();
        let one = |offset: &u64| Span { from: Offset(*offset), to: Offset(offset + 1) };
        let answered = Answered {
            holding: Self::holding(by),
            acks: acks.iter().map(one).collect(),
            failed: failed.iter().map(|offset| fails(*offset)).collect(),
            given_up: dead.iter().map(|offset| gives_up(*offset)).collect(),
            hands_back: None,
        };
        let (town, scribe) = (Rc::clone(&self.life.town), self.life.town.scribe.clone());
        self.call(
            move |reply| {
                let seen =
                    seen(reply, move |settled: &Result<Settled, QueueError>| match settled {
                        Ok(_) => scribe.note(Fact::Settled { by, acks, failed }),
                        Err(error) => refused(&scribe, by, error),
                    });
                ask(&town, by.queue, GroupAsk::Settle { answered, reply: seen });
            },
            move |settled: Option<Result<_, _>>| {
                let settled = settled.map_or(Err(None), |settled| settled.map_err(Some));
                Heard::Settled(by, offsets, settled)
            },
        );
    }

    fn settled(
        &mut self,
        by: Holder,
        offsets: &[u64],
        result: &Result<Settled, Option<QueueError>>,
    ) {
        let now_ms = self.now_ms();
        let Some(held) = self.held(by).filter(|held| held.by.round == by.round) else { return };
        held.under_way.clear();
        match result {
            Ok(_) => {
                held.done.retain(|offset, _| !offsets.contains(offset));
                held.settle_from_ms = now_ms + 30;
                let more = u32::try_from(offsets.len()).unwrap();
                let connection = held.connection;
                self.give_credit(by, connection, more);
            }
            Err(Some(QueueError::NotHeld { .. })) => self.is_fenced(by),
            Err(Some(QueueError::ProgressReset { .. })) => {
                held.forgets();
                held.stage = Stage::Wants(now_ms);
            }
            Err(_) => held.settle_from_ms = now_ms + AGAIN_MS,
        }
    }

    fn give_credit(&mut self, by: Holder, connection: u64, more: u32) {
        let town = Rc::clone(&self.life.town);
        let key = SubscriptionKey { connection, id: subscription_id(by) };
        self.call(
            move |reply: Port<Result<(), QueueError>>| {
                if let Some(queue) = town.queue(by.queue) {
                    let more = Account::new(4 * more, 1 << 20);
                    let _ = queue.subscribe.try_put(SubscriptionAsk::Credit { key, more, reply });
                }
            },
            |_| Heard::Tick,
        );
    }
}

impl Held {
    fn new(by: Holder, now_ms: u64) -> Self {
        Self {
            by,
            stage: Stage::Wants(now_ms),
            connection: 0,
            work: BTreeMap::new(),
            done: BTreeMap::new(),
            under_way: BTreeSet::new(),
            settle_from_ms: 0,
            is_revoked: false,
        }
    }

    /// Its progress was set elsewhere: what it has in hands is of no account.
    fn forgets(&mut self) {
        self.work.clear();
        self.done.clear();
        self.under_way.clear();
    }
}

fn subscription_id(by: Holder) -> SubscriptionId {
    let Holder { queue, generation, .. } = by;
    SubscriptionId(generation << 16 | queue.topic.0 << 8 | u64::from(queue.queue.0))
}

fn fails(offset: u64) -> Failed {
    Failed { offset: Offset(offset), retry_after_ms: None, reason: "no luck".into() }
}

fn gives_up(offset: u64) -> GivenUp {
    GivenUp { offset: Offset(offset), reason: "hopeless".into() }
}

fn ask(town: &Town, queue: QueueKey, ask: GroupAsk) {
    let handle: Option<Arc<QueueHandle>> = town.queue(queue);
    if let Some(handle) = handle {
        let _ = handle.group.try_put(ask); // refused: its port is dropped
    }
}

/// A port that is looked at in the instant in which it is answered.
fn seen<T: Send + 'static>(to: Port<T>, look: impl FnOnce(&T) + Send + 'static) -> Port<T> {
    Port::call(move |answer: Result<T, _>| {
        if let Ok(answer) = answer {
            look(&answer);
            to.send(answer);
        }
    })
}

fn refused(scribe: &Scribe, by: Holder, error: &QueueError) {
    match error {
        QueueError::NotHeld { .. } => scribe.note(Fact::Refused { by, fenced: true }),
        QueueError::ProgressReset { .. } => scribe.note(Fact::Refused { by, fenced: false }),
        _ => {}
    }
}
