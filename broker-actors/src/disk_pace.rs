//! How long a disk takes: in simulations, whose disks take no time of their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a disk takes for a job of the log, besides the time that it takes. By default: nothing, as real
/// disks take their own.
#[derive(Clone, Default)]
pub struct DiskPace(Option<Arc<dyn Fn() -> Duration + Send + Sync>>);

impl DiskPace {
    /// As long as `takes` says, job by job. Jobs still run one after the other.
    #[must_use]
    pub fn of(takes: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(takes)))
    }

    /// How long the next job takes; none: it runs at once.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.0.as_ref().map(|takes| takes())
    }
}

impl fmt::Debug for DiskPace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = if self.0.is_some() { "simulated" } else { "its own" };
        write!(out, "DiskPace({pace})")
    }
}
