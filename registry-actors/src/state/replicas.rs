//! Shards of several members: made when the first topic of their class is, and who leads them. Pure.

use grus_protocol::ids::{BrokerId, ShardId, Term, TopicId};

use super::brokers::taken;
use super::{Outcome, SHARDS_MAX, State};
use crate::command::{LeadShards, MembershipClaim};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{ShardClass, ShardPlace};

/// Most members of a shard.
pub const REPLICAS_MAX: u32 = 7;

/// Most elections of a shard that the registry may not have heard of.
const TERM_STEP_MAX: u64 = 1 << 32;

impl State {
    /// Makes the shards of a class that are missing: for each live broker one in whose list of
    /// members it stands first, the brokers behind it in the ring of ids after it. `topic` is the one
    /// for which they are made: its id, which was drawn, tells their groups from any others.
    ///
    /// # Errors
    /// When there are fewer live brokers than members, or too many shards; nothing is changed then.
    pub(super) fn make_replicas(
        &mut self,
        class: ShardClass,
        topic: TopicId,
    ) -> Result<Vec<PartKey>, RegistryError> {
        if class.replicas == 1 {
            return Ok(Vec::new());
        }
        let live = self.brokers.iter().filter(|(_, broker)| broker.live);
        let live: Vec<BrokerId> = live.map(|(id, _)| *id).collect();
        let wanted = class.replicas as usize;
        if live.len() < wanted {
            let reason = format!("{wanted} replicas, and {} brokers are there", live.len());
            return Err(RegistryError::InvalidSettings { reason });
        }
        let has_its_own = |first: &BrokerId| {
            let of_class = |place: &&ShardPlace| place.open && place.class() == class;
            self.shards.values().filter(of_class).any(|place| place.members[0] == *first)
        };
        let without: Vec<usize> = (0..live.len()).filter(|at| !has_its_own(&live[*at])).collect();
        if self.shards.len() + without.len() > SHARDS_MAX {
            return Err(RegistryError::TooManyBrokers);
        }
        let (mut next, mut made) = (0, Vec::new());
        for first in without {
            let members: Vec<_> =
                (0..wanted).map(|step| live[(first + step) % live.len()]).collect();
            while self.shards.contains_key(&ShardId(next)) {
                next += 1;
            }
            let place = ShardPlace {
                durability: class.durability,
                broker: members[0],
                open: true,
                members,
                group: topic.0,
                term: Term(0),
            };
            self.shards.insert(ShardId(next), place);
            self.load.insert(ShardId(next), 0);
            made.push(PartKey::Shard(ShardId(next)));
        }
        Ok(made)
    }

    /// Whether a broker may lead as it says it does: terms grow by elections, so that one far above
    /// what is known is none, and would keep every later leader out of the routes.
    ///
    /// # Errors
    /// [`RegistryError::InvalidSettings`].
    pub(crate) fn check_lead(&self, lead: &LeadShards) -> Result<(), RegistryError> {
        for (shard, term) in &lead.shards {
            let known = self.shards.get(shard).map_or(0, |place| place.term.0);
            if term.0.saturating_sub(known) > TERM_STEP_MAX {
                let reason = format!("term {} of shard {shard} is far above {known}", term.0);
                return Err(RegistryError::InvalidSettings { reason });
            }
        }
        Ok(())
    }

    /// Whether that changes anything.
    pub(crate) fn is_news(&self, lead: &LeadShards) -> bool {
        lead.shards.iter().any(|(shard, term)| {
            let place = self.shards.get(shard);
            place.is_some_and(|place| place.members.contains(&lead.broker) && *term > place.term)
        })
    }

    /// A broker leads shards.
    pub(super) fn lead_shards(&mut self, lead: &LeadShards) -> (Outcome, Vec<PartKey>) {
        let mut changed = Vec::new();
        for (shard, term) in &lead.shards {
            let Some(place) = self.shards.get_mut(shard) else { continue };
            if place.members.contains(&lead.broker) && *term > place.term {
                (place.broker, place.term) = (lead.broker, *term);
                changed.push(PartKey::Shard(*shard));
            }
        }
        (Outcome::Done, changed)
    }

    /// Whether a broker may be a member as it says it is: of shards that are not known, as after the
    /// registry has lost its data, or of those that are known so.
    pub(super) fn check_memberships(
        &self,
        broker: BrokerId,
        claims: &[MembershipClaim],
    ) -> Result<(), RegistryError> {
        for claim in claims {
            let MembershipClaim { shard, durability, members, group } = claim;
            let makes_sense = members.contains(&broker)
                && *group != 0
                && (2..=REPLICAS_MAX as usize).contains(&members.len());
            if !makes_sense {
                let reason = format!("shard {shard} has no such members");
                return Err(RegistryError::InvalidSettings { reason });
            }
            let known = self.shards.get(shard);
            let is_so = |known: &ShardPlace| {
                (&known.members, known.group, known.durability) == (members, *group, *durability)
            };
            if let Some(known) = known.filter(|known| !is_so(known)) {
                return Err(taken(*shard, known));
            }
        }
        Ok(())
    }

    /// Takes those of them that are not known.
    pub(super) fn take_memberships(
        &mut self,
        broker: BrokerId,
        claims: &[MembershipClaim],
    ) -> Vec<PartKey> {
        let mut changed = Vec::new();
        for MembershipClaim { shard, durability, members, group } in claims {
            if self.shards.contains_key(shard) {
                continue;
            }
            let alone = ShardPlace::alone(*durability, broker);
            let place = ShardPlace { members: members.clone(), group: *group, ..alone };
            self.shards.insert(*shard, place);
            self.load.entry(*shard).or_insert(0);
            changed.push(PartKey::Shard(*shard));
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use grus_protocol::ids::{BrokerAddress, Durability, TimestampMs};
    use grus_protocol::message::TopicSettings;
    use grus_protocol::names::TopicName;

    use super::*;
    use crate::command::{Command, CreateTopic, EnrolBroker, MarkBroker, StoredSettings};
    use crate::state::Answer;

    /// A registry with these brokers, each with one shard of each durability alone.
    fn registry(brokers: std::ops::RangeInclusive<u64>) -> State {
        let mut state = State::default();
        for broker in brokers {
            let enrolled = enrol(&mut state, broker, Vec::new());
            assert!(enrolled.is_ok());
        }
        state
    }

    fn apply(state: &mut State, command: Command) -> Answer {
        state.apply(TimestampMs(1), command, &mut BTreeSet::new())
    }

    fn enrol(state: &mut State, broker: u64, memberships: Vec<MembershipClaim>) -> Answer {
        let enrol = EnrolBroker {
            broker: BrokerId(broker),
            disk: broker,
            host: "h".into(),
            port: 1,
            shards: Vec::new(),
            shards_wanted: 1,
            memberships,
        };
        apply(state, Command::EnrolBroker(enrol))
    }

    fn create(state: &mut State, id: u64, queues: u32, replicas: u32) -> Answer {
        let settings = TopicSettings { queues, replicas, ..TopicSettings::default() };
        let name = TopicName::try_from(&*format!("t{id}")).unwrap();
        let settings = StoredSettings::from(&settings);
        apply(state, Command::CreateTopic(CreateTopic { name, id: TopicId(id), settings }))
    }

    fn members(state: &State) -> Vec<Vec<u64>> {
        let replicated = state.shards.values().filter(|place| place.is_replicated());
        replicated.map(|place| place.members.iter().map(|member| member.0).collect()).collect()
    }

    fn shards_of_topic(state: &State, id: u64) -> BTreeSet<ShardId> {
        let topic = &state.topics[&state.names[&TopicId(id)]];
        topic.queues.iter().filter_map(|spans| spans.last()).map(|span| span.shard).collect()
    }

    #[test]
    fn each_broker_stands_first_in_one_list_and_queues_are_spread_over_them() {
        let mut state = registry(1..=4);
        create(&mut state, 50, 8, 3).unwrap();
        assert_eq!(members(&state), [[1, 2, 3], [2, 3, 4], [3, 4, 1], [4, 1, 2]]);
        let shards = shards_of_topic(&state, 50);
        assert_eq!(shards.len(), 4);
        assert!(shards.iter().all(|shard| state.shards[shard].group == 50));
        create(&mut state, 51, 4, 3).unwrap();
        assert_eq!((members(&state).len(), shards_of_topic(&state, 51)), (4, shards), "made once");
        create(&mut state, 52, 4, 1).unwrap();
        let alone = |shard: &ShardId| !state.shards[shard].is_replicated();
        assert!(shards_of_topic(&state, 52).iter().all(alone), "of one replica as ever");
    }

    #[test]
    fn more_replicas_than_brokers_are_refused_and_nothing_is_made() {
        let mut state = registry(1..=3);
        let dead = MarkBroker { broker: BrokerId(2), live: false };
        apply(&mut state, Command::MarkBroker(dead)).unwrap();
        let before = state.clone();
        let refused = create(&mut state, 50, 4, 3).unwrap_err();
        assert!(matches!(refused, RegistryError::InvalidSettings { .. }), "{refused}");
        for replicas in [0, REPLICAS_MAX + 1] {
            assert!(create(&mut state, 50, 4, replicas).is_err());
        }
        assert_eq!(state, before);
    }

    #[test]
    fn who_leads_in_the_later_term_leads_and_only_a_member_can() {
        let mut state = registry(1..=4);
        create(&mut state, 50, 1, 3).unwrap();
        let shard = *shards_of_topic(&state, 50).first().unwrap();
        let table = state.routing();
        assert_eq!(table.leader_of(shard), None, "nobody was heard of");
        let mut lead = |broker: u64, term: u64| {
            let shards = vec![(shard, Term(term)), (ShardId(0), Term(9)), (ShardId(99), Term(9))];
            let before = state.version;
            let lead = LeadShards { broker: BrokerId(broker), shards };
            apply(&mut state, Command::LeadShards(lead)).unwrap();
            (state.routing().leader_of(shard).map(|at| at.id.0), state.version > before)
        };
        assert_eq!(lead(2, 5), (Some(2), true));
        assert_eq!(lead(2, 5), (Some(2), false), "what is known is no change");
        assert_eq!(lead(3, 4), (Some(2), false), "an earlier term");
        assert_eq!(lead(4, 6), (Some(2), false), "no member");
        assert_eq!(lead(1, 6), (Some(1), true));
        let check = |term| {
            let shards = vec![(shard, Term(term))];
            state.check_lead(&LeadShards { broker: BrokerId(1), shards })
        };
        let far = check(u64::MAX).unwrap_err();
        assert!(far.to_string().contains("far above 6"), "{far}");
        check(7 + 1_000_000).unwrap();
        let alone = &state.shards[&ShardId(0)];
        assert!(alone.term == Term(0) && !alone.is_replicated());
    }

    #[test]
    fn a_registry_without_its_data_takes_the_members_word_and_gives_their_numbers_to_nobody() {
        let mut state = State::default();
        let claim = |members: &[u64]| MembershipClaim {
            shard: ShardId(0),
            durability: Durability::Persisted,
            members: members.iter().copied().map(BrokerId).collect(),
            group: 50,
        };
        enrol(&mut state, 2, vec![claim(&[1, 2, 3])]).unwrap();
        assert_eq!(members(&state), [[1, 2, 3]]);
        let own = state.routing().shards_of(BrokerId(2));
        assert!(own.len() == 2 && own.iter().all(|(shard, _)| *shard != ShardId(0)));
        enrol(&mut state, 3, vec![claim(&[1, 2, 3])]).unwrap();
        let other = enrol(&mut state, 1, vec![claim(&[1, 2, 4])]).unwrap_err();
        assert!(matches!(other, RegistryError::ShardTaken { .. }), "{other}");
        let stranger = enrol(&mut state, 4, vec![claim(&[1, 2, 3])]).unwrap_err();
        assert!(matches!(stranger, RegistryError::InvalidSettings { .. }), "{stranger}");
        let address = |id| BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 };
        assert_eq!(state.brokers[&BrokerId(2)].address, address(2));
        assert_eq!(state.brokers.len(), 2, "who was refused is not there");
    }
}
