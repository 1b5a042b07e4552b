//! What the link does besides: it compares the shards with the registry, and writes down the routes.

use std::sync::Arc;

use grus_mailbox::{Dropped, Room};
use grus_protocol::ids::{ShardId, TopicId};
use grus_registry::{RefusedTopics, RegistryError, RegistryRequest};

use super::survey::{Holdings, Round, found, offers};
use super::{Heard, RegistryLink};
use crate::commands::TopicConfig;
use crate::kept::Kept;
use crate::shard::ShardRequest;

impl RegistryLink {
    /// Compares what the shards hold with what the registry knows, if that was not done yet.
    pub(super) fn survey(&mut self, room: &mut Room<'_, Self>) {
        let registry = self.ledger.table().registry;
        let all = self.parts.shards.all();
        let begun = self.survey.begin(registry, all.iter().map(|shard| shard.shard));
        let Some(round) = begun else { return };
        for shard in all.iter() {
            let id = shard.shard;
            let port = self.port(room, move |answer: Result<Vec<TopicConfig>, Dropped>| {
                Heard::Listed(round, id, answer.ok())
            });
            let _ = shard.inbox.try_put(ShardRequest::ListTopics { reply: port }); // heard as none
        }
    }

    /// All shards have said what they hold.
    pub(super) fn surveyed(&mut self, holdings: &Holdings, room: &mut Room<'_, Self>) {
        if self.ledger.table().registry == 0 {
            // Nobody to ask: what is here is served.
            let topics = found(self.ledger.table(), holdings);
            let actions = self.ledger.open_found(topics);
            self.survey.done();
            return self.carry_out(actions, room);
        }
        if self.ledger.is_home() {
            // What several members have is forgotten when the routes say so, by the one that leads.
            let alone = self.parts.shards.own();
            let is_alone = |shard: &ShardId| alone.iter().any(|own| own.shard == *shard);
            let held = holdings.iter().filter(|(shard, _)| is_alone(shard));
            for (shard, topics) in held.collect::<Vec<_>>() {
                let ids: Vec<_> = topics.iter().map(|config| config.topic).collect();
                let actions = self.ledger.shard_lists(*shard, &ids);
                self.carry_out(actions, room);
            }
            return self.survey_is_done(room);
        }
        let offers = offers(self.ledger.table(), holdings);
        if offers.is_empty() {
            return self.settle(Vec::new(), Vec::new(), room);
        }
        let topics: usize = offers.iter().map(Vec::len).sum();
        tracing::warn!(
            topics,
            registry = self.ledger.table().registry,
            "the registry does not know topics that the shards hold: it has lost its data, or is \
             another one; they are offered to it, and no message is thrown away"
        );
        let Some(round) = self.survey.offering(&offers) else { return };
        let actions = self.ledger.offering(&offers);
        self.carry_out(actions, room);
        for topics in offers {
            let port = self.port(room, move |answer: Result<_, Dropped>| {
                Heard::Offered(round, answer.unwrap_or(Err(RegistryError::Busy)))
            });
            let broker = self.parts.broker;
            let offer = RegistryRequest::AdoptTopics { broker, topics, reply: port };
            let _ = self.parts.registry.ask.try_put(offer); // refused: heard as busy
        }
    }

    pub(super) fn offered(
        &mut self,
        round: Round,
        answer: Result<RefusedTopics, RegistryError>,
        room: &mut Room<'_, Self>,
    ) {
        match answer {
            Ok(RefusedTopics(topics)) => {
                for (name, id, error) in &topics {
                    tracing::error!(topic = %name, %id, %error,
                        "the registry does not take this topic: its messages are kept, unserved");
                }
                let refused = topics.into_iter().map(|(_, id, _)| id).collect();
                if let Some((offered, refused)) = self.survey.answered(round, refused) {
                    self.settle(offered, refused, room);
                }
            }
            Err(error) => {
                if self.survey.unanswered(round) {
                    tracing::warn!(%error, "topics are offered again");
                }
            }
        }
    }

    /// The data belongs to the registry that speaks now.
    fn settle(&mut self, offered: Vec<TopicId>, refused: Vec<TopicId>, room: &mut Room<'_, Self>) {
        let actions = self.ledger.settle(offered, refused);
        self.carry_out(actions, room);
        self.saving.is_wanted = true;
        self.survey_is_done(room);
    }

    fn survey_is_done(&mut self, room: &mut Room<'_, Self>) {
        self.survey.done();
        self.carry_out(Vec::new(), room); // the broker may have waited for it
    }

    /// Writes the last known routes, one writing at a time.
    pub(super) fn save(&mut self, room: &mut Room<'_, Self>) {
        if self.saving.is_under_way || !std::mem::take(&mut self.saving.is_wanted) {
            return;
        }
        self.saving.is_under_way = true;
        let (home, table) = (self.ledger.home().clone(), Arc::clone(self.ledger.table()));
        let (kept, path) = (Kept { home, table }, self.parts.kept.clone());
        room.spawn_into(async move { Heard::Saved(kept.save_aside(path).await) });
    }
}
