//! What a consumer of the client hands its program is what lies at that place of the queue. While it has a queue it
//! hands out each message once, and once more for each time that it failed, and those that nobody was sent before in the
//! order of the queue.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::QueueKey;

use super::super::contents::Contents;
use super::{Found, ensure};
use crate::groups::facts::Fact;

/// What a consumer handed out of a queue while it had it.
#[derive(Default)]
struct Held {
    /// Behind the last one that nobody was sent before.
    fresh_from: u64,
    /// Those that have not failed since.
    given: BTreeSet<u64>,
}

/// What was handed out so far.
#[derive(Default)]
pub(crate) struct Given {
    /// By session and slot.
    held: BTreeMap<(u64, u64), Held>,
    /// What no replica has shown yet: the leader that sent it may have ended since.
    unseen: BTreeMap<(QueueKey, u64), u64>,
}

impl Given {
    pub(crate) fn fact(&mut self, fact: &Fact) -> Found {
        match fact {
            Fact::Given { session, slot, queue, offset, number, before } => {
                let other = self.unseen.insert((*queue, *offset), *number);
                let is_same = other.is_none_or(|other| other == *number);
                ensure(is_same, || format!("it was {other:?} before: {fact:?}"))?;
                let held = self.held.entry((*session, *slot)).or_default();
                let is_due = held.given.insert(*offset);
                ensure(is_due, || format!("it is in hand, or done: {fact:?}"))?;
                if *before == 0 {
                    let from = std::mem::replace(&mut held.fresh_from, *offset + 1);
                    ensure(*offset >= from, || format!("{from} was to come first: {fact:?}"))?;
                }
            }
            Fact::Failed { session, slot, offset, .. } => {
                self.held.entry((*session, *slot)).or_default().given.remove(offset);
            }
            _ => {}
        }
        Ok(())
    }

    /// Compares with what replicas have shown.
    pub(crate) fn compare(&mut self, contents: &Contents) -> Found {
        let mut found = Ok(());
        self.unseen.retain(|place, number| {
            let there = contents.at.get(place);
            if there.is_some_and(|there| there != number) {
                found = Err(format!("{place:?} was handed out as {number}, is {there:?}"));
            }
            there.is_none()
        });
        found
    }

    /// What was handed out, and no replica has shown.
    pub(crate) fn unseen(&self) -> usize {
        self.unseen.len()
    }
}
