//! A subscription's way from a queue to a member, which may be cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use grus_broker::commands::groups::Span;
use grus_broker::topic_queue::sifting::Marks;
use grus_broker::topic_queue::{Fetched, FetchedBatch, PushTurn, Subscriber, SubscriptionKey};
use grus_mailbox::Port;
use grus_protocol::batch::RecordBatch;
use grus_protocol::error::{ErrorCode, ErrorReply};
use grus_protocol::limits::BatchLimits;
use tokio::sync::mpsc::UnboundedSender;

use super::facts::{Fact, Holder, Scribe};
use super::member::Heard;
use crate::later::number_of;

/// What its queues send it.
pub(super) enum Push {
    /// Which word of the leaders it is, besides.
    Messages(Vec<(u64, u32)>, u64),
    End(ErrorCode),
}

/// A subscription's way to the member.
pub(super) struct Wire {
    pub(super) by: Holder,
    pub(super) key: SubscriptionKey,
    pub(super) scribe: Scribe,
    pub(super) is_cut: Arc<AtomicBool>,
    pub(super) to: UnboundedSender<Heard>,
}

impl Wire {
    fn push(&self, push: Push) {
        if !self.is_cut.load(Relaxed) {
            let _ = self.to.send(Heard::Pushed(self.by, self.key, push)); // it is dead
        }
    }
}

impl Subscriber for Wire {
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

    fn deliver_group(&self, fetched: Fetched, marks: Marks, _turn: PushTurn) {
        let messages = messages(&fetched, &marks);
        self.scribe.note(Fact::Delivered { by: self.by, messages: messages.clone() });
        self.push(Push::Messages(messages, self.scribe.next_word()));
    }

    fn end(self: Box<Self>, error: ErrorReply) {
        self.push(Push::End(error.code));
    }

    fn dismiss(self: Box<Self>) {}

    fn is_gone(&self) -> bool {
        self.is_cut.load(Relaxed) || self.to.is_closed()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.push(Push::End(ErrorCode::Unavailable)); // what was told before counts
    }
}

/// What of batches is for the member: offset and deliveries before. Each is whole.
pub(crate) fn messages(fetched: &Fetched, marks: &Marks) -> Vec<(u64, u32)> {
    let holds = |span: &Span, at: u64| (span.from.0..span.to.0).contains(&at);
    let mut all = Vec::new();
    for batch in &fetched.batches {
        let records = RecordBatch::check(batch.bytes.clone(), &BatchLimits::FORMAT).unwrap();
        for (record, at) in records.records().zip(batch.base_offset.0..) {
            number_of(&record.unwrap().body_bytes());
            if !marks.skipped.iter().any(|span| holds(span, at)) {
                let before = marks.again.iter().find(|again| holds(&again.span, at));
                all.push((at, before.map_or(0, |again| again.deliveries)));
            }
        }
    }
    all
}
