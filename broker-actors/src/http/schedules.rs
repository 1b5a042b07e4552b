//! `GET /schedules`: the schedules of recurring messages, and when each runs next.

use actix_web::{HttpResponse, web};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{QueueId, TopicId};
use grus_protocol::message::{
    ListSchedules, SCHEDULE_RUNS_MAX, SCHEDULES_PAGE_MAX, SchedulePlace, ScheduleState,
};
use grus_protocol::names::{ScheduleName, TopicName};
use serde::{Deserialize, Serialize};

use super::{HttpParts, refused};
use crate::scheduled::Schedules;

/// Schedules of an answer when nothing was said.
const SCHEDULES_DEFAULT: u32 = 100;
/// Coming runs of each when nothing was said.
const RUNS_DEFAULT: u32 = 3;

/// What may stand behind the `?`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulesQuery {
    topic: Option<String>,
    after: Option<String>,
    max: Option<u32>,
    runs: Option<u32>,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    schedules: Vec<Item>,
    /// To go on from.
    next: Option<String>,
}

/// One schedule.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    topic: String,
    topic_id: String,
    queue_id: u32,
    name: String,
    /// `null`: it runs every so often.
    cron: Option<String>,
    zone: Option<String>,
    /// `null`: it runs by a cron expression.
    every_ms: Option<u64>,
    made_up_max: u32,
    paused: bool,
    runs: u64,
    next: Vec<u64>,
}

/// Serves `GET /schedules`.
pub async fn schedules(
    parts: web::Data<HttpParts>,
    query: web::Query<SchedulesQuery>,
) -> HttpResponse {
    match look(&parts, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

async fn look(parts: &HttpParts, query: &SchedulesQuery) -> Result<Page, ErrorReply> {
    let ask = wanted(query)?;
    let schedules = Schedules { routes: parts.routes.clone(), shards: parts.shards.clone() };
    let listed = schedules.list_schedules(ask).await?;
    let schedules = listed.schedules.into_iter().map(item).collect();
    Ok(Page { schedules, next: listed.next.as_ref().map(place_text) })
}

fn item(state: ScheduleState) -> Item {
    let has_cron = state.cron.is_some();
    Item {
        topic: state.topic.to_string(),
        topic_id: state.topic_id.to_string(),
        queue_id: state.queue.0,
        name: state.name.to_string(),
        cron: state.cron,
        zone: has_cron.then_some(state.zone),
        every_ms: (!has_cron).then_some(state.every_ms),
        made_up_max: state.made_up_max,
        paused: state.is_paused,
        runs: state.runs,
        next: state.next.into_iter().map(|time| time.0).collect(),
    }
}

fn wanted(query: &SchedulesQuery) -> Result<ListSchedules, ErrorReply> {
    let invalid = |text: String| ErrorReply::new(ErrorCode::InvalidRequest, text);
    let schedules_max = query.max.unwrap_or(SCHEDULES_DEFAULT);
    if schedules_max == 0 || schedules_max > SCHEDULES_PAGE_MAX {
        return Err(invalid(format!("max is a number from 1 to {SCHEDULES_PAGE_MAX}")));
    }
    let runs_max = query.runs.unwrap_or(RUNS_DEFAULT);
    if runs_max > SCHEDULE_RUNS_MAX {
        return Err(invalid(format!("runs is a number from 0 to {SCHEDULE_RUNS_MAX}")));
    }
    let topic = |name: &String| TopicName::parse_any(name).map_err(|e| invalid(e.to_string()));
    let after =
        |text: &String| place_of(text).ok_or_else(|| invalid("after is what next said".into()));
    Ok(ListSchedules {
        topic: query.topic.as_ref().map(topic).transpose()?,
        topic_id: TopicId::UNKNOWN,
        after: query.after.as_ref().map(after).transpose()?,
        schedules_max,
        runs_max,
    })
}

fn place_text(place: &SchedulePlace) -> String {
    format!("{}.{}.{}", place.topic_id, place.queue, place.name)
}

fn place_of(text: &str) -> Option<SchedulePlace> {
    let mut parts = text.splitn(3, '.'); // a name may have dots
    let topic_id = TopicId(parts.next()?.parse().ok()?);
    let queue = QueueId(parts.next()?.parse().ok()?);
    Some(SchedulePlace { topic_id, queue, name: ScheduleName::try_from(parts.next()?).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back_from_its_text() {
        let name = ScheduleName::try_from("every.night-1").unwrap();
        let place = SchedulePlace { topic_id: TopicId(u64::MAX), queue: QueueId(7), name };
        assert_eq!(place_of(&place_text(&place)), Some(place));
        for wrong in ["", "1", "1.2", "1.2.", "x.2.a", "1.-2.a"] {
            assert_eq!(place_of(wrong), None, "{wrong}");
        }
    }
}
