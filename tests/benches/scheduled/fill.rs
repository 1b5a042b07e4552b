//! Sends many batches over one connection, many of them on their way at once.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use grus_protocol::ErrorReply;
use grus_protocol::batch::{BatchBuilder, NewRecord};
use grus_protocol::ids::{MessageId, TimestampMs};
use grus_protocol::limits::BatchLimits;
use grus_protocol::message::Produce;
use grus_tests::calm::{produce, wait_until};
use grus_tests::hostile::{Peer, framed};
use grus_tests::watch::Watch;

use crate::TOPIC;
use crate::options::Options;

/// Batches that may be on their way.
const IN_FLIGHT: u64 = 64;
/// A body begins with its due time, or with the number of its message.
const BODY_BYTES_MIN: usize = 8;

/// What is sent.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) topic: &'static str,
    pub(crate) messages: u64,
    pub(crate) batch: u64,
    pub(crate) body_bytes: usize,
    /// Bytes of batches a second; none: as fast as receipts come.
    pub(crate) bytes_per_s: Option<u64>,
}

impl Load {
    /// What `--messages`, `--batch` and `--size` say.
    pub(crate) fn of(options: &Options, messages: u64, size: &str, batch: u64) -> Self {
        Self {
            topic: TOPIC,
            messages: options.number("messages", messages),
            batch: options.number("batch", batch).max(1),
            body_bytes: options.bytes("size", size).max(BODY_BYTES_MIN),
            bytes_per_s: None,
        }
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filled {
    /// Bytes of the batches.
    pub(crate) bytes: u64,
    /// Until the last receipt.
    pub(crate) time: Duration,
}

struct Lane {
    peer: Peer,
    request: Produce,
    sent: u64,
    answered: u64,
}

impl Lane {
    fn send(&mut self, batch: &[u8]) {
        if self.sent - self.answered >= IN_FLIGHT {
            self.take_receipt();
        }
        self.sent += 1;
        self.peer.send(&framed(self.sent, &self.request, batch));
    }

    fn take_receipt(&mut self) {
        let frame = self.peer.frame().expect("a broker that goes on");
        self.answered += 1;
        assert_eq!(frame.head.correlation, self.answered, "answers come in order");
        let refused = frame.head.is_error().then(|| frame.header::<ErrorReply>());
        assert!(refused.is_none(), "batch {}: {refused:?}", self.answered);
    }
}

/// Sends `load`; `due` gives the due time of each message by its number, none: it is not scheduled.
pub(crate) fn fill(at: SocketAddr, load: &Load, due: impl Fn(u64) -> Option<u64>) -> Filled {
    let request = produce(load.topic);
    let mut lane = Lane { peer: Peer::greeted(at), request, sent: 0, answered: 0 };
    let watch = Watch::start();
    let (mut first, mut bytes) = (0, 0);
    while first < load.messages {
        let end = (first + load.batch).min(load.messages);
        let batch = batch(first..end, load.body_bytes, &due);
        first = end;
        bytes += batch.len() as u64;
        lane.send(&batch);
        if let Some(rate) = load.bytes_per_s {
            wait_until(&watch, Duration::from_micros(bytes * 1_000_000 / rate.max(1)));
        }
    }
    while lane.answered < lane.sent {
        lane.take_receipt();
    }
    Filled { bytes, time: watch.elapsed() }
}

fn batch(numbers: std::ops::Range<u64>, bytes: usize, due: impl Fn(u64) -> Option<u64>) -> Bytes {
    let mut builder = BatchBuilder::new(BatchLimits::PRODUCE);
    for number in numbers {
        let due = due(number);
        let mut body = BytesMut::with_capacity(bytes);
        body.put_u64_le(due.unwrap_or(number));
        body.resize(bytes, 7);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&number.to_le_bytes());
        let born = TimestampMs(1_000);
        let record = NewRecord::new(MessageId::from_parts(born, &random), born, body.freeze());
        let record = NewRecord { deliver_at: due.map(TimestampMs), ..record };
        builder.push(&record).expect("a batch within the limits: a smaller --batch");
    }
    builder.finish()
}
