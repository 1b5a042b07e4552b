//! Who leads which shard, as the registry and this broker's own members say, and what follows from it
//! for the routes. Pure.

use grus_protocol::ids::{BrokerId, ShardId, TopicId};

use super::{Action, Ledger};
use crate::registry_link::routes::{Leader, QueuePlace, TopicRoute};

impl<W> Ledger<W> {
    /// Names the leaders of all queues anew.
    pub(super) fn find_leaders(&mut self, actions: &mut Vec<Action<W>>) {
        let live = self.table.brokers.values().filter(|broker| broker.live);
        self.routes.brokers = live.map(|broker| broker.address.clone()).collect();
        let mut changed = Vec::new();
        for route in self.routes.topics() {
            let leader = |place: &QueuePlace| self.leader(place.shard);
            if route.queues.iter().any(|place| place.leader != leader(place)) {
                let mut route = TopicRoute::clone(route);
                for place in &mut route.queues {
                    place.leader = self.leader(place.shard);
                    if place.leader != Leader::Here {
                        place.handle = None;
                    }
                }
                changed.push(route);
            }
        }
        for route in changed {
            self.routes.put(route);
        }
        self.routes.version += 1;
        actions.push(Action::Publish);
    }

    /// Who leads a shard of several members has changed, as this broker's own member knows: itself, in
    /// its reign of that number, or another one, if it knows who.
    pub fn stands(
        &mut self,
        shard: ShardId,
        reign: Option<u64>,
        leader: Option<BrokerId>,
    ) -> Vec<Action<W>> {
        let mut actions = Vec::new();
        if let Some(reign) = reign {
            self.followed.remove(&shard);
            self.own.insert(shard);
            // One that ceased to lead and does again has other queues than before.
            if self.reigns.insert(shard, reign) != Some(reign) {
                self.open_all_of(shard);
                // Nobody may have led when they were deleted, or the one that did died over it.
                let here = self.home.drops.range((shard, TopicId(0))..=(shard, TopicId(u64::MAX)));
                actions.extend(here.map(|(_, topic)| Action::Drop(shard, *topic)));
            }
        } else {
            self.followed.insert(shard, leader);
            self.own.remove(&shard);
        }
        self.find_leaders(&mut actions);
        self.go_on(&mut actions);
        actions
    }

    /// Opens anew what has queues on a shard.
    fn open_all_of(&mut self, shard: ShardId) {
        self.opened.retain(|_, topic| topic.queues_on(shard).is_empty());
        let topics = self.table.topics.values();
        let there = topics.filter(|topic| !topic.queues_on(shard).is_empty());
        for topic in there.cloned().collect::<Vec<_>>() {
            if !self.deleted.contains(&topic.id) {
                // Behind an opening that is under way, too, which may have begun without it.
                self.wanted.insert(topic.id, topic);
            }
        }
    }

    /// The other broker that leads a shard; none for those of this one.
    pub(super) fn leader(&self, shard: ShardId) -> Leader {
        if self.own.contains(&shard) {
            return Leader::Here;
        }
        let leader = match self.followed.get(&shard) {
            // Its own consensus knows better than the registry, which hears of it later.
            Some(known) => {
                let known = known.and_then(|broker| self.table.brokers.get(&broker));
                known.map(|broker| &broker.address)
            }
            None => self.table.leader_of(shard),
        };
        match leader {
            Some(address) => Leader::There(address.clone()),
            None => Leader::Nobody,
        }
    }
}
