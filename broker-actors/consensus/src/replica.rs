//! What applying entries, checkpoints and snapshots do to the shared state.

use std::panic::{AssertUnwindSafe, catch_unwind};

use grus_log::{CheckpointData, CheckpointError, Disk, EntryId};
use openraft::async_runtime::AsyncRuntime;
use openraft::entry::RaftEntry as _;

use crate::apply::SealedState;
use crate::codec::{self, encode_stored_membership};
use crate::fault::Fault;
use crate::log_sink::LogSink;
use crate::machine::StateMachine;
use crate::shared::Shared;
use crate::snapshot::SnapshotData;
use crate::types::{LogId, Outcome, RaftEntry, SnapshotMeta, StoredMembership, entry_id, log_id};

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Shared<S, D, RT> {
    // --- applying ---

    /// Applies one committed entry, and takes a checkpoint when it is a Seal.
    pub(crate) fn apply(&self, entry: RaftEntry) -> std::io::Result<Outcome<S::Reply>> {
        let level_max = self.config.feature_level_max;
        let index = entry.index();
        // A panic here would leave openraft half alive: it becomes a fault that names the entry.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let mut machine = self.machine.borrow_mut();
            let mut sink = LogSink(&self.log);
            self.applied.borrow_mut().apply(entry, &mut *machine, &mut sink, level_max)
        }));
        let result = result.unwrap_or_else(|panic| Err(Fault::panic(index, &*panic)));
        let (outcome, sealed) = result.map_err(|fault| self.fail(fault))?;
        if sealed.is_some() || matches!(outcome, Outcome::Nothing) {
            self.attention.set(true); // a new term, new members, or a checkpoint
        }
        if let Some(sealed) = sealed {
            self.checkpoint(sealed)?;
        }
        Ok(outcome)
    }

    /// Wakes the keeper when what was applied gives it something to do; most entries do not.
    pub(crate) fn call_keeper_if_due(&self) {
        let log = self.log.borrow();
        let trim = self.applied.borrow().own.trim.map(|point| point.index);
        let due = log.should_seal() || trim > log.purged().map(|purged| purged.index);
        if self.attention.take() || due {
            self.keeper.notify_one();
        }
    }

    fn checkpoint(&self, sealed: SealedState) -> std::io::Result<()> {
        let membership = encode_stored_membership(&self.applied.borrow().membership);
        let data = CheckpointData {
            index: sealed.point.index,
            term: sealed.point.term,
            membership,
            full: sealed.full,
            parts: sealed.parts,
            digest: sealed.digest,
        };
        let taken = self.log.borrow_mut().checkpoint(data);
        match taken {
            Ok(()) => {}
            // Replay behind a damaged checkpoint: the next one stands for itself again.
            Err(CheckpointError::NotNewer { .. } | CheckpointError::NoBase { .. }) => {
                self.applied.borrow_mut().next_is_full();
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(self.fail(Fault::Checkpoint { index: sealed.point.index, reason }));
            }
        }
        self.pump();
        Ok(())
    }

    // --- snapshots ---

    /// The snapshot: the checkpoint at the floor, never a newer one, for a member that installs
    /// it drops its log up to there.
    pub(crate) fn snapshot(&self) -> std::io::Result<Option<(SnapshotMeta, SnapshotData)>> {
        let floor = if self.config.sabotage.newest_snapshot {
            self.log.borrow().newest_checkpoint()
        } else {
            self.log.borrow().floor()
        };
        let Some(EntryId { index, .. }) = floor else { return Ok(None) };
        let chain = self.log.borrow().checkpoint_at(index);
        let bad = |reason: String| self.fail(Fault::Checkpoint { index, reason });
        let chain = chain.map_err(|error| bad(error.to_string()))?;
        let (id, membership, data) = state_of(&chain).map_err(|fault| self.fail(fault))?;
        let meta = SnapshotMeta { last_log_id: Some(id), last_membership: membership };
        Ok(Some((meta, data)))
    }

    /// Replaces state and log start by a snapshot from the leader: the state first, so that one
    /// that cannot be read leaves the log as it is; then the log, durably.
    pub(crate) async fn install(
        &self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> std::io::Result<()> {
        let Some(id) = meta.last_log_id else { return Ok(()) };
        let EntryId { term, index } = entry_id(&id);
        let checkpoint = CheckpointData {
            index,
            term,
            membership: encode_stored_membership(&meta.last_membership),
            full: true,
            parts: data.to_parts(),
            digest: data.digest,
        };
        let membership = meta.last_membership.clone();
        let restored = {
            let mut machine = self.machine.borrow_mut();
            self.applied.borrow_mut().restore(id, membership, data, &mut *machine)
        };
        restored.map_err(|fault| self.fail(fault))?;
        if self.log.borrow().last().is_none_or(|last| last.index < index) {
            self.flushes.borrow_mut().clear();
        }
        let ticket = self.log.borrow_mut().install(checkpoint);
        self.wait(ticket).await
    }
}

/// Lays a chain of checkpoints, a full one and its deltas, over each other.
pub(crate) fn state_of(
    chain: &[CheckpointData],
) -> Result<(LogId, StoredMembership, SnapshotData), Fault> {
    let last = chain.last().ok_or_else(|| Fault::Checkpoint {
        index: 0,
        reason: "no checkpoint in its chain".to_owned(),
    })?;
    let bad = |reason: String| Fault::Checkpoint { index: last.index, reason };
    if !chain[0].full {
        return Err(bad("its chain starts with a delta".to_owned()));
    }
    let mut data = SnapshotData::default();
    for checkpoint in chain {
        if checkpoint.full {
            data.parts.clear();
        }
        data.overlay(&checkpoint.parts);
    }
    data.digest = last.digest;
    let membership = codec::decode_stored_membership(last.membership.clone())
        .map_err(|error| bad(error.to_string()))?;
    Ok((log_id(last.term, last.index), membership, data))
}
