//! How long it takes to divide the queues of a group anew.
//!
//! ```text
//! cargo run --release -p grus-broker --example rebalance_speed [queues] [members] [topics]
//! ```
//!
//! By default 1,000 queues of 10 topics, 100 members. For each strategy: all queues free, one member
//! more, one less, and (sticky) members that subscribe to different topics.

#![allow(clippy::print_stdout, reason = "it is what it is for")]

use grus_broker::consumer_group::field::{Field, FieldTopic};
use grus_broker::consumer_group::strategy::{Target, divide};
use grus_mailbox::Clock;
use grus_protocol::ids::{MemberId, QueueId, TopicId};
use grus_protocol::message::GroupStrategy;
use grus_protocol::names::TopicName;

/// How often each is measured; the median and the longest are shown.
const ROUNDS: usize = 21;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (queues, members, topics) = (number(1_000), number(100), number(10));
    println!(
        "{queues} queues of {topics} topics, {members} members; median and longest of {ROUNDS}"
    );
    let of = |members: &[u64]| field(queues, topics, |_| members.to_vec());
    let all: Vec<u64> = (1..=members).collect();
    let more: Vec<u64> = (1..=members + 1).collect();
    for strategy in [
        GroupStrategy::Sticky,
        GroupStrategy::Average,
        GroupStrategy::RoundRobin,
        GroupStrategy::ConsistentHash,
    ] {
        let first = measure(&format!("{strategy}, all free"), strategy, &of(&all), &Target::new());
        measure(&format!("{strategy}, one more"), strategy, &of(&more), &first);
        measure(&format!("{strategy}, one less"), strategy, &of(&all[1..]), &first);
    }
    // Each topic is wanted by nine members of ten, each time others.
    let some = |topic: u64| -> Vec<u64> {
        (1..=members).filter(|member| !(member + topic).is_multiple_of(10)).collect()
    };
    let mixed = field(queues, topics, some);
    let first = measure("sticky, members differ", GroupStrategy::Sticky, &mixed, &Target::new());
    let fewer = field(queues, topics, |topic| some(topic).split_off(1));
    measure("sticky, members differ, one less", GroupStrategy::Sticky, &fewer, &first);
}

fn field(queues: u64, topics: u64, members: impl Fn(u64) -> Vec<u64>) -> Field {
    let topic = |id: u64| FieldTopic {
        name: TopicName::try_from(&*format!("topic-{id}")).expect("a valid name"),
        id: TopicId(id),
        queues: (0..u32::try_from(queues / topics).expect("few")).map(QueueId).collect(),
        members: members(id).into_iter().map(MemberId).collect(),
    };
    Field::from_topics((1..=topics).map(topic).collect())
}

fn measure(what: &str, strategy: GroupStrategy, field: &Field, before: &Target) -> Target {
    let clock = Clock::system();
    let mut took_us = Vec::new();
    let mut target = Target::new();
    for _ in 0..ROUNDS {
        let begun_ns = clock.monotonic_ns();
        target = divide(strategy, field, |queue| before.get(&queue).copied());
        took_us.push((clock.monotonic_ns() - begun_ns) / 1_000);
    }
    took_us.sort_unstable();
    let moved = before.iter().filter(|(queue, owner)| target.get(queue) != Some(owner)).count();
    let (median, longest) = (took_us[ROUNDS / 2], took_us[ROUNDS - 1]);
    println!("{what:36} {median:>8} us {longest:>8} us, {moved} queues change hands");
    target
}
