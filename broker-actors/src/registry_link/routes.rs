//! The routes as connections see them: a snapshot, replaced as a whole. Pure.

mod shelves;

use std::collections::BTreeSet;
use std::sync::Arc;

use grus_protocol::error::{ErrorCode, ErrorDetail, ErrorReply};
use grus_protocol::ids::{BrokerAddress, BrokerId, QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{QueueRoute, TopicMetadata, TopicSettings, TopicSummary};
use grus_protocol::names::{GroupName, TopicName};

use crate::topic_queue::QueueHandle;
use shelves::Shelves;

/// Most topics of one page of a listing.
pub const LIST_TOPICS_MAX: usize = 1_000;
/// How long a client waits before it asks again for a queue whose broker is not there.
const ABSENT_RETRY_AFTER_MS: u32 = 200;
/// How long a client waits before it asks again for a topic that is being opened.
const OPENING_RETRY_AFTER_MS: u32 = 20;

/// All topics this broker knows, at one instant. A clone shares all but what is changed in it.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    /// Grows with every change.
    pub version: u64,
    /// All brokers that are there.
    pub brokers: Vec<BrokerAddress>,
    /// Names of topics that the shards hold and that are offered to a registry that may not know them. Until it
    /// has told of them, nobody can say that there is none of the name.
    pub awaited: Arc<BTreeSet<TopicName>>,
    topics: Shelves,
}

/// One topic.
#[derive(Debug, Clone)]
pub struct TopicRoute {
    /// Its name.
    pub name: TopicName,
    /// Its incarnation.
    pub id: TopicId,
    /// How it is kept.
    pub settings: TopicSettings,
    /// When it was made.
    pub created: TimestampMs,
    /// Its queues, by number.
    pub queues: Vec<QueuePlace>,
}

/// Where one queue is served.
#[derive(Debug, Clone)]
pub struct QueuePlace {
    /// The shard that holds it.
    pub shard: ShardId,
    /// The way to it; none while its shard has not opened it, or is elsewhere.
    pub handle: Option<Arc<QueueHandle>>,
    /// Who leads its shard.
    pub leader: Leader,
}

/// Who leads a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This broker.
    Here,
    /// Another one.
    There(BrokerAddress),
    /// A broker that is not there, or nobody knows who.
    Nobody,
}

/// Stands for the shard of a queue of which nobody knows where it is.
pub const NO_SHARD: ShardId = ShardId(u32::MAX);

impl Routes {
    /// Puts a topic in, or in place of what bore its name.
    pub fn put(&mut self, topic: TopicRoute) {
        self.topics.put(Arc::new(topic));
    }

    /// Takes a topic out.
    pub fn remove(&mut self, name: &TopicName) -> Option<Arc<TopicRoute>> {
        self.topics.remove(name)
    }

    /// The topic of that name.
    #[must_use]
    pub fn get(&self, name: &TopicName) -> Option<&Arc<TopicRoute>> {
        self.topics.get(name)
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// What to answer where there is none.
    pub fn found(&self, name: &TopicName) -> Result<Arc<TopicRoute>, ErrorReply> {
        self.get(name).cloned().ok_or_else(|| self.no_topic(name))
    }

    /// What to answer where there is no topic of that name here. One that is awaited comes, or is refused:
    /// whoever asks is to ask again, and not to give up what waits for it.
    #[must_use]
    pub fn no_topic(&self, name: &TopicName) -> ErrorReply {
        if !self.awaited.contains(name) {
            return unknown_topic(name);
        }
        let text = format!("topic {name} is offered to the registry, which has not told of it yet");
        ErrorReply::new(ErrorCode::Unavailable, text).with_retry_after_ms(ABSENT_RETRY_AFTER_MS)
    }

    /// All topics, in order of their names.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<TopicRoute>> {
        self.topics.iter()
    }

    /// The groups behind `after`, each with its topic of dead letters, in order of their names.
    pub fn groups<'a>(
        &'a self,
        after: Option<&GroupName>,
    ) -> impl Iterator<Item = (GroupName, &'a Arc<TopicRoute>)> + use<'a> {
        let after = after.map(GroupName::dead_letters);
        // A `%` comes before all that a user's name begins with.
        let system = self.topics.iter().take_while(|topic| topic.name.is_system());
        let behind =
            system.filter(move |topic| after.as_ref().is_none_or(|after| topic.name > *after));
        let all =
            behind.filter_map(|topic| Some((GroupName::of_dead_letters(&topic.name)?, topic)));
        all.filter(|(group, _)| !group.is_reserved())
    }

    /// How many topics there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.len() == 0
    }

    /// A page of the listing, and whether there is more.
    #[must_use]
    pub fn page(
        &self,
        after: Option<&TopicName>,
        topics_max: u32,
        include_system: bool,
    ) -> (Vec<TopicSummary>, bool) {
        let wanted = match topics_max {
            0 => LIST_TOPICS_MAX,
            some => LIST_TOPICS_MAX.min(some as usize),
        };
        let mut listed =
            self.topics.behind(after).filter(|topic| include_system || !topic.name.is_system());
        let page = listed.by_ref().take(wanted).map(|topic| topic.summary()).collect();
        (page, listed.next().is_some())
    }
}

impl QueuePlace {
    /// The broker that leads it, this one being `broker`; none while it is not served.
    #[must_use]
    pub fn leader_id(&self, broker: BrokerId) -> Option<BrokerId> {
        match &self.leader {
            Leader::Here => self.handle.as_ref().map(|_| broker),
            Leader::There(address) => Some(address.id),
            Leader::Nobody => None,
        }
    }
}

impl TopicRoute {
    /// The queue of that number, if the topic is still of that incarnation (0: whichever).
    ///
    /// # Errors
    /// What to answer.
    pub fn queue(&self, id: TopicId, queue: QueueId) -> Result<&Arc<QueueHandle>, ErrorReply> {
        self.check_incarnation(id)?;
        let Some(place) = self.queues.get(queue.0 as usize) else {
            let text = format!("{} has {} queues, no queue {queue}", self.name, self.queues.len());
            return Err(ErrorReply::new(ErrorCode::UnknownQueue, text));
        };
        place.handle.as_ref().ok_or_else(|| match &place.leader {
            Leader::Here => ErrorReply::new(ErrorCode::Unavailable, "the queue is being opened")
                .with_retry_after_ms(OPENING_RETRY_AFTER_MS),
            Leader::There(address) => {
                let text = format!("broker {} leads the queue", address.id);
                ErrorReply::new(ErrorCode::NotLeader, text)
                    .with_detail(ErrorDetail::Leader(address.clone()))
            }
            Leader::Nobody => {
                ErrorReply::new(ErrorCode::Unavailable, "the queue's broker is not there")
                    .with_retry_after_ms(ABSENT_RETRY_AFTER_MS)
            }
        })
    }

    /// Whether the topic is still of the incarnation `id` (0: whichever).
    ///
    /// # Errors
    /// [`ErrorCode::StaleTopic`].
    pub fn check_incarnation(&self, id: TopicId) -> Result<(), ErrorReply> {
        if id == TopicId::UNKNOWN || id == self.id {
            return Ok(());
        }
        let text = format!("{} was deleted and made again", self.name);
        Err(ErrorReply::new(ErrorCode::StaleTopic, text))
    }

    /// The topic in a metadata reply; its queues that are here are led by `broker`.
    #[must_use]
    pub fn metadata(&self, broker: BrokerId) -> TopicMetadata {
        let queue = |(number, place): (usize, &QueuePlace)| QueueRoute {
            queue: QueueId(u32::try_from(number).unwrap_or(u32::MAX)),
            shard: place.shard,
            leader_broker: place.leader_id(broker),
        };
        TopicMetadata {
            name: self.name.clone(),
            error: None,
            id: self.id,
            durability: self.settings.durability,
            kind: self.settings.kind,
            queues: self.queues.iter().enumerate().map(queue).collect(),
        }
    }

    fn summary(&self) -> TopicSummary {
        TopicSummary { name: self.name.clone(), id: self.id, settings: self.settings.clone() }
    }
}

/// There is no such topic.
#[must_use]
pub fn unknown_topic(name: &TopicName) -> ErrorReply {
    ErrorReply::new(ErrorCode::UnknownTopic, format!("there is no topic {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: TopicName, id: u64) -> TopicRoute {
        TopicRoute {
            name,
            id: TopicId(id),
            settings: TopicSettings::default(),
            created: TimestampMs(1),
            queues: vec![place(Leader::Here)],
        }
    }

    fn place(leader: Leader) -> QueuePlace {
        QueuePlace { shard: ShardId(0), handle: None, leader }
    }

    #[test]
    fn a_queue_elsewhere_names_its_leader() {
        let address = BrokerAddress { id: BrokerId(2), host: "h".into(), port: 1 };
        let mut topic = topic(user("a"), 7);
        topic.queues = vec![place(Leader::There(address.clone())), place(Leader::Nobody)];
        let refused = |queue| topic.queue(TopicId(7), QueueId(queue)).unwrap_err();
        assert_eq!(refused(0).code, ErrorCode::NotLeader);
        assert_eq!(refused(0).detail, Some(ErrorDetail::Leader(address)));
        assert_eq!((refused(1).code, refused(1).retriable), (ErrorCode::Unavailable, true));
        let leaders = topic.metadata(BrokerId(1)).queues;
        let leaders: Vec<_> = leaders.iter().map(|queue| queue.leader_broker).collect();
        assert_eq!(leaders, [Some(BrokerId(2)), None]);
    }

    fn user(name: &str) -> TopicName {
        TopicName::try_from(name).unwrap()
    }

    #[test]
    fn pages_follow_one_another_in_order_of_names() {
        let mut routes = Routes::default();
        for name in ["c", "a", "b"] {
            routes.put(topic(user(name), 1));
        }
        routes.put(topic(TopicName::system("DLQ", "g").unwrap(), 1));
        let names = |page: &[TopicSummary]| -> Vec<String> {
            page.iter().map(|topic| topic.name.to_string()).collect()
        };
        let (page, more) = routes.page(None, 2, false);
        assert_eq!((names(&page), more), (vec!["a".into(), "b".into()], true));
        let (page, more) = routes.page(Some(&user("b")), 2, false);
        assert_eq!((names(&page), more), (vec!["c".into()], false));
        let (page, more) = routes.page(None, 0, true);
        assert_eq!((page.len(), more), (4, false));
        routes.put(topic(TopicName::system("DLQ", "h").unwrap(), 2));
        routes.put(topic(TopicName::system("RETRY", "x").unwrap(), 3));
        let groups = |after: Option<&GroupName>| -> Vec<String> {
            routes.groups(after).map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(groups(None), ["g", "h"]);
        assert_eq!(groups(Some(&GroupName::try_from("g").unwrap())), ["h"]);
    }

    #[test]
    fn an_old_incarnation_and_a_missing_queue_are_typed() {
        let topic = topic(user("a"), 7);
        let code = |id, queue| topic.queue(TopicId(id), QueueId(queue)).unwrap_err().code;
        assert_eq!(code(6, 0), ErrorCode::StaleTopic);
        assert_eq!(code(7, 1), ErrorCode::UnknownQueue);
        assert_eq!(code(0, 0), ErrorCode::Unavailable, "its shard has not opened it");
    }
}
