//! What applying entries, checkpoints and snapshots do to the shared state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use grus_log::{CheckpointData, CheckpointError, Disk, EntryId};
use openraft::async_runtime::AsyncRuntime;
use openraft::entry::RaftEntry as _;
use tokio::sync::oneshot;

use crate::apply::SealedState;
use crate::codec::{self, encode_stored_membership};
use crate::fault::Fault;
use crate::log_sink::LogSink;
use crate::machine::StateMachine;
use crate::shared::Shared;
use crate::snapshot::SnapshotData;
use crate::types::{LogId, Outcome, RaftEntry, SnapshotMeta, StoredMembership, entry_id, log_id};

/// Between two slices of a checkpoint: the arbiter is everybody else's for most of the time.
pub(crate) const SLICE_PAUSE: Duration = Duration::from_millis(1);
/// Slices between two pauses while the next Seal waits for them.
const SLICES_PER_PAUSE: u32 = 8;

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Shared<S, D, RT> {
    // --- applying ---

    /// Applies one committed entry. A Seal begins a checkpoint, see [`Shared::seal_slice`].
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
        let outcome = result.map_err(|fault| self.fail(fault))?;
        if matches!(outcome, Outcome::Nothing) {
            self.attention.set(true); // a new term, or new members
        }
        Ok(outcome)
    }

    /// Encodes one slice of the checkpoint that has begun, and hands it to the log after the last.
    /// True when there is more to do. Entries behind the Seal may be applied between two slices.
    pub(crate) fn seal_slice(&self) -> std::io::Result<bool> {
        if self.is_stopping() || !self.applied.borrow().is_sealing() {
            return Ok(false);
        }
        let index = self.applied.borrow().last.map_or(0, |id| entry_id(&id).index);
        let result = catch_unwind(AssertUnwindSafe(|| {
            self.applied.borrow_mut().seal_slice(&mut *self.machine.borrow_mut())
        }));
        let sealed = result.map_err(|panic| self.fail(Fault::panic(index, &*panic)))?;
        let Some(sealed) = sealed else { return Ok(true) };
        self.checkpoint(sealed)?;
        self.keeper.notify_one();
        Ok(false)
    }

    /// Ends the checkpoint that has begun, with room for others between its slices.
    pub(crate) async fn finish_seal(&self) -> std::io::Result<()> {
        let mut slices = 0_u32;
        while self.seal_slice()? {
            slices += 1;
            // Whoever waits for a receipt waits for this, so with fewer pauses than beside others.
            if slices.is_multiple_of(SLICES_PER_PAUSE) {
                RT::sleep(SLICE_PAUSE).await;
            } else {
                tokio::task::yield_now().await;
            }
        }
        // A stop leaves it undone; then nothing else is applied either.
        if self.applied.borrow().is_sealing() { Err(self.stopped()) } else { Ok(()) }
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
        let data = CheckpointData {
            index: sealed.point.index,
            term: sealed.point.term,
            membership: sealed.membership,
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
    /// it drops its log up to there. It is read where that holds nobody up.
    pub(crate) async fn snapshot(&self) -> std::io::Result<Option<(SnapshotMeta, SnapshotData)>> {
        loop {
            let Some(point) = self.snapshot_point() else { return Ok(None) };
            let reading = self.log.borrow().checkpoint_reading(point.index);
            let (told, answer) = oneshot::channel();
            self.jobs.read(Box::new(move || {
                let chain = reading.and_then(|reading| reading.run());
                let bad = |reason: String| Fault::Checkpoint { index: point.index, reason };
                let state = chain.map_err(|error| bad(error.to_string()));
                let _ = told.send(state.and_then(|chain| state_of(&chain))); // nobody waits any more
            }));
            let state = answer.await.map_err(|_gone| self.stopped())?;
            match state {
                Ok((id, membership, data)) => {
                    let meta = SnapshotMeta { last_log_id: Some(id), last_membership: membership };
                    return Ok(Some((meta, data)));
                }
                // The floor moved on while it was read, and its files went.
                Err(_) if self.snapshot_point() != Some(point) => {}
                Err(fault) => return Err(self.fail(fault)),
            }
        }
    }

    fn snapshot_point(&self) -> Option<EntryId> {
        if self.config.sabotage.newest_snapshot {
            self.log.borrow().newest_checkpoint()
        } else if self.starting.get() {
            self.floor_at_start()
        } else {
            self.log.borrow().floor()
        }
    }

    /// The snapshot while openraft reads what is there. Recovery may have had to begin at a
    /// checkpoint before the floor; openraft would install a snapshot ahead of the state then, and
    /// wait for a job whose result nobody takes yet. So it is the checkpoint that recovery began
    /// at, which covers all that is purged; the floor counts again once the start is over.
    fn floor_at_start(&self) -> Option<EntryId> {
        let log = self.log.borrow();
        let applied = self.applied.borrow().last.as_ref().map(entry_id);
        let floor = log.floor()?;
        if applied.is_some_and(|applied| floor.index <= applied.index) {
            return Some(floor);
        }
        log.checkpoints().filter(|held| Some(held.index) <= applied.map(|id| id.index)).last()
    }

    /// Replaces state and log start by a snapshot from the leader: the state first, so that one
    /// that cannot be read leaves the log as it is; then the log, durably.
    pub(crate) async fn install(
        &self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> std::io::Result<()> {
        let Some(id) = meta.last_log_id else { return Ok(()) };
        if self.starting.get() {
            let reason = "it is ahead of the state that the start began from".to_owned();
            let index = entry_id(&id).index;
            return Err(self.fail(Fault::Checkpoint { index, reason }));
        }
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
