//! The writing half of a connection.

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

/// Writes replies until nobody can send any more, one closes the connection, or the peer is gone.
pub struct Writer {
    stream: OwnedWriteHalf,
    replies: Outlet<Outgoing>,
    gate: Rc<Gate>,
    metrics: EdgeMetrics,
    output: Output,
    /// Bytes of the requests that are over once `output` is written.
    ended: Vec<u32>,
    turns: Turns,
    closing: bool,
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
            ended: Vec::new(),
            turns: Turns::default(),
            closing: false,
        }
    }

    /// Runs until the end of the connection; whether it ended with a reply that closes it.
    ///
    /// # Errors
    /// When the peer is gone.
    pub async fn run(mut self) -> io::Result<bool> {
        while !self.closing {
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
            self.ended.extend(reply.request_bytes);
            self.closing = reply.close_after;
            match reply.content {
                Content::AskTurn(turn) => self.turns.ask(turn),
                content => content.write_into(&mut self.output),
            }
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
                    self.metrics.bytes_written(written as u64);
                    self.gate.output_is(self.output.bytes(), written as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for bytes in self.ended.drain(..) {
            self.gate.request_over(bytes);
        }
        self.gate.output_is(0, 0); // wakes the reader if it waits for room
        Ok(())
    }

    fn write_some(&mut self) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = self.output.slices(&mut slices);
        self.stream.try_write_vectored(&slices[..count])
    }
}
