//! Wherever two members have committed an entry, it is the same entry.

use std::collections::BTreeMap;

use grus_consensus::NodeId;
use grus_log::EntryKind;

use super::super::member::Running;
use super::{Found, ensure};

/// Term and checksum of each committed entry; and how far each member's were compared since its start.
#[derive(Default)]
pub struct Committed {
    entries: BTreeMap<u64, (u64, u32)>,
    compared: BTreeMap<NodeId, u64>,
}

impl Committed {
    pub fn restarted(&mut self, node: NodeId) {
        self.compared.remove(&node);
    }

    pub fn check(&mut self, node: NodeId, running: &Running) -> Found {
        let log = running.log.borrow();
        let Some(applied) = running.group.status().applied else { return Ok(()) };
        let first = log.purged().map_or(0, |purged| purged.index + 1);
        let from = self.compared.get(&node).map_or(first, |compared| first.max(compared + 1));
        if from > applied {
            return Ok(());
        }
        let entries = log.entries(from..applied + 1, u64::MAX);
        let entries = entries.map_err(|error| format!("member {node} cannot read: {error}"))?;
        for entry in entries {
            let crc = crc32c::crc32c(&entry.payload);
            let ours = (entry.term, crc ^ kind_code(entry.kind));
            let first = *self.entries.entry(entry.index).or_insert(ours);
            ensure(first == ours, || {
                format!("member {node} has {ours:?} at {}, was {first:?}", entry.index)
            })?;
        }
        self.compared.insert(node, applied);
        Ok(())
    }
}

fn kind_code(kind: EntryKind) -> u32 {
    match kind {
        EntryKind::Blank => 0,
        EntryKind::Membership => 1,
        EntryKind::Normal => 2,
        EntryKind::Seal => 3,
        EntryKind::Lost => 4,
    }
}
