//! At most one member may deliver at any moment.

use grus_consensus::NodeId;

use super::super::member::Member;
use super::{Found, Members, ensure};

pub fn check(members: &Members) -> Found {
    let alive = members.values().filter(|member| member.is_alive());
    let holds = |member: &&Member| !member.group().unwrap().status().lease_left.is_zero();
    let holders: Vec<NodeId> = alive.filter(holds).map(|member| member.node).collect();
    ensure(holders.len() <= 1, || format!("members {holders:?} hold the lease at once"))
}
