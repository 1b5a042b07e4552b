//! Many peers at once.

use std::ffi::OsString;
use std::net::TcpStream;
use std::time::Duration;

use grus_protocol::ErrorCode;
use grus_protocol::message::Hello;
use grus_tests::broker::Home;
use grus_tests::hostile::Peer;
use grus_tests::usage;
use grus_tests::watch::Watch;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::hostile::Siege;

/// Idle connections wanted (issue 3).
const CROWD: u64 = 10_000;
/// Descriptors that this process, and the broker, need for all else.
const OTHERS: u64 = 600;

/// Most bytes of anonymous memory for each of them, also without optimisation.
const EACH_BYTES_MAX: u64 = 8 * 1024;

/// As many connections as the limits of this machine allow.
fn crowd() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit); // less then, and said
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).saturating_sub(OTHERS);
    if allowed < CROWD {
        println!("only {allowed} connections: the limit of open files allows no more");
    }
    allowed.min(CROWD)
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_leave_nothing_behind() {
    let count = crowd();
    // On a machine that is busy the crowd takes minutes to come.
    let home = Home::new()
        .with("GRUS__LISTEN__CONNECTIONS_MAX", "10100")
        .with("GRUS__CONNECTION__IDLE_TIMEOUT", "1h");
    let mut siege = Siege::begin(home);
    siege.goes_on();
    // What the sender makes the broker keep for as long as the crowd takes to come is not the crowd's.
    siege.have_sender_rest();
    // The newcomer of `goes_on` may still be among them: gone when the crowd is counted.
    let others = siege.connections();
    let before_kib = siege.memory_kib();
    let mut crowd = Peer::crowd(siege.home.listen, count);
    siege.until("all are there", |siege| siege.connections() >= count);
    let each = siege.memory_kib().saturating_sub(before_kib) * 1024 / count;
    println!("{count} idle connections: {each} bytes each");
    assert!(each < EACH_BYTES_MAX, "{each} bytes each");
    siege.set_sender_to_work();
    siege.goes_on();
    for peer in crowd.iter_mut().step_by(997) {
        assert!(peer.is_served(), "each of them is served");
    }
    drop(crowd);
    siege.until("all are gone", |siege| siege.connections() <= others);
    // A second crowd finds the memory of the first.
    let mut crowd = Peer::crowd(siege.home.listen, count);
    siege.until("all are there", |siege| siege.connections() >= count);
    siege.goes_on();
    let again = siege.memory_kib().saturating_sub(before_kib) * 1024 / count;
    println!("and again: {again} bytes each");
    assert!(again < EACH_BYTES_MAX * 5 / 4, "{again} bytes each");
    assert!(crowd[0].is_served());
    siege.end();
}

#[test]
fn a_flood_over_the_cap_is_refused_by_name_and_the_door_stays_open() {
    let watch = Watch::start();
    let mut siege = Siege::begin(Home::new().with("GRUS__LISTEN__CONNECTIONS_MAX", "20"));
    let (mut served, mut refused) = (Vec::new(), 0);
    for _ in 0..500 {
        let mut peer = Peer::stranger(siege.home.listen);
        // One that is refused may be closed before it has said this.
        let _ = peer.try_send(&grus_tests::hostile::framed(7, &Hello::new("x", "x"), &[]));
        match peer.frame() {
            Some(frame) if !frame.head.is_error() => served.push(peer),
            Some(frame) => {
                let error: grus_protocol::ErrorReply = frame.header().expect("an error");
                assert_eq!(error.code, ErrorCode::TooManyConnections);
                assert!(error.retriable && error.retry_after_ms > 0, "{error:?}");
                assert!(peer.frame().is_none(), "and closed");
                refused += 1;
            }
            None => panic!("closed without a word"),
        }
    }
    assert_eq!(served.len() + refused, 500);
    assert!((10..=19).contains(&served.len()), "{} were served", served.len());
    assert_eq!(siege.counter("grus_connections_refused_total"), refused as u64);
    for peer in &mut served {
        assert!(peer.is_served(), "those inside are served on");
    }
    drop(served);
    siege.until("they are gone", |siege| siege.connections() <= 2);
    let lines = siege.written("too many connections");
    // Ten in ten seconds.
    let lines_max = watch.elapsed().as_secs() + 20;
    assert!((1..=lines_max).contains(&lines), "{lines} lines for {refused} refusals");
    siege.end();
}

#[test]
fn without_descriptors_it_waits_without_spinning_and_stores_on() {
    let mut home = Home::new();
    home.wrapper = ["sh", "-c", "ulimit -n 256 && exec \"$0\" \"$@\""].map(OsString::from).into();
    let mut siege = Siege::begin(home);
    // HTTP takes what the door leaves.
    let browsers: Vec<_> =
        (0..200).filter_map(|_| TcpStream::connect(siege.home.http).ok()).collect();
    let peers: Vec<_> =
        (0..200).filter_map(|_| TcpStream::connect(siege.home.listen).ok()).collect();
    let pid = siege.broker.process.pid();
    siege.broker.process.next_line(Duration::from_millis(500));
    let before_ms = usage::cpu_ms(pid);
    siege.broker.process.next_line(Duration::from_secs(2));
    let cpu_ms = usage::cpu_ms(pid) - before_ms;
    println!("out of descriptors: {cpu_ms} ms of processor in 2 s, with a sender at work");
    drop((browsers, peers));
    siege.until("the door opens again", |siege| siege.connections() <= 3);
    siege.end();
}
