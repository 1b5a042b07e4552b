//! Strategies: which member gets which queue. Every queue of the field gets exactly one of the
//! members that subscribe to its topic. Pure: the same field and owners give the same answer.

mod ring;
mod sticky;

#[cfg(test)]
mod model;

use std::collections::BTreeMap;

use grus_protocol::ids::{MemberId, QueueKey};
use grus_protocol::message::GroupStrategy;

use super::field::Field;

/// Whose each queue is to be.
pub type Target = BTreeMap<QueueKey, MemberId>;

/// Divides the field. `owner` says who has a queue now; only the sticky strategy asks.
pub fn divide(
    strategy: GroupStrategy,
    field: &Field,
    owner: impl Fn(QueueKey) -> Option<MemberId>,
) -> Target {
    match strategy {
        // Whoever asks the members for a division of their own has got none of them.
        GroupStrategy::Sticky | GroupStrategy::Own => sticky::divide(field, owner),
        GroupStrategy::Average => average(field),
        GroupStrategy::RoundRobin => round_robin(field),
        GroupStrategy::ConsistentHash => ring::divide(field),
    }
}

/// Divides the field as evenly as can be while as few queues as possible change hands.
pub fn by_sticky(field: &Field, owner: impl Fn(QueueKey) -> Option<MemberId>) -> Target {
    sticky::divide(field, owner)
}

/// Each member a run of neighbouring queues of each topic; the first members get one more where it
/// does not come out even.
fn average(field: &Field) -> Target {
    let mut target = Target::new();
    for topic in field.topics() {
        let (queues, members) = (topic.queues.len(), topic.members.len());
        let (each, more) = (queues / members, queues % members);
        let mut rest = topic.queues.iter();
        for (number, member) in topic.members.iter().enumerate() {
            let share = each + usize::from(number < more);
            for queue in rest.by_ref().take(share) {
                target.insert(QueueKey { topic: topic.id, queue: *queue }, *member);
            }
        }
    }
    target
}

/// The members in turn, over all topics: topics of one queue do not all go to the first member.
fn round_robin(field: &Field) -> Target {
    let mut target = Target::new();
    let mut last = MemberId::NONE;
    for topic in field.topics() {
        for queue in &topic.queues {
            let next = topic.members.partition_point(|member| *member <= last);
            last = topic.members.get(next).copied().unwrap_or(topic.members[0]);
            target.insert(QueueKey { topic: topic.id, queue: *queue }, last);
        }
    }
    target
}
