//! `grus client list`: who is connected to the brokers.

use std::fmt::Write as _;

use grus_client::{ClientMember, ClientProducer, ClientReader, ConnectedClient};
use serde_json::{Value, json};

use crate::args::{ClientListArgs, Common};
use crate::failure::Failure;
use crate::message::push_json;
use crate::output::Output;
use crate::{session, units};

/// Runs the command.
///
/// # Errors
/// Told: no broker, or why none could be asked.
pub async fn run(common: &Common, args: &ClientListArgs) -> Result<(), Failure> {
    let client = session::connect(common, Some(common.timeout())).await?;
    let listed = client.list_clients(args.all).await;
    let listed = listed.map_err(|error| Failure::because("clients", error))?;
    let mut output = Output::standard();
    for one in &listed.clients {
        if common.json {
            output.add(|out| push_json(&to_json(one), out))?;
        } else {
            to_lines(one).iter().try_for_each(|line| output.line(line))?;
        }
    }
    output.flush()?;
    client.close().await;
    for (broker, why) in &listed.unasked {
        tracing::warn!("broker {broker} could not be asked: {why}");
    }
    Ok(())
}

/// A line for the connection, and one for each of its producers and readers.
fn to_lines(one: &ConnectedClient) -> Vec<String> {
    let ConnectedClient { broker, client, .. } = one;
    let name = if client.client_id.is_empty() { "unnamed" } else { &client.client_id };
    let mut lines = vec![format!(
        "{name} at {}, {}, broker {broker}, connection {}, {}, {} requests",
        client.address,
        if client.software.is_empty() { "software not known" } else { &client.software },
        client.connection,
        times(client.since.0, client.last_seen.0),
        units::grouped(client.requests),
    )];
    lines.extend(client.producers.iter().map(producer_line));
    lines.extend(client.readers.iter().map(reader_line));
    lines.extend(client.groups.iter().map(member_line));
    let (batches, fetches) = (client.batches_unlisted, client.fetches_unlisted);
    if batches + fetches > 0 {
        lines.push(format!("  and more: {batches} batches and {fetches} fetches not listed"));
    }
    lines
}

fn times(since_ms: u64, last_seen_ms: u64) -> String {
    format!("since {}, last seen {}", units::rfc3339(since_ms), units::rfc3339(last_seen_ms))
}

fn producer_line(producer: &ClientProducer) -> String {
    let mut line = format!("  producer {}", producer.producer_id);
    if let Some(name) = &producer.name {
        let _ = write!(line, " named {name}, epoch {}", producer.producer_epoch);
    }
    if let Some(topic) = &producer.topic {
        let _ = write!(line, " of topic {topic}");
    }
    let (messages, batches) = (units::grouped(producer.messages), units::grouped(producer.batches));
    let when = times(producer.since.0, producer.last_seen.0);
    let _ = write!(line, ": {messages} messages in {batches} batches, {when}");
    line
}

fn reader_line(reader: &ClientReader) -> String {
    let how = match reader.offset {
        Some(offset) => {
            format!("fetched {} times, last from offset {offset}", units::grouped(reader.fetches))
        }
        None => "pushed".to_owned(),
    };
    let when = times(reader.since.0, reader.last_seen.0);
    format!("  reader of queue {} of topic {}: {how}, {when}", reader.queue, reader.topic)
}

fn member_line(one: &ClientMember) -> String {
    let when = times(one.since.0, one.last_seen.0);
    format!("  member {} of group {}: {when}", one.member, one.group)
}

fn to_json(one: &ConnectedClient) -> Value {
    let ConnectedClient { broker, client, .. } = one;
    let producer = |producer: &ClientProducer| {
        json!({
            "producer_id": producer.producer_id.to_string(),
            "name": producer.name.as_ref().map(ToString::to_string),
            "epoch": producer.producer_epoch.0,
            "topic": producer.topic.as_ref().map(ToString::to_string),
            "since": units::rfc3339(producer.since.0),
            "last_seen": units::rfc3339(producer.last_seen.0),
            "batches": producer.batches,
            "messages": producer.messages,
        })
    };
    let reader = |reader: &ClientReader| {
        json!({
            "topic": reader.topic.as_str(),
            "queue": reader.queue.0,
            "mode": if reader.is_push { "push" } else { "fetch" },
            "since": units::rfc3339(reader.since.0),
            "last_seen": units::rfc3339(reader.last_seen.0),
            "offset": reader.offset.map(|offset| offset.0),
            "fetches": reader.fetches,
        })
    };
    let member = |one: &ClientMember| {
        json!({
            "group": one.group.as_str(),
            "member": one.member.0,
            "since": units::rfc3339(one.since.0),
            "last_seen": units::rfc3339(one.last_seen.0),
        })
    };
    json!({
        "broker": broker.0,
        "connection": client.connection,
        "client_id": client.client_id,
        "software": client.software,
        "address": client.address,
        "since": units::rfc3339(client.since.0),
        "last_seen": units::rfc3339(client.last_seen.0),
        "requests": client.requests,
        "producers": client.producers.iter().map(producer).collect::<Vec<_>>(),
        "readers": client.readers.iter().map(reader).collect::<Vec<_>>(),
        "batches_unlisted": client.batches_unlisted,
        "fetches_unlisted": client.fetches_unlisted,
        "groups": client.groups.iter().map(member).collect::<Vec<_>>(),
    })
}
