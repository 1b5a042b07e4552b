use grus_protocol::ids::{BrokerAddress, Durability, TimestampMs};
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;

use super::*;
use crate::command::{
    AlterTopic, Command, CreateTopic, EnrolBroker, MarkBroker, PlaceDeadLetters, StoredSettings,
    ToldMembers,
};
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
        shards_below: 0,
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
fn where_no_number_is_named_there_is_one_replica_on_each_broker_up_to_the_most() {
    for (brokers, replicas) in [(0, 1), (1, 1), (2, 2), (3, 3), (5, 3)] {
        let mut state = registry(1..=brokers);
        assert_eq!(state.replicas_by_default(3), replicas, "of {brokers}");
        assert_eq!(state.replicas_by_default(1), 1, "as it may be told");
        let created = create(&mut state, 50, 1, replicas);
        assert_eq!(created.is_ok(), brokers > 0, "what is chosen can be placed");
    }
    let mut state = registry(1..=5);
    assert_eq!(state.replicas_by_default(REPLICAS_MAX), 5);
    for (gone, replicas) in [(1, 3), (2, 3), (3, 2)] {
        let dead = MarkBroker { broker: BrokerId(gone), live: false };
        apply(&mut state, Command::MarkBroker(dead)).unwrap();
        assert_eq!(state.replicas_by_default(3), replicas, "without {gone}");
    }
}

#[test]
fn more_replicas_than_brokers_are_refused_and_nothing_is_made() {
    let mut state = registry(1..=3);
    let dead = MarkBroker { broker: BrokerId(2), live: false };
    apply(&mut state, Command::MarkBroker(dead)).unwrap();
    let before = state.clone();
    let refused = create(&mut state, 50, 4, 3).unwrap_err();
    assert_eq!(refused, RegistryError::TooFewBrokers { wanted: 3, live: 2 });
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
        let lead = LeadShards { broker: BrokerId(broker), shards, members: Vec::new() };
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
        state.check_lead(&LeadShards { broker: BrokerId(1), shards, members: Vec::new() })
    };
    let far = check(u64::MAX).unwrap_err();
    assert!(far.to_string().contains("far above 6"), "{far}");
    check(7 + 1_000_000).unwrap();
    let alone = &state.shards[&ShardId(0)];
    assert!(alone.term == Term(0) && !alone.is_replicated());
}

/// What a leader tells of a shard: its members as of that entry.
fn tell(state: &mut State, shard: ShardId, broker: u64, members: &[u64], at: u64) {
    let members = members.iter().copied().map(BrokerId).collect();
    let lead = LeadShards {
        broker: BrokerId(broker),
        shards: vec![(shard, Term(5))],
        members: vec![ToldMembers { shard, members, at }],
    };
    apply(state, Command::LeadShards(lead)).unwrap();
}

#[test]
fn a_copy_of_before_others_came_is_not_taken_for_the_leader_whatever_its_term_is() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 1, 3).unwrap();
    let shard = *shards_of_topic(&state, 50).first().unwrap();
    tell(&mut state, shard, 2, &[1, 2, 3], 30);
    let mut lead = |broker: u64, term: u64, told: Option<(&[u64], u64)>| {
        let told = told.map(|(members, at)| {
            let members = members.iter().copied().map(BrokerId).collect();
            ToldMembers { shard, members, at }
        });
        let shards = vec![(shard, Term(term))];
        let lead =
            LeadShards { broker: BrokerId(broker), shards, members: told.into_iter().collect() };
        let lead = state.without_outgrown(lead);
        apply(&mut state, Command::LeadShards(lead)).unwrap();
        (state.shards[&shard].broker.0, state.shards[&shard].term.0)
    };
    assert_eq!(lead(1, 9, Some((&[1], 29))), (2, 5), "an older list of itself alone");
    assert_eq!(lead(1, 9, Some((&[1, 2, 4], 29))), (2, 5), "an older list of others");
    assert_eq!(lead(3, 6, Some((&[3, 2, 1], 29))), (3, 6), "the same members are no other group");
    assert_eq!(lead(1, 7, None), (1, 7), "who tells no list is asked for none");
    assert_eq!(lead(2, 8, Some((&[2], 31))), (2, 8), "the others were let go of");
    assert_eq!(lists(&state, shard), (vec![2], vec![], 31));
}

fn change(state: &mut State, shards: &[ShardId], add: u64, remove: u64) -> Answer {
    let broker = |id: u64| (id != 0).then_some(BrokerId(id));
    let (add, remove) = (broker(add), broker(remove));
    let change = ChangeReplicas { shards: shards.to_vec(), topic: None, add, remove };
    apply(state, Command::ChangeReplicas(change))
}

fn lists(state: &State, shard: ShardId) -> (Vec<u64>, Vec<u64>, u64) {
    let place = &state.shards[&shard];
    let numbers = |list: &[BrokerId]| list.iter().map(|id| id.0).collect();
    (numbers(&place.members), numbers(&place.wanted), place.members_at)
}

#[test]
fn members_change_once_their_leader_says_so_and_the_later_list_counts() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 1, 3).unwrap();
    let shard = *shards_of_topic(&state, 50).first().unwrap();
    assert_eq!(lists(&state, shard), (vec![1, 2, 3], vec![], 0));
    assert_eq!(change(&mut state, &[shard], 4, 2), Ok(Outcome::Changing(vec![shard])));
    assert_eq!(lists(&state, shard), (vec![1, 2, 3], vec![1, 4, 3], 0), "in its place");
    assert_eq!(change(&mut state, &[shard], 4, 2), Ok(Outcome::Changing(vec![])), "again");
    assert!(state.shards[&shard].is_founder(BrokerId(2)));
    assert!(state.routing().memberships_of(BrokerId(4)).any(|(id, _)| id == shard));
    // The new one may lead before the registry has heard of it.
    tell(&mut state, shard, 4, &[1, 3, 4], 30);
    assert_eq!(lists(&state, shard), (vec![1, 4, 3], vec![], 30));
    assert_eq!(state.shards[&shard].broker, BrokerId(4));
    assert!(!state.shards[&shard].is_founder(BrokerId(1)), "nobody founds it any more");
    tell(&mut state, shard, 1, &[1, 2, 3], 29);
    tell(&mut state, shard, 2, &[1, 3, 4], 31);
    assert_eq!(lists(&state, shard).0, [1, 4, 3], "an earlier list, and no member");
    // Back to what was: ends when a leader says that it is so, though no list is later.
    change(&mut state, &[shard], 2, 0).unwrap();
    change(&mut state, &[shard], 0, 2).unwrap();
    assert_eq!(lists(&state, shard), (vec![1, 4, 3], vec![1, 4, 3], 30));
    tell(&mut state, shard, 4, &[1, 3, 4], 30);
    assert_eq!(lists(&state, shard), (vec![1, 4, 3], vec![], 30));
}

#[test]
fn one_in_place_of_another_makes_no_list_longer_or_shorter() {
    let mut state = registry(1..=5);
    create(&mut state, 50, 5, 3).unwrap();
    let shards: Vec<ShardId> = shards_of_topic(&state, 50).into_iter().collect();
    let changed = change(&mut state, &shards, 4, 3).unwrap();
    let wanted = |state: &State| -> Vec<Vec<u64>> {
        shards.iter().map(|shard| lists(state, *shard).1).collect()
    };
    // Those that have 4 already keep 3: another one is to stand in there.
    assert_eq!(members(&state), [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 1], [5, 1, 2]]);
    assert_eq!(wanted(&state), [vec![1, 2, 4], vec![], vec![], vec![], vec![]]);
    assert_eq!(changed, Outcome::Changing(vec![shards[0]]));
    assert_eq!(change(&mut state, &shards, 4, 3), Ok(Outcome::Changing(vec![])), "again");
    change(&mut state, &shards, 1, 3).unwrap();
    assert_eq!(wanted(&state), [vec![1, 2, 4], vec![2, 1, 4], vec![1, 4, 5], vec![], vec![]]);
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 4, 2).unwrap();
    let shards: Vec<ShardId> = shards_of_topic(&state, 50).into_iter().collect();
    let dead = MarkBroker { broker: BrokerId(4), live: false };
    apply(&mut state, Command::MarkBroker(dead)).unwrap();
    let before = state.clone();
    for (of, add, remove, why) in [
        (&shards[..1], 4, 0, "broker 4 is not there"),
        (&shards[..1], 9, 0, "broker 9 is not there"),
        (&[ShardId(0)], 2, 0, "has shard 0 alone"),
        (&[shards[0], ShardId(99)], 3, 0, "there is no shard 99"),
        (&shards[..1], 0, 1, "would have 1 members"),
    ] {
        let refused = change(&mut state, of, add, remove).unwrap_err();
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let name = TopicName::try_from("nobody").unwrap();
    let of_nobody = ChangeReplicas { shards: vec![], topic: Some(name), add: None, remove: None };
    let refused = apply(&mut state, Command::ChangeReplicas(of_nobody)).unwrap_err();
    assert!(matches!(refused, RegistryError::UnknownTopic));
    assert_eq!(state, before);
    let name = TopicName::try_from("t50").unwrap();
    let of_topic =
        ChangeReplicas { shards: vec![], topic: Some(name), add: Some(BrokerId(3)), remove: None };
    let changed = apply(&mut state, Command::ChangeReplicas(of_topic)).unwrap();
    let without: Vec<ShardId> = shards
        .iter()
        .copied()
        .filter(|shard| !before.shards[shard].members.contains(&BrokerId(3)))
        .collect();
    assert_eq!(changed, Outcome::Changing(without));
}

#[test]
fn a_member_that_comes_back_with_an_old_list_is_let_in_and_a_later_one_is_taken() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 1, 3).unwrap();
    let shard = *shards_of_topic(&state, 50).first().unwrap();
    change(&mut state, &[shard], 4, 2).unwrap();
    tell(&mut state, shard, 1, &[1, 3, 4], 30);
    let claim = |members: [u64; 3], members_at| MembershipClaim {
        shard,
        durability: Durability::Persisted,
        members: members.map(BrokerId).to_vec(),
        group: 50,
        wanted: Vec::new(),
        members_at,
    };
    enrol(&mut state, 2, vec![claim([1, 2, 3], 0)]).unwrap();
    assert_eq!(lists(&state, shard), (vec![1, 4, 3], vec![], 30));
    enrol(&mut state, 2, vec![claim([2, 3, 4], 40)]).unwrap();
    assert_eq!(lists(&state, shard), (vec![2, 3, 4], vec![], 40), "restored from an old copy");
}

#[test]
fn a_group_that_is_claimed_is_founded_by_nobody_and_what_is_wanted_of_it_is_not_lost() {
    let mut state = State::default();
    let claim = |wanted: &[u64]| MembershipClaim {
        shard: ShardId(0),
        durability: Durability::Persisted,
        members: [1, 2, 3].map(BrokerId).to_vec(),
        group: 50,
        wanted: wanted.iter().copied().map(BrokerId).collect(),
        members_at: 0,
    };
    enrol(&mut state, 2, vec![claim(&[])]).unwrap();
    let place = &state.shards[&ShardId(0)];
    assert!([1, 2, 3].into_iter().all(|id| !place.is_founder(BrokerId(id))));
    enrol(&mut state, 1, vec![claim(&[1, 2, 4])]).unwrap();
    enrol(&mut state, 3, vec![claim(&[])]).unwrap();
    assert_eq!(lists(&state, ShardId(0)), (vec![1, 2, 3], vec![1, 2, 4], 1));
    let told = |at| LeadShards {
        broker: BrokerId(1),
        shards: vec![(ShardId(0), Term(5))],
        members: vec![ToldMembers { shard: ShardId(0), members: vec![], at }],
    };
    assert!(state.check_lead(&told(u64::MAX)).is_err() && state.check_lead(&told(9)).is_ok());
}

#[test]
fn a_wish_that_was_taken_back_does_not_come_again_with_one_who_missed_it() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 1, 3).unwrap();
    let shard = *shards_of_topic(&state, 50).first().unwrap();
    tell(&mut state, shard, 1, &[1, 2, 3], 5);
    change(&mut state, &[shard], 4, 3).unwrap();
    change(&mut state, &[shard], 3, 4).unwrap();
    tell(&mut state, shard, 1, &[1, 2, 3], 5);
    let claim = MembershipClaim {
        shard,
        durability: Durability::Persisted,
        members: [1, 2, 3].map(BrokerId).to_vec(),
        group: 50,
        wanted: [1, 2, 4].map(BrokerId).to_vec(),
        members_at: 5,
    };
    enrol(&mut state, 2, vec![claim]).unwrap();
    assert_eq!(lists(&state, shard), (vec![1, 2, 3], vec![], 5));
}

#[test]
fn a_registry_without_its_data_takes_the_members_word_and_gives_their_numbers_to_nobody() {
    let mut state = State::default();
    let claim = |members: &[u64]| MembershipClaim {
        shard: ShardId(0),
        durability: Durability::Persisted,
        members: members.iter().copied().map(BrokerId).collect(),
        group: 50,
        wanted: Vec::new(),
        members_at: 0,
    };
    enrol(&mut state, 2, vec![claim(&[1, 2, 3])]).unwrap();
    assert_eq!(members(&state), [[1, 2, 3]]);
    let own = state.routing().shards_of(BrokerId(2));
    assert!(own.len() == 2 && own.iter().all(|(shard, _)| *shard != ShardId(0)));
    enrol(&mut state, 3, vec![claim(&[1, 2, 3])]).unwrap();
    let other = MembershipClaim { group: 51, ..claim(&[1, 2, 3]) };
    let other = enrol(&mut state, 1, vec![other]).unwrap_err();
    assert!(matches!(other, RegistryError::ShardTaken { .. }), "{other}");
    let stranger = enrol(&mut state, 4, vec![claim(&[1, 2, 3])]).unwrap_err();
    assert!(matches!(stranger, RegistryError::InvalidSettings { .. }), "{stranger}");
    let address = |id| BrokerAddress { id: BrokerId(id), host: "h".into(), port: 1 };
    assert_eq!(state.brokers[&BrokerId(2)].address, address(2));
    assert_eq!(state.brokers.len(), 2, "who was refused is not there");
}

fn alter(state: &mut State, id: u64, queues: u32) -> Answer {
    let name = TopicName::try_from(&*format!("t{id}")).unwrap();
    let alter = AlterTopic {
        name,
        id: TopicId(id),
        queues: Some(queues),
        retention_ms: None,
        retention_bytes: None,
        dedup_window_ms: None,
        expired: None,
        retention_messages: None,
        when_full: None,
    };
    apply(state, Command::AlterTopic(alter))
}

#[test]
fn a_topic_whose_shards_got_more_members_takes_more_queues_on_them() {
    let mut state = registry(1..=4);
    create(&mut state, 50, 4, 3).unwrap();
    let shards: Vec<ShardId> = shards_of_topic(&state, 50).into_iter().collect();
    for shard in &shards {
        change(&mut state, &[*shard], 4, 0).unwrap();
        let (_, wanted, _) = lists(&state, *shard);
        if !wanted.is_empty() {
            tell(&mut state, *shard, 1, &wanted, 30);
        }
    }
    assert!(shards.iter().all(|shard| lists(&state, *shard).0.contains(&4)));
    let restored = {
        let keys: Vec<_> = crate::part::keys(&state).collect();
        let parts: Vec<_> = keys
            .iter()
            .map(|key| (key.encode(), crate::part::value(&state, *key).unwrap()))
            .collect();
        crate::part::restore(parts.iter().map(|(key, value)| (&key[..], &value[..]))).unwrap()
    };
    assert_eq!(restored, state, "also where it is kept");
    let before = state.shards.len();
    alter(&mut state, 50, 8).unwrap();
    create(&mut state, 51, 4, 3).unwrap();
    assert_eq!(state.shards.len(), before, "no other shards are made for it");
    assert_eq!(shards_of_topic(&state, 51).len(), 4);
}

/// A group of that id is first joined, and its broker has named `home`; where its members are kept.
fn join(state: &mut State, id: u64, home: u32, home_replicas: u32) -> ShardPlace {
    let (name, home) = (TopicName::system("DLQ", &format!("g{id}")).unwrap(), Some(ShardId(home)));
    let id = TopicId(id);
    let (shards, left_out) = (Vec::new(), Vec::new());
    let place = PlaceDeadLetters { name, id, home, shards, home_replicas, left_out };
    apply(state, Command::PlaceDeadLetters(place)).unwrap();
    let shards = shards_of_topic(state, id.0);
    state.shards[shards.first().unwrap()].clone()
}

fn mark(state: &mut State, broker: u64, live: bool) {
    apply(state, Command::MarkBroker(MarkBroker { broker: BrokerId(broker), live })).unwrap();
}

#[test]
fn a_group_of_topics_that_are_kept_in_memory_has_its_members_on_the_disks_of_several_brokers() {
    let mut state = registry(1..=3);
    let settings = TopicSettings {
        replicas: 3,
        durability: Durability::Replicated,
        ..TopicSettings::default()
    };
    let (name, settings) = (TopicName::try_from("early").unwrap(), StoredSettings::from(&settings));
    let create = CreateTopic { name, id: TopicId(50), settings };
    apply(&mut state, Command::CreateTopic(create)).unwrap();
    let of_class = |state: &State| {
        let class = ShardClass { durability: Durability::Persisted, replicas: 3 };
        state.shards.values().filter(|place| place.class() == class).count()
    };
    assert_eq!((of_class(&state), state.home_replicas(1)), (0, 3));
    // Shard 0 is the first broker's alone.
    let place = join(&mut state, 60, 0, 3);
    assert_eq!((place.durability, place.members.len()), (Durability::Persisted, 3));
    assert_eq!(of_class(&state), 3, "one for each broker, as of topics");
    let firsts: BTreeSet<_> = (61..66).map(|id| join(&mut state, id, 0, 3).members[0]).collect();
    assert_eq!((of_class(&state), firsts.len()), (3, 3), "groups are spread over them");
    // What is written is done, also by who would choose otherwise; and what was written before.
    assert_eq!(join(&mut state, 70, 0, 0).members_count(), 1);
    assert_eq!(join(&mut state, 60, 0, 0).members_count(), 3, "it stays where it is");
}

#[test]
fn as_many_brokers_keep_a_groups_members_as_keep_a_shard_or_a_topic_of_no_number() {
    let mut state = registry(1..=2);
    assert_eq!(state.home_replicas(3), 0, "two would both be needed");
    create(&mut state, 50, 1, 2).unwrap();
    assert_eq!(state.home_replicas(3), 2, "both are needed for the topic as well");
    for broker in 3..=5 {
        enrol(&mut state, broker, Vec::new()).unwrap();
    }
    assert_eq!((state.home_replicas(3), state.home_replicas(1)), (3, 2));
    create(&mut state, 51, 1, 5).unwrap();
    assert_eq!(state.home_replicas(3), 5);
}

#[test]
fn a_group_stays_at_its_home_where_the_others_have_let_members_go_as_well() {
    let mut state = registry(1..=3);
    create(&mut state, 50, 3, 3).unwrap();
    let of_several = |place: &&mut ShardPlace| place.is_replicated();
    for place in state.shards.values_mut().filter(of_several) {
        place.members.truncate(2); // one was let go, and the class is still of three
    }
    assert_eq!(state.home_replicas(1), 2);
    let homes = shards_of_topic(&state, 50);
    for (id, home) in (60..).zip(homes.iter().chain(&homes)) {
        assert_eq!(join(&mut state, id, home.0, 3).members_count(), 2);
        assert_eq!(shards_of_topic(&state, id), BTreeSet::from([*home]));
    }
}

#[test]
fn a_group_that_is_first_joined_while_a_broker_is_gone_has_a_place_there() {
    let mut state = registry(1..=3);
    create(&mut state, 50, 1, 1).unwrap();
    mark(&mut state, 2, false);
    let place = join(&mut state, 60, 0, 3);
    assert_eq!(place.members, [1, 3, 2].map(BrokerId), "it is known, and comes back");
    assert_eq!(members(&state), [[1, 3, 2], [3, 2, 1]]);
    mark(&mut state, 3, false);
    let before = state.shards.clone();
    assert_eq!(join(&mut state, 61, 0, 3).members_count(), 1, "nobody could elect a leader");
    assert_eq!(state.shards, before);
}
