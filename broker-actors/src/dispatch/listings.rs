//! What is gathered from many before it is answered: routes, descriptions, searches, listings. Their
//! replies are large for a small question, so a connection has few of them under way, and none beyond
//! a size.

use std::sync::Arc;
use std::time::Duration;

use grus_protocol::error::ErrorReply;
use grus_protocol::message::{
    DescribeTopic, FindMessages, ListClients, ListClientsReply, ListTopics, ListTopicsReply,
    Metadata, MetadataReply, TopicMetadata, WatchRoutes, WatchRoutesReply,
};
use grus_registry::RoutingTable;
use grus_registry::routing::{METADATA_QUEUES_MAX, metadata_too_large};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Dispatcher, PANIC_TOPIC, unavailable, whole_ms};
use crate::clients::{count_of, on_the_wire};
use crate::connection::replies::ReplyTo;
use crate::route_feed::RouteFeed;
use crate::statuses::describe;

/// How long the topics of one Metadata may take to be made.
const METADATA_WAIT: Duration = Duration::from_secs(10);
/// Descriptions and searches of one connection under way; the next one waits, and what comes behind.
const ASIDES_MAX: usize = 4;

/// Counts the descriptions and searches under way; no memory before the first one.
#[derive(Debug, Default)]
pub(super) struct Asides(Option<Arc<Semaphore>>);

impl Asides {
    /// Waits until another one may begin; it is under way until what this returns is dropped.
    pub(super) async fn begin(&mut self) -> Option<OwnedSemaphorePermit> {
        let places = self.0.get_or_insert_with(|| Arc::new(Semaphore::new(ASIDES_MAX)));
        Arc::clone(places).acquire_owned().await.ok() // never closed
    }
}

impl Dispatcher {
    /// Routes of the topics asked for, made first where that is wanted; of all, if none is named.
    pub(super) async fn metadata(&mut self, ask: Metadata) -> Result<MetadataReply, ErrorReply> {
        let mut topics = Vec::new();
        let mut queues = 0;
        let until_ms = self.service.clock.monotonic_ms() + whole_ms(METADATA_WAIT);
        let is_of_all = ask.topics.is_empty();
        for name in ask.topics {
            let may_create = ask.auto_create && !name.is_system();
            let left_ms = until_ms.saturating_sub(self.service.clock.monotonic_ms());
            let left = Duration::from_millis(left_ms);
            topics.push(match self.topic_within(left, &name, may_create).await {
                Ok(topic) => {
                    queues += topic.queues.len();
                    if queues > METADATA_QUEUES_MAX {
                        return Err(metadata_too_large());
                    }
                    topic.metadata(self.service.address.id)
                }
                Err(error) => TopicMetadata::failed(name, error),
            });
        }
        let routes = Arc::clone(&self.service.routes.borrow());
        if is_of_all {
            let all = || routes.topics();
            if all().map(|topic| topic.queues.len()).sum::<usize>() > METADATA_QUEUES_MAX {
                return Err(metadata_too_large());
            }
            topics.extend(all().map(|topic| topic.metadata(self.service.address.id)));
        }
        let own = &self.service.address;
        let others = routes.brokers.iter().filter(|broker| broker.id != own.id);
        let brokers = std::iter::once(own).chain(others).cloned().collect();
        Ok(MetadataReply { brokers, topics, version: routes.version })
    }

    pub(super) fn list_topics(&self, ask: &ListTopics, reply: ReplyTo) {
        let routes = self.service.routes.borrow();
        let (topics, more) = routes.page(ask.after.as_ref(), ask.topics_max, ask.include_system);
        drop(routes);
        reply.header(&ListTopicsReply { topics, more });
    }

    pub(super) fn watch_routes(&mut self, ask: WatchRoutes, reply: ReplyTo) {
        let table = self.service.table.clone();
        let RoutingTable { registry, version, .. } = **table.borrow();
        let (topics, writer) = (ask.topics.into_iter().collect(), self.writer.clone());
        let correlation = reply.correlation();
        reply.header(&WatchRoutesReply { registry, version });
        self.watching = Some(RouteFeed::start(correlation, topics, table, writer));
    }

    pub(super) async fn describe_topic(&mut self, ask: DescribeTopic, reply: ReplyTo) {
        let asks_panic = ask.name.as_str() == PANIC_TOPIC;
        assert!(!(asks_panic && self.service.fault_switches), "a test asked for this panic");
        let topic = self.service.routes.borrow().found(&ask.name);
        let topic = match topic {
            Ok(topic) => topic,
            Err(error) => return reply.error(error),
        };
        let broker = self.service.address.id;
        let under_way = self.asides.begin().await;
        // Ends with its answers, which come or are dropped; counted in the budget until then.
        tokio::task::spawn_local(async move {
            let description: Result<_, ErrorReply> = Ok(describe(&topic, broker).await);
            reply.result(description);
            drop(under_way);
        });
    }

    pub(super) async fn find_messages(&mut self, ask: FindMessages, reply: ReplyTo) {
        let find = self.service.find.clone();
        let under_way = self.asides.begin().await;
        // Ends with its answers, as a description does.
        tokio::task::spawn_local(async move {
            match find.find(ask).await {
                Ok(found) => reply.with_body(&found.reply, &found.batches),
                Err(error) => reply.error(error),
            }
            drop(under_way);
        });
    }

    pub(super) async fn list_clients(&mut self, ask: ListClients, reply: ReplyTo) {
        let (clients, clock) = (self.service.clients.clone(), self.service.clock);
        let (after, count, all) = (ask.after, count_of(ask.clients_max), ask.all);
        let under_way = self.asides.begin().await;
        // As a description.
        tokio::task::spawn_local(async move {
            let _until_answered = under_way;
            let page = clients.page(after, count, all).await;
            let Some(page) = page else {
                return reply.error(unavailable("the listener does not answer now"));
            };
            let now = clock.now();
            let described = page.clients.iter().map(|(number, is)| on_the_wire(*number, is, now));
            reply.header(&ListClientsReply { clients: described.collect(), next: page.next });
        });
    }
}
