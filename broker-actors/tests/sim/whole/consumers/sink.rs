//! The way from a queue to a member, as bytes.

use bytes::BytesMut;
use grus_broker::connection::output::Output;
use grus_broker::connection::replies::Content;
use grus_broker::topic_queue::sifting::Marks;
use grus_broker::topic_queue::{Fetched, FetchedBatch, PushTurn, Subscriber};
use grus_mailbox::Port;
use grus_protocol::frame::{FrameFlags, FrameHead};
use grus_protocol::ids::QueueId;
use grus_protocol::{ErrorCode, ErrorReply};
use tokio::sync::mpsc::UnboundedSender;

use super::super::lines::Back;
use super::{Event, opened};
use crate::groups::facts::{Fact, Holder, Scribe};
use crate::groups::wire::messages;

/// What a queue sends a member, as bytes.
pub(super) struct Sink {
    pub(super) by: Holder,
    pub(super) head: FrameHead,
    pub(super) queue: QueueId,
    pub(super) scribe: Scribe,
    pub(super) back: Option<Back<Event>>,
}

impl Sink {
    fn put(&self, content: Content) {
        let mut output = Output::new();
        content.write_into(&mut output);
        let frame = opened(BytesMut::from(&output.into_bytes()[..]));
        if let Some(back) = &self.back {
            let _ = back.send(Some(Event::Pushed(frame))); // lost meanwhile
        }
    }

    fn tell_end(&mut self, error: ErrorReply) {
        let over = FrameHead { flags: FrameFlags::ERROR, ..self.head };
        self.put(Content::Ended(over, Box::new(error)));
        self.back = None;
    }
}

impl Subscriber for Sink {
    fn ask_turn(&self, turn: Port<PushTurn>) {
        if !self.is_gone() {
            turn.send(PushTurn::new(|| ()));
        }
    }

    fn readable(
        &self,
        fetched: Fetched,
        _in_hands: &dyn Fn(&FetchedBatch) -> bool,
    ) -> Result<Fetched, ErrorReply> {
        Ok(fetched)
    }

    fn deliver(&self, _fetched: Fetched, _turn: PushTurn) {
        panic!("a member is sent by deliver_group");
    }

    fn deliver_group(&self, fetched: Fetched, marks: Marks, turn: PushTurn) {
        let messages = messages(&fetched, &marks);
        self.scribe.note(Fact::Delivered { by: self.by, messages });
        let (head, queue) = (self.head, self.queue);
        self.put(Content::GroupDelivered { head, queue, fetched, marks, turn });
    }

    fn end(mut self: Box<Self>, error: ErrorReply) {
        self.tell_end(error);
    }

    fn dismiss(mut self: Box<Self>) {
        self.back = None;
    }

    fn is_gone(&self) -> bool {
        self.back.as_ref().is_none_or(UnboundedSender::is_closed)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if self.back.is_some() {
            self.tell_end(ErrorReply::new(ErrorCode::Unavailable, "subscribe again"));
        }
    }
}
