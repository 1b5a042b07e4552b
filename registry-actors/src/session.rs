//! Session: one connection of a registry that is a process of its own: a broker, a client, a tool.
//!
//! ```text
//! socket --[reader]--> [Session] --RegistryRequest--> Registry
//!    ^                   |   ^ '--BrokerAsk--> BrokerTable
//!    '---[writer]--------'   '--RoutingChanged-- Watch
//! ```
//!
//! * Owns: the socket, by way of its reader and writer task; what its peer watches and knows.
//! * Lives on: the registry's core arbiter.
//! * Inbox: `Came` (frames; each holds its place until its reply is written, which bounds the peer),
//!   [`RoutingChanged`] (one, held until it is written: a slow watcher is told the newest routes
//!   afterwards, never a backlog), `Ended`, [`Tick`].
//! * Talks to: Registry, BrokerTable, Watch.
//! * Stops: when its socket is closed by either side, or with the process.
//! * If it panics: the socket is closed; no other session notices.

pub(crate) mod answers;
mod brokers;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, RestartPolicy, Room,
    Tick, Weigh, reply,
};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{Frame, FrameError, FrameHead, FrameKind};
use grus_protocol::ids::BrokerId;
use grus_protocol::limits::FrameLimits;
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, BrokerHeartbeat, CreateTopic, CreateTopicReply, DeleteTopic,
    DeleteTopicReply, Hello, Metadata, OfferTopics, Ping, PingReply, RegisterBroker, TopicMetadata,
    WatchRoutes, WatchRoutesReply,
};
use grus_protocol::names::{GroupName, TopicName};
use grus_protocol::opcode::Opcode;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::broker_table::BrokerAsk;
use crate::error::RegistryError;
use crate::frames::{self, Backlog, Outgoing};
use crate::policy::TopicPolicy;
use crate::replies::ReplyTo;
use crate::request::{RegistryHandle, RegistryRequest, TopicCreated};
use crate::routing::change::pushes;
use crate::routing::{RoutingTable, TopicRoutes};
use crate::watch::{RoutingChanged, Watch};
use brokers::for_brokers;

/// Requests of one connection under way.
const REQUESTS_MAX: u32 = 64;
const TICK: Duration = Duration::from_secs(1);
/// How long the topics of one Metadata may take to be made, in milliseconds.
const METADATA_WAIT_MS: u64 = 10_000;

/// What every session is served from. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) registry: RegistryHandle,
    pub(crate) brokers: Inbox<BrokerAsk>,
    pub(crate) policy: Arc<TopicPolicy>,
    pub(crate) limits: SessionLimits,
}

/// How long a peer may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Closed when no whole request arrived for this long.
    pub idle: Duration,
    /// Closed when the first request is not there after this long.
    pub hello: Duration,
    /// Closed when a frame has begun, and neither ends nor comes on by 64 KiB for this long.
    pub frame: Duration,
    /// Closed when the peer takes no byte of what waits for it for this long.
    pub write: Duration,
    /// What a frame may be.
    pub frames: FrameLimits,
}

/// A frame came, or something that is none.
#[derive(Debug)]
pub(crate) struct Came(Result<Frame, FrameError>);

impl Weigh for Came {}

/// A task of the session has ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Reader(String),
    Writer(String),
}

impl Weigh for Ended {}

/// What the peer watches.
struct Watching {
    head: FrameHead,
    topics: BTreeSet<TopicName>,
    known: Option<Arc<RoutingTable>>,
}

/// See the module documentation.
pub(crate) struct Session {
    socket: Option<TcpStream>,
    peer: SocketAddr,
    service: Service,
    out: Option<mpsc::UnboundedSender<Outgoing>>,
    backlog: Backlog,
    /// Told of each frame that was dealt with.
    served: Arc<Notify>,
    greeted: bool,
    heard_ms: u64,
    /// The broker that registered here, and its session.
    broker: Option<(BrokerId, u64)>,
    watching: Option<Watching>,
    is_fed: bool,
}

impl Session {
    /// Starts a session over `stream`. The guard is dropped when it is over.
    pub(crate) fn start(
        place: &Place,
        stream: TcpStream,
        peer: SocketAddr,
        service: Service,
        guard: impl Send + 'static,
    ) -> HostHandle<Self> {
        let _ = stream.set_nodelay(true); // slower at worst
        let mut socket = Some(stream);
        let spec = ActorSpec {
            kind: "Session",
            name: peer.to_string(),
            // A panic loses the socket, and what is rebuilt without one stops: never a second.
            restart: RestartPolicy::Rebuild { restarts_max: 2, window_ms: 60_000 },
        };
        let clock = place.process().clock;
        Host::spawn_local(place, spec, move || {
            let _kept_as_long_as_the_actor = &guard;
            Self {
                socket: socket.take(),
                peer,
                service: service.clone(),
                out: None,
                backlog: Backlog::default(),
                served: Arc::default(),
                greeted: false,
                heard_ms: clock.monotonic_ms(),
                broker: None,
                watching: None,
                is_fed: false,
            }
        })
    }

    fn reply_to(&self, head: FrameHead, credit: Credit) -> Option<ReplyTo> {
        Some(ReplyTo { head, credit, out: self.out.clone()?, backlog: self.backlog.clone() })
    }

    fn serve(&mut self, frame: &Frame, reply: ReplyTo, room: &mut Room<'_, Self>) {
        let opcode = frame.head.opcode;
        if self.greeted == (opcode == Opcode::Hello) {
            return reply.error(if self.greeted {
                ErrorReply::new(ErrorCode::InvalidRequest, "hello was said before")
            } else {
                let text = format!("the first request must be Hello, not {opcode}");
                ErrorReply::new(ErrorCode::HelloRequired, text)
            });
        }
        match opcode {
            Opcode::Hello => with(frame, reply, |ask, reply| self.hello(&ask, reply, room)),
            Opcode::Ping => with(frame, reply, |_: Ping, reply| {
                reply.result(Ok(PingReply { time: room.clock().now() }));
            }),
            Opcode::Metadata => with(frame, reply, |ask, reply| self.metadata(ask, reply, room)),
            Opcode::ListTopics => with(frame, reply, |ask, reply| {
                reply.result(Ok(answers::page(&self.service.registry.routing(), &ask)));
            }),
            Opcode::DescribeTopic => with(frame, reply, |ask, reply| {
                reply.result(answers::describe(&self.service.registry.routing(), &ask));
            }),
            Opcode::CreateTopic => with(frame, reply, |ask, reply| self.create(ask, reply)),
            Opcode::AlterTopic => with(frame, reply, |ask, reply| self.alter(ask, reply)),
            Opcode::DeleteTopic => with(frame, reply, |ask, reply| self.delete(ask, reply)),
            Opcode::PlaceDeadLetters => with(frame, reply, |ask, reply| self.place(ask, reply)),
            Opcode::LeadShards => with(frame, reply, |ask, reply| self.lead(ask, reply)),
            Opcode::ChangeReplicas => with(frame, reply, |ask, reply| self.change(ask, reply)),
            Opcode::WatchRoutes => with(frame, reply, |ask, reply| self.watch(ask, reply, room)),
            Opcode::RegisterBroker => with(frame, reply, |ask: RegisterBroker, reply| {
                self.broker = Some((ask.broker, ask.session));
                self.say(BrokerAsk::Register(ask, reply.port()));
            }),
            Opcode::BrokerHeartbeat => with(frame, reply, |ask: BrokerHeartbeat, reply| {
                self.say(BrokerAsk::Beat(ask, reply.port()));
            }),
            Opcode::OfferTopics => with(frame, reply, |ask: OfferTopics, reply| {
                self.say(BrokerAsk::Offer(ask, reply.port()));
            }),
            other => {
                let text = format!("a registry does not serve {other}: ask a broker");
                reply.error(ErrorReply::new(ErrorCode::UnsupportedFeature, text));
            }
        }
    }

    /// Asks the registry; a request that finds no room drops its port, which answers.
    fn ask(&self, request: RegistryRequest) {
        let _ = self.service.registry.ask.try_put(request);
    }

    /// As [`Session::ask`], of the table of brokers.
    fn say(&self, ask: BrokerAsk) {
        let _ = self.service.brokers.try_put(ask);
    }

    fn hello(&mut self, hello: &Hello, reply: ReplyTo, room: &Room<'_, Self>) {
        let answer = answers::hello(hello, &self.service.limits, room.clock().now());
        self.greeted = answer.is_ok();
        reply.result(answer);
    }

    /// Routes; those of topics that may be made once they are.
    fn metadata(&self, ask: Metadata, reply: ReplyTo, room: &mut Room<'_, Self>) {
        let Service { registry, policy, .. } = self.service.clone();
        let table = registry.routing();
        let missing = |name: &TopicName| {
            let may = ask.auto_create && policy.auto_create && !name.is_system();
            may && !table.topics.contains_key(name)
        };
        let missing: Vec<_> = ask.topics.iter().filter(|name| missing(name)).cloned().collect();
        if let Err(error) = answers::check_metadata(&table, &ask.topics) {
            return reply.error(error);
        }
        if missing.is_empty() {
            return reply.result(Ok(answers::metadata(&table, &ask.topics)));
        }
        let (clock, begun_ms) = (room.clock(), room.clock().monotonic_ms());
        // Ends with its answers, which come or are dropped; bounded by the requests under way.
        room.spawn(async move {
            let mut made = Vec::new();
            for name in missing {
                if clock.monotonic_ms().saturating_sub(begun_ms) >= METADATA_WAIT_MS {
                    made.push((name, Err(RegistryError::Busy)));
                    continue;
                }
                let (port, answer) = reply::port();
                let settings = policy.settings.clone();
                let create = RegistryRequest::CreateTopic {
                    name: name.clone(),
                    settings,
                    if_not_exists: true,
                    reply: port,
                };
                let _ = registry.ask.try_put(create); // refused: its answer is dropped
                made.push((name, answer.await.unwrap_or(Err(RegistryError::Busy))));
            }
            let table = registry.routing();
            if let Err(error) = answers::check_metadata(&table, &ask.topics) {
                return reply.error(error);
            }
            let mut routes = answers::metadata(&table, &ask.topics);
            for (name, made) in made {
                let Some(topic) = routes.topics.iter_mut().find(|topic| topic.name == name) else {
                    continue;
                };
                match made {
                    Ok(made) => *topic = answers::topic_metadata(&table, &made.topic),
                    Err(error) => *topic = TopicMetadata::failed(name, error.to_reply()),
                }
            }
            reply.result(Ok(routes));
        });
    }

    fn create(&self, ask: CreateTopic, reply: ReplyTo) {
        if let Err(error) = self.service.policy.check(&ask) {
            return reply.error(error);
        }
        let CreateTopic { name, settings, if_not_exists } = ask;
        let reply = reply.map(|made: TopicCreated| CreateTopicReply {
            id: made.topic.id,
            settings: made.topic.settings.clone(),
            created: made.created,
        });
        self.ask(RegistryRequest::CreateTopic { name, settings, if_not_exists, reply });
    }

    fn alter(&self, ask: AlterTopic, reply: ReplyTo) {
        if ask.queues.is_some_and(|queues| queues > self.service.policy.queues_max) {
            return reply.error(self.service.policy.too_many_queues());
        }
        let reply = reply.map(|topic: Arc<TopicRoutes>| AlterTopicReply {
            id: topic.id,
            settings: topic.settings.clone(),
        });
        self.ask(RegistryRequest::AlterTopic { alter: ask.into(), reply });
    }

    /// Removes a topic; dead letters only for a broker, whose group is gone.
    fn delete(&self, ask: DeleteTopic, reply: ReplyTo) {
        let DeleteTopic { name, topic_id: id } = ask;
        if self.broker.is_none() && GroupName::of_dead_letters(&name).is_some() {
            return reply.error(for_brokers("dead letters are deleted with their group"));
        }
        let reply = reply.map(|id| DeleteTopicReply { id });
        self.ask(RegistryRequest::DeleteTopic { name, id, reply });
    }

    fn watch(&mut self, ask: WatchRoutes, reply: ReplyTo, room: &Room<'_, Self>) {
        let table = self.service.registry.routing();
        let head = FrameHead {
            kind: FrameKind::Push,
            ..FrameHead::request(Opcode::RoutesChanged, reply.head.correlation)
        };
        let topics = ask.topics.into_iter().collect();
        self.watching = Some(Watching { head, topics, known: None });
        let RoutingTable { registry, version, .. } = *table;
        reply.result(Ok(WatchRoutesReply { registry, version }));
        if self.is_fed {
            return self.tell(&table, None);
        }
        self.be_fed(room);
    }

    /// Asks to hear of the routes, today's at once; again with the next tick when there is no room.
    fn be_fed(&mut self, room: &Room<'_, Self>) {
        self.is_fed = self.service.registry.watch.try_put(Watch { to: room.inbox(1) }).is_ok();
    }

    /// Tells the watcher what it does not know yet; `credit` comes back once that is written.
    fn tell(&mut self, table: &Arc<RoutingTable>, credit: Option<Credit>) {
        let (Some(watching), Some(out)) = (&mut self.watching, &self.out) else { return };
        if watching.known.as_ref().is_some_and(|known| !table.is_news_after(known)) {
            return;
        }
        let changes = pushes(watching.known.as_deref(), table, &watching.topics);
        watching.known = Some(Arc::clone(table));
        let mut credit = credit;
        for push in changes {
            let held = if push.more { None } else { credit.take() };
            let frame = frames::encode(watching.head, &push);
            let waiting = Some(self.backlog.add(frame.len()));
            // The peer may have left.
            let _ = out.send(Outgoing { waiting, ..Outgoing::new(frame, held) });
        }
    }

    fn close(&mut self, reason: &str, room: &mut Room<'_, Self>) {
        tracing::debug!(peer = %self.peer, reason, "session is over");
        room.stop();
    }

    fn tell_disconnected(&mut self) {
        if let Some((broker, session)) = self.broker.take() {
            self.say(BrokerAsk::Disconnected(broker, session));
        }
    }
}

/// Decodes a request's header and serves it; what cannot be decoded is answered.
fn with<T: DeserializeOwned>(frame: &Frame, reply: ReplyTo, serve: impl FnOnce(T, ReplyTo)) {
    match frame.header::<T>() {
        Ok(ask) => serve(ask, reply),
        Err(error) => reply.error(error.to_reply()),
    }
}

impl Resident for Session {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        let Some(stream) = self.socket.take() else { return room.stop() }; // after a panic
        let (read_half, write_half) = stream.into_split();
        let (out, outgoing) = mpsc::unbounded_channel(); // bounded by credits
        self.out = Some(out);
        let came = room.inbox::<Came>(REQUESTS_MAX);
        let SessionLimits { write, frame, frames, .. } = self.service.limits;
        let (backlog, served) = (self.backlog.clone(), Arc::clone(&self.served));
        let reader = frames::read(read_half, BytesMut::new(), (frames, frame), move |frame| {
            let (came, backlog, served) = (came.clone(), backlog.clone(), Arc::clone(&served));
            async move {
                backlog.room().await;
                if came.put(Came(frame)).await.is_err() {
                    return false;
                }
                // What it is answered with at once counts before another one is taken.
                served.notified().await;
                true
            }
        });
        room.spawn_into(async move { Ended::Reader(reader.await) });
        let writer = frames::write(write_half, outgoing, write);
        room.spawn_into(async move { Ended::Writer(writer.await) });
        room.tick_every(TICK);
    }

    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        self.tell_disconnected();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tell_disconnected();
    }
}

impl Receive<Came> for Session {
    fn receive(&mut self, Came(came): Came, credit: Credit, room: &mut Room<'_, Self>) {
        self.heard_ms = room.clock().monotonic_ms();
        self.served.notify_one(); // it goes on once this is over: on the same thread
        match came {
            Ok(frame) if frame.head.kind == FrameKind::Request => {
                if let Some(reply) = self.reply_to(frame.head, credit) {
                    self.serve(&frame, reply, room);
                }
            }
            Ok(_) => {} // nobody asked for replies or pushes here
            Err(error) => {
                let Some(out) = &self.out else { return };
                let mut frame = BytesMut::new();
                let is_answered = error.put_reply(&mut frame);
                if is_answered || error.is_fatal() {
                    let (frame, close_after) = (frame.freeze(), error.is_fatal());
                    let credit = Some(credit);
                    let _ = out.send(Outgoing { frame, credit, close_after, waiting: None });
                }
            }
        }
    }
}

impl Receive<RoutingChanged> for Session {
    fn receive(&mut self, changed: RoutingChanged, credit: Credit, _: &mut Room<'_, Self>) {
        self.tell(&changed.table, Some(credit));
    }
}

impl Receive<Ended> for Session {
    fn receive(&mut self, ended: Ended, _: Credit, room: &mut Room<'_, Self>) {
        match ended {
            // What is under way is still written, and then the writer ends.
            Ended::Reader(reason) => {
                tracing::debug!(peer = %self.peer, reason, "nothing more is read");
                self.out = None;
                self.tell_disconnected();
            }
            Ended::Writer(reason) => self.close(&reason, room),
        }
    }
}

impl Receive<Tick> for Session {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        if self.watching.is_some() && !self.is_fed {
            self.be_fed(room);
        }
        let silent_ms = u128::from(tick.monotonic_ms.saturating_sub(self.heard_ms));
        let SessionLimits { idle, hello, .. } = self.service.limits;
        let limit = if self.greeted { idle } else { hello };
        if silent_ms >= limit.as_millis() {
            self.close("silent", room);
        }
    }
}
