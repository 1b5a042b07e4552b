//! What is asked for when `/metrics` is read: topics, shards, the process. Pure but for being
//! told.
//!
//! Label sets are bounded: a topic has one series of each kind, those beyond [`TOPICS_MAX`] share
//! one, and queues are shown only to who asks for them.

use grus_protocol::ids::ShardId;
use grus_registry::http::metrics::{ProcessMoment, Whole, gauge};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::groups::GroupMoments;
use super::shards::ShardLabels;
use crate::delay_wheel::messages::{DUE_BUCKETS_MS, DelayStatus};
use crate::shard::ShardStatus;
use crate::topic_queue::QueueStatus;

/// Most topics with series of their own, in order of their names.
pub const TOPICS_MAX: usize = 1_000;
/// The label of all others together; no topic has such a name.
pub const OTHER_TOPICS: &str = "%other";

/// What is known at one moment.
#[derive(Debug, Clone, Default)]
pub struct Moment {
    /// The process.
    pub process: ProcessMoment,
    /// Every queue that could answer, in order of topics.
    pub queues: Vec<QueueStatus>,
    /// Whether each queue is to have series of its own.
    pub queues_wanted: bool,
    /// The shards.
    pub shards: Vec<ShardStatus>,
    /// What is scheduled on them.
    pub delays: Vec<(ShardId, DelayStatus)>,
    /// The groups.
    pub groups: GroupMoments,
    /// Whether the broker is drained.
    pub is_drained: bool,
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

/// A shard's labels, and one of its members.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    shard: u32,
    durability: String,
    member: u64,
}

/// How far ahead messages are due, by bucket of `DUE_BUCKETS_MS` and beyond.
const WITHIN: [&str; DUE_BUCKETS_MS.len() + 1] =
    ["overdue", "1s", "10s", "1min", "1h", "1d", "30d", "later"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DueLabels {
    shard: u32,
    within: &'static str,
}

impl Moment {
    /// Registers all of it.
    pub fn register(&self, registry: &mut Registry) {
        self.process.register(registry);
        let help = "1 while the broker is drained: it leads only what nobody else can";
        registry.register("grus_broker_drained", help, gauge(u64::from(self.is_drained)));
        self.register_topics(registry);
        if self.queues_wanted {
            self.register_queues(registry);
        }
        self.register_shards(registry);
        self.register_members(registry);
        self.register_delays(registry);
        self.groups.register(registry);
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

    fn register_delays(&self, registry: &mut Registry) {
        let family = Family::<DueLabels, Whole>::default();
        for (shard, status) in &self.delays {
            for (within, messages) in WITHIN.into_iter().zip(status.due_histogram) {
                family.get_or_create(&DueLabels { shard: shard.0, within }).set(messages);
            }
        }
        let help = "Scheduled messages by how soon they are due, each in one bucket";
        registry.register("grus_delay_due", help, family);
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
        each("grus_shard_temporary_bytes", "Bytes that temporary queues hold in memory", |shard| {
            shard.temporary_bytes
        });
        each("grus_shard_segments", "Segments of the shard's log", |shard| shard.segments);
        each("grus_shard_log_bytes", "Bytes of the shard's log on disk", |shard| shard.log_bytes);
        each("grus_shard_damaged_entries", "Entries known to be damaged", |shard| {
            shard.damaged_entries
        });
        each("grus_shard_leads", "1 where this broker serves the shard's queues", |shard| {
            u64::from(shard.leads)
        });
        each("grus_shard_term", "Term of the shard's leader, as far as is known here", |shard| {
            shard.term.0
        });
        each(
            "grus_shard_lag_entries",
            "Where this broker leads: entries that the member lacks that is farthest behind",
            ShardStatus::lag_entries,
        );
        each(
            "grus_shard_members_behind",
            "Where this broker leads: members that do not answer, or are far behind",
            |shard| shard.members_behind() as u64,
        );
        each("grus_shard_applied_index", "Log index of the last entry applied", |shard| {
            shard.applied_index.unwrap_or(0)
        });
        each("grus_shard_synced_index", "Log index up to which entries are on disk", |shard| {
            shard.synced_index.unwrap_or(0)
        });
    }

    /// One series for each other member of a shard that is led here: however many queues there are, they
    /// are on these shards.
    fn register_members(&self, registry: &mut Registry) {
        let family = Family::<MemberLabels, Whole>::default();
        for shard in &self.shards {
            let ShardLabels { shard: number, durability } =
                ShardLabels::of(shard.shard, shard.durability);
            for (member, lacks) in shard.lag_of_each() {
                let durability = durability.clone();
                let labels = MemberLabels { shard: number, durability, member: member.0 };
                family.get_or_create(&labels).set(lacks);
            }
        }
        let help = "Where this broker leads: entries that the member is not known to have";
        registry.register("grus_shard_member_lag_entries", help, family);
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

#[cfg(test)]
mod tests {
    use grus_consensus::MemberLag;
    use grus_protocol::TopicName;
    use grus_protocol::ids::{Durability, Offset, QueueId, QueueKey, Term, TimestampMs};
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

    fn shard(number: u32, lags: Vec<MemberLag>) -> ShardStatus {
        ShardStatus {
            shard: ShardId(number),
            durability: Durability::Persisted,
            is_ready: true,
            is_replicated: true,
            leader: Some(1),
            term: Term(3),
            leads: !lags.is_empty(),
            is_amnesiac: false,
            lags,
            last_index: Some(99),
            applied_index: Some(99),
            synced_index: Some(99),
            purged_index: None,
            disk_full: false,
            queues: 10_000,
            waiting_bytes: 0,
            temporary_bytes: 0,
            segments: 1,
            log_bytes: 1,
            damaged_entries: 0,
            unchecked_segments: 0,
        }
    }

    #[test]
    fn each_member_of_a_shard_that_is_led_here_has_its_lag_and_one_series() {
        let lag = |node, matched| MemberLag { node, matched, heard: None, votes: true };
        let led = shard(4, vec![lag(2, Some(99)), lag(3, Some(59)), lag(5, None)]);
        let text = text(&Moment { shards: vec![led, shard(5, Vec::new())], ..Moment::default() });
        let name = "grus_shard_member_lag_entries{";
        for (member, lacks) in [(2, 0), (3, 40), (5, 100)] {
            let labels = format!("shard=\"4\",durability=\"persisted\",member=\"{member}\"");
            let line = format!("{name}{labels}}} {lacks}");
            assert!(text.lines().any(|is| is == line), "{line} in {text}");
        }
        assert_eq!(text.matches(name).count(), 3, "a follower tells of nobody: {text}");
        let worst = "grus_shard_lag_entries{shard=\"4\",durability=\"persisted\"} 100";
        assert!(text.contains(worst), "{text}");
    }

    #[test]
    fn ten_thousand_topics_are_a_bounded_page() {
        let queues = (0..10_000).map(|number| queue(&format!("t{number:05}"), 0)).collect();
        let text = text(&Moment { queues, ..Moment::default() });
        assert_eq!(text.matches("grus_topic_queues{").count(), TOPICS_MAX + 1);
        assert!(text.contains("grus_topic_queues{topic=\"%other\"} 9000"), "the rest is not lost");
    }
}
