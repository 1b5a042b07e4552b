//! Peer: the way to one other broker, for the members of shards.
//!
//! ```text
//! consensus --Network--PeerCall--> [Peer] --frames--> socket --> Connection of the other broker
//!     ^------- reply port -----------'  <---answers-----'
//! ```
//!
//! * Owns: one connection at a time, and what is not answered on it ([`calls`]). There are two of
//!   them for each broker, so that a snapshot holds up no heartbeat.
//! * Lives on: core arbiter 0.
//! * Inbox: [`PeerCall`] in bytes, held until it is answered; [`PeerIs`] (4); `Opened`, `Came`
//!   and `Broken` from its own tasks; [`Tick`].
//! * Talks to: the other broker.
//! * Stops: at once; who waits is told.
//! * If it panics: the connection is closed and made anew with the next call; who waited is told.
//!
//! It connects when it is asked something. While it rests after a failure every call is refused at
//! once: consensus asks again, and must never wait for a broker that is not there. A peer that takes
//! bytes and answers nothing at all, not even a `Ping`, or takes none, is left after a while
//! ([`Lane::answer_ms_max`]). One shard that is mute there costs the others nothing: a call whose caller
//! has given up is forgotten once it is written. What waits is bounded by the inbox.

pub mod calls;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Port, Receive, Resident, Room, Tick, Weigh,
};
use grus_protocol::frame::{Frame, FrameHead};
use grus_protocol::ids::{BrokerAddress, BrokerId, ShardId};
use grus_protocol::message::{Ping, ShardMessage};
use grus_protocol::opcode::Opcode;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use crate::socket::peer::{self as edge, Outgoing, Whom};
use calls::Calls;
pub use calls::PeerFailure;

const TICK: Duration = Duration::from_millis(250);
/// Longest attempt to connect and to be answered, in milliseconds.
const OPEN_MS_MAX: u64 = 3_000;
/// First and longest wait before another attempt to connect, in milliseconds.
const REST_MS: (u64, u64) = (50, 1_000);
/// After this part of the time in which a peer must say something it is asked whether it is there.
const PING_SHARE: u64 = 4;
/// After so long without a tick this process has stood still, in milliseconds.
const STILL_MS: u64 = 1_000;
/// Frames read and not yet dealt with.
const CAME_MAX: u32 = 256;
/// What the smallest call counts, in bytes: it bounds how many are under way.
const CALL_BYTES_MIN: u32 = 1_024;

/// What a connection to a peer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Whatever must not wait: appends, votes, heartbeats.
    Messages,
    /// Chunks of snapshots.
    Installs,
}

impl Lane {
    /// As its actor is named.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Installs => "installs",
        }
    }

    /// Bytes of calls that may wait for an answer.
    #[must_use]
    pub const fn bytes_max(self) -> u32 {
        match self {
            Self::Messages => 32 << 20,
            Self::Installs => 16 << 20,
        }
    }

    /// A peer that says nothing at all for so long although it was asked something is left, and a call that has
    /// no answer for so long given up, in milliseconds. Installing a snapshot may take its time.
    #[must_use]
    pub const fn answer_ms_max(self) -> u64 {
        match self {
            Self::Messages => 5_000,
            Self::Installs => 60_000,
        }
    }
}

/// Says something to a member of a shard's group at that broker.
#[derive(Debug)]
pub struct PeerCall {
    /// The shard.
    pub shard: ShardId,
    /// Its group.
    pub group: u64,
    /// The message, in slices to be sent behind each other.
    pub message: Vec<Bytes>,
    /// Gets the answer. One that is closed before the call has left is not sent.
    pub reply: Port<Result<Bytes, PeerFailure>>,
}

impl Weigh for PeerCall {
    fn weight(&self) -> u32 {
        let bytes: usize = self.message.iter().map(Bytes::len).sum();
        u32::try_from(bytes).unwrap_or(u32::MAX).max(CALL_BYTES_MIN)
    }
}

/// Where the broker is now, and which data folder it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIs {
    /// Where it is reached.
    pub address: BrokerAddress,
    /// The number of its disk; 0: not known.
    pub disk: u64,
}

impl Weigh for PeerIs {}

/// What a Peer is started with.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// This broker.
    pub own: BrokerId,
    /// The number of its disk.
    pub own_disk: u64,
    /// The longest frame that it may send.
    pub frame_bytes_max: u32,
    /// The other one.
    pub peer: PeerIs,
    /// What the connection is for.
    pub lane: Lane,
}

/// The attempt to connect is over.
struct Opened {
    attempt: u64,
    result: Result<TcpStream, String>,
}

impl Weigh for Opened {}

/// A frame came.
#[derive(Debug)]
struct Came {
    attempt: u64,
    frame: Frame,
}

impl Weigh for Came {}

/// The connection is of no use any more.
#[derive(Debug)]
struct Broken {
    attempt: u64,
    reason: String,
}

impl Weigh for Broken {}

enum Phase {
    Idle,
    Resting { until_ms: u64, reason: String },
    Opening { since_ms: u64, _give_up: oneshot::Sender<()> },
    Open(Connected),
}

/// An open connection. Dropped, it is closed.
struct Connected {
    out: mpsc::UnboundedSender<Outgoing>,
    _close: (oneshot::Sender<()>, oneshot::Sender<()>),
}

/// See the module documentation.
pub struct Peer {
    settings: PeerSettings,
    phase: Phase,
    attempt: u64,
    rest_ms: u64,
    calls: Calls,
    /// Waits for the connection to be open.
    waiting: VecDeque<(PeerCall, Credit)>,
    came: Option<Inbox<Came>>,
    has_warned: bool,
    /// The last tick.
    looked_ms: u64,
}

impl Peer {
    /// Starts it at `place`.
    #[must_use]
    pub fn start(place: &Place, settings: PeerSettings) -> HostHandle<Self> {
        let name = format!("{}/{}", settings.peer.address.id, settings.lane.label());
        Host::spawn(place, ActorSpec::new("Peer", name), move || Self {
            settings: settings.clone(),
            phase: Phase::Idle,
            attempt: 0,
            rest_ms: REST_MS.0,
            calls: Calls::default(),
            waiting: VecDeque::new(),
            came: None,
            has_warned: false,
            looked_ms: 0,
        })
    }

    fn open(&mut self, room: &mut Room<'_, Self>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let (give_up, given_up) = oneshot::channel();
        let since_ms = room.clock().monotonic_ms();
        self.phase = Phase::Opening { since_ms, _give_up: give_up };
        let PeerSettings { own, own_disk, frame_bytes_max, peer, .. } = self.settings.clone();
        let whom = Whom { own, own_disk, frame_bytes_max, peer };
        room.spawn_into(async move {
            let result = tokio::select! {
                opened = edge::open(&whom) => opened,
                _ = given_up => Err("given up".to_owned()),
            };
            Opened { attempt, result }
        });
    }

    fn opened(&mut self, stream: TcpStream, room: &mut Room<'_, Self>) {
        let (read_half, write_half) = stream.into_split();
        let (out, outgoing) = mpsc::unbounded_channel(); // bounded by the calls under way
        let (close_reader, mut reader_closed) = oneshot::channel::<()>();
        let (close_writer, mut writer_closed) = oneshot::channel::<()>();
        let attempt = self.attempt;
        let came = self.came.clone().unwrap_or_else(|| room.inbox(CAME_MAX));
        room.spawn_into(async move {
            let take = |frame| {
                let came = came.clone();
                async move { came.put(Came { attempt, frame }).await.is_ok() }
            };
            let reason = tokio::select! {
                reason = edge::read(read_half, take) => reason,
                _ = &mut reader_closed => "closed".to_owned(),
            };
            Broken { attempt, reason }
        });
        room.spawn_into(async move {
            let reason = tokio::select! {
                reason = edge::write(write_half, outgoing) => reason,
                _ = &mut writer_closed => "closed".to_owned(),
            };
            Broken { attempt, reason }
        });
        self.phase = Phase::Open(Connected { out, _close: (close_reader, close_writer) });
        self.rest_ms = REST_MS.0;
        if std::mem::take(&mut self.has_warned) {
            tracing::info!(peer = %self.settings.peer.address.id, "peer is there again");
        }
        let now_ms = room.clock().monotonic_ms();
        for (call, credit) in std::mem::take(&mut self.waiting) {
            self.send(call, credit, now_ms);
        }
    }

    fn send(&mut self, call: PeerCall, credit: Credit, now_ms: u64) {
        let Phase::Open(connected) = &self.phase else { return };
        let PeerCall { shard, group, message, reply } = call;
        if reply.is_closed() {
            return; // it was given up
        }
        let credit = Arc::new(credit);
        let correlation = self.calls.sent(reply, Arc::clone(&credit), now_ms);
        let head = FrameHead::request(Opcode::ShardMessage, correlation);
        let outgoing = Outgoing::new(head, &ShardMessage { shard, group }, message);
        let _ = connected.out.send(outgoing.holding(credit)); // a writer that is gone says so
    }

    /// Leaves a peer that says nothing at all. A member that is mute behind it is none of the others' business, so
    /// the peer itself is asked first.
    fn look(&mut self, now_ms: u64) {
        let limit_ms = self.settings.lane.answer_ms_max();
        self.calls.give_up(now_ms, limit_ms);
        if now_ms.saturating_sub(std::mem::replace(&mut self.looked_ms, now_ms)) > STILL_MS {
            self.calls.stood_still(now_ms);
        }
        let (silent_ms, mute_ms) = (self.calls.silent_ms(now_ms), self.calls.mute_ms(now_ms));
        let ping_ms = limit_ms / PING_SHARE;
        if silent_ms >= limit_ms && mute_ms >= ping_ms {
            self.lost("no answer", now_ms);
        } else if silent_ms >= ping_ms
            && let Phase::Open(connected) = &self.phase
            && let Some(correlation) = self.calls.ping(now_ms)
        {
            let head = FrameHead::request(Opcode::Ping, correlation);
            let _ = connected.out.send(Outgoing::new(head, &Ping {}, Vec::new()));
        }
    }

    fn lost(&mut self, reason: &str, now_ms: u64) {
        let is_idle = self.calls.is_empty() && self.waiting.is_empty();
        let owes_nothing = self.calls.silent_ms(now_ms) == 0;
        if is_idle && owes_nothing && matches!(self.phase, Phase::Open(_)) {
            self.phase = Phase::Idle; // nobody spoke: the peer has closed what it did not need
            return;
        }
        self.phase = Phase::Resting { until_ms: now_ms + self.rest_ms, reason: reason.to_owned() };
        self.rest_ms = (self.rest_ms * 2).min(REST_MS.1);
        let PeerIs { address: BrokerAddress { id, host, port }, .. } = &self.settings.peer;
        if !std::mem::replace(&mut self.has_warned, true) {
            tracing::warn!(peer = %id, host, port, reason, "peer cannot be reached");
        }
        self.calls.lost(reason);
        for (call, _credit) in self.waiting.drain(..) {
            call.reply.send(Err(PeerFailure::Away { reason: reason.to_owned() }));
        }
    }
}

impl Resident for Peer {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.came = Some(room.inbox(CAME_MAX));
        room.tick_every(TICK);
    }
}

impl Receive<PeerCall> for Peer {
    fn receive(&mut self, call: PeerCall, credit: Credit, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        match &self.phase {
            Phase::Open(_) => self.send(call, credit, now_ms),
            Phase::Opening { .. } => self.waiting.push_back((call, credit)),
            Phase::Resting { until_ms, reason } if now_ms < *until_ms => {
                call.reply.send(Err(PeerFailure::Away { reason: reason.clone() }));
            }
            Phase::Idle | Phase::Resting { .. } => {
                self.waiting.push_back((call, credit));
                self.open(room);
            }
        }
    }
}

impl Receive<PeerIs> for Peer {
    fn receive(&mut self, peer: PeerIs, _: Credit, room: &mut Room<'_, Self>) {
        if self.settings.peer == peer {
            return;
        }
        self.settings.peer = peer;
        self.lost("it is elsewhere now", room.clock().monotonic_ms());
        self.rest_ms = REST_MS.0;
    }
}

impl Receive<Opened> for Peer {
    fn receive(&mut self, opened: Opened, _: Credit, room: &mut Room<'_, Self>) {
        if opened.attempt != self.attempt || !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        match opened.result {
            Ok(stream) => self.opened(stream, room),
            Err(reason) => self.lost(&reason, room.clock().monotonic_ms()),
        }
    }
}

impl Receive<Came> for Peer {
    fn receive(&mut self, came: Came, _: Credit, room: &mut Room<'_, Self>) {
        if came.attempt == self.attempt && matches!(self.phase, Phase::Open(_)) {
            self.calls.came(&came.frame, room.clock().monotonic_ms());
        }
    }
}

impl Receive<Broken> for Peer {
    fn receive(&mut self, broken: Broken, _: Credit, room: &mut Room<'_, Self>) {
        if broken.attempt == self.attempt && matches!(self.phase, Phase::Open(_)) {
            self.lost(&broken.reason, room.clock().monotonic_ms());
        }
    }
}

impl Receive<Tick> for Peer {
    fn receive(&mut self, tick: Tick, _: Credit, _: &mut Room<'_, Self>) {
        let now_ms = tick.monotonic_ms;
        match &self.phase {
            Phase::Opening { since_ms, .. } if now_ms.saturating_sub(*since_ms) >= OPEN_MS_MAX => {
                self.lost("no answer to the attempt to connect", now_ms);
            }
            _ => self.look(now_ms),
        }
    }
}
