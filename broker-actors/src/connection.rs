//! Connection: one socket.
//!
//! ```text
//! socket --[reader]--> TopicQueue, RegistryLink --answers--> [writer]--> socket
//!              '------------- [Connection] -------------'  watches both
//! ```
//!
//! * Owns: the socket, by way of its two tasks ([`crate::socket`]), and the deadlines of its peer.
//! * Lives on: a core arbiter, with its reader and writer.
//! * Inbox: [`Tick`] each second, [`Ended`] from its own tasks.
//! * Talks to: nobody; its reader puts requests into the inboxes of TopicQueue and RegistryLink.
//! * Stops: when its socket is closed by either side, or with the broker: it then reads no more,
//!   and writes the replies that are under way.
//! * If it panics: the socket is closed; no other connection notices.

pub mod blocks;
pub mod budget;
pub mod foreign;
pub mod liveness;
pub mod output;
pub mod pushes;
pub mod replies;
pub mod requests;

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Place, Receive, Resident, RestartPolicy, Room, Tick,
    Weigh, outlet,
};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::config::ConnectionConfig;
use crate::dispatch::{Dispatcher, Service};
use crate::metrics::EdgeMetrics;
use crate::socket::Gate;
use crate::socket::reader::{ReadEnd, Reader};
use crate::socket::writer::Writer;
use budget::BudgetLimits;
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
    /// All is written, or the peer is gone.
    Writer,
}

impl Weigh for Ended {}

/// Reads no more requests; those under way are answered.
#[derive(Debug)]
pub struct StopReading;

impl Weigh for StopReading {}

/// Counts one connection as open until its actor is gone for good.
#[derive(Debug)]
struct Presence {
    metrics: EdgeMetrics,
    reason: Cell<Closed>,
}

impl Presence {
    fn new(metrics: EdgeMetrics) -> Rc<Self> {
        metrics.opened();
        Rc::new(Self { metrics, reason: Cell::new(Closed::Panicked) })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.metrics.closed(self.reason.get());
    }
}

/// See the module documentation.
pub struct Connection {
    socket: Option<TcpStream>,
    peer: SocketAddr,
    service: Service,
    config: ConnectionConfig,
    gate: Rc<Gate>,
    liveness: Liveness,
    presence: Rc<Presence>,
    /// The reader ends when this is dropped.
    reading: Option<oneshot::Sender<()>>,
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
        service: Service,
        config: ConnectionConfig,
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
        let presence = Presence::new(service.metrics.clone());
        Ok(Host::spawn_local(place, spec, move || {
            let _kept_as_long_as_the_actor = &guard;
            let (service, config) = (service.clone(), config.clone());
            Self::new(socket.take(), peer, service, config, Rc::clone(&presence))
        }))
    }

    fn new(
        socket: Option<TcpStream>,
        peer: SocketAddr,
        service: Service,
        config: ConnectionConfig,
        presence: Rc<Presence>,
    ) -> Self {
        let limits = BudgetLimits {
            requests_max: config.inflight_requests_max.max(1),
            request_bytes_max: u64::from(config.inflight_bytes_max),
            output_bytes_max: u64::from(config.output_bytes_max),
        };
        let deadlines = Deadlines {
            hello_ms: ms(config.hello_timeout),
            idle_ms: ms(config.idle_timeout),
            write_ms: ms(config.write_timeout),
        };
        let now_ms = service.clock.monotonic_ms();
        Self {
            socket,
            peer,
            service,
            config,
            gate: Rc::new(Gate::new(limits)),
            liveness: Liveness::new(deadlines, now_ms),
            presence,
            reading: None,
            hushed: false,
        }
    }

    /// Ends the connection at once; what waits to be written is lost.
    fn close(&self, reason: Closed, room: &mut Room<'_, Self>) {
        self.presence.reason.set(reason);
        room.stop();
    }

    fn spawn_reader(&mut self, reader: Reader, room: &mut Room<'_, Self>) {
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
        let metrics = self.service.metrics.clone();
        // One reply for each request, and one word of farewell; what subscriptions send.
        let pushes_max = OUTGOING_EACH_MAX * u32::try_from(SUBSCRIPTIONS_MAX).unwrap_or(u32::MAX);
        let (replies, outlet) = outlet(self.config.inflight_requests_max.max(1) + 2 + pushes_max);
        let writer = Writer::new(write_half, outlet, Rc::clone(&self.gate), metrics.clone());
        let dispatcher = Dispatcher::new(self.service.clone(), replies.clone());
        let frame_limits = self.service.frame_limits;
        let gate = Rc::clone(&self.gate);
        let reader = Reader::new(read_half, frame_limits, gate, replies, dispatcher, metrics);
        self.spawn_reader(reader, room);
        room.spawn_into(async move {
            let _the_peer_is_gone = writer.run().await;
            Ended::Writer
        });
        room.tick_every(TICK);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.presence.reason.set(Closed::Stopping);
        self.reading = None;
        room.linger(); // until the writer has written what is under way
    }
}

impl Receive<StopReading> for Connection {
    fn receive(&mut self, StopReading: StopReading, _: Credit, _: &mut Room<'_, Self>) {
        self.presence.reason.set(Closed::Stopping);
        self.reading = None;
    }
}

impl Receive<Ended> for Connection {
    fn receive(&mut self, ended: Ended, _: Credit, room: &mut Room<'_, Self>) {
        let peer = self.peer;
        let reason = match ended {
            Ended::Writer => return room.stop(),
            Ended::Reader(ReadEnd::Stopped) => return,
            Ended::Reader(ReadEnd::PeerDone) => Closed::ByPeer,
            Ended::Reader(ReadEnd::PeerGone(kind)) => {
                tracing::debug!(%peer, ?kind, "connection lost");
                return self.close(Closed::ByPeer, room);
            }
            Ended::Reader(ReadEnd::Foreign(protocol)) => {
                tracing::warn!(%peer, protocol = protocol.name(), "not a grus client, closed");
                Closed::Refused
            }
            Ended::Reader(ReadEnd::Broken(error)) => {
                tracing::warn!(%peer, %error, "broken frame, closed");
                Closed::Refused
            }
        };
        // The writer ends when the last reply is written.
        self.presence.reason.set(reason);
    }
}

impl Receive<Tick> for Connection {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        let overdue = self.liveness.tick(tick.monotonic_ms, self.gate.pulse());
        if let Some(overdue) = overdue {
            let peer = self.peer;
            if overdue == Overdue::PeerNotReading {
                tracing::warn!(%peer, reason = overdue.text(), "connection cut off");
            } else {
                tracing::debug!(%peer, reason = overdue.text(), "connection closed");
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
