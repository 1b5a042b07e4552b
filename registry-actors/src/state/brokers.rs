//! Brokers and their shards. Pure.

use std::collections::BTreeMap;

use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, ShardId};
use grus_protocol::message::HOST_BYTES_MAX;

use super::{Applied, BROKERS_MAX, Outcome, SHARDS_MAX, State};
use crate::command::{EnrolBroker, MarkBroker, MembershipClaim, RegisterBroker};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{BrokerPlace, ShardPlace};

/// The levels, in the order in which shards are given out: the first shard of a broker is
/// `persisted`, as it gives producers their identities.
const LEVELS: [Durability; 2] = [Durability::Persisted, Durability::Replicated];
/// Most shards of one durability that a broker may want.
pub const SHARDS_WANTED_MAX: u32 = 256;

impl State {
    /// Gives the registry its number, if it has none.
    pub(super) fn found(&mut self, registry: u64) -> (Outcome, Vec<PartKey>) {
        if self.registry != 0 || registry == 0 {
            return (Outcome::Done, Vec::new());
        }
        self.registry = registry;
        (Outcome::Done, vec![PartKey::Meta])
    }

    /// What builds before [`EnrolBroker`] wrote.
    pub(super) fn register_broker(&mut self, register: &RegisterBroker) -> Applied {
        let broker = register.broker;
        let known = self.brokers.get(&broker).map_or(0, |known| known.disk);
        let place = BrokerPlace { address: register.address(), live: true, disk: known };
        let mut shards = self.claims(broker, &register.shards, &place)?;
        for (shard, place) in &self.shards {
            let is_own = place.broker == broker && !place.is_replicated();
            if is_own && !shards.contains_key(shard) {
                shards.insert(*shard, ShardPlace { open: false, ..place.clone() });
            }
        }
        let changed = self.take_shards(shards, place);
        Ok((Outcome::Registered, changed))
    }

    /// A broker is there: it keeps its shards, and is given those that it wants and has not.
    pub(super) fn enrol_broker(&mut self, enrol: &EnrolBroker) -> Applied {
        let broker = enrol.broker;
        let known = self.brokers.get(&broker).map_or(0, |known| known.disk);
        if known != 0 && known != enrol.disk {
            return Err(RegistryError::BrokerIdTaken { broker });
        }
        if enrol.shards_wanted > SHARDS_WANTED_MAX {
            let reason = format!("a broker has at most {SHARDS_WANTED_MAX} shards of a durability");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let address = BrokerAddress { id: broker, host: enrol.host.clone(), port: enrol.port };
        let place = BrokerPlace { address, live: true, disk: enrol.disk };
        let mut shards = self.claims(broker, &enrol.shards, &place)?;
        for (shard, place) in self.alone_on(broker) {
            shards.entry(shard).or_insert_with(|| place.clone());
        }
        // What has grown since a copy of the registry was made is a group's.
        shards.retain(|shard, _| !enrol.memberships.iter().any(|claim| claim.shard == *shard));
        let mut next = 0;
        for _ in 0..enrol.shards_wanted {
            for durability in LEVELS {
                let have = shards.values().filter(|place| place.durability == durability).count();
                if have >= enrol.shards_wanted as usize {
                    continue;
                }
                let is_claimed = |shard| enrol.memberships.iter().any(|claim| claim.shard == shard);
                while self.shards.contains_key(&ShardId(next))
                    || shards.contains_key(&ShardId(next))
                    || is_claimed(ShardId(next))
                {
                    next += 1;
                }
                shards.insert(ShardId(next), ShardPlace::alone(durability, broker));
            }
        }
        self.check_memberships(broker, &enrol.memberships)?;
        self.check_room(&shards, broker)?;
        let all = shards.iter().map(|(shard, place)| (*shard, place.durability)).collect();
        let mut changed = self.take_memberships(broker, &enrol.memberships);
        changed.extend(self.take_shards(shards, place));
        Ok((Outcome::Enrolled(all), changed))
    }

    /// The broker's shards, when enrolling it so would change nothing.
    pub(crate) fn enrolled_as(&self, enrol: &EnrolBroker) -> Option<Vec<(ShardId, Durability)>> {
        let broker = enrol.broker;
        let known = self.brokers.get(&broker)?;
        let BrokerAddress { host, port, .. } = &known.address;
        let is_same =
            (host, *port, known.disk, known.live) == (&enrol.host, enrol.port, enrol.disk, true);
        let is_open = |(shard, durability): &(ShardId, Durability)| {
            let known = self.shards.get(shard);
            known == Some(&ShardPlace::alone(*durability, broker))
                || known.is_some_and(|known| is_grown(known, broker, *durability))
        };
        let own = self.alone_on(broker);
        let own: Vec<_> = own.map(|(shard, place)| (shard, place.durability)).collect();
        let has_enough = LEVELS.iter().all(|level| {
            let have = own.iter().filter(|(_, durability)| durability == level).count();
            have >= enrol.shards_wanted as usize
        });
        let is_known = |claim: &MembershipClaim| self.knows_members(claim);
        let has_claims = enrol.shards.iter().all(is_open) && enrol.memberships.iter().all(is_known);
        (is_same && has_enough && has_claims).then_some(own)
    }

    /// A broker is live, or is not.
    pub(super) fn mark_broker(&mut self, mark: &MarkBroker) -> (Outcome, Vec<PartKey>) {
        match self.brokers.get_mut(&mark.broker) {
            Some(broker) if broker.live != mark.live => {
                broker.live = mark.live;
                (Outcome::Done, vec![PartKey::Broker(mark.broker)])
            }
            _ => (Outcome::Done, Vec::new()),
        }
    }

    /// The shards a broker says it has, if nobody else has them.
    fn claims(
        &self,
        broker: BrokerId,
        claimed: &[(ShardId, Durability)],
        place: &BrokerPlace,
    ) -> Result<BTreeMap<ShardId, ShardPlace>, RegistryError> {
        let host = &place.address.host;
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            let reason = format!("a host has 1 to {HOST_BYTES_MAX} bytes");
            return Err(RegistryError::InvalidSettings { reason });
        }
        let mut shards = BTreeMap::new();
        for (shard, durability) in claimed {
            let place = ShardPlace::alone(*durability, broker);
            let known = self.shards.get(shard).or(shards.get(shard)).unwrap_or(&place);
            if is_grown(known, broker, *durability) {
                continue; // it has not heard yet that others have it, too
            }
            let is_own = known.broker == broker && !known.is_replicated();
            if !is_own || known.durability != *durability {
                return Err(taken(*shard, known));
            }
            shards.insert(*shard, place);
        }
        self.check_room(&shards, broker)?;
        Ok(shards)
    }

    /// The shards that a broker has alone.
    fn alone_on(&self, broker: BrokerId) -> impl Iterator<Item = (ShardId, &ShardPlace)> {
        let is_own = move |place: &ShardPlace| place.broker == broker && !place.is_replicated();
        let own = self.shards.iter().filter(move |(_, place)| is_own(place));
        own.map(|(shard, place)| (*shard, place))
    }

    fn check_room(
        &self,
        shards: &BTreeMap<ShardId, ShardPlace>,
        broker: BrokerId,
    ) -> Result<(), RegistryError> {
        let new_shards = shards.keys().filter(|shard| !self.shards.contains_key(shard)).count();
        let new_brokers = usize::from(!self.brokers.contains_key(&broker));
        let too_many = self.shards.len() + new_shards > SHARDS_MAX
            || self.brokers.len() + new_brokers > BROKERS_MAX;
        if too_many { Err(RegistryError::TooManyBrokers) } else { Ok(()) }
    }

    fn take_shards(
        &mut self,
        shards: BTreeMap<ShardId, ShardPlace>,
        broker: BrokerPlace,
    ) -> Vec<PartKey> {
        let mut changed = Vec::new();
        for (shard, place) in shards {
            self.load.entry(shard).or_insert(0);
            if self.shards.get(&shard) != Some(&place) {
                self.shards.insert(shard, place);
                changed.push(PartKey::Shard(shard));
            }
        }
        let id = broker.address.id;
        if self.brokers.get(&id) != Some(&broker) {
            self.brokers.insert(id, broker);
            changed.push(PartKey::Broker(id));
        }
        changed
    }
}

/// Whether a shard that a broker had alone, as it says, has become one of several that it is a member of.
fn is_grown(known: &ShardPlace, broker: BrokerId, durability: Durability) -> bool {
    known.is_replicated() && known.is_on(broker) && known.durability == durability
}

/// What is told to one who claims a shard that is another one's.
pub(super) fn taken(shard: ShardId, known: &ShardPlace) -> RegistryError {
    let ShardPlace { broker, durability, .. } = *known;
    RegistryError::ShardTaken { shard, broker, durability }
}
