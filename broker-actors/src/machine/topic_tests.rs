//! Tests of topics' settings.

use grus_protocol::ids::{QueueId, TimestampMs, TopicId};

use super::Outcome;
use super::model_tests::{Pair, config};
use crate::commands::{Command, TopicConfig};

#[test]
fn older_settings_never_replace_newer_ones_and_queues_are_added_all_the_same() {
    let mut pair = Pair::new();
    let day_ms = 24 * 3_600 * 1_000;
    let given = |altered, days: u64, queues| TopicConfig {
        altered: TimestampMs(altered),
        retention_ms: days * day_ms,
        ..config(1, queues)
    };
    let mut open = |config: TopicConfig| {
        let (outcome, _) = pair.apply(Command::TopicConfig(config));
        assert_eq!(outcome, Outcome::TopicConfig(Ok(())));
        let known = pair.machine.topic(TopicId(1)).unwrap();
        (known.retention_ms / day_ms, known.altered.0, known.queues.len())
    };
    assert_eq!(open(given(5, 7, 1)), (7, 5, 1));
    assert_eq!(open(given(8, 30, 1)), (30, 8, 1));
    assert_eq!(open(given(5, 7, 3)), (30, 8, 3), "of a leader that has not heard of the change");
    assert_eq!(open(given(8, 31, 1)), (31, 8, 3), "written twice");
    assert_eq!(open(given(9, 1, 1)), (1, 9, 3), "shorter, and newer");
    assert!(pair.machine.topic(TopicId(1)).unwrap().queues.contains(&QueueId(2)));
}
