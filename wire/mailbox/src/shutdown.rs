//! Shutdown in stages: who is upstream stops first, and each stage is over before the next begins.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::HostHandle;
use crate::resident::Resident;

type StopFuture = Pin<Box<dyn Future<Output = ()>>>;
type Stop = Box<dyn FnOnce() -> StopFuture>;

/// The order in which a process stops. Built by the one who placed its actors; run once.
///
/// The stages share one time. Each gets its part of what is left when it begins, so that what one does not
/// use is there for all that come after it, and none that hangs takes the time of those.
pub struct Shutdown {
    whole: Duration,
    stages: Vec<Stage>,
}

struct Stage {
    name: &'static str,
    /// Its part of the time, beside those of the stages after it.
    shares: u32,
    members: Vec<(String, Stop)>,
}

/// How one stage went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageReport {
    /// The stage.
    pub name: &'static str,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Those that had not stopped within the limit; the process goes on without them.
    pub overdue: Vec<String>,
}

impl Shutdown {
    /// A shutdown that lasts at most `whole`.
    #[must_use]
    pub fn new(whole: Duration) -> Self {
        Self { whole, stages: Vec::new() }
    }

    /// Begins the next stage; what is added from here on stops together. It has one share of the time.
    pub fn stage(&mut self, name: &'static str) -> &mut Self {
        self.long_stage(name, 1)
    }

    /// The same for one that may need longer than others: it has so many shares of the time, at least one.
    pub fn long_stage(&mut self, name: &'static str, shares: u32) -> &mut Self {
        self.stages.push(Stage { name, shares: shares.max(1), members: Vec::new() });
        self
    }

    /// Adds an actor to the current stage.
    ///
    /// # Panics
    /// When no stage was begun.
    pub fn actor<A: Resident>(&mut self, handle: &HostHandle<A>) -> &mut Self {
        let handle = handle.clone();
        self.step(format!("{handle:?}"), move || handle.stop())
    }

    /// Adds anything that stops: `stop` is called when the stage begins, and what it returns is
    /// awaited.
    ///
    /// # Panics
    /// When no stage was begun.
    pub fn step<F: Future<Output = ()> + 'static>(
        &mut self,
        name: impl Into<String>,
        stop: impl FnOnce() -> F + 'static,
    ) -> &mut Self {
        let stage = self.stages.last_mut().expect("begin a stage first");
        stage.members.push((name.into(), Box::new(move || Box::pin(stop()))));
        self
    }

    /// Runs the stages in their order. All of a stage are told at once, and waited for together.
    pub async fn run(self) -> Vec<StageReport> {
        let over = Instant::now() + self.whole;
        let mut shares: u32 = self.stages.iter().map(|stage| stage.shares).sum();
        let mut reports = Vec::new();
        for stage in self.stages {
            let left = over.saturating_duration_since(Instant::now());
            let limit = left * stage.shares / shares;
            shares -= stage.shares;
            let report = run_stage(stage, limit).await;
            if report.overdue.is_empty() {
                tracing::info!(stage = report.name, took_ms = report.took_ms, "stopped");
            } else {
                tracing::warn!(stage = report.name, took_ms = report.took_ms,
                    overdue = ?report.overdue, "not all stopped in time");
            }
            reports.push(report);
        }
        reports
    }
}

async fn run_stage(stage: Stage, limit: Duration) -> StageReport {
    let begun = Instant::now();
    let deadline = begun + limit;
    let told: Vec<_> = stage.members.into_iter().map(|(name, stop)| (name, stop())).collect();
    let mut overdue = Vec::new();
    for (name, stopped) in told {
        if tokio::time::timeout_at(deadline, stopped).await.is_err() {
            overdue.push(name);
        }
    }
    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    StageReport { name: stage.name, took_ms, overdue }
}

impl fmt::Debug for Shutdown {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = self.stages.iter().map(|stage| (stage.name, stage.members.len()));
        formatter.debug_list().entries(stages).finish()
    }
}
