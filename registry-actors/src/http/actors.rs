//! `GET /actors`: every kind of actor, and the actors page by page.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use grus_mailbox::{ActorReport, Census, KindReport};
use serde::{Deserialize, Serialize};

use super::error;

/// Most items of one answer of a listing, and how many it has when nothing was said.
pub const ITEMS_MAX: usize = 10_000;

/// What may stand behind the `?`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActorsQuery {
    /// Actors that started behind the one with this number.
    after: Option<u64>,
    /// Most of them.
    max: Option<usize>,
}

/// `GET /actors`
#[derive(Debug, Clone, Serialize)]
pub struct Actors {
    /// All of a kind together.
    pub kinds: Vec<KindReport>,
    /// Each one, in the order in which they started.
    pub actors: Vec<ActorReport>,
    /// The number to go on behind; nothing when there are no more.
    pub next: Option<u64>,
}

/// How many items are wanted.
///
/// # Errors
/// What is wrong with a number that cannot be.
pub fn items_wanted(max: Option<usize>) -> Result<usize, String> {
    let count = max.unwrap_or(ITEMS_MAX);
    if (1..=ITEMS_MAX).contains(&count) {
        return Ok(count);
    }
    Err(format!("max is a number from 1 to {ITEMS_MAX}"))
}

/// Serves `GET /actors` of the process whose census is application data.
pub async fn actors(census: web::Data<Census>, query: web::Query<ActorsQuery>) -> HttpResponse {
    let count = match items_wanted(query.max) {
        Ok(count) => count,
        Err(wrong) => return error(StatusCode::BAD_REQUEST, wrong),
    };
    let (actors, next) = census.page(query.after, count);
    HttpResponse::Ok().json(Actors { kinds: census.totals(), actors, next })
}
