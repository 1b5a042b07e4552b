//! `GET /groups/{group}/dead-letters`: what a group gave up, page by page, and one of it.

use actix_web::{HttpResponse, web};
use bytes::Bytes;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{Offset, QueueId, Term};
use grus_protocol::message::{DEAD_LETTERS_PAGE_MAX, DeadLetter, DeadLetterPlace};
use grus_protocol::names::TopicName;
use serde::Deserialize;

use super::browse::{Browsed, Wanted};
use super::group_shapes::{LetterItem, LettersPage, OriginItem};
use super::groups::{group_name, invalid};
use super::messages::{BODY_BYTES_DEFAULT, BODY_BYTES_MAX};
use super::shapes::MessageItem;
use super::{HttpParts, refused};
use crate::groups::queues::{letters_here, letters_page};
use crate::topic_queue::FetchedBatch;

/// Letters of an answer when nothing was said.
const LETTERS_DEFAULT: u32 = 50;
/// Most bytes of messages that are read for one answer.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    after: Option<String>,
    max: Option<u32>,
    body: Option<usize>,
}

/// What may stand behind the `?` of one letter.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LetterQuery {
    body: Option<usize>,
}

/// Serves `GET /groups/{group}/dead-letters`.
pub async fn letters(
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<ListQuery>,
) -> HttpResponse {
    match list(&parts, &path, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

/// Serves `GET /groups/{group}/dead-letters/{queue}/{offset}`.
pub async fn letter(
    parts: web::Data<HttpParts>,
    path: web::Path<(String, String, String)>,
    query: web::Query<LetterQuery>,
) -> HttpResponse {
    match show(&parts, &path, query.body).await {
        Ok(letter) => HttpResponse::Ok().json(letter),
        Err(error) => refused(&error),
    }
}

async fn list(parts: &HttpParts, name: &str, query: &ListQuery) -> Result<LettersPage, ErrorReply> {
    let messages_max = query.max.unwrap_or(LETTERS_DEFAULT);
    if messages_max == 0 || messages_max > DEAD_LETTERS_PAGE_MAX {
        return Err(invalid(format!("max is a number from 1 to {DEAD_LETTERS_PAGE_MAX}")));
    }
    let after = query.after.as_deref();
    let after = after.map(|text| letter_of(text).ok_or_else(|| invalid("after is what next said")));
    let after = after.transpose()?;
    let topic = parts.groups.letters_topic(&group_name(name)?)?;
    let queues = letters_here(&topic, after.map_or(QueueId(0), |after| after.queue));
    let (page, next) = letters_page(&queues, after, messages_max, Some(READ_BYTES_MAX)).await?;
    let body_bytes_max = query.body.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX);
    let mut bodies = page.bodies.into_iter();
    let letters = page.letters.into_iter().map(|letter| {
        let body = if letter.length > 0 { bodies.next() } else { None };
        item(letter, body, body_bytes_max)
    });
    let letters = letters.collect();
    Ok(LettersPage { letters, next: next.map(|place| letter_text(place.queue, place.offset)) })
}

async fn show(
    parts: &HttpParts,
    (name, queue, offset): &(String, String, String),
    body: Option<usize>,
) -> Result<LetterItem, ErrorReply> {
    let place = letter_of(&format!("{queue}/{offset}"))
        .ok_or_else(|| invalid("a dead letter is named by queue and offset, as in 0/17"))?;
    let group = group_name(name)?;
    let letters = parts.groups.letters_of(&group, place.queue)?;
    let before = place.offset.0.checked_sub(1).map(Offset);
    let mut page = crate::dead_letters::LettersPage::default();
    letters.list(before, 1, Some(usize::MAX), &mut page).await?;
    let body_bytes_max = body.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX);
    let found = page.letters.pop().filter(|letter| letter.offset == place.offset);
    let found = found.map(|letter| item(letter, page.bodies.pop(), body_bytes_max));
    found.ok_or_else(|| {
        let text = format!(
            "there is no dead letter {} of {group}",
            letter_text(place.queue, place.offset)
        );
        ErrorReply::new(ErrorCode::OffsetOutOfRange, text)
    })
}

fn item(letter: DeadLetter, body: Option<Bytes>, body_bytes_max: usize) -> LetterItem {
    let message = body.and_then(|bytes| message(&letter, bytes, body_bytes_max));
    LetterItem {
        letter: letter_text(letter.queue, letter.offset),
        since: letter.stored.0,
        origin: OriginItem {
            topic: letter.origin_topic.to_string(),
            queue_id: letter.origin_queue.0,
            offset: letter.origin_offset.0,
        },
        reason: letter.reason,
        deliveries: letter.deliveries,
        message,
    }
}

fn message(letter: &DeadLetter, bytes: Bytes, body_bytes_max: usize) -> Option<MessageItem> {
    let (base_offset, stored) = (letter.offset, letter.stored);
    let mut browsed = Browsed::new(Wanted { from: base_offset, count: 1, body_bytes_max });
    let fetched = FetchedBatch { base_offset, count: 1, term: Term::UNKNOWN, stored, bytes };
    browsed.take(&fetched).ok()?;
    let any: TopicName = letter.origin_topic.clone();
    browsed.page(&any, 0, (base_offset, base_offset)).messages.pop()
}

fn letter_text(queue: QueueId, offset: Offset) -> String {
    format!("{queue}/{offset}")
}

/// The place that a text such as `0/17` names.
pub(super) fn letter_of(text: &str) -> Option<DeadLetterPlace> {
    let (queue, offset) = text.split_once('/')?;
    let place = DeadLetterPlace {
        queue: QueueId(queue.parse().ok()?),
        offset: Offset(offset.parse().ok()?),
    };
    Some(place)
}
