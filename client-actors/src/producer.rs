//! Producer: sends the messages of one topic.
//!
//! ```text
//! program --Submit--> [Producer] --Call--> Link --> broker
//!    ^                    |  ^-- Answered --'
//!    '---- reply port ----'      FindRoute, InitProducer --> Router
//! ```
//!
//! * Owns: messages not answered yet, their batches, sequences and credits
//!   ([`state`](self::state)).
//! * Lives on: the client's arbiter.
//! * Inbox: [`Submit`] (bytes; the credit is held until the message is answered, which is what
//!   bounds the producer's memory), [`Flush`], [`Answered`], [`IdentityAnswered`],
//!   [`Routed`], [`LinkChanged`], [`Tick`].
//! * Talks to: links, Router; callers by reply port.
//! * Stops: when everything taken is answered, at the latest after the send window; the brokers then
//!   hear that it is closed.
//! * If it panics: callers hear that the producer is closed and their messages may be stored; it
//!   goes on with a new identity.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use grus_mailbox::{Credit, Drained, Dropped, Inbox, Port, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::message::{CloseProducer, InitProducerReply, Produce, ProduceReply, Timer};
use grus_protocol::{BatchLimits, Frame, QueueId, TopicId, TopicName};

use crate::config::{ProducerConfig, millis};
use crate::error::{Refusal, SendError};
use crate::guard::Guard;
use crate::link::{ANSWERS_MAX, Call, LinkChanged, LinkState, Subscribe, encode, encode_one_way};
use crate::receipt::{BatchReceipt, DueTime, RecallHandle, Receipt};
use crate::route::{ASK_MS_MAX, LinkId};
use crate::router::{Ask, AskOutlook, FindRoute, LinkHandle, Routed, reply_of, unavailable};

mod allowance;
pub(crate) mod choice;
pub(crate) mod flushes;
mod identities;
pub(crate) mod lane;
#[cfg(test)]
mod lane_cases;
#[cfg(test)]
mod lane_model;
mod naming;
#[cfg(test)]
mod naming_cases;
pub(crate) mod outcome;
#[cfg(test)]
pub(crate) mod panic_cases;
pub(crate) mod parts;
pub(crate) mod payload;
mod placing;
mod routing;
mod salvage;
#[cfg(test)]
mod salvage_cases;
mod slot;
pub(crate) mod state;
#[cfg(test)]
mod state_cases;
#[cfg(test)]
mod state_model;
mod waiting;

pub(crate) use choice::Pick;
pub use flushes::{Flushed, UNSENT_MAX, Unsent};
pub(crate) use lane::IN_FLIGHT_BATCHES_MAX;
pub(crate) use parts::{Ids, Load};

use identities::Source;
use lane::Identity;
use outcome::Stored;
use parts::{Ended, Member, Need, Sending};
use state::ProducerState;

const TICK: Duration = Duration::from_millis(20);
/// Capacity of inboxes that take the answer to one question at a time, of the router or of each
/// broker.
const ANSWERS_FEW: u32 = 1 << 16;

/// Where the outcome of what was sent goes, once.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Of a message, and when it is to be delivered if that is not at once.
    One(Port<Result<Receipt, SendError>>, Option<DueTime>),
    /// Of a batch, and when its messages are to be delivered if that is not at once.
    Many(Port<Result<BatchReceipt, SendError>>, Vec<DueTime>),
}

impl Reply {
    /// Says why it failed.
    pub(crate) fn fail(self, error: SendError) {
        match self {
            Self::One(port, _) => port.send(Err(error)),
            Self::Many(port, _) => port.send(Err(error)),
        }
    }
}

/// Sends a message or a batch.
#[derive(Debug)]
pub(crate) struct Submit {
    pub(crate) pick: Pick,
    pub(crate) load: Load,
    pub(crate) ids: Ids,
    pub(crate) weight: u32,
    pub(crate) reply: Reply,
}

impl Weigh for Submit {
    fn weight(&self) -> u32 {
        self.weight
    }
}

/// Answers when all that was put before is answered.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) done: Port<Flushed>,
}

impl Weigh for Flush {}

/// A produce request came back, or its connection was lost.
#[derive(Debug)]
pub(crate) struct Answered {
    queue: QueueId,
    token: (u64, u64),
    answer: Result<Frame, Dropped>,
}

impl Weigh for Answered {}

/// The answer to a request for an identity.
#[derive(Debug)]
pub(crate) struct IdentityAnswered {
    source: Source,
    /// Of the question: an earlier one's answer is shut out by the one asked for after it.
    number: u64,
    answer: Result<Frame, Dropped>,
}

impl Weigh for IdentityAnswered {}

/// See the module documentation.
pub(crate) struct ProducerActor {
    config: ProducerConfig,
    router: RouterDoors,
    state: ProducerState<(Reply, Credit), Port<Flushed>>,
    links: HashMap<LinkId, OpenLink>,
    own: Option<OwnInboxes>,
    /// The number of the last question for an identity, of whichever life, and that of each source.
    identity_asks: u64,
    identity_asked: HashMap<Source, u64>,
    is_stopping: bool,
}

/// What a producer or reader asks the router by.
#[derive(Debug, Clone)]
pub(crate) struct RouterDoors {
    pub(crate) ask: Inbox<Ask>,
    pub(crate) find: Inbox<FindRoute>,
    pub(crate) outlook: Inbox<AskOutlook>,
}

/// The inboxes by which others answer.
#[derive(Debug, Clone)]
struct OwnInboxes {
    answers: Inbox<Answered>,
    identities: Inbox<IdentityAnswered>,
    routes: Inbox<Routed>,
    changes: Inbox<LinkChanged>,
}

struct OpenLink {
    calls: Inbox<Call>,
    session: Option<u64>,
}

impl ProducerActor {
    /// A producer that asks for its route when it has something to send. `lives` of it have ended
    /// in a panic.
    pub(crate) fn new(
        config: ProducerConfig,
        router: RouterDoors,
        seed: u64,
        guard: &Guard,
        lives: u32,
    ) -> Self {
        let state = ProducerState::new(&config, BatchLimits::PRODUCE, seed, guard, lives);
        Self {
            config,
            router,
            state,
            links: HashMap::new(),
            own: None,
            identity_asks: u64::from(lives) << 32,
            identity_asked: HashMap::new(),
            is_stopping: false,
        }
    }

    /// Does all there is to do, once for many messages.
    fn pump(&mut self, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        while let Some(sending) = self.state.poll_send(now_ms) {
            let (queue, serial) = (sending.queue, sending.serial);
            if !self.send(sending) {
                self.state.not_sent(queue, serial, now_ms);
            }
        }
        while let Some(need) = self.state.poll_need(now_ms) {
            self.ask(need, room);
        }
        while let Some(ended) = self.state.poll_ended() {
            self.answer(ended);
        }
        while let Some((done, flushed)) = self.state.poll_flushed() {
            done.send(flushed);
        }
        if self.is_stopping && self.state.is_idle() {
            self.say_goodbye();
            room.stop();
        }
    }

    /// Has the brokers take it off their lists at once.
    fn say_goodbye(&self) {
        for (link, OpenLink { calls, session }) in &self.links {
            let Some(session) = *session else { continue }; // the list forgets it with the connection
            for Identity { producer, epoch } in self.state.identities_at(*link) {
                let close = CloseProducer { producer_id: producer, producer_epoch: epoch };
                let (frame, body) = (encode_one_way(&close, 0), Bytes::new());
                drop(calls.try_put(Call { session, frame, body, answer: None }));
            }
        }
    }

    fn send(&self, sending: Sending) -> bool {
        let Sending { link, queue, serial, attempt, bytes } = sending;
        let Some(OpenLink { calls, session: Some(session) }) = self.links.get(&link) else {
            return false;
        };
        let topic_id = self.state.known_route().map_or(TopicId::UNKNOWN, |route| route.topic_id);
        let timeout_ms = millis(self.config.send_timeout);
        let produce = Produce {
            topic: self.config.topic.clone(),
            topic_id,
            queue,
            timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX),
        };
        let Some(to) = self.own.as_ref().map(|own| own.answers.clone()) else { return false };
        let answer = Port::call(move |answer| {
            let _ = to.try_put(Answered { queue, token: (serial, attempt), answer });
        });
        let frame = encode(&produce, bytes.len());
        calls.try_put(Call { session: *session, frame, body: bytes, answer: Some(answer) }).is_ok()
    }

    fn ask(&mut self, need: Need, room: &Room<'_, Self>) {
        let Some(own) = &self.own else { return };
        let now_ms = room.clock().monotonic_ms();
        let deadline_ms = now_ms + ASK_MS_MAX;
        match need {
            Need::Route => {
                let find = FindRoute {
                    topic: self.config.topic.clone(),
                    auto_create: self.config.auto_create,
                    deadline_ms,
                    to: own.routes.clone(),
                };
                if self.router.find.try_put(find).is_err() {
                    self.state.route(Err(unavailable("client is busy or closed")), now_ms);
                }
            }
            Need::Identity { source, over } => {
                let to = own.identities.clone();
                self.identity_asks += 1;
                let number = self.identity_asks;
                self.identity_asked.insert(source, number);
                let answer = Port::call(move |answer| {
                    let _ = to.try_put(IdentityAnswered { source, number, answer });
                });
                let (question, whom, wait_ms) = self.state.question(source);
                let frame = encode(&question, 0);
                // A port that is dropped answers, too.
                match over.map(|link| self.links.get(&link)) {
                    None => {
                        let ask = Ask { to: whom, frame, deadline_ms: now_ms + wait_ms, answer };
                        drop(self.router.ask.try_put(ask));
                    }
                    Some(Some(OpenLink { calls, session: Some(session) })) => {
                        let (session, body) = (*session, Bytes::new());
                        let answer = Some(answer);
                        drop(calls.try_put(Call { session, frame, body, answer }));
                    }
                    Some(_) => drop(answer), // its connection is gone
                }
            }
        }
    }

    fn answer(&self, ended: Ended<(Reply, Credit)>) {
        let Ended { queue, members, result } = ended;
        let mut result = result;
        for Member { port: (reply, credit), ids, .. } in members {
            drop(credit);
            let count = match &ids {
                Ids::One(_) => 1,
                Ids::Many(ids) => u32::try_from(ids.len()).unwrap_or(u32::MAX),
            };
            self.answer_one(reply, ids, queue, result.clone());
            if let Ok(stored) = &mut result {
                stored.go_on(count);
            }
        }
    }

    fn answer_one(
        &self,
        reply: Reply,
        ids: Ids,
        queue: QueueId,
        result: Result<Stored, SendError>,
    ) {
        let topic = self.config.topic.clone();
        match (reply, ids) {
            (Reply::One(port, due), Ids::One(id)) => port.send(result.map(|stored| {
                let due = due.zip(stored.delays_from).map(|(due, from)| due.counted_from(from));
                let scheduled = handle(&topic, queue, stored.timer);
                let Stored { base_offset: offset, at: stored, durability, duplicate, .. } = stored;
                Receipt { id, topic, queue, offset, stored, durability, duplicate, scheduled, due }
            })),
            (Reply::Many(port, dues), Ids::Many(ids)) => {
                port.send(result.map(|stored| {
                    let dues = stored.delays_from.map_or_else(Vec::new, |from| {
                        dues.into_iter().map(|due| due.counted_from(from)).collect()
                    });
                    let scheduled = handle(&topic, queue, stored.timer);
                    let Stored { base_offset, at: stored, durability, duplicate, .. } = stored;
                    BatchReceipt {
                        ids,
                        topic,
                        queue,
                        base_offset,
                        stored,
                        durability,
                        duplicate,
                        scheduled,
                        dues,
                    }
                }));
            }
            _ => unreachable!("a message has one id, a batch has a list"),
        }
    }
}

fn handle(topic: &TopicName, queue: QueueId, timer: Option<Timer>) -> Option<RecallHandle> {
    timer.map(|timer| RecallHandle { topic: topic.clone(), queue, timer })
}

impl Resident for ProducerActor {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(TICK);
        self.own = Some(OwnInboxes {
            answers: room.inbox(ANSWERS_MAX),
            identities: room.inbox(ANSWERS_FEW),
            routes: room.inbox(ANSWERS_FEW),
            changes: room.inbox(ANSWERS_MAX),
        });
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.is_stopping = true;
        self.state.flush(Port::call(|_| ()));
        room.linger();
        self.pump(room);
    }
}

impl Receive<Submit> for ProducerActor {
    fn receive(&mut self, submit: Submit, credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        let Submit { pick, load, ids, reply, .. } = submit;
        if self.is_stopping {
            // Others may send without end: what was taken before would never be all.
            return reply.fail(SendError::Closed { maybe_stored: false });
        }
        self.state.take(pick, load, ids, (reply, credit), now_ms);
        room.notify_drained();
    }
}

impl Receive<Flush> for ProducerActor {
    fn receive(&mut self, flush: Flush, _: Credit, room: &mut Room<'_, Self>) {
        self.state.flush(flush.done);
        room.notify_drained();
    }
}

impl Receive<Answered> for ProducerActor {
    fn receive(&mut self, answered: Answered, _: Credit, room: &mut Room<'_, Self>) {
        let Answered { queue, token, answer } = answered;
        let Ok(frame) = answer else { return }; // the loss of its connection is told apart
        match reply_of::<ProduceReply>(&frame) {
            Ok(reply) => self.state.stored(queue, token.0, reply.into()),
            Err(refusal) => {
                let now_ms = room.clock().monotonic_ms();
                self.state.refused(queue, token, refusal, now_ms);
            }
        }
        room.notify_drained();
    }
}

impl Receive<IdentityAnswered> for ProducerActor {
    fn receive(&mut self, answered: IdentityAnswered, _: Credit, room: &mut Room<'_, Self>) {
        if self.identity_asked.get(&answered.source) != Some(&answered.number) {
            return; // of an earlier question, perhaps of a life before: its epoch is fenced
        }
        let reply: Result<InitProducerReply, Refusal> = match answered.answer {
            Ok(frame) => reply_of(&frame),
            Err(Dropped) => Err(unavailable("connection lost")),
        };
        let identity = reply.map(|reply| {
            let (producer, epoch) = (reply.producer_id, reply.producer_epoch);
            (Identity { producer, epoch }, reply.epochs)
        });
        self.state.identity(answered.source, identity, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Routed> for ProducerActor {
    fn receive(&mut self, routed: Routed, _: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        let Some(changes) = self.own.as_ref().map(|own| own.changes.clone()) else { return };
        let result = routed.result.map(|(route, doors)| {
            for LinkHandle { id, calls, subscribe } in doors {
                self.links.entry(id).or_insert_with(|| {
                    let _ = subscribe.try_put(Subscribe { to: changes.clone(), pushes: None });
                    OpenLink { calls, session: None }
                });
            }
            route
        });
        self.state.route(result, now_ms);
        room.notify_drained();
    }
}

impl Receive<LinkChanged> for ProducerActor {
    fn receive(&mut self, change: LinkChanged, _: Credit, room: &mut Room<'_, Self>) {
        let Some(link) = self.links.get_mut(&change.link) else { return };
        match change.state {
            LinkState::Up { session, hello } => {
                link.session = Some(session);
                self.state.set_limits(change.link, hello.batch_limits());
                self.state.leads_to(change.link, hello.broker_id);
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

impl Receive<Drained> for ProducerActor {
    fn receive(&mut self, _: Drained, _: Credit, room: &mut Room<'_, Self>) {
        self.pump(room);
    }
}

impl Receive<Tick> for ProducerActor {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.state.tick(tick.monotonic_ms);
        self.pump(room);
    }
}
