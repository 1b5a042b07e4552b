//! What only a broker that has registered on its connection may ask of a registry.

use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::message::{
    LeadShards, LeadShardsReply, PlaceDeadLetters, PlaceDeadLettersReply,
};

use super::Session;
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

    /// Notes which shards the broker of this session leads.
    pub(super) fn lead(&self, ask: LeadShards, reply: ReplyTo) {
        let LeadShards { broker, shards } = ask;
        if self.broker.is_none_or(|(own, _)| own != broker) {
            return reply.error(for_brokers("only the broker that has registered here leads"));
        }
        let shards = shards.into_iter().map(|led| (led.shard, led.term)).collect();
        let reply = reply.map(|()| LeadShardsReply {});
        self.ask(RegistryRequest::LeadShards { broker, shards, reply });
    }
}

pub(super) fn for_brokers(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}
