//! What changes a group by HTTP: `POST /groups/{group}/reset`, `/delete`, `/dead-letters/redrive` and
//! `/dead-letters/purge`. Who may is [`changes`](super::changes)'.
//!
//! Each does what this broker can do and says what it leaves to others; nothing is done without an
//! end: what is more than one request does is asked for again.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use grus_protocol::error::ErrorReply;
use grus_protocol::ids::{GroupId, Offset, QueueId, TimestampMs};
use grus_protocol::message::{ACK_RANGES_MAX, DeadLetterPlace, DeleteGroup, OffsetRange};
use grus_protocol::names::{GroupName, TopicName};
use serde::Deserialize;
use serde::Serialize;

use super::changes::is_meant;
use super::dead_letters::letter_of;
use super::group_shapes::{Deleted, MovedItem, Purged, Redriven, RefusedItem, ResetDone};
use super::groups::{group_name, invalid};
use super::{HttpParts, error, refused};
use crate::dead_letters::{DeadLetters, REDRIVEN_MAX};
use crate::groups::queues::letters_here;
use crate::machine::groups::Moved;
use crate::topic_queue::{At, ResetTo};

/// What may stand behind the `?` of a reset.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResetQuery {
    topic: String,
    queue: Option<u32>,
    to: String,
}

/// What may stand behind the `?` where dead letters are sent back or removed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LettersQuery {
    letters: Option<String>,
    #[serde(default)]
    all: bool,
}

/// What may stand behind the `?` of a deletion.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DeleteQuery {
    /// The incarnation that is meant; none: whichever is there.
    group_id: Option<u64>,
}

/// Does it, if the request may.
async fn carry_out<T: Serialize>(
    request: &HttpRequest,
    change: impl Future<Output = Result<T, ErrorReply>>,
) -> HttpResponse {
    if let Err(why) = is_meant(request) {
        return error(StatusCode::FORBIDDEN, why);
    }
    match change.await {
        Ok(done) => HttpResponse::Ok().json(done),
        Err(error) => refused(&error),
    }
}

/// Serves `POST /groups/{group}/reset`.
pub async fn reset(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<ResetQuery>,
) -> HttpResponse {
    carry_out(&request, move_group(&parts, &path, &query)).await
}

async fn move_group(
    parts: &HttpParts,
    name: &str,
    query: &ResetQuery,
) -> Result<ResetDone, ErrorReply> {
    let id = GroupId::of(parts.groups.letters_topic(&group_name(name)?)?.id);
    let topic = TopicName::parse_any(&query.topic).map_err(|wrong| invalid(wrong.to_string()))?;
    if topic.is_system() {
        return Err(invalid(format!("{topic}: groups read users' topics")));
    }
    let to = place_to(&query.to)?;
    let (here, elsewhere) = parts.groups.led_here(&topic)?;
    let (wanted, queues_elsewhere) = match query.queue {
        Some(queue) => (vec![QueueId(queue)], 0),
        None => (here, elsewhere),
    };
    let mut queues = Vec::with_capacity(wanted.len());
    let (mut stay, mut first) = (Vec::new(), None);
    for queue in wanted {
        let queue_id = queue.0;
        match parts.groups.reset(id, (&topic, queue), to).await {
            Ok(Moved { floor, round }) => {
                queues.push(MovedItem { queue_id, floor: floor.0, resets: round });
            }
            Err(error) => {
                stay.push(RefusedItem { queue_id, error: error.message.clone() });
                first.get_or_insert(error);
            }
        }
    }
    match first {
        Some(error) if queues.is_empty() => Err(error),
        _ => Ok(ResetDone { queues, refused: stay, queues_elsewhere }),
    }
}

/// `first`, `last`, `offset:N` or `time:MS`.
fn place_to(text: &str) -> Result<ResetTo, ErrorReply> {
    let number = |text: &str| text.parse::<u64>().ok();
    let to = match text.split_once(':') {
        None if text == "first" => Some(ResetTo::At(At::First)),
        None if text == "last" => Some(ResetTo::At(At::Last)),
        Some(("offset", at)) => number(at).map(|at| ResetTo::Offset(Offset(at))),
        Some(("time", at)) => number(at).map(|at| ResetTo::At(At::Time(TimestampMs(at)))),
        _ => None,
    };
    to.ok_or_else(|| invalid("to is first, last, offset:N or time:MS, milliseconds since 1970"))
}

/// Serves `POST /groups/{group}/delete`.
pub async fn delete(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<DeleteQuery>,
) -> HttpResponse {
    carry_out(&request, delete_group(&parts, &path, query.group_id)).await
}

async fn delete_group(
    parts: &HttpParts,
    name: &str,
    id: Option<u64>,
) -> Result<Deleted, ErrorReply> {
    let group = group_name(name)?;
    let group_id = id.map_or(GroupId::UNKNOWN, GroupId);
    let gone = parts.groups.delete(DeleteGroup { group, group_id }).await?;
    Ok(Deleted { group: name.to_owned(), group_id: gone.group_id.to_string() })
}

/// Serves `POST /groups/{group}/dead-letters/redrive`.
pub async fn redrive(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<LettersQuery>,
) -> HttpResponse {
    carry_out(&request, send_back(&parts, &path, &query)).await
}

async fn send_back(
    parts: &HttpParts,
    name: &str,
    query: &LettersQuery,
) -> Result<Redriven, ErrorReply> {
    let (meant, queues_elsewhere) = letters_meant(parts, &group_name(name)?, query)?;
    let (mut redriven, mut more, mut left) = (0, false, REDRIVEN_MAX);
    let mut refused = None;
    for (letters, offsets) in meant {
        if left == 0 {
            more = true;
            break;
        }
        let topic = |name: &_| parts.routes.borrow().get(name).map(|topic| topic.id);
        match letters.redrive(&offsets, left, topic).await {
            Ok(sent) => {
                redriven += sent.redriven;
                left = left.saturating_sub(usize::try_from(sent.redriven).unwrap_or(left));
                more |= sent.next.is_some();
            }
            Err(error) => refused = refused.or(Some(error)), // those of other queues go back
        }
    }
    match refused {
        Some(error) if redriven == 0 => Err(error),
        // What was refused is there still: said once more, it goes, or its error is told.
        refused => Ok(Redriven { redriven, more: more || refused.is_some(), queues_elsewhere }),
    }
}

/// Serves `POST /groups/{group}/dead-letters/purge`.
pub async fn purge(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<LettersQuery>,
) -> HttpResponse {
    carry_out(&request, remove(&parts, &path, &query)).await
}

async fn remove(parts: &HttpParts, name: &str, query: &LettersQuery) -> Result<Purged, ErrorReply> {
    let (meant, queues_elsewhere) = letters_meant(parts, &group_name(name)?, query)?;
    let (mut purged, mut refused) = (0, None);
    for (letters, offsets) in meant {
        match letters.purge(&offsets).await {
            Ok(some) => purged += some,
            Err(error) => refused = refused.or(Some(error)), // those of other queues go
        }
    }
    match refused {
        Some(error) if purged == 0 => Err(error),
        refused => Ok(Purged { purged, more: refused.is_some(), queues_elsewhere }),
    }
}

/// Queues of dead letters and which of each, none: all; and how many queues are led elsewhere.
type Meant = (Vec<(DeadLetters, Vec<OffsetRange>)>, usize);

fn letters_meant(
    parts: &HttpParts,
    group: &GroupName,
    query: &LettersQuery,
) -> Result<Meant, ErrorReply> {
    let topic = parts.groups.letters_topic(group)?;
    match (&query.letters, query.all) {
        (None, true) => {
            let queues = letters_here(&topic, QueueId(0));
            let elsewhere = topic.queues.len() - queues.len();
            Ok((queues.into_iter().map(|letters| (letters, Vec::new())).collect(), elsewhere))
        }
        (Some(named), false) => {
            let named = named_letters(named)?;
            let by_queue = named.chunk_by(|one, other| one.queue == other.queue);
            let meant = by_queue.map(|letters| {
                let queue = parts.groups.letters_of(group, letters[0].queue)?;
                Ok((queue, letters.iter().map(alone).collect()))
            });
            Ok((meant.collect::<Result<_, ErrorReply>>()?, 0))
        }
        _ => Err(invalid("either letters, as in 0/17,0/18, or all=true")),
    }
}

fn alone(place: &DeadLetterPlace) -> OffsetRange {
    OffsetRange { from: place.offset, to: Offset(place.offset.0.saturating_add(1)) }
}

/// `0/17,0/18`, in order, each once.
fn named_letters(text: &str) -> Result<Vec<DeadLetterPlace>, ErrorReply> {
    let letters: Option<Vec<_>> = text.split(',').map(letter_of).collect();
    let mut letters = letters.ok_or_else(|| invalid("letters are as in 0/17,0/18"))?;
    letters.sort_unstable();
    letters.dedup();
    if letters.len() > ACK_RANGES_MAX {
        return Err(invalid(format!("at most {ACK_RANGES_MAX} letters are named at once")));
    }
    Ok(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_nothing_else_is_one() {
        assert_eq!(place_to("first"), Ok(ResetTo::At(At::First)));
        assert_eq!(place_to("last"), Ok(ResetTo::At(At::Last)));
        assert_eq!(place_to("offset:7"), Ok(ResetTo::Offset(Offset(7))));
        assert_eq!(place_to("time:7"), Ok(ResetTo::At(At::Time(TimestampMs(7)))));
        for wrong in ["", "7", "first:", "offset:", "offset:-1", "time:now", "offset:7:8"] {
            assert!(place_to(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn letters_are_named_once_each_and_in_order() {
        let place =
            |queue, offset| DeadLetterPlace { queue: QueueId(queue), offset: Offset(offset) };
        assert_eq!(
            named_letters("1/3,0/17,1/3,0/2"),
            Ok(vec![place(0, 2), place(0, 17), place(1, 3)])
        );
        for wrong in ["", "0", "0/1,", "0/1;0/2", "a/1"] {
            assert!(named_letters(wrong).is_err(), "{wrong}");
        }
        let many: Vec<_> = (0..=ACK_RANGES_MAX).map(|at| format!("0/{at}")).collect();
        assert!(named_letters(&many.join(",")).is_err());
        assert!(named_letters(&many[1..].join(",")).is_ok());
    }
}
