//! Routes as they travel: what is different between two tables, in pushes of a bounded size, and
//! how a follower puts them together again. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use grus_protocol::ids::{BrokerAddress, ShardId};
use grus_protocol::message::{BrokerState, QueueSpan, RoutesChanged, ShardState, TopicState};
use grus_protocol::names::TopicName;

use super::{BrokerPlace, RouteSpan, RoutingTable, ShardPlace, TopicRoutes};

/// Most brokers, shards, topics or names in one push.
pub const ITEMS_PER_PUSH_MAX: usize = 1_000;
/// Most queues in one push, one topic apart.
pub const QUEUES_PER_PUSH_MAX: usize = 4_000;

/// What a watcher that knows `known` must be told to know `newest`: whole when it knows nothing
/// of this registry. Only of `topics`, unless that is empty. Never empty: the version is new.
pub fn pushes(
    known: Option<&RoutingTable>,
    newest: &RoutingTable,
    topics: &BTreeSet<TopicName>,
) -> Vec<RoutesChanged> {
    let nothing = RoutingTable::default();
    let same_registry = known.filter(|known| known.registry == newest.registry);
    let old = same_registry.unwrap_or(&nothing);
    let wanted = |name: &TopicName| topics.is_empty() || topics.contains(name);
    let mut maker = Maker::new(newest, same_registry.is_none());
    for (id, broker) in &newest.brokers {
        if old.brokers.get(id) != Some(broker) {
            maker.room(0).brokers.push(broker.state());
        }
    }
    for (shard, place) in &newest.shards {
        if old.shards.get(shard) != Some(place) {
            maker.room(0).shards.push(place.state(*shard));
        }
    }
    for name in old.topics.keys().filter(|name| wanted(name)) {
        if !newest.topics.contains_key(name) {
            maker.room(0).gone.push(name.clone());
        }
    }
    for (name, topic) in newest.topics.iter().filter(|(name, _)| wanted(name)) {
        let known = old.topics.get(name);
        if !known.is_some_and(|known| Arc::ptr_eq(known, topic) || known == topic) {
            maker.room(topic.queues.len()).topics.push(topic.state());
        }
    }
    maker.done
}

/// Fills one push after the other.
struct Maker {
    done: Vec<RoutesChanged>,
    items: usize,
    queues: usize,
}

impl Maker {
    fn new(newest: &RoutingTable, whole: bool) -> Self {
        let first = RoutesChanged {
            registry: newest.registry,
            version: newest.version,
            whole,
            more: false,
            brokers: Vec::new(),
            shards: Vec::new(),
            topics: Vec::new(),
            gone: Vec::new(),
        };
        Self { done: vec![first], items: 0, queues: 0 }
    }

    /// The push that takes one more thing, of so many queues.
    fn room(&mut self, queues: usize) -> &mut RoutesChanged {
        let full = self.items >= ITEMS_PER_PUSH_MAX
            || (self.items > 0 && self.queues + queues > QUEUES_PER_PUSH_MAX);
        let last = self.done.len() - 1;
        if full {
            self.done[last].more = true;
            let RoutesChanged { registry, version, .. } = self.done[last];
            let next = RoutesChanged {
                registry,
                version,
                whole: false,
                more: false,
                brokers: Vec::new(),
                shards: Vec::new(),
                topics: Vec::new(),
                gone: Vec::new(),
            };
            self.done.push(next);
            (self.items, self.queues) = (0, 0);
        }
        self.items += 1;
        self.queues += queues;
        self.done.last_mut().expect("there is always one")
    }
}

/// Puts pushes together.
#[derive(Debug, Default)]
pub struct Follower {
    /// What is known; not told while a change is not there in full.
    table: RoutingTable,
}

impl Follower {
    /// Takes a push; the routes as they are now, once the change is there in full.
    pub fn take(&mut self, change: RoutesChanged) -> Option<Arc<RoutingTable>> {
        let RoutesChanged { registry, version, whole, more, brokers, shards, topics, gone } =
            change;
        if whole {
            self.table = RoutingTable::default();
        }
        self.table.registry = registry;
        self.table.version = version;
        for broker in brokers {
            self.table.brokers.insert(broker.id, BrokerPlace::from(broker));
        }
        for state in shards {
            self.table.shards.insert(state.shard, ShardPlace::from(state));
        }
        for name in gone {
            self.table.topics.remove(&name);
        }
        for topic in topics {
            self.table.topics.insert(topic.name.clone(), Arc::new(TopicRoutes::from(topic)));
        }
        (!more).then(|| Arc::new(self.table.clone()))
    }
}

impl BrokerPlace {
    fn state(&self) -> BrokerState {
        let BrokerAddress { id, host, port } = self.address.clone();
        BrokerState { id, host, port, live: self.live, disk: self.disk }
    }
}

impl From<BrokerState> for BrokerPlace {
    fn from(state: BrokerState) -> Self {
        let BrokerState { id, host, port, live, disk } = state;
        Self { address: BrokerAddress { id, host, port }, live, disk }
    }
}

impl ShardPlace {
    fn state(&self, shard: ShardId) -> ShardState {
        let Self { durability, broker, open, members, group, term, wanted, members_at, .. } =
            self.clone();
        ShardState { shard, durability, broker, open, members, group, term, wanted, members_at }
    }
}

impl From<ShardState> for ShardPlace {
    fn from(state: ShardState) -> Self {
        let ShardState { shard: _, durability, broker, open, members, group, term, .. } = state;
        let (wanted, members_at) = (state.wanted, state.members_at);
        let alone = Self::alone(durability, broker);
        let place = Self { open, members, group, term, wanted, members_at, ..alone };
        Self { replicas: place.members_count(), ..place } // only the registry places queues by it
    }
}

impl TopicRoutes {
    fn state(&self) -> TopicState {
        let span = |span: &RouteSpan| QueueSpan { shard: span.shard, from: span.from };
        TopicState {
            name: self.name.clone(),
            id: self.id,
            settings: self.settings.clone(),
            created: self.created,
            altered: self.altered,
            queues: self.queues.iter().map(|spans| spans.iter().map(span).collect()).collect(),
        }
    }
}

impl From<TopicState> for TopicRoutes {
    fn from(state: TopicState) -> Self {
        let span = |span: QueueSpan| RouteSpan { shard: span.shard, from: span.from };
        let TopicState { name, id, settings, created, altered, queues } = state;
        let spans = |spans: Vec<QueueSpan>| spans.into_iter().map(span).collect();
        let queues = queues.into_iter().map(spans).collect();
        Self { name, id, settings, created, altered, queues }
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerId, Durability, Offset, ShardId, TimestampMs, TopicId};
    use grus_protocol::message::TopicSettings;
    use proptest::prelude::*;

    use super::*;

    fn name(number: u8) -> TopicName {
        TopicName::try_from(&*format!("t{number}")).unwrap()
    }

    fn topic(number: u8, id: u64, queues: u32) -> Arc<TopicRoutes> {
        let span = RouteSpan { shard: ShardId(queues), from: Offset(0) };
        Arc::new(TopicRoutes {
            name: name(number),
            id: TopicId(id),
            settings: TopicSettings { queues, replicas: 1, ..TopicSettings::default() },
            created: TimestampMs(id),
            altered: TimestampMs(id + 1),
            queues: vec![vec![span]; queues as usize],
        })
    }

    prop_compose! {
        fn table(registry: u64)(
            topics in prop::collection::btree_map(0..8_u8, (1..4_u64, 0..6_u32), 0..8),
            brokers in prop::collection::btree_map(1..5_u64, any::<bool>(), 0..4),
            shards in prop::collection::btree_map(0..6_u32, (1..5_u64, any::<bool>()), 0..6),
            version in 1..100_u64,
        ) -> RoutingTable {
            let address = |id| BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 };
            RoutingTable {
                drained: BTreeSet::new(), // it is not told
                registry,
                version,
                topics: topics.iter().map(|(at, (id, queues))| (name(*at), topic(*at, *id, *queues)))
                    .collect(),
                brokers: brokers.into_iter().map(|(id, live)| {
                    (BrokerId(id), BrokerPlace { address: address(id), live, disk: id })
                }).collect(),
                shards: shards.into_iter().map(|(id, (broker, open))| {
                    let (durability, broker) = (Durability::Persisted, BrokerId(broker));
                    let members = if open { vec![broker, BrokerId(9)] } else { Vec::new() };
                    let place = ShardPlace { open, members, ..ShardPlace::alone(durability, broker) };
                    (ShardId(id), ShardPlace { replicas: place.members_count(), ..place })
                }).collect(),
            }
        }
    }

    proptest! {
        #[test]
        fn a_follower_knows_what_the_registry_knows(first in table(7), second in table(7)) {
            let mut follower = Follower::default();
            let mut told = None;
            for push in pushes(None, &first, &BTreeSet::new()) {
                prop_assert!(told.is_none());
                told = follower.take(push);
            }
            prop_assert_eq!(&*told.unwrap(), &first);
            // Brokers and shards never go: the second table keeps those of the first.
            let mut second = second;
            for (id, broker) in &first.brokers {
                second.brokers.entry(*id).or_insert_with(|| broker.clone());
            }
            for (id, shard) in &first.shards {
                second.shards.entry(*id).or_insert(shard.clone());
            }
            let changes = pushes(Some(&first), &second, &BTreeSet::new());
            prop_assert!(changes.iter().all(|push| !push.whole));
            let told = changes.into_iter().filter_map(|push| follower.take(push)).next_back();
            prop_assert_eq!(&*told.unwrap(), &second);
        }

        #[test]
        fn another_registry_is_told_whole(first in table(7), second in table(8)) {
            let changes = pushes(Some(&first), &second, &BTreeSet::new());
            prop_assert!(changes[0].whole);
            let mut follower = Follower { table: first };
            let told = changes.into_iter().filter_map(|push| follower.take(push)).next_back();
            prop_assert_eq!(&*told.unwrap(), &second);
        }

        #[test]
        fn who_asked_for_topics_is_told_of_those(all in table(7)) {
            let wanted = BTreeSet::from([name(1), name(3)]);
            let changes = pushes(None, &all, &wanted);
            let mut told = changes.iter().flat_map(|push| &push.topics);
            let all_wanted = told.all(|topic| wanted.contains(&topic.name));
            prop_assert!(all_wanted);
        }
    }

    #[test]
    fn a_large_table_goes_in_pushes_of_bounded_size() {
        let many = (0..3_500_u32).map(|number| {
            let name = TopicName::try_from(&*format!("t{number}")).unwrap();
            let topic = TopicRoutes { name: name.clone(), ..(*topic(0, 1, 4)).clone() };
            (name, Arc::new(topic))
        });
        let table = RoutingTable { registry: 1, topics: many.collect(), ..RoutingTable::default() };
        let changes = pushes(None, &table, &BTreeSet::new());
        assert_eq!(changes.len(), 4);
        let more: Vec<_> = changes.iter().map(|push| (push.whole, push.more)).collect();
        assert_eq!(more, [(true, true), (false, true), (false, true), (false, false)]);
        assert!(changes.iter().all(|push| push.topics.len() <= ITEMS_PER_PUSH_MAX));
        let mut follower = Follower::default();
        let told: Vec<_> = changes.into_iter().filter_map(|push| follower.take(push)).collect();
        assert_eq!((told.len(), told[0].topics.len()), (1, 3_500));
    }
}
