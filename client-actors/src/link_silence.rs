//! A broker that falls silent, on paused time: after 5 s it is asked for a sign of life, after 10 s
//! the connection is given up and another one opened.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use grus_mailbox::{
    ActorSpec, Clock, FatalPort, Host, HostHandle, Outlet, Place, Process, outlet, reply,
};
use grus_protocol::frame::{decode, encode as encode_frame};
use grus_protocol::message::{Hello, HelloReply, Metadata, PingReply};
use grus_protocol::{BatchLimits, BrokerId, Frame, FrameHead, FrameLimits, Opcode, TimestampMs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::config::{ClientConfig, millis};
use crate::link::{Call, Link, LinkChanged, LinkSettings, LinkState, Listeners, Subscribe, encode};
use crate::route::LinkId;

/// What the timer of a link, and the scheduler, may add.
const SLACK_MS: u64 = 200;

/// The broker's end of one connection.
pub(crate) struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    pub(crate) async fn accept(listener: &TcpListener, broker: u64) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut peer = Self { stream, buffer: BytesMut::new() };
        let asked = peer.next().await.unwrap();
        let hello: Hello = asked.header().unwrap();
        let (frames, batches) = (FrameLimits::REQUESTS, BatchLimits::PRODUCE);
        let reply = HelloReply::new(&hello, 1, BrokerId(broker), &frames, &batches);
        peer.answer(asked.head, &reply).await;
        peer
    }

    pub(crate) async fn answer(&mut self, head: FrameHead, header: &impl serde::Serialize) {
        let mut out = BytesMut::new();
        encode_frame(head.reply(), header, 0, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    /// The next frame; none when the connection was closed.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, &FrameLimits::REQUESTS).unwrap() {
                return Some(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap() == 0 {
                return None;
            }
        }
    }
}

struct Bench {
    clock: Clock,
    listener: TcpListener,
    link: HostHandle<Link>,
    changes: Outlet<LinkChanged>,
}

impl Bench {
    async fn start() -> Self {
        tokio::time::pause();
        let (fatal, _fatals) = FatalPort::channel();
        let process = Process::new(Clock::simulated(TimestampMs(0)), fatal);
        let place = Place::here("test", &process);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let defaults = ClientConfig::default();
        let settings = LinkSettings {
            addresses: vec![listener.local_addr().unwrap().to_string()],
            client_id: "silent".to_owned(),
            open_ms_max: millis(defaults.open_timeout),
            silence_ms_max: millis(defaults.silence_max),
            reconnect_ms_max: millis(defaults.reconnect_wait_max),
            seed: 1,
        };
        let listeners = Rc::new(RefCell::new(Listeners::new(LinkId(0))));
        let link = Host::spawn_local(&place, ActorSpec::new("Link", "silent"), move || {
            Link::new(LinkId(0), settings.clone(), Rc::clone(&listeners))
        });
        let (to, changes) = outlet(16);
        link.inbox::<Subscribe>(1).try_put(Subscribe { to, pushes: None }).unwrap();
        Self { clock: process.clock, listener, link, changes }
    }

    /// Waits until the link is up; the session, and the time.
    async fn up(&mut self) -> (u64, u64) {
        loop {
            let (change, _) = self.changes.take().await.unwrap();
            if let LinkState::Up { session, .. } = change.state {
                return (session, self.clock.monotonic_ms());
            }
        }
    }
}

/// Does `work` while paused time stands still. It would leap to the next deadline as soon as all are at
/// rest, which they are while bytes are on their way.
pub(crate) async fn standing_still<T>(work: impl Future<Output = T>) -> T {
    let (over, is_over) = tokio::sync::oneshot::channel::<()>();
    let held = tokio::task::spawn_blocking(move || is_over.blocking_recv());
    let done = work.await;
    drop(over);
    let _ = held.await;
    done
}

fn about(ms: u64) -> Range<u64> {
    ms..ms + SLACK_MS
}

#[actix::test]
async fn a_silent_broker_is_asked_after_5_s_and_given_up_after_10() {
    let mut bench = Bench::start().await;
    let mut peer = standing_still(Peer::accept(&bench.listener, 7)).await;
    let (session, up_ms) = standing_still(bench.up()).await;
    let (port, answer) = reply::port();
    let frame = encode(&Metadata { topics: Vec::new(), auto_create: false }, 0);
    let call = Call { session, frame, body: Bytes::new(), answer: Some(port) };
    bench.link.inbox::<Call>(1 << 20).try_put(call).unwrap();
    assert_eq!(peer.next().await.unwrap().head.opcode, Opcode::Metadata);
    assert_eq!(peer.next().await.unwrap().head.opcode, Opcode::Ping);
    let asked_ms = bench.clock.monotonic_ms() - up_ms;
    assert!(about(5_000).contains(&asked_ms), "asked after {asked_ms} ms");

    let (change, _) = bench.changes.take().await.unwrap();
    let lost_ms = bench.clock.monotonic_ms() - up_ms;
    assert!(about(10_000).contains(&lost_ms), "given up after {lost_ms} ms");
    match change.state {
        LinkState::Down { reason } => assert_eq!(&*reason, "no sign of life"),
        other => panic!("{other:?}"),
    }
    assert!(answer.await.is_err(), "whoever waits for an answer hears that none comes");
    assert!(peer.next().await.is_none(), "the socket is closed, one question was asked");
    let _again = Peer::accept(&bench.listener, 7).await;
    assert!(bench.up().await.0 > session, "it connects again");
    bench.link.stop().await;
}

#[actix::test]
async fn a_broker_that_answers_late_but_answers_is_kept() {
    let mut bench = Bench::start().await;
    let mut peer = standing_still(Peer::accept(&bench.listener, 7)).await;
    let (_, up_ms) = standing_still(bench.up()).await;
    for _ in 0..6 {
        let ping = peer.next().await.expect("an open connection");
        assert_eq!(ping.head.opcode, Opcode::Ping);
        tokio::time::sleep(std::time::Duration::from_millis(4_500)).await; // paused time
        peer.answer(ping.head, &PingReply { time: TimestampMs(0) }).await;
    }
    assert!(bench.clock.monotonic_ms() - up_ms > 55_000);
    assert!(bench.changes.try_take().is_none(), "it was never given up");
    bench.link.stop().await;
}
