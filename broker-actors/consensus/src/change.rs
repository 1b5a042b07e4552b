//! Bringing a group to the members that it is to have, one safe step after the other.
//!
//! The leader takes the steps; each looks at what is there, so that the next leader goes on where one
//! was killed. What is to be is said by somebody else (the registry), again and again:
//! 1. a change that is half made is finished (the second entry of a joint one);
//! 2. who is to be a member and is none becomes a learner: it gets the snapshot, then the log;
//! 3. when all of them have caught up, are durable and sound, and enough of those that remain answer,
//!    the voters are changed as a whole, through a joint configuration;
//! 4. a leader whose log is damaged gives its leadership to one whose log is whole, before it takes anybody in,
//!    and also when it comes to lead while a learner has not got yet what is damaged;
//! 5. a leader that is not to remain gives its leadership to one that is, before the voters change;
//! 6. learners that are not to be members are let go.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use grus_log::Disk;
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _};

use crate::config::LEASE_DRIFT;
use crate::group::{Group, InstantOf, ProposeError};
use crate::machine::StateMachine;
use crate::members::{ChangeError, PROMOTE_LAG_ENTRIES_MAX};
use crate::peers::{PeerError, Peers, ask};
use crate::runtime::GroupRuntime;
use crate::types::{Member, NodeId, StoredMembership, log_id_parts};
use crate::whole::Wholeness;
use crate::wire::{Reply, Request};

/// A member that has all that was committed so long ago, or up to twice so long, has nearly all.
const PACE: Duration = Duration::from_millis(500);

/// Who belongs to a group, as one of its members knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Members {
    /// Index of the entry that says so; later lists have greater ones. None: there is no list yet.
    pub index: Option<u64>,
    /// Who votes; while they are changed, those of before and those to be.
    pub voters: BTreeSet<NodeId>,
    /// Who gets the log and does not vote.
    pub learners: BTreeSet<NodeId>,
    /// Who is to vote once a change that is half made is finished; else who votes.
    pub goal: BTreeSet<NodeId>,
    /// Whether that is committed, and no half of a change.
    pub is_settled: bool,
}

impl Members {
    pub(crate) fn of(membership: &StoredMembership, is_committed: bool) -> Self {
        let configs = membership.membership().get_joint_config();
        Self {
            index: membership.log_id().as_ref().map(|id| log_id_parts(id).1),
            voters: membership.voter_ids().collect(),
            learners: membership.membership().learner_ids().collect(),
            goal: configs.last().cloned().unwrap_or_default(),
            is_settled: is_committed && configs.len() == 1,
        }
    }

    /// Whether a node is a voter or a learner.
    pub fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// Whether a node votes by each of these lists and by both halves of one that is half made. Until it does by
/// the last list and by the last one that is committed, a majority may be needed in which it does not count.
pub(crate) fn votes_by_all(node: NodeId, lists: [&StoredMembership; 2]) -> bool {
    let halves = |list: &StoredMembership| list.membership().get_joint_config().clone();
    lists.into_iter().flat_map(halves).all(|voters| voters.contains(&node))
}

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approach {
    /// The members are those that were asked for.
    There,
    /// A step was taken; ask again for the next one.
    Step,
    /// Another one leads from here on, and has to be asked.
    HandedOver,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// The members as this one knows them: those of the last list in its log.
    pub fn members(&self) -> Members {
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let (now, committed) = (&metrics.membership_config, &metrics.committed_membership_config);
        Members::of(now, now.log_id() == committed.log_id())
    }

    /// Takes one step towards these voters and no learners, where this member leads. Give it the same
    /// list until it is there: a crash between two steps loses none.
    ///
    /// # Errors
    /// [`ChangeError`]: `Behind` and `Short` end by themselves, ask again later; of `Propose` those that
    /// leave the outcome open do no harm, as the next step looks at what is there.
    pub async fn approach(&self, wanted: &BTreeSet<NodeId>) -> Result<Approach, ChangeError> {
        if wanted.is_empty() {
            return Err(ChangeError::Refused("a group has at least one member".to_owned()));
        }
        let status = self.status();
        if !status.ready {
            return Err(ProposeError::NotLeader { leader: status.leader }.into());
        }
        let now = self.members();
        if !now.is_settled {
            // Also refused while the last list is not committed yet: then there is nothing but to wait.
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), false).await?;
            return Ok(Approach::Step);
        }
        if let Some(new) = wanted.iter().find(|node| !now.contains(**node)) {
            if let Wholeness::Damaged(why) = self.wholeness() {
                return self.leave_to_a_whole_one(why).await;
            }
            self.add_learner(*new, "").await?;
            return Ok(Approach::Step);
        }
        if now.voters != *wanted {
            if let Wholeness::Damaged(why) = self.wholeness()
                && self.would_read_damage(wanted.difference(&now.voters)).await
            {
                return self.leave_to_a_whole_one(why).await;
            }
            return self.approach_voters(wanted, &now).await;
        }
        let surplus: BTreeSet<NodeId> = now.learners.difference(wanted).copied().collect();
        if surplus.is_empty() {
            self.inner.shared.end_sync_first(); // no voter is alone with learners any more
            return Ok(Approach::There);
        }
        self.change(ChangeMembers::RemoveNodes(surplus), false).await?;
        Ok(Approach::Step)
    }

    /// All that are to vote are members.
    async fn approach_voters(
        &self,
        wanted: &BTreeSet<NodeId>,
        now: &Members,
    ) -> Result<Approach, ChangeError> {
        let term = self.status().term;
        for node in wanted.intersection(&now.learners) {
            self.ensure_caught_up(*node).await?;
        }
        let node = self.inner.shared.config.node;
        let mut goal = wanted.clone();
        if !wanted.contains(&node) {
            let near = self.near();
            let is_heir = |heir: &&NodeId| now.voters.contains(heir) && near.contains(heir);
            let heirs: Vec<NodeId> = wanted.iter().filter(is_heir).copied().collect();
            for heir in &heirs {
                // Whoever leads while it is let go has no lease, and serves nobody.
                if self.hand_over(Some(*heir)).await || !self.status().is_leader {
                    return Ok(Approach::HandedOver);
                }
            }
            if !heirs.is_empty() {
                return Err(ChangeError::NoHeir { asked: heirs.len() });
            }
            goal.insert(node); // none of them can lead yet: it remains until one does
        }
        self.ensure_kept(&goal)?;
        if self.status().term != term || self.members().index != now.index {
            // What was heard of the learners is of another reign, or of other members.
            return Err(ChangeError::Refused("the members have changed meanwhile".to_owned()));
        }
        if goal != now.voters {
            self.change(ChangeMembers::ReplaceAllVoters(goal), false).await?;
        }
        Ok(Approach::Step)
    }

    /// The other members that answer and have nearly all that is committed.
    pub(crate) fn near(&self) -> BTreeSet<NodeId> {
        let limit = self.inner.shared.config.election_timeout().saturating_sub(LEASE_DRIFT);
        let need = self.need();
        let lags = self.lags().into_iter();
        let is_near = lags.filter(|lag| {
            lag.heard.is_some_and(|since| since < limit) && lag.matched.is_some_and(|at| at >= need)
        });
        is_near.map(|lag| lag.node).collect()
    }

    /// What a member must have to count as one that has nearly all: all but some entries, or all that was
    /// committed a moment ago. Small entries come by the thousand while an answer is on its way.
    pub(crate) fn need(&self) -> u64 {
        let committed = self.status().committed.unwrap_or(0);
        let (now, [mut before, mut last]) = (InstantOf::<RT>::now(), self.inner.paces.get());
        let age = |at: InstantOf<RT>| now.saturating_duration_since(at);
        if last.is_none_or(|(at, _)| age(at) >= PACE) {
            (before, last) = (last, Some((now, committed)));
            self.inner.paces.set([before, last]);
        }
        let by_entries = committed.saturating_sub(PROMOTE_LAG_ENTRIES_MAX);
        let moment = before.filter(|(at, _)| age(*at) <= PACE * 2);
        moment.map_or(by_entries, |(_, index)| by_entries.min(index))
    }

    /// A majority of those that will vote must be here now: the change, and all that comes behind it,
    /// would wait for them, and nothing could take it back.
    fn ensure_kept(&self, goal: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let near = self.near();
        let node = self.inner.shared.config.node;
        let here = goal.iter().filter(|id| **id == node || near.contains(id)).count();
        if here * 2 > goal.len() {
            return Ok(());
        }
        Err(ChangeError::Short { here, of: goal.len() })
    }
}

/// Asks a member who belongs to its group. Only a leader answers that a majority has just confirmed,
/// with a list that is committed; `None` from any other one. A member that was stopped before it was
/// asked about, and is not in the list, is out: it cannot have become a voter again without having
/// been asked how much it has.
///
/// # Errors
/// [`PeerError`] when it does not answer within `limit`.
pub async fn ask_members(
    peers: &Rc<dyn Peers>,
    to: NodeId,
    limit: Duration,
) -> Result<Option<Members>, PeerError> {
    match ask::<GroupRuntime>(peers, (to, ""), &Request::Members, limit).await {
        Ok(Reply::Members { membership }) => Ok(Some(Members::of(&membership, true))),
        Ok(_) => Ok(None),
        Err(error) => Err(PeerError { node: to, reason: error.to_string() }),
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// What [`ask_members`] is answered.
    pub(crate) async fn on_members(&self) -> Reply {
        if !matches!(self.on_read_index().await, Reply::ReadIndex { .. }) {
            return Reply::Refused;
        }
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let now = &metrics.membership_config;
        if now.log_id() != metrics.committed_membership_config.log_id() {
            return Reply::Refused;
        }
        Reply::Members { membership: StoredMembership::clone(now) }
    }

    pub(crate) async fn change(
        &self,
        change: ChangeMembers<NodeId, Member>,
        retain: bool,
    ) -> Result<(), ChangeError> {
        let changed = self.inner.raft.change_membership(change, retain).await;
        changed.map(|_| ()).map_err(|error| self.change_error(error))
    }
}
