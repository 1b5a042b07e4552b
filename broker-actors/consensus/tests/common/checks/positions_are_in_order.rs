//! What is purged was applied, and what is applied or durable is there.

use grus_consensus::NodeId;

use super::super::member::Running;
use super::{Found, ensure};

pub fn check(node: NodeId, running: &Running) -> Found {
    let s = running.group.status();
    ensure(s.applied <= s.last && s.purged <= s.applied && s.durable <= s.last, || {
        format!("member {node} has its positions in disorder: {s:?}")
    })
}
