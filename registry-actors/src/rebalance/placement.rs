//! Which shards new queues go to. Pure.
//!
//! Each queue goes to the live broker with the fewest queues that is not drained; among equal ones to the one that took
//! the fewest bytes of late, then to the one with the lowest number. Within the broker it goes to the
//! shard with the fewest queues, the lowest number first.

use std::collections::BTreeMap;
use std::sync::Arc;

use grus_protocol::ids::{BrokerId, Durability, ShardId, TopicId};

use crate::routing::RoutingTable;

/// Most plans remembered that the routes do not show: older ones have failed.
const PLANS_MAX: usize = 1_024;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Placement {
    table: Arc<RoutingTable>,
    /// Queues by shard, as the table has them.
    counts: BTreeMap<ShardId, u64>,
    loads: BTreeMap<BrokerId, u64>,
    /// Planned, and not in the table yet: oldest first.
    planned: Vec<Planned>,
}

#[derive(Debug)]
struct Planned {
    topic: TopicId,
    /// How many queues of the topic the table will show.
    queues: usize,
    shards: Vec<ShardId>,
}

impl Placement {
    /// The routes are these now.
    pub fn table_is(&mut self, table: Arc<RoutingTable>) {
        self.counts.clear();
        for topic in table.topics.values() {
            for span in topic.queues.iter().filter_map(|spans| spans.last()) {
                *self.counts.entry(span.shard).or_insert(0) += 1;
            }
        }
        self.planned.retain(|plan| {
            let there = table.by_id(plan.topic).map_or(0, |topic| topic.queues.len());
            there < plan.queues
        });
        self.table = table;
    }

    /// The brokers' loads are these now.
    pub fn loads_are(&mut self, loads: BTreeMap<BrokerId, u64>) {
        self.loads = loads;
    }

    /// One shard for each of `queues` new queues; none when there is nowhere to put them.
    pub fn plan(&mut self, topic: TopicId, durability: Durability, queues: u32) -> Vec<ShardId> {
        let mut brokers: BTreeMap<BrokerId, BTreeMap<ShardId, u64>> = BTreeMap::new();
        let mut totals: BTreeMap<BrokerId, u64> = BTreeMap::new();
        for (shard, place) in &self.table.shards {
            if self.table.leader_of(*shard).is_none() {
                continue;
            }
            let planned = self.planned.iter().flat_map(|plan| &plan.shards);
            let count = self.counts.get(shard).copied().unwrap_or(0)
                + planned.filter(|planned| *planned == shard).count() as u64;
            // A broker carries the queues of all its shards, whatever they promise.
            *totals.entry(place.broker).or_insert(0) += count;
            let is_drained = self.table.drained.contains(&place.broker);
            let takes = place.open && place.durability == durability && !is_drained;
            if takes && !place.is_replicated() {
                brokers.entry(place.broker).or_default().insert(*shard, count);
            }
        }
        let mut chosen = Vec::new();
        for _ in 0..queues {
            let load = |broker: &BrokerId| self.loads.get(broker).copied().unwrap_or(0);
            let least =
                brokers.keys().min_by_key(|broker| (totals[*broker], load(broker), **broker));
            let Some(broker) = least.copied() else { return Vec::new() };
            let shards = brokers.get_mut(&broker).expect("it was just found");
            let fewest = shards.iter().min_by_key(|(shard, count)| (**count, **shard));
            let Some(shard) = fewest.map(|(shard, _)| *shard) else { return Vec::new() };
            *shards.entry(shard).or_insert(0) += 1;
            *totals.entry(broker).or_insert(0) += 1;
            chosen.push(shard);
        }
        self.remember(topic, &chosen);
        chosen
    }

    fn remember(&mut self, topic: TopicId, chosen: &[ShardId]) {
        let there = self.table.by_id(topic).map_or(0, |topic| topic.queues.len());
        if self.planned.len() >= PLANS_MAX {
            self.planned.remove(0);
        }
        let queues = there + chosen.len();
        self.planned.push(Planned { topic, queues, shards: chosen.to_vec() });
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerAddress, Offset, TimestampMs};
    use grus_protocol::message::TopicSettings;
    use grus_protocol::names::TopicName;
    use proptest::prelude::*;

    use super::*;
    use crate::routing::{BrokerPlace, RouteSpan, ShardPlace, TopicRoutes};

    use Durability::{Persisted, Replicated};

    /// Shards as (broker, durability, open); brokers that are dead.
    fn table(shards: &[(u64, Durability, bool)], dead: &[u64]) -> RoutingTable {
        let mut table = RoutingTable { registry: 1, version: 1, ..RoutingTable::default() };
        for (shard, (broker, durability, open)) in (0..).map(ShardId).zip(shards) {
            let id = BrokerId(*broker);
            let address = BrokerAddress { id, host: "h".into(), port: 1 };
            let live = !dead.contains(broker);
            table.brokers.insert(id, BrokerPlace { address, live, disk: 1 });
            let place = ShardPlace { open: *open, ..ShardPlace::alone(*durability, id) };
            table.shards.insert(shard, place);
        }
        table
    }

    fn put(table: &mut RoutingTable, id: u64, shards: &[ShardId]) {
        let name = TopicName::try_from(&*format!("t{id}")).unwrap();
        let spans = |shard: &ShardId| vec![RouteSpan { shard: *shard, from: Offset(0) }];
        let topic = TopicRoutes {
            name: name.clone(),
            id: TopicId(id),
            settings: TopicSettings { replicas: 1, ..TopicSettings::default() },
            created: TimestampMs(0),
            altered: TimestampMs(0),
            queues: shards.iter().map(spans).collect(),
        };
        table.topics.insert(name, Arc::new(topic));
        table.version += 1;
    }

    #[test]
    fn four_queues_go_two_and_two_whatever_the_shards() {
        let mut placement = Placement::default();
        let shards = [(1, Persisted, true), (1, Replicated, true), (2, Persisted, true)];
        placement.table_is(Arc::new(table(&shards, &[])));
        let chosen = placement.plan(TopicId(1), Persisted, 4);
        assert_eq!(chosen, [ShardId(0), ShardId(2), ShardId(0), ShardId(2)]);
        assert_eq!(placement.plan(TopicId(2), Replicated, 1), [ShardId(1)]);
        placement.table_is(Arc::new(table(&shards, &[1])));
        assert_eq!(placement.plan(TopicId(3), Persisted, 2), [ShardId(2); 2], "1 is dead");
        assert_eq!(placement.plan(TopicId(4), Replicated, 1), [], "nobody is left");
    }

    #[test]
    fn among_equal_brokers_the_one_with_less_to_do_is_first() {
        let mut placement = Placement::default();
        let shards = [(1, Persisted, true), (2, Persisted, true)];
        placement.table_is(Arc::new(table(&shards, &[])));
        placement.loads_are(BTreeMap::from([(BrokerId(1), 5_000), (BrokerId(2), 10)]));
        assert_eq!(placement.plan(TopicId(1), Persisted, 3), [1, 0, 1].map(ShardId));
    }

    #[test]
    fn plans_count_until_the_routes_show_them() {
        let mut placement = Placement::default();
        let shards = [(1, Persisted, true), (2, Persisted, true)];
        let mut routes = table(&shards, &[]);
        placement.table_is(Arc::new(routes.clone()));
        let first = placement.plan(TopicId(1), Persisted, 1);
        let second = placement.plan(TopicId(2), Persisted, 1);
        assert_ne!(first, second, "the first one is not in the routes yet");
        put(&mut routes, 1, &first);
        put(&mut routes, 2, &second);
        placement.table_is(Arc::new(routes));
        assert!(placement.planned.is_empty());
        assert_eq!(placement.plan(TopicId(3), Persisted, 2).len(), 2);
    }

    #[test]
    fn a_broker_that_is_drained_gets_none() {
        let mut table = table(&[(1, Persisted, true), (2, Persisted, true)], &[]);
        table.drained.insert(BrokerId(1));
        let mut placement = Placement::default();
        placement.table_is(Arc::new(table));
        assert_eq!(placement.plan(TopicId(9), Persisted, 3), [ShardId(1); 3]);
    }

    proptest! {
        #[test]
        fn live_brokers_differ_by_one_queue_at_most(
            brokers in 1..6_u64,
            shards_each in 1..4_u64,
            topics in prop::collection::vec(1..9_u32, 1..20),
            dead in 0..6_u64,
        ) {
            let each = |broker| (0..shards_each).map(move |_| (broker, Persisted, true));
            let shards: Vec<_> = (1..=brokers).flat_map(each).collect();
            let mut routes = table(&shards, &[dead]);
            let mut placement = Placement::default();
            let live = (1..=brokers).filter(|broker| *broker != dead).count();
            let mut counts: BTreeMap<BrokerId, usize> = BTreeMap::new();
            let mut by_shard: BTreeMap<ShardId, usize> = BTreeMap::new();
            for (id, queues) in (1..).zip(topics) {
                placement.table_is(Arc::new(routes.clone()));
                let chosen = placement.plan(TopicId(id), Persisted, queues);
                prop_assert_eq!(chosen.len(), if live == 0 { 0 } else { queues as usize });
                for shard in &chosen {
                    *counts.entry(routes.shards[shard].broker).or_default() += 1;
                    *by_shard.entry(*shard).or_default() += 1;
                }
                put(&mut routes, id, &chosen);
                prop_assert!(!counts.contains_key(&BrokerId(dead)));
                let fewest = counts.values().min().copied().unwrap_or(0);
                let least = if counts.len() < live { 0 } else { fewest };
                prop_assert!(counts.values().max().copied().unwrap_or(0) <= least + 1);
                for broker in counts.keys() {
                    let own = routes.shards_of(*broker).into_iter();
                    let own: Vec<_> =
                        own.map(|(shard, _)| by_shard.get(&shard).copied().unwrap_or(0)).collect();
                    prop_assert!(own.iter().max().unwrap() - own.iter().min().unwrap() <= 1);
                }
            }
        }
    }
}
