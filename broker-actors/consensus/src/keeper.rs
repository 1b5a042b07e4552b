//! What a group does beside its write path: election rights, seals, promotions, probes.
//!
//! One task per group. It sleeps until it is told that something was applied or became durable,
//! and looks at everything once in a while.

use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_util::future::select;
use grus_log::{Disk, EntryId, Log};
use grus_protocol::ids::Durability;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _};

use crate::ballot::Standing;
use crate::fault::Fault;
use crate::group::{Group, Inner, InstantOf};
use crate::hand_over;
use crate::machine::{NewItem, StateMachine};
use crate::own::{self, SealPoint};
use crate::payload;
use crate::peers::ask;
use crate::status::Leadership;
use crate::types::{RaftVote, to_log_id};
use crate::wire::{Reply, Request};

/// How often everything is looked at while elections are held back, and in general.
const PASS_FAST: Duration = Duration::from_millis(100);
const PASS_SLOW: Duration = Duration::from_secs(1);
/// How long openraft may leave a probe without an answer while nothing waits for the disk.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Starts the keeper of a group; it ends with the group.
pub(crate) fn spawn<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let weak = Rc::downgrade(&group.inner);
    let shared = Rc::clone(&group.inner.shared);
    let founder = group.clone();
    drop(RT::spawn(async move {
        if shared.config.durability == Durability::Replicated {
            shared.set_volatile().await;
        }
        if let Err(fault) = founder.found().await
            && !founder.inner.stopped.get()
        {
            let _ = founder.inner.shared.fail(fault);
        }
        drop(founder);
        while let Some(pause) = pass(&weak) {
            let woken = std::pin::pin!(shared.keeper.notified());
            let slept = std::pin::pin!(RT::sleep(pause));
            let _ = select(woken, slept).await;
        }
        if let Some(inner) = weak.upgrade() {
            // After a fault: whoever waits for an answer learns that none will come.
            let _ = inner.raft.shutdown().await;
        }
    }));
    watch_metrics(group);
    probe(group);
}

/// Wakes the keeper whenever the server's state changes, and sees openraft stop.
fn watch_metrics<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let weak = Rc::downgrade(&group.inner);
    let mut server = group.inner.raft.server_metrics();
    drop(RT::spawn(async move {
        while server.changed().await.is_ok() {
            let Some(inner) = weak.upgrade() else { return };
            inner.shared.keeper.notify_one();
        }
        if let Some(inner) = weak.upgrade() {
            core_stopped(&inner);
        }
    }));
}

fn core_stopped<S: StateMachine, D: Disk, RT: AsyncRuntime>(inner: &Inner<S, D, RT>) {
    if !inner.stopped.get() && inner.shared.fault().is_none() {
        let state = inner.raft.metrics().borrow_watched().running_state.clone();
        let reason = state.err().map_or("core is gone".to_owned(), |fatal| fatal.to_string());
        let _ = inner.shared.fail(Fault::Raft(reason));
    }
    inner.shared.keeper.notify_one();
}

/// Each second: asks openraft's core whether it lives, for after a panic its metrics still say so;
/// syncs what was acknowledged before its sync; tries a full disk again.
fn probe<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let weak = Rc::downgrade(&group.inner);
    let raft = group.inner.raft.clone();
    drop(RT::spawn(async move {
        loop {
            RT::sleep(PASS_SLOW).await;
            let answer = RT::timeout(PROBE_LIMIT, raft.with_raft_state(|_| ())).await;
            let Some(inner) = weak.upgrade() else { return };
            if inner.stopped.get() || inner.shared.fault().is_some() {
                return;
            }
            inner.shared.look_at_disk();
            match answer {
                Ok(Ok(())) => {}
                Ok(Err(_fatal)) => core_stopped(&inner),
                Err(_elapsed) if inner.shared.waits_for_disk() => {}
                Err(_elapsed) => {
                    let _ = inner.shared.fail(Fault::Hung { seconds: PROBE_LIMIT.as_secs() });
                }
            }
        }
    }));
}

/// Looks at everything once. `None` when the group is gone, else how long to sleep at most.
fn pass<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    weak: &Weak<Inner<S, D, RT>>,
) -> Option<Duration> {
    let inner = weak.upgrade()?;
    publish(&inner);
    if inner.stopped.get() || inner.shared.fault().is_some() {
        return None;
    }
    let group = Group { inner };
    let may_vote = election_rights(&group);
    let is_decided = !hand_over::look_after(&group);
    group.look_at_growth();
    seal_if_due(&group);
    promote_if_due(&group);
    let is_calm = may_vote && is_decided && !group.is_retiring();
    Some(if is_calm { PASS_SLOW } else { PASS_FAST })
}

fn publish<S: StateMachine, D: Disk, RT: AsyncRuntime>(inner: &Rc<Inner<S, D, RT>>) {
    let group = Group { inner: Rc::clone(inner) };
    let status = group.status();
    let stopped = inner.stopped.get() || inner.shared.fault().is_some();
    let now = Leadership {
        term: status.term,
        leader: status.leader,
        ready: status.ready && !stopped,
        stopped,
    };
    inner.leadership.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}

/// Lets openraft stand for election only while this member may vote; an amnesiac looks around.
fn election_rights<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) -> bool {
    let inner = &group.inner;
    let since_start = InstantOf::<RT>::now() - inner.started;
    let ballot = inner.shared.ballot.borrow();
    let may_vote = ballot.may_vote(since_start);
    inner.raft.runtime_config().elect(may_vote && group.may_stand());
    let standing = ballot.standing();
    let wants_read_index = ballot.wants_read_index();
    drop(ballot);
    if standing == Standing::Amnesiac {
        drop(RT::spawn(ask_voters(group.clone())));
    }
    if wants_read_index {
        drop(RT::spawn(ask_read_index(group.clone())));
    }
    may_vote && standing == Standing::Sound
}

/// An amnesiac asks all voters what they remember: if nobody remembers more, they may elect.
async fn ask_voters<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: Group<S, D, RT>) {
    let inner = &group.inner;
    let membership = inner.raft.metrics().borrow_watched().membership_config.clone();
    let limit = inner.shared.config.election_timeout();
    let mut voters: Vec<_> = membership.voter_ids().collect();
    if voters.is_empty() {
        // With all of its log it has lost who they are.
        voters.extend(inner.shared.config.members.iter().map(|(id, _)| *id));
    }
    voters.retain(|id| *id != inner.shared.config.node);
    if voters.is_empty() {
        // It waits to be added to a group, or to get back the rest of its log: the first entries of a group
        // that began as one name it alone. Who is alone indeed was settled at the start.
        return;
    }
    let mut answers = Vec::new();
    for id in voters {
        let address = membership.get_node(&id).map_or("", |member| member.addr.as_str());
        let reply = ask::<RT>(&inner.peers, (id, address), &Request::Standing, limit).await;
        let is_blank = inner.shared.ballot.borrow().is_blank();
        answers.push(match reply {
            // Who has a log remembers more than one who has none. The founding entry alone is none:
            // whoever of the blank was first to notice has founded the group anew already.
            Ok(Reply::Standing { durable: Some(1..), .. }) if is_blank => None,
            Ok(Reply::Standing { standing, .. }) => Standing::of_code(standing),
            _ => None,
        });
    }
    if inner.shared.ballot.borrow_mut().voters(answers) {
        tracing::warn!(shard = inner.shared.config.shard.0, "all voters lost what they remembered");
        // Where even the first entry is lost, they found the group again.
        if let Err(fault) = group.found().await
            && !inner.stopped.get()
        {
            let _ = inner.shared.fail(fault);
        }
        inner.shared.keeper.notify_one();
    }
}

/// Asks the leader that took us back for the index at which we are sound again.
async fn ask_read_index<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: Group<S, D, RT>) {
    let inner = &group.inner;
    let metrics = inner.raft.metrics().borrow_watched().clone();
    let Some(leader) = metrics.current_leader else { return };
    let vote = metrics.vote;
    if leader == inner.shared.config.node {
        let reply = group.on_read_index().await;
        take_read_index(&group, &vote, &reply);
        return;
    }
    let member = metrics.membership_config.get_node(&leader);
    let address = member.map_or(String::new(), |member| member.addr.clone());
    let limit = inner.shared.config.election_timeout();
    let reply = ask::<RT>(&inner.peers, (leader, &address), &Request::ReadIndex, limit).await;
    if let Ok(reply) = reply {
        take_read_index(&group, &vote, &reply);
    }
}

fn take_read_index<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    group: &Group<S, D, RT>,
    leader: &RaftVote,
    reply: &Reply,
) {
    let shared = &group.inner.shared;
    if let Reply::ReadIndex { index } = reply {
        shared.ballot.borrow_mut().read_index(leader, *index);
        shared.log_has_grown();
    }
}

/// The leader ends a segment that is nearly full, with its digest of the state at the last seal.
fn seal_if_due<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let shared = &group.inner.shared;
    if group.inner.sealing.get() || !shared.log.borrow().should_seal() || !group.status().ready {
        return;
    }
    group.inner.sealing.set(true);
    let proposal = group.propose_seal();
    let inner = Rc::clone(&group.inner);
    drop(RT::spawn(async move {
        let _ = proposal.await; // refused or lost: the next pass tries again
        inner.sealing.set(false);
    }));
}

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// Ends the segment now: every replica takes a checkpoint at this entry.
    ///
    /// # Errors
    /// As [`Group::propose`].
    pub fn propose_seal(
        &self,
    ) -> impl Future<Output = Result<(), crate::ProposeError>> + use<S, D, RT> {
        let shared = &self.inner.shared;
        let digest =
            |(point, digest)| NewItem::new(own::KIND_DIGEST, own::digest_item(point, digest));
        let items: Vec<NewItem> = shared.applied.borrow().sealed.map(digest).into_iter().collect();
        let submitted = self.submit(payload::encode((shared.config.clock)(), &items, true));
        async move {
            match submitted?.await {
                Ok(Ok(_applied)) => Ok(()),
                Ok(Err(_refused)) => Err(crate::ProposeError::NotLeader { leader: None }),
                Err(_closed) => Err(crate::ProposeError::Stopped),
            }
        }
    }
}

/// After an applied Trim: the checkpoint at the seal becomes the snapshot, then the log is purged
/// up to it. Every step is done again after a crash, for each looks at what is there.
fn promote_if_due<S: StateMachine, D: Disk, RT: AsyncRuntime>(group: &Group<S, D, RT>) {
    let shared = &group.inner.shared;
    let Some(trim) = shared.applied.borrow().own.trim else { return };
    let log = shared.log.borrow();
    let done = log.purged().is_some_and(|purged| purged.index >= trim.index);
    if done || group.inner.promoting.get() {
        return;
    }
    drop(log);
    group.inner.promoting.set(true);
    let group = group.clone();
    drop(RT::spawn(async move {
        if let Err(reason) = promote(&group, trim).await {
            tracing::warn!(shard = group.inner.shared.config.shard.0, reason, "log not trimmed");
        }
        group.inner.promoting.set(false);
    }));
}

async fn promote<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    group: &Group<S, D, RT>,
    trim: SealPoint,
) -> Result<(), String> {
    let inner = &group.inner;
    let log = &inner.shared.log;
    let floor = log.borrow().floor();
    if floor.is_none_or(|floor| floor.index < trim.index) {
        // A checkpoint must be durable before it may be the only thing left of its log. An older
        // one does for now: on a full disk that of the trim may have to wait for its room.
        let id = loop {
            if let Some(id) = best_checkpoint(&log.borrow(), floor, trim) {
                break id;
            }
            let newest = log.borrow().newest_checkpoint();
            if newest.is_some_and(|newest| newest.index >= trim.index) {
                return Err(format!("there is no checkpoint at {}-{}", trim.term, trim.index));
            }
            inner.shared.next_job_done().await;
            if inner.shared.is_stopping() {
                return Err("replica has stopped".to_owned());
            }
        };
        let ticket = log.borrow_mut().set_floor(id);
        inner.shared.wait(ticket).await.map_err(|error| error.to_string())?;
    }
    let floor = log.borrow().floor();
    let Some(floor) = floor else { return Err("no floor".to_owned()) };
    let fatal = |error: openraft::errors::Fatal<_>| error.to_string();
    inner.raft.trigger().snapshot().await.map_err(fatal)?;
    let promoted = Some(to_log_id(floor));
    let wait = inner.raft.wait(Some(PROBE_LIMIT));
    let reached = wait.metrics(|metrics| metrics.snapshot >= promoted, "snapshot promoted").await;
    reached.map_err(|error| error.to_string())?;
    // A snapshot that stands in for a damaged one may be ahead: what is not trimmed stays.
    inner.raft.trigger().purge_log(floor.index.min(trim.index)).await.map_err(fatal)
}

/// The newest durable checkpoint ahead of the floor and not behind the trim.
fn best_checkpoint<D: Disk>(
    log: &Log<D>,
    floor: Option<EntryId>,
    trim: SealPoint,
) -> Option<EntryId> {
    let held = log.checkpoints().filter(|held| held.index <= trim.index);
    held.last().filter(|held| floor.is_none_or(|floor| floor.index < held.index))
}
