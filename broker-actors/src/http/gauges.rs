//! What is asked for when `/metrics` is read: queues, shards, actors. Pure but for being told.

use std::sync::atomic::AtomicU64;

use crate::shard::ShardStatus;
use crate::topic_queue::QueueStatus;
use grus_mailbox::KindReport;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Whole = Gauge<u64, AtomicU64>;
type Fraction = Counter<f64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    topic: String,
    queue: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabels {
    shard: u32,
    durability: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// Registers the numbers of the moment.
pub fn register(
    registry: &mut Registry,
    queues: &[QueueStatus],
    shards: &[ShardStatus],
    kinds: &[KindReport],
) {
    register_queues(registry, queues);
    register_shards(registry, shards);
    register_actors(registry, kinds);
}

fn register_queues(registry: &mut Registry, queues: &[QueueStatus]) {
    let mut each = |name: &str, help: &str, value: fn(&QueueStatus) -> u64| {
        let family = Family::<QueueLabels, Whole>::default();
        for queue in queues {
            let labels = QueueLabels { topic: queue.topic.to_string(), queue: queue.key.queue.0 };
            family.get_or_create(&labels).set(value(queue));
        }
        registry.register(name, help, family);
    };
    each("grus_queue_write_pointer", "Offset the next message gets", |queue| queue.end_offset.0);
    each("grus_queue_flush_pointer", "Offset up to which messages are on disk", |queue| {
        queue.durable_end.0
    });
    each("grus_queue_messages", "Messages that can be read", |queue| queue.messages);
    each("grus_queue_bytes", "Bytes of their batches", |queue| queue.bytes);
}

fn register_shards(registry: &mut Registry, shards: &[ShardStatus]) {
    let mut each = |name: &str, help: &str, value: fn(&ShardStatus) -> u64| {
        let family = Family::<ShardLabels, Whole>::default();
        for shard in shards {
            let labels =
                ShardLabels { shard: shard.shard.0, durability: shard.durability.to_string() };
            family.get_or_create(&labels).set(value(shard));
        }
        registry.register(name, help, family);
    };
    each("grus_shard_ready", "1 when the shard serves", |shard| u64::from(shard.is_ready));
    each("grus_shard_disk_full", "1 when producers are refused for want of space", |shard| {
        u64::from(shard.disk_full)
    });
    each("grus_shard_queues", "Queues on the shard", |shard| shard.queues as u64);
    each("grus_shard_waiting_bytes", "Bytes that wait to be proposed", |shard| {
        shard.waiting_bytes as u64
    });
    each("grus_shard_segments", "Segments of the shard's log", |shard| shard.segments);
    each("grus_shard_log_bytes", "Bytes of the shard's log on disk", |shard| shard.log_bytes);
    each("grus_shard_damaged_entries", "Entries known to be damaged", |shard| {
        shard.damaged_entries
    });
    each("grus_shard_applied_index", "Log index of the last entry applied", |shard| {
        shard.applied_index.unwrap_or(0)
    });
    each("grus_shard_synced_index", "Log index up to which entries are on disk", |shard| {
        shard.synced_index.unwrap_or(0)
    });
}

fn register_actors(registry: &mut Registry, kinds: &[KindReport]) {
    let mut each = |name: &str, help: &str, value: fn(&KindReport) -> u64| {
        let family = Family::<KindLabel, Whole>::default();
        for kind in kinds {
            family.get_or_create(&KindLabel { kind: kind.kind }).set(value(kind));
        }
        registry.register(name, help, family);
    };
    each("grus_actors", "Actors", |kind| kind.actors);
    each("grus_actor_queued", "Messages in the actors' mailboxes", |kind| kind.queued);
    each("grus_actor_oldest_waiting_ms", "Age of the oldest message in a mailbox", |kind| {
        kind.oldest_waiting_ms
    });
    let count = |value: fn(&KindReport) -> u64| {
        let family = Family::<KindLabel, Counter>::default();
        for kind in kinds {
            family.get_or_create(&KindLabel { kind: kind.kind }).inc_by(value(kind));
        }
        family
    };
    registry.register("grus_actor_handled", "Messages handled", count(|kind| kind.handled));
    registry.register("grus_actor_restarts", "Actors rebuilt", count(|kind| kind.restarts));
    let busy = Family::<KindLabel, Fraction>::default();
    for kind in kinds {
        #[expect(clippy::cast_precision_loss, reason = "microseconds as seconds, for a graph")]
        busy.get_or_create(&KindLabel { kind: kind.kind }).inc_by(kind.busy_us as f64 / 1e6);
    }
    registry.register("grus_actor_busy_seconds", "Time spent in handlers", busy);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{Durability, Offset, QueueKey, ShardId, Term, TimestampMs};
    use grus_protocol::{ErrorCode, TopicName};
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::connection::Closed;
    use crate::metrics::EdgeMetrics;

    fn queue() -> QueueStatus {
        QueueStatus {
            key: QueueKey::default(),
            topic: TopicName::try_from("t").unwrap(),
            log_start: Offset(0),
            end_offset: Offset(2),
            durable_end: Offset(1),
            messages: 2,
            bytes: 200,
            last_modified: TimestampMs(1),
        }
    }

    fn shard() -> ShardStatus {
        ShardStatus {
            shard: ShardId(0),
            durability: Durability::Persisted,
            is_ready: true,
            leader: None,
            term: Term(1),
            applied_index: Some(3),
            synced_index: Some(3),
            purged_index: None,
            disk_full: false,
            queues: 1,
            waiting_bytes: 0,
            segments: 1,
            log_bytes: 100,
            damaged_entries: 0,
            unchecked_segments: 0,
        }
    }

    fn kind() -> KindReport {
        KindReport {
            kind: "Clerk",
            actors: 1,
            queued: 0,
            handled: 5,
            busy_us: 1_500_000,
            oldest_waiting_ms: 0,
            restarts: 0,
        }
    }

    #[test]
    fn the_documented_metrics_are_those_there_are() {
        let mut registry = Registry::default();
        let counters = EdgeMetrics::new(&mut registry);
        counters.opened();
        counters.closed(Closed::ByPeer); // a family without members is not shown
        counters.error_sent(ErrorCode::Internal);
        register(&mut registry, &[queue()], &[shard()], &[kind()]);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let served: BTreeSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATING.md");
        let page = std::fs::read_to_string(path).unwrap();
        let documented: BTreeSet<_> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
            .filter(|name| name.starts_with("grus_"))
            .collect();
        assert_eq!(served, documented);
        assert!(served.len() > 25);
    }
}
