//! A sender that is fed numbered lines for as long as it is wanted, and the check of what is kept of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::Sender;
use std::time::Duration;

use grus_tests::broker::Home;
use grus_tests::process::Process;
use grus_tests::watch::{PATIENCE, Watch};

use crate::{Entry, entries};

/// Lines sent whose receipts are not here yet. Together they fit a pipe, so writing never blocks.
const WINDOW: usize = 300;

/// A `grus produce` that is fed numbered lines for as long as it is wanted.
pub struct Stream {
    topic: &'static str,
    sender: Process,
    input: ChildStdin,
    sent: usize,
    receipts: Vec<Entry>,
    longest_wait: Duration,
}

/// What a stream has sent.
pub struct Sent {
    /// How many lines.
    pub lines: usize,
    /// The receipt of each.
    pub receipts: Vec<Entry>,
    /// The longest time between two receipts.
    pub longest_wait: Duration,
}

impl Stream {
    /// Starts it; `options` are those of `grus produce`.
    pub fn start(home: &Home, topic: &'static str, options: &[&str]) -> Self {
        let mut arguments = vec!["produce", topic, "--json", "--timeout", "120s"];
        arguments.extend_from_slice(options);
        let mut sender = home.grus_running(&arguments);
        let input = sender.take_input();
        Self { topic, sender, input, sent: 0, receipts: Vec::new(), longest_wait: Duration::ZERO }
    }

    /// Feeds it until `enough`, then waits for all receipts; tells `heard` of each.
    pub fn run(mut self, enough: &AtomicBool, heard: &Sender<()>) -> Self {
        loop {
            while !enough.load(SeqCst) && self.sent - self.receipts.len() < WINDOW {
                self.sent += 1;
                let line = line(self.topic, self.sent);
                self.input.write_all(line.as_bytes()).expect("an open pipe");
                self.input.write_all(b"\n").expect("an open pipe");
            }
            if self.sent == self.receipts.len() {
                return self;
            }
            let watch = Watch::start();
            let receipt = self.sender.next_line(PATIENCE);
            if !self.receipts.is_empty() {
                self.longest_wait = self.longest_wait.max(watch.elapsed());
            }
            let receipt = receipt.unwrap_or_else(|| panic!("no receipt: {}", self.sender.log()));
            let object = serde_json::from_slice(&receipt).expect("a JSON object");
            self.receipts.extend(entries(&[object]));
            let _ = heard.send(()); // the test may have heard enough
        }
    }

    /// Ends it; it must have nothing to complain of.
    pub fn end(mut self) -> Sent {
        drop(self.input);
        let status = self.sender.wait(PATIENCE);
        assert!(status.success(), "{}: {}", self.topic, self.sender.log());
        Sent { lines: self.sent, receipts: self.receipts, longest_wait: self.longest_wait }
    }
}

/// The text of a line: its number, and a length that differs from line to line.
fn line(topic: &str, number: usize) -> String {
    format!("{topic} {number} {}", "x".repeat(number * 37 % 150))
}

/// What was receipted is there, at its place; nothing is there twice; order is kept.
pub fn check(topic: &str, sent: usize, receipts: &[Entry], read: &[Entry]) {
    assert_eq!(receipts.len(), sent, "{topic}: a receipt for each line");
    assert_eq!(read.len(), sent, "{topic}: each line once");
    let ids: BTreeSet<&str> = read.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(ids.len(), sent, "{topic}: an id is there twice");
    let mut queues: BTreeMap<u64, (u64, usize)> = BTreeMap::new();
    let numbers: BTreeMap<String, usize> =
        (1..=sent).map(|number| (line(topic, number), number)).collect();
    for message in read {
        let body = message.body.as_deref().expect("text");
        let number = *numbers.get(body).unwrap_or_else(|| panic!("{topic}: nobody sent {body}"));
        let (next, last) = queues.entry(message.queue).or_insert((0, 0));
        assert_eq!(message.offset, *next, "{topic}/{}: offsets are dense", message.queue);
        assert!(number > *last, "{topic}/{}: {number} after {last}", message.queue);
        (*next, *last) = (message.offset + 1, number);
        let receipt = &receipts[number - 1];
        let promised = (receipt.queue, receipt.offset, receipt.id.as_str());
        assert_eq!(
            (message.queue, message.offset, message.id.as_str()),
            promised,
            "{topic}: line {number}"
        );
    }
}

#[test]
fn the_check_finds_what_is_wrong() {
    let entry = |offset: u64, id: &str, number: usize| Entry {
        queue: 0,
        offset,
        id: id.to_owned(),
        body: Some(line("t", number)),
    };
    let receipts = [entry(0, "a", 1), entry(1, "b", 2), entry(2, "c", 3)];
    check("t", 3, &receipts, &receipts);
    let wrong: [(&str, Vec<Entry>); 5] = [
        ("lost", vec![entry(0, "a", 1), entry(1, "b", 2)]),
        ("twice", vec![entry(0, "a", 1), entry(1, "a", 1), entry(2, "c", 3)]),
        ("a gap", vec![entry(0, "a", 1), entry(2, "b", 2), entry(3, "c", 3)]),
        ("out of order", vec![entry(0, "b", 2), entry(1, "a", 1), entry(2, "c", 3)]),
        ("another id", vec![entry(0, "a", 1), entry(1, "b", 2), entry(2, "d", 3)]),
    ];
    for (what, read) in wrong {
        let found = std::panic::catch_unwind(|| check("t", 3, &receipts, &read));
        assert!(found.is_err(), "{what} was not found");
    }
}
