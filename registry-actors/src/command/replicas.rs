//! Commands about shards of several members.

use grus_protocol::ids::{BrokerId, Durability, ShardId, Term};
use grus_protocol::message::ShardMembership;
use grus_protocol::names::TopicName;
use serde::{Deserialize, Serialize};

/// A broker leads replicated shards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeadShards {
    /// The broker.
    pub broker: BrokerId,
    /// The shards, each with the term in which it leads: what is not newer than what is known, or no
    /// shard of the broker's, is left out.
    pub shards: Vec<(ShardId, Term)>,
    /// What it tells of their members; none: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<ToldMembers>,
}

/// The voters of a shard that are committed, as its leader tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToldMembers {
    /// The shard; its leader's term stands in [`LeadShards::shards`].
    pub shard: ShardId,
    /// The voters.
    pub members: Vec<BrokerId>,
    /// Index of the entry that they are of.
    pub at: u64,
}

/// Shards are to have other members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeReplicas {
    /// The shards.
    pub shards: Vec<ShardId>,
    /// Beside them, those that have queues of this topic.
    pub topic: Option<TopicName>,
    /// Who is to be a member of each.
    pub add: Option<BrokerId>,
    /// Who is not to be one of any.
    pub remove: Option<BrokerId>,
}

/// Shards are to have more members, whichever brokers have room for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowReplicas {
    /// The shards. Neither these nor a topic: all that have queues.
    pub shards: Vec<ShardId>,
    /// Beside them, those that have queues of this topic, and those where groups that read them are
    /// coordinated.
    pub topic: Option<TopicName>,
    /// How many members each is to have at least.
    pub replicas: u32,
}

/// A shard of several members, as one of them knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MembershipClaim {
    /// The shard.
    pub shard: ShardId,
    /// What an acknowledgement of it promises.
    pub durability: Durability,
    /// Its members, the one who says so among them.
    pub members: Vec<BrokerId>,
    /// Which group it is.
    pub group: u64,
    /// See [`ShardPlace::wanted`](crate::ShardPlace::wanted).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<BrokerId>,
    /// See [`ShardPlace::members_at`](crate::ShardPlace::members_at).
    #[serde(default, skip_serializing_if = "is_founding")]
    pub members_at: u64,
}

impl From<ShardMembership> for MembershipClaim {
    fn from(membership: ShardMembership) -> Self {
        let ShardMembership { shard, durability, members, group, wanted, members_at } = membership;
        Self { shard, durability, members, group, wanted, members_at }
    }
}

impl From<MembershipClaim> for ShardMembership {
    fn from(claim: MembershipClaim) -> Self {
        let MembershipClaim { shard, durability, members, group, wanted, members_at } = claim;
        Self { shard, durability, members, group, wanted, members_at }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_founding(at: &u64) -> bool {
    *at == 0
}
