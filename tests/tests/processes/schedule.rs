//! Recurring messages on real processes: each run once across kill -9, rests, refusals, listings.

use std::time::Duration;

use grus_client::{
    Cadence, Message, NewSchedule, QueueId, Reader, ReaderConfig, ScheduleId, StartAt,
};
use grus_tests::broker::{Broker, Home};
use grus_tests::random::Random;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::create;
use crate::program::{block_on, connect};

/// The next run: its message's birth, which is the time it was due.
async fn next_run(reader: &mut Reader) -> u64 {
    let message = tokio::time::timeout(PATIENCE, reader.next()).await.expect("a run in time");
    let message = message.expect("a message");
    assert_eq!((message.body(), message.tag()), (&b"tick"[..], Some("clock")));
    message.born().0
}

fn tick() -> ScheduleId {
    let (topic, name) = ("t".try_into().expect("a name"), "tick".try_into().expect("a name"));
    ScheduleId { topic, queue: QueueId(0), name }
}

#[test]
fn each_run_comes_once_though_the_broker_is_killed_again_and_again() {
    let home = Home::new();
    let mut broker = home.start();
    create(&home, "t", 1);
    let mut random = Random::seeded("each run comes once");
    block_on(async {
        let client = connect(&home).await;
        let mut new = NewSchedule::new(
            tick(),
            Cadence::Every(Duration::from_secs(1)),
            Message::new("tick").tag("clock"),
        );
        new.made_up_max = 10_000;
        let first = client.create_schedule(new).await.expect("a schedule").0;
        let config = ReaderConfig::new("t", StartAt::First).expect("a name");
        let mut reader = client.reader(config).expect("a reader");
        let mut expected = first;
        for round in 0..6 {
            for _ in 0..2 {
                assert_eq!(next_run(&mut reader).await, expected, "round {round}");
                expected += 1_000;
            }
            // At any instant between two runs, or soon after the next one.
            let instant = Duration::from_millis(random.below(900));
            if let Ok(run) = tokio::time::timeout(instant, next_run(&mut reader)).await {
                assert_eq!(run, expected, "round {round}");
                expected += 1_000;
            }
            broker.kill();
            broker = home.start();
        }
        for _ in 0..3 {
            assert_eq!(next_run(&mut reader).await, expected, "after the last restart");
            expected += 1_000;
        }
        client.pause_schedule(&tick()).await.expect("it rests");
        let page = client.list_schedules(None, None, 0, 3).await.expect("a list");
        let [schedule] = &page.schedules[..] else { panic!("{page:?}") };
        assert!(schedule.is_paused && schedule.next.is_empty());
        let sent = (expected - first) / 1_000;
        for _ in sent..schedule.runs {
            assert_eq!(next_run(&mut reader).await, expected, "it ran before it rested");
            expected += 1_000;
        }
        broker.kill();
        let _broker = home.start();
        let next = client.resume_schedule(&tick()).await.expect("it goes on").expect("a time").0;
        assert_eq!((next - first) % 1_000, 0, "counted from its first run");
        assert!(next >= expected);
        assert_eq!(next_run(&mut reader).await, next, "what came while it rested is none");
        client.delete_schedule(&tick()).await.expect("it is gone");
        let page = client.list_schedules(Some(&tick().topic), None, 0, 3).await.expect("a list");
        assert!(page.schedules.is_empty());
        client.close().await;
    });
}

#[test]
fn the_tool_makes_lists_and_removes_schedules() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 2);
    let grus = |words: &str| home.grus(&words.split(' ').collect::<Vec<_>>());
    let leap = ["schedule", "create", "t", "leap", "--cron", "0 0 0 29 2 *", "--body", "x"];
    home.grus(&leap).ok();
    home.grus(&leap[..6]).refused();
    let berlin = ["--zone", "Europe/Berlin", "--queue", "1", "--missed", "all:5", "--key", "k"];
    let night = ["schedule", "create", "t", "night", "--cron", "30 2 * * *", "--body", "x"];
    home.grus(&[&night[..], &berlin].concat()).ok();
    grus("schedule create t hourly --every 1h --body x").ok();
    let listed = grus("schedule list t --runs 2").ok().text();
    let lines: Vec<&str> = listed.lines().collect();
    let [hourly, leap, night] = lines[..] else { panic!("{listed}") };
    assert!(hourly.starts_with("t/0/hourly  every 3600s  0 sent  "), "{hourly}");
    let expected = "t/0/leap  0 0 0 29 2 * UTC  0 sent  2028-02-29T00:00:00";
    assert!(leap.starts_with(expected) && leap.contains("2032-02-29T00:00:00"), "{leap}");
    assert!(night.starts_with("t/1/night  30 2 * * * Europe/Berlin  0 sent  "), "{night}");
    shown_over_http(&broker);

    for (words, told) in [
        ("create t x --every 10ms --body x", "out of bounds"),
        ("create t hourly --every 2h --body x", "has a schedule of this name"),
        ("create nobody x --every 1s --body x", "there is no topic"),
        ("create t x --every 1s --queue 9 --body x", "queue"),
        ("pause t nobody", "no schedule of this name"),
        ("delete t night", "no schedule of this name"), // it is in queue 1
    ] {
        let refused = grus(&format!("schedule {words}")).refused();
        assert!(refused.contains(told), "{words}: {refused}");
    }
    for (cron, zone, told) in [
        ("0 0 30 2 *", "UTC", "fits no day"),
        ("0 25 * * *", "UTC", "cron expression"),
        ("0 0 * * *", "Europe/Atlantis", "unknown time zone"),
    ] {
        let words = ["schedule", "create", "t", "x", "--cron", cron, "--zone", zone, "--body", "x"];
        let refused = home.grus(&words).refused();
        assert!(refused.contains(told), "{cron} {zone}: {refused}");
    }
    grus("schedule pause t hourly").ok();
    broker.kill();
    let _broker = home.start();
    let listed = grus("schedule list").ok().text();
    assert!(listed.contains("t/0/hourly  every 3600s  0 sent  paused"), "{listed}");
    let resumed = grus("schedule resume t hourly").ok().text();
    assert!(resumed.contains("runs next at 2"), "{resumed}");
    grus("schedule delete t night --queue 1").ok();
    grus("topic delete t").ok();
    assert_eq!(grus("schedule list").ok().text(), "", "gone with their topic");
}

/// The three schedules of the tool's test, page by page.
fn shown_over_http(broker: &Broker) {
    let page = |query: &str| -> Value {
        let (status, page) = broker.get(&format!("/schedules{query}"));
        assert_eq!(status, 200, "{page}");
        serde_json::from_str(&page).expect("JSON")
    };
    let all = page("?topic=t&runs=2");
    let schedules = all["schedules"].as_array().expect("a list");
    let names: Vec<&str> = schedules.iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!((names, &all["next"]), (vec!["hourly", "leap", "night"], &Value::Null));
    let [hourly, leap, night] = &schedules[..] else { panic!("{all}") };
    assert_eq!((&hourly["cron"], &hourly["everyMs"]), (&Value::Null, &3_600_000.into()));
    assert_eq!((&leap["zone"], leap["next"].as_array().map(Vec::len)), (&"UTC".into(), Some(2)));
    let told = (&night["queueId"], &night["zone"], &night["madeUpMax"], &night["paused"]);
    assert_eq!(told, (&1.into(), &"Europe/Berlin".into(), &5.into(), &false.into()));
    let first = page("?max=2");
    let next = first["next"].as_str().expect("there is more");
    let rest = page(&format!("?max=2&after={next}"));
    assert_eq!(rest["schedules"][0]["name"], "night");
    assert_eq!(
        (rest["schedules"].as_array().map(Vec::len), &rest["next"]),
        (Some(1), &Value::Null)
    );
    // A page that would have too many runs worked out is shorter.
    assert_eq!(page("?runs=100")["schedules"].as_array().map(Vec::len), Some(3));
    for (query, told) in [("?max=0", "max is"), ("?after=x", "after is"), ("?topic=x", "no topic")]
    {
        let (status, answer) = broker.get(&format!("/schedules{query}"));
        assert!((400..500).contains(&status) && answer.contains(told), "{query}: {answer}");
    }
    let (_, metrics) = broker.get("/metrics");
    assert!(metrics.contains("grus_schedules{") && metrics.contains("grus_schedule_runs_total{"));
    let counted = |line: &str| line.starts_with("grus_schedules_waiting{") && line.ends_with(" 3");
    // They are counted at a tick.
    let watch = Watch::start();
    while broker.get("/metrics").1.lines().filter(|line| counted(line)).count() != 1 {
        assert!(watch.elapsed() < PATIENCE, "{metrics}");
    }
}
