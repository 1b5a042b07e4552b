//! `grus group`: lists, describes, resets and deletes consumer groups.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use grus_client::{Client, ClientError, GroupName, MessageFilter, StartAt, TopicName};
use grus_protocol::ids::{BrokerId, Offset, QueueId, TimestampMs};
use grus_protocol::message::{DescribeGroupReply, GroupMember, GroupSettings, QueueProgress};
use serde_json::{Value, json};

use crate::args::{Common, From, from};
use crate::failure::Failure;
use crate::message::push_json;
use crate::output::Output;
use crate::{session, units};

type Out = Output<std::io::Stdout>;

/// `grus group`
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// List the groups
    List,
    /// Show how far a group has come in each queue, and whose the queue is
    Describe {
        /// Name of the group
        group: GroupName,
    },
    /// List the members of a group
    Members {
        /// Name of the group
        group: GroupName,
    },
    /// Move a group's progress, also while it runs
    Reset(ResetArgs),
    /// Delete a group that has no members: its progress and its dead letters
    Delete {
        /// Name of the group
        group: GroupName,
    },
}

/// `grus group reset`
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Name of the group
    pub group: GroupName,
    /// Topic
    #[arg(long)]
    pub topic: TopicName,
    /// Queue of the topic [default: all]
    #[arg(long, value_name = "N")]
    pub queue: Option<u32>,
    /// Where the group goes on: first, last, offset:N or time:RFC3339
    #[arg(long, value_parser = from, value_name = "WHERE")]
    pub to: From,
}

/// Runs the command.
///
/// # Errors
/// Told: no broker, no such group, or why the broker refused.
pub async fn run(common: &Common, command: &GroupCommand) -> Result<(), Failure> {
    session::show_warnings();
    let client = session::connect(common, Some(common.timeout())).await?;
    let mut output = Output::standard();
    match command {
        GroupCommand::List => list(&client, common, &mut output).await?,
        GroupCommand::Describe { group } => describe(&client, common, group, &mut output).await?,
        GroupCommand::Members { group } => members(&client, common, group, &mut output).await?,
        GroupCommand::Reset(args) => reset(&client, common, args, &mut output).await?,
        GroupCommand::Delete { group } => {
            let gone = client.delete_group(group).await;
            gone.map_err(|error| Failure::because(group, error))?;
            if common.json {
                output.add(|out| push_json(&json!({ "group": group.as_str() }), out))?;
            } else {
                output.line(&format!("{group} is deleted"))?;
            }
        }
    }
    output.flush()?;
    client.close().await;
    Ok(())
}

async fn list(client: &Client, common: &Common, output: &mut Out) -> Result<(), Failure> {
    let groups = client.list_groups().await;
    let groups = groups.map_err(|error| Failure::because("groups", error))?;
    warn_of(&groups.unasked);
    for group in groups.items {
        if common.json {
            let object = json!({
                "group": group.group.as_str(),
                "group_id": group.group_id.0,
                "members": group.members,
                "queues": group.queues,
                "generation": group.generation.0,
                "settings": settings_json(&group.settings),
            });
            output.add(|out| push_json(&object, out))?;
        } else {
            let (name, model) = (&group.group, group.settings.model);
            let (members, queues) = (group.members, group.queues);
            output.line(&format!("{name}  {model}  {members} members  {queues} queues"))?;
        }
    }
    Ok(())
}

pub(crate) fn warn_of(unasked: &[(BrokerId, String)]) {
    for (broker, why) in unasked {
        tracing::warn!("broker {broker} could not be asked, and may have more: {why}");
    }
}

fn settings_json(settings: &GroupSettings) -> Value {
    json!({
        "model": settings.model.to_string(),
        "strategy": settings.strategy.to_string(),
        "session_ms": settings.session_ms,
        "ladder_ms": settings.ladder_ms,
        "max_deliveries": settings.max_deliveries,
        "uniform": settings.is_uniform,
    })
}

async fn describe(
    client: &Client,
    common: &Common,
    group: &GroupName,
    output: &mut Out,
) -> Result<(), Failure> {
    let failed = |error| Failure::because(group, error);
    let described = match client.describe_group(group).await {
        Ok(described) => Some(described),
        // Its coordinator is silent: how far it has come the others know all the same.
        Err(error @ ClientError::Timeout { .. }) => {
            tracing::warn!("the coordinator of {group} does not say who its members are: {error}");
            None
        }
        Err(error) => return Err(failed(error)),
    };
    let progress = client.group_progress(group).await.map_err(failed)?;
    warn_of(&progress.unasked);
    let progress = progress.items;
    let lag: u64 = progress.iter().map(|queue| queue.lag).sum();
    let described = described.as_ref();
    described.into_iter().for_each(warn_of_filters);
    if common.json {
        let queues: Vec<_> = progress.iter().map(|queue| queue_json(described, queue)).collect();
        let members =
            |one: &DescribeGroupReply| -> Vec<_> { one.members.iter().map(member_json).collect() };
        let object = json!({
            "group": group.as_str(),
            "group_id": described.map(|one| one.group_id.0),
            "generation": described.map(|one| one.generation.0),
            "settings": described.map(|one| settings_json(&one.settings)),
            "members": described.map(members),
            "lag": lag,
            "queues": queues,
        });
        return output.add(|out| push_json(&object, out));
    }
    output.line(&format!("{:<12} {group}", "group"))?;
    if let Some(DescribeGroupReply { settings, members, .. }) = described {
        output.line(&format!("{:<12} {} ({})", "model", settings.model, settings.strategy))?;
        output.line(&format!("{:<12} {}", "members", members.len()))?;
    }
    output.line(&format!("{:<12} {}", "lag", units::grouped(lag)))?;
    for queue in &progress {
        output.line(&queue_line(described, queue))?;
    }
    Ok(())
}

/// Tells of topics of which members want different messages.
fn warn_of_filters(described: &DescribeGroupReply) {
    let (mut wanted, mut differ) = (BTreeMap::new(), BTreeSet::new());
    for one in described.members.iter().flat_map(|member| &member.subscriptions) {
        if *wanted.entry(&one.topics).or_insert(&one.filter) != &one.filter {
            differ.insert(&one.topics);
        }
    }
    for topics in differ {
        tracing::warn!(
            "members want different messages of {topics}: what the member of a queue does not want \
             is passed over for all of the group"
        );
    }
}

/// The name of the member whose the queue is.
fn owner(described: Option<&DescribeGroupReply>, queue: &QueueProgress) -> Option<String> {
    let described = described?;
    let is_it = |one: &&grus_protocol::message::GroupQueue| {
        one.topic == queue.topic && one.queue == queue.queue
    };
    let member = described.queues.iter().find(is_it)?.member?;
    let of = |one: &&GroupMember| one.member == member;
    Some(
        described
            .members
            .iter()
            .find(of)
            .map_or_else(|| member.to_string(), |one| format!("{member} {}", one.client_id)),
    )
}

fn queue_line(described: Option<&DescribeGroupReply>, queue: &QueueProgress) -> String {
    let QueueProgress { topic, queue: number, floor, end_offset, lag, retries, dead, .. } = queue;
    let owner = owner(described, queue).unwrap_or_else(|| "-".to_owned());
    let oldest = queue.oldest.map_or_else(|| "-".to_owned(), |at| units::rfc3339(at.0));
    format!(
        "{topic}/{number}  floor {floor}  end {end_offset}  lag {lag}  retries {retries}  dead \
         {dead}  oldest {oldest}  member {owner}"
    )
}

fn queue_json(described: Option<&DescribeGroupReply>, queue: &QueueProgress) -> Value {
    let time = |at: Option<TimestampMs>| at.map(|at| units::rfc3339(at.0));
    json!({
        "topic": queue.topic.as_str(),
        "queue": queue.queue.0,
        "floor": queue.floor.0,
        "log_start": queue.log_start.0,
        "end_offset": queue.end_offset.0,
        "delivered_to": queue.delivered_to.0,
        "lag": queue.lag,
        "retries": queue.retries,
        "next_retry": time(queue.next_retry),
        "oldest": time(queue.oldest),
        "member": owner(described, queue),
        "generation": queue.generation.0,
        "settled": queue.settled,
        "dead": queue.dead,
        "lost": queue.lost,
    })
}

async fn members(
    client: &Client,
    common: &Common,
    group: &GroupName,
    output: &mut Out,
) -> Result<(), Failure> {
    let described = client.describe_group(group).await;
    let described = described.map_err(|error| Failure::because(group, error))?;
    for member in &described.members {
        if common.json {
            output.add(|out| push_json(&member_json(member), out))?;
            continue;
        }
        let own = described.queues.iter().filter(|queue| queue.member == Some(member.member));
        let own: Vec<_> = own.map(|queue| format!("{}/{}", queue.topic, queue.queue)).collect();
        let (id, client_id, address) = (member.member, &member.client_id, &member.address);
        let (wants, own) = (wants(member).join(", "), own.join(" "));
        output.line(&format!("{id}  {client_id}  {address}  wants {wants}  has {own}"))?;
    }
    Ok(())
}

fn wants(member: &GroupMember) -> Vec<String> {
    let text = |one: &grus_protocol::message::GroupSubscription| match &one.filter {
        MessageFilter::All => one.topics.to_string(),
        filter => format!("{} [{filter}]", one.topics),
    };
    member.subscriptions.iter().map(text).collect()
}

fn member_json(member: &GroupMember) -> Value {
    json!({
        "member": member.member.0,
        "client_id": member.client_id,
        "address": member.address,
        "instance": member.instance.as_ref().map(|name| name.as_str().to_owned()),
        "subscriptions": wants(member),
        "joined": units::rfc3339(member.joined.0),
        "last_seen": units::rfc3339(member.last_seen.0),
    })
}

async fn reset(
    client: &Client,
    common: &Common,
    args: &ResetArgs,
    output: &mut Out,
) -> Result<(), Failure> {
    let start = match args.to {
        From::First => StartAt::First,
        From::Last => StartAt::Last,
        From::Offset(offset) => StartAt::Offset(Offset(offset)),
        From::Time(ms) => StartAt::Time(TimestampMs(ms)),
    };
    let (group, topic) = (&args.group, &args.topic);
    let reset = client.reset_group(group, topic, args.queue.map(QueueId), start).await;
    for (queue, reply) in reset.map_err(|error| Failure::because(group, error))? {
        if common.json {
            let object = json!({
                "group": group.as_str(),
                "topic": topic.as_str(),
                "queue": queue.0,
                "floor": reply.floor.0,
            });
            output.add(|out| push_json(&object, out))?;
        } else {
            output.line(&format!("{topic}/{queue} goes on at {}", reply.floor))?;
        }
    }
    Ok(())
}
