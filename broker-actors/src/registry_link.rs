//! RegistryLink: what this broker knows of the routes, and the way to change them.
//!
//! ```text
//! Connection --LinkRequest--> [RegistryLink] --RegistryRequest--> registry
//!     ^  routes (snapshot)          |  ^------RoutingChanged---------'
//!     '-----------------------------|--OpenTopic, DropTopic--> Shard
//! ```
//!
//! * Owns: the published routes, who waits for a topic to be opened ([`ledger`]), how far the shards
//!   are compared with the registry ([`survey`]), and the file of the last known routes
//!   ([`crate::kept`]).
//! * Lives on: core arbiter 0.
//! * Inbox: [`LinkRequest`] from connections, `RoutingChanged` from the registry, [`Heard`] from
//!   its own reply ports, [`Tick`] each second.
//! * Talks to: the registry, Shard.
//! * Stops: after the connections, before the registry.
//! * If it panics: it is rebuilt from the registry's table and opens all topics again, which
//!   changes nothing; those who waited are told to ask again. The routes stay published.

mod groups;
pub mod ledger;
mod members;
mod messages;
mod producers;
pub mod routes;
pub mod survey;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grus_mailbox::{
    ActorSpec, Credit, Drained, Dropped, Host, HostHandle, Inbox, Place, Port, Receive, Resident,
    Room, Tick,
};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{BrokerId, ShardId};
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, CreateTopic, CreateTopicReply, DeleteTopic, DeleteTopicReply,
    TopicSettings,
};
use grus_protocol::names::{GroupName, TopicName};
use grus_registry::{RegistryError, RegistryHandle, RegistryRequest, RoutingChanged, Watch};
use tokio::sync::watch;

use crate::delay_wheel::clock_watch::{ClockWatch, Jump};
use crate::error::QueueError;
use crate::shard::{Replicated, ShardRequest, ShardSet};
pub use grus_registry::TopicPolicy;
use ledger::{Action, Home, Ledger};
use members::Standings;
use messages::{Answer, Resolving};
pub use messages::{Heard, LinkRequest, Waiter};
use routes::{Routes, TopicRoute, unknown_topic};
use survey::Survey;

/// Requests of connections that may be under way.
pub const REQUESTS_MAX: u32 = 4_096;
/// Answers on their way back: one for each request, and those of the shards.
const HEARD_MAX: u32 = 65_536;
const TICK: Duration = Duration::from_secs(1);
/// How long a client waits before it repeats what was refused for want of room.
const RETRY_AFTER_MS: u32 = 50;

/// What RegistryLink is started with.
#[derive(Clone)]
pub struct LinkParts {
    /// The registry.
    pub registry: RegistryHandle,
    /// The shards of this broker.
    pub shards: ShardSet,
    /// Where those are told that it is a member of.
    pub replicated: watch::Receiver<Replicated>,
    /// The policy.
    pub policy: TopicPolicy,
    /// Where the routes are published.
    pub published: Arc<watch::Sender<Arc<Routes>>>,
    /// Becomes true once all topics were asked for after the start.
    pub settled: Arc<watch::Sender<bool>>,
    /// This broker.
    pub broker: BrokerId,
    /// The registry that the shards' data belongs to, as it was when the broker started.
    pub home: Home,
    /// Where the last known routes are kept.
    pub kept: PathBuf,
}

/// See the module documentation.
pub struct RegistryLink {
    parts: LinkParts,
    ledger: Ledger<Waiter>,
    resolving: BTreeMap<TopicName, Vec<Resolving>>,
    heard: Option<Inbox<Heard>>,
    survey: Survey,
    has_table: bool,
    unpublished: bool,
    saving: Saving,
    standings: Standings,
    clock_watch: ClockWatch,
}

/// Whether the last known routes are on disk.
#[derive(Debug, Default)]
struct Saving {
    /// They are not.
    is_wanted: bool,
    /// A writing is under way.
    is_under_way: bool,
    /// The last one failed, and that was said.
    has_failed: bool,
}

impl RegistryLink {
    /// Starts the link at `place`.
    #[must_use]
    pub fn start(place: &Place, parts: LinkParts) -> HostHandle<Self> {
        let mut life = 0;
        Host::spawn(place, ActorSpec::new("RegistryLink", "broker"), move || {
            life += 1;
            let own: BTreeSet<_> = parts.shards.own().iter().map(|shard| shard.shard).collect();
            let routes = Routes::clone(&parts.published.borrow());
            Self {
                parts: parts.clone(),
                ledger: Ledger::new(parts.broker, routes, own.clone(), parts.home.clone()),
                resolving: BTreeMap::new(),
                heard: None,
                survey: Survey::of_life(life),
                has_table: false,
                unpublished: false,
                saving: Saving::default(),
                standings: Standings::of(own),
                clock_watch: ClockWatch::default(),
            }
        })
    }
}

impl RegistryLink {
    /// The port for an answer that this actor hears as `heard`; one that is dropped is heard as
    /// what `lost` makes of it.
    fn port<T: Send + 'static>(
        &self,
        room: &Room<'_, Self>,
        heard: impl FnOnce(Result<T, Dropped>) -> Heard + Send + 'static,
    ) -> Port<T> {
        let inbox = self.heard.clone().unwrap_or_else(|| room.inbox(HEARD_MAX));
        Port::call(move |answer| {
            let _ = inbox.try_put(heard(answer)); // this actor has stopped
        })
    }

    fn resolve(
        &mut self,
        name: TopicName,
        reply: Answer<Arc<TopicRoute>>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let known = self.ledger.in_table(&name).cloned();
        if let Some(awaited) = self.ledger.awaited(&name) {
            return reply.send(Err(awaited));
        }
        if known.is_none() && (!self.parts.policy.auto_create || name.is_system()) {
            return reply.send(Err(unknown_topic(&name)));
        }
        let waiting = self.resolving.entry(name.clone()).or_default();
        waiting.push((reply, credit));
        if waiting.len() > 1 {
            return; // on its way
        }
        if let Some(topic) = known {
            let actions = self.ledger.wait_for(topic, Waiter::Resolve(name));
            return self.carry_out(actions, room);
        }
        let settings = self.parts.policy.settings.clone();
        self.create_in_registry(name.clone(), settings, true, Waiter::Resolve(name), room);
    }

    fn create(
        &mut self,
        ask: CreateTopic,
        reply: Answer<CreateTopicReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        if let Err(error) = self.parts.policy.check(&ask) {
            return reply.send(Err(error));
        }
        if let Some(awaited) = self.ledger.awaited(&ask.name) {
            return reply.send(Err(awaited));
        }
        let waiter = Waiter::Create(reply, true, credit);
        self.create_in_registry(ask.name, ask.settings, ask.if_not_exists, waiter, room);
    }

    fn create_in_registry(
        &mut self,
        name: TopicName,
        settings: TopicSettings,
        if_not_exists: bool,
        waiter: Waiter,
        room: &mut Room<'_, Self>,
    ) {
        let port = self.port(room, move |answer: Result<_, Dropped>| {
            Heard::Created(waiter, answer.unwrap_or(Err(RegistryError::Busy)))
        });
        let request = RegistryRequest::CreateTopic { name, settings, if_not_exists, reply: port };
        let _ = self.parts.registry.ask.try_put(request); // refused: heard as busy
    }

    fn alter(
        &mut self,
        ask: AlterTopic,
        reply: Answer<AlterTopicReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        if ask.queues.is_some_and(|queues| queues > self.parts.policy.queues_max) {
            return reply.send(Err(self.parts.policy.too_many_queues()));
        }
        if GroupName::of_dead_letters(&ask.name).is_some() {
            return reply.send(Err(groups::of_a_group(&ask.name)));
        }
        if let Some(awaited) = self.ledger.awaited(&ask.name) {
            return reply.send(Err(awaited));
        }
        let waiter = Waiter::Alter(reply, credit);
        let port = self.port(room, move |answer: Result<_, Dropped>| {
            Heard::Altered(waiter, answer.unwrap_or(Err(RegistryError::Busy)))
        });
        let request = RegistryRequest::AlterTopic { alter: ask.into(), reply: port };
        let _ = self.parts.registry.ask.try_put(request); // as above
    }

    fn delete(
        &mut self,
        ask: DeleteTopic,
        reply: Answer<DeleteTopicReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        if GroupName::of_dead_letters(&ask.name).is_some() {
            return reply.send(Err(groups::of_a_group(&ask.name)));
        }
        if let Some(awaited) = self.ledger.awaited(&ask.name) {
            return reply.send(Err(awaited));
        }
        self.delete_in_registry(ask, reply, credit, room);
    }

    fn delete_in_registry(
        &mut self,
        ask: DeleteTopic,
        reply: Answer<DeleteTopicReply>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let name = ask.name.clone();
        let port = self.port(room, move |answer: Result<_, Dropped>| {
            Heard::Deleted(name, reply, credit, answer.unwrap_or(Err(RegistryError::Busy)))
        });
        let request =
            RegistryRequest::DeleteTopic { name: ask.name, id: ask.topic_id, reply: port };
        let _ = self.parts.registry.ask.try_put(request); // as above
    }

    /// Does what the ledger says.
    fn carry_out(&mut self, actions: Vec<Action<Waiter>>, room: &mut Room<'_, Self>) {
        for action in actions {
            match action {
                Action::Open(shard, mut config) => {
                    self.fit(shard, &mut config);
                    let id = config.topic;
                    let port = self.port(room, move |answer: Result<_, Dropped>| {
                        let result = answer.unwrap_or(Err(QueueError::Unavailable));
                        Heard::Opened(shard, id, result)
                    });
                    self.ask_shard(shard, ShardRequest::OpenTopic { config, reply: port });
                }
                Action::Drop(shard, topic) => {
                    let port = self.port(room, move |answer: Result<Result<(), _>, Dropped>| {
                        Heard::Forgotten(shard, topic, matches!(answer, Ok(Ok(()))))
                    });
                    self.ask_shard(shard, ShardRequest::DropTopic { topic, reply: port });
                }
                Action::Publish => {
                    self.unpublished = true;
                    room.notify_drained();
                }
                Action::Answer(waiter, answer) => {
                    self.publish(); // whoever is told finds the topic on any connection
                    self.answer(waiter, answer);
                }
            }
        }
        let surveyed = self.survey.is_done(self.ledger.table().registry);
        if self.has_table && surveyed && self.ledger.is_settled() {
            self.publish();
            self.parts.settled.send_if_modified(|settled| !std::mem::replace(settled, true));
        }
    }

    /// Asks a shard; a request that finds no room comes back as a dropped port.
    fn ask_shard(&self, id: ShardId, request: ShardRequest) {
        let Some(shard) = self.parts.shards.get(id) else {
            return tracing::error!(shard = %id, "the registry names a shard that is not here");
        };
        let _ = shard.inbox.try_put(request);
    }

    fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.parts.published.send_replace(Arc::new(self.ledger.routes().clone()));
        }
    }

    fn answer(&mut self, waiter: Waiter, answer: Result<Arc<TopicRoute>, ErrorReply>) {
        match waiter {
            Waiter::Resolve(name) => {
                for (reply, _credit) in self.resolving.remove(&name).unwrap_or_default() {
                    reply.send(answer.clone());
                }
            }
            Waiter::Create(reply, created, _credit) => {
                reply.send(answer.map(|route| CreateTopicReply {
                    id: route.id,
                    settings: route.settings.clone(),
                    created,
                }));
            }
            Waiter::Group(reply, _credit) => reply.send(answer),
            Waiter::Alter(reply, _credit) => {
                reply.send(answer.map(|route| AlterTopicReply {
                    id: route.id,
                    settings: route.settings.clone(),
                }));
            }
        }
    }
}

fn refused(error: &RegistryError) -> ErrorReply {
    let reply = error.to_reply();
    if reply.retriable { reply.with_retry_after_ms(RETRY_AFTER_MS) } else { reply }
}

impl Resident for RegistryLink {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        self.heard = Some(room.inbox(HEARD_MAX));
        let watch = Watch { to: room.inbox(2) };
        if self.parts.registry.watch.try_put(watch).is_err() {
            tracing::error!("the registry takes no watch");
        }
        self.watch_members(room);
        room.tick_every(TICK);
    }
}

impl Receive<LinkRequest> for RegistryLink {
    fn receive(&mut self, request: LinkRequest, credit: Credit, room: &mut Room<'_, Self>) {
        match request {
            LinkRequest::Resolve { name, reply } => self.resolve(name, reply, credit, room),
            LinkRequest::Create { ask, reply } => self.create(ask, reply, credit, room),
            LinkRequest::Alter { ask, reply } => self.alter(ask, reply, credit, room),
            LinkRequest::Delete { ask, reply } => self.delete(ask, reply, credit, room),
            LinkRequest::OpenGroup { group, reply } => self.open_group(&group, reply, credit, room),
            LinkRequest::DeleteGroup { group, id, reply } => {
                let (name, topic_id) = (group.dead_letters(), id.dead_letters());
                self.delete_in_registry(DeleteTopic { name, topic_id }, reply, credit, room);
            }
            LinkRequest::InitProducer { ask, reply } => {
                self.init_producer(ask, reply, credit, room);
            }
        }
    }
}

impl Receive<RoutingChanged> for RegistryLink {
    fn receive(&mut self, changed: RoutingChanged, _: Credit, room: &mut Room<'_, Self>) {
        self.has_table = true;
        if changed.table.registry != self.ledger.table().registry
            || changed.table.version < self.ledger.table().version
        {
            self.survey.again();
        }
        let actions = self.ledger.table_changed(changed.table);
        self.unpublished = true;
        self.saving.is_wanted = true;
        self.carry_out(actions, room);
        self.survey(room);
        room.notify_drained();
    }
}

impl Receive<Heard> for RegistryLink {
    fn receive(&mut self, heard: Heard, _: Credit, room: &mut Room<'_, Self>) {
        let actions = match heard {
            Heard::Created(Waiter::Create(reply, _, credit), Ok(made)) => {
                let waiter = Waiter::Create(reply, made.created, credit);
                self.ledger.wait_for(made.topic, waiter)
            }
            Heard::Created(waiter, Ok(made)) => self.ledger.wait_for(made.topic, waiter),
            Heard::Altered(waiter, Ok(topic)) => self.ledger.wait_for(topic, waiter),
            Heard::Created(waiter, Err(error)) | Heard::Altered(waiter, Err(error)) => {
                return self.answer(waiter, Err(refused(&error)));
            }
            Heard::Deleted(name, reply, _credit, Ok(id)) => {
                let actions = self.ledger.topic_deleted(&name, id);
                self.carry_out(actions, room);
                self.publish();
                return reply.send(Ok(DeleteTopicReply { id }));
            }
            Heard::Deleted(_, reply, _credit, Err(error)) => {
                return reply.send(Err(refused(&error)));
            }
            Heard::Opened(shard, id, result) => {
                self.ledger.opened(shard, id, result.map(|opened| opened.queues))
            }
            Heard::Forgotten(shard, id, done) => {
                self.ledger.dropped(shard, id, done);
                return;
            }
            Heard::Listed(round, shard, topics) => {
                if let Some(holdings) = self.survey.listed(round, shard, topics) {
                    self.surveyed(&holdings, room);
                }
                return;
            }
            Heard::Offered(round, answer) => return self.offered(round, answer, room),
            Heard::Led => {
                self.standings.is_telling = false;
                return;
            }
            Heard::Saved(result) => {
                self.saving.is_under_way = false;
                let has_failed = result.is_err();
                if let (Err(error), false) = (result, self.saving.has_failed) {
                    tracing::warn!(error, "the last known routes are not on disk");
                }
                self.saving.has_failed = has_failed;
                self.saving.is_wanted |= has_failed;
                return;
            }
        };
        self.carry_out(actions, room);
    }
}

impl Receive<Drained> for RegistryLink {
    fn receive(&mut self, Drained: Drained, _: Credit, _: &mut Room<'_, Self>) {
        self.publish();
    }
}

impl Receive<Tick> for RegistryLink {
    fn receive(&mut self, tick: Tick, _: Credit, room: &mut Room<'_, Self>) {
        // Said here, once for all shards; each wheel sees for itself what it means for it.
        match self.clock_watch.look(tick.now.0, tick.monotonic_ms) {
            Some(Jump::Forward(ms)) => {
                tracing::warn!(
                    ms,
                    "the clock has jumped forward: scheduled messages that are due are released"
                );
            }
            Some(Jump::Back(ms)) => {
                tracing::warn!(
                    ms,
                    "the clock has jumped back: scheduled messages wait for their time"
                );
            }
            None => {}
        }
        let actions = self.ledger.tick();
        self.carry_out(actions, room);
        self.survey(room);
        self.save(room);
        self.tell_leads(room);
    }
}
