//! The writing half of a connection.
//!
//! While the peer takes nothing, replies that become ready are taken in all the same: what waits for
//! the peer is then known in whole, and the connection is not read any further once it is too much.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use grus_mailbox::Outlet;
use tokio::net::tcp::OwnedWriteHalf;

use crate::connection::output::{Output, SLICES_MAX};
use crate::connection::replies::{Content, Outgoing};
use crate::metrics::EdgeMetrics;
use crate::socket::Gate;
use crate::socket::turns::Turns;

/// Bytes after which no more replies are gathered before the next write.
const GATHER_BYTES_MAX: u64 = 1 << 20;
/// Most room kept for requests that wait for their replies to be written, once there is none.
const KEPT_ENDED_MAX: usize = 16;

/// Writes replies until nobody can send any more, one closes the connection, or the peer is gone.
pub struct Writer {
    stream: OwnedWriteHalf,
    replies: Outlet<Outgoing>,
    gate: Rc<Gate>,
    metrics: EdgeMetrics,
    output: Output,
    /// Requests that are over once so many bytes in all are written, with the bytes they took.
    ended: VecDeque<(u64, u32)>,
    written: u64,
    turns: Turns,
    closing: bool,
    /// Nobody can reply any more.
    is_last: bool,
}

impl Writer {
    /// The writing half of a connection.
    pub fn new(
        stream: OwnedWriteHalf,
        replies: Outlet<Outgoing>,
        gate: Rc<Gate>,
        metrics: EdgeMetrics,
    ) -> Self {
        Self {
            stream,
            replies,
            gate,
            metrics,
            output: Output::new(),
            ended: VecDeque::new(),
            written: 0,
            turns: Turns::default(),
            closing: false,
            is_last: false,
        }
    }

    /// Runs until the end of the connection; whether it ended with a reply that closes it.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn run(&mut self) -> io::Result<bool> {
        while !self.closing && !self.is_last {
            tokio::select! {
                next = self.replies.take() => {
                    let Some((reply, _credit)) = next else { break };
                    self.gather(reply);
                    self.turns.give(self.output.bytes()); // to be used while this is written
                    self.flush().await?;
                }
                () = self.turns.returned(), if self.turns.is_asked() => {}
            }
            self.turns.give(0);
        }
        Ok(self.closing)
    }

    /// Takes `first` and what else is ready.
    fn gather(&mut self, first: Outgoing) {
        let mut next = Some(first);
        while let Some(reply) = next {
            if let Some(code) = reply.content.error_code() {
                self.metrics.error_sent(code);
            }
            if let Some(given) = reply.content.given() {
                self.metrics.batches_given(given);
            }
            self.closing = reply.close_after;
            match reply.content {
                Content::AskTurn(turn) => self.turns.ask(turn),
                content => content.write_into(&mut self.output),
            }
            let end = self.written + self.output.bytes();
            self.ended.extend(reply.request_bytes.map(|bytes| (end, bytes)));
            if self.closing || self.output.bytes() >= GATHER_BYTES_MAX {
                return;
            }
            next = self.replies.try_take().map(|(reply, _credit)| reply);
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.gate.output_is(self.output.bytes(), 0);
        while !self.output.is_empty() {
            match self.write_some() {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.output.advance(written);
                    self.written += written as u64;
                    self.metrics.bytes_written(written as u64);
                    self.end_requests();
                    self.gate.output_is(self.output.bytes(), written as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait().await?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.end_requests(); // those that wanted no reply
        self.gate.output_is(0, 0); // wakes the reader if it waits for room
        Ok(())
    }

    /// Waits until the peer takes more, or there is another reply, which joins the others.
    async fn wait(&mut self) -> io::Result<()> {
        tokio::select! {
            biased;
            ready = self.stream.writable() => ready,
            next = self.replies.take(), if !self.closing && !self.is_last => {
                match next {
                    Some((reply, _credit)) => self.gather(reply),
                    None => self.is_last = true,
                }
                self.gate.output_is(self.output.bytes(), 0);
                Ok(())
            }
        }
    }

    /// Gives the room of requests back whose replies are written.
    fn end_requests(&mut self) {
        while let Some((_, bytes)) = self.ended.pop_front_if(|(end, _)| *end <= self.written) {
            self.gate.request_over(bytes);
        }
        if self.ended.is_empty() && self.ended.capacity() > KEPT_ENDED_MAX {
            self.ended = VecDeque::new();
        }
    }

    fn write_some(&mut self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.output.slices(&mut slices);
        self.stream.try_write_vectored(&slices[..count])
    }
}
