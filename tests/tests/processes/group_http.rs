//! Consumer groups as HTTP and metrics show them, and changed by HTTP, on real processes.

use std::time::Duration;

use grus_client::{Client, Consumer, ConsumerConfig, Message, Outcome, QueueId};
use grus_tests::broker::{Broker, Home};
use grus_tests::http;
use grus_tests::watch::Watch;
use serde_json::{Value, json};

use crate::create;
use crate::program::{block_on, connect};

/// Longest that anything here may keep one waiting, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(1);

fn json_of(broker: &Broker, path: &str) -> Value {
    let (status, text) = broker.get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn changed(broker: &Broker, path: &str) -> Value {
    let (status, text) = broker.change(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

fn refused(answer: &(u16, String)) -> (u16, String) {
    let body: Value = serde_json::from_str(&answer.1).expect("JSON");
    assert!(body["error"].is_string(), "{body}");
    (answer.0, body["code"].as_str().unwrap_or_default().to_owned())
}

/// The value of a series of `/metrics`.
fn metric(broker: &Broker, series: &str) -> f64 {
    let (_, text) = broker.get("/metrics");
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")));
    let line = line.unwrap_or_else(|| panic!("{series} is not in\n{text}"));
    line.rsplit(' ').next().expect("a value").parse().expect("a number")
}

async fn send(client: &Client, numbers: std::ops::Range<u32>) {
    let producer = client.producer(crate::producing::config("t")).expect("a producer");
    for number in numbers {
        let message = Message::new(number.to_string()).queue(QueueId(number % 2)).tag("even");
        producer.send(message).await.expect("it is stored");
    }
}

fn consumer(client: &Client) -> Consumer {
    let config = ConsumerConfig::new("g").expect("a name").subscribe("t", "*").expect("a topic");
    let mut config = config;
    config.options.ladder_ms = Some(vec![1]);
    config.options.max_deliveries = Some(2);
    config.options.session_ms = Some(600_000); // it does not leave for a machine that is busy
    client.consumer(config).expect("a consumer")
}

/// Handles `count` messages: 3 fails each time, 5 is given up at once, 7 is left as it is. Their
/// numbers, and what must be kept.
async fn handle(consumer: &mut Consumer, count: usize) -> (Vec<u32>, Vec<grus_client::Handed>) {
    let (mut seen, mut kept) = (Vec::new(), Vec::new());
    while seen.len() < count {
        let handed = consumer.next().await.expect("a message");
        let number = std::str::from_utf8(handed.body()).expect("text").parse().expect("a number");
        seen.push(number);
        match number {
            3 => handed.answer(Outcome::Nack("no stock".to_owned())),
            5 => handed.answer(Outcome::DeadLetter("no such customer".to_owned())),
            7 => kept.push(handed),
            _ => handed.ack().await.expect("the broker knows"),
        }
    }
    (seen, kept)
}

/// Looks again until it is so: what is settled is told by the broker that has settled it.
fn until(broker: &Broker, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Watch::start();
    loop {
        let now = json_of(broker, path);
        if is_so(&now) {
            return now;
        }
        assert!(begun.elapsed() < PATIENCE, "it stays so: {now}");
    }
}

#[test]
fn a_group_is_shown_as_it_is_and_its_dead_letters_go_back_by_http() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "t", 2);
    assert_eq!(json_of(&broker, "/groups"), json!({ "groups": [], "next": null }));
    block_on(async {
        let client = connect(&home).await;
        send(&client, 0..10).await;
        let mut consumer = consumer(&client);
        let (seen, kept) = handle(&mut consumer, 11).await; // 3 comes twice
        assert_eq!(seen.iter().filter(|number| **number == 3).count(), 2);
        let listed =
            until(&broker, "/groups", |page| page["groups"][0]["sums"]["deadLetters"] == 2);
        shown(&broker, &listed);
        let letters = letters_shown(&broker);
        guarded(&home, &broker);

        let path = format!("/groups/g/dead-letters/redrive?letters={}", letters[0]);
        let back = json!({ "redriven": 1, "more": false, "queuesElsewhere": 0 });
        assert_eq!(changed(&broker, &path), back);
        let again = consumer.next().await.expect("it comes again");
        assert_eq!((again.body(), again.deliveries), (&b"3"[..], 0));
        again.ack().await.expect("the broker knows");
        assert_eq!(changed(&broker, &path)["redriven"], 0, "once");
        let purged = changed(&broker, "/groups/g/dead-letters/purge?all=true");
        assert_eq!(purged, json!({ "purged": 1, "more": false, "queuesElsewhere": 0 }));
        let none = json_of(&broker, "/groups/g/dead-letters");
        assert_eq!(none, json!({ "letters": [], "next": null }));

        let moved = changed(&broker, "/groups/g/reset?topic=t&queue=0&to=offset:2");
        assert_eq!(moved["queues"], json!([{ "queueId": 0, "floor": 2, "resets": 1 }]));
        let (mut seen, _) = handle(&mut consumer, 3).await;
        seen.sort_unstable();
        assert_eq!(seen, [4, 6, 8], "what lies behind it");
        let moved = changed(&broker, "/groups/g/reset?topic=t&to=last");
        assert_eq!(
            (&moved["queues"][1]["floor"], &moved["queuesElsewhere"]),
            (&6.into(), &0.into())
        );
        let no = refused(&broker.change("/groups/g/delete"));
        assert_eq!(no, (409, "GroupNotEmpty".to_owned()));
        drop(kept);
        consumer.stop().await;
        let id = json_of(&broker, "/groups/g")["groupId"].clone();
        let other = refused(&broker.change("/groups/g/delete?groupId=7"));
        assert_eq!(other, (404, "UnknownGroup".to_owned()));
        let gone = changed(&broker, "/groups/g/delete");
        assert_eq!(gone, json!({ "group": "g", "groupId": id }));
        assert_eq!(refused(&broker.get("/groups/g")), (404, "UnknownGroup".to_owned()));
        assert_eq!(json_of(&broker, "/groups")["groups"], json!([]));
        client.close().await;
    });
}

/// What 0 to 9 have come to: 8 of 10 passed, of them 3 and 5 dead; 7 is in the member's hands.
fn shown(broker: &Broker, listed: &Value) {
    let group = &listed["groups"][0];
    assert_eq!((&group["group"], &group["members"]), (&"g".into(), &1.into()));
    assert_eq!(
        (&group["coordinated"], &group["settings"]["model"]),
        (&true.into(), &"cluster".into())
    );
    assert_eq!(group["settings"]["ladderMs"], json!([1]));
    let whole = until(broker, "/groups/g", |page| page["sums"]["settled"] == 7);
    let sums = &whole["sums"];
    assert_eq!((&sums["lag"], &sums["queues"], &sums["dead"]), (&1.into(), &2.into(), &2.into()));
    let member = &whole["memberList"][0];
    let subscriptions = json!([{ "topics": "t", "filter": "*" }]);
    assert_eq!((&member["queues"], &member["subscriptions"]), (&2.into(), &subscriptions));
    assert!(member["address"].as_str().expect("text").starts_with("127.0.0.1:"), "{member}");
    assert_eq!((&whole["queuesElsewhere"], &whole["next"]), (&0.into(), &Value::Null));
    let [even, odd] = whole["queueList"].as_array().expect("a list").as_slice() else {
        panic!("{whole}")
    };
    for queue in [even, odd] {
        assert_eq!((&queue["topic"], &queue["endOffset"]), (&"t".into(), &5.into()));
        assert_eq!((&queue["owner"], &queue["claimedBy"]), (&member["member"], &member["member"]));
    }
    assert_eq!(
        (&even["floor"], &even["lag"], &even["oldest"]),
        (&5.into(), &0.into(), &Value::Null)
    );
    assert_eq!((&odd["floor"], &odd["lag"], &odd["dead"]), (&3.into(), &1.into(), &2.into()));
    assert!(odd["oldest"].as_u64() > Some(1_700_000_000_000), "{odd}");
    let page = json_of(broker, "/groups/g?max=1");
    assert_eq!(page["queueList"], json!([whole["queueList"][0]]));
    let next = page["next"].as_str().expect("a place");
    let rest = json_of(broker, &format!("/groups/g?max=1&after={next}"));
    assert_eq!(rest["queueList"], json!([whole["queueList"][1]]));

    assert!((metric(broker, "grus_group_members{group=\"g\"}") - 1.0).abs() < 0.1);
    for (series, least) in [
        ("grus_group_lag_messages{group=\"g\"}", 1.0),
        ("grus_group_dead_letters{group=\"g\"}", 2.0),
        ("grus_group_generations_total{group=\"g\"}", 1.0),
        ("grus_group_deliveries_total{group=\"g\"}", 11.0),
        ("grus_group_redeliveries_total{group=\"g\"}", 1.0),
        ("grus_group_nacks_total{group=\"g\"}", 2.0),
        ("grus_group_settled_messages_total{group=\"g\",outcome=\"acknowledged\"}", 7.0),
        ("grus_group_settled_messages_total{group=\"g\",outcome=\"dead\"}", 2.0),
    ] {
        let is = metric(broker, series);
        assert!(is >= least, "{series} {is}, not {least}");
    }
    assert!(metric(broker, "grus_group_lag_seconds{group=\"g\"}") >= 0.0);
}

/// The dead letters, each alone and all together; their places, 3's first.
fn letters_shown(broker: &Broker) -> Vec<String> {
    let page = json_of(broker, "/groups/g/dead-letters");
    let mut letters = page["letters"].as_array().expect("a list").clone();
    assert_eq!((letters.len(), &page["next"]), (2, &Value::Null));
    letters.sort_by_key(|letter| letter["origin"]["offset"].as_u64());
    for (letter, (offset, reason, deliveries)) in
        letters.iter().zip([(1, "no stock", 2), (2, "no such customer", 1)])
    {
        assert_eq!(letter["origin"], json!({ "topic": "t", "queueId": 1, "offset": offset }));
        assert_eq!(
            (&letter["reason"], &letter["deliveries"]),
            (&reason.into(), &deliveries.into())
        );
        assert_eq!(letter["message"]["tag"], "even");
        let place = letter["letter"].as_str().expect("a place");
        let alone = json_of(broker, &format!("/groups/g/dead-letters/{place}"));
        assert_eq!(&alone, letter);
    }
    assert_eq!(letters[0]["message"]["body"]["value"], "3");
    let first = json_of(broker, "/groups/g/dead-letters?max=1");
    let next = first["next"].as_str().expect("a place");
    let second = json_of(broker, &format!("/groups/g/dead-letters?max=1&after={next}"));
    assert_eq!(json!([first["letters"][0], second["letters"][0]]), page["letters"]);
    for (path, status) in [
        ("/groups/g/dead-letters/0/99", 416),
        ("/groups/g/dead-letters/9/0", 404),
        ("/groups/g/dead-letters/a/0", 400),
        ("/groups/g/dead-letters?max=0", 400),
        ("/groups/nobody/dead-letters", 404),
        ("/groups/nobody", 404),
        ("/groups/no%2Fbody", 400),
        ("/groups/grus.producer-names", 400), // it stands for something else
        ("/groups/grus.producer-names/dead-letters", 400),
        ("/groups?max=0", 400),
        ("/groups/g?after=x", 400),
        ("/groups/g/reset", 405),
    ] {
        assert_eq!(refused(&broker.get(path)).0, status, "{path}");
    }
    let place = |letter: &Value| letter["letter"].as_str().expect("a place").to_owned();
    letters.iter().map(place).collect()
}

/// Nothing is changed by one who does not mean it, nor by a page of another origin.
fn guarded(home: &Home, broker: &Broker) {
    let path = "/groups/g/dead-letters/purge?all=true";
    let meant = "Grus-Change: yes\r\n";
    let cross = format!("{meant}Origin: http://localhost:1\r\n");
    let site = format!("{meant}Sec-Fetch-Site: cross-site\r\n");
    for headers in ["", "Origin: http://evil.example\r\n", &cross, &site] {
        let answer = http::post_with(home.http, path, headers).expect("an answer");
        assert_eq!(refused(&answer).0, 403, "{headers}");
    }
    for path in [
        "/groups/g/dead-letters/purge",
        "/groups/g/dead-letters/purge?letters=0/1&all=true",
        "/groups/g/dead-letters/redrive?letters=x",
        "/groups/g/reset?topic=t",
        "/groups/grus.producer-names/reset?topic=t&to=first",
        "/groups/grus.producer-names/dead-letters/purge?all=true",
        "/groups/g/reset?topic=t&to=yesterday",
    ] {
        assert_eq!(refused(&broker.change(path)).0, 400, "{path}");
    }
    assert_eq!(refused(&broker.change("/groups/g")).0, 405);
    assert_eq!(refused(&broker.change("/groups/g/reset?topic=none&to=first")).0, 404);
    assert_eq!(json_of(broker, "/groups/g")["sums"]["deadLetters"], 2, "they are still there");
}
