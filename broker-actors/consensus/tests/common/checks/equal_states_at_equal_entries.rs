//! Whoever has applied the same entries has the same state.

use std::collections::BTreeMap;

use grus_consensus::{NodeId, StateMachine as _};

use super::super::member::Running;
use super::{Found, ensure};

/// The digest at each entry that was seen.
#[derive(Default)]
pub struct States(BTreeMap<u64, u64>);

impl States {
    pub fn check(&mut self, node: NodeId, running: &Running) -> Found {
        let Some(applied) = running.group.status().applied else { return Ok(()) };
        let digest = running.machine.borrow().digest();
        let first = *self.0.entry(applied).or_insert(digest);
        ensure(first == digest, || format!("member {node} has another state at {applied}"))
    }
}
