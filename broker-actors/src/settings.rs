//! What the configuration means to each part of the broker. Pure.

use std::path::PathBuf;

use grus_log::LogConfig;
use grus_protocol::ids::{BrokerId, Durability, ShardId};
use grus_protocol::limits::{BatchLimits, FrameLimits, REQUEST_HEADER_BYTES_MAX};
use grus_protocol::message::{TopicKind, TopicSettings};

use crate::config::BrokerConfig;
use crate::registry_link::TopicPolicy;
use crate::shard::ShardSettings;

/// Bytes of a log entry beyond those of the one batch in it.
const ENTRY_OVERHEAD_BYTES: usize = 64 * 1024;

impl BrokerConfig {
    /// What a frame may be.
    #[must_use]
    pub fn frame_limits(&self) -> FrameLimits {
        FrameLimits { frame_bytes_max: self.limits.frame_bytes_max, ..FrameLimits::REQUESTS }
    }

    /// What a batch may be. Small segments make for small batches: one must fit an entry of the
    /// log, so that what passes the edge can be stored.
    #[must_use]
    pub fn batch_limits(&self) -> BatchLimits {
        let log = self.log_config(Durability::Persisted);
        let fits = log.entry_bytes_max.saturating_sub(ENTRY_OVERHEAD_BYTES);
        let batch_bytes_max =
            self.limits.batch_bytes_max.min(u32::try_from(fits).unwrap_or(u32::MAX));
        BatchLimits {
            batch_bytes_max,
            records_max: self.limits.batch_records_max,
            message_bytes_max: self.limits.message_bytes_max.min(batch_bytes_max),
            headers_bytes_max: self.limits.headers_bytes_max.min(batch_bytes_max),
            ..BatchLimits::PRODUCE
        }
    }

    /// How topics are made that nobody made by hand.
    #[must_use]
    pub fn topic_policy(&self) -> TopicPolicy {
        let retention = self.topic.retention_time.as_millis();
        TopicPolicy {
            auto_create: self.topic.auto_create,
            settings: TopicSettings {
                queues: self.topic.queues,
                durability: self.topic.durability,
                retention_ms: u64::try_from(retention).unwrap_or(u64::MAX),
                retention_bytes: self.topic.retention_bytes,
                kind: TopicKind::Durable,
                ..TopicSettings::default()
            },
            queues_max: self.limits.queues_max,
        }
    }

    /// What a shard is started with.
    #[must_use]
    pub fn shard_settings(
        &self,
        shard: ShardId,
        broker: BrokerId,
        folder: PathBuf,
        durability: Durability,
    ) -> ShardSettings {
        let defaults = ShardSettings::new(shard, broker, folder, durability);
        let fits = self.limits.frame_bytes_max.saturating_sub(REQUEST_HEADER_BYTES_MAX);
        let append_bytes_max = defaults.append_bytes_max.min(u64::from(fits));
        ShardSettings { log: self.log_config(durability), append_bytes_max, ..defaults }
    }

    /// The log of a shard, each of its limits within its bounds.
    #[must_use]
    pub fn log_config(&self, durability: Durability) -> LogConfig {
        let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
        let config = LogConfig {
            durability,
            segment_bytes: bytes(self.log.segment_bytes),
            first_segment_bytes: bytes(self.log.first_segment_bytes),
            accept_loss: self.log.accept_loss,
            find_index: self.log.find_index,
            entry_bytes_max: self.limits.batch_bytes_max as usize + ENTRY_OVERHEAD_BYTES,
            ..LogConfig::default()
        };
        config.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_the_documented_size_fits_a_default_broker() {
        let limits = BrokerConfig::default().batch_limits();
        assert_eq!(limits.message_bytes_max, 4 << 20);
        assert!(limits.batch_bytes_max > limits.message_bytes_max + limits.headers_bytes_max);
    }

    #[test]
    fn what_passes_the_edge_fits_the_log_however_small_its_segments() {
        let mut config = BrokerConfig::default();
        config.log.first_segment_bytes = 1 << 20;
        let limits = config.batch_limits();
        assert!(limits.message_bytes_max <= limits.batch_bytes_max);
        let log = config.log_config(Durability::Replicated);
        assert!(limits.batch_bytes_max as usize + ENTRY_OVERHEAD_BYTES <= log.entry_bytes_max);
        assert!(log.entry_bytes_max < 1 << 20);
    }

    #[test]
    fn what_members_say_to_each_other_fits_a_frame_however_short_that_is() {
        for (frame, batch, message) in [(16 << 20, 8 << 20, 4 << 20), (2 << 20, 1 << 20, 500 << 10)]
        {
            let mut config = BrokerConfig::default();
            config.limits.frame_bytes_max = frame;
            (config.limits.batch_bytes_max, config.limits.message_bytes_max) = (batch, message);
            let settings = config.shard_settings(
                ShardId(1),
                BrokerId(1),
                PathBuf::new(),
                Durability::Persisted,
            );
            assert!(settings.append_bytes_max + 64 * 1024 < u64::from(frame));
            assert!(settings.log.entry_bytes_max + 64 * 1024 < frame as usize);
        }
    }
}
