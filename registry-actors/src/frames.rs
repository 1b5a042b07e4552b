//! The edge of a socket between a registry and those who speak with it: tasks without state of
//! their own, started and ended by the actor that has the socket (Session, RemoteRegistry).

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use grus_mailbox::Credit;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{self, Frame, FrameError, FrameHead, ReplyError};
use grus_protocol::ids::BrokerId;
use grus_protocol::limits::FrameLimits;
use grus_protocol::message::{Hello, HelloReply, features};
use grus_protocol::opcode::Opcode;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, mpsc};

/// Room made for the next read at least.
const READ_BYTES: usize = 8 * 1024;
/// Bytes that wait for one peer from which on nothing more is read from it.
const BACKLOG_BYTES_MAX: usize = 4 << 20;
/// Bytes by which a frame that has begun must come on.
const FRAME_STEP_BYTES: usize = 64 << 10;
/// Why a connection ended on which a frame did not come on.
const HALF_A_FRAME: &str = "half a frame, and no more of it in time";

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) frame: Bytes,
    /// Given back once it is written.
    pub(crate) credit: Option<Credit>,
    /// Whether the connection ends behind it.
    pub(crate) close_after: bool,
    /// Counts it until it is written.
    pub(crate) waiting: Option<Waiting>,
}

/// The bytes that wait to be written to one peer: a peer that does not read is not read from once
/// they are [`BACKLOG_BYTES_MAX`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Backlog(Arc<Counted>);

#[derive(Debug, Default)]
struct Counted {
    bytes: AtomicUsize,
    room: Notify,
}

/// Some of these bytes, until dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    backlog: Backlog,
    bytes: usize,
}

impl Backlog {
    /// Counts so many more.
    pub(crate) fn add(&self, bytes: usize) -> Waiting {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
        Waiting { backlog: self.clone(), bytes }
    }

    /// Waits until there are few enough; for one who waits at a time.
    pub(crate) async fn room(&self) {
        while self.0.bytes.load(Ordering::Acquire) >= BACKLOG_BYTES_MAX {
            self.0.room.notified().await;
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.backlog.0.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.backlog.0.room.notify_one();
    }
}

impl Outgoing {
    /// A frame that holds `credit` until it is written.
    pub(crate) fn new(frame: Bytes, credit: Option<Credit>) -> Self {
        Self { frame, credit, close_after: false, waiting: None }
    }
}

/// A frame without a body; an error in its place when its header does not encode.
pub(crate) fn encode(head: FrameHead, header: &impl Serialize) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    if let Err(error) = frame::encode(head, header, 0, &mut out) {
        let error = ErrorReply::new(ErrorCode::Internal, error.to_string());
        let put = frame::encode(head.error_reply(), &error, 0, &mut out);
        assert!(put.is_ok(), "an error reply always encodes");
    }
    out.freeze()
}

/// Connects and says hello. Returns the stream, and what was read beyond the answer.
pub(crate) async fn open(address: &str, hello: &Hello) -> Result<(TcpStream, BytesMut), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(address).await.map_err(text)?;
    stream.set_nodelay(true).map_err(text)?;
    let request = encode(FrameHead::request(Opcode::Hello, 0), hello);
    stream.write_all(&request).await.map_err(text)?;
    let mut buffer = BytesMut::with_capacity(4_096);
    loop {
        if let Some(reply) = frame::decode(&mut buffer, &FrameLimits::REPLIES)
            .map_err(|error| format!("not a Grus registry: {error}"))?
        {
            return match reply.reply::<HelloReply>() {
                Ok(agreed) if agreed.broker_id != BrokerId(0) => {
                    Err(format!("{address} is a broker, not a registry"))
                }
                Ok(agreed) if agreed.features & features::WATCH_ROUTES == 0 => {
                    Err(format!("{address} does not tell its routes"))
                }
                Ok(_) => Ok((stream, buffer)),
                Err(ReplyError::Refused(refusal)) => Err(format!("refused: {refusal}")),
                Err(ReplyError::Header(error)) => Err(format!("not a Grus registry: {error}")),
            };
        }
        if stream.read_buf(&mut buffer).await.map_err(text)? == 0 {
            return Err("closed before it said hello".to_owned());
        }
    }
}

/// Reads frames, one after the other, until the connection ends, breaks, or nobody takes them, or
/// until one has begun and neither ends nor comes on by [`FRAME_STEP_BYTES`] for `stall`; the result
/// says why.
pub(crate) async fn read<T: Future<Output = bool>>(
    mut half: impl AsyncRead + Unpin,
    mut buffer: BytesMut,
    (limits, stall): (FrameLimits, Duration),
    mut take: impl FnMut(Result<Frame, FrameError>) -> T,
) -> String {
    // Bytes of a frame that has begun, at its last step, and when that is too long ago.
    let mut begun: Option<usize> = None;
    let mut stuck = pin!(tokio::time::sleep(stall));
    loop {
        let before = buffer.len();
        loop {
            match frame::decode(&mut buffer, &limits) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if !take(Ok(frame)).await {
                        return "nobody reads".to_owned();
                    }
                }
                Err(error) => {
                    let (fatal, text) = (error.is_fatal(), error.to_string());
                    if !take(Err(error)).await || fatal {
                        return text;
                    }
                }
            }
        }
        let is_another = buffer.len() != before;
        match begun {
            _ if buffer.is_empty() => begun = None,
            Some(bytes) if !is_another && buffer.len() < bytes + FRAME_STEP_BYTES => {}
            _ => {
                begun = Some(buffer.len());
                stuck.set(tokio::time::sleep(stall));
            }
        }
        buffer.reserve(READ_BYTES); // as it comes: a length alone reserves nothing
        let read = tokio::select! {
            biased; // what has come counts, however late this is run
            read = half.read_buf(&mut buffer) => read,
            () = &mut stuck, if begun.is_some() => return HALF_A_FRAME.to_owned(),
        };
        match read {
            Ok(0) => return "closed by the peer".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes what comes until the connection ends, a frame says so, or the peer takes no byte for
/// `stall`; the result says why.
pub(crate) async fn write(
    mut half: OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
    stall: Duration,
) -> String {
    while let Some(Outgoing { mut frame, credit, close_after, waiting }) = outgoing.recv().await {
        while !frame.is_empty() {
            match tokio::time::timeout(stall, half.write_buf(&mut frame)).await {
                Ok(Ok(0)) => return io::Error::from(io::ErrorKind::WriteZero).to_string(),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.to_string(),
                Err(_elapsed) => return "the peer does not read".to_owned(),
            }
        }
        drop((credit, waiting));
        if close_after {
            let _ = half.shutdown().await; // it may be gone
            return "closed behind an error".to_owned();
        }
    }
    "given up".to_owned()
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    #[tokio::test]
    async fn one_who_does_not_read_is_waited_for_until_enough_is_written() {
        let backlog = Backlog::default();
        backlog.room().await;
        let held: Vec<_> = (0..5).map(|_| backlog.add(BACKLOG_BYTES_MAX / 4)).collect();
        let waiter = backlog.clone();
        let waits = tokio::spawn(async move { waiter.room().await });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "too much waits");
        drop(held);
        waits.await.unwrap();
    }

    /// Both ends of a connection, the first one read with this patience; what came of it.
    async fn reading(stall: Duration, tell: impl AsyncFnOnce(DuplexStream)) -> (usize, String) {
        // Not over a socket: paused time would leap ahead while bytes are on their way.
        let (peer, half) = tokio::io::duplex(1 << 20);
        let mut frames = 0;
        let limits = (FrameLimits::REQUESTS, stall);
        let reader = read(half, BytesMut::new(), limits, |_| {
            frames += 1;
            async { true }
        });
        let told = async {
            tell(peer).await;
            std::future::pending().await
        };
        let reason = tokio::select! {
            reason = reader => reason,
            never = told => never,
        };
        (frames, reason)
    }

    fn request(bytes: usize) -> Bytes {
        let hello = Hello::new("x".repeat(bytes), "test");
        encode(FrameHead::request(Opcode::Hello, 1), &hello)
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_does_not_come_on_ends_the_connection_and_a_quiet_peer_does_not() {
        let frame = request(100);
        let stall = Duration::from_secs(3);
        let (frames, reason) = reading(stall, async |mut peer| {
            peer.write_all(&frame).await.unwrap();
            // Quiet between two frames, for longer than one may take.
            tokio::time::sleep(stall * 2).await;
            peer.write_all(&frame).await.unwrap();
            // Whatever comes of the next one comes byte by byte, and never the whole of it.
            for byte in &frame[..frame.len() - 1] {
                peer.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(stall / 30).await;
            }
        })
        .await;
        assert_eq!((frames, reason.as_str()), (2, HALF_A_FRAME));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_frame_may_take_its_time_as_long_as_it_comes_on() {
        let frame = request(FRAME_STEP_BYTES * 4);
        let stall = Duration::from_secs(3);
        let (frames, reason) = reading(stall, async |mut peer| {
            for part in frame.chunks(FRAME_STEP_BYTES + 1) {
                peer.write_all(part).await.unwrap();
                tokio::time::sleep(stall / 3).await;
            }
        })
        .await;
        assert_eq!((frames, reason.as_str()), (1, "closed by the peer"));
    }
}
