//! `GET /scheduled`: what waits for its time, the earliest first, and how much of it there is.

use actix_web::{HttpResponse, web};
use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{QueueId, ShardId, TimestampMs, TopicId};
use grus_protocol::message::{
    LATEST, ListScheduled, SCHEDULED_PAGE_MAX, Scheduled, ScheduledPlace, Timer,
};
use grus_protocol::names::TopicName;
use serde::{Deserialize, Serialize};

use super::browse::{piece, shown_part};
use super::messages::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};
use super::shapes::Piece;
use super::{HttpParts, refused};
use crate::delay_wheel::messages::DUE_BUCKETS_MS;
use crate::scheduled::Schedules;

/// Messages of an answer when nothing was said.
const MESSAGES_DEFAULT: u32 = 50;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduledQuery {
    topic: Option<String>,
    queue: Option<u32>,
    from: Option<u64>,
    until: Option<u64>,
    key: Option<String>,
    after: Option<String>,
    max: Option<u32>,
    body: Option<usize>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    /// Of all topics.
    pending: u64,
    /// When the first of them is due.
    next_due: Option<u64>,
    /// How many are due within so many milliseconds from now, and later than that.
    due: Vec<DueBucket>,
    messages: Vec<Item>,
    /// To go on from.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DueBucket {
    /// `null`: later than all others.
    within_ms: Option<u64>,
    messages: u64,
}

/// One message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    handle: String,
    topic: String,
    topic_id: String,
    queue_id: u32,
    due: u64,
    /// `null`: its bytes cannot be read now.
    message: Option<Content>,
}

/// What it carries.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    id: String,
    born_time: u64,
    tag: Option<String>,
    keys: Vec<Piece>,
    body_bytes: usize,
    truncated: bool,
    body: Piece,
}

/// Serves `GET /scheduled`.
pub async fn scheduled(
    parts: web::Data<HttpParts>,
    query: web::Query<ScheduledQuery>,
) -> HttpResponse {
    match look(&parts, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

async fn look(parts: &HttpParts, query: &ScheduledQuery) -> Result<Page, ErrorReply> {
    let ask = wanted(query)?;
    let schedules = Schedules { routes: parts.routes.clone(), shards: parts.shards.clone() };
    let listed = schedules.list(ask).await?;
    let statuses = schedules.statuses().await;
    let mut histogram = vec![0; DUE_BUCKETS_MS.len() + 1];
    for (_, status) in &statuses {
        for (sum, messages) in histogram.iter_mut().zip(status.due_histogram) {
            *sum += messages;
        }
    }
    let bounds = DUE_BUCKETS_MS.into_iter().map(Some).chain([None]);
    let due = bounds.zip(histogram).map(|(within_ms, messages)| DueBucket { within_ms, messages });
    let body_bytes_max = query.body.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX);
    let mut bodies = listed.batches.into_iter();
    let item = |one: Scheduled| {
        let batch = if one.length > 0 { bodies.next() } else { None };
        let message = batch.and_then(|batch| content(batch, body_bytes_max));
        let Scheduled { topic, topic_id, queue, timer, due, .. } = one;
        let handle = format!("{topic}/{queue}/{}.{}", timer.index, timer.place);
        let (topic, topic_id) = (topic.to_string(), topic_id.to_string());
        Item { handle, topic, topic_id, queue_id: queue.0, due: due.0, message }
    };
    Ok(Page {
        pending: statuses.iter().map(|(_, status)| status.pending).sum(),
        next_due: statuses.iter().filter_map(|(_, status)| status.oldest_due).min().map(|at| at.0),
        due: due.collect(),
        messages: listed.reply.messages.into_iter().map(item).collect(),
        next: listed.reply.next.map(place_text),
    })
}

fn content(batch: bytes::Bytes, body_bytes_max: usize) -> Option<Content> {
    let batch = RecordBatch::from_log(batch).ok()?;
    let record = batch.views().next()?.ok()?;
    let whole = record.body();
    Some(Content {
        id: record.id().to_string(),
        born_time: record.born().0,
        tag: record.tag().map(str::to_owned),
        keys: record.keys().map(piece).collect(),
        body_bytes: whole.len(),
        truncated: whole.len() > body_bytes_max,
        body: piece(shown_part(whole, body_bytes_max)),
    })
}

fn wanted(query: &ScheduledQuery) -> Result<ListScheduled, ErrorReply> {
    let messages_max = query.max.unwrap_or(MESSAGES_DEFAULT);
    if messages_max == 0 || messages_max > SCHEDULED_PAGE_MAX {
        return Err(invalid(&format!("max is a number from 1 to {SCHEDULED_PAGE_MAX}")));
    }
    if query.queue.is_some() && query.topic.is_none() {
        return Err(invalid("topic is needed with queue"));
    }
    let topic =
        |name: &String| TopicName::parse_any(name).map_err(|wrong| invalid(&wrong.to_string()));
    let after = |text: &String| place_of(text).ok_or_else(|| invalid("after is what next said"));
    Ok(ListScheduled {
        topic: query.topic.as_ref().map(topic).transpose()?,
        topic_id: TopicId::UNKNOWN,
        queue: query.queue.map(QueueId),
        from: TimestampMs(query.from.unwrap_or(0)),
        until: query.until.map_or(LATEST, TimestampMs),
        key: query.key.clone().map(|key| key.into_bytes().into()),
        after: query.after.as_ref().map(after).transpose()?,
        messages_max,
        with_bodies: true,
    })
}

fn place_text(place: ScheduledPlace) -> String {
    let ScheduledPlace { due, shard, timer } = place;
    format!("{due}.{shard}.{}.{}", timer.index, timer.place)
}

fn place_of(text: &str) -> Option<ScheduledPlace> {
    let mut parts = text.split('.');
    let due = TimestampMs(parts.next()?.parse().ok()?);
    let shard = ShardId(parts.next()?.parse().ok()?);
    let timer = Timer { index: parts.next()?.parse().ok()?, place: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some(ScheduledPlace { due, shard, timer })
}

fn invalid(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_from_its_text() {
        let timer = Timer { index: u64::MAX, place: 7 };
        let place = ScheduledPlace { due: TimestampMs(5), shard: ShardId(2), timer };
        assert_eq!(place_of(&place_text(place)), Some(place));
        for wrong in ["", "1.2.3", "1.2.3.4.5", "1.2.3.x", "1.2.-3.4"] {
            assert_eq!(place_of(wrong), None, "{wrong}");
        }
    }
}
