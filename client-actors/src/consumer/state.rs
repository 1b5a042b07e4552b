//! A member of a group: which queues are its own, what is in work, what is to be told. No clock, no
//! I/O: it is told what happens, and polled for what to do.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use grus_protocol::message::{
    AssignTopic, DivideQueues, GroupHeartbeatReply, GroupSettings, GroupSubscription,
    JoinGroupReply, OffsetRange, QueuePlace,
};
use grus_protocol::{Offset, TopicName};

use super::assigning::filter_of;
use super::broadcast::Broadcast;
use super::membership::{Joined, MemberAsk, Membership, News};
use super::messages::NoMore;
use super::patience::Patience;
use super::progress_file::OwnProgress;
use super::queue::{HandItem, OwnedQueue, Phase, Waiter};
use super::settling::{Told, Verdict};
use crate::backoff::{Backoff, Jitter};
use crate::error::Refusal;
use crate::route::{Ask as AskRoute, LinkId, Route};

/// An answer that has not come after so long is not waited for any longer.
const ANSWER_MS_MAX: u64 = 10_000;

/// How a consumer works, as far as its logic needs to know.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerSettings {
    /// Whether messages are acked before they are handed out.
    pub(crate) acks_before: bool,
    /// Most messages of a queue on the way and in hand.
    pub(crate) queue_messages_max: u32,
    /// Most bytes of all queues on the way and in hand.
    pub(crate) bytes_max: u32,
    /// How long work on a queue that is to go may last.
    pub(crate) revoke_ms_max: u64,
    /// How long it waits to be a member at first; none: as long as it takes.
    pub(crate) join_ms_max: Option<u64>,
}

/// A request about a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueueAsk {
    pub(crate) link: LinkId,
    pub(crate) slot: u64,
    pub(crate) number: u64,
    pub(crate) what: QueueWord,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum QueueWord {
    Claim,
    Subscribe { credit: (u32, u32) },
    Ack(Told),
}

/// Something to tell a broker about a subscription; it does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Telling {
    Credit { link: LinkId, slot: u64, number: u64, credit: (u32, u32) },
    Leave { link: LinkId, number: u64 },
}

/// What the program hears about its queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Assigned,
    Revoked,
    Lost,
}

/// A change, and the queues that it is about.
pub(crate) type Changed = (Change, Vec<(TopicName, QueuePlace)>);

/// The way to a topic's queues.
#[derive(Debug)]
pub(super) struct Way {
    pub(super) ask: AskRoute,
    pub(super) route: Option<Route>,
    pub(super) backoff: Backoff,
}

/// See the module documentation. `P` waits to hear that an answer has arrived.
#[derive(Debug)]
pub(crate) struct ConsumerState<P> {
    pub(super) settings: ConsumerSettings,
    pub(super) membership: Membership,
    pub(super) subscriptions: Vec<GroupSubscription>,
    /// By slot.
    pub(super) queues: BTreeMap<u64, OwnedQueue<P>>,
    pub(super) slots: HashMap<QueuePlace, u64>,
    pub(super) ways: BTreeMap<TopicName, Way>,
    pub(super) up: Vec<LinkId>,
    /// Slots that may have something to ask.
    pub(super) look: BTreeSet<u64>,
    /// Slots that have nothing to ask, and may have something to tell.
    pub(super) asked: BTreeSet<u64>,
    /// Slots with something to take, in turn.
    ready: VecDeque<u64>,
    pub(super) live: HashMap<u64, u64>,
    pub(super) next_slot: u64,
    pub(super) next_number: u64,
    pub(super) jitter: Jitter,
    pub(super) leaving: Vec<(LinkId, u64)>,
    pub(super) leftovers: VecDeque<HandItem>,
    changes: VecDeque<Changed>,
    pub(super) refused: Option<NoMore>,
    pub(super) patience: Patience,
    pub(super) was_member: bool,
    /// It waits no longer to be a member, and the program is to hear why.
    pub(super) is_giving_up: bool,
    /// It is to leave: by when at the latest.
    pub(super) stopping_by_ms: Option<u64>,
    /// What it keeps itself, as a member of a broadcast group.
    pub(super) broadcast: Option<Broadcast>,
    /// Who waited for an answer to be known, and hears now.
    heard: Vec<P>,
}

impl<P> ConsumerState<P> {
    /// One that joins first.
    pub(crate) fn new(
        settings: ConsumerSettings,
        subscriptions: Vec<GroupSubscription>,
        seed: u64,
    ) -> Self {
        let mut jitter = Jitter::new(seed);
        Self {
            settings,
            membership: Membership::new(jitter.next()),
            subscriptions,
            queues: BTreeMap::new(),
            slots: HashMap::new(),
            ways: BTreeMap::new(),
            up: Vec::new(),
            look: BTreeSet::new(),
            asked: BTreeSet::new(),
            ready: VecDeque::new(),
            live: HashMap::new(),
            next_slot: 0,
            next_number: 1,
            jitter,
            leaving: Vec::new(),
            leftovers: VecDeque::new(),
            changes: VecDeque::new(),
            refused: None,
            patience: Patience::default(),
            was_member: false,
            is_giving_up: false,
            stopping_by_ms: None,
            broadcast: None,
            heard: Vec::new(),
        }
    }

    /// The same as a member of a broadcast group, which goes on where its file says.
    pub(crate) fn with_progress(mut self, progress: Option<OwnProgress>) -> Self {
        self.broadcast = progress.map(Broadcast::new);
        self
    }

    /// Who waited for an answer to be known.
    pub(crate) fn take_heard(&mut self) -> Vec<P> {
        std::mem::take(&mut self.heard)
    }

    /// What it wants.
    pub(crate) fn subscriptions(&self) -> &[GroupSubscription] {
        &self.subscriptions
    }

    /// A queue of its own.
    pub(crate) fn queue(&self, slot: u64) -> Option<&OwnedQueue<P>> {
        self.queues.get(&slot)
    }

    /// As what it has joined, and how the group works.
    pub(crate) fn member(&self) -> Option<(Joined, &GroupSettings)> {
        Some((self.membership.joined()?, self.membership.settings()))
    }

    /// Until when messages may be handed out; after it, the queues may be another's.
    pub(crate) fn safe_until_ms(&self) -> u64 {
        if self.broadcast.is_some() && self.was_member {
            return u64::MAX; // nobody else's they are
        }
        self.membership.safe_until_ms()
    }

    /// What has changed about its queues, once each.
    pub(crate) fn poll_change(&mut self) -> Option<Changed> {
        self.changes.pop_front()
    }

    /// Wants other things from now on.
    pub(crate) fn subscribe(&mut self, subscriptions: Vec<GroupSubscription>) {
        self.subscriptions = subscriptions;
        self.membership.join_again();
        for queue in self.queues.values_mut() {
            let filter = filter_of(&self.subscriptions, &queue.topic);
            if queue.filter != filter {
                queue.filter = filter;
                self.leaving.extend(queue.link.zip(queue.subscription()));
                if let Some(number) = queue.subscription() {
                    self.live.remove(&number);
                }
                queue.unsubscribed();
                self.look.insert(queue.slot);
            }
        }
    }

    // Membership.

    /// The next request to the coordinator.
    pub(crate) fn poll_member(&mut self, now_ms: u64) -> Option<MemberAsk> {
        let holding: Vec<_> = self
            .queues
            .values()
            .filter(|queue| queue.revoked_by_ms.is_some() && queue.comes_back.is_none())
            .map(|queue| queue.place)
            .collect();
        let number = self.next_number + 1;
        let ask = self.membership.poll(number, &holding, now_ms)?;
        self.next_number = number;
        Some(ask)
    }

    /// It has joined.
    pub(crate) fn joined(&mut self, number: u64, reply: JoinGroupReply, now_ms: u64) {
        let time = reply.time;
        let news = self.membership.is_member(number, reply);
        if self.membership.joined().is_some()
            && let Some(own) = &mut self.broadcast
        {
            own.joined(time);
        }
        self.hear(news, now_ms);
        self.was_member |= self.membership.joined().is_some();
        if let Some(refusal) = self.of_other_model() {
            self.refused = Some(NoMore::Refused(refusal));
            self.membership.leave(now_ms);
        }
    }

    /// A heartbeat was answered.
    pub(crate) fn heard(&mut self, number: u64, reply: GroupHeartbeatReply, now_ms: u64) {
        let news = self.membership.is_heard(number, reply);
        self.hear(news, now_ms);
    }

    /// What the program is to divide, once.
    pub(crate) fn take_question(&mut self) -> Option<DivideQueues> {
        self.membership.take_question()
    }

    /// The program has divided it, or has no function for that.
    pub(crate) fn divided(&mut self, question: u64, topics: Option<Vec<AssignTopic>>) {
        self.membership.divided(question, topics);
    }

    /// What it has divided was taken.
    pub(crate) fn division_taken(&mut self, number: u64) {
        self.membership.is_taken(number);
    }

    /// It has left.
    pub(crate) fn left(&mut self, number: u64, now_ms: u64) {
        let news = self.membership.has_left(number);
        self.hear(news, now_ms);
    }

    /// The coordinator refused.
    pub(crate) fn member_refused(&mut self, number: u64, refusal: Refusal, now_ms: u64) {
        let news = self.membership.is_refused(number, refusal, now_ms);
        self.hear(news, now_ms);
    }

    /// A request to the coordinator got no answer.
    pub(crate) fn member_unanswered(&mut self, number: u64, now_ms: u64) {
        let news = self.membership.is_lost(number, now_ms);
        self.hear(news, now_ms);
    }

    fn hear(&mut self, news: News, now_ms: u64) {
        match news {
            News::None => {}
            News::Lost if self.broadcast.is_some() => {} // it reads on, and joins again
            News::Lost | News::Left => self.lose_all(),
            News::Refused(refusal) => {
                self.refused = Some(NoMore::Refused(refusal));
                if self.membership.is_over() {
                    self.lose_all();
                }
            }
            News::Assigned(assigned) => self.assigned(assigned, now_ms),
        }
    }

    pub(super) fn tell(&mut self, change: Change, queues: Vec<(TopicName, QueuePlace)>) {
        if !queues.is_empty() {
            self.changes.push_back((change, queues));
        }
    }

    pub(super) fn note_ready(&mut self, slot: u64) {
        let has_ready = self.queues.get(&slot).is_some_and(OwnedQueue::has_ready);
        if has_ready && !self.ready.contains(&slot) {
            self.ready.push_back(slot);
        }
    }

    /// The program wants messages: has up to so many of them acked where they are to be acked first,
    /// queue by queue in turn. No more: what is acked and never handed out is lost.
    pub(crate) fn ack_ahead(&mut self, messages_max: u64, now_ms: u64) {
        let is_under_way = || self.queues.values().any(OwnedQueue::is_acking_ahead);
        if !self.settings.acks_before || now_ms >= self.safe_until_ms() || is_under_way() {
            return;
        }
        let mut left = messages_max;
        while left > 0
            && let Some(slot) = self.ready.pop_front()
        {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            left -= queue.ack_ahead(left, now_ms);
            if queue.has_ready() {
                self.ready.push_back(slot);
            }
            self.look.insert(slot);
        }
    }

    /// What is ready to be handed out, queue by queue in turn; nothing while that is not safe.
    pub(crate) fn take(&mut self, now_ms: u64) -> Vec<HandItem> {
        let mut taken: Vec<_> = self.leftovers.drain(..).collect();
        if self.settings.acks_before {
            taken.extend(self.queues.values_mut().flat_map(OwnedQueue::take_acked));
            return taken;
        }
        if now_ms >= self.safe_until_ms() {
            return taken;
        }
        while let Some(slot) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&slot) else { continue };
            taken.extend(queue.take());
            if queue.has_ready() {
                self.ready.push_back(slot);
            }
        }
        taken
    }

    /// Why it cannot be a member, or not of what it wants, once.
    pub(crate) fn take_refusal(&mut self) -> Option<NoMore> {
        self.refused.take()
    }

    /// The program has answered for a message; `port` hears when the broker knows, and is dropped
    /// when the answer does not count any more.
    pub(crate) fn settle(
        &mut self,
        slot: u64,
        at: (u64, Offset),
        verdict: Verdict,
        port: Option<P>,
        now_ms: u64,
    ) {
        let verdict = if self.broadcast.is_none() || self.settings.acks_before {
            verdict
        } else if let Some(verdict) = self.failed_here(slot, at, verdict, now_ms) {
            verdict
        } else {
            self.heard.extend(port); // nobody else has to know
            self.look.insert(slot);
            return self.release(now_ms);
        };
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        queue.settle(at, verdict, port.map(Waiter::Program), now_ms);
        self.answered(slot, now_ms);
    }

    /// The program is done with these messages of an item, as [`ConsumerState::settle`].
    pub(crate) fn ack_ranges(
        &mut self,
        slot: u64,
        (item, ranges): (u64, &[OffsetRange]),
        port: Option<P>,
        now_ms: u64,
    ) {
        let Some(queue) = self.queues.get_mut(&slot) else { return };
        queue.ack_ranges(item, ranges, port.map(Waiter::Program), now_ms);
        self.answered(slot, now_ms);
    }

    fn answered(&mut self, slot: u64, now_ms: u64) {
        if let Some(queue) = self.queues.get_mut(&slot).filter(|one| one.revoked_by_ms.is_some()) {
            queue.settling.hurry();
            self.release(now_ms);
        }
        self.look.insert(slot);
    }

    /// Whether nothing is due soon: it has what it asked for, and waits for messages and for news.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_served = |queue: &OwnedQueue<P>| {
            let is_settled = matches!(queue.phase, Phase::Live { .. } | Phase::Fenced);
            let is_staying = queue.revoked_by_ms.is_none();
            is_settled && is_staying && queue.local.is_none() && queue.settling.is_at_rest()
        };
        self.membership.is_at_rest()
            && self.stopping_by_ms.is_none()
            && self.leaving.is_empty()
            && self.asked.is_empty()
            && self.ways.values().all(|way| way.ask == AskRoute::Rest)
            && self.queues.values().all(is_served)
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        let news = self.membership.tick(now_ms);
        self.hear(news, now_ms);
        self.retry_here(now_ms);
        self.release(now_ms);
        for queue in self.queues.values_mut() {
            self.leaving.extend(queue.expire(now_ms, ANSWER_MS_MAX));
            queue.note_wait(now_ms);
            self.look.insert(queue.slot);
        }
        if self.stopping_by_ms.is_some() && self.queues.is_empty() && !self.membership.is_over() {
            self.membership.leave(now_ms);
        }
    }
}
