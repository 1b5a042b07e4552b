//! Frames that lie, and bytes that are none.

use grus_protocol::frame::FrameHead;
use grus_protocol::ids::{Offset, QueueId, TopicId};
use grus_protocol::message::{Fetch, Hello, Ping, Produce};
use grus_protocol::{ErrorCode, TopicName};
use grus_tests::broker::Home;
use grus_tests::hostile::{Peer, batch, framed, noise};
use grus_tests::random::Random;
use grus_tests::watch::Watch;

use crate::hostile::Siege;

/// Where a frame's fields stand (docs/PROTOCOL.md).
const LENGTH: usize = 0;
const VERSION: usize = 4;
const KIND: usize = 5;
const FLAGS: usize = 6;
const OPCODE: usize = 8;
const HEADER_LENGTH: usize = 20;
const HEADER: usize = 24;

fn topic() -> TopicName {
    TopicName::try_from("calm").expect("a name")
}

fn produce() -> Produce {
    Produce { topic: topic(), topic_id: TopicId::UNKNOWN, queue: QueueId(0), timeout_ms: 0 }
}

fn fetch(bytes_max: u32) -> Fetch {
    Fetch::new(topic(), QueueId(0), Offset(0), bytes_max)
}

/// A ping with bytes of it replaced.
fn spoilt(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = framed(1, &Ping {}, &[]);
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// A ping whose header is these bytes, with the lengths put right.
fn with_header(header: &[u8]) -> Vec<u8> {
    let mut frame = framed(1, &Ping {}, &[])[..HEADER].to_vec();
    frame.extend_from_slice(header);
    let length = u32::try_from(frame.len() - 4).expect("a small frame");
    frame[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    let header = u32::try_from(header.len()).expect("a small header");
    frame[HEADER_LENGTH..HEADER].copy_from_slice(&header.to_le_bytes());
    frame
}

#[test]
fn lengths_that_cannot_be_close_the_connection_with_a_reason() {
    // Those who claim much stay until all of them are there.
    let mut siege = Siege::begin(Home::new().with("GRUS__CONNECTION__FRAME_TIMEOUT", "10m"));
    siege.goes_on();
    siege.have_sender_rest(); // what it makes the broker keep meanwhile is not those peers'
    let before_kib = siege.memory_kib();
    for (length, code) in [
        (u32::MAX, ErrorCode::FrameTooLarge),
        ((16 << 20) + 1, ErrorCode::FrameTooLarge),
        (19, ErrorCode::MalformedFrame),
        (0, ErrorCode::MalformedFrame),
    ] {
        for greeted in [true, false] {
            let mut peer = if greeted {
                Peer::greeted(siege.home.listen)
            } else {
                Peer::stranger(siege.home.listen)
            };
            peer.send(&spoilt(LENGTH, &length.to_le_bytes()));
            assert_eq!(peer.error().map(|error| error.code), Some(code), "length {length}");
            assert!(peer.error().is_none(), "length {length}: closed");
        }
    }
    // A claim costs nothing: only what has come takes memory.
    let claimants: Vec<_> = (0..100)
        .map(|_| {
            let mut peer = Peer::greeted(siege.home.listen);
            let mut frame = framed(1, &produce(), &[0; 1_000]);
            frame[LENGTH..LENGTH + 4].copy_from_slice(&((16_u32 << 20) - 4).to_le_bytes());
            peer.send(&frame);
            peer
        })
        .collect();
    siege.until("they are there", |siege| siege.connections() >= 100);
    let grown_kib = siege.memory_kib().saturating_sub(before_kib);
    siege.set_sender_to_work();
    siege.goes_on();
    assert!(grown_kib < 32 << 10, "1.6 GiB were claimed, {grown_kib} KiB taken");
    drop(claimants);
    siege.end();
}

#[test]
fn what_is_wrong_within_a_frame_is_typed_and_the_connection_goes_on() {
    let siege = Siege::begin(Home::new());
    let mut peer = Peer::greeted(siege.home.listen);
    let mut deep = vec![0x91; 100_000]; // an array in an array in an array
    deep.push(0xc0);
    let answer_only = FrameHead::request(grus_protocol::Opcode::Ping, 1).reply();
    for (what, frame, code) in [
        ("header beyond the frame", spoilt(HEADER_LENGTH, &[9]), ErrorCode::MalformedFrame),
        ("giant header", spoilt(HEADER_LENGTH, &[0xff; 4]), ErrorCode::MalformedFrame),
        (
            "header over its limit",
            with_header(&vec![0xc0; (256 << 10) + 1]),
            ErrorCode::HeaderTooLarge,
        ),
        ("opcode", spoilt(OPCODE, &[0x0f, 0x27]), ErrorCode::UnknownOpcode),
        ("version", spoilt(VERSION, &[200]), ErrorCode::UnsupportedVersion),
        ("flags", spoilt(FLAGS, &[0x80]), ErrorCode::UnsupportedFeature),
        ("kind", spoilt(KIND, &[200]), ErrorCode::MalformedFrame),
        ("no header at all", with_header(&[]), ErrorCode::MalformedHeader),
        (
            "a header of 4 G items",
            with_header(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
            ErrorCode::MalformedHeader,
        ),
        ("a deep header", with_header(&deep), ErrorCode::MalformedHeader),
        ("a ping with a body", framed(1, &Ping {}, &vec![7; 1 << 20]), ErrorCode::MalformedFrame),
        ("hello again", framed(1, &Hello::new("x", "x"), &[]), ErrorCode::InvalidRequest),
        ("no batch", framed(1, &produce(), b"no batch"), ErrorCode::MalformedBatch),
        (
            "a batch over its limit",
            framed(1, &produce(), &vec![0; 9 << 20]),
            ErrorCode::BatchTooLarge,
        ),
        (
            "a message over its limit",
            framed(1, &produce(), &batch(&[&vec![0; (4 << 20) + 1]])),
            ErrorCode::MessageTooLarge,
        ),
    ] {
        peer.send(&frame);
        assert_eq!(peer.error().map(|error| error.code), Some(code), "{what}");
        assert!(peer.is_served(), "{what}: the connection goes on");
    }
    // What is odd and harms nobody.
    peer.send(&with_header(&[&[0xdd, 0, 2, 0, 0][..], &vec![0xc0; 0x20000]].concat()));
    assert_eq!(
        peer.frame().map(|frame| frame.head.is_error()),
        Some(false),
        "fields of the future"
    );
    for correlation in [5, 5, 5] {
        peer.ask(correlation, &Ping {});
    }
    for _ in 0..3 {
        assert_eq!(peer.frame().map(|frame| frame.head.correlation), Some(5), "each is answered");
    }
    assert!(!answer_only.is_error());
    peer.send(&spoilt(KIND, &[answer_only.kind.number()]));
    assert!(peer.is_served(), "an answer to nothing is ignored");
    let greedy = peer.call(&fetch(u32::MAX));
    assert!(greedy.is_ok(), "{greedy:?}");
    siege.end();
}

#[test]
fn noise_and_flipped_bits_are_survived() {
    let mut siege = Siege::begin(Home::new());
    let mut random = Random::seeded("noise and flipped bits");
    for round in 0..300_u32 {
        let mut peer = if round % 2 == 0 {
            Peer::greeted(siege.home.listen)
        } else {
            Peer::stranger(siege.home.listen)
        };
        let count = usize::try_from(random.below(3_000)).expect("small");
        let mut bytes = noise(&mut random, count);
        if round % 3 > 0 && bytes.len() > HEADER {
            // A head that may be, so that what lies behind it is looked at.
            let length = u32::try_from(bytes.len() - 4).expect("small");
            bytes[LENGTH..LENGTH + 4].copy_from_slice(&length.to_le_bytes());
            bytes[VERSION] = 1;
            bytes[KIND] = 1;
            bytes[FLAGS..FLAGS + 2].copy_from_slice(&[0, 0]);
            let opcode = u16::try_from(random.below(50)).expect("small");
            bytes[OPCODE..OPCODE + 2].copy_from_slice(&opcode.to_le_bytes());
            let header = u32::try_from(random.below(64)).expect("small");
            bytes[HEADER_LENGTH..HEADER].copy_from_slice(&header.to_le_bytes());
        }
        peer.send(&bytes);
        peer.shut_down_writing();
        peer.rest();
    }
    siege.goes_on();
    // Requests that are right but for one bit: answered, refused, or the end of the connection.
    let stray = TopicName::try_from("stray").expect("a name");
    let honest = [
        framed(1, &fetch(4_096), &[]),
        framed(1, &Produce { topic: stray, ..produce() }, &batch(&[b"stray"])),
        framed(1, &Hello::new("x", "x"), &[]),
    ];
    for _ in 0..300 {
        let mut frame = honest[usize::try_from(random.below(3)).expect("small")].clone();
        let bit = usize::try_from(random.below(frame.len() as u64 * 8)).expect("small");
        frame[bit / 8] ^= 1 << (bit % 8);
        let mut peer = Peer::greeted(siege.home.listen);
        peer.send(&frame);
        peer.shut_down_writing();
        peer.rest();
    }
    siege.end();
}

#[test]
fn http_and_tls_at_the_wrong_port_are_told_so() {
    let watch = Watch::start();
    let mut siege = Siege::begin(Home::new());
    let mut browser = Peer::stranger(siege.home.listen);
    browser.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let answer = String::from_utf8(browser.rest()).expect("text");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains(&siege.home.http.to_string()), "{answer}");
    let mut tls = Peer::stranger(siege.home.listen);
    tls.send(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]);
    assert_eq!(tls.rest()[..2], [0x15, 3], "a TLS alert");
    // A flood of them leaves a few lines in the log, not one each.
    for _ in 0..200 {
        let mut browser = Peer::stranger(siege.home.listen);
        browser.send(b"POST /api HTTP/1.1\r\n\r\n");
        browser.rest();
    }
    let lines = siege.written("not a grus client");
    // Ten in ten seconds.
    let lines_max = watch.elapsed().as_secs() + 20;
    assert!((1..=lines_max).contains(&lines), "{lines} lines for 202 strangers");
    siege.end();
}
