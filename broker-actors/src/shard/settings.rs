//! What a shard is started with, and where its actors live.

use std::path::PathBuf;

use grus_consensus::{APPEND_BYTES_MAX, Sabotage};
use grus_log::LogConfig;
use grus_mailbox::Place;
use grus_protocol::ids::{BrokerId, Durability, ShardId};
use grus_protocol::limits::BATCH_BYTES_MAX;

use super::gather::GatherLimits;
use crate::disk_pace::DiskPace;
use crate::disk_turns::DiskTurns;
use crate::group_ties::GroupTies;
use crate::metrics::shards::ShardMetrics;

/// How often retention looks for what is due, in milliseconds.
pub const RETENTION_CHECK_MS: u64 = 10_000;

/// Where a shard's actors live.
#[derive(Debug, Clone)]
pub struct ShardPlaces {
    /// Shard, Storage and queues, with log and consensus.
    pub core: Place,
    /// Flush, which blocks.
    pub flush: Place,
    /// Reader, which the disk may hold up. May be shared by shards.
    pub reader: Place,
    /// Finder, which the disk may hold up and which computes. May be shared by shards.
    pub finder: Place,
}

/// What a shard is started with.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// The shard.
    pub shard: ShardId,
    /// This broker; a member of the shard's group.
    pub broker: BrokerId,
    /// The shard's folder.
    pub folder: PathBuf,
    /// Its log. The durability in it is the shard's.
    pub log: LogConfig,
    /// Most bytes of entries in one message to another member, unless one entry alone has more.
    pub append_bytes_max: u64,
    /// How proposals are gathered.
    pub gather: GatherLimits,
    /// How often retention looks for what is due, in milliseconds.
    pub retention_check_ms: u64,
    /// How long its log takes.
    pub metrics: ShardMetrics,
    /// Who has the disk: one for all shards whose folders lie on the same.
    pub disk_turns: DiskTurns,
    /// How long its disk takes for a job, in simulations.
    pub disk_pace: DiskPace,
    /// What its groups need; none: they are told no routes, so that no queue is divided.
    pub groups: Option<GroupTies>,
    /// Rules of consensus removed for a test.
    #[doc(hidden)]
    pub sabotage: Sabotage,
}

impl ShardSettings {
    /// A shard with default settings.
    pub fn new(shard: ShardId, broker: BrokerId, folder: PathBuf, durability: Durability) -> Self {
        let log = LogConfig {
            durability,
            entry_bytes_max: BATCH_BYTES_MAX as usize + 64 * 1024,
            ..LogConfig::default()
        };
        let gather = GatherLimits::default();
        let metrics = ShardMetrics::default();
        let retention_check_ms = RETENTION_CHECK_MS;
        let disk_turns = DiskTurns::default();
        Self {
            shard,
            broker,
            folder,
            log,
            append_bytes_max: APPEND_BYTES_MAX,
            gather,
            retention_check_ms,
            metrics,
            disk_turns,
            disk_pace: DiskPace::default(),
            groups: None,
            sabotage: Sabotage::default(),
        }
    }
}
