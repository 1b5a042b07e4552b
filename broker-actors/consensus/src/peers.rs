//! The way to the other members of a group, and openraft's network on top of it; how appends go that way is
//! [`crate::pipeline`]'s.

use std::future::Future;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::{Either, LocalBoxFuture, select};
use openraft::AnyError;
use openraft::async_runtime::AsyncRuntime;
use openraft::base::BoxFuture;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};
use thiserror::Error;

use crate::config::GroupConfig;
use crate::pipeline::{self, Pipeline};
use crate::snapshot::SnapshotData;
use crate::transfer::Chunks;
use crate::types::{Committed, Member, NodeId, RaftVote, TypeConfig};
use crate::window::Bounds;
use crate::wire::{self, Reply, Request};
use crate::withheld::Withheld;

/// How often a chunk of a snapshot is tried again.
const CHUNK_TRIES: u32 = 3;
/// Before it is.
const CHUNK_PAUSE: Duration = Duration::from_millis(50);
/// How long a member from which the log is withheld waits until it is looked at again.
const WITHHELD_REST: Duration = Duration::from_millis(200);

pub(crate) type Types<R, RT> = TypeConfig<R, RT>;
/// What came of an append.
pub(crate) type AppendResult<R, RT> =
    Result<AppendEntriesResponse<Types<R, RT>>, RPCError<Types<R, RT>>>;
type VoteResult<R, RT> = Result<VoteResponse<Types<R, RT>>, RPCError<Types<R, RT>>>;
type Snapshot = openraft::Snapshot<Committed, NodeId, Member, SnapshotData>;

/// Why a peer gave no answer.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("no answer from member {node}: {reason}")]
pub struct PeerError {
    /// The member asked.
    pub node: NodeId,
    /// What went wrong.
    pub reason: String,
}

/// Carries messages between the members of a group. A message is a list of slices to be sent
/// behind each other; the receiver gives them, gathered, to
/// [`Group::handle`](crate::Group::handle) and sends back what that answers.
pub trait Peers: 'static {
    /// Sends a message and waits for its answer. The caller gives up by dropping the future.
    fn call(
        &self,
        to: NodeId,
        address: &str,
        message: Vec<Bytes>,
    ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>>;
}

/// Whether a message, as [`Peers::call`] is given it, carries a part of a snapshot: it may take its time
/// and should hold up no other one.
pub fn is_install(message: &[Bytes]) -> bool {
    message.iter().flatten().nth(1) == Some(&wire::KIND_SNAPSHOT)
}

/// The peers of a group of one: there are none.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn call(
        &self,
        node: NodeId,
        _address: &str,
        _message: Vec<Bytes>,
    ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
        let reason = "this group has one member".to_owned();
        Box::pin(std::future::ready(Err(PeerError { node, reason })))
    }
}

/// Asks one member and reads its answer, within `limit`. The request takes its place behind earlier ones now,
/// at the call.
pub(crate) fn ask<RT: AsyncRuntime>(
    peers: &Rc<dyn Peers>,
    (to, address): (NodeId, &str),
    request: &Request,
    limit: Duration,
) -> impl Future<Output = Result<Reply, CallError>> + use<RT> {
    say::<RT>(peers.call(to, address, request.encode()), limit)
}

async fn say<RT: AsyncRuntime>(
    call: LocalBoxFuture<'static, Result<Bytes, PeerError>>,
    limit: Duration,
) -> Result<Reply, CallError> {
    match RT::timeout(limit, call).await {
        Err(_elapsed) => Err(CallError::Timeout(limit)),
        Ok(Err(error)) => Err(CallError::Failed(error.to_string())),
        Ok(Ok(bytes)) => Reply::decode(bytes).map_err(|e| CallError::Failed(e.to_string())),
    }
}

/// Why a call came to nothing.
#[derive(Debug, Error)]
pub(crate) enum CallError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Failed(String),
}

/// Makes one [`Link`] per target.
pub(crate) struct Links {
    node: NodeId,
    peers: Rc<dyn Peers>,
    chunk_bytes: usize,
    append_limit: Duration,
    bounds: Bounds,
    withheld: Rc<Withheld>,
}

impl Links {
    pub(crate) fn new(
        config: &GroupConfig,
        peers: &Rc<dyn Peers>,
        withheld: &Rc<Withheld>,
    ) -> Self {
        let append_limit = config.election_timeout() / 2;
        Self {
            node: config.node,
            peers: Rc::clone(peers),
            withheld: Rc::clone(withheld),
            chunk_bytes: config.snapshot_chunk_bytes,
            append_limit,
            bounds: Bounds {
                bytes_max: config.append_bytes_max / 2,
                quick: append_limit / 4,
                tells_every_conflict: config.sabotage.tells_every_conflict,
                credits_unanswered: config.sabotage.credits_unanswered,
            },
        }
    }
}

impl<R: 'static, RT: AsyncRuntime> RaftNetworkFactory<Types<R, RT>> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: NodeId, member: &Member) -> Link {
        let address = member.addr.clone();
        let (peers, chunk_bytes) = (Rc::clone(&self.peers), self.chunk_bytes);
        let (append_limit, bounds) = (self.append_limit, self.bounds);
        let (node, withheld) = (self.node, Rc::clone(&self.withheld));
        Link { node, peers, target, address, chunk_bytes, append_limit, bounds, withheld }
    }
}

/// openraft's client of one other member.
pub(crate) struct Link {
    node: NodeId,
    peers: Rc<dyn Peers>,
    target: NodeId,
    address: String,
    chunk_bytes: usize,
    /// How long the member may take to write what it is sent.
    append_limit: Duration,
    /// What its appends keep to.
    pub(crate) bounds: Bounds,
    /// Who gets nothing.
    withheld: Rc<Withheld>,
}

impl Link {
    /// Every call ends within its limit: a call that hangs would pin the leader's purge.
    async fn ask<R: 'static, RT: AsyncRuntime>(
        &self,
        action: RPCTypes,
        request: &Request,
        option: &RPCOption,
    ) -> Result<Reply, RPCError<Types<R, RT>>> {
        let limit = option.soft_ttl();
        let asked = ask::<RT>(&self.peers, (self.target, &self.address), request, limit).await;
        read_answer(action, (self.node, self.target), asked)
    }

    /// How long an append of a stream may take. Entries are answered for once they are on the member's disk,
    /// which may be busy for longer than openraft's limit, a part of the time between heartbeats: given up,
    /// they would be sent again, all of them, to a member that has them, and its word would not count for
    /// the lease. One without entries may take as long: were it given up, so would be what is behind it. A
    /// heartbeat is given up by openraft itself.
    pub(crate) fn stream_limit(&self, option: &RPCOption) -> Duration {
        option.soft_ttl().max(self.append_limit)
    }

    /// Sends an append, now; gives its bytes and what comes of it within `limit`.
    pub(crate) fn append<R: 'static, RT: AsyncRuntime>(
        &self,
        rpc: AppendEntriesRequest<Types<R, RT>>,
        limit: Duration,
    ) -> (u64, impl Future<Output = AppendResult<R, RT>> + use<R, RT>) {
        let AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit } = rpc;
        let message = Request::Append { vote, prev, commit, entries }.encode();
        let bytes = message.iter().map(|slice| slice.len() as u64).sum();
        let (node, target) = (self.node, self.target);
        let said = say::<RT>(self.peers.call(target, &self.address, message), limit);
        let taken = async move {
            let reply = read_answer(RPCTypes::AppendEntries, (node, target), said.await)?;
            match reply {
                Reply::Appended => Ok(AppendEntriesResponse::Success),
                Reply::PartlyAppended(id) if id >= prev => {
                    Ok(AppendEntriesResponse::PartialSuccess(id))
                }
                Reply::Conflict if prev.is_some() => Ok(AppendEntriesResponse::Conflict),
                Reply::HigherVote(vote) => Ok(AppendEntriesResponse::HigherVote(vote)),
                other => Err(unexpected(&other)),
            }
        };
        (bytes, taken)
    }
}

/// What openraft is told of an answer.
fn read_answer<R: 'static, RT: AsyncRuntime>(
    action: RPCTypes,
    (node, target): (NodeId, NodeId),
    asked: Result<Reply, CallError>,
) -> Result<Reply, RPCError<Types<R, RT>>> {
    match asked {
        Ok(Reply::Refused) => Err(unreachable("refused for now")),
        Ok(reply) => Ok(reply),
        Err(CallError::Timeout(timeout)) => {
            Err(Timeout { action, id: node, target, timeout }.into())
        }
        Err(error) => Err(unreachable(&error.to_string())),
    }
}

#[cfg(test)]
impl Link {
    /// Member 1's way to member 2.
    pub(crate) fn to_one(peers: Rc<dyn Peers>, append_limit: Duration, bounds: Bounds) -> Self {
        let (address, withheld) = ("there".to_owned(), Rc::default());
        let (node, target, chunk_bytes) = (1, 2, 1 << 20);
        Self { node, peers, target, address, chunk_bytes, append_limit, bounds, withheld }
    }
}

impl Link {
    /// Sends a snapshot chunk by chunk, each when the one before has been taken.
    async fn send_snapshot<R: 'static, RT: AsyncRuntime>(
        &self,
        vote: RaftVote,
        snapshot: Snapshot,
        option: &RPCOption,
    ) -> Result<SnapshotResponse<Types<R, RT>>, StreamingError<Types<R, RT>>> {
        let Snapshot { meta, snapshot: data } = snapshot;
        let mut chunks = Chunks::new(data, self.chunk_bytes);
        let mut tries_left = CHUNK_TRIES;
        let mut chunk = chunks.next();
        loop {
            let number = chunk.number;
            let request = Request::Snapshot { vote, meta: meta.clone(), chunk: chunk.clone() };
            let reply = self.ask::<R, RT>(RPCTypes::InstallSnapshot, &request, option).await;
            tries_left = match reply {
                Ok(Reply::Installed { vote }) => return Ok(SnapshotResponse::new(vote)),
                Ok(Reply::Wanted { number: wanted }) if wanted == number + 1 && !chunk.is_last => {
                    chunk = chunks.next();
                    CHUNK_TRIES
                }
                // It has another one in mind: all over again.
                Ok(Reply::Wanted { .. }) if tries_left > 0 => {
                    chunks.rewind();
                    chunk = chunks.next();
                    tries_left - 1
                }
                // The answer may be what was lost: the same chunk may come twice.
                Err(RPCError::Timeout(_) | RPCError::Unreachable(_)) if tries_left > 0 => {
                    RT::sleep(CHUNK_PAUSE).await;
                    tries_left - 1
                }
                Ok(other) => {
                    let error = io::Error::other(format!("unexpected answer {other:?}"));
                    return Err(StreamingError::Network(NetworkError::new(&error)));
                }
                Err(RPCError::Timeout(error)) => return Err(StreamingError::Timeout(error)),
                Err(RPCError::Network(error)) => return Err(StreamingError::Network(error)),
                Err(RPCError::Unreachable(error)) => {
                    return Err(StreamingError::Unreachable(error));
                }
                Err(RPCError::RemoteError(never)) => match never.source {},
            };
        }
    }
}

fn unreachable<R: 'static, RT: AsyncRuntime>(reason: &str) -> RPCError<Types<R, RT>> {
    RPCError::Unreachable(Unreachable::new(&AnyError::error(reason)))
}

fn unexpected<R: 'static, RT: AsyncRuntime>(reply: &Reply) -> RPCError<Types<R, RT>> {
    let error = io::Error::other(format!("unexpected answer {reply:?}"));
    RPCError::Network(NetworkError::new(&error))
}

fn to_vote_request<R: 'static, RT: AsyncRuntime>(
    rpc: &VoteRequest<Types<R, RT>>,
) -> wire::VoteRequest {
    let transfer = rpc.leadership_transfer;
    wire::VoteRequest { vote: rpc.vote, last: rpc.last_log_id, transfer }
}

fn to_vote_response<R: 'static, RT: AsyncRuntime>(reply: &Reply) -> VoteResult<R, RT> {
    match reply {
        Reply::Vote { vote, granted, last } => Ok(VoteResponse::new(vote, *last, *granted)),
        other => Err(unexpected(other)),
    }
}

impl<R: 'static, RT: AsyncRuntime> RaftNetworkV2<Types<R, RT>> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types<R, RT>>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types<R, RT>>, RPCError<Types<R, RT>>> {
        let limit =
            if rpc.entries.is_empty() { option.soft_ttl() } else { self.stream_limit(&option) };
        self.append(rpc, limit).1.await
    }

    fn stream_append<'s, Requests>(
        &'s mut self,
        input: Requests,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<pipeline::Answers<'s, R, RT>, RPCError<Types<R, RT>>>>
    where
        Requests:
            Stream<Item = AppendEntriesRequest<Types<R, RT>>> + OptionalSend + Unpin + 'static,
    {
        if self.withheld.is_from(self.target) {
            // Who is told so at once asks again at once.
            return Box::pin(async {
                RT::sleep(WITHHELD_REST).await;
                Err(unreachable("what it lacks is damaged here"))
            });
        }
        let answers: pipeline::Answers<'s, R, RT> = Box::pin(Pipeline::new(self, input, &option));
        Box::pin(std::future::ready(Ok(answers)))
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types<R, RT>>,
        option: RPCOption,
    ) -> VoteResult<R, RT> {
        let request = Request::Vote(to_vote_request(&rpc));
        to_vote_response(&self.ask(RPCTypes::Vote, &request, &option).await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types<R, RT>>,
        option: RPCOption,
    ) -> VoteResult<R, RT> {
        let request = Request::PreVote(to_vote_request(&rpc));
        to_vote_response(&self.ask(RPCTypes::Vote, &request, &option).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types<R, RT>>, StreamingError<Types<R, RT>>> {
        let sending = std::pin::pin!(self.send_snapshot(vote, snapshot, &option));
        match select(sending, std::pin::pin!(cancel)).await {
            Either::Left((reply, _)) => reply,
            Either::Right((closed, _)) => Err(closed.into()),
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<Types<R, RT>>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types<R, RT>>, RPCError<Types<R, RT>>> {
        let last = rpc.last_log_id().copied();
        let request = Request::Transfer { from: *rpc.from_leader(), to: *rpc.to_node_id(), last };
        match self.ask(RPCTypes::TransferLeader, &request, &option).await? {
            Reply::Done => Ok(Ok(())),
            other => Err(unexpected(&other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry as _;
    use openraft_rt_tokio::TokioRuntime;
    use tokio::time::Instant;

    use super::*;
    use crate::types::{RaftEntry, log_id};

    /// A member that takes every message and says nothing.
    struct Silent;

    impl Peers for Silent {
        fn call(
            &self,
            _: NodeId,
            _: &str,
            _: Vec<Bytes>,
        ) -> LocalBoxFuture<'static, Result<Bytes, PeerError>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn a_call_to_a_member_that_says_nothing_ends_within_its_limit() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let peers: Rc<dyn Peers> = Rc::new(Silent);
            let (limit, begun) = (Duration::from_millis(150), Instant::now());
            let asked = ask::<TokioRuntime>(&peers, (2, "there"), &Request::Standing, limit).await;
            assert!(matches!(asked, Err(CallError::Timeout(at)) if at == limit), "{asked:?}");
            assert_eq!(begun.elapsed(), limit, "or one stopped member pins the leader's purge");
        });
    }

    #[test]
    fn entries_may_take_a_member_longer_than_a_heartbeat() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (soft, append_limit) = (Duration::from_millis(112), Duration::from_millis(500));
            let bounds = Bounds {
                bytes_max: 1,
                quick: append_limit / 4,
                tells_every_conflict: false,
                credits_unanswered: false,
            };
            let mut link = Link::to_one(Rc::new(Silent), append_limit, bounds);
            let one = RaftEntry::new(log_id(1, 1), EntryPayload::Blank);
            for (entries, limit) in [(vec![], soft), (vec![one], append_limit)] {
                let rpc: AppendEntriesRequest<Types<(), TokioRuntime>> = AppendEntriesRequest {
                    vote: RaftVote::new(1, 1),
                    prev_log_id: None,
                    entries,
                    leader_commit: None,
                };
                let (begun, option) = (Instant::now(), RPCOption::new(soft * 4 / 3));
                assert!(link.append_entries(rpc, option).await.is_err());
                let slack = Duration::from_millis(2); // of openraft's division
                assert!(begun.elapsed() >= limit && begun.elapsed() <= limit + slack);
            }
        });
    }
}
