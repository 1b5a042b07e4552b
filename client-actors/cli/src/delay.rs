//! `grus delay`: lists, shows and takes back what is scheduled.

use clap::{Args, Subcommand};
use grus_client::{Client, RecallHandle, ScheduledFilter, ScheduledMessage};
use grus_protocol::ids::{QueueId, TimestampMs};
use grus_protocol::names::TopicName;
use serde_json::{Map, Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::message::push_json;
use crate::message_text::{record_json, record_lines};
use crate::output::Output;
use crate::{session, units};

/// Messages on a page.
const PAGE_MESSAGES: u32 = 1_000;

/// `grus delay`
#[derive(Debug, Subcommand)]
pub enum DelayCommand {
    /// List what is scheduled, the earliest first
    List(ListArgs),
    /// Show all of a scheduled message
    Show {
        /// Its handle, as its receipt or the list has it: TOPIC/QUEUE/INDEX.PLACE
        handle: RecallHandle,
    },
    /// Take scheduled messages back: nobody will be given them
    Recall {
        /// Their handles, as receipts or the list have them: TOPIC/QUEUE/INDEX.PLACE
        #[arg(required = true)]
        handles: Vec<RecallHandle>,
    },
}

/// `grus delay list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Topic [default: all]
    pub topic: Option<String>,
    /// Queue within the topic
    #[arg(long, value_name = "N", requires = "topic")]
    pub queue: Option<u32>,
    /// Due at this time or later, RFC3339
    #[arg(long, value_name = "TIME", value_parser = units::time_ms)]
    pub from: Option<u64>,
    /// Due before this time, RFC3339
    #[arg(long, value_name = "TIME", value_parser = units::time_ms)]
    pub until: Option<u64>,
    /// One of the messages' keys
    #[arg(long)]
    pub key: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub max: u64,
    /// How many there are, instead of which
    #[arg(long, conflicts_with_all = ["max", "bodies"])]
    pub count: bool,
    /// What they carry, too: their ids, keys, tags and bodies
    #[arg(long)]
    pub bodies: bool,
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, why the broker refused, or what is not scheduled.
pub async fn run(common: &Common, command: &DelayCommand) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let mut output = Output::standard();
    match command {
        DelayCommand::List(args) => list(&client, common, args, &mut output).await?,
        DelayCommand::Show { handle } => {
            let shown = client.show_scheduled(handle).await;
            let message = shown.map_err(|error| Failure::because(handle, error))?;
            let message = message.ok_or_else(|| Failure::because(handle, NOT_SCHEDULED))?;
            tell(common, &message, true, &mut output)?;
        }
        DelayCommand::Recall { handles } => recall(&client, common, handles, &mut output).await?,
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

const NOT_SCHEDULED: &str = "not scheduled: it was released or recalled before, or never was";

async fn list(
    client: &Client,
    common: &Common,
    args: &ListArgs,
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    let what = args.topic.clone().unwrap_or_else(|| "what is scheduled".to_owned());
    let filter = filter(args)?;
    if args.count {
        let count = client.count_scheduled(&filter).await;
        let count = count.map_err(|error| Failure::because(&what, error))?;
        if common.json {
            return output.add(|out| push_json(&json!({ "scheduled": count }), out));
        }
        return output.line(&units::grouped(count));
    }
    let (mut left, mut after) = (args.max, None);
    while left > 0 {
        let page_max = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_MESSAGES);
        let page = client.list_scheduled(&filter, after, page_max, args.bodies).await;
        let page = page.map_err(|error| Failure::because(&what, error))?;
        for message in &page.messages {
            tell(common, message, args.bodies, output)?;
        }
        left -= left.min(page.messages.len() as u64);
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
    tracing::warn!("there are more: --max shows more, --count says how many");
    Ok(())
}

fn filter(args: &ListArgs) -> Result<ScheduledFilter, Failure> {
    let name = |name: &String| {
        TopicName::try_from(name.as_str()).map_err(|error| Failure::because(name, error))
    };
    let all = ScheduledFilter::default();
    Ok(ScheduledFilter {
        topic: args.topic.as_ref().map(name).transpose()?,
        queue: args.queue.map(QueueId),
        from: args.from.map_or(all.from, TimestampMs),
        until: args.until.map_or(all.until, TimestampMs),
        key: args.key.clone().map(Into::into),
    })
}

/// A line for a message, or all of it.
fn tell(
    common: &Common,
    message: &ScheduledMessage,
    whole: bool,
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    if common.json {
        return output.add(|out| push_json(&to_json(message), out));
    }
    let due = units::rfc3339(message.due.0);
    if !whole {
        return output.line(&format!("{due}  {}", message.handle));
    }
    output.line(&format!("{:<9} {}", "handle", message.handle))?;
    output.line(&format!("{:<9} {due}", "due"))?;
    match &message.record {
        Some(record) => record_lines(record).iter().try_for_each(|line| output.line(line)),
        None => output.line("its bytes cannot be read now"),
    }
}

fn to_json(message: &ScheduledMessage) -> Value {
    let mut object = Map::new();
    object.insert("handle".to_owned(), message.handle.to_string().into());
    object.insert("topic".to_owned(), message.handle.topic.as_str().into());
    object.insert("topic_id".to_owned(), message.topic_id.0.into());
    object.insert("queue".to_owned(), message.handle.queue.0.into());
    object.insert("due".to_owned(), units::rfc3339(message.due.0).into());
    if let Some(record) = &message.record {
        object.extend(record_json(record));
    }
    Value::Object(object)
}

async fn recall(
    client: &Client,
    common: &Common,
    handles: &[RecallHandle],
    output: &mut Output<std::io::Stdout>,
) -> Result<(), Failure> {
    let answers = client.recall_all(handles).await;
    let answers = answers.map_err(|error| Failure::because("recall", error))?;
    let mut late = Vec::new();
    for (handle, recalled) in handles.iter().zip(answers) {
        if common.json {
            let object = json!({ "handle": handle.to_string(), "recalled": recalled });
            output.add(|out| push_json(&object, out))?;
        } else if recalled {
            output.line(&format!("{handle} is recalled"))?;
        }
        if !recalled {
            late.push(handle.to_string());
        }
    }
    output.flush()?;
    if late.is_empty() {
        return Ok(());
    }
    Err(Failure::because(late.join(", "), NOT_SCHEDULED))
}
