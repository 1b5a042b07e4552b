//! `grus message show`: finds messages and prints all of them.

use grus_client::{FindBy, FoundMessages};
use grus_protocol::ids::{Offset, QueueId, TimestampMs, TopicId};
use grus_protocol::names::TopicName;

use crate::args::{Common, ShowArgs};
use crate::failure::Failure;
use crate::message::push_json;
use crate::message_text::{to_json, to_lines};
use crate::output::Output;
use crate::session;

/// Runs the command.
///
/// # Errors
/// Told: no broker, why the broker refused, or that there is no such message.
pub async fn run(common: &Common, args: &ShowArgs) -> Result<(), Failure> {
    session::show_warnings();
    let (by, what) = wanted(args)?;
    let client = session::connect(common, Some(common.timeout())).await?;
    let max = args.max.unwrap_or(u32::from(args.time.is_some()));
    let found = client.find_messages(by, max).await;
    let found = found.map_err(|error| Failure::because(&what, error))?;
    let mut output = Output::standard();
    for (nth, message) in found.messages.iter().enumerate() {
        if common.json {
            output.add(|out| push_json(&to_json(message), out))?;
            continue;
        }
        if nth > 0 {
            output.line("")?;
        }
        for line in to_lines(message) {
            output.line(&line)?;
        }
    }
    output.flush()?;
    client.close().await;
    judge(&found, &what)
}

/// What is looked for, and what it is called in a failure.
fn wanted(args: &ShowArgs) -> Result<(FindBy, String), Failure> {
    if let Some(id) = args.id {
        return Ok((FindBy::Id(id), id.to_string()));
    }
    let name = args.topic.clone().unwrap_or_default();
    let topic = TopicName::try_from(name.as_str());
    let topic = topic.map_err(|error| Failure::because(&name, error))?;
    let (topic_id, queue) = (TopicId::UNKNOWN, args.queue.map(QueueId));
    Ok(match (&args.key, args.offset, args.time, queue) {
        (Some(key), ..) => {
            let what = format!("key {key} in {topic}");
            (FindBy::Key { topic, topic_id, key: key.clone().into_bytes() }, what)
        }
        (None, Some(offset), _, Some(queue)) => {
            let what = format!("offset {offset} of queue {queue} of {topic}");
            (FindBy::Offset { topic, topic_id, queue, offset: Offset(offset) }, what)
        }
        (None, _, time, queue) => {
            let what = format!("{topic} at that time or later");
            let time = TimestampMs(time.unwrap_or_default());
            (FindBy::Time { topic, topic_id, time, queue }, what)
        }
    })
}

/// Whether that was an answer.
fn judge(found: &FoundMessages, what: &str) -> Result<(), Failure> {
    let unsearched = found.unsearched_bytes;
    if found.messages.is_empty() {
        let rest = match (found.queues_absent, unsearched) {
            (0, 0) => String::new(),
            (0, bytes) => format!(" in what was searched; {bytes} bytes could not be"),
            (queues, _) => {
                format!(" on the brokers that are there; {queues} queues have none now")
            }
        };
        return Err(Failure::because(what, format!("no such message{rest}")));
    }
    if unsearched > 0 {
        tracing::warn!("{unsearched} bytes could not be searched: there may be more messages");
    }
    for (broker, why) in &found.unasked {
        tracing::warn!("broker {broker} could not be asked, and may have more: {why}");
    }
    if found.more {
        tracing::warn!("there may be older messages: --max shows more");
    }
    Ok(())
}
