//! `GET /messages`: some messages of a queue, as they are stored. Reads a bounded number of bytes
//! the way a client does: what is not in memory is brought there by the Reader's thread.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use grus_mailbox::{Inbox, Port, Weigh, reply};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{Offset, QueueId, Term, TimestampMs, TopicId};
use grus_protocol::names::TopicName;
use serde::Deserialize;

use super::browse::{Browsed, Wanted};
use super::shapes::MessagePage;
use super::{HttpParts, refused};
use crate::error::QueueError;
use crate::topic_queue::{At, Fetch, Fetched, QueueAsk, QueueHandle};

/// Most messages of one answer, and how many it has when nothing was said.
const MESSAGES_MAX: usize = 200;
const MESSAGES_DEFAULT: usize = 20;
/// Bytes of each body that are shown when nothing was said, and at most.
pub(super) const BODY_BYTES_DEFAULT: usize = 4 * 1024;
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of batches that are read at a time.
const STEP_BYTES: u32 = 256 * 1024;
/// Reads of one answer.
const STEPS_MAX: usize = 8;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesQuery {
    topic: String,
    #[serde(default)]
    queue: u32,
    from: Option<String>,
    time: Option<u64>,
    max: Option<usize>,
    body: Option<usize>,
}

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    First,
    Newest,
    Offset(u64),
    Time(u64),
}

impl From {
    fn of(query: &MessagesQuery) -> Result<Self, ErrorReply> {
        match (query.from.as_deref(), query.time) {
            (None, Some(time)) => Ok(Self::Time(time)),
            (None | Some("first"), None) => Ok(Self::First),
            (Some("newest"), None) => Ok(Self::Newest),
            (Some(text), None) => text.parse().map(Self::Offset).map_err(|_| {
                invalid(format!("from is `first`, `newest` or an offset, not `{text}`"))
            }),
            (Some(_), Some(_)) => Err(invalid("either from or time".to_owned())),
        }
    }
}

/// Serves `GET /messages`.
pub async fn messages(
    parts: web::Data<HttpParts>,
    query: web::Query<MessagesQuery>,
) -> HttpResponse {
    match browse(&parts, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

async fn browse(parts: &HttpParts, query: &MessagesQuery) -> Result<MessagePage, ErrorReply> {
    let from = From::of(query)?;
    let count = query.max.unwrap_or(MESSAGES_DEFAULT);
    if !(1..=MESSAGES_MAX).contains(&count) {
        return Err(invalid(format!("max is a number from 1 to {MESSAGES_MAX}")));
    }
    let name = TopicName::parse_any(&query.topic).map_err(|wrong| invalid(wrong.to_string()))?;
    let topic = parts.routes.borrow().found(&name)?;
    let queue = Arc::clone(topic.queue(TopicId::UNKNOWN, QueueId(query.queue))?);

    let (at, back) = match from {
        From::First | From::Offset(_) => (At::First, 0),
        From::Newest => (At::Last, count as u64),
        From::Time(time) => (At::Time(TimestampMs(time)), 0),
    };
    let listed = ask(&queue.ask, |reply| QueueAsk::ListOffset { at, reply }).await?;
    let start = match from {
        From::Offset(offset) => offset,
        _ => listed.offset.0.saturating_sub(back),
    };
    let wanted = Wanted {
        from: Offset(start.max(listed.log_start.0)),
        count,
        body_bytes_max: query.body.unwrap_or(BODY_BYTES_DEFAULT).min(BODY_BYTES_MAX),
    };
    let mut browsed = Browsed::new(wanted);
    let mut bounds = (listed.log_start, listed.end_offset);
    for _ in 0..STEPS_MAX {
        if browsed.is_full() || browsed.next() >= bounds.1 {
            break;
        }
        match fetch(&queue, browsed.next()).await {
            Ok(fetched) => {
                bounds = (fetched.log_start, fetched.end_offset);
                if fetched.batches.is_empty() {
                    break;
                }
                for batch in &fetched.batches {
                    browsed.take(batch).map_err(|wrong| damaged(&wrong.to_string()))?;
                }
            }
            Err(error) if browsed.is_empty() => return Err(error),
            Err(_) => break, // what was read is shown; the next page names what is wrong
        }
    }
    Ok(browsed.page(&topic.name, query.queue, bounds))
}

async fn fetch(queue: &QueueHandle, offset: Offset) -> Result<Fetched, ErrorReply> {
    ask(&queue.fetch, |reply| Fetch {
        offset,
        last_term: Term(0),
        bytes_max: STEP_BYTES,
        wait_ms: 0,
        reply,
    })
    .await
}

/// Asks a queue, and waits for its answer.
async fn ask<M: Weigh + Send + 'static, T: Send + 'static>(
    inbox: &Inbox<M>,
    question: impl FnOnce(Port<Result<T, QueueError>>) -> M,
) -> Result<T, ErrorReply> {
    let (port, answer) = reply::port();
    let busy = || ErrorReply::new(ErrorCode::Unavailable, "the queue does not answer now");
    inbox.try_put(question(port)).map_err(|_| busy())?;
    answer.await.map_err(|_| busy())?.map_err(|error| error.to_reply())
}

fn invalid(text: String) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

fn damaged(text: &str) -> ErrorReply {
    ErrorReply::new(ErrorCode::CorruptRange, format!("a stored batch cannot be read: {text}"))
}

/// The status of an error with that code.
#[must_use]
pub fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::UnknownTopic | ErrorCode::UnknownQueue | ErrorCode::UnknownGroup => {
            StatusCode::NOT_FOUND
        }
        ErrorCode::GroupNotEmpty => StatusCode::CONFLICT,
        ErrorCode::InvalidRequest | ErrorCode::InvalidName | ErrorCode::InvalidSettings => {
            StatusCode::BAD_REQUEST
        }
        ErrorCode::OffsetOutOfRange => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorCode::UnsupportedFeature => StatusCode::NOT_IMPLEMENTED,
        code if code.is_retriable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
