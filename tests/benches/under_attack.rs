//! How long a well-behaved client waits while others attack the same broker: for each attack, the
//! round trips of a sender and of a reader, one by one, against those of a quiet time before.
//!
//! `cargo bench -p grus-tests --bench under_attack [-- --seconds N] [--only ATTACK]`
//!
//! Not a test: a busy machine changes its numbers. The attackers are threads of this process, on the
//! same processors as broker and client; each kind does so many things a second and no more, as
//! otherwise it would measure how much processor is left.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use grus_protocol::TopicName;
use grus_protocol::ids::{QueueId, TopicId};
use grus_protocol::message::Ping;
use grus_tests::broker::Home;
use grus_tests::calm::{RATE, Waits, behave, fetch, produce, wait_until};
use grus_tests::hostile::{Peer, batch, framed, noise};
use grus_tests::random::Random;
use grus_tests::watch::Watch;

/// Connections of an attack that holds on to them.
const HELD: usize = 200;
/// Things done a second by an attack that does many.
const ATTACK_RATE: u64 = 500;

type Attack = fn(SocketAddr, &Flag);

const ATTACKS: [(&str, Attack); 7] = [
    ("half-open", half_open),
    ("never-reading", never_reading),
    ("asking-for-ever", asking_for_ever),
    ("noise", random_frames),
    ("slow-loris", slow_loris),
    ("giant-lengths", giant_lengths),
    ("long-polls", long_polls),
];

/// Whether an attack goes on, and what it has done.
#[derive(Default)]
struct Flag {
    over: AtomicBool,
    done: AtomicU64,
}

impl Flag {
    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Counts one thing, and waits so that there are no more than so many a second.
    fn pace(&self, watch: &Watch, per_second: u64) {
        let done = self.done.fetch_add(1, Relaxed) + 1;
        wait_until(watch, Duration::from_micros(done * 1_000_000 / per_second));
    }

    fn rest(&self) {
        while self.goes_on() {
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// Half a hello, or half a batch, and then nothing; those that are closed are replaced.
fn half_open(at: SocketAddr, flag: &Flag) {
    let half = framed(1, &produce("calm"), &batch(&[&vec![7; 64 << 10]]));
    let begin = |number: usize| {
        let mut peer =
            if number.is_multiple_of(2) { Peer::stranger(at) } else { Peer::greeted(at) };
        let part = if number.is_multiple_of(2) { 10 } else { half.len() / 2 };
        let _ = peer.try_send(&half[..part]);
        flag.done.fetch_add(1, Relaxed);
        peer
    };
    let _held: Vec<_> = (0..HELD).take_while(|_| flag.goes_on()).map(begin).collect();
    flag.rest();
}

/// Asks for 4 MiB at a time and reads nothing; comes again when it is cut off.
fn never_reading(at: SocketAddr, flag: &Flag) {
    let ask = framed(1, &fetch("large", 0, 4 << 20, 0), &[]);
    let watch = Watch::start();
    let mut peers: Vec<Peer> = (0..8).map(|_| Peer::greeted(at)).collect();
    while flag.goes_on() {
        for peer in &mut peers {
            if peer.send_some(&ask).is_err() {
                *peer = Peer::greeted(at);
            }
            flag.pace(&watch, ATTACK_RATE);
        }
    }
}

/// Pings and refused fetches without end, and reads nothing.
fn asking_for_ever(at: SocketAddr, flag: &Flag) {
    let asks = [framed(1, &Ping {}, &[]), framed(1, &fetch("calm", 1 << 40, 1, 0), &[])];
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::greeted(at)).collect();
    let watch = Watch::start();
    while flag.goes_on() {
        for (peer, ask) in peers.iter_mut().zip(asks.iter().cycle()) {
            if peer.send_some(&ask.repeat(20)).is_err() {
                *peer = Peer::greeted(at);
            }
            flag.pace(&watch, ATTACK_RATE);
        }
    }
}

/// Connects, sends noise or a frame that is right but for its header, and leaves.
fn random_frames(at: SocketAddr, flag: &Flag) {
    let mut random = Random::seeded("under attack");
    let watch = Watch::start();
    while flag.goes_on() {
        let mut bytes = noise(&mut random, 1_000);
        if random.below(2) == 0 {
            bytes[..8].copy_from_slice(&[0xe4, 3, 0, 0, 1, 1, 0, 0]); // a length that is right
        }
        let mut peer = Peer::stranger(at);
        let _ = peer.try_send(&bytes);
        drop(peer);
        flag.pace(&watch, ATTACK_RATE);
    }
}

/// A byte now and then on each of many connections.
fn slow_loris(at: SocketAddr, flag: &Flag) {
    let half = framed(1, &produce("calm"), &batch(&[&vec![7; 64 << 10]]));
    let begin = || (Peer::greeted(at), 0);
    let mut peers: Vec<(Peer, usize)> = (0..HELD).map(|_| begin()).collect();
    let watch = Watch::start();
    while flag.goes_on() {
        for (peer, sent) in &mut peers {
            if peer.try_send(&half[*sent..=*sent]).is_err() || *sent + 2 == half.len() {
                (*peer, *sent) = begin();
            }
            *sent += 1;
            flag.pace(&watch, 10 * HELD as u64);
        }
    }
}

/// Claims 4 GiB, or 16 MiB of which a little comes.
fn giant_lengths(at: SocketAddr, flag: &Flag) {
    let mut frame = framed(1, &produce("calm"), &[0; 1_000]);
    let watch = Watch::start();
    let mut held: Vec<Peer> = Vec::new();
    while flag.goes_on() {
        let length = if held.len().is_multiple_of(2) { u32::MAX } else { 16 << 20 };
        frame[..4].copy_from_slice(&length.to_le_bytes());
        let mut peer = Peer::greeted(at);
        let _ = peer.try_send(&frame);
        held.push(peer);
        if held.len() >= HELD {
            held.clear();
        }
        flag.pace(&watch, ATTACK_RATE);
    }
}

/// Thousands of long polls on the very queue that the others use.
fn long_polls(at: SocketAddr, flag: &Flag) {
    let mut peers: Vec<Peer> = (0..4).map(|_| Peer::greeted(at)).collect();
    for peer in &mut peers {
        let end = peer.call(&grus_protocol::message::ListOffsets {
            topic: TopicName::try_from("silent").expect("a name"),
            topic_id: TopicId::UNKNOWN,
            queue: QueueId(0),
            at: grus_protocol::message::ListAt::Last,
        });
        let end = end.map_or(0, |listed| listed.offset.0);
        let polls = framed(1, &fetch("silent", end, 1, 60_000), &[]).repeat(1_000);
        let _ = peer.try_send(&polls);
        flag.done.fetch_add(1_000, Relaxed);
    }
    // A message now and then wakes all of them.
    let mut waker = Peer::greeted(at);
    let watch = Watch::start();
    let mut round = 0;
    while flag.goes_on() {
        round += 1;
        wait_until(&watch, Duration::from_millis(100 * round));
        let _ = waker.call_with(&produce("silent"), &batch(&[b"wake"]));
    }
}

struct Line {
    name: String,
    sends: Waits,
    reads: Waits,
}

impl Line {
    fn print(&mut self, quiet: Option<(u64, u64)>, done: u64) {
        let (sent, read) = (self.sends.at(990), self.reads.at(990));
        #[expect(clippy::cast_precision_loss, reason = "a ratio for a person")]
        let ratio = |now: u64, before: u64| now as f64 / before.max(1) as f64;
        let against = quiet.map_or(String::new(), |(sends, reads)| {
            format!("{:>6.1}x {:>6.1}x", ratio(sent, sends), ratio(read, reads))
        });
        println!(
            "{:<18} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9} {against} {done:>9}",
            self.name,
            self.sends.at(500),
            sent,
            self.sends.at(1_000),
            self.reads.at(500),
            read,
            self.reads.at(1_000),
        );
    }
}

fn attack(at: SocketAddr, attacks: &[(&str, Attack)]) -> Vec<(Arc<Flag>, JoinHandle<()>)> {
    let begin = |(_, attack): &(&str, Attack)| {
        let (flag, attack) = (Arc::new(Flag::default()), *attack);
        let seen = Arc::clone(&flag);
        (flag, thread::spawn(move || attack(at, &seen)))
    };
    attacks.iter().map(begin).collect()
}

fn measured(at: SocketAddr, name: &str, seconds: u64, attacks: &[(&str, Attack)]) -> (Line, u64) {
    let attackers = attack(at, attacks);
    let (sends, reads) = behave(at, "calm", |due| due < Duration::from_secs(seconds));
    let mut done = 0;
    for (flag, thread) in attackers {
        flag.over.store(true, Relaxed);
        thread.join().expect("an attacker that ends");
        done += flag.done.load(Relaxed);
    }
    (Line { name: name.to_owned(), sends, reads }, done)
}

fn main() {
    let words: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = words.iter().position(|word| word == name)?;
        words.get(at + 1).cloned()
    };
    let seconds = value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(10);
    let only = value("--only");
    let home = Home::new();
    let mut broker = home.start();
    let at = home.listen;
    for name in ["calm", "silent", "large"] {
        home.grus(&["topic", "create", name, "--queues", "1"]).ok();
    }
    let mut sender = Peer::greeted(at);
    for _ in 0..16 {
        sender.call_with(&produce("large"), &batch(&[&vec![7; 1 << 20]])).expect("it is stored");
    }
    println!("{RATE} sends and reads a second for {seconds} s; microseconds");
    println!(
        "{:<18} {:>8} {:>8} {:>9} {:>8} {:>8} {:>9} {:>7} {:>7} {:>9}",
        "attack", "send p50", "p99", "max", "read p50", "p99", "max", "send", "read", "done"
    );
    let _warm = measured(at, "", 2, &[]);
    let (mut quiet, _) = measured(at, "none", seconds, &[]);
    quiet.print(None, 0);
    let base = Some((quiet.sends.at(990), quiet.reads.at(990)));
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    for attack in ATTACKS.iter().filter(|(name, _)| wanted(name)) {
        let (mut line, done) = measured(at, attack.0, seconds, std::slice::from_ref(attack));
        line.print(base, done);
    }
    if only.is_none() {
        let (mut line, done) = measured(at, "all together", seconds, &ATTACKS);
        line.print(base, done);
    }
    let (mut after, _) = measured(at, "none, after", seconds, &[]);
    after.print(base, 0);
    assert!(TcpStream::connect(home.http).is_ok(), "its page is there");
    assert!(broker.process.ended().is_none(), "{}", broker.process.log());
    let panicked = broker.process.log().contains("panic");
    assert!(!panicked, "{}", broker.process.log());
}
