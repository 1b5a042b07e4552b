//! What a member answers to the other members.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use grus_log::{Disk, Step};
use openraft::ReadPolicy;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::async_runtime::{AsyncRuntime, Instant as _};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest};

use crate::group::{Group, InstantOf};
use crate::intake::{Portion, give_way};
use crate::machine::StateMachine;
use crate::peers::ask;
use crate::shared::Types;
use crate::transfer::{self, Chunk, Taken};
use crate::types::{
    Committed, LogId, Member, NodeId, RaftEntry, RaftVote, SnapshotMeta, log_id_parts,
};
use crate::wire::{Reply, Request, Shape, VoteRequest};

/// How long an append waits here for the next segment.
const ROOM_WAIT: Duration = Duration::from_millis(50);

type Snapshot = openraft::Snapshot<Committed, NodeId, Member, crate::snapshot::SnapshotData>;

impl<S: StateMachine, D: Disk, RT: AsyncRuntime> Group<S, D, RT> {
    /// Answers one message of another member, as it came out of [`Peers`](crate::Peers). To be driven to its
    /// end: what an append has brought is counted as taken room only while somebody waits for its answer.
    pub async fn handle(&self, message: Bytes) -> Bytes {
        let shard = self.inner.shared.config.shard.0;
        let reply = match Request::decode(message) {
            Ok(request) => self.answer(request).await,
            Err(error) => {
                tracing::warn!(shard, %error, "message of a peer refused");
                Reply::Refused
            }
        };
        reply.encode()
    }

    async fn answer(&self, request: Request) -> Reply {
        if self.inner.stopped.get() || self.inner.shared.fault().is_some() {
            return Reply::Refused;
        }
        match request {
            Request::Append { vote, prev, commit, entries } => {
                let rpc = AppendEntriesRequest {
                    vote,
                    prev_log_id: prev,
                    entries,
                    leader_commit: commit,
                };
                self.on_append(rpc).await
            }
            Request::Vote(request) => self.on_vote(request, false).await,
            Request::PreVote(request) => self.on_vote(request, true).await,
            Request::Snapshot { vote, meta, chunk } => self.on_snapshot(vote, meta, chunk).await,
            Request::Transfer { from, to, last } => {
                if !self.may_vote() || (to == self.inner.shared.config.node && self.is_retiring()) {
                    return Reply::Refused;
                }
                let request = TransferLeaderRequest::new(from, to, last);
                let taken = self.inner.raft.handle_transfer_leader(request).await;
                if matches!(taken, Ok(Ok(()))) { Reply::Done } else { Reply::Refused }
            }
            Request::MayLead => self.on_may_lead(),
            Request::IsWhole => self.on_is_whole(),
            Request::Stay { term } => {
                self.inner.stays_from.set(term);
                Reply::Done
            }
            Request::Rejoin { node } => self.on_rejoin(node).await,
            Request::ReadIndex => self.on_read_index().await,
            Request::Standing => Reply::Standing {
                standing: self.inner.shared.ballot.borrow().standing().code(),
                durable: self.inner.shared.log.borrow().synced_index(),
            },
            Request::Members => self.on_members().await,
        }
    }

    /// Takes a chunk of a snapshot; the last one installs it.
    async fn on_snapshot(&self, vote: RaftVote, meta: SnapshotMeta, chunk: Chunk) -> Reply {
        if !self.may_follow(&vote) {
            return Reply::Refused;
        }
        let taken = transfer::take(&mut self.inner.incoming.borrow_mut(), vote, meta, chunk);
        match taken {
            Ok(Taken::Next(number)) => Reply::Wanted { number },
            Ok(Taken::Whole(meta, snapshot)) => {
                let snapshot = Snapshot { meta, snapshot };
                let installed = self.inner.raft.install_full_snapshot(vote, snapshot).await;
                if installed.as_ref().is_ok_and(|done| done.vote == vote) {
                    self.inner.shared.ballot.borrow_mut().followed(&vote);
                }
                installed.map_or(Reply::Refused, |done| Reply::Installed { vote: done.vote })
            }
            Ok(Taken::Refused) => Reply::Refused,
            Err(error) => {
                let shard = self.inner.shared.config.shard.0;
                tracing::warn!(shard, %error, "chunk of a snapshot refused");
                *self.inner.incoming.borrow_mut() = None;
                Reply::Refused
            }
        }
    }

    fn may_vote(&self) -> bool {
        let since_start = InstantOf::<RT>::now() - self.inner.started;
        self.inner.shared.ballot.borrow().may_vote(since_start)
    }

    /// Whether this member could take over from the leader that asks.
    fn on_may_lead(&self) -> Reply {
        let since_start = InstantOf::<RT>::now() - self.inner.started;
        let votes_in = self.inner.shared.ballot.borrow().votes_in(since_start);
        let cannot = self.is_retiring() || self.inner.shared.log.borrow().is_disk_full();
        match votes_in {
            Some(Duration::ZERO) if !cannot => Reply::Done,
            Some(wait) if !cannot => {
                let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
                Reply::Soon { wait_ms: wait_ms.saturating_add(1) }
            }
            _ => Reply::Refused,
        }
    }

    /// Whether this leader's entries may be taken; if not, asks it to take us back.
    fn may_follow(&self, vote: &RaftVote) -> bool {
        let may = self.inner.shared.ballot.borrow().may_follow(vote);
        if !may && *self.inner.rejoining.borrow() != Some(*vote) {
            *self.inner.rejoining.borrow_mut() = Some(*vote);
            drop(RT::spawn(rejoin(self.clone(), *vote)));
        }
        may
    }

    /// Takes as many of the entries as there is room for: openraft must never wait for room in the
    /// middle of them, for it answers nobody then, not even a candidate.
    async fn on_append(&self, mut rpc: AppendEntriesRequest<Types<S, RT>>) -> Reply {
        if !self.may_follow(&rpc.vote) {
            return Reply::Refused;
        }
        // What an older leader has begun to send will never be whole.
        let term = rpc.vote.leader_id.term;
        self.inner.incoming.borrow_mut().take_if(|old| old.vote.leader_id.term < term);
        let (shared, sent) = (&self.inner.shared, rpc.entries.len());
        // A heartbeat waits for nobody who waits for room: what it builds on is there.
        let is_heartbeat = sent == 0 && rpc.prev_log_id.is_none_or(|prev| shared.has(prev));
        let in_line = !is_heartbeat && !shared.config.sabotage.no_intake_line;
        let turn = if in_line { Some(shared.intake.turn().await) } else { None };
        let mut judged = self.judge(rpc.prev_log_id, &rpc.entries);
        if judged.is_none() {
            self.request_room();
            let _ = RT::timeout(ROOM_WAIT, shared.next_job_done()).await;
            judged = self.judge(rpc.prev_log_id, &rpc.entries);
        }
        let Some((fit, portion)) = judged else { return Reply::Refused };
        if fit < sent {
            self.request_room();
        }
        // Another one may have taken us back, or have got our vote, while this one stood in line.
        if !self.may_follow(&rpc.vote) {
            return Reply::Refused;
        }
        rpc.entries.truncate(fit);
        let last = rpc.entries.last().map(|entry| entry.log_id).or(rpc.prev_log_id);
        let given = (!is_heartbeat).then(|| shared.intake.give(portion));
        let leader = rpc.vote;
        let taken = give_way(turn, self.inner.raft.append_entries(rpc)).await;
        drop(given);
        if matches!(
            taken,
            Ok(AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_))
        ) {
            self.inner.shared.ballot.borrow_mut().followed(&leader);
        }
        if !matches!(taken, Ok(AppendEntriesResponse::HigherVote(_)) | Err(_)) {
            self.inner.heard.set(InstantOf::<RT>::now());
            if term >= self.inner.stays_from.get() {
                self.inner.stays_from.set(0); // another one has come to lead since the operator's word
            }
        }
        match taken {
            Ok(AppendEntriesResponse::Success) if fit < sent => Reply::PartlyAppended(last),
            Ok(AppendEntriesResponse::Success) => Reply::Appended,
            Ok(AppendEntriesResponse::PartialSuccess(id)) => Reply::PartlyAppended(id),
            Ok(AppendEntriesResponse::Conflict) => Reply::Conflict,
            Ok(AppendEntriesResponse::HigherVote(vote)) => Reply::HigherVote(vote),
            Err(_stopped) => Reply::Refused,
        }
    }

    /// How many of the entries openraft may be given, from the first on, and what the log will do then. What
    /// is there already takes no room. None: there is no room even for the first.
    fn judge(&self, prev: Option<LogId>, entries: &[RaftEntry]) -> Option<(usize, Portion)> {
        let shared = &self.inner.shared;
        let has = |id| shared.has(id) || shared.is_purged(id);
        let (mut steps, mut end) = shared.intake.unwritten(has);
        if shared.config.sabotage.counts_no_given {
            steps.clear();
        }
        end = end.max(shared.log.borrow().last().map(|last| last.index));
        // Where it is not, openraft writes nothing, but cuts off what stands in its place.
        let absent = prev.filter(|prev| !has(*prev) && !shared.intake.has_given(*prev));
        let there = entries.iter().take_while(|entry| has(entry.log_id)).count();
        let (before, first) = (steps.len(), entries.get(there).map(|entry| entry.log_id));
        let cuts = absent.or(first).is_some_and(|at| end >= Some(at.index));
        steps.extend(cuts.then_some(Step::Cut));
        steps.extend(entries.iter().skip(there).map(|entry| {
            let shape = Shape::of(&entry.payload);
            let payload_bytes = shape.slices().iter().map(Bytes::len).sum();
            Step::Entry { kind: shape.kind(), payload_bytes }
        }));
        let fitting = shared.fits(&steps).saturating_sub(before + usize::from(cuts));
        let fit = there + fitting;
        if fit == 0 && !entries.is_empty() && absent.is_none() {
            return None;
        }
        steps.truncate(before + usize::from(cuts) + fitting);
        let last = fit.checked_sub(1).map(|last| entries[last].log_id);
        Some((fit, Portion { last, steps: steps.split_off(before) }))
    }

    async fn on_vote(&self, request: VoteRequest, pre: bool) -> Reply {
        if !self.may_vote() {
            return Reply::Refused;
        }
        let mut rpc = openraft::raft::VoteRequest::new(request.vote, request.last);
        rpc.leadership_transfer = request.transfer;
        let raft = &self.inner.raft;
        let response = if pre { raft.pre_vote(rpc).await } else { raft.vote(rpc).await };
        if !pre && response.as_ref().is_ok_and(|answer| answer.vote_granted) {
            self.inner.heard.set(InstantOf::<RT>::now());
        }
        response.map_or(Reply::Refused, |answer| Reply::Vote {
            vote: answer.vote,
            granted: answer.vote_granted,
            last: answer.last_log_id,
        })
    }

    /// The leader takes back a member whose log went back: without this, openraft would go on
    /// counting entries that the member no longer has, or panic over them.
    async fn on_rejoin(&self, node: NodeId) -> Reply {
        if self.inner.raft.metrics().borrow_watched().state != ServerState::Leader {
            return Reply::Refused;
        }
        match self.inner.raft.trigger().allow_next_revert(&node, true).await {
            Ok(Ok(())) => Reply::Done,
            _ => Reply::Refused,
        }
    }

    pub(crate) async fn on_read_index(&self) -> Reply {
        match self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex).await {
            Ok((read, _applied)) => Reply::ReadIndex { index: log_id_parts(read.log_id()).1 },
            Err(_not_leader) => Reply::Refused,
        }
    }
}

/// Asks the leader with this vote to take us back.
async fn rejoin<S: StateMachine, D: Disk, RT: AsyncRuntime>(
    group: Group<S, D, RT>,
    vote: RaftVote,
) {
    let inner = &group.inner;
    let leader = vote.leader_id.voted_for;
    let membership = inner.raft.metrics().borrow_watched().membership_config.clone();
    let member = membership.get_node(&leader);
    let address = member.map_or(String::new(), |member| member.addr.clone());
    let limit = inner.shared.config.election_timeout();
    let target = (leader, &*address);
    if inner.shared.ballot.borrow().is_blank() {
        // A majority must stand behind it, which this member is no part of: it refuses to follow as yet.
        let confirmed = ask::<RT>(&inner.peers, target, &Request::ReadIndex, limit).await;
        if !matches!(confirmed, Ok(Reply::ReadIndex { .. })) {
            *inner.rejoining.borrow_mut() = None;
            return;
        }
    }
    let request = Request::Rejoin { node: inner.shared.config.node };
    let reply = ask::<RT>(&inner.peers, target, &request, limit).await;
    *inner.rejoining.borrow_mut() = None;
    if matches!(reply, Ok(Reply::Done)) {
        Rc::clone(&inner.shared).ballot.borrow_mut().rejoined(vote);
        inner.shared.keeper.notify_one();
    }
}
