//! A member that runs on a log of before others came: told who the members are, it says so, and takes nobody in.

use std::collections::BTreeSet;
use std::time::Duration;

use grus_broker::member::{Aim, Member, Outgrown, Tells};
use grus_broker::shard::{Membership, ShardPlaces, ShardSettings, start_member};
use grus_consensus::{NoPeers, Timings};
use grus_log::SimDisk;
use grus_mailbox::{Place, outlet};
use grus_protocol::{BrokerId, Durability, ShardId};
use tokio::sync::watch;

use crate::support::{Door, DoorConfig};

const SHARD: ShardId = ShardId(3);
/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

#[actix::test]
async fn a_member_that_is_told_of_others_by_a_later_list_than_its_own_says_that_it_is_of_before() {
    let door = Door::open(DoorConfig::default()).await;
    let place = Place::here("here", &door.process);
    let places = ShardPlaces {
        core: place.clone(),
        flush: place.clone(),
        reader: place.clone(),
        finder: place.clone(),
    };
    let mut settings =
        ShardSettings::new(SHARD, BrokerId(1), "/data/3".into(), Durability::Persisted);
    settings.log.first_segment_bytes = 1 << 20;
    settings.log.segment_bytes = 1 << 20;
    let membership = Membership {
        founders: vec![(1, String::new())],
        has_others: false,
        has_begun: true,
        others: Vec::new(),
        peers: NoPeers,
        timings: Timings::default(),
    };
    let member = start_member(SimDisk::new(1), &places, settings, membership).await.unwrap();
    member.group.ready().await.unwrap();
    let own = member.group.members().index.unwrap();
    let ((settled, mut is_settled), (outgrown, mut is_outgrown)) = (outlet(4), outlet(4));
    let tells = Tells { settled, outgrown };
    let never = watch::channel(false).1;
    let ear = Member::start(&place, SHARD, member.group.clone(), tells, never);
    let aims = ear.inbox(4);
    let aim = |members: &[u64], wanted: &[u64], members_at| Aim {
        wanted: wanted.iter().copied().collect(),
        members: members.iter().copied().collect::<BTreeSet<u64>>(),
        members_at,
        first: None,
    };
    // What it is told by right while it is to grow: it tells who its members are, or goes on.
    for legal in [aim(&[1], &[], own + 5), aim(&[1, 2, 3], &[1], own), aim(&[1], &[1], own)] {
        aims.put(legal).await.unwrap();
    }
    let told = tokio::time::timeout(PATIENCE, is_settled.take()).await.unwrap();
    assert_eq!(told.unwrap().0.members, [BrokerId(1)]);
    assert!(is_outgrown.try_take().is_none());
    aims.put(aim(&[1, 2, 3], &[1, 2, 4], own + 1)).await.unwrap();
    let told = tokio::time::timeout(PATIENCE, is_outgrown.take()).await.unwrap();
    assert_eq!(told.unwrap().0, Outgrown { shard: SHARD });
    ear.stop().await;
    member.shard.stop().await;
    assert!(member.group.members().learners.is_empty(), "it took nobody in");
}
