//! The registry as a whole: requests through its log, routes to watchers, and what is left of it
//! after stops, crashes and damage.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Bench, CLASS, name};
use grus_mailbox::reply;
use grus_protocol::ids::TopicId;
use grus_protocol::message::TopicSettings;
use grus_protocol::names::TopicName;
use grus_registry::disk_store::{AppliedAt, DiskStore};
use grus_registry::machine::{Applied, Change, RegistryMachine};
use grus_registry::{RegistryError, RegistryRequest, RoutingTable, TopicCreated};

struct Nobody;
impl Applied for Nobody {
    fn applied(&mut self, _: u64, _: u64, _: Vec<Change>) {}
    fn replaced(&mut self) {}
}

/// What the copy in sled says the routes are.
fn copied(dir: &Path) -> (Option<AppliedAt>, RoutingTable) {
    let (store, aside) = DiskStore::open(&dir.join("sled")).expect("it opens");
    assert!(!aside);
    let (at, parts) = store.read().expect("it reads");
    let mut machine = RegistryMachine::new(Nobody);
    machine.replace(parts.iter().map(|(key, value)| (&key[..], &value[..]))).expect("parts");
    (at, machine.state().routing())
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn replace_folder(from: &Path, to: &Path) {
    fs::remove_dir_all(to).expect("removed");
    copy_folder(from, to);
}

#[actix::test]
async fn topics_are_made_changed_and_removed_and_watchers_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(folder.path()).await;
    assert_eq!(bench.create("orders", 2).await, Err(RegistryError::NoShard { durability: CLASS }));
    let table = bench.register(&[0, 1]).await;
    assert_eq!(
        (table.version, table.shards.len(), table.brokers.len()),
        (2, 2, 1),
        "1: it was founded"
    );
    assert_eq!(bench.register(&[0, 1]).await.version, 2, "the second time changes nothing");

    let made = bench.create("orders", 3).await.unwrap();
    assert!(made.created && made.topic.id != TopicId::UNKNOWN);
    let told = bench.told(3).await;
    assert_eq!(told.topics[&name("orders")], made.topic);
    let exists = RegistryError::TopicExists { id: made.topic.id };
    assert_eq!(bench.create("orders", 3).await, Err(exists));
    let same = bench.create_if("orders", 9, true).await.unwrap();
    assert_eq!(same, TopicCreated { topic: Arc::clone(&made.topic), created: false });

    let more = bench.add_queues("orders", 5).await.unwrap();
    assert_eq!((more.queues.len(), &more.queues[..3]), (5, &made.topic.queues[..]));
    assert!(matches!(
        bench.add_queues("orders", 4).await,
        Err(RegistryError::InvalidSettings { .. })
    ));
    assert_eq!(bench.delete("orders").await, Ok(made.topic.id));
    assert_eq!(bench.delete("orders").await, Err(RegistryError::UnknownTopic));
    let again = bench.create("orders", 1).await.unwrap();
    assert_ne!(again.topic.id, made.topic.id, "another incarnation");
    assert_eq!(bench.told(6).await.topics[&name("orders")], again.topic);
    bench.stop().await;
}

#[actix::test]
async fn a_crowd_at_once_gets_each_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(folder.path()).await;
    bench.register(&[0]).await;
    let mut answers = Vec::new();
    for number in 0..300 {
        let (port, answer) = reply::port();
        let request = RegistryRequest::CreateTopic {
            name: name(&format!("t{}", number % 100)),
            settings: TopicSettings { queues: 1, ..TopicSettings::default() },
            if_not_exists: number >= 100,
            reply: port,
        };
        bench.service.handle().ask.put(request).await.unwrap();
        answers.push(answer);
    }
    let mut ids = BTreeSet::new();
    let mut created = 0;
    for answer in answers {
        let made = answer.await.unwrap().unwrap();
        created += u32::from(made.created);
        ids.insert(made.topic.id);
    }
    assert_eq!((created, ids.len()), (100, 100));
    assert_eq!(bench.told(102).await.topics.len(), 100);
    bench.stop().await;
}

#[actix::test]
async fn a_restart_finds_everything_and_keeps_its_copy() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = RoutingTable::default();
    for round in 0..4_u32 {
        let mut bench = Bench::start(folder.path()).await;
        let told = bench.told(before.version).await;
        assert!(round == 0 || *told == before, "round {round}");
        assert!(told.registry != 0, "it has its number from the start");
        bench.register(&[0]).await;
        let made = bench.create(&format!("round-{round}"), 2).await.unwrap();
        before = (*bench.told(u64::from(round) + 3).await).clone();
        assert!(before.by_id(made.topic.id).is_some());
        let rebuilds = bench.rebuilds().await;
        // The first start numbers the registry before there is a copy.
        assert_eq!(rebuilds, u64::from(round == 0), "the copy of round {round} was good");
        assert_eq!(copied(folder.path()).1, before);
    }
}

/// Where a restart meets another copy than it left.
#[actix::test]
async fn whatever_became_of_the_copy_it_is_made_good() {
    type Harm = fn(&Path, &Path);
    let harms: [(&str, u64, Harm); 5] = [
        ("untouched", 0, |_, _| {}),
        ("deleted", 1, |dir, _| fs::remove_dir_all(dir.join("sled")).unwrap()),
        ("damaged", 1, |dir, _| {
            let db = dir.join("sled").join("db");
            let mut bytes = fs::read(&db).unwrap();
            bytes.iter_mut().take(4_096).for_each(|byte| *byte ^= 0x5a);
            fs::write(&db, bytes).unwrap();
        }),
        ("behind: the crash came between log and sled", 1, |dir, old| {
            replace_folder(&old.join("sled"), &dir.join("sled"));
        }),
        ("ahead: the log is an older one", 1, |dir, old| {
            replace_folder(&old.join("log"), &dir.join("log"));
        }),
    ];
    for (harm, rebuilds, inflict) in harms {
        let folder = tempfile::tempdir().unwrap();
        let (dir, old): (PathBuf, PathBuf) = (folder.path().join("new"), folder.path().join("old"));
        let bench = Bench::start(&dir).await;
        bench.register(&[0]).await;
        bench.create("first", 2).await.unwrap();
        bench.stop().await;
        copy_folder(&dir, &old);
        let bench = Bench::start(&dir).await;
        bench.create("second", 2).await.unwrap();
        bench.delete("first").await.unwrap();
        bench.stop().await;

        inflict(&dir, &old);
        let mut bench = Bench::start(&dir).await;
        let table = bench.told(0).await;
        let names: Vec<_> = table.topics.keys().map(TopicName::as_str).collect();
        let expected = if harm.starts_with("ahead") { "first" } else { "second" };
        assert_eq!(names, [expected], "the log is the truth ({harm})");
        assert_eq!(bench.rebuilds().await, rebuilds, "{harm}");
        assert_eq!(copied(&dir).1, *table, "{harm}");
    }
}
