//! What must hold at every moment, one file each. Those of the group and its log are the files of the
//! simulations of consensus; those of queues, groups and schedules stand here.

use std::collections::BTreeMap;

use grus_broker::commands::groups::ProgressKey;
use grus_consensus::NodeId;
use grus_protocol::ids::QueueKey;

use super::contents::Contents;
use super::history::History;
use super::{CONSUMED, QUEUES};
use crate::groups::facts::Fact;
use crate::groups::town::GROUP;
use crate::world::Member;

mod a_queue_is_owned_once;
mod acknowledged_is_there;
mod claims_are_applied_once;
#[path = "../../../consensus/tests/common/checks/commits_never_go_back.rs"]
mod commits_never_go_back;
#[path = "../../../consensus/tests/common/checks/committed_entries_agree.rs"]
mod committed_entries_agree;
#[path = "../../../consensus/tests/common/checks/equal_states_at_equal_entries.rs"]
mod equal_states_at_equal_entries;
mod given_in_order;
mod offsets_are_never_used_again;
#[path = "../../../consensus/tests/common/checks/one_leader_per_term.rs"]
mod one_leader_per_term;
#[path = "../../../consensus/tests/common/checks/one_lease.rs"]
mod one_lease;
mod order_is_kept;
#[path = "../../../consensus/tests/common/checks/positions_are_in_order.rs"]
mod positions_are_in_order;
mod released_once;
#[path = "../../../consensus/tests/common/checks/snapshot_is_the_purge_point.rs"]
mod snapshot_is_the_purge_point;
mod stored_once;

/// What a check says: nothing, or what is wrong.
pub(crate) type Found = Result<(), String>;
type Members = BTreeMap<NodeId, Member>;

/// What waits for its time is read this often: once in so many looks.
const WAITING_EVERY: u64 = 10;

/// A message at its place in a queue, as a replica has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) queue: QueueKey,
    pub(crate) offset: u64,
    pub(crate) number: u64,
    /// When it was stored there.
    pub(crate) stored: u64,
}

/// What has been seen so far.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) contents: Contents,
    looks: u64,
    leaders: one_leader_per_term::Leaders,
    commits: commits_never_go_back::Commits,
    committed: committed_entries_agree::Committed,
    states: equal_states_at_equal_entries::States,
    held: acknowledged_is_there::Held,
    offsets: offsets_are_never_used_again::Offsets,
    order: order_is_kept::Order,
    stored: stored_once::Stored,
    owners: a_queue_is_owned_once::Owners,
    claims: claims_are_applied_once::Claims,
    pub(crate) given: given_in_order::Given,
}

impl Checks {
    /// A member's process is new: what it says may start again further back.
    pub(crate) fn restarted(&mut self, node: NodeId) {
        self.commits.restarted(node);
        self.committed.restarted(node);
        self.held.restarted(node);
        self.owners.restarted(node);
    }

    /// What the leader of a queue or a member of a group has seen.
    pub(crate) fn fact(&mut self, at_ns: u64, fact: &Fact) -> Found {
        self.owners.fact(fact)?;
        self.given.fact(fact)?;
        self.claims.fact(at_ns, fact)
    }

    /// All of them, after a step.
    pub(crate) fn all(&mut self, members: &Members, history: &History) -> Found {
        self.looks += 1;
        ensure(history.outrages.is_empty(), || history.outrages.join("\n"))?;
        one_lease::check(members)?;
        for member in members.values().filter(|member| member.is_alive()) {
            let (node, running) = (member.node, member.running.as_ref().unwrap());
            self.leaders.check(node, running)?;
            self.commits.check(node, running)?;
            self.committed.check(node, running)?;
            self.states.check(node, running)?;
            positions_are_in_order::check(node, running)?;
            snapshot_is_the_purge_point::check(node, running)?;
            for queue in QUEUES {
                for message in self.contents.news(node, running, queue) {
                    self.message(node, message, history)?;
                }
            }
            for queue in CONSUMED {
                let place = ProgressKey { queue, group: GROUP };
                let machine = running.machine.borrow();
                let Some(held) = machine.state.progress(place) else { continue };
                self.owners.progress(node, queue, held.numbers())?;
            }
            let status = running.group.status();
            // Else what waits may lie where its log does not begin yet.
            let has_all = status.ready || status.purged.is_none();
            if has_all && self.looks.is_multiple_of(WAITING_EVERY) {
                released_once::nothing_waits_that_has_come(node, running, &self.contents, history)?;
            }
            self.held.check(node, running, history, &self.contents)?;
        }
        self.given.compare(&self.contents)
    }

    fn message(&mut self, node: NodeId, message: Message, history: &History) -> Found {
        let number = message.number;
        let sent = history.sent.get(&number);
        let sent = sent.ok_or_else(|| format!("member {node}: nobody has sent {message:?}"))?;
        ensure(sent.queue == message.queue, || {
            format!("member {node}: {message:?} was sent to {}", sent.queue)
        })?;
        if !self.offsets.check(node, message)? {
            return Ok(()); // another member had it before
        }
        self.stored.check(message)?;
        if sent.due == 0 { self.order.check(message) } else { released_once::check(message, sent) }
    }
}

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(what()) }
}
