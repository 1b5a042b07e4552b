//! What a member does with a queue that it has: it claims it, subscribes, handles what it is pushed,
//! answers for it, and lets go of it when it is another's.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::error::QueueError;
use grus_broker::machine::groups::Settled;
use grus_broker::topic_queue::{
    Account, Answered, At, ClaimTaken, Failed, GivenUp, GroupAsk, ListedOffset, QueueHandle,
    SubscriptionAsk, SubscriptionKey,
};
use grus_mailbox::Port;
use grus_protocol::error::ErrorCode;
use grus_protocol::ids::{Generation, MemberId, Offset, QueueKey, SubscriptionId};
use grus_protocol::message::MessageFilter;

use super::super::facts::{Dice, Fact, Holder, Scribe};
use super::super::town::{GROUP, Town};
use super::super::wire::{Push, Wire};
use super::{AGAIN_MS, DELIVERIES_MAX, Heard, Program};

/// Messages that it may have in work of one queue.
const CREDIT: u32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ack,
    Fail,
    Dead,
}

/// How far it has come with a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// To be claimed, not before.
    Wants(u64),
    Asked,
    Runs,
}

/// A queue that it has, or holds still.
pub(super) struct Held {
    pub(super) by: Holder,
    pub(super) stage: Stage,
    /// The connection of its subscription.
    connection: u64,
    /// When each message in work is done.
    work: BTreeMap<u64, u64>,
    done: BTreeMap<u64, Verdict>,
    /// What was answered and not acknowledged by the leader yet.
    under_way: BTreeSet<u64>,
    settle_from_ms: u64,
    pub(super) is_revoked: bool,
}

impl Program {
    fn held(&mut self, by: Holder) -> Option<&mut Held> {
        let held = self.queues.get_mut(&by.queue)?;
        (held.by.generation == by.generation && held.by.member == by.member).then_some(held)
    }

    /// Finishes what is done by now.
    pub(super) fn work(&mut self, now_ms: u64) {
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

    pub(super) fn go_on(&mut self, key: QueueKey, now_ms: u64) {
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

    pub(super) fn claimed(&mut self, by: Holder, taken: &Result<ClaimTaken, Option<QueueError>>) {
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

    pub(super) fn subscribed(
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

    pub(super) fn pushed(&mut self, by: Holder, connection: u64, push: Push) {
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
    pub(super) fn speak_late(&mut self) {
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

    pub(super) fn settled(
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
    pub(super) fn new(by: Holder, now_ms: u64) -> Self {
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
