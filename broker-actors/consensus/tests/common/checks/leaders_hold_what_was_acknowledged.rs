//! A leader that is ready has every entry that was ever acknowledged.

use std::collections::BTreeMap;

use grus_consensus::NodeId;

use super::super::cluster::Receipt;
use super::super::member::Running;
use super::{Found, ensure};

/// How many receipts each leader was held against, by its term.
#[derive(Default)]
pub struct Held(BTreeMap<(NodeId, u64), usize>);

impl Held {
    pub fn restarted(&mut self, node: NodeId) {
        self.0.retain(|(member, _), _| *member != node);
    }

    pub fn check(&mut self, node: NodeId, running: &Running, receipts: &[Receipt]) -> Found {
        let status = running.group.status();
        if !status.ready {
            return Ok(());
        }
        let log = running.log.borrow();
        let purged = log.purged().map(|purged| purged.index);
        let checked = self.0.entry((node, status.term)).or_default();
        for receipt in &receipts[*checked..] {
            // A leader that was cut off knows nothing of those after it.
            let later = receipt.term > status.term;
            if later || purged.is_some_and(|purged| receipt.index <= purged) {
                continue;
            }
            let Receipt { id, index, term, .. } = receipt;
            let entries = log.entries(*index..index + 1, u64::MAX).unwrap_or_default();
            let found = entries.first().map(|entry| entry.term);
            ensure(found == Some(*term), || {
                format!("leader {node} lost message {id}: entry {index} is {found:?}, not {term}")
            })?;
        }
        *checked = receipts.len();
        Ok(())
    }
}
