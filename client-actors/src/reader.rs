//! Reader: reads the queues of one topic, ahead of the program that takes what was read.
//!
//! ```text
//! program --Take--> [Reader] --Call (Fetch; Subscribe, Credit)--> Link --> broker
//!    ^                 |  ^------ Answered; Pushed ---------------'
//!    '-- reply port ---'      FindRoute --> Router
//! ```
//!
//! * Owns: how far it has come in each queue, what was read ahead ([`state`](self::state)).
//! * Lives on: the client's arbiter.
//! * Inbox: [`Take`], [`Seek`], [`SeekAll`], [`Answered`], [`Pushed`], [`Routed`], [`LinkChanged`],
//!   [`Tick`]. What is pushed is bounded by the credit that was given for it.
//! * Talks to: links, Router; the program by reply port.
//! * Stops: at once; what was read ahead is dropped, and brokers hear that its subscriptions end.
//! * If it panics: the program hears that the reader is closed: how far it had come is lost, so it
//!   must not go on by itself.

use std::collections::HashMap;
use std::time::Duration;

use bytes::BytesMut;
use grus_mailbox::{Credit, Drained, Dropped, Inbox, Port, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::message::{Deliver, FetchReply, ListOffsetsReply, SubscribeReply};
use grus_protocol::{Frame, QueueId};

use crate::config::{ReaderConfig, StartAt};
use crate::error::ReadError;
use crate::link::{ANSWERS_MAX, Call, LinkChanged, LinkState, Pushed, PushesTo, Subscribe};
use crate::producer::RouterDoors;
use crate::route::{ASK_MS_MAX, LinkId};
use crate::router::{FindRoute, LinkHandle, Routed, reply_of, unavailable};

pub(crate) mod asking;
pub(crate) mod cursor;
pub(crate) mod requests;
mod seeking;
pub(crate) mod state;
#[cfg(test)]
mod state_model;

pub(crate) use cursor::Item;

use asking::{Ask, Asking, Telling};
use cursor::Want;
use requests::{credit_frame, delivered, fetched, frame_of, number_of, unsubscribe_frame};
use state::ReaderState;

const TICK: Duration = Duration::from_millis(50);

/// Gives all that was read ahead, as soon as there is something.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) reply: Port<Result<Vec<Item>, ReadError>>,
}

impl Weigh for Take {}

/// Goes on at another place; answers the number of this seek: what was read before has a lesser one.
#[derive(Debug)]
pub(crate) struct Seek {
    pub(crate) queue: QueueId,
    pub(crate) start: StartAt,
    pub(crate) done: Port<u32>,
}

impl Weigh for Seek {}

/// Goes on at another place in all queues, also those not known yet; answers the number of this seek
/// for each that is known.
#[derive(Debug)]
pub(crate) struct SeekAll {
    pub(crate) start: StartAt,
    pub(crate) done: Port<Vec<(QueueId, u32)>>,
}

impl Weigh for SeekAll {}

/// A request came back, or its connection was lost.
#[derive(Debug)]
pub(crate) struct Answered {
    queue: QueueId,
    number: u64,
    kind: AnswerKind,
    answer: Result<Frame, Dropped>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy)]
enum AnswerKind {
    Fetch,
    Locate,
    Subscribe,
}

impl Weigh for Answered {}

/// See the module documentation.
pub(crate) struct ReaderActor {
    config: ReaderConfig,
    router: RouterDoors,
    state: ReaderState,
    links: HashMap<LinkId, OpenLink>,
    own: Option<OwnInboxes>,
    taker: Option<Port<Result<Vec<Item>, ReadError>>>,
    /// One in the client: the upper half of its subscriptions' ids.
    owner: u32,
    lives: u32,
}

/// The inboxes by which others answer.
#[derive(Debug)]
struct OwnInboxes {
    answers: Inbox<Answered>,
    routes: Inbox<Routed>,
    changes: Inbox<LinkChanged>,
    pushes: Inbox<Pushed>,
}

struct OpenLink {
    calls: Inbox<Call>,
    session: Option<u64>,
}

impl ReaderActor {
    /// A reader that begins to read at once, if this is the first of its `lives`.
    pub(crate) fn new(
        config: ReaderConfig,
        router: RouterDoors,
        (owner, seed): (u32, u64),
        lives: u32,
    ) -> Self {
        let state = ReaderState::new(&config, seed);
        Self { config, router, state, links: HashMap::new(), own: None, taker: None, owner, lives }
    }

    fn pump(&mut self, room: &Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        if self.state.poll_route(now_ms) {
            self.find_route(now_ms);
        }
        if let Some(taker) = self.taker.take() {
            match self.state.take() {
                Some(answer) => taker.send(answer),
                None => self.taker = Some(taker),
            }
        }
        while let Some(asking) = self.state.poll_ask(now_ms) {
            if !self.ask(&asking) {
                self.state.not_asked(asking.queue, now_ms);
            }
        }
        while let Some(telling) = self.state.poll_tell() {
            if !self.tell(telling) {
                self.state.not_told(telling);
                break; // told with the next tick, if the connection is there by then
            }
        }
    }

    fn find_route(&mut self, now_ms: u64) {
        let Some(own) = &self.own else { return };
        let (topic, to) = (self.config.topic.clone(), own.routes.clone());
        let deadline_ms = now_ms + ASK_MS_MAX;
        if self
            .router
            .find
            .try_put(FindRoute { topic, auto_create: false, deadline_ms, to })
            .is_err()
        {
            self.state.route(Err(unavailable("client is busy or closed")), now_ms);
        }
    }

    fn ask(&self, asking: &Asking) -> bool {
        let Some(to) = self.own.as_ref().map(|own| own.answers.clone()) else { return false };
        let Asking { link, queue, number, want, ask } = *asking;
        let kind = match (ask, want) {
            (Ask::Subscribe { .. }, _) => AnswerKind::Subscribe,
            (Ask::Once { .. }, Want::Fetch(..)) => AnswerKind::Fetch,
            (Ask::Once { .. }, Want::Locate(_)) => AnswerKind::Locate,
        };
        let frame = frame_of(asking, &self.config, self.state.topic_id(), self.owner);
        let answer = Port::call(move |answer| {
            let _ = to.try_put(Answered { queue, number, kind, answer });
        });
        self.call(link, frame, Some(answer))
    }

    fn tell(&self, telling: Telling) -> bool {
        let (link, frame) = match telling {
            Telling::Credit { link, number, credit, .. } => {
                (link, credit_frame(self.owner, number, credit))
            }
            Telling::Leave { link, number } => (link, unsubscribe_frame(self.owner, number)),
        };
        self.call(link, frame, None)
    }

    fn call(&self, link: LinkId, frame: BytesMut, answer: Option<Port<Frame>>) -> bool {
        let Some(OpenLink { calls, session: Some(session) }) = self.links.get(&link) else {
            return false;
        };
        let body = bytes::Bytes::new();
        calls.try_put(Call { session: *session, frame, body, answer }).is_ok()
    }

    fn answered(&mut self, answered: &Answered, frame: &Frame, now_ms: u64) {
        let Answered { queue, number, kind, .. } = *answered;
        let refused = match kind {
            AnswerKind::Fetch => match reply_of::<FetchReply>(frame) {
                Ok(reply) => {
                    return match fetched(&reply, frame) {
                        Ok(batches) => self.state.fetched((queue, number), batches, now_ms),
                        Err(damage) => self.state.garbled(queue, number, &damage, now_ms),
                    };
                }
                Err(refusal) => refusal,
            },
            AnswerKind::Locate => match reply_of::<ListOffsetsReply>(frame) {
                Ok(reply) => return self.state.located(queue, number, reply.offset),
                Err(refusal) => refusal,
            },
            AnswerKind::Subscribe => match reply_of::<SubscribeReply>(frame) {
                Ok(reply) => return self.state.subscribed(queue, number, reply.offset),
                Err(refusal) => refusal,
            },
        };
        self.state.refused((queue, number), refused, now_ms);
    }

    fn pushed(&mut self, frame: &Frame, now_ms: u64) {
        let number = number_of(frame);
        match reply_of::<Deliver>(frame) {
            Ok(push) => match delivered(&push, frame) {
                Ok(batches) => self.state.delivered(number, batches, now_ms),
                Err(damage) => self.state.pushed_wrongly(number, &damage, now_ms),
            },
            Err(refusal) if frame.head.is_error() => self.state.ended(number, refusal, now_ms),
            Err(nonsense) => self.state.pushed_wrongly(number, &nonsense.message, now_ms),
        }
    }
}

impl Resident for ReaderActor {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        if self.lives > 1 {
            return room.stop(); // it would begin at its start again
        }
        room.tick_every(TICK);
        self.own = Some(OwnInboxes {
            answers: room.inbox(ANSWERS_MAX),
            routes: room.inbox(16),
            changes: room.inbox(ANSWERS_MAX),
            pushes: room.inbox(ANSWERS_MAX),
        });
        self.pump(room);
    }

    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        // The connection stays, for others: nothing more is to be sent over it for this one.
        for (link, number) in self.state.leave() {
            self.call(link, unsubscribe_frame(self.owner, number), None);
        }
    }
}

impl Receive<Take> for ReaderActor {
    fn receive(&mut self, take: Take, _: Credit, room: &mut Room<'_, Self>) {
        self.taker = Some(take.reply);
        self.state.wanted();
        self.pump(room);
    }
}

impl Receive<Seek> for ReaderActor {
    fn receive(&mut self, seek: Seek, _: Credit, room: &mut Room<'_, Self>) {
        seek.done.send(self.state.seek(seek.queue, seek.start));
        room.notify_drained();
    }
}

impl Receive<SeekAll> for ReaderActor {
    fn receive(&mut self, seek: SeekAll, _: Credit, room: &mut Room<'_, Self>) {
        seek.done.send(self.state.seek_all(seek.start));
        room.notify_drained();
    }
}

impl Receive<Answered> for ReaderActor {
    fn receive(&mut self, answered: Answered, _: Credit, room: &mut Room<'_, Self>) {
        let Ok(frame) = &answered.answer else { return }; // the loss of its connection is told apart
        self.answered(&answered, frame, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Pushed> for ReaderActor {
    fn receive(&mut self, push: Pushed, _: Credit, room: &mut Room<'_, Self>) {
        self.pushed(&push.frame, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<Routed> for ReaderActor {
    fn receive(&mut self, routed: Routed, _: Credit, room: &mut Room<'_, Self>) {
        let Some(own) = &self.own else { return };
        let (changes, inbox, owner) = (own.changes.clone(), own.pushes.clone(), self.owner);
        let result = routed.result.map(|(route, doors)| {
            for LinkHandle { id, calls, subscribe } in doors {
                self.links.entry(id).or_insert_with(|| {
                    let pushes = Some(PushesTo { owner, inbox: inbox.clone() });
                    let _ = subscribe.try_put(Subscribe { to: changes.clone(), pushes });
                    OpenLink { calls, session: None }
                });
            }
            route
        });
        self.state.route(result, room.clock().monotonic_ms());
        room.notify_drained();
    }
}

impl Receive<LinkChanged> for ReaderActor {
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
                self.state.link_gone(change.link, room.clock().monotonic_ms());
            }
        }
        room.notify_drained();
    }
}

impl Receive<Drained> for ReaderActor {
    fn receive(&mut self, _: Drained, _: Credit, room: &mut Room<'_, Self>) {
        self.pump(room);
    }
}

impl Receive<Tick> for ReaderActor {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        self.state.tick(tick.monotonic_ms);
        self.pump(room);
    }
}
