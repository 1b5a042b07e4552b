//! Reader: reads the queues of one topic, ahead of the program that takes what was read.
//!
//! ```text
//! program --Take--> [Reader] --Call (Fetch)--> Link --> broker
//!    ^                 |  ^------ Answered -----'
//!    '-- reply port ---'      FindRoute --> Router
//! ```
//!
//! * Owns: how far it has come in each queue, what was read ahead ([`state`](self::state)).
//! * Lives on: the client's arbiter.
//! * Inbox: [`Take`], [`Seek`], [`Answered`], [`Routed`], [`LinkChanged`], [`Tick`].
//! * Talks to: links, Router; the program by reply port.
//! * Stops: at once; what was read ahead is dropped.
//! * If it panics: the program hears that the reader is closed: how far it had come is lost, so it
//!   must not go on by itself.

use std::collections::HashMap;
use std::time::Duration;

use grus_mailbox::{Credit, Drained, Dropped, Inbox, Port, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::message::{Fetch, FetchReply, ListAt, ListOffsets, ListOffsetsReply};
use grus_protocol::{Frame, QueueId, RecordBatch};

use crate::config::{ReaderConfig, StartAt, millis};
use crate::error::ReadError;
use crate::link::{ANSWERS_MAX, Call, LinkChanged, LinkState, Subscribe, encode};
use crate::producer::RouterDoors;
use crate::route::{ASK_MS_MAX, LinkId};
use crate::router::{FindRoute, LinkHandle, Routed, reply_of, unavailable};

pub(crate) mod cursor;
pub(crate) mod state;
#[cfg(test)]
mod state_model;

pub(crate) use cursor::Item;

use cursor::{Fetched, Want};
use state::{Asking, ReaderState};

const TICK: Duration = Duration::from_millis(50);

/// Gives all that was read ahead, as soon as there is something.
#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) reply: Port<Result<Vec<Item>, ReadError>>,
}

impl Weigh for Take {}

/// Goes on at another place; answers how often the queue was sought in now.
#[derive(Debug)]
pub(crate) struct Seek {
    pub(crate) queue: QueueId,
    pub(crate) start: StartAt,
    pub(crate) done: Port<u32>,
}

impl Weigh for Seek {}

/// A request came back, or its connection was lost.
#[derive(Debug)]
pub(crate) struct Answered {
    queue: QueueId,
    number: u64,
    is_fetch: bool,
    answer: Result<Frame, Dropped>,
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
    lives: u32,
}

/// The inboxes by which others answer.
#[derive(Debug)]
struct OwnInboxes {
    answers: Inbox<Answered>,
    routes: Inbox<Routed>,
    changes: Inbox<LinkChanged>,
}

struct OpenLink {
    calls: Inbox<Call>,
    session: Option<u64>,
}

impl ReaderActor {
    /// A reader that begins to read at once, if this is the first of its `lives`.
    pub(crate) fn new(config: ReaderConfig, router: RouterDoors, seed: u64, lives: u32) -> Self {
        let state = ReaderState::new(&config, seed);
        Self { config, router, state, links: HashMap::new(), own: None, taker: None, lives }
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
            if !self.ask(asking) {
                self.state.not_asked(asking.queue, now_ms);
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

    fn ask(&self, asking: Asking) -> bool {
        let Asking { link, queue, number, want, bytes_max } = asking;
        let Some(OpenLink { calls, session: Some(session) }) = self.links.get(&link) else {
            return false;
        };
        let Some(to) = self.own.as_ref().map(|own| own.answers.clone()) else { return false };
        let (topic, topic_id) = (self.config.topic.clone(), self.state.topic_id());
        let is_fetch = matches!(want, Want::Fetch(..));
        let frame = match want {
            Want::Fetch(offset, last_term) => {
                let poll_ms = millis(self.config.poll_wait);
                let wait_ms = u32::try_from(poll_ms).unwrap_or(u32::MAX);
                encode(&Fetch { topic, topic_id, queue, offset, last_term, bytes_max, wait_ms }, 0)
            }
            Want::Locate(start) => {
                let at = match start {
                    StartAt::First | StartAt::Offset(_) => ListAt::First,
                    StartAt::Last => ListAt::Last,
                    StartAt::Time(time) => ListAt::Time(time),
                };
                encode(&ListOffsets { topic, topic_id, queue, at }, 0)
            }
        };
        let answer = Port::call(move |answer| {
            let _ = to.try_put(Answered { queue, number, is_fetch, answer });
        });
        let body = bytes::Bytes::new();
        calls.try_put(Call { session: *session, frame, body, answer }).is_ok()
    }

    fn fetched(&mut self, queue: QueueId, number: u64, frame: &Frame, now_ms: u64) {
        match reply_of::<FetchReply>(frame) {
            Ok(reply) => match split(&reply, frame) {
                Ok(batches) => self.state.fetched((queue, number), batches, now_ms),
                Err(damage) => self.state.garbled(queue, number, &damage, now_ms),
            },
            Err(refusal) => self.state.refused((queue, number), refusal, now_ms),
        }
    }

    fn located(&mut self, queue: QueueId, number: u64, frame: &Frame, now_ms: u64) {
        match reply_of::<ListOffsetsReply>(frame) {
            Ok(reply) => self.state.located(queue, number, reply.offset),
            Err(refusal) => self.state.refused((queue, number), refusal, now_ms),
        }
    }
}

/// Cuts the body into its batches.
fn split(reply: &FetchReply, frame: &Frame) -> Result<Vec<Fetched>, String> {
    let mut body = frame.body.clone();
    let mut batches = Vec::with_capacity(reply.batches.len());
    for head in &reply.batches {
        let length = head.length as usize;
        if length > body.len() {
            return Err("the batches are longer than the answer".to_owned());
        }
        let bytes = body.split_to(length);
        let batch = RecordBatch::from_log(bytes).map_err(|error| error.to_string())?;
        let (base_offset, term, stored) = (head.base_offset, head.term, head.stored);
        batches.push(Fetched { base_offset, term, stored, batch });
    }
    if body.is_empty() { Ok(batches) } else { Err("the answer has bytes left over".to_owned()) }
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
        });
        self.pump(room);
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

impl Receive<Answered> for ReaderActor {
    fn receive(&mut self, answered: Answered, _: Credit, room: &mut Room<'_, Self>) {
        let Answered { queue, number, is_fetch, answer } = answered;
        let Ok(frame) = answer else { return }; // the loss of its connection is told apart
        let now_ms = room.clock().monotonic_ms();
        if is_fetch {
            self.fetched(queue, number, &frame, now_ms);
        } else {
            self.located(queue, number, &frame, now_ms);
        }
        room.notify_drained();
    }
}

impl Receive<Routed> for ReaderActor {
    fn receive(&mut self, routed: Routed, _: Credit, room: &mut Room<'_, Self>) {
        let Some(changes) = self.own.as_ref().map(|own| own.changes.clone()) else { return };
        let result = routed.result.map(|(route, doors)| {
            for LinkHandle { id, calls, subscribe } in doors {
                self.links.entry(id).or_insert_with(|| {
                    let _ = subscribe.try_put(Subscribe { to: changes.clone() });
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
