//! What must hold at every moment, one file each; and the one that is asked at the end of a run.

use std::collections::BTreeMap;

use grus_consensus::NodeId;

use super::cluster::Receipt;
use super::member::Member;

mod commits_never_go_back;
mod committed_entries_agree;
mod equal_states_at_equal_entries;
mod everything_is_read;
mod leaders_hold_what_was_acknowledged;
mod offsets_are_never_used_again;
mod one_leader_per_term;
mod one_lease;
mod order_is_kept;
mod positions_are_in_order;
mod snapshot_is_the_purge_point;

pub use everything_is_read::read_everything;

/// What a check says: nothing, or what is wrong.
type Found = Result<(), String>;
type Members = BTreeMap<NodeId, Member>;

/// What has been seen so far.
#[derive(Default)]
pub struct Checks {
    leaders: one_leader_per_term::Leaders,
    commits: commits_never_go_back::Commits,
    committed: committed_entries_agree::Committed,
    states: equal_states_at_equal_entries::States,
    held: leaders_hold_what_was_acknowledged::Held,
    offsets: offsets_are_never_used_again::Offsets,
    order: order_is_kept::Order,
}

impl Checks {
    /// A member's process is new: what it says may start again further back.
    pub fn restarted(&mut self, node: NodeId) {
        self.commits.restarted(node);
        self.committed.restarted(node);
        self.held.restarted(node);
    }

    /// All of them, after a step.
    pub fn all(&mut self, members: &Members, receipts: &[Receipt]) -> Found {
        one_lease::check(members)?;
        self.offsets.check(receipts)?;
        self.order.check(receipts)?;
        for member in members.values().filter(|member| member.is_alive()) {
            let running = member.running.as_ref().unwrap();
            self.leaders.check(member.node, running)?;
            self.commits.check(member.node, running)?;
            self.committed.check(member.node, running)?;
            self.states.check(member.node, running)?;
            self.held.check(member.node, running, receipts)?;
            positions_are_in_order::check(member.node, running)?;
            snapshot_is_the_purge_point::check(member.node, running)?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Found {
    if holds { Ok(()) } else { Err(what()) }
}
