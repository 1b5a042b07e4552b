//! The JSON of consumer groups. Field names are part of the API: docs/HTTP.md. Pure.

use grus_protocol::ids::MemberId;
use grus_protocol::message::{GroupMember, GroupSettings, ListAt, QueueProgress};
use serde::Serialize;

use super::shapes::MessageItem;
use crate::shard::GroupSums;

/// `GET /groups`
#[derive(Debug, Clone, Serialize)]
pub struct GroupsPage {
    /// In order of their names.
    pub groups: Vec<GroupItem>,
    /// The name to go on behind; nothing when there are no more.
    pub next: Option<String>,
}

/// A group.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupItem {
    /// Its name.
    pub group: String,
    /// Its incarnation, as text.
    pub group_id: String,
    /// The broker that coordinates it.
    pub coordinator: Option<u64>,
    /// Whether that is this one: only then what follows is known.
    pub coordinated: bool,
    /// How it works.
    pub settings: Option<SettingsItem>,
    /// Its members.
    pub members: Option<u32>,
    /// The generation of its assignment.
    pub generation: Option<u64>,
    /// What it has done in the queues that this broker leads.
    pub sums: Option<SumsItem>,
}

/// How a group works.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsItem {
    model: String,
    strategy: String,
    session_ms: u32,
    start: &'static str,
    start_time: Option<u64>,
    ladder_ms: Vec<u64>,
    max_deliveries: u32,
    uniform: bool,
}

impl From<&GroupSettings> for SettingsItem {
    fn from(settings: &GroupSettings) -> Self {
        let (start, start_time) = match settings.start {
            ListAt::First => ("first", None),
            ListAt::Last => ("last", None),
            ListAt::Time(time) => ("time", Some(time.0)),
        };
        Self {
            model: settings.model.to_string(),
            strategy: settings.strategy.to_string(),
            session_ms: settings.session_ms,
            start,
            start_time,
            ladder_ms: settings.ladder_ms.clone(),
            max_deliveries: settings.max_deliveries,
            uniform: settings.is_uniform,
        }
    }
}

/// What a group has done in the queues that this broker leads.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SumsItem {
    queues: u64,
    lag: u64,
    retries: u64,
    oldest: Option<u64>,
    dead_letters: u64,
    settled: u64,
    skipped: u64,
    dead: u64,
    lost: u64,
}

impl From<&GroupSums> for SumsItem {
    fn from(sums: &GroupSums) -> Self {
        Self {
            queues: sums.queues,
            lag: sums.lag,
            retries: sums.retries,
            oldest: sums.oldest.map(|at| at.0),
            dead_letters: sums.dead_letters,
            settled: sums.counts.settled,
            skipped: sums.counts.passed,
            dead: sums.counts.dead,
            lost: sums.counts.lost,
        }
    }
}

/// `GET /groups/{group}`
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupPage {
    /// The group.
    #[serde(flatten)]
    pub group: GroupItem,
    /// Queues of it that other brokers lead, which are not among those here.
    pub queues_elsewhere: Option<usize>,
    /// Its members, by number.
    pub member_list: Option<Vec<MemberItem>>,
    /// The number to go on behind; nothing when there are no more.
    pub members_next: Option<u64>,
    /// The queues that it has claimed here, by topic id and number.
    pub queue_list: Vec<GroupQueueItem>,
    /// What goes into `after` to go on; nothing when there are no more.
    pub next: Option<String>,
}

/// A member.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberItem {
    /// Its number in the group.
    pub member: u64,
    client_id: String,
    address: String,
    instance: Option<String>,
    subscriptions: Vec<SubscriptionItem>,
    joined: u64,
    last_seen: Option<u64>,
    generation: u64,
    queues: u32,
}

#[derive(Debug, Clone, Serialize)]
struct SubscriptionItem {
    topics: String,
    filter: String,
}

impl MemberItem {
    /// A member that has so many queues.
    #[must_use]
    pub fn of(member: &GroupMember, queues: u32) -> Self {
        let subscriptions = member.subscriptions.iter().map(|one| SubscriptionItem {
            topics: one.topics.to_string(),
            filter: one.filter.to_string(),
        });
        Self {
            member: member.member.0,
            client_id: member.client_id.clone(),
            address: member.address.clone(),
            instance: member.instance.as_ref().map(ToString::to_string),
            subscriptions: subscriptions.collect(),
            joined: member.joined.0,
            last_seen: (member.last_seen.0 > 0).then_some(member.last_seen.0),
            generation: member.known.0,
            queues,
        }
    }
}

/// How far a group has come in a queue.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupQueueItem {
    topic: String,
    topic_id: String,
    queue_id: u32,
    owner: Option<u64>,
    next_owner: Option<u64>,
    claimed_by: u64,
    generation: u64,
    floor: u64,
    log_start: u64,
    end_offset: u64,
    delivered_to: u64,
    lag: u64,
    retries: u64,
    next_retry: Option<u64>,
    oldest: Option<u64>,
    resets: u32,
    settled: u64,
    dead: u64,
    lost: u64,
}

impl GroupQueueItem {
    /// A queue; `owners` are whose it is and will be, where that is known.
    #[must_use]
    pub fn of(queue: &QueueProgress, owners: Option<(Option<MemberId>, Option<MemberId>)>) -> Self {
        let (owner, next_owner) = owners.unwrap_or_default();
        Self {
            topic: queue.topic.to_string(),
            topic_id: queue.topic_id.to_string(),
            queue_id: queue.queue.0,
            owner: owner.map(|member| member.0),
            next_owner: next_owner.map(|member| member.0),
            claimed_by: queue.member.0,
            generation: queue.generation.0,
            floor: queue.floor.0,
            log_start: queue.log_start.0,
            end_offset: queue.end_offset.0,
            delivered_to: queue.delivered_to.0,
            lag: queue.lag,
            retries: queue.retries,
            next_retry: queue.next_retry.map(|at| at.0),
            oldest: queue.oldest.map(|at| at.0),
            resets: queue.round,
            settled: queue.settled,
            dead: queue.dead,
            lost: queue.lost,
        }
    }
}

/// `GET /groups/{group}/dead-letters`
#[derive(Debug, Clone, Serialize)]
pub struct LettersPage {
    /// By queue of the dead-letter topic, and offset.
    pub letters: Vec<LetterItem>,
    /// What goes into `after` to go on; nothing when there are no more.
    pub next: Option<String>,
}

/// A dead letter.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LetterItem {
    /// Its place in the dead-letter topic, as the commands name it.
    pub letter: String,
    /// When it became one.
    pub since: u64,
    /// Where it came from.
    pub origin: OriginItem,
    /// Why it was given up.
    pub reason: String,
    /// How often it was delivered.
    pub deliveries: u32,
    /// The message; nothing when it cannot be read now.
    pub message: Option<MessageItem>,
}

/// Where a dead letter came from.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginItem {
    /// The topic.
    pub topic: String,
    /// The queue.
    pub queue_id: u32,
    /// Its offset there.
    pub offset: u64,
}

/// A group was moved.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetDone {
    /// The queues that it was moved in.
    pub queues: Vec<MovedItem>,
    /// Those that refused: nothing has changed there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedItem>,
    /// Queues of the topic that other brokers lead: those stay where they are.
    pub queues_elsewhere: usize,
}

/// A queue in which a group could not be moved.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedItem {
    /// The queue.
    pub queue_id: u32,
    /// Why.
    pub error: String,
}

/// Where a group goes on in a queue.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedItem {
    /// The queue.
    pub queue_id: u32,
    /// The first offset that is to be handled now.
    pub floor: u64,
    /// How often the group was moved in this queue.
    pub resets: u32,
}

/// Dead letters were sent back.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Redriven {
    /// How many.
    pub redriven: u64,
    /// There are more: ask again.
    pub more: bool,
    /// Queues of dead letters that other brokers lead.
    pub queues_elsewhere: usize,
}

/// Dead letters were removed.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// How many.
    pub purged: u64,
    /// Whether there are more: a queue refused, and says why when it is asked again.
    pub more: bool,
    /// Queues of dead letters that other brokers lead.
    pub queues_elsewhere: usize,
}

/// A group is gone.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Its name.
    pub group: String,
    /// The incarnation that was removed, as text.
    pub group_id: String,
}
