//! Kinds of shards that a story may be of: how sure what is acknowledged is, and whether old messages go.

use std::collections::{BTreeMap, BTreeSet};

use grus_consensus::{NodeId, Standing};
use grus_protocol::ids::Durability;

use super::mishaps::SLOW_US;
use super::story::Story;
use crate::world::SEGMENT_BYTES;

/// So long a member counts as one that may have to forget once more what it has caught up with, in milliseconds:
/// its disk has noted that two syncs later at most.
const NOTED_MS: u64 = 3 * SLOW_US / 1_000;

/// What a shard is like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(super) durability: Durability,
    /// Bytes that each queue keeps; 0: all.
    pub(super) retention_bytes: u64,
    /// The longest body.
    pub(super) body_bytes_max: u64,
    /// Whether the client's own producers send, and its consumers are the members of the group.
    pub(super) is_by_client: bool,
}

impl Kind {
    /// Receipts wait for a majority's disks, and everything is kept.
    pub(crate) const PERSISTED: Self = Self {
        durability: Durability::Persisted,
        retention_bytes: 0,
        body_bytes_max: 3_000,
        is_by_client: false,
    };
    /// The same, and the client's own logic sends and consumes.
    pub(crate) const BY_CLIENT: Self = Self { is_by_client: true, ..Self::PERSISTED };
    /// Receipts wait for a majority's memory: at most one member is without its power, or without its memory.
    pub(crate) const REPLICATED: Self =
        Self { durability: Durability::Replicated, ..Self::PERSISTED };
    /// Old messages go, and the log's beginning with them: a member that was away may have to install.
    pub(crate) const RETAINED: Self = Self {
        retention_bytes: SEGMENT_BYTES as u64 / 2,
        body_bytes_max: 12_000,
        ..Self::PERSISTED
    };

    pub(crate) const fn is_retained(self) -> bool {
        self.retention_bytes > 0
    }
}

/// Who has lost, or may yet lose, what was only in its memory.
#[derive(Default)]
pub(super) struct Memories {
    /// Since when a member has all that it ever acknowledged, in milliseconds.
    sound_since: BTreeMap<NodeId, u64>,
    /// Whose power will go.
    pub(super) doomed: BTreeSet<NodeId>,
}

impl Story {
    /// At every look: who has all that it ever acknowledged.
    pub(super) fn note_standings(&mut self) {
        let now = self.trace.now_ms();
        for (node, member) in &self.world.members {
            let group = member.group().filter(|_| member.is_alive());
            if group.is_some_and(|group| group.status().standing == Standing::Sound) {
                self.memories.sound_since.entry(*node).or_insert(now);
            } else {
                self.memories.sound_since.remove(node);
            }
        }
    }

    /// Whether the power of a member may go: whatever is only in memory is in those of the others, too.
    pub(super) fn may_lose_power(&self) -> bool {
        if self.kind.durability == Durability::Persisted {
            return true;
        }
        let now = self.trace.now_ms();
        self.world.members.values().all(|member| {
            let since = self.memories.sound_since.get(&member.node);
            let is_noted = since.is_some_and(|since| since + NOTED_MS <= now);
            member.is_alive() && is_noted && !self.memories.doomed.contains(&member.node)
        })
    }
}
