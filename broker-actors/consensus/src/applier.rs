//! openraft's state machine, on the group's machine and the log's checkpoints.

use std::io;
use std::rc::Rc;

use futures_util::{Stream, TryStreamExt as _};
use grus_log::Disk;
use openraft::async_runtime::AsyncRuntime;
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};

use crate::fault::Fault;
use crate::machine::StateMachine;
use crate::replica::SLICE_PAUSE;
use crate::shared::{Shared, Types};
use crate::snapshot::SnapshotData;
use crate::types::{
    Committed, LogId, Member, NodeId, Payload, RaftEntry, SnapshotMeta, StoredMembership,
};

type Snapshot = openraft::Snapshot<Committed, NodeId, Member, SnapshotData>;

/// The state machine as openraft drives it; also its snapshot builder.
pub(crate) struct Applier<S: StateMachine, D: Disk, RT: AsyncRuntime> {
    shared: Rc<Shared<S, D, RT>>,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Applier<S, D, RT> {
    pub(crate) fn new(shared: Rc<Shared<S, D, RT>>) -> Self {
        Self { shared }
    }

    /// Goes on with the checkpoint, slice by slice, beside what is applied.
    fn seal_on(&self) {
        let shared = Rc::downgrade(&self.shared);
        drop(RT::spawn(async move {
            loop {
                RT::sleep(SLICE_PAUSE).await;
                // An error has been told as the fault that stopped the replica.
                match shared.upgrade().map(|shared| shared.seal_slice()) {
                    Some(Ok(true)) => {}
                    _ => return,
                }
            }
        }));
    }

    async fn current(&self) -> io::Result<Option<Snapshot>> {
        let snapshot = self.shared.snapshot().await?;
        Ok(snapshot.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

fn is_seal(entry: &RaftEntry) -> bool {
    matches!(&entry.payload, Payload::Normal(command) if command.seal)
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> RaftSnapshotBuilder<Types<S, RT>>
    for Applier<S, D, RT>
{
    type SnapshotData = SnapshotData;

    /// "Builds" the checkpoint that was marked as the current snapshot before: nothing is built.
    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        self.current().await?.ok_or_else(|| {
            let reason = "no checkpoint is marked as snapshot".to_owned();
            self.shared.fail(Fault::Checkpoint { index: 0, reason })
        })
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> RaftStateMachine<Types<S, RT>>
    for Applier<S, D, RT>
{
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.shared.applied.borrow();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<Entries>(&mut self, mut entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<Types<S, RT>>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let seals = is_seal(&entry);
            if seals {
                // Two at once would be two moments to keep; it compares the digest of the last, too.
                self.shared.finish_seal().await?;
            }
            let outcome = self.shared.apply(entry)?;
            if let Some(responder) = responder {
                responder.send(outcome);
            }
            if seals && self.shared.seal_slice()? {
                self.seal_on();
            }
        }
        self.shared.call_keeper_if_due();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        Self::new(Rc::clone(&self.shared))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> io::Result<()> {
        self.shared.install(meta, snapshot).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.current().await
    }
}
