//! The subscriptions of one connection: where each one's requests go. They end with it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use grus_mailbox::{Inbox, Port};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{QueueId, SubscriptionId};
use grus_protocol::message::{
    Credit, CreditReply, Seek, SeekReply, Subscribe, SubscribeGroup, SubscribeGroupReply,
    SubscribeReply, Unsubscribe, UnsubscribeReply,
};
use grus_protocol::opcode::Opcode;

use super::Readership;
use crate::commands::groups::{Holding, ProgressKey};
use crate::connection::pushes::{Lives, PushSink, SUBSCRIPTIONS_MAX};
use crate::connection::replies::{Outgoing, ReplyTo};
use crate::error::QueueError;
use crate::topic_queue::{
    Account, GroupAsk, ListedOffset, QueueHandle, SubscriptionAsk, SubscriptionKey,
};

/// The longest a request of a subscription waits for room in its queue.
const PUT_WAIT: Duration = Duration::from_secs(30);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct ConnectionSubscriptions {
    writer: Inbox<Outgoing>,
    /// Its address is the connection's number: unique as long as anybody holds it.
    connection: Arc<()>,
    readership: Readership,
    open: HashMap<SubscriptionId, Open>,
}

#[derive(Debug)]
struct Open {
    asks: Inbox<SubscriptionAsk>,
    alive: Weak<()>,
}

impl ConnectionSubscriptions {
    pub(super) fn new(writer: Inbox<Outgoing>, readership: Readership) -> Self {
        Self { writer, connection: Arc::default(), readership, open: HashMap::new() }
    }

    /// Hello has agreed on these compressions.
    pub(super) fn agree(&mut self, compressions: u32) {
        self.readership.compressions = compressions;
    }

    fn key(&self, id: SubscriptionId) -> SubscriptionKey {
        SubscriptionKey { connection: Arc::as_ptr(&self.connection) as usize as u64, id }
    }

    fn living(&self, id: SubscriptionId) -> Option<&Open> {
        self.open.get(&id).filter(|open| open.alive.strong_count() > 0)
    }

    /// A place for a new subscription, and its way to the writer.
    fn make(
        &mut self,
        (id, queue): (SubscriptionId, QueueId),
        opcode: Opcode,
        handle: &QueueHandle,
    ) -> Result<PushSink, ErrorReply> {
        if self.living(id).is_some() {
            let text = format!("subscription {id} is taken on this connection");
            return Err(ErrorReply::new(ErrorCode::InvalidRequest, text));
        }
        if self.open.len() >= SUBSCRIPTIONS_MAX {
            self.open.retain(|_, open| open.alive.strong_count() > 0);
        }
        if self.open.len() >= SUBSCRIPTIONS_MAX {
            let text = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(ErrorReply::new(ErrorCode::Overloaded, text));
        }
        let alive = Arc::new(());
        let open = Open { asks: handle.subscribe.clone(), alive: Arc::downgrade(&alive) };
        let connection = Arc::clone(&self.connection);
        let lives = Lives { subscription: alive, connection };
        self.open.insert(id, open);
        Ok(PushSink::new((id, queue), opcode, self.writer.clone(), self.readership, lives))
    }

    pub(super) async fn subscribe(&mut self, ask: Subscribe, queue: &QueueHandle, reply: ReplyTo) {
        let id = ask.subscription;
        let sink = match self.make((id, ask.queue), Opcode::Deliver, queue) {
            Ok(sink) => sink,
            Err(error) => return reply.error(error),
        };
        let subscribe =
            SubscriptionAsk::Subscribe {
                key: self.key(id),
                at: ask.at,
                account: Account::new(ask.credit_messages, ask.credit_bytes),
                subscriber: Box::new(sink),
                reply: listed(reply, |ListedOffset { offset, log_start, end_offset }| {
                    SubscribeReply { offset, log_start, end_offset }
                }),
            };
        put(&queue.subscribe, subscribe).await;
    }

    /// The same for a member of a group.
    pub(super) async fn subscribe_group(
        &mut self,
        ask: SubscribeGroup,
        queue: &QueueHandle,
        reply: ReplyTo,
    ) {
        let id = ask.subscription;
        let sink = match self.make((id, ask.queue), Opcode::GroupDeliver, queue) {
            Ok(sink) => sink,
            Err(error) => return reply.error(error),
        };
        let subscribe = GroupAsk::Subscribe {
            key: self.key(id),
            holding: Holding {
                place: ProgressKey { queue: queue.key, group: ask.group_id },
                generation: ask.generation,
                member: ask.member,
                round: ask.round,
            },
            filter: ask.filter,
            account: Account::new(ask.credit_messages, ask.credit_bytes),
            subscriber: Box::new(sink),
            reply: listed(reply, |ListedOffset { offset, log_start, end_offset }| {
                SubscribeGroupReply { offset, log_start, end_offset }
            }),
        };
        let _ = tokio::time::timeout(PUT_WAIT, queue.group.put(subscribe)).await;
    }

    pub(super) async fn credit(&mut self, ask: Credit, reply: ReplyTo) {
        let key = self.key(ask.subscription);
        let Some(open) = self.living(ask.subscription) else { return unknown(reply) };
        let more = Account::new(ask.messages, ask.bytes);
        let reply = answered(reply, || CreditReply {});
        put(&open.asks, SubscriptionAsk::Credit { key, more, reply }).await;
    }

    pub(super) async fn seek(&mut self, ask: Seek, reply: ReplyTo) {
        let key = self.key(ask.subscription);
        let Some(open) = self.living(ask.subscription) else { return unknown(reply) };
        let account = Account::new(ask.credit_messages, ask.credit_bytes);
        let reply = listed(reply, |ListedOffset { offset, log_start, end_offset }| SeekReply {
            offset,
            log_start,
            end_offset,
        });
        put(&open.asks, SubscriptionAsk::Seek { key, at: ask.at, account, reply }).await;
    }

    pub(super) async fn unsubscribe(&mut self, ask: Unsubscribe, reply: ReplyTo) {
        let key = self.key(ask.subscription);
        let Some(open) = self.open.remove(&ask.subscription) else { return unknown(reply) };
        if open.alive.strong_count() == 0 {
            return unknown(reply);
        }
        let reply = answered(reply, || UnsubscribeReply {});
        put(&open.asks, SubscriptionAsk::Unsubscribe { key, reply }).await;
    }
}

/// Waits for room, as long as a Produce would: what a client asks of a queue goes in the order it
/// asked. Too late, or the queue has stopped: the port is dropped, which answers.
async fn put(asks: &Inbox<SubscriptionAsk>, ask: SubscriptionAsk) {
    let _ = tokio::time::timeout(PUT_WAIT, asks.put(ask)).await;
}

fn unknown(reply: ReplyTo) {
    reply.error(QueueError::UnknownSubscription.to_reply());
}

fn listed<H: serde::Serialize + 'static>(
    reply: ReplyTo,
    header: fn(ListedOffset) -> H,
) -> Port<Result<ListedOffset, QueueError>> {
    reply.port(move |listed: Result<ListedOffset, QueueError>| {
        listed.map(header).map_err(|error| error.to_reply())
    })
}

fn answered<H: serde::Serialize + 'static>(
    reply: ReplyTo,
    header: fn() -> H,
) -> Port<Result<(), QueueError>> {
    reply.port(move |done: Result<(), QueueError>| {
        done.map(|()| header()).map_err(|error| error.to_reply())
    })
}

impl Drop for ConnectionSubscriptions {
    fn drop(&mut self) {
        for (id, open) in &self.open {
            if open.alive.strong_count() > 0 {
                let (key, reply) = (self.key(*id), Port::call(|_| ()));
                // No room: the queue finds out by itself when it next has something to send.
                let _ = open.asks.try_put(SubscriptionAsk::Unsubscribe { key, reply });
            }
        }
    }
}
