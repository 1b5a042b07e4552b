//! How many replicas a topic gets for which nobody named a number: chosen once, by the brokers that are there, and
//! written.

mod common;

use std::path::Path;

use common::{Bench, name};
use grus_log::{Log, LogConfig, RealDisk};
use grus_mailbox::reply;
use grus_protocol::ids::{BrokerAddress, BrokerId, Durability, TopicId};
use grus_protocol::message::{REPLICAS_UNNAMED, TopicKind, TopicSettings};
use grus_protocol::names::TopicName;
use grus_registry::{
    RegistryError, RegistryRequest, RegistrySettings, ShardPlace, TopicCreated, TopicRoutes,
};

/// A registry that gives at most so many.
async fn start(folder: &Path, topic_replicas: u32) -> Bench<RealDisk> {
    let settings = RegistrySettings { topic_replicas, ..RegistrySettings::new(folder) };
    Bench::start_on(settings, RealDisk).await.expect("it starts")
}

/// Brokers up to that number come, each with a shard of each durability of its own.
async fn come(bench: &Bench<RealDisk>, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let address = BrokerAddress { id: BrokerId(number), host: "h".into(), port: 1 };
        let enrolled = bench.ask(|reply| RegistryRequest::EnrolBroker {
            address,
            disk: number,
            shards: Vec::new(),
            shards_wanted: 1,
            memberships: Vec::new(),
            shards_below: 0,
            reply,
        });
        enrolled.await.expect("it is taken");
    }
}

async fn mark(bench: &Bench<RealDisk>, number: u64, live: bool) {
    let broker = BrokerId(number);
    bench
        .ask(|reply| RegistryRequest::MarkBroker { broker, live, reply })
        .await
        .expect("it is known");
}

fn asked(replicas: u32) -> TopicSettings {
    TopicSettings { queues: 6, replicas, ..TopicSettings::default() }
}

async fn make(
    bench: &Bench<RealDisk>,
    topic: &str,
    settings: TopicSettings,
) -> Result<TopicCreated, RegistryError> {
    let (name, if_not_exists) = (name(topic), false);
    bench.ask(|reply| RegistryRequest::CreateTopic { name, settings, if_not_exists, reply }).await
}

/// What a topic says it has, and on how many brokers each of its queues really is.
async fn made(
    bench: &mut Bench<RealDisk>,
    topic: &str,
    settings: TopicSettings,
) -> (u32, Vec<u32>) {
    let made = make(bench, topic, settings).await.expect("it is made").topic;
    let table = loop {
        let table = bench.told(0).await; // the newest at that moment, which may be of before
        if table.topics.contains_key(&made.name) {
            break table;
        }
    };
    let shards = &table.shards;
    let last = made.queues.iter().filter_map(|spans| spans.last());
    let mut on: Vec<u32> = last.map(|span| shards[&span.shard].members_count()).collect();
    on.dedup();
    (made.settings.replicas, on)
}

#[actix::test]
async fn there_is_one_on_each_broker_and_three_at_most_and_a_number_that_is_named_is_kept() {
    assert_eq!(TopicSettings::default().replicas, REPLICAS_UNNAMED);
    for (brokers, replicas) in [(1, 1), (2, 2), (3, 3), (5, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = start(folder.path(), 3).await;
        come(&bench, 1..=brokers).await;
        let unnamed = made(&mut bench, "unnamed", asked(REPLICAS_UNNAMED)).await;
        assert_eq!(unnamed, (replicas, vec![replicas]), "of {brokers} brokers");
        let durability = Durability::Replicated;
        let settings = TopicSettings { durability, ..asked(REPLICAS_UNNAMED) };
        assert_eq!(made(&mut bench, "early", settings).await, (replicas, vec![replicas]));
        // Its messages are with whoever leads; its queues go on where another one does.
        let settings = TopicSettings { kind: TopicKind::Temporary, ..asked(REPLICAS_UNNAMED) };
        assert_eq!(made(&mut bench, "temporary", settings).await, (replicas, vec![replicas]));
        assert_eq!(made(&mut bench, "one", asked(1)).await, (1, vec![1]), "as it is named");
        let live = usize::try_from(brokers).unwrap();
        let wanted = u32::try_from(brokers + 1).unwrap();
        let refused = make(&bench, "more", asked(wanted)).await.unwrap_err();
        assert_eq!(refused, RegistryError::TooFewBrokers { wanted, live });
        let refused = make(&bench, "far.more", asked(8)).await.unwrap_err();
        assert!(matches!(refused, RegistryError::InvalidSettings { .. }), "{refused}");
        bench.stop().await;
    }
}

#[actix::test]
async fn the_most_is_what_the_registry_is_told() {
    for (most, replicas) in [(1, 1), (2, 2), (7, 5)] {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = start(folder.path(), most).await;
        come(&bench, 1..=5).await;
        let unnamed = made(&mut bench, "t", asked(REPLICAS_UNNAMED)).await;
        assert_eq!(unnamed, (replicas, vec![replicas]), "at most {most}");
        bench.stop().await;
    }
}

#[actix::test]
async fn what_was_chosen_stays_whoever_comes_or_goes_and_whatever_the_registry_is_told_later() {
    let folder = tempfile::tempdir().unwrap();
    let bench = start(folder.path(), 3).await;
    come(&bench, 1..=2).await;
    let first = make(&bench, "t", asked(REPLICAS_UNNAMED)).await.unwrap();
    assert_eq!(first.topic.settings.replicas, 2);
    bench.stop().await;
    // The log is applied again by a registry that would choose otherwise.
    let bench = start(folder.path(), 1).await;
    let routing = bench.service.handle().routing();
    assert_eq!(routing.topics[&name("t")], first.topic);
    bench.stop().await;
    let mut bench = start(folder.path(), 3).await;
    come(&bench, 3..=4).await;
    assert_eq!(bench.service.handle().routing().topics[&name("t")], first.topic);
    // Who makes it again, if it is not there, gets the one that is there, as whoever names a number does.
    for replicas in [REPLICAS_UNNAMED, 3] {
        let (name, settings) = (name("t"), asked(replicas));
        let again = bench.ask(|reply| RegistryRequest::CreateTopic {
            name,
            settings,
            if_not_exists: true,
            reply,
        });
        let there = TopicCreated { topic: first.topic.clone(), created: false };
        assert_eq!(again.await, Ok(there));
    }
    let exists = RegistryError::TopicExists { id: first.topic.id };
    assert_eq!(make(&bench, "t", asked(REPLICAS_UNNAMED)).await, Err(exists));
    assert_eq!(made(&mut bench, "u", asked(REPLICAS_UNNAMED)).await.0, 3, "of four brokers");
    bench.stop().await;
}

#[actix::test]
async fn a_broker_that_is_gone_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = start(folder.path(), 3).await;
    come(&bench, 1..=3).await;
    mark(&bench, 2, false).await;
    assert_eq!(made(&mut bench, "t", asked(REPLICAS_UNNAMED)).await, (2, vec![2]));
    mark(&bench, 2, true).await;
    assert_eq!(made(&mut bench, "u", asked(REPLICAS_UNNAMED)).await, (3, vec![3]));
    bench.stop().await;
}

/// A broker goes in each of these rounds, and topics are made. Gives how many entries the registry has written.
async fn rounds_in_which_one_goes(at_once: bool) -> u64 {
    let folder = tempfile::tempdir().expect("a folder");
    let bench = start(folder.path(), 3).await;
    come(&bench, 1..=3).await;
    let ask = &bench.service.handle().ask;
    for round in 0..20 {
        let (gone, is_gone) = reply::port();
        let broker = BrokerId(2);
        let mut asks = vec![RegistryRequest::MarkBroker { broker, live: false, reply: gone }];
        let mut answers = Vec::new();
        for number in 0..5 {
            let (port, answer) = reply::port();
            asks.push(RegistryRequest::CreateTopic {
                name: name(&format!("t-{round}-{number}")),
                settings: asked(REPLICAS_UNNAMED),
                if_not_exists: false,
                reply: port,
            });
            answers.push(answer);
        }
        let mut asks = asks.into_iter();
        ask.try_put(asks.next().expect("the first one")).expect("room");
        if !at_once {
            until_gone(&bench, broker).await;
        }
        for request in asks {
            ask.try_put(request).expect("room"); // at once: all of them before the first is applied
        }
        assert_eq!(is_gone.await.expect("it answers"), Ok(()));
        for answer in answers {
            assert_eq!(
                answer.await.expect("it answers").expect("it is made").topic.settings.replicas,
                2
            );
        }
        mark(&bench, 2, true).await;
    }
    bench.stop().await;
    let log = Log::open(&RealDisk, &folder.path().join("log"), LogConfig::default());
    log.expect("it opens").0.last().expect("it is written").index
}

async fn until_gone(bench: &Bench<RealDisk>, broker: BrokerId) {
    while bench.service.handle().routing().brokers[&broker].live {
        tokio::task::yield_now().await;
    }
}

/// Between the choice and its entry another entry may come, by which a broker is gone. What was chosen by then is
/// written and refused, and chosen again: that is one entry more.
#[actix::test]
async fn one_that_goes_while_a_topic_is_made_is_no_error_of_who_named_no_number() {
    let (behind, at_once) =
        (rounds_in_which_one_goes(false).await, rounds_in_which_one_goes(true).await);
    assert!(
        at_once > behind,
        "nothing was chosen again: {at_once} entries, {behind} without haste"
    );
}

/// A group is first joined, and its broker names the first persisted shard that it has alone; on how many
/// brokers its members are kept.
async fn joined(bench: &Bench<RealDisk>, group: &str) -> u32 {
    let is_home =
        |place: &&ShardPlace| place.durability == Durability::Persisted && !place.is_replicated();
    let table = bench.service.handle().routing();
    let home = table.shards.iter().find(|(_, place)| is_home(place)).map(|(shard, _)| *shard);
    let name = TopicName::system("DLQ", group).expect("a name");
    let (id, shards) = (TopicId::UNKNOWN, Vec::new());
    let placed = bench
        .ask(|reply| RegistryRequest::PlaceDeadLetters { name, id, home, shards, reply })
        .await
        .expect("it is placed");
    kept(bench, &placed.topic).await
}

/// Whoever asked may hear of what was made before all others do.
async fn kept(bench: &Bench<RealDisk>, topic: &TopicRoutes) -> u32 {
    let shard = topic.queues[0][0].shard;
    while !bench.service.handle().routing().shards.contains_key(&shard) {
        tokio::task::yield_now().await;
    }
    let place = &bench.service.handle().routing().shards[&shard];
    assert_eq!(place.durability, Durability::Persisted);
    place.members_count()
}

#[actix::test]
async fn a_groups_members_are_kept_on_as_many_brokers_as_its_topics_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let bench = start(folder.path(), 1).await;
    come(&bench, 1..=3).await;
    assert_eq!(joined(&bench, "first").await, 1, "no shard has more, and no topic is to");
    let durability = Durability::Replicated;
    make(&bench, "early", TopicSettings { durability, ..asked(3) }).await.expect("it is made");
    assert_eq!(joined(&bench, "second").await, 3);
    assert_eq!(joined(&bench, "first").await, 1, "it stays where it is");
    bench.stop().await;
    // A registry that gives more, and groups that are there before their topics; what the log says of the
    // others stays so.
    let bench = start(folder.path(), 3).await;
    for (group, brokers) in [("first", 1), ("second", 3)] {
        let topics = bench.service.handle().routing().topics.clone();
        let topic = &topics[&TopicName::system("DLQ", group).unwrap()];
        assert_eq!(kept(&bench, topic).await, brokers, "{group}");
    }
    bench.stop().await;
    let folder = tempfile::tempdir().unwrap();
    let bench = start(folder.path(), 3).await;
    come(&bench, 1..=3).await;
    assert_eq!(joined(&bench, "early").await, 3, "no topic is there yet");
    bench.stop().await;
}
