//! The edge: reading and writing a socket. Tasks without state of their own beside a
//! [`Link`](crate::link::Link), which starts and ends them.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use grus_mailbox::Credit;
use grus_protocol::frame::{
    self, Allowance, Blocks, FrameError, FrameHead, ReplyError, bytes_missing,
};
use grus_protocol::message::{Hello, HelloReply};
use grus_protocol::{Frame, FrameLimits, Opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Room made for the next read at least.
const READ_BYTES: usize = 64 * 1024;
/// Room below which a read is not worth its system call.
const SPARE_BYTES_MIN: usize = 8 * 1024;
/// Bytes from which on a frame is read into a block of its own.
const LARGE_BYTES: usize = 128 * 1024;
/// Most bytes of blocks that a connection keeps for use again: as much as a reader with its
/// defaults has read ahead and in hand.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
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

/// What a connection reads into, shared by its reader and its [`Link`](crate::link::Link).
#[derive(Debug)]
pub(crate) struct Intake {
    blocks: RefCell<Blocks>,
    bytes_read: Cell<u64>,
    last_frame_bytes: Cell<usize>,
}

impl Intake {
    /// Of a connection of which `unread` was read already.
    pub(crate) fn new(unread: &[u8]) -> Self {
        let mut blocks = Blocks::new(Allowance::new(KEPT_BYTES_MAX));
        blocks.append(unread);
        Self {
            blocks: RefCell::new(blocks),
            bytes_read: Cell::new(0),
            last_frame_bytes: Cell::new(0),
        }
    }

    /// Bytes that arrived in all.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Nothing comes: gives the memory back.
    pub(crate) fn give_back(&self) {
        self.blocks.borrow_mut().give_back();
        self.last_frame_bytes.set(0);
    }

    fn decode(&self, limits: FrameLimits) -> Result<Option<Frame>, FrameError> {
        let bytes = &mut self.blocks.borrow_mut().bytes;
        let before = bytes.len();
        let decoded = frame::decode(bytes, &limits);
        if matches!(decoded, Ok(Some(_))) {
            self.last_frame_bytes.set(before - bytes.len());
        }
        decoded
    }

    /// Reads what is there. A large frame is read up to its end and no further, so that the next one
    /// begins a block of its own, and each block is free as soon as its frame is.
    fn read_from(&self, half: &OwnedReadHalf, limits: FrameLimits) -> io::Result<usize> {
        let blocks = &mut *self.blocks.borrow_mut();
        let missing = bytes_missing(&blocks.bytes, &limits);
        let another = self.last_frame_bytes.get(); // most likely of this size, too
        let room = if blocks.bytes.is_empty() && another > LARGE_BYTES {
            blocks.make_room(another);
            another
        } else if blocks.bytes.len() + missing > LARGE_BYTES {
            blocks.make_room(missing);
            missing
        } else {
            if blocks.room() < missing.max(SPARE_BYTES_MIN) {
                blocks.make_room(missing.max(READ_BYTES));
            }
            blocks.room()
        };
        let read = half.try_read_buf(&mut (&mut blocks.bytes).limit(room))?;
        self.bytes_read.set(self.bytes_read.get() + read as u64);
        Ok(read)
    }
}

/// Reads frames and hands over all that came at once, until the connection ends or nobody takes
/// them; the result says why it ended.
pub(crate) async fn read<T: Future<Output = bool>>(
    half: OwnedReadHalf,
    intake: Rc<Intake>,
    mut take: impl FnMut(Vec<Frame>) -> T,
) -> String {
    let limits = FrameLimits::REPLIES;
    loop {
        let mut frames = Vec::new();
        loop {
            match intake.decode(limits) {
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
        if let Err(error) = half.readable().await {
            return error.to_string();
        }
        match intake.read_from(&half, limits) {
            Ok(0) => return "closed by the broker".to_owned(),
            Ok(_) => {}
            Err(error) if is_transient(&error) => {}
            Err(error) => return error.to_string(),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
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
