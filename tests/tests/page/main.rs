//! The page at 7654, in a real browser, against a real broker.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod groups;

use std::path::PathBuf;

use grus_tests::broker::{Broker, Home};
use grus_tests::browser::Browser;
use grus_tests::watch::PATIENCE;
use serde_json::{Value, json};

/// Bodies that a page might stumble over, each one line of a file.
fn bodies() -> Vec<Vec<u8>> {
    vec![
        b"<script>window.harmed = 1; document.title = 'harmed'</script>".to_vec(),
        b"<img src=x onerror=\"window.harmed = 2\"><b>bold</b>".to_vec(),
        b"\xff\xfe\x00\x01 bytes".to_vec(),
        Vec::new(),
        b"{\"order\":17,\"html\":\"</script><i>x</i>\",\"items\":[1,2]}".to_vec(),
        vec![b'x'; 1 << 20],
        "caf\u{e9} \u{202e}turned\u{202c} \u{1f4ee}".as_bytes().to_vec(),
    ]
}

/// Sends messages to queue 0, with a key to the one queue there is.
fn produce(home: &Home, topic: &str, bodies: &[Vec<u8>], more: &[&str]) {
    let mut input = bodies.join(&b'\n');
    input.push(b'\n');
    let queue: &[&str] = if more.contains(&"--key") { &[] } else { &["--queue", "0"] };
    home.grus_fed(&[&["produce", topic], queue, more].concat(), &input).ok();
}

fn create(home: &Home, topic: &str) {
    home.grus(&["topic", "create", topic, "--queues", "1"]).ok();
}

fn json_of(broker: &Broker, path: &str) -> Value {
    let (status, text) = broker.get(path);
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Opens a view and waits until it shows what the broker said.
fn open(browser: &Browser, home: &Home, view: &str) {
    let name = view.split('?').next().unwrap();
    browser.open("about:blank"); // a change of the part behind # alone loads nothing
    browser.open(&format!("http://{}/#/{view}", home.http));
    browser.wait_for(
        name,
        "document.getElementById('main').dataset.loaded === given",
        &json!(name),
    );
}

/// The cells of a table, as text, row by row.
const CELLS: &str = "Array.from(document.querySelectorAll(`table[data-name='${given}'] tbody tr`), \
                     (row) => Array.from(row.children, (cell) => cell.textContent))";

fn cells(browser: &Browser, table: &str) -> Vec<Vec<String>> {
    let rows = browser.run(&format!("const [given] = arguments; return {CELLS}"), &json!(table));
    serde_json::from_value(rows).unwrap()
}

fn grouped(value: &Value) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nothing came from elsewhere, nothing of a message became a part of the page, and the browser
/// has nothing to complain about but `expected`.
fn unharmed(browser: &Browser, expected: &[&str]) {
    let harm = browser.run(
        "return [window.harmed, document.title.includes('harmed'), \
         document.querySelectorAll('main script, main img, main b, main i').length, \
         performance.getEntriesByType('resource').filter((one) => !one.name.startsWith(location.origin)).length]",
        &Value::Null,
    );
    assert_eq!(harm, json!([null, false, 0, 0]));
    let unexpected = |line: &String| !expected.iter().any(|part| line.contains(part));
    let complaints: Vec<_> = browser.complaints().into_iter().filter(unexpected).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn s37_page_and_api_show_the_same_numbers_and_what_was_sent() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let broker = home.start();
    open(&browser, &home, "queues");
    let empty =
        browser.wait_for("word", "document.querySelector('main .empty').textContent", &Value::Null);
    assert!(empty.as_str().unwrap().starts_with("No queue."), "{empty}");
    let bodies = bodies();
    create(&home, "orders");
    produce(
        &home,
        "orders",
        &bodies,
        &["--tag", "<u>tag</u>", "--key", "17", "--header", "x=<b>y</b>"],
    );
    produce(&home, "other", &vec![b"n".to_vec(); 1_200], &[]);

    let is_whole = format!("{CELLS}.length === 5 && {CELLS}[1][3] === '1,200'");
    browser.wait_for("new queues, by itself", &is_whole, &json!("Queues"));
    let listed = json_of(&broker, "/queue/list");
    let shown = cells(&browser, "Queues");
    for (row, queue) in shown.iter().zip(listed.as_array().unwrap()) {
        let expected = [
            queue["topic"].as_str().unwrap().to_owned(),
            queue["queueId"].to_string(),
            queue["type"].as_str().unwrap().to_owned(),
            grouped(&queue["writePointer"]),
            grouped(&queue["flushPointer"]),
            grouped(&queue["messageNumber"]),
        ];
        assert_eq!(row[..6], expected);
    }
    assert_eq!(shown[0][5], bodies.len().to_string(), "as many as were sent");
    assert_eq!(shown[1][3], "1,200");

    open(&browser, &home, "messages?topic=orders&queue=0&from=first");
    let page = json_of(&broker, "/messages?topic=orders&from=first");
    let shown = browser.run(
        "return Array.from(document.querySelectorAll('.message'), (item) => {
           item.open = true;
           item.dispatchEvent(new Event('toggle'));
           return [item.dataset.offset, item.querySelector('dl').innerText, item.querySelector('.body pre')?.textContent ?? null];
         })",
        &Value::Null,
    );
    let shown = shown.as_array().unwrap();
    assert_eq!(shown.len(), bodies.len());
    for (item, message) in shown.iter().zip(page["messages"].as_array().unwrap()) {
        assert_eq!(item[0].as_str().unwrap(), message["offset"].to_string());
        let facts = item[1].as_str().unwrap();
        for fact in [message["id"].as_str().unwrap(), "<u>tag</u>", "17"] {
            assert!(facts.contains(fact), "{fact} in {facts}");
        }
    }
    let text = |at: usize| shown[at][2].as_str().unwrap_or_default().to_owned();
    for at in [0, 1, 6] {
        assert_eq!(text(at).as_bytes(), bodies[at], "shown as it was sent");
    }
    assert!(text(2).starts_with("00000000  ff fe 00 01 20 62 79 74 65 73"), "{}", text(2));
    assert_eq!(shown[3][2], Value::Null, "an empty body has no text");
    assert_eq!(
        text(4),
        "{\n  \"order\": 17,\n  \"html\": \"</script><i>x</i>\",\n  \"items\": [\n    1,\n    2\n  ]\n}"
    );
    assert_eq!(text(5).len(), 4096);
    let header = browser.run("return document.querySelector('.headers').innerText", &Value::Null);
    assert_eq!(header, "x\n<b>y</b>");
    whole_body(&browser);
    let id = page["messages"][2]["id"].as_str().unwrap();
    found(&browser, &home, id, bodies.len());
    unharmed(&browser, &[]);
}

/// A body of 1 MiB is shown whole when that is asked for.
fn whole_body(browser: &Browser) {
    browser.run(
        "document.querySelector('.message[data-offset=\"5\"] .tools button').click()",
        &Value::Null,
    );
    let whole =
        "document.querySelector('.message[data-offset=\"5\"] pre').textContent.length === given";
    browser.wait_for("whole body", whole, &json!(1 << 20));
}

/// The third message is found by its id, and all of them by their key.
fn found(browser: &Browser, home: &Home, id: &str, count: usize) {
    open(browser, home, &format!("messages?id={id}"));
    let offsets =
        "Array.from(document.querySelectorAll('.message'), (item) => item.dataset.offset)";
    let found = browser.run(&format!("return {offsets}"), &Value::Null);
    assert_eq!(found, json!(["2"]), "found by its id");
    let search = "const form = document.querySelector('form.find'); \
                  form.elements.by.value = 'key'; form.elements.topic.value = 'orders'; \
                  form.elements.text.value = '17'; form.requestSubmit()";
    browser.run(search, &Value::Null);
    browser.wait_for("the key's", &format!("{offsets}.length === given"), &json!(count));
}

#[test]
fn a_queue_is_browsed_to_and_fro() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let _broker = home.start();
    let bodies: Vec<_> = (0..130).map(|number| format!("line {number}").into_bytes()).collect();
    produce(&home, "long", &bodies, &[]);
    let at = "[document.querySelector('.message')?.dataset.offset, document.querySelectorAll('.message').length].join()";
    let wait = |place: &str| {
        browser.wait_for(place, &format!("{at} === given"), &json!(place));
    };
    let press = |name: &str| {
        let script = "const [name] = arguments; Array.from(document.querySelectorAll('.pager button')).find((one) => one.textContent === name).click()";
        browser.run(script, &json!(name));
    };
    open(&browser, &home, "queues");
    browser.run("document.querySelector('table[data-name=Queues] a').click()", &Value::Null);
    wait("80,50"); // the newest
    press("Older");
    wait("30,50");
    press("Older");
    wait("0,50");
    press("Newer");
    wait("50,50");
    browser.run("history.back()", &Value::Null);
    wait("0,50");
    press("Newest");
    wait("80,50");
    produce(&home, "long", &[b"one more".to_vec()], &[]);
    wait("81,50"); // the newest, by itself
    let script = "const form = document.querySelector('form'); form.elements.where.value = 'offset'; \
                  form.elements.offset.value = '125'; form.requestSubmit()";
    browser.run(script, &Value::Null);
    wait("125,6");
    let queue = "const form = document.querySelector('form'); form.elements.queue.value = '1'; form.requestSubmit()";
    browser.run(queue, &Value::Null);
    browser.wait_for(
        "word",
        "document.querySelector('#list .empty').textContent === given",
        &json!("This queue has no messages."),
    );
    unharmed(&browser, &[]);
}

#[test]
fn who_is_connected_is_shown_while_they_are_and_actors_move() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let broker = home.start();
    produce(&home, "orders", &[b"a".to_vec()], &[]);
    let mut reader = home.grus_running(&["consume", "orders", "--from", "first"]);
    assert_eq!(reader.next_line(PATIENCE), Some(b"a".to_vec()));
    open(&browser, &home, "clients");
    browser.wait_for("readers", &format!("{CELLS}.length === 4"), &json!("Readers"));
    browser.wait_for("the sender's end", &format!("{CELLS}.length === 1"), &json!("Clients"));
    let listed = json_of(&broker, "/clients");
    let client = &listed["clients"][0];
    let shown = cells(&browser, "Clients");
    assert_eq!(shown.len(), 1);
    let name =
        format!("{}{}", client["clientId"].as_str().unwrap(), client["software"].as_str().unwrap());
    assert_eq!(shown[0][..2], [name, client["address"].as_str().unwrap().to_owned()]);
    assert_eq!(cells(&browser, "Readers").len(), client["readers"].as_array().unwrap().len());
    reader.kill();
    browser.wait_for("empty list", &format!("{CELLS}.length === 0"), &json!("Clients"));

    open(&browser, &home, "actors");
    let handled = "Number(Array.from(document.querySelectorAll(\"table[data-name='Kinds of actors'] tr\")).find((row) => row.children[0].textContent === 'Shard').children[4].textContent.replaceAll(',', ''))";
    let before = browser.run(&format!("return {handled}"), &Value::Null);
    browser.wait_for("change", &format!("{handled} > given"), &before);
    let kinds: Vec<_> =
        cells(&browser, "Kinds of actors").into_iter().map(|row| row[0].clone()).collect();
    let listed = json_of(&broker, "/actors");
    let expected: Vec<_> = listed["kinds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|kind| kind["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, expected);

    open(&browser, &home, "topics");
    let topics = json_of(&broker, "/topics");
    let shown = cells(&browser, "Topics");
    assert_eq!(shown.len(), topics.as_array().unwrap().len());
    assert_eq!(shown[0][..5], ["orders", "durable", "persisted", "4", "1"].map(str::to_owned));
    open(&browser, &home, "config");
    let settings = json_of(&broker, "/config");
    let shown = cells(&browser, "Configuration");
    for (row, setting) in shown.iter().zip(settings.as_array().unwrap()) {
        assert_eq!(row[1], setting["value"].as_str().unwrap());
        assert_eq!(row[2], setting["source"].as_str().unwrap());
    }
    assert_eq!(shown.len(), settings.as_array().unwrap().len());
    unharmed(&browser, &[]);
}

#[test]
fn errors_are_told_and_a_broker_that_comes_back_is_shown_again() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let broker = home.start();
    produce(&home, "orders", &[b"a".to_vec()], &[]);
    open(&browser, &home, "messages?topic=nothing&queue=0");
    let error = "document.querySelector('main .error')?.textContent";
    assert_eq!(browser.wait_for("error", error, &Value::Null), "there is no topic nothing");
    open(&browser, &home, "messages?topic=orders&queue=77");
    let told = browser.wait_for("error", error, &Value::Null);
    assert!(told.as_str().unwrap().contains("no queue 77"), "{told}");
    unharmed(&browser, &["404"]);

    open(&browser, &home, "queues");
    let state = "document.body.dataset.state === given";
    browser.wait_for("live state", state, &json!("live"));
    broker.kill();
    browser.wait_for("lost state", state, &json!("lost"));
    let told = browser.run("return document.getElementById('lost').innerText", &Value::Null);
    assert!(told.as_str().unwrap().contains("does not answer"), "{told}");
    assert_eq!(cells(&browser, "Queues").len(), 4, "what is known stays");
    let broker = home.start();
    produce(&home, "orders", &[b"b".to_vec()], &[]);
    browser.wait_for("live state", state, &json!("live"));
    browser.wait_for("second message", &format!("{CELLS}[0][5] === '2'"), &json!("Queues"));
    let hidden = browser.run("return document.getElementById('lost').hidden", &Value::Null);
    assert_eq!(hidden, true);
    unharmed(&browser, &["net::ERR_"]); // however the request ended that was under way
    drop(broker);
}

/// `GRUS_TEST_PICTURES=folder` keeps the pictures, to be looked at.
#[test]
fn every_view_fits_wide_and_narrow_windows_light_and_dark() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let _broker = home.start();
    create(&home, "orders");
    produce(&home, "orders", &bodies(), &["--tag", "paid", "--key", "17", "--header", "trace=abc"]);
    produce(
        &home,
        "a.topic-with_a.very-long.name-that.has_no-place.to.break.in.it",
        &vec![b"n".to_vec(); 60],
        &[],
    );
    let mut reader = home.grus_running(&["consume", "orders", "--from", "first"]);
    assert!(reader.next_line(PATIENCE).is_some());
    let folder = std::env::var_os("GRUS_TEST_PICTURES").map(PathBuf::from);
    for view in [
        "queues",
        "topics",
        "messages?topic=orders&queue=0&from=first",
        "groups",
        "clients",
        "actors",
        "health",
        "config",
    ] {
        for (width, dark) in [(1280, false), (400, false), (400, true)] {
            browser.look(width, 900, dark);
            open(&browser, &home, view);
            browser.run(
                "const item = document.querySelectorAll('.message')[4]; if (item) item.open = true",
                &Value::Null,
            );
            let sizes = browser.run("return [document.documentElement.scrollWidth, innerWidth, getComputedStyle(document.body).backgroundColor]", &Value::Null);
            assert!(sizes[0].as_u64() <= sizes[1].as_u64(), "{view} at {width}: {sizes}");
            let ground = if dark { "rgb(20, 23, 26)" } else { "rgb(251, 251, 249)" };
            assert_eq!(sizes[2], ground, "{view}");
            if let Some(folder) = &folder {
                let name = view.split('?').next().unwrap();
                let shade = if dark { "dark" } else { "light" };
                browser.picture(&folder.join(format!("{name}-{width}-{shade}.png")));
            }
        }
    }
    unharmed(&browser, &[]);
}

#[test]
fn what_is_scheduled_is_shown_as_it_is_and_goes_when_it_is_recalled() {
    let Some(browser) = Browser::start() else { return };
    let home = Home::new();
    let broker = home.start();
    create(&home, "later");
    let bodies = [b"<script>window.harmed = 3</script>".to_vec(), b"plain".to_vec()];
    produce(&home, "later", &bodies, &["--delay", "1h"]);
    produce(&home, "later", &[b"first".to_vec()], &["--delay", "30m"]);
    open(&browser, &home, "scheduled");
    browser.wait_for("three rows", &format!("{CELLS}.length === 3"), &json!("Scheduled"));
    let listed = json_of(&broker, "/scheduled");
    assert_eq!(listed["pending"], 3);
    let shown = cells(&browser, "Scheduled");
    for (row, message) in shown.iter().zip(listed["messages"].as_array().unwrap()) {
        let body = message["message"]["body"]["value"].as_str().unwrap();
        let handle = message["handle"].as_str().unwrap();
        assert_eq!((row[2].as_str(), row[4].as_str(), row[6].as_str()), ("later", handle, body));
    }
    assert_eq!(shown[0][6], "first", "the earliest first");
    home.grus(&["delay", "recall", &shown[0][4]]).ok();
    browser.wait_for("two rows, by itself", &format!("{CELLS}.length === 2"), &json!("Scheduled"));

    let night = ["schedule", "create", "later", "night", "--cron", "30 2 * * *", "--body", "x"];
    home.grus(&night).ok();
    browser.wait_for("a schedule", &format!("{CELLS}.length === 1"), &json!("Recurring"));
    let shown = cells(&browser, "Recurring");
    let (schedule, told) = (&json_of(&broker, "/schedules")["schedules"][0], &shown[0]);
    assert_eq!((told[0].as_str(), told[3].as_str()), ("night", "30 2 * * * (UTC)"));
    assert_eq!((schedule["name"].as_str(), told[6].as_str()), (Some("night"), "0"));
    home.grus(&["schedule", "pause", "later", "night"]).ok();
    let rests = format!("{CELLS}[0][4] === 'paused'");
    browser.wait_for("that it rests, by itself", &rests, &json!("Recurring"));
    unharmed(&browser, &[]);
}
