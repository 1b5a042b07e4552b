//! What a broker has asked its remote registry, and who waits for it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use grus_mailbox::{Credit, Port};
use grus_protocol::error::ErrorReply;
use grus_protocol::frame::{Frame, ReplyError};
use grus_protocol::ids::{BrokerId, ShardId, Term, TopicId};
use grus_protocol::message::{
    AlterTopic, AlterTopicReply, ChangeReplicas, ChangeReplicasReply, CreateTopic,
    CreateTopicReply, DeleteTopic, DeleteTopicReply, LeadShards, LeadShardsReply, LedShard,
    OfferTopicsReply, OfferedQueue, OfferedTopic, PlaceDeadLetters, PlaceDeadLettersReply,
    TopicSettings,
};
use serde::de::DeserializeOwned;

use crate::command::AdoptTopic;
use crate::error::RegistryError;
use crate::request::{RefusedTopics, RegistryRequest, TopicCreated};
use crate::routing::{RoutingTable, TopicRoutes};

/// Longest wait for an answer, and for the routes to show it, in milliseconds.
pub const CALL_MS_MAX: u64 = 5_000;

type Answer<T> = Port<Result<T, RegistryError>>;

/// A request to be sent, and whom to answer.
pub(super) struct Wanted {
    pub(super) ask: Ask,
    waiter: Waiter,
}

/// What is sent.
pub(super) enum Ask {
    Create(CreateTopic),
    Alter(AlterTopic),
    Delete(DeleteTopic),
    Place(PlaceDeadLetters),
    Offer(BrokerId, Vec<OfferedTopic>),
    Lead(LeadShards),
    Change(ChangeReplicas),
    /// Nothing a remote registry is asked this way.
    Nothing,
}

/// Whom to answer.
enum Waiter {
    Create(Answer<TopicCreated>, Credit),
    Place(Answer<TopicCreated>, Credit),
    Alter(Answer<Arc<TopicRoutes>>, Credit),
    Delete(Answer<TopicId>, Credit),
    Offer(Answer<RefusedTopics>, Credit),
    Lead(Answer<()>, Credit),
    Change(Answer<Vec<ShardId>>, Credit),
    Nobody,
}

impl Wanted {
    /// The request as it is sent.
    pub(super) fn of(request: RegistryRequest, credit: Credit) -> Self {
        match request {
            RegistryRequest::CreateTopic { name, settings, if_not_exists, reply } => Self {
                ask: Ask::Create(CreateTopic { name, settings, if_not_exists }),
                waiter: Waiter::Create(reply, credit),
            },
            RegistryRequest::AlterTopic { alter, reply } => {
                Self { ask: Ask::Alter(alter.into()), waiter: Waiter::Alter(reply, credit) }
            }
            RegistryRequest::PlaceDeadLetters { name, id: topic_id, home, shards, reply } => Self {
                ask: Ask::Place(PlaceDeadLetters { name, topic_id, home, shards }),
                waiter: Waiter::Place(reply, credit),
            },
            RegistryRequest::DeleteTopic { name, id: topic_id, reply } => Self {
                ask: Ask::Delete(DeleteTopic { name, topic_id }),
                waiter: Waiter::Delete(reply, credit),
            },
            RegistryRequest::AdoptTopics { broker, topics, reply } => Self {
                ask: Ask::Offer(broker, topics.iter().map(offered).collect()),
                waiter: Waiter::Offer(reply, credit),
            },
            RegistryRequest::LeadShards { broker, shards, members, reply } => {
                let led = |(shard, term): &(ShardId, Term)| {
                    let told = members.iter().find(|told| told.shard == *shard);
                    let (members, members_at) =
                        told.map(|told| (told.members.clone(), told.at)).unwrap_or_default();
                    LedShard { shard: *shard, term: *term, members, members_at }
                };
                let shards = shards.iter().map(led).collect();
                Self {
                    ask: Ask::Lead(LeadShards { broker, shards }),
                    waiter: Waiter::Lead(reply, credit),
                }
            }
            RegistryRequest::ChangeReplicas { change, reply } => {
                Self { ask: Ask::Change(change), waiter: Waiter::Change(reply, credit) }
            }
            // The link registers its broker by itself.
            RegistryRequest::EnrolBroker { reply, .. } => {
                reply.send(Err(RegistryError::NotLeader));
                Self { ask: Ask::Nothing, waiter: Waiter::Nobody }
            }
            RegistryRequest::MarkBroker { reply, .. }
            | RegistryRequest::DrainBroker { reply, .. } => {
                reply.send(Err(RegistryError::NotLeader));
                Self { ask: Ask::Nothing, waiter: Waiter::Nobody }
            }
        }
    }

    /// Answers that it cannot be done.
    pub(super) fn refuse(self, error: RegistryError) {
        self.waiter.refuse(error);
    }
}

impl Waiter {
    fn refuse(self, error: RegistryError) {
        match self {
            Self::Create(reply, _) | Self::Place(reply, _) => reply.send(Err(error)),
            Self::Alter(reply, _) => reply.send(Err(error)),
            Self::Delete(reply, _) => reply.send(Err(error)),
            Self::Offer(reply, _) => reply.send(Err(error)),
            Self::Lead(reply, _) => reply.send(Err(error)),
            Self::Change(reply, _) => reply.send(Err(error)),
            Self::Nobody => {}
        }
    }
}

fn offered(topic: &AdoptTopic) -> OfferedTopic {
    let queue = |(queue, shard): &(_, _)| OfferedQueue { queue: *queue, shard: *shard };
    OfferedTopic {
        name: topic.name.clone(),
        id: topic.id,
        settings: TopicSettings::from(&topic.settings),
        queues: topic.queues.iter().map(queue).collect(),
        altered: topic.altered,
    }
}

/// What a correlation stands for.
enum Call {
    Request(Waiter),
    Register,
    Beat,
    Watch,
}

/// What the link itself has to do about an answer.
pub(super) enum Answered {
    /// The registration.
    Register(Frame),
    /// The heartbeat.
    Beat(Frame),
    /// The request to be told the routes.
    Watch(Frame),
    /// Nothing.
    Dealt,
}

/// A topic that was made or changed, and is not in the routes yet.
struct Unseen {
    id: TopicId,
    queues: usize,
    created: Option<bool>,
    waiter: Waiter,
    since_ms: u64,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Calls {
    next: u64,
    under_way: BTreeMap<u64, (u64, Call)>,
    unseen: Vec<Unseen>,
}

impl Calls {
    fn number(&mut self, now_ms: u64, call: Call) -> u64 {
        self.next += 1;
        self.under_way.insert(self.next, (now_ms, call));
        self.next
    }

    /// The correlation for a request that is sent now.
    pub(super) fn sent(&mut self, wanted: Wanted, now_ms: u64) -> u64 {
        self.number(now_ms, Call::Request(wanted.waiter))
    }

    pub(super) fn register(&mut self, now_ms: u64) -> u64 {
        self.number(now_ms, Call::Register)
    }

    pub(super) fn beat(&mut self, now_ms: u64) -> u64 {
        self.number(now_ms, Call::Beat)
    }

    pub(super) fn watch(&mut self, now_ms: u64) -> u64 {
        self.number(now_ms, Call::Watch)
    }

    /// Whether nobody waits for anything.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether something was asked so long ago that the connection must be dead.
    pub(super) fn is_overdue(&self, now_ms: u64) -> bool {
        let mut sent = self.under_way.values();
        sent.any(|(sent_ms, _)| now_ms.saturating_sub(*sent_ms) >= CALL_MS_MAX)
    }

    /// An answer came; `table` is what is known of the routes.
    pub(super) fn answered(&mut self, frame: Frame, table: &RoutingTable, now_ms: u64) -> Answered {
        let Some((_, call)) = self.under_way.remove(&frame.head.correlation) else {
            return Answered::Dealt;
        };
        let waiter = match call {
            Call::Register => return Answered::Register(frame),
            Call::Beat => return Answered::Beat(frame),
            Call::Watch => return Answered::Watch(frame),
            Call::Request(waiter) => waiter,
        };
        match waiter {
            Waiter::Create(reply, credit) => match read::<CreateTopicReply>(&frame) {
                Ok(made) => self.unseen.push(Unseen {
                    id: made.id,
                    queues: made.settings.queues as usize,
                    created: Some(made.created),
                    waiter: Waiter::Create(reply, credit),
                    since_ms: now_ms,
                }),
                Err(error) => reply.send(Err(error)),
            },
            Waiter::Place(reply, credit) => match read::<PlaceDeadLettersReply>(&frame) {
                Ok(placed) => self.unseen.push(Unseen {
                    id: placed.id,
                    queues: placed.queues as usize,
                    created: Some(placed.created),
                    waiter: Waiter::Create(reply, credit),
                    since_ms: now_ms,
                }),
                Err(error) => reply.send(Err(error)),
            },
            Waiter::Alter(reply, credit) => match read::<AlterTopicReply>(&frame) {
                Ok(altered) => self.unseen.push(Unseen {
                    id: altered.id,
                    queues: altered.settings.queues as usize,
                    created: None,
                    waiter: Waiter::Alter(reply, credit),
                    since_ms: now_ms,
                }),
                Err(error) => reply.send(Err(error)),
            },
            Waiter::Delete(reply, _credit) => {
                reply.send(read::<DeleteTopicReply>(&frame).map(|gone| gone.id));
            }
            Waiter::Lead(reply, _credit) => {
                reply.send(read::<LeadShardsReply>(&frame).map(|LeadShardsReply {}| ()));
            }
            Waiter::Change(reply, _credit) => {
                reply.send(read::<ChangeReplicasReply>(&frame).map(|answer| answer.shards));
            }
            Waiter::Offer(reply, _credit) => {
                reply.send(read::<OfferTopicsReply>(&frame).map(|answer| {
                    let refused = answer.refused.into_iter();
                    RefusedTopics(
                        refused
                            .map(|one| (one.name, one.id, RegistryError::Remote(one.error)))
                            .collect(),
                    )
                }));
            }
            Waiter::Nobody => {}
        }
        self.table_is(table);
        Answered::Dealt
    }

    /// The routes are these now: tells those whose topic is in them.
    pub(super) fn table_is(&mut self, table: &RoutingTable) {
        if self.unseen.is_empty() {
            return;
        }
        let find = |unseen: &Unseen| {
            table.by_id(unseen.id).filter(|topic| topic.queues.len() >= unseen.queues).cloned()
        };
        for unseen in std::mem::take(&mut self.unseen) {
            let Some(topic) = find(&unseen) else {
                self.unseen.push(unseen);
                continue;
            };
            match unseen.waiter {
                Waiter::Create(reply, _credit) | Waiter::Place(reply, _credit) => {
                    let created = unseen.created.unwrap_or(false);
                    reply.send(Ok(TopicCreated { topic, created }));
                }
                Waiter::Alter(reply, _credit) => reply.send(Ok(topic)),
                Waiter::Delete(..)
                | Waiter::Offer(..)
                | Waiter::Lead(..)
                | Waiter::Change(..)
                | Waiter::Nobody => {}
            }
        }
    }

    /// Gives up what the routes do not show in time.
    pub(super) fn too_late(&mut self, now_ms: u64) {
        let late = |unseen: &mut Unseen| now_ms.saturating_sub(unseen.since_ms) >= CALL_MS_MAX;
        for unseen in self.unseen.extract_if(.., late) {
            unseen.waiter.refuse(RegistryError::Unanswered);
        }
    }

    /// The connection is lost: what was asked may have been done.
    pub(super) fn lost(&mut self, reason: &str) {
        tracing::debug!(calls = self.under_way.len(), reason, "calls are not answered");
        for (_, (_, call)) in std::mem::take(&mut self.under_way) {
            if let Call::Request(waiter) = call {
                waiter.refuse(RegistryError::Unanswered);
            }
        }
    }
}

fn read<T: DeserializeOwned>(frame: &Frame) -> Result<T, RegistryError> {
    frame.reply::<T>().map_err(|error| {
        RegistryError::Remote(match error {
            ReplyError::Refused(refusal) => refusal,
            ReplyError::Header(error) => nonsense(&error.to_string()),
        })
    })
}

fn nonsense(text: &str) -> ErrorReply {
    ErrorReply::new(grus_protocol::error::ErrorCode::MalformedHeader, text)
}
