//! `GET /groups` and `GET /groups/{group}`: consumer groups, who is in them, and how far they have come
//! in the queues that this broker leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use actix_web::{HttpResponse, web};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{GroupId, MemberId, QueueId, QueueKey, TopicId};
use grus_protocol::message::{DescribeGroup, DescribeGroupReply, GroupSummary};
use grus_protocol::names::GroupName;
use serde::Deserialize;

use super::group_shapes::{
    GroupItem, GroupPage, GroupQueueItem, GroupsPage, MemberItem, SettingsItem, SumsItem,
};
use super::{HttpParts, refused};
use crate::registry_link::routes::{Leader, Routes, TopicRoute};

/// Groups of an answer when nothing was said, and at most.
const GROUPS_DEFAULT: usize = 100;
const GROUPS_MAX: usize = 1_000;
/// Members, and queues, of an answer when nothing was said, and at most.
const PARTS_DEFAULT: usize = 200;
const PARTS_MAX: usize = 1_000;
/// Looks at shards for the sums of one answer: a group with more queues than that allows has none.
const LOOKS_MAX: usize = 256;
/// Of them, those for one group.
const LOOKS_EACH_MAX: usize = 64;

/// What may stand behind the `?` of `/groups`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupsQuery {
    after: Option<String>,
    max: Option<usize>,
}

/// What may stand behind the `?` of a group.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GroupQuery {
    /// Behind which queue to begin, as `next` said.
    after: Option<String>,
    max: Option<usize>,
    /// Behind which member to begin.
    members_after: Option<u64>,
    members_max: Option<usize>,
}

/// Serves `GET /groups`.
pub async fn groups(parts: web::Data<HttpParts>, query: web::Query<GroupsQuery>) -> HttpResponse {
    match list(&parts, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

/// Serves `GET /groups/{group}`.
pub async fn group(
    parts: web::Data<HttpParts>,
    path: web::Path<String>,
    query: web::Query<GroupQuery>,
) -> HttpResponse {
    match describe(&parts, &path, &query).await {
        Ok(page) => HttpResponse::Ok().json(page),
        Err(error) => refused(&error),
    }
}

/// A group's name, as a path has it.
pub(super) fn group_name(text: &str) -> Result<GroupName, ErrorReply> {
    GroupName::try_from(text)
        .map_err(|wrong| ErrorReply::new(ErrorCode::InvalidName, wrong.to_string()))
}

pub(super) fn invalid(text: impl Into<String>) -> ErrorReply {
    ErrorReply::new(ErrorCode::InvalidRequest, text)
}

fn count(
    name: &str,
    wanted: Option<usize>,
    default: usize,
    most: usize,
) -> Result<usize, ErrorReply> {
    let count = wanted.unwrap_or(default);
    if (1..=most).contains(&count) {
        return Ok(count);
    }
    Err(invalid(format!("{name} is a number from 1 to {most}")))
}

async fn list(parts: &HttpParts, query: &GroupsQuery) -> Result<GroupsPage, ErrorReply> {
    let most = count("max", query.max, GROUPS_DEFAULT, GROUPS_MAX)?;
    let after = query.after.as_deref().map(group_name).transpose()?;
    let routes = Arc::clone(&parts.routes.borrow());
    let mut wanted: Vec<_> = routes.groups(after.as_ref()).take(most + 1).collect();
    let has_more = wanted.len() > most;
    wanted.truncate(most);
    let next = wanted.last().filter(|_| has_more).map(|(name, _)| name.to_string());
    let summaries = parts.groups.summaries().await?;
    let coordinated: BTreeMap<GroupId, GroupSummary> =
        summaries.into_iter().map(|one| (one.group_id, one)).collect();
    let mut looks_left = LOOKS_MAX;
    let mut groups = Vec::with_capacity(wanted.len());
    for (name, topic) in wanted {
        let summary = coordinated.get(&GroupId::of(topic.id));
        let sums = sums_of(parts, topic, &mut looks_left).await;
        groups.push(GroupItem {
            group: name.to_string(),
            group_id: topic.id.to_string(),
            coordinator: coordinator_of(parts, topic),
            coordinated: summary.is_some(),
            settings: summary.map(|one| SettingsItem::from(&one.settings)),
            members: summary.map(|one| one.members),
            generation: summary.map(|one| one.generation.0),
            sums,
        });
    }
    Ok(GroupsPage { groups, next })
}

/// What a group has done here; none when that cannot be told now, or takes too many looks.
async fn sums_of(
    parts: &HttpParts,
    topic: &TopicRoute,
    looks_left: &mut usize,
) -> Option<SumsItem> {
    let looks_max = LOOKS_EACH_MAX.min(*looks_left);
    let (sums, looks) = parts.groups.sums_of(GroupId::of(topic.id), looks_max).await;
    *looks_left = looks_left.saturating_sub(looks);
    sums.as_ref().map(SumsItem::from)
}

/// The broker that coordinates a group; none while nobody does.
fn coordinator_of(parts: &HttpParts, topic: &TopicRoute) -> Option<u64> {
    let first = topic.queues.first()?;
    first.leader_id(parts.broker).map(|broker| broker.0)
}

async fn describe(
    parts: &HttpParts,
    name: &str,
    query: &GroupQuery,
) -> Result<GroupPage, ErrorReply> {
    let most = count("max", query.max, PARTS_DEFAULT, PARTS_MAX)?;
    let members_max = count("membersMax", query.members_max, PARTS_DEFAULT, PARTS_MAX)?;
    let after = |text: &String| place_of(text).ok_or_else(|| invalid("after is what next said"));
    let after = query.after.as_ref().map(after).transpose()?;
    let name = group_name(name)?;
    let topic = parts.groups.letters_topic(&name)?;
    let id = GroupId::of(topic.id);
    let known = match parts.groups.describe(DescribeGroup { group: name.clone() }).await {
        Ok(known) => Some(known),
        Err(error) if error.code == ErrorCode::NotLeader => None,
        Err(error) if error.retriable => None, // it is shown without its members
        Err(error) => return Err(error),
    };
    let mut looks_left = LOOKS_MAX;
    let sums = sums_of(parts, &topic, &mut looks_left).await;
    let progress = parts.groups.progress(id, after, most).await?;
    let owners: BTreeMap<QueueKey, (Option<MemberId>, Option<MemberId>)> = known
        .iter()
        .flat_map(|known| &known.queues)
        .map(|one| (QueueKey { topic: one.topic_id, queue: one.queue }, (one.member, one.next)))
        .collect();
    let of_letters = |queue: &&grus_protocol::message::QueueProgress| queue.topic_id == topic.id;
    let queues = progress.queues.iter().filter(|queue| !of_letters(queue)).map(|queue| {
        let key = QueueKey { topic: queue.topic_id, queue: queue.queue };
        GroupQueueItem::of(queue, known.as_ref().and_then(|_| owners.get(&key).copied()))
    });
    let queues: Vec<_> = queues.collect();
    let elsewhere = known.as_ref().map(|known| elsewhere(&parts.routes.borrow(), known));
    let (members, members_next) = members(known.as_ref(), query.members_after, members_max);
    Ok(GroupPage {
        group: GroupItem {
            group: name.to_string(),
            group_id: topic.id.to_string(),
            coordinator: coordinator_of(parts, &topic),
            coordinated: known.is_some(),
            settings: known.as_ref().map(|known| SettingsItem::from(&known.settings)),
            members: known
                .as_ref()
                .map(|known| u32::try_from(known.members.len()).unwrap_or(u32::MAX)),
            generation: known.as_ref().map(|known| known.generation.0),
            sums,
        },
        queues_elsewhere: elsewhere,
        member_list: members,
        members_next,
        queue_list: queues,
        next: progress.next.map(|place| format!("{}/{}", place.topic_id, place.queue)),
    })
}

/// Queues of the group that this broker does not lead, and cannot tell of.
fn elsewhere(routes: &Routes, known: &DescribeGroupReply) -> usize {
    let is_here = |one: &&grus_protocol::message::GroupQueue| {
        let topic = routes.get(&one.topic);
        let place = topic.and_then(|topic| topic.queues.get(one.queue.0 as usize));
        place.is_some_and(|place| place.leader == Leader::Here)
    };
    known.queues.iter().filter(|one| !is_here(one)).count()
}

/// A page of members, each with how many queues are its own, and behind which the next one begins.
fn members(
    known: Option<&DescribeGroupReply>,
    after: Option<u64>,
    most: usize,
) -> (Option<Vec<MemberItem>>, Option<u64>) {
    let Some(known) = known else { return (None, None) };
    let mut queues: BTreeMap<MemberId, u32> = BTreeMap::new();
    for member in known.queues.iter().filter_map(|queue| queue.member) {
        *queues.entry(member).or_default() += 1;
    }
    let behind = known.members.iter().filter(|one| after.is_none_or(|after| one.member.0 > after));
    let mut behind =
        behind.map(|one| MemberItem::of(one, queues.get(&one.member).copied().unwrap_or(0)));
    let page: Vec<_> = behind.by_ref().take(most).collect();
    let next = behind.next().and_then(|_| page.last().map(|last| last.member));
    (Some(page), next)
}

fn place_of(text: &str) -> Option<QueueKey> {
    let (topic, queue) = text.split_once('/')?;
    Some(QueueKey { topic: TopicId(topic.parse().ok()?), queue: QueueId(queue.parse().ok()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_and_nothing_else_is_one() {
        let key = QueueKey { topic: TopicId(u64::MAX), queue: QueueId(7) };
        assert_eq!(place_of(&format!("{}/{}", key.topic, key.queue)), Some(key));
        for wrong in ["", "1", "1/", "/1", "a/1", "1/-2", "1/2/3"] {
            assert_eq!(place_of(wrong), None, "{wrong}");
        }
    }
}
