//! What only a broker that has registered on its connection may ask of a registry.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::message::{
    ChangeReplicas, ChangeReplicasReply, LeadShards, PlaceDeadLetters, PlaceDeadLettersReply,
};

use super::Session;
use crate::broker_table::BrokerAsk;
use crate::replies::ReplyTo;
use crate::request::{RegistryRequest, TopicCreated};

impl Session {
    /// Places dead letters.
    pub(super) fn place(&self, ask: PlaceDeadLetters, reply: ReplyTo) {
        if self.broker.is_none() {
            return reply.error(for_brokers("only a registered broker places dead letters"));
        }
        let PlaceDeadLetters { name, topic_id: id, home, shards } = ask;
        let reply = reply.map(|placed: TopicCreated| PlaceDeadLettersReply {
            id: placed.topic.id,
            queues: placed.topic.settings.queues,
            created: placed.created,
        });
        self.ask(RegistryRequest::PlaceDeadLetters { name, id, home, shards, reply });
    }

    /// Has shards get other members. Anybody may ask, as for topics.
    pub(super) fn change(&self, ask: ChangeReplicas, reply: ReplyTo) {
        let reply = reply.map(|shards| ChangeReplicasReply { shards });
        self.ask(RegistryRequest::ChangeReplicas { change: ask, reply });
    }

    /// Notes which shards the broker of this session leads.
    pub(super) fn lead(&self, ask: LeadShards, reply: ReplyTo) {
        let Some((_, session)) = self.broker.filter(|(own, _)| *own == ask.broker) else {
            return reply.error(for_brokers("only the broker that has registered here leads"));
        };
        self.say(BrokerAsk::Lead(session, ask, reply.port()));
    }
}

pub(super) fn for_brokers(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}
