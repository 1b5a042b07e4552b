//! RemoteRegistry: a broker's way to a registry that is a process of its own. It takes the same
//! requests as the Registry of this process would, and tells the same routes.
//!
//! ```text
//! RegistryLink --RegistryRequest--> [RemoteRegistry] --frames--> socket --> registry
//!      ^---RoutingChanged--------------'    '-- RegisterBroker, BrokerHeartbeat, WatchRoutes
//! ```
//!
//! * Owns: one connection at a time, what is not answered on it ([`calls`]), the routes as they are
//!   told ([`Follower`]), and how things stand ([`RemoteState`]).
//! * Lives on: core arbiter 0 of the broker.
//! * Inbox: [`RegistryRequest`], held until it is answered; [`Watch`]; [`Claims`]; `Opened`, `Came`
//!   and `Broken` from its own tasks; [`Tick`].
//! * Talks to: the registry, and those who watch the routes.
//! * Stops: after it has told the registry that the broker leaves.
//! * If it panics: the connection is closed and made anew; those who asked are told to ask again.
//!
//! While the registry is away, the last known routes stay, and every request is refused at once.

pub mod calls;
mod talk;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, Room, Tick, Weigh,
};
use grus_protocol::error::ErrorReply;
use grus_protocol::frame::{Frame, FrameError};
use grus_protocol::ids::{BrokerAddress, Durability, ShardId};
use grus_protocol::limits::FrameLimits;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::RegistryError;
use crate::frames::{self, Outgoing};
use crate::request::{REQUESTS_MAX, RegistryHandle, RegistryRequest};
use crate::routing::RoutingTable;
use crate::routing::change::Follower;
use crate::watch::{WATCH_ASKS_MAX, Watch, feed};
use calls::{Calls, Wanted};

const TICK: Duration = Duration::from_millis(100);
/// Longest attempt to connect and to be answered, in milliseconds.
const ANSWER_MS_MAX: u64 = 5_000;
/// First and longest wait before another attempt to connect, in milliseconds.
const REST_MS: (u64, u64) = (50, 1_000);
/// How long a registry that refused this broker is left alone, in milliseconds.
const REFUSED_REST_MS: u64 = 1_000;
/// Longest wait for the registry to hear that the broker leaves, in milliseconds.
const FAREWELL_MS_MAX: u64 = 1_000;
/// A registry that takes no byte for so long is left.
const WRITE_STALL: Duration = Duration::from_secs(10);
/// A registry whose frame does not come on for so long is left.
const FRAME_STALL: Duration = Duration::from_secs(10);
/// Words about the broker's shards under way: one for each that it has alone.
const CLAIMS_MAX: u32 = 1_024;
/// Frames read and not yet dealt with.
const CAME_MAX: u32 = 16;

/// What a remote registry is told of its broker, and where it is.
#[derive(Clone)]
pub struct RemoteSettings {
    /// Where registries are, host:port; tried in turn.
    pub addresses: Vec<String>,
    /// The broker, and how clients reach it.
    pub broker: BrokerAddress,
    /// The number of its data folder's disk.
    pub disk: u64,
    /// The life of this process.
    pub session: u64,
    /// The shards it has, and how many of each durability it wants.
    pub claims: Claims,
    /// All shards of which its folder has anything have lower numbers.
    pub shards_below: u32,
    /// The routes as they were last known.
    pub known: Arc<RoutingTable>,
    /// All bytes of batches taken so far.
    pub produced_bytes: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Whether the broker is drained.
    pub drained: watch::Receiver<bool>,
}

/// The shards a broker has, and how many of each durability it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Those it has.
    pub shards: Vec<(ShardId, Durability)>,
    /// How many of each durability there are to be; missing ones are given out.
    pub wanted: u32,
}

impl Weigh for Claims {}

/// How things stand with a remote registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteState {
    /// It cannot be reached, or has not answered yet.
    Away {
        /// Why.
        reason: String,
    },
    /// It knows this broker.
    Registered {
        /// Its number.
        registry: u64,
        /// All shards of this broker.
        shards: Vec<(ShardId, Durability)>,
    },
    /// It does not take this broker.
    Refused(ErrorReply),
}

/// A running link to a remote registry; its owner stops it.
pub struct RemoteService {
    handle: RegistryHandle,
    remote: HostHandle<RemoteRegistry>,
    state: watch::Receiver<RemoteState>,
}

impl RemoteService {
    /// Starts it at `place`.
    #[must_use]
    pub fn start(place: &Place, settings: RemoteSettings) -> Self {
        let (newest, routes) = watch::channel(Arc::clone(&settings.known));
        let first = RemoteState::Away { reason: "not connected yet".to_owned() };
        let (state_to, state) = watch::channel(first);
        let (newest, state_to) = (Arc::new(newest), Arc::new(state_to));
        let name = settings.addresses.join(",");
        let remote = Host::spawn(place, ActorSpec::new("RemoteRegistry", name), move || {
            RemoteRegistry::new(settings.clone(), Arc::clone(&newest), Arc::clone(&state_to))
        });
        let handle = RegistryHandle {
            ask: remote.inbox(REQUESTS_MAX),
            watch: remote.inbox(WATCH_ASKS_MAX),
            copy: Arc::default(),
            routes,
        };
        Self { handle, remote, state }
    }

    /// What others hold of the registry.
    #[must_use]
    pub fn handle(&self) -> &RegistryHandle {
        &self.handle
    }

    /// How things stand, as they change.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<RemoteState> {
        self.state.clone()
    }

    /// From now on these are the shards of the broker.
    pub fn claims_are(&self, claims: Claims) {
        let _ = self.claims().try_put(claims); // stopped
    }

    /// Where that is said, again and again.
    #[must_use]
    pub fn claims(&self) -> Inbox<Claims> {
        self.remote.inbox(CLAIMS_MAX)
    }

    /// Tells the registry that the broker leaves, and ends the connection.
    pub async fn stop(&self) {
        self.remote.stop().await;
    }
}

/// The attempt to connect is over.
pub(crate) struct Opened {
    attempt: u64,
    result: Result<(TcpStream, BytesMut), String>,
}

impl Weigh for Opened {}

/// A frame came.
#[derive(Debug)]
pub(crate) struct Came {
    attempt: u64,
    frame: Result<Frame, FrameError>,
}

impl Weigh for Came {}

/// The connection is of no use any more.
#[derive(Debug)]
pub(crate) struct Broken {
    attempt: u64,
    reason: String,
}

impl Weigh for Broken {}

enum Phase {
    Resting { until_ms: u64 },
    Opening { since_ms: u64, _give_up: oneshot::Sender<()> },
    Open(Connected),
}

/// An open connection.
struct Connected {
    out: mpsc::UnboundedSender<Outgoing>,
    is_registered: bool,
    /// When to register, or to send a heartbeat, next; none while its answer is awaited.
    next_ms: Option<u64>,
    heartbeat_ms: u64,
    last_beat: Option<(u64, u64)>,
    follower: Follower,
    _close: (oneshot::Sender<()>, oneshot::Sender<()>),
}

/// See the module documentation.
pub struct RemoteRegistry {
    settings: RemoteSettings,
    newest: Arc<watch::Sender<Arc<RoutingTable>>>,
    state: Arc<watch::Sender<RemoteState>>,
    phase: Phase,
    attempt: u64,
    next_address: usize,
    rest_ms: u64,
    calls: Calls,
    came: Option<Inbox<Came>>,
    has_warned: bool,
    /// Since when this actor is to stop.
    leaving_ms: Option<u64>,
}

impl RemoteRegistry {
    fn new(
        settings: RemoteSettings,
        newest: Arc<watch::Sender<Arc<RoutingTable>>>,
        state: Arc<watch::Sender<RemoteState>>,
    ) -> Self {
        Self {
            settings,
            newest,
            state,
            phase: Phase::Resting { until_ms: 0 },
            attempt: 0,
            next_address: 0,
            rest_ms: REST_MS.0,
            calls: Calls::default(),
            came: None,
            has_warned: false,
            leaving_ms: None,
        }
    }

    fn address(&self) -> &str {
        &self.settings.addresses[self.next_address % self.settings.addresses.len()]
    }

    fn open(&mut self, room: &mut Room<'_, Self>) {
        self.attempt += 1;
        let attempt = self.attempt;
        let (give_up, given_up) = oneshot::channel();
        let since_ms = room.clock().monotonic_ms();
        self.phase = Phase::Opening { since_ms, _give_up: give_up };
        let address = self.address().to_owned();
        let hello = talk::hello(self.settings.broker.id);
        room.spawn_into(async move {
            let result = tokio::select! {
                opened = frames::open(&address, &hello) => opened,
                _ = given_up => Err("given up".to_owned()),
            };
            Opened { attempt, result }
        });
    }

    fn opened(&mut self, (stream, unread): (TcpStream, BytesMut), room: &mut Room<'_, Self>) {
        let (read_half, write_half) = stream.into_split();
        let (out, outgoing) = mpsc::unbounded_channel(); // bounded by the requests under way
        let (close_reader, mut reader_closed) = oneshot::channel();
        let (close_writer, mut writer_closed) = oneshot::channel();
        let attempt = self.attempt;
        let came = self.came.clone().unwrap_or_else(|| room.inbox(CAME_MAX));
        let limits = (FrameLimits::REPLIES, FRAME_STALL);
        let reader = frames::read(read_half, unread, limits, move |frame| {
            let came = came.clone();
            async move { came.put(Came { attempt, frame }).await.is_ok() }
        });
        room.spawn_into(async move {
            let reason = tokio::select! {
                reason = reader => reason,
                _ = &mut reader_closed => "closed".to_owned(),
            };
            Broken { attempt, reason }
        });
        room.spawn_into(async move {
            let reason = tokio::select! {
                reason = frames::write(write_half, outgoing, WRITE_STALL) => reason,
                _ = &mut writer_closed => "closed".to_owned(),
            };
            Broken { attempt, reason }
        });
        self.phase = Phase::Open(Connected {
            out,
            is_registered: false,
            next_ms: Some(0),
            heartbeat_ms: 1_000,
            last_beat: None,
            follower: Follower::default(),
            _close: (close_reader, close_writer),
        });
        self.pulse(room.clock().monotonic_ms());
    }

    fn lost(&mut self, reason: &str, now_ms: u64) {
        self.phase = Phase::Resting { until_ms: now_ms + self.rest_ms };
        self.rest_ms = (self.rest_ms * 2).min(REST_MS.1);
        if !self.has_warned {
            self.has_warned = true;
            let address = self.address();
            tracing::warn!(
                address,
                reason,
                "registry is away: going on with the last known routes"
            );
        }
        self.next_address += 1;
        self.set_state(RemoteState::Away { reason: reason.to_owned() });
        self.calls.lost(reason);
    }

    fn set_state(&self, state: RemoteState) {
        self.state.send_if_modified(|known| {
            let is_new = *known != state;
            if is_new {
                *known = state;
            }
            is_new
        });
    }

    fn publish(&self, table: Arc<RoutingTable>) {
        let known = self.newest.borrow().version;
        if table.registry == self.newest.borrow().registry && table.version < known {
            let (told, registry) = (table.version, table.registry);
            tracing::error!(registry, known, told, "the registry has forgotten some of its past");
        }
        self.newest.send_replace(table);
    }

    /// Why nothing can be asked now.
    fn reason(&self) -> String {
        match &*self.state.borrow() {
            RemoteState::Away { reason } => reason.clone(),
            RemoteState::Refused(error) => error.to_string(),
            RemoteState::Registered { .. } => "not connected".to_owned(),
        }
    }
}

impl Resident for RemoteRegistry {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.came = Some(room.inbox(CAME_MAX));
        room.tick_every(TICK);
        self.open(room);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        let now_ms = room.clock().monotonic_ms();
        self.leaving_ms = Some(now_ms);
        if self.say_farewell(now_ms) {
            room.linger();
        }
    }
}

impl Receive<RegistryRequest> for RemoteRegistry {
    fn receive(&mut self, request: RegistryRequest, credit: Credit, room: &mut Room<'_, Self>) {
        let wanted = Wanted::of(request, credit);
        if self.leaving_ms.is_some() {
            return wanted.refuse(RegistryError::Stopping);
        }
        if let Some(wanted) = self.send(wanted, room.clock().monotonic_ms()) {
            wanted.refuse(RegistryError::Unreachable { reason: self.reason() });
        }
    }
}

impl Receive<Watch> for RemoteRegistry {
    fn receive(&mut self, Watch { to }: Watch, _: Credit, room: &mut Room<'_, Self>) {
        room.spawn(feed(self.newest.subscribe(), to));
    }
}

impl Receive<Claims> for RemoteRegistry {
    fn receive(&mut self, claims: Claims, _: Credit, _: &mut Room<'_, Self>) {
        self.settings.claims = claims;
    }
}

impl Receive<Opened> for RemoteRegistry {
    fn receive(&mut self, opened: Opened, _: Credit, room: &mut Room<'_, Self>) {
        if opened.attempt != self.attempt || !matches!(self.phase, Phase::Opening { .. }) {
            return;
        }
        match opened.result {
            Ok(parts) => self.opened(parts, room),
            Err(reason) => self.lost(&reason, room.clock().monotonic_ms()),
        }
    }
}

impl Receive<Came> for RemoteRegistry {
    fn receive(&mut self, came: Came, _: Credit, room: &mut Room<'_, Self>) {
        if came.attempt != self.attempt || !matches!(self.phase, Phase::Open(_)) {
            return;
        }
        let now_ms = room.clock().monotonic_ms();
        match came.frame {
            Ok(frame) => self.heard(&frame, now_ms),
            Err(error) => self.lost(&error.to_string(), now_ms),
        }
        if self.leaving_ms.is_some() && self.calls.is_empty() {
            room.stop();
        }
    }
}

impl Receive<Broken> for RemoteRegistry {
    fn receive(&mut self, broken: Broken, _: Credit, room: &mut Room<'_, Self>) {
        if broken.attempt == self.attempt && matches!(self.phase, Phase::Open(_)) {
            self.lost(&broken.reason, room.clock().monotonic_ms());
        }
        if self.leaving_ms.is_some() {
            room.stop();
        }
    }
}

impl Receive<Tick> for RemoteRegistry {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        let now_ms = tick.monotonic_ms;
        if let Some(since_ms) = self.leaving_ms {
            if now_ms.saturating_sub(since_ms) >= FAREWELL_MS_MAX {
                room.stop();
            }
            return;
        }
        match &self.phase {
            Phase::Resting { until_ms } if *until_ms <= now_ms => self.open(room),
            Phase::Opening { since_ms, .. }
                if now_ms.saturating_sub(*since_ms) >= ANSWER_MS_MAX =>
            {
                self.lost("no answer to the attempt to connect", now_ms);
            }
            Phase::Open(_) => self.pulse(now_ms),
            _ => {}
        }
        self.calls.too_late(now_ms);
    }
}
