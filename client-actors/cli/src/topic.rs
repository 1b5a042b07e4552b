//! `grus topic`: makes, lists, describes, changes and removes topics.

use std::fmt::Display;
use std::time::Duration;

use clap::ValueEnum;
use grus_client::{Client, TopicChange, TopicDescription};
use grus_protocol::ids::Durability;
use grus_protocol::message::{ExpiredPolicy, TopicKind, TopicSettings, WhenFull};
use serde_json::{Value, json};

use crate::args::{Common, DurabilityArg, KindArg, RetentionArgs, TopicCommand};
use crate::failure::Failure;
use crate::message::push_json;
use crate::output::Output;
use crate::{session, units};

/// What becomes of messages whose time to live is over. Nobody is given them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExpiredArg {
    /// Groups pass over them
    Drop,
    /// Each group that comes to one makes it a dead letter of its own
    DeadLetter,
}

/// What becomes of a message that finds its queue at its cap by bytes or messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WhenFullArg {
    /// It is stored, and the oldest go
    DropOldest,
    /// It is refused, and its producer tries again until its time is over
    Reject,
}

/// What is told: lines for people, and the same as JSON, one object a line.
struct Told {
    lines: Vec<String>,
    objects: Vec<Value>,
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, or why the broker refused.
pub async fn run(common: &Common, command: &TopicCommand) -> Result<(), Failure> {
    let client = session::connect(common, Some(common.timeout())).await?;
    let told = match command {
        TopicCommand::Create { name, queues, durability, kind, replicas, retention } => {
            let sort = (*durability, *kind, *replicas);
            create(&client, name, *queues, sort, *retention).await?
        }
        TopicCommand::List => list(&client).await?,
        TopicCommand::Describe { name } => {
            let topic = client.describe_topic(name).await.map_err(|error| failed(name, error))?;
            described(&topic)
        }
        TopicCommand::Alter { name, queues, retention } => {
            alter(&client, name, *queues, *retention).await?
        }
        TopicCommand::Delete { name } => {
            client.delete_topic(name).await.map_err(|error| failed(name, error))?;
            let object = json!({ "topic": name, "deleted": true });
            Told { lines: vec![format!("topic {name} is deleted")], objects: vec![object] }
        }
    };
    let mut output = Output::standard();
    if common.json {
        told.objects.iter().try_for_each(|object| output.add(|out| push_json(object, out)))?;
    } else {
        told.lines.iter().try_for_each(|line| output.line(line))?;
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

fn failed(name: &str, error: impl Display) -> Failure {
    Failure::because(format!("topic {name}"), error)
}

async fn create(
    client: &Client,
    name: &str,
    queues: Option<u32>,
    (durability, kind, replicas): (Option<DurabilityArg>, KindArg, Option<u32>),
    retention: RetentionArgs,
) -> Result<Told, Failure> {
    let mut settings = TopicSettings::default();
    settings.queues = queues.unwrap_or(settings.queues);
    settings.durability = match durability {
        None | Some(DurabilityArg::Persisted) => Durability::Persisted,
        Some(DurabilityArg::Replicated) => Durability::Replicated,
    };
    settings.kind = match kind {
        KindArg::Durable => TopicKind::Durable,
        KindArg::Delay => TopicKind::Delay,
        KindArg::Temporary => TopicKind::Temporary,
    };
    settings.replicas = replicas.unwrap_or(settings.replicas);
    settings.retention_ms = retention.retention.map_or(settings.retention_ms, whole_ms);
    settings.retention_bytes = retention.retention_bytes.unwrap_or(settings.retention_bytes);
    settings.dedup_window_ms = retention.dedup_window.map_or(settings.dedup_window_ms, whole_ms);
    settings.expired = retention.expired.map_or(settings.expired, policy);
    settings.retention_messages =
        retention.retention_messages.unwrap_or(settings.retention_messages);
    settings.when_full = retention.when_full.map_or(settings.when_full, when_full);
    let made = client.create_topic(name, settings).await.map_err(|error| failed(name, error))?;
    Ok(settled(name, made.id.0, &made.settings))
}

async fn alter(
    client: &Client,
    name: &str,
    queues: Option<u32>,
    retention: RetentionArgs,
) -> Result<Told, Failure> {
    let change = TopicChange {
        queues,
        retention_ms: retention.retention.map(whole_ms),
        retention_bytes: retention.retention_bytes,
        dedup_window_ms: retention.dedup_window.map(whole_ms),
        expired: retention.expired.map(policy),
        retention_messages: retention.retention_messages,
        when_full: retention.when_full.map(when_full),
    };
    if change == TopicChange::default() {
        return Err(failed(
            name,
            "nothing to alter: say --queues, --retention, --retention-bytes, --retention-messages, \
             --when-full, --dedup-window or --expired",
        ));
    }
    let altered = client.alter_topic(name, change).await.map_err(|error| failed(name, error))?;
    Ok(settled(name, altered.id.0, &altered.settings))
}

async fn list(client: &Client) -> Result<Told, Failure> {
    let topics = client.list_topics().await.map_err(|error| Failure::because("topics", error))?;
    let width = topics.iter().map(|topic| topic.name.as_str().len()).max().unwrap_or(0);
    let line = |name: &str, settings: &TopicSettings| {
        let (durability, replicas) = (settings.durability, on_brokers(settings));
        format!("{name:<width$}  {:>5} queues  {durability}{replicas}", settings.queues)
    };
    let lines = topics.iter().map(|topic| line(topic.name.as_str(), &topic.settings)).collect();
    let object = |name: &str, id, settings| settings_json(name, id, settings);
    let objects = topics
        .iter()
        .map(|topic| object(topic.name.as_str(), topic.id.0, &topic.settings))
        .collect();
    Ok(Told { lines, objects })
}

fn settled(name: &str, id: u64, settings: &TopicSettings) -> Told {
    Told {
        lines: vec![settings_line(name, settings)],
        objects: vec![settings_json(name, id, settings)],
    }
}

fn described(topic: &TopicDescription) -> Told {
    let name = topic.name.as_str();
    let mut object = settings_json(name, topic.id.0, &topic.settings);
    let mut lines = vec![settings_line(name, &topic.settings)];
    let mut queues = Vec::new();
    for queue in &topic.queues {
        let (number, shard) = (queue.queue, queue.shard);
        lines.push(match &queue.contents {
            Ok(holds) => format!(
                "  queue {number}: {} messages, offsets from {} to before {}, {}, shard {shard}",
                units::grouped(holds.end.0.saturating_sub(holds.first.0)),
                holds.first,
                holds.end,
                units::readable(holds.bytes),
            ),
            Err(why) => format!("  queue {number}: not known ({why}), shard {shard}"),
        });
        let holds = queue.contents.as_ref().ok();
        let stored = holds.map(|holds| holds.last_stored.0).filter(|stored| *stored > 0);
        queues.push(json!({
            "queue": number.0,
            "shard": shard.0,
            "leader": queue.leader.map(|broker| broker.0),
            "first_offset": holds.map(|holds| holds.first.0),
            "end_offset": holds.map(|holds| holds.end.0),
            "flushed_offset": holds.map(|holds| holds.flushed.0),
            "bytes": holds.map(|holds| holds.bytes),
            "last_stored": stored.map(units::rfc3339),
            "unknown": queue.contents.as_ref().err().map(ToString::to_string),
        }));
    }
    object["created"] = Value::from(units::rfc3339(topic.created.0));
    object["queue_list"] = Value::from(queues);
    Told { lines, objects: vec![object] }
}

fn settings_line(name: &str, settings: &TopicSettings) -> String {
    let kept = match settings.retention_ms {
        0 => "kept for ever".to_owned(),
        ms => format!("kept {}", humantime::format_duration(Duration::from_millis(ms))),
    };
    let cap = cap_of(settings);
    let kind = match settings.kind {
        TopicKind::Durable => String::new(),
        other => format!(", kind {other}"),
    };
    let replicas = on_brokers(settings);
    let TopicSettings { queues, durability, .. } = settings;
    let expired = match settings.expired {
        ExpiredPolicy::Drop => "",
        ExpiredPolicy::DeadLetter => ", what is expired becomes a dead letter",
    };
    format!("topic {name}: {queues} queues{replicas}, {durability}{kind}, {kept}{cap}{expired}")
}

/// On how many brokers each queue is, where it is more than one.
fn on_brokers(settings: &TopicSettings) -> String {
    match settings.replicas {
        0 | 1 => String::new(),
        some => format!(", on {some} brokers each"),
    }
}

/// What a queue may have at most, and what becomes of more.
fn cap_of(settings: &TopicSettings) -> String {
    let bytes = Some(settings.retention_bytes).filter(|bytes| *bytes > 0).map(units::readable);
    let messages = Some(settings.retention_messages).filter(|messages| *messages > 0);
    let messages = messages.map(|messages| format!("{} messages", units::grouped(messages)));
    let caps: Vec<String> = bytes.into_iter().chain(messages).collect();
    let beyond = match settings.when_full {
        WhenFull::DropOldest => "",
        WhenFull::Reject => " and more is refused",
    };
    match caps.join(" and ").as_str() {
        "" => String::new(),
        caps => format!(", at most {caps} a queue{beyond}"),
    }
}

fn settings_json(name: &str, id: u64, settings: &TopicSettings) -> Value {
    json!({
        "topic": name,
        "id": format!("{id:016x}"),
        "kind": settings.kind.to_string(),
        "queues": settings.queues,
        "durability": settings.durability.to_string(),
        "replicas": settings.replicas,
        "retention_ms": settings.retention_ms,
        "retention_bytes": settings.retention_bytes,
        "dedup_window_ms": settings.dedup_window_ms,
        "expired": settings.expired.to_string(),
        "retention_messages": settings.retention_messages,
        "when_full": settings.when_full.to_string(),
    })
}

const fn policy(argument: ExpiredArg) -> ExpiredPolicy {
    match argument {
        ExpiredArg::Drop => ExpiredPolicy::Drop,
        ExpiredArg::DeadLetter => ExpiredPolicy::DeadLetter,
    }
}

const fn when_full(argument: WhenFullArg) -> WhenFull {
    match argument {
        WhenFullArg::DropOldest => WhenFull::DropOldest,
        WhenFullArg::Reject => WhenFull::Reject,
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
