//! Consumer: a member of a group, that brings the program the messages of the queues that are its own.
//!
//! ```text
//! program --Take, Settle--> [Consumer] --Ask (JoinGroup, GroupHeartbeat)--> Router --> coordinator
//!    ^                         |  ^----- MemberAnswered ------------------------'
//!    '-- reply port -----------'  |--Call (ClaimQueue, SubscribeGroup, AckMessages)--> Link --> leaders
//!                                 '----- QueueAnswered; Pushed -----------------------'
//! ```
//!
//! As a member of a broadcast group it claims and acks nothing at the brokers: it reads its queues by
//! ordinary subscriptions, and what is settled goes into a file of its own ([`keeping`](self::keeping)).
//!
//! * Owns: which queues are its own, what of them is in work, what is to be told
//!   ([`state`](self::state)).
//! * Lives on: the client's arbiter.
//! * Inbox: [`Take`], [`Settle`], [`AckRanges`], [`Resubscribe`], [`StopConsumer`], [`MemberAnswered`],
//!   [`QueueAnswered`], [`Pushed`], [`Routed`], [`LinkChanged`], [`Kept`], [`Outlook`], [`Tick`]. What is pushed is bounded by
//!   the credit that was given for it, and so are the answers of the program.
//! * Talks to: links, Router; the program by reply port.
//! * Stops: once what is in work is settled and it has left, when it is told so by [`StopConsumer`];
//!   at once when its door is dropped: brokers hear that its subscriptions end, and that it leaves.
//! * If it panics: the program hears that the consumer is closed. Its lease ends, and others get what
//!   it had not settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_mailbox::{Credit, Drained, Inbox, Port, Receive, Resident, Room, Tick};
use grus_protocol::message::{AssignTopic, DivideQueues, GroupDeliver, GroupSubscription};
use grus_protocol::{Frame, TopicName};

use crate::link::{ANSWERS_MAX, Call, LinkChanged, LinkState, Pushed, PushesTo, Subscribe};
use crate::producer::RouterDoors;
use crate::progress_store::ProgressStore;
use crate::reader::requests::{credit_frame, number_of, split, unsubscribe_frame};
use crate::route::{ASK_MS_MAX, LinkId};
use crate::router::{Ask, FindRoute, LinkHandle, Routed, reply_of, unavailable};

mod answers;
mod assigning;
pub(crate) mod broadcast;
#[cfg(test)]
mod broadcast_cases;
mod complaining;
mod ending;
mod item;
mod keeping;
pub(crate) mod local;
pub(crate) mod membership;
mod messages;
#[cfg(test)]
mod model;
pub(crate) mod offsets;
mod patience;
pub(crate) mod progress_file;
pub(crate) mod queue;
pub(crate) mod requests;
mod routing;
mod serving;
pub(crate) mod settling;
pub(crate) mod state;

pub(crate) use messages::{AckRanges, Gate, NoMore, Resubscribe, Settle, StopConsumer, Take};
pub(crate) use queue::HandItem;
pub(crate) use settling::Verdict;

use complaining::Outlook;
use keeping::Kept;
use membership::{MemberAsk, MemberWord};
pub(crate) use messages::{MemberAnswered, QueueAnswered};
use messages::{MemberKind, QueueKind};
use progress_file::OwnProgress;
use requests::{Identity, member_frame, queue_frame, reading_frame};
use state::{Changed, ConsumerSettings, ConsumerState, QueueAsk, QueueWord, Telling};

/// How often it looks at the time while something is due soon.
const TICK: Duration = Duration::from_millis(25);
/// The same while nothing is, so that ten thousand members that wait cost next to nothing.
const RESTING_TICK: Duration = Duration::from_millis(250);
/// Complaints under way: one now and then.
const OUTLOOKS_MAX: u32 = 16;

/// What the program hears of besides messages.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word<'a> {
    Queues(&'a Changed),
    Waiting(&'a str),
}

/// Divides the queues of a group.
pub(crate) type Divide = Arc<dyn Fn(&DivideQueues) -> Option<Vec<AssignTopic>> + Send + Sync>;

/// What a consumer is made of.
#[derive(Clone)]
pub(crate) struct ConsumerParts {
    pub(crate) identity: Identity,
    pub(crate) settings: ConsumerSettings,
    pub(crate) subscriptions: Vec<GroupSubscription>,
    pub(crate) router: RouterDoors,
    pub(crate) gate: Gate,
    /// Told of changes about queues, and of what is waited for; called on the client's thread.
    pub(crate) on_word: Arc<dyn Fn(Word<'_>) + Send + Sync>,
    /// Divides the group's queues; none: the program has no function for that, or it failed.
    pub(crate) divide: Option<Divide>,
    pub(crate) owner: u32,
    pub(crate) seed: u64,
    /// As a member of a broadcast group: its file, and what was in it.
    pub(crate) own: Option<(Arc<ProgressStore>, OwnProgress)>,
}

/// See the module documentation.
pub(crate) struct ConsumerActor {
    parts: ConsumerParts,
    state: ConsumerState<Port<()>>,
    links: HashMap<LinkId, OpenLink>,
    own: Option<OwnInboxes>,
    taker: Option<Take>,
    stoppers: Vec<Port<()>>,
    is_resting: bool,
    lives: u32,
}

/// The inboxes by which others answer.
struct OwnInboxes {
    members: Inbox<MemberAnswered>,
    queues: Inbox<QueueAnswered>,
    routes: Inbox<Routed>,
    changes: Inbox<LinkChanged>,
    pushes: Inbox<Pushed>,
    kept: Inbox<Kept>,
    outlooks: Inbox<Outlook>,
}

struct OpenLink {
    calls: Inbox<Call>,
    session: Option<u64>,
}

impl ConsumerActor {
    /// A consumer that joins at once, if this is the first of its `lives`.
    pub(crate) fn new(parts: ConsumerParts, lives: u32) -> Self {
        let (settings, subscriptions) = (parts.settings.clone(), parts.subscriptions.clone());
        let progress = parts.own.as_ref().map(|(_, progress)| progress.clone());
        let state = ConsumerState::new(settings, subscriptions, parts.seed).with_progress(progress);
        Self {
            parts,
            state,
            links: HashMap::new(),
            own: None,
            taker: None,
            stoppers: Vec::new(),
            is_resting: false,
            lives,
        }
    }

    fn pump(&mut self, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        if let Some(question) = self.state.take_question() {
            let topics = self.parts.divide.as_ref().and_then(|divide| divide(&question));
            self.state.divided(question.question, topics);
        }
        while let Some(ask) = self.state.poll_member(now_ms) {
            self.ask_coordinator(ask);
        }
        while let Some(topic) = self.state.poll_route(now_ms) {
            self.find_route(topic, now_ms);
        }
        if let Some(taker) = &self.taker {
            self.state.ack_ahead(taker.messages_max, now_ms);
        }
        while let Some(ask) = self.state.poll_ask(now_ms) {
            if !self.ask_leader(&ask) {
                self.state.not_asked(&ask, now_ms);
                break; // with the next tick
            }
        }
        while let Some(telling) = self.state.poll_tell() {
            if !self.tell(telling) {
                self.state.not_told(telling);
                break;
            }
        }
        self.keep(now_ms);
        self.state.take_heard().into_iter().for_each(|done| done.send(()));
        self.parts.gate.open_until(self.state.safe_until_ms());
        while let Some(change) = self.state.poll_change() {
            (self.parts.on_word)(Word::Queues(&change));
        }
        if let Some(complaint) = self.state.poll_complaint(now_ms) {
            self.complain(complaint);
        }
        self.hand_out(now_ms);
        if self.state.is_over(now_ms) {
            self.stoppers.drain(..).for_each(|done| done.send(()));
            room.stop();
        }
    }

    fn hand_out(&mut self, now_ms: u64) {
        let Some(taker) = self.taker.take() else { return };
        if let Some(refusal) = self.state.take_refusal() {
            return taker.reply.send(Err(refusal));
        }
        let items = if taker.only_open { Vec::new() } else { self.state.take(now_ms) };
        if !items.is_empty() || (taker.only_open && now_ms < self.state.safe_until_ms()) {
            taker.reply.send(Ok(items));
        } else {
            self.taker = Some(taker);
        }
    }

    fn ask_coordinator(&self, ask: MemberAsk) {
        let Some(to) = self.own.as_ref().map(|own| own.members.clone()) else { return };
        let MemberAsk { number, to: broker, what, deadline_ms } = ask;
        let kind = match what {
            MemberWord::Join => MemberKind::Join,
            MemberWord::Heartbeat { .. } => MemberKind::Heartbeat,
            MemberWord::Leave { .. } => MemberKind::Leave,
            MemberWord::Assign { .. } => MemberKind::Assign,
        };
        let frame = member_frame(&self.parts.identity, self.state.subscriptions(), &what);
        let answer = Port::call(move |answer| {
            let _ = to.try_put(MemberAnswered { number, kind, answer });
        });
        // A router that has no room drops the port, which answers.
        let _ = self.parts.router.ask.try_put(Ask { to: broker, frame, deadline_ms, answer });
    }

    fn find_route(&mut self, topic: TopicName, now_ms: u64) {
        let Some(own) = &self.own else { return };
        let (name, to) = (topic.clone(), own.routes.clone());
        let find = FindRoute { topic, auto_create: false, deadline_ms: now_ms + ASK_MS_MAX, to };
        if self.parts.router.find.try_put(find).is_err() {
            self.state.route(&name, Err(unavailable("client is busy or closed")), now_ms);
        }
    }

    fn ask_leader(&self, ask: &QueueAsk) -> bool {
        let Some(to) = self.own.as_ref().map(|own| own.queues.clone()) else { return false };
        let Some(frame) = self.frame_of(ask) else { return false };
        let (slot, number) = (ask.slot, ask.number);
        let kind = match ask.what {
            QueueWord::Claim => QueueKind::Claim,
            QueueWord::Subscribe { .. } => QueueKind::Subscribe,
            QueueWord::Ack(_) => QueueKind::Ack,
        };
        let answer = Port::call(move |answer| {
            let _ = to.try_put(QueueAnswered { slot, number, kind, answer });
        });
        self.call(ask.link, frame, Some(answer))
    }

    fn frame_of(&self, ask: &QueueAsk) -> Option<BytesMut> {
        let (queue, joined) = (self.state.queue(ask.slot)?, self.state.member()?);
        let word = (ask.number, &ask.what);
        if let (Some(_), QueueWord::Subscribe { credit }) = (&self.parts.own, &ask.what) {
            let at = self.state.start_of(ask.slot);
            return Some(reading_frame(queue, (ask.number, *credit), at, self.parts.owner));
        }
        Some(queue_frame(&self.parts.identity, joined, queue, word, self.parts.owner))
    }

    fn tell(&self, telling: Telling) -> bool {
        let owner = self.parts.owner;
        let (link, frame) = match telling {
            Telling::Credit { link, number, credit, .. } => {
                (link, credit_frame(owner, number, credit))
            }
            Telling::Leave { link, number } => (link, unsubscribe_frame(owner, number)),
        };
        self.call(link, frame, None)
    }

    fn call(&self, link: LinkId, frame: BytesMut, answer: Option<Port<Frame>>) -> bool {
        let Some(OpenLink { calls, session: Some(session) }) = self.links.get(&link) else {
            return false;
        };
        calls.try_put(Call { session: *session, frame, body: Bytes::new(), answer }).is_ok()
    }

    fn pushed(&mut self, frame: &Frame, now_ms: u64) {
        let number = number_of(frame);
        if self.parts.own.is_some() {
            return self.pushed_here(number, frame, now_ms);
        }
        match reply_of::<GroupDeliver>(frame) {
            Ok(push) => match split(&push.batches, frame) {
                Ok(batches) => self.state.delivered(number, &push, batches, now_ms),
                Err(damage) => self.state.pushed_wrongly(number, &damage, now_ms),
            },
            Err(refusal) if frame.head.is_error() => self.state.ended(number, &refusal, now_ms),
            Err(nonsense) => self.state.pushed_wrongly(number, &nonsense.message, now_ms),
        }
    }
}

impl Resident for ConsumerActor {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        if self.lives > 1 {
            return room.stop(); // what it had in work is not known any more
        }
        room.tick_every(TICK);
        self.own = Some(OwnInboxes {
            members: room.inbox(ANSWERS_MAX),
            queues: room.inbox(ANSWERS_MAX),
            routes: room.inbox(ANSWERS_MAX),
            changes: room.inbox(ANSWERS_MAX),
            pushes: room.inbox(ANSWERS_MAX),
            kept: room.inbox(1),
            outlooks: room.inbox(OUTLOOKS_MAX),
        });
        self.pump(room);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        // The connections stay, for others: nothing more is to be sent over them for this one.
        for (link, number) in self.state.abandon() {
            self.call(link, unsubscribe_frame(self.parts.owner, number), None);
        }
        let now_ms = room.clock().monotonic_ms();
        for ask in self.state.abandon_acks(now_ms) {
            if let Some(frame) = self.frame_of(&ask) {
                self.call(ask.link, frame, Some(Port::call(|_| ()))); // nobody is left to hear it
            }
        }
        if let Some(ask) = self.state.abandon_membership(now_ms) {
            self.ask_coordinator(ask);
        }
    }
}

impl Receive<Take> for ConsumerActor {
    fn receive(&mut self, take: Take, _: Credit, room: &mut Room<'_, Self>) {
        self.taker = Some(take);
        room.notify_drained();
    }
}

impl Receive<Settle> for ConsumerActor {
    fn receive(&mut self, settle: Settle, _: Credit, room: &mut Room<'_, Self>) {
        let Settle { slot, item, offset, verdict, done } = settle;
        let now_ms = room.clock().monotonic_ms();
        self.state.settle(slot, (item, offset), verdict, done, now_ms);
        room.notify_drained();
    }
}

impl Receive<AckRanges> for ConsumerActor {
    fn receive(&mut self, acks: AckRanges, _: Credit, room: &mut Room<'_, Self>) {
        let AckRanges { slot, item, ranges, done } = acks;
        self.state.ack_ranges(slot, (item, &ranges), done, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Resubscribe> for ConsumerActor {
    fn receive(&mut self, change: Resubscribe, _: Credit, room: &mut Room<'_, Self>) {
        self.state.subscribe(change.subscriptions);
        room.notify_drained();
    }
}

impl Receive<StopConsumer> for ConsumerActor {
    fn receive(&mut self, stop: StopConsumer, _: Credit, room: &mut Room<'_, Self>) {
        self.stoppers.push(stop.done);
        self.state.stop(stop.wait_ms_max, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<MemberAnswered> for ConsumerActor {
    fn receive(&mut self, answered: MemberAnswered, _: Credit, room: &mut Room<'_, Self>) {
        self.member_answered(&answered, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<QueueAnswered> for ConsumerActor {
    fn receive(&mut self, answered: QueueAnswered, _: Credit, room: &mut Room<'_, Self>) {
        self.queue_answered(&answered, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Pushed> for ConsumerActor {
    fn receive(&mut self, push: Pushed, _: Credit, room: &mut Room<'_, Self>) {
        self.pushed(&push.frame, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Routed> for ConsumerActor {
    fn receive(&mut self, routed: Routed, _: Credit, room: &mut Room<'_, Self>) {
        let Some(own) = &self.own else { return };
        let (changes, inbox, owner) = (own.changes.clone(), own.pushes.clone(), self.parts.owner);
        let Routed { topic, result } = routed;
        let result = result.map(|(route, doors)| {
            for LinkHandle { id, calls, subscribe } in doors {
                self.links.entry(id).or_insert_with(|| {
                    let pushes = Some(PushesTo { owner, inbox: inbox.clone() });
                    let _ = subscribe.try_put(Subscribe { to: changes.clone(), pushes });
                    OpenLink { calls, session: None }
                });
            }
            route
        });
        self.state.route(&topic, result, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<LinkChanged> for ConsumerActor {
    fn receive(&mut self, change: LinkChanged, _: Credit, room: &mut Room<'_, Self>) {
        let Some(link) = self.links.get_mut(&change.link) else { return };
        match change.state {
            LinkState::Up { session, .. } => {
                link.session = Some(session);
                self.state.link_up(change.link);
            }
            LinkState::Down { .. } => {
                link.session = None;
                self.state.link_down(change.link);
            }
            LinkState::Gone => {
                self.links.remove(&change.link);
                self.state.link_gone(change.link);
            }
        }
        room.notify_drained();
    }
}

impl Receive<Drained> for ConsumerActor {
    fn receive(&mut self, _: Drained, _: Credit, room: &mut Room<'_, Self>) {
        self.pump(room);
        if self.is_resting && !self.state.is_at_rest() {
            self.is_resting = false;
            room.tick_every(TICK);
        }
    }
}

impl Receive<Tick> for ConsumerActor {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.state.tick(tick.monotonic_ms);
        self.pump(room);
        if !self.is_resting && self.state.is_at_rest() {
            self.is_resting = true;
            room.tick_every(RESTING_TICK);
        }
    }
}
