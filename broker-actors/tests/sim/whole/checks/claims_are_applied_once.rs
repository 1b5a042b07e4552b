//! What is asked for after a claim was answered is judged by it, whoever leads: an older generation claims nothing
//! and answers for nothing any more. And what a member was told is settled is never sent again.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::QueueKey;

use super::{Found, ensure};
use crate::groups::facts::{Fact, Holder};

/// The claims that were answered, and what is over.
#[derive(Default)]
pub(crate) struct Claims {
    /// By queue: when a generation was told that it has it, if it was newer than those told before.
    told: BTreeMap<QueueKey, Vec<(u64, u64)>>,
    over: BTreeSet<(QueueKey, u64)>,
}

impl Claims {
    pub(crate) fn fact(&mut self, at_ns: u64, fact: &Fact) -> Found {
        match fact {
            Fact::Claimed { by, asked_ns, .. } => {
                self.is_newest(by, *asked_ns, "claims")?;
                let told = self.told.entry(by.queue).or_default();
                if told.last().is_none_or(|(_, newest)| by.generation > *newest) {
                    told.push((at_ns, by.generation));
                }
                Ok(())
            }
            Fact::Settled { by, over, asked_ns, .. } => {
                self.is_newest(by, *asked_ns, "answers for")?;
                self.over.extend(over.iter().map(|offset| (by.queue, *offset)));
                Ok(())
            }
            Fact::Delivered { by, messages } => messages.iter().try_for_each(|(offset, _)| {
                ensure(!self.over.contains(&(by.queue, *offset)), || {
                    format!("{offset} is sent to {by:?}, and is settled")
                })
            }),
            _ => Ok(()),
        }
    }

    /// Whether no later generation had been told, when it asked, that it has the queue.
    fn is_newest(&self, by: &Holder, asked_ns: u64, does: &str) -> Found {
        let told = self.told.get(&by.queue).map_or(&[][..], Vec::as_slice);
        let before = told.iter().rev().find(|(at_ns, _)| *at_ns < asked_ns);
        ensure(before.is_none_or(|(_, newest)| by.generation >= *newest), || {
            format!("{by:?} {does} the queue, asked at {asked_ns} ns, after {before:?}")
        })
    }
}
