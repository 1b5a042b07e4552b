//! What is asked for when `/metrics` is read: topics, shards, actors, the disk. Pure but for being
//! told.
//!
//! Label sets are bounded: a topic has one series of each kind, those beyond [`TOPICS_MAX`] share
//! one, and queues are shown only to who asks for them.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use grus_mailbox::{ActorReport, KindReport};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::shards::ShardLabels;
use crate::shard::ShardStatus;
use crate::topic_queue::QueueStatus;

/// Most topics with series of their own, in order of their names.
pub const TOPICS_MAX: usize = 1_000;
/// The label of all others together; no topic has such a name.
pub const OTHER_TOPICS: &str = "%other";

type Whole = Gauge<u64, AtomicU64>;
type Measured = Gauge<f64, AtomicU64>;
type Fraction = Counter<f64, AtomicU64>;

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// Milliseconds since the broker started.
    pub uptime_ms: u64,
    /// Bytes of the data folder's disk: free for the broker, and in all; where known.
    pub disk: Option<(u64, u64)>,
    /// Every queue that could answer, in order of topics.
    pub queues: Vec<QueueStatus>,
    /// Whether each queue is to have series of its own.
    pub queues_wanted: bool,
    /// The shards.
    pub shards: Vec<ShardStatus>,
    /// Actors by kind, with those that have stopped counted in.
    pub kinds: Vec<KindReport>,
    /// The actors that live.
    pub actors: Vec<ActorReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TopicLabel {
    topic: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    topic: String,
    queue: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InboxLabels {
    kind: &'static str,
    message: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Moment {
    /// Registers all of it.
    pub fn register(&self, registry: &mut Registry) {
        self.register_process(registry);
        self.register_topics(registry);
        if self.queues_wanted {
            self.register_queues(registry);
        }
        self.register_shards(registry);
        self.register_kinds(registry);
        self.register_inboxes(registry);
    }

    fn register_process(&self, registry: &mut Registry) {
        let build = Family::<BuildLabels, Whole>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("grus_build_info", "1, with the program's version", build);
        let uptime = Measured::default();
        uptime.set(seconds_of_ms(self.uptime_ms));
        registry.register("grus_uptime_seconds", "Time since the broker started", uptime);
        if let Some((free, whole)) = self.disk {
            let gauge = |bytes| {
                let gauge = Whole::default();
                gauge.set(bytes);
                gauge
            };
            let help = "Bytes that the broker can still use on the disk of its data folder";
            registry.register("grus_disk_free_bytes", help, gauge(free));
            registry.register("grus_disk_bytes", "Bytes of that disk", gauge(whole));
        }
    }

    fn register_topics(&self, registry: &mut Registry) {
        let topics = self.topics();
        let mut each = |name: &str, help: &str, value: fn(&TopicSums) -> u64| {
            let family = Family::<TopicLabel, Whole>::default();
            for (topic, sums) in &topics {
                family.get_or_create(&TopicLabel { topic: topic.clone() }).set(value(sums));
            }
            registry.register(name, help, family);
        };
        each("grus_topic_queues", "Queues of the topic", |topic| topic.queues);
        each("grus_topic_messages", "Messages that can be read", |topic| topic.messages);
        each("grus_topic_bytes", "Bytes of their batches", |topic| topic.bytes);
        each("grus_topic_unflushed_messages", "Messages that are not on disk yet", |topic| {
            topic.unflushed
        });
        let stored = Family::<TopicLabel, Counter>::default();
        for (topic, sums) in &topics {
            stored.get_or_create(&TopicLabel { topic: topic.clone() }).inc_by(sums.stored);
        }
        registry.register("grus_topic_stored_messages", "Messages ever stored", stored);
    }

    /// The queues summed by topic; topics beyond the limit are one.
    fn topics(&self) -> Vec<(String, TopicSums)> {
        let mut topics: Vec<(String, TopicSums)> = Vec::new();
        let mut others = TopicSums::default();
        for queue in &self.queues {
            let name = queue.topic.as_str();
            let is_last = topics.last().is_some_and(|(last, _)| last == name);
            if !is_last && topics.len() < TOPICS_MAX {
                topics.push((name.to_owned(), TopicSums::default()));
            }
            match topics.last_mut() {
                Some((last, sums)) if last == name => sums.add(queue),
                _ => others.add(queue),
            }
        }
        if others.queues > 0 {
            topics.push((OTHER_TOPICS.to_owned(), others));
        }
        topics
    }

    fn register_queues(&self, registry: &mut Registry) {
        let mut each = |name: &str, help: &str, value: fn(&QueueStatus) -> u64| {
            let family = Family::<QueueLabels, Whole>::default();
            for queue in &self.queues {
                let labels =
                    QueueLabels { topic: queue.topic.to_string(), queue: queue.key.queue.0 };
                family.get_or_create(&labels).set(value(queue));
            }
            registry.register(name, help, family);
        };
        each("grus_queue_write_pointer", "Offset the next message gets", |queue| {
            queue.end_offset.0
        });
        each("grus_queue_flush_pointer", "Offset up to which messages are on disk", |queue| {
            queue.durable_end.0
        });
        each("grus_queue_messages", "Messages that can be read", |queue| queue.messages);
        each("grus_queue_bytes", "Bytes of their batches", |queue| queue.bytes);
    }

    fn register_shards(&self, registry: &mut Registry) {
        let mut each = |name: &str, help: &str, value: fn(&ShardStatus) -> u64| {
            let family = Family::<ShardLabels, Whole>::default();
            for shard in &self.shards {
                let labels = ShardLabels::of(shard.shard, shard.durability);
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

    fn register_kinds(&self, registry: &mut Registry) {
        let mut each = |name: &str, help: &str, value: fn(&KindReport) -> u64| {
            let family = Family::<KindLabel, Whole>::default();
            for kind in &self.kinds {
                family.get_or_create(&KindLabel { kind: kind.kind }).set(value(kind));
            }
            registry.register(name, help, family);
        };
        each("grus_actors", "Actors that live", |kind| kind.actors);
        each("grus_actor_queued", "Messages in the actors' mailboxes", |kind| kind.queued);
        let oldest = Family::<KindLabel, Measured>::default();
        let count = |value: fn(&KindReport) -> u64| {
            let family = Family::<KindLabel, Counter>::default();
            for kind in &self.kinds {
                family.get_or_create(&KindLabel { kind: kind.kind }).inc_by(value(kind));
            }
            family
        };
        let handled = count(|kind| kind.handled);
        let restarts = count(|kind| kind.restarts);
        let busy = Family::<KindLabel, Fraction>::default();
        for kind in &self.kinds {
            let label = KindLabel { kind: kind.kind };
            oldest.get_or_create(&label).set(seconds_of_ms(kind.oldest_waiting_ms));
            busy.get_or_create(&label).inc_by(seconds_of_us(kind.busy_us));
        }
        registry.register(
            "grus_actor_oldest_waiting_seconds",
            "Age of the oldest message not dealt with",
            oldest,
        );
        registry.register("grus_actor_handled", "Messages handled", handled);
        registry.register("grus_actor_restarts", "Actors rebuilt after a panic", restarts);
        registry.register("grus_actor_busy_seconds", "Time spent in handlers", busy);
    }

    fn register_inboxes(&self, registry: &mut Registry) {
        let mut sums: BTreeMap<(&'static str, &'static str), (u64, u64)> = BTreeMap::new();
        for actor in &self.actors {
            for inbox in &actor.inboxes {
                let sum = sums.entry((actor.kind, inbox.message)).or_default();
                sum.0 += u64::from(inbox.depth);
                sum.1 += u64::from(inbox.capacity);
            }
        }
        let mut each = |name: &str, help: &str, value: fn(&(u64, u64)) -> u64| {
            let family = Family::<InboxLabels, Whole>::default();
            for ((kind, message), sum) in &sums {
                family.get_or_create(&InboxLabels { kind, message }).set(value(sum));
            }
            registry.register(name, help, family);
        };
        let depth = "Credits of inboxes held by work that is not over: messages, or bytes";
        each("grus_inbox_depth", depth, |sum| sum.0);
        each("grus_inbox_capacity", "Credits of inboxes in all", |sum| sum.1);
    }
}

/// The queues of a topic together.
#[derive(Debug, Clone, Copy, Default)]
struct TopicSums {
    queues: u64,
    messages: u64,
    bytes: u64,
    unflushed: u64,
    stored: u64,
}

impl TopicSums {
    fn add(&mut self, queue: &QueueStatus) {
        self.queues += 1;
        self.messages += queue.messages;
        self.bytes += queue.bytes;
        self.unflushed += queue.end_offset.0.saturating_sub(queue.durable_end.0);
        self.stored += queue.end_offset.0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds as seconds, for a graph")]
fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

#[expect(clippy::cast_precision_loss, reason = "microseconds as seconds, for a graph")]
fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use grus_protocol::TopicName;
    use grus_protocol::ids::{Offset, QueueId, QueueKey, TimestampMs};
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn queue(topic: &str, queue: u32) -> QueueStatus {
        QueueStatus {
            key: QueueKey { queue: QueueId(queue), ..QueueKey::default() },
            topic: TopicName::try_from(topic).unwrap(),
            log_start: Offset(0),
            end_offset: Offset(5),
            durable_end: Offset(3),
            messages: 4,
            bytes: 200,
            last_modified: TimestampMs(1),
        }
    }

    fn text(moment: &Moment) -> String {
        let mut registry = Registry::default();
        moment.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn queues_are_summed_by_topic_and_shown_alone_only_on_request() {
        let queues = vec![queue("a", 0), queue("a", 1), queue("b", 0)];
        let moment = Moment { queues, ..Moment::default() };
        let summed = text(&moment);
        for line in [
            "grus_topic_queues{topic=\"a\"} 2",
            "grus_topic_messages{topic=\"a\"} 8",
            "grus_topic_unflushed_messages{topic=\"b\"} 2",
            "grus_topic_stored_messages_total{topic=\"a\"} 10",
        ] {
            assert!(summed.contains(line), "{line} in {summed}");
        }
        assert!(!summed.contains("grus_queue_"), "{summed}");
        let each = text(&Moment { queues_wanted: true, ..moment });
        assert!(each.contains("grus_queue_write_pointer{topic=\"a\",queue=\"1\"} 5"), "{each}");
    }

    #[test]
    fn ten_thousand_topics_are_a_bounded_page() {
        let queues = (0..10_000).map(|number| queue(&format!("t{number:05}"), 0)).collect();
        let text = text(&Moment { queues, ..Moment::default() });
        assert_eq!(text.matches("grus_topic_queues{").count(), TOPICS_MAX + 1);
        assert!(text.contains("grus_topic_queues{topic=\"%other\"} 9000"), "the rest is not lost");
    }
}
