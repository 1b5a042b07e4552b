//! What a member does with a queue that it has: it claims it, subscribes, handles what it is pushed,
//! answers for it, and lets go of it when it is another's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use grus_broker::commands::groups::{HandBack, Holding, ProgressKey, RetryTerms, Span};
use grus_broker::error::QueueError;
use grus_broker::topic_queue::{
    Account, Answered, AnswersTaken, At, ClaimTaken, Failed, GivenUp, GroupAsk, ListedOffset,
    QueueHandle, SubscriptionAsk, SubscriptionKey,
};
use grus_mailbox::Port;
use grus_protocol::error::ErrorCode;
use grus_protocol::ids::{Generation, MemberId, Offset, QueueKey, SubscriptionId};
use grus_protocol::message::MessageFilter;

use super::super::facts::{Back, Dice, Fact, Holder, Scribe};
use super::super::town::{GROUP, Town};
use super::super::wire::{Push, Wire};
use super::{AGAIN_MS, DELIVERIES_MAX, FAILS_REASON, GIVES_UP_REASON, Heard, IN_WORK_MAX, Program};

/// Messages that it may have in work of one queue.
const CREDIT: u32 = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ack,
    Fail,
    Dead,
}

/// What it has told the leader of a queue.
pub(in super::super) struct Told {
    offsets: Vec<u64>,
    has_handed_back: bool,
    /// Which word of the leaders the answer to it was; 0: none.
    answered: Arc<AtomicU64>,
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
    /// Its subscription, if it has asked for one.
    subscription: Option<SubscriptionKey>,
    /// Came, and was not looked at yet.
    unseen: VecDeque<u64>,
    /// When each message in work is done.
    work: BTreeMap<u64, u64>,
    done: BTreeMap<u64, Verdict>,
    /// What was answered and not acknowledged by the leader yet.
    under_way: BTreeSet<u64>,
    /// Came while it was on its way to the leader what became of it, and which word of the leaders that was.
    again: BTreeMap<u64, u64>,
    is_telling: bool,
    settle_from_ms: u64,
    pub(super) is_revoked: bool,
    /// Said, as often as it tries to, what of it nobody has seen.
    pub(super) is_handed_back: bool,
}

impl Program {
    fn held(&mut self, by: Holder) -> Option<&mut Held> {
        let held = self.queues.get_mut(&by.queue)?;
        (held.by.generation == by.generation && held.by.member == by.member).then_some(held)
    }

    /// Finishes what is done by now, and takes on more.
    pub(super) fn work(&mut self, now_ms: u64) {
        self.finish(now_ms);
        for held in self.queues.values_mut().filter(|held| !held.is_revoked) {
            while held.work.len() < IN_WORK_MAX
                && let Some(offset) = held.unseen.pop_front()
            {
                if self.life.poison == (held.by.queue, offset) {
                    self.killed_by = Some(offset);
                }
                held.work.insert(offset, now_ms + 1 + self.life.dice.below(60));
            }
        }
    }

    fn finish(&mut self, now_ms: u64) {
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
        let is_other = held.subscription.is_none_or(|key| key.connection != connection);
        if held.stage == Stage::Runs && is_other && !held.is_revoked {
            held.stage = Stage::Wants(now_ms); // its connection is no more
        }
        let lets_go = held.is_revoked && held.is_drained();
        let owes = lets_go && !held.is_handed_back && held.stage == Stage::Runs;
        if lets_go && !owes && held.done.is_empty() && !held.is_telling {
            let (by, subscription) = (held.by, held.subscription);
            self.queues.remove(&key);
            self.unsubscribe(by, subscription);
            return self.note(Fact::LetGo { queue: key, member: by.member });
        }
        let (by, may_claim) = (held.by, !held.is_telling && !held.is_revoked);
        if !held.is_telling && held.settle_from_ms <= now_ms && (owes || !held.done.is_empty()) {
            return self.settle(key);
        }
        if matches!(held.stage, Stage::Wants(from_ms) if may_claim && from_ms <= now_ms) {
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
                let asked_ns = scribe.now_ns();
                let seen = seen(reply, move |taken: &Result<ClaimTaken, QueueError>| match taken {
                    Ok(taken) => {
                        let by = Holder { round: taken.claimed.round, ..by };
                        scribe.note(Fact::Claimed { by, floor: taken.claimed.floor.0, asked_ns });
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
        self.subscriptions += 1;
        let key = SubscriptionKey { connection, id: SubscriptionId(self.subscriptions) };
        if let Some(held) = self.held(by) {
            held.subscription = Some(key);
        }
        let wire = Wire {
            by,
            key,
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
                Heard::Subscribed(by, key, listed)
            },
        );
    }

    pub(super) fn subscribed(
        &mut self,
        by: Holder,
        key: SubscriptionKey,
        result: &Result<ListedOffset, Option<QueueError>>,
    ) {
        let again_ms = self.now_ms() + AGAIN_MS;
        let Some(held) = self.held(by) else { return };
        if held.stage != Stage::Asked || held.subscription != Some(key) {
            return;
        }
        match result {
            Ok(_) => held.stage = Stage::Runs,
            Err(Some(QueueError::NotHeld { .. })) => self.is_fenced(by),
            Err(_) => held.stage = Stage::Wants(again_ms),
        }
    }

    fn unsubscribe(&mut self, by: Holder, subscription: Option<SubscriptionKey>) {
        let Some(key) = subscription else { return };
        let town = Rc::clone(&self.life.town);
        self.call(
            move |reply: Port<Result<(), QueueError>>| {
                if let Some(queue) = town.queue(by.queue) {
                    let _ = queue.subscribe.try_put(SubscriptionAsk::Unsubscribe { key, reply });
                }
            },
            |_| Heard::Tick,
        );
    }

    pub(super) fn pushed(&mut self, by: Holder, key: SubscriptionKey, push: Push) {
        let now_ms = self.now_ms();
        let Some(held) = self.held(by).filter(|held| held.by.round == by.round) else { return };
        match push {
            Push::Messages(messages, word) => {
                if held.is_revoked {
                    return;
                }
                for (offset, _) in messages {
                    if held.under_way.contains(&offset) {
                        held.again.insert(offset, word);
                    } else if !held.has(offset) {
                        held.unseen.push_back(offset);
                    }
                }
            }
            Push::End(ErrorCode::Fenced) => {
                self.note(Fact::Refused { by, fenced: true });
                self.is_fenced(by);
            }
            Push::End(_) if held.subscription == Some(key) => {
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
            match (held.done.is_empty(), held.is_telling) {
                (false, false) => self.settle(key),
                (true, false) if held.stage == Stage::Runs => self.claim(by),
                _ => {}
            }
        }
    }

    /// Answers for what is done.
    fn settle(&mut self, key: QueueKey) {
        let Some(held) = self.queues.get_mut(&key) else { return };
        held.under_way = held.done.keys().copied().collect();
        held.is_telling = true;
        let (by, back) = (held.by, held.hands_back());
        let is_unseen = |back: &Back| held.unseen.iter().any(|offset| *offset >= back.unseen_from);
        let has_unseen = back.as_ref().is_some_and(is_unseen);
        let of = |wanted: Verdict| -> Vec<u64> {
            let all = held.done.iter().filter(|(_, verdict)| **verdict == wanted);
            all.map(|(offset, _)| *offset).collect()
        };
        let (acks, failed, dead) = (of(Verdict::Ack), of(Verdict::Fail), of(Verdict::Dead));
        let offsets: Vec<u64> = held.done.keys().copied().collect();
        let answered_by = Arc::new(AtomicU64::new(0));
        let told =
            Told { offsets, has_handed_back: back.is_some(), answered: Arc::clone(&answered_by) };
        let one = |offset: &u64| Span { from: Offset(*offset), to: Offset(offset + 1) };
        let answered = Answered {
            holding: Self::holding(by),
            acks: acks.iter().map(one).collect(),
            failed: failed.iter().map(|offset| fails(*offset)).collect(),
            given_up: dead.iter().map(|offset| gives_up(*offset)).collect(),
            hands_back: back.as_ref().map(|back| HandBack {
                holding: Self::holding(by),
                unseen_from: Offset(back.unseen_from),
                in_work: back.in_work.iter().map(one).collect(),
            }),
        };
        let over = [acks, dead].concat();
        let (town, scribe) = (Rc::clone(&self.life.town), self.life.town.scribe.clone());
        self.call(
            move |reply| {
                if town.queue(by.queue).is_some() {
                    let (failed, back) = (failed.clone(), back.clone());
                    scribe.note(Fact::Answering { by, failed, back });
                }
                let asked_ns = scribe.now_ns();
                let seen =
                    seen(reply, move |settled: &Result<AnswersTaken, QueueError>| match settled {
                        Ok(_) => {
                            answered_by.store(scribe.next_word(), Relaxed);
                            scribe.note(Fact::Settled { by, over, failed, back, asked_ns });
                            if has_unseen {
                                scribe.handed_back_unseen();
                            }
                        }
                        Err(error) => refused(&scribe, by, error),
                    });
                ask(&town, by.queue, GroupAsk::Settle { answered, reply: seen });
            },
            move |settled: Option<Result<_, _>>| {
                let settled = settled.map_or(Err(None), |settled| settled.map_err(Some));
                Heard::Settled(by, told, settled)
            },
        );
    }

    pub(super) fn settled(
        &mut self,
        by: Holder,
        told: &Told,
        result: &Result<AnswersTaken, Option<QueueError>>,
    ) {
        let now_ms = self.now_ms();
        let Some(held) = self.held(by).filter(|held| held.by.round == by.round) else { return };
        held.under_way.clear();
        held.is_telling = false;
        let again = std::mem::take(&mut held.again);
        match result {
            Ok(_) => {
                held.is_handed_back |= told.has_handed_back;
                held.done.retain(|offset, _| !told.offsets.contains(offset));
                if !held.is_revoked {
                    // A connection keeps the order. What the leader sent before it answered is taken for what
                    // was answered for, as a client takes it.
                    let answered = told.answered.load(Relaxed);
                    let behind = again.into_iter().filter(|(_, word)| *word > answered);
                    held.unseen.extend(behind.map(|(offset, _)| offset));
                }
                held.settle_from_ms = now_ms + 30;
                let more = u32::try_from(told.offsets.len()).unwrap();
                if let Some(key) = held.subscription {
                    self.give_credit(by.queue, key, more);
                }
            }
            Err(Some(QueueError::NotHeld { .. })) => self.is_fenced(by),
            Err(Some(QueueError::ProgressReset { .. })) => {
                held.forgets();
                held.stage = Stage::Wants(now_ms);
            }
            Err(_) => held.settle_from_ms = now_ms + AGAIN_MS,
        }
    }

    fn give_credit(&mut self, queue: QueueKey, key: SubscriptionKey, more: u32) {
        let town = Rc::clone(&self.life.town);
        self.call(
            move |reply: Port<Result<(), QueueError>>| {
                if let Some(queue) = town.queue(queue) {
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
            subscription: None,
            unseen: VecDeque::new(),
            work: BTreeMap::new(),
            done: BTreeMap::new(),
            under_way: BTreeSet::new(),
            again: BTreeMap::new(),
            is_telling: false,
            settle_from_ms: 0,
            is_revoked: false,
            is_handed_back: false,
        }
    }

    fn has(&self, offset: u64) -> bool {
        let is_seen = self.work.contains_key(&offset) || self.done.contains_key(&offset);
        is_seen || self.under_way.contains(&offset) || self.unseen.contains(&offset)
    }

    /// Whether it waits for nothing more of what it has in work: some do not at all.
    fn is_drained(&self) -> bool {
        self.work.is_empty() || Dice::new(self.by.generation, self.by.member).below(3) == 0
    }

    /// What it says as it lets go.
    fn hands_back(&self) -> Option<Back> {
        let lets_go = self.is_revoked && self.is_drained() && self.stage == Stage::Runs;
        (lets_go && !self.is_handed_back).then(|| {
            let in_work: Vec<u64> = self.work.keys().copied().collect();
            Back { unseen_from: in_work.last().map_or(0, |last| last + 1), in_work }
        })
    }

    /// Its progress was set elsewhere: what it has in hands is of no account.
    fn forgets(&mut self) {
        self.unseen.clear();
        self.work.clear();
        self.done.clear();
        self.under_way.clear();
        self.again.clear();
    }
}

fn fails(offset: u64) -> Failed {
    Failed { offset: Offset(offset), retry_after_ms: None, reason: FAILS_REASON.into() }
}

fn gives_up(offset: u64) -> GivenUp {
    GivenUp { offset: Offset(offset), reason: GIVES_UP_REASON.into() }
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
