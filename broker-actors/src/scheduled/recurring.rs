//! Schedules of recurring messages, for whoever asks: connections and HTTP.

use bytes::Bytes;
use futures_util::future::join_all;
use grus_mailbox::{Port, reply};
use grus_protocol::batch::{RecordAttributes, RecordBatch};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{ProducerId, QueueKey};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::{
    AlterSchedule, AlterScheduleReply, CreateSchedule, CreateScheduleReply, DeleteSchedule,
    DeleteScheduleReply, ListSchedules, ListSchedulesReply, SCHEDULE_BATCH_BYTES_MAX,
    SCHEDULE_RUNS_MAX, SCHEDULES_PAGE_DEFAULT, SCHEDULES_PAGE_MAX, SchedulePlace, ScheduleState,
    TopicKind,
};
use grus_protocol::names::TopicName;

use super::{Names, RETRY_AFTER_MS, Schedules};
use crate::commands::recurring::{ScheduleKey, ScheduleTerms};
use crate::error::QueueError;
use crate::machine::schedules::Schedule;
use crate::schedule::{Cadence, CadenceText, MADE_UP_MAX, NEVER};
use crate::shard::{ScheduleAsk, ShardHandle, ShardRequest};

/// Most coming runs that are worked out for one page: some tens of milliseconds.
const RUNS_PER_PAGE_MAX: usize = 2_000;
/// Runs worked out before others of this thread get their turn.
const RUNS_PER_TURN: usize = 32;

fn invalid(text: impl Into<String>) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

impl Schedules {
    /// Makes a schedule; `batch` is its message.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn create_schedule(
        &self,
        ask: CreateSchedule,
        batch: Bytes,
        limits: &BatchLimits,
    ) -> Result<CreateScheduleReply, ErrorReply> {
        let topic = self.topic(&ask.topic, ask.topic_id)?;
        let (shard, queue) = self.shard_of(&topic, ask.queue)?;
        let cadence = match (ask.cron, ask.every_ms) {
            (Some(expression), 0) => CadenceText::Cron { expression, zone: ask.zone },
            (None, every_ms) => CadenceText::Every(every_ms),
            (Some(_), _) => return Err(invalid("a schedule has `cron` or `every_ms`, not both")),
        };
        Cadence::read(&cadence).map_err(|error| invalid(error.to_string()))?;
        if ask.made_up_max > MADE_UP_MAX {
            return Err(invalid(format!("made_up_max is at most {MADE_UP_MAX}")));
        }
        let refused = match topic.settings.kind {
            TopicKind::DeadLetter => Some("a topic of dead letters takes none from schedules"),
            TopicKind::Temporary => Some("a temporary topic takes none from schedules"),
            TopicKind::Durable | TopicKind::Delay => None,
        };
        if let Some(text) = refused {
            return Err(ErrorReply::new(ErrorCode::RecordNotAllowed, text));
        }
        check_message(&batch, limits)?;
        let terms = ScheduleTerms { cadence, made_up_max: ask.made_up_max, batch };
        let key = ScheduleKey { queue, name: ask.name };
        let next = asked(&shard, |reply| ScheduleAsk::Create { key, terms, reply }).await?;
        Ok(CreateScheduleReply { next: next.unwrap_or(NEVER) })
    }

    /// Has a schedule rest, or go on.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn alter_schedule(
        &self,
        ask: AlterSchedule,
    ) -> Result<AlterScheduleReply, ErrorReply> {
        let topic = self.topic(&ask.topic, ask.topic_id)?;
        let (shard, queue) = self.shard_of(&topic, ask.queue)?;
        let key = ScheduleKey { queue, name: ask.name };
        let is_paused = ask.is_paused;
        let next = asked(&shard, |reply| ScheduleAsk::Pause { key, is_paused, reply }).await?;
        Ok(AlterScheduleReply { next })
    }

    /// Removes a schedule.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn delete_schedule(
        &self,
        ask: DeleteSchedule,
    ) -> Result<DeleteScheduleReply, ErrorReply> {
        let topic = self.topic(&ask.topic, ask.topic_id)?;
        let (shard, queue) = self.shard_of(&topic, ask.queue)?;
        let key = ScheduleKey { queue, name: ask.name };
        asked(&shard, |reply| ScheduleAsk::Delete { key, reply }).await?;
        Ok(DeleteScheduleReply {})
    }

    /// Lists a page of schedules.
    ///
    /// # Errors
    /// The error reply to send.
    pub async fn list_schedules(
        &self,
        ask: ListSchedules,
    ) -> Result<ListSchedulesReply, ErrorReply> {
        let most = match ask.schedules_max {
            0 => SCHEDULES_PAGE_DEFAULT,
            some => some.min(SCHEDULES_PAGE_MAX),
        } as usize;
        let topic = match &ask.topic {
            Some(name) => Some(self.topic(name, ask.topic_id)?.id),
            None => None,
        };
        let after = ask.after.map(|place| {
            let SchedulePlace { topic_id, queue, name } = place;
            ScheduleKey { queue: QueueKey { topic: topic_id, queue }, name }
        });
        let shards = self.shards.led();
        let pages = shards.iter().map(|shard| {
            let after = after.clone();
            asked(shard, move |reply| ScheduleAsk::List { topic, after, most: most + 1, reply })
        });
        let pages = join_all(pages).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut all: Vec<(ScheduleKey, Schedule)> = pages.into_iter().flatten().collect();
        all.sort_by(|(key, _), (other, _)| key.cmp(other));
        let runs_max = ask.runs_max.min(SCHEDULE_RUNS_MAX) as usize;
        let most = most.min(RUNS_PER_PAGE_MAX / runs_max.max(1));
        let is_cut = all.len() > most;
        all.truncate(most);
        let last = all.last().map(|(ScheduleKey { queue, name }, _)| SchedulePlace {
            topic_id: queue.topic,
            queue: queue.queue,
            name: name.clone(),
        });
        let names: Names = self.names();
        let (mut schedules, mut worked_out) = (Vec::new(), 0);
        for (key, schedule) in all {
            let Some(topic) = names.get(&key.queue.topic).cloned() else { continue }; // gone meanwhile
            schedules.push(state(key, schedule, topic, runs_max));
            worked_out += runs_max;
            if worked_out >= RUNS_PER_TURN {
                worked_out = 0;
                tokio::task::yield_now().await;
            }
        }
        Ok(ListSchedulesReply { schedules, next: if is_cut { last } else { None } })
    }
}

/// What may be sent again and again: one record, of a bounded size, that is seen at once and has
/// nothing of a single sending.
fn check_message(batch: &Bytes, limits: &BatchLimits) -> Result<(), ErrorReply> {
    let bytes_max = limits.batch_bytes_max.min(SCHEDULE_BATCH_BYTES_MAX);
    let limits = BatchLimits { batch_bytes_max: bytes_max, ..*limits };
    let batch = RecordBatch::check(batch.clone(), &limits).map_err(|error| error.to_reply())?;
    if batch.count() != 1 || batch.producer_id() != ProducerId(0) {
        return Err(invalid("a schedule's message is a batch of one record, of no producer"));
    }
    let once = [RecordAttributes::DELIVER_AT, RecordAttributes::DELAY, RecordAttributes::DEDUP_KEY];
    let refused = |record: &grus_protocol::batch::Record| {
        once.iter().any(|attribute| record.attributes().contains(*attribute))
    };
    if batch.records().flatten().any(|record| refused(&record)) {
        let text = "a schedule's message has no due time of its own, and no dedup key";
        return Err(ErrorReply::new(ErrorCode::RecordNotAllowed, text));
    }
    Ok(())
}

fn state(key: ScheduleKey, schedule: Schedule, topic: TopicName, runs_max: usize) -> ScheduleState {
    let due = schedule.due();
    let cadence = Cadence::read(&schedule.terms.cadence).ok();
    let next = match (due, cadence) {
        (NEVER, _) => Vec::new(),
        (due, Some(cadence)) => cadence.runs(due, runs_max),
        (due, None) => vec![due],
    };
    let (cron, zone, every_ms) = match schedule.terms.cadence {
        CadenceText::Cron { expression, zone } => (Some(expression), zone, 0),
        CadenceText::Every(every_ms) => (None, String::new(), every_ms),
    };
    ScheduleState {
        topic,
        topic_id: key.queue.topic,
        queue: key.queue.queue,
        name: key.name,
        cron,
        zone,
        every_ms,
        made_up_max: schedule.terms.made_up_max,
        is_paused: schedule.is_paused,
        runs: schedule.runs,
        next,
    }
}

type Answer<T> = Port<Result<T, QueueError>>;

/// Asks a shard.
async fn asked<T: Send + 'static>(
    shard: &ShardHandle,
    ask: impl FnOnce(Answer<T>) -> ScheduleAsk,
) -> Result<T, ErrorReply> {
    let (port, answer) = reply::port();
    if shard.inbox.try_put(ShardRequest::Schedule(ask(port))).is_err() {
        let busy = ErrorReply::new(ErrorCode::Overloaded, "no room now");
        return Err(busy.with_retry_after_ms(RETRY_AFTER_MS));
    }
    match answer.await {
        Ok(result) => result.map_err(|error| error.to_reply()),
        Err(_dropped) => Err(ErrorReply::new(ErrorCode::Unavailable, "shard is stopping")),
    }
}
