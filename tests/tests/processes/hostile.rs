//! What all attacks share: a broker with a well-behaved sender at work, which must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use grus_tests::broker::{Broker, Home};
use grus_tests::hostile::Peer;
use grus_tests::usage;
use grus_tests::watch::{PATIENCE, Watch};
use serde_json::Value;

use crate::stream::{Stream, check};
use crate::{create, read_all};

/// Receipts that must arrive before an attack, and after it.
const RECEIPTS: usize = 300;

/// A broker, and a sender that sends all the time.
pub struct Siege {
    /// Where the broker lives.
    pub home: Home,
    /// The broker.
    pub broker: Broker,
    enough: Arc<AtomicBool>,
    heard: mpsc::Sender<()>,
    hear: Receiver<()>,
    sender: Sender,
}

enum Sender {
    Works(JoinHandle<Stream>),
    Rests(Stream),
    Gone,
}

impl Siege {
    /// Starts both.
    pub fn begin(home: Home) -> Self {
        let broker = home.start();
        create(&home, "calm", 1);
        let (heard, hear) = channel();
        let sender = Sender::Rests(Stream::start(&home, "calm", &["--queue", "0"]));
        let mut siege = Self { home, broker, enough: Arc::default(), heard, hear, sender };
        siege.set_sender_to_work();
        siege.receipts();
        siege
    }

    /// The sender sends again.
    pub fn set_sender_to_work(&mut self) {
        let Sender::Rests(stream) = std::mem::replace(&mut self.sender, Sender::Gone) else {
            panic!("it works");
        };
        self.enough.store(false, SeqCst);
        let (wanted, heard) = (Arc::clone(&self.enough), self.heard.clone());
        self.sender = Sender::Works(thread::spawn(move || stream.run(&wanted, &heard)));
    }

    /// The sender has its receipts, and sends no more for now: what the broker does then is others'.
    pub fn have_sender_rest(&mut self) {
        let Sender::Works(sender) = std::mem::replace(&mut self.sender, Sender::Gone) else {
            panic!("it rests");
        };
        self.enough.store(true, SeqCst);
        self.sender = Sender::Rests(sender.join().expect("the sender runs to its end"));
    }

    /// Anonymous memory of the broker now, in KiB.
    pub fn memory_kib(&self) -> u64 {
        usage::anonymous_memory_kib(self.broker.process.pid())
    }

    /// What the broker's memory is made of, for a person.
    pub fn memory(&self) -> String {
        usage::memory_text(self.broker.process.pid())
    }

    fn receipts(&self) {
        while self.hear.try_recv().is_ok() {} // those of the time before
        for _ in 0..RECEIPTS {
            self.hear.recv_timeout(PATIENCE).expect("the calm sender gets its receipts");
        }
    }

    /// The broker serves on: the sender, and somebody new.
    pub fn goes_on(&mut self) {
        self.receipts();
        assert!(Peer::greeted(self.home.listen).is_served(), "somebody new");
        assert!(self.broker.process.ended().is_none(), "{}", self.broker.process.log());
    }

    /// Waits until `holds`.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let watch = Watch::start();
        while !holds(self) {
            assert!(!watch.left(PATIENCE).is_zero(), "{what}: not within {PATIENCE:?}");
            self.broker.process.next_line(Duration::from_millis(50)); // lets time pass
        }
    }

    /// How often the broker has written this, once it has.
    pub fn written(&mut self, what: &str) -> u64 {
        self.until(what, |siege| siege.broker.process.log().contains(what));
        self.broker.process.log().matches(what).count() as u64
    }

    /// Connections that the broker has, the sender's own included.
    pub fn connections(&self) -> u64 {
        let (_, health) = self.broker.get("/health");
        let health: Value = serde_json::from_str(&health).expect("JSON");
        health["connections"].as_u64().expect("a number of connections")
    }

    /// A counter of `/metrics`, summed over its labels.
    pub fn counter(&self, name: &str) -> u64 {
        let (_, text) = self.broker.get("/metrics");
        let ours = |line: &&str| line.starts_with(name) && !line.starts_with('#');
        let value = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok());
        text.lines().filter(ours).filter_map(value).sum()
    }

    /// Ends the sender: every message is there once, in order, and nothing in the broker panicked.
    pub fn end(mut self) {
        self.goes_on();
        self.have_sender_rest();
        let Sender::Rests(stream) = self.sender else { unreachable!("it rests") };
        let sent = stream.end();
        check("calm", sent.lines, &sent.receipts, &read_all(&self.home, "calm"));
        let (status, actors) = self.broker.get("/actors");
        assert_eq!(status, 200);
        let actors: Value = serde_json::from_str(&actors).expect("JSON");
        for kind in actors["kinds"].as_array().expect("a list of kinds") {
            assert_eq!(kind["restarts"], 0, "{kind}");
        }
        self.broker.process.next_line(Duration::ZERO); // takes in what it logged
        assert!(!self.broker.process.log().contains("panic"), "{}", self.broker.process.log());
    }
}
