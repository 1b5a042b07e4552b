//! How schedules of recurring messages keep time: observed once a run.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::delays::{histogram, seconds};
use super::shards::ShardLabels;

/// The numbers of all shards.
#[derive(Debug, Clone)]
pub struct ScheduleFamilies {
    count: Family<ShardLabels, Gauge>,
    waiting: Family<ShardLabels, Gauge>,
    lateness: Family<ShardLabels, Histogram, fn() -> Histogram>,
    runs: Family<ShardLabels, Counter>,
    skips: Family<ShardLabels, Counter>,
}

impl ScheduleFamilies {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let families = Self {
            count: Family::default(),
            waiting: Family::default(),
            lateness: Family::new_with_constructor(histogram),
            runs: Family::default(),
            skips: Family::default(),
        };
        let help = "Schedules of recurring messages";
        registry.register("grus_schedules", help, families.count.clone());
        let help = "Schedules that wait for their next run, and do not rest";
        registry.register("grus_schedules_waiting", help, families.waiting.clone());
        let help = "From the time of a run until its message was given to the log";
        registry.register("grus_schedule_lateness_seconds", help, families.lateness.clone());
        let help = "Messages sent by schedules";
        registry.register("grus_schedule_runs", help, families.runs.clone());
        let help = "Times that runs which were missed were passed over, any number of them at once";
        registry.register("grus_schedule_skips", help, families.skips.clone());
        families
    }

    /// Those of one shard.
    #[must_use]
    pub fn shard(&self, labels: &ShardLabels) -> ScheduleMetrics {
        ScheduleMetrics {
            count: self.count.get_or_create(labels).clone(),
            waiting: self.waiting.get_or_create(labels).clone(),
            lateness: self.lateness.get_or_create(labels).clone(),
            runs: self.runs.get_or_create(labels).clone(),
            skips: self.skips.get_or_create(labels).clone(),
        }
    }
}

/// The numbers of one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ScheduleMetrics {
    count: Gauge,
    waiting: Gauge,
    lateness: Histogram,
    runs: Counter,
    skips: Counter,
}

impl Default for ScheduleMetrics {
    /// Numbers that nobody reads.
    fn default() -> Self {
        Self {
            count: Gauge::default(),
            waiting: Gauge::default(),
            lateness: histogram(),
            runs: Counter::default(),
            skips: Counter::default(),
        }
    }
}

impl ScheduleMetrics {
    /// A run is stored; it was given to the log so many milliseconds after its time.
    pub fn ran(&self, late_ms: u64) {
        self.runs.inc();
        self.lateness.observe(seconds(late_ms));
    }

    /// Runs that were missed are passed over.
    pub fn skipped(&self) {
        self.skips.inc();
    }

    /// So many schedules there are, and so many of them wait for their next run.
    pub fn measured(&self, count: usize, waiting: usize) {
        self.count.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }
}
