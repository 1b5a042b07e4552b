//! Registry: takes requests, proposes them to its log, and answers once they are applied.
//!
//! ```text
//! RegistryLink --RegistryRequest--> [Registry] --propose--> Group --jobs--> RegistryFlush
//!      ^                             |    |  ^                |
//!      '------- RoutingChanged --- Watch  |  '--- Applied ----'
//!                                     Write, Reconcile --> Materialiser (sled)
//! ```
//!
//! * Owns: the registry's consensus group, its log and its state machine.
//! * Lives on: the registry's core arbiter.
//! * Inbox: [`RegistryRequest`], held until it is answered; results of log jobs; what it hears from
//!   its own state machine.
//! * Talks to: RegistryFlush (jobs), Watch (new routes), Materialiser (its copy in sled).
//! * Stops: when the requests under way are answered and the group has stopped.
//! * If it panics: the process ends; recovery is a restart.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::{AppliedReply, Group, NewItem, ProposeError};
use grus_log::{Disk, JobDone};
use grus_mailbox::{Credit, Inbox, Port, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::ids::{BrokerAddress, TopicId};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;

use crate::command::{self, AlterTopic, Command, DeleteTopic, RegisterBroker};
use crate::disk_store::{AppliedAt, Parts};
use crate::error::RegistryError;
use crate::flush::JobRan;
use crate::machine::{Applied, Change, RegistryMachine};
use crate::materialiser::{Reconcile, WholeWanted, Write};
use crate::request::{RegistryRequest, TopicCreated};
use crate::routing::{RoutingTable, TopicRoutes};
use crate::state::{Answer, Outcome, check_settings};
use crate::watch::Published;

/// How often a topic id is drawn when the one before is in use.
const DRAWS_MAX: u32 = 3;

/// Whom an applied command is answered to.
enum Asker {
    Create { create: Create, draws: u32 },
    Alter(Port<Result<Arc<TopicRoutes>, RegistryError>>),
    Delete(Port<Result<TopicId, RegistryError>>),
    Register(Port<Result<Arc<RoutingTable>, RegistryError>>),
}

struct Create {
    name: TopicName,
    settings: TopicSettings,
    if_not_exists: bool,
    reply: Port<Result<TopicCreated, RegistryError>>,
}

/// What became of a proposal.
pub(crate) struct Proposed {
    asker: Asker,
    credit: Credit,
    result: Result<AppliedReply<Answer>, ProposeError>,
}

impl Weigh for Proposed {}

/// The state has changed.
#[derive(Debug)]
pub(crate) struct StateChanged;

impl Weigh for StateChanged {}

/// The group has stopped, or failed.
#[derive(Debug)]
pub(crate) struct GroupStopped;

impl Weigh for GroupStopped {}

/// What the Registry shares with its group, on one thread.
pub(crate) struct Core<D: Disk> {
    pub(crate) machine: Rc<RefCell<RegistryMachine>>,
    pub(crate) heard: Rc<Heard>,
    /// Set once the group has started.
    pub(crate) group: OnceCell<Group<RegistryMachine, D>>,
    /// Results of jobs that came before that.
    pub(crate) early: RefCell<Vec<JobDone<D>>>,
    pub(crate) links: OnceCell<Links>,
}

/// Those the Registry talks to.
pub(crate) struct Links {
    pub(crate) publish: Inbox<Published>,
    pub(crate) reconcile: Inbox<Reconcile>,
}

/// What was heard of applied entries.
#[derive(Default)]
pub(crate) struct Heard {
    /// Counts them.
    sequence: Cell<u64>,
    /// The last one.
    last: Cell<Option<AppliedAt>>,
    /// The copy in sled has missed something, and was not given the whole state since.
    copy_behind: Cell<bool>,
}

/// Passes on what the state machine tells.
pub(crate) struct Ear {
    pub(crate) heard: Rc<Heard>,
    pub(crate) writes: Inbox<Write>,
    pub(crate) changed: Inbox<StateChanged>,
}

impl Applied for Ear {
    fn applied(&mut self, index: u64, term: u64, changes: Vec<Change>) {
        let at = AppliedAt { index, term };
        let sequence = self.heard.sequence.get() + 1;
        self.heard.sequence.set(sequence);
        self.heard.last.set(Some(at));
        if !changes.is_empty() {
            let _ = self.changed.try_put(StateChanged); // one that waits is enough
        }
        if self.writes.try_put(Write { sequence, at, changes }).is_err() {
            self.heard.copy_behind.set(true);
        }
    }

    fn replaced(&mut self) {
        self.heard.sequence.set(self.heard.sequence.get() + 1);
        self.heard.copy_behind.set(true);
        let _ = self.changed.try_put(StateChanged);
    }
}

/// See the module documentation.
pub(crate) struct Registry<D: Disk> {
    core: Rc<Core<D>>,
    care_period: Duration,
    published: Option<u64>,
    under_way: u32,
    stopping: bool,
}

impl<D: Disk> Registry<D> {
    pub(crate) fn new(core: Rc<Core<D>>, care_period: Duration) -> Self {
        Self { core, care_period, published: None, under_way: 0, stopping: false }
    }

    fn propose(
        &mut self,
        command: &Command,
        asker: Asker,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let group = self.core.group.get().expect("requests come after the start");
        let (kind, bytes) = command.encode();
        let applied = group.propose(&[NewItem::new(kind, bytes)]);
        self.under_way += 1;
        room.spawn_into(async move { Proposed { asker, credit, result: applied.await } });
    }

    fn create(&mut self, create: Create, draws: u32, credit: Credit, room: &mut Room<'_, Self>) {
        if let Err(error) = check_settings(&create.settings) {
            return create.reply.send(Err(error));
        }
        let there = self.topic(&create.name).filter(|_| create.if_not_exists && self.leads());
        if let Some(topic) = there {
            return create.reply.send(Ok(TopicCreated { topic, created: false }));
        }
        let command = Command::CreateTopic(command::CreateTopic {
            name: create.name.clone(),
            id: draw_topic_id(),
            settings: (&create.settings).into(),
        });
        self.propose(&command, Asker::Create { create, draws: draws + 1 }, credit, room);
    }

    fn leads(&self) -> bool {
        self.core.group.get().is_some_and(|group| group.status().ready)
    }

    fn topic(&self, name: &TopicName) -> Option<Arc<TopicRoutes>> {
        self.core.machine.borrow().state().topic(name).cloned()
    }

    /// Answers a create, or draws another id.
    fn created(
        &mut self,
        create: Create,
        draws: u32,
        credit: Credit,
        answer: Answer,
        room: &mut Room<'_, Self>,
    ) {
        let answer = match answer {
            Ok(Outcome::Topic(topic)) => Ok(TopicCreated { topic, created: true }),
            Err(RegistryError::TopicExists { .. }) if create.if_not_exists => self
                .topic(&create.name)
                .map(|topic| TopicCreated { topic, created: false })
                .ok_or(RegistryError::Busy), // gone again meanwhile
            Err(RegistryError::IdInUse { .. }) if draws < DRAWS_MAX => {
                return self.create(create, draws, credit, room);
            }
            other => Err(unexpected(other)),
        };
        create.reply.send(answer);
    }

    /// Tells Watch the routes, if they are new.
    fn publish(&mut self) -> Arc<RoutingTable> {
        let table = Arc::new(self.core.machine.borrow().state().routing());
        let links = self.core.links.get().expect("linked before the start");
        if self.published != Some(table.version)
            && links.publish.try_put(Published { table: Arc::clone(&table) }).is_ok()
        {
            self.published = Some(table.version);
        }
        table
    }

    /// Gives the copy in sled the whole state.
    fn give_whole(&self) {
        let Core { machine, heard, group, links, .. } = &*self.core;
        let (Some(group), Some(links)) = (group.get(), links.get()) else {
            return heard.copy_behind.set(true); // after the start
        };
        let status = group.status();
        if !status.ready {
            // What was applied before the last stop is not applied again yet: a good copy would
            // look as if it were ahead.
            return heard.copy_behind.set(true);
        }
        let applied = AppliedAt { index: status.applied.unwrap_or(0), term: status.term };
        let at = heard.last.get().unwrap_or(applied);
        let parts: Parts = machine
            .borrow()
            .parts()
            .into_iter()
            .filter_map(|part| part.value.map(|value| (part.key, value)))
            .collect();
        let given =
            links.reconcile.try_put(Reconcile { sequence: heard.sequence.get(), at, parts });
        heard.copy_behind.set(given.is_err());
    }

    fn stop_group(&self, room: &mut Room<'_, Self>) {
        let group = self.core.group.get().cloned();
        room.spawn_into(async move {
            if let Some(group) = group {
                group.stop().await;
            }
            GroupStopped
        });
    }
}

impl<D: Disk> Resident for Registry<D> {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(self.care_period);
    }

    fn stopping(&mut self, room: &mut Room<'_, Self>) {
        self.stopping = true;
        room.linger();
        if self.under_way == 0 {
            self.stop_group(room);
        }
    }
}

impl<D: Disk> Receive<RegistryRequest> for Registry<D> {
    fn receive(&mut self, request: RegistryRequest, credit: Credit, room: &mut Room<'_, Self>) {
        let stopping = self.stopping;
        match request {
            RegistryRequest::CreateTopic { reply, .. } if stopping => refuse(reply),
            RegistryRequest::AlterTopic { reply, .. } if stopping => refuse(reply),
            RegistryRequest::DeleteTopic { reply, .. } if stopping => refuse(reply),
            RegistryRequest::RegisterBroker { reply, .. } if stopping => refuse(reply),
            RegistryRequest::CreateTopic { name, settings, if_not_exists, reply } => {
                self.create(Create { name, settings, if_not_exists, reply }, 0, credit, room);
            }
            RegistryRequest::AlterTopic {
                name,
                id,
                queues,
                retention_ms,
                retention_bytes,
                dedup_window_ms,
                reply,
            } => {
                let alter =
                    AlterTopic { name, id, queues, retention_ms, retention_bytes, dedup_window_ms };
                self.propose(&Command::AlterTopic(alter), Asker::Alter(reply), credit, room);
            }
            RegistryRequest::DeleteTopic { name, id, reply } => {
                let delete = Command::DeleteTopic(DeleteTopic { name, id });
                self.propose(&delete, Asker::Delete(reply), credit, room);
            }
            RegistryRequest::RegisterBroker { address, shards, reply } => {
                let BrokerAddress { id: broker, host, port } = address;
                let register = RegisterBroker { broker, host, port, shards };
                // Writes nothing, so that a broker starts on a full disk as well.
                if self.core.machine.borrow().state().is_registered(&register) {
                    return reply.send(Ok(self.publish()));
                }
                let register = Command::RegisterBroker(register);
                self.propose(&register, Asker::Register(reply), credit, room);
            }
        }
    }
}

impl<D: Disk> Receive<Proposed> for Registry<D> {
    fn receive(&mut self, proposed: Proposed, _: Credit, room: &mut Room<'_, Self>) {
        let Proposed { asker, credit, result } = proposed;
        self.under_way -= 1;
        let answer = answer_of(result);
        let table = self.publish(); // before the answer: who hears it can see it
        match asker {
            Asker::Create { create, draws } => self.created(create, draws, credit, answer, room),
            Asker::Alter(reply) => reply.send(match answer {
                Ok(Outcome::Topic(topic)) => Ok(topic),
                other => Err(unexpected(other)),
            }),
            Asker::Delete(reply) => reply.send(match answer {
                Ok(Outcome::Deleted(id)) => Ok(id),
                other => Err(unexpected(other)),
            }),
            Asker::Register(reply) => reply.send(match answer {
                Ok(Outcome::Registered) => Ok(table),
                other => Err(unexpected(other)),
            }),
        }
        if self.stopping && self.under_way == 0 {
            self.stop_group(room);
        }
    }
}

impl<D: Disk> Receive<JobRan<D>> for Registry<D> {
    fn receive(&mut self, JobRan(done): JobRan<D>, _: Credit, _: &mut Room<'_, Self>) {
        match self.core.group.get() {
            Some(group) => group.job_done(done),
            None => self.core.early.borrow_mut().push(done),
        }
    }
}

impl<D: Disk> Receive<StateChanged> for Registry<D> {
    fn receive(&mut self, _: StateChanged, credit: Credit, _: &mut Room<'_, Self>) {
        drop(credit); // a change after this one is told anew
        if self.core.group.get().is_some() {
            self.publish();
        }
    }
}

impl<D: Disk> Receive<WholeWanted> for Registry<D> {
    fn receive(&mut self, _: WholeWanted, _: Credit, _: &mut Room<'_, Self>) {
        self.give_whole();
    }
}

impl<D: Disk> Receive<Tick> for Registry<D> {
    fn receive(&mut self, _: Tick, _: Credit, room: &mut Room<'_, Self>) {
        let Some(group) = self.core.group.get().cloned().filter(|_| !self.stopping) else {
            return;
        };
        self.publish();
        if self.core.heard.copy_behind.get() {
            self.give_whole();
        }
        let status = group.status();
        if let (true, Some(applied)) = (status.ready, status.applied) {
            // The state is in the newest checkpoint: nothing before it is wanted any more.
            room.spawn(async move {
                if let Err(error) = group.trim(applied).await {
                    tracing::warn!(%error, "registry's log was not shortened");
                }
            });
        }
    }
}

impl<D: Disk> Receive<GroupStopped> for Registry<D> {
    fn receive(&mut self, _: GroupStopped, _: Credit, room: &mut Room<'_, Self>) {
        room.stop();
    }
}

fn refuse<T>(reply: Port<Result<T, RegistryError>>) {
    reply.send(Err(RegistryError::Stopping));
}

/// A topic id that nobody has: random, never 0.
fn draw_topic_id() -> TopicId {
    let (high, low) = uuid::Uuid::now_v7().as_u64_pair();
    TopicId((high.rotate_left(32) ^ low).max(1))
}

fn answer_of(result: Result<AppliedReply<Answer>, ProposeError>) -> Answer {
    match result {
        Ok(reply) => reply.replies.into_iter().next().unwrap_or_else(|| {
            Err(RegistryError::Unreadable { reason: "an entry without an answer".to_owned() })
        }),
        Err(error) => Err(match error {
            ProposeError::NotLeader { .. } => RegistryError::NotLeader,
            ProposeError::Unknown { .. } => RegistryError::OutcomeUnknown,
            ProposeError::Full => RegistryError::Busy,
            ProposeError::TooLarge { bytes, bytes_max } => RegistryError::InvalidSettings {
                reason: format!("{bytes} bytes of a command, at most {bytes_max}"),
            },
            ProposeError::Stopped | ProposeError::Fatal(_) => RegistryError::Stopping,
        }),
    }
}

/// An answer that is no success of the command asked for.
fn unexpected(answer: Answer) -> RegistryError {
    answer.err().unwrap_or_else(|| RegistryError::Unreadable {
        reason: "an answer to another command".to_owned(),
    })
}
