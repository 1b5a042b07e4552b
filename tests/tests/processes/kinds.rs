//! Kinds of topics side by side, as scenario S31 has it.

use grus_tests::broker::Home;

use crate::{create, kept, numbered, read_all};

const LINES: usize = 50;

#[test]
fn s31_messages_wait_for_a_consumer_and_a_restart_takes_the_temporary_ones_alone() {
    let home = Home::new();
    let broker = home.start();
    create(&home, "stored", 1);
    for (topic, kind) in [("later", "delay"), ("now", "temporary")] {
        home.grus(&["topic", "create", topic, "--queues", "1", "--kind", kind]).ok();
    }
    let lines = numbered("line", LINES);
    home.grus_fed(&["produce", "stored"], lines.as_bytes()).ok();
    home.grus_fed(&["produce", "later", "--delay", "1h"], lines.as_bytes()).ok();
    let sent = home.grus_fed(&["produce", "now", "--json"], lines.as_bytes()).ok().json();
    assert!(sent.iter().all(|receipt| receipt["durability"] == "memory"), "{:?}", sent[0]);
    let line = home.grus_fed(&["produce", "now", "--delay", "1h"], b"x\n").refused();
    assert!(line.contains("temporary"), "{line}");
    // Nobody was there: whoever comes first gets all of it, in order.
    for topic in ["stored", "now"] {
        let bodies: Vec<String> =
            read_all(&home, topic).into_iter().filter_map(|message| message.body).collect();
        assert_eq!(bodies.join("\n") + "\n", lines, "{topic}");
    }
    let last = read_all(&home, "now").last().map(|message| message.offset);

    broker.kill();
    let _broker = home.start();
    assert_eq!(read_all(&home, "stored").len(), LINES);
    let waiting = home.grus(&["delay", "list", "later", "--count"]).ok().text();
    assert_eq!(waiting.trim(), LINES.to_string());
    assert_eq!(kept(&home, "now"), 0, "gone with the broker");
    home.grus_fed(&["produce", "now"], b"again\n").ok();
    let read = read_all(&home, "now");
    assert_eq!(read.len(), 1);
    assert!(Some(read[0].offset) > last, "no offset is used twice");
}
