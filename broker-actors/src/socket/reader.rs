//! The reading half of a connection: bytes into one buffer, frames out of it without a copy.
//!
//! A connection that has said little so far is read by way of the stack, so that ten thousand idle
//! ones hold no buffers; one that fills that small read is given blocks until it is quiet again.

use std::io::{self, ErrorKind};
use std::rc::Rc;

use bytes::{BufMut, BytesMut};
use grus_mailbox::Inbox;
use grus_protocol::frame::{Allowance, Blocks, FrameError, bytes_missing, decode};
use grus_protocol::limits::FrameLimits;
use tokio::net::tcp::OwnedReadHalf;

use crate::connection::foreign::Foreign;
use crate::connection::replies::{Content, Outgoing, ReplyTo};
use crate::connection::requests::{has_large_reply, is_request, read_request};
use crate::dispatch::{Dispatcher, Work};
use crate::metrics::EdgeMetrics;
use crate::socket::Gate;

/// Bytes read by way of the stack at first, and after a quiet time.
const SMALL_READ_BYTES: usize = 4 * 1024;
/// Bytes of room made for a read into blocks at first.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Most bytes of room made for a read, but for a frame that is larger.
const READ_BYTES_MAX: usize = 512 * 1024;
/// Bytes from which on a frame is read into a buffer of its own.
const LARGE_BYTES: usize = 128 * 1024;
/// Requests with large replies that are handed on before the writer has its turn: what they made it
/// wait with is known then, and may be enough.
const LARGE_ASKED_MAX: u32 = 8;
/// Room below which a read is not worth its system call.
const SPARE_BYTES_MIN: usize = 8 * 1024;

/// Why a connection is not read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadEnd {
    /// It was told to stop.
    Stopped,
    /// The peer said it sends no more.
    PeerDone,
    /// The peer is gone.
    PeerGone(ErrorKind),
    /// The peer speaks something else.
    Foreign(Foreign),
    /// The peer broke the protocol in a way that leaves no next frame to find; it was told.
    Broken(String),
}

/// What became of the next frame.
enum Taken<'a> {
    /// It is not there in whole.
    Nothing,
    /// It is handed on, or answered.
    Whole,
    /// It is handed on once this is done.
    Waits(Work<'a>),
}

/// Reads requests and hands them on, in the order in which they arrive.
pub struct Reader {
    stream: OwnedReadHalf,
    buffer: Blocks,
    /// Whether it reads into blocks.
    has_blocks: bool,
    room_bytes: usize,
    last_frame_bytes: usize,
    /// Requests with large replies since the writer had its turn.
    large_asked: u32,
    limits: FrameLimits,
    gate: Rc<Gate>,
    replies: Inbox<Outgoing>,
    dispatcher: Dispatcher,
    metrics: EdgeMetrics,
}

impl Reader {
    /// The reading half of a connection.
    pub fn new(
        stream: OwnedReadHalf,
        limits: FrameLimits,
        gate: Rc<Gate>,
        replies: Inbox<Outgoing>,
        dispatcher: Dispatcher,
        metrics: EdgeMetrics,
        allowance: Allowance,
    ) -> Self {
        Self {
            stream,
            buffer: Blocks::new(allowance),
            has_blocks: false,
            room_bytes: READ_BYTES_MIN,
            last_frame_bytes: 0,
            large_asked: 0,
            limits,
            gate,
            replies,
            dispatcher,
            metrics,
        }
    }

    /// Runs until there is nothing more to read.
    pub async fn run(&mut self) -> ReadEnd {
        loop {
            self.gate.wait_for_room().await;
            if let Err(end) = self.read_some().await {
                return end;
            }
            if let Err(end) = self.take_frames().await {
                return end;
            }
        }
    }

    /// Reads what is there, waiting for something.
    async fn read_some(&mut self) -> Result<(), ReadEnd> {
        loop {
            self.gate.waits_with(self.buffer.bytes.len());
            tokio::select! {
                ready = self.stream.readable() => ready.map_err(|error| gone(&error))?,
                () = self.gate.hushed() => {
                    self.buffer.give_back();
                    self.has_blocks = false;
                    self.room_bytes = READ_BYTES_MIN;
                    self.last_frame_bytes = 0;
                    continue;
                }
            }
            match self.read_now() {
                Ok(0) => return Err(ReadEnd::PeerDone),
                Ok(read) => {
                    self.metrics.bytes_read(read as u64);
                    self.gate.waits_with(0);
                    return Ok(());
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(gone(&error)),
            }
        }
    }

    fn read_now(&mut self) -> io::Result<usize> {
        let missing = bytes_missing(&self.buffer.bytes, &self.limits);
        if !self.has_blocks && missing <= SMALL_READ_BYTES {
            let mut small = [0; SMALL_READ_BYTES];
            let read = self.stream.try_read(&mut small)?;
            self.buffer.append(&small[..read]);
            self.has_blocks = read == SMALL_READ_BYTES;
            return Ok(read);
        }
        self.has_blocks = true;
        let room = self.make_room(missing);
        let read = self.stream.try_read_buf(&mut (&mut self.buffer.bytes).limit(room))?;
        if read == room && room >= self.room_bytes {
            self.room_bytes = (self.room_bytes * 2).min(READ_BYTES_MAX);
        }
        Ok(read)
    }

    /// Makes room for the next read and says how much of it to fill. A large frame is read up to
    /// its end and no further, so that the next one begins a buffer of its own uncopied.
    fn make_room(&mut self, missing: usize) -> usize {
        let (room, spare_min) =
            if self.buffer.bytes.is_empty() && self.last_frame_bytes > LARGE_BYTES {
                (self.last_frame_bytes, self.last_frame_bytes) // most likely another such one
            } else if self.buffer.bytes.len() + missing > LARGE_BYTES {
                // Its length is a stranger's claim: room is made as its bytes come in.
                let room = missing.min(READ_BYTES_MAX.max(self.buffer.bytes.len()));
                (room, room)
            } else {
                (self.room_bytes, SPARE_BYTES_MIN.max(missing))
            };
        if self.buffer.room() < spare_min {
            self.buffer.make_room(room.max(spare_min));
        }
        room.min(self.buffer.room())
    }

    /// Hands on every whole frame in the buffer.
    async fn take_frames(&mut self) -> Result<(), ReadEnd> {
        if !self.gate.is_greeted()
            && let Some(foreign) = Foreign::recognise(&self.buffer.bytes)
        {
            self.say_and_close(foreign.answer(self.dispatcher.http_address()));
            return Err(ReadEnd::Foreign(foreign));
        }
        loop {
            self.gate.wait_for_room().await;
            match self.take_frame()? {
                Taken::Nothing => return Ok(()),
                Taken::Whole => {}
                Taken::Waits(work) => work.await,
            }
            if self.large_asked >= LARGE_ASKED_MAX {
                self.large_asked = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    /// Hands on the next frame in the buffer, if all of it is there.
    fn take_frame(&mut self) -> Result<Taken<'_>, ReadEnd> {
        let before = self.buffer.bytes.len();
        let decoded = decode(&mut self.buffer.bytes, &self.limits);
        let taken = before - self.buffer.bytes.len();
        match decoded {
            Ok(None) => {
                self.buffer.let_go();
                Ok(Taken::Nothing)
            }
            Ok(Some(frame)) if !is_request(&frame) => {
                self.gate.frame_ignored();
                Ok(Taken::Whole)
            }
            Ok(Some(frame)) => {
                self.last_frame_bytes = taken;
                let bytes = u32::try_from(taken).unwrap_or(u32::MAX);
                self.gate.request_taken(bytes);
                self.metrics.request(frame.head.opcode);
                let reply = ReplyTo::new(frame.head, bytes, self.replies.clone());
                self.large_asked += u32::from(has_large_reply(frame.head.opcode));
                match read_request(frame, self.gate.is_greeted()) {
                    Ok(request) => {
                        let work = self.dispatcher.dispatch(request, reply, &self.gate);
                        Ok(work.map_or(Taken::Whole, Taken::Waits))
                    }
                    Err(error) => {
                        reply.error(error);
                        Ok(Taken::Whole)
                    }
                }
            }
            Err(error) => {
                self.refuse(&error)?;
                Ok(Taken::Whole)
            }
        }
    }

    /// Answers a frame that cannot be read; goes on behind it where that is possible.
    fn refuse(&mut self, error: &FrameError) -> Result<(), ReadEnd> {
        self.metrics.frame_refused();
        let mut bytes = BytesMut::new();
        error.put_reply(&mut bytes);
        let closing = error.is_fatal();
        self.gate.request_taken(0);
        let refused = Outgoing {
            request_bytes: Some(0),
            content: Content::Encoded(bytes.freeze()),
            close_after: closing,
        };
        let _ = self.replies.try_put(refused); // nobody is there when the writer has ended
        if closing { Err(ReadEnd::Broken(error.to_string())) } else { Ok(()) }
    }

    fn say_and_close(&self, bytes: Vec<u8>) {
        let last = Outgoing {
            request_bytes: None,
            content: Content::Encoded(bytes.into()),
            close_after: true,
        };
        let _ = self.replies.try_put(last); // nobody is there when the writer has ended
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn gone(error: &io::Error) -> ReadEnd {
    ReadEnd::PeerGone(error.kind())
}
