//! Consumer groups on real processes: shared, killed, joined, retried, given up, sent back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use grus_client::{
    Cadence, Client, Consumer, ConsumerConfig, ConsumerEvent, Handed, MemberId, Message,
    NewSchedule, Outcome, OwnQueue, QueueId, ScheduleId,
};
use grus_tests::broker::Home;
use grus_tests::cluster::await_no_group;
use grus_tests::strain::Strain;
use grus_tests::watch::{PATIENCE, Watch};
use rustix::process::Signal;
use tokio::sync::Notify;

use crate::create;
use crate::program::{block_on, connect};

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it comes in time")
}

/// The queues that a consumer has, as its events say.
#[derive(Clone, Default)]
pub(crate) struct Own {
    queues: Arc<Mutex<BTreeSet<u32>>>,
    changed: Arc<Notify>,
}

impl Own {
    fn hear(&self, event: &ConsumerEvent) {
        let numbers =
            |queues: &[OwnQueue]| -> Vec<_> { queues.iter().map(|own| own.queue.0).collect() };
        let mut queues = self.queues.lock().expect("nobody panics");
        match event {
            ConsumerEvent::Assigned(new) => queues.extend(numbers(new)),
            ConsumerEvent::Revoked(gone) | ConsumerEvent::Lost(gone) => {
                let gone = numbers(gone);
                queues.retain(|queue| !gone.contains(queue));
            }
            _ => {}
        }
        self.changed.notify_one();
    }

    fn now(&self) -> BTreeSet<u32> {
        self.queues.lock().expect("nobody panics").clone()
    }

    pub(crate) async fn until(&self, is_so: impl Fn(&BTreeSet<u32>) -> bool) {
        while !is_so(&self.now()) {
            self.changed.notified().await;
        }
    }
}

pub(crate) fn config() -> ConsumerConfig {
    ConsumerConfig::new("g").expect("a name").subscribe("t", "*").expect("a topic")
}

pub(crate) fn consumer(client: &Client, config: ConsumerConfig) -> (Consumer, Own) {
    let own = Own::default();
    let hearer = own.clone();
    let config = config.on_event(move |event| hearer.hear(event));
    (client.consumer(config).expect("a consumer"), own)
}

pub(crate) async fn send(client: &Client, queues: u32, numbers: std::ops::Range<u32>) {
    let producer = client.producer(crate::producing::config("t")).expect("a producer");
    let queue = |number: u32| QueueId(number % queues);
    let messages: Vec<_> =
        numbers.map(|number| Message::new(number.to_string()).queue(queue(number))).collect();
    let mut receipts = Vec::new();
    for message in messages {
        receipts.push(producer.enqueue(message).await.expect("it is taken"));
    }
    producer.flush().await.expect("all are stored");
    for receipt in receipts {
        receipt.await.expect("it is stored");
    }
    producer.close().await.expect("nothing is left");
}

pub(crate) fn number(handed: &Handed) -> u32 {
    std::str::from_utf8(handed.body()).expect("text").parse().expect("a number")
}

pub(crate) async fn lag(client: &Client) -> u64 {
    let progress = client.group_progress(&"g".try_into().expect("a name")).await.expect("told");
    assert_eq!(progress.unasked, []);
    progress.items.iter().map(|queue| queue.lag).sum()
}

#[test]
fn a_program_divides_the_queues_itself_and_others_stand_by() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let client = connect(&home).await;
        let named = |name: &str| {
            // All to the one whose name comes last.
            let mut config = config().divide_by(|asked| {
                let last = asked.members.iter().max_by_key(|one| one.instance.clone());
                let all = |queues| vec![last.map_or(MemberId::NONE, |one| one.member); queues];
                asked.topics.iter().map(|topic| all(topic.queues.len())).collect()
            });
            config.options.session_ms = Some(600_000); // none leaves for a machine that is busy
            config.instance = Some(name.try_into().expect("a name"));
            config
        };
        let (stands_by, its) = consumer(&client, named("a"));
        within(its.until(|queues| queues.len() == 4)).await;
        let (works, own) = consumer(&client, named("b"));
        within(own.until(|queues| queues.len() == 4)).await;
        assert!(its.now().is_empty());
        works.stop().await;
        within(its.until(|queues| queues.len() == 4)).await;
        let described = client.describe_group(&"g".try_into().expect("a name")).await;
        assert_eq!(described.expect("told").settings.strategy.to_string(), "own");
        stands_by.stop().await;
        client.close().await;
    });
}

#[test]
fn two_members_share_a_topic_and_each_message_comes_once() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let (one, other) = (connect(&home).await, connect(&home).await);
        let mut config = config();
        config.options.session_ms = Some(600_000); // neither leaves for a machine that is busy
        let ((mut first, its), (mut second, others)) =
            (consumer(&one, config.clone()), consumer(&other, config));
        within(async {
            its.until(|queues| queues.len() == 2).await;
            others.until(|queues| queues.len() == 2).await;
        })
        .await;
        assert!(its.now().is_disjoint(&others.now()));
        send(&one, 4, 0..1_000).await;
        let mut seen: BTreeMap<u32, u32> = BTreeMap::new();
        let (mut of_first, mut of_second) = (0, 0);
        while of_first + of_second < 1_000 {
            let handed = within(async {
                tokio::select! {
                    handed = first.next() => { of_first += 1; handed }
                    handed = second.next() => { of_second += 1; handed }
                }
            });
            let handed = handed.await.expect("a message");
            *seen.entry(number(&handed)).or_default() += 1;
            handed.answer(Outcome::Ack);
        }
        assert_eq!(seen.len(), 1_000, "each one");
        assert_eq!((of_first, of_second), (500, 500), "two queues each");
        first.stop().await;
        second.stop().await;
        assert_eq!(lag(&one).await, 0);
        let nobody = home.grus(&["group", "describe", "nobody"]).refused();
        assert!(nobody.contains("there is no group nobody (UnknownGroup)"), "{nobody}");
        one.close().await;
        other.close().await;
    });
}

#[test]
fn a_member_that_is_killed_loses_nothing_and_is_replaced() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 4);
    block_on(async {
        let client = connect(&home).await;
        send(&client, 4, 0..2_000).await;
        let words = ["consume", "t", "--group", "g", "--json", "--max", "1000000"];
        let mut killed = home.grus_running(&words);
        let mut printed = Vec::new();
        while printed.len() < 700 {
            let line = killed.next_line(PATIENCE).expect("a message");
            let object: serde_json::Value = serde_json::from_slice(&line).expect("an object");
            printed.push(object["body"].as_str().expect("text").parse::<u32>().expect("a number"));
        }
        let (mut consumer, own) = consumer(&client, config());
        within(own.until(|queues| queues.len() == 2)).await;
        let (strain, watch) = (Strain::watch(), Watch::start());
        killed.signal(Signal::KILL);
        within(own.until(|queues| queues.len() == 4)).await;
        let (took, allowed) = (watch.elapsed(), strain.allowed());
        // Less than its session.
        assert!(took < Duration::from_secs(8) + allowed, "its queues are ours after {took:?}");
        let mut seen: BTreeSet<u32> = printed.into_iter().collect();
        while lag(&client).await > 0 {
            let some = consumer.next_batch(256, Duration::from_millis(100)).await;
            for handed in some.expect("it goes on") {
                seen.insert(number(&handed));
                handed.answer(Outcome::Ack);
            }
        }
        consumer.stop().await;
        // What it had printed before it died, and what it had acknowledged was printed before.
        while let Some(line) = killed.next_line(PATIENCE) {
            let object: serde_json::Value = serde_json::from_slice(&line).unwrap_or_default();
            let body = object["body"].as_str().and_then(|text| text.parse::<u32>().ok());
            seen.extend(body);
        }
        assert_eq!(seen.len(), 2_000, "what it had and not answered for came to the other one");
        client.close().await;
    });
}

#[test]
fn what_always_fails_is_tried_sixteen_times_and_then_lies_where_one_sees_why() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 2);
    block_on(async {
        let client = connect(&home).await;
        send(&client, 2, 0..10).await;
        let mut config = config();
        config.options.ladder_ms = Some(vec![1, 2, 3]);
        config.options.session_ms = Some(600_000); // it does not leave for a machine that is busy
        let (mut consumer, _) = consumer(&client, config);
        let mut tries: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        while tries.values().map(Vec::len).sum::<usize>() < 9 + 16 {
            let handed = within(consumer.next()).await.expect("a message");
            tries.entry(number(&handed)).or_default().push(handed.deliveries);
            if number(&handed) == 3 {
                handed.answer(Outcome::Nack("no stock".to_owned()));
            } else {
                handed.answer(Outcome::Ack);
            }
        }
        assert_eq!(tries[&3], (0..16).collect::<Vec<_>>());
        assert!((0..10).filter(|n| *n != 3).all(|number| tries[&number] == [0]), "{tries:?}");
        let group = "g".try_into().expect("a name");
        let letters = within(async {
            loop {
                let page = client.list_dead_letters(&group, None, 0, true).await.expect("a list");
                if !page.letters.is_empty() {
                    break page.letters;
                }
            }
        });
        let letters = letters.await;
        let [letter] = &letters[..] else { panic!("{letters:?}") };
        let (topic, queue) = (letter.letter.origin_topic.as_str(), letter.letter.origin_queue.0);
        assert_eq!((topic, queue, letter.letter.origin_offset.0), ("t", 1, 1));
        assert_eq!((&*letter.letter.reason, letter.letter.deliveries), ("no stock", 16));
        assert_eq!(letter.record.as_ref().expect("its body").body(), b"3");
        // Answers go together, a little later: then nothing is left.
        within(async { while lag(&client).await > 0 {} }).await;

        let grus = |words: &str| home.grus(&words.split(' ').collect::<Vec<_>>());
        let listed = grus("dlq list g").ok().text();
        assert!(listed.contains("from t/1/1  delivered 16 times  no stock"), "{listed}");
        assert_eq!(grus("dlq redrive g --all").ok().text(), "1 sent back\n");
        let again = within(consumer.next()).await.expect("it comes again");
        assert_eq!((number(&again), again.queue, again.deliveries), (3, QueueId(1), 0));
        again.ack().await.expect("it is done");
        assert_eq!(grus("dlq redrive g --all").ok().text(), "0 sent back\n");
        assert_eq!(grus("dlq list g").ok().text(), "");
        // A letter is what died, and nothing else comes among them.
        let (topic, name) = (group.dead_letters(), "tick".try_into().expect("a name"));
        let tick = ScheduleId { topic, queue: QueueId(0), name };
        let new = NewSchedule::new(tick, Cadence::Every(PATIENCE), Message::new("tick"));
        let refused = client.create_schedule(new).await.expect_err("no schedule there");
        assert!(refused.to_string().contains("dead letters"), "{refused}");
        let described = grus("group describe g").ok().text();
        assert!(described.contains("lag          0"), "{described}");
        assert!(grus("group members g").ok().text().contains("has t/0 t/1"));
        assert!(grus("group delete g").refused().contains("GroupNotEmpty"));
        consumer.stop().await;
        grus("group reset g --topic t --to last").ok();
        grus("group delete g").ok();
        await_no_group(home.listen);
        client.close().await;
    });
}

#[test]
fn what_nobody_saw_never_dies_however_often_its_queue_changes_hands() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        send(&client, 1, 0..60).await;
        client.close().await;
    });
    let grus = |words: &str| home.grus(&words.split(' ').collect::<Vec<_>>()).ok().text();
    // More often than a message may be delivered, each time with all the rest read ahead.
    for number in 0..20 {
        assert_eq!(grus("consume t --group g --max 1"), format!("{number}\n"));
    }
    let rest = (20..60).map(|number| number.to_string()).collect::<Vec<_>>().join("\n") + "\n";
    assert_eq!(grus("consume t --group g --max 40"), rest, "in order, each once");
    assert_eq!(grus("dlq list g"), "");
    // What is printed before it is acknowledged is lost by nobody who asked for less.
    grus("group reset g --topic t --to first");
    assert_eq!(grus("consume t --group g --max 1 --ack before"), "0\n");
    assert_eq!(grus("consume t --group g --max 2 --ack before"), "1\n2\n");
}

#[test]
fn members_have_only_what_their_tags_say() {
    let home = Home::new();
    let _broker = home.start();
    create(&home, "t", 1);
    block_on(async {
        let client = connect(&home).await;
        let producer = client.producer(crate::producing::config("t")).expect("a producer");
        for (number, tag) in ["a", "b", "c", "a", "d"].iter().enumerate() {
            let message = Message::new(number.to_string()).tag(*tag);
            producer.send(message).await.expect("it is stored");
        }
        let config = ConsumerConfig::new("g").expect("a name");
        let config = config.subscribe("t", "a || c").expect("tags");
        let (mut consumer, _) = consumer(&client, config);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            let handed = within(consumer.next()).await.expect("a message");
            seen.push(number(&handed));
            within(handed.ack()).await.expect("it is done");
        }
        assert_eq!(seen, [0, 2, 3]);
        within(async { while lag(&client).await > 0 {} }).await;
        consumer.stop().await;
        client.close().await;
    });
}
