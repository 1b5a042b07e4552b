//! Who has the disk: reads of old messages give way to syncs that receipts wait for.
//!
//! A disk that is kept busy by a reader of gigabytes lets every sync wait behind megabytes of reads.
//! So a reader thread reads in small steps, and none begins while a sync is under way: a step waits
//! until a sync is over, and no longer than [`GIVE_WAY_MAX`]. Where one sync follows the other, a
//! step lies between each two, so that readers go on.
//!
//! The two sides are threads that block (Flush and Reader); nobody else comes here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The longest that one step of a read gives way.
pub const GIVE_WAY_MAX: Duration = Duration::from_millis(20);

/// One for all that share a disk.
#[derive(Debug, Clone, Default)]
pub struct DiskTurns(Arc<Turns>);

#[derive(Debug, Default)]
struct Turns {
    syncs: Mutex<Syncs>,
    sync_over: Condvar,
    gave_way: AtomicU64,
}

#[derive(Debug, Default)]
struct Syncs {
    under_way: u32,
    /// Counts those that are over.
    over: u64,
}

/// A sync is under way until this is dropped.
#[derive(Debug)]
pub struct Syncing<'a>(&'a DiskTurns);

impl DiskTurns {
    /// A sync begins.
    #[must_use]
    pub fn begin_sync(&self) -> Syncing<'_> {
        self.syncs().under_way += 1;
        Syncing(self)
    }

    /// A read waits for its turn. Blocks, for [`GIVE_WAY_MAX`] at most.
    pub fn give_way(&self) {
        let syncs = self.syncs();
        let seen = syncs.over;
        if syncs.under_way > 0 {
            self.0.gave_way.fetch_add(1, Ordering::Relaxed);
        }
        let in_the_way = |syncs: &mut Syncs| syncs.under_way > 0 && syncs.over == seen;
        drop(self.0.sync_over.wait_timeout_while(syncs, GIVE_WAY_MAX, in_the_way));
    }

    /// How many reads found a sync under way.
    #[must_use]
    pub fn gave_way(&self) -> u64 {
        self.0.gave_way.load(Ordering::Relaxed)
    }

    fn syncs(&self) -> MutexGuard<'_, Syncs> {
        self.0.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Syncing<'_> {
    fn drop(&mut self) {
        let mut syncs = self.0.syncs();
        syncs.under_way -= 1;
        syncs.over += 1;
        drop(syncs);
        self.0.0.sync_over.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_read_goes_on_at_once_when_nothing_is_synced() {
        let turns = DiskTurns::default();
        drop(turns.begin_sync());
        turns.give_way();
        assert_eq!(turns.gave_way(), 0);
    }

    #[test]
    fn a_read_waits_for_the_sync_before_it_and_not_for_the_next() {
        let turns = DiskTurns::default();
        let first = turns.begin_sync();
        let reader = {
            let turns = turns.clone();
            thread::spawn(move || turns.give_way())
        };
        while turns.gave_way() == 0 {
            thread::yield_now();
        }
        let _next = turns.begin_sync();
        drop(first);
        // It comes to its turn although a sync is under way.
        reader.join().expect("a reader");
    }

    #[test]
    fn a_sync_that_hangs_holds_no_read_up_for_ever() {
        let turns = DiskTurns::default();
        let _hangs = turns.begin_sync();
        turns.give_way();
        assert_eq!(turns.gave_way(), 1);
    }
}
