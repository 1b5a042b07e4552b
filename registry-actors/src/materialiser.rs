//! Materialiser: keeps the copy of the registry's state in sled.
//!
//! * Owns: the sled folder. Nothing in it is ever the only truth.
//! * Lives on: an arbiter of its own; it blocks on the disk.
//! * Inbox: [`Write`] in bytes, one for each applied entry; [`Reconcile`], the whole state, which it
//!   asks for when its copy is missing, damaged or behind.
//! * Talks to: the Registry, which it asks for the whole state ([`WholeWanted`]).
//! * Stops: after all writes that were put before, with everything on the disk.
//! * If it panics: rebuilt; it then compares its copy with the whole state. The registry never
//!   waits for it: what it had no room for is made good by a whole state later.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use grus_mailbox::{
    ActorSpec, Credit, Host, HostHandle, Inbox, Place, Receive, Resident, Room, Tick, Weigh,
};

use crate::disk_store::{AppliedAt, DiskStore, Parts, StoreError};
use crate::machine::Change;

/// Most bytes of changes on their way to sled.
pub(crate) const WRITE_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// How often what was written is brought to the disk, and a failed store is tried again.
const SYNC_PERIOD: Duration = Duration::from_secs(1);

/// What one entry changed.
#[derive(Debug)]
pub(crate) struct Write {
    /// Counts the applied entries, without gaps.
    pub(crate) sequence: u64,
    pub(crate) at: AppliedAt,
    pub(crate) changes: Vec<Change>,
}

impl Weigh for Write {
    fn weight(&self) -> u32 {
        let length =
            |change: &Change| change.key.len() + change.value.as_ref().map_or(0, Bytes::len);
        let bytes: usize = self.changes.iter().map(length).sum();
        u32::try_from(bytes + 64).unwrap_or(u32::MAX)
    }
}

/// The whole state as of an entry: what the copy must hold now.
#[derive(Debug)]
pub(crate) struct Reconcile {
    /// Of the last entry that is part of it.
    pub(crate) sequence: u64,
    pub(crate) at: AppliedAt,
    pub(crate) parts: Parts,
}

impl Weigh for Reconcile {}

/// The copy cannot go on without the whole state.
#[derive(Debug)]
pub(crate) struct WholeWanted;

impl Weigh for WholeWanted {}

/// How the copy fares; shared with whoever reports it.
#[derive(Debug, Default)]
pub struct CopyStats {
    rebuilds: AtomicU64,
    moved_aside: AtomicU64,
    applied_index: AtomicU64,
}

impl CopyStats {
    /// How often the copy was missing, damaged, behind or ahead, and was written anew.
    pub fn rebuilds(&self) -> u64 {
        self.rebuilds.load(Ordering::Relaxed)
    }

    /// How often a damaged folder was moved aside.
    pub fn moved_aside(&self) -> u64 {
        self.moved_aside.load(Ordering::Relaxed)
    }

    /// The last entry that the copy holds.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::Acquire)
    }
}

/// See the module documentation.
pub(crate) struct Materialiser {
    dir: PathBuf,
    wanted: Inbox<WholeWanted>,
    stats: Arc<CopyStats>,
    store: Option<DiskStore>,
    /// Sequence of the last entry the store holds, once it was compared with the whole state.
    sequence: Option<u64>,
    unsynced: bool,
}

impl Materialiser {
    /// Starts it over the folder `dir`.
    pub(crate) fn start(
        place: &Place,
        dir: PathBuf,
        wanted: Inbox<WholeWanted>,
        stats: &Arc<CopyStats>,
    ) -> HostHandle<Self> {
        let stats = Arc::clone(stats);
        Host::spawn(place, ActorSpec::new("Materialiser", "sled"), move || Self {
            dir: dir.clone(),
            wanted: wanted.clone(),
            stats: Arc::clone(&stats),
            store: None,
            sequence: None,
            unsynced: false,
        })
    }

    /// Opens the store where it is shut.
    fn open(&mut self) {
        if self.store.is_none() {
            match DiskStore::open(&self.dir) {
                Ok((store, aside)) => {
                    self.store = Some(store);
                    self.stats.moved_aside.fetch_add(u64::from(aside), Ordering::Relaxed);
                }
                Err(error) => {
                    tracing::error!(%error, "sled folder cannot be opened; tried again");
                }
            }
        }
    }

    /// Asks for the whole state, if that is what is missing.
    fn ask(&self) {
        if self.store.is_some() && self.sequence.is_none() {
            let _ = self.wanted.try_put(WholeWanted); // one that waits is enough
        }
    }

    fn set_applied(&mut self, sequence: u64, at: AppliedAt) {
        self.sequence = Some(sequence);
        self.unsynced = true;
        self.stats.applied_index.store(at.index, Ordering::Release);
    }

    /// Shuts the store after a failure; the next tick opens it again and asks for everything.
    fn fail(&mut self, error: &StoreError) {
        tracing::error!(%error, "sled failed; its copy is rebuilt from the log");
        self.store = None;
        self.sequence = None;
        self.unsynced = false;
    }

    fn reconcile(&mut self, whole: &Reconcile) -> Result<(), StoreError> {
        let Reconcile { sequence, at, parts } = whole;
        let Some(store) = &self.store else { return Ok(()) };
        let (applied, held) = store.read()?;
        // Ahead of the log: of an entry that was never durable there, or of another log.
        let usable = applied.is_some_and(|applied| applied.index <= at.index);
        if !usable || held != *parts {
            store.rewrite(*at, parts)?;
            let fresh = applied.is_none() && held.is_empty() && parts.is_empty();
            if !fresh {
                tracing::info!(?applied, ?at, parts = parts.len(), "sled copy written anew");
                self.stats.rebuilds.fetch_add(1, Ordering::Relaxed);
            }
        } else if applied != Some(*at) {
            store.write(*at, &[])?;
        }
        self.set_applied(*sequence, *at);
        Ok(())
    }

    fn sync(&mut self) {
        if let (true, Some(store)) = (self.unsynced, &self.store) {
            match store.sync() {
                Ok(()) => self.unsynced = false,
                Err(error) => self.fail(&error),
            }
        }
    }
}

impl Resident for Materialiser {
    fn started(&mut self, room: &mut Room<'_, Self>) {
        room.tick_every(SYNC_PERIOD);
        self.open(); // the whole state comes unasked at the start, and is asked for at a tick
    }

    fn stopping(&mut self, _: &mut Room<'_, Self>) {
        self.sync();
    }
}

impl Receive<Write> for Materialiser {
    fn receive(&mut self, write: Write, _: Credit, _: &mut Room<'_, Self>) {
        let Write { sequence, at, changes } = write;
        let (Some(store), Some(held)) = (&self.store, self.sequence) else { return };
        if sequence <= held {
            return; // part of the whole state it was compared with
        }
        if sequence > held + 1 {
            // Entries are missing (there was no room for them): only a whole state helps.
            self.sequence = None;
            return self.ask();
        }
        match store.write(at, &changes) {
            Ok(()) => self.set_applied(sequence, at),
            Err(error) => self.fail(&error),
        }
    }
}

impl Receive<Reconcile> for Materialiser {
    fn receive(&mut self, whole: Reconcile, _: Credit, _: &mut Room<'_, Self>) {
        if let Err(error) = self.reconcile(&whole) {
            self.fail(&error);
        }
    }
}

impl Receive<Tick> for Materialiser {
    fn receive(&mut self, _: Tick, _: Credit, _: &mut Room<'_, Self>) {
        self.open();
        self.ask();
        self.sync();
    }
}

#[cfg(test)]
mod tests {
    use grus_mailbox::{Census, Outlet, Places, Process, outlet};

    use super::*;

    struct Bench {
        dir: PathBuf,
        process: Process,
        places: Places,
        wanted: Inbox<WholeWanted>,
        asked: Outlet<WholeWanted>,
        stats: Arc<CopyStats>,
    }

    impl Bench {
        fn new(dir: PathBuf) -> Self {
            let process = Process::system();
            let places = Places::start(1, &process);
            let (wanted, asked) = outlet(1);
            Self { dir, process, places, wanted, asked, stats: Arc::default() }
        }

        fn start(&self) -> HostHandle<Materialiser> {
            let wanted = self.wanted.clone();
            Materialiser::start(self.places.core(0), self.dir.clone(), wanted, &self.stats)
        }

        async fn asked(&mut self) {
            self.asked.take().await.expect("it asks for the whole state");
        }

        fn census(&self) -> Census {
            self.process.census.clone()
        }
    }

    fn at(index: u64) -> AppliedAt {
        AppliedAt { index, term: 1 }
    }

    fn change(key: &'static str, value: &'static str) -> Change {
        Change { key: Bytes::from_static(key.as_bytes()), value: Some(value.into()) }
    }

    fn parts(list: &[(&'static str, &'static str)]) -> Parts {
        list.iter().map(|(key, value)| (Bytes::from(*key), Bytes::from(*value))).collect()
    }

    fn held(dir: &std::path::Path) -> (Option<AppliedAt>, Parts) {
        DiskStore::open(dir).unwrap().0.read().unwrap()
    }

    #[actix::test]
    async fn it_follows_entry_by_entry_and_asks_again_after_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(folder.path().join("sled"));
        let handle = bench.start();
        let (whole, writes) = (handle.inbox(2), handle.inbox(WRITE_BYTES_MAX));
        writes.try_put(Write { sequence: 1, at: at(4), changes: vec![change("a", "0")] }).unwrap();
        whole.try_put(Reconcile { sequence: 1, at: at(4), parts: parts(&[("a", "1")]) }).unwrap();
        writes.try_put(Write { sequence: 1, at: at(4), changes: vec![change("a", "0")] }).unwrap();
        writes.try_put(Write { sequence: 2, at: at(6), changes: vec![change("b", "2")] }).unwrap();
        writes.try_put(Write { sequence: 4, at: at(9), changes: vec![change("c", "3")] }).unwrap();
        bench.asked().await;
        assert_eq!((bench.stats.applied_index(), bench.stats.rebuilds()), (6, 1));
        let all = parts(&[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]);
        whole.try_put(Reconcile { sequence: 5, at: at(10), parts: all.clone() }).unwrap();
        handle.stop().await;
        assert_eq!(held(&bench.dir), (Some(at(10)), all));
        assert!(bench.census().is_empty());
        bench.places.stop_and_join().await;
    }

    #[actix::test]
    async fn an_equal_copy_is_kept_and_one_ahead_of_the_log_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new(folder.path().join("sled"));
        let state = parts(&[("a", "1")]);
        for (index, rebuilds) in [(7, 1), (7, 1), (8, 1), (5, 2), (6, 2)] {
            let handle = bench.start();
            let whole = Reconcile { sequence: 0, at: at(index), parts: state.clone() };
            handle.inbox(1).try_put(whole).unwrap();
            handle.stop().await;
            assert_eq!(bench.stats.rebuilds(), rebuilds, "at {index}");
            assert_eq!(held(&bench.dir), (Some(at(index)), state.clone()));
        }
        bench.places.stop_and_join().await;
    }

    #[actix::test]
    async fn a_damaged_or_deleted_folder_is_made_good_while_it_runs_on() {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::new(folder.path().join("sled"));
        let state = parts(&[("a", "1"), ("b", "2")]);
        for damage in 0..3 {
            let handle = bench.start();
            let whole = Reconcile { sequence: 0, at: at(7), parts: state.clone() };
            handle.inbox(1).try_put(whole).unwrap();
            handle.stop().await;
            assert_eq!(held(&bench.dir), (Some(at(7)), state.clone()));
            match damage {
                0 => std::fs::remove_dir_all(&bench.dir).unwrap(),
                1 => std::fs::write(bench.dir.join("conf"), b"not a conf").unwrap(),
                _ => {}
            }
        }
        assert_eq!((bench.stats.rebuilds(), bench.stats.moved_aside()), (3, 1));
        bench.places.stop_and_join().await;
    }
}
