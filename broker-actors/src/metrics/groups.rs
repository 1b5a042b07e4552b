//! How groups do, asked for when `/metrics` is read. Pure but for being told.
//!
//! A group has one series of each kind; those beyond [`GROUPS_MAX`] share one.

use std::sync::atomic::AtomicU64;

use grus_protocol::ids::{Generation, TimestampMs};
use grus_registry::http::metrics::Whole;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::delays::seconds;
use crate::shard::GroupSums;

/// Most groups with series of their own, in order of their names.
pub const GROUPS_MAX: usize = 1_000;
/// The label of all others together; no group has such a name.
pub const OTHER_GROUPS: &str = "%other";

type Seconds = Gauge<f64, AtomicU64>;

/// A group at one moment.
#[derive(Debug, Clone, Default)]
pub struct GroupMoment {
    /// Its name.
    pub name: String,
    /// Its members, and the generation of its assignment; none: another broker coordinates it.
    pub coordinated: Option<(u32, Generation)>,
    /// What it has done in the queues that are led here.
    pub sums: GroupSums,
}

/// All groups, in order of their names, as they are at `now`.
#[derive(Debug, Clone, Default)]
pub struct GroupMoments {
    /// They.
    pub groups: Vec<GroupMoment>,
    /// When they were asked.
    pub now: TimestampMs,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GroupLabel {
    group: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    group: String,
    outcome: &'static str,
}

impl GroupMoments {
    /// Registers all of it.
    pub fn register(&self, registry: &mut Registry) {
        let groups = self.bounded();
        self.register_gauges(&groups, registry);
        register_counters(&groups, registry);
    }

    /// The groups, those beyond the limit as one.
    fn bounded(&self) -> Vec<GroupMoment> {
        let mut groups = self.groups[..self.groups.len().min(GROUPS_MAX)].to_vec();
        let rest = &self.groups[groups.len()..];
        if !rest.is_empty() {
            let name = OTHER_GROUPS.to_owned();
            let mut others = GroupMoment { name, ..GroupMoment::default() };
            for group in rest {
                others.add(group);
            }
            groups.push(others);
        }
        groups
    }

    fn register_gauges(&self, groups: &[GroupMoment], registry: &mut Registry) {
        let mut each = |name: &str, help: &str, value: fn(&GroupMoment) -> Option<u64>| {
            let family = Family::<GroupLabel, Whole>::default();
            for group in groups {
                if let Some(value) = value(group) {
                    family.get_or_create(&group.label()).set(value);
                }
            }
            registry.register(name, help, family);
        };
        let members = |group: &GroupMoment| group.coordinated.map(|(members, _)| members.into());
        each("grus_group_members", "Members, of groups that are coordinated here", members);
        let help = "Queues led here that the group has claimed once";
        each("grus_group_queues", help, |group| Some(group.sums.queues));
        let help = "Messages of them that the group has not settled";
        each("grus_group_lag_messages", help, |group| Some(group.sums.lag));
        let help = "Those of them that wait for their retry, or are in hands again";
        each("grus_group_retries", help, |group| Some(group.sums.retries));
        let help = "Dead letters that lie here, neither sent back nor removed";
        each("grus_group_dead_letters", help, |group| Some(group.sums.dead_letters));
        let family = Family::<GroupLabel, Seconds>::default();
        for group in groups {
            let age_ms = group.sums.oldest.map_or(0, |oldest| self.now.0.saturating_sub(oldest.0));
            family.get_or_create(&group.label()).set(seconds(age_ms));
        }
        let help = "How long ago the oldest message was stored that the group has not settled";
        registry.register("grus_group_lag_seconds", help, family);
    }
}

fn register_counters(groups: &[GroupMoment], registry: &mut Registry) {
    let mut each = |name: &str, help: &str, value: fn(&GroupMoment) -> Option<u64>| {
        let family = Family::<GroupLabel, Counter>::default();
        for group in groups {
            if let Some(value) = value(group) {
                family.get_or_create(&group.label()).inc_by(value);
            }
        }
        registry.register(name, help, family);
    };
    let generations = |group: &GroupMoment| group.coordinated.map(|(_, generation)| generation.0);
    let help = "Generations of the assignment so far, of groups that are coordinated here";
    each("grus_group_generations", help, generations);
    let help = "Messages sent to members";
    each("grus_group_deliveries", help, |group| Some(group.sums.tally.deliveries));
    let help = "Those of them that had been sent before";
    each("grus_group_redeliveries", help, |group| Some(group.sums.tally.redeliveries));
    let help = "Answers that a message was handled in vain";
    each("grus_group_nacks", help, |group| Some(group.sums.tally.nacks));
    let help = "Requests of members that do not hold the queue, or not any more";
    each("grus_group_fenced", help, |group| Some(group.sums.tally.fenced));
    let family = Family::<OutcomeLabels, Counter>::default();
    for group in groups {
        let counts = group.sums.counts;
        let outcomes = [
            ("acknowledged", counts.settled),
            ("skipped", counts.passed),
            ("dead", counts.dead),
            ("lost", counts.lost),
        ];
        for (outcome, messages) in outcomes {
            let labels = OutcomeLabels { group: group.name.clone(), outcome };
            family.get_or_create(&labels).inc_by(messages);
        }
    }
    registry.register("grus_group_settled_messages", "Messages that are settled", family);
}

impl GroupMoment {
    fn label(&self) -> GroupLabel {
        GroupLabel { group: self.name.clone() }
    }

    fn add(&mut self, other: &Self) {
        self.sums.add(&other.sums);
        if let Some((members, generation)) = other.coordinated {
            let (all, changes) = self.coordinated.unwrap_or_default();
            self.coordinated = Some((all + members, Generation(changes.0 + generation.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::group_tallies::Tally;
    use crate::machine::groups::progress::Counts;

    fn group(name: String) -> GroupMoment {
        let counts = Counts { settled: 7, passed: 2, dead: 1, ..Counts::default() };
        let tally = Tally { deliveries: 12, redeliveries: 3, nacks: 4, fenced: 1 };
        let oldest = Some(TimestampMs(1_500));
        let sums =
            GroupSums { queues: 2, lag: 5, retries: 1, oldest, dead_letters: 1, counts, tally };
        GroupMoment { name, coordinated: Some((3, Generation(9))), sums }
    }

    fn text(groups: Vec<GroupMoment>) -> String {
        let mut registry = Registry::default();
        GroupMoments { groups, now: TimestampMs(4_000) }.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn a_group_is_shown_as_it_stands_and_has_no_members_where_it_is_not_coordinated() {
        let elsewhere = GroupMoment { coordinated: None, ..group("b".into()) };
        let shown = text(vec![group("a".into()), elsewhere]);
        for line in [
            "grus_group_members{group=\"a\"} 3",
            "grus_group_generations_total{group=\"a\"} 9",
            "grus_group_lag_messages{group=\"a\"} 5",
            "grus_group_lag_seconds{group=\"a\"} 2.5",
            "grus_group_retries{group=\"b\"} 1",
            "grus_group_redeliveries_total{group=\"b\"} 3",
            "grus_group_settled_messages_total{group=\"a\",outcome=\"acknowledged\"} 7",
            "grus_group_settled_messages_total{group=\"a\",outcome=\"skipped\"} 2",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        assert!(!shown.contains("grus_group_members{group=\"b\"}"), "{shown}");
    }

    #[test]
    fn ten_thousand_groups_are_a_bounded_page() {
        let shown = text((0..10_000).map(|number| group(format!("g{number:05}"))).collect());
        assert_eq!(shown.matches("grus_group_members{").count(), GROUPS_MAX + 1);
        assert!(shown.contains("grus_group_lag_messages{group=\"%other\"} 45000"));
        assert!(shown.contains("grus_group_members{group=\"%other\"} 27000"));
        assert!(shown.contains("grus_group_lag_seconds{group=\"%other\"} 2.5"), "the oldest");
    }
}
