//! The types openraft runs on, in one place.
//!
//! One leader per term (`leader_id_std`), so a log id is `(term, index)` and fits the head of a
//! log entry. Generic over the runtime, so that a simulation can bring its own random source.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use grus_log::EntryId;
use openraft::RaftTypeConfig;
use openraft::async_runtime::AsyncRuntime;
use openraft::impls::{Entry, InlineBatch, OneshotResponder, Vote, leader_id_std};
use openraft::vote::RaftLeaderId;

use crate::payload::Command;

/// Number of a member of a group; the broker's id. Unique in the cluster, never used again.
pub type NodeId = u64;

/// Where a member is reached: `host:port`, kept in the membership entries of the log.
pub type Member = openraft::BasicNode;

/// A leader: a term and the one node that may lead in it.
pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
/// A vote as openraft stores it.
pub(crate) type RaftVote = Vote<LeaderId>;
/// The part of a leader's id that log entries carry: the term.
pub(crate) type Committed = <LeaderId as RaftLeaderId>::Committed;
/// A position in the log: term and index.
pub(crate) type LogId = openraft::LogId<Committed>;
/// Voters and learners, with the log id that set them.
pub(crate) type StoredMembership = openraft::StoredMembership<Committed, NodeId, Member>;
/// Voters and learners.
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
/// What an entry holds.
pub(crate) type Payload = openraft::EntryPayload<Command, NodeId, Member>;
/// A log entry as openraft sees it.
pub(crate) type RaftEntry = Entry<Committed, Payload>;
/// What a snapshot says of itself.
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Committed, NodeId, Member>;

/// Makes a log id of its two numbers.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(LeaderId { term, voted_for: 0 }.to_committed(), index)
}

/// The log's name for a log id.
pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId { term: id.leader_id.term, index: id.index }
}

/// openraft's name for an entry of the log.
pub(crate) fn to_log_id(id: EntryId) -> LogId {
    log_id(id.term, id.index)
}

/// Splits a log id into term and index.
pub(crate) fn log_id_parts(id: &LogId) -> (u64, u64) {
    (id.leader_id.term, id.index)
}

/// openraft's type configuration: `R` is what an applied entry answers, `RT` the runtime.
pub struct TypeConfig<R, RT>(PhantomData<fn() -> (R, RT)>);

impl<R, RT> fmt::Debug for TypeConfig<R, RT> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeConfig")
    }
}

impl<R, RT> Clone for TypeConfig<R, RT> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R, RT> Copy for TypeConfig<R, RT> {}

impl<R, RT> Default for TypeConfig<R, RT> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R, RT> PartialEq for TypeConfig<R, RT> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R, RT> Eq for TypeConfig<R, RT> {}

impl<R, RT> PartialOrd for TypeConfig<R, RT> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R, RT> Ord for TypeConfig<R, RT> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl<R: 'static, RT: AsyncRuntime> RaftTypeConfig for TypeConfig<R, RT> {
    type D = Command;
    type R = Outcome<R>;
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = RaftVote;
    type Payload = Payload;
    type Entry = RaftEntry;
    type AsyncRuntime = RT;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: 'static;
    type ErrorSource = openraft::AnyError;
}

/// What applying one entry gives back to the one who proposed it.
#[derive(Debug)]
pub enum Outcome<R> {
    /// The entry held nothing for the machine (blank, membership).
    Nothing,
    /// The machine's answers, one per item.
    Applied(crate::machine::AppliedReply<R>),
}
