//! Recurring messages: schedules that send a message again and again.

use crate::ids::{QueueId, TimestampMs, TopicId};
use crate::names::{ScheduleName, TopicName};
use crate::wire::wire_message;

/// Most schedules on one page, whatever is asked for.
pub const SCHEDULES_PAGE_MAX: u32 = 1_000;
/// Schedules on a page when it is not said how many are wanted.
pub const SCHEDULES_PAGE_DEFAULT: u32 = 100;
/// Most coming runs that are told of one schedule.
pub const SCHEDULE_RUNS_MAX: u32 = 100;
/// The longest message of a schedule, as a record batch, in bytes.
pub const SCHEDULE_BATCH_BYTES_MAX: u32 = 64 * 1024;
/// The time zone of a schedule that names none.
pub const ZONE_DEFAULT: &str = "UTC";

wire_message! {
    /// Makes a schedule. The frame's body is its message, as a record batch of one.
    pub struct CreateSchedule {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue that the messages come into.
        pub queue: QueueId,
        /// The schedule's name: unique in its queue.
        pub name: ScheduleName,
        /// When it runs, as a cron expression of five fields, or six with seconds; nil: every
        /// `every_ms`.
        pub cron: Option<String>,
        /// The time zone of the cron expression.
        pub zone: String = ZONE_DEFAULT.to_owned(),
        /// Milliseconds from run to run; 0 with a cron expression.
        pub every_ms: u64 = 0,
        /// Most runs that are made up for when they were missed: 0 none, 1 one for all of them.
        pub made_up_max: u32 = 1,
    }
}

wire_message! {
    /// The schedule is there.
    pub struct CreateScheduleReply {
        /// When it runs first.
        pub next: TimestampMs,
    }
}

wire_message! {
    /// A place in a listing of schedules.
    #[derive(PartialOrd, Ord)]
    pub struct SchedulePlace {
        /// The topic's incarnation.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The schedule's name.
        pub name: ScheduleName,
    }
}

wire_message! {
    /// Lists the schedules of the queues that the broker leads.
    pub struct ListSchedules {
        /// Of this topic; nil: of all.
        pub topic: Option<TopicName>,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId = TopicId::UNKNOWN,
        /// Behind this place; nil: from the start.
        pub after: Option<SchedulePlace> = None,
        /// Most of them on a page; 0: [`SCHEDULES_PAGE_DEFAULT`], at most
        /// [`SCHEDULES_PAGE_MAX`].
        pub schedules_max: u32 = 0,
        /// Coming runs wanted of each, at most [`SCHEDULE_RUNS_MAX`].
        pub runs_max: u32 = 1,
    }
}

wire_message! {
    /// A page of schedules.
    pub struct ListSchedulesReply {
        /// By topic id, queue and name.
        pub schedules: Vec<ScheduleState>,
        /// Behind which place the next page begins; nil: this was the last one.
        pub next: Option<SchedulePlace> = None,
    }
}

wire_message! {
    /// A schedule.
    pub struct ScheduleState {
        /// Its topic.
        pub topic: TopicName,
        /// The topic's incarnation.
        pub topic_id: TopicId,
        /// The queue that its messages come into.
        pub queue: QueueId,
        /// Its name.
        pub name: ScheduleName,
        /// Its cron expression; nil: it runs every `every_ms`.
        pub cron: Option<String>,
        /// The time zone of the cron expression.
        pub zone: String,
        /// Milliseconds from run to run; 0 with a cron expression.
        pub every_ms: u64,
        /// Most missed runs that are made up for.
        pub made_up_max: u32,
        /// Whether it rests.
        pub is_paused: bool,
        /// Messages that it has sent.
        pub runs: u64,
        /// Its coming runs, the next one first; none of one that rests, or will not run again.
        pub next: Vec<TimestampMs>,
    }
}

wire_message! {
    /// Has a schedule rest, or go on. Runs whose time comes while it rests are not missed: they
    /// are none.
    pub struct AlterSchedule {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The schedule.
        pub name: ScheduleName,
        /// Whether it rests from now on.
        pub is_paused: bool,
    }
}

wire_message! {
    /// It is done.
    pub struct AlterScheduleReply {
        /// When it runs next; nil: it rests, or will not run again.
        pub next: Option<TimestampMs>,
    }
}

wire_message! {
    /// Removes a schedule. Messages that it has sent stay.
    pub struct DeleteSchedule {
        /// The topic.
        pub topic: TopicName,
        /// The incarnation the client knows; 0: whichever is there.
        pub topic_id: TopicId,
        /// The queue.
        pub queue: QueueId,
        /// The schedule.
        pub name: ScheduleName,
    }
}

wire_message! {
    /// It is gone.
    pub struct DeleteScheduleReply {}
}
