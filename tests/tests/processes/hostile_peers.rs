//! Peers that are slow, silent, or greedy.

use std::thread;
use std::time::Duration;

use grus_protocol::TopicName;
use grus_protocol::ids::{Offset, QueueId, TopicId};
use grus_protocol::message::{Fetch, Ping, Produce};
use grus_tests::broker::Home;
use grus_tests::hostile::{Peer, batch, framed};
use grus_tests::strain::Strain;

use crate::create;
use crate::hostile::Siege;

/// Peers of each kind at once.
const PEERS: usize = 20;
/// A deadline as these brokers are told it.
const DEADLINE: Duration = Duration::from_secs(2);

/// A broker with short deadlines.
fn impatient() -> Home {
    ["HELLO_TIMEOUT", "FRAME_TIMEOUT", "WRITE_TIMEOUT"]
        .iter()
        .fold(Home::new(), |home, name| home.with(&format!("GRUS__CONNECTION__{name}"), "2s"))
}

fn topic(name: &str) -> TopicName {
    TopicName::try_from(name).expect("a name")
}

fn produce(name: &str) -> Produce {
    Produce { topic: topic(name), topic_id: TopicId::UNKNOWN, queue: QueueId(0), timeout_ms: 0 }
}

fn fetch(name: &str, bytes_max: u32, wait_ms: u32, offset: u64) -> Fetch {
    Fetch { wait_ms, ..Fetch::new(topic(name), QueueId(0), Offset(offset), bytes_max) }
}

#[test]
fn half_open_and_dripping_peers_are_given_up_in_time() {
    let mut siege = Siege::begin(impatient());
    let listen = siege.home.listen;
    let half = framed(1, &produce("calm"), &batch(&[&vec![7; 100_000]]));
    let greeted_half = || {
        let mut peer = Peer::greeted(listen);
        let _ = peer.try_send(&half[..half.len() / 2]);
        peer
    };
    let strain = Strain::watch();
    let closed: Vec<_> = (0..PEERS)
        .map(|_| {
            let half = half.clone();
            let hello = framed(1, &grus_protocol::message::Hello::new("drip", "drip"), &[0; 10]);
            let mut half_hello = Peer::stranger(listen);
            let _ = half_hello.try_send(&hello[..hello.len() / 2]); // it may be given up by now
            let (silent, stuck, gone) = (Peer::stranger(listen), greeted_half(), greeted_half());
            drop(gone); // half a frame, then the end
            thread::spawn(move || {
                let drips = [Peer::greeted(listen), Peer::stranger(listen)]
                    .map(|peer| (peer, half.clone()))
                    .map(|(peer, half)| thread::spawn(move || peer.drip(&half)));
                let mut waited: Vec<_> =
                    [silent, half_hello, stuck].map(|mut peer| peer.closed_after()).into();
                waited.extend(drips.map(|drip| drip.join().expect("a drip ends")));
                waited
            })
        })
        .collect();
    siege.goes_on();
    for waited in closed.into_iter().flat_map(|peer| peer.join().expect("it is closed")) {
        let limit = DEADLINE * 8 + strain.allowed();
        assert!(waited < limit, "{waited:?}: the deadline is {DEADLINE:?}");
    }
    siege.until("all of them are gone", |siege| siege.connections() <= 2);
    siege.end();
}

#[test]
fn a_peer_that_never_reads_is_cut_off_and_costs_little() {
    let mut siege = Siege::begin(impatient());
    create(&siege.home, "large", 1);
    let line = [vec![b'x'; 512 << 10], b"\n".to_vec()].concat();
    siege.home.grus_fed(&["produce", "large"], &line.repeat(48)).ok();
    // What the sender makes the broker keep meanwhile is not those peers'.
    siege.have_sender_rest();
    let before_kib = siege.memory_kib();
    let cut_off = siege.counter("grus_connections_closed_total{reason=\"overdue\"}");
    let greedy: Vec<_> = (0..8)
        .map(|_| {
            let mut peer = Peer::greeted(siege.home.listen);
            let ask = framed(1, &fetch("large", 4 << 20, 0, 0), &[]);
            for _ in 0..500 {
                if peer.try_send(&ask).is_err() {
                    break;
                }
            }
            peer
        })
        .collect();
    siege.until("they are there, or were", |siege| {
        let gone = siege.counter("grus_connections_closed_total{reason=\"overdue\"}") - cut_off;
        siege.connections() + gone >= 8
    });
    let grown_kib = siege.memory_kib().saturating_sub(before_kib);
    siege.set_sender_to_work();
    siege.goes_on();
    assert!(grown_kib < 32 << 10, "16 GiB were asked for, {grown_kib} KiB taken");
    siege.until("all of them are cut off", |siege| {
        siege.counter("grus_connections_closed_total{reason=\"overdue\"}") >= cut_off + 8
    });
    drop(greedy);
    siege.end();
}

#[test]
fn a_peer_that_asks_for_ever_and_never_reads_is_not_read_from() {
    let mut siege = Siege::begin(impatient());
    create(&siege.home, "silent", 1);
    siege.goes_on();
    siege.have_sender_rest(); // what it makes the broker keep meanwhile is not those peers'
    let before_kib = siege.memory_kib();
    let listen = siege.home.listen;
    let pings = framed(1, &Ping {}, &[]).repeat(1_000);
    // A long poll that never ends, many times: nothing is written to it, so it is not cut off.
    let polls = framed(1, &fetch("silent", 1, 60_000, 0), &[]).repeat(100);
    let refusals = framed(1, &fetch("calm", 1, 60_000, 1 << 40), &[]).repeat(100);
    let stuck: Vec<_> = [pings, polls, refusals]
        .into_iter()
        .map(|asks| {
            thread::spawn(move || {
                let mut peer = Peer::greeted(listen);
                (peer.send_until_stuck(&asks, Duration::from_secs(3)), peer)
            })
        })
        .collect();
    let mut kept = Vec::new();
    for peer in stuck {
        let (taken, peer) = peer.join().expect("it gets stuck");
        // Its requests under way, and what both sockets hold.
        assert!(taken < 64 << 20, "{taken} bytes of requests were taken");
        kept.push(peer);
    }
    // Kept for each of the millions of requests that were sent, this would be several hundred.
    let grown_kib = siege.memory_kib().saturating_sub(before_kib);
    let clients = siege.broker.get("/clients?all=true").1;
    assert!(grown_kib < 16 << 10, "{grown_kib} KiB\n{clients}\n{}", siege.memory());
    siege.set_sender_to_work();
    siege.goes_on(); // beside them
    drop(kept);
    siege.until("they are gone", |siege| siege.connections() <= 2);
    siege.end();
}
