//! A leader that may serve has every message that was ever acknowledged: at the place that the receipt named, or
//! among those that wait for their time.

use std::collections::{BTreeMap, BTreeSet};

use grus_consensus::NodeId;

use super::super::LATER;
use super::super::contents::Contents;
use super::super::history::{History, Receipt};
use super::{Found, ensure};
use crate::later::{visible, waiting};
use crate::world::Running;

/// How many receipts each leader was held against, by its term.
#[derive(Default)]
pub(crate) struct Held(BTreeMap<(NodeId, u64), usize>);

impl Held {
    pub(crate) fn restarted(&mut self, node: NodeId) {
        self.0.retain(|(member, _), _| *member != node);
    }

    pub(crate) fn check(
        &mut self,
        node: NodeId,
        running: &Running,
        history: &History,
        contents: &Contents,
    ) -> Found {
        let status = running.group.status();
        if !status.ready || status.lease_left.is_zero() {
            return Ok(());
        }
        let checked = self.0.entry((node, status.term)).or_default();
        // A leader that was cut off knows nothing of those that the next ones have given.
        let new = history.receipts[*checked..].iter();
        let known: Vec<&Receipt> = new.filter(|receipt| receipt.term <= status.term).collect();
        *checked = history.receipts.len();
        for receipt in known.iter().filter(|receipt| !receipt.is_later) {
            let machine = running.machine.borrow();
            let end = machine.state.queue(receipt.queue).map_or(0, |queue| queue.next_offset.0);
            for (number, offset) in receipt.messages() {
                let found = contents.at.get(&(receipt.queue, offset)).filter(|_| offset < end);
                ensure(found == Some(&number), || {
                    format!("leader {node} has {found:?}, not {number}, of {receipt:?}")
                })?;
            }
        }
        if known.iter().all(|receipt| !receipt.is_later) {
            return Ok(());
        }
        let (waits, _) = waiting(running);
        let own = visible(running, LATER, 0);
        let mut has_come: BTreeSet<u64> = own.iter().map(|(_, number, _)| *number).collect();
        let start = running.machine.borrow().state.queue(LATER).map_or(0, |it| it.visible_start.0);
        // What has come here, and was old enough to go since.
        has_come.extend(contents.at.range((LATER, 0)..(LATER, start)).map(|(_, number)| *number));
        for receipt in known.iter().filter(|receipt| receipt.is_later) {
            for number in receipt.number..receipt.number + receipt.count {
                let is_there = waits.contains_key(&number) || has_come.contains(&number);
                ensure(is_there, || format!("leader {node} has lost {number} of {receipt:?}"))?;
            }
        }
        Ok(())
    }
}
