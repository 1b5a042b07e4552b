//! `GET /clients`: who is connected. The Listener hands out the way to some connections, and each
//! of these says what it knows, so that many of them cost no one much.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use grus_mailbox::reply;
use serde::{Deserialize, Serialize};

use super::{HttpParts, error};
use crate::connection::{Describe, Description};
use crate::listener::{ConnectionPage, ListConnections};

/// Most connections of one answer, and how many it has when nothing was said.
const CLIENTS_MAX: usize = 256;
/// Connections asked for at a time; some are left out.
const PAGES_MAX: usize = 64;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientsQuery {
    after: Option<u64>,
    max: Option<usize>,
    #[serde(default)]
    all: bool,
}

/// `GET /clients`
#[derive(Debug, Clone, Serialize)]
pub struct Clients {
    /// The number to go on behind; nothing when there are no more.
    pub next: Option<u64>,
    /// The clients.
    pub clients: Vec<ClientItem>,
}

/// One client.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientItem {
    /// Number of its connection.
    pub connection: u64,
    /// What it calls itself; empty before it has said hello.
    pub client_id: String,
    /// Program and version of its library.
    pub software: String,
    /// Its address.
    pub address: String,
    /// When it connected, in milliseconds since 1970.
    pub connected_time: u64,
    /// Whether it has said hello.
    pub greeted: bool,
    /// How long it has sent nothing, in milliseconds.
    pub silent_ms: u64,
    /// Requests it has sent.
    pub requests: u64,
    /// Bytes it has taken.
    pub bytes_written: u64,
    /// Requests not answered yet.
    pub in_flight: u32,
    /// Bytes of them.
    pub in_flight_bytes: u64,
    /// Bytes of replies that wait for it.
    pub waiting_bytes: u64,
    /// Its producers.
    pub producers: Vec<ProducerItem>,
    /// The queues it reads.
    pub readers: Vec<ReaderItem>,
    /// Batches of producers that are not listed, being too many.
    pub batches_unlisted: u64,
    /// Fetches of queues that are not listed, being too many.
    pub fetches_unlisted: u64,
}

/// One producer of a client.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerItem {
    /// Its id, as text; `0` = one without an identity.
    pub producer_id: String,
    /// Its name, if it asked for one on this connection.
    pub name: Option<String>,
    /// The epoch of its life.
    pub epoch: u32,
    /// Batches it has sent on this connection.
    pub batches: u64,
    /// Messages in them.
    pub messages: u64,
}

/// One queue that a client reads.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReaderItem {
    /// The topic's name.
    pub topic: String,
    /// The queue's number in it.
    pub queue_id: u32,
    /// `push` by subscription, or `fetch`.
    pub mode: &'static str,
    /// The offset it asked for last, by fetching.
    pub offset: Option<u64>,
    /// How often it asked.
    pub fetches: u64,
}

impl ClientItem {
    fn of(connection: u64, is: &Description) -> Self {
        let producers = is.facts.producers().iter().map(|producer| ProducerItem {
            producer_id: producer.id.to_string(),
            name: producer.name.as_ref().map(ToString::to_string),
            epoch: producer.epoch.0,
            batches: producer.batches,
            messages: producer.records,
        });
        let readers = is.facts.readers().iter().map(|reader| ReaderItem {
            topic: reader.topic.to_string(),
            queue_id: reader.queue.0,
            mode: if reader.subscription.is_some() { "push" } else { "fetch" },
            offset: reader.offset.map(|offset| offset.0),
            fetches: reader.fetches,
        });
        let (batches_unlisted, fetches_unlisted) = is.facts.unlisted();
        Self {
            connection,
            client_id: is.facts.client_id().to_owned(),
            software: is.facts.software().to_owned(),
            address: is.peer.to_string(),
            connected_time: is.since.0,
            greeted: is.greeted,
            silent_ms: is.silent_ms,
            requests: is.frames_read,
            bytes_written: is.bytes_written,
            in_flight: is.load.requests,
            in_flight_bytes: is.load.request_bytes,
            waiting_bytes: is.load.output_bytes,
            producers: producers.collect(),
            readers: readers.collect(),
            batches_unlisted,
            fetches_unlisted,
        }
    }
}

/// Serves `GET /clients`.
pub async fn clients(parts: web::Data<HttpParts>, query: web::Query<ClientsQuery>) -> HttpResponse {
    let count = query.max.unwrap_or(CLIENTS_MAX);
    if !(1..=CLIENTS_MAX).contains(&count) {
        let text = format!("max is a number from 1 to {CLIENTS_MAX}");
        return error(StatusCode::BAD_REQUEST, text);
    }
    let mut listed = Clients { next: None, clients: Vec::new() };
    let mut after = query.after;
    for _ in 0..PAGES_MAX {
        let room = count - listed.clients.len();
        if room == 0 {
            break;
        }
        let Some(page) = connections(&parts, after, room).await else {
            return error(StatusCode::SERVICE_UNAVAILABLE, "the listener does not answer now");
        };
        after = page.connections.last().map(|(number, _)| *number).filter(|_| page.more);
        listed.next = after;
        let described = describe(page).await;
        let wanted = described.into_iter().filter(|(_, is)| query.all || parts.is_listed(is));
        listed.clients.extend(wanted.map(|(number, is)| ClientItem::of(number, &is)));
        if after.is_none() {
            break;
        }
    }
    HttpResponse::Ok().json(listed)
}

async fn connections(
    parts: &HttpParts,
    after: Option<u64>,
    connections_max: usize,
) -> Option<ConnectionPage> {
    let (port, answer) = reply::port();
    let ask = ListConnections { after, connections_max, reply: port };
    parts.connections.try_put(ask).ok()?;
    answer.await.ok()
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
