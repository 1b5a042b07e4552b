//! Who is connected, page by page: what HTTP and [`ListClients`] say alike. The Listener hands out the
//! way to some connections, and each of these says what it knows, so that many of them cost no one
//! much.
//!
//! [`ListClients`]: grus_protocol::message::ListClients

use std::sync::{Arc, OnceLock};

use futures_util::future::join_all;
use grus_mailbox::{Inbox, reply};
use grus_protocol::ids::TimestampMs;
use grus_protocol::message::{
    CLIENTS_MAX, ClientDescription, ClientMember, ClientProducer, ClientReader,
};

use crate::connection::facts::{MemberFact, ProducerFact, ReaderFact};
use crate::connection::{Describe, Description};
use crate::listener::{ConnectionPage, ListConnections};

/// Connections asked for at a time, one page after the other, until one of them is listed.
const PAGES_MAX: usize = 64;

/// The way to all connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Clients {
    listener: Arc<OnceLock<Inbox<ListConnections>>>,
    session_ms_max: u64,
}

/// Some of the clients.
#[derive(Debug)]
pub struct ClientPage {
    /// Each with the number of its connection, in order.
    pub clients: Vec<(u64, Description)>,
    /// The number to go on behind; none when there are no more.
    pub next: Option<u64>,
}

impl Clients {
    /// A way that is not open yet. A client that is silent for `session_ms_max` is not listed.
    #[must_use]
    pub fn new(session_ms_max: u64) -> Self {
        Self { listener: Arc::default(), session_ms_max }
    }

    /// Opens it, for all clones.
    pub fn open(&self, listener: Inbox<ListConnections>) {
        let _ = self.listener.set(listener); // a broker has one listener
    }

    fn is_listed(&self, connection: &Description) -> bool {
        connection.greeted && connection.silent_ms < self.session_ms_max
    }

    /// At most `count` clients behind the number `after`; `all`: also those that are silent, or have
    /// not said hello. `None` when the listener does not answer now.
    pub async fn page(
        &self,
        mut after: Option<u64>,
        count: usize,
        all: bool,
    ) -> Option<ClientPage> {
        let mut listed = ClientPage { clients: Vec::new(), next: None };
        for _ in 0..PAGES_MAX {
            let room = count - listed.clients.len();
            if room == 0 {
                break;
            }
            let page = self.connections(after, room).await?;
            after = page.connections.last().map(|(number, _)| *number).filter(|_| page.more);
            listed.next = after;
            let described = describe(page).await;
            listed
                .clients
                .extend(described.into_iter().filter(|(_, is)| all || self.is_listed(is)));
            if after.is_none() {
                break;
            }
        }
        Some(listed)
    }

    async fn connections(
        &self,
        after: Option<u64>,
        connections_max: usize,
    ) -> Option<ConnectionPage> {
        let (port, answer) = reply::port();
        let ask = ListConnections { after, connections_max, reply: port };
        self.listener.get()?.try_put(ask).ok()?;
        answer.await.ok()
    }
}

/// How many clients a request for `wanted` of them is given.
#[must_use]
pub fn count_of(wanted: u32) -> usize {
    let count = if wanted == 0 { CLIENTS_MAX } else { wanted.min(CLIENTS_MAX) };
    count as usize
}

/// Asks all connections of a page; those that have ended meanwhile are left out.
async fn describe(page: ConnectionPage) -> Vec<(u64, Description)> {
    let asked: Vec<_> = page
        .connections
        .iter()
        .filter_map(|(number, inbox)| {
            let (port, answer) = reply::port();
            inbox.try_put(Describe { reply: port }).ok()?;
            Some(async move { Some((*number, answer.await.ok()?)) })
        })
        .collect();
    join_all(asked).await.into_iter().flatten().collect()
}

/// A client as it travels.
#[must_use]
pub fn on_the_wire(connection: u64, is: &Description, now: TimestampMs) -> ClientDescription {
    let (batches_unlisted, fetches_unlisted) = is.facts.unlisted();
    ClientDescription {
        connection,
        client_id: is.facts.client_id().to_owned(),
        software: is.facts.software().to_owned(),
        address: is.peer.to_string(),
        since: is.since,
        last_seen: TimestampMs(now.0.saturating_sub(is.silent_ms).max(is.since.0)),
        requests: is.frames_read,
        producers: is.facts.producers().iter().map(producer).collect(),
        readers: is.facts.readers().iter().map(reader).collect(),
        batches_unlisted,
        fetches_unlisted,
        groups: is.facts.members().iter().map(member).collect(),
    }
}

fn member(is: &MemberFact) -> ClientMember {
    let MemberFact { group, member, since, last_seen } = is.clone();
    ClientMember { group, member, since, last_seen }
}

fn producer(is: &ProducerFact) -> ClientProducer {
    ClientProducer {
        producer_id: is.id,
        producer_epoch: is.epoch,
        name: is.name.clone(),
        topic: is.topic.clone(),
        since: is.since,
        last_seen: is.last_seen,
        batches: is.batches,
        messages: is.records,
    }
}

fn reader(is: &ReaderFact) -> ClientReader {
    ClientReader {
        topic: is.topic.clone(),
        queue: is.queue,
        is_push: is.subscription.is_some(),
        since: is.since,
        last_seen: is.last_seen,
        offset: is.offset,
        fetches: is.fetches,
    }
}
