//! Registry: takes requests, proposes them to its log, and answers once they are applied.
//!
//! ```text
//! RegistryLink --RegistryRequest--> [Registry] --propose--> Group --jobs--> RegistryFlush
//! BrokerTable, Session --'             '--Plan--> Rebalance
//!      ^                             |    |  ^                |
//!      '------- RoutingChanged --- Watch  |  '--- Applied ----'
//!                                     Write, Reconcile --> Materialiser (sled)
//! ```
//!
//! * Owns: the registry's consensus group, its log and its state machine.
//! * Lives on: the registry's core arbiter.
//! * Inbox: [`RegistryRequest`], held until it is answered; results of log jobs; what it hears from
//!   its own state machine.
//! * Talks to: RegistryFlush (jobs), Watch (new routes), Materialiser (its copy in sled),
//!   Rebalance (where new queues go).
//! * Stops: when the requests under way are answered and the group has stopped.
//! * If it panics: the process ends; recovery is a restart.

mod absences;
mod answers;
mod drafts;
mod ear;

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use grus_consensus::{AppliedReply, Group, NewItem, ProposeError};
use grus_log::{Disk, JobDone};
use grus_mailbox::{Credit, Inbox, Receive, Resident, Room, Tick, Weigh};
use grus_protocol::ids::BrokerAddress;
use grus_protocol::names::TopicName;

use crate::command::{
    self, AdoptTopics, AlterTopic, Command, DeleteTopic, DrainBroker, EnrolBroker, GrowTopic,
    LeadShards, MarkBroker, PlaceTopic,
};
use crate::disk_store::{AppliedAt, Parts};
use crate::error::RegistryError;
use crate::flush::JobRan;
use crate::machine::RegistryMachine;
use crate::materialiser::{Reconcile, WholeWanted};
use crate::rebalance::Plan;
use crate::request::{Enrolled, REQUESTS_MAX, RefusedTopics, RegistryRequest, TopicCreated};
use crate::routing::{RoutingTable, TopicRoutes};
use crate::service::RegistrySettings;
use crate::state::{Answer, Outcome, TOPIC_QUEUES_MAX, check_settings};
use crate::watch::Published;
use absences::Absences;
use answers::{answer_of, draw_topic_id, refuse, unexpected};
use drafts::{Asker, Create, Draft, PlaceDead, Planned};
use ear::StateChanged;
pub(crate) use ear::{Ear, Heard};

/// How often a topic id is drawn when the one before is in use, and a number of replicas chosen when
/// there are fewer brokers by the time it is applied.
const DRAWS_MAX: u32 = 3;

/// What became of a proposal.
pub(crate) struct Proposed {
    asker: Asker,
    credit: Credit,
    result: Result<AppliedReply<Answer>, ProposeError>,
}

impl Weigh for Proposed {}

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
    pub(crate) plan: Inbox<Plan>,
}

/// See the module documentation.
pub(crate) struct Registry<D: Disk> {
    core: Rc<Core<D>>,
    care_period: Duration,
    /// Most replicas of a topic for which nobody named a number.
    topic_replicas: u32,
    absences: Absences,
    published: Option<u64>,
    planned: Option<Inbox<Planned>>,
    /// Drafts and proposals.
    under_way: u32,
    /// The log is being shortened.
    trimming: Rc<Cell<bool>>,
    stopping: bool,
}

impl<D: Disk> Registry<D> {
    pub(crate) fn new(core: Rc<Core<D>>, settings: &RegistrySettings) -> Self {
        Self {
            core,
            care_period: settings.care_period,
            topic_replicas: settings.topic_replicas,
            absences: Absences::new(settings.rebuild_after),
            published: None,
            planned: None,
            under_way: 0,
            trimming: Rc::default(),
            stopping: false,
        }
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
        let create = Create { settings: create.settings.settled(), ..create };
        let chosen = self.chosen(&create);
        if let Err(error) = check_settings(&chosen) {
            return create.reply.send(Err(error));
        }
        let there = self.topic(&create.name).filter(|_| create.if_not_exists && self.leads());
        if let Some(topic) = there {
            return create.reply.send(Ok(TopicCreated { topic, created: false }));
        }
        let (id, name) = (draw_topic_id(), create.name.clone());
        let (durability, queues) = (chosen.durability.of_shards(), chosen.queues);
        let (settings, replicas) = ((&chosen).into(), chosen.replicas);
        let topic = command::CreateTopic { name, id, settings };
        let asker = Asker::Create { create, draws: draws + 1 };
        if replicas > 1 {
            // Its shards may have to be made first: the state machine chooses.
            return self.propose(&Command::CreateTopic(topic), asker, credit, room);
        }
        let draft = Draft::Create(topic);
        self.plan((id, durability, queues), draft, asker, credit, room);
    }

    fn alter(
        &mut self,
        alter: AlterTopic,
        asker: Asker,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let known = self.topic(&alter.name).filter(|topic| topic.settings.replicas == 1);
        let more = known.and_then(|topic| {
            let more = alter.queues?.checked_sub(topic.settings.queues).filter(|more| *more > 0);
            let durability = topic.settings.durability.of_shards();
            Some((topic.id, durability, more.filter(|m| *m <= TOPIC_QUEUES_MAX)?))
        });
        match more {
            Some(wanted) => self.plan(wanted, Draft::Alter(alter), asker, credit, room),
            None => self.propose(&Command::AlterTopic(alter), asker, credit, room),
        }
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
            // A broker has gone since the number was chosen: one that nobody asked for is no error of theirs.
            Err(RegistryError::TooFewBrokers { .. }) if create.leaves_replicas_open() => {
                if draws < DRAWS_MAX {
                    return self.create(create, draws, credit, room);
                }
                Err(RegistryError::Busy)
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
        self.planned = Some(room.inbox(REQUESTS_MAX));
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
            RegistryRequest::PlaceDeadLetters { reply, .. } if stopping => refuse(reply),
            RegistryRequest::AlterTopic { reply, .. } if stopping => refuse(reply),
            RegistryRequest::DeleteTopic { reply, .. } if stopping => refuse(reply),
            RegistryRequest::EnrolBroker { reply, .. } if stopping => refuse(reply),
            RegistryRequest::MarkBroker { reply, .. } if stopping => refuse(reply),
            RegistryRequest::DrainBroker { reply, .. } if stopping => refuse(reply),
            RegistryRequest::LeadShards { reply, .. } if stopping => refuse(reply),
            RegistryRequest::ChangeReplicas { reply, .. } if stopping => refuse(reply),
            RegistryRequest::AdoptTopics { reply, .. } if stopping => refuse(reply),
            RegistryRequest::CreateTopic { name, settings, if_not_exists, reply } => {
                self.create(Create { name, settings, if_not_exists, reply }, 0, credit, room);
            }
            RegistryRequest::AlterTopic { alter, reply } => {
                self.alter(alter, Asker::Alter(reply), credit, room);
            }
            RegistryRequest::PlaceDeadLetters { name, id, home, shards, reply } => {
                self.place(PlaceDead::of(name, id, home, shards, reply), credit, room);
            }
            RegistryRequest::DeleteTopic { name, id, reply } => {
                let delete = Command::DeleteTopic(DeleteTopic { name, id });
                self.propose(&delete, Asker::Delete(reply), credit, room);
            }
            RegistryRequest::EnrolBroker {
                address: BrokerAddress { id: broker, host, port },
                disk,
                shards,
                shards_wanted,
                memberships,
                shards_below,
                reply,
            } => {
                let enrol = EnrolBroker {
                    broker,
                    disk,
                    host,
                    port,
                    shards,
                    shards_wanted,
                    memberships,
                    shards_below,
                };
                self.enrol(enrol, reply, credit, room);
            }
            RegistryRequest::MarkBroker { broker, live, reply } => {
                let mark = Command::MarkBroker(MarkBroker { broker, live });
                self.propose(&mark, Asker::Mark(reply), credit, room);
            }
            RegistryRequest::DrainBroker { broker, drained, reply } => {
                let drain = Command::DrainBroker(DrainBroker { broker, drained });
                self.propose(&drain, Asker::Mark(reply), credit, room);
            }
            RegistryRequest::LeadShards { broker, shards, members, reply } => {
                self.lead(LeadShards { broker, shards, members }, reply, credit, room);
            }
            RegistryRequest::ChangeReplicas { change, reply } => {
                self.change(change, reply, credit, room);
            }
            RegistryRequest::AdoptTopics { broker, mut topics, reply } => {
                // Shards know when the settings were given: when it was made, unless they were altered since.
                for topic in &mut topics {
                    topic.created = topic.altered;
                }
                let adopt = Command::AdoptTopics(AdoptTopics { broker, topics });
                self.propose(&adopt, Asker::Adopt(reply), credit, room);
            }
        }
    }
}

impl<D: Disk> Receive<Planned> for Registry<D> {
    fn receive(&mut self, planned: Planned, _: Credit, room: &mut Room<'_, Self>) {
        let Planned { draft, asker, credit, shards } = planned;
        self.under_way -= 1;
        let command = match draft {
            Draft::Create(create) => Command::PlaceTopic(PlaceTopic { create, shards }),
            Draft::Alter(alter) => Command::GrowTopic(GrowTopic { alter, shards }),
        };
        self.propose(&command, asker, credit, room);
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
            Asker::Place(ask) => self.placed(ask, credit, answer, room),
            Asker::Alter(reply) => reply.send(match answer {
                Ok(Outcome::Topic(topic)) => Ok(topic),
                other => Err(unexpected(other)),
            }),
            Asker::Delete(reply) => reply.send(match answer {
                Ok(Outcome::Deleted(id)) => Ok(id),
                other => Err(unexpected(other)),
            }),
            Asker::Enrol(reply) => reply.send(match answer {
                Ok(Outcome::Enrolled(shards)) => Ok(Enrolled { table, shards }),
                other => Err(unexpected(other)),
            }),
            Asker::Mark(reply) => reply.send(match answer {
                Ok(Outcome::Done) => Ok(()),
                other => Err(unexpected(other)),
            }),
            Asker::Change(reply) => reply.send(match answer {
                Ok(Outcome::Changing(shards)) => Ok(shards),
                other => Err(unexpected(other)),
            }),
            Asker::Adopt(reply) => reply.send(match answer {
                Ok(Outcome::Adopted(refused)) => Ok(RefusedTopics(refused)),
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
    fn receive(&mut self, _: StateChanged, credit: Credit, room: &mut Room<'_, Self>) {
        drop(credit); // a change after this one is told anew
        self.long_gone(room.clock().monotonic_ms());
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
            if self.trimming.replace(true) {
                return; // the one before is under way
            }
            let trimming = Rc::clone(&self.trimming);
            // The state is in the newest checkpoint: nothing before it is wanted any more.
            room.spawn(async move {
                if let Err(error) = group.trim(applied).await {
                    tracing::warn!(%error, "registry's log was not shortened");
                }
                trimming.set(false);
            });
        }
    }
}

impl<D: Disk> Receive<GroupStopped> for Registry<D> {
    fn receive(&mut self, _: GroupStopped, _: Credit, room: &mut Room<'_, Self>) {
        room.stop();
    }
}
