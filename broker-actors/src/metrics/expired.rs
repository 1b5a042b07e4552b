//! What becomes of messages for groups once their time to live is over, by shard.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::shards::ShardLabels;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExpiredLabels {
    shard: u32,
    durability: String,
    became: &'static str,
}

/// The counters of all shards.
#[derive(Debug, Clone)]
pub struct ExpiredFamilies {
    expired: Family<ExpiredLabels, Counter>,
}

impl ExpiredFamilies {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let expired = Family::default();
        registry.register(
            "grus_group_expired_messages",
            "Messages that groups came to when their time to live was over",
            Family::clone(&expired),
        );
        Self { expired }
    }

    /// Those of one shard.
    #[must_use]
    pub fn shard(&self, labels: &ShardLabels) -> ExpiredMetrics {
        let counter = |became| {
            let ShardLabels { shard, durability } = labels.clone();
            self.expired.get_or_create(&ExpiredLabels { shard, durability, became }).clone()
        };
        ExpiredMetrics { dropped: counter("nothing"), letters: counter("dead_letter") }
    }
}

/// The counters of one shard. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ExpiredMetrics {
    dropped: Counter,
    letters: Counter,
}

impl ExpiredMetrics {
    /// A group passed over so many messages whose time was over.
    pub fn dropped(&self, messages: u64) {
        self.dropped.inc_by(messages);
    }

    /// So many became dead letters because their time was over.
    pub fn buried(&self, messages: u64) {
        self.letters.inc_by(messages);
    }
}
