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
/// Numbers that brokers say they have heard of count as given up to this one, so that no broker can have none left:
/// the number of a shard has 16 bits where it is part of a producer's identity, and the two highest of these say
/// something else there.
pub const SHARDS_BELOW_MAX: u32 = 6_384;
const _: () = assert!(SHARDS_BELOW_MAX as usize + SHARDS_MAX <= 1 << 14);
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
            return Err(RegistryError::BrokerIdTaken { broker, disk: known });
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
        let shards_from = self.numbers_from(enrol.shards_below);
        let mut next = shards_from;
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
        if self.shards_from != shards_from {
            self.shards_from = shards_from;
            changed.push(PartKey::Meta);
        }
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
        let has_numbers = self.numbers_from(enrol.shards_below) == self.shards_from;
        (is_same && has_enough && has_claims && has_numbers).then_some(own)
    }

    /// From where on new shards are numbered, where a broker has heard of numbers below that one. The same as
    /// before where all of them are known.
    fn numbers_from(&self, shards_below: u32) -> u32 {
        let below = shards_below.min(SHARDS_BELOW_MAX);
        let is_unknown = |number| !self.shards.contains_key(&ShardId(number));
        let is_news = (self.shards_from..below).any(is_unknown);
        if is_news { below } else { self.shards_from }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{TimestampMs, TopicId};
    use grus_protocol::message::TopicSettings;
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::command::{Command, CreateTopic, StoredSettings};
    use crate::state::Answer;

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(TimestampMs(1), command, &mut BTreeSet::new())
    }

    fn enrolment(broker: u64, shards: &[u32], shards_below: u32) -> EnrolBroker {
        let persisted = |shard: &u32| (ShardId(*shard), Durability::Persisted);
        EnrolBroker {
            broker: BrokerId(broker),
            disk: broker,
            host: "h".into(),
            port: 1,
            shards: shards.iter().map(persisted).collect(),
            shards_wanted: 1,
            memberships: Vec::new(),
            shards_below,
        }
    }

    /// The numbers of the shards that the broker has then.
    fn enrol(state: &mut State, enrol: EnrolBroker) -> Vec<u32> {
        match apply(state, Command::EnrolBroker(enrol)).unwrap() {
            Outcome::Enrolled(shards) => shards.into_iter().map(|(shard, _)| shard.0).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_registry_without_its_data_gives_no_number_that_a_broker_has_heard_of() {
        let mut state = State::default();
        // Of 0 to 6 it has nothing but notes, perhaps that they are others'.
        let first = enrolment(1, &[3], 7);
        assert_eq!(enrol(&mut state, first.clone()), [3, 7]);
        assert_eq!(state.enrolled_as(&first).map(|own| own.len()), Some(2), "nothing is written");
        assert_eq!(enrol(&mut state, enrolment(2, &[], 0)), [8, 9], "nor does another broker");
        let (name, id) = (TopicName::try_from("t").unwrap(), TopicId(50));
        let settings = TopicSettings { replicas: 2, ..TopicSettings::default() };
        let create = CreateTopic { name, id, settings: StoredSettings::from(&settings) };
        apply(&mut state, Command::CreateTopic(create)).unwrap();
        let all: Vec<u32> = state.shards.keys().map(|shard| shard.0).collect();
        assert_eq!(all, [3, 7, 8, 9, 10, 11], "nor do several");
        let keys: Vec<_> = crate::part::keys(&state).collect();
        let part = |key: &PartKey| (key.encode(), crate::part::value(&state, *key).unwrap());
        let parts: Vec<_> = keys.iter().map(part).collect();
        let parts = parts.iter().map(|(key, value)| (&key[..], &value[..]));
        assert_eq!(crate::part::restore(parts).unwrap(), state, "it is kept");
        // One that says more than can be leaves numbers for others.
        let last = enrol(&mut state, enrolment(3, &[], u32::MAX));
        assert_eq!(last, [SHARDS_BELOW_MAX, SHARDS_BELOW_MAX + 1]);
    }

    #[test]
    fn numbers_that_are_known_write_nothing() {
        let mut state = State::default();
        assert_eq!(enrol(&mut state, enrolment(1, &[], 0)), [0, 1]);
        let again = enrolment(1, &[0], 2);
        assert_eq!(state.enrolled_as(&again).map(|own| own.len()), Some(2));
        assert_eq!(enrol(&mut state, enrolment(2, &[], 2)), [2, 3]);
        assert_eq!(state.shards_from, 0);
        assert!(state.enrolled_as(&enrolment(1, &[0], 9)).is_none(), "it knows more");
    }
}
