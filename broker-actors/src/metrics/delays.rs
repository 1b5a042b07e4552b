//! How the wheels of the shards keep time: observed once a message that is released.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use super::shards::ShardLabels;

/// Upper bounds of the buckets of lateness: 1 ms, doubled 17 times, to 131 s.
const FIRST_BUCKET_SECONDS: f64 = 0.001;
const BUCKETS: u16 = 18;

type Seconds = Gauge<f64, AtomicU64>;

/// The numbers of all shards.
#[derive(Debug, Clone)]
pub struct DelayFamilies {
    pending: Family<ShardLabels, Gauge>,
    oldest: Family<ShardLabels, Seconds>,
    damaged: Family<ShardLabels, Gauge>,
    lateness: Family<ShardLabels, Histogram, fn() -> Histogram>,
    released: Family<ShardLabels, Counter>,
    recalled: Family<ShardLabels, Counter>,
    rolled: Family<ShardLabels, Counter>,
}

impl DelayFamilies {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let families = Self {
            pending: Family::default(),
            oldest: Family::default(),
            damaged: Family::default(),
            lateness: Family::new_with_constructor(histogram),
            released: Family::default(),
            recalled: Family::default(),
            rolled: Family::default(),
        };
        let help = "Scheduled messages that wait for their time";
        registry.register("grus_delay_pending", help, families.pending.clone());
        let help = "How long the oldest scheduled message that is due has been so";
        registry.register("grus_delay_oldest_overdue_seconds", help, families.oldest.clone());
        let help = "Batches of scheduled messages whose bytes are damaged, as far as was noticed";
        registry.register("grus_delay_damaged_batches", help, families.damaged.clone());
        let help = "From a message's due time until it can be seen";
        registry.register("grus_delay_lateness_seconds", help, families.lateness.clone());
        let help = "Scheduled messages that were released";
        registry.register("grus_delay_released", help, families.released.clone());
        let help = "Scheduled messages that were taken back";
        registry.register("grus_delay_recalled", help, families.recalled.clone());
        let help = "Bytes of scheduled messages carried on into later segments";
        registry.register("grus_delay_rolled_bytes", help, families.rolled.clone());
        families
    }

    /// Those of one shard.
    #[must_use]
    pub fn shard(&self, labels: &ShardLabels) -> DelayMetrics {
        DelayMetrics {
            pending: self.pending.get_or_create(labels).clone(),
            oldest: self.oldest.get_or_create(labels).clone(),
            damaged: self.damaged.get_or_create(labels).clone(),
            lateness: self.lateness.get_or_create(labels).clone(),
            released: self.released.get_or_create(labels).clone(),
            recalled: self.recalled.get_or_create(labels).clone(),
            rolled: self.rolled.get_or_create(labels).clone(),
        }
    }
}

/// The numbers of one shard. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DelayMetrics {
    pending: Gauge,
    oldest: Seconds,
    damaged: Gauge,
    lateness: Histogram,
    released: Counter,
    recalled: Counter,
    rolled: Counter,
}

impl Default for DelayMetrics {
    /// Numbers that nobody reads.
    fn default() -> Self {
        Self {
            pending: Gauge::default(),
            oldest: Seconds::default(),
            damaged: Gauge::default(),
            lateness: histogram(),
            released: Counter::default(),
            recalled: Counter::default(),
            rolled: Counter::default(),
        }
    }
}

impl DelayMetrics {
    /// A message can be seen, so many milliseconds after it was due.
    pub fn released(&self, late_ms: u64) {
        self.released.inc();
        self.lateness.observe(seconds(late_ms));
    }

    /// So many messages were taken back.
    pub fn recalled(&self, count: u64) {
        self.recalled.inc_by(count);
    }

    /// So many bytes were carried on.
    pub fn rolled(&self, bytes: u64) {
        self.rolled.inc_by(bytes);
    }

    /// So many messages wait, the oldest that is due has been so for so long, and so many batches are
    /// known to be damaged.
    pub fn measured(&self, pending: usize, overdue_ms: u64, damaged: usize) {
        self.damaged.set(i64::try_from(damaged).unwrap_or(i64::MAX));
        self.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
        self.oldest.set(seconds(overdue_ms));
    }
}

pub(super) fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(FIRST_BUCKET_SECONDS, 2.0, BUCKETS))
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds as seconds, for a graph")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1e3
}
