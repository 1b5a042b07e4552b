//! openraft's own tests of a log storage and its state machine, on ours: on a disk in memory that
//! forgets what was not synced, and on a real one.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use futures_util::Stream;
use grus_log::{CheckpointData, Disk, Log, LogConfig, Part, RealDisk, SimDisk};
use grus_protocol::ids::{Durability, ShardId, TimestampMs};
use openraft::entry::RaftEntry as _;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage as _, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftSnapshotBuilder, StorageError};
use openraft_rt_tokio::TokioRuntime;

use crate::applier::Applier;
use crate::apply::Applied;
use crate::ballot::Ballot;
use crate::codec::encode_stored_membership;
use crate::config::GroupConfig;
use crate::jobs::InlineJobs;
use crate::log_store::LogStore;
use crate::machine::{ApplyContext, IndexSink, Item, RestoreError, StateMachine};
use crate::own::OWN_KEY;
use crate::shared::{Shared, Types};
use crate::snapshot::SnapshotData;
use crate::types::{LogId, RaftEntry, SnapshotMeta, StoredMembership, log_id, log_id_parts};

/// A machine without state: the suite cannot make items for it.
#[derive(Debug, Default)]
pub(crate) struct Nothing;

impl StateMachine for Nothing {
    type Reply = ();

    fn apply(&mut self, _: &ApplyContext, _: Item, _: &mut dyn IndexSink) {}

    fn dirty_parts(&mut self) -> Vec<Part> {
        Vec::new()
    }

    fn all_parts(&self) -> Vec<Part> {
        Vec::new()
    }

    fn restore(&mut self, _: Vec<Part>) -> Result<(), RestoreError> {
        Ok(())
    }

    fn digest(&self) -> u64 {
        7
    }
}

type C = Types<Nothing, TokioRuntime>;
type Snapshot =
    openraft::Snapshot<crate::types::Committed, u64, crate::types::Member, SnapshotData>;

/// The applier, with what the group does before it promotes a checkpoint: the suite asks for a
/// snapshot of whatever it has applied.
struct Promoting<D: Disk> {
    shared: Rc<Shared<Nothing, D, TokioRuntime>>,
    applier: Applier<Nothing, D, TokioRuntime>,
}

impl<D: Disk> Promoting<D> {
    async fn promote(&self) -> io::Result<()> {
        let checkpoint = {
            let applied = self.shared.applied.borrow();
            let (term, index) = log_id_parts(&applied.last.expect("something is applied"));
            let own = Part { key: OWN_KEY.into(), value: Some(applied.own.encode()) };
            CheckpointData {
                index,
                term,
                membership: encode_stored_membership(&applied.membership),
                full: true,
                parts: vec![own],
                digest: applied.digest(&Nothing),
            }
        };
        let ticket = self.shared.log.borrow_mut().install(checkpoint);
        self.shared.wait(ticket).await
    }
}

impl<D: Disk> RaftStateMachine<C> for Promoting<D> {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder<D>;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        self.applier.applied_state().await
    }

    async fn apply<Entries>(&mut self, entries: Entries) -> io::Result<()>
    where
        Entries: Stream<Item = io::Result<EntryResponder<C>>> + Unpin + OptionalSend,
    {
        self.applier.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> Builder<D> {
        let shared = Rc::clone(&self.shared);
        Builder(Promoting { applier: Applier::new(Rc::clone(&shared)), shared })
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        self.applier.install_snapshot(meta, data).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        self.applier.get_current_snapshot().await
    }
}

struct Builder<D: Disk>(Promoting<D>);

impl<D: Disk> RaftSnapshotBuilder<C> for Builder<D> {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        if self.0.shared.applied.borrow().last.is_none() {
            // The suite purges logs of which nothing was ever applied; a group cannot.
            return Ok(Snapshot {
                meta: SnapshotMeta::default(),
                snapshot: SnapshotData::default(),
            });
        }
        self.0.promote().await?;
        self.0.applier.build_snapshot().await
    }
}

/// Makes a new, empty store for each of the suite's tests.
struct Stores<F>(F);

impl<D, G, F> StoreBuilder<C, LogStore<Nothing, D, TokioRuntime>, Promoting<D>, G> for Stores<F>
where
    D: Disk,
    G: Send + Sync,
    F: Fn() -> (G, D, PathBuf) + Send + Sync,
{
    async fn build(
        &self,
    ) -> Result<(G, LogStore<Nothing, D, TokioRuntime>, Promoting<D>), StorageError<C>> {
        let (guard, disk, folder) = (self.0)();
        let config = LogConfig { first_segment_bytes: 64 * 1024, ..LogConfig::default() };
        let (log, _recovered) = Log::open(&disk, &folder, config).expect("a new log opens");
        let clock = Rc::new(|| TimestampMs(1));
        let fatal = Rc::new(|_: &crate::Fault| {});
        let config = GroupConfig::single(ShardId(1), 1, Durability::Persisted, clock, fatal);
        let shared = Rc::new(Shared::new(
            config,
            Rc::new(RefCell::new(log)),
            Rc::default(),
            Box::new(InlineJobs),
            Applied::default(),
            Ballot::new(std::time::Duration::ZERO, false),
        ));
        shared.starting.set(false);
        shared.pump();
        let applier = Applier::new(Rc::clone(&shared));
        let store = LogStore::new(Rc::clone(&shared));
        Ok((guard, store, Promoting { shared, applier }))
    }
}

fn on_paused_time(test: impl Future<Output = Result<(), StorageError<C>>>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test).unwrap();
}

#[test]
fn openrafts_suite_passes_on_a_simulated_disk() {
    let stores = Stores(|| ((), SimDisk::new(5), PathBuf::from("log")));
    on_paused_time(Suite::test_all(stores));
}

#[test]
fn the_saved_commit_position_is_believed_as_far_as_the_log_proves_it() {
    let stores = Stores(|| ((), SimDisk::new(6), PathBuf::from("log")));
    on_paused_time(async move {
        let ((), mut store, machine) = stores.build().await?;
        let blank = |term, index| RaftEntry::new_blank(log_id(term, index));
        let entries = [blank(1, 0), blank(1, 1), blank(3, 2), blank(3, 3)];
        machine.shared.append(entries, IOFlushed::noop()).await.unwrap();
        for (saved, believed) in [
            ((3, 3), Some((3, 3))),
            ((1, 1), Some((1, 1))),
            // The tail was lost, but what is left is a prefix of that leader's log.
            ((3, 9), Some((3, 3))),
            // A later leader committed entries of which nothing is left here: these are not they.
            ((4, 9), None),
            ((4, 3), None),
            ((2, 1), None),
        ] {
            store.save_committed(Some(log_id(saved.0, saved.1))).await.unwrap();
            let read = store.read_committed().await.unwrap();
            let want = believed.map(|(term, index)| log_id(term, index));
            assert_eq!(read, want, "saved {saved:?}");
        }
        Ok(())
    });
}

#[test]
fn openrafts_suite_passes_on_a_real_disk() {
    let stores = Stores(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        (folder, RealDisk, path)
    });
    on_paused_time(Suite::test_all(stores));
}
