//! Which replicas are to be made anew elsewhere: those of brokers that have been gone for so long that they
//! count as lost for good. Pure: told the time in milliseconds of the process's own clock.

use std::collections::BTreeMap;

use grus_protocol::ids::{BrokerId, ShardId};
use grus_protocol::message::ChangeReplicas;

use crate::routing::{RoutingTable, ShardPlace};

/// Most shards whose members change at once, so that not all of a broker's data is copied at one time.
pub const CHANGING_MAX: usize = 4;

/// A change that takes longer does not keep others from being begun: its broker may have no room, or never
/// answer. One that was begun for a broker that is lost goes to another broker then; each of them has twice
/// as long as the one before it, as what takes that long may be large and not stuck.
const SLOW_MS: u64 = 3_600_000;
/// From this many on, a broker has no longer than the one before it: seven years.
const BROKERS_TRIED_MAX: usize = 16;

/// See the module documentation.
#[derive(Debug)]
pub struct Rebuild {
    /// How long a broker is waited for; 0: for ever.
    grace_ms: u64,
    /// Since when each broker is known not to be there. A restart of this process begins anew.
    gone_since_ms: BTreeMap<BrokerId, u64>,
    /// What is wanted of each shard that changes, and since when.
    wanted_since_ms: BTreeMap<ShardId, (Vec<BrokerId>, u64)>,
    /// What was asked for here.
    asked: BTreeMap<ShardId, Asked>,
}

/// Who was to come in for whom.
#[derive(Debug, Clone)]
struct Asked {
    new: BrokerId,
    lost: BrokerId,
    /// Those before `new` that have not come in in time, in that order.
    tried: Vec<BrokerId>,
}

impl Rebuild {
    /// One that waits so long for a broker; 0: for ever.
    pub fn new(grace_ms: u64) -> Self {
        let (gone_since_ms, wanted_since_ms) = (BTreeMap::new(), BTreeMap::new());
        Self { grace_ms, gone_since_ms, wanted_since_ms, asked: BTreeMap::new() }
    }

    /// What is to be changed now.
    pub fn look(&mut self, table: &RoutingTable, now_ms: u64) -> Vec<ChangeReplicas> {
        if self.grace_ms == 0 {
            return Vec::new();
        }
        let is_gone = |broker: &BrokerId| table.brokers.get(broker).is_some_and(|it| !it.live);
        self.gone_since_ms.retain(|broker, _| is_gone(broker));
        for broker in table.brokers.keys().filter(|broker| is_gone(broker)) {
            self.gone_since_ms.entry(*broker).or_insert(now_ms);
        }
        let is_live = |broker: &BrokerId| table.brokers.get(broker).is_some_and(|it| it.live);
        self.watch_changes(table, now_ms);
        let mut changes = self.take_back(table, is_live);
        let is_lost = |broker: &&BrokerId| {
            let since = self.gone_since_ms.get(broker);
            since.is_some_and(|since| now_ms.saturating_sub(*since) >= self.grace_ms)
        };
        // Without a majority nothing can be changed: it would only take the place of what can.
        let has_majority = |place: &ShardPlace| {
            place.members.iter().filter(|member| is_live(member)).count() * 2 > place.members.len()
        };
        let all = table.shards.iter().filter(|(_, place)| place.is_replicated());
        let mut able: Vec<_> = all.filter(|(_, place)| has_majority(place)).collect();
        // Those for which nobody was asked yet go before those where one does not come in.
        able.sort_by_key(|(_, place)| !aim(place).iter().any(|broker| is_lost(&broker)));
        let is_slow = |shard: &ShardId| {
            let since = self.wanted_since_ms.get(shard);
            since.is_some_and(|(_, since)| now_ms.saturating_sub(*since) >= SLOW_MS)
        };
        let goes_on = |shard: &ShardId, place: &ShardPlace| {
            !place.wanted.is_empty() && place.wanted.iter().all(is_live) && !is_slow(shard)
        };
        let mut changing = able.iter().filter(|(shard, place)| goes_on(shard, place)).count();
        let mut burden = burden(table);
        let mut asked = Vec::new();
        for (shard, place) in able {
            if changing >= CHANGING_MAX {
                break;
            }
            let known = self.asked.get(shard).cloned().or_else(|| asked_before(place, is_lost));
            let stuck = known.as_ref().and_then(|known| self.stuck(known, *shard, place, now_ms));
            let Some(lost) = aim(place).iter().find(is_lost).copied().or(stuck) else { continue };
            // For one that is there, but does not come in, only brokers that were not tried.
            let before = known.as_ref().filter(|_| stuck == Some(lost));
            let tried = before.map_or(&[][..], |asked| &asked.tried);
            let is_new = |broker: &BrokerId| !place.is_on(*broker) && !tried.contains(broker);
            let fits = burden.iter_mut().filter(|(broker, _)| is_new(broker));
            let Some((broker, count)) = fits.min_by_key(|(broker, count)| (**count, **broker))
            else {
                continue; // no broker is left that has none of it
            };
            *count += 1;
            changing += 1;
            changes.push(change(*shard, *broker, lost));
            let untried = Some(lost).filter(|lost| before.is_some() && !tried.contains(lost));
            let tried = tried.iter().copied().chain(untried).collect();
            let (new, lost) = (*broker, before.map_or(lost, |asked| asked.lost));
            asked.push((*shard, Asked { new, lost, tried }));
        }
        self.asked.extend(asked);
        changes
    }

    /// The one that was asked for to be a member, and has not become one in the time that it has.
    fn stuck(
        &self,
        asked: &Asked,
        shard: ShardId,
        place: &ShardPlace,
        now_ms: u64,
    ) -> Option<BrokerId> {
        let is_coming =
            |broker: &BrokerId| place.wanted.contains(broker) && !place.members.contains(broker);
        // The last that was asked for may not be in the routes yet.
        let mut all = asked.tried.iter().chain([&asked.new]).enumerate();
        let (turn, broker) = all.find(|(_, broker)| is_coming(broker))?;
        let (_, since_ms) = self.wanted_since_ms.get(&shard)?;
        let is_over = now_ms.saturating_sub(*since_ms) >= SLOW_MS << turn.min(BROKERS_TRIED_MAX);
        is_over.then_some(*broker)
    }

    /// Notes since when each shard is to have the members that it is to have.
    fn watch_changes(&mut self, table: &RoutingTable, now_ms: u64) {
        let wanted = |shard: &ShardId| table.shards.get(shard).map_or(&[][..], |it| &it.wanted);
        self.wanted_since_ms.retain(|shard, (list, _)| wanted(shard) == &list[..]);
        for (shard, place) in table.shards.iter().filter(|(_, place)| !place.wanted.is_empty()) {
            let since = || (place.wanted.clone(), now_ms);
            self.wanted_since_ms.entry(*shard).or_insert_with(since);
        }
    }

    /// Those that were to be replaced, are back, and have not been replaced yet: what they have is good,
    /// and nearer than a copy.
    fn take_back(
        &mut self,
        table: &RoutingTable,
        is_live: impl Fn(&BrokerId) -> bool,
    ) -> Vec<ChangeReplicas> {
        let mut changes = Vec::new();
        self.asked.retain(|shard, Asked { new, lost, tried }| {
            let Some(place) = table.shards.get(shard) else { return false };
            let is_asked = place.wanted.contains(new) && !place.wanted.contains(lost);
            if is_asked && place.members.contains(lost) && is_live(lost) {
                changes.push(change(*shard, *lost, *new));
                return false;
            }
            // Not in the routes yet, or under way.
            let is_coming = match tried.last() {
                None => place.wanted.is_empty() && !is_live(lost),
                Some(stuck) => place.wanted.contains(stuck),
            };
            place.members.contains(lost) && (is_coming || is_asked)
        });
        changes
    }
}

/// The members that a shard has, or is to have.
fn aim(place: &ShardPlace) -> &[BrokerId] {
    if place.wanted.is_empty() { &place.members } else { &place.wanted }
}

/// What was asked for before this process began, or by hand, as far as that can be told: one is to come in, and
/// one that is lost is to go.
fn asked_before(place: &ShardPlace, is_lost: impl Fn(&&BrokerId) -> bool) -> Option<Asked> {
    let is_coming = |broker: &&BrokerId| !place.members.contains(broker);
    let is_leaving = |broker: &&BrokerId| !place.wanted.contains(broker);
    let new = *place.wanted.iter().find(is_coming)?;
    let lost = *place.members.iter().filter(is_leaving).find(is_lost)?;
    Some(Asked { new, lost, tried: Vec::new() })
}

fn change(shard: ShardId, add: BrokerId, remove: BrokerId) -> ChangeReplicas {
    let (add, remove) = (Some(add), Some(remove));
    ChangeReplicas { shards: vec![shard], topic: None, add, remove, replicas: 0 }
}

/// How many replicas each live broker that is not drained has, or is to have.
fn burden(table: &RoutingTable) -> BTreeMap<BrokerId, usize> {
    let live = table.brokers.iter().filter(|(_, broker)| broker.live);
    let live = live.filter(|(id, _)| !table.drained.contains(*id));
    let is_on =
        |broker: BrokerId| move |place: &&ShardPlace| place.is_replicated() && place.is_on(broker);
    live.map(|(id, _)| (*id, table.shards.values().filter(is_on(*id)).count())).collect()
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerAddress, Durability};

    use super::*;
    use crate::routing::BrokerPlace;

    fn table(shards: &[&[u64]], gone: &[u64]) -> RoutingTable {
        let mut table = RoutingTable::default();
        for broker in 1..=5 {
            let id = BrokerId(broker);
            let address = BrokerAddress { id, host: "h".into(), port: 1 };
            let live = !gone.contains(&broker);
            table.brokers.insert(id, BrokerPlace { address, live, disk: broker });
        }
        for (number, members) in (0u32..).zip(shards) {
            let members = members.iter().copied().map(BrokerId).collect();
            let alone = ShardPlace::alone(Durability::Persisted, BrokerId(1));
            table.shards.insert(ShardId(number), ShardPlace { members, ..alone });
        }
        table
    }

    fn said(changes: &[ChangeReplicas]) -> Vec<(u32, u64, u64)> {
        let number = |broker: Option<BrokerId>| broker.map_or(0, |broker| broker.0);
        let one = |change: &ChangeReplicas| {
            (change.shards[0].0, number(change.add), number(change.remove))
        };
        changes.iter().map(one).collect()
    }

    #[test]
    fn a_broker_is_waited_for_and_then_the_idlest_others_get_its_replicas() {
        let shards: [&[u64]; 4] = [&[1, 2, 3], &[2, 3, 4], &[], &[1, 3, 4]];
        let all = table(&shards, &[3]);
        let mut rebuild = Rebuild::new(1_000);
        assert_eq!(said(&rebuild.look(&all, 500)), []);
        assert_eq!(said(&rebuild.look(&all, 1_499)), []);
        assert_eq!(said(&rebuild.look(&all, 1_500)), [(0, 5, 3), (1, 5, 3), (3, 2, 3)]);
        rebuild.look(&table(&shards, &[]), 1_600);
        assert_eq!(said(&rebuild.look(&all, 1_700)), [], "it was there meanwhile");
        assert_eq!(said(&rebuild.look(&all, 2_700)).len(), 3);
        assert_eq!(said(&Rebuild::new(0).look(&all, u64::MAX)), [], "it is waited for, for ever");
    }

    #[test]
    fn not_all_are_made_at_once_and_none_twice_and_none_where_nobody_is_left() {
        let mut all = table(&[&[1, 2, 3][..]; 6], &[3]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)).len(), CHANGING_MAX);
        for number in 0..4 {
            let place = all.shards.get_mut(&ShardId(number)).unwrap();
            place.wanted = vec![BrokerId(1), BrokerId(2), BrokerId(4)];
        }
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        all.shards.get_mut(&ShardId(0)).unwrap().wanted.clear();
        all.shards.get_mut(&ShardId(0)).unwrap().members[2] = BrokerId(4);
        assert_eq!(said(&rebuild.look(&all, 11)), [(4, 5, 3)]);
        // One that was to get it is lost, too; and what has no majority takes nobody's place.
        let mut all = table(&[&[1, 2][..], &[1, 2], &[1, 2], &[1, 2], &[2, 3, 4]], &[1, 3]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [(4, 5, 3)]);
        all.shards.get_mut(&ShardId(4)).unwrap().wanted = [2, 5, 4].map(BrokerId).to_vec();
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        all.brokers.get_mut(&BrokerId(5)).unwrap().live = false;
        all.brokers.get_mut(&BrokerId(1)).unwrap().live = true;
        rebuild.look(&all, 11);
        assert_eq!(said(&rebuild.look(&all, 20)), [(4, 1, 5)]);
        let few = table(&[&[1, 2, 3][..]], &[3, 4, 5]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&few, 0);
        assert_eq!(said(&rebuild.look(&few, 9)), []);
    }

    #[test]
    fn one_that_is_drained_gets_nothing_and_keeps_what_it_has() {
        let mut all = table(&[&[1, 2, 3][..], &[3, 4, 5]], &[3]);
        all.drained.insert(BrokerId(4));
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [(0, 5, 3), (1, 1, 3)]);
        all.drained = [1, 2, 4, 5].map(BrokerId).into();
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [], "nobody is left who is not");
    }

    #[test]
    fn one_that_comes_back_before_its_copy_is_there_stays_a_member() {
        let mut all = table(&[&[1, 2, 3][..], &[1, 2, 3]], &[3]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [(0, 4, 3), (1, 5, 3)]);
        for (number, new) in [(0, 4), (1, 5)] {
            let place = all.shards.get_mut(&ShardId(number)).unwrap();
            place.wanted = [1, 2, new].map(BrokerId).to_vec();
        }
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        // The second one is there already when it comes back, and is told by its group that it is out.
        let place = all.shards.get_mut(&ShardId(1)).unwrap();
        (place.members, place.wanted) = (place.wanted.clone(), Vec::new());
        all.brokers.get_mut(&BrokerId(3)).unwrap().live = true;
        assert_eq!(said(&rebuild.look(&all, 11)), [(0, 3, 4)]);
        assert_eq!(said(&rebuild.look(&all, 12)), [], "once");
        // What an operator wants is the operator's, also what was asked for here in vain before.
        let mut all = table(&[&[1, 2, 3][..]], &[3]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [(0, 4, 3)]);
        all.brokers.get_mut(&BrokerId(3)).unwrap().live = true;
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        all.shards.get_mut(&ShardId(0)).unwrap().wanted = [1, 2, 4].map(BrokerId).to_vec();
        assert_eq!(said(&rebuild.look(&all, 11)), []);
    }

    #[test]
    fn changes_that_do_not_end_keep_nobody_from_being_replaced_for_ever() {
        let mut all = table(&[&[1, 2, 3][..]; 6], &[3]);
        for number in 0..4 {
            let place = all.shards.get_mut(&ShardId(number)).unwrap();
            place.wanted = [1, 2, 4].map(BrokerId).to_vec();
        }
        let mut rebuild = Rebuild::new(1);
        assert_eq!(said(&rebuild.look(&all, 0)), []);
        assert_eq!(said(&rebuild.look(&all, SLOW_MS - 1)), [], "they may be large");
        // First those that nobody was asked for.
        let expected = [(4, 5, 3), (5, 5, 3), (0, 5, 4), (1, 5, 4)];
        assert_eq!(said(&rebuild.look(&all, SLOW_MS)), expected);
    }

    #[test]
    fn one_that_was_asked_before_a_restart_and_does_not_come_in_is_given_up_too() {
        let mut all = table(&[&[1, 2, 3][..]], &[3]);
        all.shards.get_mut(&ShardId(0)).unwrap().wanted = [1, 2, 4].map(BrokerId).to_vec();
        let mut rebuild = Rebuild::new(1);
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        assert_eq!(said(&rebuild.look(&all, 9 + SLOW_MS)), [], "it may be large");
        assert_eq!(said(&rebuild.look(&all, 10 + SLOW_MS)), [(0, 5, 4)]);
        all.shards.get_mut(&ShardId(0)).unwrap().wanted = [1, 2, 5].map(BrokerId).to_vec();
        assert_eq!(said(&rebuild.look(&all, 11 + SLOW_MS)), [], "it has longer");
        // Nobody is lost: what is wanted is the operator's.
        let mut all = table(&[&[1, 2, 3][..]], &[]);
        all.shards.get_mut(&ShardId(0)).unwrap().wanted = [1, 2, 4].map(BrokerId).to_vec();
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 10);
        assert_eq!(said(&rebuild.look(&all, 10 + SLOW_MS)), []);
    }

    #[test]
    fn one_that_does_not_come_in_is_given_up_for_another_that_is_free() {
        let mut all = table(&[&[1, 2, 3][..]], &[3]);
        let want = |all: &mut RoutingTable, list: [u64; 3]| {
            let place = all.shards.get_mut(&ShardId(0)).unwrap();
            place.wanted = list.map(BrokerId).to_vec();
        };
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        assert_eq!(said(&rebuild.look(&all, 9)), [(0, 4, 3)]);
        want(&mut all, [1, 2, 4]);
        assert_eq!(said(&rebuild.look(&all, 10)), []);
        assert_eq!(said(&rebuild.look(&all, 9 + SLOW_MS)), [], "it may be large");
        assert_eq!(said(&rebuild.look(&all, 10 + SLOW_MS)), [(0, 5, 4)]);
        assert_eq!(said(&rebuild.look(&all, 11 + SLOW_MS)), [(0, 5, 4)], "nobody has heard of it");
        want(&mut all, [1, 2, 5]);
        let from = 12 + SLOW_MS;
        assert_eq!(said(&rebuild.look(&all, from)), []);
        // It has longer, and nobody is left who was not tried.
        assert_eq!(said(&rebuild.look(&all, from + 2 * SLOW_MS)), []);
        let id = BrokerId(6);
        let address = BrokerAddress { id, host: "h".into(), port: 1 };
        all.brokers.insert(id, BrokerPlace { address, live: true, disk: 6 });
        assert_eq!(said(&rebuild.look(&all, from + 2 * SLOW_MS - 1)), [], "it may be large");
        assert_eq!(said(&rebuild.look(&all, from + 2 * SLOW_MS)), [(0, 6, 5)]);
        want(&mut all, [1, 2, 6]);
        let from = from + 2 * SLOW_MS + 1;
        assert_eq!(said(&rebuild.look(&all, from)), []);
        // One that is lost while it comes in is given up at once, also for one that was tried before.
        all.brokers.get_mut(&BrokerId(6)).unwrap().live = false;
        rebuild.look(&all, from + 1);
        assert_eq!(said(&rebuild.look(&all, from + 2)), [(0, 4, 6)]);
        // The one that was lost at first is back.
        let mut all = table(&[&[1, 2, 3][..]], &[3]);
        let mut rebuild = Rebuild::new(1);
        rebuild.look(&all, 0);
        rebuild.look(&all, 9);
        want(&mut all, [1, 2, 4]);
        rebuild.look(&all, 10);
        assert_eq!(said(&rebuild.look(&all, 10 + SLOW_MS)), [(0, 5, 4)]);
        want(&mut all, [1, 2, 5]);
        all.brokers.get_mut(&BrokerId(3)).unwrap().live = true;
        assert_eq!(said(&rebuild.look(&all, 11 + SLOW_MS)), [(0, 3, 5)]);
    }
}
