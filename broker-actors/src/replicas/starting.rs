//! Starting a member: what it begins as, and what it must not be taken for.

use std::collections::BTreeSet;

use grus_consensus::{NodeId, ProposeError, Timings};
use grus_log::RealDisk;
use grus_mailbox::{Credit, Receive, Room};
use grus_protocol::ids::{BrokerId, ShardId, Term};
use grus_registry::{RoutingTable, ShardPlace};

use super::{Replicas, Running, SETTLED_MAX, Started};
use crate::begun::{Begun, BegunError};
use crate::drained::DrainedNow;
use crate::member::{Member, Outgrown, Tells};
use crate::network::Network;
use crate::refused_copy::CopyAt;
use crate::shard::{Membership, ShardPlaces, ShardSettings, ShardStartError, start_member};

/// What a member begins with.
pub(super) struct Begins {
    /// Where it is noted that it has begun.
    pub(super) begun: Begun,
    /// The way to the others.
    pub(super) network: Network,
    /// This broker.
    pub(super) own: BrokerId,
    /// What the routes say of the shard.
    pub(super) place: ShardPlace,
    /// Who may have come to its group unheard of.
    pub(super) others: Vec<NodeId>,
    /// Whether the broker is drained.
    pub(super) drained: DrainedNow,
}

/// How long a copy of before others came is not looked into again, in milliseconds, unless somebody changes its
/// folder or its note, or its members change: its whole log is read at each start.
pub(super) const COPY_REST_MS: u64 = 120_000;
/// Most brokers that are asked where nobody is named who was to come.
const ASKED_MAX: usize = 32;

/// Who may have come to a shard's group since these routes were told. Of the routes of before it grew, which name
/// nobody, any broker may have.
pub(super) fn others(table: &RoutingTable, place: &ShardPlace, own: BrokerId) -> Vec<NodeId> {
    let named: BTreeSet<BrokerId> = place.members.iter().chain(&place.wanted).copied().collect();
    let is_other = |broker: &&BrokerId| **broker != own;
    let mut others: Vec<NodeId> = named.iter().filter(is_other).map(|broker| broker.0).collect();
    if others.is_empty() {
        let known = table.brokers.keys().filter(is_other).take(ASKED_MAX);
        others.extend(known.map(|broker| broker.0));
    }
    others
}

/// Whether a group is known to have had other members than this one since this one began, so that a log
/// which knows of none is an old copy. Where no note says that this one has begun at all, the term of a
/// leader is enough: whoever leads has noted it, so that leader was another one, or this one before an
/// older folder was put in the place of its own.
pub(super) fn has_others(place: &ShardPlace, own: BrokerId, is_noted: bool) -> bool {
    let is_led = place.term != Term(0);
    place.members.iter().any(|member| *member != own) || (is_led && !is_noted)
}

/// Whether a member of a group has been there before, so that a log which is empty was lost: that is noted, or it
/// joins a group that is there, or the group has had a leader. A founder whose note was lost with its log cannot
/// be told from one that the first election did without: neither founds the group again, and neither votes
/// before it has what the others have.
fn has_been_there(place: &ShardPlace, own: BrokerId, is_noted: bool) -> bool {
    is_noted || !place.is_founder(own) || place.term != Term(0)
}

/// A log of before others came is to be moved away where there are others. Where none is named, it may be
/// the only one.
fn explained(
    error: ShardStartError,
    place: &ShardPlace,
    own: BrokerId,
    begun: &Begun,
) -> ShardStartError {
    match error {
        ShardStartError::Outgrown { .. } if place.members.iter().all(|member| *member == own) => {
            begun.missing().into()
        }
        other => other,
    }
}

/// Builds a member on its shard's arbiter. It neither speaks nor hears before it is noted durably that it
/// has begun. That is noted once the first entry of its log is on disk. One that joins a group that is
/// there begins as one that has lost its log: it votes for nobody before it has got it.
pub(super) async fn build(
    places: ShardPlaces,
    mut settings: ShardSettings,
    begins: Begins,
    tells: Tells,
) -> Result<Running, ShardStartError> {
    let Begins { begun, network, own, place, others, drained } = begins;
    let (shard, group) = (settings.shard, place.group);
    let is_noted = aside(begun.clone(), Begun::is_noted).await?;
    // Who joins a group that is there founds nothing.
    let founders = place.members.iter().filter(|_| place.is_founder(own));
    let membership = Membership {
        founders: founders.map(|member| (member.0, String::new())).collect(),
        has_others: has_others(&place, own, is_noted),
        has_begun: is_noted,
        others: if is_noted { others } else { Vec::new() },
        peers: network.clone(),
        timings: Timings::default(),
    };
    if is_noted {
        // One that the routes do not name is here to be judged by the others: its note stays as it is.
        if place.is_on(own) {
            aside(begun.clone(), Begun::note_again).await?;
        }
        network.open(); // the others may be asked before it elects itself
    }
    settings.log.was_written = has_been_there(&place, own, is_noted);
    let member = start_member(RealDisk, &places, settings, membership).await;
    let member = member.map_err(|error| explained(error, &place, own, &begun))?;
    if !is_noted {
        let noted = if member.group.is_founded().await {
            aside(begun, Begun::note).await
        } else {
            Err(ShardStartError::NotReady(ProposeError::Stopped))
        };
        if let Err(error) = noted {
            member.shard.stop().await;
            return Err(error);
        }
    }
    network.open();
    let ear = Member::start(&places.core, shard, member.group, tells, drained);
    Ok(Running { shard: member.shard, ear, group })
}

/// Whether that says that the folder is a copy of before others came: it stays one until somebody changes it, or
/// its members change.
const fn is_copy(why: &ShardStartError) -> bool {
    matches!(
        why,
        ShardStartError::Outgrown { .. } | ShardStartError::Begun(BegunError::Missing { .. })
    )
}

impl Started {
    /// What comes of starting a shard that is there.
    pub(super) async fn of(
        shard: ShardId,
        at: CopyAt,
        starting: impl Future<Output = Result<Running, ShardStartError>>,
    ) -> Self {
        let result = starting.await;
        let is_copy = result.as_ref().err().is_some_and(is_copy);
        let copy = if is_copy { at.folder_is().await } else { None };
        Self { shard, result: Some(result), copy }
    }
}

/// Whether it stands that a shard cannot be started here, as far as the routes say where it is: this broker is to
/// be a member of it, or the routes name it as this broker's alone, which was refused when the broker started, or
/// they do not know it yet.
pub(super) fn may_stand(place: Option<&ShardPlace>, own: BrokerId) -> bool {
    place.is_none_or(|place| place.is_on(own))
}

/// Whether the routes name other members of a shard than before: what could not be started may be by now.
pub(super) fn has_other_members(shard: ShardId, before: &RoutingTable, now: &RoutingTable) -> bool {
    let of = |table: &RoutingTable| {
        let place = table.shards.get(&shard)?;
        Some((place.group, place.members_at, place.members.clone(), place.wanted.clone()))
    };
    of(before) != of(now)
}

impl Replicas {
    /// Where members tell what.
    pub(super) fn told_by_members(room: &Room<'_, Self>) -> Tells {
        Tells { settled: room.inbox(SETTLED_MAX), outgrown: room.inbox(SETTLED_MAX) }
    }
}

impl Receive<Outgrown> for Replicas {
    fn receive(&mut self, Outgrown { shard }: Outgrown, _: Credit, room: &mut Room<'_, Self>) {
        let place = self.table.shards.get(&shard).filter(|place| place.is_on(self.parts.broker));
        let Some(place) = place.cloned().filter(|_| !self.is_stopping) else { return };
        let Some(running) = self.running.remove(&shard) else { return };
        tracing::error!(%shard, members = ?place.members, at = place.members_at,
            "it runs on a log of before others came: it is stopped");
        self.publish();
        self.starting.insert(shard);
        // How it is started says what it is a copy of.
        let others = others(&self.table, &place, self.parts.broker);
        let starting = self.begin(shard, &place, others, Self::told_by_members(room));
        let at = self.copy_at(shard);
        room.spawn_into(async move {
            running.stop().await;
            Started::of(shard, at, starting).await
        });
    }
}

/// Does something with a file on a thread that may block.
pub(super) async fn aside<T: Send + 'static>(
    begun: Begun,
    work: impl FnOnce(&Begun) -> Result<T, BegunError> + Send + 'static,
) -> Result<T, ShardStartError> {
    match begun.aside(work).await {
        Some(done) => Ok(done?),
        None => Err(ShardStartError::Gone),
    }
}

#[cfg(test)]
mod tests {
    use grus_protocol::ids::{BrokerAddress, Durability};
    use grus_registry::BrokerPlace;

    use super::*;

    #[test]
    fn where_nobody_else_is_named_no_one_is_told_to_move_the_folder_away() {
        let (own, begun) = (BrokerId(1), Begun::new("members".as_ref(), ShardId(4), 40));
        let told = |members: &[u64]| {
            let members = members.iter().copied().map(BrokerId).collect();
            let alone = ShardPlace::alone(Durability::Persisted, own);
            let place = ShardPlace { members, group: 40, term: Term(7), ..alone };
            let outgrown = ShardStartError::Outgrown { last: 9, folder: "shards/4".into() };
            explained(outgrown, &place, own, &begun).to_string()
        };
        assert!(told(&[1, 2, 3]).contains("move this one away"));
        let alone = told(&[1]);
        assert!(alone.contains("do not move it away") && alone.contains("write 40"), "{alone}");
    }

    #[test]
    fn a_copy_is_not_looked_into_again_before_its_members_change_and_what_may_pass_is() {
        let copy = ShardStartError::Outgrown { last: 9, folder: "shards/4".into() };
        let begun = Begun::new("members".as_ref(), ShardId(4), 40);
        assert!(is_copy(&copy) && is_copy(&begun.missing().into()));
        assert!(!is_copy(&ShardStartError::Gone));
        let table = |members: &[u64], term| {
            let members = members.iter().copied().map(BrokerId).collect();
            let alone = ShardPlace::alone(Durability::Persisted, BrokerId(1));
            let place = ShardPlace { members, group: 40, term: Term(term), ..alone };
            RoutingTable { shards: [(ShardId(4), place)].into(), ..RoutingTable::default() }
        };
        let is_news = |before, now| has_other_members(ShardId(4), &before, &now);
        assert!(!is_news(table(&[1, 2], 3), table(&[1, 2], 4)), "another one leads");
        assert!(is_news(table(&[1, 2], 3), table(&[1], 3)));
        assert!(is_news(RoutingTable::default(), table(&[1], 3)));
        assert!(is_news(table(&[1], 3), RoutingTable::default()));
    }

    #[test]
    fn what_was_refused_is_told_until_the_routes_say_that_it_is_others() {
        let own = BrokerId(1);
        let alone = |broker| ShardPlace::alone(Durability::Persisted, BrokerId(broker));
        let of = |members: &[u64]| ShardPlace {
            members: members.iter().copied().map(BrokerId).collect(),
            group: 40,
            ..alone(members[0])
        };
        assert!(may_stand(None, own) && may_stand(Some(&alone(1)), own));
        assert!(may_stand(Some(&of(&[2, 1])), own), "as a member");
        assert!(!may_stand(Some(&alone(2)), own) && !may_stand(Some(&of(&[2, 3])), own));
    }

    #[test]
    fn whoever_may_have_come_is_asked_and_any_broker_where_nobody_was_to_come() {
        let own = BrokerId(1);
        let mut table = RoutingTable::default();
        for id in [1, 2, 5].map(BrokerId) {
            let address = BrokerAddress { id, host: "h".into(), port: 1 };
            table.brokers.insert(id, BrokerPlace { address, live: false, disk: 0 });
        }
        let alone = ShardPlace::alone(Durability::Persisted, own);
        let kept = ShardPlace { members: vec![own], group: 40, ..alone };
        let wished = ShardPlace { wanted: [1, 2, 3].map(BrokerId).to_vec(), ..kept.clone() };
        assert_eq!(others(&table, &wished, own), [2, 3]);
        assert_eq!(others(&table, &kept, own), [2, 5], "the wish is not known here");
    }

    #[test]
    fn a_founder_is_new_only_where_nothing_is_noted_and_nobody_has_led() {
        let own = BrokerId(1);
        let place = |members: &[u64], members_at, term| ShardPlace {
            members: members.iter().copied().map(BrokerId).collect(),
            group: 40,
            term: Term(term),
            members_at,
            ..ShardPlace::alone(Durability::Persisted, own)
        };
        for (place, is_noted, expected, why) in [
            (place(&[1, 2, 3], 0, 0), false, false, "its group begins"),
            (place(&[1, 2, 3], 0, 0), true, true, "it is noted"),
            (place(&[1, 2, 3], 0, 1), false, true, "one has led, perhaps by its vote"),
            (place(&[1, 2, 3], 9, 0), false, true, "the members have changed since"),
            (place(&[2, 3], 0, 0), false, true, "it is to join"),
            (place(&[1], 0, 0), false, true, "it was alone in it"),
        ] {
            assert_eq!(has_been_there(&place, own, is_noted), expected, "{why}");
        }
    }

    #[test]
    fn a_log_of_one_is_of_before_where_others_are_named_or_one_led_without_having_begun_here() {
        let own = BrokerId(1);
        let place = |members: &[u64], term| ShardPlace {
            members: members.iter().copied().map(BrokerId).collect(),
            wanted: [1, 2, 3].map(BrokerId).to_vec(),
            group: 40,
            term: Term(term),
            ..ShardPlace::alone(Durability::Persisted, own)
        };
        for (members, term, is_noted, expected, why) in [
            (&[1][..], 0, false, false, "that it grows was only just asked for"),
            (&[1], 0, true, false, "it has turned, and nobody has come yet"),
            (&[1], 7, true, false, "it leads, and nobody has come yet"),
            (&[1], 7, false, true, "it led, and has forgotten that it began"),
            (&[1, 2, 3], 7, false, true, "the others have come"),
            (&[1, 2, 3], 7, true, true, "only its log was put back"),
            (&[2, 3], 7, true, true, "they have let go of it"),
        ] {
            assert_eq!(has_others(&place(members, term), own, is_noted), expected, "{why}");
        }
    }
}
