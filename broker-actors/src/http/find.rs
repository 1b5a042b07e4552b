//! `GET /message/find`: single messages by id, key, offset or time.

use actix_web::{HttpResponse, web};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{Offset, QueueId, TimestampMs, TopicId};
use grus_protocol::message::{FOUND_MESSAGES_MAX, FindBy, FindMessages, FoundMessage};
use grus_protocol::names::TopicName;
use serde::{Deserialize, Serialize};

use super::browse::{Browsed, Wanted};
use super::messages::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};
use super::shapes::MessageItem;
use super::{HttpParts, refused};
use crate::find::Find;
use crate::topic_queue::FetchedBatch;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindMessageQuery {
    id: Option<String>,
    topic: Option<String>,
    key: Option<String>,
    queue: Option<u32>,
    offset: Option<u64>,
    time: Option<u64>,
    max: Option<u32>,
    body: Option<usize>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundPage {
    messages: Vec<FoundItem>,
    more: bool,
    scanned_bytes: u64,
    unsearched_bytes: u64,
}

/// One message, and where it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FoundItem {
    topic: String,
    topic_id: String,
    queue_id: u32,
    #[serde(flatten)]
    message: MessageItem,
}

/// Serves `GET /message/find`.
pub async fn find(
    parts: web::Data<HttpParts>,
    query: web::Query<FindMessageQuery>,
) -> HttpResponse {
    match look(&parts, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

async fn look(parts: &HttpParts, query: &FindMessageQuery) -> Result<FoundPage, ErrorReply> {
    let messages_max = query.max.unwrap_or(0);
    if messages_max > FOUND_MESSAGES_MAX {
        return Err(invalid(&format!("max is a number up to {FOUND_MESSAGES_MAX}")));
    }
    let by = wanted(query)?;
    let find = Find { routes: parts.routes.clone(), shards: parts.shards.clone() };
    let found = find.find(FindMessages { by, messages_max }).await?;
    let body_bytes_max = query.body.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX);
    let items = found.reply.messages.into_iter().zip(found.batches);
    let items = items.filter_map(|(place, bytes)| item(place, bytes, body_bytes_max));
    Ok(FoundPage {
        messages: items.collect(),
        more: found.reply.more,
        scanned_bytes: found.reply.scanned_bytes,
        unsearched_bytes: found.reply.unsearched_bytes,
    })
}

/// What the query asks for: exactly one of id, key, offset and time.
fn wanted(query: &FindMessageQuery) -> Result<FindBy, ErrorReply> {
    let topic_id = TopicId::UNKNOWN;
    let topic = || {
        let name = query.topic.as_deref().ok_or_else(|| invalid("topic is needed"))?;
        TopicName::parse_any(name).map_err(|wrong| invalid(&wrong.to_string()))
    };
    let queue = query.queue.map(QueueId);
    match (&query.id, &query.key, query.offset, query.time) {
        (Some(id), None, None, None) => {
            let id = id.parse().map_err(|_| invalid("id is not a message id"))?;
            Ok(FindBy::Id(id))
        }
        (None, Some(key), None, None) => {
            Ok(FindBy::Key { topic: topic()?, topic_id, key: key.clone().into_bytes() })
        }
        (None, None, Some(offset), None) => {
            let queue = queue.ok_or_else(|| invalid("queue is needed"))?;
            Ok(FindBy::Offset { topic: topic()?, topic_id, queue, offset: Offset(offset) })
        }
        (None, None, None, Some(time)) => {
            Ok(FindBy::Time { topic: topic()?, topic_id, time: TimestampMs(time), queue })
        }
        _ => Err(invalid("one of id, key, offset and time")),
    }
}

fn item(place: FoundMessage, bytes: bytes::Bytes, body_bytes_max: usize) -> Option<FoundItem> {
    let mut browsed = Browsed::new(Wanted { from: place.offset, count: 1, body_bytes_max });
    let FoundMessage { topic, topic_id, queue, offset, term, stored, .. } = place;
    let fetched = FetchedBatch { base_offset: offset, count: 1, term, stored, bytes };
    browsed.take(&fetched).ok()?;
    let message = browsed.page(&topic, queue.0, (offset, offset)).messages.pop()?;
    let (topic, topic_id) = (topic.to_string(), topic_id.to_string());
    Some(FoundItem { topic, topic_id, queue_id: queue.0, message })
}

fn invalid(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}
