//! Where the answer to a request goes, and how it becomes a frame. Pure.
//!
//! A [`ReplyTo`] answers exactly once: dropped unanswered (an actor was rebuilt, or a future of
//! this connection was dropped) it says so to the client, so that no request is left hanging and
//! none stays in the budget.

use bytes::Bytes;
use grus_mailbox::{Dropped, Inbox, Port, Weigh};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{FrameFlags, FrameHead, FrameKind, encode};
use grus_protocol::ids::{QueueId, TimestampMs};
use grus_protocol::message::{
    Deliver, FetchReply, FetchedBatch, GroupDeliver, OffsetRange, ProduceReply, Redelivered, Timer,
};
use serde::Serialize;

use crate::connection::output::Output;
use crate::connection::timeouts::{Claim, Timed};
use crate::dispatch::Readership;
use crate::error::QueueError;
use crate::metrics::Delivery;
use crate::topic_queue::sifting::Marks;
use crate::topic_queue::{self, Fetched, PushTurn, Receipt};

/// How long a client should wait before it asks again when its queue is being rebuilt.
pub(super) const REBUILT_RETRY_AFTER_MS: u32 = 20;

/// What the writer of a connection is handed.
#[derive(Debug)]
pub struct Outgoing {
    /// Bytes of the request this ends, if it ends one.
    pub request_bytes: Option<u32>,
    /// What to write.
    pub content: Content,
    /// Whether the connection is closed behind it.
    pub close_after: bool,
}

impl Weigh for Outgoing {}

/// What an answer carries for a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// How it comes to the reader.
    pub by: Delivery,
    /// Batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records left out, because their time to live is over.
    pub expired_records: u64,
}

/// What to write.
#[derive(Debug)]
pub enum Content {
    /// Nothing: the request wanted no reply.
    Nothing,
    /// Bytes that are ready.
    Encoded(Bytes),
    /// A receipt, and the time from which the delays of what is scheduled count.
    Produced(FrameHead, Receipt, Option<TimestampMs>),
    /// Batches.
    Fetched(FrameHead, Fetched),
    /// An error.
    Error(FrameHead, Box<ErrorReply>),
    /// Batches for a subscription.
    Delivered {
        /// The head of the push.
        head: FrameHead,
        /// The queue.
        queue: QueueId,
        /// The batches.
        fetched: Fetched,
        /// The turn they use up.
        turn: PushTurn,
    },
    /// Batches for a member of a group.
    GroupDelivered {
        /// The head of the push.
        head: FrameHead,
        /// The queue.
        queue: QueueId,
        /// The batches.
        fetched: Fetched,
        /// What of them is for the member.
        marks: Marks,
        /// The turn they use up.
        turn: PushTurn,
    },
    /// The end of a subscription.
    Ended(FrameHead, Box<ErrorReply>),
    /// Nothing to write: a subscription asks for a turn.
    AskTurn(Port<PushTurn>),
}

impl Content {
    /// The error this is, if it is one.
    #[must_use]
    pub fn error_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Error(_, error) | Self::Ended(_, error) => Some(error.code),
            _ => None,
        }
    }

    /// What it carries for a reader.
    #[must_use]
    pub fn given(&self) -> Option<Given> {
        let (by, fetched) = match self {
            Self::Fetched(_, fetched) => (Delivery::Fetch, fetched),
            Self::Delivered { fetched, .. } | Self::GroupDelivered { fetched, .. } => {
                (Delivery::Push, fetched)
            }
            _ => return None,
        };
        let mut given = Given { by, batches: 0, records: 0, bytes: 0, expired_records: 0 };
        for batch in &fetched.batches {
            if batch.is_over() {
                given.expired_records += u64::from(batch.count);
            } else {
                given.batches += 1;
                given.records += u64::from(batch.count);
                given.bytes += batch.bytes.len() as u64;
            }
        }
        Some(given)
    }

    /// Appends the frame to `output`.
    pub fn write_into(self, output: &mut Output) {
        match self {
            Self::Nothing | Self::AskTurn(_) => {}
            Self::Encoded(bytes) => output.push(bytes),
            Self::Produced(head, receipt, delays_from) => {
                let header = ProduceReply {
                    base_offset: receipt.base_offset,
                    term: receipt.term,
                    stored: receipt.stored,
                    durability: receipt.durability,
                    duplicate: receipt.duplicate,
                    timer: receipt.timer.map(|id| Timer { index: id.index, place: id.place }),
                    delays_from: delays_from.filter(|_| !receipt.duplicate),
                };
                write_frame(output, head, &header, 0);
            }
            Self::Fetched(head, fetched) => write_fetched(output, head, fetched),
            Self::Error(head, error) => {
                write_frame(output, head.error_reply(), &*error, 0);
            }
            Self::Ended(head, error) => {
                write_frame(output, head, &*error, 0);
            }
            Self::GroupDelivered { head, queue, fetched, marks, turn } => {
                write_group_delivered(output, head, queue, (fetched, marks));
                drop(turn); // in the output now, which counts it
            }
            Self::Delivered { head, queue, fetched, turn } => {
                write_delivered(output, head, queue, fetched);
                drop(turn); // in the output now, which counts it
            }
        }
    }
}

fn write_fetched(output: &mut Output, head: FrameHead, fetched: Fetched) {
    let Fetched { log_start, end_offset, .. } = fetched;
    let header = FetchReply { log_start, end_offset, batches: heads(&fetched) };
    write_batches(output, head, &header, fetched);
}

fn write_delivered(output: &mut Output, head: FrameHead, queue: QueueId, fetched: Fetched) {
    let Fetched { log_start, end_offset, .. } = fetched;
    let header = Deliver { queue, log_start, end_offset, batches: heads(&fetched) };
    write_batches(output, head, &header, fetched);
}

fn write_group_delivered(
    output: &mut Output,
    head: FrameHead,
    queue: QueueId,
    (fetched, marks): (Fetched, Marks),
) {
    let Fetched { log_start, end_offset, .. } = fetched;
    let skipped = marks.skipped.iter().map(|span| OffsetRange { from: span.from, to: span.to });
    let redelivered = marks.again.iter().map(|again| Redelivered {
        from: again.span.from,
        to: again.span.to,
        deliveries: again.deliveries,
    });
    let header = GroupDeliver {
        queue,
        log_start,
        end_offset,
        batches: heads(&fetched),
        skipped: skipped.collect(),
        redelivered: redelivered.collect(),
    };
    write_batches(output, head, &header, fetched);
}

fn heads(fetched: &Fetched) -> Vec<FetchedBatch> {
    let head = |batch: &topic_queue::FetchedBatch| FetchedBatch {
        base_offset: batch.base_offset,
        term: batch.term,
        stored: batch.stored,
        length: u32::try_from(batch.bytes.len()).expect("a batch has at most 4 GiB"),
        expired: if batch.is_over() { batch.count } else { 0 },
    };
    fetched.batches.iter().map(head).collect()
}

fn write_batches(output: &mut Output, head: FrameHead, header: &impl Serialize, fetched: Fetched) {
    let body_bytes = fetched.batches.iter().map(|batch| batch.bytes.len()).sum();
    if write_frame(output, head, header, body_bytes) {
        for batch in fetched.batches {
            output.push(batch.bytes);
        }
    }
}

/// Appends the head and header of a reply or push; an error instead when it cannot be encoded.
/// Says whether the body is to follow.
fn write_frame(
    output: &mut Output,
    request: FrameHead,
    header: &impl Serialize,
    body_bytes: usize,
) -> bool {
    let head = match request.kind {
        FrameKind::Request if !request.is_error() => request.reply(),
        _ => request,
    };
    let Err(failure) = output.encode(|buffer| encode(head, header, body_bytes, buffer)) else {
        return true;
    };
    let error = ErrorReply::new(ErrorCode::Internal, failure.to_string());
    let failed = match head.kind {
        FrameKind::Push => FrameHead { flags: FrameFlags::ERROR, ..head },
        _ => request.error_reply(),
    };
    let written = output.encode(|buffer| encode(failed, &error, 0, buffer));
    assert!(written.is_ok(), "an error reply always encodes");
    false
}

/// Answers one request, once.
#[derive(Debug)]
pub struct ReplyTo {
    head: FrameHead,
    request_bytes: u32,
    writer: Option<Inbox<Outgoing>>,
    /// Where the clock may answer instead.
    claim: Option<Claim>,
}

impl ReplyTo {
    /// The way back for the request with `head`, which took `request_bytes` of the budget.
    #[must_use]
    pub fn new(head: FrameHead, request_bytes: u32, writer: Inbox<Outgoing>) -> Self {
        Self { head, request_bytes, writer: Some(writer), claim: None }
    }

    /// The same request for the one who watches the clock, to be answered by `deadline_ms`.
    pub fn timed(&mut self, deadline_ms: u64) -> Timed {
        let claim = self.claim.get_or_insert_default().clone();
        Timed { deadline_ms, head: self.head, request_bytes: self.request_bytes, claim }
    }

    /// By which its client knows the reply.
    #[must_use]
    pub fn correlation(&self) -> u64 {
        self.head.correlation
    }

    /// Answers with a header and no body.
    pub fn header(self, header: &impl Serialize) {
        let mut output = Output::new();
        let written = output.encode(|buffer| encode(self.head.reply(), header, 0, buffer));
        match written {
            Ok(()) => self.send(Content::Encoded(output.into_bytes()), false),
            Err(error) => self.error(ErrorReply::new(ErrorCode::Internal, error.to_string())),
        }
    }

    /// Answers with a header and a body. Copies the body.
    pub fn with_body(self, header: &impl Serialize, body: &[Bytes]) {
        let mut output = Output::new();
        let body_bytes = body.iter().map(Bytes::len).sum();
        let written = output.encode(|buffer| {
            let written = encode(self.head.reply(), header, body_bytes, buffer);
            for piece in body {
                buffer.extend_from_slice(piece);
            }
            written
        });
        match written {
            Ok(()) => self.send(Content::Encoded(output.into_bytes()), false),
            Err(error) => self.error(ErrorReply::new(ErrorCode::Internal, error.to_string())),
        }
    }

    /// Answers with a header, or with an error.
    pub fn result<T: Serialize>(self, result: Result<T, ErrorReply>) {
        match result {
            Ok(header) => self.header(&header),
            Err(error) => self.error(error),
        }
    }

    /// Answers with an error; the connection is closed behind it if its code says so.
    pub fn error(self, error: ErrorReply) {
        let close_after = error.code.closes_connection();
        let head = self.head;
        self.send(Content::Error(head, Box::new(error)), close_after);
    }

    /// A port for a queue's answer to a Produce; of what is scheduled, with the time from which its
    /// delays count.
    #[must_use]
    pub fn produced(self, delays_from: Option<TimestampMs>) -> Port<Result<Receipt, QueueError>> {
        self.queue_port(move |head, receipt| Content::Produced(head, receipt, delays_from))
    }

    /// A port for a queue's answer to a Fetch by such a client.
    #[must_use]
    pub fn fetched(self, readership: Readership) -> Port<Result<Fetched, QueueError>> {
        let gone = self.gone();
        Port::call_unless(gone, move |answered: Result<Result<Fetched, QueueError>, Dropped>| {
            match answered {
                Ok(Ok(fetched)) => match readership.given(fetched) {
                    Ok(fetched) => {
                        let head = self.head;
                        self.send(Content::Fetched(head, fetched), false);
                    }
                    Err(error) => self.error(error),
                },
                Ok(Err(error)) => self.error(error.to_reply()),
                Err(Dropped) => drop(self),
            }
        })
    }

    /// A port for an answer that becomes a header.
    #[must_use]
    pub fn port<T: Send + 'static, H: Serialize>(
        self,
        answer: impl FnOnce(T) -> Result<H, ErrorReply> + Send + 'static,
    ) -> Port<T> {
        Port::call(move |answered: Result<T, Dropped>| {
            if let Ok(value) = answered {
                self.result(answer(value));
            }
        })
    }

    /// Tells whether the connection has ended.
    fn gone(&self) -> impl Fn() -> bool + Send + use<> {
        let writer = self.writer.clone();
        move || writer.as_ref().is_none_or(Inbox::is_stopped)
    }

    fn queue_port<T: Send + 'static>(
        self,
        content: impl FnOnce(FrameHead, T) -> Content + Send + 'static,
    ) -> Port<Result<T, QueueError>> {
        Port::call(move |answered: Result<Result<T, QueueError>, Dropped>| match answered {
            Ok(Ok(value)) => {
                let head = self.head;
                self.send(content(head, value), false);
            }
            Ok(Err(error)) => self.error(error.to_reply()),
            Err(Dropped) => drop(self),
        })
    }

    fn send(mut self, content: Content, close_after: bool) {
        self.put(content, close_after);
    }

    fn put(&mut self, content: Content, close_after: bool) {
        let Some(writer) = self.writer.take() else { return };
        if self.claim.as_ref().is_some_and(|claim| !claim.take()) {
            return; // too late: the clock has answered
        }
        let unwanted = self.head.wants_no_reply();
        let outgoing = Outgoing {
            request_bytes: Some(self.request_bytes),
            content: if unwanted { Content::Nothing } else { content },
            close_after,
        };
        if let Err(refused) = writer.try_put(outgoing)
            && refused.is_full()
        {
            // No panic here: it would be that of the actor that answers.
            tracing::error!("a bug: more replies than the budget lets in requests");
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.writer.is_none() {
            return; // answered
        }
        let error = ErrorReply::new(
            ErrorCode::Unavailable,
            "the queue did not answer: it has no room, or is being rebuilt",
        )
        .with_retry_after_ms(REBUILT_RETRY_AFTER_MS);
        let head = self.head;
        self.put(Content::Error(head, Box::new(error)), false);
    }
}
