//! The shards of a broker: those that it has alone, until others get them, too, and those that it is a
//! member of, as they come.

use std::collections::BTreeMap;
use std::sync::Arc;

use grus_protocol::ids::{Durability, ShardId};

use super::{ReplicatedWatch, ShardHandle, always, none_replicated};

/// A shard that this broker is to be a member of, and whose member it cannot start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedShard {
    /// What an acknowledgement of it promises.
    pub durability: Durability,
    /// Why it cannot be started, and what can be done.
    pub why: String,
}

/// All of them, replaced as a whole.
pub type FailedShards = Arc<BTreeMap<ShardId, FailedShard>>;

/// See the module documentation. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShardSet {
    alone: ReplicatedWatch,
    replicated: ReplicatedWatch,
}

impl ShardSet {
    /// Of those that a broker has alone, and those that it is a member of, as both are told.
    #[must_use]
    pub const fn new(alone: ReplicatedWatch, replicated: ReplicatedWatch) -> Self {
        Self { alone, replicated }
    }

    /// Of these alone.
    #[must_use]
    pub fn alone(shards: impl Into<Arc<[ShardHandle]>>) -> Self {
        Self::new(always(shards.into()), none_replicated())
    }

    /// Those that this broker has alone.
    #[must_use]
    pub fn own(&self) -> Arc<[ShardHandle]> {
        Arc::clone(&self.alone.borrow())
    }

    /// The same, to be told when they become fewer.
    #[must_use]
    pub fn watch_own(&self) -> ReplicatedWatch {
        self.alone.clone()
    }

    /// All of them, whoever leads them.
    #[must_use]
    pub fn all(&self) -> Arc<[ShardHandle]> {
        self.with(|_| true)
    }

    /// Those whose queues are served here.
    #[must_use]
    pub fn led(&self) -> Arc<[ShardHandle]> {
        self.with(|shard| shard.standing.borrow().leads)
    }

    /// The shard of that number, if it is one of them.
    #[must_use]
    pub fn get(&self, shard: ShardId) -> Option<ShardHandle> {
        let is_it = |handle: &&ShardHandle| handle.shard == shard;
        let alone = self.alone.borrow().iter().find(is_it).cloned();
        alone.or_else(|| self.replicated.borrow().iter().find(is_it).cloned())
    }

    fn with(&self, wanted: impl Fn(&ShardHandle) -> bool) -> Arc<[ShardHandle]> {
        let (alone, replicated) = (self.own(), self.replicated.borrow());
        if replicated.is_empty() {
            return alone;
        }
        // One that becomes a member is no longer told alone before it is told as one.
        let some = replicated.iter().filter(|shard| wanted(shard));
        alone.iter().chain(some).cloned().collect()
    }
}
