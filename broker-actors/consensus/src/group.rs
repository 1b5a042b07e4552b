//! A replicated group on one arbiter: the handle everything above this crate uses.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::select;
use grus_log::{CheckpointData, Disk, EntryId, JobDone, Log, Recovered};
use openraft::Raft;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _, Oneshot};
use openraft::errors::ClientWriteError;
use openraft::impls::OneshotResponder;
use thiserror::Error;
use tokio::sync::watch;

use crate::applier::Applier;
use crate::apply::Applied;
use crate::ballot::{Ballot, Standing};
use crate::config::{GroupConfig, LEASE_DRIFT};
use crate::fault::{Fault, StartError};
use crate::floor;
use crate::hand_over::HandedOver;
use crate::jobs::JobPort;
use crate::keeper;
use crate::log_store::LogStore;
use crate::machine::{AppliedReply, NewItem, StateMachine};
use crate::own::{self, SealPoint};
use crate::payload::{self, Command, Reserved};
use crate::peers::{Links, Peers};
use crate::replica::state_of;
use crate::runtime::GroupRuntime;
use crate::shared::{ENTRY_OVERHEAD_BYTES, Shared, Types};
use crate::status::{Leadership, Status, lease_left};
use crate::transfer::Incoming;
use crate::types::{NodeId, Outcome, RaftVote, log_id_parts};
use crate::whole::{Rest, damage_for};
use crate::withheld::Withheld;

pub(crate) type RaftOf<S, D, RT> = Raft<Types<S, RT>, Applier<S, D, RT>>;
pub(crate) type InstantOf<RT> = <RT as AsyncRuntime>::Instant;
/// What was committed at a moment, if it was looked at.
pub(crate) type Pace<RT> = Option<(InstantOf<RT>, u64)>;

/// Why a proposal was not applied.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
pub enum ProposeError {
    /// This member does not lead. Nothing was written.
    #[error("not the leader")]
    NotLeader {
        /// The leader as this member knows it.
        leader: Option<NodeId>,
    },
    /// The log has no room now. Nothing was written; try again when there is.
    #[error("no room in the log")]
    Full,
    /// More bytes than an entry may hold. Nothing was written.
    #[error("{bytes} bytes in one entry, at most {bytes_max}")]
    TooLarge {
        /// Bytes of the proposal.
        bytes: u64,
        /// Bytes an entry may hold.
        bytes_max: u64,
    },
    /// Leadership was lost with the entry under way: it may be applied, or may never be.
    #[error("leadership was lost, the outcome is not known")]
    Unknown {
        /// The leader as this member knows it.
        leader: Option<NodeId>,
    },
    /// The group was stopped. An entry under way may or may not be applied.
    #[error("group has stopped")]
    Stopped,
    /// The replica stopped for good. An entry under way may or may not be applied.
    #[error("replica has failed: {0}")]
    Fatal(Fault),
}

/// A replicated group. Cheap to clone; lives on the arbiter it was started on.
pub struct Group<S: StateMachine, D: Disk, RT: AsyncRuntime = GroupRuntime> {
    pub(crate) inner: Rc<Inner<S, D, RT>>,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Clone for Group<S, D, RT> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

pub(crate) struct Inner<S: StateMachine, D: Disk, RT: AsyncRuntime> {
    pub(crate) shared: Rc<Shared<S, D, RT>>,
    pub(crate) raft: RaftOf<S, D, RT>,
    pub(crate) peers: Rc<dyn Peers>,
    pub(crate) started: InstantOf<RT>,
    pub(crate) leadership: watch::Sender<Leadership>,
    pub(crate) stopped: Cell<bool>,
    /// What came of the last wish for a successor is not known yet.
    pub(crate) handed_over: Cell<Option<HandedOver<InstantOf<RT>>>>,
    /// Who was asked to lead as the log here is damaged, and is not asked again for a while.
    pub(crate) rests: RefCell<BTreeMap<NodeId, Rest<InstantOf<RT>>>>,
    /// Who gets nothing of the log here as it is damaged.
    pub(crate) withheld: Rc<Withheld>,
    /// What was committed at two moments, see [`Group::need`].
    pub(crate) paces: Cell<[Pace<RT>; 2]>,
    /// Searches for a successor that are under way.
    pub(crate) handing_over: Cell<u32>,
    /// When a retired leader has looked for one by itself, and how often in vain.
    pub(crate) looked: Cell<(InstantOf<RT>, u32)>,
    /// When a leader, or somebody who stands with our vote, was heard of last.
    pub(crate) heard: Cell<InstantOf<RT>>,
    /// It does not stand for election any more.
    pub(crate) retiring: Cell<bool>,
    /// It leads by an operator's word from this term on, until another member has led; 0: it does not.
    pub(crate) stays_from: Cell<u64>,
    /// A Seal entry is under way.
    pub(crate) sealing: Cell<bool>,
    /// A snapshot promotion is under way.
    pub(crate) promoting: Cell<bool>,
    /// The leader a Rejoin is under way to.
    pub(crate) rejoining: RefCell<Option<RaftVote>>,
    /// A snapshot that is coming in.
    pub(crate) incoming: RefCell<Option<Incoming>>,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// Starts a member on the current arbiter (a `LocalSet`), on a log just opened: restores the machine from the
    /// newest checkpoint, applies what is known to be committed, and joins the group; a group of
    /// one elects itself at once. Jobs may come back as soon as this has returned; await
    /// [`Group::ready`] before the first proposal.
    ///
    /// # Errors
    /// [`StartError`], with nothing changed on disk.
    pub async fn start(
        config: GroupConfig,
        log: Rc<RefCell<Log<D>>>,
        recovered: &Recovered,
        machine: Rc<RefCell<S>>,
        jobs: impl JobPort<D>,
        peers: impl Peers,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(config.raft()?);
        if let Some(index) = recovered.missing_from
            && !log.borrow().accepts_loss_of(index)
        {
            let reason = "the file that held it is missing".to_owned();
            return Err(Fault::Entry { index, reason }.into());
        }
        if let Some(lost) = &recovered.lost_floor {
            floor::replace(&config, &mut log.borrow_mut(), &recovered.checkpoints, lost)?;
        }
        let applied = restore(&log, &recovered.checkpoints, &machine)?;
        let amnesiac = recovered.volatile && !config.sabotage.trust_amnesiacs;
        let is_empty = log.borrow().last().is_none() && log.borrow().purged().is_none();
        let hold = config.election_timeout();
        let ballot = if amnesiac && is_empty {
            let shard = config.shard.0;
            tracing::warn!(shard, "its log is gone: no vote before it has caught up with the rest");
            Ballot::blank(hold)
        } else {
            Ballot::new(hold, amnesiac)
        };
        let node = config.node;
        let peers: Rc<dyn Peers> = Rc::new(peers);
        let shared = Rc::new(Shared::new(config, log, machine, Box::new(jobs), applied, ballot));
        shared.pump();
        let store = LogStore::new(Rc::clone(&shared));
        let applier = Applier::new(Rc::clone(&shared));
        let withheld = Rc::<Withheld>::default();
        let links = Links::new(&shared.config, &peers, &withheld);
        let started = InstantOf::<RT>::now();
        let raft = match Raft::new(node, raft_config, links, store, applier).await {
            Ok(raft) => raft,
            Err(error) => {
                let fault = shared.fault().unwrap_or_else(|| Fault::Raft(error.to_string()));
                return Err(fault.into());
            }
        };
        shared.starting.set(false);
        withheld.judge_by(damage_for::<S, D, RT>(&raft, &shared.log));
        let inner = Inner {
            shared,
            raft,
            peers,
            started,
            leadership: watch::Sender::new(Leadership::default()),
            stopped: Cell::new(false),
            handed_over: Cell::new(None),
            rests: RefCell::default(),
            withheld,
            paces: Cell::new([None; 2]),
            handing_over: Cell::new(0),
            looked: Cell::new((started, 0)),
            heard: Cell::new(started),
            retiring: Cell::new(false),
            stays_from: Cell::new(0),
            sealing: Cell::new(false),
            promoting: Cell::new(false),
            rejoining: RefCell::new(None),
            incoming: RefCell::new(None),
        };
        let group = Self { inner: Rc::new(inner) };
        if let Err(error) = group.settle_alone().await {
            let _ = group.inner.raft.shutdown().await; // lets go of the log
            return Err(error);
        }
        keeper::spawn(&group);
        Ok(group)
    }

    /// Proposes items as one entry. The entry takes its place in the log's order now, at the
    /// call, not when the future is first polled; the future gives the machine's answers once the
    /// entry is committed and applied.
    ///
    /// # Errors
    /// [`ProposeError`]; `Unknown`, `Stopped` and `Fatal` leave open whether it will be applied.
    pub fn propose(
        &self,
        items: &[NewItem],
    ) -> impl Future<Output = Result<AppliedReply<S::Reply>, ProposeError>> + use<S, D, RT> {
        let time = (self.inner.shared.config.clock)();
        let submitted = self.submit(payload::encode(time, items, false));
        let shared = Rc::clone(&self.inner.shared);
        async move {
            let answer = submitted?.await;
            let stopped = || shared.fault().map_or(ProposeError::Stopped, ProposeError::Fatal);
            match answer {
                Err(_closed) => Err(stopped()),
                Ok(Ok(response)) => match response.data {
                    Outcome::Applied(reply) => Ok(reply),
                    Outcome::Nothing => unreachable!("a Normal entry is applied"),
                },
                Ok(Err(ClientWriteError::ForwardToLeader(to))) => {
                    Err(ProposeError::NotLeader { leader: to.leader_id })
                }
                Ok(Err(ClientWriteError::LogEntryDiscarded(to))) => {
                    Err(ProposeError::Unknown { leader: to.leader_id })
                }
                Ok(Err(error)) => Err(ProposeError::Fatal(Fault::Raft(error.to_string()))),
            }
        }
    }

    /// Hands an entry to openraft without waiting.
    pub(crate) fn submit(&self, mut command: Command) -> Result<AnswerOf<S, RT>, ProposeError> {
        let shared = &self.inner.shared;
        if let Some(fault) = shared.fault() {
            return Err(ProposeError::Fatal(fault));
        }
        if self.inner.stopped.get() {
            return Err(ProposeError::Stopped);
        }
        let bytes = command.len_bytes() as u64;
        let bytes_max = shared.log.borrow().entry_bytes_max() as u64;
        if bytes > bytes_max {
            return Err(ProposeError::TooLarge { bytes, bytes_max });
        }
        if !shared.has_room(bytes) {
            return Err(ProposeError::Full);
        }
        command.room =
            Some(Rc::new(Reserved::take(&shared.proposed_bytes, bytes + ENTRY_OVERHEAD_BYTES)));
        let (responder, answer) = OneshotResponder::new_pair();
        let sending = self.inner.raft.client_write_ff(command, Some(responder));
        // Unconstrained: tokio's task budget must not make a channel with room look full.
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => Ok(answer),
            Some(Err(_fatal)) => Err(ProposeError::Stopped),
            None => Err(ProposeError::Full),
        }
    }

    /// Whether an entry of `bytes` more would fit the log now, on top of what is under way.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.inner.shared.has_room(bytes)
    }

    /// Asks for another try at what a full disk refused.
    pub fn request_room(&self) {
        self.inner.shared.request_room();
    }

    /// The result of a job that [`JobPort::submit`] took away.
    pub fn job_done(&self, done: JobDone<D>) {
        self.inner.shared.job_done(done);
    }

    /// What the group is doing right now.
    pub fn status(&self) -> Status {
        let shared = &self.inner.shared;
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let is_leader = metrics.state == ServerState::Leader;
        let applied = shared.applied.borrow().last;
        let ready =
            is_leader && applied.is_some_and(|id| log_id_parts(&id).0 == metrics.current_term);
        let node = shared.config.node;
        let mut voters = metrics.membership_config.voter_ids();
        // A successor that was asked for may be elected inside the lease, so there is none.
        let asked = self.inner.handed_over.get();
        let handed_over = asked.is_some_and(|asked| asked.term == metrics.current_term)
            || !voters.any(|voter| voter == node);
        let alone = metrics.membership_config.voter_ids().eq([node]);
        let lease_left = match (ready && !handed_over, alone) {
            (false, _) => Duration::ZERO,
            (true, true) => Duration::MAX,
            (true, false) => {
                let since_ack = metrics.last_quorum_acked.map(|at| at.elapsed());
                lease_left(since_ack, shared.config.election_timeout(), LEASE_DRIFT)
            }
        };
        let log = shared.log.borrow();
        Status {
            term: metrics.current_term,
            leader: metrics.current_leader,
            is_leader,
            ready,
            lease_left,
            last: log.last().map(|id| id.index),
            committed: metrics.local_committed.as_ref().map(|id| log_id_parts(id).1),
            applied: applied.map(|id| log_id_parts(&id).1),
            durable: log.durable_index(),
            purged: log.purged().map(|id| id.index),
            standing: shared.ballot.borrow().standing(),
        }
    }

    /// Waits until the first entry of the log is on disk: from then on this member may have
    /// acknowledged something. One that is known to have lost what there was has been that far. False
    /// when the group stops before.
    pub async fn is_founded(&self) -> bool {
        let shared = &self.inner.shared;
        loop {
            let done = shared.next_job_done();
            let was_founded = shared.ballot.borrow().is_blank();
            if was_founded || shared.log.borrow().synced_index().is_some() {
                return true;
            }
            if self.inner.stopped.get() || shared.is_stopping() {
                return false;
            }
            done.await;
        }
    }

    /// Who leads, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// Waits until this member leads and is ready, or has stopped.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`] or [`ProposeError::Fatal`] when it has stopped.
    pub async fn ready(&self) -> Result<(), ProposeError> {
        let mut watch = self.watch();
        let seen = watch.wait_for(|now| now.ready || now.stopped).await;
        match seen.map(|now| now.ready) {
            Ok(true) => Ok(()),
            _ => Err(self.stop_reason()),
        }
    }

    /// As [`Group::ready`], but does not wait for room on a full disk: `false` when the first
    /// entry of this leader finds none. What was known to be committed is applied then, and the
    /// group becomes ready by itself once there is room.
    ///
    /// # Errors
    /// As [`Group::ready`].
    pub async fn ready_or_full(&self) -> Result<bool, ProposeError> {
        let shared = &self.inner.shared;
        let mut watch = self.watch();
        loop {
            let found_full = std::pin::pin!(shared.next_found_full());
            let now = *watch.borrow_and_update();
            if now.stopped {
                return Err(self.stop_reason());
            }
            if now.ready || shared.waits_on_full_disk() {
                return Ok(now.ready);
            }
            let changed = std::pin::pin!(watch.changed());
            select(changed, found_full).await;
        }
    }

    pub(crate) fn stop_reason(&self) -> ProposeError {
        self.inner.shared.fault().map_or(ProposeError::Stopped, ProposeError::Fatal)
    }

    /// Drops the log up to the newest seal at or below `index`, on all replicas alike: proposes a
    /// Trim entry. `None` when there is no such seal ahead of the last trim.
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub async fn trim(&self, index: u64) -> Result<Option<SealPoint>, ProposeError> {
        let point = self.inner.shared.applied.borrow().own.seal_at_or_below(index);
        let Some(point) = point else { return Ok(None) };
        self.propose(&[NewItem::new(own::KIND_TRIM, own::trim_item(point))]).await?;
        Ok(Some(point))
    }

    /// Raises the feature level. A replica that does not have it stops, so every member must have
    /// been asked before.
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub async fn raise_feature_level(&self, level: u16) -> Result<(), ProposeError> {
        self.propose(&[NewItem::new(own::KIND_FEATURE_LEVEL, own::level_item(level))]).await?;
        Ok(())
    }

    /// The feature level in force.
    pub fn feature_level(&self) -> u16 {
        self.inner.shared.applied.borrow().own.level
    }

    /// Stops taking part. Entries under way may or may not be applied. Returns once what was
    /// acknowledged before its sync is synced and the durable mark of that is taken back; jobs
    /// must be served until then. The log stays open; jobs that still come out of it should be run
    /// before it is dropped.
    pub async fn stop(&self) {
        self.inner.stopped.set(true);
        self.inner.shared.stop_waiting();
        let _ = self.inner.raft.shutdown().await; // a core that panicked has stopped as well
        self.inner.shared.forget_nothing().await;
        self.inner.shared.keeper.notify_one();
        self.inner.leadership.send_modify(|now| {
            now.ready = false;
            now.stopped = true;
        });
    }

    /// Creates the group on an empty log and, for a group of one, elects at once.
    pub(crate) async fn found(&self) -> Result<(), Fault> {
        let config = &self.inner.shared.config;
        let raft = &self.inner.raft;
        let stopped = |error: String| Fault::Raft(error);
        let empty = !raft.is_initialized().await.map_err(|e| stopped(e.to_string()))?;
        // One that has lost its log founds nothing, and stands by no part of it: the others have it.
        let forgot = self.inner.shared.ballot.borrow().standing() == Standing::Amnesiac;
        if empty && !forgot && !config.members.is_empty() {
            // Refused only when another founder was faster: then there is nothing to do.
            let _ = raft.initialize(config.founders()).await;
        }
        let metrics = raft.metrics().borrow_watched().clone();
        let single = metrics.membership_config.voter_ids().eq([config.node]);
        if single && !forgot && metrics.state != ServerState::Leader {
            raft.trigger().elect(false).await.map_err(|e| stopped(e.to_string()))?;
        }
        Ok(())
    }
}

pub(crate) type AnswerOf<S, RT> = <<RT as AsyncRuntime>::Oneshot as Oneshot>::Receiver<
    openraft::raft::ClientWriteResult<Types<S, RT>>,
>;

/// Restores the machine from the checkpoints that recovery found usable.
fn restore<S: StateMachine, D: Disk>(
    log: &Rc<RefCell<Log<D>>>,
    chain: &[CheckpointData],
    machine: &Rc<RefCell<S>>,
) -> Result<Applied, StartError> {
    let log = log.borrow();
    let mut applied = Applied::default();
    applied.doubtful = log.doubtful();
    let newest = chain.last().map(CheckpointData::id);
    if let Some(EntryId { index: purged, .. }) = log.purged()
        && newest.is_none_or(|newest| newest.index < purged)
    {
        return Err(StartError::CheckpointMissing { purged });
    }
    let Some(newest) = newest else { return Ok(applied) };
    let index = newest.index;
    let ahead = log.last().is_none_or(|last| index > last.index);
    if ahead && log.floor() != Some(newest) {
        // Would make openraft purge the whole log at start.
        let reason = "it is ahead of the log".to_owned();
        return Err(Fault::Checkpoint { index, reason }.into());
    }
    let (id, membership, data) = state_of(chain)?;
    applied.restore(id, membership, data, &mut *machine.borrow_mut())?;
    Ok(applied)
}
