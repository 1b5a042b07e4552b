//! `grus cluster`: the brokers and their shards, and who leads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, Subcommand};
use grus_client::{BrokerId, BrokerShards, Client};
use grus_protocol::ids::{QueueId, ShardId};
use grus_protocol::message::{ChangeReplicas, HandOverShards, ShardDescription};
use grus_protocol::names::TopicName;
use serde_json::{Value, json};

use crate::args::Common;
use crate::failure::Failure;
use crate::message::push_json;
use crate::output::Output;
use crate::{session, units};

/// A member that has not answered for so long is behind, in milliseconds.
const SILENCE_MS_MAX: u64 = 3_000;
/// A member that lacks more entries is behind.
const LAG_ENTRIES_MAX: u64 = 1_000;
/// The most queues that are named where some have no leader.
const NAMED_MAX: usize = 5;

/// `grus cluster`
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Say in a few lines whether all brokers answer, all shards are led, and all members keep up
    Status,
    /// List the brokers that are there
    Brokers,
    /// List the shards: who leads each, and how far its members are
    Shards,
    /// Have another member lead a shard
    MoveLeader(MoveArgs),
    /// Have another broker get a shard, or all shards of a topic, beside those that have it, or instead of one
    AddReplica(AddArgs),
    /// Have shards that fewer brokers have get to so many, those that one broker has alone among them
    Grow(GrowArgs),
    /// Have a broker lose a shard, or all shards of a topic
    RemoveReplica(RemoveArgs),
    /// Have a broker give away all that it leads, and lead and get nothing new before that is undone
    Drain(DrainArgs),
}

/// `grus cluster drain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// The broker's id
    pub broker: u64,
    /// Have it lead again
    #[arg(long)]
    pub undo: bool,
}

/// `grus cluster move-leader`
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The shard's number
    pub shard: u32,
    /// The broker that is to lead it [default: the member that has most of its log]
    #[arg(long, value_name = "BROKER")]
    pub to: Option<u64>,
}

/// `grus cluster add-replica`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// A shard's number, or a topic: all shards that have queues of it
    #[arg(value_name = "SHARD|TOPIC")]
    pub what: String,
    /// The broker that is to get it
    #[arg(long, value_name = "BROKER")]
    pub broker: u64,
    /// The broker that is to lose it in the same step, once the new one has it
    #[arg(long, value_name = "BROKER")]
    pub instead_of: Option<u64>,
}

/// `grus cluster grow`
#[derive(Debug, Args)]
pub struct GrowArgs {
    /// A shard's number, or a topic: all shards that have queues of it, and those of the groups that read
    /// it [default: all shards that have queues]
    #[arg(value_name = "SHARD|TOPIC")]
    pub what: Option<String>,
    /// How many brokers are to have each of them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=7))]
    pub replicas: u32,
}

/// `grus cluster remove-replica`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// A shard's number, or a topic: all shards that have queues of it
    #[arg(value_name = "SHARD|TOPIC")]
    pub what: String,
    /// The broker that is to lose it
    #[arg(long, value_name = "BROKER")]
    pub broker: u64,
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, or why it could not be done.
pub async fn run(common: &Common, command: &ClusterCommand) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let told = client.describe_shards().await;
    let told = told.map_err(|error| Failure::because("cluster", error))?;
    let mut output = Output::standard();
    let (lines, values) = match command {
        ClusterCommand::Status => {
            let away = client.queues_without_leader().await;
            let away = away.map_err(|error| Failure::because("cluster", error))?;
            status(&told, &away)
        }
        ClusterCommand::Brokers => told.iter().map(broker).unzip(),
        ClusterCommand::Shards => shards(&told),
        ClusterCommand::MoveLeader(args) => {
            let ask = HandOverShards {
                shards: vec![ShardId(args.shard)],
                to: args.to.map(BrokerId),
                retire: false,
                undo: false,
            };
            hand_over(&client, leader_of(&told, ShardId(args.shard))?, &ask).await?
        }
        ClusterCommand::AddReplica(args) => {
            let (add, remove) = (Some(args.broker), args.instead_of);
            change(&client, Some(&args.what), (add, remove, 0)).await?
        }
        ClusterCommand::Grow(args) => {
            change(&client, args.what.as_deref(), (None, None, args.replicas)).await?
        }
        ClusterCommand::RemoveReplica(args) => {
            change(&client, Some(&args.what), (None, Some(args.broker), 0)).await?
        }
        ClusterCommand::Drain(args) => drain(&client, &told, args).await?,
    };
    if common.json {
        values.iter().try_for_each(|value| output.add(|out| push_json(value, out)))?;
    } else {
        lines.iter().try_for_each(|line| output.line(line))?;
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

type Said = (Vec<String>, Vec<Value>);

/// What is known of a shard by those who have it.
#[derive(Default)]
struct Known<'a> {
    /// Who leads it, and what it says.
    led: Option<(BrokerId, &'a ShardDescription)>,
    /// What any of them says.
    any: Option<&'a ShardDescription>,
    amnesiacs: u32,
    /// Who cannot start its member, and why.
    failed: Vec<(BrokerId, &'a str)>,
}

fn known(told: &[BrokerShards]) -> BTreeMap<ShardId, Known<'_>> {
    let mut all: BTreeMap<ShardId, Known<'_>> = BTreeMap::new();
    for broker in told {
        for shard in broker.shards.iter().flatten() {
            let known = all.entry(shard.shard).or_default();
            if let Some(why) = &shard.failed {
                known.failed.push((broker.broker.id, why));
                known.any = known.any.or(Some(shard)); // of its number no more is known here
                continue;
            }
            known.any = Some(shard);
            known.amnesiacs += u32::from(shard.is_amnesiac);
            let is_later = known.led.is_none_or(|(_, led)| led.term < shard.term);
            if shard.leads && is_later {
                known.led = Some((broker.broker.id, shard));
            }
        }
    }
    all
}

/// Members that do not answer, lack much, or do not count yet, as the leader says.
fn behind(shard: &ShardDescription) -> usize {
    let is_behind = |member: &&grus_protocol::message::MemberDescription| {
        !member.votes
            || member.heard_ms.is_none_or(|heard| heard > SILENCE_MS_MAX)
            || lag(shard.last_index, member.matched_index) > LAG_ENTRIES_MAX
    };
    shard.members.iter().filter(is_behind).count()
}

fn lag(last: Option<u64>, matched: Option<u64>) -> u64 {
    let count = |index: Option<u64>| index.map_or(0, |index| index + 1);
    count(last).saturating_sub(count(matched))
}

/// `away`: queues that nobody leads. A shard of which every broker is away is told by nobody.
fn status(told: &[BrokerShards], away: &[(TopicName, QueueId)]) -> Said {
    let all = known(told);
    let answering = told.iter().filter(|broker| broker.shards.is_ok()).count();
    let replicated =
        all.values().filter(|known| known.any.is_some_and(|shard| shard.is_replicated)).count();
    let led = all.values().filter(|known| known.led.is_some()).count();
    let is_short = |known: &&Known<'_>| known.led.is_some_and(|(_, shard)| behind(shard) > 0);
    let under_replicated = all.values().filter(is_short).count();
    let amnesiacs: u32 = all.values().map(|known| known.amnesiacs).sum();
    let failed: usize = all.values().map(|known| known.failed.len()).sum();
    let is_well = away.is_empty()
        && answering == told.len()
        && led == all.len()
        && under_replicated == 0
        && amnesiacs == 0
        && failed == 0;
    let is_drained = |broker: &&BrokerShards| broker.drained == Some(true);
    let drained: Vec<u64> = told.iter().filter(is_drained).map(|it| it.broker.id.0).collect();
    let lines = vec![
        format!("state             {}", if is_well { "ok" } else { "degraded" }),
        format!("brokers           {}, of which {answering} answer", told.len()),
        format!("shards            {}, {replicated} of them of several brokers", all.len()),
        format!("without a leader  {}", all.len() - led),
        format!("queues away       {}{}", away.len(), named(away)),
        format!("under-replicated  {under_replicated}"),
        format!("catching up       {amnesiacs}"),
        format!("cannot start      {failed}"),
        format!("drained           {}{}", drained.len(), listed(&drained)),
    ];
    let value = json!({
        "state": if is_well { "ok" } else { "degraded" },
        "brokers": told.len(),
        "answering": answering,
        "shards": all.len(),
        "replicated": replicated,
        "without_leader": all.len() - led,
        "queues_away": away.iter().map(|(topic, queue)| format!("{topic}[{queue}]")).collect::<Vec<_>>(),
        "under_replicated": under_replicated,
        "catching_up": amnesiacs,
        "cannot_start": failed,
        "drained": drained,
    });
    (lines, vec![value])
}

/// Numbers, for people.
fn listed(numbers: &[u64]) -> String {
    if numbers.is_empty() {
        return String::new();
    }
    let all: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    format!(" ({})", all.join(", "))
}

/// The first of them by name, for people.
fn named(queues: &[(TopicName, QueueId)]) -> String {
    if queues.is_empty() {
        return String::new();
    }
    let some = queues.iter().take(NAMED_MAX).map(|(topic, queue)| format!("{topic}[{queue}]"));
    let more = if queues.len() > NAMED_MAX { ", ..." } else { "" };
    format!(" ({}{more})", some.collect::<Vec<_>>().join(", "))
}

fn broker(broker: &BrokerShards) -> (String, Value) {
    let BrokerShards { broker: at, shards, drained, .. } = broker;
    let place = format!("{}:{}", at.host, at.port);
    let mut line = format!("{} at {place}", at.id);
    let shards = match shards {
        Ok(shards) => shards,
        Err(why) => {
            let _ = write!(line, ": does not answer: {why}");
            return (line, json!({ "broker": at.id.0, "address": place, "error": why }));
        }
    };
    let led = shards.iter().filter(|shard| shard.leads).count();
    let queues: u64 = shards.iter().map(|shard| u64::from(shard.queues)).sum();
    let full = shards.iter().any(|shard| shard.disk_full);
    let failed = shards.iter().filter(|shard| shard.failed.is_some()).count();
    let followed = shards.len() - led - failed;
    let queues_text = units::grouped(queues);
    let _ = write!(line, ": leads {led} shards with {queues_text} queues, follows {followed}");
    if *drained == Some(true) {
        line.push_str(", drained");
    }
    if full {
        line.push_str(", disk full");
    }
    if failed > 0 {
        let _ = write!(line, ", cannot start {failed}");
    }
    let value = json!({
        "broker": at.id.0,
        "address": place,
        "leads": led,
        "follows": followed,
        "queues": queues,
        "disk_full": full,
        "cannot_start": failed,
        "drained": drained,
    });
    (line, value)
}

fn shards(told: &[BrokerShards]) -> Said {
    known(told).values().filter_map(shard).unzip()
}

fn shard(known: &Known<'_>) -> Option<(String, Value)> {
    let any = known.any?;
    let mut line = format!("{} {}: ", any.shard, any.durability);
    let mut value = json!({
        "shard": any.shard.0,
        "durability": any.durability.to_string(),
        "replicated": any.is_replicated,
    });
    let reason = |(broker, why): &(BrokerId, &str)| json!({ "broker": broker.0, "reason": why });
    value["failed"] = known.failed.iter().map(reason).collect();
    let Some((leader, led)) = known.led else {
        line.push_str("nobody leads it");
        push_failed(known, &mut line);
        value["leader"] = Value::Null;
        return Some((line, value));
    };
    let last = led.last_index.map_or_else(|| "no entry".to_owned(), |last| format!("entry {last}"));
    let _ = write!(line, "led by {leader} in term {}, {} queues, at {last}", led.term, led.queues);
    for member in &led.members {
        let lacks = lag(led.last_index, member.matched_index);
        let heard = match member.heard_ms {
            Some(heard) => format!("heard of {heard} ms ago"),
            None => "not heard of".to_owned(),
        };
        let yet = if member.votes { "" } else { ", comes or goes" };
        let lacks = units::grouped(lacks);
        let _ = write!(line, "; {} lacks {lacks}, {heard}{yet}", member.broker);
    }
    push_failed(known, &mut line);
    let member = |member: &grus_protocol::message::MemberDescription| {
        json!({
            "broker": member.broker.0,
            "lacks": lag(led.last_index, member.matched_index),
            "heard_ms": member.heard_ms,
            "votes": member.votes,
        })
    };
    value["leader"] = json!(leader.0);
    value["term"] = json!(led.term.0);
    value["queues"] = json!(led.queues);
    value["last_index"] = json!(led.last_index);
    value["members"] = led.members.iter().map(member).collect();
    value["under_replicated"] = json!(behind(led) > 0);
    Some((line, value))
}

/// Who cannot start its member, and why.
fn push_failed(known: &Known<'_>, line: &mut String) {
    for (broker, why) in &known.failed {
        let _ = write!(line, "; {broker} cannot start it: {why}");
    }
}

fn leader_of(told: &[BrokerShards], shard: ShardId) -> Result<BrokerId, Failure> {
    let all = known(told);
    let known = all.get(&shard);
    let known = known.ok_or_else(|| Failure::Told(format!("nobody has a shard {shard}")))?;
    let led = known.led.map(|(broker, _)| broker);
    led.ok_or_else(|| Failure::Told(format!("nobody leads shard {shard} now")))
}

async fn hand_over(
    client: &Client,
    broker: BrokerId,
    ask: &HandOverShards,
) -> Result<Said, Failure> {
    let done = client.hand_over_shards(broker, ask).await;
    let done = done.map_err(|error| Failure::because(format!("broker {broker}"), error))?;
    if !done.kept.is_empty() {
        let kept: Vec<String> = done.kept.iter().map(ToString::to_string).collect();
        let kept = kept.join(", ");
        let text = if ask.retire {
            format!("it is drained, and leads shard {kept} until another member can take it")
        } else {
            format!("no other member took shard {kept} in time")
        };
        return Err(Failure::because(format!("broker {broker}"), text));
    }
    let numbers: Vec<u32> = done.handed_over.iter().map(|shard| shard.0).collect();
    let line = format!("broker {broker} leads none of {} shards", numbers.len());
    Ok((vec![line], vec![json!({ "broker": broker.0, "handed_over": numbers })]))
}

/// Drains a broker, or undoes that. What no other broker has stays with it, and is named.
async fn drain(client: &Client, told: &[BrokerShards], args: &DrainArgs) -> Result<Said, Failure> {
    let broker = BrokerId(args.broker);
    let known = told.iter().find(|known| known.broker.id == broker);
    let is_older = known.is_some_and(|known| known.shards.is_ok() && known.drained.is_none());
    if args.undo {
        if let Some(Err(why)) = known.map(|known| &known.shards) {
            return Err(Failure::because(format!("broker {broker}"), why));
        }
        if is_older {
            // It would take that for a word to move all that it leads.
            let text = "it is of an older build: it leads again when it is started again";
            return Err(Failure::because(format!("broker {broker}"), text));
        }
        let ask = HandOverShards { shards: Vec::new(), to: None, retire: false, undo: true };
        let done = client.hand_over_shards(broker, &ask).await;
        done.map_err(|error| Failure::because(format!("broker {broker}"), error))?;
        let line =
            format!("broker {broker} is drained no more: it leads again what it is the first of");
        return Ok((vec![line], vec![json!({ "broker": broker.0, "drained": false })]));
    }
    let ask = HandOverShards { shards: Vec::new(), to: None, retire: true, undo: false };
    let (mut lines, mut values) = hand_over(client, broker, &ask).await?;
    let stays = stays(known);
    if is_older {
        lines.push("it is of an older build: that lasts until it is started again".to_owned());
    }
    if !stays.is_empty() {
        let (count, all) = (stays.len(), listed(&stays));
        lines
            .push(format!("no other broker has {count} of its shards with queues: they stay{all}"));
    }
    for value in &mut values {
        value["drained"] = json!(true);
        value["stays"] = json!(stays);
    }
    Ok((lines, values))
}

/// The shards with queues that a broker has alone.
fn stays(broker: Option<&BrokerShards>) -> Vec<u64> {
    let shards = broker.iter().filter_map(|broker| broker.shards.as_ref().ok()).flatten();
    let alone = shards.filter(|shard| !shard.is_replicated && shard.queues > 0);
    alone.map(|shard| u64::from(shard.shard.0)).collect()
}

async fn change(
    client: &Client,
    what: Option<&str>,
    (add, remove, replicas): (Option<u64>, Option<u64>, u32),
) -> Result<Said, Failure> {
    let (shards, topic) = match what.map(|what| (what, what.parse())) {
        None => (Vec::new(), None),
        Some((_, Ok(number))) => (vec![ShardId(number)], None),
        Some((what, Err(_no_number))) => {
            let topic = TopicName::try_from(what);
            (Vec::new(), Some(topic.map_err(|error| Failure::because(what, error))?))
        }
    };
    let (add, remove) = (add.map(BrokerId), remove.map(BrokerId));
    let ask = ChangeReplicas { shards, topic, add, remove, replicas };
    let changed = client.change_replicas(&ask).await;
    let changed = changed.map_err(|error| Failure::because(what.unwrap_or("cluster"), error))?;
    let numbers: Vec<u32> = changed.iter().map(|shard| shard.0).collect();
    let line = match numbers.len() {
        0 => "nothing to change".to_owned(),
        count => format!("{count} shards get other members: `grus cluster shards` shows how far"),
    };
    Ok((vec![line], vec![json!({ "changing": numbers })]))
}
