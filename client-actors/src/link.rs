//! Link: the way to one broker.
//!
//! ```text
//! Producer, Reader, Router --Call--> [Link] --frames--> socket --> broker
//!            ^                          |
//!            '---- reply ports ---------'      LinkChanged to all who subscribed, Pushed to
//!                                              the one it is meant for
//! ```
//!
//! * Owns: one socket at a time, its correlation map, the credits of what is not written yet. Who is
//!   to hear of it is shared with its factory ([`listeners`]), so that it outlives a panic.
//! * Lives on: the client's arbiter.
//! * Inbox: [`Call`] (bytes), [`Subscribe`], [`Opened`], [`FramesRead`], [`Broken`], [`Tick`].
//! * Talks to: whoever called, by reply port; subscribers.
//! * Stops: at once; ports of calls under way are dropped, and its subscribers hear that it is gone.
//! * If it panics: the socket is closed, calls are dropped; the one built in its place tells all who
//!   subscribed that the connection is lost, and connects again.
//!
//! Requests leave in the order in which they were put. A call names the session it was meant for:
//! one that comes after that session is over is dropped, since its caller is told of the loss.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_mailbox::{Credit, Inbox, Port, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::frame::{self, FrameFlags, FrameHead, FrameKind};
use grus_protocol::message::{Hello, HelloReply, Ping, Request};
use grus_protocol::{Frame, Opcode};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::backoff::Backoff;
use crate::route::LinkId;
use crate::socket::{self, Intake, Outgoing};

mod listeners;
mod liveness;

pub(crate) use listeners::Listeners;
use liveness::{Liveness, Pulse};

/// Most bytes of requests put and not yet written.
pub(crate) const CALL_BYTES_MAX: u32 = 32 * 1024 * 1024;
/// Capacity of the inboxes that take answers: more than can be under way.
pub(crate) const ANSWERS_MAX: u32 = 1 << 20;
const TICK: Duration = Duration::from_millis(25);
/// Where the correlation stands in a frame's head.
const CORRELATION: std::ops::Range<usize> = 12..20;

/// How a link behaves.
#[derive(Debug, Clone)]
pub(crate) struct LinkSettings {
    /// Tried in turn.
    pub(crate) addresses: Vec<String>,
    pub(crate) client_id: String,
    pub(crate) open_ms_max: u64,
    pub(crate) silence_ms_max: u64,
    pub(crate) reconnect_ms_max: u64,
    pub(crate) seed: u64,
}

/// Sends a request.
#[derive(Debug)]
pub(crate) struct Call {
    /// The session it is meant for.
    pub(crate) session: u64,
    /// Head and header; the link fills in the correlation.
    pub(crate) frame: BytesMut,
    pub(crate) body: Bytes,
    /// Dropped unanswered when the connection is lost. None: the frame says that nobody waits.
    pub(crate) answer: Option<Port<Frame>>,
}

impl Weigh for Call {
    fn weight(&self) -> u32 {
        u32::try_from(self.frame.len() + self.body.len()).unwrap_or(u32::MAX)
    }
}

/// Encodes a request's head and header, for [`Call::frame`].
pub(crate) fn encode<R: Request>(request: &R, body_bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    frame::encode(FrameHead::request(R::OPCODE, 0), request, body_bytes, &mut out)
        .expect("requests of this crate encode");
    out
}

/// Encodes a request's head and header that says that nobody waits for a reply.
pub(crate) fn encode_one_way<R: Request>(request: &R, body_bytes: usize) -> BytesMut {
    let mut out = BytesMut::with_capacity(128);
    let head = FrameHead { flags: FrameFlags::NO_REPLY, ..FrameHead::request(R::OPCODE, 0) };
    frame::encode(head, request, body_bytes, &mut out).expect("requests of this crate encode");
    out
}

/// From now on, tell of changes; the present state is told at once.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) to: Inbox<LinkChanged>,
    /// Where pushes go, if there may be any.
    pub(crate) pushes: Option<PushesTo>,
}

/// Where pushes go whose correlation has `owner` in its upper half.
#[derive(Debug, Clone)]
pub(crate) struct PushesTo {
    /// One in this client; 0 is that of calls, which the link numbers.
    pub(crate) owner: u32,
    pub(crate) inbox: Inbox<Pushed>,
}

/// A push arrived.
#[derive(Debug)]
pub(crate) struct Pushed {
    pub(crate) frame: Frame,
}

impl Weigh for Pushed {}

impl Weigh for Subscribe {}

/// A connection was opened or lost.
#[derive(Debug, Clone)]
pub(crate) struct LinkChanged {
    pub(crate) link: LinkId,
    pub(crate) state: LinkState,
}

impl Weigh for LinkChanged {}

/// See [`LinkChanged`].
#[derive(Debug, Clone)]
pub(crate) enum LinkState {
    /// Open: the session to name in calls, and what the broker said.
    Up { session: u64, hello: Arc<HelloReply> },
    /// Lost, or not opened.
    Down { reason: Arc<str> },
    /// The link itself has ended and never comes back: the way to the broker is another one.
    Gone,
}

/// The attempt to connect is over.
#[derive(Debug)]
pub(crate) struct Opened {
    session: u64,
    result: Result<(TcpStream, BytesMut, HelloReply), String>,
}

impl Weigh for Opened {}

/// Frames arrived.
#[derive(Debug)]
pub(crate) struct FramesRead {
    session: u64,
    frames: Vec<Frame>,
}

impl Weigh for FramesRead {}

/// The socket is of no use any more.
#[derive(Debug)]
pub(crate) struct Broken {
    session: u64,
    reason: String,
}

impl Weigh for Broken {}

enum Phase {
    Resting { until_ms: u64 },
    Opening { since_ms: u64, _give_up: oneshot::Sender<()> },
    Open(Session),
}

struct Session {
    hello: Arc<HelloReply>,
    out: mpsc::UnboundedSender<Outgoing>,
    intake: Rc<Intake>,
    liveness: Liveness,
    _close: (oneshot::Sender<()>, oneshot::Sender<()>),
}

/// See the module documentation.
pub(crate) struct Link {
    id: LinkId,
    settings: LinkSettings,
    phase: Phase,
    session: u64,
    next_address: usize,
    next_correlation: u64,
    calls: HashMap<u64, Port<Frame>>,
    listeners: Rc<RefCell<Listeners>>,
    frames: Option<Inbox<FramesRead>>,
    backoff: Backoff,
    last_reason: Arc<str>,
    has_warned: bool,
}

impl Link {
    /// A link that connects as soon as it is started, and tells `listeners`, who may be those of one
    /// before it that panicked.
    pub(crate) fn new(
        id: LinkId,
        settings: LinkSettings,
        listeners: Rc<RefCell<Listeners>>,
    ) -> Self {
        let first_ms = settings.reconnect_ms_max.min(20);
        let session = listeners.borrow().session();
        Self {
            id,
            phase: Phase::Resting { until_ms: 0 },
            session,
            next_address: 0,
            next_correlation: 1,
            calls: HashMap::new(),
            listeners,
            frames: None,
            backoff: Backoff::new(first_ms, settings.reconnect_ms_max, settings.seed),
            last_reason: "not connected yet".into(),
            has_warned: false,
            settings,
        }
    }

    fn address(&self) -> &str {
        &self.settings.addresses[self.next_address % self.settings.addresses.len()]
    }

    fn open(&mut self, room: &mut Room<'_, Self>) {
        let session = self.listeners.borrow_mut().next_session();
        self.session = session;
        let address = self.address().to_owned();
        let software = concat!("grus-client ", env!("CARGO_PKG_VERSION"));
        let hello = Hello::new(self.settings.client_id.clone(), software);
        let (give_up, given_up) = oneshot::channel();
        let since_ms = room.clock().monotonic_ms();
        self.phase = Phase::Opening { since_ms, _give_up: give_up };
        room.spawn_into(async move {
            let result = socket::open(&address, &hello, given_up).await;
            Opened { session, result }
        });
    }

    fn opened(
        &mut self,
        (stream, unread, hello): (TcpStream, BytesMut, HelloReply),
        room: &mut Room<'_, Self>,
    ) {
        let now_ms = room.clock().monotonic_ms();
        if self.has_warned || self.session == 1 {
            tracing::info!(address = self.address(), broker = %hello.broker_id, "connected");
        }
        self.has_warned = false;
        self.backoff.succeeded();
        let session = self.session;
        let (read_half, write_half) = stream.into_split();
        let (out, outgoing) = mpsc::unbounded_channel();
        let (close_reader, reader_closed) = oneshot::channel();
        let (close_writer, writer_closed) = oneshot::channel();
        let intake = Rc::new(Intake::new(&unread));
        let frames_to = self.frames.clone();
        let reader = socket::read(read_half, Rc::clone(&intake), move |frames| {
            let frames_to = frames_to.clone();
            async move {
                let Some(to) = frames_to else { return false };
                to.put(FramesRead { session, frames }).await.is_ok()
            }
        });
        room.spawn_into(async move {
            let reason = socket::until_closed(reader, reader_closed).await;
            Broken { session, reason }
        });
        room.spawn_into(async move {
            let writer = socket::write(write_half, outgoing);
            let reason = socket::until_closed(writer, writer_closed).await;
            Broken { session, reason }
        });
        let hello = Arc::new(hello);
        self.phase = Phase::Open(Session {
            hello: Arc::clone(&hello),
            out,
            intake,
            liveness: Liveness::new(self.settings.silence_ms_max, now_ms),
            _close: (close_reader, close_writer),
        });
        self.tell(&LinkState::Up { session, hello });
    }

    fn lost(&mut self, reason: &str, room: &Room<'_, Self>) {
        let was_open = matches!(self.phase, Phase::Open(_));
        let wait_ms = self.backoff.failed();
        self.phase = Phase::Resting { until_ms: room.clock().monotonic_ms() + wait_ms };
        self.last_reason = reason.into();
        if !self.has_warned {
            self.has_warned = true;
            let address = self.address();
            if was_open {
                tracing::warn!(address, reason, "connection lost, connecting again");
            } else {
                tracing::warn!(address, reason, "waiting for a broker");
            }
        }
        self.next_address += 1;
        self.tell(&LinkState::Down { reason: Arc::clone(&self.last_reason) });
        self.calls.clear(); // after the subscribers know: each port is dropped unanswered
    }

    fn tell(&self, state: &LinkState) {
        self.listeners.borrow_mut().tell(state);
    }

    fn send(&mut self, mut call: Call, credit: Option<Credit>) {
        let Phase::Open(session) = &self.phase else { return };
        let correlation = self.next_correlation;
        self.next_correlation += 1;
        call.frame[CORRELATION].copy_from_slice(&correlation.to_le_bytes());
        if let Some(answer) = call.answer {
            self.calls.insert(correlation, answer);
        }
        // A writer that is gone has said so, or is about to.
        let _ = session.out.send(Outgoing { frame: call.frame.freeze(), body: call.body, credit });
    }

    fn ping(&mut self) {
        let answer = Some(Port::call(|_| ()));
        let frame = encode(&Ping {}, 0);
        self.send(Call { session: self.session, frame, body: Bytes::new(), answer }, None);
    }
}

impl Resident for Link {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(TICK);
        self.frames = Some(room.inbox::<FramesRead>(2));
        if self.session > 0 {
            // Rebuilt: whatever was under way is lost, as with a connection.
            self.tell(&LinkState::Down { reason: "a bug ended the connection".into() });
        }
        self.open(room);
    }
}

impl Receive<Call> for Link {
    fn receive(&mut self, call: Call, credit: Credit, _: &mut Room<'_, Self>) {
        if call.session == self.session {
            self.send(call, Some(credit));
        }
    }
}

impl Receive<Subscribe> for Link {
    fn receive(&mut self, subscribe: Subscribe, _: Credit, _: &mut Room<'_, Self>) {
        let Subscribe { to, pushes } = subscribe;
        // First: a panic behind this has it told by the next one.
        self.listeners.borrow_mut().add(to.clone(), pushes);
        let state = match &self.phase {
            Phase::Open(session) => {
                LinkState::Up { session: self.session, hello: Arc::clone(&session.hello) }
            }
            _ => LinkState::Down { reason: Arc::clone(&self.last_reason) },
        };
        let _ = to.try_put(LinkChanged { link: self.id, state }); // it has stopped meanwhile
    }
}

impl Receive<Opened> for Link {
    fn receive(&mut self, opened: Opened, _: Credit, room: &mut Room<'_, Self>) {
        if opened.session != self.session || !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        match opened.result {
            Ok(parts) => self.opened(parts, room),
            Err(reason) => self.lost(&reason, room),
        }
    }
}

impl Receive<FramesRead> for Link {
    fn receive(&mut self, read: FramesRead, _: Credit, _: &mut Room<'_, Self>) {
        if read.session != self.session {
            return;
        }
        for frame in read.frames {
            if frame.head.kind == FrameKind::Push {
                self.listeners.borrow_mut().push(frame);
                continue;
            }
            let correlation = frame.head.correlation;
            if let Some(port) = self.calls.remove(&correlation) {
                port.send(frame);
            } else {
                tracing::warn!(correlation, "the broker answered what was not asked");
            }
        }
    }
}

impl Receive<Broken> for Link {
    fn receive(&mut self, broken: Broken, _: Credit, room: &mut Room<'_, Self>) {
        if broken.session == self.session && matches!(self.phase, Phase::Open(_)) {
            self.lost(&broken.reason, room);
        }
    }
}

impl Receive<Tick> for Link {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        let now_ms = tick.monotonic_ms;
        match &mut self.phase {
            Phase::Resting { until_ms } if *until_ms <= now_ms => self.open(room),
            Phase::Opening { since_ms, .. }
                if now_ms.saturating_sub(*since_ms) >= self.settings.open_ms_max =>
            {
                self.lost("no answer to the attempt to connect", room);
            }
            Phase::Open(session) => {
                let pulse = session.liveness.tick(session.intake.bytes_read(), now_ms);
                match pulse {
                    Pulse::Fine => {}
                    Pulse::Ping => {
                        session.intake.give_back();
                        self.ping();
                    }
                    Pulse::Dead => self.lost("no sign of life", room),
                }
            }
            _ => {}
        }
    }
}

const _: () = assert!(Opcode::Ping.number() == 2 && CORRELATION.end < frame::FRAME_HEAD_BYTES);
