//! Starting a member: what it begins as, and what it must not be taken for.

use grus_consensus::{ProposeError, Timings};
use grus_log::RealDisk;
use grus_mailbox::Inbox;
use grus_protocol::ids::{BrokerId, Term};
use grus_registry::ShardPlace;

use super::Running;
use crate::begun::{Begun, BegunError};
use crate::member::{Member, Settled};
use crate::network::Network;
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
}

/// Whether a group is known to have had other members than this one since this one began, so that a log
/// which knows of none is an old copy. Where no note says that this one has begun at all, the term of a
/// leader is enough: whoever leads has noted it, so that leader was another one, or this one before an
/// older folder was put in the place of its own.
pub(super) fn has_others(place: &ShardPlace, own: BrokerId, is_noted: bool) -> bool {
    let is_led = place.term != Term(0);
    place.members.iter().any(|member| *member != own) || (is_led && !is_noted)
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
    settled: Inbox<Settled>,
) -> Result<Running, ShardStartError> {
    let Begins { begun, network, own, place } = begins;
    let (shard, group) = (settings.shard, place.group);
    let is_noted = aside(begun.clone(), Begun::is_noted).await?;
    // Who joins a group that is there founds nothing.
    let founders = place.members.iter().filter(|_| place.is_founder(own));
    let membership = Membership {
        founders: founders.map(|member| (member.0, String::new())).collect(),
        has_others: has_others(&place, own, is_noted),
        has_begun: is_noted,
        peers: network.clone(),
        timings: Timings::default(),
    };
    settings.log.was_written = is_noted || membership.founders.is_empty();
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
    let ear = Member::start(&places.core, shard, member.group, settled);
    Ok(Running { shard: member.shard, ear, group })
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
    use grus_protocol::ids::{Durability, ShardId};

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
