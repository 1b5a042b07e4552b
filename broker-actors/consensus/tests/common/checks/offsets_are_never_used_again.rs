//! No two receipts name one offset of a queue.

use std::collections::BTreeMap;

use super::super::cluster::Receipt;
use super::{Found, ensure};

/// The message at each place that a receipt named, and how many receipts were looked at.
#[derive(Default)]
pub struct Offsets {
    taken: BTreeMap<(u32, u64), u64>,
    checked: usize,
}

impl Offsets {
    pub fn check(&mut self, receipts: &[Receipt]) -> Found {
        for Receipt { id, placed, .. } in &receipts[self.checked..] {
            let first = *self.taken.entry((placed.queue, placed.offset)).or_insert(*id);
            ensure(first == *id, || format!("messages {first} and {id} are both at {placed:?}"))?;
        }
        self.checked = receipts.len();
        Ok(())
    }
}
