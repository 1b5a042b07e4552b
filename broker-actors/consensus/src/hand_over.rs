//! Giving leadership away before a planned stop, so that nobody has to wait for an election; and taking
//! it back when nobody comes for it.
//!
//! openraft's leader that has asked for a successor takes nothing any more in its term and sends no
//! heartbeats (`proposer/leader.rs` `transfer_to`, `core/raft_core.rs` `send_heartbeat`), and knows no way
//! back. So first the successor is asked whether it could lead at once, and nothing is given away while
//! nobody could. If it then does not come, the leader votes for it in the next term, as if it had been
//! asked to: any member may do so at any time, the vote is that of one who gave it unasked
//! (`engine_impl.rs` `handle_vote_req`, `vote_handler` `update_vote`), it makes the leader a follower, and
//! does not stand in the way of a successor that is only late. Then it stands as any other member
//! would, with a pre-vote, which is refused wherever somebody leads.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use grus_log::Disk;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _};
use openraft::raft::VoteRequest;

use crate::change::votes_by_all;
use crate::config::LEASE_DRIFT;
use crate::group::{Group, InstantOf, ProposeError};
use crate::machine::StateMachine;
use crate::members::PROMOTE_LAG_ENTRIES_MAX;
use crate::status::MemberLag;
use crate::types::{LeaderId, NodeId, RaftVote, log_id_parts, to_log_id};
use crate::wire::{Reply, Request};

/// How long a member may take to say whether it could lead.
const ASK_LIMIT: Duration = Duration::from_millis(300);
/// Before one that has not said so is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// Before one that is behind is looked at again.
const COPY_PAUSE: Duration = Duration::from_millis(50);
/// What a member had to have copied at the look before counts for no longer than this: openraft waits half a second for
/// a successor to have all.
const LOOK_MAX: Duration = Duration::from_millis(200);
/// How often a retired member that still leads looks for a successor: twice as long each time that one was asked to
/// take over and did not, as nothing is taken meanwhile, and never longer than about a minute.
const RETIRED_PAUSE: Duration = Duration::from_secs(1);
const RETIRED_DOUBLINGS_MAX: u32 = 6;
/// No successor is looked for any more when a hand-over has taken this long.
const SEARCH_MAX: Duration = Duration::from_millis(2_500);
/// How long the outcome of one is waited for: another one leads, or this member again.
const OUTCOME_MAX: Duration = Duration::from_secs(4);
/// How long this member stands by itself for the leadership that it gave away in vain.
const TAKE_BACK_MAX: Duration = Duration::from_secs(10);
/// After so many election timeouts without a leader a member that is about to be stopped stands, too:
/// those that are not have stood before.
const RETIRED_WAIT: u32 = 3;

/// A successor that was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HandedOver<I> {
    /// The term of the leader that asked.
    pub(crate) term: u64,
    to: NodeId,
    at: I,
}

/// Counts one hand-over less when it ends, or is given up.
struct Over<'a>(&'a Cell<u32>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// How far the log of a leader had come when it looked for a successor.
#[derive(Debug, Clone, Copy)]
struct Look<I> {
    at: I,
    last: u64,
}

/// From which entry on a member has nearly all: it lacks a few, or only what has come since the last look. Under load
/// the last entries are under way to everybody all the time, and whoever keeps up with them has them in a moment.
fn near(last: u64, before: Option<u64>) -> u64 {
    let few_less = last.saturating_sub(PROMOTE_LAG_ENTRIES_MAX);
    before.map_or(few_less, |before| before.min(few_less))
}

/// Who could lead.
enum Successor {
    Ready(NodeId),
    /// Nobody at once; somebody after so long. Until then only one could whose log is damaged.
    Soon(Duration, Option<NodeId>),
    Nobody,
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// From here on this member takes over from nobody, and stands for election only when no other one
    /// has led for long: it is about to be stopped, or its broker is drained. It goes on voting and following.
    pub fn retire(&self) {
        self.inner.retiring.set(true);
        self.inner.shared.keeper.notify_one();
    }

    /// Takes that back: this member may lead again like any other. It asks nobody for leadership by itself: whoever
    /// leads gives it back where this one is the first, or the next election decides.
    pub fn unretire(&self) {
        self.inner.retiring.set(false);
        self.inner.shared.keeper.notify_one();
    }

    pub(crate) fn is_retiring(&self) -> bool {
        self.inner.retiring.get()
    }

    /// Whether this member may stand for election `since_start` after the start, as far as leaders go.
    pub(crate) fn may_stand(&self) -> bool {
        let wait = self.inner.shared.config.election_timeout() * RETIRED_WAIT;
        !self.is_retiring() || self.inner.heard.get().elapsed() >= wait
    }

    /// Hands leadership to another voter: to `to`, or to the one that has most of the log of those that
    /// could lead at once. While there is none, this member goes on leading; it waits a little for one
    /// that could soon. True if this member does not lead any more, at once where it did not; false when
    /// it still does, or nobody does as yet.
    pub async fn hand_over(&self, to: Option<NodeId>) -> bool {
        self.hand_over_to_stay(to, false).await
    }

    /// The same by an operator's word: whoever takes over does not give leadership back by itself
    /// ([`Group::give_back`]) until another member has led.
    pub async fn move_leader(&self, to: Option<NodeId>) -> bool {
        self.hand_over_to_stay(to, true).await
    }

    async fn hand_over_to_stay(&self, to: Option<NodeId>, stays: bool) -> bool {
        self.inner.handing_over.set(self.inner.handing_over.get() + 1);
        let _over = Over(&self.inner.handing_over);
        self.search_and_hand_over(to, stays).await
    }

    async fn search_and_hand_over(&self, to: Option<NodeId>, stays: bool) -> bool {
        let node = self.inner.shared.config.node;
        let begun = InstantOf::<RT>::now();
        let mut failed = Vec::new();
        let mut looked: Option<Look<InstantOf<RT>>> = None;
        loop {
            if !self.status().is_leader {
                return true;
            }
            let left = SEARCH_MAX.saturating_sub(begun.elapsed());
            let before = looked.filter(|look| look.at.elapsed() <= LOOK_MAX).map(|look| look.last);
            let last = self.inner.shared.log.borrow().last().map_or(0, |last| last.index);
            looked = Some(Look { at: InstantOf::<RT>::now(), last });
            let to = match self.successor(to, &failed, near(last, before)).await {
                Successor::Ready(to) if !left.is_zero() => to,
                Successor::Soon(wait, _) if wait < left => {
                    RT::sleep(wait).await;
                    continue;
                }
                Successor::Soon(_, Some(damaged)) => damaged,
                _ => return false,
            };
            let term = self.status().term;
            if stays {
                // It is elected in the next term, or a later one. One that does not hear it, or is of a build that
                // does not know it, takes over all the same.
                let _ = self.ask_member(to, &Request::Stay { term: term + 1 }, ASK_LIMIT).await;
            }
            if self.transfer_leader(to).await.is_err() {
                return false;
            }
            let mut watch = self.watch();
            let is_decided = |now: &crate::Leadership| {
                let by_another = now.leader.is_some_and(|leader| leader != node);
                now.stopped || by_another || (now.ready && now.term > term)
            };
            let decided = std::pin::pin!(watch.wait_for(is_decided));
            let late = std::pin::pin!(RT::sleep(OUTCOME_MAX));
            match select(decided, late).await {
                Either::Left((Ok(now), _)) if now.ready => failed.push(to),
                Either::Left(_) => return true,
                Either::Right(_) => return false,
            }
        }
    }

    /// Whom to hand leadership to, of those that have not failed: who has the log up to the entry `near`. While there
    /// are learners one whose log is damaged comes last: reading it for them would end it.
    async fn successor(&self, to: Option<NodeId>, failed: &[NodeId], near: u64) -> Successor {
        let limit = self.inner.shared.config.election_timeout().saturating_sub(LEASE_DRIFT);
        let voters = self.voters();
        let mut lags = self.lags();
        lags.retain(|member| voters.contains(&member.node) && !failed.contains(&member.node));
        lags.retain(|member| to.is_none_or(|to| member.node == to));
        lags.retain(|member| member.heard.is_some_and(|since| since < limit));
        lags.sort_by_key(|member| std::cmp::Reverse(member.matched));
        let feeds_learners = to.is_none() && !self.members().learners.is_empty();
        let (mut soonest, mut damaged) = (None, None);
        for member in lags {
            if member.matched.unwrap_or(0) < near {
                // It would have to copy first, and this member takes nothing meanwhile.
                soonest = Some(soonest.map_or(COPY_PAUSE, |before| COPY_PAUSE.min(before)));
                continue;
            }
            match self.ask_member(member.node, &Request::MayLead, ASK_LIMIT).await {
                Ok(Reply::Done) if feeds_learners && !self.may_be_whole(member.node).await => {
                    damaged = damaged.or(Some(member.node));
                }
                Ok(Reply::Done) => return Successor::Ready(member.node),
                Ok(Reply::Soon { wait_ms }) => {
                    let wait = Duration::from_millis(u64::from(wait_ms));
                    soonest = Some(soonest.map_or(wait, |before| wait.min(before)));
                }
                // It was there a moment ago: it is slow, or will not be heard of any more.
                Err(_no_answer) => {
                    soonest = Some(soonest.map_or(ASK_PAUSE, |before| ASK_PAUSE.min(before)));
                }
                Ok(_refused) => {}
            }
        }
        match (soonest, damaged) {
            (Some(wait), damaged) => Successor::Soon(wait, damaged),
            (None, Some(damaged)) => Successor::Ready(damaged),
            (None, None) => Successor::Nobody,
        }
    }

    /// Asks another voter to take over. From here on this leader has no lease in its term, whatever
    /// comes of it: the successor may be elected at any moment. If that has not come within one election
    /// timeout, this member stands again.
    ///
    /// # Errors
    /// [`ProposeError`] when this replica has stopped.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ProposeError> {
        let status = self.status();
        if !status.is_leader || to == self.inner.shared.config.node {
            return Ok(()); // there is nothing to give
        }
        let handed_over = HandedOver { term: status.term, to, at: InstantOf::<RT>::now() };
        self.inner.handed_over.set(Some(handed_over));
        self.inner.shared.keeper.notify_one();
        let asked = self.inner.raft.trigger().transfer_leader(to).await;
        asked.map_err(|_fatal| self.stop_reason())
    }

    /// How far the other members are, voters and learners, where this one leads; else nothing.
    pub fn lags(&self) -> Vec<MemberLag> {
        let watched = self.inner.raft.metrics();
        let metrics = watched.borrow_watched();
        let (Some(matched), Some(heard)) = (&metrics.replication, &metrics.heartbeat) else {
            return Vec::new();
        };
        let others = matched.iter().filter(|(node, _)| **node != self.inner.shared.config.node);
        let lists = [&metrics.membership_config, &metrics.committed_membership_config];
        let lag = |(node, at): (&NodeId, &Option<_>)| MemberLag {
            node: *node,
            matched: at.as_ref().map(|id| log_id_parts(id).1),
            heard: heard.get(node).copied().flatten().map(|at| at.elapsed()),
            votes: votes_by_all(*node, lists.map(|list| &**list)),
        };
        others.map(lag).collect()
    }
}

/// Takes back leadership that nobody came for. True while it is not known who leads after a hand-over.
pub(crate) fn look_after<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    group: &Group<S, D, RT>,
) -> bool {
    let inner = &group.inner;
    let Some(asked) = inner.handed_over.get() else {
        give_away(group);
        return false;
    };
    let status = group.status();
    let since = asked.at.elapsed();
    let by_another = status.leader.is_some_and(|leader| leader != inner.shared.config.node);
    let is_over = status.leader.is_some() || since > TAKE_BACK_MAX;
    if by_another || (status.term > asked.term && is_over) {
        inner.handed_over.set(None);
        return false;
    }
    if since < inner.shared.config.election_timeout() {
        return true;
    }
    let raft = inner.raft.clone();
    if !status.is_leader {
        drop(RT::spawn(async move {
            let _ = raft.trigger().elect(true).await; // a core that has stopped is seen elsewhere
        }));
        return true;
    }
    let shard = inner.shared.config.shard.0;
    tracing::warn!(shard, to = asked.to, "did not take over in time; standing again");
    inner.heard.set(InstantOf::<RT>::now());
    let shared = Rc::clone(&inner.shared);
    let leader_id = LeaderId { term: asked.term + 1, voted_for: asked.to };
    let last = shared.log.borrow().last().map(to_log_id);
    drop(RT::spawn(async move {
        let mut vote = VoteRequest::new(RaftVote { leader_id, committed: false }, last);
        vote.leadership_transfer = true; // it has no lease any more
        let _ = raft.vote(vote).await; // refused or lost: the next pass tries again
        shared.keeper.notify_one();
    }));
    true
}

/// A retired member that leads, as nobody else could, looks for somebody now and then.
fn give_away<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let inner = &group.inner;
    let (looked, failures) = inner.looked.get();
    let pause = RETIRED_PAUSE * (1 << failures.min(RETIRED_DOUBLINGS_MAX));
    let is_due = looked.elapsed() >= pause;
    if group.is_retiring() && is_due && inner.handing_over.get() == 0 && group.status().ready {
        let group = group.clone();
        let term = group.status().term;
        drop(RT::spawn(async move {
            let is_done = group.hand_over(None).await;
            let was_in_vain = !is_done && group.status().term > term;
            let failures = if is_done { 0 } else { failures + u32::from(was_in_vain) };
            group.inner.looked.set((InstantOf::<RT>::now(), failures));
        }));
    }
}
