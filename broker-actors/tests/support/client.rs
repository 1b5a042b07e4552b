//! A client of the protocol and nothing more: what it sends and receives is in the test's hands.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use grus_protocol::frame::{
    FRAME_HEAD_BYTES, Frame, FrameFlags, FrameHead, RawHead, bytes_missing, decode, decode_header,
    encode,
};
use grus_protocol::ids::TimestampMs;
use grus_protocol::message::{Hello, Request};
use grus_protocol::{BatchBuilder, BatchLimits, ErrorReply, FrameLimits, MessageId, NewRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A batch of messages with these bodies.
pub fn batch(bodies: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::FORMAT);
    for (body, random) in bodies.iter().zip(1_u8..) {
        let id = MessageId::from_parts(TimestampMs(1_000), &[random; 10]);
        let record = NewRecord::new(id, TimestampMs(1_000), Bytes::copy_from_slice(body));
        builder.push(&record).unwrap();
    }
    builder.finish()
}

/// The other end of a connection, frame by frame.
pub struct Client {
    /// The socket.
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Client {
    /// One that has said nothing yet.
    pub async fn stranger(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    /// One that has said hello.
    pub async fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::stranger(address).await;
        client.ask(1, &Hello::new("test", "test")).await;
        assert!(!client.frame().await.unwrap().head.is_error());
        client
    }

    /// Asks and waits for the answer.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Reply, ErrorReply> {
        self.call_with(request, &[]).await
    }

    /// Asks with a body and waits for the answer.
    pub async fn call_with<R: Request>(
        &mut self,
        request: &R,
        body: &[u8],
    ) -> Result<R::Reply, ErrorReply> {
        self.ask_with(7, request, body).await;
        let frame = self.frame().await.expect("an answer");
        if frame.head.is_error() {
            Err(frame.header().unwrap())
        } else {
            Ok(frame.header().unwrap())
        }
    }

    /// Asks and waits for the answer and its body.
    pub async fn call_for_body<R: Request>(
        &mut self,
        request: &R,
    ) -> Result<(R::Reply, Bytes), ErrorReply> {
        self.ask(7, request).await;
        let frame = self.frame().await.expect("an answer");
        if frame.head.is_error() {
            return Err(frame.header().unwrap());
        }
        Ok((frame.header().unwrap(), frame.body))
    }

    /// Sends a request without a body.
    pub async fn ask<R: Request>(&mut self, correlation: u64, request: &R) {
        self.ask_with(correlation, request, &[]).await;
    }

    /// Sends a request with a body.
    pub async fn ask_with<R: Request>(&mut self, correlation: u64, request: &R, body: &[u8]) {
        let mut bytes = BytesMut::new();
        let head = FrameHead::request(R::OPCODE, correlation);
        encode(head, request, body.len(), &mut bytes).unwrap();
        bytes.extend_from_slice(body);
        self.send(&bytes).await;
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` when the broker has closed the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, &FrameLimits::REPLIES).unwrap() {
                return Some(frame);
            }
            self.buffer.reserve(bytes_missing(&self.buffer, &FrameLimits::REPLIES).max(4096));
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next frame's error, whatever its opcode.
    pub async fn raw_error(&mut self) -> grus_protocol::ErrorReply {
        let head = loop {
            match RawHead::peek(&self.buffer) {
                Some(head) if self.buffer.len() as u64 >= head.frame_bytes() => break head,
                _ => assert_ne!(self.stream.read_buf(&mut self.buffer).await.unwrap(), 0),
            }
        };
        assert_eq!(head.flags, FrameFlags::ERROR.0);
        let frame = self.buffer.split_to(usize::try_from(head.frame_bytes()).unwrap());
        decode_header(&frame[FRAME_HEAD_BYTES..]).unwrap()
    }

    /// All bytes until the broker closes the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.buffer.split().to_vec();
        let _reset_is_an_end_too = self.stream.read_to_end(&mut rest).await;
        rest
    }

    /// The next frame's error.
    pub async fn error(&mut self) -> grus_protocol::ErrorReply {
        let frame = self.frame().await.expect("a reply before the connection is closed");
        assert!(frame.head.is_error(), "{frame:?}");
        frame.header().unwrap()
    }
}
