//! From a request to the actor that serves it. The reader of a connection calls this for each
//! request in the order of arrival, and waits here where a queue has no room: that order, and that
//! wait, are what keeps the batches of a queue in order and a fast producer in bounds.

mod alike;
mod dead_letters;
mod group_queues;
mod groups;
mod listings;
pub mod peers;
mod readership;
mod schedules;
mod service;
mod subscriptions;

pub use readership::Readership;
pub use service::Service;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use grus_mailbox::{Inbox, reply};
use grus_protocol::batch::{Compression, RecordBatch, RecordView};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{QueueId, SubscriptionId, TopicId};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{
    CloseProducerReply, Fetch, Hello, HelloReply, InitProducer, ListAt, ListOffsets,
    ListOffsetsReply, NameScope, PingReply, Produce, Subscribe,
};
use grus_protocol::names::TopicName;
use tokio::sync::watch;

use crate::connection::replies::{Outgoing, ReplyTo};
use crate::connection::requests::Request;
use crate::connection::timeouts::Timed;
use crate::registry_link::LinkRequest;
use crate::registry_link::routes::{Routes, TopicRoute};
use crate::route_feed::RouteFeed;
use crate::socket::Gate;
use crate::socket::alarm::Alarm;
use crate::topic_queue::{self, At, ListedOffset, QueueAsk, QueueHandle};
use alike::Alike;
use groups::ConnectionMembers;
use listings::Asides;
use peers::PeerId;
use subscriptions::ConnectionSubscriptions;

/// How long a client waits before it repeats what was refused for want of room.
const RETRY_AFTER_MS: u32 = 20;
/// How long a produce without a time of its own may take, and any may wait for a topic or for room.
const PRODUCE_WAIT: Duration = Duration::from_secs(30);
/// To describe this topic is to have the connection panic, where `GRUS_FAULT_SWITCHES=1` says so.
pub const PANIC_TOPIC: &str = "grus-fault-panic";
/// Program and version, for people.
pub const SOFTWARE: &str = concat!("grus-broker ", env!("CARGO_PKG_VERSION"));

/// What is left of handing a request on. Boxed, and made of what has to wait alone: ten thousand idle
/// connections have no room for the largest request there may be.
pub type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Serves the requests of one connection.
pub struct Dispatcher {
    service: Arc<Service>,
    gate: Rc<Gate>,
    seen: watch::Receiver<Arc<Routes>>,
    routes: Arc<Routes>,
    /// What this connection's batches may be: the broker's limits, and what Hello agreed on.
    batch_limits: BatchLimits,
    subscriptions: ConnectionSubscriptions,
    members: Box<ConnectionMembers>,
    writer: Inbox<Outgoing>,
    /// What the client watches.
    watching: Option<RouteFeed>,
    asides: Asides,
    alarm: Alarm,
    /// The broker that has said here who it is.
    peer: PeerId,
}

impl Dispatcher {
    /// Serves the connection of `gate` with `peer`, which is written to by `writer`, from `service`.
    #[must_use]
    pub fn new(
        service: Arc<Service>,
        gate: Rc<Gate>,
        writer: Inbox<Outgoing>,
        peer: SocketAddr,
    ) -> Self {
        let mut seen = service.routes.clone();
        let routes = Arc::clone(&seen.borrow_and_update());
        let compressions = Compression::None.bit();
        let batch_limits = BatchLimits { compressions, ..service.batch_limits };
        let alarm = Alarm::new(service.clock, writer.clone());
        let readership = Readership { compressions, clock: service.clock };
        let subscriptions = ConnectionSubscriptions::new(writer.clone(), readership);
        Self {
            service,
            gate,
            seen,
            routes,
            batch_limits,
            subscriptions,
            members: Box::new(ConnectionMembers::new(peer)),
            writer,
            watching: None,
            asides: Asides::default(),
            alarm,
            peer: None,
        }
    }

    /// Where HTTP is served.
    #[must_use]
    pub fn http_address(&self) -> &str {
        &self.service.http_address
    }

    /// Hands one request on, or answers it, as far as that goes at once: what is left to be waited for
    /// before the next one may be handed on.
    pub fn dispatch<'a>(
        &'a mut self,
        request: Request,
        reply: ReplyTo,
        gate: &Rc<Gate>,
    ) -> Option<Work<'a>> {
        match request {
            Request::Produce(produce, body) => {
                return Some(Box::pin(self.produce(produce, body, reply)));
            }
            Request::Fetch(fetch) => self.fetch(&fetch, reply),
            Request::Credit(ask) => {
                self.heard(ask.subscription);
                return Some(Box::pin(self.subscriptions.credit(ask, reply)));
            }
            Request::Subscribe(ask) => return Some(Box::pin(self.subscribe(ask, reply))),
            Request::Seek(ask) => {
                self.heard(ask.subscription);
                return Some(Box::pin(self.subscriptions.seek(ask, reply)));
            }
            Request::Unsubscribe(ask) => {
                self.gate.facts().borrow_mut().unsubscribed(ask.subscription);
                return Some(Box::pin(self.subscriptions.unsubscribe(ask, reply)));
            }
            Request::ListOffsets(ask) => self.list_offsets(&ask, reply),
            Request::Ping => reply.header(&PingReply { time: self.service.clock.now() }),
            Request::Hello(hello) => self.hello(&hello, reply, gate),
            Request::Metadata(ask) => {
                return Some(Box::pin(async move { reply.result(self.metadata(ask).await) }));
            }
            Request::ListTopics(ask) => self.list_topics(&ask, reply),
            Request::DescribeTopic(ask) => return Some(Box::pin(self.describe_topic(ask, reply))),
            Request::FindMessages(ask) => return Some(Box::pin(self.find_messages(ask, reply))),
            Request::InitProducer(ask) => self.init_producer(ask, reply),
            Request::RecallMessage(ask) => self.recall_message(ask, reply),
            Request::ListScheduled(ask) => self.list_scheduled(ask, reply),
            Request::CountScheduled(ask) => self.count_scheduled(ask, reply),
            Request::ShowScheduled(ask) => self.show_scheduled(ask, reply),
            Request::CreateSchedule(ask, batch) => self.create_schedule(ask, batch, reply),
            Request::ListSchedules(ask) => self.list_schedules(ask, reply),
            Request::AlterSchedule(ask) => self.alter_schedule(ask, reply),
            Request::DeleteSchedule(ask) => self.delete_schedule(ask, reply),
            Request::JoinGroup(ask) => self.join_group(*ask, reply),
            Request::GroupHeartbeat(ask) => self.group_heartbeat(*ask, reply),
            Request::LeaveGroup(ask) => self.leave_group(&ask, reply),
            Request::AssignQueues(ask) => self.assign_queues(ask, reply),
            Request::ListGroups(ask) => self.list_groups(ask, reply),
            Request::DescribeGroup(ask) => self.describe_group(ask, reply),
            Request::DeleteGroup(ask) => self.delete_group(ask, reply),
            Request::WatchRoutes(ask) => self.watch_routes(ask, reply),
            Request::GroupQueue(ask) => return Some(Box::pin(self.group_queue(*ask, reply))),
            Request::ListClients(ask) => return Some(Box::pin(self.list_clients(ask, reply))),
            Request::DescribeShards => return Some(Box::pin(self.describe_shards(reply))),
            Request::HandOverShards(ask) => return Some(Box::pin(self.hand_over(ask, reply))),
            Request::ChangeReplicas(ask) => return Some(Box::pin(self.change(ask, reply))),
            Request::CloseProducer(ask) => {
                let (id, epoch) = (ask.producer_id, ask.producer_epoch);
                self.gate.facts().borrow_mut().producer_closed(id, epoch);
                reply.header(&CloseProducerReply {});
            }
            Request::ShardMessage(ask, message) => self.shard_message(&ask, message, reply),
            Request::OpenPeer(ask) => self.open_peer(&ask, reply),
            Request::CreateTopic(ask) => {
                self.link(reply, |reply| LinkRequest::Create { ask, reply });
            }
            Request::AlterTopic(ask) => {
                self.link(reply, |reply| LinkRequest::Alter { ask, reply });
            }
            Request::DeleteTopic(ask) => {
                self.link(reply, |reply| LinkRequest::Delete { ask, reply });
            }
        }
        None
    }

    fn heard(&self, subscription: SubscriptionId) {
        self.gate.facts().borrow_mut().heard(subscription, self.service.clock.now());
    }

    fn hello(&mut self, hello: &Hello, reply: ReplyTo, gate: &Rc<Gate>) {
        let version = match hello.judge() {
            Ok(version) => version,
            Err(error) => return reply.error(error), // it may try again
        };
        let service = &self.service;
        let mut header = HelloReply::new(
            hello,
            version,
            service.address.id,
            &service.frame_limits,
            &service.batch_limits,
        );
        header.idle_ms_max = service.idle_ms_max;
        header.time = service.clock.now();
        SOFTWARE.clone_into(&mut header.software);
        self.batch_limits.compressions = header.compressions;
        self.subscriptions.agree(header.compressions);
        gate.greet();
        gate.facts().borrow_mut().greeted(hello);
        reply.header(&header);
    }

    fn known(&mut self, name: &TopicName) -> Option<Arc<TopicRoute>> {
        if self.seen.has_changed().unwrap_or(false) {
            self.routes = Arc::clone(&self.seen.borrow_and_update());
        }
        self.routes.get(name).cloned()
    }

    /// A queue of a topic that there is.
    fn queue(
        &mut self,
        topic: &TopicName,
        id: TopicId,
        queue: QueueId,
    ) -> Result<Arc<QueueHandle>, ErrorReply> {
        let found = self.known(topic).ok_or_else(|| self.routes.no_topic(topic));
        found.map_err(|error| self.not_served(error, id))?.queue(id, queue).cloned()
    }

    /// The topic of that name, made first if it does not exist and may be made.
    async fn topic(
        &mut self,
        name: &TopicName,
        may_create: bool,
    ) -> Result<Arc<TopicRoute>, ErrorReply> {
        if let Some(topic) = self.known(name) {
            return Ok(topic);
        }
        if !may_create {
            return Err(self.routes.no_topic(name));
        }
        Box::pin(self.resolve(name)).await
    }

    async fn resolve(&self, name: &TopicName) -> Result<Arc<TopicRoute>, ErrorReply> {
        let (port, answer) = reply::port();
        let resolve = LinkRequest::Resolve { name: name.clone(), reply: port };
        if self.service.link.put(resolve).await.is_err() {
            return Err(stopping());
        }
        answer.await.unwrap_or_else(|_dropped| Err(unavailable("the topic is being made")))
    }

    /// What is told of a topic whose incarnation `id` its client knows: one that it has heard of
    /// from the registry may not have come here yet.
    fn not_served(&self, error: ErrorReply, id: TopicId) -> ErrorReply {
        let may_come = self.service.follows_registry && id != TopicId::UNKNOWN;
        match error.code {
            ErrorCode::UnknownTopic if may_come => unavailable("the topic is not known here yet"),
            _ => error,
        }
    }

    async fn produce(&mut self, ask: Produce, body: bytes::Bytes, mut reply: ReplyTo) {
        let limit = match ask.timeout_ms {
            0 => PRODUCE_WAIT,
            ms => Duration::from_millis(u64::from(ms)),
        };
        let timed = self.alarm.watch(&mut reply, limit);
        let wait = limit.min(PRODUCE_WAIT); // others of this connection wait behind it
        let may_create = ask.topic_id == TopicId::UNKNOWN && !ask.topic.is_system();
        let topic = match self.topic_within(wait, &ask.topic, may_create).await {
            Ok(topic) => topic,
            Err(error) => return reply.error(self.not_served(error, ask.topic_id)),
        };
        let handle = match topic.queue(ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let mut alike = Alike::new(self.service.clock.now());
        let look = |record: &RecordView<'_>| alike.look(record);
        let batch = match RecordBatch::check_each(body, &self.batch_limits, look) {
            Ok(batch) => batch,
            Err(error) => return reply.error(error.to_reply()),
        };
        if let Err(error) = alike.suits(topic.settings.kind) {
            return reply.error(error);
        }
        self.service.metrics.batch_taken(batch.count(), batch.len_bytes());
        let (id, epoch) = (batch.producer_id(), batch.producer_epoch());
        let now = self.service.clock.now();
        self.gate.facts().borrow_mut().produced((id, epoch), &ask.topic, batch.count(), now);
        let delays_from = alike.delays_from();
        let message = topic_queue::Produce {
            batch,
            dedup_key: alike.key(),
            due: alike.into_dues(),
            reply: reply.produced(delays_from),
        };
        let Err(refused) = handle.produce.try_put(message) else { return };
        if refused.is_full() {
            // Stopped meanwhile: its port is dropped and says that the queue is not there now.
            Box::pin(self.put_within(wait, &handle.produce, refused.into_message(), &timed)).await;
        }
    }

    /// Waits for room in a queue; answers when there is none in time.
    async fn put_within(
        &self,
        wait: Duration,
        queue: &Inbox<topic_queue::Produce>,
        message: topic_queue::Produce,
        timed: &Timed,
    ) {
        let mut put = std::pin::pin!(queue.put(message));
        // Who was told that it took too long is believed: nothing is put in after that.
        let put_if_wanted = poll_fn(|context| {
            if timed.claim.is_taken() {
                Poll::Ready(())
            } else {
                put.as_mut().poll(context).map(drop)
            }
        });
        if tokio::time::timeout(wait, put_if_wanted).await.is_err() {
            self.alarm.expire(timed, "not stored: the queue had no room in time");
        }
    }

    /// [`Dispatcher::topic`], which may take so long.
    async fn topic_within(
        &mut self,
        wait: Duration,
        name: &TopicName,
        may_create: bool,
    ) -> Result<Arc<TopicRoute>, ErrorReply> {
        if let Some(topic) = self.known(name) {
            return Ok(topic);
        }
        let made = Box::pin(tokio::time::timeout(wait, self.topic(name, may_create))).await;
        made.unwrap_or_else(|_late| {
            Err(ErrorReply::new(ErrorCode::Timeout, "the topic was not made in time"))
        })
    }

    fn readership(&self) -> Readership {
        Readership { compressions: self.batch_limits.compressions, clock: self.service.clock }
    }

    fn fetch(&mut self, ask: &Fetch, reply: ReplyTo) {
        let handle = match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let now = self.service.clock.now();
        self.gate.facts().borrow_mut().fetched(&ask.topic, ask.queue, ask.offset, now);
        let message = topic_queue::Fetch {
            offset: ask.offset,
            last_term: ask.last_term,
            bytes_max: ask.bytes_max.min(self.service.fetch_bytes_max),
            wait_ms: ask.wait_ms.min(self.service.fetch_wait_ms_max),
            reply: reply.fetched(self.readership()),
        };
        let _ = handle.fetch.try_put(message); // refused: its port is dropped, which answers
    }

    async fn subscribe(&mut self, ask: Subscribe, reply: ReplyTo) {
        match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(queue) => {
                let now = self.service.clock.now();
                let facts = self.gate.facts();
                facts.borrow_mut().subscribed(ask.subscription, &ask.topic, ask.queue, now);
                self.subscriptions.subscribe(ask, &queue, reply).await;
            }
            Err(error) => reply.error(error),
        }
    }

    fn list_offsets(&mut self, ask: &ListOffsets, reply: ReplyTo) {
        let handle = match self.queue(&ask.topic, ask.topic_id, ask.queue) {
            Ok(handle) => handle,
            Err(error) => return reply.error(error),
        };
        let at = match ask.at {
            ListAt::First => At::First,
            ListAt::Last => At::Last,
            ListAt::Time(time) => At::Time(time),
        };
        let port = reply.port(|listed: Result<ListedOffset, crate::error::QueueError>| {
            let listed = listed.map_err(|error| error.to_reply())?;
            Ok(ListOffsetsReply {
                offset: listed.offset,
                log_start: listed.log_start,
                end_offset: listed.end_offset,
            })
        });
        let _ = handle.ask.try_put(QueueAsk::ListOffset { at, reply: port }); // as for a fetch
    }

    /// Asks for an identity, and notes whose it is: a life that is given here is noted where it is
    /// announced, as that is where it sends.
    fn init_producer(&self, ask: InitProducer, reply: ReplyTo) {
        let (port, answer) = reply::port();
        let (name, sends_here) = (ask.name.clone(), ask.scope != NameScope::Life);
        let _ = self.service.link.try_put(LinkRequest::InitProducer { ask, reply: port }); // refused: dropped
        let (gate, clock) = (Rc::clone(&self.gate), self.service.clock);
        // Ends with its answer, which comes or is dropped; counted in the budget until then.
        tokio::task::spawn_local(async move {
            let Ok(given) = answer.await else { return }; // the way back is dropped, which answers
            if let (Ok(given), true) = (&given, sends_here) {
                let identity = (given.producer_id, given.producer_epoch);
                gate.facts().borrow_mut().identified(identity, name, clock.now());
            }
            reply.result(given);
        });
    }

    /// Asks the registry link; `request` is given the port for its answer.
    fn link<T: serde::Serialize + Send + 'static>(
        &self,
        reply: ReplyTo,
        request: impl FnOnce(reply::Port<Result<T, ErrorReply>>) -> LinkRequest,
    ) {
        let port = reply.port(|answer| answer);
        let _ = self.service.link.try_put(request(port)); // refused: its port is dropped
    }
}

/// Whether faults may be injected, by HTTP and by [`PANIC_TOPIC`]: for tests of supervision alone.
#[must_use]
pub fn fault_switches() -> bool {
    std::env::var_os("GRUS_FAULT_SWITCHES").is_some_and(|value| value == "1")
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn stopping() -> ErrorReply {
    ErrorReply::new(ErrorCode::ShuttingDown, "the broker is stopping")
}

fn unavailable(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::Unavailable, text).with_retry_after_ms(RETRY_AFTER_MS)
}
