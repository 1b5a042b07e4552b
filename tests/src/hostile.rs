//! Peers without manners: sockets of the protocol whose every byte is the test's own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_protocol::frame::{FRAME_HEAD_BYTES, FrameHead, RawHead, decode, decode_header, encode};
use grus_protocol::ids::TimestampMs;
use grus_protocol::message::{Hello, Ping, Request};
use grus_protocol::{
    BatchBuilder, BatchLimits, ErrorReply, Frame, FrameLimits, MessageId, NewRecord,
};

use crate::random::Random;
use crate::watch::{PATIENCE, Watch};

/// One end of a connection, byte by byte.
pub struct Peer {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    /// One that has said nothing yet.
    pub fn stranger(broker: SocketAddr) -> Self {
        let stream = TcpStream::connect(broker).expect("the broker accepts");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, buffer: BytesMut::new() }
    }

    /// One that has said hello. Where the broker waits for that a short time only, and this thread was
    /// kept waiting for longer, it comes again.
    pub fn greeted(broker: SocketAddr) -> Self {
        let watch = Watch::start();
        loop {
            let mut peer = Self::stranger(broker);
            let is_said = peer.try_send(&framed(7, &Hello::new("hostile", "test"), &[])).is_ok();
            match is_said.then(|| peer.frame()).flatten() {
                Some(frame) => {
                    assert!(!frame.head.is_error(), "{:?}", frame.header::<ErrorReply>());
                    return peer;
                }
                None => assert!(watch.elapsed() < PATIENCE, "closed instead of an answer"),
            }
        }
    }

    /// So many that have said hello, some of them at once: one after the other, ten thousand would take
    /// as many turns of a machine that may be busy.
    pub fn crowd(broker: SocketAddr, count: u64) -> Vec<Self> {
        const AT_ONCE: usize = 100;
        let hello = framed(7, &Hello::new("hostile", "test"), &[]);
        let mut crowd = Vec::new();
        while (crowd.len() as u64) < count {
            let left = usize::try_from(count).expect("a crowd") - crowd.len();
            let mut some: Vec<_> = (0..left.min(AT_ONCE)).map(|_| Self::stranger(broker)).collect();
            for peer in &mut some {
                peer.send(&hello);
            }
            for peer in &mut some {
                let answer = peer.frame().expect("an answer");
                assert!(!answer.head.is_error(), "{:?}", answer.header::<ErrorReply>());
            }
            crowd.append(&mut some);
        }
        crowd
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the broker has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("an open connection");
    }

    /// Sends bytes for as long as the broker takes any within `limit`; how many it took.
    pub fn send_until_stuck(&mut self, bytes: &[u8], limit: Duration) -> u64 {
        self.stream.set_write_timeout(Some(limit)).expect("a socket");
        let mut taken = 0;
        loop {
            match self.stream.write(bytes) {
                Ok(count) if count == bytes.len() => taken += count as u64,
                Ok(count) => {
                    // The rest of it, so that frames stay whole if it goes on after all.
                    taken += count as u64;
                    if let Err(_stuck) = self.stream.write_all(&bytes[count..]) {
                        return taken;
                    }
                }
                Err(_stuck_or_cut_off) => return taken,
            }
        }
    }

    /// Sends as much of these bytes as the broker takes now; a whole frame, or nothing more ever, as the
    /// rest of one is not sent again.
    ///
    /// # Errors
    /// When the broker has closed the connection.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(Duration::from_millis(1)))?;
        match self.stream.write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Sends a request without a body.
    pub fn ask<R: Request>(&mut self, correlation: u64, request: &R) {
        self.send(&framed(correlation, request, &[]));
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Reply, ErrorReply> {
        self.call_with(request, &[])
    }

    /// Asks with a body and waits for the answer.
    ///
    /// # Errors
    /// What the broker answered.
    pub fn call_with<R: Request>(
        &mut self,
        request: &R,
        body: &[u8],
    ) -> Result<R::Reply, ErrorReply> {
        self.send(&framed(7, request, body));
        let frame = self.frame().expect("an answer");
        assert_eq!(frame.head.correlation, 7);
        if frame.head.is_error() {
            Err(frame.header().expect("an error"))
        } else {
            Ok(frame.header().expect("a reply"))
        }
    }

    /// Whether the connection is of use: a ping is answered.
    pub fn is_served(&mut self) -> bool {
        self.try_send(&framed(99, &Ping {}, &[])).is_ok()
            && self.frame().is_some_and(|frame| frame.head.correlation == 99)
    }

    /// The next frame; `None` when the broker has closed the connection.
    ///
    /// # Panics
    /// When neither comes in time.
    pub fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, &FrameLimits::REPLIES).expect("a frame") {
                return Some(frame);
            }
            if self.read() == 0 {
                return None;
            }
        }
    }

    /// The next frame's error, whatever its opcode and correlation; `None` when the broker has
    /// closed the connection.
    pub fn error(&mut self) -> Option<ErrorReply> {
        loop {
            if let Some(head) = RawHead::peek(&self.buffer)
                && self.buffer.len() as u64 >= head.frame_bytes()
            {
                let bytes = usize::try_from(head.frame_bytes()).expect("a small frame");
                let frame = self.buffer.split_to(bytes);
                return Some(decode_header(&frame[FRAME_HEAD_BYTES..]).expect("an error"));
            }
            if self.read() == 0 {
                return None;
            }
        }
    }

    /// All bytes until the broker closes the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read() > 0 {}
        self.buffer.split().to_vec()
    }

    /// Lets a byte go every tenth of a second until the broker closes the connection; how long it
    /// lasted.
    #[must_use]
    pub fn drip(mut self, bytes: &[u8]) -> Duration {
        let watch = Watch::start();
        for byte in bytes {
            if self.try_send(&[*byte]).is_err() {
                break;
            }
            thread::park_timeout(Duration::from_millis(100)); // what is tested: its slowness
        }
        watch.elapsed() + self.closed_after()
    }

    /// How long it takes until the broker closes the connection.
    pub fn closed_after(&mut self) -> Duration {
        let watch = Watch::start();
        while self.read() > 0 {}
        watch.elapsed()
    }

    /// Sends no more; reads on.
    pub fn shut_down_writing(&self) {
        let _ = self.stream.shutdown(Shutdown::Write); // the broker may have closed it
    }

    /// Reads some bytes; 0 when the broker has closed the connection.
    fn read(&mut self) -> usize {
        let mut some = [0; 16 * 1024];
        let count = match self.stream.read(&mut some) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                panic!("neither an answer nor an end within {PATIENCE:?}")
            }
            Err(_reset) => 0,
        };
        self.buffer.extend_from_slice(&some[..count]);
        count
    }
}

/// A request as it stands on the wire.
pub fn framed<R: Request>(correlation: u64, request: &R, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    let head = FrameHead::request(R::OPCODE, correlation);
    encode(head, request, body.len(), &mut bytes).expect("a request encodes");
    bytes.extend_from_slice(body);
    bytes.to_vec()
}

/// A batch of one message for each body.
pub fn batch(bodies: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for (body, random) in bodies.iter().zip(1_u8..) {
        let id = MessageId::from_parts(TimestampMs(1_000), &[random; 10]);
        let record = NewRecord::new(id, TimestampMs(1_000), Bytes::copy_from_slice(body));
        builder.push(&record).expect("a record");
    }
    builder.finish()
}

/// Bytes that mean nothing.
pub fn noise(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.next_u64().to_le_bytes()[3]).collect()
}
