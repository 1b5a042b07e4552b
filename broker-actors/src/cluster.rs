//! How this broker's shards are, and which of them it gives away: what the protocol and HTTP say alike.
//! Cheap to clone; no state of its own.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use grus_consensus::MemberLag;
use grus_mailbox::{Inbox, reply};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::ids::{BrokerId, ShardId, Term};
use grus_protocol::message::{
    ChangeReplicas, ChangeReplicasReply, DescribeShardsReply, HandOverShards, HandOverShardsReply,
    MemberDescription, ShardDescription,
};
use grus_registry::{RegistryError, RegistryRequest, RoutingTable};
use tokio::sync::watch;

use crate::dispatch::peers::MemberDoors;
use crate::drained::Drained;
use crate::member::{HandOver, Reason};
use crate::shard::{FailedShard, FailedShards, ShardSet, ShardStatus};
use crate::statuses::shard_statuses;

/// Longest wait for the members here to say whether another one leads.
const HAND_OVER_MAX: Duration = Duration::from_secs(5);

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// This broker.
    pub broker: BrokerId,
    /// Its shards.
    pub shards: ShardSet,
    /// Those that it is a member of.
    pub members: watch::Receiver<MemberDoors>,
    /// Those whose members it cannot start.
    pub failed: watch::Receiver<FailedShards>,
    /// Who says which members a shard is to have.
    pub registry: Inbox<RegistryRequest>,
    /// Whether it is drained.
    pub drained: Drained,
}

impl Cluster {
    /// How its shards are.
    pub async fn describe(&self) -> DescribeShardsReply {
        let statuses = shard_statuses(&self.shards.all()).await;
        let mut shards: Vec<_> = statuses.iter().map(description).collect();
        let failed = self.failed.borrow().clone();
        shards.extend(failed.iter().map(|(shard, why)| of_failed(*shard, why)));
        shards.sort_by_key(|shard| shard.shard);
        let drained = Some(self.drained.is_set());
        DescribeShardsReply { broker: self.broker, shards, drained }
    }

    /// Gives shards to other members, drains the broker, or undoes that.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidRequest`] for a shard that this broker is no member of, or whose member the one
    /// that is to lead is not, as far as the routes say, or where a drain is undone beside something else;
    /// [`ErrorCode::Unavailable`] where it cannot be noted that the broker is drained, or is not.
    pub async fn hand_over(
        &self,
        ask: HandOverShards,
        table: &RoutingTable,
    ) -> Result<HandOverShardsReply, ErrorReply> {
        let Some(why) = reason(&ask)? else {
            return self.undo_drain().await;
        };
        // Noted first: whoever is told that the broker is drained finds it so, whatever happens next.
        let noted = if why == Reason::Drained { self.drain().await } else { Ok(()) };
        let reply = self.give_away(&ask, why, table).await?;
        noted.map(|()| reply)
    }

    /// Drains the broker.
    async fn drain(&self) -> Result<(), ErrorReply> {
        tracing::info!("this broker is drained: it leads nothing that another one can");
        self.drained.set(true).await.map_err(|error| {
            let broker = self.broker;
            let text =
                format!("broker {broker} is drained only until it is started again: {error}");
            ErrorReply::new(ErrorCode::Unavailable, text)
        })
    }

    /// Has the broker lead again.
    async fn undo_drain(&self) -> Result<HandOverShardsReply, ErrorReply> {
        self.drained.set(false).await.map_err(|error| {
            let text = format!("broker {} stays drained: {error}", self.broker);
            ErrorReply::new(ErrorCode::Unavailable, text)
        })?;
        tracing::info!("this broker is drained no more");
        Ok(HandOverShardsReply { handed_over: Vec::new(), kept: Vec::new() })
    }

    /// Gives shards to other members.
    async fn give_away(
        &self,
        ask: &HandOverShards,
        why: Reason,
        table: &RoutingTable,
    ) -> Result<HandOverShardsReply, ErrorReply> {
        let doors = self.members.borrow().clone();
        let shards = wanted(ask, self.broker, &doors.keys().copied().collect(), table)?;
        let asked = shards.into_iter().filter_map(|shard| Some((shard, doors.get(&shard)?)));
        let asked = asked.map(|(shard, door)| async move {
            let (port, answer) = reply::port();
            let hand_over = HandOver { to: ask.to, why, reply: port };
            if door.hand_over.try_put(hand_over).is_err() {
                return (shard, false);
            }
            let answer = tokio::time::timeout(HAND_OVER_MAX, answer).await;
            (shard, matches!(answer, Ok(Ok(true))))
        });
        let mut reply = HandOverShardsReply { handed_over: Vec::new(), kept: Vec::new() };
        for (shard, done) in join_all(asked).await {
            if done { &mut reply.handed_over } else { &mut reply.kept }.push(shard);
        }
        Ok(reply)
    }
}

impl Cluster {
    /// Has the registry note that shards are to have other members.
    ///
    /// # Errors
    /// What the registry says; [`ErrorCode::Unavailable`] when it is busy, or does not answer.
    pub async fn change_replicas(
        &self,
        ask: ChangeReplicas,
    ) -> Result<ChangeReplicasReply, ErrorReply> {
        let (reply, answer) = reply::port();
        let busy = || RegistryError::Busy.to_reply();
        let asked = self.registry.try_put(RegistryRequest::ChangeReplicas { change: ask, reply });
        asked.map_err(|_| busy())?;
        let answer = answer.await.map_err(|_| busy())?;
        let shards = answer.map_err(|error| error.to_reply())?;
        Ok(ChangeReplicasReply { shards })
    }
}

/// Why shards are to be handed over; none: nothing is, as a drain is to be undone. All that a broker leads, whoever
/// takes it, is a drain; some shards alone, or those that one broker can take, are given up until the next start.
fn reason(ask: &HandOverShards) -> Result<Option<Reason>, ErrorReply> {
    let is_all = ask.shards.is_empty() && ask.to.is_none();
    match (ask.undo, ask.retire) {
        (true, false) if is_all => Ok(None),
        (true, _) => {
            let text = "a drain is undone for the whole broker: nothing else is named beside it";
            Err(ErrorReply::new(ErrorCode::InvalidRequest, text))
        }
        (false, true) if is_all => Ok(Some(Reason::Drained)),
        (false, true) => Ok(Some(Reason::Retired)),
        (false, false) => Ok(Some(Reason::Moved)),
    }
}

/// The shards that are to be handed over: those that are named, or all.
fn wanted(
    ask: &HandOverShards,
    own: BrokerId,
    here: &BTreeSet<ShardId>,
    table: &RoutingTable,
) -> Result<BTreeSet<ShardId>, ErrorReply> {
    let refused = |text: String| Err(ErrorReply::new(ErrorCode::InvalidRequest, text));
    let is_on = |shard: &ShardId, broker: BrokerId| {
        table.shards.get(shard).is_some_and(|place| place.members.contains(&broker))
    };
    if ask.to == Some(own) {
        return refused(format!("broker {own} is the one that hands over"));
    }
    for shard in &ask.shards {
        if !here.contains(shard) {
            return refused(format!("broker {own} has no member of shard {shard}"));
        }
        if let Some(to) = ask.to.filter(|to| !is_on(shard, *to)) {
            return refused(format!("broker {to} has no member of shard {shard}"));
        }
    }
    if !ask.shards.is_empty() {
        return Ok(ask.shards.iter().copied().collect());
    }
    let fits = |shard: &&ShardId| ask.to.is_none_or(|to| is_on(shard, to));
    Ok(here.iter().filter(fits).copied().collect())
}

fn description(status: &ShardStatus) -> ShardDescription {
    let member = |lag: &MemberLag| MemberDescription {
        broker: BrokerId(lag.node),
        matched_index: lag.matched,
        heard_ms: lag.heard.map(|heard| u64::try_from(heard.as_millis()).unwrap_or(u64::MAX)),
        votes: lag.votes,
    };
    ShardDescription {
        shard: status.shard,
        durability: status.durability,
        is_replicated: status.is_replicated,
        leads: status.leads,
        leader: status.leader.map(BrokerId),
        term: status.term,
        queues: u32::try_from(status.queues).unwrap_or(u32::MAX),
        last_index: status.last_index,
        applied_index: status.applied_index,
        synced_index: status.synced_index,
        disk_full: status.disk_full,
        is_amnesiac: status.is_amnesiac,
        members: status.lags.iter().map(member).collect(),
        failed: None,
    }
}

/// Of one that is not here, though it should be.
fn of_failed(shard: ShardId, failed: &FailedShard) -> ShardDescription {
    ShardDescription {
        shard,
        durability: failed.durability,
        is_replicated: true,
        leads: false,
        leader: None,
        term: Term(0),
        queues: 0,
        last_index: None,
        applied_index: None,
        synced_index: None,
        disk_full: false,
        is_amnesiac: false,
        members: Vec::new(),
        failed: Some(failed.why.clone()),
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::Durability;
    use grus_registry::ShardPlace;

    use super::*;

    const OWN: BrokerId = BrokerId(1);

    fn judge(shards: &[u32], to: Option<u64>) -> Result<Vec<u32>, String> {
        let mut table = RoutingTable::default();
        for (shard, members) in [(4, [1, 2, 3]), (5, [1, 3, 4]), (6, [2, 3, 4])] {
            let alone = ShardPlace::alone(Durability::Persisted, BrokerId(2));
            let members = members.map(BrokerId).to_vec();
            table.shards.insert(ShardId(shard), ShardPlace { members, ..alone });
        }
        let shards = shards.iter().copied().map(ShardId).collect();
        let ask = HandOverShards { shards, to: to.map(BrokerId), retire: false, undo: false };
        let here = BTreeSet::from([ShardId(4), ShardId(5)]);
        let wanted = wanted(&ask, OWN, &here, &table).map_err(|error| error.message)?;
        Ok(wanted.iter().map(|shard| shard.0).collect())
    }

    #[test]
    fn all_that_a_broker_leads_is_a_drain_and_that_is_undone_by_itself() {
        let reason = |shards: &[u32], to: Option<u64>, retire, undo| {
            let shards = shards.iter().copied().map(ShardId).collect();
            let ask = HandOverShards { shards, to: to.map(BrokerId), retire, undo };
            reason(&ask).map_err(|error| error.code)
        };
        assert_eq!(reason(&[], None, true, false), Ok(Some(Reason::Drained)));
        assert_eq!(reason(&[4], None, true, false), Ok(Some(Reason::Retired)));
        assert_eq!(reason(&[], Some(2), true, false), Ok(Some(Reason::Retired)));
        assert_eq!(reason(&[], None, false, false), Ok(Some(Reason::Moved)));
        assert_eq!(reason(&[], None, false, true), Ok(None));
        for (shards, to, retire) in
            [(&[4][..], None, false), (&[], Some(2), false), (&[], None, true)]
        {
            assert_eq!(reason(shards, to, retire, true), Err(ErrorCode::InvalidRequest));
        }
    }

    #[test]
    fn what_is_handed_over_is_here_and_goes_to_a_member() {
        assert_eq!(judge(&[], None), Ok(vec![4, 5]));
        assert_eq!(judge(&[], Some(2)), Ok(vec![4]), "all of which it is a member");
        assert_eq!(judge(&[5], Some(4)), Ok(vec![5]));
        for (shards, to, why) in [
            (&[6][..], None, "broker 1 has no member of shard 6"),
            (&[4, 5], Some(2), "broker 2 has no member of shard 5"),
            (&[4], Some(9), "broker 9 has no member of shard 4"),
            (&[], Some(1), "broker 1 is the one that hands over"),
        ] {
            assert_eq!(judge(shards, to), Err(why.to_owned()));
        }
    }
}
