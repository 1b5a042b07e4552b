//! Door: where a registry that is a process of its own is reached.
//!
//! ```text
//! socket --accept--> [Door] --starts--> Session
//!                       ^----- Left -------'
//! ```
//!
//! * Owns: the listening socket, and the handles of all sessions.
//! * Lives on: the registry's core arbiter, with all sessions.
//! * Inbox: `Accepted` from its own accept loop, `Left` from sessions.
//! * Talks to: Session, to stop it.
//! * Stops: first of all, once its sessions have ended.
//! * If it panics: the process ends; recovery is a restart.

pub mod complaints;
pub mod limits;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Clock, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, Room, Weigh,
};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::FrameHead;
use grus_protocol::opcode::Opcode;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};

use crate::frames;
use crate::session::{Service, Session};
use complaints::Complaints;
use limits::{connections_within, is_of_one_connection};

/// Sockets accepted and not yet taken.
const ACCEPTED_MAX: u32 = 64;
/// How long nothing is accepted after the system has run out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// When one that was refused may come again, in milliseconds.
const REFUSED_RETRY_MS: u32 = 1_000;

/// A socket was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Weigh for Accepted {}

/// A session is over.
#[derive(Debug)]
pub(crate) struct Left {
    number: u64,
}

impl Weigh for Left {}

/// Tells the door that a session is over, however it ends.
struct Guard {
    number: u64,
    to: Inbox<Left>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.to.try_put(Left { number: self.number }); // the door may be gone
    }
}

/// See the module documentation.
pub(crate) struct Door {
    socket: Option<std::net::TcpListener>,
    service: Service,
    connections_max: u32,
    /// Lines written about strangers.
    complaints: Complaints,
    sessions: BTreeMap<u64, HostHandle<Session>>,
    next_number: u64,
    left: Option<Inbox<Left>>,
    draining: bool,
}

impl Door {
    /// Opens the door at `place`, on a socket that does not block.
    pub(crate) fn start(
        place: &Place,
        socket: std::net::TcpListener,
        service: Service,
        configured: u32,
    ) -> HostHandle<Self> {
        let connections_max = connections_allowed(configured);
        let mut socket = Some(socket);
        Host::spawn(place, ActorSpec::new("Door", "registry").never_restarts(), move || Self {
            socket: socket.take(),
            service: service.clone(),
            connections_max,
            complaints: Complaints::default(),
            sessions: BTreeMap::new(),
            next_number: 0,
            left: None,
            draining: false,
        })
    }
}

/// Most connections that the limit of open files lets a process have; says so when that is fewer than
/// configured.
#[must_use]
pub fn connections_allowed(configured: u32) -> u32 {
    let connections_max = connections_within(configured, getrlimit(Resource::Nofile).current);
    if connections_max < configured {
        tracing::warn!(
            connections_max,
            configured,
            "fewer connections than configured: the limit of open files (ulimit -n) is low"
        );
    }
    connections_max
}

/// Accepts until nobody takes what is accepted.
async fn accept_loop(
    socket: std::net::TcpListener,
    accepted: Inbox<Accepted>,
    (complaints, clock): (Complaints, Clock),
) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot accept connections"),
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if accepted.put(Accepted { stream, peer }).await.is_err() {
                    return;
                }
            }
            // That one connection has gone already; the next may be fine.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if let Some(left_out) = complaints.line(clock.monotonic_ms()) {
                    tracing::warn!(%error, left_out, "no connection accepted");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says that there is no room, as far as the peer takes it at once.
fn refuse(stream: TcpStream, connections_max: u32) {
    let text = format!("the registry has its {connections_max} connections");
    let error =
        ErrorReply::new(ErrorCode::TooManyConnections, text).with_retry_after_ms(REFUSED_RETRY_MS);
    let frame = frames::encode(FrameHead::request(Opcode::Hello, 0).error_reply(), &error);
    // By the system itself: the runtime does not know yet that the socket can be written to.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(&frame); // it may have left
    }
}

impl Resident for Door {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.left = Some(room.inbox(self.connections_max.saturating_add(1)));
        if let Some(socket) = self.socket.take() {
            let lines = (self.complaints.clone(), room.clock());
            room.spawn(accept_loop(socket, room.inbox(ACCEPTED_MAX), lines));
        }
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.draining = true;
        for session in self.sessions.values() {
            drop(session.stop()); // it says so by leaving
        }
        if !self.sessions.is_empty() {
            room.linger();
        }
    }
}

impl Receive<Accepted> for Door {
    fn receive(&mut self, accepted: Accepted, _: Credit, room: &mut Room<'_, Self>) {
        let Accepted { stream, peer } = accepted;
        if self.draining {
            return;
        }
        let Some(left) = self.left.clone() else { return };
        if self.sessions.len() >= self.connections_max as usize {
            if let Some(left_out) = self.complaints.line(room.clock().monotonic_ms()) {
                tracing::warn!(%peer, left_out, "connection refused: too many are open");
            }
            return refuse(stream, self.connections_max);
        }
        let number = self.next_number;
        self.next_number += 1;
        let guard = Guard { number, to: left };
        let session = Session::start(room.place(), stream, peer, self.service.clone(), guard);
        self.sessions.insert(number, session);
    }
}

impl Receive<Left> for Door {
    fn receive(&mut self, left: Left, _: Credit, room: &mut Room<'_, Self>) {
        self.sessions.remove(&left.number);
        if self.draining && self.sessions.is_empty() {
            room.stop();
        }
    }
}
