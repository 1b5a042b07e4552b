//! Giving leadership away before a planned stop, so that nobody has to wait for an election.

use std::time::Duration;

use futures_util::future::{Either, select};
use grus_log::Disk;
use openraft::async_runtime::AsyncRuntime;
use openraft::async_runtime::watch::WatchReceiver as _;

use crate::config::LEASE_DRIFT;
use crate::group::Group;
use crate::machine::StateMachine;
use crate::status::MemberLag;
use crate::types::{NodeId, log_id_parts};

/// How long a successor may take to be heard of.
const SUCCESSION_MAX: Duration = Duration::from_millis(1_500);

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// From here on this member does not stand for election, and takes over from nobody: it is about to
    /// be stopped. It goes on voting and following.
    pub fn retire(&self) {
        self.inner.retiring.set(true);
        self.inner.shared.keeper.notify_one();
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.inner.retiring.get()
    }

    /// Hands leadership to another voter: to `to`, or to the one that has most of the log of those that
    /// were heard of within one election timeout. Ends once another one leads: at once where this member
    /// does not lead, and without success where there is nobody to lead or none does so in time. A leader
    /// that has asked for a successor takes no entries any more in its term: another member's election
    /// ends it. True if this member does not lead.
    pub async fn hand_over(&self, to: Option<NodeId>) -> bool {
        let node = self.inner.shared.config.node;
        if !self.status().is_leader {
            return true;
        }
        let Some(to) = to.or_else(|| self.successor()) else { return false };
        if self.transfer_leader(to).await.is_err() {
            return false;
        }
        let mut watch = self.watch();
        let succeeded =
            watch.wait_for(|now| now.stopped || now.leader.is_some_and(|led| led != node));
        let late = RT::sleep(SUCCESSION_MAX);
        match select(std::pin::pin!(succeeded), std::pin::pin!(late)).await {
            Either::Left(_) => true,
            Either::Right(_) => {
                let shard = self.inner.shared.config.shard.0;
                // openraft knows no way back in this term: an election of another member ends it.
                tracing::warn!(shard, to, "did not take over in time; another member has to");
                false
            }
        }
    }

    /// Whom to hand leadership to.
    fn successor(&self) -> Option<NodeId> {
        let limit = self.inner.shared.config.election_timeout().saturating_sub(LEASE_DRIFT);
        let voters = self.voters();
        let lags = self.lags();
        let heard = lags.iter().filter(|member| voters.contains(&member.node));
        let heard = heard.filter(|member| member.heard.is_some_and(|since| since < limit));
        heard.max_by_key(|member| member.matched).map(|member| member.node)
    }

    /// How far the other members are, voters and learners, where this one leads; else nothing.
    pub fn lags(&self) -> Vec<MemberLag> {
        use openraft::async_runtime::Instant as _;
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let (Some(matched), Some(heard)) = (&metrics.replication, &metrics.heartbeat) else {
            return Vec::new();
        };
        let others = matched.iter().filter(|(node, _)| **node != self.inner.shared.config.node);
        let lag = |(node, at): (&NodeId, &Option<_>)| MemberLag {
            node: *node,
            matched: at.as_ref().map(|id| log_id_parts(id).1),
            heard: heard.get(node).copied().flatten().map(|at| at.elapsed()),
        };
        others.map(lag).collect()
    }
}
