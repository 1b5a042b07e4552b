//! Shards of several members: made when the first topic of their class is, and who leads them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::{BrokerId, ShardId, Term, TopicId};

use super::brokers::taken;
use super::{Applied, Outcome, SHARDS_MAX, State};
use crate::command::{ChangeReplicas, LeadShards, MembershipClaim, ToldMembers};
use crate::error::RegistryError;
use crate::part::PartKey;
use crate::routing::{ShardClass, ShardPlace};

/// Most members of a shard.
pub const REPLICAS_MAX: u32 = 7;
/// Most replicas of a topic for which nobody named a number, where nothing else was said.
pub const TOPIC_REPLICAS_DEFAULT: u32 = 3;

/// Most elections of a shard that the registry may not have heard of.
const TERM_STEP_MAX: u64 = 1 << 32;
/// Most entries between two lists of members.
const INDEX_STEP_MAX: u64 = 1 << 40;

impl State {
    /// How many replicas a topic gets for which nobody named a number: one on each broker that is there,
    /// and `most` where there are more of them. Asked before a command is written, never when it is
    /// applied: the command says how many.
    pub(crate) fn replicas_by_default(&self, most: u32) -> u32 {
        u32::try_from(self.live_brokers().count()).unwrap_or(most).min(most).max(1)
    }

    /// The brokers on which new replicas are placed, those that are drained among them.
    pub(super) fn live_brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.brokers.iter().filter(|(_, broker)| broker.live).map(|(id, _)| *id)
    }

    /// Those that are known and not there.
    pub(crate) fn gone_brokers(&self) -> impl Iterator<Item = BrokerId> {
        self.brokers.iter().filter(|(_, broker)| !broker.live).map(|(id, _)| *id)
    }

    /// Makes the shards of a class that are missing: for each live broker that is not drained one in whose list of
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
        let (ring, firsts) = self.ring(class.replicas as usize);
        if ring.len() < class.replicas as usize {
            let (wanted, live) = (class.replicas, ring.len());
            return Err(RegistryError::TooFewBrokers { wanted, live });
        }
        self.make_in_ring(class, topic, &ring, firsts)
    }

    /// The same for the shards that groups are coordinated on. Where fewer brokers are live than members
    /// are wanted, others that are known have the rest of the places, as groups are for ever where they
    /// are first placed, also those that are joined while a broker starts again; those that are left out do not.
    ///
    /// # Errors
    /// When those that are live would be no majority, or too many shards; nothing is changed then.
    pub(super) fn make_homes(
        &mut self,
        class: ShardClass,
        topic: TopicId,
        left_out: &[BrokerId],
    ) -> Result<Vec<PartKey>, RegistryError> {
        let wanted = class.replicas as usize;
        let (mut ring, firsts) = self.ring(wanted);
        let live = self.live_brokers().count();
        let gone = self.gone_brokers().filter(|broker| !left_out.contains(broker));
        ring.extend(gone.take(wanted.saturating_sub(ring.len())));
        if ring.len() < wanted || live * 2 <= wanted {
            return Err(RegistryError::TooFewBrokers { wanted: class.replicas, live });
        }
        self.make_in_ring(class, topic, &ring, firsts)
    }

    /// Makes those of which one of the first `firsts` of a ring of brokers is the first member.
    fn make_in_ring(
        &mut self,
        class: ShardClass,
        topic: TopicId,
        ring: &[BrokerId],
        firsts: usize,
    ) -> Result<Vec<PartKey>, RegistryError> {
        let wanted = class.replicas as usize;
        let has_its_own = |first: &BrokerId| {
            let of_class = |place: &&ShardPlace| place.open && place.class() == class;
            self.shards.values().filter(of_class).any(|place| place.members[0] == *first)
        };
        let without: Vec<usize> = (0..firsts).filter(|at| !has_its_own(&ring[*at])).collect();
        if self.shards.len() + without.len() > SHARDS_MAX {
            return Err(RegistryError::TooManyBrokers);
        }
        let (mut next, mut made) = (self.shards_from, Vec::new());
        for first in without {
            let members: Vec<_> =
                (0..wanted).map(|step| ring[(first + step) % ring.len()]).collect();
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
                wanted: Vec::new(),
                members_at: 0,
                replicas: class.replicas,
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
        for told in &lead.members {
            let known = self.shards.get(&told.shard).map_or(0, |place| place.members_at);
            if told.at.saturating_sub(known) > INDEX_STEP_MAX {
                let (at, shard) = (told.at, told.shard);
                let reason = format!("index {at} of shard {shard} is far above {known}");
                return Err(RegistryError::InvalidSettings { reason });
            }
        }
        Ok(())
    }

    /// What a broker says without the shards of which it tells an older list of members than the one that is
    /// known: who leads has every list that was committed, so that one of before others came leads nobody,
    /// whatever its term is. Asked before anything is written: what is applied must not depend on the build.
    pub(crate) fn without_outgrown(&self, mut lead: LeadShards) -> LeadShards {
        let is_outgrown = |told: &ToldMembers| {
            self.shards.get(&told.shard).is_some_and(|known| {
                told.at.max(1) < known.members_at && !is_same(&told.members, &known.members)
            })
        };
        let outgrown: BTreeSet<ShardId> =
            lead.members.iter().filter(|told| is_outgrown(told)).map(|told| told.shard).collect();
        lead.shards.retain(|(shard, _)| !outgrown.contains(shard));
        lead.members.retain(|told| !outgrown.contains(&told.shard));
        lead
    }

    /// Whether that changes anything.
    pub(crate) fn is_news(&self, lead: &LeadShards) -> bool {
        !self.led_anew(lead).is_empty()
    }

    /// A broker leads shards.
    pub(super) fn lead_shards(&mut self, lead: &LeadShards) -> (Outcome, Vec<PartKey>) {
        let changed = self.led_anew(lead);
        let keys = changed.keys().map(|shard| PartKey::Shard(*shard)).collect();
        self.shards.extend(changed);
        (Outcome::Done, keys)
    }

    /// Those of its shards that are other ones after what it says.
    fn led_anew(&self, lead: &LeadShards) -> BTreeMap<ShardId, ShardPlace> {
        let mut changed = BTreeMap::new();
        for (shard, term) in &lead.shards {
            let Some(known) = self.shards.get(shard).filter(|known| known.is_replicated()) else {
                continue;
            };
            let told = lead.members.iter().find(|told| told.shard == *shard);
            let told = told.filter(|told| makes_sense(&told.members));
            let is_told = told.is_some_and(|told| told.members.contains(&lead.broker));
            if *term < known.term || !(known.is_on(lead.broker) || is_told) {
                continue;
            }
            let mut place = known.clone();
            if *term > known.term {
                (place.broker, place.term) = (lead.broker, *term);
            }
            if let Some(told) = told.filter(|told| told.at.max(1) >= place.members_at) {
                let is_there = is_same(&told.members, &place.wanted);
                if told.at > place.members_at {
                    // In the order that was wanted: who stands first is who began with it.
                    let known = [&place.wanted, &place.members];
                    let list = known.into_iter().find(|list| is_same(list, &told.members));
                    let list = list.unwrap_or(&told.members).clone();
                    place.members = list;
                    place.members_at = told.at;
                }
                if is_there {
                    place.wanted = Vec::new();
                }
            }
            if place != *known {
                changed.insert(*shard, place);
            }
        }
        changed
    }

    /// Shards are to have other members.
    ///
    /// # Errors
    /// When that cannot be of one of them; nothing is changed then.
    pub(super) fn change_replicas(&mut self, change: &ChangeReplicas) -> Applied {
        let refused = |reason: String| Err(RegistryError::InvalidSettings { reason });
        let mut shards: BTreeSet<ShardId> = change.shards.iter().copied().collect();
        if let Some(name) = &change.topic {
            let topic = self.topics.get(name).ok_or(RegistryError::UnknownTopic)?;
            shards.extend(topic.queues.iter().flatten().map(|span| span.shard));
        }
        if let Some(add) = change.add
            && !self.brokers.get(&add).is_some_and(|broker| broker.live)
        {
            return refused(format!("broker {add} is not there"));
        }
        if let Some(add) = change.add.filter(|add| self.drained.contains(add)) {
            return refused(format!("broker {add} is drained: undo that first"));
        }
        let mut changed = BTreeMap::new();
        for shard in shards {
            let Some(known) = self.shards.get(&shard) else {
                return refused(format!("there is no shard {shard}"));
            };
            if !known.is_replicated() {
                let broker = known.broker;
                return refused(format!(
                    "broker {broker} has shard {shard} alone: let it grow first"
                ));
            }
            let base = if known.wanted.is_empty() { &known.members } else { &known.wanted };
            let wanted = changed_list(base, change.add, change.remove);
            if is_same(&wanted, base) {
                continue;
            }
            if !makes_sense(&wanted) || wanted.len() < 2 {
                let count = wanted.len();
                return refused(format!(
                    "shard {shard} would have {count} members, not 2 to {REPLICAS_MAX}"
                ));
            }
            changed.insert(shard, ShardPlace { wanted, ..known.clone() });
        }
        let all: Vec<ShardId> = changed.keys().copied().collect();
        self.shards.extend(changed);
        let keys = all.iter().map(|shard| PartKey::Shard(*shard)).collect();
        Ok((Outcome::Changing(all), keys))
    }

    /// Whether a broker may be a member as it says it is: of shards that are not known, as after the
    /// registry has lost its data, or of those that are known so.
    pub(super) fn check_memberships(
        &self,
        broker: BrokerId,
        claims: &[MembershipClaim],
    ) -> Result<(), RegistryError> {
        for claim in claims {
            let MembershipClaim { shard, durability, members, group, wanted, .. } = claim;
            let is_on = members.contains(&broker) || wanted.contains(&broker);
            let is_list = wanted.is_empty() || makes_sense(wanted);
            if !is_on || *group == 0 || !makes_sense(members) || !is_list {
                let reason = format!("shard {shard} has no such members");
                return Err(RegistryError::InvalidSettings { reason });
            }
            let known = self.shards.get(shard);
            // Its members may have changed since: of two lists the later one counts.
            let is_group = |known: &ShardPlace| match known.group {
                0 => members.contains(&known.broker), // it was that one's alone, before it grew
                known => known == *group,
            };
            let is_so = |known: &ShardPlace| is_group(known) && known.durability == *durability;
            if let Some(known) = known.filter(|known| !is_so(known)) {
                return Err(taken(*shard, known));
            }
        }
        Ok(())
    }

    /// Takes those of them that are not known, and later lists of those that are.
    pub(super) fn take_memberships(
        &mut self,
        broker: BrokerId,
        claims: &[MembershipClaim],
    ) -> Vec<PartKey> {
        let mut changed = Vec::new();
        for claim in claims {
            let MembershipClaim { shard, durability, members, group, wanted, members_at } = claim;
            if self.knows_members(claim) {
                continue;
            }
            let alone = ShardPlace { group: *group, ..ShardPlace::alone(*durability, broker) };
            let known = self.shards.get(shard).filter(|known| known.group == *group);
            let known = known.cloned().unwrap_or(alone);
            // The first one that claims it may know of it as it was before it grew.
            let told = members.len().max(wanted.len());
            let replicas = known.replicas.max(u32::try_from(told).unwrap_or(u32::MAX));
            let (members, wanted) = (members.clone(), wanted.clone());
            // Who claims a group has begun: nobody founds it any more.
            let members_at = (*members_at).max(1);
            let place = ShardPlace { members, wanted, members_at, replicas, ..known };
            self.shards.insert(*shard, place);
            self.load.entry(*shard).or_insert(0);
            changed.push(PartKey::Shard(*shard));
        }
        changed
    }

    /// Whether what is known of a shard's members is as new as that.
    pub(super) fn knows_members(&self, claim: &MembershipClaim) -> bool {
        let known = self.shards.get(&claim.shard).filter(|known| known.group == claim.group);
        let Some(known) = known else { return false };
        // Once a leader has spoken it is known whether anything is wanted: who has an old wish has missed
        // that it was fulfilled, or taken back.
        let is_wish = known.term == Term(0) && known.wanted.is_empty() && !claim.wanted.is_empty();
        let are_alike = known.members_at.max(1) == claim.members_at.max(1);
        if are_alike { !is_wish } else { known.members_at > claim.members_at }
    }
}

/// Whether these can be the members of a group: of one only while it grows.
fn makes_sense(members: &[BrokerId]) -> bool {
    let distinct: BTreeSet<_> = members.iter().collect();
    distinct.len() == members.len() && (1..=REPLICAS_MAX as usize).contains(&members.len())
}

fn is_same(one: &[BrokerId], other: &[BrokerId]) -> bool {
    let set = |list: &[BrokerId]| list.iter().copied().collect::<BTreeSet<_>>();
    set(one) == set(other)
}

/// A list with one broker more or less; or with one in place of another one, in its place, which
/// changes only a list that has the one and lacks the other: no list gets longer or shorter by it.
fn changed_list(
    base: &[BrokerId],
    add: Option<BrokerId>,
    remove: Option<BrokerId>,
) -> Vec<BrokerId> {
    let mut list = base.to_vec();
    let at = remove.and_then(|remove| list.iter().position(|id| *id == remove));
    match (add, at) {
        (Some(add), _) if base.contains(&add) => {}
        (Some(add), Some(at)) => list[at] = add,
        (Some(add), None) if remove.is_none() => list.push(add),
        (None, Some(at)) => drop(list.remove(at)),
        (_, None) => {}
    }
    list
}

#[cfg(test)]
mod tests;
