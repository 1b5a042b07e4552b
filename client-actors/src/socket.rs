//! The edge: reading and writing a socket. Tasks without state of their own beside a
//! [`Link`](crate::link::Link), which starts and ends them.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use grus_mailbox::Credit;
use grus_protocol::frame::{self, FrameError, FrameHead, ReplyError, bytes_missing};
use grus_protocol::message::{Hello, HelloReply};
use grus_protocol::{Frame, FrameLimits, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Room made for the next read at least.
const READ_BYTES: usize = 64 * 1024;
/// Most buffers given to one write.
const WRITE_SLICES_MAX: usize = 64;

/// A frame to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Head and header.
    pub(crate) frame: Bytes,
    pub(crate) body: Bytes,
    /// Given back once it is written.
    pub(crate) credit: Option<Credit>,
}

/// Connects and says hello. Returns the stream, what was read beyond the answer, and the answer.
pub(crate) async fn open(
    address: &str,
    hello: &Hello,
    given_up: oneshot::Receiver<()>,
) -> Result<(TcpStream, BytesMut, HelloReply), String> {
    tokio::select! {
        opened = say_hello(address, hello) => opened,
        _ = given_up => Err("given up".to_owned()),
    }
}

async fn say_hello(
    address: &str,
    hello: &Hello,
) -> Result<(TcpStream, BytesMut, HelloReply), String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut out = BytesMut::new();
    frame::encode(FrameHead::request(Opcode::Hello, 0), hello, 0, &mut out)
        .map_err(|error| error.to_string())?;
    stream.write_all(&out).await.map_err(|error| error.to_string())?;
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        if let Some(reply) = frame::decode(&mut buffer, &FrameLimits::REPLIES)
            .map_err(|error| format!("not a Grus broker: {error}"))?
        {
            return match reply.reply::<HelloReply>() {
                Ok(agreed) => Ok((stream, buffer, agreed)),
                Err(ReplyError::Refused(refusal)) => Err(format!("broker refused: {refusal}")),
                Err(ReplyError::Header(error)) => Err(format!("not a Grus broker: {error}")),
            };
        }
        let read = stream.read_buf(&mut buffer).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("closed by the broker before it said hello".to_owned());
        }
    }
}

/// Reads frames and hands over all that came at once, until the connection ends or nobody takes
/// them; the result says why it ended.
pub(crate) async fn read<T: Future<Output = bool>>(
    mut half: OwnedReadHalf,
    mut buffer: BytesMut,
    bytes_read: Rc<Cell<u64>>,
    mut take: impl FnMut(Vec<Frame>) -> T,
) -> String {
    let limits = FrameLimits::REPLIES;
    loop {
        let mut frames = Vec::new();
        loop {
            match frame::decode(&mut buffer, &limits) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(FrameError::Refused { head, reason }) => {
                    // Its caller would wait for ever: end the connection, and be told.
                    return format!("opcode {} was answered by nonsense: {reason}", head.opcode);
                }
                Err(error @ FrameError::Broken { .. }) => return error.to_string(),
            }
        }
        if !frames.is_empty() && !take(frames).await {
            return "nobody reads".to_owned();
        }
        buffer.reserve(bytes_missing(&buffer, &limits).max(READ_BYTES));
        match half.read_buf(&mut buffer).await {
            Ok(0) => return "closed by the broker".to_owned(),
            Ok(bytes) => bytes_read.set(bytes_read.get() + bytes as u64),
            Err(error) => return error.to_string(),
        }
    }
}

/// Writes what comes, many frames at a time, until the connection ends; the result says why.
pub(crate) async fn write(
    mut half: OwnedWriteHalf,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> String {
    let mut batch = Vec::with_capacity(WRITE_SLICES_MAX / 2);
    while outgoing.recv_many(&mut batch, WRITE_SLICES_MAX / 2).await > 0 {
        if let Err(error) = write_batch(&mut half, &mut batch).await {
            return error.to_string();
        }
        batch.clear();
    }
    "given up".to_owned()
}

async fn write_batch(half: &mut OwnedWriteHalf, batch: &mut [Outgoing]) -> io::Result<()> {
    let mut from = 0;
    while from < batch.len() {
        let slices: Vec<IoSlice<'_>> = batch[from..]
            .iter()
            .flat_map(|frame| [&frame.frame, &frame.body])
            .filter(|part| !part.is_empty())
            .map(|part| IoSlice::new(part))
            .collect();
        let mut written = half.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        for frame in &mut batch[from..] {
            for part in [&mut frame.frame, &mut frame.body] {
                let taken = written.min(part.len());
                part.advance(taken);
                written -= taken;
            }
            if !frame.frame.is_empty() || !frame.body.is_empty() {
                break;
            }
            frame.credit = None;
            from += 1;
        }
    }
    Ok(())
}

/// Runs `work` until it ends or its owner closes it.
pub(crate) async fn until_closed(
    work: impl Future<Output = String>,
    closed: oneshot::Receiver<()>,
) -> String {
    tokio::select! {
        reason = work => reason,
        _ = closed => "closed".to_owned(),
    }
}
