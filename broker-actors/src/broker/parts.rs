//! Which shards a broker has. Pure.

use grus_protocol::ids::{Durability, ShardId};

/// The shards a broker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan(Vec<(ShardId, Durability)>);

impl ShardPlan {
    /// A broker with these shards.
    #[must_use]
    pub fn new(shards: impl IntoIterator<Item = (ShardId, Durability)>) -> Self {
        let mut shards: Vec<_> = shards.into_iter().collect();
        // The first shard of a broker is a persisted one, as it gives producers their identities.
        shards.sort_by_key(|(id, durability)| (*durability != Durability::Persisted, *id));
        Self(shards)
    }

    /// The shards, persisted ones first.
    #[must_use]
    pub fn shards(&self) -> &[(ShardId, Durability)] {
        &self.0
    }

    /// The number of a shard among those of its level: what it is placed by.
    #[must_use]
    pub fn number_in_level(&self, shard: ShardId) -> usize {
        let level = self.0.iter().find(|(id, _)| *id == shard).map(|(_, level)| *level);
        let same = self.0.iter().filter(|(_, durability)| Some(*durability) == level);
        same.take_while(|(id, _)| *id != shard).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Durability::{Persisted, Replicated};

    #[test]
    fn persisted_shards_come_first_and_each_level_is_counted_by_itself() {
        let shards = [(1, Replicated), (5, Persisted), (3, Replicated), (2, Persisted)];
        let plan = ShardPlan::new(shards.map(|(id, level)| (ShardId(id), level)));
        let order: Vec<_> = plan.shards().iter().map(|(id, _)| id.0).collect();
        assert_eq!(order, [2, 5, 1, 3]);
        let numbers = [2, 5, 1, 3].map(|id| plan.number_in_level(ShardId(id)));
        assert_eq!(numbers, [0, 1, 0, 1]);
    }
}
