//! A message that is to be seen later comes once, not before its time, and waits no more once it has come.
//! That it comes once is `stored_once`.

use std::collections::BTreeSet;

use grus_consensus::NodeId;

use super::super::LATER;
use super::super::contents::Contents;
use super::super::history::{History, Sent};
use super::{Found, Message, ensure};
use crate::later::{visible, waiting};
use crate::world::Running;

/// Of a message that has come.
pub(crate) fn check(message: Message, sent: &Sent) -> Found {
    ensure(message.stored >= sent.due, || {
        format!("{message:?} comes {} ms early", sent.due - message.stored)
    })
}

/// Of all that waits on a member.
pub(crate) fn nothing_waits_that_has_come(
    node: NodeId,
    running: &Running,
    contents: &Contents,
    history: &History,
) -> Found {
    let (waits, _) = waiting(running);
    if waits.is_empty() {
        return Ok(());
    }
    // What another member has released may wait here still: this one is behind.
    let own = visible(running, LATER, 0);
    let has_come: BTreeSet<u64> = own.iter().map(|(_, number, _)| *number).collect();
    for (number, due) in waits {
        let sent = history.sent.get(&number).filter(|sent| sent.due == due);
        ensure(sent.is_some(), || format!("member {node}: {number} waits for {due}, unasked"))?;
        ensure(!has_come.contains(&number), || {
            let count = contents.count(LATER);
            format!("member {node}: {number} waits, and is one of {count} that have come")
        })?;
    }
    Ok(())
}
