//! Listener: the door for clients.
//!
//! ```text
//! socket --accept--> [Listener] --starts--> Connection (on a core arbiter, in turn)
//!                         ^------ Left ---------'
//! ```
//!
//! * Owns: the listening socket, and the handles of all connections.
//! * Lives on: core arbiter 0.
//! * Inbox: `Accepted` from its own accept loop, `Arrived` and `Left` about connections,
//!   [`StopAccepting`] from the one who stops the broker, [`ListConnections`] from [`crate::clients`].
//! * Talks to: Connection, to stop it.
//! * Stops: first of all ([`StopAccepting`]), and for good when its connections have ended.
//! * If it panics: it is rebuilt on the same socket; open connections stay.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Port, Receive, Resident, Room, Weigh,
};
use grus_protocol::error::{ErrorCode, ErrorDetail, ErrorReply};
use grus_protocol::frame::{Allowance, FrameHead, encode};
use grus_protocol::opcode::Opcode;
use grus_registry::door::complaints::Complaints;
use grus_registry::door::connections_allowed;
use grus_registry::door::limits::is_of_one_connection;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::config::ConnectionConfig;
use crate::connection::{Connection, ConnectionParts, Describe, StopReading};
use crate::dispatch::Service;

/// Sockets accepted and not yet placed.
const ACCEPTED_MAX: u32 = 64;
/// How long nothing is accepted after the system has run out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client should wait that was one too many.
const REFUSED_RETRY_MS: u32 = 1_000;

/// A socket was accepted.
#[derive(Debug)]
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
}

impl Weigh for Accepted {}

/// A connection has started, or could not.
#[derive(Debug)]
struct Arrived {
    number: u64,
    handle: Option<HostHandle<Connection>>,
}

impl Weigh for Arrived {}

/// A connection is over.
#[derive(Debug)]
struct Left {
    number: u64,
}

impl Weigh for Left {}

/// Accepts no more connections, and has those that are open read no more requests.
#[derive(Debug)]
pub struct StopAccepting {
    /// Told when that is so.
    pub reply: Port<()>,
}

impl Weigh for StopAccepting {}

/// Asks for the way to the connections that are open.
#[derive(Debug)]
pub struct ListConnections {
    /// Those with a greater number than this; all without it.
    pub after: Option<u64>,
    /// At most so many.
    pub connections_max: usize,
    /// Gets them, in order of their numbers.
    pub reply: Port<ConnectionPage>,
}

impl Weigh for ListConnections {}

/// Some of the open connections.
#[derive(Debug)]
pub struct ConnectionPage {
    /// Each with its number, in order.
    pub connections: Vec<(u64, Inbox<Describe>)>,
    /// Whether there are others behind them.
    pub more: bool,
}

/// Tells the listener that a connection is over, however it ends.
struct Guard {
    number: u64,
    to: Inbox<Left>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.to.try_put(Left { number: self.number }); // the listener may be gone
    }
}

/// What a listener is started with.
pub struct ListenerParts {
    /// Where connections live.
    pub cores: Vec<Place>,
    /// What they are served from.
    pub service: Service,
    /// Their limits.
    pub connection: ConnectionConfig,
    /// Most of them.
    pub connections_max: u32,
}

/// What outlives a panic of the listener.
struct Estate {
    cores: Vec<Place>,
    connections_max: u32,
    shared: Arc<ConnectionParts>,
    /// The accept loop's socket; taken when no more is accepted.
    socket: RefCell<Option<std::net::TcpListener>>,
    /// Open connections; those that are being started have no handle yet.
    connections: RefCell<BTreeMap<u64, Option<HostHandle<Connection>>>>,
    next_number: Cell<u64>,
}

/// See the module documentation.
pub struct Listener {
    estate: Rc<Estate>,
    left: Option<Inbox<Left>>,
    /// The accept loop ends when this is dropped.
    accepting: Option<oneshot::Sender<()>>,
    draining: bool,
}

impl Listener {
    /// Starts the listener of a bound, non-blocking `socket` at `place`. `None` when the place has
    /// stopped.
    pub async fn start(
        place: &Place,
        socket: std::net::TcpListener,
        parts: ListenerParts,
    ) -> Option<HostHandle<Self>> {
        let home = place.clone();
        let ListenerParts { cores, service, connection, connections_max: configured } = parts;
        let connections_max = connections_allowed(configured);
        let start = move || async move {
            let shared = Arc::new(ConnectionParts {
                service: Arc::new(service),
                config: connection,
                allowance: Allowance::default(),
                complaints: Complaints::default(),
            });
            let estate = Rc::new(Estate {
                cores,
                connections_max,
                shared,
                socket: RefCell::new(Some(socket)),
                connections: RefCell::default(),
                next_number: Cell::new(0),
            });
            Host::spawn_local(&home, ActorSpec::new("Listener", "tcp"), move || Self {
                estate: Rc::clone(&estate),
                left: None,
                accepting: None,
                draining: false,
            })
        };
        place.run(start).await.ok()
    }

    fn refuse(&self, mut stream: TcpStream, peer: SocketAddr) {
        let (shared, connections_max) = (&self.estate.shared, self.estate.connections_max);
        shared.service.metrics.refused();
        if let Some(left_out) = shared.may_complain() {
            tracing::warn!(%peer, connections_max, left_out, "too many connections, one refused");
        }
        let text = format!("the broker has its {connections_max} connections");
        let error = ErrorReply::new(ErrorCode::TooManyConnections, text)
            .with_detail(ErrorDetail::limit(
                "connections_max",
                u64::from(connections_max),
                u64::from(connections_max) + 1,
                None,
            ))
            .with_retry_after_ms(REFUSED_RETRY_MS);
        let head = FrameHead::request(Opcode::Hello, 0).error_reply();
        let mut frame = BytesMut::new();
        if encode(head, &error, 0, &mut frame).is_ok() && stream.set_nonblocking(true).is_ok() {
            let _ = stream.write(&frame); // as far as the peer takes it
        }
    }
}

/// Accepts until there is no socket, or it is told to stop.
async fn accept_loop(
    estate: Rc<Estate>,
    accepted: Inbox<Accepted>,
    stopped: oneshot::Receiver<()>,
) {
    tokio::select! {
        () = accept(&estate, accepted) => {}
        _dropped = stopped => {}
    }
}

async fn accept(estate: &Estate, accepted: Inbox<Accepted>) {
    let listener = loop {
        let cloned = estate.socket.borrow().as_ref().map(std::net::TcpListener::try_clone);
        match cloned.map(|socket| socket.and_then(TcpListener::from_std)) {
            None => return,
            Some(Ok(listener)) => break listener,
            Some(Err(error)) => estate.pause(&error).await,
        }
    };
    loop {
        match listener.accept().await.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                if accepted.put(Accepted { stream, peer }).await.is_err() {
                    return;
                }
            }
            // That one connection has gone already; the next may be fine.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => estate.pause(&error).await,
        }
    }
}

impl Estate {
    /// Gives the system time to have descriptors or memory again.
    async fn pause(&self, error: &io::Error) {
        if let Some(left_out) = self.shared.may_complain() {
            tracing::warn!(
                %error,
                left_out,
                "no connection accepted; is the limit of open files (ulimit -n) too low?"
            );
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

impl Resident for Listener {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.left = Some(room.inbox(self.estate.connections_max.saturating_add(1)));
        let accepted = room.inbox(ACCEPTED_MAX);
        let (keep, stopped) = oneshot::channel();
        self.accepting = Some(keep);
        room.spawn(accept_loop(Rc::clone(&self.estate), accepted, stopped));
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.accepting = None;
        self.estate.socket.replace(None);
        let connections = self.estate.connections.borrow();
        for handle in connections.values().flatten() {
            drop(handle.stop()); // it says so by leaving
        }
        if !connections.is_empty() {
            self.draining = true;
            room.linger();
        }
    }
}

impl Receive<Accepted> for Listener {
    fn receive(&mut self, accepted: Accepted, credit: Credit, room: &mut Room<'_, Self>) {
        let Accepted { stream, peer } = accepted;
        let open = self.estate.connections.borrow().len();
        let Some(left) = self.left.clone() else { return };
        if open >= self.estate.connections_max as usize {
            return self.refuse(stream, peer);
        }
        let number = self.estate.next_number.replace(self.estate.next_number.get() + 1);
        self.estate.connections.borrow_mut().insert(number, None);
        let cores = &self.estate.cores;
        let place = cores[usize::try_from(number).unwrap_or(0) % cores.len()].clone();
        let shared = Arc::clone(&self.estate.shared);
        let guard = Guard { number, to: left };
        let home = place.clone();
        let start = move || async move { Connection::start(&home, (stream, peer), shared, guard) };
        let started = place.run(start);
        room.spawn_into(async move {
            let _until_placed = credit;
            let handle = started.await.ok().and_then(Result::ok);
            Arrived { number, handle }
        });
    }
}

impl Receive<Arrived> for Listener {
    fn receive(&mut self, arrived: Arrived, _: Credit, _: &mut Room<'_, Self>) {
        let mut connections = self.estate.connections.borrow_mut();
        let Some(place) = connections.get_mut(&arrived.number) else { return }; // it has left
        if self.draining
            && let Some(handle) = &arrived.handle
        {
            drop(handle.stop());
        }
        *place = arrived.handle;
    }
}

impl Receive<Left> for Listener {
    fn receive(&mut self, left: Left, _: Credit, room: &mut Room<'_, Self>) {
        let mut connections = self.estate.connections.borrow_mut();
        connections.remove(&left.number);
        if self.draining && connections.is_empty() {
            room.stop();
        }
    }
}

impl Receive<ListConnections> for Listener {
    fn receive(&mut self, list: ListConnections, _: Credit, _: &mut Room<'_, Self>) {
        let open = self.estate.connections.borrow();
        let from = list.after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut behind = open
            .range((from, Bound::Unbounded))
            .filter_map(|(number, handle)| Some((*number, handle.as_ref()?)));
        let some = behind.by_ref().take(list.connections_max);
        let connections = some.map(|(number, handle)| (number, handle.inbox(1))).collect();
        let more = behind.next().is_some();
        list.reply.send(ConnectionPage { connections, more });
    }
}

impl Receive<StopAccepting> for Listener {
    fn receive(&mut self, stop: StopAccepting, _: Credit, _: &mut Room<'_, Self>) {
        self.accepting = None;
        self.estate.socket.replace(None);
        for handle in self.estate.connections.borrow().values().flatten() {
            let _ = handle.inbox(1).try_put(StopReading); // it may have ended
        }
        stop.reply.send(());
    }
}
