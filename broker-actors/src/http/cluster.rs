//! `GET /cluster/shards`, `POST /cluster/hand-over` and `POST /cluster/replicas`: this broker's shards, giving them
//! away, and their members.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use grus_protocol::ids::{BrokerId, ShardId};
use grus_protocol::message::{ChangeReplicas, HandOverShards, MemberDescription, ShardDescription};
use grus_protocol::names::TopicName;
use serde::{Deserialize, Serialize};

use super::changes::is_meant;
use super::{HttpParts, error, refused};

/// One item of `GET /cluster/shards`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a field that is told")]
struct ShardItem {
    shard: u32,
    durability: String,
    replicated: bool,
    leads: bool,
    leader: Option<u64>,
    term: u64,
    queues: u32,
    last_index: Option<u64>,
    applied_index: Option<u64>,
    synced_index: Option<u64>,
    disk_full: bool,
    amnesiac: bool,
    members: Vec<MemberItem>,
    failed: Option<String>,
}

/// Another member, as the leader knows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberItem {
    broker: u64,
    matched_index: Option<u64>,
    heard_ms: Option<u64>,
    votes: bool,
}

impl From<&ShardDescription> for ShardItem {
    fn from(is: &ShardDescription) -> Self {
        let member = |is: &MemberDescription| MemberItem {
            broker: is.broker.0,
            matched_index: is.matched_index,
            heard_ms: is.heard_ms,
            votes: is.votes,
        };
        Self {
            shard: is.shard.0,
            durability: is.durability.to_string(),
            replicated: is.is_replicated,
            leads: is.leads,
            leader: is.leader.map(|leader| leader.0),
            term: is.term.0,
            queues: is.queues,
            last_index: is.last_index,
            applied_index: is.applied_index,
            synced_index: is.synced_index,
            disk_full: is.disk_full,
            amnesiac: is.is_amnesiac,
            members: is.members.iter().map(member).collect(),
            failed: is.failed.clone(),
        }
    }
}

/// Serves `GET /cluster/shards`.
pub async fn shards(parts: web::Data<HttpParts>) -> HttpResponse {
    let told = parts.cluster.describe().await;
    let items: Vec<ShardItem> = told.shards.iter().map(ShardItem::from).collect();
    HttpResponse::Ok().json(items)
}

/// What may stand behind the `?` of `/cluster/hand-over`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOverQuery {
    /// One shard; none: all.
    shard: Option<u32>,
    /// To whom.
    to: Option<u64>,
    /// Whether this broker is to lead none of them again before it is started anew; all of them: before that is undone.
    #[serde(default)]
    retire: bool,
    /// Whether that is to be undone.
    #[serde(default)]
    undo: bool,
}

/// What was handed over.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct WhatWentOver {
    handed_over: Vec<u32>,
    kept: Vec<u32>,
    /// Whether the broker is drained now.
    drained: bool,
}

/// Serves `POST /cluster/hand-over`.
pub async fn hand_over(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    query: web::Query<HandOverQuery>,
) -> HttpResponse {
    if let Err(why) = is_meant(&request) {
        return error(StatusCode::FORBIDDEN, why);
    }
    let HandOverQuery { shard, to, retire, undo } = query.into_inner();
    let shards = shard.map(ShardId).into_iter().collect();
    let ask = HandOverShards { shards, to: to.map(BrokerId), retire, undo };
    let table = parts.table.borrow().clone();
    match parts.cluster.hand_over(ask, &table).await {
        Err(error) => refused(&error),
        Ok(done) => {
            let numbers = |shards: &[ShardId]| shards.iter().map(|shard| shard.0).collect();
            let (handed_over, kept) = (numbers(&done.handed_over), numbers(&done.kept));
            let drained = parts.cluster.drained.is_set();
            HttpResponse::Ok().json(WhatWentOver { handed_over, kept, drained })
        }
    }
}

/// What may stand behind the `?` of `/cluster/replicas`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicasQuery {
    /// A shard.
    shard: Option<u32>,
    /// The shards that have queues of this topic.
    topic: Option<String>,
    /// The broker that is to be a member.
    add: Option<u64>,
    /// The broker that is not to be one.
    remove: Option<u64>,
    /// How many members each is to have at least.
    #[serde(default)]
    replicas: u32,
}

impl ReplicasQuery {
    /// Whether it says what is to be done, and with which shards: what names neither would change nothing, and
    /// say that this is done.
    fn check(&self) -> Result<(), &'static str> {
        if self.add.is_none() && self.remove.is_none() && self.replicas == 0 {
            return Err("what is to be done: `add`, `remove` or `replicas` is needed");
        }
        if self.shard.is_none() && self.topic.is_none() && self.replicas == 0 {
            return Err("of which shards: `shard` or `topic` is needed");
        }
        Ok(())
    }
}

/// Which shards are to change.
#[derive(Debug, Clone, Serialize)]
struct Changing {
    changing: Vec<u32>,
}

/// Serves `POST /cluster/replicas`.
pub async fn replicas(
    request: HttpRequest,
    parts: web::Data<HttpParts>,
    query: web::Query<ReplicasQuery>,
) -> HttpResponse {
    if let Err(why) = is_meant(&request) {
        return error(StatusCode::FORBIDDEN, why);
    }
    if let Err(why) = query.check() {
        return error(StatusCode::BAD_REQUEST, why);
    }
    let ReplicasQuery { shard, topic, add, remove, replicas } = query.into_inner();
    let topic = match topic.as_deref().map(TopicName::try_from).transpose() {
        Ok(topic) => topic,
        Err(why) => return error(StatusCode::BAD_REQUEST, why.to_string()),
    };
    let shards = shard.map(ShardId).into_iter().collect();
    let (add, remove) = (add.map(BrokerId), remove.map(BrokerId));
    let ask = ChangeReplicas { shards, topic, add, remove, replicas };
    match parts.cluster.change_replicas(ask).await {
        Err(error) => refused(&error),
        Ok(done) => {
            let changing = done.shards.iter().map(|shard| shard.0).collect();
            HttpResponse::Ok().json(Changing { changing })
        }
    }
}
