//! Which shards a broker has. Pure.

use std::collections::BTreeSet;

use grus_protocol::ids::{BrokerId, Durability, ShardId};
use grus_registry::RoutingTable;

/// The levels, in the order in which their shards are numbered: the first shard of a broker is
/// `persisted`, as it gives producers their identities.
const LEVELS: [Durability; 2] = [Durability::Persisted, Durability::Replicated];

/// The shards a broker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan(Vec<(ShardId, Durability)>);

impl ShardPlan {
    /// The shards that the registry knows as this broker's, and as many new ones as are needed to
    /// have `wanted` of each level.
    #[must_use]
    pub fn new(table: &RoutingTable, broker: BrokerId, wanted: u32) -> Self {
        let mine = table.shards.iter().filter(|(_, place)| place.broker == broker);
        let mut shards: Vec<_> = mine.map(|(id, place)| (*id, place.durability)).collect();
        let mut taken: BTreeSet<_> = table.shards.keys().copied().collect();
        let mut next = 0;
        for _ in 0..wanted.max(1) {
            for level in LEVELS {
                let have = shards.iter().filter(|(_, durability)| *durability == level).count();
                if have >= wanted.max(1) as usize {
                    continue;
                }
                while !taken.insert(ShardId(next)) {
                    next += 1;
                }
                shards.push((ShardId(next), level));
            }
        }
        // Those of each level first to last, persisted ones first.
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
    use grus_registry::ShardPlace;

    use super::*;

    const ME: BrokerId = BrokerId(5);

    fn table(shards: &[(u32, Durability, u64)]) -> RoutingTable {
        let place = |broker, durability| ShardPlace { durability, broker, open: true };
        RoutingTable {
            shards: shards
                .iter()
                .map(|(id, durability, broker)| {
                    (ShardId(*id), place(BrokerId(*broker), *durability))
                })
                .collect(),
            ..RoutingTable::default()
        }
    }

    fn plan(table: &RoutingTable, wanted: u32) -> Vec<(u32, Durability)> {
        let plan = ShardPlan::new(table, ME, wanted);
        plan.shards().iter().map(|(id, durability)| (id.0, *durability)).collect()
    }

    use Durability::{Persisted, Replicated};

    #[test]
    fn an_empty_broker_gets_one_of_each_level_for_each_core() {
        assert_eq!(plan(&table(&[]), 1), [(0, Persisted), (1, Replicated)]);
        let two = [(0, Persisted), (2, Persisted), (1, Replicated), (3, Replicated)];
        assert_eq!(plan(&table(&[]), 2), two);
        assert_eq!(ShardPlan::new(&table(&[]), ME, 2).number_in_level(ShardId(3)), 1);
        assert_eq!(ShardPlan::new(&table(&[]), ME, 2).number_in_level(ShardId(0)), 0);
    }

    #[test]
    fn what_exists_is_kept_and_new_ones_take_free_numbers() {
        let known = table(&[(0, Persisted, 5), (1, Replicated, 5), (2, Persisted, 6)]);
        assert_eq!(plan(&known, 1), [(0, Persisted), (1, Replicated)]);
        let grown = [(0, Persisted), (3, Persisted), (1, Replicated), (4, Replicated)];
        assert_eq!(plan(&known, 2), grown);
        let many = table(&[(0, Persisted, 5), (2, Persisted, 5), (1, Replicated, 5)]);
        assert_eq!(plan(&many, 1).len(), 3, "never fewer than there are");
    }
}
