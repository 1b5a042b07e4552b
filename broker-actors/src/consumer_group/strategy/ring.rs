//! Consistent hashing: each member has some points on a ring, and a queue is the member's whose
//! point comes next behind the queue's own. A member that comes or goes changes its neighbours' arcs
//! and nobody else's. Pure.

use std::collections::BTreeMap;

use grus_protocol::ids::{MemberId, QueueKey};
use xxhash_rust::xxh3::xxh3_64;

use super::super::field::Field;
use super::Target;

/// Points of each member: shares differ by a tenth or so.
const POINTS: u32 = 128;
/// Fewer points each when there are many members.
const POINTS_MIN: u32 = 8;
/// Points of all members that are aimed at.
const POINTS_ALL: usize = 65_536;

/// Points in order, and whose each is.
type Ring = Vec<(u64, MemberId)>;

pub(super) fn divide(field: &Field) -> Target {
    let mut rings: BTreeMap<&[MemberId], Ring> = BTreeMap::new();
    let mut target = Target::new();
    for topic in field.topics() {
        let ring = rings.entry(&topic.members).or_insert_with(|| ring_of(&topic.members));
        for queue in &topic.queues {
            let key = QueueKey { topic: topic.id, queue: *queue };
            let next = ring.partition_point(|(point, _)| *point < queue_point(key));
            let (_, member) = ring.get(next).unwrap_or(&ring[0]);
            target.insert(key, *member);
        }
    }
    target
}

fn ring_of(members: &[MemberId]) -> Ring {
    let fitting = u32::try_from(POINTS_ALL / members.len()).unwrap_or(POINTS);
    let points = fitting.clamp(POINTS_MIN, POINTS);
    let of = |member: &MemberId| {
        let member = *member;
        (0..points).map(move |number| (member_point(member, number), member))
    };
    let mut ring: Ring = members.iter().flat_map(of).collect();
    ring.sort_unstable();
    ring
}

fn member_point(member: MemberId, number: u32) -> u64 {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&member.0.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    xxh3_64(&bytes)
}

fn queue_point(queue: QueueKey) -> u64 {
    let mut bytes = [0xff; 13]; // a byte more than a member's: never the same text
    bytes[..8].copy_from_slice(&queue.topic.0.to_le_bytes());
    bytes[8..12].copy_from_slice(&queue.queue.0.to_le_bytes());
    xxh3_64(&bytes)
}
