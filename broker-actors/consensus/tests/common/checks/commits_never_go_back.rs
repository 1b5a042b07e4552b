//! What a member knows to be committed stays so while it lives.

use std::collections::BTreeMap;

use grus_consensus::NodeId;

use super::super::member::Running;
use super::{Found, ensure};

/// Of each member since its start.
#[derive(Default)]
pub struct Commits(BTreeMap<NodeId, u64>);

impl Commits {
    pub fn restarted(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    pub fn check(&mut self, node: NodeId, running: &Running) -> Found {
        let Some(now) = running.group.status().committed else { return Ok(()) };
        let before = self.0.insert(node, now);
        ensure(before.is_none_or(|before| before <= now), || {
            format!("member {node} went back from commit {before:?} to {now}")
        })
    }
}
