//! Of messages that one leader was given, the earlier one lies before the later one.

use std::collections::BTreeMap;

use super::super::cluster::Receipt;
use super::{Found, ensure};

/// The entry of each message by the term that it was acknowledged in, and how many receipts were looked at.
#[derive(Default)]
pub struct Order {
    entries: BTreeMap<u64, BTreeMap<u64, u64>>,
    checked: usize,
}

impl Order {
    pub fn check(&mut self, receipts: &[Receipt]) -> Found {
        for Receipt { id, index, term, .. } in &receipts[self.checked..] {
            let entries = self.entries.entry(*term).or_default();
            entries.insert(*id, *index);
            let before = entries.range(..id).next_back().map(|(_, index)| *index);
            let after = entries.range(id + 1..).next().map(|(_, index)| *index);
            let is_between =
                before.is_none_or(|at| at <= *index) && after.is_none_or(|at| at >= *index);
            ensure(is_between, || {
                format!("message {id} of term {term} is entry {index}: {before:?}, {after:?}")
            })?;
        }
        self.checked = receipts.len();
        Ok(())
    }
}
