//! `grus schedule`: makes, lists, pauses, resumes and deletes schedules of recurring messages.

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use grus_client::{Cadence, Client, Message, NewSchedule, ScheduleId, ScheduleState};
use grus_protocol::ids::QueueId;
use grus_protocol::names::{ScheduleName, TopicName};
use serde_json::{Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::message::push_json;
use crate::output::Output;
use crate::{session, units};

/// Schedules on a page.
const PAGE_SCHEDULES: u32 = 1_000;
/// Most missed runs that `--missed all` makes up for.
const ALL: u32 = 10_000;

/// `grus schedule`
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Send a message again and again: by a cron expression, or every so often
    Create(CreateArgs),
    /// List schedules, and when they run next
    List {
        /// Topic [default: all]
        topic: Option<TopicName>,
        /// Coming runs to show of each
        #[arg(long, value_name = "N", default_value_t = 1)]
        runs: u32,
    },
    /// Have a schedule rest: it does not run until it is resumed
    Pause(Which),
    /// Have a schedule go on
    Resume(Which),
    /// Remove a schedule; the messages that it has sent stay
    Delete(Which),
}

/// Names a schedule.
#[derive(Debug, Clone, Args)]
pub struct Which {
    /// Topic that its messages come into
    pub topic: TopicName,
    /// Its name, unique in its queue
    pub name: ScheduleName,
    /// Queue of the topic
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub queue: u32,
}

impl Which {
    fn id(&self) -> ScheduleId {
        let Self { topic, name, queue } = self.clone();
        ScheduleId { topic, queue: QueueId(queue), name }
    }
}

/// `grus schedule create`
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("cadence").required(true).args(["cron", "every"])))]
pub struct CreateArgs {
    /// Which it is to be.
    #[command(flatten)]
    pub which: Which,
    /// When it runs: minute, hour, day of month, month, day of week; a second may stand before them
    #[arg(long, value_name = "EXPRESSION")]
    pub cron: Option<String>,
    /// Time zone of the cron expression, as in Europe/Berlin
    #[arg(long, value_name = "NAME", conflicts_with = "every", default_value = "UTC")]
    pub zone: String,
    /// It runs again and again after this time: 1s and more
    #[arg(long, value_parser = units::duration, value_name = "TIME")]
    pub every: Option<Duration>,
    /// Runs that were missed (by more than 10 s, as no broker was there) to make up for: none, one
    /// for all of them, all, or all:N for the first N
    #[arg(long, value_parser = missed, value_name = "HOW", default_value = "one")]
    pub missed: u32,
    /// What the message says
    #[arg(long)]
    pub body: String,
    /// A key of the message; may be given more than once
    #[arg(long)]
    pub key: Vec<String>,
    /// The message's tag
    #[arg(long)]
    pub tag: Option<String>,
}

fn missed(text: &str) -> Result<u32, String> {
    match (text, text.strip_prefix("all:")) {
        ("none", _) => Ok(0),
        ("one", _) => Ok(1),
        ("all", _) => Ok(ALL),
        (_, Some(number)) => match number.parse() {
            Ok(number @ 0..=ALL) => Ok(number),
            _ => Err(format!("a number up to {ALL} is wanted behind `all:`")),
        },
        _ => Err("`none`, `one`, `all` or `all:N` is wanted".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, or why the broker refused.
pub async fn run(common: &Common, command: &ScheduleCommand) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let mut output = Output::standard();
    match command {
        ScheduleCommand::Create(args) => create(&client, common, args, &mut output).await?,
        ScheduleCommand::List { topic, runs } => {
            list(&client, common, topic.as_ref(), *runs, &mut output).await?;
        }
        ScheduleCommand::Pause(which) => {
            let id = which.id();
            let paused = client.pause_schedule(&id).await;
            paused.map_err(|error| Failure::because(&id, error))?;
            done(common, &id, "is paused", None, &mut output)?;
        }
        ScheduleCommand::Resume(which) => {
            let id = which.id();
            let next = client.resume_schedule(&id).await;
            let next = next.map_err(|error| Failure::because(&id, error))?;
            let next = next.map(|next| units::rfc3339(next.0));
            done(common, &id, "is resumed", next, &mut output)?;
        }
        ScheduleCommand::Delete(which) => {
            let id = which.id();
            let gone = client.delete_schedule(&id).await;
            gone.map_err(|error| Failure::because(&id, error))?;
            done(common, &id, "is deleted", None, &mut output)?;
        }
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

async fn create(
    client: &Client,
    common: &Common,
    args: &CreateArgs,
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    let id = args.which.id();
    let cadence = match (&args.cron, args.every) {
        (Some(expression), _) => {
            Cadence::Cron { expression: expression.clone(), zone: args.zone.clone() }
        }
        (None, every) => Cadence::Every(every.unwrap_or_default()),
    };
    let mut message = Message::new(args.body.clone());
    for key in &args.key {
        message = message.key(key.clone());
    }
    if let Some(tag) = &args.tag {
        message = message.tag(tag.clone());
    }
    let made_up_max = args.missed;
    let new = NewSchedule { made_up_max, ..NewSchedule::new(id.clone(), cadence, message) };
    let next = client.create_schedule(new).await;
    let next = next.map_err(|error| Failure::because(&id, error))?;
    done(common, &id, "is made", Some(units::rfc3339(next.0)), output)
}

fn done(
    common: &Common,
    id: &ScheduleId,
    what: &str,
    next: Option<String>,
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    if common.json {
        let object = json!({
            "topic": id.topic.as_str(),
            "queue": id.queue.0,
            "name": id.name.as_str(),
            "next": next,
        });
        return output.add(|out| push_json(&object, out));
    }
    let next = next.map(|next| format!(", and runs next at {next}")).unwrap_or_default();
    output.line(&format!("{id} {what}{next}"))
}

async fn list(
    client: &Client,
    common: &Common,
    topic: Option<&TopicName>,
    runs_max: u32,
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    let what = topic.map_or("schedules", TopicName::as_str);
    let mut after = None;
    loop {
        let page = client.list_schedules(topic, after, PAGE_SCHEDULES, runs_max).await;
        let page = page.map_err(|error| Failure::because(what, error))?;
        for schedule in &page.schedules {
            if common.json {
                output.add(|out| push_json(&to_json(schedule), out))?;
            } else {
                output.line(&line(schedule))?;
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

fn cadence(schedule: &ScheduleState) -> String {
    match &schedule.cron {
        Some(cron) => format!("{cron} {}", schedule.zone),
        None => format!("every {:?}", Duration::from_millis(schedule.every_ms)),
    }
}

fn line(schedule: &ScheduleState) -> String {
    let ScheduleState { topic, queue, name, runs, .. } = schedule;
    let next: Vec<_> = schedule.next.iter().map(|next| units::rfc3339(next.0)).collect();
    let next = match (schedule.is_paused, next.is_empty()) {
        (true, _) => "paused".to_owned(),
        (false, true) => "-".to_owned(),
        (false, false) => next.join(" "),
    };
    format!("{topic}/{queue}/{name}  {}  {runs} sent  {next}", cadence(schedule))
}

fn to_json(schedule: &ScheduleState) -> Value {
    let next: Vec<_> = schedule.next.iter().map(|next| units::rfc3339(next.0)).collect();
    json!({
        "topic": schedule.topic.as_str(),
        "topic_id": schedule.topic_id.0,
        "queue": schedule.queue.0,
        "name": schedule.name.as_str(),
        "cron": schedule.cron,
        "zone": schedule.zone,
        "every_ms": schedule.every_ms,
        "made_up_max": schedule.made_up_max,
        "paused": schedule.is_paused,
        "runs": schedule.runs,
        "next": next,
    })
}
