//! Changing who belongs to a group.

use std::collections::BTreeSet;
use std::time::Duration;

use grus_log::Disk;
use openraft::ChangeMembers;
use openraft::async_runtime::AsyncRuntime;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::errors::{ClientWriteError, RaftError};
use thiserror::Error;

use crate::ballot::Standing;
use crate::config::Timings;
use crate::fault::Fault;
use crate::group::{Group, ProposeError};
use crate::machine::StateMachine;
use crate::peers::ask;
use crate::shared::Types;
use crate::types::{Member, NodeId, log_id_parts};
use crate::wire::{Reply, Request};

/// How far behind the commit index a learner may be to become a voter, in entries.
pub const PROMOTE_LAG_ENTRIES_MAX: u64 = 64;

/// Why the members were not changed.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ChangeError {
    /// The proposal failed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The learner has not caught up: it would make the group wait, or lose what it counts on.
    #[error("member {node} is at {matched:?}, durable at {durable:?}; committed is {committed}")]
    Behind {
        /// The learner.
        node: NodeId,
        /// Last entry it is known to have.
        matched: Option<u64>,
        /// Last entry it has on disk, as far as it answers.
        durable: Option<u64>,
        /// Last entry committed here.
        committed: u64,
    },
    /// Too few of those that would vote answer and have nearly all: the group would stand still.
    #[error("{here} of {of} that would vote are here")]
    Short {
        /// How many are.
        here: usize,
        /// How many would vote.
        of: usize,
    },
    /// The leader is not to remain, and none of those that are could take over.
    #[error("none of {asked} members that remain can lead now")]
    NoHeir {
        /// How many were asked.
        asked: usize,
    },
    /// The log of the leader cannot be given to a new member, and nobody else who could lead has one
    /// that can.
    #[error(
        "{why}, and of {asked} other voters that keep up none has a whole log and takes over ({unchecked} still \
         check theirs, {unknowing} cannot say, {resting} were asked to lead a moment ago): {}",
        advice(*.unchecked, *.unknowing, *.resting)
    )]
    Damaged {
        /// What is wrong with the leader's.
        why: String,
        /// How many others were asked.
        asked: usize,
        /// How many of them do not know yet.
        unchecked: usize,
        /// How many of them refuse to say, as those do whose build does not know the question.
        unknowing: usize,
        /// How many of them have a whole log, and are not asked to lead again for a while.
        resting: usize,
    },
    /// The change was refused.
    #[error("change of members refused: {0}")]
    Refused(String),
}

impl ChangeError {
    /// What can be done where the leader's log is damaged: it changes with what the others say.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            Self::Damaged { unchecked, unknowing, resting, .. } => {
                Some(advice(*unchecked, *unknowing, *resting))
            }
            _ => None,
        }
    }
}

/// Retention is waited for only where all have said that theirs is damaged as well.
fn advice(unchecked: usize, unknowing: usize, resting: usize) -> &'static str {
    if resting > 0 {
        "one whose log is whole is asked again, after a rest"
    } else if unknowing > 0 {
        "upgrade the members that cannot say, for theirs may be whole"
    } else if unchecked > 0 {
        "whether one takes over shows when they have checked"
    } else {
        "retention has to remove what is damaged"
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// Adds a member that receives the log and does not vote. A group that was started alone
    /// ([`Timings::ALONE`](crate::Timings::ALONE)) must be started again with the timings of a
    /// cluster first: its heartbeats are far too rare for followers.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId, address: &str) -> Result<(), ChangeError> {
        if self.inner.shared.config.timings == Timings::ALONE {
            let reason = "the group runs with the timings of a group of one".to_owned();
            return Err(ChangeError::Refused(reason));
        }
        let ahead = {
            let log = self.inner.shared.log.borrow();
            let trim = self.inner.shared.applied.borrow().own.trim.map(|trim| trim.index);
            log.floor().map(|floor| floor.index) > trim.max(log.purged().map(|id| id.index))
        };
        if ahead {
            // One that stands in for a damaged snapshot: a learner would never get what lies before.
            let reason = "the snapshot is ahead of the log that is kept: trim the log first";
            return Err(ChangeError::Refused(reason.to_owned()));
        }
        self.ensure_whole()?;
        self.sync_first().await?;
        let added = self.inner.raft.add_learner(node, Member::new(address), false).await;
        added.map(|_| ()).map_err(|error| self.change_error(error))
    }

    /// While one voter has learners these are given what it has committed by its own word alone: no entry of
    /// that may be lost with its kernel, or it would give their indexes to others.
    async fn sync_first(&self) -> Result<(), ChangeError> {
        let shared = &self.inner.shared;
        if !self.voters().into_iter().eq([shared.config.node]) {
            return Ok(());
        }
        shared.syncs_first.set(true);
        let last = shared.log.borrow().last().map(|id| id.index);
        loop {
            let done = shared.next_job_done();
            if shared.log.borrow().synced_index() >= last {
                return Ok(());
            }
            if self.inner.stopped.get() || shared.is_stopping() {
                return Err(self.stop_reason().into());
            }
            shared.log.borrow_mut().request_sync();
            shared.pump();
            done.await;
        }
    }

    /// Makes a learner a voter, when it has really caught up: what openraft asks for would be
    /// true at once for an empty member that nobody reaches.
    ///
    /// # Errors
    /// [`ChangeError::Behind`] when it has not.
    pub async fn promote_learner(&self, node: NodeId) -> Result<(), ChangeError> {
        self.ensure_caught_up(node).await?;
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([node])), true).await
    }

    /// Whether a learner may become a voter.
    pub(crate) async fn ensure_caught_up(&self, node: NodeId) -> Result<(), ChangeError> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let index = |id: &_| log_id_parts(id).1;
        let committed = metrics.local_committed.as_ref().map_or(0, index);
        let replication = metrics.replication.as_ref();
        let matched = replication.and_then(|all| all.get(&node).copied().flatten());
        let matched = matched.as_ref().map(index);
        let member = metrics.membership_config.get_node(&node);
        let address = member.map_or("", |member| member.addr.as_str());
        let limit = Duration::from_secs(1);
        let target = (node, address);
        let reply = ask::<RT>(&self.inner.peers, target, &Request::Standing, limit).await;
        let durable = match reply {
            Ok(Reply::Standing { standing, durable })
                if Standing::of_code(standing) == Some(Standing::Sound) =>
            {
                durable
            }
            _ => None,
        };
        let need = self.need();
        if matched.is_none_or(|at| at < need) || durable.is_none_or(|at| at < need) {
            return Err(ChangeError::Behind { node, matched, durable, committed });
        }
        Ok(())
    }

    /// Starts an election now, if this member may stand.
    ///
    /// # Errors
    /// [`ProposeError`] when this replica has stopped.
    pub async fn elect(&self) -> Result<(), ProposeError> {
        let asked = self.inner.raft.trigger().elect(false).await;
        asked.map_err(|_fatal| self.stop_reason())
    }

    /// The voters of the membership in force.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.inner.raft.metrics().borrow_watched().membership_config.voter_ids().collect()
    }

    /// The operator's word that a voter which does not answer is gone for good and remembered no
    /// more than the voters that lost their kernel: they elect without it.
    pub fn accept_loss(&self) {
        self.inner.shared.ballot.borrow_mut().accept_loss();
        self.inner.shared.keeper.notify_one();
    }

    pub(crate) fn change_error(
        &self,
        error: RaftError<Types<S, RT>, ClientWriteError<Types<S, RT>>>,
    ) -> ChangeError {
        match error {
            RaftError::Fatal(fatal) => {
                let fault = self.inner.shared.fault();
                let fault = fault.unwrap_or_else(|| Fault::Raft(fatal.to_string()));
                ProposeError::Fatal(fault).into()
            }
            RaftError::APIError(ClientWriteError::ForwardToLeader(to)) => {
                ProposeError::NotLeader { leader: to.leader_id }.into()
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(to)) => {
                ProposeError::Unknown { leader: to.leader_id }.into()
            }
            RaftError::APIError(error) => ChangeError::Refused(error.to_string()),
        }
    }
}
