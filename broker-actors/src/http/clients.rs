//! `GET /clients`: who is connected, as [`crate::clients`] knows it.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use grus_protocol::message::CLIENTS_MAX;
use serde::{Deserialize, Serialize};

use super::{HttpParts, error};
use crate::connection::Description;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientsQuery {
    after: Option<u64>,
    max: Option<u32>,
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
    /// The members of groups that are heard of over it.
    pub groups: Vec<MemberItem>,
}

/// One member of a group, of a client.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberItem {
    /// The group's name.
    pub group: String,
    /// Its id in the group.
    pub member: u64,
    /// When it was first heard of on this connection, in milliseconds since 1970.
    pub first_time: u64,
    /// When it was heard of last.
    pub last_time: u64,
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
    /// The topic it sent to last.
    pub topic: Option<String>,
    /// When it was first seen on this connection, in milliseconds since 1970.
    pub first_time: u64,
    /// When it was seen last.
    pub last_time: u64,
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
    /// When it was first read on this connection, in milliseconds since 1970.
    pub first_time: u64,
    /// When it was last fetched, or given credit.
    pub last_time: u64,
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
            topic: producer.topic.as_ref().map(ToString::to_string),
            first_time: producer.since.0,
            last_time: producer.last_seen.0,
            batches: producer.batches,
            messages: producer.records,
        });
        let readers = is.facts.readers().iter().map(|reader| ReaderItem {
            topic: reader.topic.to_string(),
            queue_id: reader.queue.0,
            mode: if reader.subscription.is_some() { "push" } else { "fetch" },
            first_time: reader.since.0,
            last_time: reader.last_seen.0,
            offset: reader.offset.map(|offset| offset.0),
            fetches: reader.fetches,
        });
        let members = is.facts.members().iter().map(|member| MemberItem {
            group: member.group.to_string(),
            member: member.member.0,
            first_time: member.since.0,
            last_time: member.last_seen.0,
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
            groups: members.collect(),
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
    let Some(page) = parts.clients.page(query.after, count as usize, query.all).await else {
        return error(StatusCode::SERVICE_UNAVAILABLE, "the listener does not answer now");
    };
    let clients = page.clients.iter().map(|(number, is)| ClientItem::of(*number, is)).collect();
    HttpResponse::Ok().json(Clients { next: page.next, clients })
}
