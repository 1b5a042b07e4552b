//! Connection: one socket.
//!
//! ```text
//! socket --[reader]--> TopicQueue, RegistryLink --answers--> [writer]--> socket
//!              '------------- [Connection] -------------'  watches both
//! ```
//!
//! * Owns: the socket, by way of its two tasks ([`crate::socket`]), and the deadlines of its peer.
//! * Lives on: a core arbiter, with its reader and writer.
//! * Inbox: [`Tick`] each second, [`Ended`] from its own tasks, [`Describe`] from HTTP.
//! * Talks to: nobody; its reader puts requests into the inboxes of TopicQueue and RegistryLink.
//! * Stops: when its socket is closed by either side, or with the broker: it then reads no more,
//!   and writes the replies that are under way.
//! * If it panics: the socket is closed; no other connection notices.

pub mod budget;
pub mod facts;
pub mod foreign;
pub mod liveness;
pub mod output;
pub mod pushes;
pub mod replies;
pub mod requests;
pub mod timeouts;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Place, Port, Receive, Resident, RestartPolicy, Room, Tick,
    Weigh, outlet,
};
use grus_protocol::frame::Allowance;
use grus_protocol::ids::TimestampMs;
use grus_registry::door::complaints::Complaints;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::config::ConnectionConfig;
use crate::dispatch::{Dispatcher, Service};
use crate::metrics::EdgeMetrics;
use crate::socket::Gate;
use crate::socket::reader::{ReadEnd, Reader};
use crate::socket::writer::Writer;
use budget::{BudgetLimits, Load};
use facts::Facts;
use liveness::{Deadlines, Liveness, Overdue};
use pushes::{OUTGOING_EACH_MAX, SUBSCRIPTIONS_MAX};

/// How often a connection is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Quiet time after which a connection gives its read buffer back, in milliseconds.
const HUSH_MS: u64 = 5_000;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The peer closed it.
    ByPeer,
    /// The peer broke the protocol, or speaks something else.
    Refused,
    /// A deadline passed.
    Overdue,
    /// The broker stops.
    Stopping,
    /// A bug.
    Panicked,
}

impl Closed {
    /// As metrics name it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ByPeer => "peer",
            Self::Refused => "refused",
            Self::Overdue => "overdue",
            Self::Stopping => "stopping",
            Self::Panicked => "panicked",
        }
    }
}

/// A task of the connection has ended.
#[derive(Debug)]
pub enum Ended {
    /// Nothing more is read.
    Reader(ReadEnd),
    /// All is written, or the peer is gone; whether a reply said that the connection ends.
    Writer {
        /// It did.
        farewell: bool,
    },
}

impl Weigh for Ended {}

/// Reads no more requests; those under way are answered.
#[derive(Debug)]
pub struct StopReading;

impl Weigh for StopReading {}

/// Asks who is connected, and what is under way.
#[derive(Debug)]
pub struct Describe {
    /// Gets it.
    pub reply: Port<Description>,
}

impl Weigh for Describe {}

/// A connection at one moment.
#[derive(Debug, Clone)]
pub struct Description {
    /// The peer's address.
    pub peer: SocketAddr,
    /// When it connected.
    pub since: TimestampMs,
    /// Whether it has said hello.
    pub greeted: bool,
    /// How long it has sent no whole frame, in milliseconds; in steps of a second.
    pub silent_ms: u64,
    /// Whole frames it has sent.
    pub frames_read: u64,
    /// Bytes it has taken.
    pub bytes_written: u64,
    /// What is under way.
    pub load: Load,
    /// What it has said or shown.
    pub facts: Facts,
}

/// Counts one connection as open until its actor is gone for good.
#[derive(Debug)]
struct Presence {
    metrics: EdgeMetrics,
    /// Why it ended; the first reason is the true one.
    reason: Cell<Option<Closed>>,
}

impl Presence {
    fn new(metrics: EdgeMetrics) -> Rc<Self> {
        metrics.opened();
        Rc::new(Self { metrics, reason: Cell::new(None) })
    }

    fn ends_by(&self, reason: Closed) {
        self.reason.set(Some(self.reason.get().unwrap_or(reason)));
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.closed(self.reason.get().unwrap_or(Closed::Panicked));
    }
}

/// What all connections of a broker share.
pub struct ConnectionParts {
    /// What they are served from.
    pub service: Arc<Service>,
    /// Their limits.
    pub config: ConnectionConfig,
    /// What they may keep of what they read into.
    pub allowance: Allowance,
    /// Lines written about their peers.
    pub complaints: Complaints,
}

impl ConnectionParts {
    /// How many lines were left out, if another may be written about a peer.
    #[must_use]
    pub fn may_complain(&self) -> Option<u64> {
        self.complaints.line(self.service.clock.monotonic_ms())
    }
}

/// See the module documentation.
pub struct Connection {
    socket: Option<TcpStream>,
    peer: SocketAddr,
    parts: Arc<ConnectionParts>,
    gate: Rc<Gate>,
    liveness: Liveness,
    since: TimestampMs,
    presence: Rc<Presence>,
    /// The reader ends when this is dropped.
    reading: Option<oneshot::Sender<()>>,
    /// When the peer said that it sends no more.
    done_ms: Option<u64>,
    hushed: bool,
}

impl Connection {
    /// Starts a connection over `stream`, on the current thread, which must be `place`. The
    /// guard is dropped when the connection is over.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn start(
        place: &Place,
        (stream, peer): (std::net::TcpStream, SocketAddr),
        parts: Arc<ConnectionParts>,
        guard: impl Send + 'static,
    ) -> std::io::Result<HostHandle<Self>> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut socket = Some(TcpStream::from_std(stream)?);
        let spec = ActorSpec {
            kind: "Connection",
            name: peer.to_string(),
            // A panic loses the socket, and what is rebuilt without one stops: never a second.
            restart: RestartPolicy::Rebuild { restarts_max: 2, window_ms: 60_000 },
        };
        let presence = Presence::new(parts.service.metrics.clone());
        Ok(Host::spawn_local(place, spec, move || {
            let _kept_as_long_as_the_actor = &guard;
            Self::new(socket.take(), peer, Arc::clone(&parts), Rc::clone(&presence))
        }))
    }

    fn new(
        socket: Option<TcpStream>,
        peer: SocketAddr,
        parts: Arc<ConnectionParts>,
        presence: Rc<Presence>,
    ) -> Self {
        let config = &parts.config;
        let limits = BudgetLimits {
            requests_max: config.inflight_requests_max.max(1),
            request_bytes_max: u64::from(config.inflight_bytes_max),
            output_bytes_max: u64::from(config.output_bytes_max),
        };
        let deadlines = Deadlines {
            hello_ms: ms(config.hello_timeout),
            idle_ms: ms(config.idle_timeout),
            frame_ms: ms(config.frame_timeout),
            write_ms: ms(config.write_timeout),
        };
        let clock = parts.service.clock;
        let (since, now_ms) = (clock.now(), clock.monotonic_ms());
        Self {
            socket,
            peer,
            parts,
            gate: Rc::new(Gate::new(limits)),
            liveness: Liveness::new(deadlines, now_ms),
            since,
            presence,
            reading: None,
            done_ms: None,
            hushed: false,
        }
    }

    /// Ends the connection at once; what waits to be written is lost.
    fn close(&self, reason: Closed, room: &mut Room<'_, Self>) {
        self.presence.ends_by(reason);
        room.stop();
    }

    fn spawn_reader(&mut self, mut reader: Reader, room: &mut Room<'_, Self>) {
        let (keep, stopped) = oneshot::channel::<()>();
        self.reading = Some(keep);
        room.spawn_into(async move {
            tokio::select! {
                end = reader.run() => Ended::Reader(end),
                _dropped = stopped => Ended::Reader(ReadEnd::Stopped),
            }
        });
    }
}

impl Resident for Connection {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        let Some(stream) = self.socket.take() else {
            return self.close(Closed::Panicked, room); // rebuilt after a panic
        };
        let (read_half, write_half) = stream.into_split();
        let ConnectionParts { service, config, allowance, .. } = &*self.parts;
        let metrics = service.metrics.clone();
        // One reply for each request, and one word of farewell; what subscriptions send.
        let pushes_max = OUTGOING_EACH_MAX * u32::try_from(SUBSCRIPTIONS_MAX).unwrap_or(u32::MAX);
        let (replies, outlet) = outlet(config.inflight_requests_max.max(1) + 2 + pushes_max);
        let mut writer = Writer::new(write_half, outlet, Rc::clone(&self.gate), metrics.clone());
        let dispatcher =
            Dispatcher::new(Arc::clone(service), Rc::clone(&self.gate), replies.clone(), self.peer);
        let (limits, gate) = (service.frame_limits, Rc::clone(&self.gate));
        let allowance = allowance.clone();
        let reader = Reader::new(read_half, limits, gate, replies, dispatcher, metrics, allowance);
        self.spawn_reader(reader, room);
        room.spawn_into(async move {
            let farewell = writer.run().await.unwrap_or(false); // else the peer is gone
            Ended::Writer { farewell }
        });
        room.tick_every(TICK);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.presence.ends_by(Closed::Stopping);
        self.reading = None;
        room.linger(); // until the writer has written what is under way
    }
}

impl Receive<StopReading> for Connection {
    fn receive(&mut self, StopReading: StopReading, _: Credit, _: &mut Room<'_, Self>) {
        self.presence.ends_by(Closed::Stopping);
        self.reading = None;
    }
}

impl Receive<Ended> for Connection {
    fn receive(&mut self, ended: Ended, _: Credit, room: &mut Room<'_, Self>) {
        let peer = self.peer;
        let reason = match ended {
            Ended::Writer { farewell } => {
                return self.close(if farewell { Closed::Refused } else { Closed::ByPeer }, room);
            }
            Ended::Reader(ReadEnd::Stopped) => return,
            Ended::Reader(ReadEnd::PeerDone) => {
                self.done_ms = Some(room.clock().monotonic_ms());
                Closed::ByPeer
            }
            Ended::Reader(ReadEnd::PeerGone(kind)) => {
                tracing::debug!(%peer, ?kind, "connection lost");
                return self.close(Closed::ByPeer, room);
            }
            Ended::Reader(ReadEnd::Foreign(protocol)) => {
                if let Some(left_out) = self.parts.may_complain() {
                    let protocol = protocol.name();
                    tracing::warn!(%peer, protocol, left_out, "not a grus client, closed");
                }
                Closed::Refused
            }
            Ended::Reader(ReadEnd::Broken(error)) => {
                if let Some(left_out) = self.parts.may_complain() {
                    tracing::warn!(%peer, %error, left_out, "broken frame, closed");
                }
                Closed::Refused
            }
        };
        // The writer ends when the last reply is written.
        self.presence.ends_by(reason);
    }
}

impl Receive<Describe> for Connection {
    fn receive(&mut self, describe: Describe, _: Credit, room: &mut Room<'_, Self>) {
        let pulse = self.gate.pulse();
        describe.reply.send(Description {
            peer: self.peer,
            since: self.since,
            greeted: pulse.greeted,
            silent_ms: self.liveness.quiet_ms(room.clock().monotonic_ms()),
            frames_read: pulse.frames_read,
            bytes_written: pulse.bytes_written,
            load: self.gate.load(),
            facts: self.gate.facts().borrow().clone(),
        });
    }
}

impl Receive<Tick> for Connection {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        // It may have closed one half only, or both: that shows when something is written, which
        // a long poll may not be for long.
        let patience_ms = ms(self.parts.config.write_timeout);
        if self
            .done_ms
            .is_some_and(|done_ms| tick.monotonic_ms.saturating_sub(done_ms) >= patience_ms)
        {
            return self.close(Closed::ByPeer, room);
        }
        let overdue = self.liveness.tick(tick.monotonic_ms, self.gate.pulse());
        if let Some(overdue) = overdue {
            let (peer, reason) = (self.peer, overdue.text());
            if overdue != Overdue::PeerNotReading {
                tracing::debug!(%peer, reason, "connection closed");
            } else if let Some(left_out) = self.parts.may_complain() {
                tracing::warn!(%peer, reason, left_out, "connection cut off");
            }
            return self.close(Closed::Overdue, room);
        }
        let quiet = self.liveness.quiet_ms(tick.monotonic_ms) >= HUSH_MS;
        if quiet && !self.hushed {
            self.gate.hush();
        }
        self.hushed = quiet;
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
