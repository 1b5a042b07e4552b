//! Broadcast groups on real processes: every member has every message, each keeps its progress in a
//! file of its own, and who fails alone sees repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use grus_client::{Client, Consumer, ConsumerConfig, Message, Outcome, QueueId};
use grus_tests::broker::{Broker, Home};
use grus_tests::process::Process;
use grus_tests::watch::Watch;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::create;
use crate::program::{block_on, connect};

/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

/// A broker with a topic, and a folder for what its members keep.
struct Ground {
    _broker: Broker, // ends first
    home: Home,
    folder: TempDir,
}

impl Ground {
    fn with_queues(queues: u32) -> Self {
        let home = Home::new();
        let broker = home.start();
        create(&home, "t", queues);
        Self { _broker: broker, home, folder: tempfile::tempdir().expect("a folder") }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    let producer = client.producer(crate::producing::config("t")).expect("a producer");
    let mut receipts = Vec::new();
    for number in numbers {
        let message = Message::new(format!("{number:05}")).queue(QueueId(number % 2));
        receipts.push(producer.enqueue(message).await.expect("it is taken"));
    }
    producer.close().await.expect("nothing is left");
    for receipt in receipts {
        receipt.await.expect("it is stored");
    }
}

/// What a member's file says is settled of the first queue and of the second, without gaps.
fn floors(file: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.strip_prefix("queue "));
    let floor = |line: &str| -> Option<(String, u64)> {
        let words: Vec<&str> = line.split(' ').collect();
        Some(((*words.get(2)?).to_owned(), words.get(3)?.parse().ok()?))
    };
    lines.filter_map(floor).collect()
}

/// Waits until a member's file says that so many messages are settled without gaps.
fn until_settled(file: &Path, count: u64) {
    let begun = Watch::start();
    while floors(file).values().sum::<u64>() != count {
        assert!(begun.elapsed() < PATIENCE, "this is how it stays: {:?}", floors(file));
        std::thread::yield_now();
    }
}

fn member(home: &Home, file: &Path, name: &str, more: &[&str]) -> Process {
    let file = file.to_str().expect("a plain path");
    let words = ["consume", "t", "--group", "g", "--model", "broadcast", "--progress", file];
    home.grus_running(&[&words[..], &["--member", name], more].concat())
}

/// The next lines of a member, as numbers.
fn take(process: &mut Process, count: usize) -> Vec<u32> {
    let line = |_| {
        let line = process.next_line(PATIENCE).expect("a message");
        String::from_utf8(line).expect("text").parse().expect("a number")
    };
    (0..count).map(line).collect()
}

#[test]
fn s17_each_member_has_all_and_one_that_is_killed_goes_on_where_it_was() {
    let ground = Ground::with_queues(2);
    let (home, file) = (&ground.home, |name: &str| ground.file(name));
    block_on(async {
        let client = connect(home).await;
        send(&client, 0..400).await;
        let names = ["a", "b", "c"];
        let mut members = names.map(|name| member(home, &file(name), name, &[]));
        for one in &mut members {
            let seen: BTreeSet<u32> = take(one, 400).into_iter().collect();
            assert_eq!(seen.len(), 400, "each one, once");
        }
        let group = "g".try_into().expect("a name");
        let described = client.describe_group(&group).await.expect("a group");
        assert_eq!((described.members.len(), described.queues.len()), (3, 2));
        assert!(described.queues.iter().all(|queue| queue.member.is_none()), "nobody's alone");
        let listed = home.grus(&["group", "list"]).ok().text();
        assert!(listed.contains("broadcast"), "{listed}");

        until_settled(&file("b"), 400);
        members[1].kill();
        send(&client, 400..1_000).await;
        let mut again = member(home, &file("b"), "b", &["--max", "600"]);
        let seen: BTreeSet<u32> = take(&mut again, 600).into_iter().collect();
        assert_eq!(seen, (400..1_000).collect(), "what it had not had, and nothing twice");
        assert!(again.wait(PATIENCE).success(), "it ends");
        for at in [0, 2] {
            let rest: BTreeSet<u32> = take(&mut members[at], 600).into_iter().collect();
            assert_eq!(rest, (400..1_000).collect(), "the others noticed nothing");
        }
        client.close().await;
    });
}

#[test]
fn one_that_is_killed_at_any_moment_loses_nothing() {
    let ground = Ground::with_queues(2);
    let (home, file) = (&ground.home, ground.file("progress"));
    block_on(async {
        let client = connect(home).await;
        send(&client, 0..3_000).await;
        let mut seen = BTreeSet::new();
        for round in 0_usize..4 {
            let mut one = member(home, &file, "one", &[]);
            seen.extend(take(&mut one, 1 + 97 * round));
            one.signal(Signal::KILL);
            while let Some(line) = one.next_line(PATIENCE) {
                let text = String::from_utf8(line).expect("text");
                let whole = (text.len() == 5).then(|| text.parse::<u32>().expect("a number"));
                seen.extend(whole); // the last line may be cut
            }
        }
        let mut last = member(home, &file, "one", &[]);
        while seen.len() < 3_000 {
            seen.extend(take(&mut last, 1));
        }
        client.close().await;
    });
}

fn consumer(client: &Client, file: &Path, (ladder_ms, max_deliveries): (u64, u32)) -> Consumer {
    let config = ConsumerConfig::new("g").expect("a name").subscribe("t", "*").expect("a topic");
    let mut config = config.broadcast(file);
    config.options.ladder_ms = Some(vec![ladder_ms]);
    config.options.max_deliveries = Some(max_deliveries);
    client.consumer(config).expect("a consumer")
}

/// Takes messages until so many came; 3 fails the first so many times. How often each was handed out
/// before, time by time.
async fn handle(consumer: &mut Consumer, count: usize, failures: u32) -> BTreeMap<u32, Vec<u32>> {
    let mut seen: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for _ in 0..count {
        let next = tokio::time::timeout(PATIENCE, consumer.next()).await.expect("in time");
        let handed = next.expect("a message");
        let number = std::str::from_utf8(handed.body()).expect("text").parse().expect("a number");
        let deliveries = handed.deliveries;
        seen.entry(number).or_default().push(deliveries);
        if number == 3 && deliveries < failures {
            handed.answer(Outcome::Nack("not now".to_owned()));
        } else {
            handed.ack().await.expect("the file has it");
        }
    }
    seen
}

#[test]
fn s29_only_the_member_that_fails_sees_repeats() {
    let ground = Ground::with_queues(2);
    let (home, file) = (&ground.home, |name: &str| ground.file(name));
    block_on(async {
        let client = connect(home).await;
        send(&client, 0..10).await;
        let mut failing = consumer(&client, &file("failing"), (1, 5));
        let mut sound = consumer(&client, &file("sound"), (1, 5));
        let of_failing = handle(&mut failing, 12, 2).await;
        assert_eq!(of_failing[&3], [0, 1, 2]);
        let once = |seen: &BTreeMap<u32, Vec<u32>>| {
            (0..10).filter(|number| *number != 3).all(|number| seen[&number] == [0])
        };
        assert!(once(&of_failing), "{of_failing:?}");
        let of_sound = handle(&mut sound, 10, 0).await;
        assert!(once(&of_sound) && of_sound[&3] == [0], "{of_sound:?}");
        sound.stop().await;
        failing.stop().await;
        for name in ["failing", "sound"] {
            until_settled(&file(name), 10);
        }

        // What always fails is given up after its last delivery, and holds nothing up.
        let mut stubborn = consumer(&client, &file("stubborn"), (1, 3));
        let seen = handle(&mut stubborn, 12, 99).await;
        assert_eq!(seen[&3], [0, 1, 2]);
        until_settled(&file("stubborn"), 10);
        stubborn.stop().await;
        // One that stops while a retry waits has that message again.
        let mut leaving = consumer(&client, &file("leaving"), (3_600_000, 0));
        assert_eq!(handle(&mut leaving, 10, 99).await.len(), 10);
        leaving.stop().await;
        assert_eq!(floors(&file("leaving"))["1"], 1, "3 is the second of its queue");
        let mut again = consumer(&client, &file("leaving"), (1, 0));
        assert_eq!(handle(&mut again, 1, 0).await, BTreeMap::from([(3, vec![0])]));
        again.stop().await;
        client.close().await;
    });
}

#[test]
fn a_file_that_is_not_this_members_is_refused_by_what_is_wrong_with_it() {
    let ground = Ground::with_queues(1);
    let (home, path) = (&ground.home, ground.file("progress"));
    let file = path.to_str().expect("a plain path");
    home.grus_fed(&["produce", "t"], b"x\n").ok();
    let words = |group, name| {
        let words = ["consume", "t", "--group", group, "--model", "broadcast", "--progress", file];
        [&words[..], &["--member", name, "--max", "1"]].concat()
    };
    home.grus(&words("g", "one")).ok();
    let refused = |group, name| home.grus(&words(group, name)).refused();
    assert!(refused("h", "one").contains("it belongs to the group g"));
    assert!(refused("g", "two").contains("it belongs to the member one"));
    let mut running = member(home, &path, "one", &[]);
    home.grus_fed(&["produce", "t"], b"y\n").ok();
    assert_eq!(running.next_line(PATIENCE), Some(b"y".to_vec()), "it goes on behind x");
    assert!(refused("g", "one").contains("another consumer keeps its progress there"));
    // One of another kind is not taken in while it is there.
    let cluster = home.grus(&["consume", "t", "--group", "g", "--max", "1"]).refused();
    assert!(cluster.contains("the group's model is broadcast"), "{cluster}");
    let cluster = ["consume", "t", "--group", "g", "--model", "cluster", "--max", "1"];
    let cluster = home.grus(&cluster).refused();
    assert!(cluster.contains("the model of a group stays"), "{cluster}");
    running.kill();
    let mut text = std::fs::read(&path).expect("a file");
    let last = text.len() - 30;
    text[last] ^= 1;
    std::fs::write(&path, text).expect("written");
    assert!(refused("g", "one").contains("it is damaged, or no file of progress"));
}
