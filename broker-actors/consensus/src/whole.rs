//! Whether a log can be given to a new member; and who leads where that of the leader cannot.
//!
//! Whoever gets the log needs all of its entries: reading a damaged one for a learner would end this
//! replica again and again, and one that was given up the learner. Where the leader's log has such an
//! entry, a voter whose log is whole takes over, and gives its own.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use grus_log::{Disk, Log};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _};

use crate::change::Approach;
use crate::group::{Group, InstantOf, RaftOf};
use crate::machine::StateMachine;
use crate::members::ChangeError;
use crate::peers::{CallError, ask};
use crate::types::NodeId;
use crate::wire::{Reply, Request};

/// How long a member may take to say whether its log is whole.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// When one that still checks its log may be asked again, in milliseconds.
const CHECK_WAIT_MS: u32 = 1_000;

/// How long a voter that was asked to take over is not asked again: twice as long each time that it did not, as nothing
/// is taken while a hand-over that fails is under way.
const REST_MIN: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(320);

/// A voter is left in peace from a moment on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest<I> {
    begun: I,
    length: Duration,
}

/// What a log is to one who gets all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wholeness {
    /// Every entry can be read.
    Whole,
    /// None is known that cannot; not all have been looked at since the start.
    Unchecked,
    /// Some cannot, and this is why.
    Damaged(String),
}

/// The last entry of a log that is damaged, or was given up and is still kept.
fn damage_end<D: Disk>(log: &Log<D>) -> Option<u64> {
    let purged = log.purged().map_or(0, |id| id.index);
    let given_up = log.doubtful().map(|range| *range.end()).filter(|end| *end > purged);
    log.damaged_end().max(given_up)
}

/// The last entry of this log that is damaged, for members that are learners.
pub(crate) fn damage_for<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    raft: &RaftOf<S, D, RT>,
    log: &Rc<RefCell<Log<D>>>,
) -> impl Fn(NodeId) -> Option<u64> + use<S, D, RT> {
    let (metrics, log) = (raft.metrics(), Rc::clone(log));
    move |node| {
        let members = metrics.borrow_watched().membership_config.clone();
        let is_learner = members.membership().learner_ids().any(|learner| learner == node);
        is_learner.then(|| damage_end(&log.borrow())).flatten()
    }
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    pub(crate) fn wholeness(&self) -> Wholeness {
        let log = self.inner.shared.log.borrow();
        let purged = log.purged().map_or(0, |id| id.index);
        let given_up = log.doubtful().map(|range| *range.end()).filter(|end| *end > purged);
        match (log.stats().damaged_entries, given_up) {
            (0, None) if log.is_checked() => Wholeness::Whole,
            (0, None) => Wholeness::Unchecked,
            (0, Some(end)) => {
                Wholeness::Damaged(format!("damage up to entry {end} of the log was given up"))
            }
            (1, _) => Wholeness::Damaged("an entry of the log is damaged".to_owned()),
            (count, _) => Wholeness::Damaged(format!("{count} entries of the log are damaged")),
        }
    }

    /// Whether this log may be given to a new member.
    pub(crate) fn ensure_whole(&self) -> Result<(), ChangeError> {
        match self.wholeness() {
            Wholeness::Whole => Ok(()),
            Wholeness::Unchecked => {
                Err(ChangeError::Refused("the log is still being checked".to_owned()))
            }
            Wholeness::Damaged(why) => {
                Err(ChangeError::Damaged { why, asked: 0, unchecked: 0, unknowing: 0, resting: 0 })
            }
        }
    }

    /// Whether one of these, of which all get the log, has not said that it has on disk all that is damaged here: it
    /// would be read for it. How much a new leader has heard of them is nothing at first, so they are asked; before
    /// they have said so nothing is read for them.
    pub(crate) async fn would_read_damage(&self, learners: impl Iterator<Item = &NodeId>) -> bool {
        let end = damage_end(&self.inner.shared.log.borrow());
        let mut would = false;
        for node in learners {
            let reply = self.ask_member(*node, &Request::Standing, ASK_LIMIT).await;
            let said = match reply {
                Ok(Reply::Standing { durable, .. }) => durable,
                _ => None,
            };
            self.inner.withheld.said(*node, said);
            would |= said < end;
        }
        would
    }

    /// Asks another member, which may take so long.
    pub(crate) async fn ask_member(
        &self,
        node: NodeId,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, CallError> {
        let members = self.inner.raft.metrics().borrow_watched().membership_config.clone();
        let address = members.get_node(&node).map_or("", |at| at.addr.as_str());
        ask::<RT>(&self.inner.peers, (node, address), request, limit).await
    }

    /// What a leader is answered whose own log is damaged.
    pub(crate) fn on_is_whole(&self) -> Reply {
        match self.wholeness() {
            Wholeness::Whole => Reply::Done,
            Wholeness::Unchecked => Reply::Soon { wait_ms: CHECK_WAIT_MS },
            Wholeness::Damaged(_) => Reply::Damaged,
        }
    }

    /// This leader's log cannot be given to anybody: hands leadership to a voter whose log can.
    ///
    /// # Errors
    /// [`ChangeError::Damaged`] where there is none that could lead now.
    pub(crate) async fn leave_to_a_whole_one(&self, why: String) -> Result<Approach, ChangeError> {
        let inner = &self.inner;
        let near = self.near();
        let others = self.voters().into_iter().filter(|node| near.contains(node));
        let (mut asked, mut unchecked, mut unknowing, mut resting) = (0, 0, 0, 0);
        for node in others {
            asked += 1;
            if self.is_resting(node) {
                resting += 1;
                continue; // it did not take over a while ago
            }
            match self.ask_member(node, &Request::IsWhole, ASK_LIMIT).await {
                Ok(Reply::Done) => {
                    let is_done = self.hand_over(Some(node)).await;
                    self.begin_rest(node, is_done);
                    if is_done || !self.status().is_leader {
                        let shard = inner.shared.config.shard.0;
                        tracing::warn!(
                            shard,
                            why,
                            to = node,
                            "another member leads, whose log is whole"
                        );
                        return Ok(Approach::HandedOver);
                    }
                    resting += 1;
                }
                Ok(Reply::Soon { .. }) => unchecked += 1,
                // Its build does not know the question, or it is stopping: it may be whole.
                Ok(Reply::Refused) => unknowing += 1,
                // Damaged as well, or away.
                Ok(_) | Err(_) => {}
            }
        }
        Err(ChangeError::Damaged { why, asked, unchecked, unknowing, resting })
    }

    /// Whether nothing speaks against giving somebody's log to a learner: one that still checks its log knows of no
    /// damage, and one that does not say may have some.
    pub(crate) async fn may_be_whole(&self, node: NodeId) -> bool {
        matches!(
            self.ask_member(node, &Request::IsWhole, ASK_LIMIT).await,
            Ok(Reply::Done | Reply::Soon { .. })
        )
    }

    fn is_resting(&self, node: NodeId) -> bool {
        let rests = self.inner.rests.borrow();
        rests.get(&node).is_some_and(|rest| rest.begun.elapsed() < rest.length)
    }

    /// One that took over rests, too: whoever gives leadership back at once is not to be given it all the time.
    fn begin_rest(&self, node: NodeId, has_taken_over: bool) {
        let mut rests = self.inner.rests.borrow_mut();
        let last = rests.get(&node).filter(|_| !has_taken_over);
        let length = last.map_or(REST_MIN, |rest| REST_MAX.min(rest.length * 2));
        rests.insert(node, Rest { begun: InstantOf::<RT>::now(), length });
    }
}
