//! What the registry has answered is there after any power cut, and its log does not grow for ever.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use common::{Bench, name};
use grus_log::{Disk, SimDisk};
use grus_protocol::ids::TopicId;
use grus_protocol::message::TopicSettings;
use grus_registry::{RegistryRequest, RegistrySettings};

fn small(dir: &std::path::Path) -> RegistrySettings {
    RegistrySettings {
        segment_bytes: 64 << 10,
        first_segment_bytes: 64 << 10,
        care_period: Duration::from_millis(20),
        ..RegistrySettings::new(dir)
    }
}

/// What was answered, and what was asked without an answer.
#[derive(Default)]
struct Said {
    there: BTreeMap<String, TopicId>,
    in_doubt: Vec<String>,
}

/// Makes and removes topics until it is told no more.
async fn work<D: Disk>(bench: &Bench<D>, round: u32, said: &mut Said) {
    for number in 0..60 {
        let topic = format!("t-{round}-{number}");
        let settings = TopicSettings { queues: 3, ..TopicSettings::default() };
        let made = bench
            .try_ask(|reply| RegistryRequest::CreateTopic {
                name: name(&topic),
                settings,
                if_not_exists: false,
                reply,
            })
            .await;
        let Ok(Ok(made)) = made else { return said.in_doubt.push(topic) };
        said.there.insert(topic, made.topic.id);
        if number % 3 == 0 {
            let (topic, id) = said.there.pop_first().expect("just made");
            let gone = bench
                .try_ask(|reply| RegistryRequest::DeleteTopic { name: name(&topic), id, reply })
                .await;
            if gone != Ok(Ok(id)) {
                return said.in_doubt.push(topic);
            }
        }
    }
}

#[actix::test]
async fn what_was_answered_survives_power_cuts_at_any_step() {
    let mut cuts = 0;
    for seed in 0..6_u64 {
        let folder = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(seed);
        let mut said = Said::default();
        let mut step = 20 + seed * 331 % 600;
        for round in 0..5 {
            disk.cut_at_step(step);
            step = (step * 7 + 13) % 600;
            if let Ok(bench) = Bench::start_on(small(folder.path()), disk.clone()).await {
                let address = |reply| RegistryRequest::EnrolBroker {
                    address: grus_protocol::ids::BrokerAddress {
                        id: grus_protocol::ids::BrokerId(1),
                        host: "localhost".into(),
                        port: 1,
                    },
                    disk: 1,
                    shards: vec![(grus_protocol::ids::ShardId(0), common::CLASS)],
                    shards_wanted: 0,
                    memberships: Vec::new(),
                    shards_below: 0,
                    reply,
                };
                if matches!(bench.try_ask(address).await, Ok(Ok(_))) {
                    work(&bench, round, &mut said).await;
                }
                bench.service.stop().await;
                bench.places.stop_and_join().await;
            }
            cuts += u32::from(disk.is_off());
            disk.power_on();
            check(&disk, folder.path(), &mut said, seed, round).await;
        }
    }
    assert!(cuts > 12, "only {cuts} cuts: the steps are too far apart");
}

async fn check(disk: &SimDisk, dir: &std::path::Path, said: &mut Said, seed: u64, round: u32) {
    disk.cut_at_step(u64::MAX);
    let mut bench = Bench::start_on(small(dir), disk.clone()).await.expect("it recovers");
    let table = bench.told(0).await;
    let mut found: BTreeMap<String, TopicId> =
        table.topics.iter().map(|(name, topic)| (name.to_string(), topic.id)).collect();
    for topic in said.in_doubt.drain(..) {
        match found.get(&topic) {
            Some(id) => drop(said.there.insert(topic, *id)),
            None => drop(said.there.remove(&topic)),
        }
    }
    found.retain(|name, _| !said.there.contains_key(name));
    assert!(found.is_empty(), "seed {seed}, round {round}: never answered, yet there: {found:?}");
    for (topic, id) in &said.there {
        let there = table.topics.get(&name(topic)).map(|topic| topic.id);
        assert_eq!(there, Some(*id), "seed {seed}, round {round}: {topic} was answered");
    }
    bench.stop().await;
}

#[actix::test]
async fn the_log_does_not_grow_for_ever_and_its_checkpoint_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(1);
    let mut bench = Bench::start_on(small(folder.path()), disk.clone()).await.unwrap();
    bench.register(&[0]).await;
    let kept = bench.create("kept", 3).await.unwrap().topic;
    let (mut written, mut largest) = (0, 0);
    for number in 0..1_200 {
        let topic = bench.create("again", 1 + number % 7).await.unwrap();
        bench.delete("again").await.unwrap();
        assert_ne!(topic.topic.id, kept.id);
        written += 300;
        largest = largest.max(disk.used_bytes());
    }
    assert!(written > 5 * (64 << 10), "the test writes too little to seal segments");
    assert!(largest < 448 << 10, "{largest} of {written} bytes for one topic");
    let version = bench.told(2_403).await.version;
    bench.stop().await;

    let mut bench = Bench::start_on(small(folder.path()), disk).await.unwrap();
    let table = bench.told(version).await;
    assert_eq!(table.topics.values().collect::<Vec<_>>(), [&kept]);
    assert_eq!(bench.rebuilds().await, 0);
}

#[actix::test]
async fn a_start_on_a_full_disk_shows_no_table_that_lacks_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let disk = SimDisk::new(3);
    let log = folder.path().join("log");
    let start = || Bench::start_on(small(folder.path()), disk.clone());
    let bench = start().await.unwrap();
    bench.register(&[0]).await;
    // As a power cut may leave it: older than the last answer.
    let control = disk.content(&log.join("control"));
    bench.create("newest", 3).await.unwrap();
    bench.stop().await;
    disk.overwrite(&log.join("control"), 0, &control);
    disk.remove(&log.join("reserve")).unwrap();
    disk.set_capacity_bytes(0);
    // The shards would drop a topic that its table lacks: it waits for the room that a leader needs.
    let mut starting = std::pin::pin!(start());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut starting).await;
    assert!(early.is_err(), "it serves a table that it cannot know to be whole");
    disk.set_capacity_bytes(u64::MAX);
    let mut bench = starting.await.unwrap();
    let table = bench.told(0).await;
    assert!(table.topics.contains_key(&name("newest")), "{:?}", table.topics.keys());
    bench.stop().await;

    // Where all is known to be committed it serves at once, and a broker that it knows registers.
    let _ = disk.remove(&log.join("reserve")); // it could not be made again on the full disk
    disk.set_capacity_bytes(0);
    let mut bench = start().await.unwrap();
    assert!(bench.told(0).await.topics.contains_key(&name("newest")));
    bench.register(&[0]).await;
    assert!(bench.create("more", 1).await.is_err(), "there is no room for it");
    bench.stop().await;
}
