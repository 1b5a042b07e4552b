//! How long the log takes: histograms by shard, observed once an entry or a sync, never once a
//! message.

use grus_protocol::ids::{Durability, ShardId};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::delays::{DelayFamilies, DelayMetrics};
use super::expired::{ExpiredFamilies, ExpiredMetrics};
use super::retained::{RetainedFamilies, RetainedMetrics};
use super::schedules::{ScheduleFamilies, ScheduleMetrics};

/// Upper bounds of the buckets: 50 µs, doubled 16 times, to 3.3 s.
const FIRST_BUCKET_SECONDS: f64 = 0.000_05;
const BUCKETS: u16 = 17;

/// A shard's labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ShardLabels {
    /// Its number.
    pub shard: u32,
    /// What its receipts promise.
    pub durability: String,
}

impl ShardLabels {
    /// The labels of a shard.
    #[must_use]
    pub fn of(shard: ShardId, durability: Durability) -> Self {
        Self { shard: shard.0, durability: durability.to_string() }
    }
}

type Histograms = Family<ShardLabels, Histogram, fn() -> Histogram>;

/// The histograms of all shards.
#[derive(Debug, Clone)]
pub struct LogMetrics {
    append: Histograms,
    sync: Histograms,
    delays: DelayFamilies,
    schedules: ScheduleFamilies,
    expired: ExpiredFamilies,
    retained: RetainedFamilies,
}

impl LogMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let family = || Histograms::new_with_constructor(histogram);
        let delays = DelayFamilies::new(registry);
        let schedules = ScheduleFamilies::new(registry);
        let expired = ExpiredFamilies::new(registry);
        let retained = RetainedFamilies::new(registry);
        let (append, sync) = (family(), family());
        let metrics = Self { append, sync, delays, schedules, expired, retained };
        registry.register(
            "grus_log_append_seconds",
            "Time from an entry's leaving for the log until it is applied",
            metrics.append.clone(),
        );
        registry.register(
            "grus_log_sync_seconds",
            "Time of one round of fdatasync",
            metrics.sync.clone(),
        );
        metrics
    }

    /// Those of one shard.
    #[must_use]
    pub fn shard(&self, shard: ShardId, durability: Durability) -> ShardMetrics {
        let labels = ShardLabels::of(shard, durability);
        ShardMetrics {
            append: self.append.get_or_create(&labels).clone(),
            sync: self.sync.get_or_create(&labels).clone(),
            delays: self.delays.shard(&labels),
            schedules: self.schedules.shard(&labels),
            expired: self.expired.shard(&labels),
            retained: self.retained.shard(&labels),
        }
    }
}

/// The histograms of one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardMetrics {
    append: Histogram,
    sync: Histogram,
    delays: DelayMetrics,
    schedules: ScheduleMetrics,
    expired: ExpiredMetrics,
    retained: RetainedMetrics,
}

impl Default for ShardMetrics {
    /// Histograms that nobody reads.
    fn default() -> Self {
        let (delays, schedules) = (DelayMetrics::default(), ScheduleMetrics::default());
        let (expired, retained) = (ExpiredMetrics::default(), RetainedMetrics::default());
        Self { append: histogram(), sync: histogram(), delays, schedules, expired, retained }
    }
}

impl ShardMetrics {
    /// An entry is applied after so long.
    pub fn appended(&self, took_ns: u64) {
        self.append.observe(seconds(took_ns));
    }

    /// How its wheel keeps time.
    #[must_use]
    pub fn delays(&self) -> DelayMetrics {
        self.delays.clone()
    }

    /// How its schedules keep time.
    pub const fn schedules(&self) -> &ScheduleMetrics {
        &self.schedules
    }

    /// What becomes of messages whose time is over.
    pub const fn expired(&self) -> &ExpiredMetrics {
        &self.expired
    }

    /// What its queues at their caps remove and refuse.
    pub const fn retained(&self) -> &RetainedMetrics {
        &self.retained
    }

    /// A round of syncs is over after so long.
    pub fn synced(&self, took_ns: u64) {
        self.sync.observe(seconds(took_ns));
    }
}

fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, BUCKETS))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds as seconds, for a graph")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
