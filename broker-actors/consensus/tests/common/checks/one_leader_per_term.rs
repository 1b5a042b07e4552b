//! A term has one leader.

use std::collections::BTreeMap;

use grus_consensus::NodeId;

use super::super::member::Running;
use super::{Found, ensure};

/// The leader of each term that was seen.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, NodeId>);

impl Leaders {
    pub fn check(&mut self, node: NodeId, running: &Running) -> Found {
        let status = running.group.status();
        if !status.is_leader {
            return Ok(());
        }
        let first = *self.0.entry(status.term).or_insert(node);
        ensure(first == node, || format!("term {} has leaders {first} and {node}", status.term))
    }
}
