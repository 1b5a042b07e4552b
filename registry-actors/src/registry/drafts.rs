//! Commands on their way to the log: whom they are answered to, and where their new queues go.

use std::collections::BTreeSet;
use std::sync::Arc;

use grus_log::Disk;
use grus_mailbox::{Credit, Dropped, Port, Room, Weigh};
use grus_protocol::ids::{BrokerId, Durability, ShardId, TopicId};
use grus_protocol::message::{self, REPLICAS_UNNAMED, TopicSettings};
use grus_protocol::names::TopicName;

use super::answers::{draw_topic_id, unexpected};
use super::{DRAWS_MAX, Registry};
use crate::command::{
    self, AlterTopic, ChangeReplicas, Command, EnrolBroker, GrowReplicas, LeadShards,
};
use crate::error::RegistryError;
use crate::rebalance::Plan;
use crate::request::{Enrolled, REQUESTS_MAX, RefusedTopics, TopicCreated};
use crate::routing::TopicRoutes;
use crate::state::{Answer, Outcome};

/// Whom an applied command is answered to.
pub(super) enum Asker {
    Create { create: Create, draws: u32 },
    Place(PlaceDead),
    Alter(Port<Result<Arc<TopicRoutes>, RegistryError>>),
    Delete(Port<Result<TopicId, RegistryError>>),
    Enrol(Port<Result<Enrolled, RegistryError>>),
    Mark(Port<Result<(), RegistryError>>),
    Change(Port<Result<Vec<ShardId>, RegistryError>>),
    Adopt(Port<Result<RefusedTopics, RegistryError>>),
}

pub(super) struct Create {
    pub(super) name: TopicName,
    pub(super) settings: TopicSettings,
    pub(super) if_not_exists: bool,
    pub(super) reply: Port<Result<TopicCreated, RegistryError>>,
}

/// A group's dead-letter topic is to be placed.
pub(super) struct PlaceDead {
    pub(super) place: command::PlaceDeadLetters,
    pub(super) reply: Port<Result<TopicCreated, RegistryError>>,
    /// How often an id was drawn for it.
    pub(super) draws: u32,
}

impl PlaceDead {
    /// One that was not asked yet where it is to be.
    pub(super) fn of(
        name: TopicName,
        id: TopicId,
        home: Option<ShardId>,
        shards: Vec<ShardId>,
        reply: Port<Result<TopicCreated, RegistryError>>,
    ) -> Self {
        let (home_replicas, left_out) = (0, Vec::new());
        let place = command::PlaceDeadLetters { name, id, home, shards, home_replicas, left_out };
        Self { place, reply, draws: 0 }
    }
}

/// A command that waits for shards to be chosen.
pub(super) enum Draft {
    Create(command::CreateTopic),
    Alter(AlterTopic),
}

/// Rebalance has said where new queues go.
pub(crate) struct Planned {
    pub(super) draft: Draft,
    pub(super) asker: Asker,
    pub(super) credit: Credit,
    pub(super) shards: Vec<ShardId>,
}

impl Weigh for Planned {}

impl Create {
    /// Whether the number of replicas is the registry's to choose.
    pub(super) const fn leaves_replicas_open(&self) -> bool {
        self.settings.replicas == REPLICAS_UNNAMED
    }
}

impl<D: Disk> Registry<D> {
    /// The settings that a topic is to be made with: with a number of replicas where none was named. It
    /// is chosen here, by the brokers that are there now, and written: whoever applies the command, now
    /// or after a restart with other brokers and another configuration, makes the same topic.
    pub(super) fn chosen(&self, create: &Create) -> TopicSettings {
        let mut chosen = create.settings.clone();
        if create.leaves_replicas_open() {
            let machine = self.core.machine.borrow();
            chosen.replicas = machine.state().replicas_by_default(self.topic_replicas);
        }
        chosen
    }

    /// Places dead letters; what is there already writes nothing.
    pub(super) fn place(&mut self, mut ask: PlaceDead, credit: Credit, room: &mut Room<'_, Self>) {
        let place = &mut ask.place;
        let known = self.topic(&place.name).filter(|_| self.leads());
        if let Some(topic) = known
            && (place.home.is_some() || place.id == topic.id)
            && place.shards.iter().all(|shard| !topic.queues_on(*shard).is_empty())
        {
            return ask.reply.send(Ok(TopicCreated { topic, created: false }));
        }
        if let Some(home) = place.home {
            place.id = draw_topic_id();
            ask.draws += 1;
            let long_gone = self.long_gone(room.clock().monotonic_ms());
            let machine = self.core.machine.borrow();
            (place.home_replicas, place.left_out) =
                machine.state().home_wish(home, self.topic_replicas, &long_gone);
        }
        let command = Command::PlaceDeadLetters(ask.place.clone());
        self.propose(&command, Asker::Place(ask), credit, room);
    }

    /// The brokers that are gone for so long that they are not just being started again.
    pub(super) fn long_gone(&mut self, now_ms: u64) -> BTreeSet<BrokerId> {
        let machine = self.core.machine.borrow();
        self.absences.look(machine.state().gone_brokers(), now_ms);
        self.absences.long(now_ms)
    }

    /// Enrols a broker. What is known already writes nothing, so that a broker starts on a full disk
    /// as well.
    pub(super) fn enrol(
        &mut self,
        enrol: EnrolBroker,
        reply: Port<Result<Enrolled, RegistryError>>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let enrolled = self.core.machine.borrow().state().enrolled_as(&enrol);
        if let Some(shards) = enrolled {
            let table = self.publish();
            return reply.send(Ok(Enrolled { table, shards }));
        }
        self.propose(&Command::EnrolBroker(enrol), Asker::Enrol(reply), credit, room);
    }

    /// Notes who leads shards; what is known already writes nothing.
    pub(super) fn lead(
        &mut self,
        mut lead: LeadShards,
        reply: Port<Result<(), RegistryError>>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        if self.leads() {
            lead = self.core.machine.borrow().state().without_outgrown(lead);
            let checked = self.core.machine.borrow().state().check_lead(&lead);
            if checked.is_err() || !self.core.machine.borrow().state().is_news(&lead) {
                return reply.send(checked);
            }
        }
        self.propose(&Command::LeadShards(lead), Asker::Mark(reply), credit, room);
    }

    /// Notes that shards are to have other members.
    pub(super) fn change(
        &mut self,
        change: message::ChangeReplicas,
        reply: Port<Result<Vec<ShardId>, RegistryError>>,
        credit: Credit,
        room: &mut Room<'_, Self>,
    ) {
        let message::ChangeReplicas { shards, topic, add, remove, replicas } = change;
        let command = match (replicas, add.or(remove)) {
            (0, _) => Command::ChangeReplicas(ChangeReplicas { shards, topic, add, remove }),
            (replicas, None) => Command::GrowReplicas(GrowReplicas { shards, topic, replicas }),
            (_, Some(_)) => {
                let reason = "either so many members, or one more or less".to_owned();
                return reply.send(Err(RegistryError::InvalidSettings { reason }));
            }
        };
        self.propose(&command, Asker::Change(reply), credit, room);
    }

    /// Answers that, or draws another id.
    pub(super) fn placed(
        &mut self,
        ask: PlaceDead,
        credit: Credit,
        answer: Answer,
        room: &mut Room<'_, Self>,
    ) {
        let answer = match answer {
            Ok(Outcome::Topic(topic)) => {
                let created = topic.id == ask.place.id && ask.place.home.is_some();
                Ok(TopicCreated { topic, created })
            }
            Err(RegistryError::IdInUse { .. })
                if ask.place.home.is_some() && ask.draws < DRAWS_MAX =>
            {
                return self.place(ask, credit, room);
            }
            other => Err(unexpected(other)),
        };
        ask.reply.send(answer);
    }

    /// Asks where new queues go; what is drafted is proposed with the answer.
    pub(super) fn plan(
        &mut self,
        (topic, durability, queues): (TopicId, Durability, u32),
        draft: Draft,
        asker: Asker,
        credit: Credit,
        room: &Room<'_, Self>,
    ) {
        self.under_way += 1;
        let to = self.planned.clone().unwrap_or_else(|| room.inbox(REQUESTS_MAX));
        let reply = Port::call(move |answer: Result<Vec<ShardId>, Dropped>| {
            // Not answered: the state machine chooses.
            let shards = answer.unwrap_or_default();
            let _ = to.try_put(Planned { draft, asker, credit, shards }); // stopped
        });
        let links = self.core.links.get().expect("linked before the start");
        let _ = links.plan.try_put(Plan { topic, durability, queues, reply }); // heard as no answer
    }
}
