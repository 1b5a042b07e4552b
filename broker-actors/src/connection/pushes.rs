//! Where what is pushed goes: one subscription's way to the writer of its connection. Pure.
//!
//! All of it takes the same way as the replies, so that what is delivered follows the reply of the
//! Subscribe or Seek it belongs to.

use std::sync::Arc;

use grus_mailbox::{Inbox, Port};
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::frame::{FrameFlags, FrameHead};
use grus_protocol::ids::{QueueId, SubscriptionId};
use grus_protocol::opcode::Opcode;

use super::replies::{Content, Outgoing, REBUILT_RETRY_AFTER_MS};
use crate::dispatch::Readership;
use crate::topic_queue::sifting::Marks;
use crate::topic_queue::{Fetched, FetchedBatch, PushTurn, Subscriber};

/// Most subscriptions of one connection.
pub const SUBSCRIPTIONS_MAX: usize = 16_384;
/// Messages that one subscription may have on the way to the writer: a question for a turn, a
/// frame, its end.
pub const OUTGOING_EACH_MAX: u32 = 3;

/// One subscription's way to the writer.
#[derive(Debug)]
pub struct PushSink {
    id: SubscriptionId,
    queue: QueueId,
    /// Of its pushes.
    opcode: Opcode,
    /// None once its end was told.
    writer: Option<Inbox<Outgoing>>,
    readership: Readership,
    _lives: Lives,
}

/// Signs of life that a subscription holds.
#[derive(Debug)]
pub struct Lives {
    /// Held as long as the subscription lives.
    pub subscription: Arc<()>,
    /// Held as long as any subscription of the connection lives: its address is the connection's
    /// number.
    pub connection: Arc<()>,
}

impl PushSink {
    /// The way of subscription `id` of `queue` over `writer`, by pushes of this opcode.
    #[must_use]
    pub fn new(
        (id, queue): (SubscriptionId, QueueId),
        opcode: Opcode,
        writer: Inbox<Outgoing>,
        readership: Readership,
        lives: Lives,
    ) -> Self {
        Self { id, queue, opcode, writer: Some(writer), readership, _lives: lives }
    }

    fn head(&self) -> FrameHead {
        FrameHead::push(self.opcode, self.id.0)
    }

    fn put(&self, content: Content) {
        let Some(writer) = &self.writer else { return };
        let outgoing = Outgoing { request_bytes: None, content, close_after: false };
        if let Err(refused) = writer.try_put(outgoing)
            && refused.is_full()
            && !matches!(refused.into_message().content, Content::AskTurn(_))
        {
            // No panic here: it would be that of the queue.
            tracing::error!("a bug: more pushes than subscriptions may have on their way");
        }
    }

    fn tell_end(&mut self, error: ErrorReply) {
        let head = self.head();
        let over = FrameHead { flags: FrameFlags::ERROR, ..head };
        self.put(Content::Ended(over, Box::new(error)));
        self.writer = None;
    }
}

impl Subscriber for PushSink {
    fn ask_turn(&self, turn: Port<PushTurn>) {
        self.put(Content::AskTurn(turn)); // no room: the port is dropped, which says so
    }

    fn deliver(&self, fetched: Fetched, turn: PushTurn) {
        self.put(Content::Delivered { head: self.head(), queue: self.queue, fetched, turn });
    }

    fn deliver_group(&self, fetched: Fetched, marks: Marks, turn: PushTurn) {
        let (head, queue) = (self.head(), self.queue);
        self.put(Content::GroupDelivered { head, queue, fetched, marks, turn });
    }

    fn readable(
        &self,
        fetched: Fetched,
        in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Fetched, ErrorReply> {
        self.readership.given_but(fetched, in_hands)
    }

    fn end(mut self: Box<Self>, error: ErrorReply) {
        self.tell_end(error);
    }

    fn dismiss(mut self: Box<Self>) {
        self.writer = None;
    }

    fn is_gone(&self) -> bool {
        self.writer.as_ref().is_none_or(Inbox::is_stopped)
    }
}

impl Drop for PushSink {
    fn drop(&mut self) {
        if self.writer.is_some() {
            let text = "the queue is being rebuilt: subscribe again";
            let error = ErrorReply::new(ErrorCode::Unavailable, text)
                .with_retry_after_ms(REBUILT_RETRY_AFTER_MS);
            self.tell_end(error);
        }
    }
}
