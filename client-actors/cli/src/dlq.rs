//! `grus dlq`: lists, shows, sends back, exports and removes dead letters of a group.

use clap::{Args, Subcommand};
use grus_client::{Client, DeadLetterMessage, DeadLettersPage, GroupName};
use grus_protocol::ids::{Offset, QueueId};
use grus_protocol::message::OffsetRange;
use serde_json::{Map, Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::group::warn_of;
use crate::message::push_json;
use crate::message_text::{record_json, record_lines};
use crate::output::Output;
use crate::{session, units};

type Out = Output<std::io::Stdout>;

/// Dead letters on a page.
const PAGE_LETTERS: u32 = 1_000;

/// `grus dlq`
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List a group's dead letters, a line each
    List(ListArgs),
    /// Show all of a dead letter
    Show {
        /// Name of the group
        group: GroupName,
        /// Which, as `list` names it: QUEUE/OFFSET
        #[arg(value_parser = letter)]
        letter: Letter,
    },
    /// Send dead letters back to where they came from, each once
    Redrive(WhichArgs),
    /// Write all of a group's dead letters as JSON, one a line
    Export {
        /// Name of the group
        group: GroupName,
    },
    /// Remove dead letters
    Purge(WhichArgs),
}

/// `grus dlq list`
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Name of the group
    pub group: GroupName,
    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub max: u64,
}

/// Some of a group's dead letters, or all of them.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["letters", "all"])))]
pub struct WhichArgs {
    /// Name of the group
    pub group: GroupName,
    /// Which, as `list` names them: QUEUE/OFFSET
    #[arg(value_parser = letter)]
    pub letters: Vec<Letter>,
    /// All that are there
    #[arg(long)]
    pub all: bool,
}

/// Names a dead letter of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter {
    /// Queue of the dead-letter topic.
    pub queue: u32,
    /// Offset there.
    pub offset: u64,
}

fn letter(text: &str) -> Result<Letter, String> {
    let parts = text.split_once('/').and_then(|(queue, offset)| {
        Some(Letter { queue: queue.parse().ok()?, offset: offset.parse().ok()? })
    });
    parts.ok_or_else(|| format!("`{text}` is not QUEUE/OFFSET"))
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, no such group, or why the broker refused.
pub async fn run(common: &Common, command: &DlqCommand) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let mut output = Output::standard();
    match command {
        DlqCommand::List(args) => list(&client, common, args, &mut output).await?,
        DlqCommand::Show { group, letter } => {
            show(&client, common, group, *letter, &mut output).await?;
        }
        DlqCommand::Export { group } => export(&client, group, &mut output).await?,
        DlqCommand::Redrive(args) => {
            let mut count = 0;
            for (queue, offsets) in which(&client, args).await? {
                let redriven = client.redrive_dead_letters(&args.group, queue, &offsets).await;
                count += redriven.map_err(|error| Failure::because(&args.group, error))?;
            }
            done(common, "redriven", "sent back", count, &mut output)?;
        }
        DlqCommand::Purge(args) => {
            let mut count = 0;
            for (queue, offsets) in which(&client, args).await? {
                let purged = client.purge_dead_letters(&args.group, queue, &offsets).await;
                count += purged.map_err(|error| Failure::because(&args.group, error))?;
            }
            done(common, "purged", "removed", count, &mut output)?;
        }
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

fn done(
    common: &Common,
    field: &str,
    what: &str,
    count: u64,
    output: &mut Out,
) -> Result<(), Failure> {
    if common.json {
        return output.add(|out| push_json(&json!({ field: count }), out));
    }
    output.line(&format!("{} {what}", units::grouped(count)))
}

/// The letters that are meant, queue by queue; no offsets: all of the queue.
async fn which(
    client: &Client,
    args: &WhichArgs,
) -> Result<Vec<(QueueId, Vec<OffsetRange>)>, Failure> {
    if args.all {
        let queues = client.dead_letter_queues(&args.group).await;
        let queues = queues.map_err(|error| Failure::because(&args.group, error))?;
        return Ok(queues.into_iter().map(|queue| (queue, Vec::new())).collect());
    }
    let mut letters: Vec<_> = args.letters.iter().map(|one| (one.queue, one.offset)).collect();
    letters.sort_unstable();
    letters.dedup();
    let of = |all: &[(u32, u64)]| -> Vec<_> {
        all.iter().map(|(_, offset)| OffsetRange::one(Offset(*offset))).collect()
    };
    let chunks = letters.chunk_by(|one, other| one.0 == other.0);
    Ok(chunks.map(|all| (QueueId(all[0].0), of(all))).collect())
}

/// What telling the letters has shown besides them.
#[derive(Default)]
struct Seen {
    /// There are more.
    more: bool,
    /// Brokers that could not be asked, or queues that nobody leads, may have more.
    is_partial: bool,
}

/// Has each dead letter told, until it is enough or there are no more. What cannot be asked is named
/// once.
async fn each(
    client: &Client,
    group: &GroupName,
    (most, with_bodies): (u64, bool),
    mut tell: impl FnMut(&DeadLetterMessage) -> Result<(), Failure>,
) -> Result<Seen, Failure> {
    let (mut left, mut after, mut seen) = (most, None, Seen::default());
    while left > 0 {
        let page_max = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_LETTERS);
        let page = client.list_dead_letters(group, after, page_max, with_bodies).await;
        let page = page.map_err(|error| Failure::because(group, error))?;
        seen.is_partial |= warn_of_missing(&page, seen.is_partial);
        page.letters.iter().try_for_each(&mut tell)?;
        left -= left.min(page.letters.len() as u64);
        after = page.next;
        if after.is_none() {
            return Ok(seen);
        }
    }
    Ok(Seen { more: true, ..seen })
}

/// Whether a page lacks letters that may be there; said, unless that was before.
fn warn_of_missing(page: &DeadLettersPage, was_said: bool) -> bool {
    if !was_said {
        warn_of(&page.unasked);
        for queue in &page.unled {
            tracing::warn!(
                "queue {queue} of the dead letters has no leader now, and may have more"
            );
        }
    }
    !page.unasked.is_empty() || !page.unled.is_empty()
}

async fn list(
    client: &Client,
    common: &Common,
    args: &ListArgs,
    output: &mut Out,
) -> Result<(), Failure> {
    let more = each(client, &args.group, (args.max, false), |message| {
        if common.json {
            return output.add(|out| push_json(&to_json(message), out));
        }
        output.line(&line(message))
    });
    if more.await?.more {
        tracing::warn!("there are more: --max shows more");
    }
    Ok(())
}

async fn export(client: &Client, group: &GroupName, output: &mut Out) -> Result<(), Failure> {
    let tell = |message: &DeadLetterMessage| output.add(|out| push_json(&to_json(message), out));
    let seen = each(client, group, (u64::MAX, true), tell).await?;
    if seen.is_partial {
        output.flush()?;
        return Err(Failure::because(
            group,
            "not all dead letters could be had: some may be missing",
        ));
    }
    Ok(())
}

async fn show(
    client: &Client,
    common: &Common,
    group: &GroupName,
    letter: Letter,
    output: &mut Out,
) -> Result<(), Failure> {
    let (queue, offset) = (QueueId(letter.queue), Offset(letter.offset));
    // Behind the place before it: that of the queue before, when it is the first of its own.
    let before = match (letter.queue, letter.offset.checked_sub(1)) {
        (queue, Some(offset)) => Some((queue, offset)),
        (0, None) => None,
        (queue, None) => Some((queue - 1, u64::MAX)),
    };
    let place = |(queue, offset): (u32, u64)| grus_protocol::message::DeadLetterPlace {
        queue: QueueId(queue),
        offset: Offset(offset),
    };
    let (mut after, mut is_partial) = (before.map(place), false);
    let found = loop {
        let page = client.list_dead_letters(group, after, 1, true).await;
        let page = page.map_err(|error| Failure::because(group, error))?;
        is_partial |= warn_of_missing(&page, is_partial);
        match page.letters.into_iter().next() {
            Some(one) => break Some(one),
            None if page.next.is_none() => break None,
            None => after = page.next,
        }
    };
    let is_it = |one: &DeadLetterMessage| one.letter.queue == queue && one.letter.offset == offset;
    let Some(message) = found.filter(is_it) else {
        let name = format!("{group} {}/{}", letter.queue, letter.offset);
        let why = if is_partial {
            "not found: whoever may have it cannot be asked now"
        } else {
            "there is no such dead letter: sent back, or removed"
        };
        return Err(Failure::because(name, why));
    };
    if common.json {
        return output.add(|out| push_json(&to_json(&message), out));
    }
    output.line(&line(&message))?;
    match &message.record {
        Some(record) => record_lines(record).iter().try_for_each(|line| output.line(line)),
        None => output.line("its bytes cannot be read now"),
    }
}

fn line(message: &DeadLetterMessage) -> String {
    let letter = &message.letter;
    let (queue, offset, when) = (letter.queue, letter.offset, units::rfc3339(letter.stored.0));
    let origin =
        format!("{}/{}/{}", letter.origin_topic, letter.origin_queue, letter.origin_offset);
    let (deliveries, reason) = (letter.deliveries, &letter.reason);
    format!("{queue}/{offset}  {when}  from {origin}  delivered {deliveries} times  {reason}")
}

fn to_json(message: &DeadLetterMessage) -> Value {
    let letter = &message.letter;
    let mut object = Map::new();
    object.insert("letter".to_owned(), format!("{}/{}", letter.queue, letter.offset).into());
    object.insert("since".to_owned(), units::rfc3339(letter.stored.0).into());
    object.insert("topic".to_owned(), letter.origin_topic.as_str().into());
    object.insert("queue".to_owned(), letter.origin_queue.0.into());
    object.insert("offset".to_owned(), letter.origin_offset.0.into());
    object.insert("reason".to_owned(), letter.reason.clone().into());
    object.insert("deliveries".to_owned(), letter.deliveries.into());
    if let Some(record) = &message.record {
        object.extend(record_json(record));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_named_by_queue_and_offset() {
        assert_eq!(letter("2/17"), Ok(Letter { queue: 2, offset: 17 }));
        for wrong in ["17", "2/", "/17", "a/1", "1/2/3", "-1/2"] {
            assert!(letter(wrong).is_err(), "{wrong}");
        }
    }
}
