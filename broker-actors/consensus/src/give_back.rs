//! Giving leadership back to the member that is to lead when all is well: whoever knows the order of the
//! members (the registry has it) names it.
//!
//! It is a hand-over that nobody waits for, so nothing is risked for it: it is begun only while nothing else
//! is under way in the group, towards a member that keeps up and does not know its log to be damaged. An
//! operator's word counts for more: whoever was named by [`Group::move_leader`] gives nothing back until another
//! member has led. An election may take more than one term, so it counts from the term that was asked for on.

use grus_log::Disk;
use openraft::async_runtime::AsyncRuntime;

use crate::group::Group;
use crate::machine::StateMachine;
use crate::types::NodeId;

/// What came of giving leadership back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// Another member leads.
    Done,
    /// Nothing was begun: this member leads on as if it had not been asked, or had not led before.
    NotNow,
    /// The other member was asked to take over and did not, and nothing was taken meanwhile.
    InVain,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// Whether nothing that is known here speaks against giving leadership to `to`: this member leads, not by an
    /// operator's word, and is not about to stop; the members are settled, and `to` votes, answers, and has nearly all.
    pub fn may_give_back(&self, to: NodeId) -> bool {
        let (inner, status) = (&self.inner, self.status());
        let is_own = to == inner.shared.config.node;
        let is_handing_over = inner.handing_over.get() > 0 || inner.handed_over.get().is_some();
        let asked_from = inner.stays_from.get();
        let stays = asked_from > 0 && status.term >= asked_from;
        if is_own || !status.ready || is_handing_over || stays || self.is_retiring() {
            return false;
        }
        let members = self.members();
        let is_settled = members.is_settled && members.learners.is_empty();
        is_settled && members.voters.contains(&to) && self.near().contains(&to)
    }

    /// Gives leadership to `to`, if that may be, if it may have a whole log, and if it could lead now.
    pub async fn give_back(&self, to: NodeId) -> GivenBack {
        // Asked again behind the question: a stop, or a change of members, may have begun meanwhile.
        let may = self.may_give_back(to) && self.may_be_whole(to).await && self.may_give_back(to);
        if !may {
            return GivenBack::NotNow;
        }
        let term = self.status().term;
        if self.hand_over(Some(to)).await {
            return GivenBack::Done;
        }
        let status = self.status();
        let leads_on = status.ready && status.term == term;
        if leads_on { GivenBack::NotNow } else { GivenBack::InVain }
    }
}
