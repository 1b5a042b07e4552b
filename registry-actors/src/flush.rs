//! RegistryFlush: does the blocking work of the registry's log.
//!
//! * Owns: nothing; the log's jobs bring what they need.
//! * Lives on: an arbiter of its own; it blocks on the disk.
//! * Inbox: [`RunJob`], at most as many as the log has under way.
//! * Talks to: the Registry, which is told what came of each job.
//! * Stops: after all jobs that were put before.
//! * If it panics: the process ends; what was on its way to the disk is in doubt.

use grus_consensus::JobPort;
use grus_log::{Disk, Job, JobDone};
use grus_mailbox::{
    ActorSpec, Credit, Fatal, FatalPort, FatalReason, Host, HostHandle, Inbox, Place, PutError,
    Receive, Resident, Room, Weigh,
};

/// Most jobs under way; the log itself has few.
pub(crate) const JOBS_MAX: u32 = 64;

/// Runs a job.
pub(crate) struct RunJob<D: Disk>(Job<D>);

impl<D: Disk> Weigh for RunJob<D> {}

/// A job has run.
pub(crate) struct JobRan<D: Disk>(pub(crate) JobDone<D>);

impl<D: Disk> Weigh for JobRan<D> {}

/// See the module documentation.
pub(crate) struct RegistryFlush<D: Disk> {
    ran: Inbox<JobRan<D>>,
}

impl<D: Disk> RegistryFlush<D> {
    pub(crate) fn start(place: &Place, ran: Inbox<JobRan<D>>) -> HostHandle<Self> {
        let spec = ActorSpec::new("RegistryFlush", "log").never_restarts();
        Host::spawn(place, spec, move || Self { ran: ran.clone() })
    }
}

impl<D: Disk> Resident for RegistryFlush<D> {}

impl<D: Disk> Receive<RunJob<D>> for RegistryFlush<D> {
    fn receive(&mut self, RunJob(job): RunJob<D>, _: Credit, _: &mut Room<'_, Self>) {
        // Stopped: the registry is gone already, and with it the log.
        if let Err(PutError::Full(_)) = self.ran.try_put(JobRan(job.run())) {
            panic!("more jobs under way than there may be");
        }
    }
}

/// The way of the log's jobs to their actor.
pub(crate) struct FlushPort<D: Disk> {
    pub(crate) jobs: Inbox<RunJob<D>>,
    pub(crate) fatal: FatalPort,
}

impl<D: Disk> JobPort<D> for FlushPort<D> {
    fn submit(&self, job: Job<D>) -> Option<JobDone<D>> {
        if let Err(PutError::Full(_)) = self.jobs.try_put(RunJob(job)) {
            self.fatal.report(Fatal {
                actor: "RegistryFlush/log".to_owned(),
                reason: FatalReason::Storage,
                detail: format!("more than {JOBS_MAX} jobs under way"),
            });
        }
        None
    }
}
