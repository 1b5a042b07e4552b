//! Strategies against their definition: complete, disjoint, allowed; sticky as even as can be, and no
//! move too many.

use std::collections::{BTreeMap, BTreeSet};

use grus_protocol::ids::{MemberId, QueueId, QueueKey, TopicId};
use grus_protocol::message::GroupStrategy;
use grus_protocol::names::TopicName;
use proptest::prelude::*;

use super::super::field::{Field, FieldTopic};
use super::{Target, divide};

use GroupStrategy::{Average, ConsistentHash, RoundRobin, Sticky};

fn field(topics: &[(u32, BTreeSet<u64>)]) -> Field {
    let topic = |(id, (queues, members)): (u64, &(u32, BTreeSet<u64>))| FieldTopic {
        name: TopicName::try_from(&*format!("t{id}")).unwrap(),
        id: TopicId(id),
        queues: (0..*queues).map(QueueId).collect(),
        members: members.iter().copied().map(MemberId).collect(),
    };
    Field::from_topics((1..).zip(topics).map(topic).collect())
}

fn number_of(queue: QueueKey) -> usize {
    usize::try_from(queue.topic.0).unwrap() + queue.queue.0 as usize
}

fn nobody(_: QueueKey) -> Option<MemberId> {
    None
}

fn check_whole(field: &Field, target: &Target) {
    let queues: Vec<_> = field.queues().collect();
    assert_eq!(target.keys().copied().collect::<Vec<_>>(), queues, "all queues, each once");
    for (queue, member) in target {
        let topic = field.topic(queue.topic).unwrap();
        assert!(topic.members.contains(member), "{queue} went to {member}, who does not want it");
    }
}

fn loads(target: &Target) -> BTreeMap<MemberId, usize> {
    let mut loads = BTreeMap::new();
    for member in target.values() {
        *loads.entry(*member).or_insert(0) += 1;
    }
    loads
}

fn counts(target: &Target, members: u64) -> Vec<usize> {
    let loads = loads(target);
    (1..=members).map(|member| loads.get(&MemberId(member)).copied().unwrap_or(0)).collect()
}

fn moves(before: &Target, after: &Target) -> usize {
    before.iter().filter(|(queue, owner)| after.get(queue).is_some_and(|now| now != *owner)).count()
}

fn all(members: u64) -> BTreeSet<u64> {
    (1..=members).collect()
}

#[test]
fn average_gives_runs_and_round_robin_goes_on_over_topics() {
    let seen = |target: &Target| target.values().map(|member| member.0).collect::<Vec<_>>();
    let one = field(&[(5, all(2))]);
    assert_eq!(seen(&divide(Average, &one, nobody)), [1, 1, 1, 2, 2]);
    assert_eq!(seen(&divide(RoundRobin, &one, nobody)), [1, 2, 1, 2, 1]);
    let many = field(&[(1, all(2)), (1, all(2)), (1, BTreeSet::from([2])), (1, all(2))]);
    assert_eq!(seen(&divide(Average, &many, nobody)), [1, 1, 2, 1]);
    assert_eq!(seen(&divide(RoundRobin, &many, nobody)), [1, 2, 2, 1]);
}

#[test]
fn a_newcomer_takes_its_share_and_no_more_moves() {
    let two = field(&[(6, all(2)), (6, all(2))]);
    let before = divide(Sticky, &two, nobody);
    assert_eq!(counts(&before, 2), [6, 6]);
    let three = field(&[(6, all(3)), (6, all(3))]);
    let after = divide(Sticky, &three, |queue| before.get(&queue).copied());
    assert_eq!((counts(&after, 3), moves(&before, &after)), (vec![4, 4, 4], 4));
    let left = field(&[(6, BTreeSet::from([1, 3])), (6, BTreeSet::from([1, 3]))]);
    let last = divide(Sticky, &left, |queue| after.get(&queue).copied());
    assert_eq!(counts(&last, 3), [6, 0, 6]);
    assert_eq!(moves(&after, &last), 4, "those of the one that left, and no others");
}

#[test]
fn queues_are_passed_on_by_way_of_others() {
    // 1 wants a alone; 2 wants a and b; 3 wants b. 1 can only pass a on to 2, who passes b on to 3.
    let field = field(&[(4, BTreeSet::from([1, 2])), (2, BTreeSet::from([2, 3]))]);
    let target = divide(Sticky, &field, |queue| {
        Some(MemberId(if queue.topic == TopicId(1) { 1 } else { 2 }))
    });
    assert_eq!(counts(&target, 3), [2, 2, 2]);
}

#[test]
fn a_ring_changes_the_arcs_of_neighbours_only() {
    let before = divide(ConsistentHash, &field(&[(1_000, all(10))]), nobody);
    let after = divide(ConsistentHash, &field(&[(1_000, all(11))]), nobody);
    for (queue, owner) in &after {
        assert!(*owner == MemberId(11) || before[queue] == *owner, "only the newcomer gains");
    }
    let gained = loads(&after)[&MemberId(11)];
    assert!((40..200).contains(&gained), "{gained} of 1000 queues, a fair share is 91");
}

/// All ways to divide the field, if they are few.
fn every_division(field: &Field) -> Vec<Target> {
    let mut all = vec![Target::new()];
    for queue in field.queues() {
        let members = &field.topic(queue.topic).unwrap().members;
        all = all
            .into_iter()
            .flat_map(|target| {
                members.iter().map(move |member| {
                    let mut target = target.clone();
                    target.insert(queue, *member);
                    target
                })
            })
            .collect();
    }
    all
}

/// How uneven: the loads from the greatest down.
fn unevenness(target: &Target) -> Vec<usize> {
    let mut loads: Vec<_> = loads(target).into_values().collect();
    loads.sort_unstable_by(|a, b| b.cmp(a));
    loads
}

prop_compose! {
    fn any_field(queues_max: u32, topics_max: usize, members: u64)(
        topics in prop::collection::vec(
            (1..=queues_max, prop::collection::btree_set(1..=members, 1..=4)), 1..=topics_max,
        ),
    ) -> Vec<(u32, BTreeSet<u64>)> {
        topics
    }
}

proptest! {
    #[test]
    fn every_queue_goes_to_exactly_one_that_wants_it(
        topics in any_field(20, 8, 9),
        owners in prop::collection::vec(0..12_u64, 20),
    ) {
        let field = field(&topics);
        let owner = |queue: QueueKey| {
            Some(MemberId(owners[number_of(queue) % owners.len()]))
        };
        for strategy in [Sticky, Average, RoundRobin, ConsistentHash] {
            let target = divide(strategy, &field, owner);
            check_whole(&field, &target);
            prop_assert_eq!(&target, &divide(strategy, &field, owner), "the same twice");
        }
    }

    #[test]
    fn sticky_is_as_even_as_subscriptions_allow(
        topics in any_field(3, 3, 4),
        owners in prop::collection::vec(1..5_u64, 9),
    ) {
        let field = field(&topics);
        prop_assume!(field.len() <= 6);
        let owner = |queue: QueueKey| Some(MemberId(owners[number_of(queue) % 9]));
        let target = divide(Sticky, &field, owner);
        let best = every_division(&field).iter().map(unevenness).min().unwrap();
        prop_assert_eq!(unevenness(&target), best);
    }

    #[test]
    fn sticky_moves_least_where_all_want_the_same(
        queues in 1..8_u32,
        members in 1..4_u64,
        owners in prop::collection::vec(0..6_u64, 8),
    ) {
        let field = field(&[(queues, all(members))]);
        let before: Target = field
            .queues()
            .map(|queue| (queue, MemberId(owners[queue.queue.0 as usize])))
            .filter(|(_, owner)| (1..=members).contains(&owner.0))
            .collect();
        let after = divide(Sticky, &field, |queue| before.get(&queue).copied());
        let every = every_division(&field);
        let best = every.iter().map(unevenness).min().unwrap();
        let even = every.iter().filter(|target| unevenness(target) == best);
        let least = even.map(|target| moves(&before, target)).min().unwrap();
        prop_assert_eq!(moves(&before, &after), least);
    }

    #[test]
    fn sticky_moves_nothing_that_is_even_already(topics in any_field(12, 6, 8)) {
        let field = field(&topics);
        let first = divide(Sticky, &field, nobody);
        let second = divide(Sticky, &field, |queue| first.get(&queue).copied());
        prop_assert_eq!(first, second);
    }

    #[test]
    fn sticky_takes_from_those_that_stay_only_what_evens_out(
        topics in any_field(10, 4, 6),
        leaves in 1..7_u64,
    ) {
        let before = divide(Sticky, &field(&topics), nobody);
        let mut rest = topics.clone();
        for (_, members) in &mut rest {
            members.remove(&leaves);
        }
        rest.retain(|(_, members)| !members.is_empty());
        prop_assume!(rest.len() == topics.len());
        let uniform = rest.iter().all(|(_, members)| *members == rest[0].1);
        let after = divide(Sticky, &field(&rest), |queue| before.get(&queue).copied());
        let orphaned = before.values().filter(|owner| owner.0 == leaves).count();
        if uniform && topics.iter().all(|(_, members)| *members == topics[0].1) {
            prop_assert_eq!(moves(&before, &after), orphaned);
        }
        check_whole(&field(&rest), &after);
    }
}
