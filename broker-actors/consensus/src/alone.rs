//! The only voter of a group: what it need not wait for, and what it must not be taken for.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use grus_log::Disk;
use openraft::async_runtime::{AsyncRuntime, Instant as _};
use openraft_rt_tokio::TokioRuntime;

use crate::ballot::Standing;
use crate::change::Members;
use crate::config::Timings;
use crate::fault::{Fault, StartError};
use crate::group::{Group, InstantOf};
use crate::machine::StateMachine;
use crate::peers::{Peers, ask};
use crate::types::NodeId;
use crate::wire::{Reply, Request};

/// For how many election timeouts the others are asked: one that has just lost its leader has another one by then.
const ASKED_FOR: u32 = 2;
/// How long one that knew no answer is left alone before it is asked again: it may be electing.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Whether any of `others`, who may have come to the group of `own`, says that others vote in it. Only a leader
/// says so that a majority has just confirmed, of a list that is committed: as long as `own` is the only voter
/// indeed, nobody can. It ends after two election timeouts also where nobody can be reached. For one that does not
/// run as a member yet, so that whatever else it does need not wait.
pub async fn others_have_come(
    peers: &Rc<dyn Peers>,
    own: NodeId,
    others: &[NodeId],
    timings: Timings,
) -> bool {
    have_come::<TokioRuntime>(peers, own, others, timings).await
}

async fn have_come<RT: AsyncRuntime>(
    peers: &Rc<dyn Peers>,
    own: NodeId,
    others: &[NodeId],
    timings: Timings,
) -> bool {
    let limit = Duration::from_millis(timings.election_ms_max) * ASKED_FOR;
    let since = InstantOf::<RT>::now();
    let left = || limit.saturating_sub(InstantOf::<RT>::now() - since);
    let others = others.iter().filter(|other| **other != own);
    let asked = others.map(async |other| {
        while !left().is_zero() {
            let asking = ask::<RT>(peers, (*other, ""), &Request::Members, left());
            if let Ok(Reply::Members { membership }) = asking.await {
                return Members::of(&membership, true).voters.iter().any(|id| *id != own);
            }
            RT::sleep(ASK_AGAIN.min(left())).await;
        }
        false
    });
    join_all(asked).await.contains(&true)
}

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
        if voters == [config.node] {
            let is_amnesiac = shared.ballot.borrow().standing() == Standing::Amnesiac;
            // Whatever is known of others: what is there of a log that was lost with its folder is what
            // the others have given back so far, and its first entries name this member alone.
            let is_regained =
                shared.log.borrow().was_emptied() || (config.has_others && config.has_begun);
            if is_amnesiac && is_regained {
                return Ok(()); // it goes on getting back what it has lost, and votes for nobody
            }
        }
        if voters == [config.node] && (config.has_others || self.others_have_come().await) {
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

    /// What [`others_have_come`] says of those that the configuration names.
    async fn others_have_come(&self) -> bool {
        let config = &self.inner.shared.config;
        have_come::<RT>(&self.inner.peers, config.node, &config.others, config.timings).await
    }

    /// Whether this member is one of before others came, which should have been refused at its start, but
    /// nobody knew then: somebody knows `members` to be those of the group as of the entry at `index`, others
    /// among them, and this one's log ends its lists of members before, with itself alone. Such a list is
    /// committed, and so on the disk of a rightful only voter before anybody can be told of it.
    pub fn is_outgrown(&self, members: &BTreeSet<NodeId>, index: u64) -> bool {
        let shared = &self.inner.shared;
        let now = self.members();
        let knows_others = members.iter().any(|member| *member != shared.config.node);
        let is_alone = now.voters.iter().eq([&shared.config.node]);
        let is_older = now.index.is_none_or(|known| known < index);
        // One that gets its log back is told of the others by what it gets.
        let is_amnesiac = shared.ballot.borrow().standing() == Standing::Amnesiac;
        knows_others && is_alone && is_older && !is_amnesiac
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
