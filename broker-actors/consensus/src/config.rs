//! What a group is started with.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use grus_protocol::ids::{Durability, ShardId, TimestampMs};
use openraft::{Config, SnapshotPolicy};

use crate::fault::{Fault, StartError};
use crate::transfer::SNAPSHOT_CHUNK_BYTES;
use crate::types::{Member, NodeId};

/// Most bytes of entries in one append to a follower, by default.
pub const APPEND_BYTES_MAX: u64 = 4 << 20;
/// Most entries in one append to a follower; far below what the receiver of one takes.
const APPEND_ENTRIES_MAX: usize = 300;
const _: () = assert!(APPEND_ENTRIES_MAX <= crate::wire::ENTRIES_MAX);
/// Most members of a group, voters and learners.
const MEMBERS_MAX: usize = 16;
/// How much two clocks may drift apart within one lease.
pub(crate) const LEASE_DRIFT: Duration = Duration::from_millis(50);

/// Timings of elections. The defaults were measured: failover in 1.5-1.8 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// How often a leader speaks to its followers, in milliseconds.
    pub heartbeat_ms: u64,
    /// Shortest wait before a follower stands, in milliseconds. More than `heartbeat_ms`.
    pub election_ms_min: u64,
    /// Longest wait before a follower stands, in milliseconds; also the leader's lease.
    pub election_ms_max: u64,
}

impl Timings {
    /// A group of one has nobody to speak to: it elects itself at its start and then only wakes to
    /// look around.
    pub const ALONE: Self =
        Self { heartbeat_ms: 20_000, election_ms_min: 60_000, election_ms_max: 120_000 };
}

impl Default for Timings {
    fn default() -> Self {
        Self { heartbeat_ms: 150, election_ms_min: 500, election_ms_max: 1000 }
    }
}

/// Removes one ordering rule each, so that tests can show that the rule is needed.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one switch per rule")]
pub struct Sabotage {
    /// Reports appends as flushed before they are.
    pub complete_early: bool,
    /// Answers votes before they, and the log written before them, are on disk.
    pub vote_unsynced: bool,
    /// Sends the newest checkpoint as snapshot instead of the one at the purge point.
    pub newest_snapshot: bool,
    /// Lets a restarted leader go on in its old term.
    pub leader_restore: bool,
    /// Lets a member that lost its memory vote and follow as if nothing had happened.
    pub trust_amnesiacs: bool,
    /// Tells openraft of conflicts also of appends that were sent behind others.
    pub tells_every_conflict: bool,
    /// Tells openraft of an answer although another append that ends at the same entry has none.
    pub credits_unanswered: bool,
    /// Lets appends go to openraft in any order.
    pub no_intake_line: bool,
    /// Judges the room for an append without those that openraft has been given before it.
    pub counts_no_given: bool,
}

/// What a group is started with.
#[derive(Clone)]
pub struct GroupConfig {
    /// The shard, for messages and logs.
    pub shard: ShardId,
    /// This member.
    pub node: NodeId,
    /// The founding voters with their addresses; used once, when the log is empty. Empty when
    /// this member waits to be added to a group that exists.
    pub members: Vec<(NodeId, String)>,
    /// Whether the group is known to have had other members since it was founded. A log in which this
    /// member is the only voter is then a copy of before that, and the start is refused: it would elect
    /// itself alone, beside the others.
    pub has_others: bool,
    /// Whether this member has noted, before this start, that it takes part in the group. Where it has lost
    /// its log since, one that names it alone is what it has got back so far.
    pub has_begun: bool,
    /// Who may have come to the group without this member's having heard of it. Where its log names it alone
    /// they are asked before it elects itself, for two election timeouts at most: a group that knows others is
    /// gone on with by nobody else, whatever was known here. None: nobody is asked.
    pub others: Vec<NodeId>,
    /// Durability class of the shard.
    pub durability: Durability,
    /// The highest feature level this build supports.
    pub feature_level_max: u16,
    /// Timings of elections.
    pub timings: Timings,
    /// Where a chunk of a snapshot ends that is sent to a member, in bytes of parts.
    pub snapshot_chunk_bytes: usize,
    /// Most bytes of entries in one append to a follower, unless one entry alone has more: a message must
    /// fit what [`crate::Peers`] carries.
    pub append_bytes_max: u64,
    /// The wall clock, read once per proposal.
    pub clock: Rc<dyn Fn() -> TimestampMs>,
    /// Called once when this replica stops for a reason that only a restart can mend. Ends the
    /// process in production.
    pub fatal: Rc<dyn Fn(&Fault)>,
    /// Rules removed for a test.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl GroupConfig {
    /// A group of one, with [`Timings::ALONE`] and feature level 0.
    pub fn single(
        shard: ShardId,
        node: NodeId,
        durability: Durability,
        clock: Rc<dyn Fn() -> TimestampMs>,
        fatal: Rc<dyn Fn(&Fault)>,
    ) -> Self {
        Self {
            shard,
            node,
            members: vec![(node, String::new())],
            has_others: false,
            has_begun: false,
            others: Vec::new(),
            durability,
            feature_level_max: 0,
            timings: Timings::ALONE,
            snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
            append_bytes_max: APPEND_BYTES_MAX,
            clock,
            fatal,
            sabotage: Sabotage::default(),
        }
    }

    /// openraft's configuration: every dangerous default is set here (docs/CONSENSUS.md).
    pub(crate) fn raft(&self) -> Result<Config, StartError> {
        if self.members.len() > MEMBERS_MAX {
            let count = self.members.len();
            return Err(StartError::Config(format!("{count} members, at most {MEMBERS_MAX}")));
        }
        let config = Config {
            cluster_name: format!("shard-{}", self.shard.0),
            heartbeat_interval: self.timings.heartbeat_ms,
            election_timeout_min: self.timings.election_ms_min,
            election_timeout_max: self.timings.election_ms_max,
            install_snapshot_timeout: 60_000,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            max_payload_entries: APPEND_ENTRIES_MAX as u64,
            replication_lag_threshold: 5000,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(self.sabotage.leader_restore),
            allow_log_reversion: Some(false),
            // Switched on by the keeper, once votes need not be withheld any more.
            enable_elect: self.sabotage.leader_restore,
            ..Config::default()
        };
        config.validate().map_err(|error| StartError::Config(error.to_string()))
    }

    /// The founding members.
    pub(crate) fn founders(&self) -> BTreeMap<NodeId, Member> {
        let to_member = |(id, address): &(NodeId, String)| (*id, Member::new(address));
        self.members.iter().map(to_member).collect()
    }

    /// One election timeout: how long votes are withheld after a start.
    pub(crate) fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.timings.election_ms_max)
    }
}
