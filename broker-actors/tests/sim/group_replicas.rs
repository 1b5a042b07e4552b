//! Three members of a shard whose leaders are killed and cut off while groups claim, settle, fail, give up
//! and join: every replica has the same state, digest by digest, and the newest claim holds whoever leads.

use std::future::Future;
use std::time::Duration;

use grus_broker::commands::groups::{Holding, ProgressKey, RetryTerms, Span};
use grus_broker::consumer_group::CoordinatorAsk;
use grus_broker::consumer_group::coordination::Joining;
use grus_broker::error::QueueError;
use grus_broker::shard::TopicConfig;
use grus_broker::topic_queue::{Answered, At, Failed, GivenUp, GroupAsk};
use grus_consensus::NodeId;
use grus_mailbox::Port;
use grus_mailbox::reply::port;
use grus_protocol::ids::{Generation, GroupId, MemberId, Offset};
use grus_protocol::message::{GroupOptions, GroupSubscription, MessageFilter};
use grus_protocol::names::GroupName;

use crate::later::{body_of, key, send};
use crate::world::{World, simulate_test, topic};

const QUEUE: u64 = 1;
const GROUP: GroupId = GroupId(900);
const ROUNDS: u64 = 8;
/// Messages of a round, of which one fails and one is given up. They fill a segment in two rounds.
const EACH: u64 = 40;
const BODY_BYTES: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(5);

fn topics() -> [TopicConfig; 2] {
    let name = GroupName::try_from("g").unwrap().dead_letters();
    [topic(QUEUE, 0), TopicConfig { name, ..topic(GROUP.0, 0) }]
}

/// What somebody has become who asks again until it is done.
async fn insist<T, F: Future<Output = Option<T>>>(mut ask: impl FnMut() -> F) -> T {
    for _ in 0..600 {
        if let Ok(Some(done)) = tokio::time::timeout(PATIENCE, ask()).await {
            return done;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not done in a minute");
}

/// Asks the queue where it is led; nothing while nobody leads, or when it was not done.
async fn ask<T>(
    world: &World,
    ask: impl FnOnce(Port<Result<T, QueueError>>) -> GroupAsk,
) -> Option<Result<T, QueueError>> {
    let queue = world.running(world.leader()?).handle.queue(key(QUEUE))?;
    let (reply, answer) = port();
    let _ = queue.group.put(ask(reply)).await; // stopped: the answer says so
    answer.await.ok()
}

fn holding(generation: u64) -> Holding {
    let place = ProgressKey { queue: key(QUEUE), group: GROUP };
    let (generation, member) = (Generation(generation), MemberId(generation));
    Holding { place, generation, member, round: 0 }
}

async fn claim(world: &World, generation: u64) -> Option<Result<u64, QueueError>> {
    let terms = RetryTerms { deliveries_max: 9, ladder_ms: vec![100_000] };
    let (holding, start) = (holding(generation), At::First);
    let taken = ask(world, |reply| GroupAsk::Claim { holding, start, terms, reply }).await?;
    Some(taken.map(|taken| taken.end_offset.0))
}

/// Of the messages from `first` on, one fails, one is given up, the others are done.
async fn settle(world: &World, generation: u64, first: u64) -> Option<()> {
    let reason = || "bad".to_owned();
    let answered = Answered {
        holding: holding(generation),
        acks: vec![Span { from: Offset(first + 2), to: Offset(first + EACH) }],
        failed: vec![Failed { offset: Offset(first), retry_after_ms: None, reason: reason() }],
        given_up: vec![GivenUp { offset: Offset(first + 1), reason: reason() }],
        hands_back: None,
    };
    ask(world, |reply| GroupAsk::Settle { answered, reply }).await?.ok().map(drop)
}

async fn join(world: &World, session: u64) -> Option<()> {
    let handle = world.running(world.leader()?).handle.group(GROUP)?;
    let topics = "*".parse().unwrap();
    let joining = Joining {
        session,
        client_id: format!("c{session}"),
        address: String::new(),
        instance: None,
        lane: None,
        subscriptions: vec![GroupSubscription { topics, filter: MessageFilter::All }],
        options: GroupOptions::default(),
        connection: session,
    };
    let (reply, answer) = port();
    let _ = handle.asks.try_put(CoordinatorAsk::Join { joining, reply }); // as above
    answer.await.ok()?.ok().map(drop)
}

/// Has the queues opened where they are led.
async fn open(world: &World) {
    insist(|| async { world.open_topics(world.leader()?, &topics()).await.then_some(()) }).await;
}

/// Waits until all have applied the same, and compares what they have made of it.
async fn compare(world: &World) -> u64 {
    for _ in 0..600 {
        let applied: Vec<_> =
            world.alive().map(|(_, running)| running.group.status().applied).collect();
        if applied.iter().all(|index| *index == applied[0]) {
            let digest = |(_, running): (NodeId, &crate::world::Running)| {
                running.ground.machine.borrow().state.digest()
            };
            let digests: Vec<u64> = world.alive().map(digest).collect();
            assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
            return digests.len() as u64;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the members never come to the same entry");
}

#[test]
fn replicas_have_the_same_groups_whoever_led_and_the_newest_claim_holds() {
    simulate_test(async {
        let mut world = World::of(&[1, 2, 3], 29);
        for node in 1..=3 {
            world.start(node).await.unwrap();
        }
        let mut led = std::collections::BTreeSet::new();
        for round in 1..=ROUNDS {
            let leader = world.wait_leader().await;
            led.insert(leader);
            open(&world).await;
            insist(|| join(&world, round)).await;
            for part in 0..4 {
                let first = ((round - 1) * EACH) + part * EACH / 4;
                let bodies: Vec<_> =
                    (first..first + EACH / 4).map(|n| body_of(n, BODY_BYTES)).collect();
                insist(|| async {
                    let queue = world.running(world.leader()?).handle.queue(key(QUEUE))?;
                    send(&queue, &bodies, &[]).await.await.ok()?.ok()
                })
                .await;
            }
            insist(|| async { claim(&world, round).await?.ok() }).await;
            // Its leader goes between claim and answers, or another member does.
            let victim = if round % 2 == 0 { 1 + round / 2 % 3 } else { leader };
            if round % 3 == 0 {
                world.cut_power(victim).await;
            } else {
                world.kill(victim).await;
            }
            open(&world).await;
            // Only a leader's word counts, that the queue is held by a later generation.
            let is_taken = insist(|| async {
                match claim(&world, round - 1).await? {
                    Ok(_) => Some(true),
                    Err(QueueError::NotHeld { .. }) => Some(false),
                    Err(_) => None,
                }
            });
            assert!(!is_taken.await, "round {round}: an older claim is taken by the next leader");
            insist(|| settle(&world, round, (round - 1) * EACH)).await;
            compare(&world).await;
            world.start(victim).await.unwrap();
        }
        world.wait_leader().await;
        assert_eq!(compare(&world).await, 3);
        assert!(led.len() > 1, "{led:?}");
        for (node, running) in world.alive() {
            let machine = running.ground.machine.borrow();
            let held = machine.state.progress(holding(1).place).expect("it was claimed");
            assert_eq!(held.numbers().generation, Generation(ROUNDS), "member {node}");
            assert_eq!(held.retries() as u64, ROUNDS, "member {node}: one of each round");
            assert_eq!(held.lag(Offset(0), Offset(ROUNDS * EACH)), ROUNDS, "member {node}");
            let letters = machine.state.queue(key(GROUP.0)).expect("it was opened");
            assert_eq!(letters.next_offset, Offset(ROUNDS), "member {node}: no letter twice");
            let group = machine.state.group(GROUP).expect("it was joined");
            assert!(group.head().generation >= Generation(ROUNDS), "member {node}");
        }
        for node in 1..=3 {
            world.kill(node).await;
        }
    });
}
