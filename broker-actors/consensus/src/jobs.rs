//! The way out for the log's blocking work.

use grus_log::{Disk, Job, JobDone};

/// Takes the log's jobs to whoever may block. Jobs run one after the other, in the order given.
pub trait JobPort<D: Disk>: 'static {
    /// Hands over a job. `Some` when it ran on the spot; else the result comes later through
    /// [`Group::job_done`](crate::Group::job_done).
    fn submit(&self, job: Job<D>) -> Option<JobDone<D>>;

    /// Has something read where that holds nobody up; it tells its result itself, once. Unless
    /// overridden it is read on the spot.
    fn read(&self, reading: Reading) {
        reading();
    }
}

/// Something to be read that may block.
pub type Reading = Box<dyn FnOnce() + Send>;

/// Runs every job on the spot. For tests and tools: the caller's thread blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct InlineJobs;

impl<D: Disk> JobPort<D> for InlineJobs {
    fn submit(&self, job: Job<D>) -> Option<JobDone<D>> {
        Some(job.run())
    }
}
