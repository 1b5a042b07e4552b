//! Recurring messages: schedules that the broker keeps and runs.

use std::fmt;
use std::time::Duration;

use grus_protocol::batch::BatchBuilder;
use grus_protocol::message::{
    AlterSchedule, CreateSchedule, DeleteSchedule, ListSchedules, SCHEDULES_PAGE_DEFAULT,
    SCHEDULES_PAGE_MAX, SchedulePlace, ScheduleState, ZONE_DEFAULT,
};
use grus_protocol::{
    BatchLimits, MessageId, QueueId, ScheduleName, TimestampMs, TopicId, TopicName,
};

use crate::client::{Client, random};
use crate::config::millis;
use crate::error::ClientError;
use crate::message::Message;
use crate::message_id::MessageIds;

/// Names a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScheduleId {
    /// The topic that its messages come into.
    pub topic: TopicName,
    /// The queue of the topic.
    pub queue: QueueId,
    /// Its name, unique in the queue.
    pub name: ScheduleName,
}

impl fmt::Display for ScheduleId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}/{}", self.topic, self.queue, self.name)
    }
}

/// When a schedule runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cadence {
    /// By a cron expression: five fields, or six with the second before them.
    Cron {
        /// The expression, as in `0 30 2 * * *`.
        expression: String,
        /// A name of the IANA database, as in `Europe/Berlin`.
        zone: String,
    },
    /// Again and again after this time: a second to ten years, in whole milliseconds.
    Every(Duration),
}

/// A schedule to be made.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// Its name.
    pub id: ScheduleId,
    /// When it runs.
    pub cadence: Cadence,
    /// Most runs that are made up for when they were missed, because nobody led the queue: 0 none,
    /// 1 one for all of them; at most 10,000.
    pub made_up_max: u32,
    /// What it sends. Each run has an id of its own, and is born when it was due.
    pub message: Message,
}

impl NewSchedule {
    /// A schedule that makes up for one run, when some were missed.
    pub const fn new(id: ScheduleId, cadence: Cadence, message: Message) -> Self {
        Self { id, cadence, made_up_max: 1, message }
    }
}

/// A page of schedules.
#[derive(Debug, Clone, Default)]
pub struct SchedulesPage {
    /// By topic id, queue and name.
    pub schedules: Vec<ScheduleState>,
    /// Behind which place the next page begins; `None`: this was the last one.
    pub next: Option<SchedulePlace>,
}

impl SchedulesPage {
    /// Puts the pages of several brokers together: as far as all of them have told, and at most
    /// `schedules_max`.
    fn of_all(pages: Vec<Self>, schedules_max: usize) -> Self {
        let told = pages.iter().filter_map(|page| page.next.clone()).min();
        let mut schedules: Vec<_> = pages.into_iter().flat_map(|page| page.schedules).collect();
        schedules.sort_by_key(place);
        if let Some(told) = &told {
            schedules.retain(|one| place(one) <= *told);
        }
        let is_cut = schedules.len() > schedules_max;
        schedules.truncate(schedules_max);
        let last = schedules.last().map(place);
        Self { next: if is_cut { last } else { told }, schedules }
    }
}

fn place(schedule: &ScheduleState) -> SchedulePlace {
    let ScheduleState { topic_id, queue, name, .. } = schedule;
    SchedulePlace { topic_id: *topic_id, queue: *queue, name: name.clone() }
}

impl Client {
    /// Makes a schedule; when it runs first. The broker keeps it and runs it from then on, whether
    /// or not this program is there. Each run is stored once.
    ///
    /// ```no_run
    /// # async fn example(client: grus_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use grus_client::{Cadence, Message, NewSchedule, QueueId, ScheduleId};
    ///
    /// let (topic, name) = ("jobs".try_into()?, "nightly".try_into()?);
    /// let id = ScheduleId { topic, queue: QueueId(0), name };
    /// let (expression, zone) = ("0 30 2 * * *".to_owned(), "Europe/Berlin".to_owned());
    /// let cadence = Cadence::Cron { expression, zone };
    /// let nightly = NewSchedule::new(id, cadence, Message::new("clean up"));
    /// println!("first at {}", client.create_schedule(nightly).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `ScheduleExists` (unless it is the same, message and all),
    /// `InvalidRequest` for a cadence that cannot be, `RecordNotAllowed` for a message with a due
    /// time or a dedup key, `UnknownTopic` or `UnknownQueue`; [`ClientError::Config`] for a message
    /// that is over the limits; [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn create_schedule(&self, schedule: NewSchedule) -> Result<TimestampMs, ClientError> {
        let NewSchedule { id, cadence, made_up_max, message } = schedule;
        let now = self.core.clock.now();
        let ids = MessageIds::new(random(), 0);
        let mut record = message.record;
        if record.id == MessageId::default() {
            record.id = ids.next(now);
        }
        record.born = now;
        let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
        builder.push(&record).map_err(|error| ClientError::Config {
            field: "message",
            problem: error.to_string(),
        })?;
        let body = builder.finish();
        let (cron, zone, every_ms) = match cadence {
            Cadence::Cron { expression, zone } => (Some(expression), zone, 0),
            Cadence::Every(every) => (None, ZONE_DEFAULT.to_owned(), millis(every)),
        };
        let (topic, queue) = (id.topic.clone(), id.queue);
        let create = |topic_id| CreateSchedule {
            topic: topic.clone(),
            topic_id,
            queue,
            name: id.name.clone(),
            cron: cron.clone(),
            zone: zone.clone(),
            every_ms,
            made_up_max,
        };
        let (reply, _) = self.ask_leader_with(&topic, queue, create, body).await?;
        Ok(reply.next)
    }

    /// Lists schedules, of a topic or all, behind `after`: at most `schedules_max` (0: 100, at most
    /// 1000), each with its next `runs_max` runs (at most 100). Asks each broker that leads a
    /// queue in question.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownTopic`; [`ClientError::Timeout`];
    /// [`ClientError::Closed`].
    pub async fn list_schedules(
        &self,
        topic: Option<&TopicName>,
        after: Option<SchedulePlace>,
        schedules_max: u32,
        runs_max: u32,
    ) -> Result<SchedulesPage, ClientError> {
        let schedules_max = match schedules_max {
            0 => SCHEDULES_PAGE_DEFAULT,
            some => some.min(SCHEDULES_PAGE_MAX),
        };
        let (topic_id, wanted) = (TopicId::UNKNOWN, topic.cloned());
        let request = ListSchedules { topic: wanted, topic_id, after, schedules_max, runs_max };
        let list = |broker| {
            let request = request.clone();
            async move {
                let (reply, _) = self.ask_with_body(Some(&broker), &request).await?;
                Ok(SchedulesPage { schedules: reply.schedules, next: reply.next })
            }
        };
        let pages = self.at_each_leader(topic, None, list).await?;
        Ok(SchedulesPage::of_all(pages, schedules_max as usize))
    }

    /// Has a schedule rest: it does not run until it goes on. Runs whose time comes meanwhile are
    /// none.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with `UnknownSchedule`, `UnknownTopic` or `UnknownQueue`;
    /// [`ClientError::Timeout`]; [`ClientError::Closed`].
    pub async fn pause_schedule(&self, id: &ScheduleId) -> Result<(), ClientError> {
        self.alter_schedule(id, true).await.map(|_next| ())
    }

    /// Has a schedule go on; when it runs next.
    ///
    /// # Errors
    /// As [`Client::pause_schedule`].
    pub async fn resume_schedule(
        &self,
        id: &ScheduleId,
    ) -> Result<Option<TimestampMs>, ClientError> {
        self.alter_schedule(id, false).await
    }

    async fn alter_schedule(
        &self,
        id: &ScheduleId,
        is_paused: bool,
    ) -> Result<Option<TimestampMs>, ClientError> {
        let ScheduleId { topic, queue, name } = id.clone();
        let alter = |topic_id| {
            let (topic, name) = (topic.clone(), name.clone());
            AlterSchedule { topic, topic_id, queue, name, is_paused }
        };
        let asked = self.ask_leader_with(&id.topic, queue, alter, bytes::Bytes::new()).await;
        asked.map(|(reply, _)| reply.next)
    }

    /// Removes a schedule; the messages that it has sent stay. When an answer was lost and it was
    /// asked again, `UnknownSchedule` may mean that the first question removed it.
    ///
    /// # Errors
    /// As [`Client::pause_schedule`].
    pub async fn delete_schedule(&self, id: &ScheduleId) -> Result<(), ClientError> {
        let ScheduleId { topic, queue, name } = id.clone();
        let delete = |topic_id| {
            let (topic, name) = (topic.clone(), name.clone());
            DeleteSchedule { topic, topic_id, queue, name }
        };
        let asked = self.ask_leader_with(&id.topic, queue, delete, bytes::Bytes::new()).await;
        asked.map(|_gone| ())
    }
}
