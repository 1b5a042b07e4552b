//! The only voter of a group: what it need not wait for, and what it must not be taken for.

use grus_log::Disk;
use openraft::async_runtime::AsyncRuntime;

use crate::ballot::Standing;
use crate::config::Timings;
use crate::fault::{Fault, StartError};
use crate::group::Group;
use crate::machine::StateMachine;

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// The only voter need not withhold anything. What counts is the membership that the log
    /// holds; the configuration only when there is none yet.
    ///
    /// # Errors
    /// [`StartError::Outgrown`] where the log is a copy of before others came.
    pub(crate) async fn settle_alone(&self) -> Result<(), StartError> {
        let shared = &self.inner.shared;
        let config = &shared.config;
        let members = self.inner.raft.with_raft_state(|state| {
            let now = state.membership_state.effective();
            let has_learners = now.membership().learner_ids().next().is_some();
            (now.voter_ids().collect::<Vec<_>>(), has_learners)
        });
        let members = members.await.map_err(|error| Fault::Raft(error.to_string()))?;
        let (mut voters, has_learners) = members;
        if config.has_others && voters == [config.node] {
            let is_regained = shared.ballot.borrow().standing() == Standing::Amnesiac;
            if config.has_begun && is_regained {
                return Ok(()); // it goes on getting back what it has lost, and votes for nobody
            }
            let last = shared.log.borrow().last().map_or(0, |id| id.index);
            return Err(StartError::Outgrown { last });
        }
        if voters.is_empty() {
            voters.extend(config.members.iter().map(|(id, _)| *id));
        }
        if voters == [config.node] {
            shared.syncs_first.set(has_learners);
            shared.heal_alone();
        } else if config.timings == Timings::ALONE {
            let count = voters.len();
            let what = format!("{count} voters with the timings of a group of one");
            return Err(StartError::Config(what));
        }
        Ok(())
    }

    /// Where others vote, as all agree, nothing need be synced any more before it is acknowledged, whoever
    /// led while they came.
    pub(crate) fn look_at_growth(&self) {
        let shared = &self.inner.shared;
        if !shared.syncs_first.get() {
            return;
        }
        let members = self.members();
        let is_alone = members.voters.iter().eq([&shared.config.node]);
        if members.is_settled && !members.voters.is_empty() && !is_alone {
            shared.end_sync_first();
        }
    }
}
