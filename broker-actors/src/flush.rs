//! Flush: the actor that may block, one per shard.
//!
//! ```text
//! consensus --job--> FlushPort --RunJob--> [Flush] --JobFinished--> Storage --> consensus
//! ```
//!
//! * Owns: nothing; a job carries what it works on (fdatasync rounds, allocation, fault-ahead,
//!   checkpoints, recycling).
//! * Lives on: its own arbiter.
//! * Inbox: `RunJob`; jobs run in the order in which the log gave them out.
//! * Talks to: Storage.
//! * Stops: after the jobs that were put before; what the log still gives out then is done on the core, but for what is
//!   to be taken away: the next start does that.
//! * If it panics: the process ends. A failed fsync ends it too, by way of the log's verdict on the
//!   job that comes back: what the page cache holds can no longer be trusted.

use std::time::Duration;

use grus_consensus::{JobPort, Reading};
use grus_log::{Disk, Job};
use grus_mailbox::{Credit, Inbox, PutError, Receive, Resident, Room, Weigh};

use crate::disk_pace::DiskPace;
use crate::disk_turns::DiskTurns;
use crate::metrics::shards::ShardMetrics;
use crate::reader::ReadForConsensus;
use crate::storage::JobFinished;

/// Jobs that may be on their way: the log gives out few at a time, reaching this is a bug.
pub const JOBS_MAX: u32 = 1024;

/// Runs a job of the log.
pub(crate) struct RunJob<D: Disk> {
    job: Job<D>,
    storage: Inbox<JobFinished<D>>,
}

impl<D: Disk> Weigh for RunJob<D> {}

/// The disk of a simulation has come to a job.
struct ItsTurn<D: Disk> {
    job: RunJob<D>,
    credit: Credit,
}

impl<D: Disk> Weigh for ItsTurn<D> {}

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Flush {
    metrics: ShardMetrics,
    disk: DiskTurns,
    pace: DiskPace,
    /// When the disk of a simulation has done what it was given, on the monotonic clock.
    free_from_ns: u64,
}

impl Flush {
    pub(crate) const fn new(metrics: ShardMetrics, disk: DiskTurns, pace: DiskPace) -> Self {
        Self { metrics, disk, pace, free_from_ns: 0 }
    }

    fn run<D: Disk>(&self, msg: RunJob<D>, credit: Credit, room: &Room<'_, Self>) {
        let clock = room.clock();
        let since_ns = msg.job.is_sync().then(|| clock.monotonic_ns());
        let syncing = since_ns.map(|_| self.disk.begin_sync());
        let done = msg.job.run();
        drop(syncing);
        if let Some(since_ns) = since_ns {
            self.metrics.synced(clock.monotonic_ns().saturating_sub(since_ns));
        }
        // Stopped: the shard went without waiting, as after a fatal; nobody needs the result.
        if let Err(PutError::Full(_)) = msg.storage.try_put(JobFinished { done, credit }) {
            unreachable!("Storage has room for every job that is on its way");
        }
    }
}

impl Resident for Flush {}

impl<D: Disk> Receive<RunJob<D>> for Flush {
    fn receive(&mut self, job: RunJob<D>, credit: Credit, room: &mut Room<'_, Self>) {
        let Some(takes) = self.pace.next() else { return self.run(job, credit, room) };
        let now_ns = room.clock().monotonic_ns();
        // Timers tell milliseconds apart: jobs that end in the same one would change places.
        let takes_ns = u64::try_from(takes.max(Duration::from_millis(1)).as_nanos());
        self.free_from_ns = self.free_from_ns.max(now_ns) + takes_ns.expect("a while");
        let wait = Duration::from_nanos(self.free_from_ns - now_ns);
        room.spawn_into(async move {
            tokio::time::sleep(wait).await;
            ItsTurn { job, credit }
        });
    }
}

impl<D: Disk> Receive<ItsTurn<D>> for Flush {
    fn receive(&mut self, msg: ItsTurn<D>, _credit: Credit, room: &mut Room<'_, Self>) {
        self.run(msg.job, msg.credit, room);
    }
}

/// The way from consensus to Flush.
pub(crate) struct FlushPort<D: Disk> {
    pub(crate) flush: Inbox<RunJob<D>>,
    pub(crate) storage: Inbox<JobFinished<D>>,
    pub(crate) reader: Inbox<ReadForConsensus>,
}

impl<D: Disk> JobPort<D> for FlushPort<D> {
    fn submit(&self, job: Job<D>) -> Option<grus_log::JobDone<D>> {
        let job = RunJob { job, storage: self.storage.clone() };
        match self.flush.try_put(job) {
            Ok(()) => None,
            Err(PutError::Full(_)) => unreachable!("the log bounds its jobs"),
            // Consensus has stopped before, and other shards live on this thread. A start takes away what is
            // left, which may be very many segments where retention has just let go of them.
            Err(PutError::Stopped(RunJob { job, .. })) if job.is_removal() => None,
            Err(PutError::Stopped(RunJob { job, .. })) => Some(job.run()),
        }
    }

    fn read(&self, reading: Reading) {
        // Full means very many at once; stopped, that the shard is stopping: it must not wait.
        if let Err(PutError::Full(left) | PutError::Stopped(left)) =
            self.reader.try_put(ReadForConsensus(reading))
        {
            (left.0)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use grus_log::{EntryKind, Log, LogConfig, NewEntry, SimDisk};
    use grus_mailbox::outlet;

    use super::*;

    #[test]
    fn once_it_has_stopped_what_is_to_go_is_left_to_the_next_start() {
        let ((flush, gone), (storage, _heard), (reader, _read)) = (outlet(1), outlet(1), outlet(1));
        drop(gone);
        let port = FlushPort { flush, storage, reader };
        let (disk, config) = (SimDisk::new(1), LogConfig::default());
        let (mut log, _) = Log::open(&disk, Path::new("/log"), config).unwrap();
        let payload = [Bytes::from_static(b"entry")];
        let entry = NewEntry { kind: EntryKind::Normal, term: 1, index: 0, payload: &payload };
        log.append(&[entry]).unwrap();
        let mut synced = 0;
        while let Some(job) = log.next_job() {
            synced += u32::from(job.is_sync());
            log.complete(port.submit(job).expect("it is done on the spot")).unwrap();
        }
        assert!(synced > 0);
        log.truncate_after(None); // its segment is to go
        let left = loop {
            let job = log.next_job().expect("something is to go");
            let is_removal = job.is_removal();
            match port.submit(job) {
                Some(done) => {
                    log.complete(done).unwrap();
                }
                None => break is_removal,
            }
        };
        assert!(left && log.next_job().is_none(), "the log gives out nothing behind it");
    }
}
