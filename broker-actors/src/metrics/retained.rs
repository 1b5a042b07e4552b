//! What queues at their caps have removed and refused, by shard.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::shards::ShardLabels;
use crate::retention::Removed;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RemovedLabels {
    shard: u32,
    durability: String,
    why: &'static str,
}

/// The counters of all shards.
#[derive(Debug, Clone)]
pub struct RetainedFamilies {
    removed: Family<RemovedLabels, Counter>,
    refused: Family<ShardLabels, Counter>,
}

impl RetainedFamilies {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let (removed, refused) = (Family::default(), Family::default());
        registry.register(
            "grus_queue_removed_messages",
            "Messages that retention has removed, for their age or because their queue was full",
            Family::clone(&removed),
        );
        registry.register(
            "grus_queue_refused_batches",
            "Batches refused because their queue was full",
            Family::clone(&refused),
        );
        Self { removed, refused }
    }

    /// Those of one shard.
    #[must_use]
    pub fn shard(&self, labels: &ShardLabels) -> RetainedMetrics {
        let counter = |why| {
            let ShardLabels { shard, durability } = labels.clone();
            self.removed.get_or_create(&RemovedLabels { shard, durability, why }).clone()
        };
        let refused = self.refused.get_or_create(labels).clone();
        RetainedMetrics { by_age: counter("age"), full: counter("full"), refused }
    }
}

/// The counters of one shard. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RetainedMetrics {
    by_age: Counter,
    full: Counter,
    refused: Counter,
}

impl RetainedMetrics {
    /// So many messages were removed.
    pub fn removed(&self, removed: Removed) {
        self.by_age.inc_by(removed.by_age);
        self.full.inc_by(removed.full);
    }

    /// A batch was refused because its queue was full.
    pub fn refused(&self) {
        self.refused.inc();
    }
}
