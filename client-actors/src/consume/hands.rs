//! What a program has taken and not handed out yet: queue by queue in turn, each in order.

use std::collections::VecDeque;
use std::sync::Arc;

use grus_protocol::message::OffsetRange;
use grus_protocol::{Offset, Record};

use super::batch::HandedBatch;
use super::message::{AnswerDoors, Consumed, Outcome, Ticket};
use crate::consumer::{HandItem, Verdict};
use crate::read::{Delivered, READ_LIMITS};

/// An item, and what is left of it.
struct Opened {
    item: HandItem,
    /// None: not looked at yet.
    messages: Option<VecDeque<(Offset, Record)>>,
}

/// See the module documentation.
#[derive(Default)]
pub(super) struct Hands {
    /// By slot; the first one's turn is next.
    queues: VecDeque<(u64, VecDeque<Opened>)>,
}

impl Hands {
    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// These were taken.
    pub(super) fn add(&mut self, items: Vec<HandItem>) {
        for item in items {
            let slot = item.slot;
            let opened = Opened { item, messages: None };
            match self.queues.iter_mut().find(|(known, _)| *known == slot) {
                Some((_, queue)) => queue.push_back(opened),
                None => self.queues.push_back((slot, VecDeque::from([opened]))),
            }
        }
    }

    /// The next message to hand out. Those of claims that are over are given back.
    pub(super) fn pop(&mut self, doors: &Arc<AnswerDoors>) -> Option<(Consumed, Ticket)> {
        while let Some((slot, mut queue)) = self.queues.pop_front() {
            let Some(mut opened) = queue.pop_front() else { continue };
            let next = if opened.item.claim.is_over() {
                opened.give_back(doors);
                None
            } else {
                let next = opened.pop(doors);
                if opened.messages.as_ref().is_some_and(|left| !left.is_empty()) {
                    queue.push_front(opened);
                }
                next
            };
            if !queue.is_empty() {
                self.queues.push_back((slot, queue));
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// The next messages to hand out, as many of them as lie in one batch.
    pub(super) fn pop_batch(&mut self, doors: &Arc<AnswerDoors>) -> Option<HandedBatch> {
        while let Some((slot, mut queue)) = self.queues.pop_front() {
            let Some(opened) = queue.pop_front() else { continue };
            if !queue.is_empty() {
                self.queues.push_back((slot, queue));
            }
            if opened.item.claim.is_over() {
                opened.give_back(doors);
            } else if let Some(batch) = HandedBatch::new(opened.rest(), Arc::clone(doors)) {
                return Some(batch);
            }
        }
        None
    }

    /// Gives everything back.
    pub(super) fn give_back(&mut self, doors: &Arc<AnswerDoors>) {
        for (_, queue) in self.queues.drain(..) {
            for opened in queue {
                opened.give_back(doors);
            }
        }
    }
}

impl Opened {
    fn ticket(&self, doors: &Arc<AnswerDoors>, offset: Offset) -> Ticket {
        let (slot, item) = (self.item.slot, self.item.number);
        Ticket { doors: Arc::clone(doors), slot, item, offset }
    }

    fn pop(&mut self, doors: &Arc<AnswerDoors>) -> Option<(Consumed, Ticket)> {
        if self.messages.is_none() {
            self.messages = Some(self.open(doors));
        }
        let (offset, record) = self.messages.as_mut()?.pop_front()?;
        let item = &self.item;
        let at = (item.queue, offset);
        let message = Delivered::new(item.topic.clone(), at, item.stored, record);
        let consumed = Consumed::new(message, item.deliveries(offset));
        Some((consumed, self.ticket(doors, offset)))
    }

    /// Reads the messages. Those that cannot be read fail: in the end they are dead letters, and
    /// somebody looks at them.
    fn open(&self, doors: &Arc<AnswerDoors>) -> VecDeque<(Offset, Record)> {
        let item = &self.item;
        let mut messages = VecDeque::new();
        let mut reason = "the record cannot be read".to_owned();
        match item.batch.clone().decompressed(&READ_LIMITS) {
            Ok(batch) => {
                let offsets = (item.base_offset.0..).map(Offset);
                let sound = batch.records().map_while(Result::ok);
                let wanted = |offset: Offset| item.wanted.iter().any(|one| one.contains(offset));
                messages.extend(offsets.zip(sound).filter(|(offset, _)| wanted(*offset)));
            }
            Err(error) => reason = error.to_string(),
        }
        let read_to = messages.back().map_or(item.base_offset.0, |(offset, _)| offset.0 + 1);
        for range in &item.wanted {
            for offset in range.from.0.max(read_to)..range.to.0 {
                let failed = Outcome::Nack(reason.clone()).verdict();
                self.ticket(doors, Offset(offset)).settle(failed, None);
            }
        }
        messages
    }

    /// What is left of it, as an item.
    fn rest(self) -> HandItem {
        let Self { mut item, messages } = self;
        if let Some(messages) = messages {
            item.wanted.clear();
            for (offset, _) in messages {
                match item.wanted.last_mut() {
                    Some(range) if range.to == offset => range.to = Offset(offset.0 + 1),
                    _ => item.wanted.push(OffsetRange::one(offset)),
                }
            }
        }
        item
    }

    fn give_back(self, doors: &Arc<AnswerDoors>) {
        let unhandled = |offset| self.ticket(doors, offset).settle(Verdict::Unhandled, None);
        if let Some(messages) = &self.messages {
            messages.iter().map(|(offset, _)| *offset).for_each(unhandled);
        } else {
            let offsets = self.item.wanted.iter().flat_map(OffsetRange::numbers);
            offsets.map(Offset).for_each(unhandled);
        }
    }
}
