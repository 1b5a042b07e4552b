//! What is gathered from many before it is answered: searches, listings, descriptions.

use grus_protocol::error::ErrorReply;
use grus_protocol::message::{
    DescribeTopic, DescribeTopicReply, FindMessages, ListClients, ListClientsReply, ListTopics,
    ListTopicsReply,
};

use super::{Dispatcher, PANIC_TOPIC, unavailable};
use crate::clients::{count_of, on_the_wire};
use crate::connection::replies::ReplyTo;
use crate::registry_link::routes::unknown_topic;
use crate::statuses::describe;

impl Dispatcher {
    pub(super) fn find_messages(&self, ask: FindMessages, reply: ReplyTo) {
        let find = self.service.find.clone();
        // Ends with its answers, as a description does.
        tokio::task::spawn_local(async move {
            match find.find(ask).await {
                Ok(found) => reply.with_body(&found.reply, &found.batches),
                Err(error) => reply.error(error),
            }
        });
    }

    pub(super) fn list_topics(&self, ask: &ListTopics, reply: ReplyTo) {
        let routes = self.service.routes.borrow();
        let (topics, more) = routes.page(ask.after.as_ref(), ask.topics_max, ask.include_system);
        drop(routes);
        reply.header(&ListTopicsReply { topics, more });
    }

    pub(super) fn describe_topic(&self, ask: &DescribeTopic, reply: ReplyTo) {
        let asks_panic = ask.name.as_str() == PANIC_TOPIC;
        assert!(!(asks_panic && self.service.fault_switches), "a test asked for this panic");
        let topic = self.service.routes.borrow().get(&ask.name).cloned();
        let Some(topic) = topic else { return reply.error(unknown_topic(&ask.name)) };
        let broker = self.service.address.id;
        // Ends with its answers, which come or are dropped; counted in the budget until then.
        tokio::task::spawn_local(async move {
            let description: Result<DescribeTopicReply, ErrorReply> =
                Ok(describe(&topic, broker).await);
            reply.result(description);
        });
    }

    pub(super) fn list_clients(&self, ask: &ListClients, reply: ReplyTo) {
        let (clients, clock) = (self.service.clients.clone(), self.service.clock);
        let (after, count, all) = (ask.after, count_of(ask.clients_max), ask.all);
        // As a description.
        tokio::task::spawn_local(async move {
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
